"""The network of a unit's series: streams, balanced representation, heads; roll-outs under another plan.

    A_t = pooled tokens of spend_{t-1},   X_t = covariates_t,   Y_t = outcome_{t-1}
    Phi_t = ELU(W mean(A, X, Y)_t)                                              (balanced representation)
    free:      outcome_t = G_Y(Phi_t, pooled tokens of spend_t)
    response:  outcome_t = intercept + base(Phi_t, covariates_t, static) + sum_k media_t,k

The spend of a period reaches the representation one period later, so the representation is what was known when the
spend was chosen. In the `response` form past spend works through carry-over alone: stream A holds no spend, and stream
Y holds the outcome less its media, the part that spend did not make. What another plan would have changed is then the
difference of the media terms, carry-over included, without feeding errors back. Where there are several units, each has
an intercept of its own, so that curves are told by what happens within units and not by how units differ.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from wmjax.core import bits
from wmjax.transformer import nets, response, streams, tokens
from wmjax.transformer.config import MMMConfig
from wmjax.transformer.nets import Params
from wmjax.transformer.response import Curves
from wmjax.transformer.tokens import Channels


class Series(NamedTuple):
    """Units' periods on the network's scale, or one unit's without the axis of units, here and everywhere below.

    spend: [time, channels], 0 is none. covariates: [time, covariates]. outcome: [time], standardised. static: [static].
    observed: [time]; other periods hold zeros and are seen by none but themselves. unit: place of its intercept.
    """

    spend: Float[Array, "*units time channels"]
    covariates: Float[Array, "*units time covariates"]
    outcome: Float[Array, "*units time"]
    static: Float[Array, "*units static"]
    observed: Bool[Array, "*units time"]
    unit: Int[Array, "*units"]


class Forecast(NamedTuple):
    """outcome: [time]. representation: [time, representation]. media: [time, channels], zeros in the free form."""

    outcome: Float[Array, "*units time"]
    representation: Float[Array, "*units time representation"]
    media: Float[Array, "*units time channels"]


def init(
    key: Key[Array, ""],
    known: Channels,
    *,
    cfg: MMMConfig,
    num_covariates: int,
    num_static: int,
    curves: Curves,
    discriminates: bool = False,
) -> Params:
    """Draw the parameters: `outcome`, of the encoder and the outcome's head, and `spend`, of the spend's head.

    Args:
        key: typed key.
        known: the channels; only whether they have creative vectors matters here.
        cfg: shape.
        num_covariates, num_static: may be 0.
        curves: where the response curves start; not used by the free form.
        discriminates: the spend's head tells real spend from shuffled spend (`tell_apart`); else it predicts spend.
    """
    width, out = cfg.width, cfg.representation
    leaves = {
        "streams": streams.leaves(cfg=cfg),
        "relative": streams.attention.table_leaves(cfg=cfg),
        "covariates": nets.linear(num_covariates, width),
        "outcome": nets.linear(1, width),
        "static": nets.linear(num_static, width),
        "norm": nets.norm(width, lead=(streams.STREAMS,)),
        "represent": nets.linear(width, out),
    }
    if cfg.head == "free":
        leaves["tokens"] = tokens.leaves(cfg=cfg, creative=known.creative.shape[1])
        leaves["head_in"] = nets.linear(out + width, cfg.head_units)
        leaves["head_out"] = nets.linear(cfg.head_units, 1)
    else:
        leaves["head_in"] = nets.linear(out, cfg.head_units)
        # From zero: the base starts as a linear regression, and the network earns what it adds.
        leaves["head_out"] = nets.linear(cfg.head_units, 1, scale=0.0)
        leaves["controls"] = nets.linear(num_covariates + num_static, 1, scale=0.0)
    asked = 2 * out + cfg.code + 1 if discriminates else out + cfg.code
    spend = {"in": nets.linear(asked, cfg.head_units), "out": nets.linear(cfg.head_units, 1)}
    params = nets.draw(key, {"outcome": leaves, "spend": spend})
    if cfg.head == "response":
        params["outcome"]["curves"] = curves
    return params


def _shift(x: Float[Array, "*units time width"]) -> Float[Array, "*units time width"]:
    """Move every period one later; the first holds zeros."""
    return jnp.concatenate([jnp.zeros_like(x[..., :1, :]), x[..., :-1, :]], axis=-2)


def _spent(params: Params, series: Series, known: Channels, *, cfg: MMMConfig) -> Float[Array, "*units time width"]:
    """Pool the tokens of each period's spend; the response form has none."""
    if cfg.head == "response":
        return jnp.zeros((*series.outcome.shape, cfg.width))
    return tokens.pooled(params["tokens"], series.spend, known, cfg=cfg)


