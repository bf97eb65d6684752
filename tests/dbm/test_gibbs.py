"""Every kernel against exact conditionals; the stationary distribution is tested in test_samplers.py.

z bounds are 5 (6e-7 two-sided a statistic); about 150 statistics: false alarm 1e-4 over the file. Keys are fixed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.dbm import oracles
from wmjax.core.visible import Visible
from wmjax.dbm import gibbs, types

CHAINS = 1 << 15
SIZES = (7, 4, 3, 2)
MIXED = Visible.pack(
    [("shop", "softmax", ("a", "b", "c")), ("bit", "bernoulli", ("p", "q")), ("price", "gaussian", ("x", "y"))]
)
VISIBLES = {"bits": Visible.bernoulli(7), "mixed": MIXED}


@pytest.fixture(autouse=True)
def eager():
    """Run op by op, which needs no compilation; the tests that want a compiled program say so."""
    with jax.disable_jit():
        yield


@pytest.fixture(scope="module")
def machine():
    return oracles.machine(SIZES)


def one_state():
    """One state of all layers; the softmax group is one-hot, the Gaussian units are halves."""
    rng = np.random.default_rng(3)
    layers = [rng.integers(0, 2, n).astype(np.float32) for n in SIZES]
    layers[0] = np.array([0, 1, 0, 1, 0, 0.5, -1.5], np.float32)
    return tuple(jnp.asarray(layer) for layer in layers)


def conditional_means(params, layers, index, visible, held=None):
    field = np.asarray(types.fields(params, layers, index), np.float64)
    if index > 0:
        return oracles.sigmoid(field)
    out = field.copy()
    for group in visible.groups:
        part = field[..., group.slice]
        if group.kind == "bernoulli":
            out[..., group.slice] = oracles.sigmoid(part)
        if group.kind == "softmax":
            weight = np.exp(part - part.max(-1, keepdims=True))
            if held is not None:
                weight = weight * np.where(held[group.slice] == 0, 0.0, 1.0)
            out[..., group.slice] = weight / weight.sum(-1, keepdims=True)
    return out


def z_of(samples, means, variances):
    return (np.asarray(samples, np.float64).mean(0) - means) / np.sqrt(variances / len(samples))


@pytest.mark.parametrize("name", VISIBLES)
def test_one_step_draws_from_the_exact_conditionals(machine, name):
    """Odd layers given the start; even layers by averaging their exact means given the odd layers that were drawn."""
    visible, start = VISIBLES[name], one_state()
    layers = tuple(jnp.broadcast_to(layer, (CHAINS, *layer.shape)) for layer in start)
    drawn, means = gibbs.step_with_means(jax.random.key(0), machine, layers, visible=visible)
    for index in (1, 3):
        exact = conditional_means(machine, start, index, visible)
        np.testing.assert_allclose(means[index][0], exact, atol=2e-6)
        assert np.abs(z_of(drawn[index], exact, exact * (1 - exact))).max() < 5
    for index in (0, 2):
        exact = conditional_means(machine, drawn, index, visible)
        np.testing.assert_allclose(means[index], exact, atol=5e-6)
        spread = exact * (1 - exact)
        if name == "mixed" and index == 0:
            spread[:, 5:] = 1.0
        residual = (np.asarray(drawn[index], np.float64) - exact).sum(0) / np.sqrt(spread.sum(0))
        assert np.abs(residual).max() < 5


def test_softmax_groups_stay_one_hot_and_gaussian_units_have_unit_variance(machine):
    layers = tuple(jnp.broadcast_to(layer, (CHAINS, *layer.shape)) for layer in one_state())
    drawn, means = gibbs.step_with_means(jax.random.key(1), machine, layers, visible=MIXED)
    v = np.asarray(drawn[0])
    np.testing.assert_array_equal(np.sort(v[:, :3], axis=1), np.tile([0, 0, 1], (CHAINS, 1)))
    noise = v[:, 5:] - np.asarray(means[0])[:, 5:]
    assert np.abs((noise**2).sum(0) - CHAINS).max() < 5 * np.sqrt(2 * CHAINS)
    assert abs((noise[:, 0] * noise[:, 1]).sum()) < 5 * np.sqrt(CHAINS)


def test_units_of_one_pass_are_independent_given_the_other_colour(machine):
    """Products of all pairs of the 6 odd units, given one even state: 15 covariances."""
    start = one_state()
    layers = tuple(jnp.broadcast_to(layer, (CHAINS, *layer.shape)) for layer in start)
    drawn = gibbs.step(jax.random.key(2), machine, layers, visible=VISIBLES["bits"])
    exact = np.concatenate([conditional_means(machine, start, i, VISIBLES["bits"]) for i in (1, 3)])
    odd = (np.concatenate([drawn[1], drawn[3]], axis=1) - exact) / np.sqrt(exact * (1 - exact))
    z = (odd.T @ odd)[np.triu_indices(6, 1)] / np.sqrt(CHAINS)
    assert np.abs(z).max() < 5


def test_clamped_units_keep_their_values_and_the_rest_is_conditional(machine):
    """A category ruled out, a bit and a Gaussian unit held: held units exact, the free ones as given what is held."""
    mask = jnp.array([True, False, False, True, False, False, True])
    values = jnp.array([0.0, 0, 0, 1, 0, 0, 2.5])
    layers = tuple(jnp.broadcast_to(layer, (CHAINS, *layer.shape)) for layer in one_state())
    clamp = gibbs.Clamp(mask, values)
    drawn, means = gibbs.step_with_means(jax.random.key(3), machine, layers, visible=MIXED, clamp=clamp)
    v = np.asarray(drawn[0])
    np.testing.assert_array_equal(v[:, np.asarray(mask)], np.tile([0.0, 1, 2.5], (CHAINS, 1)))
    np.testing.assert_array_equal(v[:, :3].sum(1), 1)
    held = np.where(np.asarray(mask), np.asarray(values), np.nan)
    exact = conditional_means(machine, drawn, 0, MIXED, held)
    np.testing.assert_allclose(np.asarray(means[0])[:, 1:3], exact[:, 1:3], atol=5e-6)
    residual = (v - exact)[:, [1, 4]].sum(0) / np.sqrt((exact * (1 - exact))[:, [1, 4]].sum(0))
    assert np.abs(residual).max() < 5


def test_a_category_held_on_wins_and_a_visible_layer_held_whole_does_not_move(machine):
    clamp = gibbs.Clamp(jnp.array([False, False, True, False, False, False, False]), jnp.ones(7))
    layers = gibbs.init_layers(jax.random.key(4), machine, visible=MIXED, num_chains=64)
    drawn = gibbs.run(jax.random.key(5), machine, layers, visible=MIXED, num_steps=3, clamp=clamp)
    np.testing.assert_array_equal(drawn[0][:, :3], np.tile([0, 0, 1], (64, 1)))
    whole = gibbs.Clamp(jnp.ones(7, bool), layers[0])
    held = gibbs.run(jax.random.key(6), machine, layers, visible=MIXED, num_steps=3, clamp=whole)
    np.testing.assert_array_equal(held[0], layers[0])
    bits = VISIBLES["bits"]
    held = gibbs.run(jax.random.key(6), machine, layers, visible=bits, num_steps=2, clamp=whole)
    np.testing.assert_array_equal(held[0], layers[0])


def test_extreme_fields_are_certain():
    params = types.DBMParams((jnp.zeros((2, 2)),), (jnp.array([-1e9, 1e9]), jnp.array([200.0, -200.0])))
    layers = gibbs.init_layers(jax.random.key(7), params, visible=Visible.bernoulli(2), num_chains=1000)
    for v, h in (layers, gibbs.step(jax.random.key(8), params, layers, visible=Visible.bernoulli(2))):
        np.testing.assert_array_equal(v, np.tile([0, 1], (1000, 1)))
        np.testing.assert_array_equal(h, np.tile([1, 0], (1000, 1)))


def test_the_same_key_gives_the_same_chains_and_members_equal_single_runs(machine):
    keys, visible = jax.random.split(jax.random.key(9), 3), VISIBLES["bits"]

    def chains(key):
        layers = gibbs.init_layers(key, machine, visible=visible, num_chains=16)
        return gibbs.run(key, machine, layers, visible=visible, num_steps=4)

    with jax.disable_jit(False):
        compiled = jax.jit(jax.vmap(chains))
        together, again = compiled(keys), compiled(keys)
        alone = jax.jit(chains)(keys[1])
    jax.tree.map(np.testing.assert_array_equal, together, again)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1], b), together, alone)


def test_a_single_chain_needs_no_chain_axis(machine):
    out = gibbs.step(jax.random.key(10), machine, one_state(), visible=MIXED)
    assert [layer.shape for layer in out] == [(n,) for n in SIZES]
