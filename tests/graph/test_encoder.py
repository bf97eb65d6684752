import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.graph import encoder
from wmjax.graph.encoder import EncoderConfig
from wmjax.graph.series import Batch

CFG = EncoderConfig(hidden=8, edge_hidden=4, embedding=3, lags=3, horizon=4)
NODES, TIMES, SHOPS = 4, 16, 3


@pytest.fixture(scope="module")
def setting():
    params = jax.jit(lambda key: encoder.init(key, cfg=CFG, num_nodes=NODES, num_times=TIMES))(jax.random.key(0))
    # Far from the start, where edges are nearly silent, so that whatever could leak would.
    params = jax.tree.map(lambda a: 2.0 * a + 0.2, params)
    values = jax.random.normal(jax.random.key(1), (SHOPS, TIMES, NODES))
    return params, values


@pytest.fixture(scope="module")
def read():
    return jax.jit(jax.vmap(lambda params, values: encoder.probabilities(params, values, cfg=CFG), in_axes=(None, 0)))


@pytest.fixture(scope="module")
def predict():
    return jax.jit(lambda params, graph, window: encoder.predict(params, graph, window, cfg=CFG))


def test_the_encoder_sees_the_history_and_not_the_forecast_window(setting, read):
    params, values = setting
    q = np.asarray(read(params, values))
    assert np.all(np.diagonal(q, axis1=1, axis2=2) == 0)
    later = values + jnp.where(jnp.arange(TIMES) >= TIMES - CFG.horizon, 9.0, 0.0)[:, None]
    np.testing.assert_array_equal(read(params, later), q)
    earlier = values + jnp.where(jnp.arange(TIMES) == TIMES - CFG.horizon - 1, 9.0, 0.0)[:, None]
    assert np.abs(np.asarray(read(params, earlier)) - q).max() > 1e-3


def test_a_shop_is_read_alike_in_any_company(setting, read):
    params, values = setting
    q = np.asarray(read(params, values))
    np.testing.assert_array_equal(read(params, values.at[1:].add(5.0))[0], q[0])


def test_pair_features_are_what_statistics_calls_them():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3)).astype(np.float32)
    x[2:, 1] += 0.8 * x[:-2, 0]  # 0 acts on 1 after two steps
    x[1:, 2] += 0.5 * x[:-1, 1]  # 1 acts on 2 after one
    got = np.asarray(encoder.pair_features(jnp.asarray(x), lags=3))
    assert got.shape == (3, 3, 4)
    strong = np.argwhere(np.abs(got * (1 - np.eye(3))[..., None]) > 6)
    # 0 reaches 2 by way of 1, after three steps.
    assert {tuple(map(int, row)) for row in strong} == {(0, 1, 1), (1, 2, 0), (1, 2, 3), (0, 2, 2)}
    z = (x - x.mean(0)) / (x.std(0) + 1e-3)
    own = (z[:-1, 2] @ z[1:, 2]) / (z[:-1, 2] @ z[:-1, 2] + 1)
    left = z[1:, 2] - own * z[:-1, 2]
    want = z[2:-1, 1] @ left[2:] / left.std() / np.sqrt(397)
    np.testing.assert_allclose(got[1, 2, 0], want, rtol=5e-3)


def test_the_restricted_decoder_hears_senders_through_edges_alone(setting, predict):
    params, values = setting
    window = values[0, : CFG.lags]
    graph = jnp.zeros((NODES, NODES)).at[1, 3].set(0.7)
    slope = jax.jit(jax.jacrev(lambda w: encoder.predict(params, graph, w, cfg=CFG)))(window)
    moved = np.abs(np.asarray(slope)).max(1)  # receiver, sender
    expected = np.eye(NODES, dtype=bool)
    expected[3, 1] = True
    np.testing.assert_array_equal(moved != 0, expected)
    # The own path is the last value only: no memory.
    assert np.all(np.asarray(slope)[np.arange(NODES), :-1, np.arange(NODES)] == 0)


def test_the_targets_own_path_is_bounded(setting):
    params, values = setting
    far = {**params, "own": jnp.full(NODES, 50.0)}
    none = jnp.zeros((NODES, NODES))
    for bound in (0.0, 0.3):
        cfg = EncoderConfig(hidden=8, edge_hidden=4, embedding=3, lags=3, horizon=4, target_autoregression=bound)
        slope = jax.jit(jax.jacrev(lambda w, cfg=cfg: encoder.predict(far, none, w, cfg=cfg)))(values[0, : CFG.lags])
        assert float(slope[-1, -1, -1]) == pytest.approx(bound, abs=1e-6)
        assert float(slope[0, -1, 0]) == pytest.approx(50, rel=1e-5)


def test_relaxed_edges_are_on_as_often_as_their_probability():
    log_odds = jnp.array([-2.0, 0.0, 1.0])
    draw = jax.jit(lambda key: encoder.sample(key, jnp.broadcast_to(log_odds, (20000, 3)), 0.3))
    z = np.asarray(draw(jax.random.key(2)))
    assert z.min() >= 0
    assert z.max() <= 1
    want = 1 / (1 + np.exp(-np.asarray(log_odds)))
    # P(z > 1/2) = q at every temperature; 5 standard errors, false alarm 2e-6 over the three.
    assert np.all(np.abs((z > 0.5).mean(0) - want) < 5 * np.sqrt(want * (1 - want) / 20000))


def test_divergence_is_that_of_bernoulli_variables():
    q = np.array([[0.5, 0.9], [0.01, 0.5]])
    want = [p * np.log(p / 0.2) + (1 - p) * np.log((1 - p) / 0.8) for p in (0.9, 0.01)]
    got = encoder.divergence(jnp.asarray(np.log(q / (1 - q)), jnp.float32), 0.2)
    np.testing.assert_allclose(got, np.mean(want), rtol=1e-5)
    saturated = encoder.divergence(jnp.full((2, 2), -200.0), 0.2)
    np.testing.assert_allclose(saturated, -np.log(0.8), rtol=1e-5)
    # It pulls towards the prior's density from both sides.
    pull = jax.grad(lambda level: encoder.divergence(jnp.full((2, 2), level), 0.2))
    assert float(pull(0.0)) > 0.1
    assert float(pull(-4.0)) < -0.01


def test_the_loss_is_the_sum_of_its_parts_and_the_prior_has_a_say(setting):
    params, values = setting
    batch = Batch(values, jnp.zeros((SHOPS, NODES, NODES)), jnp.zeros((SHOPS, 0)))
    heavy = EncoderConfig(hidden=8, edge_hidden=4, embedding=3, lags=3, horizon=4, prior=2.0, sparsity=0.5)

    @jax.jit
    def run(params):
        total, (metrics, _) = encoder.loss(
            jax.random.key(0), params, (), batch, jnp.zeros(()), cfg=heavy, training=False
        )
        return total, metrics

    total, metrics = run(params)
    want = metrics["one_step"] + metrics["free"] + 2 * metrics["kl"] + 0.5 * metrics["density"]
    np.testing.assert_allclose(total, want, rtol=1e-5)
    assert float(encoder.temperature(jnp.zeros(()), cfg=CFG)) == pytest.approx(1.0)
    assert float(encoder.temperature(jnp.ones(()), cfg=CFG)) == pytest.approx(0.3)


def test_series_too_short_for_lags_and_window_are_refused():
    with pytest.raises(ValueError, match="7 times leave 3 of history"):
        encoder.init(jax.random.key(0), cfg=CFG, num_nodes=NODES, num_times=7)
    with pytest.raises(ValueError, match=r"density is 1\.0"):
        EncoderConfig(density=1.0)
