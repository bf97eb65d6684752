"""The consumer panel as a `wmjax.data` panel, and the recipes that make the published 72 visible bits of it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from wmjax.data.panel import Panel, PanelArrays
from wmjax.data.recipes import Binary, Binned, Calendar, Cumulative, Lag, OneHot, QuantileBins, Recency, Recipe
from wmjax.data.schema import Column, PanelSchema
from wmjax.simulate import consumer_frame
from wmjax.simulate.consumer import ConsumerSim, ConsumerSimConfig


def schema() -> PanelSchema:
    """Say what the panel's columns mean: statics, the five actions and the two outcomes, by consumer and day."""
    return PanelSchema(
        unit="consumer_id",
        time="date",
        frequency="daily",
        columns=(
            Column(name="store", role="static", kind="categorical"),
            Column(name="loyalty", role="static", kind="binary"),
            Column(name="age", role="static", kind="count"),
            Column(name="income", role="static", kind="currency"),
            *(Column(name=name, role="action", kind="binary") for name in consumer_frame.ACTIONS),
            *(Column(name=name, role="outcome", kind="binary") for name in consumer_frame.OUTCOMES),
        ),
    )


def to_panel(sim: ConsumerSim, *, cfg: ConsumerSimConfig) -> Panel:
    """Lay a simulated panel out as what a person would have observed: no trait, utility or noise."""
    statics = np.stack([sim.statics.store, sim.statics.loyalty, sim.statics.age, sim.statics.income], axis=1)
    actions = np.stack([getattr(sim.actions, name) for name in consumer_frame.ACTIONS], axis=2)
    outcomes = np.stack([getattr(sim.outcomes, name) for name in consumer_frame.OUTCOMES], axis=2)
    shape = (cfg.num_consumers, cfg.num_days)
    return Panel(
        arrays=PanelArrays(
            static=statics.astype(np.float32),
            covariates=np.zeros((*shape, 0), np.float32),
            actions=actions.astype(np.float32),
            outcomes=outcomes.astype(np.float32),
            mask=np.ones(shape, bool),
        ),
        schema=schema(),
        units=tuple(range(cfg.num_consumers)),
        times=pd.DatetimeIndex(cfg.dates.astype("datetime64[ns]"), freq="D"),
        levels={"store": tuple(str(s) for s in range(len(cfg.store_probs)))},
    )


def published_recipes() -> tuple[Recipe, ...]:
    """Give the recipes of the published visible layer, in its order; fit with `units="bernoulli"`: 72 bits."""
    windows, thresholds = consumer_frame.WINDOWS, consumer_frame.THRESHOLDS
    return (
        OneHot("store"),
        Binary("loyalty"),
        Binned("age", (30, 40, 50, 60)),
        QuantileBins("income", 5),
        Calendar(("month", "dow")),
        *(Recency(name, windows) for name in consumer_frame.OUTCOMES),
        *(Cumulative(name, thresholds) for name in consumer_frame.OUTCOMES),
        Lag(consumer_frame.LAGGED, consumer_frame.LAGS),
    )
