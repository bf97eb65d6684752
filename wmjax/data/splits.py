"""Splits in time: the past trains, what follows validates, the last tests."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from wmjax.core.errors import UserError
from wmjax.data.panel import Panel, show_time


class Split(NamedTuple):
    """Three runs of time that follow one another and cover the calendar.

    Attributes:
        train, val, test: `[time]` bool; every train time is before every val time, and that before every test time.
    """

    train: Bool[np.ndarray, " time"]
    val: Bool[np.ndarray, " time"]
    test: Bool[np.ndarray, " time"]


def split_times(panel: Panel, *, val: float | int = 0.1, test: float | int = 0.1) -> Split:
    """Cut the calendar in three, the same dates for every unit.

    A row at a test time may *see* what was before it (lags, counts), but nothing is fitted on it. A unit whose history
    begins after the train times has no train rows; that at least one unit has some is checked.

    Args:
        panel: whose times are split.
        val, test: how many periods (whole number), or which share of the calendar (a float below 1, rounded to at
            least one period); 0 leaves the part empty. Where the table has no time column, periods are positions in
            each unit's rows and few units have late ones: there a share is that of the observed rows, at least, and
            the parts hold the late rows of the units with the longest histories.

    Raises:
        UserError: parts that leave no train time, or a part without one observed row.
    """
    total = panel.num_times
    weights = panel.arrays.mask.sum(0) if panel.schema.time is None else np.ones(total)
    num_test = _periods("test", test, weights)
    num_val = _periods("val", val, weights, after=num_test)
    num_train = total - num_val - num_test
    if num_train < 1:
        raise UserError(
            f"val = {val} and test = {test} take {num_val} + {num_test} of {total} periods; none is left to train"
        )
    at = np.arange(total)
    split = Split(at < num_train, (at >= num_train) & (at < num_train + num_val), at >= num_train + num_val)
    for name, part in zip(Split._fields, split, strict=True):
        if part.any() and not rows(panel, part).any():
            first, last = panel.times[part][0], panel.times[part][-1]
            raise UserError(f"no unit is observed in the {name} times, {show_time(first)} to {show_time(last)}")
    return split


def rows(panel: Panel, part: Bool[np.ndarray, " time"]) -> Bool[np.ndarray, "unit time"]:
    """Mark the observed rows of a part."""
    return panel.arrays.mask & part[None, :]


def _periods(name: str, size: float | int, weights: np.ndarray, *, after: int = 0) -> int:
    """Count the periods of a part that ends `after` periods before the last; a share is of the weights."""
    if isinstance(size, int | np.integer):
        if size < 0:
            raise UserError(f"{name} = {size} periods, must be 0 or more")
        return int(size)
    if not 0 <= size < 1:
        raise UserError(f"{name} = {size}, must be a share in [0, 1) or a whole number of periods")
    if size == 0:
        return 0
    if (weights == 1).all():
        return max(1, round(size * len(weights)))
    if after >= len(weights):
        return 1  # more than there are in all: the caller says so
    late = np.cumsum(weights[::-1])
    have = late[after - 1] if after else 0
    return int(np.searchsorted(late, have + size * weights.sum())) + 1 - after
