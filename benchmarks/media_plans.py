"""A media world's plans: four channels' spend in all of 156 weeks for 20 geos, answered by all draws of the curves.

`wmjax` sweeps a product of sixteen levels a channel, 65,536 plans, of which each level of a channel is worked out once;
`wmjax_sampled` a Latin hypercube of 1,024 plans that share nothing. Outcomes by geo, in float32, by the default world;
what is fitted does not matter, so it is one step.

Floors, measured alone in the same run: of a plan that shares nothing, the same draws' saturation of spend that was
carried over already; of the product, that of its 64 levels, and one pass that adds four numbers a geo and plan. A plan
costs Google Meridian .12 to .21 CPU-seconds (measured elsewhere).
"""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import measure
from experiments import common
from experiments.common import Cell
from wmjax.core import devices
from wmjax.data.panel import Panel
from wmjax.simulate import media as simulated
from wmjax.simulate.media import MediaSimConfig
from wmjax.sweep import axes
from wmjax.sweep.grids import Grid
from wmjax.sweep.plans import Axis, Scale
from wmjax.sweep.reduce import Full
from wmjax.transformer import response
from wmjax.worlds import media, sweeping
from wmjax.worlds.media.config import SMOKE, MediaConfig
from wmjax.worlds.media.world import MediaWorld

AT_ONCE = 16
"""Plans of which the floor has all spend at once, which still keeps to the caches."""
GEOS, WEEKS, CHANNELS, LARGEST = 20, 156, 4, 2.0


def product(names: tuple[str, ...], levels: int) -> Grid:
    """Multiply as many levels of each channel's spend."""
    return Grid(tuple(p for name in names for p in axes.linear(f"x_{name}", 0.0, LARGEST, levels).parts))


def sampled(names: tuple[str, ...], plans: int) -> Grid:
    """Draw plans that share no level."""
    return axes.sample("plan", "latin", plans, [axes.Interval(name=f"x_{name}", high=LARGEST) for name in names])


def ask(world: MediaWorld, panel: Panel, grid: Grid) -> Any:
    """Sweep a grid of multiples of the spend."""
    plan = tuple(Scale(action=name, factor=Axis(f"x_{name}")) for name in panel.action_names)
    setting = sweeping.Setting(start=0, periods=panel.num_times)
    return sweeping.sweep(world, panel, grid, key=jax.random.key(0), setting=setting, plan=plan, reduce=Full(of="gain"))


def saturation(world: MediaWorld, panel: Panel) -> tuple[Any, tuple[Any, ...]]:
    """Give a program that saturates `AT_ONCE` plans' spend by every draw, and its arguments."""
    history = world.history(panel)
    curves = world.answering(history).params["curves"]
    spend = jnp.stack([history.series.spend * (1 + 0.01 * at) for at in range(AT_ONCE)])

    def saturate(curves: response.Curves, spend: jax.Array) -> jax.Array:
        def add(total: jax.Array, own: response.Curves) -> tuple[jax.Array, None]:
            raised = response.saturated(own, spend, cfg=world.cfg.network)
            return total + (response.amplitude(own.size, history.known.sign) * raised).sum(-1), None

        return jax.lax.scan(add, jnp.zeros(spend.shape[:-1]), curves)[0]

    return saturate, (curves, spend)


def adding(levels: int) -> tuple[Any, tuple[Any, ...]]:
    """Give a program that adds a number of each channel for every geo and plan of a product, and its arguments."""
    tables = [jnp.arange(levels * GEOS, dtype=jnp.float32).reshape(levels, GEOS) * (1 + at) for at in range(CHANNELS)]

    def add(*tables: jax.Array) -> jax.Array:
        wide = [jnp.expand_dims(x, [k for k in range(CHANNELS) if k != at]) for at, x in enumerate(tables)]
        return wide[0] + wide[1] + wide[2] + wide[3]

    return add, tuple(tables)


def cpu(call: Any, runs: int) -> float:
    """Take the least processor seconds of a call, warmed up."""
    call()
    found = []
    for _ in range(runs):
        begun = time.process_time()
        jax.block_until_ready(call())
        found.append(time.process_time() - begun)
    return min(found)


def work(options: common.Options, observer: Any) -> Any:
    """Measure all of it."""
    devices.use_cores()
    started, full = time.monotonic(), options.size == "full"
    panel = simulated.panel(
        simulated.simulate(0, MediaSimConfig(num_geos=GEOS, num_weeks=WEEKS, num_channels=CHANNELS))
    )
    cfg = dataclasses.replace(MediaConfig() if full else SMOKE, epochs=1, steps=1, warm=1)
    world = media.fit(jax.random.key(0), panel, cfg)
    levels, plans, runs = (16, 1024, 5) if full else (2, 4, 1)
    saturate, one = saturation(world, panel)
    add, tables = adding(levels)
    least, pass_ = (measure.compiled(program, *args)[0] for program, args in ((saturate, one), (add, tables)))
    share = cpu(lambda: least(*one), 3 * runs) / AT_ONCE
    whole = levels * share + cpu(lambda: pass_(*tables), 3 * runs)
    cells: common.Scores = {}
    names = panel.action_names
    asked = {"wmjax": (product(names, levels), whole), "wmjax_sampled": (sampled(names, plans), plans * share)}
    for method, (grid, floor) in asked.items():
        took = cpu(lambda grid=grid: ask(world, panel, grid), runs)
        numbers = {"plans": grid.size, "cpu_seconds": took, "cpu_seconds_per_plan": took / grid.size}
        numbers |= {"fraction_of_floor": floor / took, "draws": world.answers}
        cells |= {Cell("media", method, name): float(value) for name, value in numbers.items()}
    seconds = time.monotonic() - started
    facts = {"floor_s_of_a_plan_that_shares_nothing": share, "floor_s_of_the_product": whole}
    return common.write_result(
        options, "media_plans", common.summarise([cells]), seeds=[0], seconds=seconds, facts=facts
    )


if __name__ == "__main__":
    sys.exit(common.run("benchmarks.media_plans", work))
