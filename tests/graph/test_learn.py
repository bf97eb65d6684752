import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.graph import edges, encoder, learn, series
from wmjax.graph.causalmmm import CausalMMMConfig
from wmjax.graph.decoder import DecoderConfig
from wmjax.graph.encoder import EncoderConfig
from wmjax.graph.learn import LearnConfig
from wmjax.graph.series import Batch, Split

NODES, TIMES, EPOCHS = 4, 20, 12
DECODER = LearnConfig(
    model=DecoderConfig(hidden=8, embedding=2, horizon=3, first=8, stride=6),
    epochs=EPOCHS, batch_size=8, learning_rate=3e-2, schedule="cosine", select_window=3,
)  # fmt: skip


def batch(key, shops):
    """Node 0 is an autoregression, the target repeats it one step later; the rest is noise."""
    noise = jax.random.normal(key, (shops, TIMES, NODES))
    driver = jax.lax.scan(lambda x, e: (0.8 * x + 0.6 * e, 0.8 * x + 0.6 * e), jnp.zeros(shops), noise[..., 0].T)[1].T
    target = jnp.pad(driver[:, :-1], ((0, 0), (1, 0))) + 0.2 * noise[..., -1]
    values = jnp.concatenate([driver[..., None], noise[..., 1:-1], target[..., None]], -1)
    graph = jnp.zeros((shops, NODES, NODES)).at[:, 0, -1].set(1.0)
    return Batch(values, graph, noise[:, 0, :2])


@pytest.fixture(scope="module")
def data():
    keys = jax.random.split(jax.random.key(0), 2)
    return jax.jit(lambda keys: Split(batch(keys[0], 25), batch(keys[1], 8)))(keys)


@pytest.fixture(scope="module")
def fit():
    """Two seeds times two supplied graphs, the truth and none, in one program."""

    def one(key, gate, data):
        supplied = jax.tree.map(lambda b: b, data)
        supplied = Split(*(b._replace(graph=gate * b.graph) for b in supplied))
        return learn.fit(key, supplied, cfg=DECODER, watch=lambda s: {"doubled": 2 * s.epoch})

    both = jax.vmap(jax.vmap(one, in_axes=(None, 0, None)), in_axes=(0, None, None))
    return jax.jit(both)


@pytest.fixture(scope="module")
def fitted(fit, data):
    return fit(jax.random.split(jax.random.key(1), 2), jnp.array([1.0, 0.0]), data)


def test_a_decoder_learns_what_its_graph_lets_it_learn(fitted):
    state, history = fitted
    assert state.epoch.tolist() == [[EPOCHS] * 2] * 2
    one_step = np.asarray(history["validation_one_step"])
    assert one_step.shape == (2, 2, EPOCHS)
    assert np.all(one_step[..., -1] < one_step[..., 0])
    assert np.all(one_step[:, 0, -1] < one_step[:, 1, -1] - 0.03)
    np.testing.assert_array_equal(history["doubled"], np.broadcast_to(2 * np.arange(1, EPOCHS + 1), (2, 2, EPOCHS)))


def test_the_best_state_is_that_of_the_smallest_averaged_validation_loss(fitted):
    state, history = fitted
    loss, selection = np.asarray(history["validation_loss"]), np.asarray(history["selection"])
    window = np.stack([loss[..., i : i + 3].mean(-1) for i in range(EPOCHS - 2)], -1)
    assert np.all(np.isinf(selection[..., :2]))
    np.testing.assert_allclose(selection[..., 2:], window, rtol=1e-5)
    np.testing.assert_allclose(state.best_value, window.min(-1), rtol=1e-5)


def read_dice(state, values, model):
    return jax.vmap(lambda v: encoder.probabilities(state.params, v, cfg=model))(values)


DICE = LearnConfig(
    model=EncoderConfig(hidden=8, edge_hidden=8, embedding=2, lags=3, horizon=4),
    epochs=40, batch_size=8, learning_rate=3e-3,
)  # fmt: skip


@pytest.fixture(scope="module")
def dice(data):
    def watch(state):
        return {"q": read_dice(state, data.validation.values, DICE.model).mean(0)}

    return jax.jit(lambda key: learn.fit(key, data, cfg=DICE, watch=watch))(jax.random.key(2))


def test_epochs_one_by_one_are_the_fit(data, dice):
    step = jax.jit(lambda key, state, data: learn.epoch(key, state, data, cfg=DICE))
    key = jax.random.key(2)
    state = jax.jit(lambda key, data: learn.init(key, data, cfg=DICE))(key, data)
    for _ in range(3):
        state, metrics = step(key, state, data)
    assert step._cache_size() == 1, "the state an epoch returns is of another type than the one it takes"
    np.testing.assert_allclose(metrics["loss"], dice[1]["loss"][2], rtol=1e-3)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(state.params))


def test_dice_finds_the_one_edge_and_keeps_to_its_prior(dice):
    model, history = DICE.model, dice[1]
    q = np.asarray(history["q"])[-1]
    off = ~np.eye(NODES, dtype=bool)
    assert q[0, -1] == q[off].max()
    assert q[0, -1] > 0.8
    # Eleven of the twelve possible edges carry nothing, and nothing but the prior holds them.
    others = np.delete(q[off], np.argmax(q[off]))
    assert abs(others.mean() - model.density) < 0.15
    # One epoch's error moves by a tenth from the next one's, and rounds otherwise on another processor: of ten, the
    # mean. Over eleven keys it is .66 to .88 of the first epoch's; of this key .76.
    error = np.asarray(history["validation_mse7"])
    assert error[-10:].mean() < 0.85 * error[0]


def test_causalmmm_learns_and_its_running_statistics_move(data):
    model = CausalMMMConfig(hidden=8, horizon=4)
    cfg = LearnConfig(model=model, epochs=10, batch_size=8, learning_rate=5e-3, clip=0.0, schedule="halving")
    state, history = jax.jit(lambda key: learn.fit(key, data, cfg=cfg))(jax.random.key(2))
    mse = np.asarray(history["validation_mse"])
    assert mse[-1] < mse[0]
    assert all(np.abs(np.asarray(v[1]) - 1).max() > 0.05 for v in state.stats.values())


def test_scale_and_origins():
    values = jnp.stack([jnp.arange(12.0).reshape(3, 4), jnp.full((3, 4), 2.0)], -1)
    scale = series.fit_scale(values)
    assert float(scale.mean[0]) == pytest.approx(5.5)
    assert scale.sd[1] == 1
    got = np.asarray(series.standardise(values, scale))
    assert got[..., 0].std() == pytest.approx(1, rel=1e-5)
    assert np.all(got[..., 1] == 0)
    assert series.origins(20, horizon=3, first=8, stride=6).tolist() == [11, 17]
    assert series.origins(10, horizon=7, first=14, stride=7).tolist() == [3]
    with pytest.raises(ValueError, match="7 times leave no history"):
        series.origins(7, horizon=7, first=1, stride=1)


def test_edges_of_a_batch_follow_the_shops():
    b = Batch(
        jnp.arange(12.0).reshape(3, 2, 2), jnp.arange(3.0)[:, None, None] * edges.off_diagonal(2), jnp.zeros((3, 0))
    )
    two = series.take(b, jnp.array([2, 0]))
    assert two.graph[:, 0, 1].tolist() == [2, 0]


@pytest.mark.parametrize(("changes", "message"), [({"epochs": 0}, "epochs is 0"), ({"clip": -1.0}, "clip is -1")])
def test_a_config_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(DECODER, **changes)
