"""What the data leave open of the response curves, and draws from it, which answer what a plan changes.

Members are draws of the posterior, roughly (see `luck`), but a handful says little of its width. Given a member's base,
which its network made, the curves are the few parameters of a regression, and their posterior on free numbers (see
`response`) is taken as normal around the members' mean:

    C = (J'J / (deff sigma^2) + prior precision)^-1,   J = d outcome / d curves, less its projection on the controls

J's rows are train rows within units; controls and each unit's own level are profiled out. sigma^2 is of the residuals;
deff is how many times fewer independent rows there are, see `design_effect`. Nothing but the table goes in.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from wmjax.core import draws as drawn
from wmjax.transformer import beliefs, network, response
from wmjax.transformer.config import MMMConfig
from wmjax.transformer.response import Curves
from wmjax.worlds.consumer.intervals import bounds, quantiles
from wmjax.worlds.media.config import MediaConfig
from wmjax.worlds.media.learning import LearnData
from wmjax.worlds.media.model import History, Ready

DRAWS = 128
"""Draws in all, as nearly as members share them equally, in pairs that mirror each other."""


def within(x: Float[Array, "units time columns"], rows: Float[Array, "units time"]) -> Array:
    """Take each unit's mean over its rows out; other rows are 0."""
    mean = jnp.einsum("utc,ut->uc", x, rows) / jnp.maximum(rows.sum(1), 1.0)[:, None]
    return (x - mean[:, None]) * rows[..., None]


