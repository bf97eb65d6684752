"""How much memory a sweep will take, known from its compiled programs before it runs, and the box that fits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from wmjax.core import devices
from wmjax.core.errors import UserError
from wmjax.sweep import boxes
from wmjax.sweep.boxes import Work
from wmjax.sweep.reduce import Full
from wmjax.sweep.tiles import Tiling, tile

PROBE = 64
"""Points of the box that is compiled to learn how many bytes a point takes."""
MOST = 2**17
"""Points of a box that nobody asked for."""
MANY = 16
"""Boxes of which it pays to compile a larger one, where that takes little more."""
CACHED = 2**25
"""Bytes that a box's own numbers take on a processor where nobody asked: a larger box falls out of the caches."""


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What a sweep will do, and take, on each device.

    Attributes:
        points: of the grid.
        chunk: points of one box.
        box: its shape, one number a dimension of the grid.
        regions: number of boxes.
        devices: boxes worked on at once.
        temp_bytes: scratch memory of the compiled programs.
        bytes: predicted peak: scratch, two boxes of numbers, the states, and the arguments.
        stored_bytes: what `Full` keeps of all points.
        flops: floating point operations a point, as the compiler counts them.
        seconds: of all boxes, if each takes as long as the first; None where that was not timed.
    """

    points: int
    chunk: int
    box: tuple[int, ...]
    regions: int
    devices: int
    temp_bytes: int
    bytes: int
    stored_bytes: int
    flops: float
    seconds: float | None = None


class Programs(NamedTuple):
    """A step's compiled programs, the shapes of its numbers, and the bytes it takes on each device.

    fixed_bytes is what does not grow with the box, the states and the arguments; bytes is all.
    """

    evaluate: Any
    fold: Any
    values: Any
    temp_bytes: int
    fixed_bytes: int
    bytes: int
    flops: float


class Shapes(NamedTuple):
    """Hashable shapes of the arguments: key, tables and data."""

    leaves: tuple[tuple[tuple[int, ...], Any], ...]
    tree: Any

    def unfold(self, sharding: Any) -> Any:
        return self.tree.unflatten(jax.ShapeDtypeStruct(s, d, sharding=sharding) for s, d in self.leaves)


def shapes_of(arguments: Any) -> Shapes:
    """Keep of arguments what a compiled program depends on."""
    leaves, tree = jax.tree.flatten(arguments)
    return Shapes(tuple((tuple(x.shape), x.dtype) for x in leaves), tree)


def lanes_of(mesh: Mesh | None) -> int:
    return 1 if mesh is None else mesh.size


def shardings(mesh: Mesh | None) -> tuple[Any, Any]:
    """Where lanes, and what all lanes share, lie; None is the default device."""
    if mesh is None:
        return None, None
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names[0])), NamedSharding(mesh, PartitionSpec())


def compiled(work: Work, tiling: Tiling, mesh: Mesh | None, shapes: Shapes) -> Programs:
    """Compile a step ahead of time; the same step asked for again is not compiled again."""
    return _compiled(work, tiling, mesh, shapes, jax.config.jax_default_matmul_precision)  # type: ignore[attr-defined]


@lru_cache(maxsize=16)
def _compiled(work: Work, tiling: Tiling, mesh: Mesh | None, shapes: Shapes, precision: Any) -> Programs:
    lanes, (split, shared) = lanes_of(mesh), shardings(mesh)
    evaluate, fold = boxes.programs(work, tiling, mesh)
    key, tables, data = shapes.unfold(shared)

    def lane(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((lanes, *shape), dtype, sharding=split)

    start = lane((len(tiling.sizes),), jnp.int32)
    values = jax.eval_shape(evaluate, key, start, tables, data)
    values = jax.tree.map(lambda x: lane(x.shape[1:], x.dtype), values)
    states = jax.tree.map(lambda x: lane(x.shape, x.dtype), jax.eval_shape(lambda: boxes.init_states(work)))
    first = evaluate.lower(key, start, tables, data).compile()
    second = fold.lower(states, values, start, lane((2,), jnp.uint32), lane((), jnp.int32)).compile()
    temp = max(_temp(first), _temp(second))
    fixed = _bytes(states) // lanes + _bytes((tables, data))
    total = temp + fixed + 2 * _bytes(values) // lanes
    return Programs(first, second, values, temp, fixed, total, _flops(first) / tiling.chunk)


def _temp(program: Any) -> int:
    return int(program.memory_analysis().temp_size_in_bytes)


def _flops(program: Any) -> float:
    cost = program.cost_analysis()
    return float((cost[0] if isinstance(cost, list) else cost or {}).get("flops", math.nan))


def _bytes(tree: Any) -> int:
    return sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))


def _device(mesh: Mesh | None) -> Any:
    return jax.local_devices()[0] if mesh is None else mesh.devices.flat[0]


def fit(work: Work, mesh: Mesh | None, shapes: Shapes, chunk: int | None, budget: int | None) -> Tiling:
    """Choose the box: of at most `chunk` points, or the largest whose predicted bytes keep within the budget.

    A small box is compiled to learn the bytes a point takes; the box chosen is compiled and shrunk until it fits, or
    grown where most of the small one's bytes were not its points'.
    Without a budget the default one holds, and on a processor a box of more than one point keeps to the caches.

    Raises:
        UserError: not even one point fits.
    """
    sizes, cached = work.layout.sizes, budget is None and _device(mesh).platform == "cpu"
    limit = devices.spare_bytes(_device(mesh), lanes_of(mesh)) if budget is None else budget
    if chunk is not None:
        if chunk < 1:
            raise UserError(f"chunk is {chunk}, must be at least 1")
        return tile(sizes, chunk)
    most = min(MOST, max(1, math.prod(sizes) // lanes_of(mesh)))
    tiling, stands, before = tile(sizes, min(PROBE, most)), 0, (0, 0)
    fits: Tiling | None = None
    for turn in range(8):
        found = compiled(work, tiling, mesh, shapes)
        if cached and not turn and found.bytes - found.fixed_bytes > CACHED:
            stands = _stands(work, tiling, mesh, shapes)
        stands = max(stands, found.fixed_bytes)
        goal = min(limit, stands + CACHED) if cached else limit
        if tiling.chunk == 1 and goal < found.bytes <= limit:
            return tiling
        if turn and found.bytes <= goal:
            more = tiling.chunk - before[0]
            if fits is not None or more <= 0 or tiling.num_regions < MANY * lanes_of(mesh):
                return tiling
            each = max((found.bytes - before[1]) / more, found.bytes / most)
            new = tile(sizes, min(most, tiling.chunk + math.floor(0.9 * (goal - found.bytes) / each)))
            if new.chunk < 4 * tiling.chunk:
                return tiling
            tiling, fits = new, tiling
            continue
        if fits is not None:
            return fits
        before = (tiling.chunk, found.bytes)
        if tiling.chunk == 1 and found.bytes > limit:
            need, have = found.bytes / 2**20, limit / 2**20
            raise UserError(
                f"one point of the sweep takes {need:.3g} MiB and the budget is {have:.3g} MiB; "
                "give a larger budget_bytes, or sweep fewer units or periods"
            )
        # A little less than it takes, for what does not grow in proportion.
        room = 0.9 * (goal - stands) / max(found.bytes - stands, 1)
        new = tile(sizes, max(1, min(most, math.floor(tiling.chunk * room))))
        if new == tiling:
            return tiling
        tiling = new
    return tile(sizes, 1)


def _stands(work: Work, tiling: Tiling, mesh: Mesh | None, shapes: Shapes) -> int:
    """Count the bytes that no smaller box would save, as copies of large states, from a box of half the points."""
    half = tile(tiling.sizes, max(1, tiling.chunk // 2))
    if half.chunk == tiling.chunk:
        return 0
    whole, part = (compiled(work, t, mesh, shapes).bytes for t in (tiling, half))
    return max(0, round(whole - tiling.chunk * (whole - part) / (tiling.chunk - half.chunk)))


def describe(work: Work, tiling: Tiling, mesh: Mesh | None, shapes: Shapes) -> SweepPlan:
    """Say what a sweep by these boxes takes."""
    found = compiled(work, tiling, mesh, shapes)
    points = math.prod(tiling.sizes)
    full = {work.output_of(reduction) for _, reduction in work.reductions if isinstance(reduction, Full)}
    a_box = sum(_bytes(found.values[name]) for name in full)
    return SweepPlan(
        points=points,
        chunk=tiling.chunk,
        box=tiling.box,
        regions=tiling.num_regions,
        devices=lanes_of(mesh),
        temp_bytes=found.temp_bytes,
        bytes=found.bytes,
        stored_bytes=a_box // (tiling.chunk * lanes_of(mesh)) * points,
        flops=found.flops,
    )
