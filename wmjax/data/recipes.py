"""Recipes: what of a panel becomes visible units, said column by column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
from jaxtyping import Bool

from wmjax.data.calendar import PARTS
from wmjax.data.panel import Panel
from wmjax.data.schema import Column


def _whole(name: str, values: tuple[int, ...], least: int) -> None:
    if not values or any(not isinstance(v, int) or v < least for v in values) or list(values) != sorted(set(values)):
        raise ValueError(f"{name} are {values}, must be whole numbers from {least}, rising")


@dataclass(frozen=True)
class OneHot:
    """One unit a level of a categorical static or covariate; exactly one is on."""

    column: str


@dataclass(frozen=True)
class Binned:
    """One unit a bin of a numeric static or covariate: below the first edge, .., from the last edge up (edge included).

    With edges (30, 40): below 30, 30 to under 40, 40 and up.
    """

    column: str
    edges: tuple[int | float, ...]

    def __post_init__(self) -> None:
        if not self.edges or list(self.edges) != sorted(set(self.edges)):
            raise ValueError(f"Binned {self.column!r}: edges are {self.edges}, must be rising")


@dataclass(frozen=True)
class QuantileBins:
    """One unit a quantile bin of a numeric static or covariate.

    Inner edges are `numpy.percentile` over train rows (a static counts once a unit), applied like `numpy.digitize`: an
    edge belongs to the bin above. Edges that coincide are merged.
    """

    column: str
    bins: int = 5

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise ValueError(f"QuantileBins {self.column!r}: bins = {self.bins}, must be 2 or more")


@dataclass(frozen=True)
class Binary:
    """One Bernoulli unit: a binary static or covariate."""

    column: str


@dataclass(frozen=True)
class Continuous:
    """One Gaussian unit: a numeric static or covariate, standardised by mean and deviation of train rows."""

    column: str


@dataclass(frozen=True)
class Calendar:
    """One unit a month (January first), a day of the week (Monday first) or a quarter of the current date."""

    parts: tuple[str, ...] = ("month", "dow")

    def __post_init__(self) -> None:
        unknown = [p for p in self.parts if p not in PARTS]
        if unknown or not self.parts:
            raise ValueError(f"Calendar: parts are {self.parts}, must be among {tuple(PARTS)}")


@dataclass(frozen=True)
class Lag:
    """Earlier values of actions or outcomes: lag k is the value k periods ago.

    Several columns lie side by side within each lag (lag-major): lag 1 of all, then lag 2 of all. Binary columns give
    Bernoulli units, others Gaussian ones, standardised by train rows. A period before the first or not observed is 0,
    which for a Gaussian unit is the train mean.
    """

    columns: str | tuple[str, ...]
    lags: tuple[int, ...] = (1, 2, 3, 4)

    def __post_init__(self) -> None:
        if isinstance(self.columns, str):
            object.__setattr__(self, "columns", (self.columns,))
        _whole(f"Lag {self.columns!r}: lags", self.lags, 1)


@dataclass(frozen=True)
class Recency:
    """One Bernoulli unit a window: was there an event (a value above 0) of an action or outcome lately?

    The count of periods since the last event is taken at the *start* of a period and is 0 right after an event, so the
    unit `since <= window` looks back over `window + 1` periods. It begins at 999, that is "never".
    """

    column: str
    windows: tuple[int, ...]

    def __post_init__(self) -> None:
        _whole(f"Recency {self.column!r}: windows", self.windows, 0)
        if self.windows[-1] >= 999:
            raise ValueError(f"Recency {self.column!r}: window {self.windows[-1]} must be below 999, which means never")


@dataclass(frozen=True)
class Cumulative:
    """One Bernoulli unit a threshold: have there been that many periods with an event (a value above 0) so far?"""

    column: str
    thresholds: tuple[int, ...]

    def __post_init__(self) -> None:
        _whole(f"Cumulative {self.column!r}: thresholds", self.thresholds, 1)


Recipe = OneHot | Binned | QuantileBins | Binary | Continuous | Calendar | Lag | Recency | Cumulative
BY_NAME = {cls.__name__: cls for cls in get_args(Recipe)}

NEARLY = 0.01
"""Share of an action's variance between the units of a period up to which it falls on all of them at once."""
_PARTS = {"daily": ("month", "dow"), "weekly": ("month",), "monthly": ("month",), "step": ()}
_WINDOWS = {"daily": (7, 14, 30), "weekly": (4, 8, 13), "monthly": (3, 6, 12), "step": (4, 8, 16)}
_THRESHOLDS = {"daily": (5, 10, 30), "weekly": (5, 10, 20), "monthly": (3, 6, 12), "step": (5, 10, 20)}


