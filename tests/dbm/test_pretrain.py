"""Assembly against its formulas, and the whole way of both schemes against enumeration."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.dbm import oracles
from wmjax.core.visible import Visible
from wmjax.dbm import learn, pretrain, types
from wmjax.dbm.types import DBMConfig

SIZES = (6, 5, 4, 3)
VISIBLE = Visible.bernoulli(6)


@pytest.fixture(scope="module")
def rbms():
    return tuple(oracles.machine(pair, seed=i) for i, pair in enumerate(itertools.pairwise(SIZES)))


@pytest.fixture(scope="module")
def data():
    """Two hidden bits, three noisy copies of each, unevenly: `[2048, 6]`."""
    rng = np.random.default_rng(0)
    cause = rng.random((2048, 2)) < [0.3, 0.6]
    return jnp.asarray(rng.random((2048, 6)) < np.where(np.repeat(cause, 3, axis=1), 0.9, 0.1), jnp.uint8)


def test_the_published_assembly(rbms, data):
    """W2 halved; c1 loses W2 E[h2] and c2 loses W3 E[h3], means of one bottom-up pass with the assembled weights."""
    got = pretrain.assemble(rbms, data, scheme="paper")
    w = [np.asarray(r.weights[0], np.float64) * s for r, s in zip(rbms, (1.0, 0.5, 1.0), strict=True)]
    c = [np.asarray(r.biases[1], np.float64) for r in rbms]
    h1 = oracles.sigmoid(np.asarray(data, np.float64) @ w[0] + c[0])
    h2 = oracles.sigmoid(h1 @ w[1] + c[1])
    h3 = oracles.sigmoid(h2 @ w[2] + c[2])
    want = (np.asarray(rbms[0].biases[0]), c[0] - w[1] @ h2.mean(0), c[1] - w[2] @ h3.mean(0), c[2])
    for a, b in zip((*got.weights, *got.biases), (*w, *want), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_the_textbook_assembly_is_the_mean_of_both_doubled_halves(rbms, data):
    """A hidden layer's log-odds given both neighbours are the mean of those its two machines gave it alone, doubled."""
    got = pretrain.assemble(rbms, data, scheme="textbook")
    rng = np.random.default_rng(1)
    below, above = rng.integers(0, 2, 6), rng.integers(0, 2, 4)
    bottom_up = 2 * below @ np.asarray(rbms[0].weights[0]) + np.asarray(rbms[0].biases[1])
    # The middle machine is halved, so its ordinary weights are what doubling the assembled ones gives.
    top_down = np.asarray(rbms[1].weights[0]) @ above + np.asarray(rbms[1].biases[0])
    state = tuple(jnp.asarray(x, jnp.float32) for x in (below, np.zeros(5), above, np.zeros(3)))
    np.testing.assert_allclose(types.fields(got, state, 1), (bottom_up + top_down) / 2, atol=1e-5)
    np.testing.assert_array_equal(got.weights[2], rbms[2].weights[0])
    np.testing.assert_array_equal(got.biases[0], rbms[0].biases[0])
    np.testing.assert_array_equal(got.biases[3], rbms[2].biases[1])


def test_gains_are_those_of_the_scheme():
    cfg = learn.LearnConfig()
    gains = [pretrain.layer_config(cfg, index=i, depth=3, scheme="textbook").gains for i in range(3)]
    assert gains == [(2.0, 1.0), (1.0, 1.0), (1.0, 2.0)]
    assert pretrain.layer_config(cfg, index=0, depth=1, scheme="textbook").gains == (1.0, 1.0)
    assert pretrain.layer_config(cfg, index=0, depth=3, scheme="paper").gains == (1.0, 1.0)


def test_hidden_rows_are_draws_from_the_layer(rbms, data):
    """8,192 rows: each unit's count within 5 standard deviations of the sum of its probabilities (6e-7 a unit)."""
    rows = jnp.tile(data, (4, 1))
    cfg = pretrain.layer_config(learn.LearnConfig(), index=0, depth=2, scheme="textbook")
    drawn = pretrain.hidden_rows(jax.random.key(0), rbms[0], rows, cfg=cfg)
    assert drawn.dtype == jnp.uint8
    p = oracles.sigmoid(
        2 * np.asarray(rows, np.float64) @ np.asarray(rbms[0].weights[0]) + np.asarray(rbms[0].biases[1])
    )
    assert np.abs(np.asarray(drawn, float).sum(0) - p.sum(0)).max() < 5 * np.sqrt((p * (1 - p)).sum(0).max())


def test_a_fixed_order_is_shuffled_once_with_its_weights(data):
    cfg, machine = pretrain.PAPER, DBMConfig(hidden=(5, 4))
    weights = jnp.arange(2048.0)
    problem = pretrain.layer_problem(
        jax.random.key(1), data, index=0, visible=VISIBLE, machine=machine, cfg=cfg, scheme="paper", weights=weights
    )
    order = np.asarray(problem.weights, int)
    assert (order != np.arange(2048)).any()
    np.testing.assert_array_equal(problem.data, np.asarray(data)[order])
    upper = pretrain.layer_problem(
        jax.random.key(1), data[:, :5], index=1, visible=Visible.bernoulli(5), machine=machine, cfg=cfg, scheme="paper"
    )
    np.testing.assert_array_equal(upper.state.params.biases[0], 0)
    assert upper.state.params.weights[0].shape == (5, 4)


@pytest.mark.parametrize("scheme", ["paper", "textbook"])
def test_a_pretrained_machine_beats_independent_units(scheme, data):
    """Exact mean log-likelihood after assembly: at least half of the way from independent units to the entropy."""
    machine = DBMConfig(hidden=(5, 4), init_scale=0.1)
    base = dataclasses.replace(
        pretrain.PAPER if scheme == "paper" else learn.LearnConfig(gibbs_steps=1), learning_rate=1e-2
    )
    rows, layers = data, []
    for index in range(2):
        visible = pretrain.layer_visible(VISIBLE, index=index, machine=machine)
        cfg = pretrain.layer_config(base, index=index, depth=2, scheme=scheme)
        problem = pretrain.layer_problem(
            jax.random.key(index), rows, index=index, visible=visible, machine=machine, cfg=cfg, scheme=scheme
        )
        state, run = problem.state, jax.jit(functools.partial(learn.epoch, cfg=cfg, visible=visible))
        for number in range(40):
            state, _ = run(jax.random.key(number), state, problem.data)
        layers.append(state.params)
        rows = pretrain.hidden_rows(jax.random.key(9), state.params, problem.data, cfg=cfg)
    params = pretrain.assemble(tuple(layers), data, scheme=scheme)
    x = np.asarray(data, np.float64)
    reached = oracles.log_likelihood(params, x, VISIBLE).mean()
    _, counts = np.unique(x, axis=0, return_counts=True)
    entropy = -(counts / len(x) * np.log(counts / len(x))).sum()
    mean = x.mean(0)
    independent = (mean * np.log(mean) + (1 - mean) * np.log(1 - mean)).sum()
    assert reached > 0.5 * independent - 0.5 * entropy
