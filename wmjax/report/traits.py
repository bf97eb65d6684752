"""The `traits` command's tables: what a consumer world's long memory says, as a person reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from wmjax.core.observe import Observer
from wmjax.data.panel import Panel
from wmjax.worlds.consumer import ConsumerTraits, ConsumerWorld, fit_traits, load_traits

COLUMNS = {
    "world": "world",
    "without_traits": "no traits",
    "belief": "on belief",
    "visible": "on visible",
}


def fitted(folder: Path, world: ConsumerWorld, panel: Panel, *, observer: Observer) -> ConsumerTraits:
    """Open the traits that a run keeps, or fit them on the run's panel and keep them."""
    if (folder / "traits.json").exists():
        return load_traits(folder, world)
    found = fit_traits(world, panel, observer=observer)
    found.save(folder)
    return found


def comparison(traits: ConsumerTraits) -> pd.DataFrame:
    """Lay validation log losses side by side, an outcome a row, and how far units differ."""
    rows = []
    for outcome, facts in traits.facts.items():
        losses = {label: facts["val_log_loss"][name] for name, label in COLUMNS.items()}
        rows.append(
            {"outcome": outcome, **losses, "level sd": facts["level_sd"]}
            | {"responsiveness sd": facts["responsiveness_sd"]}
        )
    return pd.DataFrame(rows)


MEANING = (
    "above 0, below 0: shares of rows whose own interval is. It holds what the past leaves open of the unit's traits, "
    "and other units and beliefs; 10 %, 90 %: how the rows' effects differ, which is not an interval"
)


def spread(found: xr.Dataset) -> pd.DataFrame:
    """Say how an effect differs from row to row, over the supported rows: an outcome a row, on the outcome's scale.

    `above 0` and `below 0` are shares of rows whose own interval is. Rows share the population's numbers, and so their
    error: without any effect a share is `alpha / 2` on average over tables, not in each.
    """
    rows = []
    for outcome in found.outcome.values:
        own = found.sel(outcome=outcome)
        known = (own.supported & np.isfinite(own.effect)).values
        effect, lo, hi = (own[name].values[known] for name in ("effect", "lo", "hi"))
        told = [effect.mean(), *np.quantile(effect, [0.1, 0.5, 0.9]), (lo > 0).mean(), (hi < 0).mean()]
        names = ("mean", "10 %", "median", "90 %", "above 0", "below 0")
        rows.append({"outcome": outcome, "rows": int(known.sum())} | dict(zip(names, told, strict=True)))
    return pd.DataFrame(rows)


def units(traits: ConsumerTraits, panel: Panel) -> pd.DataFrame:
    """Tidy table of every unit after the panel's last period: outcome, unit, level, responsiveness, `_sd`, periods."""
    return _named(traits.profile(panel).to_dataframe().reset_index(), panel)


def _named(table: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """Give units and times the names of the user's own columns."""
    plain = panel.schema.plain()
    return table.rename(columns={"unit": str(plain.unit), "time": str(plain.time)})


def effects(found: xr.Dataset, panel: Panel) -> pd.DataFrame:
    """Tidy table of an effect in every observed row: outcome, unit, time, effect, lo, hi, both scales, supported."""
    return _named(found.to_dataframe().reset_index().dropna(subset=["effect"]), panel)
