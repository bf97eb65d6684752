"""Area under the ROC curve on the device, so that training stops on it without leaving the compiled program."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def auc(
    scores: Float[Array, " rows"], labels: Float[Array, " rows"], weights: Float[Array, " rows"]
) -> Float[Array, ""]:
    """Compute the weighted probability that a positive scores above a negative, ties counting one half.

        AUC = sum_i w_i y_i (W-_below(i) + W-_tied(i) / 2) / (W+ W-)

    `W-_below(i)` is the weight of negatives that score less than row i, `W-_tied(i)` of those that score the same.

    Args:
        scores: any monotone score.
        labels: 0 or 1.
        weights: not negative; 0 leaves a row out.

    Returns:
        In [0, 1], to about 1e-6 in float32; NaN where positives or negatives have no weight.
    """
    scores, positive, negative = jax.lax.sort((scores, weights * labels, weights * (1 - labels)), num_keys=1)
    through = jnp.cumsum(negative)
    before = through - negative
    new = jnp.concatenate([jnp.ones(1, bool), scores[1:] != scores[:-1]])
    last = jnp.concatenate([new[1:], jnp.ones(1, bool)])
    # Both sums never fall along the sorted rows, so a running extreme carries a tied run's ends to all of its rows.
    below = jax.lax.cummax(jnp.where(new, before, -jnp.inf))
    upto = jax.lax.cummin(jnp.where(last, through, jnp.inf), reverse=True)
    return jnp.sum(positive * 0.5 * (below + upto)) / (jnp.sum(positive) * jnp.sum(negative))
