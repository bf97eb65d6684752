"""Intervals over units: they know that rows of a unit are alike, and hold the truth as often as they say."""

import jax
import numpy as np
import pytest

from wmjax.core.errors import UserError
from wmjax.evaluate.bootstrap import cluster_bootstrap


def test_draws_keep_units_whole():
    units = np.array([3, 1, 3, 2, 1, 3])
    seen = []

    def statistic(u, v):
        seen.append((u, v))
        return float(v.mean())

    cluster_bootstrap(jax.random.key(0), statistic, units, units, np.arange(6.0)[:, None], draws=50)
    assert len({tuple(u) for u, _ in seen}) > 10
    for u, v in seen:
        np.testing.assert_array_equal(u, units[v[:, 0].astype(int)])
        for unit, size in ((1, 2), (2, 1), (3, 3)):
            assert np.sum(u == unit) % size == 0


def test_rows_of_a_unit_count_once():
    """30 units of 40 equal rows: the standard error is that of 30 numbers, within 5 sd of a 400-draw estimate of it."""
    rng = np.random.default_rng(0)
    level = rng.normal(size=30)
    units, y = np.repeat(np.arange(30), 40), np.repeat(level, 40)
    found = cluster_bootstrap(jax.random.key(1), np.mean, units, y, draws=400)
    expected = level.std() / np.sqrt(30)
    assert found.sd == pytest.approx(expected, rel=5 / np.sqrt(800))
    assert found.value == pytest.approx(y.mean())
    assert found.lo < found.value < found.hi


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Coverage of a nominal 90 % over 150 tables of 60 units.

    A percentile interval of 60 units and 60 draws covers about 88 % (132 +- 4); 112 is five standard deviations below.
    """
    rng = np.random.default_rng(0)
    held = 0
    for i in range(150):
        sizes = rng.integers(1, 6, 60)
        y = np.repeat(rng.normal(size=60), sizes) + rng.normal(size=sizes.sum())
        found = cluster_bootstrap(jax.random.key(i), np.mean, np.repeat(np.arange(60), sizes), y, draws=60)
        held += found.lo <= 0 <= found.hi
    assert 112 < held < 149


def test_a_statistic_that_is_often_undefined_has_no_interval():
    y = np.array([1.0, 0, 0, 0])
    found = cluster_bootstrap(
        jax.random.key(0), lambda v: float("nan") if v.sum() == 0 else float(v.mean()), np.arange(4), y
    )
    assert np.isnan([found.lo, found.hi, found.sd]).all()
    assert found.value == 0.25


def test_wrong_tables_are_refused():
    with pytest.raises(UserError, match="at least two units"):
        cluster_bootstrap(jax.random.key(0), np.mean, np.zeros(5), np.zeros(5))
    with pytest.raises(UserError, match="has 5 rows, a column has 4"):
        cluster_bootstrap(jax.random.key(0), np.mean, np.zeros(5), np.zeros(4))
