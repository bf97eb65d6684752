"""The encoder's adversary, by kind, and numbers to watch their contest by.

    half, mean, rank    predicts spend; the encoder makes it say a constant
    shuffle             tells (representation, spend) from (representation, spend of another row); the encoder makes it
                        say neither (Wang et al. 2024, ACTIN): full independence, where a constant asks for equal means

Losses of the contest say little of balance: an adversary that is fooled is not one that has nothing to read. So every
evaluation fits a fresh linear probe, which no encoder has trained against.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from wmjax.core.keys import key_for
from wmjax.transformer import losses, network
from wmjax.transformer.tokens import Channels

RIDGE = 1e-3
"""The probe's, as a share of the representation's mean square: it may have directions of no variance."""


def shuffled(
    key: Key[Array, ""], spend: Float[Array, "units time channels"], weights: Float[Array, "units time"]
) -> Float[Array, "units time channels"]:
    """Give each row the spend of a row drawn from all units and periods that have weight, in proportion to it."""
    total = jnp.cumsum(weights.ravel())
    at = jnp.searchsorted(total, jax.random.uniform(key, total.shape) * total[-1], side="right")
    rows = spend.reshape(-1, spend.shape[-1])
    return rows[jnp.minimum(at, len(rows) - 1)].reshape(spend.shape)


def loss(
    params: Any,
    phi: Float[Array, "units time representation"],
    spend: Float[Array, "units time channels"],
    weights: Float[Array, "units time"],
    known: Channels,
    key: Key[Array, ""],
    *,
    kind: str,
) -> Float[Array, ""]:
    """Score the adversary on a representation that its loss does not move.

    Args:
        params: of the spend's head.
        phi: the representation, by the averaged encoder.
        spend: as the adversary sees it, in (0, 1).
        weights: of the rows.
        known: the channels.
        key: of the shuffle.
        kind: see `MediaConfig.confusion`.
    """
    phi = jax.lax.stop_gradient(phi)
    if kind != "shuffle":
        return losses.by_channel(network.predict_spend(params, phi, known), spend, weights)
    real, fake = _both(params, phi, spend, weights, known, key)
    return losses.apart(real, fake, weights)


def confusion(
    against: Any,
    phi: Float[Array, "units time representation"],
    spend: Float[Array, "units time channels"],
    aim: Float[Array, " channels"],
    weights: Float[Array, "units time"],
    known: Channels,
    key: Key[Array, ""],
    *,
    kind: str,
) -> Float[Array, ""]:
    """Score the encoder against a frozen adversary.

    Args:
        against: the averaged parameters of the spend's head.
        aim: what a predicting adversary is made to say of each channel.
        phi, spend, weights, known, key, kind: see `loss`.
    """
    against = jax.lax.stop_gradient(against)
    if kind != "shuffle":
        return losses.by_channel(network.predict_spend(against, phi, known), aim, weights)
    real, fake = _both(against, phi, spend, weights, known, key)
    return losses.undecided(real, fake, weights)


def _both(
    params: Any, phi: Array, spend: Array, weights: Array, known: Channels, key: Key[Array, ""]
) -> tuple[Array, Array]:
    other = shuffled(key, spend, weights)
    return network.tell_apart(params, phi, spend, known), network.tell_apart(params, phi, other, known)


def readouts(
    params: Any,
    phi: Float[Array, "units time representation"],
    spend: Float[Array, "units time channels"],
    weights: Float[Array, "units time"],
    known: Channels,
    key: Key[Array, ""],
    *,
    kind: str,
) -> dict[str, Float[Array, ""]]:
    """Measure what an adversary and a fresh probe read of spend from the representation; means over channels.

    Args:
        params: of the spend's head, averaged.
        phi, spend, weights, known, key, kind: see `loss`; an empty `kind` is no adversary.

    Returns:
        probe_r2, that of a fresh linear probe, fitted on the rows of every other period of 4 and scored on the others;
        probe_chance, the same of shuffled spend. And of the adversary: critic and critic_chance, how well it does and
        would by chance (`shuffle`: share of pairs that it tells; else R2); critic_slope, how steeply its answers hang
        on the representation (root mean square of the gradient's length); said_variance, the variance of its answers
        over that of spend (not of `shuffle`).
    """
    other = shuffled(key_for(key, "chance"), spend, weights)
    both = probe(phi, jnp.concatenate([spend, other], axis=-1), weights)
    found = {"probe_r2": both[: spend.shape[-1]].mean(), "probe_chance": both[spend.shape[-1] :].mean()}
    if not kind:
        return found
    mean = lambda x: losses.mean(x, weights)  # noqa: E731
    if kind == "shuffle":
        real, fake = _both(params, phi, spend, weights, known, key_for(key, "pairs"))
        right = 0.5 * ((real > 0) + 0.5 * (real == 0) + (fake < 0) + 0.5 * (fake == 0))
        found |= {"critic": mean(right.mean(-1)), "critic_chance": jnp.asarray(0.5)}
        said = lambda x: network.tell_apart(params, x, spend, known)  # noqa: E731
    else:
        said = lambda x: network.predict_spend(params, x, known)  # noqa: E731
        told, spread = said(phi), _variance(spend, weights)
        error = jax.vmap(lambda a, b: losses.squared(a, b, weights), in_axes=-1)(told, spend)
        found |= {"critic": (1 - error / spread).mean(), "critic_chance": jnp.zeros(())}
        found["said_variance"] = (_variance(told, weights) / spread).mean()
    slopes = jax.grad(lambda x: jnp.sum(said(x) * weights[..., None]) / spend.shape[-1])(phi)
    slopes = slopes / jnp.maximum(weights, 1e-6)[..., None]
    return found | {"critic_slope": jnp.sqrt(mean(jnp.square(slopes).sum(-1)))}


def _variance(x: Float[Array, "units time channels"], weights: Array) -> Float[Array, " channels"]:
    centre = jnp.einsum("utk,ut->k", x, weights) / jnp.maximum(weights.sum(), 1e-6)
    return jnp.maximum(jnp.einsum("utk,ut->k", (x - centre) ** 2, weights) / jnp.maximum(weights.sum(), 1e-6), 1e-12)


def probe(
    phi: Float[Array, "units time representation"],
    spend: Float[Array, "units time channels"],
    weights: Float[Array, "units time"],
) -> Float[Array, " channels"]:
    """Fit spend linearly to the representation and give each channel's R2 on rows that had no say.

    Periods come in turns of 4, every other one to learn from. 0 is what the mean of those learnt from would reach.
    """
    learns = jnp.arange(phi.shape[1]) // 4 % 2 == 0
    here, there = weights * learns, weights * ~learns
    total = jnp.maximum(here.sum(), 1e-6)
    middle = [jnp.einsum("utk,ut->k", x, here) / total for x in (phi, spend)]
    x, y = phi - middle[0], spend - middle[1]
    square = jnp.einsum("uti,utj,ut->ij", x, x, here)
    square += (RIDGE * jnp.trace(square) / phi.shape[-1] + 1e-6) * jnp.eye(phi.shape[-1])
    slopes = jax.scipy.linalg.solve(square, jnp.einsum("uti,utk,ut->ik", x, y, here), assume_a="pos")
    left = jnp.einsum("utk,ut->k", jnp.square(y - x @ slopes), there)
    return 1 - left / jnp.maximum(jnp.einsum("utk,ut->k", jnp.square(y), there), 1e-12)
