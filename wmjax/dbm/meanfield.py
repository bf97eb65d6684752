"""Mean-field inference of the hidden layers given visible rows.

Sequential sweeps of `mu_l = sigmoid(c_l + mu_{l-1} W_l + W_{l+1} mu_{l+1})`, bottom up, `mu_0 = v`, every mean starting
at one half, without damping. Each update minimises the variational free energy exactly in one layer, so it never rises.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wmjax.core.visible import Visible
from wmjax.dbm import gibbs
from wmjax.dbm.types import DBMParams, Layers


class MeanFieldInfo(NamedTuple):
    """How near the means are to a fixed point.

    residual: [rows], largest change of any mean in the last sweep.
    converged: bool [rows], `residual < report`.
    """

    residual: Float[Array, "..."]
    converged: Bool[Array, "..."]


def infer(
    params: DBMParams,
    v: Float[Array, "*rows units"],
    *,
    sweeps: int = 10,
    tol: float = 0.0,
    start: float = 0.5,
    report: float = 1e-3,
    free: Bool[Array, "*#rows units"] | None = None,
    visible: Visible | None = None,
) -> tuple[Layers, MeanFieldInfo]:
    """Infer the means of every layer given the visible rows.

    Args:
        params: the machine.
        v: visible rows; read only where `free` is false.
        sweeps: number of sweeps, at least one.
        tol: stop before `sweeps` once no mean of any row moves by more than this in a sweep; 0 never stops early.
        start: first value of every hidden mean.
        report: `info.converged` is `residual < report`.
        free: visible units that are missing and inferred too, each starting at its bias' mean.
        visible: kinds of the visible units, read with `free`; all Bernoulli if not given.

    Returns:
        `(v, mu_1, .., mu_L)` with inferred means in place of free visible units, and the `MeanFieldInfo`.
    """
    if sweeps < 1:
        raise ValueError(f"sweeps is {sweeps}, must be at least 1")
    clamp, visible = None, visible or Visible.bernoulli(v.shape[-1])
    if free is not None:
        clamp = gibbs.Clamp(~free, v)
        v = gibbs.visible_means(jnp.broadcast_to(params.biases[0], v.shape), visible=visible, clamp=clamp)
    # The field of the given units on h1 does not change between sweeps: it is computed once.
    below = v @ params.weights[0] + params.biases[1]
    hidden = tuple(jnp.full((*v.shape[:-1], c.shape[0]), start, v.dtype) for c in params.biases[1:])

    def sweep(old: Layers) -> Layers:
        layers = list(old)
        for index in range(1, len(layers)):
            if index == 1:
                field = below if clamp is None else layers[0] @ params.weights[0] + params.biases[1]
            else:
                field = layers[index - 1] @ params.weights[index - 1] + params.biases[index]
            if index < len(params.weights):
                field = field + layers[index + 1] @ params.weights[index].T
            layers[index] = jax.nn.sigmoid(field)
        if clamp is not None:
            field = params.biases[0] + layers[1] @ params.weights[0].T
            layers[0] = gibbs.visible_means(field, visible=visible, clamp=clamp)
        return tuple(layers)

    layers = (v, *hidden)
    if tol > 0:
        layers = _until(sweep, layers, sweeps - 1, tol)
    else:
        layers = jax.lax.fori_loop(0, sweeps - 1, lambda _, x: sweep(x), layers)
    last = sweep(layers)
    residual = _change(last, layers)
    return last, MeanFieldInfo(residual, residual < report)


def _change(new: Layers, old: Layers) -> Array:
    moves = [jnp.max(jnp.abs(a - b), axis=-1) for a, b in zip(new, old, strict=True)]
    return jnp.max(jnp.stack(moves), axis=0)


def _until(sweep, layers: Layers, most: int, tol: float) -> Layers:
    def go_on(carry):
        count, _, moved = carry
        return (count < most) & (moved > tol)

    def body(carry):
        count, layers, _ = carry
        new = sweep(layers)
        return count + 1, new, jnp.max(_change(new, layers))

    return jax.lax.while_loop(go_on, body, (0, layers, jnp.inf))[1]


def belief(
    params: DBMParams,
    v: Float[Array, "*rows units"],
    *,
    layers: Literal["all", "top"] = "all",
    sweeps: int = 10,
) -> Float[Array, "*rows features"]:
    """Concatenate the hidden means of a row: all layers bottom up, or the top layer only."""
    means, _ = infer(params, v, sweeps=sweeps)
    return means[-1] if layers == "top" else jnp.concatenate(means[1:], axis=-1)
