import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.graph import decoder
from wmjax.graph.decoder import DecoderConfig
from wmjax.graph.series import Batch

CFG = DecoderConfig(hidden=8, embedding=3, horizon=4, first=4, stride=3)
NODES, TIMES = 5, 9
SEEDS = range(4)


@jax.jit
def _draw(key):
    keys = jax.random.split(key, 4)
    params = decoder.init(keys[0], cfg=CFG, num_nodes=NODES)
    params = jax.tree.map(lambda a: 3.0 * a + 0.3, params)
    edge = jax.random.uniform(keys[1], (NODES, NODES)) < 0.3
    strength = jnp.where(jax.random.bernoulli(keys[2], 0.5, edge.shape), 1.0, 0.2)
    return params, edge * strength, jax.random.normal(keys[3], (TIMES, NODES))


def setting(seed):
    """Random parameters (far larger than at the start), a random asymmetric graph of 0, 1 and soft edges, a history."""
    return _draw(jax.random.key(seed))


@pytest.fixture(scope="module")
def rollout():
    return jax.jit(lambda params, graph, history: decoder.rollout(params, graph, history, cfg=CFG))


@pytest.fixture(scope="module")
def jacobian():
    """`[steps, receiver, times, sender]`."""
    return jax.jit(jax.jacrev(lambda history, params, graph: decoder.rollout(params, graph, history, cfg=CFG)))


