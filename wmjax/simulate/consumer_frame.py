"""The consumer panel as the 72 visible bits of the published model and as its full table, straight from the panel.

A second, independent definition beside the general frame of `wmjax.data`: slower to extend, easy to check by eye.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from wmjax.simulate.consumer import ConsumerSim, ConsumerSimConfig

WINDOWS = (7, 14, 30)
THRESHOLDS = (5, 10, 30)
LAGS = (1, 2, 3, 4)
ACTIONS = ("sale1", "sale2", "campaign", "coupon", "push")
OUTCOMES = ("visit", "purchase")
LAGGED = ("visit", "purchase", "coupon", "campaign", "push")


def _static_bits(sim: ConsumerSim, cfg: ConsumerSimConfig) -> dict[str, np.ndarray]:
    """Store, loyalty, age decade and income quintile, each `bool [consumers, 1]`."""
    statics = sim.statics
    quintile = np.digitize(statics.income, np.percentile(statics.income, [20, 40, 60, 80]))
    bits = {f"store_{s}": statics.store == s for s in range(len(cfg.store_probs))}
    bits["loyalty"] = statics.loyalty == 1
    bits |= {f"age_{a}s": statics.age // 10 * 10 == a for a in (20, 30, 40, 50, 60)}
    bits |= {f"income_q{q + 1}": quintile == q for q in range(5)}
    return {name: bit[:, None] for name, bit in bits.items()}


def _calendar_bits(cfg: ConsumerSimConfig) -> dict[str, np.ndarray]:
    """Month and day of week, each `bool [1, days]`."""
    bits = {f"month_{m}": cfg.month == m for m in range(1, 13)} | {f"dow_{d}": cfg.day_of_week == d for d in range(7)}
    return {name: bit[None, :] for name, bit in bits.items()}


def _history_bits(sim: ConsumerSim) -> dict[str, np.ndarray]:
    """Recency, cumulative counts and lags, all of days before the present one, each `bool [consumers, days]`."""
    verbs = {"visited": "visit", "purchased": "purchase"}
    bits = {
        f"{verb}_within_{w}d": getattr(sim.outcomes, f"since_{name}") <= w
        for verb, name in verbs.items()
        for w in WINDOWS
    }
    for name in OUTCOMES:
        events = getattr(sim.outcomes, name).astype(np.int64)
        before = np.cumsum(events, axis=1) - events
        bits |= {f"cum_{name}s_{n}plus": before >= n for n in THRESHOLDS}
    for lag in LAGS:
        for name in LAGGED:
            past = getattr(sim.outcomes if name in OUTCOMES else sim.actions, name)
            bits[f"{name}_lag{lag}"] = np.pad(past, ((0, 0), (lag, 0)))[:, : past.shape[1]] == 1
    return bits


def frame_bits(sim: ConsumerSim, *, cfg: ConsumerSimConfig) -> dict[str, np.ndarray]:
    """Give the visible bits by name, in index order; each broadcasts to `[consumers, days]`.

    Ten stores, loyalty, five age decades, five income quintiles (of the panel's consumers), twelve months, seven days
    of the week (Monday first), event within 7, 14 or 30 days, 5, 10 or 30 events and more so far, and lags 1 to 4 of
    visit, purchase, coupon, campaign and push (0 before the first day): 72 bits under the published configuration.
    """
    return _static_bits(sim, cfg) | _calendar_bits(cfg) | _history_bits(sim)


def frame72(sim: ConsumerSim, *, cfg: ConsumerSimConfig) -> np.ndarray:
    """Stack the visible bits: `uint8 [consumers, days, 72]`."""
    bits = frame_bits(sim, cfg=cfg)
    out = np.empty((cfg.num_consumers, cfg.num_days, len(bits)), np.uint8)
    for at, bit in enumerate(bits.values()):
        out[:, :, at] = bit
    return out


def frame_table(sim: ConsumerSim, *, cfg: ConsumerSimConfig) -> pd.DataFrame:
    """Build the full published table, one row a consumer and day, consumers outermost, columns in published order."""
    shape = (cfg.num_consumers, cfg.num_days)
    columns: dict[str, np.ndarray] = {
        "consumer_id": np.arange(cfg.num_consumers)[:, None],
        "day": np.arange(cfg.num_days)[None, :],
        "date": cfg.dates.astype("datetime64[ns]")[None, :],
    }
    columns |= _static_bits(sim, cfg)
    columns |= {f"true_{name}": trait[:, None] for name, trait in sim.traits._asdict().items()}
    columns |= _calendar_bits(cfg)
    columns |= {name: getattr(sim.actions, name) for name in ACTIONS}
    columns |= {name: getattr(sim.outcomes, name) for name in OUTCOMES}
    columns |= _history_bits(sim)
    flat = {name: np.broadcast_to(column, shape).ravel() for name, column in columns.items()}
    return pd.DataFrame({name: c.view(np.uint8) if c.dtype == bool else c for name, c in flat.items()})


def content_digest(table: pd.DataFrame) -> str:
    """Hash what a table holds, leaving out the real-valued `true_*` columns, whose last bit depends on the platform.

    SHA-256 over, for each column in order, its name and its values as float64 bytes (a date as int64 days since 1970).
    """
    digest = hashlib.sha256()
    for name in table.columns:
        if name.startswith("true_"):
            continue
        values = table[name].to_numpy()
        as_days = np.issubdtype(values.dtype, np.datetime64)
        digest.update(name.encode())
        digest.update((values.astype("datetime64[D]").astype(np.int64) if as_days else values.astype(float)).tobytes())
    return digest.hexdigest()
