"""Two-colour block Gibbs sampling.

Given its two neighbours a layer's units are independent, so the layers split in two colours: all odd layers are drawn
given the even ones, then all even layers (the visible layer among them) given the odd ones. One step is both passes.
Chains are leading axes: every function takes `[..., units]`, usually `[chains, units]`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, UInt32

from wmjax.core import bits
from wmjax.core.visible import Visible
from wmjax.dbm import packed as colours
from wmjax.dbm.packed import Packed
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
    return draw_visible(bits.seeds(key), means, visible=visible, clamp=clamp)


def draw_visible(
    seed: UInt32[Array, "2"], means: Float[Array, "... units"], *, visible: Visible, clamp: Clamp | None = None
) -> Float[Array, "... units"]:
    """Draw as `sample_visible`, from a seed."""
    if visible.all_bernoulli:
        drawn = bits.coin(seed, means)
        return drawn if clamp is None else jnp.where(clamp.mask, clamp.values, drawn)
    parts = []
    for group, own in zip(visible.groups, bits.spread(seed, len(visible.groups)), strict=True):
        part = means[..., group.slice]
        if group.kind == "gaussian":
            part = part + bits.normal(own, part.shape).astype(part.dtype)
        elif group.kind == "softmax":
            part = _draw_category(own, part)
        else:
            part = bits.coin(own, part)
        parts.append(part)
    drawn = jnp.concatenate(parts, axis=-1)
    return drawn if clamp is None else jnp.where(clamp.mask, clamp.values, drawn)


def _draw_category(seed: Array, means: Array) -> Array:
    """Draw one-hot rows by inversion: the first category whose cumulated mean exceeds `u` times the total."""
    size = means.shape[-1]
    # Counting what lies at or below leaves exactly one bit on, whatever the rounding of the sums.
    cumulated = means @ np.triu(np.ones((size, size), means.dtype))
    threshold = bits.uniform(seed, means.shape[:-1]).astype(means.dtype)[..., None] * cumulated[..., -1:]
    category = jnp.sum(cumulated <= threshold, axis=-1, keepdims=True)
    return (category == jnp.arange(size)).astype(means.dtype)


def sweep(
    seeds: UInt32[Array, "2 2"],
    machine: Packed,
    even: Float[Array, "... even"],
    *,
    visible: Visible,
    clamp: Clamp | None = None,
    gains: tuple[float, float] = (1.0, 1.0),
) -> tuple[Float[Array, "... even"], Float[Array, "... odd"], Float[Array, "... even"]]:
    """Take one step on packed layers; the odd ones are drawn afresh, so the even ones alone are the chain's state.

    Args:
        seeds: one for the odd pass, one for the even pass.
        machine: packed parameters.
        even: even layers.
        visible: kinds of the visible units.
        clamp: visible units to hold.
        gains: factors on what the odd layers receive from the even ones and on the converse; not 1 in pretraining.

    Returns:
        Even layers, odd layers, and the fields from which the even layers were drawn.
    """
    odd = bits.bernoulli(seeds[0], gains[0] * (even @ machine.coupling) + machine.odd)
    field = gains[1] * (odd @ machine.coupling.T) + machine.even
    if visible.all_bernoulli and clamp is None:
        return bits.bernoulli(seeds[1], field), odd, field
    own = bits.spread(seeds[1], 2)
    means = visible_means(field[..., : visible.size], visible=visible, clamp=clamp)
    parts = (
        draw_visible(own[0], means, visible=visible, clamp=clamp),
        bits.bernoulli(own[1], field[..., visible.size :]),
    )
    return jnp.concatenate(parts, axis=-1), odd, field


def even_means(
    field: Float[Array, "... even"], *, visible: Visible, clamp: Clamp | None = None
) -> Float[Array, "... even"]:
    """Compute the conditional means of the even layers from the fields that `sweep` returns."""
    if visible.all_bernoulli and clamp is None:
        return jax.nn.sigmoid(field)
    below = visible_means(field[..., : visible.size], visible=visible, clamp=clamp)
    return jnp.concatenate([below, jax.nn.sigmoid(field[..., visible.size :])], axis=-1)


def step_with_means(
    key: Key[Array, ""], params: DBMParams, layers: Layers, *, visible: Visible, clamp: Clamp | None = None
) -> tuple[Layers, Layers]:
    """Draw all odd layers given the even ones, then all even layers given the odd ones.

    Returns:
        The new layers, and each layer's conditional means at the moment it was drawn: averages over the even means
        have less variance than over the even samples (Rao-Blackwell).
    """
    sizes, machine = colours.sizes_of(params), colours.pack(params)
    before, _ = colours.join(layers)
    even, odd, field = sweep(bits.seeds(key, (2,)), machine, before, visible=visible, clamp=clamp)
    odd_means = jax.nn.sigmoid(before @ machine.coupling + machine.odd)
    means = even_means(field, visible=visible, clamp=clamp)
    return colours.split(even, odd, sizes), colours.split(means, odd_means, sizes)


def step(
    key: Key[Array, ""], params: DBMParams, layers: Layers, *, visible: Visible, clamp: Clamp | None = None
) -> Layers:
    """Take one step of both passes; see `step_with_means`."""
    return run(key, params, layers, visible=visible, num_steps=1, clamp=clamp)


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
    sizes, machine = colours.sizes_of(params), colours.pack(params)

    def body(layers: tuple[Array, Array], seeds: Array) -> tuple[tuple[Array, Array], None]:
        even, odd, _ = sweep(seeds, machine, layers[0], visible=visible, clamp=clamp)
        return (even, odd), None

    (even, odd), _ = jax.lax.scan(body, colours.join(layers), bits.seeds(key, (num_steps, 2)))
    return colours.split(even, odd, sizes)


def init_layers(key: Key[Array, ""], params: DBMParams, *, visible: Visible, num_chains: int) -> Layers:
    """Draw `[chains, units]` layers from the machine without couplings, that is from the biases alone."""
    layers = []
    for bias, seed in zip(params.biases, bits.seeds(key, (len(params.biases),)), strict=True):
        field = jnp.broadcast_to(bias, (num_chains, *bias.shape))
        if layers:
            layers.append(bits.bernoulli(seed, field))
        else:
            layers.append(draw_visible(seed, visible_means(field, visible=visible), visible=visible))
    return tuple(layers)
