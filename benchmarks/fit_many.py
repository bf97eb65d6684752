"""Many models in one program: what 16 machines trained together cost over one, and 64 small models over a loop of fits.

The machines train the same epoch (72-64-32-16, batch 128, k = 5, block Gibbs); the 16 lie on a mapped axis, in equal
shares over the devices; each core of a CPU is one. The 64 are adapters (32-16) of 64 regions, each with rows and a
learning rate of its own: `fit_many` against one `loop.run` a region, which compiles once and then goes from fit to fit.
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from experiments import common
from experiments.common import Cell
from wmjax.core import devices
from wmjax.core.visible import Visible
from wmjax.dbm import learn, types
from wmjax.dbm.learn import LearnConfig
from wmjax.dbm.types import DBMConfig
from wmjax.heads import learn as heads
from wmjax.heads.adapter import AdapterConfig
from wmjax.heads.learn import AdapterData, AdapterState
from wmjax.train import loop, many
from wmjax.train.loop import LoopConfig
from wmjax.train.state import Rule, advance
from wmjax.train.state import begin as begin_run

SIZES = (72, 64, 32, 16)


def program(members: int | None, data: Any) -> Any:
    """Compile an epoch as a fit would run it, of `members` machines or of one; return a call that trains one more."""
    visible, cfg = Visible.bernoulli(SIZES[0]), LearnConfig()
    bias = learn.visible_bias(data, visible=visible)

    def begin(key: Any, rows: Any) -> Any:
        params = types.init(key, bias, cfg=DBMConfig(hidden=SIZES[1:]))
        return learn.init(key, params, rows, cfg=cfg, visible=visible)

    def epoch(key: Any, state: Any, rows: Any) -> Any:
        return learn.epoch(key, state, rows, cfg=cfg, visible=visible)

    def rule(epoch: Any, shape: tuple[int, ...], mesh: Any) -> Rule:
        return Rule(epoch, None, loop.whole, "train", shape, None, "min", None, 0.0, 1, mesh)

    key = jax.random.key(0)
    if members is None:
        how = rule(epoch, (), None)
        train = begin_run(jax.jit(begin)(key, data), how)
    else:
        key, mesh = jax.random.split(key, members), devices.mesh(members)
        how = rule(many.members(epoch, batch_size=many.side_by_side()), (members,), mesh)
        train = begin_run(jax.jit(jax.vmap(begin, (0, None)))(key, data), how)
        if mesh is not None:
            key, train = devices.place((key, train), mesh, members)
            data = devices.place(data, mesh, -1)

    def call() -> Any:
        nonlocal train
        train, info = advance(key, train, data, rule=how)
        return info

    return call


REGION, FEATURES, ACTIONS = AdapterConfig(hidden=(32, 16), batch_size=64), 20, 4


def init_region(key: Any, hyper: dict[str, Any], data: AdapterData) -> AdapterState:
    """Start a region's adapter: its learning rate is a multiple of the configured one."""
    start = heads.init_state(key, cfg=REGION, num_features=FEATURES, num_actions=ACTIONS)
    return start._replace(rate=hyper["rate"])


epoch_region = partial(heads.epoch, cfg=REGION, kind="binary")


def regions(count: int, rows: int, epochs: int) -> dict[str, Any]:
    """Make the two ways to fit every region."""
    rng = np.random.default_rng(2)
    shapes = ((count, rows, FEATURES), (count, rows, ACTIONS), (count, rows))
    features, actions, labels = (jnp.asarray(rng.random(s, np.float32)) for s in shapes)
    data = AdapterData(features, actions, (labels < 0.3).astype(jnp.float32), jnp.ones((count, rows)))
    keys, rates = jax.random.split(jax.random.key(0), count), jnp.geomspace(0.1, 1.0, count)
    cfg = LoopConfig(epochs=epochs)
    begin = jax.jit(init_region)

    def loop_of_fits() -> list[Any]:
        own = [many.member(data, at) for at in range(count)]
        return [
            loop.run(key, begin(key, {"rate": rate}, rows), epoch_region, cfg=cfg, data=rows, snapshot=heads.trained)[
                0
            ].model.params
            for key, rate, rows in zip(keys, rates, own, strict=True)
        ]

    together = partial(
        many.fit_many,
        keys,
        {"rate": rates},
        init_region,
        epoch_region,
        cfg=cfg,
        subsets=data,
        snapshot=heads.trained,
    )
    return {"loop": loop_of_fits, "fit_many": lambda: together()[0].model.params}


def work(options: common.Options, observer: Any) -> Any:
    """Measure one and sixteen members in turn."""
    devices.use_cores()
    started = time.monotonic()
    rows, seeds, runs = (31_232, 16, 25) if options.size == "full" else (256, 2, 1)
    data = jnp.asarray(np.random.default_rng(0).random((rows, SIZES[0]), np.float32) < 0.283, jnp.uint8)
    seconds = measure.interleaved({"1": program(None, data), "many": program(seeds, data)}, runs=runs)
    scores = {
        Cell("72-64-32-16", "wmjax", f"seeds{seeds}_over_seed1"): seconds["many"] / seconds["1"],
        Cell("72-64-32-16", "wmjax", "member_rows_per_s"): seeds * rows / seconds["many"],
    }
    busy = _cores(program(None, data))
    models, rows, epochs, runs = (64, 1024, 10, 3) if options.size == "full" else (4, 128, 1, 1)
    seconds = measure.interleaved(regions(models, rows, epochs), runs=runs)
    scores[Cell("regions", "wmjax", f"speedup_{models}_models")] = seconds["loop"] / seconds["fit_many"]
    took = time.monotonic() - started
    facts = {"cores": os.cpu_count(), "cores_busy_with_one": busy}
    return common.write_result(options, "fit_many", common.summarise([scores]), seeds=[0], seconds=took, facts=facts)


def _cores(call: Any) -> float:
    """Measure how many cores a call keeps busy: what one machine alone takes of them, sixteen cannot have."""
    jax.block_until_ready(call())
    spent, started = time.process_time(), time.perf_counter()
    jax.block_until_ready(call())
    return (time.process_time() - spent) / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(common.run("benchmarks.fit_many", work))
