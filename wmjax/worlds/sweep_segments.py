"""Segments of a sweep's units: their labels, the averages by them that are asked for, and whom each plan reaches."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

from wmjax.core.errors import UserError
from wmjax.data.panel import Panel
from wmjax.sweep.grids import Grid
from wmjax.sweep.moments import Moments
from wmjax.sweep.plans import EVERYONE, Axis, Plan, near
from wmjax.sweep.quantiles import Quantiles
from wmjax.sweep.ranks import Best
from wmjax.sweep.reduce import Reduction, Segments, Variable
from wmjax.sweep.results import Label
from wmjax.worlds.consumer.rows import unit_labels

FOLDED = (
    "mean",
    "variance",
    "count",
    "quantile",
    "value",
    "index",
    "margin",
    "score",
    "gain",
    "cost",
    "profit",
    "total",
)
"""What reductions call their numbers."""
REACHED = "reached"
"""Variable that marks, for plans of some units alone, the units that each plan may change."""
MOST_MARKS = 2**28
"""Such marks, a byte each; beyond there are none."""


def labels(panel: Panel, taken: set[str]) -> dict[str, Label]:
    """Label the units by every static column of the panel, as `unit_labels` does, but for names that are `taken`.

    Names that reductions give their own numbers (`mean`) would not fit beside them.
    """
    free = [name for name in panel.static_names if name not in taken and name not in FOLDED]
    return {name: Label("unit", unit_labels(panel, name)) for name in free}


def averaged(
    reduce: Mapping[str, Reduction], panel: Panel, grid: Grid, seen: Bool[np.ndarray, " units"]
) -> dict[str, Any]:
    """Let reductions that name a static column keep its segments apart, of the units that have a row.

    A name among what a mean or quantiles keep apart is a dimension of the grid, or else a static column; best names one
    by segments that hold nothing yet. The result's dimension is `by_income`, since `income` labels the units.

    Raises:
        UserError: a name that is neither, or two columns.
    """
    return {name: _averaged(name, kept, panel, grid, seen) for name, kept in reduce.items()}


def _averaged(name: str, kept: Reduction, panel: Panel, grid: Grid, seen: np.ndarray) -> Any:
    if isinstance(kept, Best):
        by = [kept.segments.dim] if kept.segments is not None and not kept.segments.codes else []
    elif isinstance(kept, Moments | Quantiles):
        by = [one for one in kept.keep if one not in grid.dims]
    else:
        return kept
    for one in by:
        if one not in panel.static_names:
            close = near(one, (*grid.dims, *panel.static_names))
            raise UserError(f"{name}: no dimension of the grid and no static column {one!r}; {close}")
    if len(by) > 1:
        raise UserError(f"{name}: keeps {' and '.join(by)} apart; units are averaged by one static column")
    if not by:
        return kept
    own = [label if here else None for label, here in zip(unit_labels(panel, by[0]), seen, strict=True)]
    found: dict[str, Any] = {"segments": dataclasses.replace(Segments.of(own), dim=f"by_{by[0]}")}
    if not isinstance(kept, Best):
        found["keep"] = tuple(one for one in kept.keep if one != by[0])
    return dataclasses.replace(kept, **found)


def reached(plan: Plan, grid: Grid, groups: Mapping[str, Any], num_units: int) -> Variable | None:
    """Mark the units that each plan may change.

    Returns:
        Dimensions, those of the grid by which plans choose units and `unit`, and the marks; None where every plan may
        change every unit, or the marks are too many.
    """
    named = [edit.units for edit in plan]
    masks = {EVERYONE: np.ones(num_units, bool)} | {name: np.asarray(mask, bool) for name, mask in groups.items()}
    if any(units is None or (isinstance(units, str) and masks[units].all()) for units in named):
        return None
    read = {units.name for units in named if isinstance(units, Axis)}
    parts = [part for part in grid.parts if read & {column.name for column in part.columns}]
    sizes = tuple(part.size for part in parts)
    if math.prod(sizes) * num_units > MOST_MARKS:
        return None
    marks = np.zeros((*sizes, num_units), bool)
    for units in named:
        if isinstance(units, Axis):
            at, column = next((i, c) for i, part in enumerate(parts) for c in part.columns if c.name == units.name)
            own = np.stack([masks[str(name)] for name in column.labels()])
            marks |= own.reshape(*(size if i == at else 1 for i, size in enumerate(sizes)), num_units)
        else:
            marks |= masks[str(units)]
    return None if marks.all() else ((*(part.dim for part in parts), "unit"), marks)


def best_reached(marks: Variable | None, grid: Grid, index: Variable) -> Variable | None:
    """Mark the units that their best plan may change; others are best left as they were.

    Args:
        marks: of `reached`.
        index: dimensions, the first one the units, and the flat index of the best point; -1 where there is none.
    """
    if marks is None:
        return None
    flat = np.asarray(index[1])
    digits = dict(zip(grid.dims, np.unravel_index(np.maximum(flat, 0), grid.sizes), strict=True))
    unit = np.arange(len(flat)).reshape(-1, *(1 for _ in flat.shape[1:]))
    return index[0], marks[1][(*(digits[dim] for dim in marks[0][:-1]), unit)] & (flat >= 0)
