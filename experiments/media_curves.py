"""The README's picture of the media world: response curves with intervals beside the simulator's own.

Geos and weeks of `mmm_recovery` at confounding 2, the first seed: what the outcome of the train weeks gains when each
channel's spend is multiplied by a number, the others as they were. Nothing of the truth is told.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import jax
import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments import common, media_methods
from experiments import mmm_recovery as recovery
from experiments.common import Cell, Scores
from wmjax.core import files
from wmjax.core.observe import Event, silent
from wmjax.worlds import media

NAME = "media_curves"
SETTING = "confounding=2"
BAND, TRUE = "#2f6fb0", "#1a1a1a"
NOW = int(np.argmin(np.abs(np.asarray(media_methods.GRID) - 1)))
"""Where on the grid the spend is as it was."""


def curves(seed: int, size: recovery.Size) -> dict[str, Any]:
    """Fit a world, ask it and the simulator: channel names, spend, mean, lo, hi and truth `[channels, grid]`."""
    asked = recovery.ask(seed, recovery.MAIN, size)
    world = media.fit(jax.random.key(seed), asked.panel, size.world, seed=seed)
    weeks = slice(0, int(asked.split.train.sum()))
    found = world.attribute(asked.panel, times=weeks, carry=0, grid=media_methods.GRID, alpha=media_methods.ALPHA)
    total = found.sel(unit="all")
    return {
        "names": list(asked.panel.action_names),
        "spend": np.asarray(total.spend.values)[:, None] * np.asarray(media_methods.GRID),
        **{name: total[f"curve{end}"].values for name, end in (("mean", ""), ("lo", "_lo"), ("hi", "_hi"))},
        "truth": media_methods.truth(asked).curve[0],
    }


def draw(told: dict[str, Any], path: Path) -> None:
    """Draw one panel a channel."""
    count = len(told["names"])
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(2.6 * count, 2.5), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        for at, axes in enumerate(np.atleast_1d(figure.subplots(1, count))):
            spend = told["spend"][at]
            axes.fill_between(spend, told["lo"][at], told["hi"][at], color=BAND, alpha=0.2, lw=0, label="90 % interval")
            axes.plot(spend, told["mean"][at], color=BAND, lw=2, label="world")
            axes.plot(spend, told["truth"][at], color=TRUE, lw=1.2, ls="--", label="truth")
            axes.plot(spend[NOW], told["mean"][at, NOW], "o", color=BAND, ms=5)
            axes.set_title(told["names"][at], loc="left", fontsize=9)
            axes.set_xlabel("spend")
            axes.set_ylim(0, None)
        figure.axes[0].set_ylabel("outcome gained")
        figure.axes[0].legend(frameon=False, fontsize=8)
        with files.replacing(path) as part:
            canvas.print_png(part)


def work(options: common.Options, observer: Any = silent) -> Path:
    """Fit, draw, and say how far the curves are from the truth at the spend as it was."""
    began, size = time.monotonic(), recovery.FULL if options.size == "full" else recovery.SMALLEST
    seed = 0
    observer(Event("world", 0, 1, unit="fit"))
    told = curves(seed, size)
    observer(Event("world", 1, 1, unit="fit"))
    draw(told, options.out / f"{NAME}.png")
    inside = (told["lo"] <= told["truth"]) & (told["truth"] <= told["hi"])
    scores: Scores = {
        Cell(SETTING, name, quantity): float(value)
        for at, name in enumerate(told["names"])
        for quantity, value in (
            ("over_truth", told["mean"][at, NOW] / told["truth"][at, NOW]),
            ("truth_inside", inside[at, NOW]),
        )
    }
    rows = common.summarise([scores])
    return common.write_result(options, NAME, rows, seeds=[seed], seconds=time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(common.run(f"experiments.{NAME}", work))
