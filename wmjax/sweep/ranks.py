"""The best points of a sweep: the first k of all, and the best for each unit with its margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt32

from wmjax.sweep import reduce, wide
from wmjax.sweep.grids import Grid
from wmjax.sweep.reduce import Batch, Scene, Segments, Variables

_NOWHERE = np.uint32(0xFFFFFFFF)


class TopState(NamedTuple):
    """score: [k], highest first, -inf where there is none. index: [k, 2]. nonfinite: scores left out, in two words."""

    score: Float[Array, " k"]
    index: UInt32[Array, "k 2"]
    nonfinite: UInt32[Array, "2"]


@dataclass(frozen=True, kw_only=True)
class Top:
    """The k points of highest score, ties to the lower index; the result is the same in any order of the points.

    Attributes:
        k: how many.
        of: the output; None where there is but one.
        score: the mean or the sum of all of the output's numbers at a point; one that is not finite spoils the point.
        largest: False takes the lowest scores.
    """

    k: int = 10
    of: str | None = None
    score: Literal["mean", "sum"] = "mean"
    largest: bool = True

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k is {self.k}, must be at least 1")

    def init(self, scene: Scene) -> TopState:
        none = jnp.full((self.k, 2), _NOWHERE, jnp.uint32)
        return TopState(jnp.full(self.k, -jnp.inf, jnp.float32), none, jnp.zeros(2, jnp.uint32))

    def fold(self, state: TopState, batch: Batch, scene: Scene) -> TopState:
        values = batch.values.reshape(batch.values.shape[0], -1).astype(jnp.float32)
        score = values.mean(axis=1) if self.score == "mean" else values.sum(axis=1)
        good, nonfinite = reduce.usable(batch._replace(values=score))
        score = jnp.where(good, score if self.largest else -score, -jnp.inf)
        # `top_k` prefers the lower position among equals, and points come in the order of their index.
        best, at = jax.lax.top_k(score, min(self.k, len(score)))
        index = jnp.where(jnp.isfinite(best)[:, None], batch.index[at], _NOWHERE)
        return self.merge(state, TopState(best, index, jnp.stack([jnp.uint32(0), nonfinite])), scene)

    def merge(self, a: TopState, b: TopState, scene: Scene) -> TopState:
        score = jnp.concatenate([a.score, b.score])
        index = jnp.concatenate([a.index, b.index])
        order = jax.lax.sort((-score, index[:, 0], index[:, 1]), num_keys=3)
        nonfinite = wide.total(a.nonfinite, b.nonfinite)
        return TopState(-order[0][: self.k], jnp.stack(order[1:], axis=1)[: self.k], nonfinite)

    def finish(self, state: TopState, scene: Scene, grid: Grid) -> Variables:
        """Give `score`, `index` and the level of every axis, best first; no more rows than there were points."""
        score, index = np.asarray(state.score), np.asarray(state.index)
        found = np.isfinite(score)
        score = (score if self.largest else -score)[found].astype(np.float64)
        return {
            "score": (("rank",), score),
            "rank": (("rank",), np.arange(1, len(score) + 1)),
            **reduce.common_variables(None, state.nonfinite),
            **reduce.index_variables(("rank",), index[found], grid),
        }


class BestState(NamedTuple):
    """Of each number of the output: the best value, the point that has it, and the best of all other points.

    best, second: [*shape], -inf where there is none. index: [*shape, 2]. nonfinite: left out, in two words.
    """

    best: Float[Array, "*shape"]
    index: UInt32[Array, "*shape 2"]
    second: Float[Array, "*shape"]
    nonfinite: UInt32[Array, "2"]


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best point for each number of an output (each unit, each outcome), ties to the lower index.

    A single draw of luck at each point makes the luckiest plan the best: average luck inside the point.

    Attributes:
        of: the output; None where there is but one.
        segments: takes the mean over a segment's units, the output's first axis, before comparing.
        largest: False takes the lowest.
    """

    of: str | None = None
    segments: Segments | None = None
    largest: bool = True

    def _shape(self, scene: Scene) -> tuple[int, ...]:
        if self.segments is None:
            return scene.shape
        self.segments.check(scene)
        return (len(self.segments.names), *scene.shape[1:])

    def init(self, scene: Scene) -> BestState:
        shape = self._shape(scene)
        none = jnp.full((*shape, 2), _NOWHERE, jnp.uint32)
        worst = jnp.full(shape, -jnp.inf, jnp.float32)
        return BestState(worst, none, jnp.full(shape, -jnp.inf, jnp.float32), jnp.zeros(2, jnp.uint32))

    def fold(self, state: BestState, batch: Batch, scene: Scene) -> BestState:
        good, nonfinite = reduce.usable(batch)
        values, good = self._averaged(jnp.where(good, batch.values.astype(jnp.float32), 0.0), good, scene)
        values = jnp.where(good, values if self.largest else -values, -jnp.inf)
        at = jnp.argmax(values, axis=0)
        best = jnp.max(values, axis=0)
        points = jnp.arange(values.shape[0]).reshape((-1,) + (1,) * (values.ndim - 1))
        second = jnp.max(jnp.where(points == at, -jnp.inf, values), axis=0)
        index = jnp.where(jnp.isfinite(best)[..., None], batch.index[at], _NOWHERE)
        return self.merge(state, BestState(best, index, second, jnp.stack([jnp.uint32(0), nonfinite])), scene)

    def _averaged(self, values: Array, good: Bool[Array, "*all"], scene: Scene) -> tuple[Array, Array]:
        if self.segments is None:
            return values, good
        flat = (values.shape[0], scene.shape[0], -1)
        total = reduce.by_segment(self.segments, values.reshape(flat))
        count = reduce.by_segment(self.segments, good.astype(jnp.float32).reshape(flat))
        shape = (values.shape[0], *self._shape(scene))
        return (total / jnp.maximum(count, 1)).reshape(shape), (count > 0).reshape(shape)

    def merge(self, a: BestState, b: BestState, scene: Scene) -> BestState:
        first = (a.best > b.best) | ((a.best == b.best) & wide.less(a.index, b.index))
        beaten = jnp.minimum(a.best, b.best)
        return BestState(
            jnp.maximum(a.best, b.best),
            jnp.where(first[..., None], a.index, b.index),
            jnp.maximum(beaten, jnp.maximum(a.second, b.second)),
            wide.total(a.nonfinite, b.nonfinite),
        )

    def finish(self, state: BestState, scene: Scene, grid: Grid) -> Variables:
        """Give `value`, `margin` over the second best point, `index` and the level of every axis."""
        best, second = (np.asarray(x).astype(np.float64) for x in (state.best, state.second))
        dims = scene.out_dims if self.segments is None else (self.segments.dim, *scene.out_dims[1:])
        both, some = np.isfinite(best) & np.isfinite(second), np.isfinite(best)
        margin = np.where(both, best - np.where(both, second, 0.0), np.nan)
        value = np.where(some, best if self.largest else -best, np.nan)
        return {
            "value": (dims, value),
            "margin": (dims, margin),
            **reduce.common_variables(self.segments, state.nonfinite),
            **reduce.index_variables(dims, np.asarray(state.index), grid),
        }
