"""Any grid of plans on a fitted world: what every plan would bring, cost and gain, by unit and outcome.

What does not depend on the swept axes is computed once. Before the sweep: what happens without any plan, the history
before the first period asked for, and, of the consumer world, beliefs of every row and the adapters' projections of
them (`feedback=False`); of the media world, the network (response form) and the weeks that no longer carry over; of the
graph world, what was heard. In it, by `vmap`: of the consumer world with feedback, the periods before the first one
that any plan changes, and the belief of that period; and all that depends on the grid's first dimensions alone, so put
members, segments and starts first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.sharding import Mesh
from jaxtyping import Array, Key

from wmjax.core.errors import UserError
from wmjax.core.observe import Observer, silent
from wmjax.core.provenance import fingerprint as hash_of
from wmjax.core.provenance import to_plain
from wmjax.data.panel import Panel
from wmjax.sweep import engine, grids, plan_reading, plans
from wmjax.sweep.grids import Grid, Layout
from wmjax.sweep.plans import Axis, Plan
from wmjax.sweep.reduce import Full, Reduction, Segments
from wmjax.sweep.sizing import SweepPlan
from wmjax.worlds import sweep_beside, sweep_checks, sweep_segments, sweep_support, sweep_words
from wmjax.worlds.sweep_checks import HORIZON
from wmjax.worlds.sweep_plans import DIMS, Evaluate, Parts, SweepData
from wmjax.worlds.sweep_support import Question

Warn = Callable[[Sequence[str]], None]
"""Is told of warnings."""
FORECASTS = {
    "ConsumerWorld": "wmjax.worlds.consumer.forecasting",
    "GraphWorld": "wmjax.worlds.graph.forecasting",
    "MediaWorld": "wmjax.worlds.media.forecasting",
}
"""Where each kind of world keeps its `forecast`, its `reach`, who `answers`, its `carry` and its `outcomes`."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is asked of each plan.

    Attributes:
        start: position of the panel's first period in question; plans count their periods from it.
        periods: how many.
        carry: periods after them whose outcomes count too, as far as the panel goes; what was done there stays. None is
            as many as the world carries actions over to by itself: a media world's spend, one period of a graph world;
            none of a consumer world, nor where the grid has an axis `horizon`.
        feedback: whether outcomes that the plan brings, and its actions, change later histories (a roll-out, whose luck
            axes of seeds average), or each row keeps its observed history (a one-step effect in every row).
        by: a static column whose levels are the groups that plans may name (an axis `segment`).
        worth: of one unit of each outcome, in money.
        cost: of one unit of each action in one period.
    """

    start: int
    periods: int = 1
    carry: int | None = None
    feedback: bool = False
    by: str | None = None
    worth: tuple[tuple[str, float], ...] = ()
    cost: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("start", 0), ("periods", 1), ("carry", 0)):
            if (value := getattr(self, name)) is not None and value < least:
                raise ValueError(f"{name} is {value}, must be at least {least}")


BESIDE = ("supported", "present", sweep_segments.REACHED)
"""Variables that stand beside what is kept."""


class Prepared(NamedTuple):
    """Arguments of the engine."""

    evaluate: Evaluate
    grid: Grid
    options: dict[str, Any]


def sweep(
    world: Any,
    panel: Panel,
    grid: Grid,
    *,
    key: Key[Array, ""],
    setting: Setting,
    plan: Plan | None = None,
    reduce: Reduction | Mapping[str, Reduction] | None = None,
    chunk: int | None = None,
    budget_bytes: int | None = None,
    mesh: Mesh | None = None,
    out: str | Path | None = None,
    worker: tuple[int, int] = (0, 1),
    patience_seconds: float = 3600.0,
    notes: Sequence[str] = (),
    warn: Warn | None = None,
    observer: Observer = silent,
) -> xr.Dataset | None:
    """Expect what every plan of a grid brings to every unit.

    Outputs that reductions may read (`of`), of each point, all over the units present: `total`, the expected outcomes
    summed over the periods and what they carry over to (see `Setting.carry`), or up to an axis `horizon`; `gain`, the
    same less that of what was done, under the same luck; `cost`, of the actions more than were done; `profit`, what the
    gain is worth less the cost; `path`, the expected outcomes of each period. The mean over those who answer, members
    or draws of what the data leave open, or an axis `member` of the grid.

    Args:
        world: a fitted world.
        panel: histories, and the actions that plans edit.
        grid: of plans. Axes named as actions set them; see `plan_from_axes` for all names that need no `plan`.
        key: of the luck, which all plans share.
        setting: what is asked.
        plan: edits that read the grid's axes; made from the axes' names if not given.
        reduce: what is kept; a reduction that names no output reads `total`. All plans' totals if not given. A static
            column among what a mean or quantiles `keep` averages over the units of its levels, those with a row.
        chunk, budget_bytes, mesh, out, worker, patience_seconds, observer: as of `engine.sweep`.
        notes: warnings that hold for whatever is asked of the world, which the result carries.
        warn: is told of all warnings before anything is swept.

    Returns:
        A dataset labelled with the grid's axes, units, outcomes and dates, and the world's provenance, with `warnings`
        where the grid goes beyond what was seen and the units `absent` in its periods, whose numbers are 0; where plans
        are kept in full, and are not too many, `supported` marks the units for which the data speak for all that the
        plan moves, see `sweep_support`, and `present` those with a row; where each unit's best plan is kept,
        `supported` of that one; where plans are of some units alone, `reached` those that each may change: others stay
        as they were. Units are labelled by the panel's static columns. None for a worker but the first.

    Raises:
        UserError: axes, names or periods that do not fit the panel.
    """
    setting = carried(world, panel, grid, setting)
    evaluate, grid, options = prepare(world, panel, grid, key=key, setting=setting, plan=plan, reduce=reduce)
    about = {"world": to_plain(dict(world.provenance)), "setting": to_plain(setting), "plan": to_plain(options["plan"])}
    seen = np.asarray(panel.arrays.mask[:, _window(panel, setting)].any(1), bool)
    absent = [str(unit) for unit, here in zip(panel.units, seen, strict=True) if not here]
    asked = question(world, panel, evaluate, grid, setting)
    of_actions, of_points, always = sweep_support.warnings(asked, grid)
    many = sweep_support.too_many(asked, grid) if sweep_beside.full(options["reduce"]) else []
    free = _unpriced(evaluate, options["reduce"], setting)
    lines = sweep_support.lines(asked, grid, world.facts, (notes, free, of_actions, of_points, always, many))
    if warn is not None:
        warn(lines)
    told = about | {
        "warnings": lines,
        "of_actions": of_actions,
        "of_points": of_points,
        "absent": absent,
        "edits": plan_reading.to_edits(options["plan"]),
        "units": sweep_words.units(panel),
        "panel_fingerprint": panel.fingerprint,
        "drawn": import_module(forecasting(world)).answers(world, feedback=setting.feedback).drawn,
    }
    beside = sweep_beside.beside(asked, grid, options["reduce"], options["data"][0].groups, seen, observer)
    words = sweep_words.described(panel, grid, options["coords"]["outcome"], setting.carry or 0)
    words |= {name: words["supported"] for name in beside if name.endswith("_supported")}
    words |= {name: words["best_reached"] for name in beside if name.endswith("_reached")}
    return engine.sweep(
        evaluate,
        grid,
        key=key,
        reduce=options["reduce"],
        data=options["data"],
        chunk=chunk,
        budget_bytes=budget_bytes,
        mesh=mesh,
        out=out,
        dims=DIMS,
        coords=options["coords"],
        provenance=told,
        described=words,
        extra=beside,
        fingerprint=hash_of(about, list(evaluate.actions)),
        worker=worker,
        patience_seconds=patience_seconds,
        observer=observer,
    )


def plan_sweep(
    world: Any,
    panel: Panel,
    grid: Grid,
    *,
    key: Key[Array, ""],
    setting: Setting,
    plan: Plan | None = None,
    reduce: Reduction | Mapping[str, Reduction] | None = None,
    chunk: int | None = None,
    budget_bytes: int | None = None,
    mesh: Mesh | None = None,
    timed: bool = False,
    notes: Sequence[str] = (),
    warn: Warn | None = None,
) -> SweepPlan:
    """Say what a sweep would take, without running it; arguments as of `sweep` and `engine.plan_sweep`."""
    evaluate, grid, options = prepare(world, panel, grid, key=key, setting=setting, plan=plan, reduce=reduce)
    if warn is not None:
        asked = question(world, panel, evaluate, grid, setting)
        many = sweep_support.too_many(asked, grid) if sweep_beside.full(options["reduce"]) else []
        free = _unpriced(evaluate, options["reduce"], setting)
        warn(sweep_support.lines(asked, grid, world.facts, (notes, free, *sweep_support.warnings(asked, grid), many)))
    return engine.plan_sweep(
        evaluate,
        grid,
        key=key,
        reduce=options["reduce"],
        data=options["data"],
        chunk=chunk,
        budget_bytes=budget_bytes,
        mesh=mesh,
        dims=DIMS,
        timed=timed,
    )


def prepare(
    world: Any,
    panel: Panel,
    grid: Grid,
    *,
    key: Key[Array, ""],
    setting: Setting,
    plan: Plan | None = None,
    reduce: Reduction | Mapping[str, Reduction] | None = None,
) -> Prepared:
    """Compute what all plans share, and name what is asked of each; `options` are those of the engine."""
    setting = carried(world, panel, grid, setting)
    window = _window(panel, setting)
    whole = slice(window.start, window.stop + (setting.carry or 0))
    plan = plan_reading.plan_from_axes(grid.names, panel.action_names) if plan is None else plan
    groups = groups_of(panel, setting.by)
    room = import_module(forecasting(world))
    sweep_checks.check_axes(grid, plan, panel, room.answers(world, feedback=setting.feedback), groups)
    sweep_checks.check_times(grid, plan, setting.periods)
    first = _first_changed(plan, grid, setting)
    expect, data = room.forecast(world, panel, whole, feedback=setting.feedback, first=first)
    outcomes = room.outcomes(world, panel)
    present = np.array(panel.arrays.mask[:, whole], bool)
    present[:, setting.periods :] &= present[:, : setting.periods].any(1, keepdims=True)
    kept = _reductions(reduce, panel, grid, np.asarray(present[:, : setting.periods].any(1)))
    sweep_checks.check_choices(grid, kept if isinstance(kept, Mapping) else {"": kept}, outcomes)
    factual = jnp.asarray(panel.arrays.actions[:, whole])
    usual: Parts = ()
    choices = tuple(grid.choices.items())
    if not setting.feedback:
        own = tuple(plans.moved(plan, names=tuple(panel.action_names), choices=dict(choices)))
        usual = _usual(key, data, factual, expect=expect, moved=own)
    found = SweepData(
        forecast=data,
        factual=factual,
        present=jnp.asarray(present),
        groups=groups,
        worth=jnp.asarray(_prices(setting.worth, outcomes, "outcome")),
        cost=jnp.asarray(_prices(setting.cost, panel.action_names, "action")),
        usual=usual,
    )
    evaluate = Evaluate(expect, plan, tuple(panel.action_names), choices, setting.periods, setting.feedback)
    coords: dict[str, Any] = {"unit": list(panel.units), "outcome": list(outcomes), "time": panel.times[whole]}
    coords |= sweep_segments.labels(panel, {*grid.names, *grid.dims, *coords, *DIMS, *BESIDE})
    return Prepared(evaluate, grid, {"data": (found,), "reduce": kept, "coords": coords, "plan": plan})


def carried(world: Any, panel: Panel, grid: Grid, setting: Setting) -> Setting:
    """Say how many periods after those of the plans count, as far as the panel goes.

    Raises:
        UserError: an axis `horizon`, which ends a plan's count within its periods, and a carry too.
    """
    horizon, carry = HORIZON in grid.names, setting.carry
    if horizon and carry:
        raise UserError(f"the axis {HORIZON!r} ends what is counted within the periods; carry is {carry}, must be 0")
    if carry is None:
        carry = 0 if horizon else import_module(forecasting(world)).carry(world)
    return dataclasses.replace(setting, carry=max(0, min(carry, panel.num_times - setting.start - setting.periods)))


@partial(jax.jit, static_argnames=("expect", "moved"))
def _usual(key: Any, data: Any, factual: Array, *, expect: Any, moved: tuple[bool, ...]) -> Parts:
    """Expect what was done, by the parts that plans are told by; an equal world's `expect` compiles once."""
    columns = jnp.unstack(factual, axis=-1)
    return expect(key, data, factual, tuple(x if own else None for x, own in zip(columns, moved, strict=True)), None)


