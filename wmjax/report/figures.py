"""The figures of a report: pure functions from a tidy table to an SVG string, one panel each.

Colours mean the same everywhere: blue is the world model, grey what was observed or a baseline, orange the
counterfactual or what needs care; hollow marks are not supported by the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from wmjax.report import canvas, curves, frames
from wmjax.report.canvas import FAINT, INK, OTHER, SOFT, WASH, WORLD, plain
from wmjax.report.dots import Reference, Row, dots
from wmjax.report.numbers import QUANTITIES, as_float, fixed, percent, shared_decimals, unit_of

MODELS = {"world": "world model", "logistic": "logistic regression", "mlp": "raw MLP"}
# Below this share of comparable rows a segment is drawn hollow.
SUPPORTED = 0.5
MOST_LEVELS = 16


def model_name(model: str) -> str:
    """Name a model for people; the world comes first wherever models are listed."""
    return MODELS.get(model, plain(str(model).replace("_", " ")))


def effect_axis(outcome: str, scale: str) -> str:
    """Say in words what an effect on `outcome` is measured in."""
    name = plain(outcome)
    if scale == "probability":
        return f"change in the probability of {name}, percentage points"
    if scale == "logit":
        return f"change in the log-odds of {name}"
    return f"change in {name}{', ' + unit_of(scale).short if unit_of(scale).short else ''}"


def _row(label: str, record: Mapping[str, Any], value: str, factor: float, places: int, *, hollow: bool = False) -> Row:
    """Make a row of dots from a record's value and its `lo` and `hi`, on the shown scale."""
    shown, low, high = (factor * as_float(record[name]) for name in (value, "lo", "hi"))
    return Row(label, shown, low, high, fixed(shown, places, sign=True), FAINT if hollow else WORLD, hollow)


def effects(table: pd.DataFrame) -> str:
    """Draw average effects side by side, largest first.

    Args:
        table: one scale's rows of `outcome, action, scale, ate, lo, hi, supported`.
    """
    scale = frames.first(table, "scale")
    factor = unit_of(scale).factor
    where = "in percentage points" if scale == "probability" else unit_of(scale).long or scale
    places = shared_decimals(*(factor * frames.column(table, "ate")))
    rows = []
    for r in frames.records(frames.ordered(table, "ate", down=True)):
        name = f"{plain(r['action'], 16)} → {plain(r['outcome'], 16)}"
        rows.append(_row(name, r, "ate", factor, places, hollow=not r["supported"]))
    return dots(
        rows,
        title=f"The average effects {where}",
        subtitle="dot: mean; line: interval; hollow: the data cannot tell",
        xlabel=f"average change, {unit_of(scale).long or scale}",
        references=(Reference(0.0),),
    )


def accuracy(table: pd.DataFrame) -> str:
    """Draw how well each model predicts held-out rows, the world model above its baselines.

    Args:
        table: one outcome and quantity's rows of `outcome, model, quantity, value, lo, hi`.
    """
    outcome, quantity = frames.first(table, "outcome"), frames.first(table, "quantity")
    name = QUANTITIES.get(quantity, quantity.replace("_", " "))
    better = f"{curves.better(quantity)}, 0.5 is chance" if quantity == "auc" else curves.better(quantity)
    rows = []
    for r in sorted(frames.records(table), key=lambda r: r["model"] != "world"):
        value, low, high = (as_float(r[name]) for name in ("value", "lo", "hi"))
        rows.append(
            Row(model_name(r["model"]), value, low, high, fixed(value, 3), WORLD if r["model"] == "world" else SOFT)
        )
    title = f"How well is {plain(outcome)} predicted? {name[:1].upper() + name[1:]}"
    subtitle = "; ".join(filter(None, ("held-out rows, the same for every model", better)))
    return dots(rows, title=title, subtitle=subtitle, xlabel=name)


