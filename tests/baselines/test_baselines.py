"""The baselines on simulated tables: known effects, penalties chosen on validation rows, and real outcomes."""

import itertools

import jax
import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from wmjax.baselines import logistic, mlp, tables
from wmjax.baselines.tables import Contrast, Table
from wmjax.core.errors import UserError
from wmjax.heads.adapter import AdapterConfig

TRAIN, VAL = 3000, 1000
CFG = AdapterConfig(
    hidden=(16, 8), batch_size=128, learning_rate=1e-2, epochs=10, schedule="cosine", dropout=0.0, form="additive"
)
PUSH = Contrast(action_index=1, a0=0.0, a1=1.0)


def simulate(rows, seed=0):
    """Draw rows whose push adds 1.2 to the logit for the loyal and 0.2 for others; sales are linear in price."""
    rng = np.random.default_rng(seed)
    loyal = rng.integers(0, 2, rows)
    features = np.column_stack([loyal, rng.integers(0, 2, (rows, 3)), rng.normal(size=rows), np.zeros(rows)])
    price, push = rng.normal(100, 5, rows), rng.random(rows) < 0.4
    tau = 0.2 + loyal
    eta = -0.5 + 0.8 * features[:, 1] - 0.1 * (price - 100) + tau * push
    buys = rng.random(rows) < expit(eta)
    sales = 50 - 2.0 * (price - 100) + 10 * push + rng.normal(0, 3, rows)
    table = Table(features, np.column_stack([price, push]).astype(float), np.column_stack([buys, sales]).astype(float))
    return table, eta, tau


def parts(table, *cuts):
    edges = [0, *cuts, len(table.labels)]
    return [Table(*(x[a:b] for x in table)) for a, b in itertools.pairwise(edges)]


@pytest.fixture(scope="module")
def world():
    table, eta, tau = simulate(TRAIN + VAL + 1000)
    return parts(table, TRAIN, TRAIN + VAL), eta[-1000:], tau[-1000:]


@pytest.fixture(scope="module")
def network(world):
    return mlp.fit(
        jax.random.key(0), *world[0], candidates=(CFG,), kinds=("binary", "currency"), contrast=PUSH, members=2
    )


def test_columns_may_be_scaled_by_other_rows(world):
    """By the train rows' own scale it is the same fit; by another the penalty weighs otherwise, and units stay."""
    (train, val, ask), _, _ = world
    kinds = ("binary", "currency")
    own = tables.fit_scale(logistic.columns(train), keep_bits=False)
    wide = own._replace(scale=own.scale * np.where(np.arange(len(own.scale)) == train.features.shape[1] + 1, 0.01, 1))
    told = [
        logistic.fit(train, val, ask, kinds=kinds, contrast=PUSH, scale=scale, penalties=(penalty,)).uplift_linear
        for penalty in (1e-3, 1e3)
        for scale in (None, own, wide)
    ]
    np.testing.assert_array_equal(told[0], told[1])
    np.testing.assert_allclose(told[2], told[0], rtol=1e-3)  # hardly punished, it is the same slope in its own units
    assert np.abs(told[5]).mean() > 1.05 * np.abs(told[3]).mean()  # what is written large is punished less


def test_logistic_recovers_what_it_can(world):
    (train, val, ask), eta, _ = world
    found = logistic.fit(train, val, ask, kinds=("binary", "currency"), contrast=PUSH)
    assert np.corrcoef(found.linear[:, 0], eta)[0, 1] > 0.9
    np.testing.assert_allclose(found.prediction[:, 0], expit(found.linear[:, 0]))
    # One number for all: the mean effect 0.7, whose standard error at 3,000 rows is about 0.08.
    assert np.ptp(found.uplift_linear[:, 0]) == 0.0
    assert found.uplift_linear[0, 0] == pytest.approx(0.7, abs=0.4)
    # A least-squares effect of 10 with noise 3 at 3,000 rows has standard error 0.11.
    np.testing.assert_allclose(found.uplift[:, 1], 10.0, atol=0.6)
    np.testing.assert_array_equal(found.uplift[:, 1], found.uplift_linear[:, 1])


def test_logistic_uplift_is_the_difference_of_two_predictions(world):
    train, val, ask = world[0]
    contrast = Contrast(action_index=0, a0=95.0, a1=103.0)
    found = logistic.fit(train, val, ask, kinds=("binary", "currency"), contrast=contrast)
    low, high = (
        logistic.fit_predict(train, val, ask._replace(actions=_with(ask.actions, 0, v)), kinds=("binary", "currency"))
        for v in (95.0, 103.0)
    )
    np.testing.assert_allclose(found.uplift, high - low, atol=2e-5)
    assert np.abs(found.uplift).min() > 1e-3


def _with(actions, index, value):
    changed = actions.copy()
    changed[:, index] = value
    return changed


