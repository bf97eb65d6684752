"""Losses of the two players and of what is known beforehand.

    outcome    <(predicted - outcome)^2>
    spend      <(predicted - spend)^2>                      the adversary, on a frozen representation
    confusion  <(predicted - c_k)^2>                        the encoder against a frozen adversary
    apart      <softplus(-real) + softplus(shuffled)> / 2   an adversary that tells the spend from shuffled spend
    undecided  <logs of both answers, both kinds> / 2       the encoder against it: to make it say neither
    sign       sum_k ReLU(-s_k <d outcome / d spend_k>)
    ROI        -sum_k log p_k(ROI_k)                        any NumPyro distribution

`<>` is a weighted mean. A prior enters the mean squared error as `2 sigma^2 / n (-log p)`, sigma^2 the error's variance
and n its rows: the loss is then 2 sigma^2 / n times minus the log posterior of normal errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wmjax.transformer.beliefs import ROIPrior as ROIPrior
from wmjax.transformer.beliefs import log_density
from wmjax.transformer.response import SPREAD, Curves


def mean(values: Float[Array, "*axes"], weights: Float[Array, "*axes"]) -> Float[Array, ""]:
    """Average with weights; 0 where no row has weight, which is a batch without a gradient."""
    total = weights.sum()
    return jnp.sum(values * weights) / jnp.where(total > 0, total, 1.0)


def squared(
    predicted: Float[Array, "*axes"], target: Float[Array, "*axes"] | float, weights: Float[Array, "*axes"]
) -> Float[Array, ""]:
    """Average the squared error."""
    return mean(jnp.square(predicted - target), weights)


def by_channel(
    predicted: Float[Array, "*axes channels"],
    target: Float[Array, "*axes channels"] | Float[Array, " channels"] | float,
    weights: Float[Array, "*axes"],
) -> Float[Array, ""]:
    """Average the squared error over rows and channels: the spend loss, and, against a constant, the confusion."""
    return mean(jnp.square(predicted - target).mean(-1), weights)


def apart(
    real: Float[Array, "*axes channels"], shuffled: Float[Array, "*axes channels"], weights: Float[Array, "*axes"]
) -> Float[Array, ""]:
    """Score logits that say "real" of what is real and what was shuffled: cross-entropy, log 2 by chance."""
    return mean(0.5 * (jax.nn.softplus(-real) + jax.nn.softplus(shuffled)).mean(-1), weights)


def undecided(
    real: Float[Array, "*axes channels"], shuffled: Float[Array, "*axes channels"], weights: Float[Array, "*axes"]
) -> Float[Array, ""]:
    """Score the same logits against one half for either, as the confusion loss does of classes: log 2 at its least.

    Bounded from below, where to make the adversary wrong is not: an encoder that could would carry spend after all.
    """
    either = sum(jax.nn.softplus(x) + jax.nn.softplus(-x) for x in (real, shuffled))
    return mean(0.25 * jnp.asarray(either).mean(-1), weights)


def sign(slopes: Float[Array, " channels"], signs: Float[Array, " channels"]) -> Float[Array, ""]:
    """Punish a mean slope against its known sign (1 or -1; 0 is unknown)."""
    return jnp.sum(jax.nn.relu(-signs * slopes))


def roi(returns: Float[Array, " channels"], priors: Mapping[int, Any]) -> Float[Array, ""]:
    """Give minus the log density of the channels' returns, `{channel: numpyro distribution}`."""
    found = [-log_density(prior, returns[at]) for at, prior in priors.items()]
    return sum(found, jnp.zeros(()))


def curves(found: Curves, centre: Curves) -> Float[Array, ""]:
    """Give minus the log density, less a constant, of response curves under normal priors of spread `SPREAD`."""
    parts = [jnp.sum(jnp.square((x - c) / sd)) for x, c, sd in zip(found, centre, SPREAD, strict=True)]
    return 0.5 * sum(parts, jnp.zeros(()))
