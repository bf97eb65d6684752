"""Tables with the columns of the public media tables, drawn at random: what runs on these, runs on those.

Outcomes are a level, seasons, controls, and channels' spend times a constant: nothing to be learnt from their figures.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from wmjax.core import files

NATIONAL = ("TV", "Search", "Radio")
ROLES = {"price": "precision", "demand": "confounder", "moon": "irrelevant", "awareness": "mediator"}
RETURN = 2.0


def draw(folder: Path, weeks: int = 60, seed: int = 0) -> Path:
    """Write all tables and the truth of the national one into a folder; return the folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    dates = pd.date_range("2022-01-03", periods=weeks, freq="W-MON")
    _national(rng, folder, dates)
    spend, drawn = _weeks(rng, weeks, ["x1", "x2"], ["trend"])
    whole = drawn["outcome"]
    spend = spend.assign(date=dates, trend=drawn["trend"], y=whole)
    spend = spend.assign(y01=whole - RETURN * spend["x1"], y02=whole - RETURN * spend["x2"])
    spend.to_csv(folder / "mmm_roas_data.csv", index=False)
    _markets(rng, folder, weeks)
    _geos(rng, folder, dates)
    _country(rng, folder, dates)
    spend, drawn = _weeks(rng, weeks, ["x1", "x2"], [])
    events = {f"event_{k}": (rng.random(weeks) < 0.05).astype(int) for k in (1, 2)}
    spend.assign(date_week=dates, **events, y=drawn["outcome"]).to_csv(folder / "mmm_example.csv", index=False)
    return folder


def _weeks(
    rng: np.random.Generator, count: int, channels: list[str], controls: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw one unit's spend `[weeks, channels]`, and its controls beside the outcome."""
    spend = pd.DataFrame(rng.gamma(2.0, 50.0, (count, len(channels))) * (rng.random((count, len(channels))) < 0.8))
    spend.columns = channels
    drawn = pd.DataFrame({name: rng.normal(size=count) for name in controls}, index=range(count))
    season = 100 * np.sin(2 * np.pi * np.arange(count) / 52)
    outcome = 2000 + season + 30 * drawn.sum(axis=1) + RETURN * spend.sum(axis=1) + rng.normal(0, 30, count)
    return spend, drawn.assign(outcome=outcome)


def _national(rng: np.random.Generator, folder: Path, dates: pd.DatetimeIndex) -> None:
    spend, drawn = _weeks(rng, len(dates), [*NATIONAL], [*ROLES])
    wide = pd.concat([spend, drawn.rename(columns={"outcome": "Sales"})], axis=1).assign(Period=dates)
    long = wide.melt("Period", var_name="VariableName", value_name="VariableValue")
    long.to_csv(folder / "national_mff.csv", index=False)
    truth = dict(zip(NATIONAL, (RETURN * spend.to_numpy().sum(0)).tolist(), strict=True))
    told = {"channels": [*NATIONAL], "true_contribution": truth, "notes": {"roles": ROLES}}
    files.write_json(folder / "national_truth.json", told)


def _markets(rng: np.random.Generator, folder: Path, weeks: int) -> None:
    channels = ["impressions_Channel_01_delayed_lag_1", "impressions_Channel_02_exponential_decay_0"]
    parts = []
    for code in range(4):
        spend, drawn = _weeks(rng, weeks, channels, ["control_1"])
        kept = pd.concat([spend, drawn.rename(columns={"outcome": "target_visits"})], axis=1)
        parts.append(kept.assign(dmacode=500 + code, weekid=np.arange(weeks)))
    pd.concat(parts).to_csv(folder / "MMM_Data.csv", index=False)


def _geos(rng: np.random.Generator, folder: Path, dates: pd.DatetimeIndex) -> None:
    channels = [f"Channel{k}_spend" for k in range(4)]
    controls = ["competitor_activity_score_control", "sentiment_score_control"]
    parts = []
    for geo in range(3):
        spend, drawn = _weeks(rng, len(dates), channels, controls)
        worth = 0.03 + 0.001 * rng.random(len(dates))
        own = {"conversions": drawn.pop("outcome") / worth, "revenue_per_conversion": worth}
        kept = pd.concat([spend, drawn], axis=1).assign(geo=f"Geo{geo}", time=dates, population=1e5 * (1 + geo), **own)
        parts.append(kept)
    pd.concat(parts).to_csv(folder / "geo_media.csv", index=False)


def _country(rng: np.random.Generator, folder: Path, dates: pd.DatetimeIndex) -> None:
    channels = [f"{c}_S" for c in ("tv", "ooh", "print", "facebook", "search")]
    spend, drawn = _weeks(rng, len(dates), channels, ["competitor_sales_B", "newsletter"])
    bought = {"facebook_I": 100 * spend["facebook_S"], "search_clicks_P": 2 * spend["search_S"]}
    events = np.where(rng.random(len(dates)) < 0.05, "event", "na")
    kept = pd.concat([spend, drawn.rename(columns={"outcome": "revenue"})], axis=1)
    kept.assign(DATE=dates, events=events, **bought).to_csv(folder / "dt_simulated_weekly.csv", index=False)
