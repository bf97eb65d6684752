"""The partition function by annealed importance sampling, and the likelihood bound that needs it."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from wmjax.core.visible import Visible
from wmjax.dbm import energy, gibbs, scores, types
from wmjax.dbm.types import DBMParams, Layers


class PartitionEstimate(NamedTuple):
    """An estimate of log Z.

    log_z: log of the mean importance weight plus the base machine's log Z. The mean weight is unbiased for Z, so by
        Jensen `log_z` falls short on average, and far short where all particles miss a mode: it errs towards a
        likelihood that is too high.
    standard_error: of `log_z`, by the delta method: sd of the weights / (mean * sqrt(particles)). Trust it only while
        `ess` is a fair share of the particles.
    ess: effective number of particles, `(sum w)^2 / sum w^2`.
    log_weights: [particles], importance weights.
    """

    log_z: Float[Array, ""]
    standard_error: Float[Array, ""]
    ess: Float[Array, ""]
    log_weights: Float[Array, " particles"]


def ais(
    key: Key[Array, ""],
    params: DBMParams,
    *,
    visible: Visible,
    base: Float[Array, " units"] | None = None,
    num_temperatures: int = 1000,
    num_particles: int = 100,
) -> PartitionEstimate:
    """Estimate log Z by annealed importance sampling (Neal 2001; Salakhutdinov and Murray 2008).

    Particles start in a machine with the base's visible biases and neither couplings nor hidden biases, whose log Z is
    known, and move through the machines with weights `t W`, hidden biases `t c` and visible biases `(1 - t) b0 + t b`,
    t from 0 to 1. The even layers are summed out exactly, so a particle is a state of the odd layers only:

        log p_t(h1, h3, ..) = t (c_1.h1 + c_3.h3 + ..) + sum_i log-sum_i((1 - t) b0_i + t (b_i + (W_1 h1)_i))
                              + sum_j softplus(t (c_2 + h1 W_2 + W_3 h3)_j) + ..
        log w = sum_k log p_{t_k}(x_{k-1}) - log p_{t_{k-1}}(x_{k-1}),   x_k one block Gibbs step at t_k from x_{k-1}

    Bits, softmax groups and unit-variance Gaussian units have their own log-sums (`energy.visible_log_sums`).

    Args:
        key: random key.
        params: the machine, any depth.
        visible: kinds of the visible units.
        base: visible biases b0 of the first machine; those of the data (log-odds of the means) are a good choice. The
            machine's own if not given.
        num_temperatures: machines on the way, the first not counted.
        num_particles: independent particles.

    Returns:
        `PartitionEstimate`; raise `num_temperatures` until `ess` is a fair share of the particles.
    """
    if num_temperatures < 1 or num_particles < 2:
        raise ValueError(
            f"num_temperatures is {num_temperatures} and num_particles is {num_particles}, must be at least 1 and 2"
        )
    base = params.biases[0] if base is None else base
    start_key, scan_key = jax.random.split(key)
    layers = gibbs.init_layers(start_key, tempered(params, base, 0.0), visible=visible, num_chains=num_particles)

    def move(carry: tuple, xs: tuple) -> tuple[tuple, None]:
        layers, log_weights = carry
        step_key, before, now = xs
        old, new = (tempered(params, base, t) for t in (before, now))
        odd = {i: layer for i, layer in enumerate(layers) if i % 2 == 1}
        log_weights += energy.collapsed(old, odd, visible=visible) - energy.collapsed(new, odd, visible=visible)
        return (_even_then_odd(step_key, new, layers, visible), log_weights), None

    grid = jnp.linspace(0.0, 1.0, num_temperatures + 1, dtype=base.dtype)
    xs = (jax.random.split(scan_key, num_temperatures), grid[:-1], grid[1:])
    (_, log_weights), _ = jax.lax.scan(move, (layers, jnp.zeros(num_particles, base.dtype)), xs)
    return summarise(log_weights, base_log_partition(params, base, visible=visible))


def _even_then_odd(key: Array, params: DBMParams, layers: Layers, visible: Visible) -> Layers:
    """Draw the even layers given the odd ones, then the odd ones: `gibbs.step` the other way round.

    A particle is its odd layers, so the even ones have to be drawn afresh at the new temperature before they are used.
    """
    drawn = list(layers)
    for first in (0, 1):
        for index in range(first, len(layers), 2):
            field = types.fields(params, tuple(drawn), index)
            stream = jax.random.fold_in(key, index)
            if index == 0:
                drawn[0] = gibbs.sample_visible(stream, gibbs.visible_means(field, visible=visible), visible=visible)
            else:
                drawn[index] = jax.random.bernoulli(stream, jax.nn.sigmoid(field)).astype(field.dtype)
    return tuple(drawn)


def tempered(params: DBMParams, base: Float[Array, " units"], t: float | Float[Array, ""]) -> DBMParams:
    """Build the machine at inverse temperature t between the base (0) and the machine itself (1)."""
    below, *hidden = params.biases
    return DBMParams(tuple(t * w for w in params.weights), ((1 - t) * base + t * below, *(t * c for c in hidden)))


def base_log_partition(params: DBMParams, base: Float[Array, " units"], *, visible: Visible) -> Float[Array, ""]:
    """Compute log Z of the machine with these visible biases only: hidden units give log 2 each."""
    hidden = sum(c.shape[0] for c in params.biases[1:])
    return hidden * math.log(2) + energy.visible_log_sums(base, visible=visible).sum()


def summarise(log_weights: Float[Array, " particles"], log_z0: Float[Array, ""]) -> PartitionEstimate:
    """Turn importance weights into an estimate with its standard error."""
    count = log_weights.shape[0]
    log_mean = jax.nn.logsumexp(log_weights) - math.log(count)
    relative = jnp.exp(log_weights - log_mean)
    error = jnp.std(relative, ddof=1) / math.sqrt(count)
    return PartitionEstimate(log_z0 + log_mean, error, count / jnp.mean(relative**2), log_weights)


def log_likelihood_bound(
    params: DBMParams,
    v: Float[Array, "... units"],
    log_z: float | Float[Array, ""],
    *,
    visible: Visible,
    sweeps: int = 10,
) -> Float[Array, "..."]:
    """Compute `-F_var(v) - log Z`, a lower bound of `log p(v)` for the true log Z, in nats a row.

    With an estimated log Z it is a bound up to the estimate's error, which tends to flatter (see `PartitionEstimate`).
    With Gaussian units it is the log of a density.
    """
    return -scores.score(params, v, visible=visible, sweeps=sweeps) - log_z
