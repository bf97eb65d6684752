"""The NumPy generator of the consumer panel, exact to the bit for the published seed, and its roll-outs."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit

from wmjax.simulate import consumer
from wmjax.simulate.consumer import (
    ConsumerActions,
    ConsumerNoise,
    ConsumerOutcomes,
    ConsumerSim,
    ConsumerSimConfig,
    ConsumerStatics,
    ConsumerTraits,
)


def _standardise(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / x.std(ddof=1)


def _statics(rng: np.random.RandomState, cfg: ConsumerSimConfig) -> ConsumerStatics:
    n, p = cfg.num_consumers, cfg.params
    return ConsumerStatics(
        store=rng.choice(len(cfg.store_probs), size=n, p=np.asarray(cfg.store_probs)),
        age=rng.randint(20, 70, n),
        income=rng.lognormal(p.income_log_mean, p.income_log_sd, n),
        loyalty=rng.binomial(1, p.loyal_rate, n),
    )


def _traits(rng: np.random.RandomState, statics: ConsumerStatics, cfg: ConsumerSimConfig) -> ConsumerTraits:
    n, p = cfg.num_consumers, cfg.params
    income, age = _standardise(statics.income), _standardise(statics.age)
    return ConsumerTraits(
        alpha=p.alpha_mean + rng.normal(0, p.alpha_sd, n) + p.alpha_income * income + p.alpha_age * age,
        gamma=p.gamma_mean + rng.normal(0, p.gamma_sd, n) + p.gamma_loyalty * statics.loyalty,
        beta=rng.normal(0, p.beta_sd, n) + p.beta_income * income + p.beta_age * age + p.beta_loyalty * statics.loyalty,
    )


def _store_campaigns(rng: np.random.RandomState, cfg: ConsumerSimConfig) -> np.ndarray:
    """Draw which store runs a campaign on which day: `uint8 [stores, days]`."""
    running = np.zeros((len(cfg.store_probs), cfg.num_days), np.uint8)
    for day in range(cfg.num_days):
        if rng.random_sample() >= cfg.params.campaign_rate:
            continue
        idle = np.flatnonzero(running[:, day] == 0)
        if len(running) - len(idle) < cfg.max_campaigns and len(idle):
            running[rng.choice(idle), day : day + cfg.campaign_days] = 1
    return running


def _actions(rng: np.random.RandomState, statics: ConsumerStatics, cfg: ConsumerSimConfig) -> ConsumerActions:
    """Draw the actions; sale1 is filled in for calendar and randomised sales, and left 0 for targeted ones."""
    shape, p = (cfg.num_consumers, cfg.num_days), cfg.params
    campaign = _store_campaigns(rng, cfg)[statics.store]
    rate = np.where(statics.loyalty == 1, p.coupon_rate_loyal, p.coupon_rate)
    coupon = np.stack([rng.binomial(1, rate) for _ in range(cfg.num_days)], axis=1).astype(np.uint8)
    push = rng.binomial(1, p.push_rate, shape).astype(np.uint8)
    days = {"calendar": cfg.sundays, "targeted": np.zeros(cfg.num_days, np.uint8)}
    if cfg.sale == "randomised":
        own = np.random.RandomState(cfg.sale_seed)
        draws = own.random_sample(cfg.num_days)
        days["randomised"] = (draws < p.sale_rate).astype(np.uint8)
    sale1 = np.broadcast_to(days[cfg.sale], shape).copy()
    sale2 = np.broadcast_to(cfg.sale_months, shape).copy()
    return ConsumerActions(sale1=sale1, sale2=sale2, campaign=campaign, coupon=coupon, push=push)


def _noise(rng: np.random.RandomState, cfg: ConsumerSimConfig) -> ConsumerNoise:
    """Draw the shocks, day by day.

    A legacy `binomial(1, p)` spends exactly one `random_sample` whatever p is, so drawing the uniforms directly keeps
    the stream aligned with one that draws the outcomes.
    """
    n = cfg.num_consumers
    days = [[rng.gumbel(0, 1, n), rng.random_sample(n), rng.gumbel(0, 1, n), rng.random_sample(n)] for _ in cfg.dates]
    return ConsumerNoise(*np.ascontiguousarray(np.moveaxis(np.asarray(days), 0, -1)))


def _threshold(uniform: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Turn legacy uniforms into thresholds: `uniform <= p` is then the event that `binomial(1, p)` would have drawn.

    The legacy sampler reads a uniform from above where p <= 1/2 and from below where p > 1/2.
    """
    return np.where(probability <= 0.5, 1.0 - uniform, uniform)


