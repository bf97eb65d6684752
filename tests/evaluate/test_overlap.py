"""Overlap on hand-made tables: what determines an action is named, and rows without a counterpart are marked."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score

from wmjax.core.errors import UserError
from wmjax.core.visible import Visible
from wmjax.evaluate import overlap, propensity
from wmjax.evaluate.overlap import OverlapConfig, OverlapReport, fit_overlap

ROWS = 4000
VISIBLE = Visible.pack(
    [
        ("dow", "softmax", tuple(f"dow_{d}" for d in range(7))),
        ("month", "bernoulli", tuple(f"month_{m}" for m in (1, 2, 3, 4))),
        ("loyal", "bernoulli", ("loyal",)),
        ("price", "gaussian", ("price",)),
    ]
)
LOYAL, PRICE = 11, 12


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    dow, month = np.arange(ROWS) % 7, np.arange(ROWS) * 4 // ROWS
    loyal = rng.integers(0, 2, ROWS)
    features = np.column_stack([np.eye(7)[dow], np.eye(4)[month], loyal, rng.normal(size=ROWS)]).astype(np.float32)
    return features, dow, month, loyal


def test_a_sale_on_sundays_is_named(table):
    features, dow = table[:2]
    report = fit_overlap("sale", features, (dow == 6).astype(int), kind="binary", visible=VISIBLE)
    assert report.deterministic
    assert report.reason == "sale is 1 exactly where dow=6"
    assert report.score > 0.999
    assert (report.ess, report.share_outside) == (0.0, 1.0)
    assert not report.supported(features, 0.0, 1.0).any()


def test_a_sale_in_two_months_and_one_on_all_days_but_one(table):
    features, dow, month, _ = table
    report = fit_overlap("sale", features, np.isin(month, (1, 3)).astype(int), kind="binary", visible=VISIBLE)
    assert report.reason == "sale is 1 exactly where month=2 or month=4"
    report = fit_overlap("open", features, (dow != 6).astype(int), kind="binary", visible=VISIBLE)
    assert report.reason == "open is 0 exactly where dow=6"


def test_thresholds_bits_several_columns_and_constants(table):
    features, dow, _, loyal = table
    price = features[:, PRICE]
    cut = np.sort(price)[3000]
    for action, words in (
        (price >= cut, f"x is 1 exactly where price is at least {cut:.4g}"),
        (loyal == 1, "x is 1 exactly where loyal is 1"),
        ((loyal == 1) ^ (dow == 6), "x is a function of "),
        (np.ones(ROWS), "x is 1 in every row"),
    ):
        report = fit_overlap("x", features, action.astype(np.float64), kind="binary", visible=VISIBLE)
        assert report.deterministic
        assert report.reason.startswith(words)
    both = fit_overlap("x", features, ((loyal == 1) ^ (dow == 6)).astype(int), kind="binary", visible=VISIBLE)
    assert set(both.reason.removeprefix("x is a function of ").split(" and ")) == {"loyal", "dow_6"}


def test_a_coin_is_supported_everywhere(table):
    """Propensity 0.3 by a coin: the AUC of 4,000 rows has a standard error of 0.010, five of them allowed."""
    features, rng = table[0], np.random.default_rng(1)
    action = (rng.random(ROWS) < 0.3).astype(int)
    report = fit_overlap("push", features, action, kind="binary", visible=VISIBLE)
    assert abs(report.score - 0.5) < 0.05
    assert not report.deterministic
    assert report.reason == ""
    assert report.supported(features, 0.0, 1.0).all()
    # Kish's size for weights 1/0.3 on 0.3 and 1/0.7 on 0.7 of the rows: 4 / (1/0.3 + 1/0.7) = 0.84.
    assert report.ess == pytest.approx(0.84 * ROWS, rel=0.05)
    assert report.supported(features, 0, 0.5).sum() == 0, "a value that was never seen is like nobody's"


def test_a_region_without_the_action_is_marked_and_told(table):
    """Loyal customers never got the coupon; the others got it by a coin."""
    features, loyal, rng = table[0], table[3], np.random.default_rng(1)
    action = ((rng.random(ROWS) < 0.4) & (loyal == 0)).astype(int)
    report = fit_overlap("coupon", features, action, kind="binary", visible=VISIBLE)
    assert not report.deterministic
    np.testing.assert_array_equal(report.supported(features, 0.0, 1.0), loyal == 0)
    assert report.reason == f"coupon is never 1 where loyal is 1 ({loyal.sum():,} rows)"
    assert report.share_outside == pytest.approx(loyal.mean())
    assert report.ess == pytest.approx(4 / (1 / 0.4 + 1 / 0.6) * (loyal == 0).sum(), rel=0.05)


def test_a_rare_action_by_a_coin_has_overlap(table):
    """One row in fifty, at random: below `least`, but every row's like got it."""
    features, rng = table[0], np.random.default_rng(1)
    action = (rng.random(ROWS) < 0.02).astype(int)
    # Thirteen columns guess at eighty treated rows; a strong penalty keeps the guesses near the truth.
    report = fit_overlap("tv", features, action, kind="binary", visible=VISIBLE, cfg=OverlapConfig(penalty=100.0))
    assert report.least(1) == pytest.approx(0.2 * action.mean())
    assert report.least(0) == 0.02
    assert report.supported(features, 0.0, 1.0).all()