def _media(params: Params, spend: Array, known: Channels, *, cfg: MMMConfig) -> Float[Array, "*units time channels"]:
    if cfg.head == "free":
        return jnp.zeros_like(spend)
    return response.media(params["curves"], spend, known.sign, cfg=cfg)


def _inputs(params: Params, spent: Array, series: Series, before: Array) -> Float[Array, "3 *units time width"]:
    """Lay the streams' inputs out; `before` [*units, time, 1] is what stream Y holds, the period before's outcome."""
    return jnp.stack(
        [
            _shift(spent),
            nets.dense(params["covariates"], series.covariates),
            nets.dense(params["outcome"], before),
        ]
    )


def _represent(params: Params, x: Float[Array, "3 *rows width"]) -> Float[Array, "*rows representation"]:
    normed = jax.vmap(nets.layer_norm)(params["norm"], x)
    return jax.nn.elu(nets.dense(params["represent"], normed.mean(0)))


def _head(params: Params, phi: Array, spent: Array, series: Series, media: Array, *, cfg: MMMConfig) -> Array:
    """Predict the outcome of each row."""
    x = jnp.concatenate([phi, spent], axis=-1) if cfg.head == "free" else phi
    out = nets.dense(params["head_out"], jax.nn.elu(nets.dense(params["head_in"], x)))[..., 0]
    if cfg.head == "free":
        return out
    return out + _intercept(params, series) + _controls(params, series) + media.sum(-1)


def _intercept(params: Params, series: Series) -> Float[Array, "*units 1"]:
    """Give the unit's own; parameters of one unit have none. A place without one is NaN, not the nearest."""
    if "intercepts" not in params:
        return jnp.zeros(1)
    return params["intercepts"].at[series.unit].get(mode="fill", fill_value=jnp.nan)[..., None]


def _controls(params: Params, series: Series) -> Float[Array, "*units rows"]:
    *rows, _ = series.covariates.shape
    static = jnp.broadcast_to(series.static[..., None, :], (*rows, series.static.shape[-1]))
    return nets.dense(params["controls"], jnp.concatenate([series.covariates, static], axis=-1))[..., 0]


def controlled(params: Params, series: Series, known: Channels, *, cfg: MMMConfig) -> Float[Array, "*units time"]:
    """Predict by the `response` head's linear controls and curves alone: the model less its network and intercepts."""
    return _controls(params, series) + _media(params, series.spend, known, cfg=cfg).sum(-1)


def apply(
    params: Params, series: Series, known: Channels, *, cfg: MMMConfig, key: Key[Array, "*units"] | None = None
) -> Forecast:
    """Predict each period of every unit from the periods before it, its covariates and its spend.

    Args:
        params: the `outcome` part of `init`'s.
        series: see `Series`.
        known: the channels.
        key: one a unit, drops (hidden) units in training; without it the network is deterministic.
    """
    if key is not None and key.shape != series.outcome.shape[:-1]:
        raise ValueError(f"keys are {key.shape}, must be one a unit, {series.outcome.shape[:-1]}")
    spent = _spent(params, series, known, cfg=cfg)
    media = _media(params, series.spend, known, cfg=cfg)
    left = jnp.where(series.observed, series.outcome - media.sum(-1) - _intercept(params, series), 0.0)
    x = _inputs(params, spent, series, _shift(left[..., None]))
    drawn = None if key is None or cfg.dropout == 0 else _seeds(key, cfg=cfg)
    look = streams.view(params["relative"], series.observed, cfg=cfg)
    static = nets.dense(params["static"], series.static)
    x, _ = streams.run(params["streams"], x, static, look, cfg=cfg, seeds=drawn)
    phi = _represent(params, x)
    return Forecast(_head(params, phi, spent, series, media, cfg=cfg), phi, media)


def _seeds(key: Key[Array, "*units"], *, cfg: MMMConfig) -> UInt32[Array, "blocks 3 7 *units 2"]:
    draw = lambda own: bits.seeds(own, (cfg.blocks, streams.STREAMS, streams.SEEDS))  # noqa: E731
    for _ in range(key.ndim):
        draw = jax.vmap(draw)
    return jnp.moveaxis(draw(key), range(key.ndim), range(-1 - key.ndim, -1))


def predict_spend(
    params: Params, phi: Float[Array, "*axes representation"], known: Channels
) -> Float[Array, "*axes channels"]:
    """Predict each channel's spend in (0, 1) from the representation: the `spend` part, the adversary's head."""
    return jax.nn.sigmoid(_by_channel(params, _asked(phi, known)))


