"""SIGKILL at random moments, then resumption: the end is bitwise that of a run nobody disturbed."""

import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wmjax.train import checkpoint, loop

SCRIPT = Path(__file__).with_name("tiny.py")
SEED = 20  # of the random moments
KILLS = 4
LAST = 60


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Start the script; all lives share one compilation cache, so that only the first one compiles."""
    cache = str(tmp_path_factory.mktemp("cache"))
    env = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH", "")]),
    }

    def run(folder, pause=0.0):
        return subprocess.Popen(
            [sys.executable, "-W", "error::UserWarning", str(SCRIPT), str(folder), str(pause)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # so that what `select` sees is what there is to read
            env=env,
        )

    return run


def finish(process):
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err.decode()
    return [int(line) for line in out.split()]


def kill(process):
    assert process.poll() is None, process.communicate()[1].decode()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def wait_for_epochs(process, count):
    """Read until the process has said `count` epochs; fail if it dies."""
    for _ in range(count):
        ready, _, _ = select.select([process.stdout], [], [], 60)
        assert ready
        assert process.stdout.readline(), process.stderr.read().decode()


def wait_for_saving(folder, process):
    """Return the moment a half-written checkpoint lies there."""
    while not halves(folder):
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.001)


def halves(folder):
    """Find the checkpoints that a kill cut short."""
    return list(folder.glob("checkpoints/.*.part"))


def test_killed_runs_end_where_an_undisturbed_one_does(start, tiny, tmp_path, bits):
    calm, folder = tmp_path / "calm", tmp_path / "killed"
    assert finish(start(calm)) == list(range(LAST + 1))
    # In the middle of a save: on a busy machine one may be through before the signal arrives, so there are more tries.
    for _ in range(5):
        process = start(folder, pause=0.03)
        wait_for_saving(folder, process)
        kill(process)
        if halves(folder):
            break
    assert halves(folder)
    moments = random.Random(SEED)
    for _ in range(KILLS):
        process = start(folder, pause=0.03)
        wait_for_epochs(process, 1 + moments.randint(1, 4))
        time.sleep(moments.uniform(0.0, 0.15))
        kill(process)
    assert 0 < checkpoint.latest(folder / "checkpoints") < LAST
    assert finish(start(folder))[0] > 0
    rule = loop.Rule(tiny.epoch, tiny.evaluate, tiny.averaged, "train", (), "score", "min", None, 0.0, 2)
    like = loop.begin(tiny.init(tiny.KEY, 0.0), rule)
    expected, found = (checkpoint.restore(f / "checkpoints", like) for f in (calm, folder))
    assert bits(found.tree) == bits(expected.tree)
    assert (found.step, found.host) == (expected.step, expected.host)
    assert found.step == LAST
    assert (folder / "metrics.jsonl").read_bytes() == (calm / "metrics.jsonl").read_bytes()
    assert sorted(os.listdir(folder / "checkpoints")) == [str(LAST - 3), str(LAST)]