def segments(table: pd.DataFrame, *, ate: float = math.nan) -> str:
    """Draw the effect by segment: sorted dots with intervals, against the average over everyone.

    Args:
        table: one outcome, action and scale's rows of `segment, level, effect, lo, hi, supported_share`.
        ate: the average effect, on the same scale.
    """
    outcome, action, scale = (frames.first(table, name) for name in ("outcome", "action", "scale"))
    factor = unit_of(scale).factor
    places = shared_decimals(*(factor * frames.column(table, "effect")))
    rows: list[Row] = []
    for (name,), part in frames.groups(table, "segment"):
        rows.append(Row(plain(name.replace("_", " "))))
        levels = [
            _row(plain(r["level"]), r, "effect", factor, places, hollow=not as_float(r["supported_share"]) >= SUPPORTED)
            for r in frames.records(frames.ordered(part, "effect", down=True))
        ]
        if len(levels) > MOST_LEVELS:
            half = MOST_LEVELS // 2
            hidden = Row(f"… {len(levels) - MOST_LEVELS} between", words=" ", colour=SOFT)
            levels = [*levels[:half], hidden, *levels[-half:]]
        rows.extend(levels)
    lines = [Reference(0.0, colour=FAINT)]
    if math.isfinite(ate):
        lines.append(Reference(factor * ate, f"all: {fixed(factor * ate, places, sign=True)}", OTHER))
    return dots(
        rows,
        title=f"Who responds to {plain(action)}: its effect on {plain(outcome)}",
        subtitle=f"line: interval; hollow: under {percent(SUPPORTED)} of rows are comparable",
        xlabel=effect_axis(outcome, scale),
        references=lines,
    )


def _edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Cut the range of finite values into equal bins; a constant, or nothing, gets a narrow range of its own."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        room = 0.05 * abs(low) or 0.5
        low, high = low - room, high + room
    return np.linspace(low, high, bins + 1)


def _key(axes: Axes, words: list[tuple[str, str]], *, right: bool = True) -> None:
    """Write coloured words into an upper corner, in place of a legend."""
    for index, (text, colour) in enumerate(words):
        axes.annotate(
            text,
            xy=(1.0 if right else 0.0, 1.0),
            xycoords="axes fraction",
            xytext=(-2 if right else 2, -4 - 15 * index),
            textcoords="offset points",
            ha="right" if right else "left",
            va="top",
            color=colour,
        )


def effect_distribution(table: pd.DataFrame, *, ate: float = math.nan) -> str:
    """Draw how the effect differs between units: a density of each unit's own mean effect.

    Args:
        table: one outcome and action's rows of `unit, effect_probability, supported`.
        ate: the average effect on the probability scale.
    """
    outcome, action = frames.first(table, "outcome"), frames.first(table, "action")
    codes, _ = pd.factorize(table["unit"])
    effect, supported = frames.column(table, "effect_probability"), frames.column(table, "supported")
    kept = (codes >= 0) & np.isfinite(effect)
    counts = np.bincount(codes[kept])
    total, support = (np.bincount(codes[kept], v[kept])[counts > 0] for v in (effect, np.nan_to_num(supported)))
    values, known = 100.0 * total / counts[counts > 0], support / counts[counts > 0] >= SUPPORTED
    edges = _edges(np.append(values, 0.0), 36)
    inside, _ = np.histogram(values[known], edges)
    outside, _ = np.histogram(values[~known], edges)

    def paint(axes: Axes) -> None:
        centre, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges) * 0.92
        axes.bar(centre, inside, width, color=WORLD, alpha=0.85, lw=0)
        axes.bar(centre, outside, width, bottom=inside, color="white", edgecolor=FAINT, lw=0.8)
        top = 1.32 * max(float((inside + outside).max()), 1.0)
        axes.set_ylim(0, top)
        canvas.ticks(axes.xaxis, 6)
        canvas.ticks(axes.yaxis, 4)
        axes.axvline(0.0, color=INK, lw=1.0, ymax=0.8)
        if math.isfinite(ate):
            axes.axvline(100 * ate, color=OTHER, lw=1.4, ymax=0.88)
            words = f"mean {fixed(100 * ate, shared_decimals(100 * ate, *values), sign=True)}"
            axes.text(100 * ate, 0.905 * top, words, color=OTHER, ha="center")
        if outside.any():
            _key(axes, [("hollow: not supported", SOFT)], right=100 * ate < float(edges.mean()))

    return canvas.draw(
        paint,
        title=f"How the effect of {plain(action, 20)} on {plain(outcome, 20)} differs by unit",
        subtitle="number of units by their own mean effect",
        xlabel=effect_axis(outcome, "probability"),
    )


