"""A start for additive adapters: each action's main effect, by a penalised regression on features and actions.

Trained from zero by few steps and stopped early, an effect stays near zero however strong it is: what is rare or what
few rows tell is learnt last. The regression has no steps to run out of; training goes on from its effects.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wmjax.heads.adapter import Params
from wmjax.heads.learn import AdapterData, Kind

STEPS = 6
"""Newton steps of a logistic regression; a linear one takes one, and stays."""


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

    def step(at: Array, _: None) -> tuple[Array, None]:
        eta = design @ at
        chance = jax.nn.sigmoid(eta)
        error, curve = (labels - chance, chance * (1 - chance)) if binary else (labels - eta, jnp.ones_like(eta))
        # A unit of each row's weight is one row: the prior counts as one does.
        score = design.T @ (weights * error) - penalty * at
        hessian = (design * (weights * curve)[:, None]).T @ design + jnp.diag(penalty + 1e-6)
        return at + jnp.linalg.solve(hessian, score), None

    return jax.lax.scan(step, jnp.zeros(width), None, length=STEPS if binary else 1)[0][width - actions.shape[1] :]


def start(params: Params, effects: Float[Array, "outcomes members actions"]) -> Params:
    """Give additive adapters, leaves [outcomes * members, ..], these effects; what of them depends on features is 0."""
    tau = dict(params["tau"])
    tau["bias"] = effects.reshape(-1, effects.shape[-1]).astype(tau["bias"].dtype)
    return {**params, "tau": tau}
