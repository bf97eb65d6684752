import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.dbm import oracles
from wmjax.core.visible import Visible
from wmjax.dbm import energy
from wmjax.dbm import packed as colours

DEPTHS = [(5, 4), (5, 4, 3), (6, 4, 3, 2), (5, 4, 3, 2, 3), (4, 3, 2, 3, 2, 2)]


@pytest.mark.parametrize("sizes", DEPTHS)
def test_packing_is_undone_by_unpacking(sizes):
    params = oracles.machine(sizes)
    assert colours.sizes_of(params) == sizes
    again = colours.unpack(colours.pack(params), sizes)
    jax.tree.map(np.testing.assert_array_equal, params, again)
    layers = tuple(b[None] for b in params.biases)
    jax.tree.map(np.testing.assert_array_equal, layers, colours.split(*colours.join(layers), sizes))


@pytest.mark.parametrize("sizes", DEPTHS)
def test_the_packed_energy_is_the_energy(sizes):
    params, rng = oracles.machine(sizes), np.random.default_rng(0)
    layers = tuple(jnp.asarray(rng.integers(0, 2, (7, n)), jnp.float32) for n in sizes)
    machine, (even, odd) = colours.pack(params), colours.join(layers)
    got = -(even @ machine.even + odd @ machine.odd + jnp.einsum("re,eo,ro->r", even, machine.coupling, odd))
    want = energy.energy(params, layers, visible=Visible.bernoulli(sizes[0]))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_only_neighbouring_layers_touch():
    sizes = (3, 2, 4, 1)
    marked = colours.touching(sizes)
    assert marked.sum() == sum(a * b for a, b in itertools.pairwise(sizes))
    np.testing.assert_array_equal(marked[:3, 2:], False)  # v and h3
    np.testing.assert_array_equal(colours.pack(oracles.machine(sizes)).coupling[:3, 2:], 0)