def test_a_steep_propensity_leaves_the_ends_unsupported(table):
    features, rng = table[0], np.random.default_rng(1)
    price = features[:, PRICE]
    p = 1 / (1 + np.exp(-4 * price))
    action = (rng.random(ROWS) < p).astype(int)
    report = fit_overlap("x", features, action, kind="binary", visible=VISIBLE)
    found = report.propensity(features)
    assert np.abs(found - p).mean() < 0.02
    expected = (p >= 0.02) & (p <= 0.98)
    assert (report.supported(features, 0.0, 1.0) == expected).mean() > 0.97
    assert "price tells most about x" in report.reason
    assert report.score == pytest.approx(roc_auc_score(action, price), abs=0.01)


def test_real_actions(table):
    """A price cut that follows the listed price, but for noise of sd 0.5: like rows are those of like price."""
    (features, dow, month, _), rng = table, np.random.default_rng(1)
    price = features[:, PRICE]
    discount = 2.0 * price + rng.normal(0, 0.5, ROWS)
    report = fit_overlap("discount", features, discount, kind="continuous", visible=VISIBLE)
    assert report.score == pytest.approx(4 / 4.25, abs=0.02)
    at_zero = report.supported(features, 0.0, 0.2)
    assert at_zero[np.abs(price) < 0.2].all()
    assert not at_zero[np.abs(price) > 1.0].any()
    with pytest.raises(UserError, match="not binary"):
        report.propensity(features)
    coin = fit_overlap("spend", features, rng.exponential(size=ROWS), kind="currency", visible=VISIBLE)
    assert coin.supported(features, 0.5, 1.0).all()
    assert not coin.supported(features, 0.5, 40.0).any()
    assert abs(coin.score) < 0.03
    levels = fit_overlap("level", features, np.r_[0.0, 0.1, 0.3][rng.integers(0, 3, ROWS)], kind="continuous")
    assert levels.supported(features, 0.0, 0.3).all()
    assert not levels.supported(features, 0.0, 0.2).any(), "no row was ever at 0.2"
    assert levels.ess == pytest.approx(ROWS, rel=0.05), "of a coin every row counts, also those at the third level"
    follows = np.where(rng.random(ROWS) < 0.95, price > 0, price <= 0) * 10.0 + rng.random(ROWS)
    steered = fit_overlap("spend", features, follows, kind="currency", visible=VISIBLE)
    assert steered.supported(features, *overlap.typical_contrast(follows, kind="currency")).mean() > 0.8
    assert 0 < steered.ess < coin.ess / 2, "the one in twenty who went the other way stand for all"

    for action, words in (
        (np.array([5.0, 1.0, 2.0, 0.5])[month], "discount is a function of month"),
        (3 * price - 1, "discount moves in step with price"),
        (3 * price - 1 + np.where(dow == 6, 0.5, 0), "discount is predicted almost without error (R2 1.0000), most by"),
        (np.full(ROWS, 2.5), "discount is 2.5 in every row"),
    ):
        report = fit_overlap("discount", features, action, kind="continuous", visible=VISIBLE)
        assert report.deterministic
        assert report.reason.startswith(words)
        assert not report.supported(features, 0.0, 1.0).any()


def test_one_row_does_not_speak_for_its_bin(table):
    """A level of one in 20,000 rows, in a bin of 1,000: it is supported nowhere."""
    features, rng = np.tile(table[0], (5, 1)), np.random.default_rng(1)
    level = rng.integers(1, 4, len(features)).astype(np.float64)
    level[[5, 2005]] = (0.0, 4.0)
    report = fit_overlap("level", features, level, kind="count", visible=VISIBLE)
    assert report.supported(features, 1.0, 3.0).all()
    for rare in (0.0, 4.0):
        assert (report.share_like(features, rare) == 0).all()
        assert not report.supported(features, 1.0, rare).any()


