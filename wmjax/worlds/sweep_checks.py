"""What a sweep of a world refuses before anything is compiled: axes that nothing reads, levels that mean nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from wmjax.core.errors import UserError
from wmjax.data.panel import Panel
from wmjax.sweep import plans
from wmjax.sweep.grids import Column, Grid
from wmjax.sweep.plans import Axis, Plan
from wmjax.sweep.ranks import Best, Top
from wmjax.sweep.reduce import Reduction
from wmjax.worlds.contract import Answers

HORIZON, MEMBER = "horizon", "member"


def check_axes(grid: Grid, plan: Plan, panel: Panel, answers: Answers, groups: Collection[str]) -> None:
    """Refuse axes that nothing reads, and members and groups of units that there are not.

    Args:
        answers: who answers, see a world's `forecasting.answers`.
        groups: of units, which plans may name.

    Raises:
        UserError: naming the axis and what it could have been.
    """
    read = {*plans.axes(plan), MEMBER, HORIZON}
    for edit in plan:
        _check_levels(edit, grid, panel)
        _check_groups(edit, grid, panel, groups)
    for column in grid.columns:
        if column.name not in read and column.kind != "seed":
            known = plans.near(column.name, (*panel.action_names, *sorted(read)))
            if column.name.removeprefix("scale.").removeprefix("add.") in panel.action_names:
                known = f"a plan is given, and none of its edits reads it: give it one, with ${column.name}"
            raise UserError(f"nothing reads the grid's axis {column.name!r}; {known}")
        if column.name == MEMBER:
            asked = [int(x) for x in _some_levels(column)]
            who, last = "draws" if answers.drawn else "members", answers.count - 1
            if wrong := [x for x in asked if not 0 <= x <= last]:
                raise UserError(f"the grid asks for member {wrong[0]}; the world has {who} 0 to {last}")
            if answers.drawn and len(set(asked)) < answers.count:
                raise UserError(
                    f"the grid has {len(set(asked))} of the world's {answers.count} draws; a few say something else "
                    f"than all, which are member=0:{last} (`wmjax sweep` knows member=all)"
                )


def _check_levels(edit: plans.Edit, grid: Grid, panel: Panel) -> None:
    """Refuse an axis that sets a binary action to another value than 0 and 1, that makes spend negative, or that moves
    other shares than 0 to 1."""
    if isinstance(edit, plans.Move) and isinstance(edit.share, Axis):
        for column in grid.columns:
            if column.name != edit.share.name or column.kind == "choice":
                continue
            levels = _some_levels(column)
            if len(wrong := levels[(levels < 0) | (levels > 1)]):
                raise UserError(f"the grid's axis {column.name!r} has {wrong[0]:g}: a share to be moved is 0 to 1")
    by = edit.value if isinstance(edit, plans.Set) else edit.factor if isinstance(edit, plans.Scale) else None
    if not (isinstance(by, Axis) and isinstance(edit.action, str | tuple)):
        return
    names = (edit.action,) if isinstance(edit.action, str) else edit.action
    first = {panel.schema.column(n).kind: n for n in reversed(names) if n in panel.action_names}
    for column in grid.columns:
        if column.name != by.name or column.kind == "choice":
            continue
        levels, at = _some_levels(column), f"the grid's axis {column.name!r} has"
        wrong = levels[~np.isin(levels, (0, 1))]
        if isinstance(edit, plans.Set) and "binary" in first and len(wrong):
            raise UserError(f"{first['binary']} is binary, 0 or 1; {at} {wrong[0]:g}")
        if "currency" in first and (levels < 0).any():
            raise UserError(f"{first['currency']} is spend and not negative; {at} {levels.min():g}")


def _check_groups(edit: plans.Edit, grid: Grid, panel: Panel, groups: Collection[str]) -> None:
    """Refuse an axis of units whose levels are no groups of them."""
    name = edit.units.name if isinstance(edit.units, Axis) else None
    for column in grid.columns:
        if column.name != name:
            continue
        named = {str(label) for label in column.labels()} if column.kind == "choice" else set()
        if not groups and named != {plans.EVERYONE}:
            columns = ", ".join(panel.static_names) or "none"
            raise UserError(
                f"the grid's axis {name!r} names units by a static column; say which (--by), there are {columns}"
            )
        known = f"there are {', '.join(map(repr, groups))}; levels with a comma or a blank are for a TOML grid"
        if column.kind != "choice":
            raise UserError(f"the grid's axis {name!r} has numbers, must be names of levels; {known}")
        for level in sorted(named):
            if level not in groups and level != plans.EVERYONE:
                raise UserError(f"the grid's axis {name!r} has {level!r}, no level of the column; {known}")


def _some_levels(column: Column) -> np.ndarray:
    """List an axis's levels, of more than 2^16 as many at equal steps."""
    at = np.unique(np.linspace(0, column.source.size - 1, min(column.source.size, 2**16)).astype(int))
    return np.asarray(column.labels(at), np.float64)


def check_times(grid: Grid, plan: Plan, periods: int) -> None:
    """Refuse starts and horizons past the periods asked for, of which nothing would come.

    Args:
        periods: how many are asked for.

    Raises:
        UserError: naming the axis and its last level.
    """
    columns = {column.name: column for column in grid.columns}
    starts = {edit.start.name for edit in plan if isinstance(edit.start, Axis)}
    for name in sorted(starts & set(columns)):
        if (last := _some_levels(columns[name]).max()) >= periods:
            raise UserError(
                f"the grid's axis {name!r} has {last:g}: it counts from 0 within the {periods} period(s) asked for "
                "(--periods), whose place in the panel is another start (--start)"
            )
    if HORIZON in columns and (last := _some_levels(columns[HORIZON]).max()) > periods:
        raise UserError(
            f"horizon {last:g} is past the {periods} period(s) asked for: ask for {last:g} periods (--periods)"
        )


def check_choices(grid: Grid, reduce: Mapping[str, Reduction], outcomes: tuple[str, ...]) -> None:
    """Refuse reductions that would choose among draws of luck as if they were plans, or by a mixture of outcomes.

    Args:
        outcomes: names, over which `total`, `gain` and `path` are.

    Raises:
        UserError: naming the axes of luck, or the outcomes.
    """
    luck = [c.name for c in grid.columns if c.name in (MEMBER, HORIZON) or c.kind == "seed"]
    for kept in reduce.values():
        if not isinstance(kept, Best | Top):
            continue
        word = type(kept).__name__.lower()
        if luck:
            raise UserError(
                f"{word} would choose among levels of {', '.join(luck)}, which are no plans; sweep without "
                f"{'it' if len(luck) == 1 else 'them'}, or keep full and choose with `wmjax best`, which averages "
                "members and seeds"
            )
        if isinstance(kept, Top) and kept.of in ("total", "gain", "path") and len(outcomes) > 1:
            raise UserError(
                f"top ranks plans by one number, and {kept.of} has one for each of {', '.join(outcomes)}; say what "
                "they are worth (--worth) and keep profit.top"
            )
