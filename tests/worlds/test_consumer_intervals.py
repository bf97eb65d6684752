"""Bounds of effects on probabilities against a sampler, their symmetries, and what they say beside the log odds."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from wmjax.worlds.consumer.intervals import bounds, response_bounds

BINARY = np.array([True])


def asked(first, tau, alpha=0.1, more=0.0, at_first=True):
    """Bound the effect of rows `[members, rows]` of one binary outcome."""
    linear, base = tau[..., None], first[..., None]
    response = expit(base + linear) - expit(base)
    ends = bounds(linear, alpha, more)
    lo, hi = response_bounds(linear, response, base, ends, binary=BINARY, known_at_t0=at_first, alpha=alpha, more=more)
    return lo[:, 0], hi[:, 0], response.mean(0)[:, 0], [end[:, 0] for end in ends]


@pytest.mark.parametrize("level", [-4.0, 0.0, 2.0])
@pytest.mark.parametrize(
    ("sd_base", "sd", "together"), [(0.1, 0.4, 0.0), (0.3, 0.3, 0.8), (0.3, 0.3, -0.8), (0.5, 0.2, 0.0)]
)
def test_four_members_hold_the_truth_as_often_as_they_should(level, sd_base, sd, together):
    """Members around one fit, itself off by as much: 20,000 rows, standard error .002."""
    rng = np.random.default_rng(0)
    cov = [[sd_base**2, together * sd_base * sd], [together * sd_base * sd, sd**2]]
    off = rng.multivariate_normal([0, 0], cov, 20_000)
    drawn = rng.multivariate_normal([0, 0], cov, (4, 20_000)) + off
    lo, hi, _, _ = asked(level + drawn[..., 0], 0.8 + drawn[..., 1])
    true = expit(level + 0.8) - expit(level)
    # Of the log odds 88 % are held: the mean of the members strays a little beside the fit. Where the base is loose and
    # bends what four members say, .82.
    assert 0.81 < np.mean((lo <= true) & (true <= hi)) < 0.93


def test_the_sides_are_those_of_the_log_odds_and_the_width_that_of_the_chance():
    rng = np.random.default_rng(1)
    first, tau = -4 + 0.01 * rng.normal(size=(8, 50)), 0.7 + 0.5 * rng.normal(size=(8, 50))
    lo, hi, mean, (low, high) = asked(first, tau)
    response = expit(first + tau) - expit(first)
    np.testing.assert_allclose(hi - lo, 2 * stats.t.ppf(0.95, 7) * response.std(0, ddof=1))
    start = first.mean(0)
    ends = [expit(start + x) - expit(start) for x in (low, tau.mean(0), high)]
    np.testing.assert_allclose((mean - lo) / (hi - lo), (ends[1] - ends[0]) / (ends[2] - ends[0]))
    # Small spreads are symmetric.
    lo, hi, mean, _ = asked(first, 0.7 + 0.001 * rng.normal(size=(8, 50)))
    np.testing.assert_allclose(hi - mean, mean - lo, rtol=0.02)


def test_what_units_differ_by_widens_a_row():
    first, tau = np.full((4, 1), -1.0), np.array([[0.5], [0.6], [0.7], [0.8]])
    lo, hi, _, _ = asked(first, tau)
    wide = asked(first, tau, more=0.3)
    slope = np.mean(expit(first + tau) * expit(-first - tau))
    half = np.hypot((hi - lo) / 2, stats.norm.ppf(0.95) * 0.3 * slope)
    np.testing.assert_allclose((wide[1] - wide[0]) / 2, half)


def test_no_two_chances_differ_by_more_than_one():
    rng = np.random.default_rng(2)
    lo, hi, _, _ = asked(rng.normal(size=(2, 500)), rng.normal(size=(2, 500)), alpha=0.05)
    assert np.abs([lo, hi]).max() == 1


def test_a_clear_effect_on_the_log_odds_is_one_on_the_chance():
    rng = np.random.default_rng(2)
    first = rng.uniform(-5, 3, (1, 400)) + 0.1 * rng.normal(size=(4, 400))
    tau = rng.normal(0, 1, (1, 400)) + 0.3 * rng.normal(size=(4, 400))
    lo, hi, mean, (low, high) = asked(first, tau, more=0.2)
    clear = (low > 0) | (high < 0)
    said = (lo > 0) | (hi < 0)
    assert 100 < clear.sum() < 350
    assert np.mean(said[clear]) > 0.93
    assert np.mean(said[~clear]) < 0.06
    assert np.all((lo <= mean) & (mean <= hi))


def test_the_way_back_is_the_same_effect_with_the_other_sign():
    rng = np.random.default_rng(3)
    first, tau = rng.normal(-2, 0.2, (4, 30)), rng.normal(1, 0.4, (4, 30))
    lo, hi, _, _ = asked(first, tau)
    back = asked(first + tau, -tau, at_first=False)
    np.testing.assert_allclose(back[0], -hi, atol=1e-12)
    np.testing.assert_allclose(back[1], -lo, atol=1e-12)


def test_one_member_has_no_bounds_and_other_outcomes_keep_theirs():
    linear = np.ones((2, 3, 1)) * [[[1.0]], [[3.0]]]
    ends = bounds(linear, 0.1)
    lo, hi = response_bounds(linear, linear, np.zeros_like(linear), ends, binary=~BINARY, known_at_t0=True, alpha=0.1)
    np.testing.assert_array_equal([lo, hi], ends)
    assert np.isnan(asked(np.zeros((1, 3)), np.ones((1, 3)))[0]).all()
