"""Public media tables, given as a folder: contributions and ROAS where they are known, hold-out R2 where they are not.

national_mff: 104 weeks, 7 channels, 13 controls of which one is a mediator; its truth is national_truth.json.
national_confounders: the same with confounders and precision controls alone, as an analyst who knew which they are.
mmm_roas_data: 131 weeks, 2 channels, and a confounder that an analyst does not see. The world, the Bayesian model in
NumPyro and the regressions see the same columns; nothing is told of the truth. `roas_mape` and `contribution_mape` are
one number, as spend is known; `contribution_error.CHANNEL` is a channel's own, with its sign. Beside what the Bayesian
model says stand its sampler's R-hat and effective draws; above 1.05 its fit is refused, and has no row but those.
`media_logistic` is the world with the saturation that PyMC-Marketing's models have by default, which tells how much
hangs on a form that these weeks do not show.

MMM_Data: 190 markets, the last fifth of the weeks held out. R2 of `media` is one step ahead: it sees the outcome of the
week before, held-out weeks included, which `ols` and `adstock_hill` do not; `ols_lagged` and `adstock_hill_lagged` are
told it as a column. `media_rolled` is the world rolled out from the last week that was learnt from, its own predictions
in the place of outcomes; `media_sized` counts spend and outcome per unit of each market's size, not in plain amounts.
How far ahead the published figures look is not told.

geo_media, dt_simulated_weekly, mmm_example: no truth. `media` is what `wmjax fit media` and `wmjax report` do with the
table, a run's folder with its page and files, kept in the result's folder under `runs`; hold-out is the last tenth.

Methods `published_..` are figures of others: errors of PyMC-Marketing and Meridian with default priors (on national_mff
with all 13 controls), hold-out R2 of two models of the 190 markets. Where `experiments/peers_mmm.py` has left results
of these two in the result's folder, in `peers`, their rows join the table.

The smoke size takes one table of each kind; without `--data` it draws tables of the same columns at random.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments import common, media_methods, public_tables
from experiments import mmm_recovery as recovery
from experiments.common import Cell, Check, Row, Scores
from experiments.media_methods import SAMPLED, Asked, Found
from wmjax import cli
from wmjax.baselines import media as regressions
from wmjax.baselines.media import MediaTable
from wmjax.core import files
from wmjax.core.errors import UserError
from wmjax.core.observe import Event, silent
from wmjax.core.provenance import fingerprint
from wmjax.data.panel import Panel
from wmjax.data.readers import read_panel
from wmjax.data.splits import split_times
from wmjax.evaluate import attribution, metrics
from wmjax.report import media_commands
from wmjax.report.run import Run
from wmjax.worlds import media
from wmjax.worlds.media import programs
from wmjax.worlds.media.config import MediaConfig
from wmjax.worlds.media.learning import MODEL
from wmjax.worlds.media.world import MediaWorld

NAME = "mmm_public"
PUBLISHED = {
    "national_mff": ("roas_mape", {"pymc_marketing": 0.32, "meridian": 1.04}),
    "national_confounders": ("roas_mape", {"pymc_marketing": 0.20, "meridian": 0.91}),
    "mmm_roas_data": ("roas_mape", {"pymc_marketing": 0.52, "meridian": 1.01}),
    "MMM_Data": ("holdout_r2", {"pymc_panel": 0.903, "deepcausalmmm": 0.843}),
}
"""What others reach: of a setting one quantity, by method."""
REFERENCE = {Cell(s, "media", q): next(iter(found.values())) for s, (q, found) in PUBLISHED.items()}
KNOWN = ("ols", "adstock_hill", "media", "media_alpha0", "media_logistic", "numpyro_mmm")
PLAIN = ("ols", "adstock_hill", "media")
METHODS = {
    "national_mff": KNOWN,
    "national_confounders": KNOWN,
    "mmm_roas_data": KNOWN,
    "MMM_Data": (*PLAIN, "ols_lagged", "adstock_hill_lagged", "media_rolled", "media_sized"),
    "geo_media": PLAIN,
    "dt_simulated_weekly": PLAIN,
    "mmm_example": PLAIN,
}
REPORTED = ("geo_media", "dt_simulated_weekly", "mmm_example")
"""Tables that the command line is run on."""
SMOKE = ("national_mff", "MMM_Data", "mmm_example")
"""Tables of the smoke size: one of each kind, as most of a small fit is compiling it."""
LAG = "_lagged"


@dataclass(frozen=True, kw_only=True)
class PublicOptions(common.Options):
    """The command line.

    Attributes:
        only: tables that are read, whose rows are put into the result that the folder holds; all other rows stay.
    """

    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := set(self.only) - set(METHODS):
            raise ValueError(f"only is {sorted(unknown)}, must be of {tuple(METHODS)}")


class Public(NamedTuple):
    """A table, and the true contribution of each channel where it is known."""

    panel: Panel
    contribution: np.ndarray | None
    cfg: MediaConfig


def _schema(
    time: str, unit: str | None, actions: list[str], covariates: dict[str, str], outcome: str
) -> dict[str, Any]:
    columns = {a: {"role": "action", "kind": "currency"} for a in actions}
    columns |= {c: {"role": "covariate", "kind": "continuous", "future": f} for c, f in covariates.items()}
    columns[outcome] = {"role": "outcome", "kind": "continuous"}
    return {"unit": unit, "time": time, "columns": columns}


def _table(folder: Path, name: str) -> pd.DataFrame:
    path = folder / name
    if not path.is_file():
        raise UserError(f"{path}: no such file; --data is the folder of the public tables")
    return pd.read_csv(path)


WHOLE = MediaConfig(val=0, test=0, steps=60, epochs=2, seasons=2)


def national(folder: Path, keep: tuple[str, ...] = ()) -> Public:
    """Read the long table: one row a week and variable; the mediator is declared and so kept out.

    Args:
        folder: of the public tables.
        keep: roles of the controls that are kept; all if not given.
    """
    truth = files.read_json(folder / "national_truth.json")
    controls = {c: "mediator" if role == "mediator" else "known" for c, role in truth["notes"]["roles"].items()}
    if keep:
        controls = {c: future for c, future in controls.items() if truth["notes"]["roles"][c] in keep}
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
    # In plain amounts: the weeks before the held-out ones, watched in a fit of their own, were forecast better so.
    cfg = MediaConfig(members=3, val=0, test=0.2, steps=60, epochs=2, batch=16)
    return Public(read_panel(table, {**schema, "frequency": "step"}), None, cfg)


GEO = {
    "unit": "geo",
    "time": "time",
    "columns": {
        **{f"Channel{k}_spend": {"role": "action", "kind": "currency"} for k in range(4)},
        "competitor_activity_score_control": {"role": "covariate", "kind": "continuous"},
        "sentiment_score_control": {"role": "covariate", "kind": "continuous"},
        "population": {"role": "static", "kind": "continuous"},
        "revenue": {"role": "outcome", "kind": "continuous"},
    },
}
WEEKLY = {
    "unit": None,
    "time": "DATE",
    "columns": {
        **{f"{c}_S": {"role": "action", "kind": "currency"} for c in ("tv", "ooh", "print", "facebook", "search")},
        # What spend bought: held constant, it would take spend's effect away.
        "facebook_I": {"role": "covariate", "kind": "continuous", "future": "mediator"},
        "search_clicks_P": {"role": "covariate", "kind": "continuous", "future": "mediator"},
        "competitor_sales_B": {"role": "covariate", "kind": "continuous"},
        "newsletter": {"role": "covariate", "kind": "continuous", "future": "known"},
        "events": {"role": "covariate", "kind": "categorical", "future": "known"},
        "revenue": {"role": "outcome", "kind": "continuous"},
    },
}
EXAMPLE = {
    "unit": None,
    "time": "date_week",
    "columns": {
        **{c: {"role": "action", "kind": "currency"} for c in ("x1", "x2")},
        **{c: {"role": "covariate", "kind": "binary", "future": "known"} for c in ("event_1", "event_2")},
        "y": {"role": "outcome", "kind": "continuous"},
    },
}


def geos(folder: Path) -> Public:
    """Read twenty geos; the outcome is revenue, conversions times what each brought."""
    table = _table(folder, "geo_media.csv")
    table = table.assign(revenue=table["conversions"] * table["revenue_per_conversion"])
    return Public(read_panel(table, GEO, min_units=1), None, MediaConfig(size="outcome"))


def weekly(folder: Path) -> Public:
    """Read one country's weeks; what spend bought is declared a mediator."""
    # Most weeks have no event, which the table calls "na".
    path = folder / "dt_simulated_weekly.csv"
    table = _table(folder, path.name).assign(events=lambda t: t["events"].fillna("none"))
    return Public(read_panel(table, WEEKLY, min_units=1), None, MediaConfig())


