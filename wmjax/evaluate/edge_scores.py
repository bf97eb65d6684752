"""How well scores rank the edges that are there: AUROC and average precision, ties and tiny columns included.

Everything works on the last axis and maps over the others. A column in which all edges are there, or none, has no
ranking to speak of: its value is NaN, and `count_degenerate` counts such columns so that a mean can say over how many
it was taken.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from wmjax.core import draws


def average_precision(scores: Float[Array, "*axes n"], truth: Float[Array, "*axes n"]) -> Float[Array, "*axes"]:
    """Average the precision at every true edge, tied scores counted as one threshold (scikit-learn's definition)."""
    at_least = (scores[..., None, :] >= scores[..., :, None]).astype(jnp.float32)
    precision = (at_least * truth[..., None, :]).sum(-1) / at_least.sum(-1)
    return (precision * truth).sum(-1) / truth.sum(-1)


def nauprc(scores: Float[Array, "*axes n"], truth: Float[Array, "*axes n"]) -> Float[Array, "*axes"]:
    """Rescale average precision by prevalence pi: `(AP - pi) / (1 - pi)`.

    1 is perfect, 0 is a constant score. It can be negative, but not far: with 2 of 7 edges true the worst is -0.083.
    And a random ranking is *not* 0 when there are few edges (0.27 with 2 of 7), so read it beside
    `permutation_baseline`. NaN where pi is 0 or 1.
    """
    pi = truth.mean(-1)
    # The guard keeps 0/0 from raising under debug_nans; the outer where still says NaN.
    span = jnp.where(pi < 1, 1 - pi, 1.0)
    ap = average_precision(scores, jnp.where((pi > 0)[..., None], truth, 1.0))
    return jnp.where((pi > 0) & (pi < 1), (ap - pi) / span, jnp.nan)


def auroc(scores: Float[Array, "*axes n"], truth: Float[Array, "*axes n"]) -> Float[Array, "*axes"]:
    """Compute the probability that a true edge outranks a false one, ties one half; NaN where one kind is missing."""
    above = (scores[..., :, None] > scores[..., None, :]) + 0.5 * (scores[..., :, None] == scores[..., None, :])
    pairs = truth[..., :, None] * (1 - truth[..., None, :])
    count = pairs.sum((-1, -2))
    return jnp.where(count > 0, (above * pairs).sum((-1, -2)) / jnp.maximum(count, 1), jnp.nan)


def count_degenerate(truth: Float[Array, "*axes n"]) -> Int[Array, ""]:
    """Count the rankings in which all edges are there, or none."""
    pi = truth.mean(-1)
    return jnp.sum((pi == 0) | (pi == 1))


class Baseline(NamedTuple):
    """What the same scores reach when dealt to the edges at random.

    Attributes:
        mean, sd: of nAUPRC over permutations.
        p_value: share of permutations at least as good as the real ranking, the real one included (never 0).
    """

    mean: Array
    sd: Array
    p_value: Array


def permutation_baseline(
    key: Key[Array, ""], scores: Float[Array, " n"], truth: Float[Array, " n"], *, num_permutations: int = 200
) -> Baseline:
    """Shuffle the scores `num_permutations` times and score each shuffle; ties stay ties."""
    real = nauprc(scores, truth)
    order = jnp.argsort(draws.uniform(key, (num_permutations, scores.shape[0])), axis=-1)
    shuffled = jax.lax.map(lambda o: nauprc(scores[o], truth), order, batch_size=min(num_permutations, 64))
    better = jnp.sum(shuffled >= real - 1e-6)
    return Baseline(shuffled.mean(), shuffled.std(), (1 + better) / (1 + num_permutations))
