import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.dbm import oracles
from wmjax.core.visible import Visible
from wmjax.dbm import gibbs, meanfield, types


@pytest.fixture(autouse=True)
def eager():
    """Run op by op: a dozen shapes compile in no time, while every number of sweeps would be a program of its own."""
    with jax.disable_jit():
        yield


DEPTHS = [(6, 4), (6, 4, 3), (6, 5, 4, 3), (6, 4, 3, 5, 2), (6, 3, 4, 2, 3, 2)]


def sequential(params, v, sweeps, start, free=None, visible=None):
    """Sweep the layers one by one in float64, the free visible units last; the residual is the last sweep's change."""
    weights = [np.asarray(w, np.float64) for w in params.weights]
    biases = [np.asarray(b, np.float64) for b in params.biases]
    means = [np.array(v, np.float64)] + [np.full((len(v), len(b)), start) for b in biases[1:]]

    def field(index):
        total = biases[index] + np.zeros((len(v), 1))
        if index > 0:
            total = total + means[index - 1] @ weights[index - 1]
        return total + means[index + 1] @ weights[index].T if index < len(weights) else total

    def fill(f):
        means[0] = np.where(free, np.asarray(gibbs.visible_means(jnp.asarray(f, jnp.float32), visible=visible)), v)

    if free is not None:
        fill(np.broadcast_to(biases[0], v.shape))
    for _ in range(sweeps):
        old = list(means)
        for index in range(1, len(means)):
            means[index] = oracles.sigmoid(field(index))
        if free is not None:
            fill(field(0))
    residual = np.max([np.abs(a - b).max(1) for a, b in zip(means, old, strict=True)], axis=0)
    return means, residual


@pytest.mark.parametrize("sizes", DEPTHS)
def test_turns_by_colour_equal_sequential_sweeps(sizes):
    params, v = oracles.machine(sizes), oracles.bits(6)[::9]
    for sweeps, start in ((1, 0.5), (2, 0.2), (3, 0.5), (7, 0.2)):
        means, info = meanfield.infer(params, jnp.asarray(v, jnp.float32), sweeps=sweeps, start=start)
        want, residual = sequential(params, v, sweeps, start)
        for got, exact in zip(means, want, strict=True):
            np.testing.assert_allclose(got, exact, atol=2e-6)
        # One hidden layer is exact after one update: nothing is left to move.
        np.testing.assert_allclose(info.residual, residual if len(sizes) > 2 else 0.0, atol=3e-6)


MIXED = Visible.pack(
    [("shop", "softmax", ("a", "b", "c")), ("bit", "bernoulli", ("p", "q")), ("x", "gaussian", ("x",))]
)


@pytest.mark.parametrize("sizes", DEPTHS)
@pytest.mark.parametrize("visible", [Visible.bernoulli(6), MIXED], ids=["bits", "mixed"])
def test_missing_units_are_inferred_in_turn(sizes, visible):
    params = oracles.machine(sizes, scale=0.5)
    v = oracles.bits(6)[::9]
    free = np.array([True, True, True, True, False, True])
    means, _ = meanfield.infer(params, jnp.asarray(v, jnp.float32), sweeps=4, free=jnp.asarray(free), visible=visible)
    want, _ = sequential(params, v, 4, 0.5, free, visible)
    for got, exact in zip(means, want, strict=True):
        np.testing.assert_allclose(got, exact, atol=5e-6)
    np.testing.assert_array_equal(means[0][:, 4], v[:, 4])


def test_a_mask_may_differ_from_row_to_row():
    params, v = oracles.machine((6, 4, 3)), jnp.asarray(oracles.bits(6)[:8], jnp.float32)
    free = jnp.arange(48).reshape(8, 6) % 5 == 0
    together, _ = meanfield.infer(params, v, free=free)
    alone, _ = meanfield.infer(params, v[3], free=free[3])
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a[3], b, atol=1e-6)


def test_info_tells_fixed_points_from_rows_still_moving():
    params, v = oracles.machine((6, 5, 4, 3), scale=1.5), jnp.asarray(oracles.bits(6), jnp.float32)
    _, few = meanfield.infer(params, v, sweeps=2)
    layers, many = meanfield.infer(params, v, sweeps=300)
    assert not few.converged.all()
    assert many.converged.all()
    for index in (1, 2, 3):
        field = types.fields(params, layers, index)
        np.testing.assert_allclose(layers[index], jax.nn.sigmoid(field), atol=1e-5)
    np.testing.assert_array_equal(few.converged, few.residual < 1e-3)


def test_a_tolerance_stops_early_and_zero_does_not():
    params, v = oracles.machine((6, 5, 4)), jnp.asarray(oracles.bits(6), jnp.float32)
    stopped, info = meanfield.infer(params, v, sweeps=1000, tol=1e-3)
    settled, _ = meanfield.infer(params, v, sweeps=1000)
    moved = max(float(jnp.abs(a - b).max()) for a, b in zip(stopped, settled, strict=True))
    assert 1e-6 < moved < 1e-2
    assert info.residual.max() <= 1e-3


def test_under_jit_it_is_the_same_and_has_a_gradient():
    params, v = oracles.machine((6, 5, 4, 3)), jnp.asarray(oracles.bits(6)[:5], jnp.float32)

    def total(bias):
        return sum(layer.sum() for layer in meanfield.infer(params._replace(biases=(*params.biases[:3], bias)), v)[0])

    value = total(params.biases[3])
    with jax.disable_jit(False):
        again, gradient = jax.jit(jax.value_and_grad(total))(params.biases[3])
    np.testing.assert_allclose(again, value, rtol=1e-6)
    step = jnp.array([0.0, 1e-2, 0.0])
    slope = (total(params.biases[3] + step) - total(params.biases[3] - step)) / 2e-2
    np.testing.assert_allclose(gradient[1], slope, rtol=1e-2)


def test_beliefs_are_the_hidden_means_side_by_side():
    params, v = oracles.machine((6, 5, 4, 3)), jnp.asarray(oracles.bits(6)[:5], jnp.float32)
    means, _ = meanfield.infer(params, v, sweeps=6)
    np.testing.assert_array_equal(meanfield.belief(params, v, sweeps=6), np.concatenate(means[1:], axis=1))
    np.testing.assert_array_equal(meanfield.belief(params, v, layers="top", sweeps=6), means[-1])
    np.testing.assert_allclose(
        meanfield.belief(params, v[2], sweeps=6), np.concatenate(means[1:], axis=1)[2], atol=1e-6
    )


def test_no_sweep_is_refused():
    with pytest.raises(ValueError, match="sweeps is 0"):
        meanfield.infer(oracles.machine((6, 4)), jnp.zeros((1, 6)), sweeps=0)