def _unpriced(evaluate: Evaluate, kept: Any, setting: Setting) -> list[str]:
    """Say which of the actions that plans move cost nothing in what is kept, because they have no price."""
    moved = plans.moved(evaluate.plan, names=evaluate.actions, choices=dict(evaluate.choices))
    free = [n for n, own in zip(evaluate.actions, moved, strict=True) if own and n not in dict(setting.cost)]
    read = {one.of for one in (kept.values() if isinstance(kept, Mapping) else (kept,))}
    if not free or not read & {"cost", "profit"}:
        return []
    return [f"{', '.join(free)}: no price (--cost), so that cost and profit count none of it"]


def question(world: Any, panel: Panel, evaluate: Evaluate, grid: Grid, setting: Setting) -> Question:
    """Say what the plans of a grid ask of a world, for `sweep_support`."""
    window = _window(panel, setting)
    factual, groups = jnp.asarray(panel.arrays.actions[:, window]), groups_of(panel, setting.by)
    fixed: dict[str, Any] = {"plan": evaluate.plan, "layout": grid.layout, "names": evaluate.actions}
    return Question(
        reach=import_module(forecasting(world)).reach(world, panel, window),
        factual=np.asarray(factual),
        present=np.asarray(panel.arrays.mask[:, window], bool),
        plan=evaluate.plan,
        apply=partial(_planned, factual, groups, grid.tables(), choices=evaluate.choices, **fixed),
        names=evaluate.actions,
        binary=frozenset(n for n in panel.action_names if panel.schema.column(n).kind == "binary"),
        money=frozenset(n for n in panel.action_names if panel.schema.column(n).kind == "currency"),
        feedback=setting.feedback,
        span={name: _span(panel.arrays.actions[..., at], panel) for at, name in enumerate(panel.action_names)},
    )


