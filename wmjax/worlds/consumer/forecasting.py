"""Expected outcomes under many plans: the consumer world's part of a sweep, with all that plans share computed once.

`rows` keeps each row's own history, as `effect` does: beliefs and the adapters' projections of them are computed before
the sweep, and what is left of a plan is the first layer's sum over the actions and the layers above it.

`rollout` feeds drawn outcomes and the plan's actions back into the history, as `simulate` does: the periods before the
first one that any plan changes, and the belief of that period, do not depend on the plan; the sweep's `vmap` leaves
them alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from wmjax.core.keys import key_for
from wmjax.data import frame as frames
from wmjax.data.panel import Panel
from wmjax.heads import adapter
from wmjax.heads.adapter import Projected
from wmjax.sweep import plans
from wmjax.sweep.plans import Columns
from wmjax.worlds.consumer import model as pure
from wmjax.worlds.consumer import repeats, support
from wmjax.worlds.consumer.model import ConsumerModel, ConsumerParams, History
from wmjax.worlds.consumer.world import ConsumerWorld
from wmjax.worlds.contract import Answers, Reach

BLOCK = 256
"""Rows that one pass through the adapters' layers holds for each plan, so that they stay in the processor's cache."""
SERVING = 8192
"""Rows projected at once."""


class RowsData(NamedTuple):
    """What is kept of the rows: unit by unit and in the order of time, in blocks, the last one padded.

    adapters, scales: as in `ConsumerParams`, leaves `[members, ..]`.
    projected: leaves `[blocks, members, outcomes, rows of a block, ..]`.
    """

    adapters: Any
    scales: Any
    projected: Projected


@dataclass(frozen=True)
class RowsForecast:
    """Expected outcomes of each row from its own observed history."""

    model: ConsumerModel

    def __call__(
        self,
        key: Key[Array, ""],
        data: RowsData,
        factual: Float[Array, "units periods actions"],
        planned: Columns,
        member: Int[Array, ""] | None,
    ) -> tuple[Float[Array, "units periods outcomes"]]:
        """Expect outcomes under what is planned; the mean over members, or one member's."""
        blocks, _, _, size = data.projected.base.shape[:4]
        if self.model.cfg.adapter.form == "additive":
            return (self._added(data, factual, planned, member),)
        actions = plans.filled(planned, factual)
        rows = actions.reshape(-1, actions.shape[-1])
        padded = jnp.pad(rows, ((0, blocks * size - rows.shape[0]), (0, 0))).reshape(blocks, size, -1)
        adapters, scales, projected = data
        if member is not None:
            adapters, scales = jax.tree.map(lambda x: x[member][None], (adapters, scales))
            projected = jax.tree.map(lambda x: x[:, member][:, None], projected)

        def one(params: Any, scale: Any, own: Projected, action: Array) -> Array:
            scaled = (action - scale.action_centre) / scale.action_scale
            each = jax.vmap(lambda p, x: adapter.complete(p, x, scaled, cfg=self.model.cfg.adapter), out_axes=-1)
            return pure.respond_scaled(scale, each(params, own), model=self.model)

        def block(inputs: tuple[Projected, Array]) -> Array:
            return jax.vmap(one, (0, 0, 0, None))(adapters, scales, *inputs).mean(0)

        found = jax.lax.map(block, (projected, padded)) if blocks > 1 else block((_first(projected), padded[0]))[None]
        return (found.reshape(blocks * size, -1)[: rows.shape[0]].reshape(*actions.shape[:2], -1),)

    def _added(
        self,
        data: RowsData,
        factual: Float[Array, "units periods actions"],
        planned: Columns,
        member: Int[Array, ""] | None,
    ) -> Float[Array, "units periods outcomes"]:
        """Expect as `__call__` where actions add: column by column, in one pass over rows and plans.

        First what no plan touches, which is then worked out once for all of them.
        """
        scales, projected = data.scales, data.projected
        rows = factual.shape[0] * factual.shape[1]
        order = sorted(range(len(planned)), key=lambda at: planned[at] is not None)
        columns = [factual[..., at] if (new := planned[at]) is None else new for at in order]
        lay = lambda x: jnp.moveaxis(x, 0, 2).reshape(*x.shape[1:3], -1, *x.shape[4:])[:, :, :rows]  # noqa: E731
        base, tau = lay(projected.base), lay(projected.tau)
        if member is not None:
            scales, base, tau = jax.tree.map(lambda x: x[member][None], (scales, base, tau))

        def one(scale: Any, own: Array, slopes: Array) -> Array:
            eta = own
            for at, column in zip(order, columns, strict=True):
                moved = (column.reshape(-1) - scale.action_centre[at]) / scale.action_scale[at]
                eta = eta + slopes[..., at] * moved
            return pure.respond_scaled(scale, eta.T, model=self.model)

        return jax.vmap(one)(scales, base, tau).mean(0).reshape(*factual.shape[:2], -1)


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[0], tree)


