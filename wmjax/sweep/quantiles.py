"""Quantiles over the points of a sweep, from counts in bins that grow with their distance from zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from wmjax.sweep import reduce, wide
from wmjax.sweep.grids import Grid
from wmjax.sweep.reduce import Batch, Scene, Segments, Variables


class QuantilesState(NamedTuple):
    """count: numbers in each bin, in two words, `[cells, groups, rest, bins, 2]`. nonfinite: left out, in two words."""

    count: UInt32[Array, "cells groups rest bins 2"]
    nonfinite: UInt32[Array, "2"]


@dataclass(frozen=True, kw_only=True)
class Quantiles:
    """Quantiles of an output over all points, and over the units of a segment, in one pass and fixed memory.

    Bin k holds magnitudes in `(s g^(k - 1), s g^k]`, `g = (1 + e) / (1 - e)`, and answers `2 s g^k / (g + 1)`: the
    relative error is at most `e` (Masson, Rim and Lee, DDSketch, 2019), plus 1e-5 for the float32 logarithm. Counts are
    whole, so the order of the points changes nothing at all.

    Attributes:
        of: the output; None where there is but one.
        probabilities: between 0 and 1; each answers for the order statistic of rank `floor(p (n - 1))`.
        keep, segments: as of `Moments`.
        error: the relative error e.
        smallest: magnitudes below it count as zero.
        largest: magnitudes above it count as it.
    """

    of: str | None = None
    probabilities: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)
    keep: tuple[str, ...] = ()
    segments: Segments | None = None
    error: float = 0.01
    smallest: float = 1e-6
    largest: float = 1e9

    def __post_init__(self) -> None:
        if not self.probabilities or not all(0 <= p <= 1 for p in self.probabilities):
            raise ValueError(f"probabilities are {self.probabilities}, must be between 0 and 1")
        if not 1e-4 <= self.error < 1:
            raise ValueError(f"error is {self.error}, must be at least 0.0001 and below 1")
        if not 0 < self.smallest < self.largest:
            raise ValueError(f"smallest is {self.smallest}, must be above 0 and below largest, {self.largest}")

    @property
    def _log_growth(self) -> float:
        return math.log((1 + self.error) / (1 - self.error))

    @property
    def _side(self) -> int:
        """Bins on each side of zero."""
        return math.ceil(math.log(self.largest / self.smallest) / self._log_growth) + 1

    def bins(self) -> Float[np.ndarray, " bins"]:
        """What each bin answers, ascending."""
        growth = math.exp(self._log_growth)
        above = self.smallest * growth ** np.arange(self._side) * 2 / (growth + 1)
        return np.concatenate([-above[::-1], [0.0], above])

    def bin_of(self, values: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
        """Find the bin of finite numbers."""
        size = jnp.abs(values)
        far = jnp.log(jnp.maximum(size, self.smallest) / self.smallest) / self._log_growth
        k = jnp.clip(jnp.ceil(far).astype(jnp.int32), 0, self._side - 1) + 1
        return self._side + jnp.where(size < self.smallest, 0, jnp.where(values < 0, -k, k))

    def _shape(self, scene: Scene) -> tuple[int, int, int, int]:
        return *reduce.group_shape(self.keep, self.segments, scene), 2 * self._side + 1

    def init(self, scene: Scene) -> QuantilesState:
        return QuantilesState(jnp.zeros((*self._shape(scene), 2), jnp.uint32), jnp.zeros(2, jnp.uint32))

    def fold(self, state: QuantilesState, batch: Batch, scene: Scene) -> QuantilesState:
        _, groups, rest, bins = shape = self._shape(scene)
        good, nonfinite = reduce.usable(batch)
        units = 1 if self.segments is None else scene.shape[0]
        full = (batch.values.shape[0], units, rest)
        values = jnp.where(good, batch.values.astype(jnp.float32), 0.0).reshape(full)
        code = np.zeros(1, np.int32) if self.segments is None else np.array(self.segments.codes, np.int32)
        cell = reduce.cells(self.keep, scene, batch.digits)[:, None, None]
        row = (cell * groups + code[:, None]) * rest + jnp.arange(rest)
        take = good.reshape(full) & (code >= 0)[:, None]
        # Where nothing is to be counted the place is out of range, and dropped.
        at = jnp.where(take, row * bins + self.bin_of(values), math.prod(shape))
        count = jnp.zeros(math.prod(shape), jnp.uint32).at[at.ravel()].add(1, mode="drop").reshape(shape)
        return QuantilesState(wide.add(state.count, count), wide.add(state.nonfinite, nonfinite))

    def merge(self, a: QuantilesState, b: QuantilesState, scene: Scene) -> QuantilesState:
        return QuantilesState(wide.total(a.count, b.count), wide.total(a.nonfinite, b.nonfinite))

    def finish(self, state: QuantilesState, scene: Scene, grid: Grid) -> Variables:
        """Give `quantile`, its last dimension the probabilities; NaN where nothing was counted."""
        below = np.cumsum(wide.join(state.count), axis=-1, dtype=np.uint64)
        n = below[..., -1].astype(np.float64)
        answers, rows = self.bins(), below.reshape(-1, below.shape[-1])
        out = np.full((len(rows), len(self.probabilities)), np.nan)
        for i, (row, count) in enumerate(zip(rows, n.ravel(), strict=True)):
            for j, p in enumerate(self.probabilities):
                if count:
                    out[i, j] = answers[np.searchsorted(row, np.uint64(math.floor(p * (count - 1))), side="right")]
        shape = (*state.count.shape[:3], len(self.probabilities))
        return {
            "quantile": reduce.group_variable(self.keep, self.segments, scene, out.reshape(shape), "probability"),
            "probability": (("probability",), np.array(self.probabilities)),
            **reduce.common_variables(self.segments, state.nonfinite),
        }
