"""Errors of covariates: two-stage least squares written out, known truth, and what is left alone."""

import dataclasses

import numpy as np
import pytest

from wmjax.data.splits import Split
from wmjax.simulate import media as simulated
from wmjax.simulate.media import MediaSimConfig
from wmjax.worlds.media import fitting, prepare, proxies
from wmjax.worlds.media.config import MediaConfig
from wmjax.worlds.media.proxies import Seen

UNITS, TIME = 8, 90


def series(rng, shape):
    """Draw AR(1) series of standard deviation 1, half of their variance shared by all units."""
    found = np.zeros((2, *shape))
    for part, rows in ((0, 1), (1, shape[0])):
        x = rng.normal(size=rows)
        for t in range(shape[1]):
            x = 0.8 * x + 0.6 * rng.normal(size=rows)
            found[part, :, t] = x
    return found.sum(0) / np.sqrt(2)


def table(seed, noise, units=UNITS):
    """Give what is seen of demand that spend follows, and the outcome: spend's own effect is 0.5."""
    rng = np.random.default_rng(seed)
    demand = series(rng, (units, TIME))
    spend = np.exp(0.5 * demand + 0.35 * rng.normal(size=demand.shape))[..., None]
    exact = rng.normal(size=(units, TIME))
    proxy = demand + noise * rng.normal(size=demand.shape)
    outcome = 2 * demand + 0.5 * spend[..., 0] - exact + 0.3 * rng.normal(size=demand.shape)
    columns = np.stack([proxy, exact], -1)
    peers = np.broadcast_to(columns.mean(0), columns.shape) if units >= 5 else columns[..., :0]
    return Seen(columns, peers, np.zeros((units, TIME, 0)), spend, np.ones((units, TIME), bool)), outcome


def slope(seen, outcome, error=None):
    """Give the coefficient of spend by least squares within units, of rows whose lags are known."""
    x = [seen.spend, seen.columns] + ([] if error is None else [error])
    x, y = (v[:, 2:] - v[:, 2:].mean(1, keepdims=True) for v in (np.concatenate(x, -1), outcome[..., None]))
    return np.linalg.lstsq(x.reshape(-1, x.shape[-1]), y.ravel(), rcond=None)[0][0]


@pytest.mark.parametrize("units", [UNITS, 4])
def test_the_error_as_a_covariate_makes_two_stage_least_squares(units):
    """Both stages written out; of few units their mean is no instrument."""
    seen, outcome = table(0, 0.3, units)
    found = proxies.fit(seen, [0], np.ones(TIME, bool))
    np.testing.assert_array_equal(found.columns, [0])
    x = seen.columns[..., :1]
    stock = np.zeros_like(seen.spend)
    for t in range(TIME):
        stock[:, t] = 0.5 * (stock[:, t - 1] if t else seen.spend[:, 0]) + 0.5 * seen.spend[:, t]
    lags = [np.roll(x, lag, axis=1) for lag in (1, 2)]
    others = [(x.sum(0) - x) / (units - 1)] if units >= 5 else []
    exact = [seen.columns[..., 1:]] + ([np.broadcast_to(seen.columns[..., 1:].mean(0), x.shape)] if others else [])
    told = [seen.spend, np.log1p(seen.spend), stock, np.log1p(stock), *exact]

    def within(parts):
        v = np.concatenate(parts, -1)[:, 2:]
        return (v - v.mean(1, keepdims=True)).reshape(-1, v.shape[-1])

    z = within([*lags, *others, *told])
    # The second stage's own regressors have to be among the first stage's.
    second, noisy, y = within(told), within([x]), within([outcome[..., None]])
    fitted = z @ np.linalg.lstsq(z, noisy, rcond=None)[0]
    want = np.linalg.lstsq(np.concatenate([second, fitted], 1), y, rcond=None)[0][:, 0]
    error = within([proxies.tell(found, seen)])
    np.testing.assert_allclose(error, noisy - fitted, atol=1e-8)
    got = np.linalg.lstsq(np.concatenate([second, noisy, error], 1), y, rcond=None)[0][:, 0]
    np.testing.assert_allclose(got[:-1], want, atol=1e-8)


