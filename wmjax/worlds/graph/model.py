"""The pure functions below a graph world: what `jit`, `vmap` and `grad` see.

Nodes are the panel's actions, then its outcomes; the last outcome is the target. An action of period t is heard at t
and acts from t + 1 on. One member, one unit at a time; members and units are axes that the caller adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from wmjax.core import draws
from wmjax.graph import decoder
from wmjax.graph.series import Scale
from wmjax.worlds.graph.config import GraphConfig


@dataclass(frozen=True)
class GraphModel:
    """What is fixed at compile time: the configuration, and how many nodes are actions and how many outcomes."""

    cfg: GraphConfig
    actions: int
    outcomes: int

    @property
    def nodes(self) -> int:
        return self.actions + self.outcomes


class GraphParams(NamedTuple):
    """Everything fitted; in a world each leaf has a leading axis of members.

    Attributes:
        decoder: the decoder's parameters.
        graph: the graph supplied, `[nodes, nodes]`, row sends.
        scale: mean and standard deviation of every node, `[nodes]` each.
        noise: standard deviation of the outcomes' one-step errors in standardised units, `[outcomes]`.
    """

    decoder: Any
    graph: Array
    scale: Scale
    noise: Array


class Rollout(NamedTuple):
    """`drawn` outcomes and their `mean` given the drawn past, each `[steps, outcomes]` in the outcomes' units."""

    drawn: Array
    mean: Array


def listen(
    params: GraphParams, values: Float[Array, "times nodes"], *, model: GraphModel
) -> tuple[Float[Array, "times nodes hidden"], Float[Array, "times nodes"]]:
    """Hear one unit's standardised values: memories after each period, and the next period's expected values."""
    return decoder.listen(params.decoder, params.graph, values, cfg=model.cfg.decoder)


def simulate(
    key: Key[Array, ""],
    params: GraphParams,
    history: Float[Array, "past nodes"],
    plan: Float[Array, "steps actions"],
    *,
    model: GraphModel,
) -> Rollout:
    """Roll one unit forward after its history under planned actions, in their own units; the plan sets every action.

    One key means one luck: two plans under the same key differ by the plan alone, and where no path of the graph leads
    from an action to an outcome the outcome is the same to the last bit.
    """
    scale = params.scale
    memory, prediction = jax.tree.map(lambda a: a[-1], listen(params, (history - scale.mean) / scale.sd, model=model))
    luck = params.noise * draws.normal(key, (plan.shape[0], model.outcomes))
    planned = (plan - scale.mean[: model.actions]) / scale.sd[: model.actions]

    def advance(carry, inputs):
        memory, prediction = carry
        action, own = inputs
        mean = prediction[model.actions :]
        values = jnp.concatenate([action, mean + own])
        return decoder.step(params.decoder, memory, values, params.graph), (mean + own, mean)

    _, found = jax.lax.scan(advance, (memory, prediction), (planned, luck))
    return Rollout(*(x * scale.sd[model.actions :] + scale.mean[model.actions :] for x in found))


def contrast(
    params: GraphParams,
    values: Float[Array, "times nodes"],
    index: int | Int[Array, ""],
    low: Float[Array, ""],
    high: Float[Array, ""],
    *,
    model: GraphModel,
) -> Float[Array, "times outcomes"]:
    """Contrast `high` with `low` of one action in each period of one unit: what changes one period later."""
    scale = params.scale
    seen = (values - scale.mean) / scale.sd
    memory, _ = listen(params, seen, model=model)
    before = jnp.concatenate([jnp.zeros_like(memory[:1]), memory[:-1]])

    def after(value):
        changed = seen.at[:, index].set((value - scale.mean[index]) / scale.sd[index])
        return jax.vmap(lambda m, v: decoder.step(params.decoder, m, v, params.graph)[1])(before, changed)

    return (after(high) - after(low))[:, model.actions :] * scale.sd[model.actions :]
