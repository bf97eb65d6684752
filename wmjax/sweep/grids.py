"""A grid of plans: a product of dimensions of named axes, never listed.

A dimension is one axis, several in step (a zip, a list of points) or a sample of a cube. A point of the grid is a
digit a dimension; a flat index is those digits in mixed radix, the last counting fastest. The host keeps flat indices
in Python's whole numbers and cuts the grid into boxes (`tiles`); the device gets the digits of a box's first point and
counts on from there. So a grid of 10^10 points needs no 64-bit number on the device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped, UInt64

from wmjax.core.errors import UserError
from wmjax.sweep import levels
from wmjax.sweep.levels import Source

Kind = Literal["number", "integer", "choice", "seed", "member"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One named axis.

    Attributes:
        name: what a plan, a world and the result call it.
        kind: a `"number"` is float32 on the device, the others int32; a `"choice"` is the number of its name in
            `names`, a `"seed"` makes luck of its own, a `"member"` is one of an ensemble.
        source: of its values.
        names: of a choice.
    """

    name: str
    kind: Kind
    source: Source
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise UserError("an axis of the grid needs a name")
        if self.kind not in get_args(Kind):
            raise ValueError(f"axis {self.name!r}: kind is {self.kind!r}, must be one of {get_args(Kind)}")
        size = self.source.size
        most = levels.MOST
        if isinstance(self.source, levels.Sobol):
            most = levels.MOST_SAMPLED
        elif self.source.rule == "table":
            most = levels.MOST_LISTED
        if not 1 <= size <= most:
            raise UserError(f"axis {self.name!r} has {size} levels, must have 1 to {most}")

    def labels(self, at: np.ndarray | None = None) -> np.ndarray:
        """Values of all levels, or of those at some digits, as a person reads them."""
        values = self.source.labels(at)
        return np.array(self.names, object)[values] if self.kind == "choice" else values


@dataclass(frozen=True)
class Part:
    """One dimension: axes that go in step."""

    dim: str
    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        sizes = {c.name: c.source.size for c in self.columns}
        if len(set(sizes.values())) != 1:
            raise UserError(f"the axes of {self.dim!r} go in step and need as many levels each; they have {sizes}")

    @property
    def size(self) -> int:
        return self.columns[0].source.size


class Slot(NamedTuple):
    """How the device reads one axis."""

    name: str
    kind: str
    rule: str


@dataclass(frozen=True)
class Layout:
    """What of a grid is fixed when a program is compiled: sizes, names and rules, not the levels."""

    dims: tuple[str, ...]
    sizes: tuple[int, ...]
    slots: tuple[tuple[Slot, ...], ...]


@dataclass(frozen=True)
class Grid:
    """A product of dimensions, of which the last counts fastest.

    Put first what is costly to change (a member, a segment, a window): whatever depends on the first dimensions alone
    is computed once for all points that share them.
    """

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise UserError("a grid needs at least one axis")
        if self.size >= 2**63:
            raise UserError(f"a grid of {self.size:.3g} points cannot be counted; the most is 9.2e18")
        for what, names in (("axis", self.names), ("dimension", self.dims)):
            repeated = sorted({n for n in names if names.count(n) > 1})
            if repeated:
                raise UserError(f"the grid has two of {what} {repeated[0]!r}")
        for part in self.parts:
            if part.dim in self.names and [c.name for c in part.columns] != [part.dim]:
                raise UserError(f"the dimension {part.dim!r} has the name of an axis; call it something else")

    def __mul__(self, other: Grid) -> Grid:
        return Grid(self.parts + other.parts)

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(c for part in self.parts for c in part.columns)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns)

    @property
    def dims(self) -> tuple[str, ...]:
        return tuple(part.dim for part in self.parts)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(part.size for part in self.parts)

    @property
    def size(self) -> int:
        """Number of points."""
        return math.prod(self.sizes)

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """Names of each choice axis, as `plans.apply` takes them."""
        return {c.name: c.names for c in self.columns if c.kind == "choice"}

    @cached_property
    def layout(self) -> Layout:
        slots = tuple(tuple(Slot(c.name, c.kind, c.source.rule) for c in part.columns) for part in self.parts)
        return Layout(self.dims, self.sizes, slots)

    def tables(self) -> dict[str, Any]:
        """What the device reads levels from, by axis."""
        return {c.name: c.source.table() for c in self.columns}

    def labels(self) -> dict[str, tuple[str, np.ndarray]]:
        """Dimension and values of each axis, for labelling results."""
        return {c.name: (part.dim, c.labels()) for part in self.parts for c in part.columns}

    def at(self, indices: UInt64[np.ndarray, " n"]) -> dict[str, np.ndarray]:
        """Look points up by their flat indices, as a person reads them: `[n]` values of each axis."""
        if indices.size and indices.max() >= self.size:
            raise IndexError(f"point {indices.max()} of a grid of {self.size}")
        digits = np.unravel_index(indices.astype(np.int64), self.sizes)
        return {c.name: c.labels(digits[k]) for k, part in enumerate(self.parts) for c in part.columns}


def check_levels(grid: Grid) -> None:
    """Refuse an axis that has a level twice; axes in step, and samples, may.

    Raises:
        UserError: naming the axis and the level.
    """
    for column in (part.columns[0] for part in grid.parts if len(part.columns) == 1):
        if isinstance(column.source, levels.Listed | levels.Linear):
            found, count = np.unique(column.labels(), return_counts=True)
            if (count > 1).any():
                raise UserError(f"axis {column.name!r} has the level {found[count > 1][0]} twice; name each level once")


def unravel(index: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """Write a flat index in mixed radix, the last digit counting fastest; whole numbers of any length.

    Raises:
        IndexError: there are no so many points.
    """
    out, rest = [], index
    for size in reversed(sizes):
        rest, digit = divmod(rest, size)
        out.append(digit)
    if rest:
        raise IndexError(f"point {index} of a grid of {math.prod(sizes)}")
    return tuple(reversed(out))


def decode(
    grid: Grid | Layout, digits: Sequence[Any], tables: Mapping[str, Any] | None = None
) -> dict[str, Shaped[Array, ""]]:
    """Turn a point's digits into the value of each axis, on the device.

    Args:
        grid: or its layout, where the tables are given.
        digits: one a dimension; a scalar each, traced or not.
        tables: `grid.tables()`, where they are arguments of the program and not part of it.

    Returns:
        float32 for a number, int32 for every other axis.
    """
    layout = grid.layout if isinstance(grid, Grid) else grid
    if tables is None:
        if not isinstance(grid, Grid):
            raise ValueError("a layout holds no levels: give the tables")
        tables = grid.tables()
    return {
        slot.name: levels.read(slot.rule, _on_device(tables[slot.name]), jnp.asarray(digit, jnp.int32))
        for part, digit in zip(layout.slots, digits, strict=True)
        for slot in part
    }


def _on_device(table: Any) -> Any:
    return tuple(jnp.asarray(t) for t in table) if isinstance(table, tuple) else jnp.asarray(table)
