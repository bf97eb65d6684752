"""A sweep small enough to be told by hand, and the program that the kill tests run.

`python toy.py FOLDER KILLS SEED` sweeps into `FOLDER/calm.zarr` undisturbed, then into `FOLDER/0.zarr`, `1.zarr`, ..,
killing the sweeping process at random moments until there were KILLS kills, and says how many each one met.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from wmjax.core.keys import key_for
from wmjax.sweep import axes
from wmjax.sweep.engine import sweep
from wmjax.sweep.moments import Moments
from wmjax.sweep.quantiles import Quantiles
from wmjax.sweep.ranks import Best, Top
from wmjax.sweep.reduce import Full

GRID = axes.choices("who", ("x", "y", "z")) * axes.linear("cut", 0.0, 0.4, 5) * axes.seeds(7)
UNITS = tuple("abcdef")
DIMS = {"sales": ("unit",)}
KEEP = {
    "all": Full(of="sales"),
    "mean": Moments(of="sales", keep=("who", "cut")),
    "top": Top(of="cost", k=4),
    "best": Best(of="sales"),
    "spread": Quantiles(of="sales", error=0.05),
}
CHUNK = 14
"""Boxes of two levels of `cut` by all seeds: nine of them, every third one ragged."""


def base():
    return np.linspace(1.0, 2.0, len(UNITS)).astype(np.float32)


def evaluate(key, point, own):
    """Sales of each unit, with luck; and a cost."""
    luck = jax.random.normal(key, own.shape)
    sales = own * (1.0 + point["cut"]) ** 2 - 3.0 * point["cut"] * point["who"] + 0.1 * luck
    return {"sales": sales, "cost": 100.0 * point["cut"] + point["who"]}


def brute():
    """Every point by NumPy, one after another: sales [who, cut, seed, unit] and cost [who, cut, seed]."""
    sales, cost, own = np.zeros((3, 5, 7, 6)), np.zeros((3, 5, 7)), base().astype(np.float64)
    for who in range(3):
        for c, cut in enumerate((0.0, 0.1, 0.2, 0.3, 0.4)):
            for seed in range(7):
                luck = np.asarray(jax.random.normal(key_for(jax.random.key(5), "seed", seed), (6,)), np.float64)
                sales[who, c, seed] = own * (1 + cut) ** 2 - 3 * cut * who + 0.1 * luck
                cost[who, c, seed] = 100 * cut + who
    return sales, cost


def run(reduce=None, grid=GRID, **options):
    options = {"chunk": CHUNK, "dims": DIMS, "coords": {"unit": list(UNITS)}, **options}
    return sweep(
        evaluate,
        grid,
        key=jax.random.key(5),
        data=(jnp.asarray(base()),),
        reduce=KEEP if reduce is None else reduce,
        **options,
    )


LIVED = {name: KEEP[name] for name in ("all", "mean", "top")}


def live(out, report):
    """Be one life of a sweep, in a process of its own; say when it begins."""

    def slow(event):
        os.write(report, b".")
        time.sleep(0.01)

    # Every box is followed by a checkpoint, so that kills meet these too.
    run(LIVED, out=out, observer=slow, save_seconds=0.0)


def begin(out):
    """Fork a life; return its number once it has compiled and begun."""
    told, report = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            live(out, report)
            code = 0
        finally:
            os._exit(code)
    os.close(report)
    started = bool(os.read(told, 1))
    os.close(told)
    return child, started


def main(folder: Path, kills: int, seed: int) -> None:
    moments = random.Random(seed)
    child, _ = begin(folder / "calm.zarr")
    started = time.monotonic()
    assert os.waitpid(child, 0)[1] == 0
    calm = time.monotonic() - started
    number = 0
    while kills:
        met, status = 0, None
        while status != 0:
            child, begun = begin(folder / f"{number}.zarr")
            # A sweep that goes on from its end may be through before it says a word.
            if begun and kills:
                time.sleep(moments.uniform(0, calm))
                os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
            assert status in (0, signal.SIGKILL), status
            met, kills = met + (status != 0), kills - (status != 0)
        print(met)
        number += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
