"""Exponential moving averages of parameters that forget their start quickly."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


def decay_at(step: Int[Array, "*members"] | int, decay: float) -> Float[Array, "*members"]:
    """Give the decay after `step` updates: `min(decay, (1 + step) / (10 + step))`, from 0.1 up to `decay`."""
    step = jnp.asarray(step, jnp.float32)
    return jnp.minimum(decay, (1 + step) / (10 + step))


def update(average: Any, params: Any, step: Int[Array, ""] | int, *, decay: float) -> Any:
    """Move the average towards the parameters: `average <- d average + (1 - d) params`, `d = decay_at(step)`.

    Start from a copy (`jax.tree.map(jnp.copy, params)`): an average that is the parameters' own buffer cannot be
    donated beside them.
    """
    return optax.incremental_update(params, average, 1.0 - decay_at(step, decay))
