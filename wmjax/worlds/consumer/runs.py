"""Runs of an action: a plan that repeats what the data seldom repeated makes histories that no belief has learnt.

A roll-out feeds a plan's own actions back as lags. A push a day, where pushes fell by a coin, fills every lag, as one
row in a hundred did; the row's other values may be common, so that the overlap of a period's action says nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from wmjax.data.frame import Frame
from wmjax.data.panel import Panel
from wmjax.data.recipes import Lag

SELDOM, MUCH = 0.02, 0.1
"""Runs are told of that less than this share of the train rows, and more than that of a plan's rows, come after."""


class Run(NamedTuple):
    """depth: periods that the belief looks back. on, off: shares of rows before which all of them had it, or none."""

    depth: int
    on: float
    off: float


def depths(frame: Frame) -> dict[str, int]:
    """Say how far back the belief sees each action, of those whose lags it reads."""
    actions = frame.names[2]
    lags = [(column, max(r.lags)) for r in frame.recipes if isinstance(r, Lag) for column in r.columns]
    return {name: max(k for column, k in lags if column == name) for name in actions if name in dict(lags)}


def shares(
    actions: Float[np.ndarray, "unit time action"],
    rows: Bool[np.ndarray, "unit time"],
    mask: Bool[np.ndarray, "unit time"],
    *,
    frame: Frame,
) -> dict[str, Run]:
    """Share of `rows` that come after a whole run of each action, on or off.

    Args:
        actions: of the whole panel.
        rows: which are counted; those whose earlier periods were not all observed are left out.
        mask: where the panel was observed.
        frame: what the belief is made of.
    """
    found = {}
    for name, depth in depths(frame).items():
        own = actions[..., frame.names[2].index(name)] > 0
        counted = rows & (_before(mask, depth) == depth)
        if counted.any():
            many = _before(own & mask, depth)[counted]
            found[name] = Run(depth, float((many == depth).mean()), float((many == 0).mean()))
    return found


def _before(events: Bool[np.ndarray, "unit time"], depth: int) -> np.ndarray:
    """Count the events of the last `depth` periods before each."""
    before = np.pad(np.cumsum(events, axis=1), ((0, 0), (1, 0)))[:, :-1]
    return before - np.pad(before, ((0, 0), (depth, 0)))[:, : events.shape[1]]


def warnings_of_plans(
    seen: Mapping[str, Sequence[float | int]],
    panel: Panel,
    start: int,
    *plans: Float[np.ndarray, "unit time action"],
    frame: Frame,
) -> list[str]:
    """Say of which actions plans make runs that were seldom seen, each thing once.

    Args:
        seen: `shares` of the train rows.
        panel: that is rolled forward.
        start: the first period of the roll-out.
        plans: the whole panel's actions, of which those from `start` on are lived.
        frame: what the belief is made of.
    """
    found, later = [], np.arange(panel.num_times) >= start
    for plan in plans:
        lived = np.where(later[:, None], plan, panel.arrays.actions)
        for name, own in shares(lived, panel.arrays.mask & later, panel.arrays.mask, frame=frame).items():
            for value, share, was in zip(("on", "off"), own[1:], seen.get(name, own)[1:], strict=True):
                if share > MUCH and was < SELDOM:
                    found.append(
                        f"{name}: {share:.0%} of the rolled rows come after {own.depth} periods in which it was all "
                        f"{value}, {was:.1%} of the rows learnt from did; what such a history leads to is extrapolated"
                    )
    return list(dict.fromkeys(found))