def allowed(graph, edges):
    """Where influence may be: a path of at most `edges` edges, or the node itself."""
    step = (np.asarray(graph) > 0) & ~np.eye(NODES, dtype=bool) | np.eye(NODES, dtype=bool)
    return np.linalg.matrix_power(step.astype(int), edges) > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_without_a_graph_every_cross_node_derivative_is_exactly_zero(jacobian, seed):
    params, graph, history = setting(seed)
    slope = np.asarray(jacobian(history, params, jnp.zeros_like(graph)))
    cross = ~np.eye(NODES, dtype=bool)
    assert slope.dtype == np.float32
    assert np.all(slope.transpose(0, 2, 1, 3)[:, :, cross] == 0.0)
    assert np.all(slope[0, np.arange(NODES), -1, np.arange(NODES)] != 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_derivatives_are_exactly_zero_where_no_short_path_leads(jacobian, seed):
    params, graph, history = setting(seed)
    slope = np.asarray(jacobian(history, params, graph))
    reached = 0
    for step in range(CFG.horizon):
        for time in range(TIMES):
            may = allowed(graph, TIMES - time + step).T  # receiver, sender
            assert np.all(slope[step, :, time][~may] == 0.0)
        reached += np.sum(slope[step, :, -1][allowed(graph, 1 + step).T] != 0)
    assert reached > NODES * CFG.horizon


@pytest.mark.parametrize("seed", SEEDS)
def test_a_push_changes_no_bit_where_no_short_path_leads(rollout, seed):
    params, graph, history = setting(seed)
    for supplied in (graph, jnp.zeros_like(graph)):
        base = np.asarray(rollout(params, supplied, history))
        moved = 0
        for sender in range(NODES):
            push = np.zeros((TIMES, NODES), np.float32)
            push[-1, sender] = 1.7
            pushed = np.asarray(rollout(params, supplied, history + push))
            for step in range(CFG.horizon):
                may = allowed(supplied, 1 + step)[sender]
                np.testing.assert_array_equal(pushed[step][~may], base[step][~may])
                moved += np.sum(pushed[step][may] != base[step][may])
        assert moved > NODES


def test_the_row_sends(rollout):
    params, _, history = setting(0)
    one = jnp.zeros((NODES, NODES)).at[1, 3].set(1.0)
    base = np.asarray(rollout(params, one, history))
    assert rollout(params, one, history.at[-1, 1].add(1.0))[0, 3] != base[0, 3]
    np.testing.assert_array_equal(rollout(params, one, history.at[-1, 3].add(1.0))[:, 1], base[:, 1])


def test_the_diagonal_of_the_graph_is_ignored(rollout):
    params, graph, history = setting(1)
    np.testing.assert_array_equal(rollout(params, graph, history), rollout(params, graph + 5 * jnp.eye(NODES), history))


def test_nodes_are_told_apart_by_embedding_alone(rollout):
    params, graph, history = setting(2)
    order = jnp.array([3, 0, 4, 1, 2])
    renamed = {**params, "embedding": params["embedding"][order]}
    got = rollout(renamed, graph[order][:, order], history[:, order])
    np.testing.assert_allclose(got, rollout(params, graph, history)[:, order], rtol=1e-5, atol=1e-5)


def by_hand(params, graph, history, steps):
    """The module's formulas in NumPy float64, node by node and edge by edge."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    g = np.asarray(graph, np.float64)
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    memory = np.zeros((NODES, CFG.hidden))
    values, out = np.asarray(history, np.float64), []
    queue = list(values)
    for time in range(len(values) + steps - 1):
        x, new_memory, prediction = queue[time], memory.copy(), np.zeros(NODES)
        for j in range(NODES):
            e = p["embedding"]
            heard = np.zeros(CFG.hidden)
            for i in range(NODES):
                if i != j:
                    sent = np.r_[memory[i], x[i], e[i]] @ p["sender"]["w"] + p["sender"]["b"]
                    sent = sent + np.r_[memory[j], e[j]] @ p["receiver"]["w"] + p["receiver"]["b"]
                    heard += g[i, j] * np.tanh(sent) / np.sqrt(NODES - 1)
            a = np.r_[x[j], heard, e[j]] @ p["gates_input"]["w"] + p["gates_input"]["b"]
            b = memory[j] @ p["gates_memory"]["w"] + p["gates_memory"]["b"]
            n = CFG.hidden
            reset, update = sigmoid(a[:n] + b[:n]), sigmoid(a[n : 2 * n] + b[n : 2 * n])
            new_memory[j] = (1 - update) * np.tanh(a[2 * n :] + reset * b[2 * n :]) + update * memory[j]
            r = np.tanh(np.r_[new_memory[j], e[j], x[j]] @ p["readout_hidden"]["w"] + p["readout_hidden"]["b"])
            prediction[j] = x[j] + (r @ p["readout"]["w"] + p["readout"]["b"])[0]
        memory = new_memory
        if time >= len(values) - 1:
            out.append(prediction)
            queue.append(prediction)
    return np.array(out)


def test_roll_outs_are_the_written_formulas(rollout):
    params, graph, history = setting(3)
    params = jax.tree.map(lambda a: a / 3, params)
    np.testing.assert_allclose(rollout(params, graph, history), by_hand(params, graph, history, CFG.horizon), rtol=1e-4)


def test_the_loss_scores_forecasts_that_have_not_seen_their_future(rollout):
    params, graph, _ = setting(0)
    params = jax.tree.map(lambda a: a / 3, params)
    values = jax.random.normal(jax.random.key(9), (3, 12, NODES))
    batch = Batch(values, jnp.broadcast_to(graph, (3, NODES, NODES)), jnp.zeros((3, 0)))
    score = jax.jit(lambda b: decoder.loss(jax.random.key(0), params, (), b, jnp.zeros(()), cfg=CFG, training=True))
    total, (metrics, _) = score(batch)
    errors = [
        np.asarray(rollout(params, graph, values[r, :o])) - np.asarray(values[r, o : o + 4])
        for r in range(3)
        for o in (5, 8)
    ]
    np.testing.assert_allclose(metrics["free"], np.mean(np.square(errors)), rtol=1e-4)
    np.testing.assert_allclose(metrics["mse7"], np.mean(np.square(errors)[..., -1]), rtol=1e-4)
    np.testing.assert_allclose(total, metrics["one_step"] + metrics["free"], rtol=1e-6)


def test_a_config_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="hidden is 0"):
        DecoderConfig(hidden=0)
    with pytest.raises(ValueError, match="rollout_weight is -1"):
        DecoderConfig(rollout_weight=-1.0)
