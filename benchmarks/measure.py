"""How the benchmarks measure: compile ahead, warm up, then the median of interleaved runs."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np


def compiled(fn: Callable[..., Any], *args: Any) -> tuple[Callable[..., Any], float]:
    """Compile `fn` for these arguments; return the program and the seconds it took."""
    started = time.perf_counter()
    program = jax.jit(fn).lower(*args).compile()
    return program, time.perf_counter() - started


def interleaved(calls: Mapping[str, Callable[[], Any]], *, runs: int) -> dict[str, float]:
    """Take the median seconds of each call, one run of each in turn, so that drift of the machine meets all alike."""
    for call in calls.values():
        jax.block_until_ready(call())
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            started = time.perf_counter()
            jax.block_until_ready(call())
            seconds[name].append(time.perf_counter() - started)
    return {name: float(np.median(s)) for name, s in seconds.items()}


def peak_rss_gb() -> float:
    """Give this process's largest resident memory so far, in units of 10^9 bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Unlike `getrusage`, this does not begin with the peak of the process that started this one.
        found = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None)
        if found is not None:
            return int(found.split()[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