def _span(values: Any, panel: Panel) -> tuple[float, float]:
    there = np.asarray(values)[np.asarray(panel.arrays.mask, bool)]
    return float(there.min()), float(there.max())


@partial(jax.jit, static_argnames=("plan", "layout", "names", "choices"))
def _planned(
    factual: Array, groups: Any, tables: Any, digits: Array, *, plan: Plan, layout: Layout, names: Any, choices: Any
) -> Array:
    """Apply a plan at a point; equal grids of equal plans compile once."""
    point = grids.decode(layout, tuple(digits), tables)
    return plans.apply(plan, factual, point, names=names, groups=groups, choices=dict(choices))


def segments(panel: Panel, by: str) -> Segments:
    """Group the panel's units by a static column, for a reduction; real values are cut at their quintiles."""
    from wmjax.worlds.consumer.rows import unit_labels

    return Segments.of(list(unit_labels(panel, by)))


def forecasting(world: Any) -> str:
    """Name the module that forecasts for a world.

    Raises:
        UserError: a kind of world that cannot be swept.
    """
    kind = type(world).__name__
    if kind not in FORECASTS:
        raise UserError(f"a {kind} cannot be swept; worlds that can are {', '.join(FORECASTS)}")
    return FORECASTS[kind]


def _window(panel: Panel, setting: Setting) -> slice:
    stop = setting.start + setting.periods
    if stop > panel.num_times:
        raise UserError(
            f"periods {setting.start} to {stop - 1} are asked for, the panel has 0 to {panel.num_times - 1}: start at "
            f"{panel.num_times - setting.periods} or before, or ask for fewer"
        )
    return slice(setting.start, stop)


