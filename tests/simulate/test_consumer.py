"""The published consumer panel, to the bit, and what is true of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from jaxtyping import TypeCheckError
from scipy import stats
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from wmjax.simulate import consumer, consumer_frame, consumer_numpy, consumer_truth
from wmjax.simulate.consumer import PUBLISHED, ConsumerActions, ConsumerSim, ConsumerSimConfig

CFG = ConsumerSimConfig()
SPLITS = {"train": slice(0, 305), "val": slice(305, 335), "test": slice(335, 365)}
SMALL = ConsumerSimConfig(num_consumers=64, num_days=60)


@pytest.fixture(scope="module")
def sim() -> ConsumerSim:
    return consumer_numpy.simulate_numpy(CFG)


@pytest.fixture(scope="module")
def frame(sim: ConsumerSim) -> np.ndarray:
    return consumer_frame.frame72(sim, cfg=CFG)


@pytest.fixture(scope="module")
def table(sim: ConsumerSim) -> pd.DataFrame:
    return consumer_frame.frame_table(sim, cfg=CFG)


@pytest.fixture(scope="module")
def labels(sim: ConsumerSim) -> list[str]:
    return list(consumer_frame.frame_bits(sim, cfg=CFG))


@pytest.mark.parametrize(
    ("split", "rows", "digest"),
    [
        ("train", 312_320, "45173ba0d85f42d9a82259417ccb10155c491f153f200f64af193dda26accbbc"),
        ("val", 30_720, "73a542df8288ab0ed6b3ddeb17887f59a3e3112841ac9645efa78aef30d61fc2"),
        ("test", 30_720, "3ec607a1e7e392610e4411eacc7f53f1e69a4664a45146991c7fb4ceb31005cd"),
    ],
)
def test_discrete_columns_are_the_published_panel_to_the_bit(table, split, rows, digest):
    part = table[(table["day"] >= SPLITS[split].start) & (table["day"] < SPLITS[split].stop)]
    assert len(part) == rows
    assert consumer_frame.content_digest(part) == digest


def test_the_digest_sees_every_discrete_column(table):
    few = table.iloc[:1000]
    whole = consumer_frame.content_digest(few)
    for name in few.columns:
        one = few.copy()
        one.loc[0, name] = one.loc[0, name] + (pd.Timedelta(days=1) if name == "date" else 1)
        assert (consumer_frame.content_digest(one) == whole) == name.startswith("true_"), name


def test_rates_and_traits_of_the_published_panel(sim):
    out, act = sim.outcomes, sim.actions
    rates = {"visit": 0.50258, "purchase": 0.22364}
    by_split = {"visit": (0.50195, 0.51517, 0.49643), "purchase": (0.22322, 0.22354, 0.22806)}
    for name, rate in rates.items():
        events = getattr(out, name)
        assert events.mean() == pytest.approx(rate, abs=6e-6)
        assert [events[:, s].mean() for s in SPLITS.values()] == pytest.approx(list(by_split[name]), abs=1.2e-5)
    actions = {"campaign": 0.05187, "coupon": 0.13856, "push": 0.24964, "sale1": 0.14247, "sale2": 0.33425}
    for name, rate in actions.items():
        assert getattr(act, name).mean() == pytest.approx(rate, abs=6e-6), name
    assert sim.statics.loyalty.mean() == pytest.approx(0.30664, abs=6e-6)
    alpha, gamma, beta = sim.traits
    assert (alpha.mean(), gamma.mean(), beta.mean()) == pytest.approx((1.989, 1.187, 0.160), abs=6e-4)
    assert (alpha.std(), gamma.std(), beta.std()) == pytest.approx((0.771, 0.304, 0.739), abs=6e-4)
    assert (alpha < 0).mean() == pytest.approx(0.0205, abs=6e-5)
    ranks = [stats.spearmanr(a, b).statistic for a, b in ((alpha, beta), (alpha, gamma), (beta, gamma))]
    assert ranks == pytest.approx([-0.765, -0.059, 0.287], abs=6e-4)


def test_frame72_holds_72_bits_and_the_tables_columns(frame, table, labels):
    assert frame.shape == (1024, 365, 72)
    assert frame.dtype == np.uint8
    assert frame.max() == 1
    np.testing.assert_array_equal(frame.reshape(-1, 72), table[labels].to_numpy())
    # Each one-hot group has exactly one bit on.
    for at, size in ((0, 10), (11, 5), (16, 5), (21, 12), (33, 7)):
        assert (frame[:, :, at : at + size].sum(-1) == 1).all()
    assert frame[:, :305].sum(-1).mean() == pytest.approx(20.4, abs=0.05)


def test_frame72_reads_only_the_past(sim, frame, labels):
    lag = {n: labels.index(n) for n in ("visit_lag1", "push_lag4", "visited_within_7d", "cum_visits_5plus")}
    assert frame[:, 0, 40:].sum() == 0
    np.testing.assert_array_equal(frame[:, 1:, lag["visit_lag1"]], sim.outcomes.visit[:, :-1])
    np.testing.assert_array_equal(frame[:, 4:, lag["push_lag4"]], sim.actions.push[:, :-4])
    visits = sim.outcomes.visit[:, :200]
    # "Within 7 days" reads the previous eight days, because an event yesterday counts as zero days ago.
    assert (frame[:, 200, lag["visited_within_7d"]] == visits[:, -8:].any(1)).all()
    assert (frame[:, 200, lag["cum_visits_5plus"]] == (visits.sum(1) >= 5)).all()


@pytest.mark.parametrize(
    ("split", "eligible", "no14", "no30"),
    [("train", 129_568, 0.187, 0.047), ("val", 12_694, 0.159, 0.019), ("test", 12_432, 0.181, 0.019)],
)
def test_rows_of_the_clamp_test(sim, frame, labels, split, eligible, no14, no30):
    bits = frame[:, SPLITS[split]]
    rows = ~bits[..., [labels.index(f"purchase_lag{k}") for k in (1, 2, 3, 4)]].any(-1)
    assert rows.sum() == eligible
    for days, share in ((14, no14), (30, no30)):
        recent = bits[..., labels.index(f"purchased_within_{days}d")]
        assert 1 - recent[rows].mean() == pytest.approx(share, abs=6e-4)
    if split == "test":
        beta = np.broadcast_to(sim.traits.beta[:, None], rows.shape)[rows]
        assert np.median(beta) == pytest.approx(-0.20505, abs=6e-6)
        # Rows of the median consumer fall into the high half.
        assert ((beta >= np.median(beta)).sum(), (beta < np.median(beta)).sum()) == (6_229, 6_203)


def test_oracle_effects_of_the_published_panel(sim):
    test = SPLITS["test"]
    known = {
        ("push", "visit"): (0.7124, 0.1825, 0.1481, 0.0454),
        ("sale1", "purchase"): (0.0994, 0.0386, 0.0144, 0.0056),
    }
    ranks = {("push", "visit"): (0.065, 0.640, 0.087), ("sale1", "purchase"): (0.371, 0.357, 0.187)}
    for (action, outcome), numbers in known.items():
        effect = consumer_truth.effect(sim, action, outcome, cfg=CFG)
        logit_, risk = effect.logit[:, test], effect.probability[:, test]
        assert (logit_.mean(), logit_.std(), risk.mean(), risk.std()) == pytest.approx(numbers, abs=6e-5)
        traits = [np.broadcast_to(t[:, None], risk.shape).ravel() for t in sim.traits]
        found = [stats.spearmanr(risk.ravel(), t).statistic for t in traits]
        assert found == pytest.approx(ranks[action, outcome], abs=6e-4)
    aucs = [
        roc_auc_score(getattr(sim.outcomes, n)[:, test].ravel(), getattr(sim.outcomes, f"utility_{n}")[:, test].ravel())
        for n in ("visit", "purchase")
    ]
    assert aucs == pytest.approx([0.7305, 0.6950], abs=6e-5)


@pytest.mark.parametrize("placebo", ["own", "constant"])
def test_effects_are_differences_of_the_utilities(placebo):
    cfg = dataclasses.replace(CFG, num_consumers=64, num_days=60, start="2025-02-10", alpha_in_outcome=placebo)
    sim = consumer_numpy.simulate_numpy(cfg)
    acting = consumer.ConsumerTraits(*(t[:, None] for t in consumer.traits_in_outcome(sim.traits, cfg=cfg)))
    utilities = {"visit": consumer.utility_visit, "purchase": consumer.utility_purchase}
    moved = set()
    for action in ConsumerActions._fields:
        for outcome, utility in utilities.items():
            low, high = (
                utility(
                    cfg.params,
                    sim.statics.loyalty[:, None],
                    acting,
                    sim.actions._replace(**{action: np.full((64, 60), value)}),
                    getattr(sim.outcomes, f"since_{outcome}"),
                )
                for value in (0, 1)
            )
            effect = consumer_truth.effect(sim, action, outcome, cfg=cfg)
            np.testing.assert_allclose(effect.logit, high - low, atol=1e-12)
            np.testing.assert_allclose(effect.probability, expit(high) - expit(low), atol=1e-12)
            moved |= {(action, outcome)} if np.any(effect.logit) else set()
    visits = {("campaign", "visit"), ("coupon", "visit"), ("push", "visit")}
    assert moved == visits | {(a, "purchase") for a in ("sale1", "sale2", "campaign", "coupon")}


def test_averaged_probability_is_the_mean_over_the_shock():
    utility = np.array([-3.0, -0.4, 0.0, 2.5])
    shocks = np.random.default_rng(0).gumbel(size=(400_000, 1))
    draws = expit(utility + 0.5 * shocks)
    z = (consumer_truth.probability(utility, scale=0.5, gumbel="averaged") - draws.mean(0)) / (
        draws.std(0) / np.sqrt(len(draws))
    )
    # Four z-scores under 4: a right integral fails once in 4,000 seeds.
    assert np.abs(z).max() < 4
    np.testing.assert_array_equal(consumer_truth.probability(utility, scale=0.5, gumbel="zero"), expit(utility))


def test_outcomes_follow_their_probabilities(sim):
    """Calibration by utility decile: 20 z-scores under 5, which a right panel fails once in 87,000."""
    for name in ("visit", "purchase"):
        event = getattr(sim.outcomes, name).ravel()
        chance = consumer_truth.probability(
            getattr(sim.outcomes, f"utility_{name}").ravel(), scale=PUBLISHED.gumbel_scale, gumbel="averaged"
        )
        group = np.digitize(chance, np.quantile(chance, np.linspace(0.1, 0.9, 9)))
        total = np.bincount(group, event - chance)
        z = total / np.sqrt(np.bincount(group, chance * (1 - chance)))
        assert np.abs(z).max() < 5


def test_replaying_the_own_plan_gives_the_panel_back(sim):
    again = consumer_numpy.roll_out(sim, sim.actions, cfg=CFG)
    for name, values in again._asdict().items():
        np.testing.assert_array_equal(values, getattr(sim.outcomes, name), err_msg=name)


def test_a_changed_plan_changes_only_what_it_can(sim):
    push = sim.actions.push.copy()
    push[:100, 200] = 1 - push[:100, 200]
    out = consumer_numpy.roll_out(sim, sim.actions._replace(push=push), cfg=CFG)
    np.testing.assert_array_equal(out.visit[100:], sim.outcomes.visit[100:])
    np.testing.assert_array_equal(out.visit[:, :200], sim.outcomes.visit[:, :200])
    np.testing.assert_array_equal(out.purchase, sim.outcomes.purchase)
    today, was = out.visit[:100, 200].astype(int), sim.outcomes.visit[:100, 200].astype(int)
    pushed = push[:100, 200] == 1
    # Common random numbers and a positive gamma: a push never loses a visit on its own day, and here it wins some.
    assert (today >= was)[pushed].all()
    assert (today <= was)[~pushed].all()
    assert 0 < np.abs(today - was).sum() < 50
    # Recency carries the change past its day.
    assert (out.since_visit[:100, 201:] != sim.outcomes.since_visit[:100, 201:]).any()


def test_roll_outs_estimate_the_probability_effect(sim):
    """Everybody pushed on one day against nobody: |z| < 5, which a right roll-out fails once in 1.7 million."""
    worlds = []
    for value in (0, 1):
        push = sim.actions.push.copy()
        push[:, 350] = value
        worlds.append(
            consumer_numpy.roll_out(sim, sim.actions._replace(push=push), cfg=CFG).visit[:, 350].astype(float)
        )
    difference = worlds[1] - worlds[0]
    truth = consumer_truth.effect(sim, "push", "visit", cfg=CFG, gumbel="averaged").probability[:, 350]
    z = (difference - truth).mean() / (difference.std() / np.sqrt(len(truth)))
    assert abs(z) < 5
    assert difference.mean() > 0.1


def test_randomised_sales_move_only_sales_and_what_follows(sim):
    cfg = dataclasses.replace(CFG, sale="randomised")
    other = consumer_numpy.simulate_numpy(cfg)
    for name in ConsumerActions._fields[1:]:
        np.testing.assert_array_equal(getattr(other.actions, name), getattr(sim.actions, name))
    np.testing.assert_array_equal(other.outcomes.visit, sim.outcomes.visit)
    sale_days = other.actions.sale1[0]
    assert (other.actions.sale1 == sale_days).all()
    assert 30 < sale_days[:305].sum() < 60
    # No day of the week decides: Sundays with and without a sale, and sales on other days.
    sunday = cfg.sundays == 1
    assert 0 < sale_days[sunday].mean() < 1
    assert sale_days[~sunday].mean() > 0


def test_targeted_sales_are_confounded_and_yet_identified():
    cfg = dataclasses.replace(CFG, sale="targeted")
    sim = consumer_numpy.simulate_numpy(cfg)
    sale, bought, chance = sim.actions.sale1, sim.outcomes.purchase.astype(float), sim.propensity
    recent = consumer_frame.frame_bits(sim, cfg=cfg)["purchased_within_7d"]
    # The propensity is a function of one visible bit.
    np.testing.assert_allclose(logit(chance), logit(PUBLISHED.sale_rate) + 2.0 * (0.5 - recent), rtol=1e-12)
    z_rate = (sale - chance).sum() / np.sqrt((chance * (1 - chance)).sum())
    truth = consumer_truth.effect(sim, "sale1", "purchase", cfg=cfg, gumbel="averaged").probability
    naive = bought[sale == 1].mean() - bought[sale == 0].mean()
    # Augmented by the true log odds' mean, so that the error is the draws' alone; clustered by consumer.
    score = (bought * (sale / chance - (1 - sale) / (1 - chance)) - truth).mean(1)
    z = score.mean() / (score.std(ddof=1) / np.sqrt(len(score)))
    # |z| < 5 twice: a right panel fails once in 870,000.
    assert abs(z_rate) < 5
    assert abs(z) < 5
    assert truth.mean() > 0.01
    assert naive < -0.01


def test_placebo_buys_with_one_alpha_and_records_many(sim):
    cfg = dataclasses.replace(CFG, alpha_in_outcome="constant")
    placebo = consumer_numpy.simulate_numpy(cfg)
    np.testing.assert_array_equal(placebo.traits.alpha, sim.traits.alpha)
    effect = consumer_truth.effect(placebo, "sale1", "purchase", cfg=cfg)
    np.testing.assert_allclose(effect.logit, PUBLISHED.cut_sale1 * PUBLISHED.alpha_mean, rtol=1e-12)
    difference = placebo.outcomes.utility_purchase[:, 0] - sim.outcomes.utility_purchase[:, 0]
    # The first day is a Wednesday in January: no sale, so campaigns and coupons make the price.
    cut = np.where(sim.statics.loyalty == 1, 0.01, 0.025) * sim.actions.coupon[:, 0] + 0.05 * sim.actions.campaign[:, 0]
    np.testing.assert_allclose(difference, (2.0 - sim.traits.alpha) * cut, atol=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_consumers": 1},
        {"num_days": 0},
        {"sale": "never"},
        {"alpha_in_outcome": "none"},
        {"store_probs": (0.5, 0.4)},
        {"start": "first of May"},
    ],
)
def test_configuration_says_what_is_wrong(wrong):
    # Under the test suite's shape checker a value outside a Literal is refused before the configuration sees it.
    with pytest.raises((ValueError, TypeCheckError), match="isoformat" if "start" in wrong else next(iter(wrong))):
        ConsumerSimConfig(**wrong)


def test_another_start_moves_the_calendar():
    cfg = dataclasses.replace(SMALL, start="2024-02-28")
    dates = pd.date_range("2024-02-28", periods=60)
    np.testing.assert_array_equal(cfg.day_of_week, dates.day_of_week)
    np.testing.assert_array_equal(cfg.month, dates.month)
    np.testing.assert_array_equal(cfg.sale_months, dates.month.isin([3, 6, 9, 12]))
