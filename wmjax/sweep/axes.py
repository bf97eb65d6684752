"""Making grids: each function gives a grid of one dimension, and grids multiply.

`axes.linear("discount", 0, 0.3, 31) * axes.choices("segment", ("young", "old")) * axes.seeds(16)` has 992 points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from wmjax.core.errors import UserError
from wmjax.sweep import levels
from wmjax.sweep.grids import Column, Grid, Kind, Part


def axis(name: str, values: Sequence[Any], kind: Kind | None = None) -> Grid:
    """Make an axis of these values: names, whole numbers, or numbers where any of them is not whole."""
    values = list(values)
    if values and all(isinstance(v, str) for v in values):
        return choices(name, [str(v) for v in values])
    numbers = np.array(values, np.float64)
    if not np.isfinite(numbers).all():
        raise UserError(f"axis {name!r} has a level that is not finite: {values}")
    whole = kind != "number" and all(isinstance(v, int | np.integer) for v in values)
    if kind not in (None, "number") and not whole:
        raise UserError(f"axis {name!r}: levels of a {kind} must be whole numbers, they are {values[:5]}")
    listed = tuple(int(v) for v in values) if whole else tuple(float(v) for v in numbers)
    if whole and values and max(map(abs, listed)) > levels.MOST:
        raise UserError(f"axis {name!r}: whole numbers must be at most {levels.MOST}")
    return _single(Column(name=name, kind=kind or ("integer" if whole else "number"), source=levels.Listed(listed)))


def linear(name: str, low: float | int, high: float | int, count: int) -> Grid:
    """Make an axis of `count` numbers from `low` to `high`, both included."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError(f"axis {name!r} goes from {low} to {high}, must be finite")
    return _single(Column(name=name, kind="number", source=levels.Linear(float(low), float(high), count)))


def steps(name: str, start: int, stop: int, step: int = 1, kind: Kind = "integer") -> Grid:
    """Make an axis of whole numbers from `start` to `stop`, which is included where a step reaches it."""
    if step == 0 or (stop - start) * step < 0:
        raise UserError(f"axis {name!r}: steps of {step} do not lead from {start} to {stop}")
    if max(abs(start), abs(stop)) > levels.MOST:
        raise UserError(f"axis {name!r}: whole numbers must be at most {levels.MOST}")
    return _single(Column(name=name, kind=kind, source=levels.Range(start, step, (stop - start) // step + 1)))


def choices(name: str, names: Sequence[str]) -> Grid:
    """Make an axis of names: segments, actions."""
    repeated = sorted({n for n in names if list(names).count(n) > 1})
    if repeated:
        raise UserError(f"axis {name!r} names {repeated[0]!r} twice")
    return _single(Column(name=name, kind="choice", source=levels.Range(0, 1, len(names)), names=tuple(names)))


def seeds(count: int, name: str = "seed", first: int = 0) -> Grid:
    """Make an axis of seeds: each point of it has luck of its own, shared by all plans."""
    return steps(name, first, first + count - 1, 1, "seed") if count > 0 else steps(name, 0, -1)


def members(count: int, name: str = "member") -> Grid:
    """Make an axis of an ensemble's members."""
    return steps(name, 0, count - 1, 1, "member")


def zipped(dim: str, *grids: Grid) -> Grid:
    """Make one dimension of axes that go in step."""
    parts = [part for grid in grids for part in grid.parts]
    if not parts:
        raise UserError(f"the dimension {dim!r} has no axis")
    return Grid((Part(dim, tuple(c for part in parts for c in part.columns)),))


def points(dim: str, rows: Sequence[Mapping[str, Any]]) -> Grid:
    """Make one dimension of points written out, each naming the same axes."""
    if not rows:
        raise UserError(f"the list {dim!r} has no points")
    wrong = [i for i, row in enumerate(rows) if row.keys() != rows[0].keys()]
    if wrong:
        at, first = sorted(rows[wrong[0]]), sorted(rows[0])
        raise UserError(f"the list {dim!r}: point {wrong[0]} names {at}, the first names {first}")
    return zipped(dim, *(_listed(name, [row[name] for row in rows]) for name in rows[0]))


def _listed(name: str, values: list[Any]) -> Grid:
    if not any(isinstance(v, str) for v in values):
        return axis(name, values)
    if not all(isinstance(v, str) for v in values):
        raise UserError(f"axis {name!r} mixes names and numbers: {values[:5]}")
    names = tuple(dict.fromkeys(values))
    source = levels.Listed(tuple(names.index(v) for v in values))
    return _single(Column(name=name, kind="choice", source=source, names=names))


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An axis to be sampled: numbers on `[low, high)`; whole numbers `low .. high`; or one of `names`."""

    name: str
    low: float | int = 0.0
    high: float | int = 1.0
    whole: bool = False
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high) and not self.names:
            raise UserError(f"axis {self.name!r} is sampled from {self.low} to {self.high}: low must be below high")


Sample = Literal["latin", "sobol"]


def sample(dim: str, method: Sample, size: int, intervals: Sequence[Interval], *, seed: int = 0) -> Grid:
    """Make one dimension that fills a cube evenly: a Latin hypercube, or a scrambled Sobol sequence.

    Args:
        dim: its name.
        method: `"latin"` has one point in each of `size` slices of every axis; `"sobol"` is best where `size` is a
            power of two, and its first points are those of a smaller sample.
        size: number of points.
        intervals: the cube's axes.
        seed: of the sample.
    """
    if method not in get_args(Sample):
        raise UserError(f"the sample {dim!r} is by {method!r}, must be one of {', '.join(get_args(Sample))}")
    if not intervals:
        raise UserError(f"the sample {dim!r} has no axis with an interval")
    most = levels.MOST_SAMPLED if method == "sobol" else levels.MOST_LISTED
    if not 1 <= size <= most:
        raise UserError(f"the sample {dim!r} has {size} points, must have 1 to {most}")
    make = levels.Latin if method == "latin" else levels.Sobol
    columns = []
    for place, of in enumerate(intervals):
        whole = of.whole or bool(of.names)
        low, high = (0, len(of.names) - 1) if of.names else (of.low, of.high)
        low, high = (int(low), int(high)) if whole else (float(low), float(high))
        kind: Kind = "choice" if of.names else "integer" if whole else "number"
        source = make(low, high, whole, size, seed, place, len(intervals))
        columns.append(Column(name=of.name, kind=kind, source=source, names=of.names))
    return Grid((Part(dim, tuple(columns)),))


def _single(column: Column) -> Grid:
    return Grid((Part(column.name, (column,)),))
