"""Cutting a grid into boxes of one shape, which the engine takes one after another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from wmjax.sweep.grids import unravel


class Region(NamedTuple):
    """One box: the digits of its first point, that point's flat index, and how many points of the box are real."""

    start: tuple[int, ...]
    index: int
    count: int


@dataclass(frozen=True)
class Tiling:
    """Boxes of `width` levels of dimension `lead`, by all levels of the dimensions after it, by one of those before.

    Points of a box have neighbouring flat indices. The last box along `lead` may stick out of the grid; its points
    beyond the edge come last in it and are not counted.
    """

    sizes: tuple[int, ...]
    lead: int
    width: int

    @property
    def box(self) -> tuple[int, ...]:
        """Shape of a box, one number a dimension."""
        return (1,) * self.lead + (self.width,) + self.sizes[self.lead + 1 :]

    @property
    def chunk(self) -> int:
        """Points of a box."""
        return self.width * math.prod(self.sizes[self.lead + 1 :])

    @property
    def across(self) -> int:
        """Boxes along `lead`."""
        return -(-self.sizes[self.lead] // self.width)

    @property
    def num_regions(self) -> int:
        return math.prod(self.sizes[: self.lead]) * self.across

    def region(self, number: int) -> Region:
        """Place a box by its number; a number beyond the last one gives a box of no points."""
        if number >= self.num_regions:
            return Region((0,) * len(self.sizes), 0, 0)
        outer, step = divmod(number, self.across)
        below = math.prod(self.sizes[self.lead + 1 :])
        first = step * self.width
        index = (outer * self.sizes[self.lead] + first) * below
        return Region(unravel(index, self.sizes), index, min(self.width, self.sizes[self.lead] - first) * below)

    def slices(self, region: Region) -> tuple[slice, ...]:
        """Where the real points of a box lie in an array over the grid."""
        ends = (min(s + n, size) for s, n, size in zip(region.start, self.box, self.sizes, strict=True))
        return tuple(slice(s, e) for s, e in zip(region.start, ends, strict=True))


def tile(sizes: Sequence[int], limit: int) -> Tiling:
    """Cut into boxes of at most `limit` points, as few and as even as can be; a box has one point at least."""
    sizes = tuple(sizes)
    lead, below = len(sizes) - 1, 1
    while lead > 0 and below * sizes[lead] <= limit:
        below *= sizes[lead]
        lead -= 1
    widest = max(1, min(sizes[lead], limit // below))
    return Tiling(sizes, lead, -(-sizes[lead] // -(-sizes[lead] // widest)))
