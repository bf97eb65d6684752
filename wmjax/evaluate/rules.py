"""Whether an action is a function of what was known before it, said in words that name the column."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from wmjax.core.visible import Visible

EXPECTED = 10.0
"""A cell counts as one-sided where this many rows of the missing side were to be expected."""
MOST_NAMED, MOST_LEVELS, TREE_DEPTH, TREE_ROWS = 3, 64, 3, 10_000


class Cell(NamedTuple):
    """Rows in which a binary action has been one value only.

    Attributes:
        column: index of the unit. at: its value, 0 or 1. action: the only value seen there. rows: rows seen.
    """

    column: int
    at: int
    action: int
    rows: int


class Column(NamedTuple):
    """One column or one-hot group, as a person knows it: a name, the unit's indices, and its levels' names."""

    name: str
    units: tuple[int, ...]
    levels: tuple[str, ...]


def as_columns(features: Float[np.ndarray, "rows units"], visible: Visible) -> list[Column]:
    """Read the layer as columns: a group of bits of which each row has exactly one is a column with levels."""
    out = []
    for group in visible.groups:
        units = tuple(range(group.start, group.start + group.size))
        x = features[:, group.slice]
        one_hot = len(units) > 1 and bool(np.isin(x, (0, 1)).all() and (x.sum(axis=1) == 1).all())
        if one_hot:
            out.append(Column(group.name, units, tuple(n.removeprefix(f"{group.name}_") for n in group.labels)))
        else:
            out += [Column(label, (u,), ()) for u, label in zip(units, group.labels, strict=True)]
    return out


def spoken(column: Column, level: int) -> str:
    """Name one level of a one-hot column: `dow=6`."""
    return f"{column.name}={column.levels[level]}"


def binary_rule(name: str, features: Float[np.ndarray, "rows units"], action: np.ndarray, visible: Visible) -> str:
    """Say which function of one column, or of up to three units, a binary action is on every row.

    Returns:
        A clause such as `sale is 1 exactly where dow=6`; empty where there is no such function.
    """
    if (action == action[0]).all():
        return f"{name} is {action[0]:g} in every row"
    for column in as_columns(features, visible):
        found = _binary_of_one(name, column, features, action)
        if found:
            return found
    return _of_several(name, features, action, visible)


def _binary_of_one(name: str, column: Column, features: np.ndarray, action: np.ndarray) -> str:
    if column.levels:
        level = features[:, column.units].argmax(axis=1)
        rows = np.bincount(level, minlength=len(column.levels))
        ones = np.bincount(level, weights=action, minlength=len(column.levels))
        if not np.all((ones == 0) | (ones == rows)):
            return ""
        on, off = (np.flatnonzero((rows > 0) & (ones == x)) for x in (rows, np.zeros_like(rows)))
        value, levels = (1, on) if len(on) <= len(off) else (0, off)
        return f"{name} is {value} exactly where {' or '.join(spoken(column, int(k)) for k in levels)}"
    x = features[:, column.units[0]]
    low, high = (x[action == a] for a in (0, 1))
    binary = bool(np.isin(x, (0, 1)).all())
    for value, below, above in ((1, low, high), (0, high, low)):
        if below.max() < above.min():
            where = "is 1" if binary else f"is at least {above.min():.4g}"
            return f"{name} is {value} exactly where {column.name} {where}"
    return ""


def _of_several(name: str, features: np.ndarray, action: np.ndarray, visible: Visible) -> str:
    """Look for a decision tree of a few splits without one wrong row."""
    varies = np.flatnonzero((features != features[:1]).any(axis=0))
    if not len(varies):
        return ""
    # At random: every seventh row might be every Sunday.
    some = np.random.default_rng(0).permutation(len(action))[:TREE_ROWS]
    from sklearn.tree import DecisionTreeClassifier  # half a second that no command's start should pay

    tree = DecisionTreeClassifier(max_depth=TREE_DEPTH, random_state=0)
    tree.fit(features[np.ix_(some, varies)], action[some])
    # What some rows suggest is then asked of all.
    if not np.array_equal(tree.predict(features[:, varies]), action):
        return ""
    used = dict.fromkeys(int(varies[u]) for u in tree.tree_.feature if u >= 0)
    return f"{name} is a function of {_listed([visible.labels[u] for u in used])}"


def real_rule(name: str, features: Float[np.ndarray, "rows units"], action: np.ndarray, visible: Visible) -> str:
    """Say which function of one column a real action is: equal at equal levels, or a straight line.

    Returns:
        A clause such as `discount is a function of month`; empty where there is no such function.
    """
    if (action == action[0]).all():
        return f"{name} is {action[0]:g} in every row"
    spread = action.std()
    for column in as_columns(features, visible):
        if column.levels:
            x = features[:, column.units].argmax(axis=1)
        else:
            values = features[:, column.units[0]]
            # A glance at some rows spares most real columns the sort of all.
            if len(np.unique(values[:1000])) > MOST_LEVELS:
                continue
            seen, x = np.unique(values, return_inverse=True)
            if len(seen) > MOST_LEVELS:
                continue
        rows = np.bincount(x)
        mean = np.bincount(x, weights=action) / np.maximum(rows, 1)
        if np.abs(action - mean[x]).max() <= 1e-4 * spread and (rows[rows > 0] > 1).all():
            return f"{name} is a function of {column.name}"
    x = features - features.mean(axis=0)
    size = np.sqrt((x**2).sum(axis=0))
    y = action - action.mean()
    correlation = np.divide(x.T @ y, size * np.sqrt(y @ y), out=np.zeros_like(size), where=size > 0)
    best = int(np.abs(correlation).argmax())
    if abs(correlation[best]) > 1 - 1e-6:
        return f"{name} moves in step with {visible.labels[best]}"
    return ""


def one_sided(features: Float[np.ndarray, "rows units"], action: np.ndarray) -> list[Cell]:
    """Find the cells (one binary unit on, or off) in which a binary action took one value although both were due.

    A cell counts where at least `EXPECTED` rows of the missing value were to be expected at the overall rate.
    """
    rate, rows = action.mean(), len(action)
    binary = ((features == 0) | (features == 1)).all(axis=0)
    on = np.where(binary, features.sum(axis=0), 0.0)
    on_acted = np.where(binary, features.T @ action, 0.0)
    cells = []
    for at, n, ones in ((1, on, on_acted), (0, np.where(binary, rows - on, 0.0), action.sum() - on_acted)):
        for only, missing, due in ((0, ones, rate), (1, n - ones, 1 - rate)):
            for column in np.flatnonzero(binary & (n < rows) & (np.round(missing) == 0) & (n * due >= EXPECTED)):
                cells.append(Cell(int(column), at, only, round(n[column])))
    return cells


def tell_cells(name: str, cells: list[Cell], visible: Visible) -> str:
    """Put the largest one-sided cells in words: `campaign is never 1 where store_9 is 1 (1,200 rows)`."""
    largest = sorted(cells, key=lambda c: -c.rows)[:MOST_NAMED]
    told = [f"{visible.labels[c.column]} is {c.at} ({c.rows:,} rows)" for c in largest]
    parts = []
    for value in (0, 1):
        where = [t for t, c in zip(told, largest, strict=True) if c.action == value]
        if where:
            parts.append(f"{name} is never {1 - value} where {_listed(where, 'or')}")
    return "; ".join(parts)


def _listed(names: list[str], word: str = "and") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"
