"""One update against NumPy, what learning reaches against enumeration, and what an epoch promises."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.dbm import oracles
from wmjax.core import devices
from wmjax.core.visible import Visible
from wmjax.dbm import gibbs, learn, types
from wmjax.dbm import packed as colours
from wmjax.dbm.learn import LearnConfig

SIZES = (6, 4, 3, 2)
BITS = Visible.bernoulli(6)
MIXED = Visible.pack(
    [("shop", "softmax", ("a", "b", "c")), ("bit", "bernoulli", ("p", "q")), ("x", "gaussian", ("x",))]
)
SMALL = LearnConfig(batch_size=16, num_chains=8, gibbs_steps=2, mean_field_sweeps=3, shuffle=False)


@functools.partial(jax.jit, static_argnames=("cfg", "visible"))
def epoch(key, state, data, weights=None, *, cfg, visible=BITS):
    return learn.epoch(key, state, data, cfg=cfg, visible=visible, weights=weights)


def rows(count=16, visible=BITS, seed=0):
    rng = np.random.default_rng(seed)
    data = (rng.random((count, 6)) < [0.1, 0.3, 0.5, 0.7, 0.9, 0.5]).astype(np.uint8)
    if visible is MIXED:
        data = data.astype(np.float32)
        data[:, :3], data[:, 5] = np.eye(3)[rng.integers(0, 3, count)], rng.normal(size=count)
    return jnp.asarray(data)


def start(cfg, visible=BITS, sizes=SIZES, data=None):
    params = oracles.machine(sizes, scale=0.5)
    return learn.init(
        jax.random.key(1), params, rows(visible=visible) if data is None else data, cfg=cfg, visible=visible
    )


def by_hand(state, after, data, cfg, visible, weights):
    """Recompute the gradient of an only update: data side by sequential mean field, model side from the new chains."""
    params, (up, down) = state.params, cfg.gains
    v = np.asarray(data, np.float64)
    hidden = oracles.mean_field(params, up * v, sweeps=cfg.mean_field_sweeps)[1:]
    shares = np.full(len(v), 1 / len(v)) if weights is None else np.asarray(weights) / np.sum(weights)
    chains = [np.asarray(layer, np.float64) for layer in after.chains]
    if cfg.chains == "block":
        odd = {i: chains[i] for i in range(1, len(chains), 2)}
        for index in range(0, len(chains), 2):
            field = np.asarray(params.biases[index], np.float64) + np.zeros((len(chains[0]), 1))
            if index > 0:
                field = field + down * odd[index - 1] @ np.asarray(params.weights[index - 1])
            if index < len(params.weights):
                field = field + down * odd[index + 1] @ np.asarray(params.weights[index]).T
            chains[index] = oracles.sigmoid(field)
            if index == 0:
                chains[0] = np.asarray(gibbs.visible_means(jnp.asarray(field, jnp.float32), visible=visible))
    else:
        chains[1:] = oracles.mean_field(params, up * chains[0], sweeps=cfg.mean_field_sweeps)[1:]

    def side(layers, shares):
        return (
            [np.einsum("r,ri,rj->ij", shares, a, b) for a, b in itertools.pairwise(layers)],
            [shares @ layer for layer in layers],
        )

    data_w, data_b = side([v, *hidden], shares)
    model_w, model_b = side(chains, np.full(len(chains[0]), 1 / len(chains[0])))
    dw = [m - d for m, d in zip(model_w, data_w, strict=True)]
    db = [m - d for m, d in zip(model_b, data_b, strict=True)]
    weights_now, biases_now = [[np.asarray(x, np.float64) for x in part] for part in params]
    if cfg.centering:
        old = colours.split(*state.offsets, colours.sizes_of(params))
        offset = [0.99 * np.asarray(o, np.float64) + 0.01 * m for o, m in zip(old, data_b, strict=True)]
        for i in range(len(dw)):
            dw[i] = dw[i] - np.outer(offset[i], db[i + 1]) - np.outer(db[i], offset[i + 1])
            lower_is_even = i % 2 == 0
            biases_now[i] = biases_now[i] + (down if lower_is_even else up) * weights_now[i] @ offset[i + 1]
            biases_now[i + 1] = biases_now[i + 1] + (up if lower_is_even else down) * weights_now[i].T @ offset[i]
    if cfg.objective == "paper":
        dw = [dw[0], *(2 * w for w in dw[1:])]
    wd = float(state.hyper.weight_decay)
    dw = [g + wd * w for g, w in zip(dw, weights_now, strict=True)]
    decay = wd if cfg.decay_biases else 0.0
    return dw, [g + decay * b for g, b in zip(db, biases_now, strict=True)]


SETTINGS = {
    "block": (SMALL, BITS, SIZES, None),
    "weighted, mixed units": (SMALL, MIXED, SIZES, jnp.arange(16.0)),
    "uncentred": (dataclasses.replace(SMALL, centering=False, decay_biases=False), BITS, (6, 4, 3), None),
    "paper": (
        dataclasses.replace(learn.PAPER, batch_size=16, num_chains=8, gibbs_steps=2, shuffle=False),
        BITS,
        SIZES,
        None,
    ),
    "doubled below": (dataclasses.replace(SMALL, gains=(2.0, 1.0), mean_field_sweeps=1), BITS, (6, 4), None),
    "doubled above": (dataclasses.replace(SMALL, gains=(1.0, 2.0), mean_field_sweeps=1), BITS, (6, 4), None),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_one_update_is_the_gradient_by_hand_through_adam(name):
    """Adam's first moment after one update is a tenth of the gradient; the update is its sign times the rate."""
    cfg, visible, sizes, weights = SETTINGS[name]
    cfg = dataclasses.replace(cfg, weight_decay=0.3, learning_rate=1e-2)
    data = rows(visible=visible)
    state = start(cfg, visible, sizes)
    after, _ = epoch(jax.random.key(2), state, data, weights, cfg=cfg, visible=visible)
    dw, db = by_hand(state, after, data, cfg, visible, weights)
    adam = next(s for s in after.moments if hasattr(s, "mu"))
    gradient = colours.unpack(jax.tree.map(lambda m: m / 0.1, adam.mu), sizes)
    for got, want in zip((*gradient.weights, *gradient.biases), (*dw, *db), strict=True):
        np.testing.assert_allclose(got, want, atol=3e-5)
    np.testing.assert_array_equal(np.asarray(adam.mu.coupling)[~colours.touching(sizes)], 0)
    step = [-1e-2 * np.sign(g) for g in dw]
    moved = [a - b for a, b in zip(after.params.weights, state.params.weights, strict=True)]
    for got, want, g in zip(moved, step, dw, strict=True):
        np.testing.assert_allclose(np.asarray(got)[np.abs(g) > 1e-3], want[np.abs(g) > 1e-3], atol=1e-4)
    assert int(after.step) == 1


