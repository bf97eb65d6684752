"""Shops' series as the graph models read them: one scale for all shops, one rule for forecast origins."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Batch(NamedTuple):
    """Shops side by side.

    Attributes:
        values: standardised series, `[shops, times, nodes]`, the target last.
        graph: the graph supplied to a decoder, `[shops, nodes, nodes]` in 0 to 1; encoders do not look at it.
        context: what is known of a shop, `[shops, contexts]`.
    """

    values: Array
    graph: Array
    context: Array


class Split(NamedTuple):
    """Shops to learn from and shops to select by; no shop is in both."""

    train: Batch
    validation: Batch


class Scale(NamedTuple):
    """`mean` and `sd` of every node over the training shops and times, each `[nodes]`."""

    mean: Array
    sd: Array


def fit_scale(values: Float[Array, "shops times nodes"]) -> Scale:
    """Measure each node's mean and standard deviation; a constant node gets standard deviation 1."""
    sd = values.std((0, 1))
    return Scale(values.mean((0, 1)), jnp.where(sd > 1e-6, sd, 1.0))


def standardise(values: Float[Array, "*axes nodes"], scale: Scale) -> Float[Array, "*axes nodes"]:
    """Express values in the training shops' standard deviations around their mean."""
    return (values - scale.mean) / scale.sd


def take(batch: Batch, shops: Array) -> Batch:
    """Pick shops by index."""
    return jax.tree.map(lambda a: a[shops], batch)


def origins(num_times: int, *, horizon: int, first: int, stride: int) -> np.ndarray:
    """List the times at which forecasts start: `first`, then every `stride`, the last one ending with the series.

    A forecast from origin o has seen the values before o and predicts o to o + horizon - 1.
    """
    last = num_times - horizon
    if last < 1:
        raise ValueError(f"{num_times} times leave no history before a horizon of {horizon}")
    return np.arange(last, min(first, last) - 1, -stride)[::-1]
