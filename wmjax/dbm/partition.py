"""The partition function by annealed importance sampling, and the likelihood bound that needs it."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from wmjax.core import bits
from wmjax.core.visible import Visible
from wmjax.dbm import energy, gibbs, packed, scores
from wmjax.dbm.types import DBMParams


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
    machine = packed.pack(params)
    start = jnp.concatenate([base, *(jnp.zeros_like(c) for c in params.biases[2::2])])
    first, rest = jax.random.split(key)
    # The base leaves the odd units fair coins, and the even ones are drawn before they are read.
    odd = bits.bernoulli(bits.seeds(first), jnp.zeros((num_particles, machine.odd.shape[0]), base.dtype))

    def move(carry: tuple[Array, Array], xs: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], None]:
        (odd, log_weights), (seeds, before, now) = carry, xs
        field, bias = odd @ machine.coupling.T + machine.even, odd @ machine.odd

        def log_density(t: Array) -> Array:
            return t * bias + _even_log_sums((1 - t) * start + t * field, visible)

        log_weights += log_density(now) - log_density(before)
        even = _draw_even(seeds[:2], (1 - now) * start + now * field, visible)
        odd = bits.bernoulli(seeds[2], now * (even @ machine.coupling + machine.odd))
        return (odd, log_weights), None

    grid = jnp.linspace(0.0, 1.0, num_temperatures + 1, dtype=base.dtype)
    xs = (bits.seeds(rest, (num_temperatures, 3)), grid[:-1], grid[1:])
    (_, log_weights), _ = jax.lax.scan(move, (odd, jnp.zeros(num_particles, base.dtype)), xs)
    return summarise(log_weights, base_log_partition(params, base, visible=visible))


def _even_log_sums(field: Array, visible: Visible) -> Array:
    own, upper = field[..., : visible.size], field[..., visible.size :]
    return energy.visible_log_sums(own, visible=visible).sum(-1) + jax.nn.softplus(upper).sum(-1)


def _draw_even(seeds: Array, field: Array, visible: Visible) -> Array:
    means = gibbs.visible_means(field[..., : visible.size], visible=visible)
    below = gibbs.draw_visible(seeds[0], means, visible=visible)
    return jnp.concatenate([below, bits.bernoulli(seeds[1], field[..., visible.size :])], axis=-1)


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