def test_the_same_key_gives_the_same_bits_and_bytes_or_floats_make_no_difference():
    cfg, data = dataclasses.replace(SMALL, shuffle=True, ema_decay=0.9), rows(40)
    state = start(cfg)
    first, metrics = epoch(jax.random.key(3), state, data, cfg=cfg)
    again, same = epoch(jax.random.key(3), state, data, cfg=cfg)
    jax.tree.map(np.testing.assert_array_equal, (first, metrics), (again, same))
    floats, same = epoch(jax.random.key(3), state, data.astype(jnp.float32), cfg=cfg)
    # Another program may sum in another order.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), (first, metrics), (floats, same))
    other, _ = epoch(jax.random.key(4), state, data, cfg=cfg)
    assert (np.asarray(other.params.weights[0]) != np.asarray(first.params.weights[0])).any()
    assert int(first.step) == 2


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("chains", "num_chains"), [("block", 64), ("visible", 64), ("block", 128)])
def test_one_machine_shared_by_devices_takes_the_same_step(chains, num_chains, weighted):
    """Rows and chains lie in halves on two devices, which draw the same numbers; sums differ by rounding."""
    cfg = dataclasses.replace(SMALL, chains=chains, num_chains=num_chains, batch_size=64)
    share = devices.layout(1, learn.rows_to_share(cfg, 128)).share
    assert share is not None
    data, weights = rows(128), jnp.linspace(0.1, 2, 128) if weighted else None
    state, key = start(cfg, data=data), jax.random.key(2)
    own = jax.jit(functools.partial(learn.epoch, cfg=cfg, visible=BITS, share=share))
    alone, _ = epoch(key, state, data, weights, cfg=cfg)
    placed = devices.place((key, state, data, weights), share, -1)
    halves, metrics = own(*placed[:3], weights=placed[3])
    np.testing.assert_array_equal(halves.chains[0], alone.chains[0])
    for ours, theirs in zip(jax.tree.leaves(halves.params), jax.tree.leaves(alone.params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert np.isfinite(float(metrics["reconstruction"]))
    text = own.lower(*placed[:3], weights=placed[3]).compile().as_text()
    sums = [line for line in text.splitlines() if " all-reduce(" in line and "f32[2,10,7]" in line]
    assert bool(sums) == (num_chains == 64)  # both sides of a step in one array


def test_what_cannot_be_shared_is_not():
    """A batch is no larger than the data; devices must divide it, and have rows enough to be worth their while."""
    cfg = dataclasses.replace(SMALL, batch_size=128, num_chains=128)
    assert learn.rows_to_share(cfg, 100) == 4
    assert [devices.layout(1, n).share is None for n in (32, 64, 65, 128)] == [True, False, True, False]
    assert devices.layout(2, 128).share is None
    assert devices.layout(2, 128).mesh is not None
    state, data = start(cfg, data=rows(101)), rows(101)
    with pytest.raises(ValueError, match="divide 1 rows"):
        learn.epoch(jax.random.key(0), state, data, cfg=cfg, visible=BITS, share=devices.mesh(2))


def test_members_with_their_own_rates_equal_single_runs():
    """Three members of different seeds, rates and decays in one program against one by one, to 1e-5."""
    cfg, data = dataclasses.replace(SMALL, shuffle=True, decay_steps=5.0), rows(64)
    keys = jax.random.split(jax.random.key(5), 3)
    states = jax.vmap(lambda key: learn.init(key, oracles.machine(SIZES, scale=0.5), data, cfg=cfg, visible=BITS))(keys)
    hyper = learn.Hyper(jnp.array([1e-3, 1e-2, 3e-2]), jnp.array([0.0, 1e-3, 1e-1]))
    states = states._replace(hyper=hyper)
    weights = jax.random.exponential(jax.random.key(6), (3, 64))
    run = jax.jit(jax.vmap(functools.partial(learn.epoch, cfg=cfg, visible=BITS), in_axes=(0, 0, None)))
    run = jax.jit(
        jax.vmap(
            lambda key, state, data, weights: learn.epoch(key, state, data, cfg=cfg, visible=BITS, weights=weights),
            in_axes=(0, 0, None, 0),
        )
    )
    together, metrics = run(keys, states, data, weights)
    for member in range(3):
        state = jax.tree.map(lambda leaf: leaf[member], states)  # noqa: B023
        alone, its = epoch(keys[member], state, data, weights[member], cfg=cfg)
        for a, b in zip(jax.tree.leaves((together, metrics)), jax.tree.leaves((alone, its)), strict=True):
            np.testing.assert_allclose(a[member], b, rtol=1e-4, atol=1e-5)


def test_rows_without_weight_teach_nothing():
    cfg = dataclasses.replace(SMALL, batch_size=64)
    kept, strange = rows(16), jnp.ones((16, 6), jnp.uint8)
    state = start(cfg, data=kept)
    both = jnp.concatenate([kept, strange])
    weighted, _ = epoch(jax.random.key(7), state, both, jnp.repeat(jnp.array([2.0, 0.0]), 16), cfg=cfg)
    alone, _ = epoch(jax.random.key(7), state, kept, cfg=cfg)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), weighted.moments, alone.moments)
    nothing, metrics = epoch(jax.random.key(7), state, both, jnp.zeros(32), cfg=cfg)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((nothing.params, metrics)))


