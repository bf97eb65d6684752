"""The README's main job, timed in a process of its own, and its forecasts beside the baselines on the same test rows.

`wmjax demo` as a user gives it; installing is not counted. `--data RUN` reads a finished run instead, without a time.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from experiments import common
from experiments.common import Cell, Check, Scores
from wmjax.core.errors import UserError
from wmjax.core.files import read_json

QUANTITIES = ("auc", "log_loss")
MOST_SECONDS = 300.0


def scores_of(run: Path) -> Scores:
    """Read every model's scores on the test rows from a run's summary."""
    found: Scores = {}
    for outcome, told in read_json(run / "summary.json")["outcomes"].items():
        for quantity in QUANTITIES:
            found |= {Cell(outcome, model, quantity): value for model, value in told[quantity].items()}
    return found


def timed(out: Path, size: str) -> float:
    """Run the command; give its seconds."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "wmjax.cli", "demo", "--out", str(out), "--size", size, "--overwrite"], check=False
    )
    if done.returncode:
        raise UserError(f"the demo ended with code {done.returncode}")
    return time.monotonic() - started


def work(options: common.Options, observer: Any) -> Path:
    """Run the demo, or read a run, and write the result."""
    began, checks = time.monotonic(), []
    scores: Scores = {}
    if options.data is None:
        seconds = timed(options.out / "run", options.size)
        scores[Cell("demo", "wmjax", "seconds")] = seconds
        checks.append(Check("the main job in five minutes, installing apart", seconds, 0.0, MOST_SECONDS))
    scores |= scores_of(options.data or options.out / "run")
    rows = common.summarise([scores])
    return common.write_result(options, "demo", rows, seeds=[0], seconds=time.monotonic() - began, checks=checks)


if __name__ == "__main__":
    sys.exit(common.run("experiments.demo", work))
