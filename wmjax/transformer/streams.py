"""Three streams side by side: spend (A), covariates (X) and outcome (Y), each attending to itself and to the others.

Pre-LN layer of one stream, with the other streams' inputs to the block as memories m:

    x <- x + self(LN x);   h = LN x;   x <- x + sum_j cross_j(h, LN m_j) + static;   x <- x + feed_forward(LN x)

The streams of a block have equal shapes and lie on one mapped axis; equal blocks are a scan. In a roll-out each
attention's keys and values are kept, and one period is computed at a time by the same code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from wmjax.transformer import attention, nets
from wmjax.transformer.attention import Relative
from wmjax.transformer.config import MMMConfig
from wmjax.transformer.nets import Params

STREAMS = 3
SEEDS = 7
"""Dropouts of one stream's layer: three attentions, what itself and others said, twice the feed-forward."""


class Cache(NamedTuple):
    """Keys and values of every attention so far: [blocks, streams, 3, time, heads, size]; the 3 are self, cross, cross.

    Periods that are still to come hold zeros and are never seen.
    """

    keys: Float[Array, "*axes time heads size"]
    values: Float[Array, "*axes time heads size"]


class View(NamedTuple):
    """What queries may see: `seen` [queries, rows], and the relative positions of the pairs."""

    seen: Bool[Array, "queries rows"]
    relative: Relative


def leaves(*, cfg: MMMConfig) -> Params:
    """Describe the parameters of all blocks, [blocks, streams, ..]."""
    lead = (cfg.blocks, STREAMS)
    return {
        **{name: nets.norm(cfg.width, lead=lead) for name in ("norm_self", "norm_cross", "norm_memory", "norm_feed")},
        "attention": attention.leaves(cfg=cfg, lead=(*lead, 3)),
        "feed_in": nets.linear(cfg.width, cfg.feed_forward, lead=lead),
        "feed_out": nets.linear(cfg.feed_forward, cfg.width, lead=lead),
    }


def view(
    tables: Params,
    observed: Bool[Array, " rows"],
    at: Int[Array, ""] | None = None,
    *,
    cfg: MMMConfig,
) -> View:
    """Let each query see itself and the observed rows before it; queries are all rows, or that of period `at` alone."""
    rows = jnp.arange(observed.shape[0])
    ago = (rows if at is None else at[None])[:, None] - rows
    return View((ago == 0) | ((ago > 0) & observed), attention.look_up(tables, None if at is None else ago, cfg=cfg))


def empty_cache(time: int, *, cfg: MMMConfig) -> Cache:
    """Give the memory of a roll-out that has seen nothing."""
    shape = (cfg.blocks, STREAMS, 3, time, cfg.heads, cfg.width // cfg.heads)
    return Cache(jnp.zeros(shape), jnp.zeros(shape))


def run(
    params: Params,
    x: Float[Array, "3 queries width"],
    static: Float[Array, " width"],
    look: View,
    cache: Cache,
    first: Int[Array, ""] | int,
    *,
    cfg: MMMConfig,
    seeds: UInt32[Array, "blocks 3 7 2"] | None = None,
) -> tuple[Float[Array, "3 queries width"], Cache]:
    """Run all blocks on the queries, which stand at times `first`, `first + 1`, ..

    Args:
        params: see `leaves`.
        x: the streams' inputs.
        static: what is fixed about the unit, added in every layer.
        look: see `view`.
        cache: keys and values of earlier periods; the queries' own are written into it.
        first: time of the first query.
        seeds: of dropout; None in use.
    """

    def block(x: Array, inputs: tuple[Params, Cache, Array | None]) -> tuple[Array, Cache]:
        own, kept, drawn = inputs
        memories = jnp.stack([x, jnp.roll(x, -1, 0), jnp.roll(x, -2, 0)], axis=1)
        layer = jax.vmap(lambda p, h, m, c, s: _layer(p, h, m, static, look, c, first, s, cfg=cfg))
        return layer(own, x, memories, kept, drawn)

    # Blocks are few. Rolled up, what the way back needs is laid out for all of them, a fifth of a training step.
    return jax.lax.scan(block, x, (params, cache, seeds), unroll=True)


def _layer(
    params: Params,
    x: Float[Array, "queries width"],
    memories: Float[Array, "3 queries width"],
    static: Float[Array, " width"],
    look: View,
    cache: Cache,
    first: Int[Array, ""] | int,
    seeds: UInt32[Array, "7 2"] | None,
    *,
    cfg: MMMConfig,
) -> tuple[Float[Array, "queries width"], Cache]:
    """Run one stream's layer. `memories` are its own input and the two others', `cache` is [3, time, heads, size]."""
    drop = (lambda at, y: y) if seeds is None else (lambda at, y: nets.dropout(seeds[at], y, cfg.dropout))
    inputs = jnp.concatenate(
        [nets.layer_norm(params["norm_self"], memories[:1]), nets.layer_norm(params["norm_memory"], memories[1:])]
    )
    keys, values = jax.vmap(lambda p, m: attention.project(p, m, cfg=cfg))(params["attention"], inputs)
    write = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, first, axis=1)  # noqa: E731
    cache = Cache(write(cache.keys, keys), write(cache.values, values))

    def attend(own: Params, kept: Cache, seed: Any, query: Array) -> Array:
        return attention.attend(own, look.relative, query, kept.keys, kept.values, look.seen, cfg=cfg, seed=seed)

    drawn = None if seeds is None else seeds[:3]
    own, kept, seed = jax.tree.map(lambda p: p[0], (params["attention"], cache, drawn))
    x = x + drop(3, attend(own, kept, seed, inputs[0]))
    h = nets.layer_norm(params["norm_cross"], x)
    others = jax.tree.map(lambda p: p[1:], (params["attention"], cache, drawn))
    heard = jax.vmap(lambda own, kept, seed: attend(own, kept, seed, h))(*others)
    x = x + drop(4, heard).sum(0) + static
    h = nets.layer_norm(params["norm_feed"], x)
    h = drop(5, jax.nn.gelu(nets.dense(params["feed_in"], h)))
    return x + drop(6, nets.dense(params["feed_out"], h)), cache
