"""The Causal Transformer as published: its size, its arithmetic in NumPy, what it sees and when, its roll-outs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.transformer import ct, ct_rolling, relative
from wmjax.transformer.ct import CTConfig, Inputs

TIME, BATCH = 9, 2
SMALL = CTConfig(width=4, heads=2, reach=3, representation=3, head_units=5, features=2)
LARGE = CTConfig(width=8, heads=2, reach=3, representation=4, head_units=6, features=3)
OWN = ct.live(SMALL, SMALL)


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda key: ct.init(key, OWN, cfg=SMALL))(jax.random.key(0))


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(0)
    now = np.eye(4)[rng.integers(0, 4, (BATCH, TIME))]
    before = np.concatenate([np.zeros((BATCH, 1, 4)), now[:, :-1]], 1)
    parts = before, rng.normal(size=(BATCH, TIME, 2)), rng.normal(size=(BATCH, 1)), now
    return Inputs(*(jnp.asarray(x, jnp.float32) for x in parts))


@pytest.fixture(scope="module")
def encode():
    return jax.jit(lambda p, x: ct.encode(p["encoder"], x, OWN, cfg=SMALL))


def elu(x):
    return np.where(x > 0, x, np.expm1(x))


def twin(params, given, cfg):
    """One series in float64, head by head, in the order of the published equations."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params["encoder"])
    before, features, static, _ = (np.asarray(x[0], np.float64) for x in given)
    dense = lambda layer, x, *at: x @ layer["w"][at] + layer["b"][at]  # noqa: E731
    size, time = cfg.width // cfg.heads, len(before)

    def norm(at, stream, x):
        z = (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True, ddof=1) + 1e-6)
        return p["norms"]["scale"][at, stream] * z + p["norms"]["offset"][at, stream]

    def attend(query, key, value):
        out = np.zeros((time, cfg.width))
        for h in range(cfg.heads):
            part = slice(h * size, (h + 1) * size)
            for t in range(time):
                at = np.clip(np.arange(t + 1) - t, -cfg.reach, cfg.reach) + cfg.reach
                score = (key[: t + 1, part] + p["positions"]["key"][at]) @ query[t, part] / np.sqrt(size)
                weight = np.exp(score - score.max())
                out[t, part] = weight / weight.sum() @ (value[: t + 1, part] + p["positions"]["value"][at])
        return out

    x = dense(p["treatments"], before), dense(p["outcomes"], features)
    mixed = [np.split(dense(p["mix"], x[s], s), 5, axis=1) for s in range(2)]
    streams = []
    for s in range(2):
        y = norm(0, s, attend(*mixed[s][:3]) + x[s])
        z = norm(1, s, attend(dense(p["query"], y, s), *mixed[1 - s][3:]) + y) + dense(p["static"], static)
        streams.append(norm(2, s, dense(p["down"], np.maximum(dense(p["up"], z, s), 0), s) + z))
    return elu(dense(p["phi"], (streams[0] + streams[1]) / 2))


@pytest.mark.parametrize(
    ("own", "count"),
    [
        (CTConfig(), 9401),
        (CTConfig(representation=8, head_units=32), 9357),
        (CTConfig(width=12, representation=16, head_units=48), 7197),
    ],
)
def test_the_published_sizes(own, count):
    assert ct.size(ct.live(own, own), cfg=own) == count
    holds = CTConfig(width=16, representation=16, head_units=48, features=7)
    assert ct.size(ct.live(own, holds), cfg=holds) == count


def test_the_representation_is_its_twin(params, given, encode):
    np.testing.assert_allclose(encode(params, given)[0], twin(params, given, SMALL), atol=2e-5)


def test_heads_are_their_twins(params, given):
    phi = jnp.asarray(np.random.default_rng(1).normal(size=(BATCH, TIME, 3)), jnp.float32)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    x = np.concatenate([phi, given.now], -1)
    first, second = p["encoder"]["outcome_1"], p["encoder"]["outcome_2"]
    want = (elu(x @ first["w"] + first["b"]) @ second["w"] + second["b"])[..., 0]
    found = ct.outcome(params["encoder"], phi, given.now)
    np.testing.assert_allclose(found, want, atol=1e-5)
    every = ct.outcomes(params["encoder"], phi)
    np.testing.assert_allclose((every * given.now).sum(-1), want, atol=1e-5)
    first, second = p["treatment"]["hidden"], p["treatment"]["logits"]
    want = elu(np.asarray(phi) @ first["w"] + first["b"]) @ second["w"] + second["b"]
    np.testing.assert_allclose(ct.treatment(params["treatment"], phi), want, atol=1e-5)


def test_the_past_is_unchanged_by_the_future_exactly(params, given, encode):
    """So right-padded rows change nothing either: they are the future of those that count."""
    base, t = encode(params, given), 5
    for name in ("before", "features"):
        moved = encode(params, given._replace(**{name: getattr(given, name).at[:, t:].add(0.7)}))
        apart = np.abs(np.asarray(moved - base)).max(2)
        assert (apart[:, :t] == 0).all(), name
        assert (apart[:, t:] > 0).all(), name
    # What is given now reaches the outcome's head alone.
    np.testing.assert_array_equal(encode(params, given._replace(now=1 - given.now)), base)


