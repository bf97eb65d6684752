"""Named, step-indexed random keys."""

from __future__ import annotations

import zlib

import jax


def key_for(key: jax.Array, name: str, step: int | jax.Array | None = None) -> jax.Array:
    """Derive the key of one named stream, optionally at one step.

    `fold_in(fold_in(key, crc32(name)), step)`: a resumed run sees the same keys as an uninterrupted one, and a new
    stream never shifts an old one.

    Args:
        key: a typed key (`jax.random.key`).
        name: the stream's name, unique among the streams drawn from `key`.
        step: the step inside the stream; may be traced.
    """
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    return key if step is None else jax.random.fold_in(key, step)
