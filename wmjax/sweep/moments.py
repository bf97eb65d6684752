"""Mean and variance over the points of a sweep, by segment and by any of the grid's dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

from wmjax.sweep import reduce, wide
from wmjax.sweep.grids import Grid
from wmjax.sweep.reduce import Batch, Scene, Segments, Variables


class MomentsState(NamedTuple):
    """Counts, means and sums of squared deviations, `[cells, groups, rest]`.

    count: in two words. mean, squares: in two float32 each, so that the ten-thousandth batch counts like the first.
    nonfinite: numbers left out, in two words.
    """

    count: UInt32[Array, "cells groups rest 2"]
    mean: Float[Array, "cells groups rest 2"]
    squares: Float[Array, "cells groups rest 2"]
    nonfinite: UInt32[Array, "2"]


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Mean and variance of an output over all points, and over the units of a segment.

    `m = m_a + d n_b / n`, `M = M_a + M_b + d^2 n_a n_b / n`, `d = m_b - m_a` (Chan, Golub and LeVeque, 1979); a batch's
    own mean and squares are those of a corrected two-pass sum.

    Attributes:
        of: the output; None where there is but one.
        keep: dimensions of the grid that the result keeps; over the others it is averaged. Keeping all but the seeds
            gives each plan's mean and its spread over luck.
        segments: averages over units, the output's first axis, as well; None keeps each.
    """

    of: str | None = None
    keep: tuple[str, ...] = ()
    segments: Segments | None = None

    def init(self, scene: Scene) -> MomentsState:
        shape = (*reduce.group_shape(self.keep, self.segments, scene), 2)
        counts, sums = jnp.zeros(shape, jnp.uint32), jnp.zeros(shape, jnp.float32)
        # Each leaf is its own buffer: the engine donates the state, and a buffer can be given away but once.
        return MomentsState(counts, sums, jnp.zeros(shape, jnp.float32), jnp.zeros(2, jnp.uint32))

    def fold(self, state: MomentsState, batch: Batch, scene: Scene) -> MomentsState:
        num_cells, _, rest = reduce.group_shape(self.keep, self.segments, scene)
        units = 1 if self.segments is None else scene.shape[0]
        good, nonfinite = reduce.usable(batch)
        shape = (batch.values.shape[0], units, rest)
        good = good.reshape(shape)
        values = jnp.where(good, batch.values.reshape(shape).astype(jnp.float32), 0.0)
        cell = reduce.cells(self.keep, scene, batch.digits)

        def collect(x: Array) -> Array:
            return reduce.sum_cells(reduce.by_segment(self.segments, x), cell, num_cells)

        # Units are counted in float32, which is exact below 2^24 of them, points in whole numbers.
        per_point = reduce.by_segment(self.segments, good.astype(jnp.float32)).astype(jnp.uint32)
        count = reduce.sum_cells(per_point, cell, num_cells)
        n = jnp.maximum(count, 1).astype(jnp.float32)
        rough = collect(values) / n
        deviation = jnp.where(good, values - self._spread(rough, cell), 0.0)
        off = collect(deviation)
        squares = jnp.maximum(collect(deviation**2) - off**2 / n, 0.0)
        zero = jnp.zeros_like(count)
        found = MomentsState(
            jnp.stack([zero, count], axis=-1),
            jnp.stack([rough + off / n, zero.astype(jnp.float32)], axis=-1),
            jnp.stack([squares, zero.astype(jnp.float32)], axis=-1),
            jnp.stack([jnp.uint32(0), nonfinite]),
        )
        return self.merge(state, found, scene)

    def _spread(self, groups: Float[Array, "cells groups rest"], cell: Array) -> Array:
        """Give each point's units the number of their cell and segment."""
        at = groups[cell] if groups.shape[0] > 1 else groups
        return at if self.segments is None else at[:, np.array(self.segments.codes)]

    def merge(self, a: MomentsState, b: MomentsState, scene: Scene) -> MomentsState:
        count = wide.total(a.count, b.count)
        n, ahead, more = wide.to_float(count), wide.to_float(a.count), wide.to_float(b.count)
        part = more / jnp.maximum(n, 1)
        gap = (b.mean[..., 0] - a.mean[..., 0]) + (b.mean[..., 1] - a.mean[..., 1])
        squares = wide.accumulate(wide.accumulate(a.squares, b.squares[..., 0]), b.squares[..., 1])
        return MomentsState(
            count,
            wide.accumulate(a.mean, gap * part),
            wide.accumulate(squares, gap**2 * ahead * part),
            wide.total(a.nonfinite, b.nonfinite),
        )

    def finish(self, state: MomentsState, scene: Scene, grid: Grid) -> Variables:
        """Give `mean`, `variance` (divisor n - 1) and `count`; NaN where there was too little."""
        count = wide.join(state.count).astype(np.int64)
        mean, squares = (np.asarray(x).astype(np.float64).sum(-1) for x in (state.mean, state.squares))
        with np.errstate(invalid="ignore", divide="ignore"):
            variance = np.where(count > 1, squares / (count - 1), np.nan)
        numbers = {"mean": np.where(count > 0, mean, np.nan), "variance": variance, "count": count}
        named = {k: reduce.group_variable(self.keep, self.segments, scene, x) for k, x in numbers.items()}
        return {**named, **reduce.common_variables(self.segments, state.nonfinite)}
