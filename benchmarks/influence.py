"""Probing frozen decoders: all pushes, all swap graphs, all shops in one program, beside the plain loop.

The plain loop calls one compiled roll-out of one shop under one graph with one push at a time, as a person would write
it first; it is timed on a few of the calls and scaled to all. Ours listens to what precedes the push once for all of
them: 27 + 17 x 8 steps of the decoder for each pair of graph and shop where the loop takes 17 x 35, and is so allowed
3.65 times the loop's rate by that alone. Also measured: the memory of the program as the number of
graphs grows fourfold.

And 200 epochs of CausalMMM in its quirky form on 300 shops (240 to learn from, 60 to validate on), batched, beside the
authors' way of one shop a step, four shops learnt from and one validated on, timed and scaled to the epoch: `torch`,
as they run it (`benchmarks.torch_causalmmm`; `pip install -e ".[peers]"`; the faster of one and two threads), and
`loop`, our own step on one shop in one program, which has no dispatch from Python to pay for.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure, torch_causalmmm
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

    probed = influence.Resumable(
        lambda params, graph, early: decoder.remember(params, graph, early, cfg=cfg),
        lambda params, graph, memory, rest: decoder.go_on(params, graph, memory, rest, cfg=cfg, steps=STEPS),
    )

    def whole(params: Any, given: jax.Array, history: jax.Array) -> influence.Influence:
        stacked = jax.tree.map(lambda a: a[None], params)
        return influence.swap(
            probed, stacked, given, history, cfg=InfluenceConfig(), input_sd=unit, output_sd=unit, chunk=64
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


def epochs(shops: int, *, times: int, hidden: int, runs: int) -> dict[Cell, float]:
    """Measure epochs of CausalMMM as its authors have it, 30 shops a step and one, four in five shops learnt from."""
    model = CausalMMMConfig(quirks=True, hidden=hidden, horizon=10)
    cfg = LearnConfig(model=model, epochs=10, batch_size=30, clip=0.0)
    few = 5
    calls, scale = {}, {"wmjax": 1.0, "loop": shops / few}
    for method, count, size in (("wmjax", shops, 30), ("loop", few, 1)):
        learning = dataclasses.replace(cfg, batch_size=size)
        values = jax.random.normal(jax.random.key(1), (count, times, 8))
        batch = Batch(values, jnp.zeros((count, 8, 8)), jnp.zeros((count, 2)))
        cut = count * 4 // 5
        data = Split(*(jax.tree.map(lambda a, at=at: a[at], batch) for at in (slice(cut), slice(cut, None))))
        state = learn.init(jax.random.key(2), data, cfg=learning)
        step = lambda s, d, learning=learning: learn.epoch(jax.random.key(3), s, d, cfg=learning)[0]  # noqa: E731
        program, _ = measure.compiled(step, state, data)
        calls[method] = lambda program=program, state=state, data=data: program(state, data)
    if importlib.util.find_spec("torch") is not None:
        torch: Any = importlib.import_module("torch")
        params, learnt = jax.tree.map(np.asarray, state.params), few * 4 // 5
        own = torch_causalmmm.epoch(params, np.asarray(values), learnt, rate=cfg.learning_rate, cfg=model)
        for threads in (1, 2):

            def peer(threads: int = threads) -> None:
                torch.set_num_threads(threads)
                own()

            calls[f"torch {threads}"], scale[f"torch {threads}"] = peer, shops / few
    seconds = {method: s * scale[method] for method, s in measure.interleaved(calls, runs=runs).items()}
    peers = [seconds.pop(name) for name in list(seconds) if name.startswith("torch")]
    seconds |= {"torch": min(peers)} if peers else {}
    setting = f"CausalMMM, {shops} shops, width {hidden}"
    found = {Cell(setting, method, "seconds_per_200_epochs"): 200 * s for method, s in seconds.items()}
    for peer_name in set(seconds) - {"wmjax"}:
        found[Cell(setting, "wmjax", f"ratio_to_{peer_name}")] = seconds[peer_name] / seconds["wmjax"]
    return found


def work(options: common.Options, observer: Any) -> Any:
    """Measure the swap and the epoch."""
    started, full = time.monotonic(), options.size == "full"
    sizes = {"nodes": 16, "graphs": 12, "shops": 64} if full else {"nodes": 4, "graphs": 2, "shops": 3}
    found, facts = swap(**sizes, hidden=64 if full else 4, calls=200 if full else 3, runs=5 if full else 1)
    for hidden in (256, 32) if full else (4,):
        found |= epochs(300 if full else 10, times=100 if full else 24, hidden=hidden, runs=3 if full else 1)
    rows = common.summarise([found])
    return common.write_result(options, "influence", rows, seeds=[0], seconds=time.monotonic() - started, facts=facts)


if __name__ == "__main__":
    sys.exit(common.run("benchmarks.influence", work))
