import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.graph import causalmmm
from wmjax.graph.causalmmm import CausalMMMConfig
from wmjax.graph.series import Batch

MENDED = CausalMMMConfig(hidden=6, horizon=4)
QUIRKS = dataclasses.replace(MENDED, quirks=True)
NODES, TIMES, SHOPS = 4, 12, 3


@pytest.fixture(scope="module")
def data():
    keys = jax.random.split(jax.random.key(0), 3)
    values = jax.random.normal(keys[0], (SHOPS, TIMES, NODES))
    gate = jax.random.uniform(keys[1], (SHOPS, NODES, NODES)) * (1 - jnp.eye(NODES))
    return values, gate, jax.random.normal(keys[2], (SHOPS, 2))


@pytest.fixture(scope="module")
def models():
    make = {}
    for cfg in (MENDED, QUIRKS):
        init = jax.jit(lambda key, cfg=cfg: causalmmm.init(key, cfg=cfg, num_nodes=NODES, num_times=TIMES))
        params = init(jax.random.key(1))
        stats = {k: v + 0.1 * i for i, (k, v) in enumerate(causalmmm.init_stats(cfg=cfg).items())}
        decode = jax.jit(lambda p, g, v, c, cfg=cfg: causalmmm.decode(p, g, v, c, cfg=cfg))
        read = jax.jit(lambda p, s, v, cfg=cfg: causalmmm.probabilities(p, s, v, cfg=cfg))
        train = jax.jit(
            lambda p, s, v, cfg=cfg: causalmmm.encode(
                p, s, v[:, : causalmmm.seen_times(TIMES, cfg=cfg)], cfg=cfg, training=True
            )
        )
        make[cfg.quirks] = (cfg, params, stats, decode, read, train)
    return make


def test_the_parameter_count_is_the_authors():
    cfg = CausalMMMConfig(quirks=True)
    shapes = jax.eval_shape(lambda: causalmmm.init(jax.random.key(0), cfg=cfg, num_nodes=8, num_times=100))
    size = {name: sum(a.size for a in jax.tree.leaves(part)) for name, part in shapes.items()}
    encoder = ("node_in", "node_out", "edge_in", "edge_out", "heard_in", "heard_out", "last_in", "last_out", "logit")
    in_encoder = sum(n for name, n in size.items() if name in encoder or name.startswith("norm"))
    assert in_encoder == 685_570
    # Their decoder also holds a message network for edge type 0, which no message ever passes.
    unused = (512 * 256 + 256) + (256 * 256 + 256)
    assert sum(size.values()) - in_encoder == 723_463 - unused