def test_a_report_survives_json(table):
    features, loyal, rng = table[0], table[3], np.random.default_rng(1)
    for kind, action in (
        ("binary", ((rng.random(ROWS) < 0.4) & (loyal == 0)).astype(int)),
        ("continuous", rng.normal(size=ROWS) + features[:, PRICE]),
        ("binary", np.zeros(ROWS)),
    ):
        report = fit_overlap("x", features, action, kind=kind, visible=VISIBLE, cfg=OverlapConfig(rows=3000))
        again = OverlapReport.from_json(json.loads(json.dumps(report.to_json(), allow_nan=False)))
        np.testing.assert_array_equal(again.supported(features, 0.0, 1.0), report.supported(features, 0.0, 1.0))
        assert json.dumps(again.to_json()) == json.dumps(report.to_json())
        assert overlap.overlap_table({"x": again}).equals(overlap.overlap_table({"x": report}))


def test_a_sample_of_the_rows_says_the_same(table):
    features, loyal, rng = table[0], table[3], np.random.default_rng(1)
    action = (rng.random(ROWS) < 0.2 + 0.5 * loyal).astype(int)
    whole, part = (
        fit_overlap("x", features, action, kind="binary", visible=VISIBLE, cfg=OverlapConfig(rows=n))
        for n in (ROWS, 2000)
    )
    assert part.ess == pytest.approx(whole.ess, rel=0.2)
    assert np.abs(part.propensity(features) - whole.propensity(features)).mean() < 0.05


def test_tables_that_cannot_be_judged_are_refused(table):
    features = table[0]
    with pytest.raises(UserError, match="declared binary but holds 2"):
        fit_overlap("x", features, np.arange(ROWS) % 3, kind="binary")
    with pytest.raises(UserError, match="1 of 4000 values are missing"):
        fit_overlap("x", features, np.where(np.arange(ROWS) == 3, np.nan, 1.0), kind="continuous")
    with pytest.raises(ValueError, match=r"least is 0\.7"):
        replace(OverlapConfig(), least=0.7)


def test_the_typical_contrast_is_of_values_that_were_seen():
    """A price of 3 that is cut in one row of five is not asked at 0, where nobody sold; spend mostly 0 is."""
    seldom = np.tile([3.0, 3.0, 3.0, 3.0, 2.5], 20)
    assert overlap.typical_contrast(seldom, kind="currency") == (2.5, 3.0)
    spend = np.tile([0.0] * 16 + [7.0, 1.0, 2.0], 20)
    assert overlap.typical_contrast(spend, kind="currency") == (0.0, 2.0)
    assert overlap.typical_contrast(np.where(spend > 0, spend, -1), kind="continuous") == (-1.0, 7.0)
    assert overlap.typical_contrast(np.arange(12) % 4, kind="count") == (0.0, 2.0)
    assert overlap.typical_contrast(spend > 1, kind="binary") == (0.0, 1.0)
    assert overlap.typical_contrast(np.zeros(4), kind="currency") == (0.0, 0.0)


def test_standardised_mean_differences(table):
    features, loyal, rng = table[0], table[3], np.random.default_rng(1)
    action = rng.random(ROWS) < 0.2 + 0.5 * loyal
    found = overlap.smd_table(features, action, VISIBLE.labels)
    assert found["column"][0] == "loyal"
    t, c = (features[side, LOYAL].astype(float) for side in (action, ~action))
    assert found["smd"][0] == pytest.approx((t.mean() - c.mean()) / np.sqrt((t.var() + c.var()) / 2))
    with pytest.raises(UserError, match="4000 treated, 0 control"):
        overlap.smd_table(features, np.ones(ROWS), VISIBLE.labels)


def test_regressions_agree_with_scikit_learn(table):
    features, rng = table[0], np.random.default_rng(1)
    x = features[:, [0, 1, LOYAL, PRICE]]
    x = (x - x.mean(0)) / x.std(0)
    y = (rng.random(ROWS) < 1 / (1 + np.exp(-(x @ [1.0, -0.5, 0.3, 2.0] - 1)))).astype(float)
    for penalty in (0.1, 50.0):
        found = propensity.fit_logistic(x, y, penalty=penalty)
        other = LogisticRegression(C=1 / penalty, tol=1e-8).fit(x, y)
        np.testing.assert_allclose(found.coefficients, other.coef_[0], atol=2e-3)
        assert found.intercept == pytest.approx(other.intercept_[0], abs=2e-3)
        real = propensity.fit_ridge(x, y, penalty=penalty)
        np.testing.assert_allclose(real.coefficients, Ridge(alpha=penalty).fit(x, y).coef_, atol=1e-5)
    # Separable: the penalty keeps it finite. A column that never varies gets no weight.
    apart = propensity.fit_logistic(np.column_stack([x, np.ones(ROWS)]), (x[:, 3] > 0).astype(float))
    assert np.isfinite(apart.coefficients).all()
    assert apart.coefficients[-1] == 0.0
    assert ((propensity.linear(apart, np.column_stack([x, np.ones(ROWS)])) > 0) == (x[:, 3] > 0)).mean() > 0.995
