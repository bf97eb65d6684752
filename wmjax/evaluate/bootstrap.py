"""Intervals by resampling whole units: rows of one unit are not independent, and row-wise intervals are too short."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Key, Shaped

from wmjax.core.errors import UserError
from wmjax.evaluate.rank import generator

MOST_UNDEFINED = 0.05


class Interval(NamedTuple):
    """A statistic with its bootstrap interval.

    value: on the rows as they are. lo, hi: percentiles of the draws. sd: standard deviation of the draws (a standard
    error). draws: [draws], NaN where the statistic was not defined.
    """

    value: float
    lo: float
    hi: float
    sd: float
    draws: np.ndarray


def cluster_bootstrap(
    key: Key[Array, ""],
    statistic: Callable[..., float],
    units: Shaped[np.ndarray, " rows"],
    *columns: Shaped[np.ndarray, "_ ..."],
    draws: int = 200,
    alpha: float = 0.1,
) -> Interval:
    """Bound any statistic of rows by drawing units with replacement, each with all its rows.

    Percentile interval; below about 20 units it is too short.

    Args:
        key: seeds the draws.
        statistic: `(*columns) -> number`.
        units: each row's unit.
        columns: what the statistic reads, one entry a row.
        draws: resamples.
        alpha: the interval holds with probability `1 - alpha`.

    Raises:
        UserError: fewer than two units, or columns of another length than `units`.
    """
    if wrong := [len(c) for c in columns if len(c) != len(units)]:
        raise UserError(f"units has {len(units)} rows, a column has {wrong[0]}")
    order = np.argsort(units, kind="stable")
    _, first, count = np.unique(units[order], return_index=True, return_counts=True)
    if len(first) < 2:
        raise UserError(f"a bootstrap over units needs at least two units, there is {len(first)}")
    rng = generator(key)
    found = np.empty(draws)
    for i in range(draws):
        chosen = rng.integers(0, len(first), len(first))
        rows = _rows_of(first[chosen], count[chosen])
        found[i] = statistic(*(c[order[rows]] for c in columns))
    known = found[np.isfinite(found)]
    # A statistic that is often undefined has no interval: what is left is a biased sample of the draws.
    usable = len(known) >= max(2, (1 - MOST_UNDEFINED) * draws)
    lo, hi = np.quantile(known, [alpha / 2, 1 - alpha / 2]) if usable else (np.nan, np.nan)
    sd = float(known.std(ddof=1)) if usable else float("nan")
    return Interval(float(statistic(*columns)), float(lo), float(hi), sd, found)


def _rows_of(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Lay runs `first, first + 1, .. (count long)` end to end."""
    starts = np.repeat(first - np.r_[0, np.cumsum(count)[:-1]], count)
    return starts + np.arange(count.sum())
