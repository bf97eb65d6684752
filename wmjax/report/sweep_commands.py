"""The commands `wmjax sweep` and `wmjax best`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from wmjax.core.errors import UserError

RunFolder = Annotated[Path, tyro.conf.Positional]


def sweep(
    run: RunFolder,
    *,
    grid: str,
    out: Path,
    reduce: str = "full",
    plan: Path | None = None,
    start: int | None = None,
    periods: int = 1,
    feedback: bool = False,
    by: str | None = None,
    worth: str = "",
    cost: str = "",
    panel: Path | None = None,
    seed: int = 0,
    chunk: int | None = None,
    dry_run: bool = False,
    processes: int = 1,
    worker: str | None = None,
    distributed: bool = False,
) -> None:
    """Evaluate every plan of a grid; killed, the same command goes on from what is finished.

    Args:
        run: folder of a finished run.
        grid: axes, `"discount=0:0.3:31 campaign_a=0,1"`, or a TOML file of them; the last one counts fastest.
        out: Zarr store of the result.
        reduce: what is kept: `full`, `mean:discount`, `quantiles`, `top:20`, `best`; `gain.best` reads the output gain
            (total, gain, cost, profit, path).
        plan: TOML file of edits that read the axes; axes named as actions set them without one.
        start: position of the first period; by default the first one of the test periods.
        periods: how many periods are summed.
        feedback: roll plans forward, outcomes fed back; otherwise each row keeps its observed history.
        by: a static column whose levels an axis `segment` may name.
        worth: of one unit of each outcome, `"buy=3.5"`.
        cost: of one unit of each action in a period, `"discount=10"`.
        panel: another table of the same columns; by default the run's own.
        seed: of the luck that all plans share.
        chunk: plans at once; by default as many as fit.
        dry_run: say what it would take, and stop.
        processes: workers on this machine, each with its share of the cores.
        worker: `NUMBER/COUNT`, from 0: this process is one of several that share `out`.
        distributed: read worker and count from the cluster (Slurm, TPU pod, ..) through `jax.distributed`.
    """
    from wmjax.report import console, sweeping
    from wmjax.report.run import Run
    from wmjax.sweep import processes as many

    words = {k: v for k, v in locals().items() if k in {f.name for f in dataclasses.fields(sweeping.Asked)}}
    asked = sweeping.Asked(**words)
    if processes > 1 and not dry_run:
        if worker is not None or distributed:
            raise UserError("--processes starts workers here; --worker and --distributed are told by a cluster")
        Run(run).check("sweep")
        _start(run, asked, out, panel, processes)
        console.say(f"Sweep: {out}")
        return
    number = many.distributed_worker() if distributed else (0, 1) if worker is None else many.worker_of(worker)
    world, table = Run(run).open("sweep", panel)
    if number[0] == 0:
        shared = {"timed": dry_run, "workers": max(processes, number[1])}
        for name, value in sweeping.predicted(world, table, asked, **shared).items():
            console.say(f"{name}: {value:,.6g}")
    if dry_run:
        return
    with console.console_observer() as observer:
        found = sweeping.run(world, table, asked, out, worker=number, observer=observer)
    if found is not None:
        _warn(found.attrs)
        console.say(f"Sweep: {out}")


def best(
    sweep: RunFolder,
    *,
    budget: float | None = None,
    cost: str = "",
    outcome: str | None = None,
    method: Literal["greedy", "exact"] = "greedy",
    supported_only: bool = False,
    alpha: float = 0.1,
    out: Path | None = None,
) -> None:
    """Choose the best plan for each unit from a finished sweep that kept every plan's numbers, within a budget.

    Args:
        sweep: Zarr store of the sweep.
        budget: the most that all units' plans may cost together; by default there is none.
        cost: prices of one unit of an axis's level, `"discount=10"`; by default the sweep's own cost.
        outcome: which one, where there are several.
        method: `greedy`, which is within one step of the best, or `exact`, by integer programming.
        supported_only: pass over plans that go, for the unit, beyond what the data speak for.
        alpha: of the intervals, which a sweep with an axis of members has, `member=0:3`.
        out: Parquet file; by default `NAME.best.parquet` beside the store `NAME.zarr`.
    """
    from wmjax.core.files import write_parquet
    from wmjax.core.provenance import to_plain
    from wmjax.report import console, sweeping
    from wmjax.sweep import store

    how: dict[str, Any] = {"outcome": outcome, "method": method, "supported_only": supported_only, "alpha": alpha}
    table, chosen = sweeping.best(sweep, budget=budget, cost=cost, **how)
    levels = [name for name in table if name not in ("unit", "value", "cost", "lo", "hi", "supported")]
    counts = table.groupby(levels, as_index=False).agg(
        units=("unit", "size"), value=("value", "sum"), cost=("cost", "sum")
    )
    console.table(counts.sort_values("units", ascending=False).head(20), title="Plans and how many units get each")
    console.say(f"value {chosen.gain:,.6g} (none is above {chosen.bound:,.6g}), cost {chosen.cost:,.6g}")
    opened = store.read(sweep)
    attrs = dict(opened.attrs)
    absent = attrs["provenance"].get("absent", [])
    if absent:
        console.say(f"{len(absent):,} units have no row in the sweep's periods and get no plan")
    if supported_only and (none := opened.sizes["unit"] - len(absent) - len(table)):
        console.say(f"{none:,} units have no supported plan and get none")
    if "lo" in table and "total" not in table.attrs["of"]:
        unclear = int(np.count_nonzero((table["lo"] <= 0) & (table["hi"] >= 0)))
        console.say(f"{unclear:,} of {len(table):,} values have an interval that holds 0")
    if "supported" not in table:
        console.warning("the sweep does not tell which of these plans are supported")
    elif beyond := int(np.count_nonzero(~table["supported"])):
        console.warning(
            f"{beyond:,} of {len(table):,} plans go, for their unit, beyond what the data speak "
            "for; --supported-only passes them over"
        )
    _warn(attrs)
    asked = {**how, "budget": budget, "cost": cost}
    found = {"value_of": table.attrs["of"], "value": chosen.gain, "bound": chosen.bound, "cost": chosen.cost}
    attrs["best"] = to_plain({"asked": asked, **found})
    path = out or sweep.with_name(sweep.name.removesuffix(".zarr") + ".best.parquet")
    write_parquet(path, table, attrs)
    console.say(f"{len(table):,} rows: {path}")


def _warn(attrs: Mapping[str, Any]) -> None:
    """Say where the sweep goes beyond what was seen."""
    from wmjax.report import console

    for line in attrs["provenance"].get("warnings", []):
        console.warning(line)


def _start(run: Path, asked: object, out: Path, panel: Path | None, count: int) -> None:
    """Start workers with the same words."""
    from wmjax.report import sweeping

    words = ["sweep", str(run), "--out", str(out)]
    options = {**vars(asked), **({} if panel is None else {"panel": panel})}
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words += [flag] if value else []
        elif value not in (None, ""):
            words += [flag, str(value)]
    sweeping.start_workers(words, count)
