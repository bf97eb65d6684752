"""The regression that additive adapters start from, against scikit-learn's, and the prior of their effects."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from wmjax.heads import adapter, ensemble, learn, warm
from wmjax.heads.adapter import AdapterConfig
from wmjax.heads.learn import AdapterData
from wmjax.heads.warm import Cells

ROWS, MEMBERS = 400, 2
CELLS = Cells(*jnp.divmod(jnp.arange(ROWS), 8), 50, 8)


@pytest.fixture(scope="module")
def data():
    """Features of each member's own, two actions of which the second is rare, a binary and a real outcome."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(MEMBERS, ROWS, 3))
    a = np.stack([rng.normal(size=ROWS), rng.random(ROWS) < 0.05], axis=1)
    eta = x[0] @ [0.5, -0.3, 0.0] + a @ [-0.8, 1.5] - 1
    y = np.stack([rng.random(ROWS) < 1 / (1 + np.exp(-eta)), eta + rng.normal(size=ROWS)])
    parts = [jnp.asarray(v, jnp.float32) for v in (x, a, y, rng.exponential(size=(1, MEMBERS, ROWS)))]
    return AdapterData(*parts)


def test_coefficients_are_those_of_scikit_learn(data):
    found = warm.regress(data, CELLS, ("binary", "continuous"), ridge=2.0)
    assert found.effects.shape == (2, MEMBERS, 2)
    np.testing.assert_allclose(found.noise[0], 0.5)
    for m in range(MEMBERS):
        design, weights = np.concatenate([data.features[m], data.actions], axis=1), np.asarray(data.weights[0, m])
        logistic = LogisticRegression(C=0.5, tol=1e-8, max_iter=1000).fit(design, data.labels[0], sample_weight=weights)
        np.testing.assert_allclose(found.effects[0, m], logistic.coef_[0, 3:], atol=2e-3)
        ridge = Ridge(alpha=2.0).fit(design, data.labels[1], sample_weight=weights)
        np.testing.assert_allclose(found.effects[1, m], ridge.coef_[3:], atol=2e-3)
        left = np.average((data.labels[1] - ridge.predict(design)) ** 2, weights=weights)
        np.testing.assert_allclose(found.noise[1, m], left, rtol=1e-3)
        spread = np.cov(data.features[m].T, aweights=weights, ddof=0).trace()
        np.testing.assert_allclose(found.spread[m], spread, rtol=1e-4)


@pytest.mark.parametrize(("rate", "effect"), [(1e-3, 2.0), (1e-4, 1.0), (0.999, -2.0)])
def test_what_is_rare_has_its_whole_effect(rate, effect):
    """Two cells of a saturated model, whose maximum is the difference of their log odds."""
    base = np.log(rate / (1 - rate))
    chance = 1 / (1 + np.exp(-np.array([base, base + effect])))
    weights = np.stack([1 - chance, chance]) * 1e6  # of the rows (label 0 or 1, action 0 or 1)
    labels, actions = np.repeat([0.0, 1.0], 2), np.tile([0.0, 1.0], 2)
    parts = [np.zeros((1, 4, 1)), actions[:, None], labels[None], weights.reshape(1, 1, 4)]
    table = AdapterData(*(jnp.asarray(x, jnp.float32) for x in parts))
    found = warm.regress(table, Cells(jnp.arange(4), jnp.arange(4), 4, 4), ("binary",), ridge=1e-3)
    np.testing.assert_allclose(found.effects, effect, atol=0.02)


def test_adapters_start_with_these_effects_whoever_is_asked(data):
    cfg = AdapterConfig(form="additive", hidden=(4,))
    start = warm.pool([warm.regress(data, CELLS, ("binary", "continuous"))])
    states = ensemble.init(jax.random.key(0), cfg=cfg, num_features=3, num_actions=2, outcomes=2, members=MEMBERS)
    states = warm.begin(states, start, data, cfg=cfg)
    own = jax.tree.map(lambda x: x[1 * MEMBERS + 1], states.params)  # the second outcome's second member
    one = jnp.ones(ROWS)
    got = adapter.effect(own, data.features[1], 1, 0 * one, one, data.actions, cfg=cfg)
    np.testing.assert_allclose(got, start.effects[1, 1, 1], rtol=1e-5)
    # A loss is a mean over rows, and of squares: half a log density where the noise is one.
    pull = 2 * start.noise[1, 1] / warm.slope_variance(start, 0.1)[1, 1] / data.weights[0, 1].sum()
    np.testing.assert_allclose(states.pull[1 * MEMBERS + 1], pull, rtol=1e-5)
    draws = jax.random.normal(jax.random.key(9), (MEMBERS, 2, 3, 2))
    moved = warm.begin(states, start, data, cfg=cfg, draws=draws)
    sd = np.sqrt(warm.slope_variance(start, 0.1)[1, 1])
    np.testing.assert_allclose(moved.centre[1 * MEMBERS + 1], draws[1, 1] * sd, rtol=1e-5)
    np.testing.assert_array_equal(states.centre, 0)
    free = warm.begin(states, start, data, cfg=dataclasses.replace(cfg, effect_sd=None), draws=draws)
    np.testing.assert_array_equal(free.centre, 0)
    np.testing.assert_array_equal(free.pull, 0)


