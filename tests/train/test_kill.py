"""SIGKILL at random moments, then resumption: the end is bitwise that of a run nobody disturbed.

`python test_kill.py FOLDER` lives the lives: each is forked from one process that has imported everything and computed
nothing, so that none of them waits for JAX's import; it says the first epoch of the last life.
"""

import faulthandler
import os
import random
import select
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import jax

from wmjax.train import checkpoint, loop

SEED = 20  # of the random moments
KILLS = 4
LAST = 60


class Life:
    """A training process, and what it says: one line an epoch."""

    def __init__(self, train, folder, pause=0.0):
        heard, said = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(heard)
                os.dup2(said, 1)
                faulthandler.dump_traceback_later(100, exit=True)  # a life that hangs says where
                train(folder, pause)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        os.close(said)
        self.heard = os.fdopen(heard, "rb", buffering=0)  # so that what `select` sees is what there is to read

    def finish(self):
        lines = self.heard.read().split()
        assert os.waitpid(self.pid, 0)[1] == 0
        return [int(line) for line in lines]

    def alive(self):
        return os.waitpid(self.pid, os.WNOHANG)[0] == 0

    def kill(self):
        assert self.alive()
        os.kill(self.pid, signal.SIGKILL)
        assert os.waitpid(self.pid, 0)[1] == signal.SIGKILL
        self.heard.close()

    def wait_for_epochs(self, count):
        """Read until the process has said `count` epochs; fail if it dies."""
        for _ in range(count):
            assert select.select([self.heard], [], [], 60)[0]
            assert self.heard.readline()

    def wait_for_saving(self, folder):
        """Return the moment a half-written checkpoint lies there."""
        while not halves(folder):
            assert self.alive()
            time.sleep(0.001)


def halves(folder):
    """Find the checkpoints that a kill cut short."""
    return list(folder.glob("checkpoints/.*.part"))


def live(root):
    """Train undisturbed into `calm`; into `killed` with kills."""
    import tiny

    calm, folder = root / "calm", root / "killed"
    assert Life(tiny.train, calm).finish() == list(range(LAST + 1))
    # In the middle of a save: on a busy machine one may be through before the signal arrives, so there are more tries.
    for _ in range(5):
        life = Life(tiny.train, folder, pause=0.03)
        life.wait_for_saving(folder)
        life.kill()
        if halves(folder):
            break
    assert halves(folder)
    moments = random.Random(SEED)
    for _ in range(KILLS):
        life = Life(tiny.train, folder, pause=0.03)
        life.wait_for_epochs(1 + moments.randint(1, 4))
        time.sleep(moments.uniform(0.0, 0.15))
        life.kill()
    assert 0 < checkpoint.latest(folder / "checkpoints") < LAST
    print(Life(tiny.train, folder).finish()[0])


def test_killed_runs_end_where_an_undisturbed_one_does(tiny, tmp_path, bits):
    env = {
        **os.environ,
        # All lives share one cache, so that only the first one compiles.
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-W", "error::UserWarning", __file__, str(tmp_path)]
    found = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) > 0
    calm, folder = tmp_path / "calm", tmp_path / "killed"
    rule = loop.Rule(tiny.epoch, tiny.evaluate, tiny.averaged, "train", (), "score", "min", None, 0.0, 2)
    like = loop.begin(tiny.init(jax.random.key(0), 0.0), rule)
    expected, found = (checkpoint.restore(f / "checkpoints", like) for f in (calm, folder))
    assert bits(found.tree) == bits(expected.tree)
    assert (found.step, found.host) == (expected.step, expected.host)
    assert found.step == LAST
    assert (folder / "metrics.jsonl").read_bytes() == (calm / "metrics.jsonl").read_bytes()
    assert sorted(os.listdir(folder / "checkpoints")) == [str(LAST - 3), str(LAST)]


if __name__ == "__main__":
    live(Path(sys.argv[1]))
