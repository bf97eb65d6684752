"""The GPU's kernels, run as plain programs: they give what `phases` gives, draw for draw."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.core import bits
from wmjax.core.visible import Visible
from wmjax.dbm import fused, packed, phases, types
from wmjax.dbm.types import DBMConfig

ROWS, SWEEPS, STEPS = 32, 3, 2
SIZES = [(20, 7), (6, 17, 5), (20, 12, 9, 4), (5, 4, 3, 4, 3)]


def problem(sizes: tuple[int, ...]):
    """Make a machine of uneven layers, rows of bits, seeds of chains, and chains."""
    visible = Visible.bernoulli(sizes[0])
    start = types.init(jax.random.key(0), jnp.full(sizes[0], -0.5), cfg=DBMConfig(hidden=sizes[1:]))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: x + rng.normal(0, 0.5, x.shape).astype(np.float32), start)
    layers = [jnp.asarray(rng.random((ROWS, size)) < 0.4, jnp.float32) for size in sizes]
    return packed.pack(params), packed.join(tuple(layers)), bits.seeds(jax.random.key(3), (STEPS, 2)), visible


def close(found, expected):
    """Compare arrays; a draw is the same unless its threshold lies within a rounding of its word (1 in 10^6)."""
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=2e-6)


@pytest.mark.parametrize("sizes", SIZES)
def test_kernels_are_the_phases(sizes):
    machine, chains, seeds, visible = problem(sizes)
    v = chains[0][:, : sizes[0]]
    infer, move, block = (
        jax.jit(partial(phase, sizes=sizes, interpret=True, **more))
        for phase, more in (
            (fused.given_data, {"sweeps": SWEEPS}),
            (fused.visible_chains, {"sweeps": SWEEPS}),
            (fused.block_chains, {}),
        )
    )
    expected = jax.jit(partial(phases.given_data, sizes=sizes, sweeps=SWEEPS))(machine, v)
    close(infer(machine, v), expected)

    plain = partial(phases.visible_chains, visible=visible, sizes=sizes, sweeps=SWEEPS)
    close(move(seeds, machine, v), jax.jit(plain)(seeds, machine, chains)[0])

    plain = partial(phases.block_chains, visible=visible, sizes=sizes)
    drawn, smooth = jax.jit(plain)(seeds, machine, chains)
    close(block(seeds, machine, chains[0]), (*drawn, smooth[0]))


def test_members_are_a_mapped_axis():
    sizes = SIZES[2]
    machine, chains, seeds, _ = problem(sizes)
    machines = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), machine)
    both = jnp.stack([seeds, seeds + np.uint32(1)])
    kernel = jax.jit(partial(fused.block_chains, sizes=sizes, interpret=True))
    found = jax.jit(jax.vmap(kernel, (0, 0, None)))(both, machines, chains[0])
    for at in range(2):
        close([x[at] for x in found], kernel(both[at], jax.tree.map(lambda x, at=at: x[at], machines), chains[0]))


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend:DeprecationWarning")
def test_kernels_compile_for_cuda():
    """As far as can be seen without one: the program for a GPU holds a Triton kernel a phase."""
    device = getattr(jax.sharding, "AbstractDevice", None)
    use = getattr(jax.sharding, "use_abstract_mesh", None)
    if device is None or use is None:
        pytest.skip("this JAX cannot describe a device that is not there")
    sizes = SIZES[2]
    machine, chains, seeds, _ = problem(sizes)

    def phase(seeds, machine, even):
        v = even[:, : sizes[0]]
        return (
            fused.given_data(machine, v, sizes=sizes, sweeps=SWEEPS),
            fused.visible_chains(seeds, machine, v, sizes=sizes, sweeps=SWEEPS),
            fused.block_chains(seeds, machine, even, sizes=sizes),
        )

    hopper = device(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
    with use(jax.sharding.AbstractMesh((1,), ("x",), abstract_device=hopper)):
        program = jax.jit(phase).trace(seeds, machine, chains[0]).lower(lowering_platforms=("cuda",)).as_text()
    assert program.count("xla.gpu.triton") >= 3


def test_only_what_fits_takes_the_kernels(monkeypatch):
    rows = jnp.zeros((ROWS, 20))
    assert not fused.fits(SIZES[2], rows, (1.0, 1.0))  # there is no GPU here
    if fused.triton is None:
        pytest.skip("this JAX has no Triton backend")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert fused.fits(SIZES[2], rows, (1.0, 1.0))
    assert not fused.fits(SIZES[2], rows, (2.0, 1.0))
    assert not fused.fits(SIZES[2], rows[:5], (1.0, 1.0))
    assert not fused.fits((4096, 512), rows, (1.0, 1.0))
