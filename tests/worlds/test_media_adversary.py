"""What reads spend from a representation: a discriminator on pairs, a fresh probe; and an encoder against it."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wmjax.train import ema
from wmjax.transformer import nets, network, tokens
from wmjax.transformer.config import MMMConfig
from wmjax.worlds.media import adversary

CFG = MMMConfig(width=4, heads=1, code=2, representation=3, head_units=16)
KNOWN = tokens.channels(2, cfg=CFG)
SHAPE = (8, 60)


def drawn(seed, strength):
    """Spend as ranks, and features of which the first two hold it to a degree."""
    rng = np.random.default_rng(seed)
    spend = rng.random((*SHAPE, 2))
    noise = rng.normal(size=(*SHAPE, 4))
    features = noise + np.pad(strength * (spend - 0.5), ((0, 0), (0, 0), (0, 2)))
    return jnp.asarray(spend, jnp.float32), jnp.asarray(features, jnp.float32)


def head(key, discriminates=True):
    asked = 2 * 3 + 2 + 1 if discriminates else 3 + 2
    return nets.draw(key, {"in": nets.linear(asked, 16), "out": nets.linear(16, 1)})


@pytest.fixture(scope="module")
def contest():
    """Train an encoder for a task and, with a weight, against the discriminator; each meets the other's average."""
    weights = jnp.ones(SHAPE)
    quick, slow = optax.adam(1e-2), optax.adam(1e-3)

    # Three times three thousand steps: worth what compiling them well costs.
    @partial(
        jax.jit, compiler_options={"xla_backend_optimization_level": 2, "xla_llvm_disable_expensive_passes": False}
    )
    def run(key, spend, features, weight):
        phi = lambda e: jnp.tanh(features @ e["w"])  # noqa: E731
        task = 0.5 * features[..., 0] + features[..., 2]  # what the encoder is for: a part of it holds spend
        encoder = {"w": jax.random.normal(jax.random.key(5), (4, 3)) * 0.7, "v": jnp.zeros(3)}

        def read(e):
            return jnp.mean((phi(e) @ e["v"] - task) ** 2)

        def step(carry, at):
            (critic, other), (encoder, averaged), opts, count = carry
            a, b = jax.random.split(at)
            grads = jax.grad(adversary.loss)(critic, phi(averaged), spend, weights, KNOWN, a, kind="shuffle")
            change, first = quick.update(grads, opts[0])
            critic = optax.apply_updates(critic, change)
            other = ema.update(other, critic, step=count, decay=0.9)

            def against(e):
                args = other, phi(e), spend, jnp.zeros(2), weights, KNOWN, b
                return read(e) + weight * adversary.confusion(*args, kind="shuffle")

            change, second = slow.update(jax.grad(against)(encoder), opts[1])
            encoder = optax.apply_updates(encoder, change)
            averaged = ema.update(averaged, encoder, step=count, decay=0.9)
            return ((critic, other), (encoder, averaged), (first, second), count + 1), None

        critic = head(key)
        begun = ((critic, critic), (encoder, encoder), (quick.init(critic), slow.init(encoder)), jnp.int32(0))
        ((_, critic), (_, encoder), _, _), _ = jax.lax.scan(step, begun, jax.random.split(key, 3000))
        return critic, phi(encoder), read(encoder) / jnp.var(task)

    def score(strength, weight):
        critic, phi, error = run(jax.random.key(0), *drawn(0, strength), weight)
        told = adversary.readouts(critic, phi, drawn(0, strength)[0], weights, KNOWN, jax.random.key(1), kind="shuffle")
        return {name: float(x) for name, x in told.items()} | {"error": float(error)}

    return score


def test_a_discriminator_finds_spend_and_an_encoder_hides_it(contest):
    """Above chance where the representation carries spend; trained against it, at chance, and a fresh probe too.

    A critic is scored on the 960 pairs that it was trained on: what it makes of a representation without any spend is
    what luck gives it, some hundredths above one half.
    """
    carried, hidden, none = contest(6.0, 0.0), contest(6.0, 300.0), contest(0.0, 0.0)
    assert carried["critic_chance"] == 0.5
    assert carried["critic"] > 0.62
    assert none["critic"] < 0.58
    assert hidden["critic"] < none["critic"] + 0.01
    assert carried["probe_r2"] > 0.3
    assert hidden["probe_r2"] < 0.1
    assert abs(carried["probe_chance"]) < 0.05
    # The part of the task that holds no spend is still done: half of its variance at the least.
    assert hidden["error"] < 0.5


def test_a_probe_is_a_regression_scored_on_other_weeks():
    spend, features = drawn(2, 3.0)
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.integers(0, 2, SHAPE), jnp.float32)
    found = adversary.probe(features, spend, weights)
    learns = np.broadcast_to(np.arange(60) // 4 % 2 == 0, SHAPE)
    w = np.asarray(weights) > 0
    x, y = np.asarray(features, float), np.asarray(spend, float)
    here, there = w & learns, w & ~learns
    mx, my = x[here].mean(0), y[here].mean(0)
    b = np.linalg.lstsq(x[here] - mx, y[here] - my, rcond=None)[0]
    left = y[there] - my - (x[there] - mx) @ b
    want = 1 - (left**2).sum(0) / ((y[there] - my) ** 2).sum(0)
    np.testing.assert_allclose(found, want, atol=5e-3)


def test_shuffled_spend_is_that_of_rows_that_have_weight():
    """Each row in proportion to its weight: 9,600 draws, five standard errors."""
    spend = jnp.broadcast_to(jnp.arange(6.0).reshape(2, 3, 1), (2, 3, 2))
    weights = jnp.asarray([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]])
    found = jax.vmap(lambda k: adversary.shuffled(k, spend, weights))(jax.random.split(jax.random.key(0), 1600))
    values, counts = np.unique(np.asarray(found)[..., 0], return_counts=True)
    assert values.tolist() == [0.0, 2.0, 4.0]
    share = counts / counts.sum()
    assert (abs(share - [0.25, 0.5, 0.25]) < 5 * 0.5 / np.sqrt(9600)).all()
    # All channels of a row together.
    np.testing.assert_array_equal(found[..., 0], found[..., 1])


def test_readouts_of_a_predicting_adversary_are_their_formulas():
    spend, features = drawn(3, 3.0)
    phi, weights = features[..., :3], jnp.asarray(np.random.default_rng(1).integers(0, 2, SHAPE), jnp.float32)
    params = head(jax.random.key(2), discriminates=False)
    told = adversary.readouts(params, phi, spend, weights, KNOWN, jax.random.key(1), kind="half")
    said = np.asarray(network.predict_spend(params, phi, KNOWN), float)[np.asarray(weights) > 0]
    y = np.asarray(spend, float)[np.asarray(weights) > 0]
    assert float(told["critic"]) == pytest.approx((1 - ((said - y) ** 2).mean(0) / y.var(0)).mean(), rel=1e-4)
    assert float(told["said_variance"]) == pytest.approx((said.var(0) / y.var(0)).mean(), rel=1e-4)
    jac = jax.vmap(jax.vmap(jax.jacrev(lambda p: network.predict_spend(params, p, KNOWN).mean())))(phi)
    want = np.sqrt(((np.asarray(jac) ** 2).sum(-1) * np.asarray(weights)).sum() / weights.sum())
    assert float(told["critic_slope"]) == pytest.approx(want, rel=1e-4)
    assert set(adversary.readouts(params, phi, spend, weights, KNOWN, jax.random.key(1), kind="")) == {
        "probe_r2",
        "probe_chance",
    }
