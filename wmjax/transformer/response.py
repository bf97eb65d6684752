"""Response curves: what spend adds to the outcome, monotone in spend, saturating and carried over.

    adstock_t = sum_l theta^l spend_{t-l} / sum_l theta^l,   l = 0 .. carry
    media_t,k = sign_k beta_k f((x / half_k)^s_k),           x = adstock_t,k        (unknown sign: see `amplitude`)

    hill:      f(r) = r / (1 + r)                            (Jin et al. 2017)
    logistic:  f(r) = (1 - 3^-r) / (1 + 3^-r)                (at s = 1 the logistic saturation of PyMC-Marketing)

with geometric carry-over. Zero spend adds exactly zero, half_k a half of the most that there is; below it the logistic
form is nearer to a straight line, above it nearer to its end. Parameters are free numbers: theta = sigmoid(carry), half
= exp(half), s = exp(slope), beta = exp(size). A prior is then a normal one on each.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wmjax.transformer.config import MMMConfig


class Curves(NamedTuple):
    """One response curve a channel, as free numbers; also used for their centres and spreads under a prior.

    carry, half, slope, size: [channels], see the module.
    """

    carry: Float[Array, "*m channels"]
    half: Float[Array, "*m channels"]
    slope: Float[Array, "*m channels"]
    size: Float[Array, "*m channels"]


FAR = 10.0
"""Logarithm of the ratio to half saturation beyond which all is saturated."""
SPREAD = (1.0, 0.7, 0.3, 1.0)
"""Standard deviations of the default prior: of logit(theta), log(half), log(s) and log(beta)."""


def centre(typical: Float[Array, " channels"], signs: Float[Array, " channels"] | None = None) -> Curves:
    """Centre the default prior: theta .38, half saturation at the typical spend, s 1.1, the mean of all channels' beta
    together one sd of the outcome, so that what media do in total hangs little on how finely channels are told apart.

    Args:
        typical: mean of the spend over the periods that have any, on the scale of the network.
        signs: of the channels, see `amplitude`; all known if not given.
    """
    one = jnp.ones_like(typical)
    size = jnp.full_like(one, _common(len(one)))
    return Curves(-0.5 * one, jnp.log(typical), 0.1 * one, size if signs is None else jnp.where(signs == 0, 0.0, size))


def _common(channels: int) -> Array:
    """Give the centre of log beta."""
    return -jnp.log(channels) - 0.5 * SPREAD[3] ** 2


def amplitude(size: Float[Array, "*m channels"], signs: Float[Array, " channels"]) -> Float[Array, "*m channels"]:
    """Give the most that a channel can add, in standard deviations of the outcome, from its free number.

    A channel of known sign adds sign beta. One whose sign is unknown (0) has beta sinh(size), beta that of the prior's
    centre: either sign, around nothing, in tails as of the others.
    """
    either = jnp.exp(_common(size.shape[-1])) * jnp.sinh(size)
    return jnp.where(signs == 0, either, signs * jnp.exp(size))


def adstock(spend: Float[Array, "*units time channels"], theta: Float[Array, " channels"], carry: int) -> Array:
    """Spread spend over its own period and the `carry` after it; weights sum to 1."""
    weights = theta ** jnp.arange(carry + 1)[:, None]
    weights = weights / weights.sum(0)
    *units, time, channels = spend.shape
    padded = jnp.concatenate([jnp.zeros((*units, carry, channels)), spend], axis=-2)
    lagged = [weights[lag] * padded[..., carry - lag : carry - lag + time, :] for lag in range(carry + 1)]
    return jnp.stack(lagged).sum(0)


def saturated(curves: Curves, x: Float[Array, "*axes channels"], *, cfg: MMMConfig) -> Float[Array, "*axes channels"]:
    """Saturate carried-over spend: 0 at 0, one half at each channel's `half`, 1 far beyond."""
    # x = 0 has a gradient of NaN in log(x): it is computed at 1 and set to 0.
    some = jnp.where(x > 0, x, 1.0)
    ratio = jnp.exp(curves.slope) * (jnp.log(some) - curves.half)
    if cfg.saturation == "hill":
        return jnp.where(x > 0, jax.nn.sigmoid(ratio), 0.0)
    # Far out it is 1 to rounding, and an overflow would have a gradient of NaN.
    return jnp.where(x > 0, jnp.tanh(0.5 * math.log(3) * jnp.exp(jnp.minimum(ratio, FAR))), 0.0)


def media(
    curves: Curves, spend: Float[Array, "*units time channels"], signs: Float[Array, " channels"], *, cfg: MMMConfig
) -> Float[Array, "*units time channels"]:
    """Give each channel's contribution in each period, in standard deviations of the outcome."""
    x = adstock(spend, jax.nn.sigmoid(curves.carry), cfg.carry)
    return amplitude(curves.size, signs) * saturated(curves, x, cfg=cfg)


def channel(
    curves: Curves, spend: Float[Array, "*units time"], at: int, signs: Float[Array, " channels"], *, cfg: MMMConfig
) -> Float[Array, "*units time"]:
    """Give the contribution of one of the channels, the column of `media` at `at`."""
    own = Curves(*(c[at : at + 1] for c in curves))
    x = adstock(spend[..., None], jax.nn.sigmoid(own.carry), cfg.carry)
    return amplitude(curves.size, signs)[at] * saturated(own, x, cfg=cfg)[..., 0]
