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
    a, b, c = trajectories.true_outcomes(data, [factual, factual, daily], start, chances=3, seed=1)
    np.testing.assert_array_equal(a, b)
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
