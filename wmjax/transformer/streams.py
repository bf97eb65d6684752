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
from wmjax.transformer.attention import Kept, Relative
from wmjax.transformer.config import MMMConfig
from wmjax.transformer.nets import Params

STREAMS = 3
SEEDS = 7
"""Dropouts of one stream's layer: three attentions, what itself and others said, twice the feed-forward."""


class Cache(NamedTuple):
    """What a roll-out keeps: own [blocks, streams, *units, ..], of the attention to itself; others [blocks, streams, 2,
    *units, ..].
    """

    own: Kept
    others: Kept


class View(NamedTuple):
    """What queries may see: `seen` [.., queries, rows], and the relative positions of the pairs."""

    seen: Bool[Array, "*units queries rows"]
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
    observed: Bool[Array, "*units rows"],
    at: Int[Array, ""] | None = None,
    *,
    cfg: MMMConfig,
) -> View:
    """Let each query see itself and the observed rows before it; queries are all rows, or that of period `at` alone."""
    rows = jnp.arange(observed.shape[-1])
    ago = (rows if at is None else at[None])[:, None] - rows
    seen = (ago == 0) | ((ago > 0) & observed[..., None, :])
    return View(seen, attention.look_up(tables, None if at is None else ago, cfg=cfg))


def empty_cache(units: tuple[int, ...], time: int, *, cfg: MMMConfig) -> Cache:
    """Give the memory of a roll-out that has seen nothing."""
    lead, rows = (cfg.blocks, STREAMS), (*units, cfg.heads, time, cfg.width // cfg.heads)
    own, others = jnp.zeros((*lead, *rows)), jnp.zeros((*lead, STREAMS - 1, *rows))
    return Cache(Kept(own, own), Kept(others, others))


def run(
    params: Params,
    x: Float[Array, "3 *units queries width"],
    static: Float[Array, "*units width"],
    look: View,
    cache: Cache | None = None,
    first: Int[Array, ""] | int = 0,
    *,
    cfg: MMMConfig,
    seeds: UInt32[Array, "blocks 3 7 *units 2"] | None = None,
) -> tuple[Float[Array, "3 *units queries width"], Cache | None]:
    """Run all blocks on the queries, which are all periods, or those at `first`, `first + 1`, ..

    Units are an axis behind the streams', and not one to map over: products want it there, and mapped, it would lie in
    front and be moved back and forth at each of them.

    Args:
        params: see `leaves`.
        x: the streams' inputs.
        static: what is fixed about the unit, added in every layer.
        look: see `view`.
        cache: keys and values of earlier periods; the queries' own are written into it. None: queries are all periods,
            and none are kept.
        first: time of the first query, where there is a cache.
        seeds: of dropout; None in use.
    """

    def block(x: Array, inputs: tuple[Params, Cache | None, Array | None]) -> tuple[Array, Cache | None]:
        own, kept, drawn = inputs
        # Every stream is normed for its own attention and for two others': standardised once for all three.
        even = nets.standardise(x)
        others = jnp.stack([jnp.roll(even, -1, 0), jnp.roll(even, -2, 0)], axis=1)
        layer = jax.vmap(lambda p, x, e, o, c, s: _layer(p, x, e, o, static, look, c, first, s, cfg=cfg))
        return layer(own, x, even, others, kept, drawn)

    # Blocks are few. Rolled up, what the way back needs is laid out for all of them, a fifth of a training step.
    return jax.lax.scan(block, x, (params, cache, seeds), unroll=True)


def _layer(
    params: Params,
    x: Float[Array, "*units queries width"],
    even: Float[Array, "*units queries width"],
    others: Float[Array, "2 *units queries width"],
    static: Float[Array, "*units width"],
    look: View,
    cache: Cache | None,
    first: Int[Array, ""] | int,
    seeds: UInt32[Array, "7 *units 2"] | None,
    *,
    cfg: MMMConfig,
) -> tuple[Float[Array, "*units queries width"], Cache | None]:
    """Run one stream's layer; `even` and `others` are its own input and the two others', standardised."""
    drop = (lambda at, y: y) if seeds is None else (lambda at, y: nets.dropout(seeds[at], y, cfg.dropout))
    mine, theirs = (jax.tree.map(lambda p, at=at: p[at], params["attention"]) for at in (0, slice(1, None)))

    def attend(own: Params, kept: Kept, seed: Any, query: Array) -> Array:
        return attention.attend(own, look.relative, query, kept, look.seen, cfg=cfg, seed=seed)

    h = nets.rescale(params["norm_self"], even)
    own = attention.project(mine, h, cfg=cfg)
    own = own if cache is None else _write(cache.own, own, first)
    x = x + drop(3, attend(mine, own, None if seeds is None else seeds[0], h))
    h, memories = nets.layer_norm(params["norm_cross"], x), nets.rescale(params["norm_memory"], others)
    heard = jax.vmap(lambda p, m: attention.project(p, m, cfg=cfg))(theirs, memories)
    heard = heard if cache is None else _write(cache.others, heard, first)
    drawn = None if seeds is None else seeds[1:3]
    said = jax.vmap(lambda p, kept, seed: attend(p, kept, seed, h))(theirs, heard, drawn)
    # What both said is one array of each unit, as its seed is one.
    x = x + drop(4, jnp.moveaxis(said, 0, -3)).sum(-3) + static[..., None, :]
    h = nets.layer_norm(params["norm_feed"], x)
    h = drop(5, jax.nn.gelu(nets.dense(params["feed_in"], h)))
    return x + drop(6, nets.dense(params["feed_out"], h)), None if cache is None else Cache(own, heard)


def _write(kept: Kept, new: Kept, first: Int[Array, ""] | int) -> Kept:
    """Put new rows where they belong."""
    return jax.tree.map(lambda old, x: jax.lax.dynamic_update_slice_in_dim(old, x, first, axis=-2), kept, new)
