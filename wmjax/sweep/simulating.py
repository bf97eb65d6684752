"""Anyone's own `simulate(key, params, history, actions)`, swept over the plans of a grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from wmjax.core.errors import UserError
from wmjax.core.provenance import fingerprint, to_plain
from wmjax.sweep import plan_reading, plans
from wmjax.sweep.grids import Grid
from wmjax.sweep.plans import Plan, near

Simulate = Callable[..., Any]
"""`simulate(key, params, history, actions)`: an array, or arrays by name; pure."""


def _identity(function: Any) -> list[Any]:
    """Tell a function from others of its name: by its place, its code, and what it closes over.

    Of an object that is called, and of what it closes over, as far as `to_plain` can tell.
    """
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    code = getattr(function, "__code__", None)
    if code is None:
        return [name, {key: _plain(value) for key, value in getattr(function, "__dict__", {}).items()}]
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return [name, *_code(code), [_plain(cell) for cell in cells]]


def _code(code: Any) -> list[Any]:
    inside = [_code(const) if hasattr(const, "co_code") else repr(const) for const in code.co_consts]
    return [code.co_code.hex(), inside, code.co_names]


def _plain(value: Any) -> Any:
    if callable(value):
        return _identity(value)
    return fingerprint(np.asarray(value)) if hasattr(value, "dtype") else to_plain(value)


@dataclass(frozen=True)
class Simulated:
    """What a simulation gives under the plan of a point; equal ones are equal programs, which compile once.

    Attributes:
        simulate: the function.
        plan: edits of the actions.
        names: of the actions.
        choices: of the grid.
        member: the grid's axis of an ensemble's members, if it has one.
    """

    simulate: Simulate
    plan: Plan
    names: tuple[str, ...]
    choices: tuple[tuple[str, tuple[str, ...]], ...]
    member: str | None

    @property
    def told(self) -> list[Any]:
        """What tells it from another one, for the identity of a sweep on disk."""
        own = self.simulate
        bound = [to_plain(own.args), to_plain(own.keywords)] if isinstance(own, partial) else []
        inner = own.func if isinstance(own, partial) else own
        return [*_identity(inner), *bound, to_plain(self.plan), self.names]

    def __call__(
        self,
        key: Key[Array, ""],
        point: Mapping[str, Any],
        params: Any,
        history: Any,
        actions: Float[Array, "units periods actions"],
        groups: Mapping[str, Any] | None = None,
    ) -> Any:
        """Simulate a point of the grid."""
        if actions.ndim != 3 or actions.shape[2] != len(self.names):
            raise UserError(
                f"actions have shape {actions.shape}, must be (units, periods, {len(self.names)}): one for each of "
                f"{', '.join(self.names)}"
            )
        planned = plans.apply(self.plan, actions, point, names=self.names, groups=groups, choices=dict(self.choices))
        if self.member is not None:
            member = point[self.member]
            params = jax.tree.map(lambda x: x[member], params)
        return self.simulate(key, params, history, planned)


def of_simulate(simulate: Simulate, grid: Grid, names: Sequence[str], *, plan: Plan | None = None) -> Simulated:
    """Make `engine.sweep`'s `evaluate` of a simulation, whose data are then `(params, history, actions)`.

    A fourth, `groups`, holds masks of the units by name, where plans choose units (an axis `segment`). All plans meet
    the same luck; axes of seeds draw more of it. An axis of members (`axes.members`) takes one of the leading axis of
    every array of `params`. What depends on the grid's first axes alone is computed once for all that share them.

    Args:
        simulate: pure, `(key, params, history, actions) -> outcomes`, an array or arrays by name; options are bound
            before (`functools.partial`).
        grid: axes named as actions set them, `scale.tv`, `add.tv` and `shift.tv` change them; `start`, `length`,
            `every` and `segment` say when and to whom.
        names: of the actions, in their order on the last axis.
        plan: edits that read the grid's axes; made from the axes' names if not given.

    Raises:
        UserError: an axis that nothing reads.
    """
    names = tuple(names)
    plan = plan_reading.plan_from_axes(grid.names, names) if plan is None else plan
    members = [column.name for column in grid.columns if column.kind == "member"]
    if len(members) > 1:
        raise UserError(f"the grid has {len(members)} axes of members, {' and '.join(members)}; there is one ensemble")
    read = {*plans.axes(plan), *members}
    for column in grid.columns:
        if column.name not in read and column.kind != "seed":
            raise UserError(f"nothing reads the grid's axis {column.name!r}; {near(column.name, (*names, *read))}")
    return Simulated(simulate, plan, names, tuple(grid.choices.items()), members[0] if members else None)
