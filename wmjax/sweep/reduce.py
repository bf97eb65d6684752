"""What is kept of a sweep: the contract of reductions, folded on the device a batch of points at a time.

A reduction is a frozen record of options with four functions:

    init(scene) -> state                     before the first point
    fold(state, batch, scene) -> state       take a batch in
    merge(a, b, scene) -> state              join the states of two sets of points
    finish(state, scene, grid) -> variables  on the host: names, dimensions and numbers

`moments`, `quantiles` and `ranks` hold them. The order and the size of the batches do not matter, to rounding; points
whose `valid` is False, and numbers that are not finite, are left out, and the latter counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt32

from wmjax.core.errors import UserError
from wmjax.sweep import wide
from wmjax.sweep.grids import Grid

Variable = tuple[tuple[str, ...], np.ndarray]
"""Dimensions and numbers."""
Variables = dict[str, Variable]


class Batch(NamedTuple):
    """Points and what came of them.

    values: [points, *shape], of one output.
    digits: [points, dims], the points' place in the grid.
    index: [points, 2], their flat index in two words.
    valid: [points].
    """

    values: Shaped[Array, "points *shape"]
    digits: Int[Array, "points dims"]
    index: UInt32[Array, "points 2"]
    valid: Bool[Array, " points"]


@dataclass(frozen=True)
class Scene:
    """What a reduction must know that is fixed: the grid's dimensions, and the output's."""

    dims: tuple[str, ...]
    sizes: tuple[int, ...]
    shape: tuple[int, ...]
    out_dims: tuple[str, ...]


@runtime_checkable
class Reduction(Protocol):
    """The contract; see the module. `of` is the output that it reads, None where there is but one."""

    @property
    def of(self) -> str | None: ...

    def init(self, scene: Scene) -> Any: ...

    def fold(self, state: Any, batch: Batch, scene: Scene) -> Any: ...

    def merge(self, a: Any, b: Any, scene: Scene) -> Any: ...

    def finish(self, state: Any, scene: Scene, grid: Grid) -> Variables: ...


@dataclass(frozen=True, kw_only=True)
class Full:
    """Keep the numbers of every point. Nothing is folded: the engine writes them, box by box."""

    of: str | None = None

    def init(self, scene: Scene) -> tuple[()]:
        return ()

    def fold(self, state: tuple[()], batch: Batch, scene: Scene) -> tuple[()]:
        return ()

    def merge(self, a: tuple[()], b: tuple[()], scene: Scene) -> tuple[()]:
        return ()

    def finish(self, state: tuple[()], scene: Scene, grid: Grid) -> Variables:
        return {}


@dataclass(frozen=True)
class Segments:
    """Groups of units, the first axis of an output.

    Attributes:
        codes: the segment of each unit, from 0; -1 belongs to none.
        names: of the segments.
        dim: what the result calls their dimension.
    """

    codes: tuple[int, ...]
    names: tuple[str, ...]
    dim: str = "segment"

    def __post_init__(self) -> None:
        wrong = sorted({c for c in self.codes if not -1 <= c < len(self.names)})
        if wrong:
            raise UserError(f"{len(self.names)} segments have codes 0 to {len(self.names) - 1}; {wrong[0]} is none")

    @classmethod
    def of(cls, labels: Sequence[Any]) -> Segments:
        """Make segments of each unit's label, in the order of the labels; None belongs to none."""
        names = sorted({str(x) for x in labels if x is not None})
        where = {name: i for i, name in enumerate(names)}
        return cls(tuple(-1 if x is None else where[str(x)] for x in labels), tuple(names))

    def indicator(self) -> np.ndarray:
        """Membership, float32 `[units, segments]`."""
        return (np.array(self.codes)[:, None] == np.arange(len(self.names))).astype(np.float32)

    def check(self, scene: Scene) -> None:
        if not self.codes or scene.shape[:1] != (len(self.codes),):
            raise UserError(f"segments are given for {len(self.codes)} units; the output's shape is {scene.shape}")


