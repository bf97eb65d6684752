"""Training curves: one panel a stage and quantity, members as thin lines, the best epoch marked."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from wmjax.report import canvas, frames
from wmjax.report.canvas import FAINT, OTHER, SOFT, WORLD, plain
from wmjax.report.numbers import QUANTITIES, number

SPLITS = {"train": "training", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
LOWER = ("loss", "bce", "error", "mse", "rmse", "mae", "brier", "reconstruction", "recon", "nll")
HIGHER = ("auc", "accuracy", "likelihood", "r2", "score")


class Metric(NamedTuple):
    """A metric's name taken apart: `val_loss` is the quantity `loss` on the split `validation`."""

    quantity: str
    split: str


def metric_of(name: str) -> Metric:
    """Take a metric's name apart; without a known split the split is empty."""
    words = str(name).replace("/", "_").split("_")
    for index in (0, -1):
        if len(words) > 1 and words[index] in SPLITS:
            rest = words[1:] if index == 0 else words[:-1]
            return Metric("_".join(rest), SPLITS[words[index]])
    return Metric(str(name), "")


def direction(quantity: str) -> int:
    """Say whether lower (-1) or higher (+1) is better, 0 where the name does not tell."""
    words = quantity.lower().split("_")
    return -1 if any(w in LOWER for w in words) else 1 if any(w in HIGHER for w in words) else 0


def better(quantity: str) -> str:
    """Say in words which way is better, nothing where the name does not tell."""
    return {-1: "lower is better", 1: "higher is better", 0: ""}[direction(quantity)]


class Curve(NamedTuple):
    """One member's metric on one split, by epoch; `value` holds NaN where it is not finite."""

    member: str
    split: str
    epoch: np.ndarray
    value: np.ndarray

    @property
    def diverged(self) -> bool:
        """Whether the curve ends in what is not finite."""
        return not np.isfinite(self.value[-1])


def curves_of(panel: pd.DataFrame) -> list[Curve]:
    """Take a panel's rows apart into curves, held-out splits before training."""
    curves = []
    for (split, member), part in frames.groups(panel, "split", "member"):
        part = frames.ordered(part, "epoch")
        value = frames.column(part, "value")
        curves.append(Curve(member, split, frames.column(part, "epoch"), np.where(np.isfinite(value), value, np.nan)))
    return sorted(curves, key=lambda c: (c.split == "training", c.split))


def best_epoch(curve: Curve, sign: int) -> tuple[float, float] | None:
    """Find the epoch and value that are best, `sign` saying which way; none where no way is better."""
    finite = np.isfinite(curve.value)
    if sign == 0 or not finite.any():
        return None
    index = int(np.argmax(np.where(finite, sign * curve.value, -np.inf)))
    return float(curve.epoch[index]), float(curve.value[index])


def panels(training: pd.DataFrame) -> list[pd.DataFrame]:
    """Cut a training table into panels: one a stage and quantity, in the order of appearance, with the split added."""
    parts = [metric_of(m) for m in training["metric"]]
    table = training.assign(quantity=[p.quantity for p in parts], split=[p.split for p in parts])
    return [part for _, part in frames.groups(table, "stage", "quantity")]


def _limits(curves: list[Curve]) -> tuple[float, float]:
    """Show where the curves settle: the last three quarters, and of the start no more than as much again."""
    epoch, value = (np.concatenate([getattr(c, name) for c in curves]) for name in ("epoch", "value"))
    finite = np.isfinite(value)
    late = value[finite & (epoch >= epoch.min() + 0.25 * np.ptp(epoch))]
    if not late.size:
        return 0.0, 1.0
    low, high = float(late.min()), float(late.max())
    reach = (high - low) or 0.05 * abs(high) or 0.5
    low, high = max(float(value[finite].min()), low - reach), min(float(value[finite].max()), high + reach)
    return low - 0.08 * reach, high + 0.08 * reach


def _median(curves: list[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Give the members' median by epoch, where at least half of them have a value."""
    by_epoch: dict[float, list[float]] = {}
    for curve in curves:
        for epoch, value in zip(curve.epoch, curve.value, strict=True):
            by_epoch.setdefault(float(epoch), []).extend([float(value)] if np.isfinite(value) else [])
    kept = sorted(e for e, values in by_epoch.items() if values and 2 * len(values) >= len(curves))
    return np.array(kept), np.array([np.median(by_epoch[e]) for e in kept])


def _subtitle(curves: list[Curve], best: list[tuple[float, float]], quantity: str) -> str:
    members = len({c.member for c in curves})
    lost = list(dict.fromkeys(c.member for c in curves if c.diverged))
    epochs = sorted({epoch for epoch, _ in best})
    parts = [
        f"thin: each of {members} members" if members > 1 else "",
        better(quantity),
        f"dot: best epoch, {' to '.join(map(number, epochs[:: max(len(epochs) - 1, 1)]))}" if epochs else "",
        f"cross: member {', '.join(lost)} diverged" if lost else "",
    ]
    return "; ".join(filter(None, parts))


def training_curve(panel: pd.DataFrame) -> str:
    """Draw one quantity of one stage by epoch.

    The held-out split is blue, training grey; a dot marks each member's best held-out epoch, a cross the last finite
    value of a member that diverged.

    Args:
        panel: rows of `stage, epoch, member, metric, value, quantity, split` as `panels` gives them.
    """
    stage, quantity = frames.first(panel, "stage"), frames.first(panel, "quantity")
    curves = curves_of(panel)
    splits = list(dict.fromkeys(c.split for c in curves))
    sign = direction(quantity)
    best = [found for c in curves if c.split == splits[0] and (found := best_epoch(c, sign)) is not None]
    name = QUANTITIES.get(quantity, plain(quantity.replace("_", " ")))

    def paint(axes: Axes) -> None:
        low, high = _limits(curves)
        axes.set_ylim(low, high)
        ends: list[tuple[float, str, str]] = []
        for split in reversed(splits):
            colour, words = (FAINT, SOFT) if split == "training" else (WORLD, WORLD)
            lines = [c for c in curves if c.split == split]
            for line in lines:
                finite = np.isfinite(line.value)
                epoch, value = line.epoch[finite], line.value[finite]
                axes.plot(epoch, value, color=colour, lw=1.0 if len(lines) > 1 else 1.6, alpha=0.6)
                if line.diverged and epoch.size:
                    axes.plot(epoch[-1:], value[-1:], "x", color=OTHER, ms=7, mew=1.8, zorder=6)
            epoch, value = _median(lines)
            if len(lines) > 1:
                axes.plot(epoch, value, color=colour, lw=2.0)
            if value.size:
                ends.append((min(max(float(value[-1]), low), high), split or name, words))
        axes.plot([e for e, _ in best], [v for _, v in best], "o", color=WORLD, ms=5, mec="white", mew=0.9, zorder=5)
        last = max(float(c.epoch.max()) for c in curves)
        places = canvas.spread([end for end, _, _ in ends], 0.085 * (high - low))
        for (_, words, colour), place in zip(ends, places, strict=True):
            axes.annotate(words, (last, place), (6, 0), textcoords="offset points", va="center", color=colour)
        canvas.ticks(axes.xaxis, 6)
        canvas.ticks(axes.yaxis, 5)

    return canvas.draw(
        paint,
        title=f"{plain(stage, 34)}, {name} by epoch",
        subtitle=_subtitle(curves, best, quantity),
        xlabel="epoch",
        right=76.0,
    )
