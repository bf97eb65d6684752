import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from wmjax.graph import neural_granger
from wmjax.graph.neural_granger import NeuralGrangerConfig

NODES, TIMES = 5, 400
CFG = NeuralGrangerConfig(lags=2, hidden=5, steps=400, penalties=(0.05, 0.15, 0.3))
EDGES = np.zeros((NODES, NODES))
EDGES[[0, 0, 1, 2], [1, 2, 3, 4]] = 1


@pytest.fixture(scope="module")
def series():
    """A sparse VAR that no straight line describes: 0 moves 1 and 2 (2 by its square), 1 moves 3, 2 moves 4 late."""
    noise = np.random.default_rng(0).normal(size=(TIMES, NODES))
    x = np.zeros((TIMES, NODES))
    for t in range(2, TIMES):
        last, before = x[t - 1], x[t - 2]
        push = [0, 1.5 * np.tanh(2 * last[0]), last[0] ** 2 - 1, -1.2 * last[1], 1.2 * np.tanh(before[2])]
        x[t] = 0.3 * last + push + 0.5 * noise[t] * (1 + (np.arange(NODES) == 0))
    return jnp.asarray(x, jnp.float32)


@pytest.fixture(scope="module")
def rank():
    return jax.jit(lambda key, x: neural_granger.rank(key, x, cfg=CFG))


def test_the_path_recovers_a_nonlinear_graph(rank, series):
    found = np.asarray(rank(jax.random.key(0), series))
    off = ~np.eye(NODES, dtype=bool)
    assert found[EDGES > 0].min() > found[off & (EDGES == 0)].max()
    assert np.all(np.diagonal(found) == 0)
    # All four edges withstand the strongest penalty but the square's, whose correlation with its cause is 0.
    assert np.sum(found >= len(CFG.penalties)) >= 3


def test_a_strong_enough_penalty_shuts_every_edge(series):
    assert not np.any(neural_granger.fit(jax.random.key(0), series, 50.0, cfg=CFG))


def test_the_windows_hold_the_past_alone(series):
    past, now = neural_granger.windows(series, lags=3)
    x = np.asarray(series, np.float64)
    x = (x - x.mean(0)) / x.std(0)
    for row in (0, 7, len(now) - 1):
        np.testing.assert_allclose(now[row], x[row + 3], atol=1e-4)
        for lag in range(3):
            np.testing.assert_allclose(past[row, :, lag], x[row + 2 - lag], atol=1e-4)


def test_the_smooth_loss_is_the_written_one(series):
    params = jax.tree.map(lambda a: a + 0.1, neural_granger.init(jax.random.key(1), cfg=CFG, num_nodes=NODES))
    past, now = neural_granger.windows(series[:9], lags=CFG.lags)
    p, x, y = jax.tree.map(lambda a: np.asarray(a, np.float64), (params, past, now))
    want = 0.0
    for j in range(NODES):
        for t in range(len(y)):
            inner = p["bias"][j] + sum(x[t, i, k] * p["first"][j, i, k] for i in range(NODES) for k in range(CFG.lags))
            want += (p["constant"][j] + np.tanh(inner) @ p["second"][j] - y[t, j]) ** 2 / len(y)
        want += CFG.ridge * np.sum(p["second"][j] ** 2)
    assert float(neural_granger.smooth_loss(params, past, now, cfg=CFG)) == pytest.approx(want, rel=1e-5)


def test_shortening_is_the_proximal_map():
    block = np.random.default_rng(1).normal(size=(2, 3))
    for by in (0.3, 1.0, 9.0):

        def cost(z, by=by):
            return 0.5 * np.sum((z - block.ravel()) ** 2) + by * np.linalg.norm(z)

        best = optimize.minimize(
            cost, block.ravel() * 0.5, method="Nelder-Mead", options={"fatol": 1e-12, "maxiter": 9999}
        )
        got = np.asarray(neural_granger.shorten(jnp.asarray(block, jnp.float32), by))
        np.testing.assert_allclose(got.ravel(), best.x, atol=1e-3)
    assert not np.any(got)


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(ValueError, match="lags is 0"):
        dataclasses.replace(CFG, lags=0)
    with pytest.raises(ValueError, match="penalties"):
        dataclasses.replace(CFG, penalties=())