def test_the_penalty_is_the_one_that_validation_rows_choose(world):
    (train, val, ask), *_ = world
    few = Table(*(x[:60] for x in train))
    found = logistic.fit(few, val, ask, kinds=("binary", "currency"))
    scale = tables.fit_scale(logistic.columns(few), keep_bits=False)
    x, x_val, x_ask = (tables.scaled(logistic.columns(t), scale) for t in (few, val, ask))
    fits = {p: LogisticRegression(C=1 / p, tol=1e-8).fit(x, few.labels[:, 0]) for p in logistic.PENALTIES}
    losses = {
        p: -np.mean(np.log(f.predict_proba(x_val)[np.arange(VAL), val.labels[:, 0].astype(int)]))
        for p, f in fits.items()
    }
    best = min(losses, key=losses.get)
    assert found.chosen[0]["penalty"] == best
    assert found.chosen[0]["score"] == pytest.approx(losses[best], abs=1e-3)
    np.testing.assert_allclose(found.prediction[:, 0], fits[best].predict_proba(x_ask)[:, 1], atol=5e-3)


def test_network_recovers_effects_and_real_outcomes(world, network):
    """The loyal's effect less the others' is 1.0, with a standard error of about 0.16 at 3,000 rows."""
    (_, _, ask), eta, tau = world
    assert np.corrcoef(network.linear[:, 0], eta)[0, 1] > 0.9
    uplift = network.uplift_linear[:, 0]
    assert uplift[tau > 1].mean() - uplift[tau < 1].mean() == pytest.approx(1.0, abs=0.8)
    assert uplift.mean() == pytest.approx(tau.mean(), abs=0.4)
    np.testing.assert_allclose(network.uplift[:, 1].mean(), 10.0, atol=1.5)
    assert np.corrcoef(network.prediction[:, 1], ask.labels[:, 1])[0, 1] > 0.9
    assert network.chosen[0]["candidate"] == 0
    risk = expit(eta + tau * (1 - ask.actions[:, 1])) - expit(eta - tau * ask.actions[:, 1])
    assert np.abs(network.uplift[:, 0] - risk).mean() < 0.08


def test_network_answers_plainly_what_it_answers_in_full(world, network):
    """Same key, same network: a run without a contrast predicts the same, and validation rows pick a candidate."""
    plain = mlp.fit_predict(jax.random.key(0), *world[0], cfg=CFG, kinds=("binary", "currency"), members=2)
    np.testing.assert_array_equal(plain, network.prediction)


def test_columns_that_never_varied_say_nothing(world, network):
    (train, val, ask), *_ = world
    later = ask._replace(features=_with(ask.features, 5, 1.0))
    for fit in (
        lambda t: logistic.fit_predict(train, val, t, kinds=("binary", "currency")),
        lambda t: mlp.fit_predict(jax.random.key(0), train, val, t, cfg=CFG, kinds=("binary", "currency"), members=2),
    ):
        np.testing.assert_array_equal(fit(ask), fit(later))


def test_validation_rows_choose_a_candidate(world, network):
    """One candidate that learns next to nothing, and the one above, whose answers must come back."""
    lame = AdapterConfig(hidden=(2,), batch_size=TRAIN, learning_rate=1e-7, epochs=1, form="additive")
    found = mlp.fit(
        jax.random.key(0), *world[0], candidates=(lame, CFG), kinds=("binary", "currency"), members=2, contrast=PUSH
    )
    assert [c["candidate"] for c in found.chosen] == [1, 1]
    np.testing.assert_array_equal(found.linear, network.linear)
    np.testing.assert_array_equal(found.uplift, network.uplift)


def test_one_class_in_the_train_rows(world):
    train, val, ask = (Table(t.features, t.actions, t.labels[:, :1]) for t in world[0])
    found = logistic.fit(train._replace(labels=np.ones_like(train.labels)), val, ask, contrast=PUSH)
    np.testing.assert_allclose(found.prediction, (TRAIN + 0.5) / (TRAIN + 1))
    assert not found.uplift.any()


def test_tables_that_cannot_be_fitted_are_refused(world):
    train, val, ask = world[0]
    with pytest.raises(UserError, match="outcome 1: declared binary"):
        logistic.fit(train, val, ask)
    with pytest.raises(UserError, match="2 outcomes, 1 kinds"):
        logistic.fit(train, val, ask, kinds=("binary",))
    with pytest.raises(UserError, match="no validation rows"):
        logistic.fit(train, Table(*(x[:0] for x in val)), ask, kinds=("binary", "count"))
    broken = train._replace(labels=np.where(np.arange(TRAIN)[:, None] == 3, np.nan, train.labels))
    with pytest.raises(UserError, match="outcome 0: 1 of 3000 train values"):
        mlp.fit(jax.random.key(0), broken, val, ask, candidates=(CFG,), kinds=("binary", "count"))
