"""Actions that repeat: counted as by hand, and told of where a plan repeats what the data seldom did."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from wmjax.data.frame import fit_frame
from wmjax.data.readers import read_panel
from wmjax.data.recipes import Lag
from wmjax.worlds.consumer import repeats

UNITS, DAYS, LAGS = 40, 60, (1, 3)


@pytest.fixture(scope="module")
def panel():
    """Coins of three in ten; the first unit misses a day."""
    rng = np.random.default_rng(0)
    days = pd.date_range("2025-01-01", periods=DAYS).strftime("%Y-%m-%d")
    table = pd.DataFrame({"unit": np.repeat(np.arange(UNITS), DAYS), "day": np.tile(days, UNITS)})
    table["push"] = (rng.random(len(table)) < 0.3).astype(int)
    table["visit"] = rng.integers(0, 2, len(table))
    columns = {"push": {"role": "action", "kind": "binary"}, "visit": {"role": "outcome", "kind": "binary"}}
    return read_panel(table.drop(index=20), {"unit": "unit", "time": "day", "columns": columns})


@pytest.fixture(scope="module")
def frame(panel):
    return fit_frame(panel, (Lag("push", LAGS), Lag("visit", (1,))), train=np.ones(DAYS, bool))


def test_repeats_are_those_counted_one_by_one(panel, frame):
    assert repeats.lags_of(frame) == {"push": LAGS}
    push, mask = panel.arrays.actions[..., 0] > 0, panel.arrays.mask
    rows = mask & (np.arange(DAYS) < 45)
    counted = [
        [push[u, t - k] for k in LAGS]
        for u in range(UNITS)
        for t in range(max(LAGS), DAYS)
        if rows[u, t] and all(mask[u, t - k] for k in LAGS)
    ]
    found = repeats.shares(panel, panel.arrays.actions, rows, frame=frame)["push"]
    assert found == (LAGS, len(counted), np.mean([all(c) for c in counted]), np.mean([not any(c) for c in counted]))


def test_what_was_seldom_repeated_is_told_of(panel, frame):
    """A push a day: a coin of three in ten has both lags on in .09 of the rows, which is made one in a hundred."""
    seen = repeats.shares(panel, panel.arrays.actions, panel.arrays.mask, frame=frame)
    assert 0.065 < seen["push"].on < 0.115  # .09 +- 4 standard errors of 2,280 rows
    seldom = {"push": seen["push"]._replace(on=0.01)}
    daily, weekly = (panel.arrays.actions.copy() for _ in range(2))
    daily[:, 30:] = 1
    weekly[:, 30:, 0] = np.arange(DAYS - 30) % 7 == 0

    def told(plan, seen=seldom):
        lived = [x[:, 30:] for x in (plan, panel.arrays.actions)]
        return repeats.warnings_of_plans(seen, panel, slice(30, DAYS), lived, frame=frame)

    (line,) = told(daily)
    assert line.startswith("push: 9")
    assert "had it on at every lag that is read (1, 3), 1.0% of the rows learnt from did" in line
    assert told(weekly) == []
    assert told(daily, seen) == []  # the coin's own share is not seldom
    assert told(daily, {"push": seldom["push"]._replace(rows=99)}) == []
    kept = {name: list(run) for name, run in seldom.items()}  # as a folder has it
    assert told(daily, kept) == [line]
