"""Roll-outs by hand: a day's bits are the panel's own, plans change what they say, and truth shares its luck."""

import numpy as np
import pytest

from experiments import consumer_data, trajectories
from experiments.trajectories import SMOKE
from wmjax.simulate.consumer_frame import ACTIONS, OUTCOMES


@pytest.fixture(scope="module")
def data():
    return consumer_data.make(SMOKE.panel, val=SMOKE.val, test=SMOKE.test)


@pytest.fixture(scope="module")
def factual(data):
    return np.stack([getattr(data.sim.actions, name) for name in ACTIONS], axis=-1)


def test_a_days_bits_are_those_of_the_panel(data, factual):
    outcomes = np.stack([getattr(data.sim.outcomes, name) for name in OUTCOMES], axis=-1)
    blank = np.zeros_like(data.bits)
    for day in (0, 1, 3, 9, 40, SMOKE.panel.num_days - 1):
        # From another day's history bits: what does not depend on the past comes from the day itself.
        start = data.bits[:, day].copy()
        start[:, data.visible.labels.index("visit_within_7d") :] = blank[:, day, :][:, :1]
        found = trajectories.bits_of_day(start, data.visible.labels, outcomes, factual, day)
        np.testing.assert_array_equal(found, data.bits[:, day])


def test_plans_leave_the_past_and_other_actions_alone(data, factual):
    start, push = data.days[2].start, ACTIONS.index("push")
    found = trajectories.plans(factual, start)
    for plan in found.values():
        np.testing.assert_array_equal(plan[:, :start], factual[:, :start])
        assert (plan != factual).any((0, 1)).sum() == 1
    assert found["push_weekly"][:, start:, push].sum(1).tolist() == [2] * len(factual)  # of 14 days


def test_truth_depends_on_the_plan_alone(data, factual):
    start = data.days[2].start
    daily = trajectories.plans(factual, start)["push_daily"]
    (a, b, c), errors = trajectories.true_outcomes(data, [factual, factual, daily], start, chances=40, seed=1)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(errors[1], 0)
    # Half as many chances are other chances: what both say differs as the errors tell it to, five of them at most
    # (one false alarm in ten thousand over the 48 consumers).
    (d, _, e), more = trajectories.true_outcomes(data, [factual, factual, daily], start, chances=20, seed=2)
    visit = OUTCOMES.index("visit")
    gap = ((c - a) - (e - d))[..., visit].sum(1) / np.hypot(errors[2], more[2])[:, visit]
    assert np.abs(gap).max() < 5
    assert 0.5 < gap.std() < 1.6  # of 48 consumers it is known to .1: one, give or take five of those
    gain = (c - a)[..., OUTCOMES.index("visit")]
    assert gain.sum() > 0
    # With one luck for both, a push on a day that had none brings nobody to stay away on the first day.
    assert (gain[:, 0] >= 0).all()


def test_a_perfect_answer_scores_no_error(data):
    truth = np.random.default_rng(0).random((20, 14, 2))
    found = trajectories.score("plan", "perfect", truth, truth, SMOKE)
    errors = [value for cell, value in found.items() if "error" in cell.quantity or "rmse" in cell.quantity]
    assert errors == [0.0] * len(errors)
    assert len(errors) == 2 * 2 * len(SMOKE.horizons)
    worse = trajectories.score("plan", "half", truth / 2, truth, SMOKE)
    assert all(v == pytest.approx(0.5) for c, v in worse.items() if "relative_error" in c.quantity)


def test_a_plan_that_changes_nothing_has_no_relative_error():
    found = trajectories.score("plan", "some", np.ones((20, 14, 2)), np.zeros((20, 14, 2)), SMOKE)
    assert not any("relative" in cell.quantity or "rho" in cell.quantity for cell in found)


def test_a_network_is_rolled_on_what_it_drew(data, factual):
    """A network that says: visit today if and only if none yesterday. From then on visits alternate."""

    class Alternating:
        def logits(self, outcome, features, actions):
            yesterday = features[:, data.visible.labels.index("visit_lag1")]
            return np.where(yesterday > 0, -50.0, 50.0) if outcome == OUTCOMES.index("visit") else -50.0 + 0 * yesterday

    start = data.days[2].start
    found = trajectories.rolled(Alternating(), data, factual, start, draws=2, seed=0)
    last = data.sim.outcomes.visit[:, start - 1]
    expected = (np.arange(found.shape[1])[None] + last[:, None] + 1) % 2
    np.testing.assert_allclose(found[..., OUTCOMES.index("visit")], expected, atol=1e-12)
    np.testing.assert_allclose(found[..., OUTCOMES.index("purchase")], 0, atol=1e-12)
