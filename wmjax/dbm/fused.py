"""Inference and chains of a training step as one GPU kernel each, in place of hundreds of small ones.

A step of learning is a chain of some 150 products of a few thousand numbers, each of which waits for the one before. On
a GPU such a product takes as long as it takes to start it. Here a block of rows keeps the machine and its own layers on
one multiprocessor from the first sweep to the last: one start a phase, and members of an ensemble and blocks of rows
fill the multiprocessors. What is computed is what `phases` computes, the same words of the same seeds included, for
machines of bits; the order of the sums is the kernel's.

Written in Pallas for Triton, whose arrays have sides that are powers of two: layers are padded with units that nothing
reads (their weights are zero). JAX means to drop this backend one day; where it is gone, plain JAX does the work.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, UInt32

from wmjax.core import bits
from wmjax.dbm import packed as colours
from wmjax.dbm.packed import Packed
from wmjax.dbm.types import Layers

try:
    from jax.experimental.pallas import triton
except ImportError:
    triton = None

LEAST_SIDE = 16
"""Least side of a product in Triton."""
ROWS, WARPS = 16, 4
"""Rows of a block, and the warps of 32 threads that work on one; with 1 and 2 warps a chain takes 8 and 2 times as long
on an H200."""
LARGEST = 2**16
"""Padded couplings that fit beside the rows into a multiprocessor's own memory."""


class Plan(NamedTuple):
    """What a kernel is compiled for.

    sizes: units of every layer. sweeps: of mean field. steps: of the chains. rows: of a block.
    """

    sizes: tuple[int, ...]
    sweeps: int
    steps: int
    rows: int


def fits(sizes: tuple[int, ...], rows: Float[Array, "rows units"], gains: tuple[float, float]) -> bool:
    """Tell whether there is a GPU, and a machine and rows that these kernels are made for."""
    if triton is None or jax.default_backend() != "gpu":
        return False
    couplings = sum(a * b for a, b in itertools.pairwise(map(_side, sizes)))
    made_for = rows.ndim == 2 and rows.dtype == jnp.float32 and gains == (1.0, 1.0) and couplings <= LARGEST
    return made_for and rows.shape[0] % ROWS == 0


def or_plain(kernel: Callable[..., Any], plain: Callable[..., Any], *args: Any) -> Any:
    """Call the kernel where the program is compiled for CUDA, and plain JAX elsewhere."""
    return lax.platform_dependent(*args, cuda=kernel, default=plain)


def given_data(
    machine: Packed, v: Float[Array, "rows units"], *, sizes: tuple[int, ...], sweeps: int, interpret: bool = False
) -> tuple[Float[Array, "rows even"], Float[Array, "rows odd"]]:
    """Infer as `phases.given_data`, gains being one."""
    plan = Plan(sizes, sweeps, 0, ROWS)
    hidden = tuple(range(1, len(sizes)))
    found = _call(_infer_kernel, plan, machine, None, {0: v}, found=hidden, interpret=interpret)
    return colours.join((v, *found))


def visible_chains(
    seeds: UInt32[Array, "steps 2 2"],
    machine: Packed,
    v: Float[Array, "rows units"],
    *,
    sizes: tuple[int, ...],
    sweeps: int,
    interpret: bool = False,
) -> tuple[Float[Array, "rows even"], Float[Array, "rows odd"]]:
    """Move the published chains as `phases.visible_chains`, for bits and gains of one; give the layers at the end."""
    plan = Plan(sizes, sweeps, seeds.shape[0], ROWS)
    layers = tuple(range(len(sizes)))
    return colours.join(_call(_visible_kernel, plan, machine, seeds, {0: v}, found=layers, interpret=interpret))


def block_chains(
    seeds: UInt32[Array, "steps 2 2"],
    machine: Packed,
    even: Float[Array, "rows even"],
    *,
    sizes: tuple[int, ...],
    interpret: bool = False,
) -> tuple[Float[Array, "rows even"], Float[Array, "rows odd"], Float[Array, "rows even"]]:
    """Move chains as `phases.block_chains`, for bits and gains of one.

    Returns:
        Even layers, odd layers, and the conditional means of the even layers given the odd ones.
    """
    plan = Plan(sizes, 0, seeds.shape[0], ROWS)
    layers = tuple(range(len(sizes)))
    ends = np.cumsum(sizes[0::2])[:-1]
    start = dict(zip(layers[0::2], jnp.split(even, ends, axis=-1), strict=True))
    found = _call(_block_kernel, plan, machine, seeds, start, found=(*layers, *layers[0::2]), interpret=interpret)
    return *colours.join(found[: len(sizes)]), jnp.concatenate(found[len(sizes) :], axis=-1)


