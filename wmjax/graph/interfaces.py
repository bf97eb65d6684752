"""From edge probabilities to the graph that a decoder is given, and the control graphs to swap in.

Probabilities and graphs are `[..., nodes, nodes]`, rows send, columns receive; every result has a zero diagonal. Only a
0/1 graph is a support: a soft edge of any size lets a decoder rescale what passes through it.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from wmjax.core import draws
from wmjax.graph import edges


def _lifted(probability: Array) -> Array:
    """Put the diagonal below every probability, so that no ranking picks it."""
    return jnp.where(edges.off_diagonal(probability.shape[-1]) > 0, probability, -jnp.inf)


def soft(probability: Float[Array, "*axes nodes nodes"]) -> Float[Array, "*axes nodes nodes"]:
    """Pass the probabilities on."""
    return probability * edges.off_diagonal(probability.shape[-1])


def hard(probability: Float[Array, "*axes nodes nodes"], threshold: float = 0.5) -> Float[Array, "*axes nodes nodes"]:
    """Keep edges more probable than `threshold`."""
    return (_lifted(probability) > threshold).astype(probability.dtype)


def top_k(
    probability: Float[Array, "*axes nodes nodes"], k: int, *, per: Literal["target", "graph"] = "target"
) -> Float[Array, "*axes nodes nodes"]:
    """Keep the k most probable senders of every receiver, or the k most probable edges of the graph.

    Ties at the last place are broken by the order of the nodes, so exactly k are kept (all, where k is too large).
    """
    n = probability.shape[-1]
    lifted = _lifted(probability)
    ranked = jnp.swapaxes(lifted, -1, -2) if per == "target" else lifted.reshape(*lifted.shape[:-2], n * n)
    place = jnp.argsort(jnp.argsort(-ranked, axis=-1, stable=True), axis=-1)
    kept = (place < k) & jnp.isfinite(ranked)
    kept = jnp.swapaxes(kept, -1, -2) if per == "target" else kept.reshape(lifted.shape)
    return kept.astype(probability.dtype)


def stability(chosen: Float[Array, "runs *axes nodes nodes"], share: float = 0.7) -> Float[Array, "*axes nodes nodes"]:
    """Keep edges that at least `share` of the runs (seeds, bootstraps) chose."""
    return hard(chosen.mean(0), threshold=share - 1e-6)


def by_validation(
    candidates: Float[Array, "candidates *axes nodes nodes"], error: Float[Array, " candidates"]
) -> Float[Array, "*axes nodes nodes"]:
    """Take the candidate of smallest validation error; among equals the first, so list sparse ones first."""
    return candidates[jnp.argmin(error)]


def none(like: Float[Array, "*axes nodes nodes"]) -> Float[Array, "*axes nodes nodes"]:
    """Give no edge."""
    return jnp.zeros_like(like)


def full(like: Float[Array, "*axes nodes nodes"]) -> Float[Array, "*axes nodes nodes"]:
    """Give every edge."""
    return jnp.broadcast_to(edges.off_diagonal(like.shape[-1]), like.shape).astype(like.dtype)


def reverse(graph: Float[Array, "*axes nodes nodes"]) -> Float[Array, "*axes nodes nodes"]:
    """Turn every edge round."""
    return jnp.swapaxes(graph, -1, -2)


def _shuffled(key: Key[Array, ""], graph: Array, offset: Array | float) -> Array:
    """Deal each receiver's edges to senders at random, senders of larger `offset` first; the in-degrees stay."""
    n = graph.shape[-1]
    lottery = jnp.where(edges.off_diagonal(n) > 0, draws.uniform(key, (n, n)) + offset, -jnp.inf)
    place = jnp.argsort(jnp.argsort(-lottery, axis=-2), axis=-2)
    return (place < graph.sum(-2, keepdims=True)).astype(graph.dtype)


def permuted(key: Key[Array, ""], graph: Float[Array, "*axes nodes nodes"]) -> Float[Array, "*axes nodes nodes"]:
    """Shuffle the senders of every receiver: equal in-degrees, one shuffle for all leading axes."""
    return _shuffled(key, graph, 0.0)


def wrong(key: Key[Array, ""], graph: Float[Array, "*axes nodes nodes"]) -> Float[Array, "*axes nodes nodes"]:
    """Give every receiver as many senders as it has, none of them its own as long as others are left."""
    return _shuffled(key, graph, 1.0 - graph)


def random(key: Key[Array, ""], graph: Float[Array, "*axes nodes nodes"]) -> Float[Array, "*axes nodes nodes"]:
    """Draw as many edges anywhere off the diagonal as the graph has: equal density."""
    n = graph.shape[-1]
    lottery = jnp.where(edges.off_diagonal(n) > 0, draws.uniform(key, (n, n)), -jnp.inf).reshape(n * n)
    place = jnp.argsort(jnp.argsort(-lottery)).reshape(n, n)
    return (place < graph.sum((-1, -2), keepdims=True)).astype(graph.dtype)


def density(graph: Float[Array, "*axes nodes nodes"]) -> Float[Array, "*axes"]:
    """Compute the share of off-diagonal pairs that are edges (for probabilities: their mean)."""
    n = graph.shape[-1]
    return soft(graph).sum((-1, -2)) / (n * (n - 1))


def thresholds(
    probability: Float[Array, "shops nodes nodes"], count: int
) -> Float[Array, "candidates shops nodes nodes"]:
    """List hard graphs of growing density, from `count` equally spaced quantiles of the probabilities.

    The candidates of the validation-error interface, sparsest first; `count` graphs from density 0 to 1 - 1 / count.
    """
    off = _off_values(probability)
    levels = jnp.quantile(off, 1 - jnp.arange(count) / count)
    return jax.vmap(lambda level: (_lifted(probability) > level).astype(probability.dtype))(levels)


def _off_values(probability: Float[Array, "*axes nodes nodes"]) -> Float[Array, " values"]:
    senders, receivers = edges.off_diagonal_pairs(probability.shape[-1])
    return probability[..., senders, receivers].ravel()


def entropy(probability: Float[Array, "*axes nodes nodes"]) -> Float[Array, ""]:
    """Compute the mean entropy of the off-diagonal probabilities in nats: 0 for a saturated graph, at most log 2."""
    p = jnp.clip(_off_values(probability), 1e-7, 1 - 1e-7)
    return -jnp.mean(p * jnp.log(p) + (1 - p) * jnp.log1p(-p))


def is_support(graph: Float[Array, "*axes nodes nodes"]) -> Bool[Array, ""]:
    """Tell whether a graph is a true support: every entry 0 or 1, nothing on the diagonal."""
    diagonal = jnp.diagonal(graph, axis1=-2, axis2=-1)
    return jnp.all((graph == 0) | (graph == 1)) & jnp.all(diagonal == 0)
