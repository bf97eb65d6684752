"""Bounds of effects on probabilities against a sampler, their symmetries, and what they say beside the log odds."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from wmjax.worlds.consumer.intervals import bounds, response_bounds

BINARY = np.array([True])


def asked(first, tau, alpha=0.1, more=0.0):
    """Bound the effect of rows `[members, rows]` of one binary outcome."""
    linear, base = tau[..., None], first[..., None]
    response = expit(base + linear) - expit(base)
    ends = bounds(linear, alpha, more)
    lo, hi = response_bounds(linear, response, base, ends, binary=BINARY, alpha=alpha)
    return lo[:, 0], hi[:, 0], response.mean(0)[:, 0], [end[:, 0] for end in ends]


@pytest.mark.parametrize(
    ("level", "effect", "sd_base", "sd"), [(-4.0, 1.0, 0.1, 0.5), (0.0, 0.5, 0.1, 0.3), (2.0, -1.5, 0.2, 0.4)]
)
def test_many_members_bound_what_a_sampler_does(level, effect, sd_base, sd):
    rng = np.random.default_rng(0)
    first, tau = level + sd_base * rng.normal(size=(20_000, 1)), effect + sd * rng.normal(size=(20_000, 1))
    lo, hi, _, _ = asked(first, tau)
    drawn = np.quantile((expit(first + tau) - expit(first))[:, 0], [0.05, 0.95])
    width = drawn[1] - drawn[0]
    np.testing.assert_allclose([lo[0], hi[0]], drawn, atol=0.05 * width)


def test_small_spreads_give_the_symmetric_bounds():
    rng = np.random.default_rng(1)
    first, tau = -1 + 0.001 * rng.normal(size=(8, 50)), 0.7 + 0.01 * rng.normal(size=(8, 50))
    lo, hi, mean, _ = asked(first, tau)
    half = stats.t.ppf(0.95, 7) * (expit(first + tau) - expit(first)).std(0, ddof=1)
    # The spread of the base enters by itself and not with the effect's: a part of .1 here.
    np.testing.assert_allclose(hi - mean, half, rtol=0.1)
    np.testing.assert_allclose(mean - lo, half, rtol=0.1)


def test_a_clear_effect_on_the_log_odds_is_one_on_the_chance():
    rng = np.random.default_rng(2)
    first = rng.uniform(-5, 3, (1, 400)) + 0.1 * rng.normal(size=(4, 400))
    tau = rng.normal(0, 1, (1, 400)) + 0.3 * rng.normal(size=(4, 400))
    lo, hi, mean, (low, high) = asked(first, tau, more=0.2)
    clear = (low > 0) | (high < 0)
    assert 100 < clear.sum() < 350
    assert np.mean(((lo > 0) | (hi < 0))[clear]) > 0.99
    assert not ((lo > 0) | (hi < 0))[~clear].any()
    assert np.all((lo <= mean) & (mean <= hi))
    assert np.all(np.abs([lo, hi]) <= 1)


def test_the_way_back_is_the_same_effect_with_the_other_sign():
    rng = np.random.default_rng(3)
    first, tau = rng.normal(-2, 0.2, (4, 30)), rng.normal(1, 0.4, (4, 30))
    lo, hi, _, _ = asked(first, tau)
    back = asked(first + tau, -tau)
    np.testing.assert_allclose(back[0], -hi, atol=1e-12)
    np.testing.assert_allclose(back[1], -lo, atol=1e-12)


def test_one_member_has_no_bounds_and_other_outcomes_keep_theirs():
    linear = np.ones((2, 3, 1)) * [[[1.0]], [[3.0]]]
    ends = bounds(linear, 0.1)
    lo, hi = response_bounds(linear, linear, np.zeros_like(linear), ends, binary=~BINARY, alpha=0.1)
    np.testing.assert_array_equal([lo, hi], ends)
    assert np.isnan(asked(np.zeros((1, 3)), np.ones((1, 3)))[0]).all()
