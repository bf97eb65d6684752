"""Features: recipes fitted to train rows, as plain numbers; and the rules that read them, in JAX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from wmjax.core.errors import UserError
from wmjax.core.visible import UnitKind
from wmjax.data import scaling
from wmjax.data.calendar import PARTS, STEP_UNIT
from wmjax.data.panel import Panel
from wmjax.data.recipes import (
    Binary,
    Binned,
    Calendar,
    Continuous,
    Cumulative,
    Lag,
    OneHot,
    QuantileBins,
    Recency,
    Recipe,
)
from wmjax.data.schema import Column, Kind

Rule = Literal["onehot", "bins", "value", "zscore", "at_most", "at_least"]
Source = Literal["static", "covariates", "calendar", "lags", "since", "counts"]
NUMERIC: tuple[Kind, ...] = ("binary", "count", "continuous", "currency")
_EVENTS: tuple[Kind, ...] = ("binary", "count", "currency")


@dataclass(frozen=True, kw_only=True)
class Feature:
    """Neighbouring visible units, one group, read by one rule.

    Attributes:
        name: of the group.
        column: of the panel, or the part of the calendar.
        recipe: lower-case name of the recipe it came from, for example `"lag"`.
        unit_kind: of the group.
        labels: one a unit.
        source: the array it is read from.
        indices: where on the last axis of that array.
        rule: `"onehot"` x == 0, 1, ..; `"bins"` the bin between `numbers`, an edge belonging to the bin above;
            `"value"` x; `"zscore"` (x - numbers[0]) / numbers[1]; `"at_most"` x <= numbers; `"at_least"` x >= numbers.
        numbers: fitted or given.
    """

    name: str
    column: str
    recipe: str
    unit_kind: UnitKind
    labels: tuple[str, ...]
    source: Source
    indices: tuple[int, ...]
    rule: Rule
    numbers: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """An action or outcome that the frame's state follows, as `(value - centre) / scale`."""

    column: str
    role: Literal["action", "outcome"]
    index: int
    centre: float = 0.0
    scale: float = 1.0


def _onehot(x: jax.Array, numbers: np.ndarray, size: int) -> jax.Array:
    return x == np.arange(size, dtype=np.float32)


def _bins(x: jax.Array, numbers: np.ndarray, size: int) -> jax.Array:
    return _onehot(jnp.sum(x >= numbers, axis=-1, keepdims=True), numbers, size)


RULES: dict[str, Callable[[jax.Array, np.ndarray, int], jax.Array]] = {
    "onehot": _onehot,
    "bins": _bins,
    "value": lambda x, numbers, size: x,
    "zscore": lambda x, numbers, size: (x - numbers[0]) / numbers[1],
    "at_most": lambda x, numbers, size: x <= numbers,
    "at_least": lambda x, numbers, size: x >= numbers,
}


def read_feature(feature: Feature, sources: dict[str, jax.Array]) -> Float[jax.Array, "u units"]:
    """Read one feature's units from the arrays `[u, k]` of its source."""
    x = sources[feature.source][:, np.array(feature.indices)].astype(jnp.float32)
    size = len(feature.labels)
    units = RULES[feature.rule](x, np.array(feature.numbers, np.float32), size).astype(jnp.float32)
    return jnp.broadcast_to(units, (units.shape[0], size))


def _column(panel: Panel, recipe: Recipe, name: str, roles: tuple[str, ...], kinds: tuple[Kind, ...]) -> Column:
    column = panel.schema.column(name)
    what = type(recipe).__name__
    if column.role not in roles:
        raise UserError(f"{what} of {name!r}: it is {_a(column.role)}, must be {_or(roles)}")
    if column.kind not in kinds:
        raise UserError(f"{what} of {name!r}: it is {column.kind}, must be {_or(kinds)}")
    if column.future == "mediator":
        raise UserError(f"{what} of {name!r}: a mediator is moved by the actions and is never visible")
    if column.role == "covariate" and column.future == "observed":
        raise UserError(
            f"{what} of {name!r}: it is only observed when its period happens, and a belief stands before; declare it "
            'future = "known" if it is set or known ahead'
        )
    return column


def _a(word: str) -> str:
    return f"an {word}" if word[0] in "ao" else f"a {word}"


def _or(words: tuple[str, ...]) -> str:
    return " or ".join(words)


def _train_values(panel: Panel, column: Column, rows: Bool[np.ndarray, "unit time"]) -> Float[np.ndarray, " n"]:
    """Give a column's train values in float64; a static counts once a unit that has a train row."""
    values = panel.values(column.name)
    return values[rows.any(axis=1) if column.role == "static" else rows].astype(np.float64)


def _standard(values: np.ndarray) -> tuple[float, float]:
    scaler = scaling.fit_standard(values[:, None], np.ones(len(values), bool))
    return float(scaler.centre[0]), float(scaler.scale[0])


def _edge32(edges: np.ndarray) -> tuple[float, ...]:
    """Round edges up to float32, so that a float32 value is at or above an edge exactly where it was in float64."""
    low = edges.astype(np.float32)
    up = np.where(low.astype(np.float64) < edges, np.nextafter(low, np.float32(np.inf)), low)
    return tuple(float(e) for e in np.unique(up))


