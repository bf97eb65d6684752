import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.simulate import channel_lags
from wmjax.simulate.channel_lags import LagConfig

CFG = LagConfig(shops=30, times=60)


@pytest.fixture(scope="module")
def world():
    return jax.jit(lambda key: channel_lags.simulate(key, cfg=CFG))(jax.random.key(2))


def test_only_mediators_and_target_receive_and_no_target_is_degenerate():
    draw = jax.jit(jax.vmap(lambda key: channel_lags.draw(key, cfg=CFG)))
    graph = np.asarray(draw(jax.random.split(jax.random.key(0), 20)).graph)[:, :3].reshape(-1, 8, 8)
    assert np.all(graph[:, :, :5] == 0)
    count = graph[:, :-1, -1].sum(1)
    assert count.min() >= 1
    assert count.max() <= 6
    assert np.all(graph[:, -1] == 0)


def test_roots_are_white_and_every_shop_has_its_own(world):
    roots = np.asarray(world[2])[:, :, :5]
    assert abs(roots.std() - 0.1) < 0.003
    flat = roots[:, :, 0]
    assert np.abs(np.corrcoef(flat) - np.eye(30)).max() < 0.7
    assert abs(np.corrcoef(flat[:, 1:].ravel(), flat[:, :-1].ravel())[0, 1]) < 0.12  # 5 standard errors


def test_values_follow_the_kernels(world):
    truth, noise, values = world
    x, kernel = np.asarray(values, np.float64), np.asarray(truth.kernel, np.float64)
    for shop, time, node in ((0, 20, 7), (1, 30, 6), (2, 59, 5)):
        total = sum(kernel[shop, lag - 1, i, node] * x[shop, time - lag, i] for lag in range(1, 8) for i in range(8))
        expected = np.tanh(total) + CFG.noise * float(noise[shop, CFG.lags + time, node])
        np.testing.assert_allclose(x[shop, time, node], expected, atol=1e-5)


def test_an_impulse_reaches_children_for_seven_steps(world):
    truth, noise, values = world
    roll = jax.jit(lambda add: channel_lags.roll_out(truth, noise, add, cfg=CFG))
    graph = np.asarray(truth.graph)
    still = jnp.zeros((30, 60, 8))
    base = np.asarray(roll(still))
    np.testing.assert_allclose(base, values, atol=1e-5)
    change = np.asarray(roll(still.at[:, 30, 4].set(0.2))) - base
    assert np.all(change[:, :30] == 0)
    for child in (5, 6):
        linked = graph[:, 4, child] > 0
        alone = linked & (graph[:, 5, 6] == 0) if child == 6 else linked
        assert np.all(change[~linked & (graph[:, 4, 5] == 0)][:, :, child] == 0)
        assert np.all(change[alone][:, 38:, child] == 0)
        assert np.all(np.abs(change[linked][:, 31:38, child]).max(1) > 0)
