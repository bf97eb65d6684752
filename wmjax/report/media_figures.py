"""The figures of a media world's report: returns, response curves, contributions over time, the outcome."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import MONTHLY, AutoDateLocator, ConciseDateFormatter

from wmjax.report import canvas, frames
from wmjax.report.canvas import FAINT, INK, OTHER, SOFT, WORLD, plain
from wmjax.report.dots import Reference, Row, dots
from wmjax.report.numbers import as_float, fixed, number, shared_decimals


def returns(table: pd.DataFrame, *, title: str, xlabel: str, hollow: frozenset[str], reference: float = 0.0) -> str:
    """Draw one quantity of all channels side by side, largest first; hollow marks lean on the model.

    Args:
        table: rows of `channel, mean, lo, hi`.
        title, xlabel: what is asked, and its unit in words.
        hollow: channels that the data do not settle.
        reference: value that the dots are read against.
    """
    places = shared_decimals(*frames.column(table, "mean"))
    rows = []
    for r in frames.records(frames.ordered(table, "mean", down=True)):
        mean, lo, hi = (as_float(r[name]) for name in ("mean", "lo", "hi"))
        loose = str(r["channel"]) in hollow
        words = fixed(mean, places)
        rows.append(Row(plain(r["channel"], 22), mean, lo, hi, words, FAINT if loose else WORLD, loose))
    subtitle = "dot: mean; line: interval" + ("; hollow: the data cannot settle it" if hollow else "")
    return dots(rows, title=title, subtitle=subtitle, xlabel=xlabel, references=(Reference(reference),))


def response(table: pd.DataFrame, *, outcome: str) -> str:
    """Draw one channel's response to multiples of its spend, dotted where no week has spent as much.

    Args:
        table: one channel's rows of `channel, factor, spend, mean, lo, hi, extrapolated`, by factor.
        outcome: what the response is measured in.
    """
    table = frames.ordered(table, "factor")
    spend, mean, lo, hi, factor = (frames.column(table, name) for name in ("spend", "mean", "lo", "hi", "factor"))
    beyond = np.asarray(table["extrapolated"], bool)

    def paint(axes: Axes) -> None:
        axes.fill_between(spend, lo, hi, color=WORLD, alpha=0.14, lw=0)
        known = ~beyond
        axes.plot(spend[known], mean[known], color=WORLD, lw=2.0)
        if beyond.any():
            # From the last known point on, so that the line does not break.
            start = max(int(known.sum()) - 1, 0)
            axes.plot(spend[start:], mean[start:], color=OTHER, lw=2.0, ls=(0, (2, 2)))
        now = int(np.argmin(np.abs(factor - 1)))
        axes.plot(spend[now], mean[now], "o", color=INK, ms=6, zorder=5)
        axes.annotate("as it was", (spend[now], mean[now]), (0, -14), textcoords="offset points", ha="left", color=INK)
        axes.set_ylim(min(0.0, float(np.nanmin(lo))), None)
        canvas.ticks(axes.xaxis)
        canvas.ticks(axes.yaxis)

    words = f"{plain(outcome)} against no spend in it; band: interval"
    return canvas.draw(
        paint,
        title=f"{plain(frames.first(table, 'channel'))}: response to more or less spend",
        subtitle=words + ("; dotted: more than any week has seen" if beyond.any() else ""),
        xlabel="spend in all, keeping its timing",
        left=64.0,
    )


def _times(table: pd.DataFrame) -> np.ndarray:
    values = table["time"]
    if pd.api.types.is_datetime64_any_dtype(values):
        return values.to_numpy()
    return frames.column(table, "time")


def _axis(axes: Axes, times: np.ndarray) -> None:
    if np.issubdtype(times.dtype, np.datetime64):
        locator = AutoDateLocator(minticks=3, maxticks=6)
        locator.intervald[MONTHLY] = [1, 2, 3, 4, 6, 12]  # three years have none with six ticks otherwise
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    else:
        canvas.ticks(axes.xaxis)
    canvas.ticks(axes.yaxis)


def over_time(table: pd.DataFrame, *, outcome: str) -> str:
    """Draw what one channel added to each period, summed over units.

    Args:
        table: one channel's rows of `channel, time, mean, lo, hi`.
        outcome: what it is measured in.
    """
    times, mean, lo, hi = _times(table), *(frames.column(table, name) for name in ("mean", "lo", "hi"))

    def paint(axes: Axes) -> None:
        if np.isfinite(lo).all():
            axes.fill_between(times, lo, hi, color=WORLD, alpha=0.14, lw=0)
        axes.plot(times, mean, color=WORLD, lw=1.6)
        axes.set_ylim(min(0.0, float(np.nanmin(mean))), None)
        _axis(axes, times)

    total = number(float(np.nansum(mean)))
    return canvas.draw(
        paint,
        title=f"{plain(frames.first(table, 'channel'))}: what it added, {total} in all",
        subtitle=f"{plain(outcome)} per period, all units; band: interval",
        height=130.0,
        left=64.0,
    )


def base(table: pd.DataFrame, *, outcome: str, held_out: list[tuple[str, object]]) -> str:
    """Draw the outcome, what the world expected, and what it expects without any spend, summed over units.

    Args:
        table: rows of `time, observed, expected, baseline`.
        outcome: its name.
        held_out: names and first times of the parts that were not learnt from.
    """
    times = _times(table)
    lines = {"observed": (FAINT, 1.4), "expected": (WORLD, 1.8), "without media": (OTHER, 1.8)}
    values = [frames.column(table, name) for name in ("observed", "expected", "baseline")]

    def paint(axes: Axes) -> None:
        low, high = (float(f([f(v[np.isfinite(v)]) for v in values])) for f in (min, max))
        room = 0.05 * (high - low) or 1.0
        axes.set_ylim(low - room, high + 3 * room)
        for (colour, width), value in zip(lines.values(), values, strict=True):
            axes.plot(times, value, color=colour, lw=width)
        ends = [float(v[np.isfinite(v)][-1]) for v in values]
        for words, (colour, _), place in zip(lines, lines.values(), canvas.spread(ends, 2.2 * room), strict=True):
            shown = SOFT if colour == FAINT else colour
            axes.annotate(words, (times[-1], place), (6, 0), textcoords="offset points", va="center", color=shown)
        for name, start in held_out:
            axes.axvline(start, color=INK, lw=0.8, ls=(0, (3, 3)))  # pyright: ignore[reportArgumentType]
            axes.annotate(name, (start, high + 2.2 * room), (4, 0), textcoords="offset points", color=SOFT)  # pyright: ignore[reportArgumentType]
        _axis(axes, times)

    return canvas.draw(
        paint,
        title=f"{plain(outcome)}: observed, expected, and without media",
        subtitle="all units; one period ahead, from what was known before it" if math.isfinite(values[1].sum()) else "",
        right=92.0,
        left=56.0,
    )