def test_an_update_descends_the_loss_and_the_prior(data):
    """One step on all rows, against the same step by hand."""
    cfg = AdapterConfig(form="additive", hidden=(4,), dropout=0.0, batch_size=ROWS)
    table = AdapterData(data.features[0], data.actions, data.labels[0], data.weights[0, 0])
    state = learn.init_state(jax.random.key(1), cfg=cfg, num_features=3, num_actions=2)
    slopes = jnp.asarray(np.random.default_rng(2).normal(size=(3, 2)), jnp.float32)
    params = {**state.params, "tau": {**state.params["tau"], "kernel": slopes}}
    centre = jnp.full((3, 2), 0.4)
    state = state._replace(params=params, pull=jnp.asarray([0.3, 0.0]), centre=centre)

    def whole(p):
        return learn.loss(p, table, cfg=cfg, kind="binary") + 0.15 * jnp.sum((p["tau"]["kernel"] - centre)[:, 0] ** 2)

    adam = optax.adam(cfg.learning_rate)
    updates, _ = adam.update(jax.grad(whole)(params), adam.init(params), params)
    want = optax.apply_updates(params, updates)
    got = learn.epoch(jax.random.key(3), state, table, cfg=cfg, kind="binary")[0].params
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), got, want)


def panel(seed, units, sd, own=0.0, features=10, periods=20):
    """Units whose effect of a coin's action differs by features by `sd` logits; `own`: by as much of their own more."""
    rng = np.random.default_rng(seed)
    rows = units * periods
    x, a = rng.normal(size=(rows, features)), (rng.random((rows, 1)) < 0.4).astype(float)
    slopes = rng.normal(size=features)
    slopes *= sd / np.linalg.norm(slopes)
    own = np.repeat(rng.normal(size=(units, 2)), periods, axis=0) * own
    eta = -1 + x[:, 0] + own[:, 0] + (0.5 + x @ slopes + own[:, 1]) * a[:, 0]
    y = np.stack([rng.random(rows) < 1 / (1 + np.exp(-eta)), eta + 0.5 * rng.normal(size=rows)])
    parts = [jnp.asarray(v, jnp.float32) for v in (x[None], a, y, np.ones((1, 1, rows)))]
    return AdapterData(*parts), Cells(*jnp.divmod(jnp.arange(rows), periods), units, periods)


@pytest.mark.parametrize(("units", "sd", "own"), [(100, 0, 0), (100, 0, 1), (100, 0.7, 0), (100, 0.7, 1), (8, 0.7, 0)])
def test_the_variance_of_effects_is_estimated_without_bias_whatever_units_have_of_their_own(units, sd, own):
    """The mean of forty panels, within 4 standard errors (false alarms: 1e-4) and a tenth for what is not linear."""
    found, between = [], []
    for seed in range(40):
        data, cells = panel(seed, units, sd, own)
        told = warm.regress(data, cells, ("binary", "continuous"))
        found.append(told.variance[:, 0, 0] * told.spread[0])
        between.append(told.between[:, 0, 0])
    mean, error = np.mean(between, axis=0), np.std(between, axis=0) / np.sqrt(40)
    assert (mean > own**2 * np.array([0.5, 0.9]) - 4 * error).all()
    assert (mean < 1.1 * own**2 + 4 * error).all()
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(40)
    # Logits of a mixture are nearer zero than its parts': a binary outcome's slopes shrink with what units have.
    least = sd**2 * np.array([0.6 if own else 0.9, 0.9])
    assert (mean > least - 4 * error).all()
    assert (mean < 1.1 * sd**2 + 4 * error).all()
    if sd == 0 and own == 0:
        np.testing.assert_allclose(
            np.std(found, axis=0), 1 / np.sqrt(told.precision[:, 0, 0]) * told.spread[0], rtol=0.4
        )


