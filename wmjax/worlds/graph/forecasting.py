"""Expected outcomes under many plans: the graph world's part of a sweep, with all that plans share computed once.

The history before the window is heard once, before the sweep; a plan costs a step of the decoder for each of its
periods. An action acts from the next period on, so that one more than the plan's is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from wmjax.core import draws
from wmjax.core.errors import UserError
from wmjax.data.panel import Panel
from wmjax.graph import decoder
from wmjax.sweep import plans
from wmjax.sweep.plans import Columns
from wmjax.worlds.contract import Answers, Reach
from wmjax.worlds.graph import model as pure
from wmjax.worlds.graph.model import GraphModel, GraphParams
from wmjax.worlds.graph.world import GraphWorld


class PlansData(NamedTuple):
    """What every plan meets.

    params: of all members, leaves `[members, ..]`.
    memory, prediction: `[members, units, nodes, ..]`, after the history and of the window's first period.
    outcomes: [units, periods, outcomes], as observed, in their own units.
    """

    params: GraphParams
    memory: Array
    prediction: Array
    outcomes: Float[Array, "units periods outcomes"]


@dataclass(frozen=True)
class PlansForecast:
    """Expected outcomes of the window's periods.

    Attributes:
        model: what is fixed.
        feedback: whether drawn outcomes are heard, as `simulate` does, or the observed ones, as `predict` does.
    """

    model: GraphModel
    feedback: bool

    def __call__(
        self,
        key: Key[Array, ""],
        data: PlansData,
        factual: Float[Array, "units periods actions"],
        planned: Columns,
        member: Int[Array, ""] | None,
    ) -> tuple[Float[Array, "units periods outcomes"]]:
        """Expect outcomes under what is planned; the mean over members, or one member's."""
        actions = plans.filled(planned, factual)
        units, periods, _ = actions.shape
        members = self.model.cfg.members
        luck = jnp.zeros((members, units, periods, self.model.outcomes))
        if self.feedback:  # the keys of `simulate`, for its first draw
            keys = jax.random.split(key, (members, 1, units))[:, 0]
            luck = jax.vmap(jax.vmap(lambda k: draws.normal(k, (periods, self.model.outcomes))))(keys)
        own = (data.params, data.memory, data.prediction, luck)
        if member is not None:
            own = jax.tree.map(lambda x: x[member][None], own)
        unit = jax.vmap(self._unit, (None, 0, 0, 0, 0, 0))
        return (jax.vmap(lambda p, m, f, e: unit(p, m, f, e, actions, data.outcomes))(*own).mean(0),)

    def _unit(
        self, params: GraphParams, memory: Array, prediction: Array, luck: Array, actions: Array, seen: Array
    ) -> Float[Array, "periods outcomes"]:
        split, scale = self.model.actions, params.scale
        planned = (actions - scale.mean[:split]) / scale.sd[:split]
        happened = (seen - scale.mean[split:]) / scale.sd[split:]

        def advance(carry: tuple[Array, Array], inputs: tuple[Array, Array, Array]) -> Any:
            memory, prediction = carry
            action, own, outcome = inputs
            mean = prediction[split:]
            heard = mean + params.noise * own if self.feedback else outcome
            return decoder.step(params.decoder, memory, jnp.concatenate([action, heard]), params.graph), mean

        _, found = jax.lax.scan(advance, (memory, prediction), (planned, luck, happened))
        return found * scale.sd[split:] + scale.mean[split:]


def answers(world: GraphWorld, *, feedback: bool) -> Answers:
    """Say who answers: the members."""
    return Answers(world.members)


def carry(world: GraphWorld) -> int:
    """Say how many periods after a plan's own count unless it is said: the one in which its last actions act."""
    return 1


def outcomes(world: GraphWorld, panel: Panel) -> tuple[str, ...]:
    """Name what is forecast."""
    return panel.outcome_names


def reach(world: GraphWorld, panel: Panel, window: slice) -> Reach:
    """Say how far the data reach: to the panel's own least and largest values."""
    low, high = (f(panel.arrays.actions, axis=(0, 1)) for f in (np.min, np.max))

    def beyond(planned: np.ndarray) -> np.ndarray:
        return (planned < low) | (planned > high)

    def reasons(moved: frozenset[str]) -> list[str]:
        names = [name for name in panel.action_names if name in moved]
        return list(dict.fromkeys(line for name in names for line in world.warnings_for(name)))

    return Reach(beyond, "lie outside the panel's values", frozenset(), reasons)


def forecast(world: GraphWorld, panel: Panel, window: slice, *, feedback: bool, first: int) -> tuple[Any, Any]:
    """Give the function that expects outcomes under a plan, and its data.

    Args:
        window: periods of the panel.
        feedback: whether drawn outcomes are heard, or the observed ones.
        first: first period of the window that any plan changes; not made use of.

    Raises:
        UserError: a window that nothing precedes, or of a single period.
    """
    if window.stop - window.start < 2:
        last = window.stop >= panel.num_times
        mend = "the panel ends with this one" if last else "ask for 2 (--periods), or count one more (--carry 1)"
        raise UserError(f"in a graph world an action acts from the next period on; {mend}")
    if window.start < 1:
        raise UserError("a graph world's sweep needs a period before its window; give a start of at least 1")
    past = world._values(panel)[:, : window.start]
    memory, prediction = _hear(world.params, past, model=world.model)
    seen = jnp.asarray(panel.arrays.outcomes[:, window], jnp.float32)
    return PlansForecast(world.model, feedback), PlansData(world.params, memory, prediction, seen)


@partial(jax.jit, static_argnames="model")
def _hear(params: GraphParams, past: Array, *, model: GraphModel) -> tuple[Array, Array]:
    """Hear the history by every member: the last memory and prediction, `[members, units, ..]`."""

    def one(own: GraphParams) -> tuple[Array, Array]:
        standard = (past - own.scale.mean) / own.scale.sd
        found = jax.vmap(lambda v: pure.listen(own, v, model=model))(standard)
        return jax.tree.map(lambda x: x[:, -1], found)

    return jax.lax.map(one, params)
