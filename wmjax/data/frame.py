"""The frame: from a panel to visible units, by one definition for whole panels and for roll-outs.

`init` / `read` / `advance` is the whole of it: `read` shows the units of a period from what was before it, `advance`
takes in what happened. `build` is their scan over a panel; a roll-out is the same scan with simulated outcomes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from wmjax.core import provenance
from wmjax.core.errors import UserError
from wmjax.core.visible import Visible
from wmjax.data import calendar as calendars
from wmjax.data import features
from wmjax.data.features import Feature, Tracked
from wmjax.data.panel import Panel
from wmjax.data.recipes import BY_NAME, Calendar, Cumulative, Lag, Recency, Recipe

NEVER = 999
_CHUNK_BYTES = 64 * 2**20
AnyArray = jax.Array | np.ndarray


class FrameState(NamedTuple):
    """What a frame remembers at the start of a period.

    Attributes:
        lags: `[u, depth, tracked]` float32, visible values of the last periods, latest first; 0 where unobserved.
        since: `[u, tracked]` int32, whole periods between the last event and this one; 999 and up: never.
        counts: `[u, tracked]` int32, periods with an event so far.
    """

    lags: Float[AnyArray, "u depth tracked"]
    since: Int[AnyArray, "u recent"]
    counts: Int[AnyArray, "u counted"]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Fitted recipes: plain numbers, hashable (a static argument of `jit`), and JSON.

    Attributes:
        recipes: as given.
        units: kind of the one-hot groups.
        frequency: of the panel it was fitted on.
        names: the panel's static, covariate, action and outcome columns.
        levels: of the categorical columns it reads.
        parts: of the calendar, in the order of the codes that `read` takes.
        features: the groups of visible units.
        lagged, recent, counted: what the state follows.
    """

    recipes: tuple[Recipe, ...]
    units: Literal["softmax", "bernoulli"]
    frequency: str
    names: tuple[tuple[str, ...], ...]
    levels: tuple[tuple[str, tuple[str, ...]], ...]
    parts: tuple[str, ...]
    features: tuple[Feature, ...]
    lagged: tuple[Tracked, ...]
    recent: tuple[Tracked, ...]
    counted: tuple[Tracked, ...]

    @cached_property
    def visible(self) -> Visible:
        """The visible layer."""
        return Visible.pack((f.name, f.unit_kind, f.labels) for f in self.features)

    @property
    def depth(self) -> int:
        """The longest lag."""
        return max((k for r in self.recipes if isinstance(r, Lag) for k in r.lags), default=0)

    @cached_property
    def fingerprint(self) -> str:
        return provenance.fingerprint(self.to_json())

    def units_of(self, column: str, recipe: str | None = None) -> Bool[np.ndarray, " v"]:
        """Mark the units of a column (or part of the calendar), of one recipe where named: `"lag"`, `"recency"`, .."""
        hit = [f.column == column and recipe in (None, f.recipe) for f in self.features]
        if not any(hit):
            have = sorted({f"{f.column} ({f.recipe})" for f in self.features})
            raise UserError(f"no visible unit of {column!r}{f' by {recipe}' if recipe else ''}; there are {have}")
        return np.repeat(hit, [len(f.labels) for f in self.features])

    def unit(self, label: str) -> int:
        """Find a unit by its label."""
        if label not in self.visible.labels:
            raise UserError(f"no visible unit {label!r}; there are {list(self.visible.labels)}")
        return self.visible.labels.index(label)

    def calendar(self, times: pd.Index) -> Int[np.ndarray, "time c"]:
        """Give the calendar codes that `read` takes, for any dates."""
        return calendars.codes(times, self.parts)

    def check(self, panel: Panel) -> None:
        """Raise a `UserError` where a panel's columns, levels or frequency are not those of the frame."""
        names = _names(panel)
        for role, ours, theirs in zip(("static", "covariate", "action", "outcome"), self.names, names, strict=True):
            if ours != theirs:
                raise UserError(f"{role} columns are {list(theirs)}, the frame was fitted on {list(ours)}")
        if panel.schema.frequency != self.frequency:
            raise UserError(f"the panel is {panel.schema.frequency}, the frame was fitted on a {self.frequency} one")
        for name, levels in self.levels:
            if panel.levels[name] != levels:
                raise UserError(
                    f"column {name!r} has levels {list(panel.levels[name])}, the frame knows {list(levels)}"
                )

    def to_json(self) -> dict[str, Any]:
        """Give what `core.files.write_json` can hold; floats come back bit by bit."""
        return provenance.to_plain(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Frame:
        """Undo `to_json`."""
        plain = {f.name: _tuples(value[f.name]) for f in fields(cls)}
        plain["recipes"] = tuple(_record(BY_NAME[r["kind"]], r) for r in value["recipes"])
        plain["features"] = tuple(_record(Feature, f) for f in value["features"])
        for name in ("lagged", "recent", "counted"):
            plain[name] = tuple(_record(Tracked, t) for t in value[name])
        return cls(**plain)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _record(cls: type, value: dict[str, Any]) -> Any:
    return cls(**{f.name: _tuples(value[f.name]) for f in fields(cls)})


def _names(panel: Panel) -> tuple[tuple[str, ...], ...]:
    return panel.static_names, panel.covariate_names, panel.action_names, panel.outcome_names


def fit_frame(
    panel: Panel,
    recipes: Iterable[Recipe],
    train: Bool[np.ndarray, " time"],
    *,
    units: Literal["softmax", "bernoulli"] = "softmax",
) -> Frame:
    """Fit recipes on the train rows of a panel; units come in the order of the recipes.

    Args:
        panel: its rows outside `train` have no influence.
        recipes: see `recipes`; `recipes.default_recipes` chooses some.
        train: which times to fit on.
        units: kind of one-hot groups; "bernoulli" treats their units as independent bits.

    Raises:
        UserError: a recipe that does not suit its column, units with the same label, or no train row.
    """
    recipes = tuple(recipes)
    rows = panel.arrays.mask & train[None, :]
    if not rows.any():
        raise UserError(f"none of {int(train.sum())} train times has an observed row")
    frequency = panel.schema.frequency
    parts = tuple(dict.fromkeys(p for r in recipes if isinstance(r, Calendar) for p in r.parts))
    calendars.codes(panel.times[:1], parts)
    lagged = _tracked(Lag, recipes, panel, rows)
    recent = _tracked(Recency, recipes, panel, rows)
    counted = _tracked(Cumulative, recipes, panel, rows)
    made: list[Feature] = []
    for recipe in recipes:
        if isinstance(recipe, Calendar):
            made += features.fit_calendar(recipe, parts, units)
        elif isinstance(recipe, Lag):
            made += features.lag_features(recipe, panel, lagged)
        elif isinstance(recipe, Recency | Cumulative):
            made.append(features.event_feature(recipe, frequency, recent if isinstance(recipe, Recency) else counted))
        else:
            made.append(features.fit_now(recipe, panel, rows, units))
    _check_unique(made)
    read = {f.column for f in made if f.rule == "onehot" and f.source != "calendar"}
    return Frame(
        recipes=recipes,
        units=units,
        frequency=frequency,
        names=_names(panel),
        levels=tuple((name, panel.levels[name]) for name in sorted(read)),
        parts=parts,
        features=tuple(made),
        lagged=lagged,
        recent=recent,
        counted=counted,
    )


def _tracked(
    cls: type[Lag | Recency | Cumulative], recipes: tuple[Recipe, ...], panel: Panel, rows: np.ndarray
) -> tuple[Tracked, ...]:
    found = [t for r in recipes if isinstance(r, cls) for t in features.track(panel, r, rows)]
    return tuple(dict.fromkeys(found))


def _check_unique(made: list[Feature]) -> None:
    if not made:
        raise UserError("no recipes: the frame would have no visible unit")
    for what, names in (("label", [x for f in made for x in f.labels]), ("group", [f.name for f in made])):
        repeated = sorted({n for n in names if names.count(n) > 1})
        if repeated:
            raise UserError(f"two visible {what}s are called {repeated[0]!r}; does a recipe stand twice?")


def init(frame: Frame, num_units: int) -> FrameState:
    """Begin: nothing has happened."""
    return FrameState(
        lags=jnp.zeros((num_units, frame.depth, len(frame.lagged)), jnp.float32),
        since=jnp.full((num_units, len(frame.recent)), NEVER, jnp.int32),
        counts=jnp.zeros((num_units, len(frame.counted)), jnp.int32),
    )


def read(
    frame: Frame,
    state: FrameState,
    static: Float[AnyArray, "u s"],
    calendar: Int[AnyArray, " c"],
    covariates: Float[AnyArray, "u x"],
) -> Float[jax.Array, "u v"]:
    """Show the visible units of a period: what was before it (`state`), and what is known at its start.

    Args:
        frame: fitted recipes.
        state: at the start of the period.
        static: as in the panel.
        calendar: the period's row of `Frame.calendar`.
        covariates: the period's, as in the panel.
    """
    u = static.shape[0]
    sources = {
        "static": jnp.asarray(static),
        "covariates": jnp.asarray(covariates),
        "calendar": jnp.broadcast_to(jnp.asarray(calendar), (u, len(frame.parts))),
        "lags": jnp.reshape(state.lags, (u, -1)),
        "since": jnp.asarray(state.since),
        "counts": jnp.asarray(state.counts),
    }
    return jnp.concatenate([features.read_feature(f, sources) for f in frame.features], axis=1)


def advance(
    frame: Frame,
    state: FrameState,
    actions: Float[AnyArray, "u a"],
    outcomes: Float[AnyArray, "u y"],
    mask: Bool[AnyArray, " u"],
) -> FrameState:
    """Take in what happened in a period. Time passes for a unit that was not observed, without an event."""
    given = {"action": jnp.asarray(actions), "outcome": jnp.asarray(outcomes)}
    seen = jnp.asarray(mask)[:, None]

    def follow(tracked: tuple[Tracked, ...]) -> jax.Array:
        columns = [(given[t.role][:, t.index] - t.centre) / t.scale for t in tracked]
        stacked = jnp.stack(columns, axis=1) if columns else jnp.zeros((seen.shape[0], 0), jnp.float32)
        return jnp.where(seen, stacked, 0.0)

    latest = follow(frame.lagged)[:, None, :]
    recent, counted = follow(frame.recent) > 0, follow(frame.counted) > 0
    return FrameState(
        lags=jnp.concatenate([latest, jnp.asarray(state.lags)], axis=1)[:, : frame.depth],
        since=jnp.where(recent, 0, state.since + 1),
        counts=state.counts + counted.astype(jnp.int32),
    )


def replay(
    frame: Frame,
    actions: Float[AnyArray, "u t a"],
    outcomes: Float[AnyArray, "u t y"],
    mask: Bool[AnyArray, "u t"],
) -> FrameState:
    """Give the state after a history, ready to read the period that follows."""

    def step(state: FrameState, now: tuple[jax.Array, ...]) -> tuple[FrameState, None]:
        return advance(frame, state, *now), None

    history = tuple(jnp.moveaxis(jnp.asarray(x), 1, 0) for x in (actions, outcomes, mask))
    return jax.lax.scan(step, init(frame, mask.shape[0]), history)[0]


@partial(jax.jit, static_argnums=0)
def _scan(frame: Frame, static: Any, calendar: Any, covariates: Any, actions: Any, outcomes: Any, mask: Any) -> Any:
    """Read every period of some units: `[time, u, v]`."""

    def step(state: FrameState, now: tuple[jax.Array, ...]) -> tuple[FrameState, jax.Array]:
        dates, covariate, action, outcome, seen = now
        return advance(frame, state, action, outcome, seen), read(frame, state, static, dates, covariate)

    by_time = tuple(jnp.moveaxis(x, 1, 0) for x in (covariates, actions, outcomes, mask))
    return jax.lax.scan(step, init(frame, static.shape[0]), (calendar, *by_time))[1]


def build(frame: Frame, panel: Panel, *, chunk: int | None = None) -> Float[np.ndarray, "unit time v"]:
    """Build the visible units of a whole panel, some units at a time so that memory is bounded.

    Rows where `mask` is False come out too (statics, calendar, an empty past); they are for nobody to learn from.

    Args:
        frame: fitted recipes.
        panel: with the columns and levels that the frame was fitted on.
        chunk: units at a time; by default what fits 64 MiB.
    """
    frame.check(panel)
    arrays, size = panel.arrays, frame.visible.size
    if chunk is None:
        chunk = max(1, _CHUNK_BYTES // (4 * panel.num_times * size))
    chunk = min(chunk, panel.num_units)
    codes = frame.calendar(panel.times)
    out = np.empty((panel.num_units, panel.num_times, size), np.float32)
    for start in range(0, panel.num_units, chunk):
        # The last chunk is moved back to be full, so that one program serves all; it repeats some units.
        start = min(start, panel.num_units - chunk)
        at = slice(start, start + chunk)
        static, covariates, actions, outcomes, mask = (a[at] for a in arrays)
        out[at] = np.moveaxis(np.asarray(_scan(frame, static, codes, covariates, actions, outcomes, mask)), 0, 1)
    return out
