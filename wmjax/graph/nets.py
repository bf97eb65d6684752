"""The few layers that the graph models share: plain dicts of arrays and pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from wmjax.core import draws

Params = dict[str, Any]


def dense_layers(key: Key[Array, ""], sizes: Mapping[str, tuple[int, int]]) -> Params:
    """Draw linear layers `{name: {"w": [inputs, outputs], "b": [outputs]}}`, weights N(0, 1 / inputs), biases 0.

    All weights come from one draw, because each compiled random stream costs a third of a second.
    """
    counts = [math.prod(size) for size in sizes.values()]
    ends = [sum(counts[: i + 1]) for i in range(len(counts))]
    parts = jnp.split(draws.normal(key, (ends[-1],)), ends[:-1])
    return {
        name: {"w": part.reshape(size) / math.sqrt(size[0]), "b": jnp.zeros(size[1])}
        for (name, size), part in zip(sizes.items(), parts, strict=True)
    }


def dense(layer: Mapping[str, Array], inputs: Float[Array, "*axes inputs"]) -> Float[Array, "*axes outputs"]:
    """Apply `inputs w + b`."""
    return inputs @ layer["w"] + layer["b"]


def layer_norm(inputs: Float[Array, "*axes features"]) -> Float[Array, "*axes features"]:
    """Standardise each row over its own features: no statistic leaves its node, its edge or its shop."""
    centred = inputs - inputs.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5)
