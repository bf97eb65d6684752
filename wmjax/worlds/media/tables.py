"""An attribution as tidy tables: one row a channel and geo, the number with its bounds and its unit."""

from __future__ import annotations

import pandas as pd
import xarray as xr

QUANTITIES = ("contribution", "roi", "marginal_roi", "share")


def _with_bounds(found: xr.Dataset, name: str) -> pd.DataFrame:
    columns = {"mean": found[name], "lo": found[f"{name}_lo"], "hi": found[f"{name}_hi"]}
    table = pd.DataFrame({column: values.to_series() for column, values in columns.items()})
    return table.reset_index().rename(columns={"unit": "geo"})


def roi(found: xr.Dataset) -> pd.DataFrame:
    """Tabulate `MediaWorld.attribute`: channel, geo (`all` is the sum), quantity, mean, lo, hi, unit."""
    outcome, parts = found.attrs["outcome"], []
    units = {"contribution": outcome, "share": "share of media"}
    for name in QUANTITIES:
        table = _with_bounds(found, name)
        table.insert(2, "quantity", name)
        parts.append(table.assign(unit=units.get(name, f"{outcome} per unit of spend")))
    return pd.concat(parts, ignore_index=True)


def curves(found: xr.Dataset) -> pd.DataFrame:
    """Tabulate its response curves: channel, factor, geo, mean, lo, hi, spend, extrapolated, unit."""
    table = _with_bounds(found, "curve")
    spend = found["spend"].to_series().rename("spend").reset_index().rename(columns={"unit": "geo"})
    table = table.merge(spend, on=["channel", "geo"])
    table["spend"] *= table["factor"]
    outside = found["extrapolated"].to_series().rename("extrapolated").reset_index()
    return table.merge(outside, on=["channel", "factor"]).assign(unit=found.attrs["outcome"])