def test_the_average_follows_the_parameters_and_is_theirs_when_not_asked_for():
    cfg, data = dataclasses.replace(SMALL, batch_size=4, ema_decay=0.5), rows(8)
    state = start(cfg)
    averages, key = [np.asarray(state.params.weights[0], np.float64)], jax.random.key(8)
    for one in range(2):
        state, _ = epoch(key, state, data[4 * one : 4 * one + 4], cfg=cfg)
        decay = min(0.5, (1 + one) / (10 + one))
        averages.append(decay * averages[-1] + (1 - decay) * np.asarray(state.params.weights[0]))
    np.testing.assert_allclose(state.average.weights[0], averages[-1], atol=1e-6)
    plain, _ = epoch(key, start(SMALL), data, cfg=SMALL)
    jax.tree.map(np.testing.assert_array_equal, plain.params, plain.average)


def test_visible_biases_fit_the_means():
    data = rows(4000, MIXED)
    bias = learn.visible_bias(data, visible=MIXED)
    np.testing.assert_allclose(gibbs.visible_means(bias, visible=MIXED), data.mean(0), atol=1e-5)
    weights = jnp.arange(4000.0)
    weighted = learn.visible_bias(data, visible=MIXED, weights=weights)
    np.testing.assert_allclose(
        gibbs.visible_means(weighted, visible=MIXED), np.average(data, axis=0, weights=weights), atol=1e-5
    )
    never = learn.visible_bias(jnp.zeros((10, 6), jnp.uint8), visible=BITS)
    np.testing.assert_allclose(never, np.log(1e-4 / (1 - 1e-4)), rtol=1e-5)


