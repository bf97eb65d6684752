"""Which plans of a grid the data can speak for: warnings, and support of every plan beside its numbers.

What counts as seen is the world's own. Consumer: like rows had the value, and enough rows had what a plan combines.
Media: as much was spent in a period that was fitted, and on a channel that is always on something is. Graph: the value
lies within the panel's range. Every row is judged by its history as observed; of what a plan's earlier edits, fed back,
make of it, only the consumer world tells: actions repeated as seldom before.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from wmjax.core.errors import UserError
from wmjax.core.observe import Event, Observer, silent
from wmjax.sweep import plans
from wmjax.sweep.grids import Grid
from wmjax.sweep.plans import Plan
from wmjax.sweep.reduce import Variable
from wmjax.worlds.contract import Reach

LOOKED_AT = 16
"""Levels of a grid's dimension at which support is looked up for the warnings, and corners of the grid."""
MOST_PLANS, MOST_CELLS = 2**14, 2**23
"""Plans, and plans by units, of which support is kept; beyond either only the warnings tell of it."""


class Question(NamedTuple):
    """What a grid asks of a world in some periods.

    reach: how far the world's data go.
    factual: what was done, of the units in those periods.
    present: bool, which of these rows there are.
    plan: edits that read the grid's axes.
    apply: the plan at a point, from its digits; gives all units' actions.
    names: of the actions.
    binary: which of them take 0 and 1 only. money: which are spend, never below 0.
    feedback: whether a plan changes later histories.
    span: least and largest value of each action in the panel.
    """

    reach: Reach
    factual: Float[np.ndarray, "unit period action"]
    present: Bool[np.ndarray, "unit period"]
    plan: Plan
    apply: Callable[[Any], Any]
    names: tuple[str, ...]
    binary: frozenset[str]
    money: frozenset[str]
    feedback: bool
    span: Mapping[str, tuple[float, float]]

    def at(self, digits: Any) -> tuple[np.ndarray, np.ndarray]:
        """Work out a point's actions, and mark the cells that it moves."""
        planned = np.asarray(self.apply(np.asarray(digits, np.int32)))
        return planned, (planned != self.factual) & self.present[..., None]


def warnings(asked: Question, grid: Grid) -> tuple[list[str], list[str], list[str]]:
    """Say of which actions a grid goes beyond what the world has seen: as such, and at which points; and what is to be
    said of its actions in any case.

    Asked of some points: `LOOKED_AT` levels of every dimension with the others at their first, and as many corners of
    the grid, where every dimension is at its first or last level.

    Raises:
        UserError: a plan that moves a binary action to another value than 0 and 1, or spend below 0.
    """
    moved: set[str] = set()
    worst: dict[str, tuple[int, int, int]] = {}
    looked = [(index, np.unravel_index(index, grid.sizes)) for index in looked_at(grid.sizes)]
    for index, digits in looked:
        planned, cells = asked.at(digits)
        _check_values(asked, grid, index, planned, cells)
        beyond = asked.reach.beyond(planned) & cells
        for name, count, changed in zip(asked.names, beyond.sum((0, 1)), cells.sum((0, 1)), strict=True):
            moved |= {name} if changed else set()
            if count > worst.get(name, (0, 0, 0))[0]:
                worst[name] = (int(count), int(changed), index)
    of_histories = asked.reach.rolled(asked.at(digits)[0] for _, digits in looked) if asked.feedback else []
    of_points = [
        f"{name}: at {_label(grid, index)}, the worst of the points looked at, {count:,} rows of the {changed:,} that "
        f"are moved {asked.reach.where} (in the panel {name} goes from {asked.span[name][0]:.6g} to "
        f"{asked.span[name][1]:.6g}); there the answer is extrapolated"
        for name, (count, changed, index) in worst.items()
    ]
    names = frozenset(moved)
    return asked.reach.reasons(names), of_points + of_histories, asked.reach.always(names)


def lines(asked: Question, grid: Grid, facts: Mapping[str, Any], found: Iterable[Iterable[str]]) -> list[str]:
    """List all warnings, each once: those found, the world's own, and of axes of luck that is not drawn."""
    idle = [c for c in grid.columns if c.kind == "seed" and c.source.size > 1 and not asked.feedback]
    again = [
        f"{c.name}: without feedback no luck is drawn, so the same numbers come {c.source.size:,} times" for c in idle
    ]
    return list(dict.fromkeys(itertools.chain(*found, facts.get("warnings", []), again)))


def too_many(asked: Question, grid: Grid) -> list[str]:
    """Say that support of every plan is not kept, where there are too many."""
    count = math.prod(grid.sizes[i] for i in _read(asked, grid))
    if not _beyond(asked, count):
        return []
    return [
        f"support is worked out for at most {MOST_PLANS:,} plans, and {MOST_CELLS:,} plans times units; of these "
        f"{count:,} plans for {len(asked.factual):,} units the result will not tell which are supported"
    ]


