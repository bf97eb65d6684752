"""Training of adapters: batches, schedules, ensembles that equal single runs, and recovery of known effects."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.core.keys import key_for
from wmjax.heads import adapter, ensemble, learn
from wmjax.heads.adapter import AdapterConfig
from wmjax.heads.learn import AdapterData, AdapterTables

CFG = AdapterConfig(hidden=(8, 4), batch_size=64, learning_rate=3e-3, epochs=4, schedule="cosine", weight_decay=0.01)


def table(rows, outcomes, seed, members=1):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.integers(0, 2, (rows, 6)), jnp.uint8)
    a = jnp.asarray(rng.integers(0, 2, (rows, 2)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 2, (outcomes, rows)), jnp.float32)
    weights = jnp.asarray(rng.exponential(size=(1, members, rows)), jnp.float32)
    return AdapterData(x, a, labels, weights)


def test_every_row_is_met_once_an_epoch():
    rows, live = learn._batches(jax.random.key(0), 150, 64)
    assert rows.shape == (3, 64)
    assert sorted(np.asarray(rows)[np.asarray(live) == 1]) == list(range(150))
    again, _ = learn._batches(jax.random.key(1), 150, 64)
    assert not np.array_equal(rows, again)
    few, live = learn._batches(jax.random.key(0), 5, 64)
    assert few.shape == (1, 5)
    assert live.all()


KINDS = ("count", "binary")


@pytest.fixture(scope="module")
def alone():
    """One adapter's epoch and its score on the validation rows, compiled once for the tests that share its shapes."""

    @partial(jax.jit, static_argnames="kind")
    def run(key, state, train, val, kind):
        state, taught = learn.epoch(key, state, train, cfg=CFG, kind=kind)
        state, judged = learn.judge(state, val, cfg=CFG, kind=kind)
        return state, {**taught, **judged}

    return run


@pytest.fixture(scope="module")
def start():
    init = partial(ensemble.init, cfg=CFG, num_features=6, num_actions=2, outcomes=2)
    return jax.jit(init, static_argnames="members")(jax.random.key(5), members=3)


def of_one(data, outcome, member):
    return [AdapterData(t.features, t.actions, t.labels[outcome], t.weights[0, member]) for t in data]


def assert_all_close(found, expected, **tolerance):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


def test_members_are_each_as_if_trained_alone(alone, start):
    """Mapped adapters with shared batches, own weights and own dropout against a single run of the same key."""
    data = AdapterTables(table(150, 2, 0, members=3), table(40, 2, 1))
    together = jax.jit(ensemble.EnsembleEpoch(CFG, KINDS))
    number = 5  # outcome 1, member 2
    states, single = start, jax.tree.map(lambda x: x[number], start)
    (train, _), (_, val) = of_one(data, 1, 2), of_one(data, 1, 0)
    for step in range(2):
        key = key_for(jax.random.key(6), "epoch", step)
        states, metrics = together(key, states, data)
        single, expected = alone(key, single, train, val, "binary")
    assert_all_close(jax.tree.map(lambda x: x[number], states), single, atol=2e-5)
    assert_all_close({name: metrics[name][number] for name in expected}, expected, atol=1e-4)
    assert metrics["score"].shape == (6,)
    assert len({w.tobytes() for w in np.asarray(states.params["layer_0"]["kernel"])}) == 6
    assert not np.array_equal(metrics["score"], metrics["val_auc"]), "the count has no AUC to be scored by"
    np.testing.assert_array_equal(metrics["score"][:3], -metrics["val_loss"][:3])


def test_members_with_features_of_their_own(alone, start):
    """Beliefs of their own: member 1's features are turned around; each member equals its single run."""
    data = AdapterTables(table(150, 1, 0), table(40, 1, 1))
    own = AdapterTables(*(t._replace(features=jnp.stack([t.features, 1 - t.features])) for t in data))
    states = jax.tree.map(lambda x: x[:2], start)
    found, metrics = jax.jit(ensemble.EnsembleEpoch(CFG, ("binary",)))(jax.random.key(1), states, own)
    for member in (0, 1):
        train, val = (t._replace(features=x.features[member]) for t, x in zip(of_one(data, 0, 0), own, strict=True))
        single, expected = alone(
            jax.random.key(1), jax.tree.map(lambda x, m=member: x[m], states), train, val, "binary"
        )
        assert_all_close(jax.tree.map(lambda x, m=member: x[m], found), single, atol=2e-5)
        assert_all_close({name: metrics[name][member] for name in expected}, expected, atol=1e-4)
    eta = ensemble.predict(found.params, own.val.features, own.val.actions, cfg=CFG, outcomes=1)
    assert eta.shape == (1, 2, 40)
    np.testing.assert_allclose(eta[0, 1], adapter.apply(single.params, val.features, val.actions, cfg=CFG), atol=3e-5)


