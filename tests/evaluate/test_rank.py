"""Rank correlations against scipy, and what ties, classes and third variables do to them."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from wmjax.evaluate import rank

FEW = arrays.arrays(np.int8, 30, elements=st.integers(0, 4))


@settings(max_examples=60, deadline=None)
@given(x=FEW, y=FEW)
def test_spearman_with_ties(x, y):
    found = rank.spearman(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_broken_ties_take_away_what_ties_gave():
    """Two classes that the prediction tells apart exactly, with a truth that varies within them."""
    rng = np.random.default_rng(0)
    label = rng.random(2000) < 0.3
    truth = label * 0.6 + rng.normal(0, 0.15, 2000)
    kept = rank.spearman(label.astype(float), truth)
    broken = rank.spearman_tie_broken(jax.random.key(0), label.astype(float), truth)
    assert kept - broken > 0.1
    # Noise small beside the gap breaks the ties too; 10 draws leave a standard error of about 0.004.
    noisy = np.mean([rank.spearman(label + 1e-3 * rng.normal(size=2000), truth) for _ in range(10)])
    assert broken == pytest.approx(noisy, abs=0.03)
    distinct = rng.permutation(2000)
    assert rank.spearman_tie_broken(jax.random.key(0), distinct, truth) == pytest.approx(rank.spearman(distinct, truth))
    assert np.isnan(rank.spearman_tie_broken(jax.random.key(0), np.ones(5), np.arange(5)))
    again = rank.spearman_tie_broken(jax.random.key(0), label.astype(float), truth)
    assert again == broken


def test_within_classes():
    x = np.array([1, 2, 3, 9, 8, 7, 5, 5])
    y = np.array([1, 2, 3, 1, 2, 3, 4, 1])
    table = rank.spearman_within(x, y, np.array(list("aaabbbcc"))).set_index("class")
    assert table.loc["a", "rho"] == pytest.approx(1.0)
    assert table.loc["b", "rho"] == pytest.approx(-1.0)
    assert np.isnan(table.loc["c", "rho"])
    assert table.loc["all", "rho"] == pytest.approx(0.0, abs=1e-12)
    assert table.loc["all", "n"] == 8


def test_partial_spearman():
    rng = np.random.default_rng(1)
    z = rng.normal(size=400)
    x, y = z + rng.normal(size=400), z + rng.normal(size=400)
    xy, xz, yz = (stats.spearmanr(*pair).statistic for pair in ((x, y), (x, z), (y, z)))
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert rank.spearman_partial(x, y, z) == pytest.approx(expected, abs=1e-12)
    assert rank.spearman_partial(x, y, z[:, None]) == pytest.approx(expected, abs=1e-12)
    assert abs(expected) < 0.25 < xy, "the case separates the two"
    assert np.isnan(rank.spearman_partial(z, y, z))
    two = np.column_stack([z, rng.normal(size=400)])
    ranks = np.column_stack([np.ones(400), *map(stats.rankdata, two.T)])
    left = [stats.rankdata(v) - ranks @ np.linalg.pinv(ranks) @ stats.rankdata(v) for v in (x, y)]
    assert rank.spearman_partial(x, y, two) == pytest.approx(np.corrcoef(*left)[0, 1], abs=1e-9)
