"""Losses of the two players and of what is known beforehand.

    outcome    <(predicted - outcome)^2>
    spend      <(predicted - spend)^2>                      the adversary, on a frozen representation
    confusion  <(predicted - c_k)^2>                        the encoder against a frozen adversary
    sign       sum_k ReLU(-s_k <d outcome / d spend_k>)
    ROI        -sum_k log p_k(ROI_k)                        any NumPyro distribution

`<>` is a weighted mean. A prior enters the mean squared error as `2 sigma^2 / n (-log p)`, sigma^2 the error's variance
and n its rows: the loss is then 2 sigma^2 / n times minus the log posterior of normal errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wmjax.transformer.response import SPREAD, Curves

Family = Literal["normal", "lognormal", "halfnormal"]


@dataclass(frozen=True, kw_only=True)
class ROIPrior:
    """What is believed of a channel's return before the data: outcome for a unit of spend, over the train periods.

    Attributes:
        channel: the action's name.
        family: `normal(a, b)` with mean a and standard deviation b, as a lift test's estimate and standard error;
            `lognormal(a, b)` with mean and standard deviation of the log; `halfnormal(b)`.
        a, b: see `family`.
    """

    channel: str
    family: Family = "normal"
    a: float = 0.0
    b: float = 1.0

    def __post_init__(self) -> None:
        if self.family not in ("normal", "lognormal", "halfnormal"):
            raise ValueError(f"family is {self.family!r}, must be normal, lognormal or halfnormal")
        if not self.b > 0:
            raise ValueError(f"ROI prior of {self.channel!r}: b is {self.b}, must be positive")

    def distribution(self) -> Any:
        """Give it as a NumPyro distribution."""
        return distribution(self.family, self.a, self.b)


def distribution(family: Family, a: Any, b: Any) -> Any:
    """Give a family's NumPyro distribution, see `ROIPrior`; `a` and `b` may be traced."""
    import numpyro.distributions as dist

    if family == "halfnormal":
        return dist.HalfNormal(b)
    return (dist.Normal if family == "normal" else dist.LogNormal)(a, b)


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


def sign(slopes: Float[Array, " channels"], signs: Float[Array, " channels"]) -> Float[Array, ""]:
    """Punish a mean slope against its known sign (1 or -1; 0 is unknown)."""
    return jnp.sum(jax.nn.relu(-signs * slopes))


def roi(returns: Float[Array, " channels"], priors: Mapping[int, Any]) -> Float[Array, ""]:
    """Give minus the log density of the channels' returns, `{channel: numpyro distribution}`."""
    found = [-prior.log_prob(returns[at]) for at, prior in priors.items()]
    return sum(found, jnp.zeros(()))


def curves(found: Curves, centre: Curves) -> Float[Array, ""]:
    """Give minus the log density, less a constant, of response curves under normal priors of spread `SPREAD`."""
    parts = [jnp.sum(jnp.square((x - c) / sd)) for x, c, sd in zip(found, centre, SPREAD, strict=True)]
    return 0.5 * sum(parts, jnp.zeros(()))
