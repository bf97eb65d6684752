"""Expected outcomes under many plans: the media world's part of a sweep, with all that plans share computed once.

In the response form a plan moves the outcome through its curves alone, so the network is run once, before the sweep,
and of the weeks before the window only those are kept whose spend still carries over into it. What channels add is
worked out apart, so that each level of a channel's spend is worked out once for all plans of a box that share it, and a
plan costs a sum of as many numbers a unit as there are channels. The free form feeds its forecasts back, and rolls out
from the window's first week for each plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from wmjax.data.panel import Panel
from wmjax.sweep import plans
from wmjax.sweep.plans import Columns
from wmjax.transformer.config import MMMConfig
from wmjax.worlds.contract import Answers, Reach
from wmjax.worlds.media import model as pure
from wmjax.worlds.media import planning, prepare, programs
from wmjax.worlds.media.model import History, Ready
from wmjax.worlds.media.world import MediaWorld

FED = "outcomes are fed back, so members answer, each by its own curves, and not the draws that answer all else"


class PlansData(NamedTuple):
    """What every plan meets.

    members: those who answer, leaves `[answers, ..]`; where outcomes are fed back the members' parameters.
    history: from the first week kept on.
    plan: [units, weeks, channels], what was spent in these weeks.
    residual: of as many, spread of the outcome on the network's scale; zeros where no luck is drawn.
    """

    members: Any
    history: History
    plan: Float[Array, "units weeks channels"]
    residual: Float[Array, " members"]


@dataclass(frozen=True)
class PlansForecast:
    """Expected outcomes of the window's weeks.

    Attributes:
        cfg: of the network.
        first: the window's first week among those kept.
        feedback: whether drawn outcomes are fed back into the history.
    """

    cfg: MMMConfig
    first: int
    feedback: bool

    def __call__(
        self,
        key: Key[Array, ""],
        data: PlansData,
        factual: Float[Array, "units periods channels"],
        planned: Columns,
        member: Int[Array, ""] | None,
    ) -> tuple[Float[Array, "units periods outcomes"], ...]:
        """Expect the outcome under what is planned; the mean over those who answer, or one of them alone."""
        window = slice(self.first, self.first + factual.shape[1])
        own = (data.members, data.residual)
        if member is not None:
            own = jax.tree.map(lambda x: x[member][None], own)
        if not self.feedback and self.cfg.head == "response":
            return self._added(own[0], data, planned, window)
        plan = data.plan.at[:, window].set(plans.filled(planned, factual))
        # One luck for all plans and members, as `simulate` has it.
        noise = programs.noise(key, (1, *plan.shape[:2]))[0] if self.feedback else None
        return (jax.vmap(partial(self._member, data.history, plan, noise))(own).mean(0)[:, window, None],)

    def _added(
        self, members: Ready, data: PlansData, planned: Columns, window: slice
    ) -> tuple[Float[Array, "units periods 1"], ...]:
        """Expect what the response form does: what is left without the channels that are planned, and each of them.

        Curves one after the other: side by side they are many times slower on CPUs, as nothing stays in a cache.
        """
        moved = {at: data.plan[..., at].at[:, window].set(new) for at, new in enumerate(planned) if new is not None}

        def parts(member: Ready) -> list[Array]:
            each = [pure.added(member, data.history, spend, at, cfg=self.cfg) for at, spend in moved.items()]
            rest = pure.left(member, data.history, data.plan, tuple(moved), cfg=self.cfg)
            return [x[:, window] for x in (rest, *each)]

        rest, *each = programs.mean_over(parts, members)
        unit = data.history.size[:, None] * data.history.scale
        return tuple(x[..., None] for x in (pure.in_units(data.history, rest), *(unit * x for x in each)))

    def _member(
        self, history: History, plan: Array, noise: Array | None, own: tuple[Any, Array]
    ) -> Float[Array, "units weeks"]:
        params, residual = own
        if noise is None:
            return pure.respond(params, history, plan, self.first, cfg=self.cfg)
        return pure.simulate(residual * noise, params, history, plan, self.first, cfg=self.cfg)[1]


def answers(world: MediaWorld, *, feedback: bool) -> Answers:
    """Say who answers: draws, or members where outcomes are fed back into their networks."""
    return Answers(world.members) if feedback else Answers(world.answers, world.draws)


def carry(world: MediaWorld) -> int:
    """Say how many periods after a plan's own count unless it is said: as many as spend is carried over to."""
    return world.cfg.network.carry


def outcomes(world: MediaWorld, panel: Panel) -> tuple[str, ...]:
    """Name what is forecast."""
    return (prepare.outcome_name(panel, world.cfg),)


def reach(world: MediaWorld, panel: Panel, window: slice) -> Reach:
    """Say how far the data reach: as `planning.outside` has it, and not to none at all of a channel always on."""
    history = world.history(panel)
    unit = (np.asarray(history.size, np.float64)[:, None] * np.asarray(history.spend, np.float64))[:, None]
    low, high = planning.least(world, panel) * unit, (1 + 1e-6) * unit
    on = np.array([channel in world.doubts().always_on for channel in world.channels])
    return Reach(
        lambda planned: (planned < low) | (planned > high) | (on & (planned <= 0)),
        "spend more than any that the world was fitted to, or less, or nothing on a channel that is always on",
        world.doubts().unidentified,
        rolled=lambda plans: [FED] if world.draws else [],
        always=world.warnings,
    )


def forecast(world: MediaWorld, panel: Panel, window: slice, *, feedback: bool, first: int) -> tuple[Any, Any]:
    """Give the function that expects outcomes under a plan, and its data.

    Args:
        window: periods of the panel.
        feedback: whether drawn outcomes are fed back into the history, as `simulate` does.
        first: first period of the window that any plan changes; not made use of.
    """
    cfg, history, plan = world.cfg.network, world.history(panel), jnp.asarray(panel.arrays.actions)
    members, residual = world.params, jnp.asarray(world.residual, jnp.float32)
    if feedback:
        # As `simulate` has it: a forecast does not know what is only observed when it happens.
        late = prepare.unforeseen(history.series, panel, world.cfg, world.scales, window.start)
        history = history._replace(series=late)
        return PlansForecast(cfg, window.start, True), PlansData(members, history, plan, residual)
    members = world.answering(history)
    residual = jnp.zeros(world.answers)
    kept = 0
    if cfg.head == "response":
        kept = max(0, window.start - cfg.carry)
        weeks = slice(kept, window.stop)
        members = members._replace(base=members.base[..., weeks])
        series = history.series
        series = series._replace(
            **{name: getattr(series, name)[:, weeks] for name in ("spend", "covariates", "outcome", "observed")}
        )
        history, plan = history._replace(series=series), plan[:, weeks]
    return PlansForecast(cfg, window.start - kept, False), PlansData(members, history, plan, residual)
