"""Several processes on one sweep: started here on one machine, or by a cluster, each of which knows its number.

On one machine `start` runs one command a worker. On a cluster every process runs the same command and reads its number
from `jax.distributed` (Slurm, TPU pods and Kubernetes jobs are known to it) or is told. Workers share nothing but the
place of the result: each takes every n-th step and writes its own boxes, and the first merges what all have folded.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from wmjax.core.errors import UserError


def distributed_worker(**options: Any) -> tuple[int, int]:
    """Join the cluster that this process was started by; give its number and how many there are.

    Must be called before anything touches a device.

    Args:
        options: of `jax.distributed.initialize`, where it does not find them by itself: `coordinator_address`,
            `num_processes`, `process_id`.

    Raises:
        UserError: no cluster is found.
    """
    try:
        jax.distributed.initialize(**options)
    except (ValueError, RuntimeError) as error:
        message = f"no cluster found ({error}); give every process its number: --worker 0/8, --worker 1/8, .."
        raise UserError(message) from None
    return jax.process_index(), jax.process_count()


def local_mesh() -> Mesh | None:
    """All devices of this process on one axis; None where there is but one."""
    devices = jax.local_devices()
    return Mesh(np.array(devices), ("grid",)) if len(devices) > 1 else None


def worker_of(text: str) -> tuple[int, int]:
    """Read `3/8`: number 3, counted from 0, of 8."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdigit() and count.isdigit() and int(number) < int(count)):
        raise UserError(f"worker is {text!r}, must be NUMBER/COUNT with numbers from 0, for example 0/2")
    return int(number), int(count)


def start(commands: Sequence[Sequence[str]], env: Mapping[str, str] = MappingProxyType({})) -> None:
    """Run one command a worker side by side, each on its share of the cores, until all have ended.

    The first one's words reach the terminal; the others are heard where they fail. `env` is added to the environment.

    Raises:
        UserError: a worker ended with an error; the others are ended, and what is finished is kept.
    """
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder, f"{i}.log") for i in range(len(commands))]
        running = [
            _begin(command, number, len(commands), log, env)
            for number, (command, log) in enumerate(zip(commands, logs, strict=True))
        ]
        try:
            left = dict(enumerate(running))
            while left:
                for number, process in list(left.items()):
                    code = process.poll()
                    if code == 0:
                        del left[number]
                    elif code is not None:
                        said = logs[number].read_text(errors="replace").strip().splitlines()
                        words = f": {said[-1]}" if said else ""
                        raise UserError(
                            f"worker {number} of {len(commands)} ended with code {code}{words}; "
                            "the same command goes on from what is finished"
                        )
                time.sleep(0.05)
        finally:
            for process in running:
                if process.poll() is None:
                    process.kill()
                process.wait()


def _begin(
    command: Sequence[str], number: int, count: int, log: Path, env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start one worker on its own cores, where the system can and there are as many as workers."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    own = cores[number * len(cores) // count : (number + 1) * len(cores) // count]
    with log.open("wb") as quiet:
        heard = None if number == 0 else quiet
        process = subprocess.Popen(command, stdout=heard, stderr=heard, env={**os.environ, **env})
    if own and hasattr(os, "sched_setaffinity"):
        # Before it has made any thread: threads take their cores from the one that makes them.
        os.sched_setaffinity(process.pid, own)
    return process
