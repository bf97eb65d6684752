import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.dbm import oracles
from wmjax.core.visible import Visible
from wmjax.dbm import meanfield, readout

BITS = Visible.bernoulli(6)
MIXED = Visible.pack(
    [("shop", "softmax", ("a", "b", "c")), ("bit", "bernoulli", ("p", "q")), ("x", "gaussian", ("x",))]
)


@pytest.fixture(scope="module")
def machine():
    return oracles.machine((6, 4, 3))


def field_of(params, v):
    means, _ = meanfield.infer(params, v)
    return np.asarray(means[1], np.float64) @ np.asarray(params.weights[0]).T + np.asarray(params.biases[0])


def test_reconstruction_of_bits_is_binary_cross_entropy(machine):
    v = jnp.asarray(oracles.bits(6)[::5], jnp.float32)
    p = oracles.sigmoid(field_of(machine, v))
    want = -np.mean(np.asarray(v) * np.log(p) + (1 - np.asarray(v)) * np.log(1 - p))
    got = readout.reconstruction(jax.random.key(0), machine, v, visible=BITS)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_reconstruction_of_mixed_units_is_minus_their_log_likelihood(machine):
    v = jnp.array([[0, 1, 0, 1, 0, 0.7], [1, 0, 0, 0, 0, -2.0]])
    f = field_of(machine, v)
    softmax = np.log(np.exp(f[:, :3]).sum(1)) - (f[:, :3] * v[:, :3]).sum(1)
    bits = np.log1p(np.exp(f[:, 3:5])).sum(1) - (f[:, 3:5] * v[:, 3:5]).sum(1)
    gaussian = 0.5 * (v[:, 5] - f[:, 5]) ** 2 + 0.5 * np.log(2 * np.pi)
    got = readout.reconstruction(jax.random.key(0), machine, v, visible=MIXED)
    np.testing.assert_allclose(got, np.mean(softmax + bits + gaussian) / 6, rtol=1e-5)


def test_sampled_reconstruction_counts_wrong_bits(machine):
    """16.118 times the expected error 2 p (1 - p) averaged over h1; 200 keys of 2,048 rows, |z| < 5 (6e-7)."""
    v = jnp.asarray(np.tile(oracles.bits(6), (32, 1)), jnp.float32)
    sampled = jax.jit(lambda key: readout.reconstruction(key, machine, v, visible=BITS, kind="sampled"))
    values = np.array([sampled(key) for key in jax.random.split(jax.random.key(1), 200)], np.float64)
    means, _ = meanfield.infer(machine, jnp.asarray(oracles.bits(6), jnp.float32))
    mu, h = np.asarray(means[1], np.float64), oracles.bits(4)
    chance = np.prod(np.where(h[None] == 1, mu[:, None], 1 - mu[:, None]), axis=2)
    p = oracles.sigmoid(h @ np.asarray(machine.weights[0]).T + np.asarray(machine.biases[0]))
    wrong = np.where(oracles.bits(6)[:, None] == 1, 1 - p[None], p[None])
    want = 16.118096 * np.einsum("rh,rhu->ru", chance, wrong).mean()
    assert abs(values.mean() - want) < 5 * values.std(ddof=1) / np.sqrt(200)
    with pytest.raises(ValueError, match="bits only"):
        readout.reconstruction(jax.random.key(0), machine, v, visible=MIXED, kind="sampled")


def test_metrics_read_the_machine(machine):
    v = jnp.asarray(oracles.bits(6), jnp.float32)
    means, _ = meanfield.infer(machine, v)
    got = readout.metrics(machine, means, v, visible=BITS)
    assert float(got["energy_gap"]) == 0
    assert float(got["finite"]) == 1
    np.testing.assert_allclose(got["activation_h2"], means[2].mean(), rtol=1e-6)
    pushed = machine._replace(
        biases=(machine.biases[0], machine.biases[1] + jnp.array([50.0, -50, 0, 0]), machine.biases[2])
    )
    np.testing.assert_allclose(readout.metrics(pushed, means, v, visible=BITS)["saturated"], 2 / 7)
    broken = machine._replace(weights=(machine.weights[0].at[0, 0].set(jnp.nan), machine.weights[1]))
    assert float(readout.metrics(broken, means, v, visible=BITS)["finite"]) == 0
