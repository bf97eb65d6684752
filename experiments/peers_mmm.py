"""PyMC-Marketing and Meridian on the public tables whose truth is known, with their default priors, each in its own
environment: this file imports nothing of wmjax.

    uv venv --python 3.12 peers/pymc && uv pip install --python peers/pymc pymc-marketing==1.3.0 numpyro
    uv venv --python 3.12 peers/meridian && uv pip install --python peers/meridian google-meridian==2.1.0
    peers/pymc/bin/python -m experiments.peers_mmm --peer pymc_marketing --data DATA --out OUT
    peers/meridian/bin/python -m experiments.peers_mmm --peer meridian --data DATA --out OUT
    python -m experiments.mmm_public --data DATA --out OUT

Each fit leaves `OUT/peers/PEER-SETTING.json`, in the form of an experiment's result; `mmm_public` with the same `--out`
takes their rows in. A setting has the columns that `mmm_public` shows its methods; `national_all_controls` has the
mediator among the controls too, as the figures that are published of these two do.

PyMC-Marketing: geometric carry-over of 8 weeks, logistic saturation, two yearly season pairs, sampled by NumPyro.
Meridian: carry-over and Hill curves and a lognormal prior of ROI as they come, its national model. Contribution is what
all weeks lose without a channel, the mean over draws; intervals are quantiles of draws.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

SETTINGS = ("national_mff", "national_confounders", "national_all_controls", "mmm_roas_data")
CARRY = 8
SEASONS = 2


class Table(NamedTuple):
    """A table of one row a week, named columns of it, and each channel's true contribution."""

    frame: pd.DataFrame
    time: str
    outcome: str
    channels: list[str]
    controls: list[str]
    truth: np.ndarray


class Fit(NamedTuple):
    """Draws of each channel's contribution `[draws, channels]`, the largest R-hat, and the package's version."""

    draws: np.ndarray
    rhat: float
    version: str


def read(folder: Path, setting: str) -> Table:
    """Read a setting's table."""
    if setting == "mmm_roas_data":
        table = pd.read_csv(folder / "mmm_roas_data.csv")
        truth = np.array([(table["y"] - table["y01"]).sum(), (table["y"] - table["y02"]).sum()])
        chosen: Any = table[["date", "y", "x1", "x2", "trend"]]
        frame = chosen.assign(date=pd.to_datetime(table["date"]))
        return Table(frame, "date", "y", ["x1", "x2"], ["trend"], truth)
    told = json.loads((folder / "national_truth.json").read_text())
    roles = told["notes"]["roles"]
    left_out = {
        "national_mff": ("mediator",),
        "national_confounders": ("mediator", "irrelevant"),
        "national_all_controls": (),
    }[setting]
    controls = [name for name, role in roles.items() if role not in left_out]
    long = pd.read_csv(folder / "national_mff.csv")
    wide = long.pivot_table(index="Period", columns="VariableName", values="VariableValue", aggfunc="sum")
    wide = wide.reset_index().rename_axis(columns=None)
    wide = wide.assign(Period=pd.to_datetime(wide["Period"]))
    frame = wide.filter(["Period", "Sales", *told["channels"], *controls])
    truth = np.array([told["true_contribution"][c] for c in told["channels"]])
    return Table(frame, "Period", "Sales", list(told["channels"]), controls, truth)


def score(draws: np.ndarray, truth: np.ndarray, channels: list[str]) -> dict[str, float]:
    """Compare draws of contributions with the truth; spend is known, so errors of ROAS are the same numbers."""
    error = draws.mean(0) / truth - 1
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    values = {
        "roas_mape": np.abs(error).mean(),
        "roas_mdape": np.median(np.abs(error)),
        "contribution_mape": np.abs(error).mean(),
        "coverage90": np.mean((low <= truth) & (truth <= high)),
        **{f"contribution_error.{c}": e for c, e in zip(channels, error, strict=True)},
    }
    return {name: float(value) for name, value in values.items()}


def result(peer: str, setting: str, values: dict[str, float], *, version: str, options: argparse.Namespace) -> dict:
    """Put numbers into the form of an experiment's result."""
    empty = {"sd": None, "n": 1, "reference": None, "ceiling": None}
    rows = [{"setting": setting, "method": peer, "quantity": q, "value": v, **empty} for q, v in values.items()]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "name": "peers_mmm",
        "command": f"python -m experiments.peers_mmm --peer {peer} --data DATA --out OUT --settings {setting}",
        "device": f"{cores} x {platform.machine()}",
        "versions": {"python": platform.python_version(), peer: version},
        "seeds": [options.seed],
        "seconds": round(values["seconds"], 1),
        "rows": rows,
        "checks": [],
        "facts": {"chains": options.chains, "warmup": options.warmup, "draws": options.draws},
    }


