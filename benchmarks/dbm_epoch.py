"""One fine-tuning epoch of the published machine: 312,320 rows, 72-64-32-16, batch 128, k = 5, 10 mean-field sweeps.

`block` is the default here, true block Gibbs chains over all layers; `visible` are the source's chains, which infer the
hidden layers anew by mean field at every step. `shared` is an epoch whose steps all cores of a CPU work on together,
each a device (`learn.epoch(share=)`), as a world with one member is trained; `wmjax` leaves the cores to JAX. Each
setting runs in a process of its own, whose peak memory is told.
The peer is the same epoch in PyTorch (`benchmarks.torch_dbm`; `pip install -e ".[peers]"`), on the GPU where JAX has
one, else with the number of threads that suits it best; ours is centred as well under `block`, which costs us time and
the peer none.
Floor of a step, in counted work (see `facts`): multiply-adds of all products, sigmoids, and random words.
"""

from __future__ import annotations

import importlib
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

from benchmarks import measure, torch_dbm
from experiments import common
from experiments.common import Cell
from wmjax.core import devices
from wmjax.core.visible import Visible
from wmjax.dbm import learn, types
from wmjax.dbm.learn import LearnConfig
from wmjax.dbm.types import DBMConfig

SIZES = (72, 64, 32, 16)
REFERENCE = {"block": None, "visible": 21.0}
"""Seconds of the source's author: torch, 8 threads (53 s on Apple MPS)."""


def counted(chains: str, rows: int, batch: int = 128, k: int = 5, sweeps: int = 10) -> dict[str, float]:
    """Count an epoch's least work: 10^9 multiply-adds, 10^6 sigmoids, 10^6 random words."""
    v, a, b, c = SIZES
    upper, bottom = a * b + b * c, v * a
    infer = bottom + sweeps * 2 * upper
    if chains == "block":
        negative, sig, words = k * 2 * (bottom + upper), k * (v + a + b + c), k * (v + a + b + c)
    else:
        negative, sig, words = k * (infer + bottom) + infer, k * (sweeps * (a + b + c) + v), k * (a + v)
    gradient = 2 * (bottom + upper)
    steps = rows // batch
    return {
        "giga_multiply_adds": steps * batch * (infer + negative + gradient) / 1e9,
        "mega_sigmoids": steps * batch * (sweeps * (a + b + c) + sig) / 1e6,
        "mega_random_words": steps * batch * words / 1e6,
    }


def one(chains: str, rows: int, runs: int, cores: int = 1) -> dict[str, float]:
    """Train epochs in this process; return the median seconds of one, the compile seconds and the peak memory.

    With more cores than one each is a device, and they share the rows of a step.
    """
    devices.use_cores(cores)
    data = jnp.asarray(np.random.default_rng(0).random((rows, SIZES[0]), np.float32) < 0.283, jnp.uint8)
    visible = Visible.bernoulli(SIZES[0])
    cfg = LearnConfig(chains="block") if chains == "block" else learn.PAPER
    bias = learn.visible_bias(data, visible=visible)
    params = types.init(jax.random.key(0), bias, cfg=DBMConfig(hidden=SIZES[1:]))
    state = learn.init(jax.random.key(1), params, data, cfg=cfg, visible=visible)
    share = devices.layout(1, learn.rows_to_share(cfg, rows)).share
    args = (jax.random.key(2), state, data)
    args = args if share is None else devices.place(args, share, -1)
    program, compile_seconds = measure.compiled(
        lambda key, s, d: learn.epoch(key, s, d, cfg=cfg, visible=visible, share=share), *args
    )
    seconds = measure.interleaved({"epoch": lambda: program(*args)}, runs=runs)["epoch"]
    return {"seconds": seconds, "compile": compile_seconds, "peak": measure.peak_rss_gb()}


def peer(chains: str, rows: int, runs: int) -> dict[str, Any]:
    """Train PyTorch's epochs in this process, with one thread and with all; return the median seconds of the faster."""
    torch: Any = importlib.import_module("torch")
    data = (np.random.default_rng(0).random((rows, SIZES[0]), np.float32) < 0.283).astype(np.uint8)
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    call, found = torch_dbm.epoch(data, SIZES, chains=chains, device=device), {}
    for threads in {1, os.cpu_count() or 1} if device == "cpu" else {1}:
        torch.set_num_threads(threads)
        found[threads] = measure.interleaved({"epoch": call}, runs=runs)["epoch"]
    threads = min(found, key=lambda t: found[t])
    return {"seconds": found[threads], "threads": threads, "torch": torch.__version__}


def work(options: common.Options, observer: Any) -> Any:
    """Measure both settings, each in a process of its own."""
    started = time.monotonic()
    rows, runs = (312_320, 3) if options.size == "full" else (1_280, 1)
    scores, reference, facts = {}, {}, {}
    for chains, known in REFERENCE.items():
        found = _apart("--one", chains, rows, runs)
        scores[Cell(chains, "wmjax", "seconds_per_epoch")] = found["seconds"]
        if jax.default_backend() == "cpu" and (cores := devices.num_cores()) > 1:
            shared = _apart("--one", chains, rows, runs, cores)
            scores[Cell(chains, "shared", "seconds_per_epoch")] = shared["seconds"]
            scores[Cell(chains, "shared", "peak_rss_gb")] = shared["peak"]
        scores[Cell(chains, "wmjax", "peak_rss_gb")] = found["peak"]
        if known is not None:
            reference[Cell(chains, "wmjax", "seconds_per_epoch")] = known
        facts[chains] = {"rows": rows, "compile_s": found["compile"], **counted(chains, rows)}
        if importlib.util.find_spec("torch") is not None:
            other = _apart("--peer", chains, rows, runs)
            scores[Cell(chains, "torch", "seconds_per_epoch")] = other["seconds"]
            scores[Cell(chains, "wmjax", "ratio_to_torch")] = other["seconds"] / found["seconds"]
            facts[chains] |= {name: other[name] for name in ("threads", "torch")}
    table = common.summarise([scores], reference=reference)
    seconds = time.monotonic() - started
    return common.write_result(options, "dbm_epoch", table, seeds=[0], seconds=seconds, facts=facts)


def _apart(which: str, chains: str, *numbers: int) -> dict[str, Any]:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.dbm_epoch", which, chains, *map(str, numbers)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    if sys.argv[1:2] in (["--one"], ["--peer"]):
        measured = one if sys.argv[1] == "--one" else peer
        print(json.dumps(measured(sys.argv[2], *map(int, sys.argv[3:]))))
    else:
        sys.exit(common.run("benchmarks.dbm_epoch", work))