@pytest.mark.parametrize("distances", [1, 2, 4, TIME, TIME + 3])
def test_spreading_and_gathering_are_each_others_transpose(distances):
    rng = np.random.default_rng(2)
    x, y = jnp.asarray(rng.normal(size=(3, TIME, distances))), jnp.asarray(rng.normal(size=(3, TIME, TIME)))
    found = relative.spread(x)
    for t in range(TIME):
        for s in range(TIME):
            want = x[:, t, min(t - s, distances - 1)] if s <= t else 0.0
            np.testing.assert_array_equal(found[:, t, s], want)
    np.testing.assert_allclose((found * y).sum(), (x * relative.gather(y, distances)).sum(), rtol=1e-5)
    np.testing.assert_allclose(
        jax.grad(lambda x: (relative.spread(x) * y).sum())(x), relative.gather(y, distances), rtol=1e-5
    )
    slope = jax.grad(lambda y: (relative.gather(y, distances) * x).sum())(y)
    np.testing.assert_allclose(slope, found, rtol=1e-5)
    assert relative.spread(x[:0]).shape == (0, TIME, TIME)


def test_a_small_network_in_large_arrays_is_itself(given):
    """Outcomes and gradients are those of small arrays; no gradient reaches a unit that is not in use."""
    own = ct.live(SMALL, LARGE)
    large = jax.jit(lambda key: ct.init(key, own, cfg=LARGE))(jax.random.key(1))
    used = ct._leaves(own, LARGE)
    small = jax.tree.map(
        lambda x, leaf, want: x[np.asarray(leaf.mask) > 0].reshape(want.shape),
        large,
        used,
        jax.eval_shape(lambda key: ct.init(key, OWN, cfg=SMALL), jax.random.key(0)),
    )
    wide = given._replace(features=jnp.pad(given.features, ((0, 0), (0, 0), (0, 1)), constant_values=9.0))

    def loss(p, x, live, cfg):
        phi = ct.encode(p["encoder"], x, live, cfg=cfg)
        told = jnp.square(ct.outcome(p["encoder"], phi, x.now)).sum() + ct.treatment(p["treatment"], phi).sum()
        return told

    want, grads = jax.jit(jax.value_and_grad(lambda p: loss(p, given, OWN, SMALL)))(small)
    found, moved = jax.jit(jax.value_and_grad(lambda p: loss(p, wide, own, LARGE)))(large)
    np.testing.assert_allclose(found, want, rtol=1e-5)
    paths = jax.tree_util.tree_leaves_with_path(moved)
    leaves = jax.tree.leaves(used, is_leaf=lambda x: isinstance(x, ct._Leaf))
    for (path, x), leaf, g in zip(paths, leaves, jax.tree.leaves(grads), strict=True):
        on = np.asarray(leaf.mask) > 0
        np.testing.assert_allclose(np.asarray(x)[on].reshape(g.shape), g, rtol=2e-4, atol=2e-5, err_msg=str(path))
        assert (np.asarray(x)[~on] == 0).all(), path


def test_dropout_hangs_on_its_seed(params, given):
    """A seed decides which units are dropped."""
    run = jax.jit(lambda seed: ct.encode(params["encoder"], given, OWN, cfg=SMALL, seed=seed))
    seeds = np.random.default_rng(3).integers(0, 2**32, (2, ct.SEEDS, 2), dtype=np.uint32)
    assert np.abs(np.asarray(run(seeds[0]) - run(seeds[1]))).max() > 1e-3
    np.testing.assert_array_equal(run(seeds[0]), run(seeds[0]))


def test_new_times_are_whole_passes(params, given, encode):
    """Representations after an origin, from kept keys and values, are those of a pass over the whole series."""
    series = jax.tree.map(lambda x: x[0], given)
    memory = ct_rolling.remember(params["encoder"], series, OWN, cfg=SMALL)
    plans, horizon, keep = 2, 3, 4
    rng = np.random.default_rng(4)
    before = jnp.asarray(np.eye(4)[rng.integers(0, 4, (horizon, TIME, plans))], jnp.float32)
    features = jnp.asarray(rng.normal(size=(horizon, TIME, plans, 2)), jnp.float32)
    fresh = ct_rolling.forget(memory, plans, horizon)
    step = jax.jit(
        lambda fresh, j, b, f: ct_rolling.step(params["encoder"], memory, fresh, j, b, f, series.static, OWN, cfg=SMALL)
    )
    for j in range(horizon):
        fresh, phi = step(fresh, jnp.asarray(j + 1), before[j], features[j])
        for origin in (0, keep):
            parts = []
            for own, new in ((series.before, before), (series.features, features)):
                parts.append(jnp.concatenate([own[: origin + 1], new[: j + 1, origin, 1]]))
            pad = TIME - parts[0].shape[0]
            if pad < 0:
                continue
            whole = [jnp.pad(x, ((0, pad), (0, 0)))[None] for x in parts]
            want = encode(params, Inputs(whole[0], whole[1], series.static[None], jnp.zeros((1, TIME, 4))))
            np.testing.assert_allclose(phi[origin, 1], want[0, origin + j + 1], atol=2e-5)