def example(folder: Path) -> Public:
    """Read the quickstart's two channels; trend and seasons are the world's own."""
    return Public(read_panel(_table(folder, "mmm_example.csv"), EXAMPLE, min_units=1), None, MediaConfig())


SETTINGS: dict[str, Callable[[Path], Public]] = {
    "national_mff": national,
    "national_confounders": lambda folder: national(folder, ("confounder", "precision")),
    "mmm_roas_data": roas,
    "MMM_Data": markets,
    "geo_media": geos,
    "dt_simulated_weekly": weekly,
    "mmm_example": example,
}


def ask(public: Public) -> Asked:
    """Ask about the train weeks, all weeks where none are held out."""
    panel = public.panel
    split = split_times(panel, val=public.cfg.val, test=public.cfg.test)
    stop = int(split.train.sum())
    over = attribution.window(panel.num_times, 0, stop, carry=0, observed=panel.arrays.mask)
    cost = (panel.arrays.actions * panel.arrays.mask[..., None])[:, :stop].sum((0, 1)).astype(float)
    # There is no simulator behind these tables: nothing of `sim` and `cfg` is read.
    nothing: Any = None
    return Asked(nothing, panel, split, over, cost, nothing)


def lagged(table: MediaTable, observed: np.ndarray) -> MediaTable:
    """Give a regression the outcome of the period before, where it was observed; else the unit's mean of train rows."""
    mean = np.where(table.train, table.outcome, 0).sum(1) / np.maximum(table.train.sum(1), 1)
    before = np.concatenate([mean[:, None], np.where(observed, table.outcome, mean[:, None])[:, :-1]], axis=1)
    return table._replace(covariates=np.concatenate([table.covariates, before[..., None]], axis=-1))


