"""Attribution in one program against a loop of calls, like against like: 20 channels, 20 geos x 156 weeks, 5 members.

An evaluation is one plan answered by one member for all geos and weeks. What a member knows is random: the numbers cost
the same. The peer is the same plans one at a time, a compiled call each, from a Python loop.

`response`: the default world's head, without and with its algebra. `batched` evaluates the very plans of the loop (no
spend, the plan, and by channel nothing, 5 % less, 5 % more and 21 multiples) in one program, so its ratio is what
batching alone is worth. `separable` is what the world does: channels do not interact in this head, so one evaluation
with all channels times m holds every channel's answer at m, and the ratio is that of fewer evaluations above all (it
takes the automatic derivative too, which is not among them).

`free`: the transformer's own head, whose every plan is rolled out week by week through the network, which is what an
evaluation costs of a model that is not a sum of curves; smaller, so that it runs in a minute. Google Meridian takes .12
to .21 CPU-seconds for a scenario of its own (with its draws); `cpu_seconds_per_evaluation` divides by the evaluations
that were made.

Ratios are told of the clock and of processor time, which a busy machine moves less. Temporary memory is the compiled
program's own count, at the grid and at ten times as many points; what it grows by is compared with what the answer
itself grows by. Recompilations are counted on a second call with other numbers.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import common
from experiments.common import Cell, Check
from wmjax.core.observe import Event
from wmjax.evaluate import attribution
from wmjax.evaluate.attribution import STEP, Attribution, Window
from wmjax.train import many
from wmjax.transformer import network, response, tokens
from wmjax.transformer.config import SMALL, MMMConfig
from wmjax.transformer.network import Series
from wmjax.worlds.media import model as pure
from wmjax.worlds.media import programs
from wmjax.worlds.media.model import History, Ready

CHUNK = 16
MERIDIAN = (0.12, 0.21)
"""CPU-seconds of a scenario, two measurements."""


class Size(NamedTuple):
    """How much is asked, of which head."""

    cfg: MMMConfig
    channels: int
    points: int
    members: int
    geos: int
    weeks: int


TINY = MMMConfig(width=8, heads=2, blocks=1, feed_forward=8, frequencies=3, code=4, representation=4, head_units=4)
FULL = {
    "response": Size(MMMConfig(head="response"), 20, 21, 5, 20, 156),
    "free": Size(dataclasses.replace(SMALL, head="free"), 3, 5, 1, 4, 52),
}
SMOKE = {
    "response": Size(dataclasses.replace(TINY, head="response"), 3, 5, 2, 2, 20),
    "free": Size(dataclasses.replace(TINY, head="free"), 2, 3, 1, 2, 12),
}
RUNS = {"full": 5, "smoke": 1}


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
    observed, place = jnp.ones(shape, bool), jnp.arange(size.geos)
    series = Series(spend, draw(*shape, 0), draw(*shape), draw(size.geos, 0), observed, place)
    ones, known = jnp.ones(size.geos), tokens.channels(k, cfg=size.cfg)
    history = History(series, known, ones, 100 * ones, jnp.asarray(10.0), jnp.ones(k), observed)
    centre = response.centre(0.5 * jnp.ones(k))
    if size.cfg.head == "response":
        curves = jax.tree.map(lambda x: x + 0.3 * draw(size.members, k), centre)
        members = Ready({"curves": curves}, draw(size.members, *shape))
    else:
        one = lambda m: network.init(  # noqa: E731
            jax.random.key(seed + m), known, cfg=size.cfg, num_covariates=0, num_static=0, curves=centre
        )
        members = Ready(many.stack([one(m)["outcome"] for m in range(size.members)]), jnp.zeros((size.members, *shape)))
    over = attribution.window(size.weeks, 0, size.weeks, carry=0)
    return Problem(members, history, spend, over, jnp.linspace(0, 2, size.points))


class Answers(NamedTuple):
    """What both ways answer: see `Attribution`."""

    zero: Any
    none: Any
    factual: Any
    curve: Any
    slope: Any


@partial(jax.jit, static_argnames=("cfg",))
def batched(p: Problem, *, cfg: MMMConfig) -> Answers:
    """Evaluate every plan by every member in one program, without regard to what the head's form saves.

    The automatic derivative, which the loop does not take, is not asked for, and so is not compiled.
    """
    respond = lambda own, x: pure.respond(own, p.history, x, 0, cfg=cfg)  # noqa: E731
    found = attribution.members(attribution.attribute, respond, p.members, p.plan, p.over, p.grid, chunk=CHUNK)
    return Answers(*(getattr(found, name) for name in Answers._fields))


def separable(p: Problem, *, cfg: MMMConfig) -> Attribution:
    """Attribute as a world of the response head does."""
    return programs.attribute(p.members, p.history, p.plan, p.over, p.grid, 0, cfg=cfg, chunk=CHUNK)


@partial(jax.jit, static_argnames=("cfg",))
def scenario(member: Ready, p: Problem, channel: Any, factor: Any, *, cfg: MMMConfig) -> Any:
    """Answer one plan by one member."""
    respond = lambda own, x: pure.respond(own, p.history, x, 0, cfg=cfg)  # noqa: E731
    return attribution.total(respond, member, attribution.scaled(p.plan, channel, factor, p.over.change), p.over)


def loop(p: Problem, *, cfg: MMMConfig) -> Answers:
    """Ask the same plans one after another."""
    factors = [0.0, 1 - STEP, 1 + STEP, *np.asarray(p.grid).tolist()]
    parts = []
    for m in range(p.members.base.shape[0]):
        member = jax.tree.map(lambda x, m=m: x[m], p.members)

        def told(k: int, f: float, member: Ready = member) -> np.ndarray:
            return np.asarray(scenario(member, p, k, f, cfg=cfg))

        none, factual = told(-1, 0.0), told(-1, 1.0)
        rest = np.array([[told(k, f) for f in factors] for k in range(p.plan.shape[2])])
        slope = (rest[:, 2] - rest[:, 1]) / (2 * STEP)
        parts.append(Answers(factual - rest[:, 0], none, factual, rest[:, 3:] - rest[:, :1], slope))
    return jax.tree.map(lambda *x: np.stack(x), *parts)


def evaluations(size: Size, method: str) -> int:
    """Count the plans that a method evaluates; a pass that differentiates is not among them."""
    factors = 3 + size.points
    return size.members * (factors if method == "separable" else 2 + size.channels * factors)


def memory_mb(size: Size, method: str, points: int) -> tuple[float, float]:
    """Give a compiled program's temporary memory, and its answer's, in units of 10^6 bytes."""
    p = problem(size._replace(points=points))
    if method == "batched":
        lowered = batched.lower(p, cfg=size.cfg)
    else:
        lowered = programs.attribute.lower(p.members, p.history, p.plan, p.over, p.grid, 0, cfg=size.cfg, chunk=CHUNK)
    found: Any = lowered.compile().memory_analysis()
    return found.temp_size_in_bytes / 1e6, found.output_size_in_bytes / 1e6


def measured(setting: str, size: Size, runs: int, observer: Any) -> tuple[dict[Cell, list[float]], list[Check]]:
    """Measure a head's programs and loop in turn; give every run's figures, and what must hold."""
    p, methods = problem(size), {"batched": batched} | ({"separable": separable} if setting == "response" else {})
    one_by_one = loop(p, cfg=size.cfg)
    cell = lambda method, quantity: Cell(setting, method, quantity)  # noqa: E731
    scores: dict[Cell, list[float]] = {}
    checks = []
    for name, fn in methods.items():
        whole = jax.tree.map(np.asarray, fn(p, cfg=size.cfg))
        # Differences of two sums are rounded as the sums are.
        gap = max(
            float(np.abs(getattr(whole, part) - getattr(one_by_one, part)).max()) for part in ("zero", "none", "curve")
        ) / float(np.abs(one_by_one.factual).max())
        count: Any = (batched if name == "batched" else programs.attribute)._cache_size  # pyright: ignore[reportAttributeAccessIssue]
        before = count()
        jax.block_until_ready(fn(problem(size, seed=1), cfg=size.cfg))
        again = float(count() - before)
        few, more = (memory_mb(size, name, n) for n in (size.points, 10 * size.points))
        growth = (more[0] - few[0]) / (more[1] - few[1])
        for quantity, value in (
            ("largest_gap_to_loop_of_the_outcome", gap),
            ("recompilations_second_call", again),
            ("temporary_mb", few[0]),
            ("temporary_mb_10_times_the_points", more[0]),
            ("answer_mb_10_times_the_points", more[1]),
        ):
            scores[cell(name, quantity)] = [value]
        checks += [
            Check(f"{setting}, {name}: gap to the loop, of the outcome", gap, 0.0, 1e-5),
            Check(f"{setting}, {name}: recompilations on the second call", again, 0.0, 0.0),
            Check(f"{setting}, {name}: memory that ten times the points add, in answers", growth, -np.inf, 2.0),
        ]
    for at in range(runs):
        observer(Event(setting, at, runs, unit="run"))
        seconds, spent = {}, {}
        for name, fn in (*methods.items(), ("loop", loop)):
            cpu, started = time.process_time(), time.perf_counter()
            jax.block_until_ready(fn(p, cfg=size.cfg))
            seconds[name], spent[name] = time.perf_counter() - started, time.process_time() - cpu
            scores.setdefault(cell(name, "seconds"), []).append(seconds[name])
            per = spent[name] / evaluations(size, name)
            scores.setdefault(cell(name, "cpu_seconds_per_evaluation"), []).append(per)
        for name in methods:
            scores.setdefault(cell(name, "ratio_to_loop"), []).append(seconds["loop"] / seconds[name])
            scores.setdefault(cell(name, "cpu_ratio_to_loop"), []).append(spent["loop"] / spent[name])
    for name in (*methods, "loop"):
        scores[cell(name, "evaluations")] = [float(evaluations(size, name))]
    return scores, checks


def work(options: common.Options, observer: Any) -> Any:
    """Measure both heads."""
    started, busy, scores, checks = time.monotonic(), os.getloadavg()[0], {}, []
    for setting, size in (FULL if options.size == "full" else SMOKE).items():
        found, held = measured(setting, size, RUNS[options.size], observer)
        scores, checks = scores | found, checks + held
    ratio = float(np.median(scores[Cell("response", "separable", "ratio_to_loop")]))
    checks.append(Check("a world's own attribution against the loop", ratio, 5.0, np.inf))
    runs = [
        {cell: values[at] for cell, values in scores.items() if at < len(values)} for at in range(RUNS[options.size])
    ]
    facts = {
        "shapes": {name: dict(zip(Size._fields[1:], size[1:], strict=True)) for name, size in FULL.items()},
        "meridian_cpu_seconds_per_scenario": list(MERIDIAN),
        "load_before": round(busy, 2),
        "load_after": round(os.getloadavg()[0], 2),
    }
    table, took = common.summarise(runs), time.monotonic() - started
    return common.write_result(options, "attribution", table, seeds=[0], seconds=took, checks=checks, facts=facts)


if __name__ == "__main__":
    sys.exit(common.run("benchmarks.attribution", work))
