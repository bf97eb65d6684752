"""A start for additive adapters: each action's main effect, by a penalised regression on features and actions.

Trained from zero by few steps and stopped early, an effect stays near zero however strong it is: what is rare or what
few rows tell is learnt last. The regression is solved to its end; training goes on from its effects.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wmjax.heads.adapter import Params
from wmjax.heads.learn import AdapterData, Kind

STEPS, TOLERANCE = 50, 1e-3
"""Most Newton steps, and the step of any coefficient below which no more is taken."""
REACH = 2.0
"""Most that one step changes a coefficient: an undamped step from far away overshoots, and may not come back."""


def main_effects(
    data: AdapterData, kinds: tuple[Kind, ...], *, ridge: float = 1.0
) -> Float[Array, "outcomes members actions"]:
    """Regress each outcome on features and actions, member by member, and give the actions' coefficients.

    Args:
        data: of an ensemble: features [members, rows, f], actions [rows, a], labels [outcomes, rows], weights
            [1, members, rows].
        kinds: one an outcome: logistic for a binary one, linear for others.
        ridge: precision of the normal prior of every coefficient but the intercept.
    """
    per_outcome = [
        jax.lax.map(partial(_one, data.actions, labels, kind == "binary", ridge), (data.features, data.weights[0]))
        for labels, kind in zip(data.labels, kinds, strict=True)
    ]
    return jnp.stack(per_outcome)


def _one(
    actions: Array, labels: Array, binary: bool, ridge: float, member: tuple[Array, Array]
) -> Float[Array, " actions"]:
    features, weights = member
    design = jnp.concatenate([jnp.ones((len(actions), 1)), features, actions], axis=1)
    width = design.shape[1]
    penalty = jnp.full(width, ridge).at[0].set(0.0)

    rate = jnp.clip(jnp.vdot(weights, labels) / weights.sum(), 1e-6, 1 - 1e-6)
    begin = jnp.log(rate) - jnp.log1p(-rate) if binary else 0.0

    def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        at, _, count = carry
        eta = design @ at
        chance = jax.nn.sigmoid(eta)
        error, curve = (labels - chance, chance * (1 - chance)) if binary else (labels - eta, jnp.ones_like(eta))
        # A unit of each row's weight is one row: the prior counts as one does.
        score = design.T @ (weights * error) - penalty * at
        hessian = (design * (weights * curve)[:, None]).T @ design + jnp.diag(penalty + 1e-6)
        move = jnp.linalg.solve(hessian, score)
        largest = jnp.abs(move).max()
        damped = move * jnp.minimum(1.0, REACH / jnp.maximum(largest, TOLERANCE)) if binary else move
        return at + damped, largest, count + 1

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        _, largest, count = carry
        return (largest > TOLERANCE) & (count < (STEPS if binary else 1))

    first = jnp.zeros(width).at[0].set(begin), jnp.asarray(jnp.inf), jnp.asarray(0)
    return jax.lax.while_loop(unfinished, step, first)[0][width - actions.shape[1] :]


def start(params: Params, effects: Float[Array, "outcomes members actions"]) -> Params:
    """Give additive adapters, leaves [outcomes * members, ..], these effects; what of them depends on features is 0."""
    tau = dict(params["tau"])
    tau["bias"] = effects.reshape(-1, effects.shape[-1]).astype(tau["bias"].dtype)
    return {**params, "tau": tau}