def rolled(world: MediaWorld, asked: Asked) -> np.ndarray:
    """Roll a world out over the held-out weeks with its own predictions for outcomes: `[units, time]`."""
    start = int(asked.split.train.sum() + asked.split.val.sum())
    quiet = jnp.zeros((1, *asked.panel.arrays.mask.shape))
    residual, plan = jnp.asarray(world.residual, jnp.float32), jnp.asarray(asked.panel.arrays.actions)
    history = world.history(asked.panel)
    mean = programs.simulate(quiet, residual, world.params, history, plan, start, cfg=world.cfg.network)[1]
    return np.asarray(mean, np.float64).mean((0, 1))


def by_command(seed: int, asked: Asked, cfg: MediaConfig, folder: Path) -> tuple[Found, dict[str, Any]]:
    """Fit and report as the command line does, in a folder of its own."""
    files.write_parquet(folder / "table.parquet", asked.panel.to_frame(), {})
    files.write_text(folder / "schema.toml", asked.panel.schema.plain().to_toml())
    run = folder / "run"
    table, schema = folder / "table.parquet", folder / "schema.toml"
    media_commands.fit_media(panel=table, schema=schema, out=run, seed=seed, overwrite=True, cfg=cfg)
    cli.report(run)
    world, panel = Run(run).open("report")
    weeks = slice(0, int(asked.split.train.sum()))
    roi = world.attribute(panel, times=weeks, carry=0, grid=(0.0, 1.0)).roi.sel(unit="all").to_numpy()[None]
    told = {
        "files": sorted(path.name for path in run.iterdir() if path.is_file()),
        "report_kb": round((run / "report.html").stat().st_size / 1024),
        "warnings": world.warnings(),
    }
    return media_methods.NOTHING._replace(roi=roi, outcome=world.predict(panel)["mean"].to_numpy()[0]), told


def run_method(
    setting: str, method: str, seed: int, asked: Asked, cfg: MediaConfig, options: common.Options
) -> tuple[Found | None, dict[str, Any]]:
    """Fit and ask one method; None where it refuses to answer, and what it says of itself."""
    if method == "media" and setting in REPORTED:
        return by_command(seed, asked, cfg, options.out / "runs" / setting)
    if method == "media_sized":
        cfg, method = dataclasses.replace(cfg, size="outcome"), "media"
    if method == "media_rolled":
        world = media.fit(jax.random.key(seed), asked.panel, cfg, seed=seed)
        return media_methods.NOTHING._replace(outcome=rolled(world, asked)), {}
    if method.endswith(LAG):
        plain = dataclasses.replace(cfg, errors_in_variables=False)
        table = lagged(media_methods.table_of(asked, plain), asked.panel.arrays.mask)
        fit = regressions.ols if method.startswith("ols") else regressions.adstock_hill
        return media_methods.by_regression(fit(table), asked), {}
    return media_methods.run_method(method, seed, asked, media_methods.NOTHING, cfg, sampler_of(options))


