"""Energies of a machine, whole or with some layers summed out.

A layer that is summed out turns its units' terms `-x_i f_i` (`f` the unit's field) into `-log sum_{x_i} exp(x_i f_i)`,
which is exact as long as no two neighbouring layers are summed out. Everything this room knows of free energies, exact
or variational, is one of these sums at suitable states or means of the layers that stay.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wmjax.core.visible import Visible
from wmjax.dbm import types
from wmjax.dbm.types import DBMParams, Layers


def energy(params: DBMParams, layers: Layers, *, visible: Visible) -> Float[Array, "..."]:
    """Compute the energy of states of all layers.

        E = -sum_l b_l . x_l - sum_l x_l' W_{l+1} x_{l+1} + sum_{i Gaussian} 0.5 v_i^2

    The energy is linear in each hidden layer, so at mean-field means of the hidden layers it is `E_q[E]`.

    Args:
        params: the machine.
        layers: `(v, h1, .., hL)`, each `[..., units]`; leading axes broadcast.
        visible: kinds of the visible units.

    Returns:
        Energies `[...]`.
    """
    return collapsed(params, dict(enumerate(layers)), visible=visible)


def collapsed(params: DBMParams, kept: Mapping[int, Array], *, visible: Visible) -> Float[Array, "..."]:
    """Compute `-log sum exp(-E)` over all states of the layers that are not kept.

    Args:
        params: the machine.
        kept: index of a layer to its states or means `[..., units]`; leading axes broadcast. Of two neighbouring layers
            at least one is kept.
        visible: kinds of the visible units. Gaussian units are integrated over the reals, softmax groups summed over
            their categories.

    Returns:
        Collapsed energies `[...]`; with every layer kept, the energy itself.
    """
    return functools.reduce(jnp.add, [part.sum(-1) for part in _parts(params, kept, visible)])


def collapsed_terms(params: DBMParams, kept: Mapping[int, Array], *, visible: Visible) -> Float[Array, "... terms"]:
    """Compute the terms, about one a unit, whose sum over the last axis is `collapsed`.

    Differences between two states are best formed term by term: terms that do not change cancel exactly, where totals
    of -240 are each known to 1.5e-5 only in float32.
    """
    parts = _parts(params, kept, visible)
    leading = jnp.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return jnp.concatenate([jnp.broadcast_to(part, (*leading, part.shape[-1])) for part in parts], axis=-1)


def _parts(params: DBMParams, kept: Mapping[int, Array], visible: Visible) -> list[Array]:
    """List one array of terms `[..., terms]` a layer. A coupling of two kept layers is booked at the upper one."""
    missing = [index for index in range(len(params.biases)) if index not in kept]
    if any(above - below == 1 for below, above in itertools.pairwise(missing)):
        raise ValueError(f"layers {missing} cannot be summed out together: two of them are neighbours")
    # The bias stands in for a layer that is summed out; the field of its neighbours is not asked for.
    layers = tuple(kept.get(index, bias) for index, bias in enumerate(params.biases))
    parts = []
    for index, bias in enumerate(params.biases):
        if index not in kept:
            field = types.fields(params, layers, index)
            parts.append(-(visible_log_sums(field, visible=visible) if index == 0 else jax.nn.softplus(field)))
            continue
        field = bias + kept[index - 1] @ params.weights[index - 1] if index - 1 in kept else bias
        parts.append(-layers[index] * field)
        if index == 0 and (square := gaussian_units(visible)):
            parts.append(0.5 * layers[0][..., jnp.array(square)] ** 2)
    return parts


def visible_log_sums(field: Float[Array, "... units"], *, visible: Visible) -> Float[Array, "... terms"]:
    """Sum the visible units out given their fields, one term for each bit, softmax group and Gaussian unit.

    Bit: `log(1 + e^f)`. Softmax group: `log sum_k e^{f_k}`. Gaussian: `log int e^{f x - x^2 / 2} dx =
    f^2 / 2 + log(2 pi) / 2`.
    """
    if visible.all_bernoulli:
        return jax.nn.softplus(field)
    parts = []
    for group in visible.groups:
        part = field[..., group.slice]
        if group.kind == "softmax":
            part = jax.nn.logsumexp(part, axis=-1, keepdims=True)
        elif group.kind == "gaussian":
            part = 0.5 * part**2 + 0.5 * math.log(2 * math.pi)
        else:
            part = jax.nn.softplus(part)
        parts.append(part)
    return jnp.concatenate(parts, axis=-1)


def gaussian_units(visible: Visible) -> list[int]:
    """List the indices of the Gaussian units."""
    return [g.start + i for g in visible.groups if g.kind == "gaussian" for i in range(g.size)]
