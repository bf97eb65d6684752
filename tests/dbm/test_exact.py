import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.dbm import oracles
from wmjax.core.errors import UserError
from wmjax.core.visible import Visible
from wmjax.dbm import exact

LAYERS = {"bits": Visible.bernoulli(6), "categories": oracles.CATEGORIES, "mixed": oracles.MIXED}
log_partition = jax.jit(exact.log_partition, static_argnames="visible")
free_energy = jax.jit(exact.free_energy, static_argnames="visible")
marginals = jax.jit(exact.marginals, static_argnames="visible")
posterior = jax.jit(exact.posterior, static_argnames="visible")
likelihood_gradient = jax.jit(exact.likelihood_gradient, static_argnames="visible")


def rows_of(visible):
    """List all states of a layer, each with other values of its Gaussian units."""
    rows = oracles.visible_states(visible)
    units = oracles.gaussian_units(visible)
    rows[:, units] = np.random.default_rng(0).normal(size=(len(rows), len(units)))
    return jnp.asarray(rows, jnp.float32)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        *(("bits", sizes) for sizes in oracles.SIZES.values()),
        ("categories", (6, 4, 3)),
        ("mixed", (6, 4, 3, 2)),
    ],
)
def test_log_partition_free_energy_and_probabilities(kind, sizes):
    params, visible = oracles.machine(sizes), Visible.bernoulli(sizes[0]) if kind == "bits" else LAYERS[kind]
    rows = rows_of(visible)
    log_z, free = log_partition(params, visible=visible), free_energy(params, rows, visible=visible)
    np.testing.assert_allclose(log_z, oracles.log_z(params, visible), rtol=1e-6)
    np.testing.assert_allclose(free, oracles.free_energy(params, rows, visible), rtol=2e-6, atol=2e-6)
    if kind != "mixed":
        np.testing.assert_allclose(np.exp(-free - log_z).sum(), 1.0, atol=3e-6)
        states = {tuple(row) for row in exact.visible_states(visible)}
        assert states == {tuple(row) for row in np.asarray(rows)}


def test_either_colour_is_enumerated_where_it_is_smaller():
    """Many visible units and few hidden ones, then the reverse: both are within reach and both are right."""
    wide, tall = oracles.machine((13, 2), scale=0.3), oracles.machine((2, 13), scale=0.3)
    np.testing.assert_allclose(
        log_partition(wide, visible=Visible.bernoulli(13)), oracles.log_z(wide, Visible.bernoulli(13)), rtol=1e-6
    )
    np.testing.assert_allclose(
        log_partition(tall, visible=Visible.bernoulli(2)), oracles.log_z(tall, Visible.bernoulli(2)), rtol=1e-6
    )


def test_more_states_than_a_chunk_and_no_multiple_of_it():
    """3^2 * 2^11 = 18,432 states are a chunk of 16,384 and a bit: the second one is padded and the padding not counted.

    Without couplings log Z is the sum of the units' own.
    """
    visible = Visible.pack(
        [
            ("a", "softmax", ("a1", "a2", "a3")),
            ("b", "softmax", ("b1", "b2", "b3")),
            ("c", "bernoulli", tuple("cdefghijklm")),
        ]
    )
    params = oracles.machine((17, 15))
    params = params._replace(weights=(0 * params.weights[0],))
    b, c = (np.asarray(x, np.float64) for x in params.biases)
    expected = (
        oracles.log_sum(b[:3]) + oracles.log_sum(b[3:6]) + np.logaddexp(0, b[6:]).sum() + np.logaddexp(0, c).sum()
    )
    np.testing.assert_allclose(log_partition(params, visible=visible), expected, rtol=1e-6)
    np.testing.assert_allclose(marginals(params, visible=visible)[1], oracles.sigmoid(c), rtol=1e-5)


def test_many_rows_take_few_states_at_once(monkeypatch):
    """64 rows and room for 3 states of each: the 8 states of h2 are two chunks and a padded one."""
    monkeypatch.setattr(exact, "_CELLS", 64 * 3)
    params, visible = oracles.machine((6, 4, 3, 2)), Visible.bernoulli(6)
    got = jax.jit(lambda p, v: exact.free_energy(p, v, visible=visible))(params, rows_of(visible))
    np.testing.assert_allclose(got, oracles.free_energy(params, rows_of(visible), visible), rtol=2e-6, atol=2e-6)


def test_density_of_a_gaussian_unit_integrates_to_one():
    params, visible = oracles.machine((6, 4, 3, 2)), oracles.MIXED
    rows = np.repeat(oracles.visible_states(visible), len(oracles.GRID), axis=0).astype(np.float32)
    rows[:, 5] = np.tile(oracles.GRID, len(rows) // len(oracles.GRID))
    logs = -free_energy(params, jnp.asarray(rows), visible=visible) - log_partition(params, visible=visible)
    np.testing.assert_allclose(np.exp(logs).sum() * (oracles.GRID[1] - oracles.GRID[0]), 1.0, atol=5e-6)


def test_marginals_and_posteriors():
    params, visible = oracles.machine((6, 4, 3, 2)), oracles.MIXED
    row = rows_of(visible)[2]
    for got, expected in zip(marginals(params, visible=visible), oracles.means(params, visible), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-6)
    for got, expected in zip(posterior(params, row, visible=visible), oracles.means(params, visible, row), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-6)


def test_likelihood_gradient():
    params, visible = oracles.machine((6, 2, 2, 1)), oracles.CATEGORIES
    rows = rows_of(visible)[::5]
    expected = oracles.likelihood_gradient(params, rows, visible)
    got = likelihood_gradient(params, rows, visible=visible)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_large_machines_are_refused_with_their_count():
    params, visible = oracles.machine((24, 22, 21), scale=0.1), Visible.bernoulli(24)
    with pytest.raises(UserError, match=r"layers h1 needs 4,194,304 states, at most 1,048,576"):
        exact.log_partition(params, visible=visible)
    with pytest.raises(UserError, match=r"layers h2 needs 2,097,152 states"):
        exact.free_energy(params, jnp.zeros(24), visible=visible)
    with pytest.raises(UserError, match="16,777,216 states"):
        exact.visible_states(visible)
    with pytest.raises(UserError, match="Gaussian"):
        exact.visible_states(oracles.MIXED)
