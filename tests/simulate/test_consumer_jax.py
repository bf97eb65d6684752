"""The JAX generator against the NumPy one: equal on equal noise, equal in distribution on their own."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.simulate import consumer_jax, consumer_numpy
from wmjax.simulate.consumer import PUBLISHED, ConsumerActions, ConsumerSim, ConsumerSimConfig, ConsumerStatics

CFG = ConsumerSimConfig(num_consumers=64, num_days=60, sale="targeted")
SEEDS = 48
STRENGTHS = (0.0, 1.0, 2.0, 4.0)
PLAN = STRENGTHS.index(2.0)  # the published strength


def statistics(sim: ConsumerSim) -> dict[str, float]:
    """Summaries of one panel, from either generator."""
    out, act, traits, statics = sim.outcomes, sim.actions, sim.traits, sim.statics
    visit, buys = out.visit.astype(float), out.purchase.astype(float)
    income = np.log(statics.income)
    found = {
        "visit": visit.mean(),
        "purchase": buys.mean(),
        "visit on campaign days": (visit * act.campaign).sum() / max(act.campaign.sum(), 1),
        "purchase on sale days": (buys * act.sale1).sum() / act.sale1.sum(),
        "first fortnight": buys[:, :14].mean(),
        "repeat purchase": (buys[:, 1:] * buys[:, :-1]).mean(),
        "age": statics.age.mean(),
        "store 0": (statics.store == 0).mean(),
        "log income": income.mean(),
        "sd of log income": income.std(),
        "alpha by age": (traits.alpha * (statics.age - statics.age.mean())).mean(),
        "beta by income": (traits.beta * (income - income.mean())).mean(),
        "gamma by loyalty": (traits.gamma * statics.loyalty).mean(),
        "coupon by loyalty": (act.coupon * statics.loyalty[:, None]).mean(),
    }
    found |= {name: getattr(act, name).mean() for name in ConsumerActions._fields}
    for name, trait in traits._asdict().items():
        found |= {name: trait.mean(), f"sd of {name}": trait.std()}
    return {name: float(value) for name, value in found.items()}


def lane(sims: ConsumerSim, *at: int) -> ConsumerSim:
    return jax.tree.map(lambda x: x[at], sims)


@pytest.fixture(scope="module")
def sims() -> ConsumerSim:
    """Panels for all strengths and seeds in one compiled program: `[strengths, seeds, ...]`."""

    def one(strength, key):
        return consumer_jax.simulate_jax(key, PUBLISHED._replace(targeting=strength), cfg=CFG)

    grid = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))
    return jax.tree.map(np.asarray, grid(jnp.array(STRENGTHS), jax.random.split(jax.random.key(0), SEEDS)))


@pytest.fixture(scope="module")
def roll():
    return jax.jit(lambda params, sim, plan: consumer_jax.roll_out(params, sim, plan, cfg=CFG))


def test_both_generators_agree_in_distribution(sims):
    """25 Welch z-scores over 48 panels each under 5: right generators fail once in 15,000 runs."""
    theirs = [
        statistics(consumer_numpy.simulate_numpy(dataclasses.replace(CFG, seed=s, sale_seed=1000 + s)))
        for s in range(SEEDS)
    ]
    ours = [statistics(lane(sims, PLAN, s)) for s in range(SEEDS)]
    for name in theirs[0]:
        a, b = (np.array([d[name] for d in drawn]) for drawn in (theirs, ours))
        error = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / SEEDS)
        assert abs(a.mean() - b.mean()) <= 5 * error + 1e-6, (name, a.mean(), b.mean(), error)


def test_equal_noise_gives_equal_outcomes(roll):
    """float32 may move a draw across its threshold once in 10^7 events; there are 7,680 here."""
    sim = consumer_numpy.simulate_numpy(CFG)
    again = roll(jax.tree.map(jnp.float32, PUBLISHED), sim, sim.actions)
    for name, values in again._asdict().items():
        np.testing.assert_allclose(values, getattr(sim.outcomes, name), rtol=2e-6, atol=2e-6, err_msg=name)


def test_placebo_equals_the_numpy_placebo():
    cfg = dataclasses.replace(CFG, alpha_in_outcome="constant", num_days=20)
    sim = consumer_numpy.simulate_numpy(cfg)
    again = jax.jit(lambda sim: consumer_jax.roll_out(PUBLISHED, sim, sim.actions, cfg=cfg))(sim)
    np.testing.assert_allclose(again.utility_purchase, sim.outcomes.utility_purchase, rtol=2e-6, atol=2e-6)


def test_roll_outs_share_the_panels_chance(sims, roll):
    sim, params = lane(sims, PLAN, 0), jax.tree.map(jnp.float32, PUBLISHED)
    same = roll(params, sim, sim.actions)
    np.testing.assert_array_equal(same.visit, sim.outcomes.visit)
    np.testing.assert_array_equal(same.purchase, sim.outcomes.purchase)
    pushed = roll(params, sim, sim.actions._replace(push=np.ones_like(sim.actions.push)))
    np.testing.assert_array_equal(pushed.purchase, sim.outcomes.purchase)
    assert pushed.visit.mean() > sim.outcomes.visit.mean() + 0.05
    mute = roll(params._replace(visit_push=jnp.float32(0)), sim, sim.actions)
    gap = sim.outcomes.utility_visit[:, 0] - mute.utility_visit[:, 0]
    np.testing.assert_allclose(gap, 0.6 * sim.traits.gamma * sim.actions.push[:, 0], atol=1e-6)


def test_a_sweep_over_confounding_shares_its_chance(sims):
    visits = sims.outcomes.visit
    # Sales never touch visits, so one chance gives one visit history for all strengths.
    assert (visits == visits[:1]).all()
    sale, buys = sims.actions.sale1.astype(float), sims.outcomes.purchase
    naive = np.array([b[s == 1].mean() - b[s == 0].mean() for b, s in zip(buys, sale, strict=True)])
    # Randomised (0) the naive difference is the effect, .014 with a standard error of .003; targeting drags it down.
    assert -0.001 < naive[0] < 0.029
    assert (np.diff(naive) < 0).all()
    assert naive[-1] < -0.02
    np.testing.assert_allclose(sims.propensity[0], 1 / 7, rtol=1e-5)


def test_randomised_sales_and_campaign_rules():
    """Sales are whole days at their rate; at a start rate of 1, three stores run whole campaigns of three days."""
    cfg = dataclasses.replace(CFG, num_consumers=10, num_days=2400, sale="randomised")
    statics = ConsumerStatics(*(jnp.arange(10),) * 3, jnp.zeros(10))
    params = PUBLISHED._replace(campaign_rate=1.0)

    @jax.jit
    def draw(key):
        return consumer_jax._actions(key, params, statics, consumer_jax._daily(key, cfg), cfg)

    actions = jax.tree.map(np.asarray, draw(jax.random.key(4)))
    assert (actions.sale1 == actions.sale1[:1]).all()
    # 2,400 days at 1/7: |z| < 5 fails once in 1.7 million.
    assert abs(actions.sale1[0].mean() - 1 / 7) < 5 * np.sqrt(6 / 49 / cfg.num_days)
    np.testing.assert_array_equal(actions.sale2, np.broadcast_to(cfg.sale_months, (10, cfg.num_days)))
    running = actions.campaign.astype(int)
    # One starts every day that fewer than three run: from the third day on exactly three run.
    assert (running[:, 2:].sum(0) == 3).all()
    starts = np.diff(np.pad(running, ((0, 0), (1, 0))), axis=1) == 1
    for after in (1, 2):
        assert (running[:, after:][starts[:, : cfg.num_days - after]] == 1).all()
    # Stores are equally likely. Chi-square with 9 degrees of freedom passes 45 once in a million, and less often here,
    # where a running store must wait.
    count = starts.sum(1)
    assert ((count - count.mean()) ** 2 / count.mean()).sum() < 45
