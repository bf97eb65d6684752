"""The few layers that the network is made of: plain dicts of arrays and pure functions."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt32

from wmjax.core import bits, draws

Params = dict[str, Any]


class Leaf(NamedTuple):
    """How one array starts: `at + scale * N(0, 1)`."""

    shape: tuple[int, ...]
    scale: float = 0.0
    at: float = 0.0


def linear(num_in: int, num_out: int, *, lead: tuple[int, ...] = (), scale: float = 1.0) -> Params:
    """Describe `x w + b` with weights N(0, scale^2 / inputs) and biases 0; `lead` are axes of many such layers."""
    return {
        "w": Leaf((*lead, num_in, num_out), scale / math.sqrt(max(num_in, 1))),
        "b": Leaf((*lead, num_out)),
    }


def norm(width: int, *, lead: tuple[int, ...] = ()) -> Params:
    """Describe a layer norm's scale and offset."""
    return {"scale": Leaf((*lead, width), at=1.0), "offset": Leaf((*lead, width))}


def draw(key: Key[Array, ""], leaves: Params) -> Params:
    """Draw every array of a tree of `Leaf` from one stream, because each compiled stream costs a third of a second."""
    flat, tree = jax.tree.flatten(leaves, is_leaf=lambda x: isinstance(x, Leaf))
    counts = [math.prod(leaf.shape) if leaf.scale else 0 for leaf in flat]
    noise = draws.normal(key, (sum(counts),))
    found, start = [], 0
    for leaf, count in zip(flat, counts, strict=True):
        own = noise[start : start + count].reshape(leaf.shape) * leaf.scale if leaf.scale else jnp.zeros(leaf.shape)
        found.append(leaf.at + own)
        start += count
    return jax.tree.unflatten(tree, found)


def dense(layer: Params, x: Float[Array, "*axes inputs"]) -> Float[Array, "*axes outputs"]:
    """Apply `x w + b`."""
    # As one matrix: the product of the way back is then told to read it transposed, where it would be copied so.
    *axes, inputs = x.shape
    flat = x.reshape(math.prod(axes), inputs) @ layer["w"] + layer["b"]
    return flat.reshape(*axes, flat.shape[-1])


def standardise(x: Float[Array, "*axes width"]) -> Float[Array, "*axes width"]:
    """Give each position a mean of 0 and a variance of 1 over its own features."""
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-6)


def rescale(layer: Params, x: Float[Array, "*axes width"]) -> Float[Array, "*axes width"]:
    """Scale and shift each feature: what a layer norm does after it has standardised."""
    return x * layer["scale"] + layer["offset"]


def layer_norm(layer: Params, x: Float[Array, "*axes width"]) -> Float[Array, "*axes width"]:
    """Standardise each position over its own features, then scale and shift."""
    return rescale(layer, standardise(x))


def dropout(seed: UInt32[Array, "*lead 2"], x: Float[Array, "*axes"], rate: float) -> Float[Array, "*axes"]:
    """Drop units and scale up the others; a rate of 0 leaves them alone and reads no seed.

    Seeds on leading axes drop from as many arrays, each as its seed alone would.
    """
    if rate == 0:
        return x
    draw = lambda own: bits.uniform(own, x.shape[seed.ndim - 1 :])  # noqa: E731
    for _ in range(seed.ndim - 1):
        draw = jax.vmap(draw)
    return jnp.where(draw(seed) >= rate, x / (1 - rate), 0.0)