def by_segment(segments: Segments | None, values: Float[Array, "points units rest"]) -> Float[Array, "points g rest"]:
    """Sum over the units of each segment; without segments nothing is summed."""
    if segments is None:
        return values
    member = jnp.asarray(segments.indicator())
    return jnp.einsum("pur,ug->pgr", values, member, precision=jax.lax.Precision.HIGHEST)


def num_cells(keep: tuple[str, ...], scene: Scene) -> int:
    """Number of combinations of levels of the dimensions that are kept."""
    strange = [name for name in keep if name not in scene.dims]
    if strange:
        raise UserError(f"the grid has no dimension {strange[0]!r} to keep; there are {', '.join(scene.dims)}")
    return math.prod(kept_sizes(keep, scene))


def kept_sizes(keep: tuple[str, ...], scene: Scene) -> tuple[int, ...]:
    return tuple(scene.sizes[scene.dims.index(name)] for name in keep)


def cells(keep: tuple[str, ...], scene: Scene, digits: Int[Array, "points dims"]) -> Int[Array, " points"]:
    """Number each point's combination of kept levels, the last one counting fastest."""
    out = jnp.zeros(digits.shape[0], jnp.int32)
    for name in keep:
        k = scene.dims.index(name)
        out = out * scene.sizes[k] + digits[:, k].astype(jnp.int32)
    return out


def sum_cells(values: Shaped[Array, "points g rest"], cell: Int[Array, " points"], count: int) -> Array:
    """Sum the points of each cell: `[cells, g, rest]`."""
    return values.sum(axis=0)[None] if count == 1 else jax.ops.segment_sum(values, cell, num_segments=count)


def usable(batch: Batch) -> tuple[Bool[Array, "points *shape"], UInt32[Array, ""]]:
    """Mark the numbers that count, and count those of valid points that are not finite."""
    finite = jnp.isfinite(batch.values)
    valid = batch.valid.reshape((-1,) + (1,) * (batch.values.ndim - 1))
    return finite & valid, (valid & ~finite).sum(dtype=jnp.uint32)


def group_shape(keep: tuple[str, ...], segments: Segments | None, scene: Scene) -> tuple[int, int, int]:
    """Shape of a grouped state: cells, groups of units (one group of one "unit" without segments), and the rest."""
    size = math.prod(scene.shape)
    if segments is None:
        return num_cells(keep, scene), 1, size
    segments.check(scene)
    return num_cells(keep, scene), len(segments.names), size // scene.shape[0]


def group_variable(
    keep: tuple[str, ...], segments: Segments | None, scene: Scene, numbers: np.ndarray, *last: str
) -> tuple[tuple[str, ...], np.ndarray]:
    """Name the dimensions of `[cells, groups, rest, *last]` numbers."""
    first: tuple[str, ...] = () if segments is None else (segments.dim,)
    sizes = () if segments is None else (len(segments.names),)
    skip = len(first)
    shape = (*kept_sizes(keep, scene), *sizes, *scene.shape[skip:], *numbers.shape[3:])
    return (*keep, *first, *scene.out_dims[skip:], *last), numbers.reshape(shape)


def common_variables(segments: Segments | None, nonfinite: UInt32[Any, "2"]) -> Variables:
    """Name what every reduction tells: how many numbers were left out, and the segments."""
    out: Variables = {"nonfinite": ((), np.asarray(wide.join(nonfinite).astype(np.int64)))}
    if segments is not None:
        out[segments.dim] = ((segments.dim,), np.array(segments.names, object))
    return out


def index_variables(dims: tuple[str, ...], index: UInt32[np.ndarray, "*shape 2"], grid: Grid) -> Variables:
    """Name the points that won: `index`, and `best_<axis>` for every axis. No point is -1, and NaN or ""."""
    flat = wide.join(index)
    found = flat != wide.NOWHERE
    labels = grid.at(np.where(found, flat, 0).ravel().astype(np.uint64))
    out: Variables = {"index": (dims, np.where(found, np.where(found, flat, 0).astype(np.int64), -1))}
    for name, values in labels.items():
        values = values.reshape(flat.shape)
        if values.dtype == object:
            values = np.where(found, values, "")
        elif not found.all():
            values = np.where(found, values.astype(np.float64), np.nan)
        out[f"best_{name}"] = (dims, values)
    return out
