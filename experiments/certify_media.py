"""Do a media world's answers follow what is claimed of the channels, where one channel is claimed to do nothing?

A world of one outcome claims that every channel reaches it, so nothing could leave the claims: a placebo makes it
testable. `confounding=2`: simulated geos, and a channel more whose spend follows demand like the others' and does
nothing. `funnel` (`--data`, geo_full_funnel_data.csv): brand search lies between awareness video and conversions and is
declared a mediator; the placebo is another geo's display spend of the same weeks. `funnel_search_held`: the same with
search declared a covariate that is known ahead, a bad control. Every claim but the placebo's is made; the verdict is
`wmjax certify`'s. `placebo_influence` is over the mean of the others; `placebo_roi_covers_0` whether the placebo's
interval reaches below a twentieth of the mean ROI (a response curve cannot be negative) and up to nothing.
`placebo_doubted` and `others_doubted` say which channels `wmjax fit media` itself warns of, because a copy of their
spend is given as much as their interval's lower end (`wmjax.worlds.media.placebo`; `copy_share`, of the placebo's
return); of the others, `paused_doubted` is of those whose spend pauses in some rows, `always_on_doubted` of the rest.
`placebo_times_known` and `others_times_known` (the least of the others) are how many times as strong as the strongest
known columns a hidden cause must be to make all of a return (`wmjax.worlds.media.hidden`); `.._explained_away` the
shares that a weaker one could, which is warned of too.
`ols` is a linear regression with the same covariates, asked for the same: returns in the train weeks.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from experiments import common, media_methods, mmm_public
from experiments import mmm_recovery as recovery
from experiments.common import Cell, Check, Scores
from wmjax.core import files
from wmjax.core.errors import UserError
from wmjax.core.observe import Event, silent
from wmjax.data.panel import Panel
from wmjax.data.readers import read_panel
from wmjax.data.splits import split_times
from wmjax.simulate import media as simulated
from wmjax.worlds import certifying, media
from wmjax.worlds.media import placebo as placebos
from wmjax.worlds.media.config import SMOKE, MediaConfig

NAME = "certify_media"
PLACEBO = "placebo"
CFG = MediaConfig(members=4, steps=60, epochs=2, window=52)
SEARCH = ("BrandedGQV_control", "GenericGQV_control")


def simulator(seed: int, size: str) -> Panel:
    """Draw geos, and a channel that follows demand and does nothing."""
    full = recovery.FULL if size == "full" else recovery.SMALLEST
    cfg = dataclasses.replace(full.sim, confounding=2.0)
    sim = simulated.simulate(seed, cfg)
    panel = simulated.panel(sim)
    luck = np.random.default_rng(seed + 1000).normal(size=sim.demand.shape)
    table = panel.to_frame()
    table[PLACEBO] = (np.exp(cfg.confounding * sim.demand / 4 + 0.35 * luck) * 0.45).reshape(-1)
    columns = {c.name: {"role": c.role, "kind": c.kind, "future": c.future} for c in panel.schema.columns}
    columns = {n: {k: v for k, v in c.items() if v is not None} for n, c in columns.items()}
    columns[PLACEBO] = {"role": "action", "kind": "currency"}
    schema = {"unit": panel.schema.unit, "time": panel.schema.time, "frequency": "weekly", "columns": columns}
    return read_panel(table, schema, min_units=1)


def funnel(folder: Path, seed: int, size: str, search: str) -> Panel:
    """Read the funnel's table, and give every geo the display spend of the next one as a placebo."""
    path = folder / "geo_full_funnel_data.csv"
    if not path.is_file():
        raise UserError(f"{path}: no such file; --data is the folder of the public tables")
    table: Any = pd.read_csv(path)
    geos = sorted(table["geo"].unique())[: 20 if size == "full" else 3]
    table = table[table["geo"].isin(geos)].sort_values(["geo", "time"]).reset_index(drop=True)
    order = np.random.default_rng(seed).permutation(geos)
    other = dict(zip(order, np.roll(order, 1), strict=True))
    spends = [c for c in table.columns if c.endswith("_spend")]
    keys = ["geo", "time"]
    display = table[[*keys, "PerformanceDisplay_spend"]].rename(columns={"PerformanceDisplay_spend": PLACEBO})
    moved = pd.DataFrame({"geo": list(other), "from": list(other.values())})
    display = moved.merge(display, left_on="from", right_on="geo", suffixes=("", "_from"))[[*keys, PLACEBO]]
    table = table.merge(display, on=keys)
    columns: dict[str, Any] = {c: {"role": "action", "kind": "currency"} for c in (*spends, PLACEBO)}
    columns |= {c: {"role": "covariate", "kind": "continuous", "future": search} for c in SEARCH}
    columns |= {"conversions": {"role": "outcome", "kind": "continuous"}}
    schema = {"unit": "geo", "time": "time", "frequency": "weekly", "columns": columns}
    chosen: Any = table[[*keys, *columns]]
    return read_panel(chosen, schema, min_units=1)


def panel_of(setting: str, seed: int, options: common.Options) -> Panel:
    """Lay a setting's table out."""
    if setting == "confounding=2":
        return simulator(seed, options.size)
    assert options.data is not None
    return funnel(options.data, seed, options.size, "mediator" if setting == "funnel" else "known")