def test_rows_differ_where_the_data_insist_and_not_by_noise():
    def spread(units, sd, effect_sd):
        table, own = panel(4, units, sd)
        table = table._replace(labels=table.labels[:1])
        cfg = AdapterConfig(
            form="additive", effect_sd=effect_sd, hidden=(4,), learning_rate=2e-2, batch_size=256, epochs=20
        )
        state = ensemble.init(jax.random.key(5), cfg=cfg, num_features=10, num_actions=1, outcomes=1, members=1)
        state = warm.begin(state, warm.pool([warm.regress(table, own, ("binary",))]), table, cfg=cfg)
        rows = AdapterData(table.features[0], table.actions, table.labels[0], table.weights[0, 0])
        state = jax.tree.map(lambda v: v[0], state)
        step = jax.jit(lambda key, s: learn.epoch(key, s, rows, cfg=cfg, kind="binary")[0])
        for at in range(cfg.epochs):
            state = step(jax.random.key(at), state)
        return float((rows.features @ state.params["tau"]["kernel"]).std())

    assert spread(20, 0.0, 0.2) < 0.4 * spread(20, 0.0, None)
    assert spread(400, 1.0, 0.2) == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize(("shock", "own"), [(0.0, 0.0), (0.0, 1.0), (0.6, 0.0), (0.6, 1.0)])
def test_shocks_to_whole_periods_are_in_the_error_of_what_is_done_in_whole_periods(shock, own):
    """Two hundred panels of a real outcome and a binary one, whose units have levels of their own.

    What is told of an action done to all in ten of forty periods has the mean that the shock makes, within 4 standard
    errors and 5 % (false alarms: 1e-4; less for logits of a mixture), and the effects themselves vary as much, within 4
    standard errors of a variance, each 10 %. Of an action of rows' own next to nothing is told.
    """
    units, periods, found, told = 30, 40, [], []
    cells = Cells(*jnp.divmod(jnp.arange(units * periods), periods), units, periods)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        common = np.tile(rng.permutation(periods) < 10, units)
        a = np.stack([common, rng.random(units * periods) < 0.4], axis=1).astype(float)
        x = rng.normal(size=(1, units * periods, 2))
        level = np.repeat(own * rng.normal(size=units), periods)
        eta = -0.5 + 0.5 * a.sum(1) + np.tile(shock * rng.normal(size=periods), units) + level
        y = np.stack([rng.random(len(eta)) < 1 / (1 + np.exp(-eta)), eta + 0.3 * rng.normal(size=len(eta))])
        data = AdapterData(*(jnp.asarray(v, jnp.float32) for v in (x, a, y, np.ones((1, 1, len(eta))))))
        start = warm.regress(data, cells, ("binary", "continuous"))
        found.append(start.effects[:, 0])
        told.append(jnp.diagonal(start.luck[:, 0], axis1=1, axis2=2))
    mean, error = np.mean(told, axis=0), np.std(told, axis=0) / np.sqrt(200)
    want = shock**2 * (1 / 10 + 1 / 30)
    assert abs(mean[1, 0] - want) < 4 * error[1, 0] + 0.05 * want
    assert 0.6 * want - 4 * error[0, 0] < mean[0, 0] < 1.05 * want + 4 * error[0, 0]
    if shock:
        np.testing.assert_allclose(np.var(found, axis=0, ddof=1)[1, 0], want, rtol=0.4)
        assert (mean[:, 0] > 10 * mean[:, 1]).all()