def known_distribution():
    """Eight units: a category of three as bits, two rare flags that go with one category, and three noisy copies."""
    states, p = oracles.bits(8), np.zeros(256)
    for index, x in enumerate(states):
        if x[:3].sum() != 1:
            continue
        kind = int(np.argmax(x[:3]))
        rates = [[0.02, 0.3, 0.9, 0.8, 0.1], [0.02, 0.02, 0.1, 0.2, 0.9], [0.4, 0.02, 0.1, 0.9, 0.9]][kind]
        p[index] = [0.6, 0.3, 0.1][kind] * np.prod(np.where(x[3:] == 1, rates, 1 - np.array(rates)))
    assert abs(p.sum() - 1) < 1e-9
    return states, p


def test_centring_learns_a_known_distribution_without_pretraining():
    """Expected exact log-likelihood, by enumeration, comes within a quarter nat of minus the entropy (from three times
    as far below), and centring is ahead of the plain gradient after the same steps from the same start.
    """
    seed, (states, p) = 0, known_distribution()
    entropy = -(p[p > 0] * np.log(p[p > 0])).sum()
    data = jnp.asarray(states[np.random.default_rng(seed).choice(256, 8192, p=p)], jnp.uint8)
    visible, found = Visible.bernoulli(8), {}
    for centring in (True, False):
        cfg = LearnConfig(learning_rate=1e-2, decay_steps=500.0, centering=centring, weight_decay=0.0)
        bias = learn.visible_bias(data, visible=visible)
        params = types.init(jax.random.key(seed), bias, cfg=types.DBMConfig(hidden=(8, 4), init_scale=0.1))
        state = learn.init(jax.random.key(seed), params, data, cfg=cfg, visible=visible)
        for number in range(12):
            state, metrics = epoch(jax.random.key(number), state, data, cfg=cfg, visible=visible)
        found[centring] = p @ oracles.log_likelihood(state.params, states, visible)
        assert float(metrics["finite"]) == 1
    begin = p @ oracles.log_likelihood(params, states, visible)
    assert begin < -entropy - 0.75
    assert found[True] > -entropy - 0.25
    assert found[True] > found[False]


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"gibbs_steps": 0},
        {"learning_rate": -1.0},
        {"decay_steps": 0.0},
        {"offset_rate": 0.0},
        {"ema_decay": 1.0},
        {"chains": "free"},
        {"objective": "energy"},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(Exception, match=next(iter(wrong))):
        LearnConfig(**wrong)
