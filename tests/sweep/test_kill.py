"""SIGKILL at twenty random moments, in processes of their own: the end is bitwise that of an undisturbed sweep."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("toy.py")
KILLS, SEED = 20, 3


def contents(path):
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return {
        str(f.relative_to(path)): json.loads(f.read_bytes()) if f.suffix == ".json" else f.read_bytes() for f in files
    }


def test_killed_sweeps_end_with_the_same_bits(tmp_path):
    env = {
        **os.environ,
        # All lives share one cache, so that only the first one compiles.
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, str(SCRIPT), str(tmp_path), str(KILLS), str(SEED)]
    found = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)
    assert found.returncode == 0, found.stderr
    met = [int(line) for line in found.stdout.split()]
    assert sum(met) == KILLS
    calm = contents(tmp_path / "calm.zarr")
    for number in range(len(met)):
        assert contents(tmp_path / f"{number}.zarr") == calm
        assert not (tmp_path / f"{number}.zarr.part").exists()