def _beyond(asked: Question, count: int) -> bool:
    return count > MOST_PLANS or count * len(asked.factual) > MOST_CELLS


def _read(asked: Question, grid: Grid) -> list[int]:
    """List the places of the grid's dimensions that the plan reads."""
    read = set(plans.axes(asked.plan))
    return [i for i, part in enumerate(grid.parts) if read & {column.name for column in part.columns}]


def _check_values(asked: Question, grid: Grid, index: int, planned: np.ndarray, cells: np.ndarray) -> None:
    for at, name in enumerate(asked.names):
        values = planned[..., at][cells[..., at]]
        wrong = values[(values != 0) & (values != 1)]
        if name in asked.binary and len(wrong):
            raise UserError(f"{name} is binary, 0 or 1; at {_label(grid, index)} the plan makes it {wrong[0]:g}")
        if name in asked.money and (values < 0).any():
            raise UserError(
                f"{name} is spend and not negative; at {_label(grid, index)} the plan makes it {values.min():g}. A "
                "plan whose last edit is a clamp with low = 0 keeps it from that"
            )


def supported(
    asked: Question, grid: Grid, *, observer: Observer = silent
) -> tuple[tuple[str, ...], Bool[np.ndarray, "..."]] | None:
    """Mark, for every plan of a grid and every unit, whether data speak for all that the plan moves there.

    Returns:
        Dimensions, those of the grid that the plan reads and `unit`, and the marks, false for units without a row;
        cells after a horizon count like all others. None where they are too many.
    """
    at = _read(asked, grid)
    sizes = tuple(grid.sizes[i] for i in at)
    count = math.prod(sizes)
    if _beyond(asked, count):
        return None
    lost = np.array([name in asked.reach.lost for name in asked.names])
    marks = np.empty((count, len(asked.factual)), bool)
    for number in range(count):
        observer(Event("support", number, count, unit="plan"))
        digits = np.zeros(len(grid.sizes), int)
        digits[at] = np.unravel_index(number, sizes)
        planned, cells = asked.at(digits)
        marks[number] = ~((asked.reach.beyond(planned) | lost) & cells).any((1, 2))
    observer(Event("support", count, count, unit="plan"))
    marks &= asked.present.any(1)
    return (*(grid.dims[i] for i in at), "unit"), marks.reshape(*sizes, -1)


def best_supported(asked: Question, grid: Grid, index: Variable) -> Variable | None:
    """Mark each unit's best plan, of every number that was compared, as `supported` does.

    Args:
        index: dimensions, the first one the units, and the flat index of the best point; -1 where there is none.

    Returns:
        The same dimensions, and the marks; None where there are too many.
    """
    dims, flat = index[0], index[1].reshape(len(index[1]), -1)
    points = np.unique(flat[flat >= 0])
    if len(points) > MOST_PLANS or flat.size * asked.factual[0].size > MOST_CELLS:
        return None
    # Each unit under its own plan, so that support is asked once a number.
    own = np.repeat(np.asarray(asked.factual)[None], flat.shape[1], axis=0)
    for point in points.tolist():
        planned = asked.at(np.unravel_index(point, grid.sizes))[0]
        unit, number = np.nonzero(flat == point)
        own[number, unit] = planned[unit]
    lost = np.array([name in asked.reach.lost for name in asked.names])
    marks = np.empty(flat.shape, bool)
    for number, planned in enumerate(own):
        cells = np.asarray(planned != asked.factual) & asked.present[..., None]
        marks[:, number] = ~((asked.reach.beyond(planned) | lost) & cells).any((1, 2))
    marks &= np.asarray(asked.present.any(1))[:, None] & (flat >= 0)
    return dims, marks.reshape(index[1].shape)


def looked_at(sizes: tuple[int, ...]) -> list[int]:
    """Choose points of a grid by their flat indices: along every dimension, and corners."""
    found = {}
    for at, size in enumerate(sizes):
        for digit in np.unique(np.linspace(0, size - 1, LOOKED_AT).round().astype(int)).tolist():
            found[tuple(digit if k == at else 0 for k in range(len(sizes)))] = None
    corners = itertools.product(*((size - 1, 0) for size in sizes))
    found |= dict.fromkeys(itertools.islice(corners, LOOKED_AT))
    return [sum(d * math.prod(sizes[k + 1 :]) for k, d in enumerate(digits)) for digits in found]


def _label(grid: Grid, index: int) -> str:
    """Call a point by its axes' values."""
    values = {name: value[0] for name, value in grid.at(np.array([index], np.uint64)).items()}
    return ", ".join(f"{name}={v:.6g}" if isinstance(v, np.floating) else f"{name}={v}" for name, v in values.items())
