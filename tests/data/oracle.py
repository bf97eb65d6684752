"""A slow twin of the frame, in NumPy float64: every unit of every row from its definition, straight off the panel."""

from __future__ import annotations

import numpy as np

from wmjax.data import recipes as R
from wmjax.data.panel import Panel


def history(panel: Panel, name: str, u: int, t: int) -> list[float | None]:
    """Give a column's values before t, latest first; None where unobserved."""
    values, mask = panel.values(name), panel.arrays.mask
    return [float(values[u, s]) if mask[u, s] else None for s in range(t - 1, -1, -1)]


def train_values(panel: Panel, name: str, train: np.ndarray) -> np.ndarray:
    values = panel.values(name).astype(np.float64)
    cells = [(u, t) for u in range(panel.num_units) for t in np.flatnonzero(train) if panel.arrays.mask[u, t]]
    if values.ndim == 1:
        return np.array([values[u] for u in sorted({u for u, _ in cells})])
    return np.array([values[u, t] for u, t in cells])


def zscore(x: float, values: np.ndarray) -> float:
    return (x - values.mean()) / (values.std() if len(set(values)) > 1 else 1.0)


def row(panel: Panel, recipe: R.Recipe, train: np.ndarray, u: int, t: int) -> list[float]:
    """Give the units of one recipe at one row."""
    if isinstance(recipe, R.Calendar):
        date, out = panel.times[t], []
        for part in recipe.parts:
            code, size = {
                "month": (date.month - 1, 12),
                "dow": (date.weekday(), 7),
                "quarter": ((date.month - 1) // 3, 4),
            }[part]
            out += [float(i == code) for i in range(size)]
        return out
    if isinstance(recipe, R.Lag):
        out = []
        for k in recipe.lags:
            for name in recipe.columns:
                past = history(panel, name, u, t)
                x = past[k - 1] if k <= len(past) else None
                binary = panel.schema.column(name).kind == "binary"
                out.append(0.0 if x is None else x if binary else zscore(x, train_values(panel, name, train)))
        return out
    if isinstance(recipe, R.Recency | R.Cumulative):
        past = history(panel, recipe.column, u, t)
        events = [i for i, x in enumerate(past) if x is not None and x > 0]
        if isinstance(recipe, R.Recency):
            # An event in the previous period is at distance 0.
            return [float(bool(events) and events[0] <= w) for w in recipe.windows]
        return [float(len(events) >= n) for n in recipe.thresholds]
    values = panel.values(recipe.column).astype(np.float64)
    x = values[u] if values.ndim == 1 else values[u, t]
    if isinstance(recipe, R.OneHot):
        return [float(x == i) for i in range(len(panel.levels[recipe.column]))]
    if isinstance(recipe, R.Binary):
        return [float(x)]
    fitted = train_values(panel, recipe.column, train)
    if isinstance(recipe, R.Continuous):
        return [float(zscore(x, fitted))]
    if isinstance(recipe, R.Binned):
        edges = np.array(recipe.edges)
    else:
        edges = np.percentile(fitted, [100 * i / recipe.bins for i in range(1, recipe.bins)])
        edges = np.array(sorted({e for e in edges if e > fitted.min()}))
    return [float(np.digitize(x, edges) == i) for i in range(len(edges) + 1)]


def build(panel: Panel, recipes: tuple[R.Recipe, ...], train: np.ndarray) -> np.ndarray:
    """Build `[unit, time, v]`."""
    return np.array(
        [
            [[x for r in recipes for x in row(panel, r, train, u, t)] for t in range(panel.num_times)]
            for u in range(panel.num_units)
        ]
    )