def fit_now(
    recipe: OneHot | Binned | QuantileBins | Binary | Continuous,
    panel: Panel,
    rows: Bool[np.ndarray, "unit time"],
    onehot: UnitKind,
) -> Feature:
    """Fit a recipe that reads a static or covariate of the current period; `onehot` is the kind of one-hot groups."""
    kinds: dict[type, tuple[Kind, ...]] = {OneHot: ("categorical",), Binary: ("binary",)}
    column = _column(panel, recipe, recipe.column, ("static", "covariate"), kinds.get(type(recipe), NUMERIC))
    name, static = column.name, column.role == "static"
    index = panel.schema.names(column.role).index(name)
    kind, rule, numbers, labels = onehot, "bins", (), ()
    if isinstance(recipe, OneHot):
        rule, labels = "onehot", tuple(f"{name}_{level}" for level in panel.levels[name])
    elif isinstance(recipe, Binned):
        numbers, labels = _edge32(np.array(recipe.edges, np.float64)), _ranges(name, recipe.edges)
    elif isinstance(recipe, QuantileBins):
        values = _train_values(panel, column, rows)
        edges = np.unique(np.percentile(values, np.linspace(0, 100, recipe.bins + 1)[1:-1]))
        # An edge at the least value would leave the first bin empty.
        numbers = _edge32(edges[edges > values.min()])
        labels = tuple(f"{name}_q{i + 1}" for i in range(len(numbers) + 1))
    elif isinstance(recipe, Binary):
        kind, rule, labels = "bernoulli", "value", (name,)
    else:
        kind, rule, labels = "gaussian", "zscore", (name,)
        numbers = _standard(_train_values(panel, column, rows))
    return Feature(
        name=f"{name}_bins" if rule == "bins" else name,
        column=name,
        recipe=type(recipe).__name__.lower(),
        unit_kind=kind,
        labels=labels,
        source="static" if static else "covariates",
        indices=(index,),
        rule=rule,
        numbers=numbers,
    )


def _ranges(name: str, edges: tuple[int | float, ...]) -> tuple[str, ...]:
    text = [f"{e:.12g}" for e in edges]
    middle = [f"{name}_{a}_to_{b}" for a, b in pairwise(text)]
    return (f"{name}_below_{text[0]}", *middle, f"{name}_{text[-1]}_up")


def fit_calendar(recipe: Calendar, parts: tuple[str, ...], onehot: UnitKind) -> list[Feature]:
    """Lay out the calendar's parts; `parts` is the order of the codes that `read` is given."""
    out = []
    for part in recipe.parts:
        first = 0 if part == "dow" else 1
        labels = tuple(f"{part}_{i + first}" for i in range(PARTS[part]))
        at = (parts.index(part),)
        out.append(
            Feature(
                name=part,
                column=part,
                recipe="calendar",
                unit_kind=onehot,
                labels=labels,
                source="calendar",
                indices=at,
                rule="onehot",
            )
        )
    return out


def track(panel: Panel, recipe: Lag | Recency | Cumulative, rows: Bool[np.ndarray, "unit time"]) -> list[Tracked]:
    """Find the actions and outcomes that a recipe of the past follows, with the scale of their lags."""
    lag = isinstance(recipe, Lag)
    out = []
    for name in recipe.columns if lag else (recipe.column,):
        column = _column(panel, recipe, name, ("action", "outcome"), NUMERIC if lag else _EVENTS)
        role = "action" if column.role == "action" else "outcome"
        index = panel.schema.names(role).index(name)
        centre, scale = (0.0, 1.0)
        if lag and column.kind != "binary":
            centre, scale = _standard(_train_values(panel, column, rows))
        out.append(Tracked(column=name, role=role, index=index, centre=centre, scale=scale))
    return out


def lag_features(recipe: Lag, panel: Panel, lagged: tuple[Tracked, ...]) -> list[Feature]:
    """Lay out lags: one group `x_lag` for one column, else a group of one unit `x_lag1` for every lag and column."""
    at = {t.column: j for j, t in enumerate(lagged)}
    cells = [(name, k) for k in recipe.lags for name in recipe.columns]
    groups = [[cell] for cell in cells] if len(recipe.columns) > 1 else [cells]
    out = []
    for group in groups:
        name = group[0][0]
        labels = tuple(f"{column}_lag{k}" for column, k in group)
        out.append(
            Feature(
                name=labels[0] if len(recipe.columns) > 1 else f"{name}_lag",
                column=name,
                recipe="lag",
                unit_kind="bernoulli" if panel.schema.column(name).kind == "binary" else "gaussian",
                labels=labels,
                source="lags",
                indices=tuple((k - 1) * len(lagged) + at[column] for column, k in group),
                rule="value",
            )
        )
    return out


def event_feature(recipe: Recency | Cumulative, frequency: str, followed: tuple[Tracked, ...]) -> Feature:
    """Lay out the windows of a recency, or the thresholds of a cumulative count."""
    name = recipe.column
    if isinstance(recipe, Recency):
        numbers = recipe.windows
        labels = tuple(f"{name}_within_{w}{STEP_UNIT[frequency]}" for w in numbers)
        group, source, rule = f"{name}_recency", "since", "at_most"
    else:
        numbers, labels = recipe.thresholds, tuple(f"{name}_cum_{n}plus" for n in recipe.thresholds)
        group, source, rule = f"{name}_cumulative", "counts", "at_least"
    return Feature(
        name=group,
        column=name,
        recipe=type(recipe).__name__.lower(),
        unit_kind="bernoulli",
        labels=labels,
        source=source,
        indices=(next(j for j, t in enumerate(followed) if t.column == name),),
        rule=rule,
        numbers=tuple(float(n) for n in numbers),
    )
