"""The two sides of the likelihood gradient, on packed layers: averages given data, averages of the model.

On a GPU, machines of bits take the kernels of `fused`, which compute the same in one piece.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from wmjax.core import bits
from wmjax.core.visible import Visible
from wmjax.dbm import fused, gibbs, meanfield
from wmjax.dbm.centering import Gains
from wmjax.dbm.packed import Packed

PackedLayers = tuple[Float[Array, "rows even"], Float[Array, "rows odd"]]


def moments(layers: PackedLayers, shares: Float[Array, " rows"] | None = None) -> Packed:
    """Average `e o'`, `e` and `o` over rows, by shares that add up to one where rows differ in weight."""
    even, odd = layers
    if shares is None:
        return Packed(even.T @ odd / even.shape[0], even.mean(0), odd.mean(0))
    return Packed((even * shares[:, None]).T @ odd, shares @ even, shares @ odd)


def moments_together(
    data: PackedLayers,
    model: tuple[Float[Array, "chains even"], Float[Array, "chains odd"]],
    shares: Float[Array, " rows"] | None = None,
) -> tuple[Packed, Packed]:
    """Average both sides as `moments`, that of the data by shares, in one array.

    Devices that share rows add arrays up one by one, and each costs the same whatever its size.
    """

    def joint(side: tuple[Array, Array], weigh: Array) -> tuple[Array, Array]:
        even, odd = (jnp.concatenate([x, jnp.ones_like(x[:, :1])], -1) for x in side)
        return even * weigh[:, None], odd

    rows, chains = data[0].shape[0], model[0].shape[0]
    weigh = jnp.full(rows, 1 / rows, data[0].dtype) if shares is None else shares
    sides = [joint(data, weigh), joint(model, jnp.full(chains, 1 / chains, data[0].dtype))]
    if rows == chains:
        even, odd = (jnp.stack([side[at] for side in sides]) for at in (0, 1))
        found = jnp.einsum("sre,sro->seo", even, odd)
    else:
        found = [even.T @ odd for even, odd in sides]
    first, second = (Packed(one[:-1, :-1], one[:-1, -1], one[-1, :-1]) for one in found)
    return first, second


def given_data(
    machine: Packed, v: Float[Array, "rows units"], *, sizes: tuple[int, ...], sweeps: int, gains: Gains = (1.0, 1.0)
) -> PackedLayers:
    """Infer the hidden means of rows by mean field."""

    def plain(machine: Packed, v: Array) -> PackedLayers:
        hidden, odd, _ = meanfield.infer_packed(machine, gains[0] * v, sizes=sizes, sweeps=sweeps)
        return jnp.concatenate([v, hidden], axis=-1), odd

    if not fused.fits(sizes, v, gains):
        return plain(machine, v)
    return fused.or_plain(partial(fused.given_data, sizes=sizes, sweeps=sweeps), plain, machine, v)


def block_chains(
    seeds: UInt32[Array, "steps 2 2"],
    machine: Packed,
    chains: PackedLayers,
    *,
    visible: Visible,
    sizes: tuple[int, ...],
    gains: Gains = (1.0, 1.0),
) -> tuple[PackedLayers, PackedLayers]:
    """Move chains by block Gibbs steps.

    Returns:
        The chains, and the same with the conditional means of the even layers given the odd ones in place of their
        samples: averages of `e o'` over these have less variance (Rao-Blackwell).
    """

    def plain(seeds: Array, machine: Packed, even: Array) -> tuple[Array, Array, Array]:
        def step(carry: tuple, seeds: Array) -> tuple[tuple, None]:
            return gibbs.sweep(seeds, machine, carry[0], visible=visible, gains=gains), None

        (even, odd, field), _ = jax.lax.scan(step, (even, chains[1], even), seeds)
        return even, odd, gibbs.even_means(field, visible=visible)

    args = (seeds, machine, chains[0])
    if visible.all_bernoulli and fused.fits(sizes, chains[0], gains):
        even, odd, means = fused.or_plain(partial(fused.block_chains, sizes=sizes), plain, *args)
    else:
        even, odd, means = plain(*args)
    return (even, odd), (means, odd)


def visible_chains(
    seeds: UInt32[Array, "steps 2 2"],
    machine: Packed,
    chains: PackedLayers,
    *,
    visible: Visible,
    sizes: tuple[int, ...],
    sweeps: int,
    gains: Gains = (1.0, 1.0),
) -> tuple[PackedLayers, PackedLayers]:
    """Move the published chains, whose state is the visible layer alone.

    One step is mean field from one half given v, then h1 drawn from its means, then v drawn given h1 alone. Except for
    one hidden layer this is not a Gibbs sampler of the machine: h2 has no say in v's step but through h1's mean.

    Returns:
        The chains, hidden layers being means, twice.
    """
    num_visible, num_bottom = sizes[:2]

    def plain(seeds: Array, machine: Packed, v: Array) -> PackedLayers:
        def step(v: Array, seeds: Array) -> tuple[Array, None]:
            _, odd, _ = meanfield.infer_packed(machine, gains[0] * v, sizes=sizes, sweeps=sweeps, bottom_only=True)
            bottom = bits.coin(seeds[0], odd[..., :num_bottom])
            field = gains[1] * (bottom @ machine.coupling[:num_visible, :num_bottom].T) + machine.even[:num_visible]
            means = gibbs.visible_means(field, visible=visible)
            return gibbs.draw_visible(seeds[1], means, visible=visible), None

        v, _ = jax.lax.scan(step, v, seeds)
        return given_data(machine, v, sizes=sizes, sweeps=sweeps, gains=gains)

    args = (seeds, machine, chains[0][..., :num_visible])
    if visible.all_bernoulli and fused.fits(sizes, chains[0], gains):
        layers = fused.or_plain(partial(fused.visible_chains, sizes=sizes, sweeps=sweeps), plain, *args)
    else:
        layers = plain(*args)
    return layers, layers
