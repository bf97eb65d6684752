"""Shuffled minibatches read from data that stay on the device in one byte a bit."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from wmjax.core import bits


def order(key: Key[Array, ""], num_rows: int, batch_size: int, *, shuffle: bool = True) -> Int[Array, "batches batch"]:
    """Deal row numbers into full batches; rows left over are not dealt. Fewer rows than a batch make one batch."""
    batch = min(batch_size, num_rows)
    count = num_rows // batch
    dealt = bits.permutation(bits.seeds(key), num_rows) if shuffle else jnp.arange(num_rows, dtype=jnp.int32)
    return dealt[: count * batch].reshape(count, batch)


def reader(
    data: Shaped[Array, "rows units"], dtype: jnp.dtype
) -> Callable[[Int[Array, " batch"]], Float[Array, "..."]]:
    """Make the function that reads rows by number and casts them.

    Gathers on a CPU cost by the element, so rows of bytes are gathered four units at a time, as 32-bit words.
    """
    if data.dtype not in (jnp.uint8, jnp.bool_):
        return lambda index: data[index].astype(dtype)
    num_rows, units = data.shape
    padded = jnp.pad(data.astype(jnp.uint8), ((0, 0), (0, -units % 4)))
    words = jax.lax.bitcast_convert_type(padded.reshape(num_rows, -1, 4), jnp.uint32)

    def read(index: Array) -> Array:
        rows = jax.lax.bitcast_convert_type(words[index], jnp.uint8)
        return rows.reshape(index.shape[0], -1)[:, :units].astype(dtype)

    return read