def design_effect(
    slopes: Float[Array, "units time curves"],
    residual: Float[Array, "units time"],
    inverse: Float[Array, "curves curves"],
    block: int,
) -> Float[Array, ""]:
    """Compare the variance of scores summed over blocks of periods, all units together, with that of independent rows.

    Scores are slope times residual; the mean over directions is weighed by `inverse`, the covariance of independent
    rows (Rao and Scott 1981). What few blocks tell is itself uncertain: the variance is that of Student's t with as
    many degrees of freedom as there are blocks with rows, less one.
    """
    time, size = residual.shape[1], max(block, 1)
    count = -(-time // size)
    scores = slopes * residual[..., None]
    rows = jnp.einsum("utc,cd,utd->", scores, inverse, scores)
    sums = jax.ops.segment_sum(scores.sum(0), jnp.arange(time) // size, num_segments=count)
    # A member was fitted to periods of its own weights and has a mean score over all: that is not luck.
    sums -= sums.mean(0)
    blocks = jnp.einsum("bc,cd,bd->", sums, inverse, sums) * count / max(count - 1, 1)
    told = jax.ops.segment_max(jnp.any(residual != 0, axis=0).astype(jnp.int32), jnp.arange(time) // size, count)
    freedom = jnp.maximum(told.sum() - 1.0, 3.0)
    return jnp.maximum(1.0, blocks / jnp.maximum(rows, 1e-12)) * freedom / (freedom - 2)


def covariance(
    params: Any, data: LearnData, *, cfg: MediaConfig, channels: tuple[str, ...], noisy: int = 0
) -> Float[Array, "curves curves"]:
    """Give C of one member: over carry, half, slope and size of all channels, in that order.

    The last `noisy` covariates are what was told of others' errors: what they explain of the outcome is error of the
    equation that is asked, as in two-stage least squares.
    """
    own, series = params["outcome"], data.series
    flat, unflat = ravel_pytree(own["curves"])
    rows = data.train.astype(jnp.float32)

    def by_channel(values: Array) -> Float[Array, "units time channels"]:
        curves = unflat(values)
        return response.media(curves, series.spend, data.known.sign, cfg=cfg.network)

    found = network.apply(own, series, data.known, cfg=cfg.network).outcome
    left = series.outcome - found
    if noisy:
        left += series.covariates[..., -noisy:] @ own["controls"]["w"][series.covariates.shape[-1] - noisy :][:noisy, 0]
    residual = within(left[..., None], rows)[..., 0]
    slopes = within(jax.jacfwd(lambda v: by_channel(v).sum(-1))(flat), rows)
    controls = within(series.covariates, rows)
    if width := controls.shape[-1]:
        square = jnp.einsum("utx,uty->xy", controls, controls)
        # Some controls are constant within units, or copies of each other.
        square += 1e-5 * jnp.trace(square) / width * jnp.eye(width)
        both = jnp.einsum("utx,utc->xc", controls, slopes)
        slopes -= controls @ jax.scipy.linalg.solve(square, both, assume_a="pos")
    taken = jnp.minimum(width + flat.shape[0] + rows.any(1).sum(), 0.9 * rows.sum())
    sigma2 = jnp.sum(residual**2) / (rows.sum() - taken)
    told = jnp.einsum("utc,utd->cd", slopes, slopes) / sigma2
    prior = _precision(len(channels))
    believed = cfg.prior_weight * (prior + _beliefs(by_channel, flat, data, rows, cfg, channels))
    # A trace of the prior stays where there is none, so that C exists.
    believed += 1e-3 * prior
    factor = design_effect(slopes, residual, jnp.linalg.inv(told + believed), cfg.block)
    return jnp.linalg.inv(told / factor + believed)


def _beliefs(by_channel: Any, flat: Array, data: LearnData, rows: Array, cfg: MediaConfig, channels: Any) -> Array:
    """Give the precision that beliefs about returns add, see `transformer.beliefs.precision`."""
    returns = _returns(by_channel, data, rows)
    total = jnp.zeros((flat.shape[0], flat.shape[0]))
    if cfg.roi:
        now, slopes = returns(flat), jax.jacfwd(returns)(flat)
        for belief, numbers in zip(cfg.roi, data.beliefs, strict=True):
            at = channels.index(belief.channel)
            bend = beliefs.precision(belief.distribution(numbers), now[at])
            total += bend * jnp.outer(slopes[at], slopes[at])
    return total


def _returns(by_channel: Any, data: LearnData, rows: Array) -> Any:
    """Give the function that gives each channel's return over the rows, in the table's units."""
    weights = rows * data.size[:, None]
    spent = jnp.einsum("utk,ut->k", data.series.spend, weights)
    per = data.exchange / jnp.where(spent > 0, spent, 1.0)
    return lambda values: per * jnp.einsum("utk,ut->k", by_channel(values), weights)


@partial(jax.jit, static_argnames=("cfg", "channels", "noisy"))
def spread(
    params: Any, data: LearnData, *, cfg: MediaConfig, channels: tuple[str, ...], noisy: int = 0
) -> Float[Array, "members curves curves"]:
    """Give each member's factor L, C = L L'; nothing in the free form, which has no curves."""
    if cfg.network.head == "free":
        return jnp.zeros((cfg.members, 0, 0))
    return jnp.linalg.cholesky(
        jax.lax.map(lambda p: covariance(p, data, cfg=cfg, channels=channels, noisy=noisy), params)
    )


@partial(jax.jit, static_argnames=("cfg", "channels"))
def learned(
    params: Any,
    factors: Float[Array, "members curves curves"],
    data: LearnData,
    *,
    cfg: MediaConfig,
    channels: tuple[str, ...],
) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """Say how far the data moved each channel's return from its prior: means over members.

    Returns:
        moved, from the return of the prior's centre, in standard deviations that the prior leaves it; learned, the
        share of that variance which the data remove. Both by the slopes of the return at the member's curves.
    """
    rows = data.train.astype(jnp.float32)

    def member(own: tuple[Any, Array]) -> tuple[Array, Array]:
        flat, unflat = ravel_pytree(own[0]["outcome"]["curves"])

        def by_channel(values: Array) -> Float[Array, "units time channels"]:
            curves = unflat(values)
            return response.media(curves, data.series.spend, data.known.sign, cfg=cfg.network)

        prior = _precision(len(channels))
        believed = cfg.prior_weight * (prior + _beliefs(by_channel, flat, data, rows, cfg, channels)) + 1e-3 * prior
        returns = _returns(by_channel, data, rows)
        slopes, away = jax.jacfwd(returns)(flat), returns(flat) - returns(ravel_pytree(data.centre)[0])
        before = jnp.einsum("ki,ij,kj->k", slopes, jnp.linalg.inv(believed), slopes)
        after = jnp.square(slopes @ own[1]).sum(1)
        some = jnp.maximum(before, 1e-12)
        return away / jnp.sqrt(some), 1 - after / some

    moved, told = jax.lax.map(member, (params, factors))
    return moved.mean(0), told.mean(0)


def _precision(channels: int) -> Float[Array, "curves curves"]:
    """Give the precision of the default prior of all curves."""
    return jnp.diag(jnp.concatenate([jnp.full(channels, 1 / sd**2) for sd in response.SPREAD]))


def count(members: int) -> int:
    """Say how many draws an ensemble has."""
    return 2 * members * max(1, round(DRAWS / (2 * members)))


@partial(jax.jit, static_argnames=("cfg",))
def sample(
    key: Key[Array, ""],
    members: Ready,
    factors: Float[Array, "members curves curves"],
    history: History,
    *,
    cfg: MMMConfig,
) -> Ready:
    """Draw curves with every member's covariance: a pair of each member, then the next pair of each, `[count, ..]`.

    They lie around the members' mean: members are draws themselves, and what the data leave open would count twice.
    What drawn curves add to the spend that was, beyond what the member's own add, the unit's level gives back on
    average over the rows that it was told by: their sum is what the data tell best.
    """
    half = drawn.normal(key, (len(factors), count(len(factors)) // (2 * len(factors)), factors.shape[-1]))
    moves = jnp.einsum("mij,mdsj->mdsi", factors, jnp.stack([half, -half], axis=2))
    rows, known = history.taught.astype(jnp.float32), history.known

    def level(curves: Curves) -> Float[Array, " units"]:
        media = response.media(curves, history.series.spend, known.sign, cfg=cfg).sum(-1)
        return jnp.sum(media * rows, axis=1) / jnp.maximum(rows.sum(1), 1.0)

    flat, unflat = ravel_pytree(jax.tree.map(lambda x: x.mean(0), members.params["curves"]))

    def member(own: tuple[Curves, Array, Array]) -> tuple[Curves, Array]:
        kept = own[1] + level(own[0])[:, None]

        def draw(move: Array) -> tuple[Curves, Array]:
            curves = unflat(flat + move)
            return curves, kept - level(curves)[:, None]

        return jax.lax.map(lambda pair: jax.lax.map(draw, pair), own[2])

    curves, base = jax.lax.map(member, (members.params["curves"], members.base, moves))
    merge = lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[3:])  # noqa: E731
    return Ready({"curves": jax.tree.map(merge, curves)}, merge(base))


class Told(NamedTuple):
    """An answer and its bounds."""

    mean: np.ndarray
    lo: np.ndarray
    hi: np.ndarray


def told(answers: Float[np.ndarray, "answers *shape"], alpha: float, *, drawn: bool) -> Told:
    """Tell what draws answer by their mean and quantiles; what members do, who are few, by their spread."""
    return Told(answers.mean(0), *(quantiles if drawn else bounds)(answers, alpha))


def apart(own: Float[np.ndarray, "members *shape"], draws: Float[np.ndarray, "draws *shape"]) -> np.ndarray:
    """Mark answers whose mean over members lies outside the middle 90 % of the draws'."""
    lo, hi = np.quantile(draws, [0.05, 0.95], axis=0)
    mean = own.mean(0)
    return (mean < lo) | (hi < mean)