def _roll(
    statics: ConsumerStatics,
    traits: ConsumerTraits,
    actions: ConsumerActions,
    noise: ConsumerNoise,
    *,
    cfg: ConsumerSimConfig,
    legacy: bool,
    sale_uniform: np.ndarray | None = None,
) -> ConsumerSim:
    """Run the days. `legacy` reads the noise's uniforms as the legacy sampler does and gives them back as thresholds;
    `sale_uniform` `[consumers, days]`, where given, draws sale1 from its propensity.
    """
    p, acting = cfg.params, consumer.traits_in_outcome(traits, cfg=cfg)
    shape = (cfg.num_consumers, cfg.num_days)
    sale1 = actions.sale1.copy()
    base = {"calendar": np.broadcast_to(cfg.sundays, shape), "randomised": np.full(shape, p.sale_rate)}
    propensity = np.array(base.get(cfg.sale, np.empty(shape)), np.float64)
    events = [np.zeros(shape, np.uint8) for _ in range(2)]
    sinces = [np.zeros(shape) for _ in range(2)]
    values = [np.zeros(shape) for _ in range(2)]
    thresholds = [noise.uniform_visit.copy(), noise.uniform_purchase.copy()]
    gumbels = (noise.gumbel_visit, noise.gumbel_purchase)
    since = [np.full(cfg.num_consumers, consumer.NEVER) for _ in range(2)]
    for day in range(cfg.num_days):
        if cfg.sale == "targeted":
            propensity[:, day] = expit(consumer.targeted_log_odds(p, logit(p.sale_rate), since[1]))
        if sale_uniform is not None:
            sale1[:, day] = sale_uniform[:, day] < propensity[:, day]
        today = ConsumerActions(sale1[:, day], *(a[:, day] for a in actions[1:]))
        for k, utility in enumerate((consumer.utility_visit, consumer.utility_purchase)):
            sinces[k][:, day] = since[k]
            values[k][:, day] = utility(p, statics.loyalty, acting, today, since[k])
            probability = expit(values[k][:, day] + p.gumbel_scale * gumbels[k][:, day])
            if legacy:
                thresholds[k][:, day] = _threshold(thresholds[k][:, day], probability)
            events[k][:, day] = thresholds[k][:, day] <= probability
            since[k] = np.where(events[k][:, day] == 1, 0.0, since[k] + 1.0)
    return ConsumerSim(
        statics=statics,
        traits=traits,
        actions=actions._replace(sale1=sale1),
        noise=noise._replace(uniform_visit=thresholds[0], uniform_purchase=thresholds[1]),
        outcomes=ConsumerOutcomes(*events, *sinces, *values),
        propensity=propensity,
    )


def simulate_numpy(cfg: ConsumerSimConfig) -> ConsumerSim:
    """Draw a panel from the legacy NumPy stream `RandomState(cfg.seed)`, in the published draw order.

    Under the default configuration this is the published panel, to the bit of every discrete column.
    """
    rng = np.random.RandomState(cfg.seed)
    statics = _statics(rng, cfg)
    traits = _traits(rng, statics, cfg)
    actions = _actions(rng, statics, cfg)
    noise = _noise(rng, cfg)
    uniform = None
    if cfg.sale == "targeted":
        own = np.random.RandomState(cfg.sale_seed)
        uniform = own.random_sample((cfg.num_consumers, cfg.num_days))
    return _roll(statics, traits, actions, noise, cfg=cfg, legacy=True, sale_uniform=uniform)


def roll_out(sim: ConsumerSim, actions: ConsumerActions, *, cfg: ConsumerSimConfig) -> ConsumerOutcomes:
    """Replay the panel under other actions with the same chance: what would have happened, exactly.

    The actions are taken as given on every day, targeted sales included; under the panel's own actions the panel's own
    outcomes return.

    Args:
        sim: the panel, from `simulate_numpy(cfg)`.
        actions: the plan, each `[consumers, days]`.
    """
    return _roll(sim.statics, sim.traits, actions, sim.noise, cfg=cfg, legacy=False).outcomes
