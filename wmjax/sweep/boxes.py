"""One box of a grid on the device: its points evaluated, and folded into what is kept.

A box is evaluated by one `vmap` a dimension, the last innermost, and never by a flat list of points. So what depends on
the first dimensions alone (a member's belief, a segment's history) is computed once for all points that share them:
algebra before brute force, found by `vmap` itself, which leaves alone what it does not map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Int, Key, UInt32

from wmjax.core.errors import UserError
from wmjax.core.keys import key_for
from wmjax.sweep import grids, wide
from wmjax.sweep.grids import Layout
from wmjax.sweep.reduce import Batch, Reduction, Scene
from wmjax.sweep.tiles import Tiling

Evaluate = Callable[..., Any]
"""`evaluate(key, point, *data)`: an array, or arrays by name, of one point; pure."""
ONLY = "value"
"""Name of the output of an `evaluate` that gives but one array."""


@dataclass(frozen=True)
class Work:
    """What is fixed of a sweep, apart from the size of its boxes.

    Attributes:
        evaluate: the function swept.
        layout: of the grid.
        reductions: by name, in order.
        scenes: of each output that is read, by its name, in order.
    """

    evaluate: Evaluate
    layout: Layout
    reductions: tuple[tuple[str, Reduction], ...]
    scenes: tuple[tuple[str, Scene], ...]

    def output_of(self, reduction: Reduction) -> str:
        return self.scenes[0][0] if reduction.of is None else reduction.of

    def scene_of(self, reduction: Reduction) -> Scene:
        return dict(self.scenes)[self.output_of(reduction)]


def evaluate_point(
    key: Key[Array, ""], digits: list[Any], tables: Mapping[str, Any], data: tuple[Any, ...], *, work: Work
) -> dict[str, Array]:
    """Evaluate one point: the outputs that are read, their floating point numbers as float32.

    Every point sees the same key, so that two plans meet the same luck and their difference is paired (common random
    numbers); each axis of seeds folds its seed into it.
    """
    point = grids.decode(work.layout, digits, tables)
    for slot in (slot for part in work.layout.slots for slot in part):
        if slot.kind == "seed":
            key = key_for(key, slot.name, point[slot.name])
    outputs = named(work.evaluate(key, point, *data))
    return {name: _plain(outputs[name]) for name, _ in work.scenes}


def named(outputs: Any) -> dict[str, Any]:
    """Give outputs by name."""
    return dict(outputs) if isinstance(outputs, Mapping) else {ONLY: outputs}


def _plain(x: Any) -> Array:
    x = jnp.asarray(x)
    return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x


def evaluate_box(
    key: Key[Array, ""],
    start: Int[Array, " dims"],
    tables: Mapping[str, Any],
    data: tuple[Any, ...],
    *,
    work: Work,
    tiling: Tiling,
) -> dict[str, Array]:
    """Evaluate a box: `[points, *shape]` by output. Points beyond the grid's edge repeat the last level."""
    sizes, lead = tiling.sizes, tiling.lead
    edge = jnp.minimum(start[lead] + jnp.arange(tiling.width), sizes[lead] - 1)
    axes = [edge, *(jnp.arange(size) for size in sizes[lead + 1 :])]
    outer = [start[k] for k in range(lead)]

    def at(*inner: Array) -> dict[str, Array]:
        return evaluate_point(key, [*outer, *inner], tables, data, work=work)

    run: Callable[..., dict[str, Array]] = at
    for k in reversed(range(len(axes))):
        run = jax.vmap(run, in_axes=[0 if i == k else None for i in range(len(axes))])
    return {name: x.reshape(tiling.chunk, *x.shape[len(axes) :]) for name, x in run(*axes).items()}


def fold_box(
    states: tuple[Any, ...],
    values: Mapping[str, Array],
    start: Int[Array, " dims"],
    index: UInt32[Array, "2"],
    count: Int[Array, ""],
    *,
    work: Work,
    tiling: Tiling,
) -> tuple[Any, ...]:
    """Fold a box's numbers into the states of all reductions; points from `count` on are not counted."""
    places = jnp.meshgrid(*(jnp.arange(n, dtype=jnp.int32) for n in tiling.box), indexing="ij")
    digits = jnp.stack([(s + p).ravel() for s, p in zip(start, places, strict=True)], axis=1)
    order = jnp.arange(tiling.chunk)
    indices = wide.add(jnp.broadcast_to(index, (tiling.chunk, 2)), order.astype(jnp.uint32))
    out = []
    for state, (_, reduction) in zip(states, work.reductions, strict=True):
        batch = Batch(values[work.output_of(reduction)], digits, indices, order < count)
        out.append(reduction.fold(state, batch, work.scene_of(reduction)))
    return tuple(out)