def _first_changed(plan: Plan, grid: Grid, setting: Setting) -> int:
    """Find the first period that any plan of the grid may change."""
    columns, least = {c.name: c for c in grid.columns}, setting.periods - 1
    for edit in plan:
        start = edit.start
        if isinstance(start, Axis):
            if start.name not in columns:
                raise UserError(f"the plan names the grid axis {start.name!r}; {plans.near(start.name, columns)}")
            start = int(columns[start.name].labels().min())
        least = min(least, int(start))
    return least


def groups_of(panel: Panel, by: str | None) -> dict[str, Array]:
    if by is None:
        return {}
    found = segments(panel, by)
    return {name: jnp.asarray(np.array(found.codes) == code) for code, name in enumerate(found.names)}


def _prices(prices: tuple[tuple[str, float], ...], names: tuple[str, ...], what: str) -> np.ndarray:
    strange = [name for name, _ in prices if name not in names]
    if strange:
        raise UserError(f"no {what} {strange[0]!r} to price; {plans.near(strange[0], names)}")
    return np.array([dict(prices).get(name, 0.0) for name in names], np.float32)


def _reductions(reduce: Any, panel: Panel, grid: Grid, seen: np.ndarray) -> Any:
    """Let reductions that name no output read the total, and those that name a static column read its segments."""
    if not isinstance(reduce, Mapping):
        return _reductions({"": Full() if reduce is None else reduce}, panel, grid, seen)[""]
    told = {n: one if one.of is not None else dataclasses.replace(one, of="total") for n, one in reduce.items()}
    return sweep_segments.averaged(told, panel, grid, seen)
