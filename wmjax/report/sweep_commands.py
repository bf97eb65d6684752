"""The commands `wmjax sweep`, `wmjax best` and `wmjax policy`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from wmjax.core.errors import UserError

RunFolder = Annotated[Path, tyro.conf.Positional]
MOST_PLANS = 20
"""Rows of the table that a command prints; the file has all."""


def sweep(
    run: RunFolder,
    *,
    grid: str,
    out: Path,
    reduce: str = "full",
    plan: Path | None = None,
    start: int | None = None,
    periods: int = 1,
    carry: int | None = None,
    feedback: bool = False,
    by: str | None = None,
    worth: str = "",
    cost: str = "",
    panel: Path | None = None,
    seed: int = 0,
    chunk: int | None = None,
    tidy: Path | None = None,
    dry_run: bool = False,
    processes: int = 1,
    worker: str | None = None,
    distributed: bool = False,
) -> None:
    """Evaluate every plan of a grid; killed, the same command goes on from what is finished.

    `wmjax best` then chooses each unit's plan from what `gain.full cost.full` or `profit.full` has kept.

    Args:
        run: folder of a finished run.
        grid: axes, `"discount=0:0.3:31 campaign_a=0,1"`, or a TOML file of them; the last one counts fastest. Levels
            are `a,b,c`; `from:to:count` for real numbers, written with a point (`0:1.0:50`); `from:to` and
            `from:to:step` for whole ones. An axis named as an action sets it; `scale.tv` and `add.tv` change it;
            `member=0:3` keeps members apart (`member=all` all of them, which are draws of the curves in a media world),
            `seed` (of luck, with `--feedback`), `horizon`, `start` and `segment` are read too. Intervals are filled by
            a Sobol sequence or a Latin hypercube of so many plans, and a seed:
            `"tv=0..9.5 radio=0..4.5 plans=sobol:1024:7"`, `plans=latin:1000`. In TOML: `coupon = [0, 1]`;
            `tv = { low = 0, high = 9.5, count = 20 }`; axes in step,
            `flight = { zip = { tv = [0, 1], radio = [1, 0] } }`; points one by one,
            `plans = { list = [{ tv = 0, radio = 2 }, { tv = 1, radio = 5 }] }`; samples,
            `plans = { sobol = 1024, seed = 7, of = { tv = { low = 0.0, high = 9.5 } } }`, or `latin` for `sobol`.
        out: Zarr store of the result.
        reduce: what is kept, several words in one text: `full` (every plan's numbers), `mean`, `quantiles`, `top:20`
            (plans by their mean over units), `best` (each unit's); `mean:AXIS` keeps the levels of an axis apart and
            `mean:income` those of a static column, over the units of each (so do quantiles, and `best:income`);
            `gain.full` reads the output gain (total, gain, cost, profit, path; without one, total, which like gain is
            summed over the periods and the carry).
        plan: TOML file of edits that read the axes; axes named as actions set them without one.
        start: position of the first period in the panel, counted from 0; by default the first one of the test periods.
        periods: how many periods, which are summed; a plan holds in all of them.
        carry: periods after these that are summed too, what was done there left as it is; by default as many as a media
            world carries spend over to, one of a graph world, none of a consumer world, nor with an axis `horizon`.
        feedback: roll plans forward, outcomes fed back; otherwise each row keeps its observed history.
        by: a static column whose levels an axis `segment` may name.
        worth: of one unit of each outcome, in money, `"buy=3.5"`; for `profit`.
        cost: of one unit of each action in a period, in money, `"discount=10"`; for `cost` and `profit`, which are over
            those of what was done.
        panel: another table of the same columns; by default the run's own.
        seed: of the luck that all plans share, which only `--feedback` draws.
        chunk: plans at once; by default as many as fit.
        tidy: folder that gets the result as tidy Parquet tables too, one for each shape: `push-unit-outcome.parquet`.
        dry_run: say what it would take, and stop.
        processes: workers on this machine, each with its share of the cores; one uses them all, each core a device.
        worker: `NUMBER/COUNT`, from 0: this process is one of several that share `out`.
        distributed: read worker and count from the cluster (Slurm, TPU pod, ..) through `jax.distributed`.
    """
    from wmjax.report import console, sweeping
    from wmjax.report.run import Run
    from wmjax.sweep import processes as many

    words = {k: v for k, v in locals().items() if k in {f.name for f in dataclasses.fields(sweeping.Asked)}}
    asked = sweeping.Asked(**words)
    sweeping.check_places(out, tidy)
    Run(run).check("sweep")
    asked.check(Run(run).schema)
    env = sweeping.use_cores(out, processes)
    if processes > 1 and not dry_run:
        if worker is not None or distributed:
            raise UserError("--processes starts workers here; --worker and --distributed are told by a cluster")
        _start(run, asked, out, panel, processes, env)
        _tables(out, tidy)
        return
    number = many.distributed_worker() if distributed else (0, 1) if worker is None else many.worker_of(worker)
    (world, table), notes = Run(run).open("sweep", panel), Run(run).doubts()
    if number[0] == 0:
        if seed and not feedback:
            console.warning(f"--seed {seed} changes nothing: without --feedback no luck is drawn")
        console.say(f"Asked: {sweeping.asked_about(world, table, asked)}")
        shared: dict[str, Any] = {"timed": dry_run, "workers": max(processes, number[1])}
        shared |= {"notes": notes, "warn": _warn if dry_run else None}
        for name, value in sweeping.predicted(world, table, asked, **shared).items():
            console.say(f"{name}: {value:,.6g}")
    if dry_run:
        return
    with console.console_observer() as observer:
        told: dict[str, Any] = {"notes": notes, "warn": None if number[0] else _warn, "observer": observer}
        found = sweeping.run(world, table, asked, out, worker=number, **told)
    if found is not None:
        console.say(f"Sweep: {out}")
        _tables(out, tidy)


def _tables(out: Path, tidy: Path | None) -> None:
    """Write a sweep's tables where they are asked for, and say where."""
    from wmjax.report import console, sweeping

    for path, rows in sweeping.write_tidy(out, tidy) if tidy is not None else []:
        console.say(f"{rows:,} rows: {path}")


Solver = Annotated[Literal["greedy", "exact"] | None, tyro.conf.arg(aliases=["--method"])]


def best(
    sweep: RunFolder,
    *,
    budget: float | None = None,
    cost: str = "",
    outcome: str | None = None,
    by: str | None = None,
    solver: Solver = None,
    supported_only: bool = False,
    alpha: float = 0.1,
    out: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Choose the best plan for each unit, or each segment, from a finished sweep that kept every plan's numbers.

    Plans are compared by their profit, where the sweep kept `profit.full`, else by their gain over what was done, else
    by the expected outcome itself. Values are what the world expects; `wmjax policy` confronts them with held-out rows.

    Args:
        sweep: Zarr store of the sweep, written with `--reduce gain.full`, `profit.full` or `full`.
        budget: the most that all units' plans may cost together, over what was done where the sweep's own cost is
            used; by default there is none.
        cost: prices of one unit of an axis's level, for each unit that gets it, `"discount=10"`; by default the sweep's
            own `cost.full`, for which give `--cost` to `wmjax sweep`.
        outcome: which one, where there are several and no profit.
        by: a static column: one plan for all units of each of its levels, of the highest sum over them; real values are
            cut at their quintiles. `all` is one plan for all units. By default each unit has a plan of its own.
        solver: `greedy`, which is within one step of one unit of the best (of a single unit it is the best), or
            `exact`, by integer programming; by default greedy for units and exact for segments.
        supported_only: pass over plans that go, for the unit or for any unit of the segment, beyond what the data speak
            for.
        alpha: intervals hold with probability 1 - alpha; only a sweep with an axis of members, `member=all`, has any.
        out: Parquet file; by default `NAME.best.parquet` beside the store `NAME.zarr`, with `--by income`
            `NAME.best_income.parquet`.
        overwrite: write over a file that is there.
    """
    from wmjax.core import files
    from wmjax.core.provenance import to_plain
    from wmjax.report import choosing, console
    from wmjax.sweep import plans, store

    path = files.parquet(out or _beside(sweep, "best", by))
    if path.exists() and not overwrite:
        raise UserError(f"{path} is there already; choose another --out, or --overwrite")
    how: dict[str, Any] = {"outcome": outcome, "solver": solver, "supported_only": supported_only, "alpha": alpha}
    table, chosen = choosing.best(sweep, budget=budget, cost=cost, by=by, **how)
    unit, of = table.attrs["unit"], table.attrs["of"].split("_")[-1]
    whom = "units" if by is None else f"levels of {by}"
    counts, told = choosing.counted(table), f"value: {of} in {unit}, summed over units"
    if by is None:
        console.table(counts.head(MOST_PLANS), title=f"Plans and how many units get each; {told}")
        if len(counts) > MOST_PLANS:
            left = counts["units"].iloc[MOST_PLANS:].sum()
            console.say(f"and {len(counts) - MOST_PLANS:,} plans more, of {left:,} units")
    else:
        each = "" if by == plans.EVERYONE else f" of each level of {by}"
        console.table(table.head(MOST_PLANS), title=f"One plan for all units{each}; {told}")
        if len(table) > MOST_PLANS:
            console.say(f"and {len(table) - MOST_PLANS:,} levels more")
    priced = table.attrs["priced"]
    attrs = dict(store.read(sweep).attrs)
    paid = "the sweep kept no costs, and no --cost is given"
    if of == "profit":
        costs = ", ".join(name for name, _ in attrs["provenance"]["setting"]["cost"])
        paid = f"with costs of {costs} taken off" if costs else "no costs taken off, as no action had a price"
    if priced:
        paid = f"cost {chosen.cost:,.6g}{'' if cost else ' over what was done'}, in the prices' money"
    value = f"value {chosen.gain:,.6g}"
    if "total" in table.attrs:
        lo, hi = table.attrs["total"]
        value += f" ({lo:,.6g} to {hi:,.6g}, as if it had not been chosen for it)"
    if "supported" in table and not (known := table["supported"].to_numpy(bool)).all():
        value += f", of which {table['value'].to_numpy()[known].sum():,.6g} of supported plans"
    if chosen.bound > chosen.gain + 1e-6 * abs(chosen.gain):
        value += f" (no choice within the budget is above {chosen.bound:,.6g})"
    console.say(f"{value}; {of} in {unit}, summed over units and periods; {paid}")
    if of != "total" and chosen.gain < 0:
        greedy = (solver or ("greedy" if by is None else "exact")) == "greedy"
        console.warning(
            "this is worth less than leaving things as they were, which the grid does not hold within the budget"
            + (", or greedy did not find: try `--solver exact`" if greedy else "")
        )
    elif of != "total" and "total" in table.attrs and table.attrs["total"][0] <= 0 <= table.attrs["total"][1]:
        console.warning(
            "the interval of the value holds 0: this is not clearly better than leaving things as they were"
        )
    if left := table.attrs["left"]:
        within = [*(["is supported"] if supported_only else []), *([] if budget is None else ["the budget allows"])]
        which = f" and that {' and '.join(within)}" if within else ""
        console.say(
            f"{left:,} {whom} get no plan: none that is for them{which} is worth more than to leave them as they were"
        )
    if of != "total" and (same := int(np.sum(table["value"] == 0)) - left):
        console.say(f"{same:,} {whom} are left as they were: for them the plan that they are given changes nothing")
    opened = store.read(sweep)
    if cost:
        console.say(
            "the prices of --cost, and so the budget, count the level that each unit gets, once, and not what that is "
            "over what was done"
        )
    if outcome is not None and of == "profit":
        console.say("profit is over all outcomes: --outcome is not read")
    absent = attrs["provenance"].get("absent", [])
    if absent:
        console.say(f"{len(absent):,} units have no row in the sweep's periods and get no plan")
    if beyond := choosing.unreached(opened):
        console.say(f"{beyond:,} units are in no segment that a plan of the sweep names and get no plan")
    if supported_only and (none := table.attrs["targets"] - len(table)):
        console.say(f"{none:,} {whom} have no supported plan and get none")
    for line in choosing.at_the_end(sweep, table) if budget is None else []:
        console.say(f"of the {whom} whose value is clear, {line}: better may lie beyond")
    if "interval holds 0" in counts:
        unclear = int(np.sum(counts["interval holds 0"]))
        console.say(f"{unclear:,} of {len(table):,} values have an interval that holds 0")
    if "supported" not in table:
        console.warning("the sweep does not tell which of these plans are supported")
    elif beyond := int(np.count_nonzero(~table["supported"])):
        whose = "their unit" if by is None else "some of their units (supported_share)"
        console.warning(
            f"{beyond:,} of {len(table):,} plans go, for {whose}, beyond what the data speak "
            "for; --supported-only passes them over"
        )
    for line in choosing.warnings_of(table, attrs["provenance"]):
        console.warning(line)
    asked = {**how, "by": by, "budget": budget, "cost": cost}
    found = {"value_of": table.attrs["of"], "unit": unit}
    found |= {"value": chosen.gain, "bound": chosen.bound, "cost": chosen.cost if priced else None}
    attrs["best"] = to_plain({"asked": asked, **found})
    files.write_parquet(path, table, attrs)
    console.say(f"{len(table):,} rows: {path}")


def policy(
    run: RunFolder,
    sweep: RunFolder,
    *,
    budget: float | None = None,
    cost: str = "",
    outcome: str | None = None,
    by: str | None = None,
    solver: Solver = None,
    supported_only: bool = False,
    alpha: float = 0.05,
    panel: Path | None = None,
    out: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Say what the policy that `wmjax best` chooses would have brought, from held-out rows drawn by chance.

    The plans must set actions that the schema calls `randomised`; the estimates, by inverse propensity and doubly
    robust, stand beside what the world itself expects. Where an action was not randomised there is no estimate.

    Args:
        run: folder of a finished run.
        sweep: Zarr store of a sweep of that run, in its test periods and without `--feedback`.
        budget: the most that all units' plans may cost together; by default there is none.
        cost: prices of one unit of an axis's level, `"push=0.5"`; by default the sweep's own cost.
        outcome: which one, where there are several and no profit.
        by: a static column: one plan for all units of each of its levels, as of `wmjax best`.
        solver: `greedy`, which is within one step of one unit of the best (of a single unit it is the best), or
            `exact`, by integer programming; by default greedy for units and exact for segments.
        supported_only: pass over plans that go, for the unit or for any unit of the segment, beyond what the data speak
            for.
        alpha: intervals hold with probability 1 - alpha.
        panel: the table that was swept, where it is not the run's own.
        out: Parquet file; by default `NAME.policy.parquet` beside the store `NAME.zarr`, with `--by income`
            `NAME.policy_income.parquet`.
        overwrite: write over a file that is there.
    """
    from wmjax.core import files
    from wmjax.core.provenance import to_plain
    from wmjax.report import console, policies
    from wmjax.report.run import Run, answered

    path = files.parquet(out or _beside(sweep, "policy", by))
    if path.exists() and not overwrite:
        raise UserError(f"{path} is there already; choose another --out, or --overwrite")
    how: dict[str, Any] = {"budget": budget, "cost": cost, "outcome": outcome, "by": by}
    how |= {"solver": solver, "supported_only": supported_only}
    world, table = Run(run).open("policy", panel)
    found, unit = policies.judged(world, table, sweep, how, alpha=alpha)
    console.table(found.table, title=f"Value of a row under the policy, and its gain over what was done; in {unit}")
    console.say(
        f"{found.rows:,} rows of {found.units:,} units; in {found.met:,} of them what was done is what the policy does"
    )
    for line in found.warnings:
        console.warning(line)
    asked = to_plain({**how, "sweep": str(sweep), "alpha": alpha, "unit": unit, "warnings": found.warnings})
    files.write_parquet(path, found.table, answered(world, table, **asked))
    console.say(f"{len(found.table):,} rows: {path}")


def _beside(sweep: Path, what: str, by: str | None) -> Path:
    """Name a table that stands beside a sweep."""
    name = what if by is None else f"{what}_{by}"
    return sweep.with_name(f"{sweep.name.removesuffix('.zarr')}.{name}.parquet")


def _warn(lines: Sequence[str]) -> None:
    """Say where the sweep goes beyond what was seen."""
    from wmjax.report import console

    for line in lines:
        console.warning(line)


def _start(run: Path, asked: object, out: Path, panel: Path | None, count: int, env: Mapping[str, str]) -> None:
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
    sweeping.start_workers(words, count, env)
