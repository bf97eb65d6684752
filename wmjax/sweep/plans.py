"""A plan is data: edits, in order, of what was done to whom and when.

An edit names its cells (actions, a group of units, a run of periods) and what becomes of them. Each of its numbers, and
each of its names, may be an `Axis`: the grid supplies it, on the device, so that one compiled program serves all plans
of a grid. Cells that no edit names keep their bits.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from wmjax.core.errors import UserError


@dataclass(frozen=True)
class Axis:
    """A number, or a choice among names, that the grid's axis of this name supplies."""

    name: str


Number = float | int | Axis
Names = str | tuple[str, ...] | Axis | None
Edge = Literal["zero", "hold", "wrap"]
EVERYONE = "all"
"""The group of all units, which needs no mask."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """The cells of an edit: these actions, of these units, in these periods.

    Attributes:
        action: name or names; None is all; an `Axis` is a choice among names.
        units: a group of units by name; None is all; an `Axis` is a choice among groups.
        start: first period, counted from 0.
        length: periods from `start` on; None is to the end.
        every: of these periods the first, and each `every`-th after it.
    """

    action: Names = None
    units: str | Axis | None = None
    start: Number = 0
    length: Number | None = None
    every: Number = 1

    def __post_init__(self) -> None:
        for name, least in (("start", 0), ("length", 0), ("every", 1)):
            value = getattr(self, name)
            if isinstance(value, Axis) or (value is None and name == "length"):
                continue
            if not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name} is {value!r}, must be a whole number of at least {least}, or an Axis")


@dataclass(frozen=True, kw_only=True)
class Set(Edit):
    """`x' = value`."""

    value: Number


@dataclass(frozen=True, kw_only=True)
class Scale(Edit):
    """`x' = factor x`."""

    factor: Number


@dataclass(frozen=True, kw_only=True)
class Add(Edit):
    """`x' = x + amount`."""

    amount: Number


@dataclass(frozen=True, kw_only=True)
class Clamp(Edit):
    """`x' = min(max(x, low), high)`; None is no bound."""

    low: Number | None = None
    high: Number | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low is None and self.high is None:
            raise ValueError("a clamp needs low or high")
        if isinstance(self.low, float | int) and isinstance(self.high, float | int) and not self.low <= self.high:
            raise ValueError(f"low is {self.low}, must be at most high, which is {self.high}")


@dataclass(frozen=True, kw_only=True)
class Move(Edit):
    """Move budget from `action` to another action, in the same unit and period: `x' = x - s x`, `y' = y + sum of s x`.

    What is moved is a `share` s of every cell, or an `amount` in all, taken from the cells in proportion to what they
    hold: `s = min(1, amount / sum of x)`. The sum over actions of each unit and period is kept, to rounding.

    Attributes:
        to: the action that receives; where it is among `action` it gives nothing.
        share: between 0 and 1.
        amount: in the actions' own unit, over all the edit's cells.
    """

    to: str | Axis
    share: Number | None = None
    amount: Number | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.share is None) == (self.amount is None):
            raise ValueError("a move needs a share or an amount, and not both")
        if isinstance(self.share, float | int) and not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}, must be between 0 and 1")
        if isinstance(self.amount, float | int) and not self.amount >= 0:
            raise ValueError(f"amount is {self.amount}, must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class Shift(Edit):
    """Move what happens in the edit's periods `periods` later, earlier where negative: `x'[t] = x[t - periods]`.

    Attributes:
        periods: a whole number.
        edge: what comes in where nothing lies before: `"zero"`, the nearest period again (`"hold"`), or what fell out
            at the other end (`"wrap"`, which keeps the budget).
    """

    periods: Number
    edge: Edge = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.edge not in get_args(Edge):
            raise ValueError(f"edge is {self.edge!r}, must be one of {', '.join(get_args(Edge))}")
        if self.every != 1:
            raise ValueError(f"every is {self.every}: a shift takes a run of neighbouring periods")
        if not isinstance(self.periods, int | np.integer | Axis):
            raise ValueError(f"periods is {self.periods!r}, must be a whole number or an Axis")


Plan = tuple[Edit, ...]
"""Edits, applied in order; plans compose by `+`."""
Columns = tuple[Float[Array, "units periods"] | None, ...]
"""What is planned of each action; None is what was done, which no edit names."""


def axes(plan: Plan) -> tuple[str, ...]:
    """Name the grid axes that a plan reads, each once, in order."""
    values = (getattr(edit, f.name) for edit in plan for f in fields(edit))
    return tuple(dict.fromkeys(v.name for v in values if isinstance(v, Axis)))


def apply(
    plan: Plan,
    actions: Float[Array, "units periods actions"],
    point: Mapping[str, Any] | None = None,
    *,
    names: tuple[str, ...],
    groups: Mapping[str, Bool[Any, " units"]] | None = None,
    choices: Mapping[str, tuple[str, ...]] | None = None,
) -> Float[Array, "units periods actions"]:
    """Apply a plan's edits in order.

    Args:
        plan: static under `jit`.
        actions: what was done, or is planned, before the edits.
        point: the value of each grid axis that the plan reads, as `grids.decode` gives it; a choice is its number.
        names: of the actions, in their order on the last axis.
        groups: masks of units by name.
        choices: of each choice axis, the names that its numbers stand for (`Grid.choices`).

    Raises:
        UserError: an edit names an action, a group or an axis that there is not.
    """
    return filled(columns(plan, actions, point, names=names, groups=groups, choices=choices), actions)


def columns(
    plan: Plan,
    actions: Float[Array, "units periods actions"],
    point: Mapping[str, Any] | None = None,
    *,
    names: tuple[str, ...],
    groups: Mapping[str, Bool[Any, " units"]] | None = None,
    choices: Mapping[str, tuple[str, ...]] | None = None,
) -> Columns:
    """Apply a plan's edits as `apply` does, action by action.

    What is planned of an action hangs on the axes of its own edits alone: in a box of plans, where each axis is a
    `vmap`, whatever reads a single column is worked out once for all plans that share it.
    """
    scene = _Scene(dict(point or {}), names, dict(groups or {}), dict(choices or {}), actions.shape)
    was = jnp.unstack(actions, axis=-1)
    found: list[Any] = [None] * len(names)
    for edit in plan:
        chosen = _chosen(edit, scene)
        own = [was[at] if found[at] is None else found[at] for at in chosen]
        among = replace(scene, names=tuple(names[at] for at in chosen))
        for at, new in zip(chosen, _edited(edit, own, among), strict=True):
            found[at] = new
    return tuple(found)


def filled(planned: Columns, actions: Float[Array, "units periods actions"]) -> Float[Array, "units periods actions"]:
    """Lay columns side by side, with what was done where nothing is planned."""
    if all(new is None for new in planned):
        return actions
    was = jnp.unstack(actions, axis=-1)
    return jnp.stack([old if new is None else new for new, old in zip(planned, was, strict=True)], axis=-1)


def moved(plan: Plan, *, names: tuple[str, ...], choices: Mapping[str, tuple[str, ...]] | None = None) -> list[bool]:
    """Mark the actions that any edit names: those which `columns` gives."""
    scene = _Scene({}, names, {}, dict(choices or {}), (0, 0))
    chosen = {at for edit in plan for at in _chosen(edit, scene)}
    return [at in chosen for at in range(len(names))]


@dataclass(frozen=True)
class _Scene:
    """What an edit's names and axes refer to."""

    point: dict[str, Any]
    names: tuple[str, ...]
    groups: dict[str, Any]
    choices: dict[str, tuple[str, ...]]
    shape: tuple[int, ...]

    def number(self, value: Number) -> Any:
        if not isinstance(value, Axis):
            return value
        if value.name in self.choices:
            raise UserError(f"axis {value.name!r} chooses among names, where the plan needs a number")
        return _find(value.name, self.point, "grid axis")

    def whole(self, value: Number) -> Array:
        found = jnp.asarray(self.number(value))
        if not jnp.issubdtype(found.dtype, jnp.integer):
            name = value.name if isinstance(value, Axis) else value
            raise UserError(f"axis {name!r} counts periods in the plan, so its levels must be whole numbers")
        return found.astype(jnp.int32)

    def pick(self, axis: Axis, table: Any) -> Array:
        """Take the row of a table, one row a label, that a choice axis points at."""
        _find(axis.name, self.choices, "choice axis")
        return jnp.asarray(table)[_find(axis.name, self.point, "grid axis")]

    def labels(self, axis: Axis) -> tuple[str, ...]:
        return _find(axis.name, self.choices, "choice axis")

    def actions(self, chosen: Names) -> Bool[Any, " actions"]:
        if chosen is None:
            return np.ones(len(self.names), bool)
        if isinstance(chosen, Axis):
            return self.pick(chosen, np.stack([self.actions(label) for label in self.labels(chosen)]))
        mask = np.zeros(len(self.names), bool)
        for name in (chosen,) if isinstance(chosen, str) else chosen:
            mask[self.names.index(_find(name, {n: n for n in self.names}, "action"))] = True
        return mask

    def units(self, chosen: str | Axis | None) -> Bool[Any, " units"]:
        if isinstance(chosen, Axis):
            return self.pick(chosen, jnp.stack([jnp.asarray(self.units(label)) for label in self.labels(chosen)]))
        if chosen is None or (chosen == EVERYONE and EVERYONE not in self.groups):
            return np.ones(self.shape[0], bool)
        return jnp.asarray(_find(chosen, self.groups, "group of units"))

    def run(self, edit: Edit) -> tuple[Array, Array]:
        """First period of the edit, and the one after its last."""
        start = self.whole(edit.start)
        return start, jnp.asarray(self.shape[1]) if edit.length is None else start + self.whole(edit.length)

    def periods(self, edit: Edit) -> Bool[Array, " periods"]:
        (start, stop), t = self.run(edit), jnp.arange(self.shape[1])
        return (t >= start) & (t < stop) & ((t - start) % self.whole(edit.every) == 0)

    def cells(self, edit: Edit) -> Bool[Array, "units periods actions"]:
        rows = jnp.asarray(self.units(edit.units))[:, None] & self.periods(edit)
        return rows[:, :, None] & jnp.asarray(self.actions(edit.action))


def _find(name: str, table: Mapping[str, Any], what: str) -> Any:
    if name not in table:
        raise UserError(f"the plan names the {what} {name!r}; {near(name, table)}")
    return table[name]


def near(name: str, names: Iterable[str]) -> str:
    """Say which names are close to a wrong one, or, where none is, which there are."""
    names = list(names)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else f"there are {', '.join(names[:20]) or 'none'}"


def _chosen(edit: Edit, scene: _Scene) -> list[int]:
    """Find the actions that an edit names, or that the grid may choose for it."""
    named = np.zeros(len(scene.names), bool)
    for chosen in (edit.action, edit.to) if isinstance(edit, Move) else (edit.action,):
        for one in scene.labels(chosen) if isinstance(chosen, Axis) else (chosen,):
            named |= np.asarray(scene.actions(one))
    return np.flatnonzero(named).tolist()


def _edited(edit: Edit, own: list[Array], scene: _Scene) -> list[Array]:
    """Edit the columns of the actions that are named, each apart from the others where nothing goes between them."""
    if isinstance(edit, Move) or isinstance(edit.action, Axis):
        x = jnp.stack(own, axis=-1)
        new = _move(edit, x, scene) if isinstance(edit, Move) else _edit(edit, x, scene.cells(edit), scene)
        return list(jnp.unstack(new, axis=-1))
    cells = (jnp.asarray(scene.units(edit.units))[:, None] & scene.periods(edit))[..., None]
    return [_edit(edit, x[..., None], cells, scene)[..., 0] for x in own]


def _edit(edit: Edit, x: Array, cells: Array, scene: _Scene) -> Array:
    if isinstance(edit, Set):
        new = jnp.broadcast_to(jnp.asarray(scene.number(edit.value)).astype(x.dtype), x.shape)
    elif isinstance(edit, Scale):
        new = x * jnp.asarray(scene.number(edit.factor)).astype(x.dtype)
    elif isinstance(edit, Add):
        new = x + jnp.asarray(scene.number(edit.amount)).astype(x.dtype)
    elif isinstance(edit, Clamp):
        new = x if edit.low is None else jnp.maximum(x, scene.number(edit.low))
        new = (new if edit.high is None else jnp.minimum(new, scene.number(edit.high))).astype(x.dtype)
    elif isinstance(edit, Shift):
        new = _shifted(edit, x, scene)
    else:
        raise TypeError(f"{type(edit).__name__} is not an edit")
    return jnp.where(cells, new, x)


def _move(edit: Move, x: Array, scene: _Scene) -> Array:
    to = jnp.asarray(scene.actions(edit.to))
    source = scene.cells(edit) & ~to
    held = jnp.where(source, x, 0)
    if edit.share is not None:
        share = jnp.asarray(scene.number(edit.share)).astype(x.dtype)
    else:
        total = held.sum()
        # Cells that hold nothing give nothing: the second `where` prevents 0 / 0 and its gradient.
        wanted = jnp.asarray(scene.number(edit.amount if edit.amount is not None else 0)).astype(x.dtype)
        share = jnp.where(total > 0, jnp.minimum(wanted / jnp.where(total > 0, total, 1), 1), 0)
    taken = share * held
    gained = taken.sum(axis=-1, keepdims=True)
    return jnp.where(source, x - taken, jnp.where(to & source.any(axis=-1, keepdims=True), x + gained, x))


def _shifted(edit: Shift, x: Array, scene: _Scene) -> Array:
    first, after = scene.run(edit)
    after = jnp.minimum(after, x.shape[1])
    source = jnp.arange(x.shape[1]) - scene.whole(edit.periods)
    inside = (source >= first) & (source < after)
    if edit.edge == "wrap":
        source = first + (source - first) % jnp.maximum(after - first, 1)
    at = jnp.clip(jnp.clip(source, first, after - 1), 0, x.shape[1] - 1)
    moved = jnp.take(x, at, axis=1)
    return jnp.where(inside[:, None], moved, 0) if edit.edge == "zero" else moved
