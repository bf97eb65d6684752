"""How well a graph world forecasts the periods that it has not learnt from, beside what needs no model."""

from __future__ import annotations

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
        units; `worse`, by how many standard errors over units the world's squared error is above the model's.
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
        error = {model: ((made | {"mean": mean})[model] - np.moveaxis(test, -1, 0)) ** 2 for model in MODELS}
        for at, outcome in enumerate(panel.outcome_names):
            by_unit = {model: e[at].mean(1) for model, e in error.items()}
            for model, e in by_unit.items():
                gap = by_unit["world"] - e
                spread = gap.std(ddof=1) / np.sqrt(len(gap))
                worse = float(gap.mean() / spread) if spread > 0 else 0.0
                rows.append(
                    {
                        "outcome": outcome,
                        "horizon": horizon,
                        "model": model,
                        "rmse": float(np.sqrt(e.mean())),
                        "worse": worse,
                    }
                )
    return pd.DataFrame(rows)


def warnings(found: pd.DataFrame, units: int) -> list[str]:
    """Say which outcomes' forecasts lose to one that needs no model, by more than chance (5 % a comparison)."""
    limit, lines = stats.t.ppf(0.95, units - 1), []
    rows = found.to_dict("records")
    for outcome in dict.fromkeys(row["outcome"] for row in rows):
        own = [row for row in rows if row["outcome"] == outcome]
        worst = max(own, key=lambda row: row["worse"])
        if worst["worse"] > limit:
            mine = {row["horizon"]: row["rmse"] for row in own if row["model"] == "world"}[worst["horizon"]]
            lines.append(
                f"{outcome}: forecast {HORIZONS[worst['horizon']]}, the world errs by {mine:.4g} in the test periods, "
                f"{MODELS[worst['model']]} by {worst['rmse']:.4g}; it has not learnt this outcome, or the outcome has "
                "changed since"
            )
    return lines
