import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.graph import edges
from wmjax.simulate import channel_logs
from wmjax.simulate.channel_logs import LogConfig, LogPlan

CFG = LogConfig(shops=20, nodes=6, times=35, graphs=3, strength=0.6)


@pytest.fixture(scope="module")
def world():
    truth, noise, logs = jax.jit(lambda key: channel_logs.simulate(key, cfg=CFG))(jax.random.key(0))
    return truth, noise, logs, jax.jit(lambda plan: channel_logs.roll_out(truth, noise, plan, cfg=CFG))


def add_to(sender, time, amount):
    shape = (CFG.shops, CFG.times, CFG.nodes)
    return LogPlan(jnp.ones(shape), jnp.zeros(shape).at[:, time, sender].set(amount))


def test_graphs_run_down_the_funnel_into_a_sparse_target():
    draw = jax.jit(jax.vmap(lambda key: channel_logs.draw(key, cfg=CFG)))
    graph = np.asarray(draw(jax.random.split(jax.random.key(1), 30)).graph).reshape(-1, 6, 6)
    assert np.all(np.linalg.matrix_power(graph, 6) == 0)
    count = graph[:, :-1, -1].sum(1)
    assert count.min() >= 1
    assert count.max() <= 4
    assert len(set(count.tolist())) > 1
    # Three tiers allow no longer chain of channels than three.
    assert np.all(np.linalg.matrix_power(graph[:, :-1, :-1], 3) == 0)


def test_spends_are_bursty_and_sales_are_positive(world):
    logs = np.asarray(world[2])
    zero = (logs[..., :-1] == 0).mean()
    assert 0.3 < zero < 0.7
    assert np.all(logs[..., -1] > 0)
    running = logs[..., :-1] > 0
    assert running[:, 1:][running[:, :-1]].mean() > running[:, 1:][~running[:, :-1]].mean() + 0.4


def test_counterfactuals_reach_descendants_in_time_and_no_one_else(world):
    truth, _, logs, roll = world
    raw = np.asarray(roll(add_to(0, 0, 0.0)))
    # Two programs of the same sums: float32 of logs below 20.
    np.testing.assert_allclose(channel_logs.to_log(jnp.asarray(raw)), logs, atol=1e-5)
    seen = np.zeros((CFG.nodes, CFG.nodes))
    for sender in range(CFG.nodes):
        change = np.asarray(roll(add_to(sender, 20, 5.0))) - raw
        assert np.all(change[:, :20] == 0)
        for steps in (1, 2):
            reach = np.asarray(edges.reachable(truth.graph, steps))[:, sender] | (np.arange(CFG.nodes) == sender)
            assert np.all(change[:, 20 + steps][~reach] == 0)
        seen[sender] = np.abs(change[:, 21]).max(0) > 0
    assert np.all((seen > 0) >= (np.asarray(truth.graph).max(0) > 0) * (np.arange(6) == 5))


def test_response_is_multiplicative(world):
    truth, _, _, roll = world
    shop, sender = map(int, np.argwhere(np.asarray(truth.graph)[:, :, -1] > 0)[0])
    base, pushed = roll(add_to(sender, 20, 0.0))[shop], roll(add_to(sender, 20, 5.0))[shop]
    memory = (1 - truth.decay[shop, sender]) * (jnp.log1p(pushed[20, sender]) - jnp.log1p(base[20, sender]))
    expected = jnp.exp(truth.weight[shop, sender, -1] * memory)
    np.testing.assert_allclose(pushed[21, -1] / base[21, -1], expected, rtol=1e-4)


def test_a_config_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"stay is 1\.2"):
        LogConfig(stay=1.2)
    with pytest.raises(ValueError, match="nodes is 2"):
        LogConfig(nodes=2)
