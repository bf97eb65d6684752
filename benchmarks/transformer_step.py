"""A training step of the default causal transformer, 2.1 million parameters: 16 units x 52 weeks, 5 channels, float32.

A step is the outcome player's: forward with dropout, backward, clipped, AdamW. The peer is the same network in PyTorch
(`benchmarks.torch_transformer`; `pip install -e ".[peers]"`), eager and compiled where a compiler is there, with one
thread and with all; the fastest of these is told. Floor: the step's products, counted as three times the forward's,
over the rate of a product of a layer's shape, measured in the same run. Each runs in a process of its own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import measure, torch_transformer
from experiments import common
from experiments.common import Cell, Check
from wmjax.transformer import losses, network, response, tokens
from wmjax.transformer.config import MMMConfig
from wmjax.transformer.network import Series
from wmjax.transformer.tokens import Channels

CHANNELS, COVARIATES, STATIC = 5, 10, 4
RATE, DECAY, CLIP = 2e-3, 1e-2, 1.0
SHAPES = {
    "full": (MMMConfig(), 16, 52, 15),
    "smoke": (MMMConfig(width=16, heads=2, blocks=1, feed_forward=16), 2, 12, 1),
}


def problem(cfg: MMMConfig, units: int, time: int) -> tuple[Any, Series, Channels]:
    """Draw parameters of the outcome's player and a batch: what is learnt costs nothing."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    spend = jnp.asarray(rng.random((units, time, CHANNELS)) * (rng.random((units, time, CHANNELS)) < 0.7), jnp.float32)
    observed, place = jnp.ones((units, time), bool), jnp.arange(units)
    series = Series(spend, draw(units, time, COVARIATES), draw(units, time), draw(units, STATIC), observed, place)
    known = tokens.channels(CHANNELS, cfg=cfg)
    curves = response.centre(jnp.ones(CHANNELS))
    shape = {"num_covariates": COVARIATES, "num_static": STATIC, "curves": curves}
    return network.init(jax.random.key(0), known, cfg=cfg, **shape)["outcome"], series, known


def products(cfg: MMMConfig, units: int, time: int) -> float:
    """Count a forward's multiply-adds."""
    d, rows = cfg.width, units * time
    features = 2 * cfg.frequencies + 2
    token = features * d + d * d + 4 * d * d + 2 * CHANNELS * d
    # Scores and sums over rows, of keys and of relative positions, masked or not.
    layer = 3 * (4 * d * d + 4 * time * d) + 2 * d * cfg.feed_forward
    head = d * cfg.representation + (cfg.representation + d + 1) * cfg.head_units
    per = CHANNELS * token + cfg.blocks * 3 * layer + (COVARIATES + 1) * d + head
    return float(rows * per)


def one(size: str) -> dict[str, Any]:
    """Train here; return the median seconds of a step, those to compile, the peak memory, and of a layer's product."""
    cfg, units, periods, runs = SHAPES[size]
    params, series, known = problem(cfg, units, periods)
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.adamw(RATE, weight_decay=DECAY))

    def loss(own: Any, key: Any) -> Any:
        keys = jax.random.split(key, units)
        found = network.apply(own, series, known, cfg=cfg, key=keys).outcome
        return losses.squared(found, series.outcome, jnp.ones((units, periods)))

    def update(own: Any, opt: Any, key: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(own, key)
        change, opt = optimizer.update(grads, opt, own)
        return optax.apply_updates(own, change), opt, value

    program, compile_seconds = measure.compiled(update, params, optimizer.init(params), jax.random.key(1))
    a, b = jnp.ones((units * periods, cfg.width)), jnp.ones((cfg.width, cfg.feed_forward))
    multiply, _ = measure.compiled(lambda a, b: a @ b, a, b)
    state = optimizer.init(params)

    def many() -> Any:
        for _ in range(20):
            found = multiply(a, b)
        return found

    found = measure.interleaved({"step": lambda: program(params, state, jax.random.key(2)), "product": many}, runs=runs)
    count = sum(x.size for x in jax.tree.leaves(params))
    work = a.shape[0] * a.shape[1] * b.shape[1]
    return {
        "seconds": found["step"],
        "rate": 20 * work / found["product"],
        "compile": compile_seconds,
        "peak": measure.peak_rss_gb(),
        "parameters": count,
    }


def peer(size: str) -> dict[str, Any]:
    """Train PyTorch's steps in this process; return the median seconds of the fastest way."""
    torch: Any = importlib.import_module("torch")
    cfg, units, periods, runs = SHAPES[size]
    params, series, known = problem(cfg, units, periods)
    found, failed = {}, {}
    for threads in sorted({1, os.cpu_count() or 1}):
        torch.set_num_threads(threads)
        for way in ("eager", "compiled") if size == "full" else ("eager",):
            own = torch_transformer.Network(params, series, np.asarray(known.code), cfg)
            call = torch_transformer.step(own, rate=RATE, decay=DECAY, clip=CLIP, compiled=way == "compiled")
            try:
                found[f"{way}, {threads} threads"] = measure.interleaved({"step": call}, runs=runs)["step"]
            except Exception as error:
                failed[way] = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
    best = min(found, key=lambda way: found[way])
    return {"seconds": found[best], "way": best, "ways": found, "failed": failed, "torch": torch.__version__}


def work(options: common.Options, observer: Any) -> Any:
    """Measure both, each in a process of its own, ours on as many cores as the peer may use."""
    started = time.monotonic()
    cfg, units, periods, _ = SHAPES[options.size]
    busy = os.getloadavg()[0]
    found = _apart("--one", options.size)
    floor = 3 * products(cfg, units, periods) / found["rate"]
    cell = lambda quantity, method="wmjax": Cell("step", method, quantity)  # noqa: E731
    scores = {
        cell("seconds_per_step"): found["seconds"],
        cell("parameters"): float(found["parameters"]),
        cell("fraction_of_floor"): floor / found["seconds"],
        cell("peak_rss_gb"): found["peak"],
    }
    facts = {
        "load_before": round(busy, 2),
        "compile_s": found["compile"],
        "giga_multiply_adds": 3 * products(cfg, units, periods) / 1e9,
        "giga_multiply_adds_per_s": found["rate"] / 1e9,
        "floor_s": floor,
    }
    checks = []
    if importlib.util.find_spec("torch") is not None:
        other = _apart("--peer", options.size)
        ratio = found["seconds"] / other["seconds"]
        scores[cell("seconds_per_step", "torch")] = other["seconds"]
        scores[cell("time_against_torch")] = ratio
        checks = [Check("seconds of a step against PyTorch's", ratio, 0.0, 1.0)]
        facts |= {"peer": {name: other[name] for name in ("way", "ways", "failed", "torch")}}
    facts["load_after"] = round(os.getloadavg()[0], 2)
    table, seconds = common.summarise([scores]), time.monotonic() - started
    return common.write_result(
        options, "transformer_step", table, seeds=[0], seconds=seconds, checks=checks, facts=facts
    )


def _apart(which: str, size: str) -> dict[str, Any]:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.transformer_step", which, size]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    if sys.argv[1:2] in (["--one"], ["--peer"]):
        print(json.dumps((one if sys.argv[1] == "--one" else peer)(sys.argv[2])))
    else:
        sys.exit(common.run("benchmarks.transformer_step", work))
