"""The JAX generator of the consumer panel: the same equations, for sweeps over seeds and over continuous constants."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from wmjax.core import draws
from wmjax.core.keys import key_for
from wmjax.simulate import consumer
from wmjax.simulate.consumer import (
    ConsumerActions,
    ConsumerNoise,
    ConsumerOutcomes,
    ConsumerParams,
    ConsumerSim,
    ConsumerSimConfig,
    ConsumerStatics,
    ConsumerTraits,
)


def _standardise(x: Float[Array, " consumers"]) -> Float[Array, " consumers"]:
    return (x - x.mean()) / x.std(ddof=1)


class _Daily(NamedTuple):
    """Uniforms, each `[consumers, days]`, from one draw: fewer generators to compile."""

    coupon: Array
    push: Array
    sale: Array
    gumbel_visit: Array
    visit: Array
    gumbel_purchase: Array
    purchase: Array


def _daily(key: Key[Array, ""], cfg: ConsumerSimConfig) -> _Daily:
    return _Daily(*draws.uniform(key_for(key, "days"), (len(_Daily._fields), cfg.num_consumers, cfg.num_days)))


def _gumbel(uniform: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Turn uniforms on [0, 1) into standard Gumbel draws; 0 is moved to the next float, for log(0)."""
    return -jnp.log(-jnp.log(jnp.maximum(uniform, jnp.finfo(uniform.dtype).tiny)))


def _consumers(
    key: Key[Array, ""], params: ConsumerParams, cfg: ConsumerSimConfig
) -> tuple[ConsumerStatics, ConsumerTraits]:
    store, age, loyalty = draws.uniform(key_for(key, "statics"), (3, cfg.num_consumers))
    normal, alpha, gamma, beta = draws.normal(key_for(key, "traits"), (4, cfg.num_consumers))
    statics = ConsumerStatics(
        store=jnp.searchsorted(jnp.cumsum(jnp.asarray(cfg.store_probs))[:-1], store, side="right"),
        age=20 + jnp.floor(50 * age).astype(jnp.int32),
        income=jnp.exp(params.income_log_mean + params.income_log_sd * normal),
        loyalty=(loyalty < params.loyal_rate).astype(jnp.uint8),
    )
    income, years = _standardise(jnp.asarray(statics.income)), _standardise(statics.age.astype(jnp.float32))
    traits = ConsumerTraits(
        alpha=params.alpha_mean + params.alpha_sd * alpha + params.alpha_income * income + params.alpha_age * years,
        gamma=params.gamma_mean + params.gamma_sd * gamma + params.gamma_loyalty * statics.loyalty,
        beta=params.beta_sd * beta
        + params.beta_income * income
        + params.beta_age * years
        + params.beta_loyalty * statics.loyalty,
    )
    return statics, traits


def _store_campaigns(key: Key[Array, ""], params: ConsumerParams, cfg: ConsumerSimConfig) -> Int[Array, "days stores"]:
    """Draw which store runs a campaign on which day, by the days each store's campaign has left."""
    num_stores = len(cfg.store_probs)
    uniform = draws.uniform(key_for(key, "campaigns"), (cfg.num_days, num_stores + 1))
    start, rank = uniform[:, 0] < params.campaign_rate, uniform[:, 1:]

    def step(left: Array, today: tuple[Array, Array]) -> tuple[Array, Array]:
        may, order = today
        idle = left == 0
        begins = may & ((left > 0).sum() < cfg.max_campaigns) & idle.any()
        chosen = jnp.argmax(jnp.where(idle, order, -1.0))  # a uniform choice among the idle stores
        left = jnp.where(begins & (jnp.arange(num_stores) == chosen), cfg.campaign_days, left)
        return jnp.maximum(left - 1, 0), (left > 0).astype(jnp.int32)

    return jax.lax.scan(step, jnp.zeros(num_stores, jnp.int32), (start, rank))[1]


def _actions(
    key: Key[Array, ""], params: ConsumerParams, statics: ConsumerStatics, daily: _Daily, cfg: ConsumerSimConfig
) -> ConsumerActions:
    """Draw the actions; sale1 is 0 under targeted sales, which are drawn in the roll-out."""
    shape = (cfg.num_consumers, cfg.num_days)
    rate = params.coupon_rate + (params.coupon_rate_loyal - params.coupon_rate) * statics.loyalty
    days = jnp.asarray(cfg.sundays) if cfg.sale == "calendar" else jnp.zeros(cfg.num_days, jnp.uint8)
    if cfg.sale == "randomised":
        days = jax.random.bernoulli(key_for(key, "sale_days"), params.sale_rate, days.shape).astype(jnp.uint8)
    return ConsumerActions(
        sale1=jnp.broadcast_to(days, shape),
        sale2=jnp.broadcast_to(jnp.asarray(cfg.sale_months), shape),
        campaign=_store_campaigns(key, params, cfg).T[statics.store].astype(jnp.uint8),
        coupon=(daily.coupon < rate[:, None]).astype(jnp.uint8),
        push=(daily.push < params.push_rate).astype(jnp.uint8),
    )


