"""Probing frozen decoders: all pushes, all swap graphs, all shops in one program, beside the plain loop.

The plain loop calls one compiled roll-out of one shop under one graph with one push at a time, as a person would write
it first; it is timed on a few of the calls and scaled to all. Also measured: the memory of the program as the number of
graphs grows fourfold, and the seconds of one CausalMMM epoch in its quirky form, whose authors' loop takes minutes for
ten epochs of 300 shops at batch size 1.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import measure
from experiments import common
from experiments.common import Cell
from wmjax.evaluate import influence
from wmjax.evaluate.influence import InfluenceConfig
from wmjax.graph import decoder, learn
from wmjax.graph.causalmmm import CausalMMMConfig
from wmjax.graph.decoder import DecoderConfig
from wmjax.graph.learn import LearnConfig
from wmjax.graph.series import Batch, Split

LENGTH, STEPS = 28, 7


def swap(nodes: int, graphs: int, shops: int, *, hidden: int, calls: int, runs: int) -> tuple[dict[Cell, float], dict]:
    """Measure one swap matrix of one decoder against the plain loop."""
    cfg = DecoderConfig(hidden=hidden)
    keys = jax.random.split(jax.random.key(0), 3)
    params = decoder.init(keys[0], cfg=cfg, num_nodes=nodes)
    given = (jax.random.uniform(keys[1], (graphs, shops, nodes, nodes)) < 0.2).astype(jnp.float32)
    history = jax.random.normal(keys[2], (shops, LENGTH, nodes))
    unit = jnp.ones(nodes)

    def roll(params: Any, graph: jax.Array, history: jax.Array) -> jax.Array:
        return decoder.rollout(params, graph, history, cfg=cfg, steps=STEPS)

    def whole(params: Any, given: jax.Array, history: jax.Array) -> influence.Influence:
        stacked = jax.tree.map(lambda a: a[None], params)
        return influence.swap(
            roll, stacked, given, history, cfg=InfluenceConfig(), input_sd=unit, output_sd=unit, chunk=64
        )

    ours, seconds_to_compile = measure.compiled(whole, params, given, history)
    one, _ = measure.compiled(roll, params, given[0, 0], history[0])

    def loop() -> jax.Array:
        return jnp.stack([one(params, given[at % graphs, 0], history[at % shops]) for at in range(calls)])

    seconds = measure.interleaved({"wmjax": lambda: ours(params, given, history), "loop": loop}, runs=runs)
    rollouts = graphs * shops * (nodes + 1)
    plain = seconds["loop"] / calls * rollouts
    setting = f"d={nodes}, {graphs} graphs, {shops} shops"
    memory = []
    for times in (1, 4):
        program = jax.jit(whole).lower(params, jnp.tile(given, (times, 1, 1, 1)), history).compile()
        analysis = program.memory_analysis()
        memory.append(float("nan") if analysis is None else float(analysis.temp_size_in_bytes))
    found = {
        Cell(setting, "wmjax", "rollouts_per_s"): rollouts / seconds["wmjax"],
        Cell(setting, "loop", "rollouts_per_s"): rollouts / plain,
        Cell(setting, "wmjax", "ratio_to_loop"): plain / seconds["wmjax"],
        Cell(setting, "wmjax", "temp_bytes"): memory[0],
        Cell(setting, "wmjax", "temp_bytes_at_4_times_the_graphs"): memory[1],
    }
    return found, {"compile_s": seconds_to_compile, "calls_of_the_loop": calls, "hidden": hidden}


def epoch(shops: int, *, hidden: int, runs: int) -> dict[Cell, float]:
    """Measure one epoch of CausalMMM as its authors have it, batched."""
    cfg = LearnConfig(model=CausalMMMConfig(quirks=True, hidden=hidden, horizon=10), epochs=10, batch_size=32, clip=0.0)
    values = jax.random.normal(jax.random.key(1), (shops, 100, 8))
    batch = Batch(values, jnp.zeros((shops, 8, 8)), jnp.zeros((shops, 2)))
    data = Split(batch, jax.tree.map(lambda a: a[: shops // 5], batch))
    state = learn.init(jax.random.key(2), data, cfg=cfg)
    program, _ = measure.compiled(lambda s, d: learn.epoch(jax.random.key(3), s, d, cfg=cfg)[0], state, data)
    seconds = measure.interleaved({"wmjax": lambda: program(state, data)}, runs=runs)["wmjax"]
    return {Cell(f"CausalMMM, {shops} shops, width {hidden}", "wmjax", "seconds_per_epoch"): seconds}


def work(options: common.Options, observer: Any) -> Any:
    """Measure the swap and the epoch."""
    started, full = time.monotonic(), options.size == "full"
    sizes = {"nodes": 16, "graphs": 12, "shops": 64} if full else {"nodes": 4, "graphs": 2, "shops": 3}
    found, facts = swap(**sizes, hidden=64 if full else 4, calls=200 if full else 3, runs=5 if full else 1)
    found |= epoch(240 if full else 8, hidden=256 if full else 4, runs=3 if full else 1)
    rows = common.summarise([found])
    return common.write_result(options, "influence", rows, seeds=[0], seconds=time.monotonic() - started, facts=facts)


if __name__ == "__main__":
    sys.exit(common.run("benchmarks.influence", work))
