"""Causal attention with relative positions, arranged so that little more than the scores themselves moves in memory.

Scores and weights are `[time, time]`, but what relative positions add depends on `min(t - s, reach)` alone. So the
product with the tables is taken by distance, `[time, reach + 1]`, and spread over pairs or gathered from them; both are
linear, each the other's transpose, which is also how they are differentiated (a scatter is slow on GPUs). Neither looks
anything up: a look-up by pairs is laid out pairs first, and whoever reads it then strides through memory.
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
    *batch, time, distances = x.shape
    far, apart = distances - 1, jnp.arange(time)[:, None] - jnp.arange(time)
    width = max(far, 1)
    # Rows one number longer than they are read again as: each starts one further on than the row before.
    rows = _widen(jnp.flip(x[..., :width], -1), 0, time).reshape(*batch, time * (time + width))
    near = rows[..., : time * (time + width - 1)].reshape(*batch, time, time + width - 1)[..., width - 1 :]
    pairs = jnp.where(apart >= far, x[..., far:], jnp.where(apart >= 0, near, 0.0))
    # Laid out once, not again in each operation that reads it.
    return jax.lax.optimization_barrier(pairs)


def gather(x: Float[Array, "*batch time time"], distances: int) -> Float[Array, "*batch time distances"]:
    """Sum pairs by distance, the transpose of `spread`; the last distance holds all that are further apart."""
    return _gather(distances, x)


def _gathered(distances: int, x: Array) -> Array:
    *batch, time, _ = x.shape
    far, apart = distances - 1, jnp.arange(time)[:, None] - jnp.arange(time)
    width = max(far, 1)
    rows = _widen(x, width - 1, 0).reshape(*batch, time * (time + width - 1))
    near = jnp.flip(_widen(rows, 0, time).reshape(*batch, time, time + width)[..., :far], -1)
    return jnp.concatenate([near, jnp.where(apart >= far, x, 0.0).sum(-1, keepdims=True)], axis=-1)


def _widen(x: Array, before: int, after: int) -> Array:
    """Put zeros before and after the numbers of the last axis."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(before, after)])


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