class _Bins(NamedTuple):
    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    rows: np.ndarray


def _bins(table: pd.DataFrame) -> _Bins:
    """Read one model's bins from left to right, without those that nothing was seen in."""
    table = frames.ordered(table, "predicted")
    columns = [frames.column(table, name) for name in ("predicted", "observed", "lo", "hi", "n")]
    seen = np.isfinite(columns[0]) & np.isfinite(columns[1])
    return _Bins(*(c[seen] for c in columns))


def calibration(table: pd.DataFrame) -> str:
    """Draw predicted against observed shares with intervals, and below them how many rows each bin holds.

    Args:
        table: one outcome's rows of `model, predicted, observed, lo, hi, n`; the world model's are drawn with
            intervals, the others' as thin lines.
    """
    outcome = frames.first(table, "outcome")
    models = sorted(frames.distinct(table, "model"), key=lambda m: (m != "world", m))
    main, *others = (_bins(frames.where(table, frames.equal(table, "model", m))) for m in models)
    highest = np.concatenate([np.maximum(b.observed, b.high) for b in (main, *others)] + [main.predicted])
    top = min(1.0, 1.06 * float(np.nanmax(highest, initial=0.0))) or 1.0

    def paint(axes: Axes) -> None:
        strip = axes.inset_axes((0.0, -0.26, 1.0, 0.18), sharex=axes)
        axes.plot([0, 1], [0, 1], color=INK, lw=0.9, ls=(0, (4, 3)))
        at = 0.9 * top
        axes.annotate("perfect", (at, at), (-5, 5), textcoords="offset points", ha="right", color=INK)
        for line in others:
            axes.plot(line.predicted, line.observed, color=FAINT, lw=1.2, marker="o", ms=2.2)
        axes.vlines(main.predicted, main.low, main.high, color=WORLD, lw=1.6, alpha=0.75)
        axes.plot(main.predicted, main.observed, "o", color=WORLD, ms=5.5, mec="white", mew=0.8, zorder=4)
        thin = ", ".join(map(model_name, models[1:]))
        _key(axes, [(model_name(models[0]), WORLD)] + [(f"thin: {thin}", SOFT)] * bool(thin), right=False)
        axes.set_xlim(0, top)
        axes.set_ylim(0, top)
        canvas.ticks(axes.xaxis)
        canvas.ticks(axes.yaxis)
        axes.tick_params(labelbottom=False, bottom=False)
        strip.vlines(main.predicted, 0, main.rows, color=FAINT, lw=5)
        strip.set_ylim(0, 1.15 * float(np.nanmax(main.rows, initial=1.0)))
        strip.set_yticks([])
        strip.grid(False)
        strip.set_xlabel("predicted probability", labelpad=6)
        strip.text(1.0, 1.0, "rows per bin", transform=strip.transAxes, ha="right", va="top", color=SOFT)

    return canvas.draw(
        paint,
        title=f"Does a predicted probability of {plain(outcome)} come true?",
        subtitle="observed share of held-out rows, with Wilson intervals",
        height=225.0,
        bottom=100.0,
    )


