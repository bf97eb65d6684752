"""Placebos: what a media world gives to copies of its channels that do nothing.

A copy's spend is the part of the channel's that covariates and the last period's outcome tell, and the rest of it moved
in time within the unit, so that it follows demand as far as the table knows demand, and what is its own in it meets
other weeks. Then its values are put in the place of those of the channel's own that have the same rank: as many weeks
without it, as large peaks. It did nothing in any week, and yet a world gives it something: what model, prior and demand
that the controls leave make of spend like this. A return that is no more than its copy's is no evidence.

The idea is that of knockoffs (Barber and Candes 2015), without their guarantee: demand that the table does not know
stays with the channel and is not in the copy, so a copy that is given little proves nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Key

from wmjax.core.keys import key_for
from wmjax.core.observe import Observer, silent
from wmjax.data.panel import Panel
from wmjax.data.splits import split_times
from wmjax.worlds.media import fitting, prepare
from wmjax.worlds.media.config import MediaConfig
from wmjax.worlds.media.world import ALL, MediaWorld

MARK = " (placebo)"


def copies(key: Key[Array, ""], panel: Panel, cfg: MediaConfig) -> Float[np.ndarray, "unit time channel"]:
    """Make a copy of every channel's spend, of the whole panel; no spend where a unit was not observed."""
    split = split_times(panel, val=cfg.val, test=cfg.test)
    scales = prepare.fit_scales(panel, split.train, cfg)
    series = prepare.series(panel, scales, cfg)
    mask = np.asarray(panel.arrays.mask)
    before = np.concatenate([np.zeros((len(mask), 1)), np.asarray(series.outcome)[:, :-1]], axis=1)
    told = np.concatenate([np.asarray(series.covariates), before[..., None]], axis=-1).astype(np.float64)
    spend = panel.arrays.actions.astype(np.float64)
    found, rng = np.zeros_like(spend), np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    x, y = (np.concatenate([v[u, mask[u]] - v[u, mask[u]].mean(0) for u in range(len(mask))]) for v in (told, spend))
    slopes = np.linalg.lstsq(x, y, rcond=None)[0]
    for unit, seen in enumerate(mask):
        own, periods = spend[unit, seen], int(seen.sum())
        explained = (told[unit, seen] - told[unit, seen].mean(0)) @ slopes
        # At least a quarter of the periods away, so that no channel meets its own neighbours.
        by = int(rng.integers(periods // 4, periods - periods // 4 + 1))
        moved = explained + np.roll(own - explained, by, axis=0)
        ranks = moved.argsort(0, kind="stable").argsort(0, kind="stable")
        found[unit, seen] = np.take_along_axis(np.sort(own, axis=0), ranks, axis=0)
    return found.astype(np.float32)


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
    """Fit a smaller ensemble to channels and copies, and keep in the world's facts what the copies were given.

    Args:
        key: of the copies and of the fit.
        world: fitted on this panel; its configuration, with two members.
        panel: that it was fitted on.
        alpha: of the returns' intervals that are kept.
        folder: where the fit's checkpoints are kept; a killed one goes on from them.
        observer: told of progress.

    Returns:
        The world with `facts["placebo"]`: by channel `roi`, `lo` and `hi` of the train periods, and `placebo`, what
        its copy was given in the other fit; `warnings` tell of channels whose interval reaches down to their copy's.
    """
    cfg = dataclasses.replace(
        world.cfg, members=2, negative=(*world.cfg.negative, *(n + MARK for n in world.cfg.negative))
    )
    both = beside(panel, copies(key_for(key, "copies"), panel, cfg))
    other = fitting.fit(key_for(key, "placebos"), both, cfg, folder=folder, observer=observer, stage="placebos")
    periods = slice(0, int(split_times(panel, val=cfg.val, test=cfg.test).train.sum()))
    kept: dict[str, Any] = {}
    own, beside_it = (
        w.attribute(p, times=periods, carry=0, grid=(0.0, 1.0), alpha=alpha).sel(unit=ALL)
        for w, p in ((world, panel), (other, both))
    )
    for channel in world.channels:
        mine, copy = own.sel(channel=channel), beside_it.sel(channel=channel + MARK)
        numbers = (mine.roi, mine.roi_lo, mine.roi_hi, copy.roi)
        kept[channel] = {n: float(v) for n, v in zip(("roi", "lo", "hi", "placebo"), numbers, strict=True)}
    return replace(world, facts={**world.facts, "placebo": kept})


def table(world: MediaWorld) -> pd.DataFrame:
    """Tabulate what `check` found: channel, roi, lo, hi, placebo, and its share of the return."""
    found = pd.DataFrame.from_dict(world.facts.get("placebo", {}), orient="index").rename_axis("channel").reset_index()
    return found.assign(share=found["placebo"] / found["roi"]) if len(found) else found