def test_a_member_starts_alike_in_any_company(start):
    fewer = ensemble.init(jax.random.key(5), cfg=CFG, num_features=6, num_actions=2, outcomes=2, members=1)
    assert_all_close(jax.tree.map(lambda x: x[1], fewer), jax.tree.map(lambda x: x[3], start), rtol=0)


def test_a_row_without_weight_teaches_nothing(alone, start):
    train, val = of_one(AdapterTables(table(150, 1, 0), table(40, 1, 1)), 0, 0)
    whole = train._replace(weights=train.weights.at[:20].set(0.0))
    spoilt = whole._replace(labels=whole.labels.at[:20].set(1 - whole.labels[:20]))
    state = jax.tree.map(lambda x: x[0], start)
    whole, spoilt, other = (alone(jax.random.key(1), state, d, val, "binary")[0].params for d in (whole, spoilt, train))
    assert_all_close(whole, spoilt, rtol=0)
    with pytest.raises(AssertionError):
        assert_all_close(whole, other, rtol=0)


def test_plateau_follows_the_published_rule(start):
    """Scores fed one by one: the rate halves after the sixth epoch without a relative gain of 1e-4, and has a floor."""
    cfg = replace(CFG, schedule="plateau", learning_rate=4e-6)
    fed = jax.jit(lambda state, score: learn._plateau(state, score, cfg=cfg))

    def rates(scores):
        state, out = jax.tree.map(lambda x: x[0], start), []
        for score in scores:
            state = fed(state, jnp.float32(score))
            out.append(float(state.rate))
        return out

    # 0.70001 is no gain, so the third score is the first stale one, and the eighth is the sixth, which halves.
    found = rates([0.6, 0.7, 0.70001, *[0.69] * 5, 0.71, *[0.7] * 20])
    assert found[:7] == [1.0] * 7
    assert found[7:14] == [0.5] * 7
    assert found[14:] == [0.25] * 15, "the floor is 1e-6"
    # Scores below zero (minus a loss) gain upwards too.
    assert rates([-0.7, *[-0.69999] * 6])[-1] == 0.5
    assert rates([-0.7, *[-0.69999] * 5, -0.6])[-1] == 1.0


def test_one_class_in_the_validation_rows_falls_back_to_the_loss(start):
    data = table(40, 1, 0)
    val = AdapterData(data.features, data.actions, jnp.zeros(40), data.weights[0, 0])
    state = jax.tree.map(lambda x: x[0], start)
    _, metrics = learn.judge(state, val, cfg=CFG, kind="binary")
    assert metrics["score"] == -metrics["val_loss"]
    assert metrics["val_auc"] == 0.5
    _, metrics = learn.judge(state, val, cfg=CFG, kind="count")
    assert "val_auc" not in metrics


def test_known_effects_are_recovered_and_the_error_shrinks():
    """Four additive adapters on logistic rows whose effects have sd 0.7, taught by 2,000 rows and by 16,000.

    A logistic regression that knows the right terms errs by 0.28 on the same 2,000 rows and by 0.053 on the 16,000.
    """
    rng = np.random.default_rng(0)
    rows, cut = 20_000, 16_000
    x = rng.integers(0, 2, (rows, 6)).astype(np.float32)
    a = (rng.random((rows, 2)) < 0.3).astype(np.float32)
    tau = 0.4 + 1.2 * x[:, 0] - 0.8 * x[:, 1]
    eta = -0.5 + x[:, 2] - x[:, 3] * x[:, 4] + tau * a[:, 0] - 0.5 * a[:, 1]
    y = (rng.random(rows) < 1 / (1 + np.exp(-eta))).astype(np.float32)
    train, val = (
        AdapterData(*map(jnp.asarray, (x[s], a[s], y[None, s], np.ones((1, 1, len(y[s])), np.float32))))
        for s in (slice(cut), slice(cut, None))
    )
    few = train._replace(weights=train.weights.at[:, :, 2_000:].set(0.0))
    cfg = AdapterConfig(
        hidden=(16, 8), form="additive", batch_size=256, learning_rate=2e-2, epochs=10, schedule="cosine", dropout=0.0
    )
    start = ensemble.init(jax.random.key(1), cfg=cfg, num_features=6, num_actions=2, outcomes=1, members=4)
    step = jax.jit(ensemble.EnsembleEpoch(cfg, ("binary",)))
    errors = []
    for taught in (few, train):
        states = start
        for number in range(cfg.epochs):
            states, _ = step(key_for(jax.random.key(2), "epoch", number), states, AdapterTables(taught, val))
        found = jax.vmap(lambda p: adapter.effect(p, val.features, 0, 0, 1, val.actions, cfg=cfg))(states.params)
        errors.append(float(np.sqrt(np.mean((np.asarray(found).mean(0) - tau[cut:]) ** 2))))
    assert errors[1] < errors[0]
    assert errors[1] < 0.1
    assert errors[0] < 0.5