def test_the_error_of_a_proxy_no_longer_credits_spend():
    """The mean of forty panels is the truth, within 4 standard errors (a false alarm in 16,000); as measured it is far.

    Without any error both are the truth, by as many errors.
    """
    for noise in (0.6, 0.0):
        raw, mended = [], []
        for seed in range(40):
            seen, outcome = table(seed, noise)
            error = proxies.tell(proxies.fit(seen, [0], np.ones(TIME, bool)), seen)
            assert error.shape[-1] == 1
            raw.append(slope(seen, outcome))
            mended.append(slope(seen, outcome, error))
        (a, b), (c, d) = ((np.mean(v), np.std(v) / np.sqrt(40)) for v in (raw, mended))
        assert abs(c - 0.5) < 4 * d
        assert a - 0.5 > 20 * b if noise else abs(a - 0.5) < 4 * b


def test_what_is_new_every_week_and_what_rows_are_too_few_for_is_left_alone():
    seen, _ = table(1, 0.6)
    both = proxies.fit(seen, [0, 1], np.ones(TIME, bool))
    np.testing.assert_array_equal(both.columns, [0])
    assert both.strength[0] > 10
    np.testing.assert_array_equal(both.left, [1])
    few = proxies.fit(seen, [0], np.arange(TIME) < 6)
    assert not len(few.columns)
    assert proxies.tell(few, seen).shape == (UNITS, TIME, 0)
    np.testing.assert_array_equal(few.left, [0])
    constant = seen._replace(columns=np.ones_like(seen.columns))
    assert not len(proxies.fit(constant, [0, 1], np.ones(TIME, bool)).columns)


def test_rows_whose_lags_are_unknown_have_no_error_and_no_say():
    seen, _ = table(2, 0.6)
    mask = seen.mask.copy()
    mask[3, 40:42] = False
    gaps = seen._replace(mask=mask)
    spoilt = gaps._replace(columns=np.where(mask[..., None], seen.columns, np.nan))
    spoilt = spoilt._replace(peers=gaps.peers, spend=np.where(mask[..., None], seen.spend, np.nan))
    train = np.arange(TIME) < 70
    found = proxies.fit(spoilt, [0], train)
    error = proxies.tell(found, spoilt)
    assert np.isfinite(error).all()
    np.testing.assert_array_equal(error[3, 38:44, 0] == 0, [False, False, True, True, True, True])
    assert (error[:, :2] == 0).all()
    # Fitted on the train rows alone.
    later = spoilt._replace(columns=np.where((np.arange(TIME) < 70)[:, None], spoilt.columns, 9.0))
    np.testing.assert_array_equal(found.slopes, proxies.fit(later, [0], train).slopes)
    # Of units without a train row the level is the others' mean.
    absent = spoilt._replace(mask=mask & (np.arange(UNITS) != 5)[:, None])
    level = proxies.fit(absent, [0], train).level
    np.testing.assert_allclose(level[5], np.delete(level, 5, axis=0).mean(0))
    # Where no other unit was there, peers tell nothing.
    alone = mask & ((np.arange(TIME) != 50) | (np.arange(UNITS) == 1)[:, None])
    assert (proxies.tell(found, spoilt._replace(mask=alone))[:, 50] == 0).all()


@pytest.mark.parametrize(("future", "kind"), [("known", "continuous"), ("observed", "binary")])
def test_only_numbers_that_are_observed_when_they_happen_may_err(future, kind):
    panel = simulated.panel(simulated.simulate(0, MediaSimConfig(num_geos=6, num_weeks=80, num_channels=2)))
    train = np.ones(80, bool)
    assert prepare.fit_scales(panel, train, MediaConfig()).errors.columns.tolist() == [0]
    changed = lambda c: dataclasses.replace(c, future=future, kind=kind) if c.name == "demand_proxy" else c  # noqa: E731
    columns = tuple(changed(c) for c in panel.schema.columns)
    other = dataclasses.replace(panel, schema=dataclasses.replace(panel.schema, columns=columns))
    assert not len(prepare.fit_scales(other, train, MediaConfig()).errors.columns)
    off = prepare.fit_scales(panel, train, MediaConfig(errors_in_variables=False))
    assert not len(off.errors.columns)


