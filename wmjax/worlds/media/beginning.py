"""Where a member's training begins: the mode of the posterior of curves and linear controls, without the network.

At its start the network's part is exactly 0 whatever it is told, so this is the same model.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Key

from wmjax.transformer import losses, response
from wmjax.worlds.media.learning import (
    SLOW,
    LearnData,
    Learner,
    MediaState,
    believed,
    centre,
    freedom,
    init,
    roi_of,
    unexplained,
    whole_batch,
)
from wmjax.worlds.media.luck import Luck

REACH, GAIN, STIFF = 1.0, 1e-3, 1e6
"""The most that a step moves a number; the gain in log posterior that ends it; the
damping at which no better step is looked for."""


@dataclass(frozen=True)
class Begin:
    """Start one member, warm: `(key, luck, data) -> state`, as a value."""

    learner: Learner

    def __call__(self, key: Key[Array, ""], luck: Luck, data: LearnData) -> MediaState:
        state = init(key, luck, data, learner=self.learner)
        wanted = self.learner.cfg.network.head == "response" and self.learner.cfg.warm > 0
        return warm(state, data, learner=self.learner) if wanted else state


def warm(state: MediaState, data: LearnData, *, learner: Learner) -> MediaState:
    """Fit curves and linear controls alone to all train rows, without the network, which then starts from there.

    By Gauss and Newton's steps, damped as Levenberg and Marquardt do, of at most `REACH`, down

        n / 2 log(mean squared error) - log priors,     n train rows, less the units whose intercepts they tell,

    where linear controls have a prior of their own here, Normal(0, 1); intercepts are profiled out.
    """
    cfg = learner.cfg
    batch, here = whole_batch(data, state.luck), centre(state.luck, data)
    weights, rows = batch.weights / batch.weights.sum(), freedom(data, learner=learner)
    start, unflat = ravel_pytree({name: state.params["outcome"][name] for name in SLOW})

    def residuals(flat: Array) -> Array:
        own, level = unexplained(unflat(flat), batch, data, learner=learner)
        return jnp.ravel(jnp.sqrt(weights) * (level[:, None] - own))

    def returns(flat: Array) -> Array:
        curves = unflat(flat)["curves"]
        media = response.media(curves, data.series.spend, data.known.sign, cfg=cfg.network)
        return roi_of(None, batch, media, data, jax.random.key(0), learner=learner)[0]

    def of_numbers(flat: Array) -> Array:
        own = unflat(flat)
        plain = 0.5 * sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(own["controls"]))
        return cfg.prior_weight * losses.curves(own["curves"], here) + plain

    def of_returns(found: Array) -> Array:
        return cfg.prior_weight * believed(found, jnp.ones(()), state.luck, data, learner=learner)

    def prior(flat: Array) -> tuple[Array, Array]:
        """Give the slope of minus the log priors, and their curvature as Gauss and Newton have it."""
        slope, square = jax.grad(of_numbers)(flat), jax.hessian(of_numbers)(flat)
        if not cfg.roi:
            return slope, square
        found, moves = returns(flat), jax.jacfwd(returns)(flat)
        bend = jnp.maximum(jnp.diag(jax.hessian(of_returns)(found)), 0.0)
        return slope + moves.T @ jax.grad(of_returns)(found), square + (moves.T * bend) @ moves

    def objective(flat: Array) -> Array:
        more = of_returns(returns(flat)) if cfg.roi else 0.0
        return 0.5 * rows * jnp.log(jnp.sum(jnp.square(residuals(flat)))) + of_numbers(flat) + more

    def step(carry: tuple) -> tuple:
        flat, value, damping, gain, count = carry
        left, slopes = residuals(flat), jax.jacfwd(residuals)(flat)
        scale = rows / jnp.sum(jnp.square(left))
        pull, bend = prior(flat)
        slope, square = scale * slopes.T @ left + pull, scale * slopes.T @ slopes + bend
        move = -jnp.linalg.solve(square + damping * jnp.diag(jnp.maximum(jnp.diag(square), 1.0)), slope)
        move *= jnp.minimum(1.0, REACH / jnp.maximum(jnp.abs(move).max(), 1e-12))
        there = objective(flat + move)
        better = there < value
        gain = jnp.where(better, value - there, jnp.where(damping < STIFF, jnp.inf, 0.0))
        flat, value = jnp.where(better, flat + move, flat), jnp.where(better, there, value)
        return flat, value, jnp.where(better, damping / 5, damping * 5), gain, count + 1

    def unfinished(carry: tuple) -> Array:
        return (carry[3] > GAIN) & (carry[4] < cfg.warm)

    begun = (start, objective(start), jnp.asarray(1e-2), jnp.asarray(jnp.inf), jnp.asarray(0))
    own = unflat(jax.lax.while_loop(unfinished, step, begun)[0])
    merged = lambda tree: {**tree, "outcome": {**tree["outcome"], **own}}  # noqa: E731
    return state._replace(params=merged(state.params), average=merged(state.average))
