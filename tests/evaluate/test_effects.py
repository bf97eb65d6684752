"""Scores of effects: against enumeration for the uplift curves, and recovery where the truth is known."""

import itertools

import numpy as np
import pytest

from wmjax.core.errors import UserError
from wmjax.evaluate import effects


def test_errors_against_a_truth():
    truth, found = np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 5.0])
    assert effects.pehe(found, truth) == pytest.approx(np.sqrt(5 / 3))
    assert effects.ate_error(found, truth) == pytest.approx(1 / 3)


def test_deciles_of_effects():
    found = np.r_[np.zeros(50), np.arange(50)]
    table = effects.effect_deciles(found, 2 * found + 1)
    assert table["n"].tolist() == [51, 9, 10, 10, 10, 10]
    np.testing.assert_allclose(table["truth"], 2 * table["estimated"] + 1)
    assert table["estimated"].is_monotonic_increasing


def by_hand(order, outcomes, actions, e):
    """Area under one order's curve, by the trapezoid rule, row by row."""
    n, total, area = len(order), 0.0, 0.0
    for i in order:
        step = outcomes[i] / e[i] if actions[i] else -outcomes[i] / (1 - e[i])
        area += (total + (total + step)) / 2 / n
        total += step
    return area / n, total / n


def test_tied_scores_earn_what_a_random_order_earns():
    """All orders that the scores allow, enumerated: 3! x 2! x 1!."""
    scores = np.array([0.5, 0.2, 0.5, 0.9, 0.5, 0.2])
    outcomes, actions = np.array([1.0, 0, 3, 1, 0, 2]), np.array([1, 0, 0, 1, 1, 0])
    e = np.array([0.5, 0.4, 0.25, 0.5, 0.6, 0.5])
    areas = []
    for order in itertools.permutations(range(6)):
        ordered = scores[list(order)]
        if (np.diff(ordered) <= 0).all():
            areas.append(by_hand(order, outcomes, actions, e))
    assert len(areas) == 12
    found = effects.uplift_score(scores, outcomes, actions, propensity=e)
    auuc, gain = np.mean(areas, axis=0)
    assert found.auuc == pytest.approx(auuc)
    assert found.qini == pytest.approx(auuc - gain / 2)
    assert found.tied == pytest.approx(5 / 6)


def test_a_constant_score_is_a_random_order():
    rng = np.random.default_rng(0)
    y, a = rng.random(40), np.arange(40) % 2
    found = effects.uplift_score(np.zeros(40), y, a)
    assert found.qini == pytest.approx(0.0, abs=1e-12)
    assert found.auuc == pytest.approx((y[a == 1].mean() - y[a == 0].mean()) / 2)


def test_true_effects_earn_more_than_noise_and_than_their_opposite():
    """Effects uniform on (-0.2, 0.6): the population's Qini is `range/12 = 0.067`.

    Its standard error at 40,000 rows is about 0.006: a Qini below 0.03 is six of them away, as is noise above 0.03.
    """
    rng = np.random.default_rng(0)
    tau = rng.uniform(-0.2, 0.6, 40_000)
    a = (rng.random(40_000) < 0.25).astype(int)
    y = (rng.random(40_000) < 0.3 + a * tau).astype(float)
    qini = [effects.uplift_score(s, y, a, propensity=0.25).qini for s in (tau, rng.random(40_000), -tau)]
    assert qini[0] == pytest.approx(0.8 / 12, abs=0.037)
    assert abs(qini[1]) < 0.03
    assert qini[2] == pytest.approx(-qini[0])


@pytest.mark.parametrize(
    ("actions", "propensity", "word"),
    [([1, 1, 1], 0.5, "both seen"), ([0, 1, 2], 0.5, "both seen"), ([0, 1, 1], 1.0, "must lie in")],
)
def test_what_is_not_randomised_is_refused(actions, propensity, word):
    with pytest.raises(UserError, match=word):
        effects.uplift_curve(np.zeros(3), np.zeros(3), np.array(actions), propensity=propensity)
