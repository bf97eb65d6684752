"""A media world's plans: 1,024 of four channels' spend in all of 156 weeks, swept for 20 geos.

Each is answered by all draws of the default world's curves in float32, outcomes by geo; what is fitted does not matter,
so it is one step. Floor: the same draws' saturation of spend that was carried over already, no carry-over and no plan
to lay out, measured alone in the same run. A plan costs Google Meridian .12 to .21 CPU-seconds (measured elsewhere).
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


def ask(world: MediaWorld, panel: Panel, levels: tuple[int, ...]) -> int:
    """Sweep the product of as many levels a channel; return how many plans these are."""
    names = panel.action_names
    grid = Grid(tuple(p for n, k in zip(names, levels, strict=True) for p in axes.linear(f"x_{n}", 0, 2, k).parts))
    plan = tuple(Scale(action=name, factor=Axis(f"x_{name}")) for name in names)
    setting = sweeping.Setting(start=0, periods=panel.num_times)
    sweeping.sweep(world, panel, grid, key=jax.random.key(0), setting=setting, plan=plan, reduce=Full(of="gain"))
    return grid.size


def floor(world: MediaWorld, panel: Panel) -> tuple[Any, tuple[Any, ...]]:
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
    """Measure both."""
    devices.use_cores()
    started, full = time.monotonic(), options.size == "full"
    sim = MediaSimConfig(num_geos=20, num_weeks=156, num_channels=4)
    panel = simulated.panel(simulated.simulate(0, sim))
    cfg = dataclasses.replace(MediaConfig() if full else SMOKE, epochs=1, steps=1, warm=1)
    world = media.fit(jax.random.key(0), panel, cfg)
    levels, runs = ((4, 4, 8, 8), 3) if full else ((1, 1, 2, 2), 1)
    plans = ask(world, panel, levels)
    took = cpu(lambda: ask(world, panel, levels), runs) / plans
    saturate, args = floor(world, panel)
    program, _ = measure.compiled(saturate, *args)
    least = cpu(lambda: program(*args), 3 * runs) / AT_ONCE
    numbers = {"cpu_seconds_per_plan": took, "fraction_of_floor": least / took, "draws": float(world.answers)}
    rows = common.summarise([{Cell("media", "wmjax", name): value for name, value in numbers.items()}])
    seconds, facts = time.monotonic() - started, {"plans": plans, "floor_s": least}
    return common.write_result(options, "media_plans", rows, seeds=[0], seconds=seconds, facts=facts)


if __name__ == "__main__":
    sys.exit(common.run("benchmarks.media_plans", work))
