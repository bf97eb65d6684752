"""Causal attention with relative positions, arranged so that little more than the scores themselves moves in memory.

Scores and weights are `[time, time]`, but what relative positions add depends on `min(t - s, reach)` alone. So the
product with the tables is taken by distance, `[time, reach + 1]`, and spread over pairs or gathered from them; both are
linear, each the other's transpose, which is also how they are differentiated (a scatter is slow on GPUs).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import PrecisionLike
from jaxtyping import Array, Float

from wmjax.transformer import nets

Heads = Float[Array, "*batch time heads size"]


@jax.custom_vjp
def spread(x: Float[Array, "*batch time distances"]) -> Float[Array, "*batch time time"]:
    """Lay numbers by distance out over pairs: `y[t, s] = x[t, min(t - s, reach)]`, 0 for s after t."""
    apart = jnp.arange(x.shape[-2])[:, None] - jnp.arange(x.shape[-2])
    picked = x[..., jnp.arange(x.shape[-2])[:, None], jnp.clip(apart, 0, x.shape[-1] - 1)]
    return jnp.where(apart >= 0, picked, 0.0)


def gather(x: Float[Array, "*batch time time"], distances: int) -> Float[Array, "*batch time distances"]:
    """Sum pairs by distance, the transpose of `spread`; the last distance holds all that are further apart."""
    return _gather(distances, x)


def _gathered(distances: int, x: Array) -> Array:
    rows, back = jnp.arange(x.shape[-1])[:, None], jnp.arange(distances - 1)
    near = jnp.where(rows >= back, x[..., rows, jnp.maximum(rows - back, 0)], 0.0)
    far = jnp.where(rows - rows.T >= distances - 1, x, 0.0).sum(-1)
    return jnp.concatenate([near, far[..., None]], axis=-1)


_gather = jax.custom_vjp(_gathered, nondiff_argnums=(0,))
_gather.defvjp(lambda distances, x: (_gathered(distances, x), None), lambda _, __, g: (spread(g),))
spread.defvjp(lambda x: (spread(x), jnp.zeros((0, x.shape[-1]))), lambda kept, g: (gather(g, kept.shape[-1]),))


def attend(
    query: Heads,
    key: Heads,
    value: Heads,
    tables: dict[str, Array],
    *,
    scale: Array | float,
    drop: tuple[Any, float] = (None, 0.0),
    precision: PrecisionLike = None,
) -> Heads:
    """Attend to the rows up to each one's own time.

        score_ts = scale q_t (k_s + K[t - s]),   out_t = sum_s drop(softmax(score)_ts) (v_s + V[t - s])

    Args:
        query, key, value: any batch axes.
        tables: `key` and `value`, [2 reach + 1, size]; only the rows of the past and the present are read.
        scale: of scores.
        drop: a seed, or None, and the share of weights dropped.
        precision: of products.
    """
    near = (tables["key"].shape[0] + 1) // 2
    # Row `reach` is the present, row 0 the furthest past.
    keys, values = (tables[name][near - 1 :: -1] for name in ("key", "value"))
    time = query.shape[-3]
    score = jnp.einsum("...the,...uhe->...htu", query, key, precision=precision)
    score = score + spread(jnp.einsum("...the,re->...htr", query, keys, precision=precision))
    causal = jnp.tril(jnp.ones((time, time), bool))
    weight = jax.nn.softmax(jnp.where(causal, score * scale, -1e9), axis=-1)
    if drop[0] is not None:
        weight = nets.dropout(drop[0], weight, drop[1])
    out = jnp.einsum("...htu,...uhe->...the", weight, value, precision=precision)
    return out + jnp.einsum("...htr,re->...the", gather(weight, near), values, precision=precision)
