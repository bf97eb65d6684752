"""The machine as a bipartite graph: even layers on one side, odd layers on the other, one coupling matrix between them.

With `e = (v, h2, ..)` and `o = (h1, h3, ..)` laid side by side the energy is `-a.e - b.o - e' M o`, so half a Gibbs
step or half a mean-field sweep is one matrix product whatever the depth. M has blocks `W_1, W_2', W_3, ..`; blocks of
layers that do not touch (v and h3) stay zero, which for layers of 72-64-32-16 wastes a seventh of the product.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wmjax.dbm.types import DBMParams, Layers


class Packed(NamedTuple):
    """Parameters, or anything shaped like them, by colour.

    coupling: [even units, odd units].
    even: [even units], biases of the visible layer and of h2, h4, ..
    odd: [odd units], biases of h1, h3, ..
    """

    coupling: Float[Array, "even odd"]
    even: Float[Array, " even"]
    odd: Float[Array, " odd"]


def sizes_of(params: DBMParams) -> tuple[int, ...]:
    """List the units of every layer, the visible one first."""
    return tuple(bias.shape[-1] for bias in params.biases)


def pack(params: DBMParams) -> Packed:
    """Lay parameters out by colour."""
    sizes, dtype = sizes_of(params), params.biases[0].dtype

    def block(even: int, odd: int) -> Array:
        if odd == even + 1:
            return params.weights[even]
        return params.weights[odd].T if even == odd + 1 else jnp.zeros((sizes[even], sizes[odd]), dtype)

    depth = len(sizes)
    rows = [jnp.concatenate([block(even, odd) for odd in range(1, depth, 2)], axis=1) for even in range(0, depth, 2)]
    return Packed(jnp.concatenate(rows), *join(params.biases))


def unpack(packed: Packed, sizes: tuple[int, ...]) -> DBMParams:
    """Undo `pack` for layers of the given sizes."""
    where = _slices(sizes)

    def weight(lower: int) -> Array:
        even, odd = (lower, lower + 1) if lower % 2 == 0 else (lower + 1, lower)
        block = packed.coupling[where[even], where[odd]]
        return block if lower == even else block.T

    weights = tuple(weight(lower) for lower in range(len(sizes) - 1))
    return DBMParams(weights, split(packed.even, packed.odd, sizes))


def join(layers: Layers) -> tuple[Float[Array, "... even"], Float[Array, "... odd"]]:
    """Lay layers, or their biases or means, side by side by colour."""
    return jnp.concatenate(layers[0::2], axis=-1), jnp.concatenate(layers[1::2], axis=-1)


def split(even: Float[Array, "... even"], odd: Float[Array, "... odd"], sizes: tuple[int, ...]) -> Layers:
    """Undo `join` for layers of the given sizes."""
    where = _slices(sizes)
    return tuple((odd if layer % 2 else even)[..., where[layer]] for layer in range(len(sizes)))


def touching(sizes: tuple[int, ...]) -> np.ndarray:
    """Mark the entries of the coupling matrix that join neighbouring layers: `bool [even units, odd units]`."""
    even, odd = owners(sizes)
    return np.abs(even[:, None] - odd[None, :]) == 1


def owners(sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Name the layer of every even and of every odd unit: `int [even units]` and `int [odd units]`."""
    layer = np.arange(len(sizes))
    return np.repeat(layer[0::2], sizes[0::2]), np.repeat(layer[1::2], sizes[1::2])


def _slices(sizes: tuple[int, ...]) -> list[slice]:
    """Give each layer's place among the units of its colour."""
    where = []
    for layer, size in enumerate(sizes):
        start = sum(sizes[layer % 2 : layer : 2])
        where.append(slice(start, start + size))
    return where
