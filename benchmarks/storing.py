"""What it costs a sweep to lose nothing: the store's overhead, and a kill in the middle and going on.

Sweeps with a store and without one take turns, and which of a pair goes first alternates, so that what else the machine
does meets both; the overhead is the median of the pairs' ratios, with their quartiles. Checkpoints are taken every
`SAVE_SECONDS`, three times as often as by default.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wmjax.core.observe import Event
from wmjax.sweep.stepping import STAGE

SAVE_SECONDS = 10.0


def overhead(sweep: Callable[[Path | None], Any], *, pairs: int) -> dict[str, Any]:
    """Time pairs of sweeps, one with a place and one with None; the programs are compiled by the caller.

    Returns:
        `median`, `quarter`, `three_quarters` of ratio less 1, over the pairs; `seconds` of each pair, with and without,
        and `processor_seconds`, which other work on the machine moves less and waiting for the disk is no part of.
    """
    seconds, processor = [], []
    with tempfile.TemporaryDirectory() as folder:
        for pair in range(pairs):
            took, spent = {}, {}
            for stored in (True, False) if pair % 2 else (False, True):
                started, begun = time.perf_counter(), time.process_time()
                sweep(Path(folder, f"{pair}.zarr") if stored else None)
                took[stored], spent[stored] = time.perf_counter() - started, time.process_time() - begun
            seconds.append((took[True], took[False]))
            processor.append((spent[True], spent[False]))
    ratios = np.array([a / b - 1 for a, b in seconds])
    low, median, high = (float(q) for q in np.quantile(ratios, [0.25, 0.5, 0.75]))
    found = {"median": median, "quarter": low, "three_quarters": high}
    return found | {"seconds": seconds, "processor_seconds": processor}


def tell(sweep: Callable[[Callable[[Event], None]], Any]) -> None:
    """Be one life of a sweep: say each step on a line, and at the end how many points it evaluated and its seconds.

    What is read back at the beginning counts to the seconds.
    """
    seen = {"skipped": 0, "evaluated": 0, "done": 0, "total": 1}
    started = None

    def say(event: Event) -> None:
        nonlocal started
        started = time.perf_counter() if started is None else started
        if event.stage == STAGE:
            seen.update(done=event.done, total=event.total)
            if "chunk" in event.metrics:
                seen["skipped"] = event.done
            seen["evaluated"] = event.done - seen["skipped"]
        print(json.dumps({"evaluated": seen["evaluated"], "share": seen["done"] / seen["total"]}), flush=True)

    sweep(say)
    print(json.dumps({"evaluated": seen["evaluated"], "seconds": time.perf_counter() - (started or 0.0)}), flush=True)


def resumed(module: str, *words: Any) -> dict[str, float]:
    """Kill a life of a sweep in its middle and let another end it; a third, undisturbed, is what it is held against.

    Args:
        module, words: command that calls `tell`; the place of the store is its last word.

    Returns:
        `twice`, the share of all points that were evaluated in both lives; `seconds` more than undisturbed, from the
        first step of each life to its end or the kill.
    """
    command = [sys.executable, "-m", module, *map(str, words)]
    compiled = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}

    def live(place: Path, share: float) -> tuple[int, float]:
        """Live until `share` of the points is done; give points and seconds."""
        # Lives share their compiled programs, which are not what is timed.
        env = os.environ | compiled | {"JAX_COMPILATION_CACHE_DIR": str(place.with_name("cache"))}
        with subprocess.Popen([*command, str(place)], stdout=subprocess.PIPE, text=True, env=env) as process:
            assert process.stdout is not None
            said, first = {}, None
            for line in process.stdout:
                said = json.loads(line)
                first = time.perf_counter() if first is None else first
                if said.get("share", 0.0) >= share:
                    process.send_signal(signal.SIGKILL)
                    return said["evaluated"], time.perf_counter() - first
        if process.returncode or "seconds" not in said:
            raise RuntimeError(f"{command} ended with code {process.returncode}, last words {said}")
        return said["evaluated"], said["seconds"]

    with tempfile.TemporaryDirectory() as folder:
        total, calm = live(Path(folder, "calm.zarr"), 2.0)
        lives = [live(Path(folder, "killed.zarr"), share) for share in (0.5, 2.0)]
    points, seconds = (sum(column) for column in zip(*lives, strict=True))
    return {"twice": (points - total) / total, "seconds": seconds - calm}