@pytest.mark.parametrize("outcome", [0, 1])
def test_variance_and_luck_are_those_of_a_twin_in_float64(outcome):
    """Written out unit by unit and period by period, in weights; only the units' own traces are estimated by us."""
    data, cells = panel(7, 8, 0.5, features=6, periods=30)
    rows, kind = 240, ("binary", "continuous")[outcome]
    weights = np.random.default_rng(1).exponential(size=8)[np.arange(rows) // 30]
    table = data._replace(
        labels=data.labels[outcome : outcome + 1], weights=jnp.asarray(weights, jnp.float32)[None, None]
    )
    told = warm.regress(table, cells, (kind,))
    x, a, y = (np.asarray(v, np.float64) for v in (data.features[0], data.actions, data.labels[outcome]))
    middle = np.average(np.concatenate([x, a], axis=1), axis=0, weights=weights)
    design = np.concatenate([np.ones((rows, 1)), np.concatenate([x, a], axis=1) - middle], axis=1)
    ridge = np.diag([0.0] + [1.0] * 7)
    at = np.zeros(8)
    for _ in range(30):
        p = 1 / (1 + np.exp(-design @ at)) if outcome == 0 else design @ at
        curve = weights * (p * (1 - p) if outcome == 0 else 1)
        hessian = design.T @ (curve[:, None] * design) + ridge
        at += np.linalg.solve(hessian, design.T @ (weights * (y - p)) - ridge @ at)
    p = 1 / (1 + np.exp(-design @ at)) if outcome == 0 else design @ at
    error, scale = weights * (y - p), 1.0 if outcome == 0 else np.average((y - design @ at) ** 2, weights=weights)
    centred = x - np.average(x, axis=0, weights=weights)
    rest = a * centred
    rest -= design @ np.linalg.solve(hessian, design.T @ (curve[:, None] * rest))
    by_unit = lambda v: v.reshape(8, 30, -1)  # noqa: E731
    shares = by_unit(rest * error[:, None]).sum(1) / scale
    own = np.einsum("uti,utj->uij", by_unit(rest * curve[:, None]), by_unit(rest)) / scale
    whole = (own.sum(0) ** 2).sum()
    apart = whole - (own**2).sum()
    assert apart < 0.8 * whole
    np.testing.assert_allclose(told.precision[0, 0, 0], apart / 2, rtol=0.15)
    agreed = (shares.sum(0) ** 2).sum() - (shares**2).sum()
    np.testing.assert_allclose(told.variance[0, 0, 0] * told.precision[0, 0, 0] * 2, agreed, rtol=2e-3)
    lead, solved = by_unit(design * curve[:, None]).sum(0), np.linalg.inv(hessian)
    taken = np.einsum("tw,wv,tv->t", lead, solved, lead)
    unit, period = np.divmod(np.arange(rows), 30)
    same = (period[:, None] == period) & (unit[:, None] != unit)
    apart = (period[:, None] != period) & (unit[:, None] != unit)
    mean = lambda pairs: (np.outer(error, error) * pairs).sum() / (np.outer(curve, curve) * pairs).sum()  # noqa: E731
    shock = (mean(same) - mean(apart)) * 30 / (30 - (taken / by_unit(curve).sum(0)[:, 0]).sum())
    want = shock * ((lead @ solved)[:, 7] ** 2).sum()
    np.testing.assert_allclose(told.luck[0, 0, 0, 0], want, rtol=5e-3)


def test_all_members_are_told_the_same_variance_by_precision():
    """Of two outcomes' one action; the members come in two parts."""
    rng = np.random.default_rng(0)
    variance, precision = rng.normal(size=(2, 5, 1)), rng.exponential(size=(2, 5, 1))
    luck, noise = rng.normal(size=(2, 5, 1, 1)), rng.exponential(size=(2, 5))
    whole = warm.Start(
        *(jnp.asarray(x) for x in (variance, variance, precision, variance, precision, luck, noise, noise[0]))
    )
    found = warm.pool([whole.of(slice(0, 2)), whole.of(slice(2, 5))])
    want = (variance * precision).sum(1) / precision.sum(1)
    np.testing.assert_allclose(found.variance, np.broadcast_to(want[:, None], variance.shape), rtol=1e-5)
    np.testing.assert_allclose(found.precision[:, 3], precision.mean(1), rtol=1e-6)
    np.testing.assert_array_equal(found.between, found.variance)
    np.testing.assert_array_equal(found.between_precision, found.precision)
    same = dict.fromkeys(("variance", "precision", "between", "between_precision"), 0)
    jax.tree.map(np.testing.assert_array_equal, found._replace(**same), whole._replace(**same))
    guess = 0.1**2 / whole.spread
    doubt = 1 / guess**2
    want = (found.precision[1, :, 0] * found.variance[1, :, 0] + doubt * guess) / (found.precision[1, :, 0] + doubt)
    np.testing.assert_allclose(warm.slope_variance(found, 0.1)[1, :, 0], np.maximum(want, 0.01 * guess), rtol=1e-5)


def test_members_pulled_to_draws_of_the_prior_spread_as_the_posterior_does():
    """Trained to the end on bootstraps, against the slopes' own posterior, which without draws is missed by far.

    The ratio of traces, of 24 members and 4 slopes, has an error of 15 %.
    """
    rows, members, sd, rng = 200, 24, 0.12, np.random.default_rng(3)
    x, a = rng.normal(size=(rows, 4)), rng.normal(size=(rows, 1))
    y = 0.2 * x[:, 0] * a[:, 0] + rng.normal(size=rows)
    weights = rng.exponential(size=(1, members, rows))
    tables = AdapterData(*(jnp.asarray(v, jnp.float32) for v in (np.stack([x] * members), a, y[None], weights)))
    cells = Cells(jnp.arange(rows), jnp.zeros(rows, int), rows, 1)
    start = warm.pool([warm.regress(tables, cells, ("continuous",))])
    # The variance as if it were known: the first guess alone.
    start = start._replace(precision=0 * start.precision)
    cfg = AdapterConfig(
        form="additive", effect_sd=sd, hidden=(2,), dropout=0.0, learning_rate=1e-2, batch_size=rows, epochs=80
    )
    begun = ensemble.init(jax.random.key(0), cfg=cfg, num_features=4, num_actions=1, outcomes=1, members=members)
    step = jax.jit(ensemble.EnsembleEpoch(cfg, ("continuous",)))

    def spread(draws):
        state = warm.begin(begun, start, tables, cfg=cfg, draws=draws)
        for at in range(cfg.epochs):
            state, _ = step(jax.random.key(at), state, learn.AdapterTables(tables, tables))
        return np.trace(np.cov(state.params["tau"]["kernel"][..., 0], rowvar=False))

    z, noise = a * (x - x.mean(0)), float(start.noise.mean())
    want = np.trace(np.linalg.inv(z.T @ z / noise + np.eye(4) * 4 / sd**2))
    assert spread(jnp.asarray(rng.normal(size=(members, 1, 4, 1)), jnp.float32)) == pytest.approx(want, rel=0.45)
    assert spread(None) < 0.75 * want


def test_units_own_effects_are_told_as_written_out():
    """By NumPy in float64, pair by pair of one unit's rows; a real outcome, weights that differ by unit."""
    data, cells = panel(3, 12, 0.5, own=0.5, features=2, periods=6)
    weights = np.repeat(np.random.default_rng(1).exponential(size=12), 6)
    told = warm.regress(
        data._replace(weights=jnp.asarray(weights, jnp.float32)[None, None]), cells, ("binary", "count")
    )
    x, a, y = (np.asarray(v, np.float64) for v in (data.features[0], data.actions, data.labels[1]))
    design = np.concatenate([np.ones((72, 1)), *(v - np.average(v, axis=0, weights=weights) for v in (x, a))], axis=1)
    penalty = np.diag([1e-6, *[1 + 1e-6] * 3])
    inverse = np.linalg.inv((design * weights[:, None]).T @ design + penalty)
    error = y - design @ (inverse @ design.T @ (weights * y))
    scale = np.average(error**2, weights=weights)
    rest = (design @ inverse[:, 3] / inverse[3, 3]).reshape(12, 6)
    rest -= rest.mean(1, keepdims=True)
    own = error.reshape(12, 6)
    own -= own.mean(1, keepdims=True)
    w = weights.reshape(12, 6)
    share, information = w * rest * own / scale, w * rest**2 / scale
    pairs = ~np.eye(6, dtype=bool)
    products = sum((np.outer(s, s)[pairs]).sum() for s in share)
    # Errors less their mean over six rows are tied: a row's by a sixth of its variance, with every other's.
    chance = sum(-np.outer(u * r, u * r)[pairs].sum() / 6 / scale for u, r in zip(w, rest, strict=True))
    heard = sum((np.outer(i, i)[pairs]).sum() for i in information)
    np.testing.assert_allclose(told.between[1, 0, 0], (products - chance) / heard, rtol=2e-3)
    np.testing.assert_allclose(told.between_precision[1, 0, 0], heard / 2, rtol=2e-3)


def test_the_deviation_of_units_is_the_first_guess_until_rows_tell_of_it():
    """Nothing told, much told, chance below zero; without a guess the root of what is told."""
    one = jnp.ones((1, 3, 1))
    start = warm.Start(*[one] * 3, *[one] * 2, one[..., None], one[..., 0], one[0, :, 0])
    asked = lambda v, p, guess: float(  # noqa: E731
        warm.unit_sd(start._replace(between=v * one, between_precision=p * one), guess)[0, 0]
    )
    assert asked(0.0, 0.0, 0.1) == pytest.approx(0.1, rel=2e-3)
    assert asked(0.25, 1e8, 0.1) == pytest.approx(0.5, rel=5e-3)
    assert asked(-0.5, 1e2, 0.1) < 0.1 < asked(0.5, 1e2, 0.1) < 0.5**0.5
    assert asked(0.25, 1.0, None) == pytest.approx(0.5)
    assert asked(-1.0, 1.0, None) == 0
