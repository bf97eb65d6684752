"""Whole numbers beyond 2^32 and sums beyond float32, from pairs of 32-bit words.

A sweep counts past 10^10, and 64-bit types are off by default in JAX. A count is `[2]` uint32, high word first; a sum
is `[2]` float32, the number and what rounding has left out of it.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt32

NOWHERE = 2**64 - 1
"""The index of no point."""


def split(number: int) -> UInt32[np.ndarray, "2"]:
    """Give a whole number below 2^64 as words."""
    return np.array([number >> 32, number & 0xFFFFFFFF], np.uint32)


def join(words: UInt32[Any, "*shape 2"]) -> np.ndarray:
    """Give words as uint64 `[*shape]`, on the host."""
    wide = np.asarray(words).astype(np.uint64)
    return np.asarray((wide[..., 0] << np.uint64(32)) | wide[..., 1])


def add(words: UInt32[Array, "*shape 2"], low: UInt32[Array, "*#shape"]) -> UInt32[Array, "*shape 2"]:
    """Add numbers below 2^32 to counts."""
    total = words[..., 1] + low
    return jnp.stack([words[..., 0] + (total < low).astype(jnp.uint32), total], axis=-1)


def total(a: UInt32[Array, "*shape 2"], b: UInt32[Array, "*shape 2"]) -> UInt32[Array, "*shape 2"]:
    """Add counts."""
    return add(a, b[..., 1]).at[..., 0].add(b[..., 0])


def to_float(words: UInt32[Array, "*shape 2"]) -> Float[Array, "*shape"]:
    """Round counts to float32."""
    return words[..., 0].astype(jnp.float32) * 2.0**32 + words[..., 1].astype(jnp.float32)


def less(a: UInt32[Array, "*shape 2"], b: UInt32[Array, "*shape 2"]) -> Bool[Array, "*shape"]:
    """Compare counts."""
    return (a[..., 0] < b[..., 0]) | ((a[..., 0] == b[..., 0]) & (a[..., 1] < b[..., 1]))


def accumulate(pair: Float[Array, "*shape 2"], term: Float[Array, "*#shape"]) -> Float[Array, "*shape 2"]:
    """Add terms to sums without losing what float32 rounds off: after n terms the error is that of one rounding.

    Knuth's two-sum: with `s = a + x`, the rounding `(a - (s - (s - a))) + (x - (s - a))` is exact.
    """
    a, x = pair[..., 0], term
    s = a + x
    b = s - a
    rest = pair[..., 1] + ((a - (s - b)) + (x - b))
    # Renormalised, so that the rest stays a rounding of the sum and does not itself grow.
    whole = s + rest
    return jnp.stack([whole, rest - (whole - s)], axis=-1)
