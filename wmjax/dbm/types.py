"""What a Deep Boltzmann machine is made of.

    E(v, h1, .., hL) = -b.v - sum_l c_l.h_l - v' W_1 h1 - sum_l h_l' W_{l+1} h_{l+1}     (Bernoulli and softmax units)

A Gaussian visible unit i has `0.5 v_i^2 - b_i v_i` in place of `-b_i v_i`: unit variance given the hidden units.
A softmax group is a set of bits of which exactly one is on; its energy terms are those of bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Layers = tuple[Float[Array, "..."], ...]
"""The state of every layer, `(v, h1, .., hL)`, each `[..., units of the layer]`; samples or means."""


class DBMParams(NamedTuple):
    """Parameters of a machine with L hidden layers, always in plain (uncentred) coordinates.

    weights: L arrays, `weights[l]` is `[units of layer l, units of layer l + 1]`, layer 0 being visible.
    biases: L + 1 arrays, `biases[l]` is `[units of layer l]`.
    """

    weights: tuple[Float[Array, "..."], ...]
    biases: tuple[Float[Array, "..."], ...]


@dataclass(frozen=True, kw_only=True)
class DBMConfig:
    """Shape of the hidden layers.

    Attributes:
        hidden: units of each hidden layer, bottom up; one entry is a restricted Boltzmann machine.
        init_scale: standard deviation of the initial weights.
    """

    hidden: tuple[int, ...] = (64, 32, 16)
    init_scale: float = 0.01

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden is {self.hidden}: at least one layer, each of at least one unit")
        if not self.init_scale >= 0:
            raise ValueError(f"init_scale is {self.init_scale}, must not be negative")


def init(key: Key[Array, ""], visible_bias: Float[Array, " units"], *, cfg: DBMConfig) -> DBMParams:
    """Draw small Gaussian weights; hidden biases are zero, the visible bias is given (see `learn.visible_bias`)."""
    sizes = (visible_bias.shape[0], *cfg.hidden)
    keys = jax.random.split(key, len(cfg.hidden))
    weights = tuple(
        cfg.init_scale * jax.random.normal(k, (below, above), visible_bias.dtype)
        for k, below, above in zip(keys, sizes[:-1], sizes[1:], strict=True)
    )
    return DBMParams(weights, (visible_bias, *(jnp.zeros(n, visible_bias.dtype) for n in cfg.hidden)))


def fields(params: DBMParams, layers: Layers, index: int) -> Float[Array, "... units"]:
    """Sum what layer `index` receives from its bias and its neighbours: `[..., units of that layer]`."""
    total = params.biases[index]
    if index > 0:
        total = total + layers[index - 1] @ params.weights[index - 1]
    if index < len(params.weights):
        total = total + layers[index + 1] @ params.weights[index].T
    return total