def init_states(work: Work) -> tuple[Any, ...]:
    """Begin every reduction."""
    return tuple(reduction.init(work.scene_of(reduction)) for _, reduction in work.reductions)


def merge_states(a: tuple[Any, ...], b: tuple[Any, ...], *, work: Work) -> tuple[Any, ...]:
    """Join the states of two sets of points."""
    pairs = zip(work.reductions, a, b, strict=True)
    return tuple(reduction.merge(x, y, work.scene_of(reduction)) for (_, reduction), x, y in pairs)


def scenes(
    evaluate: Evaluate,
    layout: Layout,
    reductions: tuple[tuple[str, Reduction], ...],
    dims: Mapping[str, tuple[str, ...]],
    shapes: Any,
) -> tuple[tuple[str, Scene], ...]:
    """Find the outputs that the reductions read, and name their dimensions.

    Args:
        evaluate: the function swept.
        layout: of the grid.
        reductions: by name.
        dims: names of each output's dimensions; those not named are `<output>_0`, `<output>_1`, ..
        shapes: of key, tables and data (`sizing.Shapes`).

    Raises:
        UserError: a reduction reads an output that there is not, or does not say which of several.
    """
    found = _outputs(evaluate, layout, shapes)
    wanted: dict[str, None] = {}
    for name, reduction in reductions:
        if reduction.of is None and len(found) != 1:
            raise UserError(f"reduction {name!r}: say of which output; there are {', '.join(found)}")
        output = next(iter(found)) if reduction.of is None else reduction.of
        if output not in found:
            raise UserError(f"reduction {name!r} reads the output {output!r}; there are {', '.join(found)}")
        wanted[output] = None
    return tuple((name, _scene(name, found[name].shape, layout, dims)) for name in wanted)


@lru_cache(maxsize=16)
def _outputs(evaluate: Evaluate, layout: Layout, shapes: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Find the shapes of a point's outputs; the same question asked again traces nothing."""

    def at(key: Any, tables: Any, data: Any) -> dict[str, Any]:
        point = grids.decode(layout, [0] * len(layout.sizes), tables)
        return {name: jnp.asarray(x) for name, x in named(evaluate(key, point, *data)).items()}

    return jax.eval_shape(at, *shapes.unfold(None))


def _scene(name: str, shape: tuple[int, ...], layout: Layout, dims: Mapping[str, tuple[str, ...]]) -> Scene:
    out_dims = tuple(dims.get(name, (f"{name}_{k}" for k in range(len(shape)))))
    if len(out_dims) != len(shape):
        raise UserError(f"the output {name!r} has shape {shape}; its dimensions are named {out_dims}")
    clash = sorted(set(out_dims) & set(layout.dims))
    if clash:
        raise UserError(f"{clash[0]!r} is a dimension of the grid and of the output {name!r}; rename one")
    return Scene(layout.dims, layout.sizes, tuple(shape), out_dims)


# ---- compiled -------------------------------------------------------------------------------------------------------


def programs(work: Work, tiling: Tiling, mesh: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Give the two programs of a step, `evaluate` and `fold`, over a leading axis of lanes, one lane a device.

    Two and not one, so that numbers read back from a store are folded by the very program that folds fresh ones.
    """
    evaluate = partial(evaluate_box, work=work, tiling=tiling)
    fold = partial(fold_box, work=work, tiling=tiling)

    def evaluate_lane(key: Any, start: Any, tables: Any, data: Any) -> Any:
        return jax.tree.map(lambda x: x[None], evaluate(key, start[0], tables, data))

    def fold_lane(states: Any, values: Any, start: Any, index: Any, count: Any) -> Any:
        states, values, start, index, count = jax.tree.map(lambda x: x[0], (states, values, start, index, count))
        return jax.tree.map(lambda x: x[None], fold(states, values, start, index, count))

    if mesh is None:
        return jax.jit(evaluate_lane), jax.jit(fold_lane, donate_argnums=0)
    lanes, all_ = PartitionSpec(mesh.axis_names[0]), PartitionSpec()
    # No lane speaks to another, so there is nothing for the checker of replicated values to check.
    shard = partial(jax.shard_map, mesh=mesh, out_specs=lanes, check_vma=False)
    return (
        jax.jit(shard(evaluate_lane, in_specs=(all_, lanes, all_, all_))),
        jax.jit(shard(fold_lane, in_specs=lanes), donate_argnums=0),
    )