def pymc_marketing(table: Table, options: argparse.Namespace) -> Fit:
    """Fit PyMC-Marketing."""
    pm: Any = importlib.import_module("pymc_marketing.mmm")
    model: Any = importlib.import_module("pymc_marketing.mmm.mmm").MMM(
        date_column=table.time,
        channel_columns=table.channels,
        control_columns=table.controls,
        target_column=table.outcome,
        adstock=pm.GeometricAdstock(l_max=CARRY),
        saturation=pm.LogisticSaturation(),
        yearly_seasonality=SEASONS,
    )
    x, y = table.frame.drop(columns=table.outcome), table.frame[table.outcome]
    model.build_model(x, y)
    model.add_original_scale_contribution_variable(["channel_contribution"])
    model.fit(
        x,
        y,
        draws=options.draws,
        tune=options.warmup,
        chains=options.chains,
        random_seed=options.seed,
        nuts_sampler="numpyro",
        progressbar=False,
    )
    posterior = model.idata["posterior"]
    added = posterior["channel_contribution_original_scale"].sum("date").transpose("chain", "draw", "channel")
    added = added.sel(channel=table.channels).to_numpy()
    curves = [posterior[name].to_numpy() for name in ("adstock_alpha", "saturation_lam", "saturation_beta")]
    rhat = max(float(np.max(split_rhat(value))) for value in (added, *curves))
    return Fit(added.reshape(-1, len(table.channels)), rhat, metadata.version("pymc-marketing"))


def meridian(table: Table, options: argparse.Namespace) -> Fit:
    """Fit Meridian's national model; spend stands for media units, as the other methods see it."""

    def part(name: str) -> Any:
        return importlib.import_module(f"meridian.{name}")

    frame = table.frame.assign(**{table.time: table.frame[table.time].dt.strftime("%Y-%m-%d"), "revenue_per_kpi": 1.0})
    built = (
        part("data.data_frame_input_data_builder")
        .DataFrameInputDataBuilder(
            kpi_type="non_revenue", default_time_column=table.time, default_media_time_column=table.time
        )
        .with_kpi(frame, kpi_col=table.outcome)
        .with_revenue_per_kpi(frame)
        .with_controls(frame, control_cols=table.controls)
        .with_media(frame, media_cols=table.channels, media_spend_cols=table.channels, media_channels=table.channels)
        .build()
    )
    model = part("model.model").Meridian(input_data=built)
    model.sample_posterior(
        n_chains=options.chains,
        n_adapt=options.warmup // 2,
        n_burnin=options.warmup - options.warmup // 2,
        n_keep=options.draws,
        seed=options.seed,
    )
    # By names: what it takes in their place differs between releases.
    own = {"model_context": model.model_context, "inference_data": model.inference_data}
    analyzer = part("analysis.analyzer").Analyzer(**own)
    added = np.asarray(analyzer.incremental_outcome(), np.float64)
    # Parameters that are held at a number have no R-hat.
    rhat = np.concatenate([np.ravel(np.asarray(value)) for value in analyzer.get_rhat().values()])
    largest = float(np.max(rhat[np.isfinite(rhat)]))
    return Fit(added.reshape(-1, len(table.channels)), largest, metadata.version("google-meridian"))


PEERS: dict[str, Callable[[Table, argparse.Namespace], Fit]] = {"pymc_marketing": pymc_marketing, "meridian": meridian}


def split_rhat(draws: np.ndarray) -> np.ndarray:
    """Compare halves of chains `[chains, draws, ..]`: the square root of pooled variance over that within (Gelman)."""
    half = draws.shape[1] // 2
    parts = np.concatenate([draws[:, :half], draws[:, half : 2 * half]])
    within, between = parts.var(1, ddof=1).mean(0), parts.mean(1).var(0, ddof=1)
    return np.sqrt((half - 1) / half + between / np.where(within > 0, within, 1.0))


def options_of(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.peers_mmm", description=__doc__)
    parser.add_argument("--peer", required=True, choices=sorted(PEERS))
    parser.add_argument("--data", required=True, type=Path, help="folder of the public tables")
    parser.add_argument("--out", required=True, type=Path, help="folder of mmm_public's result")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--warmup", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Fit one peer to the settings asked for."""
    options = options_of(argv)
    for setting in options.settings:
        path = options.out / "peers" / f"{options.peer}-{setting}.json"
        if path.exists():
            print(f"{path} is there")
            continue
        table = read(options.data, setting)
        began, spent = time.monotonic(), time.process_time()
        fit = PEERS[options.peer](table, options)
        values = score(fit.draws, table.truth, table.channels)
        values |= {"sampler_rhat": fit.rhat, "seconds": time.monotonic() - began}
        values["cpu_minutes"] = (time.process_time() - spent) / 60
        path.parent.mkdir(parents=True, exist_ok=True)
        told = result(options.peer, setting, values, version=fit.version, options=options)
        path.write_text(json.dumps(told, indent=2) + "\n")
        print(path, f"roas_mape {values['roas_mape']:.3f}, R-hat {fit.rhat:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