def project_rows(world: ConsumerWorld, panel: Panel, window: slice) -> RowsData:
    """Infer the belief of every row of a window of periods and project it through every adapter's first layer."""
    visible = frames.build(world.model.frame, panel)[:, window]
    flat = visible.reshape(-1, visible.shape[-1])
    size = min(BLOCK, len(flat))
    blocks = -(-len(flat) // size)
    flat = np.concatenate([flat, np.zeros((blocks * size - len(flat), flat.shape[1]), flat.dtype)])
    step = max(1, SERVING // size)
    parts = [
        _project(world.params, flat[at * size : (at + step) * size].reshape(-1, size, flat.shape[1]), world.model)
        for at in range(0, blocks, step)
    ]
    projected = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
    return RowsData(world.params.adapters, world.params.scales, projected)


@partial(jax.jit, static_argnums=2)
def _project(params: ConsumerParams, visible: Float[Array, "blocks size v"], model: ConsumerModel) -> Projected:
    num_actions = params.scales.action_centre.shape[-1]

    def member(p: ConsumerParams, rows: Array) -> Projected:
        features = pure.features(p.machine, rows, model=model)
        one = partial(adapter.project, cfg=model.cfg.adapter, num_actions=num_actions)
        return jax.vmap(one, (0, None))(p.adapters, features)

    return jax.lax.map(lambda rows: jax.vmap(member, (0, None))(params, rows), visible)


class RolloutData(NamedTuple):
    """Parameters of all members, and the history that roll-outs start from."""

    params: ConsumerParams
    history: History


@dataclass(frozen=True)
class RolloutForecast:
    """Expected outcomes of each period, given what the roll-out itself drew before it.

    Attributes:
        model: what is fixed.
        first: the first period that any plan changes.
    """

    model: ConsumerModel
    first: int

    def __call__(
        self,
        key: Key[Array, ""],
        data: RolloutData,
        factual: Float[Array, "units periods actions"],
        planned: Columns,
        member: Int[Array, ""] | None,
    ) -> tuple[Float[Array, "units periods outcomes"]]:
        """Roll out every member with luck of its own, the same for all plans; the mean over them, or one member's."""
        actions = plans.filled(planned, factual)
        members = jnp.arange(self.model.cfg.members) if member is None else member[None]
        params = data.params if member is None else jax.tree.map(lambda x: x[member][None], data.params)
        one = partial(self._member, key, data.history, jnp.swapaxes(factual, 0, 1), jnp.swapaxes(actions, 0, 1))
        return (jnp.swapaxes(jax.vmap(one)(params, members).mean(0), 0, 1),)

    def _member(
        self, key: Key[Array, ""], history: History, factual: Array, actions: Array, params: Any, m: Array
    ) -> Float[Array, "periods units outcomes"]:
        key, cut, model = key_for(key, "member", m), self.first, self.model
        head = _periods(history, slice(0, cut))
        state, before = pure.roll(key, params, head, factual[:cut], model=model)
        at = (history.static, history.calendar[cut], history.covariates[cut], history.present[cut])
        # Apart from the scan, whose memory is the plan's own: here the history is still everyone's.
        state, now = pure.period(key, params, state, at, actions[cut], cut, model=model)
        rest = _periods(history, slice(cut + 1, None))._replace(state=state)
        _, after = pure.roll(key, params, rest, actions[cut + 1 :], model=model, first=cut + 1)
        return jnp.concatenate([before.means, now.means[None], after.means])


def _periods(history: History, at: slice) -> History:
    return history._replace(
        calendar=history.calendar[at], covariates=history.covariates[at], present=history.present[at]
    )


def answers(world: ConsumerWorld, *, feedback: bool) -> Answers:
    """Say who answers: the members."""
    return Answers(world.members)


def carry(world: ConsumerWorld) -> int:
    """Say how many periods after a plan's own count unless it is said: none."""
    return 0


def outcomes(world: ConsumerWorld, panel: Panel) -> tuple[str, ...]:
    """Name what is forecast."""
    return panel.outcome_names


def reach(world: ConsumerWorld, panel: Panel, window: slice) -> Reach:
    """Say how far the data reach in a window of periods: to what like rows have seen, alone and together, and to
    actions repeated as often."""
    rows = world.observed(panel, window)
    cells = rows.unit, rows.time - window.start
    strata = world.together.strata_of(rows.visible)

    def beyond(planned: np.ndarray) -> np.ndarray:
        marks = np.zeros(planned.shape, bool)
        own = planned[cells]
        marks[cells] = support.alone(world.overlap, rows, own)
        marks[cells] |= world.together.apart(own, own != rows.actions, strata)
        return marks

    lost = frozenset(name for name, report in world.overlap.items() if report.deterministic)

    def reasons(moved: frozenset[str]) -> list[str]:
        return support.reasons(world.overlap, world.facts, moved)

    def rolled(plans: Iterable[np.ndarray]) -> list[str]:
        return repeats.warnings_of_plans(world.facts.get("repeats", {}), panel, window, plans, frame=world.model.frame)

    where = "have no like row at their value, or too few at their combination with the other actions"
    return Reach(beyond, where, lost, reasons, rolled)


def forecast(world: ConsumerWorld, panel: Panel, window: slice, *, feedback: bool, first: int) -> tuple[Any, Any]:
    """Give the function that expects outcomes under a plan, and its data.

    Args:
        window: periods of the panel.
        feedback: whether outcomes and actions are fed back into the history (`rollout`) or not (`rows`).
        first: first period of the window that any plan changes.
    """
    if not feedback:
        return RowsForecast(world.model), project_rows(world, panel, window)
    history = world.history(panel, window.start)
    return RolloutForecast(world.model, first), RolloutData(
        world.params, _periods(history, slice(0, window.stop - window.start))
    )