def size_of(options: common.Options) -> recovery.Size:
    return recovery.FULL if options.size == "full" else recovery.SMALLEST


def sampler_of(options: common.Options) -> Any:
    """Sample as long as a table of few parameters needs, and refuse earlier than the sampler does by itself."""
    sampler = size_of(options).sampler
    return dataclasses.replace(sampler, most_rhat=1.05) if options.size == "full" else sampler


def score(setting: str, method: str, public: Public, asked: Asked, found: Found) -> Scores:
    """Compare with what is known."""
    values = {}
    if public.contribution is not None:
        total = found.roi * asked.cost
        error = np.abs(total.mean(0) / public.contribution - 1)
        values = {"roas_mape": error.mean(), "roas_mdape": np.median(error)}
        lo, hi = media_methods.interval(total)
        if np.isfinite(lo).all():
            values["coverage90"] = np.mean((lo <= public.contribution) & (public.contribution <= hi))
    for name, part in (("insample_r2", asked.split.train), ("holdout_r2", asked.split.test)):
        rows = public.panel.arrays.mask & part
        if rows.any():
            values[name] = metrics.r2(public.panel.arrays.outcomes[..., 0][rows], found.outcome[rows])
    return {Cell(setting, method, name): float(value) for name, value in values.items()}


def by_channel(setting: str, method: str, public: Public, roi: list[float]) -> Scores:
    """Give each channel's error, with its sign, and their mean size; nothing where the truth is not known."""
    if public.contribution is None or not roi:
        return {}
    error = np.asarray(roi) * ask(public).cost / public.contribution - 1
    found = {f"contribution_error.{c}": e for c, e in zip(public.panel.action_names, error, strict=True)}
    found = {"contribution_mape": np.abs(error).mean(), **found}
    return {Cell(setting, method, name): float(value) for name, value in found.items()}


def read(setting: str, options: common.Options) -> Public:
    """Read a setting's table, a part of it for the smoke size."""
    if options.data is None:
        raise UserError("this experiment reads public tables; give their folder with --data")
    public = SETTINGS[setting](options.data)
    if options.size == "full":
        return public
    panel = public.panel if public.panel.num_units <= 8 else public.panel.select(units=public.panel.units[:8])
    cfg = dataclasses.replace(recovery.SMALLEST.world, val=0, test=public.cfg.test, size=public.cfg.size)
    return public._replace(panel=panel, cfg=cfg)


def piece(options: common.Options, seed: int, setting: str, method: str, public: Public) -> dict[str, Any]:
    """Run one method on one table, or read what an earlier command found."""
    path = common.piece_of(options, setting, seed, method)
    owner = fingerprint(
        MODEL,
        size_of(options),
        public.cfg.settled(alone=public.panel.num_units == 1),
        public.panel.fingerprint,
        *([sampler_of(options)] if method in SAMPLED else []),
    )
    if path.exists() and (found := files.read_json(path)).get("owner") == owner:
        return found
    started = time.process_time()
    asked = ask(public)
    found, told = run_method(setting, method, seed, asked, public.cfg, options)
    scores = {} if found is None else score(setting, method, public, asked, found)
    spent = time.process_time() - started
    scores[Cell(setting, method, "cpu_minutes")] = spent / 60
    rows = [[*cell, value] for cell, value in scores.items()]
    roi = [] if found is None or not found.roi.size else found.roi.mean(0).tolist()
    value = {"owner": owner, "rows": rows, "told": told, "roi": roi, "cpu_seconds": spent, "made": common.origin()}
    files.write_json(path, value)
    return files.read_json(path)


def published() -> list[Row]:
    """Give what others reach as rows."""
    return [
        Row(setting=s, method=f"published_{m}", quantity=q, value=value)
        for s, (q, found) in PUBLISHED.items()
        for m, value in found.items()
    ]


def peers(folder: Path) -> tuple[list[Row], dict[str, Any]]:
    """Read what `experiments/peers_mmm.py` left: rows, and by file what they were made with."""
    rows, made = [], {}
    for path in sorted((folder / "peers").glob("*.json")):
        value = files.read_json(path)
        rows += [Row(**row) for row in value["rows"]]
        made[path.stem] = {name: value[name] for name in ("command", "device", "versions", "seconds", "facts")}
    return rows, made


