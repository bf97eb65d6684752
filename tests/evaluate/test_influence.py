import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.evaluate import influence
from wmjax.evaluate.influence import InfluenceConfig
from wmjax.graph import decoder, edges
from wmjax.graph.decoder import DecoderConfig

CFG = DecoderConfig(hidden=8, embedding=3)
NODES, TIMES, SHOPS, STEPS = 5, 8, 6, 4
IMPULSE = InfluenceConfig()


def roll(params, graph, history):
    return decoder.rollout(params, graph, history, cfg=CFG, steps=STEPS)


@pytest.fixture(scope="module")
def setting():
    """Two random decoders, a chain 0 -> 1 -> 4 with a side edge 3 -> 4, and histories."""

    @jax.jit
    def draw(key):
        keys = jax.random.split(key, 2)
        params = jax.vmap(lambda k: decoder.init(k, cfg=CFG, num_nodes=NODES))(jax.random.split(keys[0], 2))
        return jax.tree.map(lambda a: 2 * a + 0.1, params), jax.random.normal(keys[1], (SHOPS, TIMES, NODES))

    params, history = draw(jax.random.key(0))
    graph = np.zeros((NODES, NODES), np.float32)
    graph[0, 1] = graph[1, 4] = graph[3, 4] = 1
    graphs = np.broadcast_to(
        np.stack([np.zeros_like(graph), graph, graph.T, 1 - np.eye(NODES)])[:, None], (4, SHOPS, NODES, NODES)
    ).astype(np.float32)
    return params, jnp.asarray(graphs), history


@pytest.fixture(scope="module")
def swap():
    unit = jnp.ones(NODES)
    return jax.jit(
        lambda params, graphs, history: influence.swap(
            roll, params, graphs, history, cfg=IMPULSE, input_sd=unit, output_sd=unit, chunk=5
        )
    )


@pytest.fixture(scope="module")
def found(swap, setting):
    return swap(*setting)


def test_a_swap_is_the_plain_loop(found, setting):
    params, graphs, history = setting
    plain = jax.jit(roll)
    for which, g in ((0, 1), (1, 3), (1, 2)):
        one = jax.tree.map(lambda a, which=which: a[which], params)
        total = np.zeros((STEPS, NODES, NODES))
        for shop in range(SHOPS):
            base = np.asarray(plain(one, graphs[g, shop], history[shop]), np.float64)
            for i in range(NODES):
                push = np.zeros((TIMES, NODES), np.float32)
                push[-1, i] = 0.5
                total[:, i] += np.abs(np.asarray(plain(one, graphs[g, shop], history[shop] + push)) - base) / SHOPS
        np.testing.assert_allclose(found.one_step[which, g], total[0], atol=2e-6)
        np.testing.assert_allclose(found.rolled[which, g], total.mean(0), atol=2e-6)


def test_influence_is_exactly_zero_where_no_short_path_leads(found, setting):
    for g in range(4):
        graph = setting[1][g, 0]
        for steps, matrix in ((1, found.one_step), (STEPS, found.rolled)):
            may = np.asarray(edges.reachable(graph, steps)) | np.eye(NODES, dtype=bool)
            assert np.all(np.asarray(matrix)[:, g][:, ~may] == 0.0)
            assert np.all(np.asarray(matrix)[:, g][:, may] > 0)
    # 0 reaches the target by way of 1: AR-CIG counts it and CIG does not.
    assert np.all(found.one_step[:, 1, 0, 4] == 0)
    assert np.all(found.rolled[:, 1, 0, 4] > 0)


