"""Ten million plans for the demo's households in one command, and its best plans beside brute force on a subgrid.

A plan sets three campaigns on or off and two exposures to one of many levels in the first test week; each of 16
households' best plan is the one of most profit over what was done, at prices written below. `--data RUN` takes the
folder of a fitted demo (`wmjax demo --out RUN`); without one the demo's world is fitted first.

The table of best plans is checked by itself: the world's own `predict` of a table in which each household gets the plan
that is published for it must give the profit that is published. And by brute force, plan by plan with nothing shared
between plans, over a subgrid that holds every published level beside others: its best must be the published one, no
more and no less. `seconds` are of the sweep, `command_seconds` of all, the start of Python and a fit included.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import common
from experiments.common import Cell, Check
from wmjax.data import complete_journey
from wmjax.data.panel import Panel
from wmjax.report.run import Run
from wmjax.sweep import axes
from wmjax.sweep.grids import Grid
from wmjax.sweep.ranks import Best, Top
from wmjax.sweep.reduce import Full
from wmjax.worlds import consumer, sweeping
from wmjax.worlds.consumer.config import DEMO, SMOKE
from wmjax.worlds.sweeping import Setting

CAMPAIGNS = ("campaign_a", "campaign_b", "campaign_c")
EXPOSURES = ("display_exposure", "mailer_exposure")
WORTH = (("shopped", 1.0), ("big_basket", 2.0))
COST = (("campaign_a", 0.05), ("campaign_b", 0.05), ("campaign_c", 0.05), ("mailer_exposure", 0.1))
HOUSEHOLDS = 16
READ = time.monotonic()


def grid_of(levels: tuple[np.ndarray, ...]) -> Grid:
    """Multiply the campaigns by the levels of the exposures."""
    first, *rest = [axes.axis(name, [0, 1]) for name in CAMPAIGNS]
    rest += [axes.axis(name, values.tolist()) for name, values in zip(EXPOSURES, levels, strict=True)]
    for part in rest:
        first = first * part
    return first


def brute(world: Any, panel: Panel, grid: Grid, start: int) -> np.ndarray:
    """Work out every plan's profit, [plans, households], by `predict` of a panel with the plan's actions."""
    worth = np.array([dict(WORTH).get(name, 0.0) for name in panel.outcome_names])
    cost = np.array([dict(COST).get(name, 0.0) for name in panel.action_names])
    week, present = slice(start, start + 1), panel.arrays.mask[:, start]
    rows = world.observed(panel, week)
    factual, usual = panel.arrays.actions[:, start], world.expected(rows)
    labels, out = grid.at(np.arange(grid.size, dtype=np.uint64)), np.zeros((grid.size, panel.num_units))
    for point in range(grid.size):
        actions = factual.copy()
        for name, values in labels.items():
            actions[present, panel.action_names.index(name)] = values[point]
        expected = world.expected(dataclasses.replace(rows, actions=actions[rows.unit]))
        profit = (expected - usual) @ worth - ((actions - factual) @ cost)[rows.unit]
        out[point, rows.unit] = profit
    return out


def profits(world: Any, panel: Panel, found: Any, names: tuple[str, ...], start: int) -> np.ndarray:
    """Ask `predict` what each household's own best plan brings over what was done: `[households]`."""
    actions, week = panel.arrays.actions.copy(), slice(start, start + 1)
    for name in names:
        actions[:, start, panel.action_names.index(name)] = found[f"best_best_{name}"].values
    told = [world.predict(p, times=week)["mean"] for p in (panel.with_actions(actions), panel)]
    gain = (told[0] - told[1]).isel(time=0)
    more = (actions - panel.arrays.actions)[:, start]
    worth = [price * gain.sel(outcome=name).values for name, price in WORTH]
    cost = [price * more[:, panel.action_names.index(name)] for name, price in COST]
    return np.sum(worth, axis=0) - np.sum(cost, axis=0)


