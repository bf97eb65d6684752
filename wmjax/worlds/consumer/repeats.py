"""Actions that repeat: a plan that repeats what the data seldom repeated makes histories that no belief has learnt.

A roll-out feeds a plan's own actions back as lags. A push a day, where pushes fell by a coin, fills every lag, as one
row in a hundred did; the row's other values may be common, so that the overlap of a period's action says nothing of it.
An action is on above 0: how large a dose was is not judged, nor an action that is neither a bit, a count nor money.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from wmjax.data.frame import Frame
from wmjax.data.panel import Panel
from wmjax.data.recipes import Lag

SELDOM, MUCH, FEW = 0.02, 0.1, 100
"""Repeats are told of that less than the first share of the train rows, and more than the second of a plan's rows, come
after; where fewer train rows than the last have a past to count, nothing is told."""


class Repeat(NamedTuple):
    """lags: at which the belief reads an action. rows: how many were observed at all of them. on, off: shares of these
    that had the action at every lag, or at none."""

    lags: Sequence[int]
    rows: int
    on: float
    off: float


def lags_of(frame: Frame) -> dict[str, tuple[int, ...]]:
    """Say at which lags the belief reads each action, of those that it does."""
    _, _, actions, _ = frame.names
    read = {name: set() for name in actions}
    for recipe in frame.recipes:
        if isinstance(recipe, Lag):
            for column in set(recipe.columns) & read.keys():
                read[column] |= set(recipe.lags)
    return {name: tuple(sorted(lags)) for name, lags in read.items() if lags}


def shares(
    panel: Panel, actions: Float[np.ndarray, "unit time action"], rows: Bool[np.ndarray, "unit time"], *, frame: Frame
) -> dict[str, Repeat]:
    """Count which of `rows` have each action on, or off, at every lag that is read.

    Args:
        panel: says where units were observed, and the actions' kinds.
        actions: of the whole panel, as they were or as a plan has them.
        rows: which are counted.
        frame: what the belief is made of.
    """
    found, mask = {}, panel.arrays.mask
    for name, lags in lags_of(frame).items():
        if panel.schema.column(name).kind == "continuous":
            continue
        on = actions[..., panel.action_index(name)] > 0
        past = np.stack([_earlier(mask, k) for k in lags])
        counted = rows & past.all(0)
        many = np.sum([_earlier(on & mask, k) for k in lags], axis=0)[counted]
        if many.size:
            found[name] = Repeat(lags, many.size, float((many == len(lags)).mean()), float((many == 0).mean()))
    return found


def _earlier(marks: Bool[np.ndarray, "unit time"], lag: int) -> Bool[np.ndarray, "unit time"]:
    """Read each period's mark `lag` periods before; none before the first."""
    return np.pad(marks, ((0, 0), (lag, 0)))[:, : marks.shape[1]]


def warnings_of_plans(
    seen: Mapping[str, Sequence[Any]],
    panel: Panel,
    window: slice,
    plans: Iterable[Float[np.ndarray, "unit period action"]],
    *,
    frame: Frame,
) -> list[str]:
    """Say which actions plans repeat as was seldom seen, once each, of the plan that makes the most.

    Args:
        seen: `shares` of the train rows; where empty, nothing is told.
        panel: that is rolled forward.
        window: the periods that are rolled.
        plans: actions in these periods.
        frame: what the belief is made of.
    """
    rows, most = np.zeros_like(panel.arrays.mask), {}
    rows[:, window] = panel.arrays.mask[:, window]
    for plan in plans if seen else ():
        lived = panel.arrays.actions.copy()
        lived[:, window] = plan
        for name, own in shares(panel, lived, rows, frame=frame).items():
            for value in ("on", "off"):
                most[name, value] = max(most.get((name, value), 0.0), getattr(own, value))
    found = []
    for (name, value), share in most.items():
        if name not in seen:
            continue
        was = Repeat(*seen[name])
        if was.rows >= FEW and share > MUCH and getattr(was, value) < SELDOM:
            lags = ", ".join(map(str, was.lags))
            found.append(
                f"{name}: {share:.0%} of the rolled rows with a known past had it {value} at every lag that is read "
                f"({lags}), {getattr(was, value):.1%} of the rows learnt from did; what such a history leads to is "
                "extrapolated"
            )
    return found