def _roll(
    params: ConsumerParams,
    statics: ConsumerStatics,
    traits: ConsumerTraits,
    actions: ConsumerActions,
    noise: ConsumerNoise,
    sale_uniform: Float[Array, "consumers days"] | None,
    *,
    cfg: ConsumerSimConfig,
) -> tuple[ConsumerOutcomes, Float[Array, "consumers days"], Array]:
    """Scan over the days; gives outcomes, the propensity of sale1, and sale1 as it was drawn."""
    acting = traits
    if cfg.alpha_in_outcome == "constant":
        acting = traits._replace(alpha=jnp.full_like(traits.alpha, 1.0) * params.alpha_mean)
    base = jnp.log(params.sale_rate) - jnp.log1p(-params.sale_rate)

    def step(since: tuple[Array, Array], today: tuple) -> tuple[tuple[Array, Array], tuple]:
        acts, shocks, uniform = today
        given = jax.nn.sigmoid(consumer.targeted_log_odds(params, base, since[1]))
        if uniform is not None:
            acts = acts._replace(sale1=(uniform < given).astype(jnp.uint8))
        visits = consumer.utility_visit(params, statics.loyalty, acting, acts, since[0])
        buys = consumer.utility_purchase(params, statics.loyalty, acting, acts, since[1])
        visit = shocks.uniform_visit <= jax.nn.sigmoid(visits + params.gumbel_scale * shocks.gumbel_visit)
        purchase = shocks.uniform_purchase <= jax.nn.sigmoid(buys + params.gumbel_scale * shocks.gumbel_purchase)
        after = (jnp.where(visit, 0.0, since[0] + 1.0), jnp.where(purchase, 0.0, since[1] + 1.0))
        out = ConsumerOutcomes(visit.astype(jnp.uint8), purchase.astype(jnp.uint8), *since, visits, buys)
        return after, (out, given, acts.sale1)

    first = jnp.full((cfg.num_consumers,), consumer.NEVER)
    by_day = jax.tree.map(lambda x: jnp.moveaxis(jnp.asarray(x), 1, 0), (actions, noise, sale_uniform))
    _, out = jax.lax.scan(step, (first, first), by_day)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), out)


def simulate_jax(key: Key[Array, ""], params: ConsumerParams, *, cfg: ConsumerSimConfig) -> ConsumerSim:
    """Draw a panel with JAX's generator: other numbers than `simulate_numpy`, the same distribution.

    `vmap` over `key` gives many panels, over leaves of `params` a sweep (say over `targeting` or `gumbel_scale`); share
    the key in a sweep, and the panels differ by the constants alone.

    Args:
        key: a typed key; `cfg.seed` and `cfg.sale_seed` are not read.
        params: the continuous constants, traced; `cfg.params` is not read.
        cfg: sizes, calendar and how sales are set.

    Returns:
        The panel as float32 and uint8 arrays; each field `[consumers]` or `[consumers, days]`.
    """
    statics, traits = _consumers(key, params, cfg)
    daily = _daily(key, cfg)
    noise = ConsumerNoise(_gumbel(daily.gumbel_visit), daily.visit, _gumbel(daily.gumbel_purchase), daily.purchase)
    actions = _actions(key, params, statics, daily, cfg)
    uniform = daily.sale if cfg.sale == "targeted" else None
    outcomes, given, sale1 = _roll(params, statics, traits, actions, noise, uniform, cfg=cfg)
    shape = (cfg.num_consumers, cfg.num_days)
    propensity = {
        "calendar": jnp.broadcast_to(jnp.asarray(cfg.sundays, jnp.float32), shape),
        "randomised": jnp.full(shape, 1.0) * params.sale_rate,
        "targeted": given,
    }[cfg.sale]
    return ConsumerSim(statics, traits, actions._replace(sale1=sale1), noise, outcomes, propensity)


def roll_out(
    params: ConsumerParams, sim: ConsumerSim, actions: ConsumerActions, *, cfg: ConsumerSimConfig
) -> ConsumerOutcomes:
    """Replay a panel under other actions with the same chance; the actions are taken as given on every day."""
    return _roll(params, sim.statics, sim.traits, actions, sim.noise, None, cfg=cfg)[0]
