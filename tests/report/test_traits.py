"""What the `traits` command says of rows."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from wmjax.report import traits


def test_the_spread_of_an_effect_counts_supported_rows():
    """Effects of ten rows rise from -2, one more is unsupported and one was not seen; the other outcome is turned."""
    effect = np.arange(12, dtype=float).reshape(3, 4) - 2
    effect[2, 3] = np.nan
    values = np.stack([effect, -effect])
    supported = np.ones((3, 4), bool)
    supported[2, 2] = False
    found = xr.Dataset(
        {"effect": (("outcome", "unit", "time"), values), "supported": (("unit", "time"), supported)}
        | {name: (("outcome", "unit", "time"), values + gap) for name, gap in (("lo", -1.5), ("hi", 1.5))},
        coords={"outcome": ["visit", "buy"]},
    )
    visit, buy = traits.spread(found).to_dict("records")
    known = np.arange(10) - 2
    assert visit["rows"] == buy["rows"] == 10
    assert (visit["mean"], buy["mean"]) == (known.mean(), -known.mean())
    assert [visit[name] for name in ("10 %", "median", "90 %")] == pytest.approx(np.quantile(known, [0.1, 0.5, 0.9]))
    assert (visit["above 0"], visit["below 0"]) == (0.6, 0.1)
    assert (buy["above 0"], buy["below 0"]) == (0.1, 0.6)