def by_hand(cfg, params, gate, values, context):
    """Decode one shop in NumPy float64, edge by edge, as the module's text says."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    relu = lambda v: np.maximum(v, 0)  # noqa: E731
    memory, out, own = np.zeros((NODES, cfg.hidden)), [], None
    for s in range(TIMES - 1):
        truth = s <= TIMES - cfg.horizon if cfg.quirks else s < TIMES - cfg.horizon
        x = values[s] if truth else own
        new_memory, own = np.zeros_like(memory), np.zeros(NODES)
        for j in range(NODES):
            heard = np.zeros(cfg.hidden)
            for i in range(NODES):
                inner = np.tanh(np.r_[memory[i], memory[j]] @ p["message_in"]["w"] + p["message_in"]["b"])
                heard += gate[i, j] * np.tanh(inner @ p["message_out"]["w"] + p["message_out"]["b"]) / NODES
            r = sigmoid(x[j] * p["reset_value"]["w"][0] + heard @ p["reset_heard"]["w"])
            u = sigmoid(x[j] * p["update_value"]["w"][0] + heard @ p["update_heard"]["w"])
            new = x[j] * p["new_value"]["w"][0] + r * (heard @ p["new_heard"]["w"])
            new = sigmoid(new) if cfg.quirks else np.tanh(new)
            new_memory[j] = (1 - u) * new + u * memory[j]
            h = relu(new_memory[j] @ p["out_1"]["w"] + p["out_1"]["b"])
            h = relu(h @ p["out_2"]["w"] + p["out_2"]["b"])
            own[j] = (h @ p["out_3"]["w"] + p["out_3"]["b"])[0]
        memory = new_memory
        shape = max((context @ p["shape"]["w"] + p["shape"]["b"])[0], 0.1)
        half = max((context @ p["half"]["w"] + p["half"]["b"])[0], 0.1)
        floor = max(own[-1], 0.1)
        own[-1] *= floor**shape / (floor**shape + half**shape)
        own = own if cfg.quirks else own + x
        out.append(own)
    return np.array(out)


@pytest.mark.parametrize("quirks", [False, True])
def test_decoding_is_the_written_recursion(models, data, quirks):
    cfg, params, _, decode, _, _ = models[quirks]
    values, gate, context = data
    got = decode(params, gate, values, context)
    for shop in range(SHOPS):
        shop_data = [np.asarray(a[shop], np.float64) for a in (gate, values, context)]
        np.testing.assert_allclose(got[shop], by_hand(cfg, params, *shop_data), rtol=1e-4, atol=1e-5)


def test_the_mended_form_forecasts_the_whole_window_and_the_quirk_one_step_less(models, data):
    values, gate, context = data
    last = TIMES - MENDED.horizon  # the first time of the window
    changed = values.at[:, last].add(1.0)
    for quirks, same in ((False, True), (True, False)):
        _, params, _, decode, _, _ = models[quirks]
        before, after = np.asarray(decode(params, gate, values, context)), decode(params, gate, changed, context)
        assert np.array_equal(before[:, last:], np.asarray(after)[:, last:]) is same
        np.testing.assert_array_equal(before[:, :last], np.asarray(after)[:, :last])


def test_only_the_quirk_reads_the_forecast_window(models, data):
    values = data[0]
    changed = values.at[:, -1].add(3.0)
    for quirks, same in ((False, True), (True, False)):
        _, params, stats, _, read, _ = models[quirks]
        before = np.asarray(read(params, stats, values))
        assert np.array_equal(before, np.asarray(read(params, stats, changed))) is same
        assert np.all(np.diagonal(before, axis1=1, axis2=2) == 0)


def test_batched_quirks_normalise_each_shop_as_if_it_were_alone(models, data):
    values = data[0]
    other = values.at[1:].multiply(3.0)
    for quirks, same in ((True, True), (False, False)):
        _, params, stats, _, _, train = models[quirks]
        first, _ = train(params, stats, values)
        second, _ = train(params, stats, other)
        assert np.allclose(first[0], second[0], atol=1e-5) is same


def test_running_statistics_move_a_tenth_of_the_way_and_only_in_training(models, data):
    cfg, params, stats, _, _, train = models[False]
    seen = np.asarray(data[0], np.float64)[:, : TIMES - cfg.horizon]
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    elu = lambda v: np.where(v > 0, v, np.expm1(np.minimum(v, 0)))  # noqa: E731
    rows = elu(
        elu(seen.transpose(0, 2, 1) @ p["node_in"]["w"] + p["node_in"]["b"]) @ p["node_out"]["w"] + p["node_out"]["b"]
    )
    rows = rows.reshape(-1, cfg.hidden)
    _, after = train(params, stats, data[0])
    want = 0.9 * np.asarray(stats["node"]) + 0.1 * np.stack([rows.mean(0), rows.var(0, ddof=1)])
    np.testing.assert_allclose(after["node"], want, rtol=1e-4, atol=1e-5)
    assert set(after) == set(stats)


def test_the_encoder_tells_sender_from_receiver(models, data):
    _, params, stats, _, read, _ = models[False]
    q = np.asarray(read(params, stats, data[0]))
    assert np.abs(q - q.transpose(0, 2, 1)).max() > 1e-3
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(read(params, stats, data[0][:, :, order]), q[:, order][:, :, order], atol=1e-5)


def test_the_data_term_drowns_the_prior(models, data):
    values, _, context = data
    cfg, params, stats, *_ = models[False]
    batch = Batch(values, jnp.zeros((SHOPS, NODES, NODES)), context)
    total, (metrics, _) = jax.jit(
        lambda p: causalmmm.loss(jax.random.key(0), p, stats, batch, jnp.zeros(()), cfg=cfg, training=False)
    )(params)
    nll = float(metrics["mse"]) * (TIMES - 1) / (2 * 5e-7)
    assert float(total) == pytest.approx(100 * float(metrics["kl"]) + nll, rel=1e-4)
    assert nll > 1e4 * abs(100 * float(metrics["kl"]))
    # Negative entropy summed over the pairs, a node: from -(nodes - 1) log 2 to 0.
    assert -(NODES - 1) * np.log(2) <= float(metrics["kl"]) <= 0