def tell_apart(
    params: Params,
    phi: Float[Array, "*axes representation"],
    spend: Float[Array, "*axes channels"],
    known: Channels,
) -> Float[Array, "*axes channels"]:
    """Say whether each channel's spend belongs to the representation, as logits: an adversary that discriminates.

    It reads the representation times the spend too: whether they go together is a matter of their product.

    Args:
        spend: in (0, 1), real or shuffled.
    """
    asked, at = _asked(phi, known), 2 * spend[..., None] - 1
    return _by_channel(params, jnp.concatenate([asked, asked[..., : phi.shape[-1]] * at, at], axis=-1))


def _asked(phi: Array, known: Channels) -> Float[Array, "*axes channels inputs"]:
    """Lay each channel's code beside the representation, which comes first."""
    code = jnp.broadcast_to(known.code, (*phi.shape[:-1], *known.code.shape))
    return jnp.concatenate([jnp.broadcast_to(phi[..., None, :], (*code.shape[:-1], phi.shape[-1])), code], axis=-1)


def _by_channel(params: Params, asked: Float[Array, "*axes channels inputs"]) -> Float[Array, "*axes channels"]:
    return nets.dense(params["out"], jax.nn.elu(nets.dense(params["in"], asked)))[..., 0]


def roll_out(
    params: Params,
    series: Series,
    known: Channels,
    start: Int[Array, ""] | int,
    noise: Float[Array, "*units time"],
    *,
    cfg: MMMConfig,
) -> Forecast:
    """Predict period after period from `start` on, feeding each predicted outcome (plus its noise) to the next.

    Keys and values are kept: a period costs one row of every layer. Before `start` the outcomes are the observed ones,
    and the forecast is that of `apply`.

    Args:
        series: with the plan's spend in every period; outcomes from `start` on are not read.
        start: first period that is fed back.
        noise: added to what is fed back, on the network's scale.
    """
    *units, count = series.outcome.shape
    spent = _spent(params, series, known, cfg=cfg)
    media = _media(params, series.spend, known, cfg=cfg)
    inputs = _inputs(params, spent, series, jnp.zeros((*units, count, 1)))
    static = nets.dense(params["static"], series.static)
    rows = jnp.arange(count)

    def period(carry: tuple, t: Array) -> tuple[tuple, Forecast]:
        cache, before, seen = carry
        take = lambda x: jax.lax.dynamic_slice_in_dim(x, t, 1, axis=-2)  # noqa: E731
        x = take(inputs).at[2].set(nets.dense(params["outcome"], before[..., None, None]))
        look = streams.view(params["relative"], seen & (rows <= t), t, cfg=cfg)
        # Rows past t are zeros in the cache; `view` hides them because they are not observed yet.
        x, cache = streams.run(params["streams"], x, static, look, cache, t, cfg=cfg)
        phi, now = _represent(params, x), series._replace(covariates=take(series.covariates))
        out = _head(params, phi, take(spent), now, take(media), cfg=cfg)[..., 0]
        rolled, own = t >= start, media[..., t, :]
        there = rolled | series.observed[..., t]
        fed = jnp.where(rolled, out + noise[..., t], series.outcome[..., t])
        before = jnp.where(there, fed - own.sum(-1) - _intercept(params, series)[..., 0], 0.0)
        return (cache, before, seen.at[..., t].set(there)), Forecast(out, phi[..., 0, :], own)

    first = (streams.empty_cache(tuple(units), count, cfg=cfg), jnp.zeros(units), jnp.zeros((*units, count), bool))
    found = jax.lax.scan(period, first, rows)[1]
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, len(units)), found)


def respond(
    params: Params,
    series: Series,
    spend: Float[Array, "*units time channels"],
    known: Channels,
    start: Int[Array, ""] | int,
    *,
    cfg: MMMConfig,
    feed: bool = True,
) -> Float[Array, "*units time"]:
    """Expect the outcome of each period had the spend been another one.

    Args:
        series: what happened.
        spend: the plan.
        start: first period in which the plan may differ.
        feed: feed predicted outcomes back from `start` on; otherwise later periods see the observed outcomes, which
            hold the effect of the observed spend and so hide part of the carry-over. The response form needs neither.
    """
    if cfg.head == "response":
        found = apply(params, series, known, cfg=cfg)
        return found.outcome - found.media.sum(-1) + _media(params, spend, known, cfg=cfg).sum(-1)
    planned = series._replace(spend=spend)
    if not feed:
        return apply(params, planned, known, cfg=cfg).outcome
    return roll_out(params, planned, known, start, jnp.zeros_like(series.outcome), cfg=cfg).outcome