def checks_of(rows: list[Row]) -> list[Check]:
    """Hold the world against its aims, where it was run."""
    value = lambda s, q: common.value_of(rows, Cell(s, "media", q))  # noqa: E731
    found = []
    for setting, (quantity, told) in PUBLISHED.items():
        if quantity == "roas_mape":
            name = f"{setting}: error at or below PyMC-Marketing's, as published"
            found.append(Check(name, value(setting, quantity), 0.0, told["pymc_marketing"]))
            found.append(Check(f"{setting}: 90 % intervals hold", value(setting, "coverage90"), 0.8, 1.0))
    found += [
        Check("MMM_Data: hold-out R2, one step ahead", value("MMM_Data", "holdout_r2"), 0.9, 1.0),
        Check("MMM_Data: CPU minutes of a fit", value("MMM_Data", "cpu_minutes"), 0.0, 30.0),
    ]
    found += [Check(f"{s}: a report, in kB", value(s, "report_kb"), 50.0, np.inf) for s in REPORTED]
    return found


def work(options: PublicOptions, observer: Any = silent) -> Path:
    """Run every piece that is not there yet, then write the table, or put the rows of some settings into it."""
    seeds = list(range(options.seeds or (3 if options.size == "full" else 1)))
    clock, drawn = common.Clock(options.out), options.data is None and options.size == "smoke"
    if drawn:
        options = dataclasses.replace(options, data=public_tables.draw(options.out / "tables"))
    which = {"tables": "drawn" if drawn else "given"}
    old = common.standing(options, NAME, seeds=seeds, study=which) if options.only else None
    settings = [s for s in options.only or METHODS if options.size == "full" or s in SMOKE]
    if not settings:
        raise UserError(f"the smoke size has none of {', '.join(options.only)}; it has {', '.join(SMOKE)}")
    wanted = [(seed, s, m) for s in settings for m in METHODS[s] for seed in seeds]
    # A regression has no seed, the sampler is dear, and one run of the command shows that it ends: one of each tells.
    wanted = [w for w in wanted if w[0] == 0 or (w[2].startswith("media") and w[1] not in REPORTED)]
    per_seed: list[Scores] = [{} for _ in seeds]
    told: dict[str, Any] = {}
    tables: dict[str, Public] = {}
    for at, (seed, setting, method) in enumerate(wanted):
        observer(Event("pieces", at, len(wanted), unit="fit"))
        if setting not in tables:
            tables[setting] = read(setting, options)
        got = piece(options, seed, setting, method, tables[setting])
        per_seed[seed] |= {Cell(*row[:3]): row[3] for row in got["rows"]}
        per_seed[seed] |= by_channel(setting, method, tables[setting], got["roi"])
        if own := got["told"]:
            told[f"{setting}-{seed}-{method}"] = own
            names = {"rhat": "sampler_rhat", "ess": "sampler_ess", "report_kb": "report_kb"}
            per_seed[seed] |= {Cell(setting, method, names[q]): float(own[q]) for q in names if q in own}
            if method in SAMPLED:
                per_seed[seed][Cell(setting, method, "sampler_refused")] = float(bool(own["refused"]))
        clock.read()
    observer(Event("pieces", len(wanted), len(wanted), unit="fit"))
    checks = checks_of if options.size == "full" else lambda rows: []
    if old:
        rows = common.summarise(per_seed, reference=REFERENCE)
        kept = [common.piece_of(options, s, seed, m) for seed, s, m in wanted]
        anew = lambda rows, before: {"told": {**before["told"], **told}}  # noqa: E731
        return common.revise(options, NAME, rows, kept=kept, checks=checks, facts=anew)
    others, made = peers(options.out)
    rows = [*common.summarise(per_seed, reference=REFERENCE), *others, *published()]
    order = list(METHODS)
    rows = sorted(rows, key=lambda r: order.index(r.setting) if r.setting in order else len(order))
    facts = {"told": told, "peers": made, **which}
    return common.write_result(options, NAME, rows, seeds=seeds, seconds=clock.read(), checks=checks(rows), facts=facts)


if __name__ == "__main__":
    sys.exit(common.run(f"experiments.{NAME}", work, kind=PublicOptions))
