"""Rows of dots with intervals: the form of every comparison between names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.transforms import blended_transform_factory

from wmjax.report import canvas

ROW = 22.0
GAP = 14.0


class Row(NamedTuple):
    """One line: a label, a dot at `value` with a line from `low` to `high`, and the value in words at the right.

    A row without a finite value but with a label is a heading. `hollow` marks what the data do not support.
    """

    label: str
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    words: str = ""
    colour: str = canvas.WORLD
    hollow: bool = False


class Reference(NamedTuple):
    """A vertical line that the dots are read against, with a word above it where one is given."""

    value: float
    words: str = ""
    colour: str = canvas.INK


def _limits(rows: Sequence[Row], references: Sequence[Reference]) -> tuple[float, float]:
    """Cover dots, references and intervals; an interval far wider than the rest is cut rather than squeeze the rest."""
    points = [r.value for r in rows] + [r.value for r in references]
    points = [p for p in points if math.isfinite(p)] or [0.0]
    widths = sorted(r.high - r.low for r in rows if math.isfinite(r.high - r.low))
    reach = 4.0 * widths[len(widths) // 2] if widths else 0.0
    low = min([*points, *(max(r.low, r.value - reach) for r in rows if math.isfinite(r.low))])
    high = max([*points, *(min(r.high, r.value + reach) for r in rows if math.isfinite(r.high))])
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return low - room, high + room


def _line(axes: Axes, y: float, row: Row) -> None:
    if math.isfinite(row.low) and math.isfinite(row.high):
        axes.plot([row.low, row.high], [y, y], color=row.colour, lw=1.6, alpha=0.45 if row.hollow else 0.75)
    face = "white" if row.hollow else row.colour
    axes.plot([row.value], [y], "o", ms=6, mfc=face, mec=row.colour, mew=1.3, zorder=4)


def dots(
    rows: Sequence[Row],
    *,
    title: str,
    subtitle: str = "",
    xlabel: str = "",
    references: Sequence[Reference] = (),
    width: float = canvas.WIDTH,
) -> str:
    """Draw rows from the top down; labels stand at the left edge, values in words at the right edge."""
    left = min(max(6.7 * max((len(r.label) for r in rows), default=0) + 14.0, 60.0), 0.42 * width)
    right = max(7.0 * max((len(r.words) for r in rows), default=0) + 12.0, 16.0)
    heads = [not math.isfinite(r.value) and not r.words for r in rows]
    # A heading is set off from what stands above it, but for the first.
    places, y = [], 0.0
    for index, head in enumerate(heads):
        y += ROW + (GAP if head and index else 0.0)
        places.append(y - ROW / 2)
    named = any(r.words for r in references)
    above = 20.0 if named else 4.0

    def paint(axes: Axes) -> None:
        inner = width - left - right
        sides = blended_transform_factory(axes.transAxes, axes.transData)
        axes.set_ylim(y + 4.0, -above)
        axes.set_xlim(*_limits(rows, references))
        axes.set_yticks([])
        axes.grid(True, axis="x")
        canvas.ticks(axes.xaxis)
        for row, place, head in zip(rows, places, heads, strict=True):
            name = canvas.plain(row.label)
            weight, colour = ("bold", canvas.SOFT) if head else ("normal", canvas.INK)
            indent = 0.0 if head or not any(heads) else 8.0
            axes.text(
                (indent - left) / inner, place, name, transform=sides, va="center", fontweight=weight, color=colour
            )
            axes.text(1 + right / inner, place, row.words, transform=sides, va="center", ha="right", color=row.colour)
            if math.isfinite(row.value):
                _line(axes, place, row)
        for line in references:
            axes.axvline(line.value, color=line.colour, lw=1.0, zorder=2, ymax=1.0 - (above - 4) / (y + 4 + above))
            axes.text(line.value, -6.0, line.words, ha="center", color=line.colour)

    return canvas.draw(
        paint,
        title=title,
        subtitle=subtitle,
        xlabel=xlabel,
        height=y + 4.0 + above,
        width=width,
        left=left,
        right=right,
    )
