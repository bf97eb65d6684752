"""A whole attribution: 20 channels x 21 points of their curves, 5 members, 20 geos x 156 weeks, in one program.

What a member knows is random: the numbers cost the same. The peer is the same questions one at a time, as a user of a
model without a sweep would ask them: a compiled call a scenario and member (no spend, the plan, and by channel nothing,
5 % less, 5 % more and each multiple), from a Python loop. Temporary memory is the compiled program's own count, with 21
and with 210 points. Recompilations are counted on a second call with other numbers. A scenario is one plan answered by
one member for all geos and weeks; Google Meridian takes .12 to .21 CPU-seconds for one (with its own draws).
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from experiments import common
from experiments.common import Cell, Check
from wmjax.evaluate import attribution
from wmjax.evaluate.attribution import STEP, Attribution, Window
from wmjax.transformer import response, tokens
from wmjax.transformer.config import MMMConfig
from wmjax.transformer.network import Series
from wmjax.worlds.media import model as pure
from wmjax.worlds.media import programs
from wmjax.worlds.media.model import History, Ready

CFG = MMMConfig(head="response")
CHUNK = 16
MERIDIAN = 0.12
"""CPU-seconds of a scenario, the lower end of two measurements."""


class Size(NamedTuple):
    """How much is asked."""

    channels: int
    points: int
    members: int
    geos: int
    weeks: int
    runs: int


FULL, SMOKE = Size(20, 21, 5, 20, 156, 3), Size(3, 5, 2, 2, 20, 1)


class Problem(NamedTuple):
    """Members, what happened, and the grid."""

    members: Ready
    history: History
    plan: jax.Array
    over: Window
    grid: jax.Array


def problem(size: Size, seed: int = 0) -> Problem:
    """Draw members, a history and a plan."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    shape, k = (size.geos, size.weeks), size.channels
    spend = jnp.asarray(rng.random((*shape, k)), jnp.float32)
    series = Series(spend, draw(*shape, 0), draw(*shape), draw(size.geos, 0), jnp.ones(shape, bool))
    ones = jnp.ones(size.geos)
    history = History(series, tokens.channels(k, cfg=CFG), ones, 100 * ones, jnp.asarray(10.0), jnp.ones(k))
    centre = response.centre(0.5 * jnp.ones(k))
    curves = jax.tree.map(lambda x: x + 0.3 * draw(size.members, k), centre)
    members = Ready({"curves": curves}, draw(size.members, *shape))
    over = attribution.window(size.weeks, 0, size.weeks, carry=0)
    return Problem(members, history, spend, over, jnp.linspace(0, 2, size.points))


def ask(p: Problem) -> Attribution:
    """Attribute in one program."""
    return programs.attribute(p.members, p.history, p.plan, p.over, p.grid, 0, cfg=CFG, chunk=CHUNK)


@jax.jit
def scenario(member: Ready, history: History, plan: Any, channel: Any, factor: Any, over: Window) -> Any:
    """Answer one scenario of one member."""
    respond = lambda own, x: pure.respond(own, history, x, 0, cfg=CFG)  # noqa: E731
    return attribution.total(respond, member, attribution.scaled(plan, channel, factor, over.change), over)


def loop(p: Problem) -> Attribution:
    """Ask the same one scenario after another; both derivatives but the automatic one, which is left out."""
    factors = [0.0, 1 - STEP, 1 + STEP, *np.asarray(p.grid).tolist()]
    parts = []
    for m in range(p.members.base.shape[0]):
        member = jax.tree.map(lambda x, m=m: x[m], p.members)

        def told(k: int, f: float, member: Ready = member) -> np.ndarray:
            return np.asarray(scenario(member, p.history, p.plan, k, f, p.over))

        none, factual = told(-1, 0.0), told(-1, 1.0)
        rest = np.array([[told(k, f) for f in factors] for k in range(p.plan.shape[2])])
        slope = (rest[:, 2] - rest[:, 1]) / (2 * STEP)
        curve = rest[:, 3:] - rest[:, :1]
        told_of: Any = (factual - rest[:, 0], none, factual, curve, slope, slope, slope, slope)
        parts.append(Attribution(*told_of))
    return jax.tree.map(lambda *x: np.stack(x), *parts)


def temporary_mb(size: Size, points: int) -> float:
    """Give the compiled program's temporary memory less nothing, in units of 10^6 bytes."""
    p = problem(size._replace(points=points))
    lowered = programs.attribute.lower(p.members, p.history, p.plan, p.over, p.grid, 0, cfg=CFG, chunk=CHUNK)
    found: Any = lowered.compile().memory_analysis()
    return found.temp_size_in_bytes / 1e6


def work(options: common.Options, observer: Any) -> Any:
    """Measure the program and the loop in turn."""
    started, busy = time.monotonic(), os.getloadavg()[0]
    size = FULL if options.size == "full" else SMOKE
    p = problem(size)
    whole = jax.tree.map(np.asarray, ask(p))
    one_by_one = loop(p)
    gap = max(
        float(np.abs(a - b).max() / np.abs(b).max())
        for a, b in zip((whole.zero, whole.curve), (one_by_one.zero, one_by_one.curve), strict=True)
    )
    compilations: Any = programs.attribute._cache_size  # pyright: ignore[reportAttributeAccessIssue]
    before = compilations()
    jax.block_until_ready(ask(problem(size, seed=1)))
    recompiled = compilations() - before
    seconds = measure.interleaved({"program": lambda: ask(p), "loop": lambda: loop(p)}, runs=size.runs)
    cpu = time.process_time()
    for _ in range(size.runs):
        jax.block_until_ready(ask(p))
    cpu = (time.process_time() - cpu) / size.runs
    scenarios = size.members * (2 + size.channels * (3 + size.points))
    few, many = (temporary_mb(size, points) for points in (size.points, 10 * size.points))
    cell = lambda quantity, method="wmjax": Cell("attribution", method, quantity)  # noqa: E731
    scores = {
        cell("seconds"): seconds["program"],
        cell("seconds", "loop"): seconds["loop"],
        cell("ratio_to_loop"): seconds["loop"] / seconds["program"],
        cell("largest_relative_gap_to_loop"): gap,
        cell("recompilations_second_call"): float(recompiled),
        cell("temporary_mb"): few,
        cell("temporary_mb_10_times_the_points"): many,
        cell("cpu_seconds_per_scenario"): cpu / scenarios,
    }
    checks = [
        Check("times as fast as the loop", scores[cell("ratio_to_loop")], 5.0, np.inf),
        Check("memory with ten times the grid points against memory", many / few, 0.0, 1.05),
        Check("recompilations on the second call", float(recompiled), 0.0, 0.0),
        Check("relative gap between program and loop", gap, 0.0, 1e-3),
    ]
    facts = {
        "scenarios": scenarios,
        "meridian_cpu_seconds_per_scenario": [MERIDIAN, 0.21],
        "load_before": round(busy, 2),
        "load_after": round(os.getloadavg()[0], 2),
    }
    table, took = common.summarise([scores]), time.monotonic() - started
    return common.write_result(options, "attribution", table, seeds=[0], seconds=took, checks=checks, facts=facts)


if __name__ == "__main__":
    sys.exit(common.run("benchmarks.attribution", work))
