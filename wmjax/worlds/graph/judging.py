"""How well a graph world forecasts the periods that it has not learnt from, beside what needs no model."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pandas as pd
from scipy import stats

from wmjax.core.keys import key_for
from wmjax.data.panel import Panel
from wmjax.worlds.graph.world import GraphWorld

DRAWS = 8
"""Roll-outs of each member whose mean is the rolled forecast."""
HORIZONS = {"next": "a period ahead", "rolled": "rolled on through all of them"}
MODELS = {"world": "the world", "mean": "the unit's own training mean", "no change": "no change"}


def accuracy(world: GraphWorld, panel: Panel) -> pd.DataFrame:
    """Score the forecasts of the test periods, all actions known.

    Returns:
        Tidy table: outcome; horizon, `next` from all that came before each period, `rolled` from the training periods
        alone; model, `world`, `mean` (each unit's own over the training periods) or `no change`; rmse in the outcome's
        units; `worse`, the share of units on which the world errs more than the model, ties by half.
    """
    start, actual = int(world.facts["train_periods"]), np.asarray(panel.arrays.outcomes, np.float64)
    known, test = actual[:, :start], actual[:, start:]
    rolled = world.simulate(
        key_for(jax.random.key(0), "judging"), panel, panel.arrays.actions, start=start, draws=DRAWS
    )
    forecasts = {
        "next": {
            "world": world.predict(panel)["mean"].to_numpy()[:, :, start:],
            "no change": np.moveaxis(actual[:, start - 1 : -1], -1, 0),
        },
        "rolled": {
            "world": rolled["mean"].mean(("member", "draw")).to_numpy(),
            "no change": np.moveaxis(np.broadcast_to(known[:, -1:], test.shape), -1, 0),
        },
    }
    mean = np.moveaxis(np.broadcast_to(known.mean(1, keepdims=True), test.shape), -1, 0)
    rows = []
    for horizon, made in forecasts.items():
        # A roll-out may go beyond all bounds, which is told and stops nothing.
        with np.errstate(over="ignore", invalid="ignore"):
            error = {name: ((made | {"mean": mean})[name] - np.moveaxis(test, -1, 0)) ** 2 for name in MODELS}
        for at, outcome in enumerate(panel.outcome_names):
            by_unit = {name: e[at].mean(1) for name, e in error.items()}
            for name, e in by_unit.items():
                # Not a number is no better than any.
                worse = np.where(e == by_unit["world"], 0.5, ~(by_unit["world"] < e)).mean()
                row = {"outcome": outcome, "horizon": horizon, "model": name, "rmse": float(np.sqrt(e.mean()))}
                rows.append(row | {"worse": float(worse)})
    return pd.DataFrame(rows)


def warnings(found: pd.DataFrame, units: int) -> list[str]:
    """Say which outcomes' forecasts lose to one that needs no model.

    Lose: a larger error, and either on more units than chance makes it (a sign test, 5 % for all comparisons of an
    outcome) or more than twice as large.

    Args:
        found: of `accuracy`.
        units: of its panel.
    """
    rows, lines = found.to_dict("records"), []
    for outcome in dict.fromkeys(row["outcome"] for row in rows):
        own = [row for row in rows if row["outcome"] == outcome]
        mine = {row["horizon"]: row["rmse"] for row in own if row["model"] == "world"}
        others = [row for row in own if row["model"] != "world"]
        many = float(stats.binom.ppf(1 - 0.05 / len(others), units, 0.5)) / units

        def lost(row: dict[str, Any], mine: dict[str, float] = mine, many: float = many) -> float:
            own = mine[row["horizon"]]
            if not np.isfinite(own):
                return np.inf
            ratio = own / max(row["rmse"], 1e-12)
            return ratio if ratio > 1 and (row["worse"] > many or ratio > 2) else 0.0

        worst = max(others, key=lost)
        if lost(worst) > 0:
            error = mine[worst["horizon"]]
            by = f"by {error:.4g}" if np.isfinite(error) else "beyond all bounds"
            lines.append(
                f"{outcome}: forecast {HORIZONS[worst['horizon']]}, the world errs {by} in the test periods, "
                f"{MODELS[worst['model']]} by {worst['rmse']:.4g}; it has not learnt this outcome, or the outcome has "
                "changed since"
            )
    return lines
