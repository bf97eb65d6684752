"""What members of an ensemble differ by, in balance: the periods they learn from and the centres of their priors.

A member is a draw of the posterior, roughly: its periods are weighed by a bootstrap of blocks and the centres of its
priors are drawn from them (randomised maximum a posteriori; Lu and Van Roy 2017, Pearce et al. 2020). Few independent
draws have a mean that is far from the posterior's. Here all members together learn from every period equally often
(balanced bootstrap; Davison, Hinkley and Schechtman 1986) and their centres have the priors' own mean, so that the mean
of the members is, to first order, that of many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from wmjax.core import draws
from wmjax.core.keys import key_for
from wmjax.transformer.response import Curves


class Luck(NamedTuple):
    """One member's, or with a leading axis all members'.

    weights: [time], of the periods. curves: how far the centres of its curves' priors are moved, in their standard
    deviations. beliefs: [lots], the same of its beliefs about returns, see `lots`. Over members both have variance 1
    where squares are divided by one less than there are members, as intervals have it.
    """

    weights: Float[Array, "*m time"]
    curves: Curves
    beliefs: Float[Array, "*m lots"]


def lots(believed: Sequence[int], channels: int) -> list[int]:
    """Say where in `Luck.beliefs` each belief's is: of the first about a channel its own, of others after the channels.

    Two tests of one channel err apart; another belief about it leaves the first's luck, and all else's, as it was.

    Args:
        believed: the channel that each belief is about.
        channels: how many.
    """
    more = iter(range(channels, channels + len(believed)))
    return [next(more) if at in believed[:n] else at for n, at in enumerate(believed)]


def balanced(
    key: Key[Array, ""],
    train: Bool[np.ndarray, " time"],
    *,
    channels: int,
    members: int,
    block: int,
    further: int = 0,
) -> Luck:
    """Draw all members' luck; one alone has none.

    Args:
        key: of the ensemble.
        train: marks the periods that teach.
        channels: how many.
        members: how many.
        block: most periods in a block; 0 lets every member learn from all periods once.
        further: beliefs beyond the first about their channel.
    """

    def noise_of(name: str, *shape: int) -> Float[Array, "members ..."]:
        drawn = draws.normal(key_for(key, name), (members, *shape)) if members > 1 else jnp.zeros((1, *shape))
        return drawn - drawn.mean(0)

    noise = noise_of("priors", 5, channels)
    told = noise[:, 4]
    if further:
        told = jnp.concatenate([told, noise_of("beliefs", further)], axis=1)
    weights = jnp.tile(jnp.asarray(train, jnp.float32), (members, 1))
    if members > 1 and block:
        weights = _blocks(key_for(key, "blocks"), train, members, block)
    return Luck(weights, Curves(*jnp.moveaxis(noise[:, :4], 1, 0)), told)


def _blocks(
    key: Key[Array, ""], train: Bool[np.ndarray, " time"], members: int, block: int
) -> Float[Array, "members time"]:
    """Cut the periods, bent to a ring, into blocks once a member, from a start of chance, and deal all blocks out."""
    periods = np.flatnonzero(train)
    count = len(periods)
    blocks = -(-count // block)
    starts = jax.random.randint(key_for(key, "starts"), (members, 1), 0, count)
    place = (jnp.arange(count) - starts) % count * blocks // count
    owner = jax.random.permutation(key_for(key, "deal"), members * blocks).reshape(members, blocks) // blocks
    owners = jnp.take_along_axis(owner, place, axis=1)
    held = (owners == jnp.arange(members)[:, None, None]).sum(1)
    return jnp.zeros((members, len(train))).at[:, periods].set(held)