def _side(size: int) -> int:
    return max(LEAST_SIDE, 1 << (size - 1).bit_length())


def _call(
    kernel: Callable[..., None],
    plan: Plan,
    machine: Packed,
    seeds: Array | None,
    given: dict[int, Array],
    *,
    found: tuple[int, ...],
    interpret: bool,
) -> Layers:
    """Run a kernel over blocks of rows: it reads the machine, seeds and given layers, and writes the layers `found`."""
    sizes, sides = plan.sizes, tuple(map(_side, plan.sizes))
    params, rows = colours.unpack(machine, sizes), next(iter(given.values())).shape[0]
    whole = [_pad(w, sides[i : i + 2]) for i, w in enumerate(params.weights)]
    whole += [_pad(b[None], (1, side)) for b, side in zip(params.biases, sides, strict=True)]
    whole += [] if seeds is None else [seeds.reshape(-1)]

    def block(layer: int) -> pl.BlockSpec:
        return pl.BlockSpec((plan.rows, sides[layer]), lambda i: (i, 0))

    out = pl.pallas_call(
        partial(kernel, plan),
        out_shape=[jax.ShapeDtypeStruct((rows, sides[i]), jnp.float32) for i in found],
        grid=(rows // plan.rows,),
        in_specs=[*(pl.BlockSpec(x.shape, lambda i, n=x.ndim: (0,) * n) for x in whole), *map(block, given)],
        out_specs=[*map(block, found)],
        interpret=interpret,
        compiler_params=None if triton is None else triton.CompilerParams(num_warps=WARPS, num_stages=1),
    )(*whole, *(_pad(x, (rows, sides[i])) for i, x in given.items()))
    return tuple(x[:, : sizes[i]] for i, x in zip(found, out, strict=True))


def _pad(x: Array, shape: tuple[int, ...]) -> Array:
    return jnp.pad(x, [(0, to - size) for size, to in zip(x.shape, shape, strict=True)])


class _Machine(NamedTuple):
    """A machine inside a kernel: padded weights, and biases `[1, units]`."""

    weights: tuple[Any, ...]
    biases: tuple[Any, ...]

    def field(self, layer: int, below: Any, above: Any) -> Any:
        """Sum up what a layer gets: its bias and its neighbours' share; a neighbour that is None has none."""
        total = self.biases[layer]
        if below is not None:
            total = total + _product(below, self.weights[layer - 1], 0)
        return total if above is None else total + _product(above, self.weights[layer], 1)


def _read(plan: Plan, refs: tuple[Any, ...]) -> tuple[_Machine, tuple[Any, ...]]:
    """Load the machine; give it and the references that are left."""
    depth = len(plan.sizes)
    weights = tuple(ref[...] for ref in refs[: depth - 1])
    biases = tuple(ref[...] for ref in refs[depth - 1 : 2 * depth - 1])
    return _Machine(weights, biases), refs[2 * depth - 1 :]


def _product(x: Any, weight: Any, side: int) -> Any:
    """Multiply by a weight, or by its transpose: `side` is the one that is summed over."""
    return lax.dot_general(x, weight, (((1,), (side,)), ((), ())), precision=lax.Precision.HIGHEST)


def _mean(field: Any) -> Any:
    return 0.5 + 0.5 * jnp.tanh(0.5 * field)


def _infer(plan: Plan, machine: _Machine, v: Any) -> tuple[Any, ...]:
    """Infer the hidden means of a block of rows by sequential sweeps from one half (see `meanfield`)."""
    depth = len(plan.sizes)
    below = machine.field(1, v, None)
    half = tuple(jnp.full((v.shape[0], _side(size)), 0.5, v.dtype) for size in plan.sizes[1:])

    def sweep(_: Any, means: tuple[Any, ...]) -> tuple[Any, ...]:
        found = list(means)
        for layer in range(1, depth):
            above = found[layer] if layer + 1 < depth else None
            if layer == 1:
                field = below if above is None else below + _product(above, machine.weights[1], 1)
            else:
                field = machine.field(layer, found[layer - 2], above)
            found[layer - 1] = _mean(field)
        return tuple(found)

    return lax.fori_loop(0, plan.sweeps, sweep, half)


def _words(seeds: Any, at: Any, rows: Any, offset: int, shape: tuple[int, int], units: int) -> Any:
    """Draw the words that `bits.words` has for these rows of an array `[all rows, units]`, from column `offset` on."""
    row = rows + lax.broadcasted_iota(jnp.int32, shape, 0)
    column = offset + lax.broadcasted_iota(jnp.int32, shape, 1)
    index = (row * units + column).astype(jnp.uint32)
    return bits.mix(index, (seeds[at], seeds[at + 1]))


def _coin(words: Any, mean: Any) -> Any:
    """Compare as `bits.coin`."""
    return ((words >> 9).astype(jnp.int32).astype(jnp.float32) * 2.0**-23 < mean).astype(mean.dtype)


def _bernoulli(words: Any, field: Any) -> Any:
    """Compare as `bits.bernoulli`."""
    drawn = (words.astype(jnp.int32) >> 8).astype(jnp.float32) * 2.0**-23
    return (drawn < jnp.tanh(0.5 * field)).astype(field.dtype)


def _infer_kernel(plan: Plan, *refs: Any) -> None:
    machine, (v, *out) = _read(plan, refs)
    for ref, means in zip(out, _infer(plan, machine, v[...]), strict=True):
        ref[...] = means


def _visible_kernel(plan: Plan, *refs: Any) -> None:
    machine, (seeds, start, *out) = _read(plan, refs)
    rows = pl.program_id(0) * plan.rows
    visible, bottom = plan.sizes[:2]

    def step(t: Any, v: Any) -> Any:
        means = _infer(plan, machine, v)[0]
        drawn = _coin(_words(seeds, 4 * t, rows, 0, means.shape, bottom), means)
        chance = _mean(machine.field(0, None, drawn))
        return _coin(_words(seeds, 4 * t + 2, rows, 0, v.shape, visible), chance)

    v = lax.fori_loop(0, plan.steps, step, start[...])
    for ref, layer in zip(out, (v, *_infer(plan, machine, v)), strict=True):
        ref[...] = layer


def _block_kernel(plan: Plan, *refs: Any) -> None:
    sizes, depth = plan.sizes, len(plan.sizes)
    machine, (seeds, *rest) = _read(plan, refs)
    evens = len(sizes[0::2])
    start, drawn, means = rest[:evens], rest[evens : evens + depth], rest[evens + depth :]
    rows = pl.program_id(0) * plan.rows

    def draw(t: Any, colour: int, layers: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Draw all layers of one colour given those of the other."""
        own, fields, offset = [], [], 0
        units = sum(sizes[colour::2])
        for layer in range(colour, depth, 2):
            below = layers[(layer - 1) // 2] if layer > 0 else None
            above = layers[(layer + 1) // 2] if layer + 1 < depth else None
            field = machine.field(layer, below, above)
            words = _words(seeds, 4 * t + 2 * (1 - colour), rows, offset, field.shape, units)
            own.append(_bernoulli(words, field))
            fields.append(field)
            offset += sizes[layer]
        return tuple(own), tuple(fields)

    def step(t: Any, carry: Any) -> Any:
        odd, _ = draw(t, 1, carry[0])
        even, fields = draw(t, 0, odd)
        return even, odd, fields

    even = tuple(ref[...] for ref in start)
    odd = tuple(jnp.zeros((plan.rows, _side(size)), even[0].dtype) for size in sizes[1::2])
    even, odd, fields = lax.fori_loop(0, plan.steps, step, (even, odd, even))
    for ref, layer in zip(drawn, _interleave(even, odd), strict=True):
        ref[...] = layer
    for ref, field in zip(means, fields, strict=True):
        ref[...] = _mean(field)


def _interleave(even: tuple[Any, ...], odd: tuple[Any, ...]) -> list[Any]:
    layers: list[Any] = [None] * (len(even) + len(odd))
    layers[0::2], layers[1::2] = even, odd
    return layers
