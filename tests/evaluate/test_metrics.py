"""Accuracy and calibration against scikit-learn, with ties and with what cannot be computed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as sk

from wmjax.core.errors import UserError
from wmjax.evaluate import metrics

BITS = arrays.arrays(np.int8, 25, elements=st.integers(0, 1))
SCORES = arrays.arrays(np.float64, 25, elements=st.sampled_from([0.1, 0.25, 0.5, 0.7, 0.95]))


@settings(max_examples=60, deadline=None)
@given(labels=BITS, p=SCORES)
def test_scores_with_ties(labels, p):
    if len(set(labels)) < 2:
        assert np.isnan(metrics.auc(labels, p))
    else:
        assert metrics.auc(labels, p) == pytest.approx(sk.roc_auc_score(labels, p), abs=1e-12)
    assert metrics.log_loss(labels, p) == pytest.approx(sk.log_loss(labels, p, labels=[0, 1]), rel=1e-12)
    assert metrics.brier(labels, p) == pytest.approx(np.mean((labels - p) ** 2))
    logits = np.log(p / (1 - p))
    assert metrics.log_loss_of_logits(labels, logits) == pytest.approx(metrics.log_loss(labels, p), rel=1e-9)
    for threshold in (0.1, 0.5, 0.96):
        found = metrics.classified(labels, p, threshold)
        assert found.accuracy == pytest.approx(sk.accuracy_score(labels, p >= threshold))
        if labels.any():
            assert found.f1 == pytest.approx(sk.f1_score(labels, p >= threshold, zero_division=0))
            assert found.recall == pytest.approx(sk.recall_score(labels, p >= threshold))


@settings(max_examples=40, deadline=None)
@given(labels=BITS, p=SCORES)
def test_the_best_threshold_is_the_best(labels, p):
    for by in ("f1", "accuracy"):
        for grid in (metrics.PAPER_GRID, None):
            candidates = np.unique(p) if grid is None else grid
            values = [np.nan_to_num(getattr(metrics.classified(labels, p, t), by)) for t in candidates]
            found = metrics.best_threshold(labels, p, by=by, grid=grid)
            assert found == candidates[int(np.argmax(values))]


def test_certain_predictions():
    labels = np.array([1, 0, 1])
    assert metrics.log_loss(labels, np.array([1.0, 0.0, 0.5])) == pytest.approx(np.log(2) / 3)
    assert metrics.log_loss(labels, np.array([1.0, 1.0, 0.5])) == np.inf
    assert metrics.log_loss_of_logits(labels, np.array([800.0, 800.0, 0.0])) == pytest.approx((800 + np.log(2)) / 3)
    assert np.isnan(metrics.classified(np.zeros(3), np.zeros(3), 0.5).f1)


def test_labels_that_are_not_binary_are_refused():
    with pytest.raises(UserError, match=r"1 of 3 are not, such as 2"):
        metrics.auc(np.array([0, 1, 2]), np.zeros(3))


def test_real_outcomes():
    rng = np.random.default_rng(0)
    y = rng.normal(size=50)
    m = y + rng.normal(size=50)
    assert metrics.r2(y, m) == pytest.approx(sk.r2_score(y, m))
    assert metrics.rmse(y, m) == pytest.approx(np.sqrt(sk.mean_squared_error(y, m)))
    assert np.isnan(metrics.r2(np.ones(5), rng.normal(size=5)))


def test_wilson_solves_its_equation_and_keeps_the_edges():
    """The ends are the shares p at which `|s/n - p| = z sqrt(p (1 - p) / n)`."""
    s, n, z = np.array([0.0, 3.0, 17.0, 20.0]), np.full(4, 20.0), 1.6448536269514722
    lo, hi = metrics.wilson(s, n, alpha=0.1)
    for end in (lo[1:3], hi[1:3]):
        np.testing.assert_allclose(np.abs(s[1:3] / 20 - end), z * np.sqrt(end * (1 - end) / 20), rtol=1e-9)
    assert lo[0] == 0.0
    assert hi[3] == 1.0
    assert 0 < hi[0] < 0.2
    assert np.isnan(metrics.wilson(np.zeros(1), np.zeros(1))).all()


def test_calibration_bins_hold_equal_counts_and_ties_share_a_bin():
    p = np.arange(100) / 100
    labels = (np.arange(100) % 4 == 0).astype(int)
    table = metrics.calibration_table(labels, p, bins=5)
    assert table["n"].tolist() == [20] * 5
    np.testing.assert_allclose(table["predicted"], [p[20 * i : 20 * i + 20].mean() for i in range(5)])
    np.testing.assert_allclose(table["observed"], 0.25)
    assert (table["lo"] < 0.25).all()
    assert (table["hi"] > 0.25).all()
    expected = np.abs(table["predicted"] - 0.25).mean()
    assert metrics.expected_calibration_error(labels, p, bins=5) == pytest.approx(expected)

    tied = np.r_[np.full(70, 0.2), np.full(30, 0.6)]
    table = metrics.calibration_table(labels, tied, bins=10)
    assert table["n"].tolist() == [70, 30]
    assert metrics.calibration_table(labels, np.full(100, 0.3))["n"].tolist() == [100]


def test_a_calibrated_forecast_has_the_error_of_chance_alone():
    """10 bins of 5,000 rows: the error's mean is about 0.0053 and its sd about 0.0013; 5 sd more is one in millions."""
    rng = np.random.default_rng(0)
    p = rng.uniform(size=50_000)
    labels = (rng.random(50_000) < p).astype(int)
    assert metrics.expected_calibration_error(labels, p) < 0.012
    assert metrics.expected_calibration_error(labels, np.clip(p + 0.05, 0, 1)) > 0.035
