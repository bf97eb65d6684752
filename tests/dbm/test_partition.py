import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.dbm import oracles
from wmjax.core.visible import Visible
from wmjax.dbm import energy, partition

STATIC = ("visible", "num_temperatures", "num_particles")
ais = jax.jit(partition.ais, static_argnames=STATIC)
MACHINES = {
    "1 hidden": ((6, 4), Visible.bernoulli(6)),
    "2 hidden, mixed": ((6, 4, 3), oracles.MIXED),
    "3 hidden": ((6, 4, 3, 2), Visible.bernoulli(6)),
}
OTHER_BASE = jnp.array([1.0, -1.0, 0.5, -2.0, 0.3, 1.5])


def estimate(params, visible, base):
    return ais(jax.random.key(1), params, visible=visible, base=base, num_temperatures=12, num_particles=8000)


@pytest.mark.parametrize("name", MACHINES)
def test_ais_against_enumeration(name):
    """Within 4 standard errors, from two bases: false alarm 6e-5 a case for a normal error, 4e-4 for the six.

    Few temperatures and many particles: a kernel that does not keep its machine's distribution then shows (with the
    even layers drawn one temperature late, errors are 8 standard errors and more). The effective sample size gates the
    standard error, and the weights must vary: a base equal to the machine would pass any test.
    """
    sizes, visible = MACHINES[name]
    params = oracles.machine(sizes)
    truth = oracles.log_z(params, visible)
    for base in (params.biases[0], OTHER_BASE):
        got = estimate(params, visible, base)
        assert got.log_weights.shape == (8000,)
        assert float(got.ess) > 4000
        assert 2e-3 < float(got.standard_error) < 0.02
        assert abs(float(got.log_z) - truth) < 4 * float(got.standard_error)


def test_standard_error_over_many_small_runs():
    """The 8,000 particles as 160 runs of 50: errors in units of their standard error have sd 1.

    The sd of 160 normal errors is 1 +- 0.056; 0.75 to 1.3 is over 4 of these either side (6e-5) and allows for the
    skewed mean of 50 weights.
    """
    sizes, visible = MACHINES["2 hidden, mixed"]
    params, truth = oracles.machine(sizes), oracles.log_z(oracles.machine(sizes), visible)
    log_weights = estimate(params, visible, OTHER_BASE).log_weights.reshape(160, 50)
    log_z0 = partition.base_log_partition(params, OTHER_BASE, visible=visible)
    runs = jax.vmap(partition.summarise, in_axes=(0, None))(log_weights, log_z0)
    assert 0.75 < float(jnp.std((runs.log_z - truth) / runs.standard_error)) < 1.3


def test_log_z_of_the_base():
    sizes, visible = MACHINES["2 hidden, mixed"]
    params = oracles.machine(sizes)
    bare = jax.tree.map(jnp.zeros_like, params)
    bare = bare._replace(biases=(OTHER_BASE, *bare.biases[1:]))
    got = partition.base_log_partition(params, OTHER_BASE, visible=visible)
    np.testing.assert_allclose(got, oracles.log_z(bare, visible), rtol=1e-6)


def test_summary_of_known_weights():
    """Weights 1, 2, 3, 4: mean 2.5, sd 1.29, so the error of log Z is 1.29 / 2.5 / 2 and the size 10^2 / 30."""
    got = partition.summarise(jnp.log(jnp.array([1.0, 2.0, 3.0, 4.0])), jnp.array(7.0))
    np.testing.assert_allclose(got.log_z, 7 + np.log(2.5), rtol=1e-6)
    np.testing.assert_allclose(got.standard_error, np.std([1, 2, 3, 4], ddof=1) / 2.5 / 2, rtol=1e-6)
    np.testing.assert_allclose(got.ess, 100 / 30, rtol=1e-6)


def test_likelihood_bound_lies_below_the_likelihood():
    sizes, visible = MACHINES["2 hidden, mixed"]
    params = oracles.machine(sizes)
    rows = oracles.visible_states(visible)[::3]
    rows[:, 5] = np.linspace(-2, 2, len(rows))
    truth = oracles.log_likelihood(params, rows, visible)
    log_z = oracles.log_z(params, visible)
    bound = jax.jit(lambda p, v: partition.log_likelihood_bound(p, v, log_z, visible=visible, sweeps=50))(
        params, jnp.asarray(rows, jnp.float32)
    )
    slack = truth - np.asarray(bound)
    assert slack.min() > -1e-5
    assert slack.mean() < 0.5


def test_sizes_that_make_no_estimate_are_refused():
    params = oracles.machine((6, 4))
    with pytest.raises(ValueError, match="num_temperatures is 0 and num_particles is 5"):
        partition.ais(jax.random.key(0), params, visible=Visible.bernoulli(6), num_temperatures=0, num_particles=5)


def test_log_sums_of_gaussian_fields():
    """`log int exp(f x - x^2 / 2) dx` on a grid, at fields of both signs."""
    visible = Visible.pack([("price", "gaussian", ("a", "b"))])
    field = np.array([-1.3, 2.2])
    expected = np.log(np.exp(field[:, None] * oracles.GRID - 0.5 * oracles.GRID**2).sum(1) * 0.1)
    got = energy.visible_log_sums(jnp.asarray(field, jnp.float32), visible=visible)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
