"""Small tables that the tests of this folder share."""

from __future__ import annotations

import numpy as np
import pandas as pd

SCHEMA = {
    "unit": "household",
    "time": "day",
    "columns": {
        "segment": {"role": "static", "kind": "categorical"},
        "income": {"role": "static", "kind": "currency"},
        "loyal": {"role": "static", "kind": "binary"},
        "weather": {"role": "covariate", "kind": "categorical", "future": "known"},
        "price": {"role": "covariate", "kind": "continuous", "future": "known"},
        "footfall": {"role": "covariate", "kind": "count", "future": "mediator"},
        "holiday": {"role": "covariate", "kind": "binary", "future": "known"},
        "push": {"role": "action", "kind": "binary"},
        "spend": {"role": "action", "kind": "currency"},
        "visit": {"role": "outcome", "kind": "binary"},
        "items": {"role": "outcome", "kind": "count"},
    },
}


def table(num_units: int = 7, num_days: int = 40, seed: int = 3, drop: float = 0.15) -> pd.DataFrame:
    """Draw a ragged daily table of every kind of column; the last unit begins late."""
    rng = np.random.default_rng(seed)
    u, t = (x.ravel() for x in np.meshgrid(np.arange(num_units), np.arange(num_days), indexing="ij"))
    n = len(u)
    out = pd.DataFrame(
        {
            "household": u + 100,
            "day": pd.Timestamp("2025-01-20") + pd.to_timedelta(t, unit="D"),
            "segment": np.array(["b", "a", "c"])[u % 3],
            "income": (rng.lognormal(6, 0.5, num_units) // 1)[u],
            "loyal": (u % 2 == 0).astype(int),
            "weather": rng.choice(["sun", "rain", "snow"], n),
            "price": rng.normal(3, 1, n),
            "footfall": rng.poisson(4, n),
            "holiday": rng.random(n) < 0.1,
            "push": (rng.random(n) < 0.3).astype(int),
            "spend": np.where(rng.random(n) < 0.6, rng.lognormal(0, 1, n), 0),
            "visit": (rng.random(n) < 0.2).astype(int),
            "items": rng.poisson(0.4, n),
        }
    )
    there = (rng.random(n) >= drop) & ((u < num_units - 1) | (t >= num_days // 2))
    return out[there].reset_index(drop=True)