@pytest.mark.parametrize("window", [1, 3])
def test_what_precedes_the_push_is_listened_to_once_and_nothing_changes(setting, window):
    params, graphs, history = setting
    cfg, unit = InfluenceConfig(window=window), jnp.ones(NODES)
    heard = []

    def listen(own, graph, early):
        heard.append(early.shape)
        return decoder.remember(own, graph, early, cfg=CFG)

    def go_on(own, graph, memory, rest):
        heard.append(rest.shape)
        return decoder.go_on(own, graph, memory, rest, cfg=CFG, steps=STEPS)

    ask = {"cfg": cfg, "input_sd": unit, "output_sd": unit, "chunk": 5}
    whole = jax.jit(lambda *x: influence.swap(roll, *x, **ask))(params, graphs, history)
    parts = jax.jit(lambda *x: influence.swap(influence.Resumable(listen, go_on), *x, **ask))(params, graphs, history)
    assert heard == [(TIMES - window, NODES), (window, NODES)]
    np.testing.assert_allclose(parts.rolled, whole.rolled, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(parts.rolled == 0, whole.rolled == 0)


def test_a_swap_recompiles_nothing(swap, setting, found):
    params, graphs, history = setting
    other = swap(params, graphs[::-1], history)
    assert swap._cache_size() == 1
    np.testing.assert_allclose(other.rolled[:, ::-1], found.rolled, atol=1e-6)


def test_memory_is_bounded_by_the_chunk(setting):
    params, graphs, history = setting
    unit = jnp.ones(NODES)

    def temp(times):
        many = jnp.tile(graphs, (times, 1, 1, 1))
        run = jax.jit(
            lambda g: (
                influence.swap(roll, params, g, history, cfg=IMPULSE, input_sd=unit, output_sd=unit, chunk=8).rolled
            )
        )
        return run.lower(many).compile().memory_analysis().temp_size_in_bytes

    small, large = temp(4), temp(16)
    # What grows is the answer itself, two matrices for each pair of graph and shop.
    answer = 12 * 4 * SHOPS * NODES * NODES * 4 * 2
    assert large - small < 4 * answer


def linear(history):
    """Two outputs of three inputs: y0 copies input 0 with decay, y1 sums inputs 0 and 2 of the last two steps."""
    last = history[..., -1, :]
    k = jnp.arange(1, 4)[:, None]
    y0 = last[..., None, :1] * 0.5**k
    y1 = (history[..., -1, 2] + history[..., -2, 2] + last[..., 0])[..., None, None] * jnp.ones((3, 1))
    return jnp.concatenate([y0, y1], -1)


def test_any_function_of_a_panel_can_be_probed():
    history = jax.random.normal(jax.random.key(1), (7, 6, 3))
    run = jax.jit(
        lambda h, sd: influence.influence(linear, h, cfg=IMPULSE, input_sd=sd, output_sd=jnp.array([1.0, 4.0]))
    )
    sd = jnp.array([2.0, 1.0, 3.0])
    got = run(history, sd)
    assert got.rolled.shape == (7, 3, 2)
    one = np.array([[0.5, 0.25], [0.0, 0.0], [0.0, 1.5 / 4]])
    np.testing.assert_allclose(got.one_step, np.broadcast_to(one, (7, 3, 2)), atol=1e-5)
    rolled = one.copy()
    rolled[0, 0] = np.mean([0.5, 0.25, 0.125])
    np.testing.assert_allclose(got.rolled, np.broadcast_to(rolled, (7, 3, 2)), atol=1e-5)
    # Sustained over two steps, input 2 counts twice, and input 0 is heard only at its last step.
    cfg = InfluenceConfig(window=2)
    twice = influence.influence(linear, history, cfg=cfg, input_sd=sd, output_sd=jnp.array([1.0, 4.0]))
    np.testing.assert_allclose(twice.rolled[:, 2, 1], 2 * got.rolled[:, 2, 1], atol=1e-5)
    np.testing.assert_allclose(twice.rolled[:, 0], got.rolled[:, 0], atol=1e-5)


def test_zeroing_takes_an_input_out():
    history = jax.random.normal(jax.random.key(1), (7, 6, 3))
    got = influence.influence(linear, history, cfg=InfluenceConfig(kind="zero"), output_sd=jnp.ones(2))
    np.testing.assert_allclose(got.one_step[:, 0, 0], np.abs(history[:, -1, 0]) / 2, rtol=1e-5)


def test_functions_that_cannot_be_traced_are_probed_on_the_host():
    history = jax.random.normal(jax.random.key(1), (7, 6, 3))

    def host(h):
        return np.asarray(linear(jnp.asarray(np.asarray(h))))

    want = influence.influence(linear, history, cfg=IMPULSE)
    got = influence.influence(host, history, cfg=IMPULSE, traced=False)
    np.testing.assert_allclose(got.rolled, want.rolled, rtol=1e-5, atol=1e-6)


def test_errors_of_a_swap_are_those_of_its_forecasts(setting):
    params, graphs, _ = setting
    values = jax.random.normal(jax.random.key(3), (SHOPS, 14, NODES))
    past, future = influence.windows(values, np.array([8, 10]), length=TIMES, horizon=STEPS)
    np.testing.assert_array_equal(past[3], values[1, 2:10])
    np.testing.assert_array_equal(future[3], values[1, 10:14])
    got = jax.jit(lambda p, g: influence.swap_errors(roll, p, g, past, future, chunk=7))(params, graphs)
    assert got.shape == (2, 4, NODES)
    one = jax.tree.map(lambda a: a[1], params)
    plain = jax.jit(jax.vmap(lambda h: roll(one, graphs[2, 0], h)))
    np.testing.assert_allclose(got[1, 2], ((plain(past) - future) ** 2).mean((0, 1)), rtol=1e-4)
    with pytest.raises(ValueError, match="13 windows cannot be dealt evenly to 6"):
        influence.swap_errors(roll, params, graphs, jnp.zeros((13, 8, NODES)), jnp.zeros((13, 4, NODES)))
    with pytest.raises(ValueError, match="starts 3 to 12"):
        influence.windows(values, np.array([3, 12]), length=8, horizon=4)


def test_alignment_reads_rows_as_senders_and_counts_what_cannot_be_ranked():
    graph = np.zeros((4, 4), np.float32)
    graph[0, 3] = graph[1, 3] = graph[0, 1] = 1
    align = jax.jit(lambda m: influence.alignment(jax.random.key(0), m, jnp.asarray(graph)))
    good = align(jnp.asarray(graph))
    assert float(good.target) == 1
    assert float(good.all) == 1
    assert float(good.columns) == 1
    assert int(good.degenerate) == 2  # columns 0 and 2 have no edge
    assert float(good.target_chance.p_value) > 0.2  # 3 candidates, 2 edges: nothing is proven
    assert float(good.all_chance.p_value) < 0.02
    transposed = align(jnp.asarray(graph.T))
    assert float(transposed.all) < 0.1
    nothing = align(jnp.zeros((4, 4)))
    assert abs(float(nothing.target)) < 1e-7
    assert abs(float(nothing.all)) < 1e-7
    # The diagonal is never looked at.
    assert float(align(jnp.asarray(graph) + 9 * jnp.eye(4)).all) == 1


def test_alignment_of_inputs_with_other_outputs():
    truth = jnp.array([[1.0, 0], [0, 1], [0, 1]])
    got = influence.alignment(jax.random.key(0), truth + 0.01, truth, num_permutations=50)
    assert float(got.target) == 1
    assert float(got.columns) == 1
    some = influence.alignment(
        jax.random.key(0),
        truth,
        truth,
        pairs=np.array([[True, False], [True, True], [False, True]]),
        num_permutations=50,
    )
    assert int(some.degenerate) == 1


def test_what_cannot_be_pushed_is_refused():
    with pytest.raises(ValueError, match="window is 9 and the history has 6"):
        influence.influence(linear, jnp.zeros((6, 3)), cfg=InfluenceConfig(window=9))
    with pytest.raises(ValueError, match="size is 0"):
        InfluenceConfig(size=0.0)
    with pytest.raises(ValueError, match="window is 0"):
        InfluenceConfig(window=0)
