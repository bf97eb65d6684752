"""Placebos: what a media world gives to copies of its channels that do nothing.

A copy's spend is the part of the channel's that covariates and the last period's outcome tell, and the rest of it moved
in time, for all units by as much: it follows demand as far as the table knows demand, it is as common to the units as
the channel is, and what is its own in it meets other weeks. Then its values are put in the place of those of the
channel's own that have the same rank: as many weeks without it, as large peaks. It did nothing in any week, and yet a
world gives it something: what model, prior and demand that the controls leave make of spend like this. A return that is
no more than its copy's is no evidence.

The idea is that of knockoffs (Barber and Candes 2015), without their guarantee: demand that the table does not know
stays with the channel and is not in the copy, so a copy that is given little proves nothing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Key

from wmjax.core.errors import UserError
from wmjax.core.files import finite
from wmjax.core.keys import key_for
from wmjax.core.observe import Observer, silent
from wmjax.data.panel import Panel
from wmjax.data.splits import split_times
from wmjax.worlds.contract import check_key
from wmjax.worlds.media import fitting, prepare
from wmjax.worlds.media.config import MediaConfig
from wmjax.worlds.media.world import ALL, MediaWorld

MARK = " (placebo)"
MEMBERS = 3


def copies(key: Key[Array, ""], panel: Panel, cfg: MediaConfig) -> Float[np.ndarray, "unit time channel"]:
    """Make a copy of every channel's spend in the train periods; in later ones, which nobody asks of, it is its own.

    Args:
        key: of the shift, at least a quarter of the periods long either way.
        panel: whose later periods have no say.
        cfg: of the world.
    """
    train = split_times(panel, val=cfg.val, test=cfg.test).train
    scales = prepare.fit_scales(panel, train, cfg)
    series = prepare.series(panel, scales, cfg)
    rows = np.asarray(series.observed)[:, train]
    before = np.concatenate([np.zeros((len(rows), 1)), np.asarray(series.outcome)[:, :-1]], axis=1)
    told = np.concatenate([prepare.as_measured(series, scales), before[..., None]], axis=-1)[:, train]
    # Per unit of size, so that units of any size say alike what a channel follows.
    spend = np.asarray(series.spend, np.float64)[:, train]
    units = np.flatnonzero(rows.any(1))

    def within(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values[u, rows[u]] - values[u, rows[u]].mean(0) for u in units])

    slopes = np.linalg.lstsq(within(told), within(spend), rcond=None)[0]
    periods = rows.shape[1]
    least = max(1, periods // 4)
    by = int(jax.random.randint(key, (), least, periods - least + 1))
    found = panel.arrays.actions.copy()
    for unit in units:
        at = np.flatnonzero(rows[unit])
        explained = (told[unit, at] - told[unit, at].mean(0)) @ slopes
        # What stood `by` periods before, around the end; where the unit was not there, at its next period.
        there = np.searchsorted(at, (at - by) % periods) % len(at)
        moved = explained + (spend[unit, at] - explained)[there]
        ranks = moved.argsort(0, kind="stable").argsort(0, kind="stable")
        own = np.sort(found[unit, np.flatnonzero(train)[at]], axis=0)
        found[unit, np.flatnonzero(train)[at]] = np.take_along_axis(own, ranks, axis=0)
    return found


def beside(panel: Panel, spend: Float[np.ndarray, "unit time channel"]) -> Panel:
    """Put copies beside the channels, as channels more."""
    named = [replace(panel.schema.column(n), name=n + MARK, source=None, equals=None) for n in panel.action_names]
    schema = replace(panel.schema, columns=(*panel.schema.columns, *named))
    arrays = panel.arrays._replace(actions=np.concatenate([panel.arrays.actions, spend], axis=-1))
    return replace(panel, schema=schema, arrays=arrays)


def check(
    key: Key[Array, ""],
    world: MediaWorld,
    panel: Panel,
    *,
    alpha: float = 0.1,
    folder: str | Path | None = None,
    observer: Observer = silent,
) -> MediaWorld:
    """Fit a smaller ensemble to channels and copies, and keep in the world's facts what either was given there.

    Twice as many channels share the default prior there: each is believed to do half as much as in the world.

    Args:
        key: of the copies and of the fit.
        world: fitted on this panel, of two members at least; its configuration, with three members at most. What is
            believed of a channel's return is not believed of its copy's.
        panel: that it was fitted on.
        alpha: of the returns' intervals.
        folder: where the fit's checkpoints are kept; a killed one goes on from them.
        observer: told of progress.

    Returns:
        The world with `facts["placebo"]`: by channel `roi`, `lo`, `hi` and `placebo`, its copy's return, of the train
        periods in that fit, and `alpha`; `warnings` tell of channels whose interval reaches down to their copy's.

    Raises:
        UserError: a world of one member, which has no intervals; and as `media.fit` does.
        DivergedError: where every member meets values that are not finite.
    """
    check_key(key)
    if world.members < 2:
        raise UserError("a world of one member has no intervals to compare with placebos; fit with two members or more")
    own = {name: getattr(world.cfg, name) for name in ("negative", "unknown")}
    marked = {name: (*names, *(channel + MARK for channel in names)) for name, names in own.items()}
    cfg = replace(world.cfg, members=min(world.members, MEMBERS), **marked)
    both = beside(panel, copies(key_for(key, "copies"), panel, cfg))
    creative = np.concatenate([world.creative, world.creative]) if world.creative.shape[-1] else None
    other = fitting.fit(
        key_for(key, "fit"), both, cfg, creative=creative, folder=folder, observer=observer, stage="placebos"
    )
    periods = slice(0, int(split_times(panel, val=cfg.val, test=cfg.test).train.sum()))
    found = other.attribute(both, times=periods, carry=0, grid=(0.0, 1.0), alpha=alpha).sel(unit=ALL)
    kept: dict[str, Any] = {}
    for channel in world.channels:
        mine, copy = found.sel(channel=channel), found.sel(channel=channel + MARK)
        numbers = {"roi": mine.roi, "lo": mine.roi_lo, "hi": mine.roi_hi, "placebo": copy.roi}
        kept[channel] = {name: finite(float(value)) for name, value in numbers.items()} | {"alpha": alpha}
    return replace(world, facts={**world.facts, "placebo": kept})


def table(world: MediaWorld) -> pd.DataFrame:
    """Tabulate what `check` found: channel, roi, lo, hi, placebo."""
    found = pd.DataFrame.from_dict(world.facts.get("placebo", {}), orient="index").rename_axis("channel").reset_index()
    return found.drop(columns="alpha", errors="ignore")