def plausibility(table: pd.DataFrame) -> str:
    """Draw how familiar the factual and the counterfactual rows are to the world: their free energies.

    Args:
        table: one action's rows of `kind, action, free_energy`, `kind` being factual or counterfactual.
    """
    action = frames.first(table, "action")
    energy = frames.column(table, "free_energy")
    finite = np.isfinite(energy)
    seen = energy[finite & frames.equal(table, "kind", "factual")]
    asked = energy[finite & frames.equal(table, "kind", "counterfactual")]
    edges = _edges(np.concatenate([seen, asked]), 48)
    limit = float(np.quantile(seen, 0.95)) if seen.size else math.nan
    beyond = ""
    if seen.size and asked.size:
        beyond = (
            f"; {percent(float((asked > limit).mean()))} of the counterfactual lies beyond 95 % of what was observed"
        )

    def paint(axes: Axes) -> None:
        tallest = 0.0
        for values, colour, filled in ((seen, FAINT, True), (asked, OTHER, False)):
            if values.size:
                share = np.histogram(values, edges)[0] / values.size
                tallest = max(tallest, float(share.max()))
                if filled:
                    axes.stairs(share, edges, fill=True, color=colour, alpha=0.45, lw=0)
                axes.stairs(share, edges, color=colour, lw=1.6)
        top = 1.3 * (tallest or 1.0)
        axes.set_ylim(0, top)
        axes.set_xlim(edges[0], edges[-1])
        if math.isfinite(limit):
            axes.axvspan(limit, edges[-1], color=WASH, zorder=0, lw=0)
            axes.axvline(limit, color=INK, lw=0.9, ls=(0, (4, 3)))
            left = edges[-1] - limit < 0.3 * (edges[-1] - edges[0])
            room = 0.015 * (edges[-1] - edges[0])
            where, align = (limit - room, "right") if left else (limit + room, "left")
            axes.text(where, 0.97 * top, "95 % of observed", va="top", ha=align, color=SOFT)
        _key(axes, [("observed", SOFT), ("counterfactual", OTHER)], right=limit < float(edges.mean()))
        axes.yaxis.set_major_formatter(lambda v, _: percent(v))
        canvas.ticks(axes.xaxis, 6)
        canvas.ticks(axes.yaxis, 4)

    return canvas.draw(
        paint,
        title=f"How unusual would changing {plain(action)} be?",
        subtitle=f"share of rows by free energy{beyond}",
        xlabel="free energy (further right: less like what was seen)",
    )


def overlap(table: pd.DataFrame, *, trim: tuple[float, float] | None = None) -> str:
    """Draw the estimated propensities of treated rows upwards and of the others downwards.

    Args:
        table: one action's rows of `side, propensity_bin_left, propensity_bin_right, count`.
        trim: rows below and above these propensities count as not comparable; shaded.
    """
    action = frames.first(table, "action")
    sides = {s: frames.where(table, frames.equal(table, "side", s)) for s in ("treated", "control")}
    count = frames.column(table, "count")
    middle = (frames.column(table, "propensity_bin_left") + frames.column(table, "propensity_bin_right")) / 2
    # The words stand where there is most room: away from where the rows are.
    at_right = float((middle * count).sum()) < 0.5 * max(float(count.sum()), 1.0)

    def paint(axes: Axes) -> None:
        tallest = 0.0
        for side, sign, colour in (("treated", 1, WORLD), ("control", -1, FAINT)):
            share = frames.column(sides[side], "count")
            share = share / max(float(share.sum()), 1.0)
            left = frames.column(sides[side], "propensity_bin_left")
            width = frames.column(sides[side], "propensity_bin_right") - left
            axes.bar(left, sign * share, 0.92 * width, align="edge", color=colour, lw=0)
            tallest = max(tallest, float(share.max(initial=0.0)))
        top = 1.25 * (tallest or 1.0)
        axes.set_ylim(-top, top)
        axes.set_xlim(0, 1)
        axes.axhline(0.0, color=INK, lw=0.8)
        axes.spines["bottom"].set_visible(False)
        for low, high in ((0.0, trim[0]), (trim[1], 1.0)) if trim else ():
            axes.axvspan(low, high, color=WASH, zorder=0, lw=0)
            axes.axvline(low or high, color=SOFT, lw=0.8, ls=(0, (2, 2)))
        edge = 0.07 if trim else 0.01
        where, align = (1.0 - edge, "right") if at_right else (edge, "left")
        axes.text(where, 0.93 * top, f"rows with {plain(action, 20)}", color=WORLD, ha=align, va="top")
        axes.text(where, -0.93 * top, "rows without", color=SOFT, ha=align, va="bottom")
        canvas.ticks(axes.xaxis, 6)
        canvas.ticks(axes.yaxis, 5)
        axes.yaxis.set_major_formatter(lambda v, _: percent(abs(v)))

    return canvas.draw(
        paint,
        title=f"Are rows with and without {plain(action)} comparable?",
        subtitle="share of each side by how likely the action was" + ("; shaded: left out" if trim else ""),
        xlabel=f"estimated probability of {plain(action, 20)}, given what is known before it",
    )
