"""Roll-outs of the Causal Transformer from every origin of one series at once.

With one block the keys and values of a time depend on its inputs alone. Those of the observed times are computed once
and shared by all origins and plans, which see them up to their own time; each keeps those of its own new times.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from wmjax.transformer import ct
from wmjax.transformer.ct import CTConfig, Live
from wmjax.transformer.nets import Params


class Memory(NamedTuple):
    """Keys and values of observed times, of a stream for itself and across: [2, time, heads, size]."""

    key: Float[Array, "2 time heads size"]
    value: Float[Array, "2 time heads size"]
    key_across: Float[Array, "2 time heads size"]
    value_across: Float[Array, "2 time heads size"]


class Fresh(NamedTuple):
    """Keys and values of new times, zeros where they have not come: [origins, plans, 2, horizon, heads, size]."""

    key: Float[Array, "origins plans 2 horizon heads size"]
    value: Float[Array, "origins plans 2 horizon heads size"]
    key_across: Float[Array, "origins plans 2 horizon heads size"]
    value_across: Float[Array, "origins plans 2 horizon heads size"]


def remember(params: Params, inputs: ct.Inputs, own: Live, *, cfg: CTConfig) -> Memory:
    """Keep the keys and values of one series' observed times."""
    return Memory(*ct.split(params, ct.embed(params, inputs.before, inputs.features, own), cfg=cfg)[1:])


def forget(memory: Memory, plans: int, horizon: int) -> Fresh:
    """Make room for new times after every origin."""
    _, time, heads, size = memory.key.shape
    return Fresh(*(jnp.zeros((time, plans, 2, horizon, heads, size)) for _ in range(4)))


def step(
    params: Params,
    memory: Memory,
    fresh: Fresh,
    ahead: Int[Array, ""],
    before: Float[Array, "origins plans treatments"],
    features: Float[Array, "origins plans features"],
    static: Float[Array, " statics"],
    own: Live,
    *,
    cfg: CTConfig,
) -> tuple[Fresh, Float[Array, "origins plans representation"]]:
    """Give the representation `ahead` (1, 2, ..) times after each origin."""
    x = ct.embed(params, before[..., None, :], features[..., None, :], own)
    query, *new = ct.split(params, x, cfg=cfg)
    fresh = Fresh(
        *(jax.lax.dynamic_update_slice_in_dim(kept, n, ahead - 1, 3) for kept, n in zip(fresh, new, strict=True))
    )
    scale, tables = ct.scale_of(own, cfg=cfg), params["positions"]
    out = _attend(query, memory[:2], fresh[:2], ahead, tables, scale)
    y, across = ct.after_self(params, x, out, own, cfg=cfg)
    out = _attend(across, memory[2:], fresh[2:], ahead, tables, scale)
    return fresh, ct.after_cross(params, y, out, static, own, cfg=cfg)[..., 0, :]


def _attend(
    query: Array, seen: tuple[Array, ...], new: tuple[Array, ...], ahead: Array, tables: Params, scale: Array
) -> Array:
    """Attend from new times `[origins, plans, 2, 1, heads, size]` to observed and to new ones."""
    query = query[..., 0, :, :]
    reach = (tables["key"].shape[0] - 1) // 2
    rows, late = jnp.arange(seen[0].shape[1]), jnp.arange(new[0].shape[3])
    apart = jnp.clip(rows[:, None] + ahead - rows, 0, reach), jnp.clip(ahead - 1 - late, 0, reach)
    keys, values = ([tables[name][reach - a] for a in apart] for name in ("key", "value"))
    old = jnp.einsum("onshe,suhe->onshu", query, seen[0]) + jnp.einsum("onshe,oue->onshu", query, keys[0])
    own = jnp.einsum("onshe,onsihe->onshi", query, new[0]) + jnp.einsum("onshe,ie->onshi", query, keys[1])
    known = (rows <= rows[:, None])[:, None, None, None]
    score = jnp.concatenate([jnp.where(known, old * scale, -1e9), jnp.where(late < ahead, own * scale, -1e9)], -1)
    weight = jax.nn.softmax(score, axis=-1)
    old, own = weight[..., : rows.size], weight[..., rows.size :]
    out = jnp.einsum("onshu,suhe->onshe", old, seen[1]) + jnp.einsum("onshu,oue->onshe", old, values[0])
    out = out + jnp.einsum("onshi,onsihe->onshe", own, new[1]) + jnp.einsum("onshi,ie->onshe", own, values[1])
    return out[..., None, :, :]
