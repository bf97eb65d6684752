"""Public media tables, given as a folder: contributions and ROAS where they are known, hold-out R2 where they are not.

national_mff: 104 weeks, 7 channels, 13 controls of which one is a mediator; its truth is national_truth.json.
mmm_roas_data: 131 weeks, 2 channels, and a confounder that an analyst does not see. MMM_Data: 190 markets, the last
fifth of the weeks held out. The world, the Bayesian model in NumPyro and the regressions see the same columns; nothing
is told of the truth. References are the errors of PyMC-Marketing with default priors, and published hold-out R2. Beside
what the Bayesian model says stand its sampler's R-hat and effective draws: above 1.05 its chains do not agree.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from experiments import common
from experiments import mmm_recovery as recovery
from experiments.common import Cell, Scores
from wmjax.core import files
from wmjax.core.errors import UserError
from wmjax.core.observe import Event, silent
from wmjax.core.provenance import fingerprint
from wmjax.data.panel import Panel
from wmjax.data.readers import read_panel
from wmjax.data.splits import split_times
from wmjax.evaluate import attribution, metrics
from wmjax.worlds.media.config import MediaConfig

NAME = "mmm_public"
REFERENCE = {
    Cell("national_mff", "media", "roas_mape"): 0.32,
    Cell("mmm_roas_data", "media", "roas_mape"): 0.52,
    Cell("MMM_Data", "media", "holdout_r2"): 0.903,
}
METHODS = {
    "national_mff": ("ols", "adstock_hill", "media", "media_alpha0", "numpyro_mmm"),
    "mmm_roas_data": ("ols", "adstock_hill", "media", "media_alpha0", "numpyro_mmm"),
    "MMM_Data": ("ols", "adstock_hill", "media"),
}


class Public(NamedTuple):
    """A table, and the true contribution of each channel where it is known."""

    panel: Panel
    contribution: np.ndarray | None
    cfg: MediaConfig


def _schema(time: str, unit: str | None, actions: list[str], covariates: dict[str, str], outcome: str) -> dict:
    columns = {a: {"role": "action", "kind": "currency"} for a in actions}
    columns |= {c: {"role": "covariate", "kind": "continuous", "future": f} for c, f in covariates.items()}
    columns[outcome] = {"role": "outcome", "kind": "continuous"}
    return {"unit": unit, "time": time, "columns": columns}


def _table(folder: Path, name: str) -> pd.DataFrame:
    path = folder / name
    if not path.is_file():
        raise UserError(f"{path}: no such file; --data is the folder of the public tables")
    return pd.read_csv(path)


WHOLE = MediaConfig(members=5, val=0, test=0, steps=60, epochs=2, seasons=2)


def national(folder: Path) -> Public:
    """Read the long table: one row a week and variable; the mediator is declared and so kept out."""
    truth = files.read_json(folder / "national_truth.json")
    controls = {c: "mediator" if role == "mediator" else "known" for c, role in truth["notes"]["roles"].items()}
    schema = _schema("Period", None, truth["channels"], controls, "Sales")
    schema |= {"long": {"variable": "VariableName", "value": "VariableValue"}}
    panel = read_panel(_table(folder, "national_mff.csv"), schema, min_units=1)
    return Public(panel, np.array([truth["true_contribution"][c] for c in truth["channels"]]), WHOLE)


def roas(folder: Path) -> Public:
    """Read two channels; the hidden confounder and everything made from the truth are left out."""
    table = _table(folder, "mmm_roas_data.csv")
    panel = read_panel(table, _schema("date", None, ["x1", "x2"], {"trend": "known"}, "y"), min_units=1)
    truth = np.array([(table.y - table.y01).sum(), (table.y - table.y02).sum()])
    return Public(panel, truth, dataclasses.replace(WHOLE, trend=False))


def markets(folder: Path) -> Public:
    """Read 190 markets; channels are impressions that were carried over already."""
    table = _table(folder, "MMM_Data.csv")
    names = {c: f"channel_{c.split('_')[2]}" for c in table.columns if c.startswith("impressions_")}
    controls = {c: "known" for c in table.columns if c.startswith("control_")}
    table = table.rename(columns=names).sort_values(["dmacode", "weekid"])
    schema = _schema("weekid", "dmacode", list(names.values()), controls, "target_visits")
    cfg = MediaConfig(members=3, val=0, test=0.2, steps=60, epochs=2, batch=16, size="outcome")
    return Public(read_panel(table, {**schema, "frequency": "step"}), None, cfg)


SETTINGS: dict[str, Callable[[Path], Public]] = {
    "national_mff": national,
    "mmm_roas_data": roas,
    "MMM_Data": markets,
}


def ask(public: Public) -> recovery.Asked:
    """Ask about the train weeks, all weeks where none are held out."""
    panel = public.panel
    split = split_times(panel, val=public.cfg.val, test=public.cfg.test)
    stop = int(split.train.sum())
    over = attribution.window(panel.num_times, 0, stop, carry=0, observed=panel.arrays.mask)
    cost = (panel.arrays.actions * panel.arrays.mask[..., None])[:, :stop].sum((0, 1)).astype(float)
    # There is no simulator behind these tables: nothing of `sim` and `cfg` is read.
    nothing: Any = None
    return recovery.Asked(nothing, panel, split, over, cost, nothing)


def score(setting: str, method: str, public: Public, asked: recovery.Asked, found: recovery.Found) -> Scores:
    """Compare with what is known."""
    values = {}
    total = found.roi * asked.cost
    if public.contribution is not None:
        error = np.abs(total.mean(0) / public.contribution - 1)
        values = {"roas_mape": error.mean(), "roas_mdape": np.median(error)}
        lo, hi = recovery.interval(total, None if found.drawn is None else found.drawn * asked.cost)
        if np.isfinite(lo).all():
            values["coverage90"] = np.mean((lo <= public.contribution) & (public.contribution <= hi))
    for name, part in (("insample_r2", asked.split.train), ("holdout_r2", asked.split.test)):
        rows = public.panel.arrays.mask & part
        if rows.any():
            values[name] = metrics.r2(public.panel.arrays.outcomes[..., 0][rows], found.outcome[rows])
    return {Cell(setting, method, name): float(value) for name, value in values.items()}


def piece(options: common.Options, seed: int, setting: str, method: str) -> dict[str, Any]:
    """Run one method on one table, or read what an earlier command found."""
    size = recovery.FULL if options.size == "full" else recovery.SMALLEST
    path, owner = options.out / "pieces" / f"{setting}-{seed}-{method}.json", fingerprint(size)
    if path.exists() and (found := files.read_json(path)).get("owner") == owner:
        return found
    if options.data is None:
        raise UserError("this experiment reads public tables; give their folder with --data")
    started = time.process_time()
    public = SETTINGS[setting](options.data)
    cfg = public.cfg
    if options.size == "smoke":
        cfg = dataclasses.replace(size.world, val=0, test=cfg.test, size=cfg.size)
        if public.panel.num_units > 8:
            public = public._replace(panel=public.panel.select(units=public.panel.units[:8]))
    asked = ask(public._replace(cfg=cfg))
    found, told = recovery.run_method(method, seed, asked, recovery.NOTHING, size._replace(world=cfg))
    scores = score(setting, method, public, asked, found)
    spent = time.process_time() - started
    scores[Cell(setting, method, "cpu_minutes")] = spent / 60
    rows = [[*cell, value] for cell, value in scores.items()]
    value = {"owner": owner, "rows": rows, "told": told, "roi": found.roi.mean(0).tolist(), "cpu_seconds": spent}
    files.write_json(path, value)
    return files.read_json(path)


def work(options: common.Options, observer: Any = silent) -> Path:
    """Run every piece that is not there yet, then write the table."""
    seeds = list(range(options.seeds or (3 if options.size == "full" else 1)))
    clock = common.Clock(options.out)
    wanted = [(seed, s, m) for s, names in METHODS.items() for m in names for seed in seeds]
    # A regression has no seed, and the sampler is dear: one run tells it.
    wanted = [w for w in wanted if w[0] == 0 or w[2].startswith("media")]
    per_seed: list[Scores] = [{} for _ in seeds]
    told: dict[str, Any] = {}
    for at, (seed, setting, method) in enumerate(wanted):
        observer(Event("pieces", at, len(wanted), unit="fit"))
        got = piece(options, seed, setting, method)
        per_seed[seed] |= {Cell(*row[:3]): row[3] for row in got["rows"]}
        if got["told"]:
            told[f"{setting}-{seed}-{method}"] = got["told"]
            per_seed[seed] |= {Cell(setting, method, f"sampler_{q}"): got["told"][q] for q in ("rhat", "ess")}
        clock.read()
    observer(Event("pieces", len(wanted), len(wanted), unit="fit"))
    rows = common.summarise(per_seed, reference=REFERENCE)
    facts = {"sampler": told}
    return common.write_result(options, NAME, rows, seeds=seeds, seconds=clock.read(), facts=facts)


if __name__ == "__main__":
    sys.exit(common.run(f"experiments.{NAME}", work))
