"""The pictures of a graph world: the chosen graph, matrices of its pairs, forecast error beside attribution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import FancyArrowPatch, Rectangle

from wmjax.report import canvas, frames
from wmjax.report.canvas import FAINT, INK, OTHER, SOFT, WASH, WORLD, plain
from wmjax.report.numbers import MISSING

HEIGHT = 190.0
SHADES = LinearSegmentedColormap.from_list("shades", [WASH, "#86b0dc"])


def network(pairs: pd.DataFrame, *, nodes: Sequence[str], outcomes: Sequence[str]) -> str:
    """Draw the chosen edges between nodes on a ring, outcomes apart by colour; a thick edge is a stable one.

    Args:
        pairs: `sender, receiver, edge, stability`, a row a pair.
        nodes: all of them, in order.
        outcomes: those that are outcomes.
    """
    turn = 2 * np.pi * np.arange(len(nodes)) / max(len(nodes), 1)
    place = {name: (np.sin(a), np.cos(a)) for name, a in zip(nodes, turn, strict=True)}
    chosen = frames.where(pairs, frames.column(pairs, "edge") > 0)

    def paint(axes: Axes) -> None:
        for row in frames.records(chosen):
            into = row["receiver"] in outcomes
            axes.add_patch(
                FancyArrowPatch(
                    place[row["sender"]],
                    place[row["receiver"]],
                    arrowstyle="-|>",
                    mutation_scale=11,
                    shrinkA=9,
                    shrinkB=11,
                    connectionstyle="arc3,rad=0.12",
                    lw=0.8 + 1.8 * float(row["stability"]),
                    color=WORLD if into else FAINT,
                )
            )
        for name, (x, y) in place.items():
            own = name in outcomes
            axes.plot(x, y, "o", ms=11, color=OTHER if own else WORLD, mec="white", mew=1.2)
            side = "left" if x > 0.05 else "right" if x < -0.05 else "center"
            axes.text(1.15 * x, 1.15 * y, plain(name, 16), ha=side, va="center", color=INK if own else SOFT)
        axes.set(xlim=(-1.9, 1.9), ylim=(-1.3, 1.3), aspect="equal", xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)

    return canvas.draw(
        paint,
        title=f"{len(chosen)} edge{'s' * (len(chosen) != 1)} chosen",
        subtitle="blue nodes: actions, the others outcomes; blue edges: into an outcome; thick: most draws choose it",
        height=300.0,
        left=6.0,
        right=6.0,
        bottom=10.0,
    )


def matrix(pairs: pd.DataFrame, value: str, *, nodes: Sequence[str], title: str, subtitle: str) -> str:
    """Shade every pair by one column of the pairs, senders down, receivers across; chosen edges are framed."""
    at = {name: i for i, name in enumerate(nodes)}
    grid = np.zeros((len(nodes), len(nodes)))
    framed = []
    for row in frames.records(pairs):
        i, j = at[row["sender"]], at[row["receiver"]]
        grid[i, j] = np.maximum(float(row[value]), 0.0)
        if row["edge"] > 0:
            framed.append((j, i))
    most = float(np.nanmax(grid)) or 1.0

    def paint(axes: Axes) -> None:
        axes.pcolormesh(np.ma.masked_invalid(grid), cmap=SHADES, vmin=0, vmax=most, edgecolors="white", linewidth=1)
        for j, i in framed:
            axes.add_patch(Rectangle((j, i), 1, 1, fill=False, ec=OTHER, lw=1.6))
        if len(nodes) <= 8:
            for (i, j), shown in np.ndenumerate(grid):
                if i != j:
                    axes.text(
                        j + 0.5,
                        i + 0.5,
                        f"{shown:.2g}" if np.isfinite(shown) else MISSING,
                        ha="center",
                        va="center",
                        fontsize=9.5,
                        color=INK,
                    )
        places = np.arange(len(nodes)) + 0.5
        axes.set_xticks(places, [plain(n, 10) for n in nodes], rotation=40, ha="right")
        axes.set_yticks(places, [plain(n, 12) for n in nodes])
        axes.invert_yaxis()
        axes.grid(visible=False)

    return canvas.draw(paint, title=title, subtitle=subtitle, height=260.0, left=92.0, bottom=70.0)


def swapped(table: pd.DataFrame) -> str:
    """Set each supplied graph's forecast error against how well its influences rank the chosen edges."""
    finite = [np.isfinite(frames.column(table, name)) for name in ("nauprc_target", "mse")]
    known = frames.where(table, np.logical_and(*finite))
    error, score = frames.column(known, "mse"), frames.column(known, "nauprc_target")
    names = [str(r["graph"]) for r in frames.records(known)]

    def paint(axes: Axes) -> None:
        axes.plot(error, score, "o", color=WORLD, ms=7)
        least, most = min(-0.15, float(score.min()) - 0.1) if len(score) else -0.15, 1.15
        points = HEIGHT / (most - least)
        for x, y, at, name in zip(error, score, canvas.spread(score.tolist(), 14 / points), names, strict=True):
            place = (8, points * (at - y))
            axes.annotate(name, (x, y), xytext=place, textcoords="offset points", va="center", color=SOFT)
        axes.set_ylim(least, most)
        low, high = (float(error.min()), float(error.max())) if len(error) else (0.0, 1.0)
        room = max(high - low, 0.1 * abs(high), 1e-9)
        axes.set_xlim(low - 0.15 * room, high + 0.6 * room)
        canvas.ticks(axes.xaxis)

    return canvas.draw(
        paint,
        title="Forecast error beside attribution",
        subtitle="nAUPRC of the target's column: 1 ranks the chosen edges first, 0 is chance",
        xlabel="squared error of the target's forecast, in variances",
        height=HEIGHT,
    )
