"""Many devices and many processes: the same numbers as one."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from wmjax.core.errors import UserError
from wmjax.sweep import processes, store

HERE = Path(__file__).parent
MESH = """
import sys, numpy, jax
sys.path.insert(0, sys.argv[1])
import toy
from wmjax.sweep import processes
mesh = processes.local_mesh()
assert mesh.size == 8
toy.run(mesh=mesh, chunk=7, out=sys.argv[2])
"""
CLUSTER = """
import sys
sys.path.insert(0, sys.argv[1])
import toy
from wmjax.sweep import processes
options = {"coordinator_address": sys.argv[3], "num_processes": 2, "process_id": int(sys.argv[4])}
worker = processes.distributed_worker(**options)
assert worker == (int(sys.argv[4]), 2)
toy.run(toy.LIVED, out=sys.argv[2], worker=worker, patience_seconds=300)
"""


def begin(script, *args, **env):
    path = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path, **env}
    return subprocess.Popen(
        [sys.executable, "-c", script, str(HERE), *map(str, args)], env=env, stderr=subprocess.PIPE, text=True
    )


def agrees(found, toy, names):
    alone = toy.run()
    for name in names:
        np.testing.assert_allclose(found[name].values, alone[name].values, rtol=1e-6)


def test_eight_devices_give_what_one_gives(toy, tmp_path):
    """Fifteen boxes on eight devices: the second step has one lane with no box."""
    process = begin(MESH, tmp_path / "s.zarr", XLA_FLAGS="--xla_force_host_platform_device_count=8")
    error = process.communicate(timeout=300)[1]
    assert process.returncode == 0, error
    found = store.read(tmp_path / "s.zarr")
    assert found.attrs["sweep"]["devices"] == 8
    names = ("all_sales", "mean_mean", "mean_variance", "mean_count", "top_index", "best_index", "best_margin")
    agrees(found, toy, (*names, "spread_quantile"))


def test_two_processes_of_a_cluster(toy, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = [begin(CLUSTER, tmp_path / "s.zarr", address, number) for number in range(2)]
    errors = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    found = store.read(tmp_path / "s.zarr")
    assert found.attrs["sweep"]["workers"] == 2
    agrees(found, toy, ("all_sales", "mean_mean", "top_score"))


def test_workers_run_side_by_side_on_their_own_cores(tmp_path):
    script = (
        "import os, sys, time, pathlib; pathlib.Path(sys.argv[1]).touch()\n"
        "while len(list(pathlib.Path(sys.argv[1]).parent.iterdir())) < 2: time.sleep(0.01)"
    )
    processes.start([[sys.executable, "-S", "-c", script, str(tmp_path / str(i))] for i in range(2)])
    assert len(list(tmp_path.iterdir())) == 2


def test_a_worker_that_fails_ends_the_others_and_is_heard():
    wait = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    fail = [sys.executable, "-S", "-c", "import sys; sys.exit('the disk is full')"]
    started = time.monotonic()
    with pytest.raises(UserError, match="worker 1 of 2 ended with code 1: the disk is full; the same command"):
        processes.start([wait, fail])
    assert time.monotonic() - started < 300


def test_workers_are_numbered():
    assert processes.worker_of("3/8") == (3, 8)
    for wrong in ("3", "8/8", "-1/2", "a/b"):
        with pytest.raises(UserError, match="must be NUMBER/COUNT"):
            processes.worker_of(wrong)
