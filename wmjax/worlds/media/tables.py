"""An attribution as tidy tables: one row a channel and geo, the number with its bounds and its unit."""

from __future__ import annotations

import pandas as pd
import xarray as xr

from wmjax.worlds.media.planning import ALL

QUANTITIES = ("contribution", "roi", "marginal_roi", "marginal_roi_difference", "share")


def _with_bounds(found: xr.Dataset, name: str) -> pd.DataFrame:
    return _ends(found, _bounded(name)).rename(columns={"unit": "geo"})


def roi(found: xr.Dataset) -> pd.DataFrame:
    """Tabulate `MediaWorld.attribute`: channel, geo (`all` is the sum), quantity, mean, lo, hi, unit, and two flags.

    `extrapolated`: what is asked against no spend, where none was learnt from (of the sum, in any geo); not known where
    the grid of the curves lacks 0. `no_overlap`: covariates explain the channel's spend, so that it hardly moves alone.
    """
    outcome, parts = found.attrs["outcome"], []
    units = {"contribution": outcome, "share": "share of media"}
    for name in QUANTITIES:
        table = _with_bounds(found, name)
        table.insert(2, "quantity", name)
        table = table.assign(unit=units.get(name, f"{outcome} per unit of spend"), extrapolated=False)
        if not name.startswith("marginal"):
            known = 0.0 in found["factor"].values
            table["extrapolated"] = found["extrapolated"].sel(factor=0.0).to_numpy().ravel() if known else None
        parts.append(table)
    table = pd.concat(parts, ignore_index=True).astype({"extrapolated": "boolean"})
    return table.assign(no_overlap=table["channel"].isin(found.attrs["no_overlap"]))


def curves(found: xr.Dataset) -> pd.DataFrame:
    """Tabulate its response curves: channel, factor, geo, mean, lo, hi, spend, roi, roi_lo, roi_hi, extrapolated, unit.

    `roi` is the response over the spend, missing at none.
    """
    table = _with_bounds(found, "curve")
    spend = found["spend"].to_series().rename("spend").reset_index().rename(columns={"unit": "geo"})
    table = table.merge(spend, on=["channel", "geo"])
    table["spend"] *= table["factor"]
    for end, name in (("mean", "roi"), ("lo", "roi_lo"), ("hi", "roi_hi")):
        table[name] = table[end] / table["spend"].where(table["spend"] > 0)
    outside = found["extrapolated"].to_series().rename("extrapolated").reset_index().rename(columns={"unit": "geo"})
    return table.merge(outside, on=["channel", "factor", "geo"]).assign(unit=found.attrs["outcome"])


def contributions(found: xr.Dataset) -> pd.DataFrame:
    """Tabulate `MediaWorld.contributions`: channel, geo (`all` is the sum), time, quantity, mean, lo, hi, unit.

    The rows of a geo and time add up to the outcome that is expected there: the channels' (quantity `contribution`),
    the `baseline` without any spend, and the `interaction`, what media do together less what each does. The channel of
    the last two is their name. Periods in which a geo was not observed have no row.
    """
    parts, seen = [], found["observed"]
    for quantity in ("contribution", "baseline", "interaction"):
        own = ("contribution", "lo", "hi") if quantity == "contribution" else _bounded(quantity)
        total = _bounded("total" if quantity == "contribution" else f"{quantity}_total")
        geos = [_ends(found[list(total)].where(seen.any("unit")), total).assign(unit=ALL)]
        if found.sizes["unit"] > 1:
            geos.append(_ends(found[list(own)].where(seen), own))
        table = pd.concat(geos, ignore_index=True)
        parts.append(table.assign(channel=table.get("channel", quantity), quantity=quantity))
    table = pd.concat(parts, ignore_index=True).dropna(subset="mean").rename(columns={"unit": "geo"})
    columns = ["channel", "geo", "time", "quantity", "mean", "lo", "hi"]
    return table[columns].reset_index(drop=True).assign(unit=found.attrs["outcome"])


def _bounded(name: str) -> tuple[str, str, str]:
    return name, f"{name}_lo", f"{name}_hi"


def _ends(found: xr.Dataset, names: tuple[str, ...]) -> pd.DataFrame:
    """Lay a quantity out with its bounds, a row for each of its labels."""
    columns = {column: found[name].to_series() for column, name in zip(("mean", "lo", "hi"), names, strict=True)}
    return pd.DataFrame(columns).reset_index()
