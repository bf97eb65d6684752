"""Two-colour block Gibbs sampling.

Given its two neighbours a layer's units are independent, so the layers split in two colours: all odd layers are drawn
given the even ones, then all even layers (the visible layer among them) given the odd ones. One step is both passes.
Chains are leading axes: every function takes `[..., units]`, usually `[chains, units]`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from wmjax.core.visible import Visible
from wmjax.dbm import types
from wmjax.dbm.types import DBMParams, Layers

# exp(-FAR) is zero and sigmoid(FAR) is one in float32, and FAR can be added to any field without overflow.
FAR = 1e9


class Clamp(NamedTuple):
    """Visible units that keep given values while the rest is sampled.

    mask: bool [units], true where the unit is held. A softmax group may be held in part: what is free is drawn given
        what is held.
    values: [..., units], read where the mask is true; broadcast against the chains.
    """

    mask: Bool[Array, " units"]
    values: Float[Array, "... units"]


def visible_means(
    field: Float[Array, "... units"], *, visible: Visible, clamp: Clamp | None = None
) -> Float[Array, "... units"]:
    """Compute the conditional mean of every visible unit from its field.

    Bernoulli `sigmoid(f_i)`; softmax `exp(f_i) / sum over the group`; Gaussian `f_i` (unit variance).
    """
    if visible.all_bernoulli:
        means = jax.nn.sigmoid(field)
        return means if clamp is None else jnp.where(clamp.mask, clamp.values, means)
    parts = []
    for group in visible.groups:
        part = field[..., group.slice]
        if group.kind == "softmax":
            part = jax.nn.softmax(_held(part, group.slice, clamp))
        elif group.kind == "bernoulli":
            part = jax.nn.sigmoid(part)
        parts.append(part)
    means = jnp.concatenate(parts, axis=-1)
    return means if clamp is None else jnp.where(clamp.mask, clamp.values, means)


def _held(field: Array, units: slice, clamp: Clamp | None) -> Array:
    if clamp is None:
        return field
    held = jnp.where(clamp.values[..., units] > 0.5, FAR, -FAR)
    return jnp.where(clamp.mask[units], held, field)


def sample_visible(
    key: Key[Array, ""], means: Float[Array, "... units"], *, visible: Visible, clamp: Clamp | None = None
) -> Float[Array, "... units"]:
    """Draw the visible layer from its conditional means (see `visible_means`)."""
    if visible.all_bernoulli:
        drawn = _bernoulli(key, means)
        return drawn if clamp is None else jnp.where(clamp.mask, clamp.values, drawn)
    parts = []
    for index, group in enumerate(visible.groups):
        part, stream = means[..., group.slice], jax.random.fold_in(key, index)
        if group.kind == "gaussian":
            part = part + jax.random.normal(stream, part.shape, part.dtype)
        elif group.kind == "softmax":
            part = jax.nn.one_hot(jax.random.categorical(stream, jnp.log(part)), group.size, dtype=part.dtype)
        else:
            part = _bernoulli(stream, part)
        parts.append(part)
    drawn = jnp.concatenate(parts, axis=-1)
    return drawn if clamp is None else jnp.where(clamp.mask, clamp.values, drawn)


def _bernoulli(key: Array, means: Array) -> Array:
    return (jax.random.uniform(key, means.shape, means.dtype) < means).astype(means.dtype)


def step_with_means(
    key: Key[Array, ""], params: DBMParams, layers: Layers, *, visible: Visible, clamp: Clamp | None = None
) -> tuple[Layers, Layers]:
    """Draw all odd layers given the even ones, then all even layers given the odd ones.

    Returns:
        The new layers, and each layer's conditional means at the moment it was drawn: averages over the even means
        have less variance than over the even samples (Rao-Blackwell).
    """
    drawn, means = list(layers), list(layers)
    for first in (1, 0):
        for index in range(first, len(layers), 2):
            field = types.fields(params, tuple(drawn), index)
            stream = jax.random.fold_in(key, index)
            if index == 0:
                means[0] = visible_means(field, visible=visible, clamp=clamp)
                drawn[0] = sample_visible(stream, means[0], visible=visible, clamp=clamp)
            else:
                means[index] = jax.nn.sigmoid(field)
                drawn[index] = _bernoulli(stream, means[index])
    return tuple(drawn), tuple(means)


def step(
    key: Key[Array, ""], params: DBMParams, layers: Layers, *, visible: Visible, clamp: Clamp | None = None
) -> Layers:
    """Take one step of both passes; see `step_with_means`."""
    return step_with_means(key, params, layers, visible=visible, clamp=clamp)[0]


def run(
    key: Key[Array, ""],
    params: DBMParams,
    layers: Layers,
    *,
    visible: Visible,
    num_steps: int,
    clamp: Clamp | None = None,
) -> Layers:
    """Take `num_steps` steps and return the last layers."""

    def body(layers: Layers, key: Array) -> tuple[Layers, None]:
        return step(key, params, layers, visible=visible, clamp=clamp), None

    return jax.lax.scan(body, layers, jax.random.split(key, num_steps))[0]


def init_layers(key: Key[Array, ""], params: DBMParams, *, visible: Visible, num_chains: int) -> Layers:
    """Draw `[chains, units]` layers from the machine without couplings, that is from the biases alone."""
    layers = []
    for index, bias in enumerate(params.biases):
        field = jnp.broadcast_to(bias, (num_chains, *bias.shape))
        stream = jax.random.fold_in(key, index)
        if index == 0:
            layers.append(sample_visible(stream, visible_means(field, visible=visible), visible=visible))
        else:
            layers.append(_bernoulli(stream, jax.nn.sigmoid(field)))
    return tuple(layers)