def with_levels(levels: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Take every fourth part of an exposure's levels, the last, and those that some household was given."""
    return np.unique(np.concatenate([levels[:: max(1, len(levels) // 4)], levels[-1:], of]))


def fitted(options: common.Options, observer: Any) -> tuple[Any, Panel]:
    """Open the run, or fit the demo."""
    if options.data is not None:
        return Run(options.data).world(), Run(options.data).panel()
    panel = complete_journey.load_panel(first_week=9)
    if options.size == "smoke":
        panel = panel.select(units=panel.units[::40])
    cfg = DEMO if options.size == "full" else SMOKE
    return consumer.fit(jax.random.key(0), panel, cfg, folder=options.out / "checkpoints", observer=observer), panel


def work(options: common.Options, observer: Any) -> Any:
    """Sweep, and check."""
    full = options.size == "full"
    world, panel = fitted(options, observer)
    start = world.periods(panel).start
    seen = np.flatnonzero(panel.arrays.mask[:, start])[:HOUSEHOLDS]
    few = panel.select(units=[panel.units[i] for i in seen])
    counts = (1250, 1000) if full else (5, 4)
    levels = tuple(
        np.linspace(0.0, float(panel.arrays.actions[..., panel.action_names.index(name)].max()), count)
        for name, count in zip(EXPOSURES, counts, strict=True)
    )
    options_of: dict[str, Any] = {"key": jax.random.key(0), "setting": Setting(start=start, worth=WORTH, cost=COST)}
    large = grid_of(levels)
    keep = {"best": Best(of="profit"), "top": Top(of="profit", k=10)}
    began = time.monotonic()
    found = sweeping.sweep(
        world, few, large, reduce=keep, out=options.out / "sweep_at_scale.zarr", observer=observer, **options_of
    )
    seconds = time.monotonic() - began
    assert found is not None
    best = found["best_value"].values
    again = profits(world, few, found, large.names, start)
    given = (found[f"best_best_{name}"].values for name in EXPOSURES)
    small = grid_of(tuple(with_levels(x, of) for x, of in zip(levels, given, strict=True)))
    part = sweeping.sweep(world, few, small, reduce=Full(of="profit"), **options_of)
    assert part is not None
    ours, theirs = part["profit"].values.reshape(small.size, -1), brute(world, few, small, start)
    asked, gap = np.abs(again - best).max(), np.abs(ours - theirs).max()
    over, under = (theirs.max(0) - best).max(), (best - theirs.max(0)).max()
    evaluations = large.size * len(seen) * world.members * len(panel.outcome_names)
    whole = age()
    scores = {
        Cell("demo", "wmjax", "plans"): float(large.size),
        Cell("demo", "wmjax", "seconds"): seconds,
        Cell("demo", "wmjax", "command_seconds"): whole,
        Cell("demo", "wmjax", "plans_per_s"): large.size / seconds,
        Cell("demo", "wmjax", "evaluations_per_s"): evaluations / seconds,
        Cell("best_plans", "wmjax", "largest_gap_to_predict"): float(asked),
        Cell("subgrid", "wmjax", "largest_gap_to_brute_force"): float(gap),
        Cell("subgrid", "wmjax", "most_by_which_brute_force_beats_best_plan"): float(over),
        Cell("subgrid", "wmjax", "most_by_which_best_plan_beats_brute_force"): float(under),
    }
    checks = [
        Check("each household's best plan is worth what `predict` says", float(asked), 0.0, 1e-5),
        Check("every plan of the subgrid is that of brute force", float(gap), 0.0, 1e-5),
        Check("no plan of the subgrid beats a household's best plan", float(over), -1e-5, 1e-5),
        Check("no best plan claims more than the subgrid's best", float(under), -1e-5, 1e-5),
        Check("the whole command within ten minutes", whole, 0.0, 600.0),
    ]
    facts = {
        "households": len(seen),
        "members": world.members,
        "subgrid": small.size,
        "fitted_by_this_command": options.data is None,
        "worth": dict(WORTH),
        "cost": dict(COST),
        "best": [
            {name: _plain(found[f"best_best_{name}"].values[i]) for name in large.names}
            | {"profit": float(found["best_value"].values[i]), "household": _plain(found["unit"].values[i])}
            for i in range(len(seen))
        ],
    }
    rows = common.summarise([scores])
    return common.write_result(options, "sweep_at_scale", rows, seeds=[0], seconds=whole, checks=checks, facts=facts)


def age() -> float:
    """Seconds since this process began; where the system does not tell, since this file was read."""
    told = Path("/proc/self/stat")
    if not told.exists():
        return time.monotonic() - READ
    # The words after the name in brackets, which may hold blanks; the 22nd of all is the start, in ticks since boot.
    ticks = int(told.read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


if __name__ == "__main__":
    sys.exit(common.run("experiments.sweep_at_scale", work))
