"""Effects of an action in every row of a panel, from what each unit had shown before it; their intervals."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Float

from wmjax.core.keys import key_for
from wmjax.heads import traits
from wmjax.heads.traits import TraitData, TraitParams, TraitState

DRAWS = 400
"""Of traits, for an interval on the probability scale: its ends are then off by a twentieth of its width."""


@jax.jit
def logits(params: TraitParams, before: TraitState, data: TraitData) -> Float[Array, "units times"]:
    """Log odds of every row, from the unit's state before it."""

    def at(state: TraitState, features: Array, actions: Array) -> Array:
        return traits.logits(params, state, features, actions, data.moderators)

    return jax.vmap(at, (0, 1, 1), 1)(before, data.features, data.actions)


def tails(draws: Float[Array, "draws units"], alpha: float) -> tuple[Float[Array, " units"], Float[Array, " units"]]:
    """Take the quantiles `alpha / 2` and `1 - alpha / 2` of every unit's draws; NaN where a draw is.

    `jnp.quantile` would sort all draws, which on a CPU takes many times as long as putting the tails in order.
    """
    place = (len(draws) - 1) * alpha / 2
    first, share = int(place), place - int(place)

    def end(values: Array) -> Array:
        # Without the barrier XLA turns a cut of the ordered part back into a sort of the whole.
        highest, _ = jax.lax.optimization_barrier(jax.lax.top_k(values.T, min(first + 2, len(draws))))
        return (1 - share) * highest[:, first] + share * highest[:, min(first + 1, len(draws) - 1)]

    bad = jnp.isnan(draws).any(0)
    return jnp.where(bad, jnp.nan, -end(-draws)), jnp.where(bad, jnp.nan, end(draws))


def half_width(values: Float[np.ndarray, "replicates *axes"], members: int, alpha: float) -> np.ndarray:
    """Half of the interval that replicates of an effect span; replicate r reads the belief of member `r % members`.

    Replicates of one member differ by their bootstraps of the units alone; members differ by more than that. Each part
    has its own Student's t, and they add in quadrature.

    Args:
        values: of one effect; twice as many as members at least.
        members: whose beliefs were read in turn.
        alpha: the interval holds with probability `1 - alpha`.
    """
    count = len(values)
    if members == 1:
        return scipy.stats.t.ppf(1 - alpha / 2, count - 1) * values.std(0, ddof=1)
    groups = [values[member::members] for member in range(members)]
    within = sum(np.square(own - own.mean(0)).sum(0) for own in groups) / (count - members)
    means = np.stack([own.mean(0) for own in groups])
    between = np.maximum(means.var(0, ddof=1) - within * np.mean([1 / len(own) for own in groups]), 0)
    parts = ((within, count - members), (between, members - 1))
    return np.sqrt(sum(np.square(scipy.stats.t.ppf(1 - alpha / 2, freedom)) * part for part, freedom in parts))


def widen(
    effect: np.ndarray, lo: np.ndarray, hi: np.ndarray, known: np.ndarray, spread: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add half-widths in quadrature: what the interval holds, and what `spread` has beyond the `known` part of it."""
    more = np.maximum(np.square(spread) - np.square(known), 0)
    below, above = (np.sqrt(np.square(np.maximum(gap, 0)) + more) for gap in (effect - lo, hi - effect))
    return effect, effect - below, effect + above


@partial(jax.jit, static_argnums=(4, 7))
def contrast(
    key: Any, params: TraitParams, before: TraitState, data: TraitData, action: int, t0: Any, t1: Any, alpha: float
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Contrast an action in every row `[units, times]`: effect, bounds, and the population's part of their half-width.

    First on the probability scale, then on the logit's. One set of standard draws a unit is carried by each period's
    posterior: traits move slowly.
    """
    open_ = jnp.sqrt(params.effects_variance[action])
    shared = jax.random.normal(key_for(key, "population"), (DRAWS, 1)) * open_
    tied, step, wide = (params.effects * params.tied)[action], t1 - t0, jax.scipy.stats.norm.ppf(1 - alpha / 2)

    def at(inputs: Any) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        state, features, actions = inputs
        eta = traits.logits(params, state, features, actions.at[:, action].set(t0), data.moderators)
        # At t0 the action's own push moves with the unit's responsiveness: its draws move the base as well.
        gain, sd = traits.effect(params, state, data.moderators, action=action)
        scale = 1 + params.tied[action] * (data.moderators @ params.moderators + state.mean[:, 1])
        drawn = traits.draws(key, state, DRAWS) - state.mean
        own = gain + tied * drawn[..., 1] + shared * scale
        level = eta + drawn[..., 0] + traits.push(params, actions.at[:, action].set(t0)) * drawn[..., 1]
        low, high = tails(jax.nn.sigmoid(level + step * own) - jax.nn.sigmoid(level), alpha)
        chance = jax.nn.sigmoid(eta + step * gain)
        half, known = jnp.abs(step) * sd * wide, jnp.abs(step * scale) * open_ * wide
        response = (chance - jax.nn.sigmoid(eta), low, high, chance * (1 - chance) * known)
        return response, (step * gain, step * gain - half, step * gain + half, known)

    by_time = (before, jnp.swapaxes(data.features, 0, 1), jnp.swapaxes(data.actions, 0, 1))
    return jax.tree.map(jnp.transpose, jax.lax.map(at, by_time))


@partial(jax.jit, static_argnums=3)
def gains(
    params: TraitParams, before: TraitState, data: TraitData, action: int, t0: Any, t1: Any
) -> tuple[Array, Array]:
    """Contrast an action in every row `[units, times]`, at the traits' means: probability scale, logit scale."""

    def at(inputs: Any) -> tuple[Array, Array]:
        state, features, actions = inputs
        eta = traits.logits(params, state, features, actions.at[:, action].set(t0), data.moderators)
        gain = (t1 - t0) * traits.effect(params, state, data.moderators, action=action)[0]
        return jax.nn.sigmoid(eta + gain) - jax.nn.sigmoid(eta), gain

    by_time = (before, jnp.swapaxes(data.features, 0, 1), jnp.swapaxes(data.actions, 0, 1))
    return jax.tree.map(jnp.transpose, jax.lax.map(at, by_time))
