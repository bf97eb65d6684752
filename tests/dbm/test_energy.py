import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.dbm import oracles
from wmjax.core.visible import Visible
from wmjax.dbm import energy

energy_of = jax.jit(energy.energy, static_argnames="visible")
collapsed = jax.jit(
    lambda params, kept, visible: (
        energy.collapsed(params, kept, visible=visible),
        energy.collapsed_terms(params, kept, visible=visible),
    ),
    static_argnames="visible",
)
DEPTHS = sorted(oracles.SIZES)


def random_layers(params, visible, rows, seed=1):
    rng = np.random.default_rng(seed)
    states = oracles.visible_states(visible)
    v = states[rng.integers(len(states), size=rows)]
    v[:, oracles.gaussian_units(visible)] = rng.normal(size=(rows, len(oracles.gaussian_units(visible))))
    hidden = [rng.integers(2, size=(rows, c.shape[0])) for c in params.biases[1:]]
    return tuple(jnp.asarray(x, jnp.float32) for x in (v, *hidden))


@pytest.mark.parametrize("depth", DEPTHS)
def test_energy_equals_loops_over_units_and_couplings(depth):
    params, visible = oracles.machine(oracles.SIZES[depth]), Visible.bernoulli(oracles.SIZES[depth][0])
    layers = random_layers(params, visible, rows=4)
    expected = [oracles.energy(params, row, visible) for row in zip(*layers, strict=True)]
    np.testing.assert_allclose(energy_of(params, layers, visible=visible), expected, atol=2e-6)


def test_energy_of_mixed_units_has_a_parabola_for_gaussians_only():
    params = oracles.machine((6, 4, 3))
    layers = random_layers(params, oracles.MIXED, rows=4)
    expected = [oracles.energy(params, row, oracles.MIXED) for row in zip(*layers, strict=True)]
    np.testing.assert_allclose(energy_of(params, layers, visible=oracles.MIXED), expected, atol=2e-6)


def test_leading_axes_broadcast():
    params, visible = oracles.machine((6, 4, 3)), Visible.bernoulli(6)
    v, h1, h2 = random_layers(params, visible, rows=6)
    whole = energy_of(params, (v[:, None], h1, h2[0]), visible=visible)
    assert whole.shape == (6, 6)
    np.testing.assert_allclose(whole[2, 5], oracles.energy(params, (v[2], h1[5], h2[0]), visible), atol=2e-6)


@pytest.mark.parametrize("visible", [Visible.bernoulli(6), oracles.MIXED], ids=["bits", "mixed"])
@pytest.mark.parametrize("kept", [(0, 2), (1, 3), (0, 1, 3), (1, 2)])
def test_layers_are_summed_out_as_by_enumeration(kept, visible):
    params = oracles.machine((6, 4, 3, 2))
    layers = random_layers(params, visible, rows=1)
    states = oracles.enumerate_states(params, visible, layers[0][0] if 0 in kept else None)
    cuts = oracles.flatten(params).cuts
    match = np.ones(len(states.x), bool)
    for index, part in enumerate(np.split(states.x, cuts, axis=1)):
        if index in kept and index > 0:
            match &= (part == np.asarray(layers[index][0])).all(1)
    expected = -oracles.log_sum(states.log_weights[match])
    got, terms = collapsed(params, {i: layers[i][0] for i in kept}, visible=visible)
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(terms.sum(), expected, rtol=2e-6, atol=2e-6)


def test_neighbours_cannot_be_summed_out_together():
    params = oracles.machine((6, 4, 3, 2))
    with pytest.raises(ValueError, match=r"layers \[1, 2, 3\]"):
        energy.collapsed(params, {0: jnp.zeros(6)}, visible=Visible.bernoulli(6))


def test_the_two_phase_loss_has_the_likelihood_gradient():
    """`grad(E_p(h|v)[E] - E_p(v,h)[E])` with exact phases is minus the slope of the exact mean log-likelihood.

    Neither phase is sampled: every state carries its posterior and its model probability. The slope is a central
    difference of the enumerated log-likelihood in float64, one parameter at a time.
    """
    visible = Visible.pack([("store", "softmax", ("a", "b", "c")), ("flag", "bernoulli", ("x",))])
    params = oracles.machine((4, 3, 2, 2))
    v = oracles.visible_states(visible)[[0, 3, 3, 4]]
    cuts = oracles.flatten(params).cuts

    def phase(states):
        layers = tuple(jnp.asarray(x, jnp.float32) for x in np.split(states.x, cuts, axis=1))
        return layers, jnp.asarray(states.probabilities, jnp.float32)

    positive = [phase(oracles.enumerate_states(params, visible, row)) for row in v]
    negative = phase(oracles.enumerate_states(params, visible))

    def loss(params):
        data = sum(p @ energy.energy(params, layers, visible=visible) for layers, p in positive) / len(v)
        return data - negative[1] @ energy.energy(params, negative[0], visible=visible)

    expected = oracles.likelihood_gradient(params, v, visible)
    for got, slope in zip(jax.tree.leaves(jax.jit(jax.grad(loss))(params)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(-got, slope, atol=2e-6)