def config_of(setting: str, options: common.Options) -> MediaConfig:
    """Say how a setting's world is shaped."""
    cfg = CFG if options.size == "full" else SMOKE
    return cfg if setting == "confounding=2" else dataclasses.replace(cfg, size="outcome")


def placebo(roi: np.ndarray, low: np.ndarray, high: np.ndarray, at: int) -> dict[str, float]:
    """Compare the placebo's return with the mean of the others, and its interval with nothing."""
    mean = np.delete(roi, at).mean()
    return {"placebo_roi": roi[at] / mean, "placebo_roi_covers_0": float(low[at] < 0.05 * mean and high[at] >= 0)}


def by_regression(setting: str, seed: int, options: common.Options) -> Scores:
    """Ask a linear regression with the same covariates for the placebo's return."""
    panel, cfg = panel_of(setting, seed, options), config_of(setting, options)
    asked = mmm_public.ask(mmm_public.Public(panel, None, cfg))
    found, _ = media_methods.run_method("ols", seed, asked, media_methods.NOTHING, cfg, recovery.FULL.sampler)
    assert found is not None
    values = placebo(found.roi.mean(0), *media_methods.interval(found.roi), panel.action_index(PLACEBO))
    return {Cell(setting, "ols", name): float(value) for name, value in values.items()}


def scores_of(setting: str, seed: int, options: common.Options) -> Scores:
    """Fit, certify and ask for returns."""
    panel, cfg = panel_of(setting, seed, options), config_of(setting, options)
    world = media.fit(jax.random.key(seed), panel, cfg, seed=seed)
    outcome = panel.outcome_names[0]
    claims = {channel: [outcome] for channel in panel.action_names if channel != PLACEBO}
    found = certifying.certify(world, panel, claims=claims)
    at = panel.action_index(PLACEBO)
    own = found.influence[:, 0]
    others = np.delete(own, at)
    train = slice(0, int(split_times(panel, val=cfg.val, test=cfg.test).train.sum()))
    answered = world.attribute(panel, times=train, carry=0, grid=(0.0, 1.0)).sel(unit="all")
    roi, low, high = (answered[name].to_numpy() for name in ("roi", "roi_lo", "roi_hi"))
    # What `wmjax fit media` does by itself: which channels' returns reach down to what a copy of theirs is given?
    checked = placebos.check(jax.random.key(seed), world, panel)
    doubted, told = set(checked.doubts().like_placebos), placebos.table(checked).set_index("channel")
    pauses = (panel.arrays.actions == 0).any((0, 1))
    real, told_of = np.arange(len(pauses)) != at, np.array([name in doubted for name in panel.action_names])
    groups = {"others": real, "paused": real & pauses, "always_on": real & ~pauses}
    told_times = [world.facts["hidden"].get(name, {}).get("times_known") for name in panel.action_names]
    times = np.array([np.inf if t is None else t for t in told_times])
    values = {
        "placebo_times_known": times[at],
        "others_times_known": times[real].min(),
        "placebo_explained_away": float(times[at] < 1),
        "others_explained_away": float((times[real] < 1).mean()),
        "copy_share": float(told.loc[PLACEBO, "placebo"] / told.loc[PLACEBO, "roi"]),
        "placebo_doubted": float(PLACEBO in doubted),
        **{f"{name}_doubted": told_of[own].mean() for name, own in groups.items() if own.any()},
        "along_claims": found.along,
        "skill": found.skill,
        "skill_kept": found.kept,
        "bypass": float(found.bypass),
        "placebo_influence": own[at] / others.mean(),
        **placebo(roi, low, high, at),
        **{f"influence.{name}": own[i] for i, name in enumerate(panel.action_names) if setting != "confounding=2"},
    }
    return {Cell(setting, "media", name): float(value) for name, value in values.items()}


def piece(options: common.Options, seed: int, setting: str) -> Scores:
    """Work one fit out, or read what an earlier command found."""
    path = options.out / "pieces" / f"certify-{setting}-{seed}.json"
    known = {row[2] for row in files.read_json(path)} if path.exists() else set()
    if "others_explained_away" not in known:
        rows = [[*cell, value] for cell, value in scores_of(setting, seed, options).items()]
        files.write_json(path, [[*r[:3], files.finite(r[3])] for r in rows])
    return {Cell(*r[:3]): np.nan if r[3] is None else r[3] for r in files.read_json(path)}


def work(options: common.Options, observer: Any = silent) -> Path:
    """Run every fit that is not there yet, then write the table; without `--data` the simulator alone."""
    clock = common.Clock(options.out)
    seeds = list(range(options.seeds or (2 if options.size == "full" else 1)))
    settings = ["confounding=2", *(["funnel", "funnel_search_held"] if options.data is not None else [])]
    per_seed: list[Scores] = [{} for _ in seeds]
    for at, (setting, seed) in enumerate((s, x) for s in settings for x in seeds):
        observer(Event("fits", at, len(settings) * len(seeds), unit="fit"))
        per_seed[seed] |= piece(options, seed, setting) | by_regression(setting, seed, options)
        clock.read()
    rows = common.summarise(per_seed)
    checks = [
        Check(f"no bypass is found, {s}", common.value_of(rows, Cell(s, "media", "bypass")), 0.0, 0.0) for s in settings
    ]
    return common.write_result(options, NAME, rows, seeds=seeds, seconds=clock.read(), checks=checks)


if __name__ == "__main__":
    sys.exit(common.run(f"experiments.{NAME}", work))