def test_what_spend_has_a_part_in_does_not_explain_spend():
    """What a channel follows is told by covariates as they are measured: their errors hold the spend itself."""
    panel = simulated.panel(simulated.simulate(0, MediaSimConfig(num_geos=6, num_weeks=80, num_channels=2)))
    train = np.ones(80, bool)
    scales = prepare.fit_scales(panel, train, MediaConfig())
    series = prepare.series(panel, scales, MediaConfig())
    known = prepare.as_measured(series, scales)
    assert known.shape[-1] == series.covariates.shape[-1] - 1
    split = Split(train, *np.zeros((2, 80), bool))
    told = fitting.support(panel, scales, split, MediaConfig()).explained
    off = MediaConfig(errors_in_variables=False, peers=False)
    without = fitting.support(panel, prepare.fit_scales(panel, train, off), split, off).explained
    # Only the means over units of the other columns are told besides.
    np.testing.assert_allclose(told, without, atol=0.02)


def test_the_trend_stays_where_it_was_beyond_the_train_periods():
    panel = simulated.panel(
        simulated.simulate(0, MediaSimConfig(num_geos=2, num_weeks=60, num_channels=1, always_on=1))
    )
    scales = prepare.fit_scales(panel, np.arange(60) < 41, MediaConfig())
    trend = prepare.seen(panel, MediaConfig(), scales).shared[0, :, 0]
    np.testing.assert_allclose(trend, np.minimum(np.arange(60), 40) / 40 - 0.5)


def test_a_units_own_level_of_a_covariate_says_nothing():
    panel = simulated.panel(simulated.simulate(0, MediaSimConfig(num_geos=6, num_weeks=80, num_channels=2)))
    moved = panel.arrays.covariates + 64.0 * np.arange(6)[:, None, None].astype(np.float32)
    other = dataclasses.replace(panel, arrays=panel.arrays._replace(covariates=moved))
    train, cfg = np.arange(80) < 60, MediaConfig()
    a, b = (prepare.covariates(p, cfg, prepare.fit_scales(p, train, cfg)) for p in (panel, other))
    # Float32 tables of numbers of hundreds, rounded to 3e-5; slopes of the errors add up to a few dozens.
    np.testing.assert_allclose(a[..., 0], b[..., 0], atol=1e-4)
    np.testing.assert_allclose(a, b, atol=2e-3)


def test_many_useless_columns_do_not_hide_a_noisy_one():
    """More columns than the rows of one series allow: those without a past of their own go first."""
    seen, _ = table(3, 0.1, 1)
    spend = np.random.default_rng(0).exponential(size=seen.spend.shape)
    more = np.concatenate([np.random.default_rng(1).normal(size=(1, TIME, 20)), seen.columns[..., :1]], -1)
    found = proxies.fit(seen._replace(columns=more, peers=more[..., :0], spend=spend), range(21), np.ones(TIME, bool))
    assert 20 in found.columns
    assert set(found.left) | set(found.columns) == set(range(21))


@pytest.mark.parametrize("time", [12, 60])
def test_a_mean_taken_out_of_few_periods_is_no_instrument(time):
    """White noise of 400 units that were there for 12 periods each, in which demeaning alone ties each to the last."""
    shape = (400, time)
    start = np.arange(400)[:, None] % (time - 11)
    mask = (np.arange(time) >= start) & (np.arange(time) < start + 12)
    columns = np.random.default_rng(0).normal(size=shape) * mask
    columns = ((columns - columns.sum(1, keepdims=True) / 12) * mask)[..., None]
    peers = np.broadcast_to(columns.sum(0) / np.maximum(mask.sum(0), 1)[:, None], columns.shape)
    spend = np.random.default_rng(1).exponential(size=columns.shape)
    seen = Seen(columns, peers, np.zeros((*shape, 0)), spend, mask)
    np.testing.assert_array_equal(proxies.fit(seen, [0], np.ones(time, bool)).left, [0])


def test_what_is_exact_for_certain_is_neither_told_of_nor_left_as_it_may_be_noisy():
    """A column that never varies within units, and a copy of one that is known."""
    seen, _ = table(0, 0.3)
    level = np.broadcast_to(np.arange(UNITS)[:, None, None], (UNITS, TIME, 1)).astype(float)
    columns = np.concatenate([seen.columns, level, seen.columns[..., 1:]], -1)
    found = proxies.fit(
        seen._replace(columns=columns, peers=np.broadcast_to(columns.mean(0), columns.shape)),
        [0, 2, 3],
        np.ones(TIME, bool),
    )
    np.testing.assert_array_equal(found.columns, [0])
    np.testing.assert_array_equal(found.left, [])