def default_recipes(panel: Panel, train: Bool[np.ndarray, " time"] | None = None) -> tuple[Recipe, ...]:
    """Choose recipes for any panel.

    Statics (levels one-hot, numbers in five quantile bins), the calendar's parts, covariates known ahead likewise (a
    belief stands before the period: what is only observed in it is not read), recency and cumulative counts of binary
    outcomes with windows that suit the calendar, and lags 1 to 4 of every outcome and of every action that is none of
    `common_actions`.

    Args:
        panel: names and kinds of columns are read, and actions in train periods.
        train: the periods that may be looked at; by default all.
    """
    columns, frequency = panel.schema.columns, panel.schema.frequency
    out: list[Recipe] = [_now(c) for c in columns if c.role == "static"]
    if _PARTS[frequency]:
        out.append(Calendar(_PARTS[frequency]))
    out += [_now(c) for c in columns if c.role == "covariate" and c.future == "known"]
    events = [c.name for c in columns if c.role == "outcome" and c.kind == "binary"]
    out += [Recency(name, _WINDOWS[frequency]) for name in events]
    out += [Cumulative(name, _THRESHOLDS[frequency]) for name in events]
    common = common_actions(panel, train)
    own = [name for name in panel.action_names if name not in common]
    return (*out, *(Lag(name) for name in (*panel.outcome_names, *own)))


def common_actions(panel: Panel, train: Bool[np.ndarray, " time"] | None = None) -> dict[str, int]:
    """Find the actions that fall on all units at once: at most `NEARLY` of the variance is between a period's units.

    Periods tell of such an action, not rows: with four lags, a machine takes the luck of some hundred periods for
    after-effects. Periods with two or more observed units are judged, if they hold half of all rows. An action that
    falls on groups of units at once (a store's) is not found.

    Args:
        panel: its actions and mask are read.
        train: the periods that may be looked at; by default all.

    Returns:
        By name, the number of judged periods in which the action is at another level than most often; 0 where it never
        changed.
    """
    seen = panel.arrays.mask & (True if train is None else train)
    judged = seen.sum(0) >= 2
    if judged.sum() < 2 or seen[:, judged].sum() * 2 < seen.sum():
        return {}
    found: dict[str, int] = {}
    weights = seen[:, judged].sum(0)
    for at, name in enumerate(panel.action_names):
        cells = np.where(seen, panel.arrays.actions[..., at], 0)[:, judged].astype(np.float64)
        means = cells.sum(0) / weights
        within = (np.square(cells - means) * seen[:, judged]).sum()
        between = (np.square(means - np.average(means, weights=weights)) * weights).sum()
        if within <= NEARLY * (within + between):
            binary = panel.schema.column(name).kind == "binary"
            levels = np.unique(np.round(means) if binary else means, return_counts=True)[1]
            found[name] = int(levels.sum() - levels.max())
    return found


def _now(column: Column) -> Recipe:
    if column.kind == "categorical":
        return OneHot(column.name)
    return Binary(column.name) if column.kind == "binary" else QuantileBins(column.name)
