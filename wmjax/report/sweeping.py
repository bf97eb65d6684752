"""What `wmjax sweep` and `wmjax best` do: a sweep of a run's world in words, and the best plans from its result."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import pandas as pd
import xarray as xr

from wmjax.core import devices
from wmjax.core.errors import UserError
from wmjax.core.observe import Observer
from wmjax.data.panel import Panel
from wmjax.evaluate import policy
from wmjax.report import frames
from wmjax.sweep import plan_reading, processes, reading, reduce_reading, store
from wmjax.sweep.grids import Grid
from wmjax.worlds import contract, sweeping
from wmjax.worlds.consumer.intervals import bounds
from wmjax.worlds.sweeping import Setting


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A sweep in words; see `wmjax sweep --help`."""

    grid: str
    reduce: str = "full"
    plan: Path | None = None
    start: int | None = None
    periods: int = 1
    feedback: bool = False
    by: str | None = None
    worth: str = ""
    cost: str = ""
    seed: int = 0
    chunk: int | None = None

    def __post_init__(self) -> None:
        try:
            Setting(start=self.start or 0, periods=self.periods)
        except ValueError as error:
            raise UserError(str(error)) from None
        kept = {one.of for one in reduce_reading.reduce_from_words(self.reduce.split()).values()}
        for output, name, words, example in (
            ("profit", "worth", self.worth, '--worth "buy=3.5"'),
            ("cost", "cost", self.cost, '--cost "coupon=1"'),
        ):
            if not prices(words, name) and output in kept:
                raise UserError(f"the sweep is to keep {output}, and nothing has a price; give {example}")

    def arguments(self, world: Any, panel: Panel) -> dict[str, Any]:
        """Give the arguments of `sweeping.sweep`.

        Raises:
            UserError: words that cannot be read, or a world that cannot be swept.
        """
        sweeping.forecasting(world)
        start = contract.periods(world.facts, panel, "test").start if self.start is None else self.start
        setting = Setting(
            start=start,
            periods=self.periods,
            feedback=self.feedback,
            by=self.by,
            worth=prices(self.worth, "worth"),
            cost=prices(self.cost, "cost"),
        )
        return {
            "grid": read_grid(self.grid),
            "key": jax.random.key(self.seed),
            "setting": setting,
            "plan": None if self.plan is None else plan_reading.read_plan(self.plan),
            "reduce": reduce_reading.reduce_from_words(self.reduce.split()),
            "chunk": self.chunk,
            "mesh": processes.local_mesh(),
        }


def read_grid(words: str) -> Grid:
    """Read a grid from words, or from a TOML file."""
    return reading.read_grid(words) if words.endswith(".toml") else reading.grid_from_words(words.split())


def prices(words: str, what: str) -> tuple[tuple[str, float], ...]:
    """Read `buy=3.5 visit=0.1`.

    Raises:
        UserError: a word that is not NAME=NUMBER.
    """
    found = []
    for word in words.split():
        name, _, value = word.partition("=")
        try:
            found.append((name, float(value)))
        except ValueError:
            raise UserError(f"{what} {word!r} must be NAME=NUMBER, for example buy=3.5") from None
    return tuple(found)


def predicted(world: Any, panel: Panel, asked: Asked, *, timed: bool = False, workers: int = 1) -> dict[str, Any]:
    """Say what a sweep would take: points, boxes, bytes; and, if `timed`, its seconds, from those of the first boxes.

    Workers on one machine share its cores, and a device here is a device of one worker.
    """
    options = asked.arguments(world, panel)
    told = sweeping.plan_sweep(world, panel, **options, timed=timed)
    found = {
        "points": told.points,
        "points a box": told.chunk,
        "boxes": told.regions,
        "devices": told.devices,
        "MiB at its peak, each device": round(told.bytes / 2**20, 1),
        "MiB written": round(told.stored_bytes / 2**20, 1),
        "operations a point": told.flops,
    }
    if told.seconds is not None:
        found["seconds, as the first box goes"] = float(f"{told.seconds / workers:.2g}")
    return found


def run(
    world: Any,
    panel: Panel,
    asked: Asked,
    out: Path,
    *,
    worker: tuple[int, int] = (0, 1),
    patience_seconds: float = 3600.0,
    notes: Sequence[str] = (),
    observer: Observer,
) -> xr.Dataset | None:
    """Sweep, or go on with a sweep that was stopped; `notes` are warnings that hold for whatever is asked."""
    options = asked.arguments(world, panel)
    return sweeping.sweep(
        world,
        panel,
        **options,
        out=out,
        worker=worker,
        patience_seconds=patience_seconds,
        notes=notes,
        observer=observer,
    )


def use_cores(out: Path, workers: int = 1) -> dict[str, str]:
    """Make each core a device, of which workers on this machine have equal shares, before JAX is used.

    A sweep that was begun goes on with as many devices as it was begun on, however many cores there are now.

    Returns:
        The environment by which a worker that is started has its share.
    """
    about = store.begun(out)
    count = max(1, devices.num_cores() // workers) if about is None else about["devices"]
    own = not devices.chosen()
    devices.use_cores(count)
    return {devices.ENVIRONMENT: str(count)} if own else {}


def start_workers(words: list[str], count: int, env: Mapping[str, str]) -> None:
    """Run `wmjax sweep` once a worker, on this machine; `words` are those of the command without `--processes`."""
    command = [sys.executable, "-m", "wmjax.cli", *words]
    processes.start([[*command, "--worker", f"{number}/{count}"] for number in range(count)], env)


# ---- best -----------------------------------------------------------------------------------------------------------

VALUES = ("profit", "gain", "total")


def best(
    path: Path,
    *,
    budget: float | None = None,
    cost: str = "",
    outcome: str | None = None,
    solver: Literal["greedy", "exact"] = "greedy",
    supported_only: bool = False,
    alpha: float = 0.1,
) -> tuple[pd.DataFrame, policy.Allocation]:
    """Choose each unit's plan from a sweep that kept every plan's numbers (`--reduce full`, of profit, gain or total).

    Axes of members and seeds are no plans: values are means over them.

    Args:
        path: a finished sweep.
        budget: the most that all units' plans may cost together; none is no bound.
        cost: prices of one unit of an axis's level, `coupon=0.5`; by default the sweep's own `cost`.
        outcome: which, where there are several.
        solver: `"greedy"`, within one step of the best, or `"exact"`.
        supported_only: pass over plans that go, for the unit, beyond what the data speak for; units that have no other
            get none.
        alpha: of the intervals.

    Returns:
        A table of units, their plan's levels and value, its cost where costs are known, whether it is `supported` where
        the sweep tells, and `lo` and `hi` of its value where the sweep has members, by Student's t over them, as if the
        plan had not been chosen for its value; without units absent in the sweep's periods; among its attributes `of`,
        the sweep's variable, `unit`, in what the values are, `priced`, whether costs are known, and `total`, bounds of
        the sum over units where the sweep has members. And the allocation.
    """
    found = store.read(path)
    if "unit" in found.dims and (absent := set(found.attrs["provenance"].get("absent", []))):
        found = found.isel(unit=[str(u) not in absent for u in found["unit"].values])
    values = _values(found, outcome)
    luck = _luck(found)
    dims = [d for d in values.dims if d != "unit" and d not in luck]
    gain = _plans_by_units(values.mean([d for d in luck if d in values.dims], skipna=False), dims)
    priced = _costs(found, gain, cost, dims, budget)
    paid = np.zeros(gain.shape) if priced is None else priced
    marks = None if "supported" not in found else _supported(found["supported"], values, dims)
    worth = gain.values.astype(np.float64)
    if supported_only:
        if marks is None:
            raise UserError("the sweep does not tell which plans are supported; sweep fewer plans, with --reduce full")
        had = marks.any(0)
        if not had.any():
            raise UserError("no unit has a supported plan in this sweep")
        gain, paid, marks, values = gain[:, had], paid[:, had], marks[:, had], values[{"unit": had}]
        # Worse and dearer than any other, so that no method takes it.
        worth = np.where(marks, gain.values, gain.values.min() - 1.0).astype(np.float64)
        paid = np.where(marks, paid, paid.max() + 1.0)
    limit = float(paid.max(0).sum()) if budget is None else budget
    chosen = getattr(policy, solver)(worth, paid, limit)
    at = np.arange(gain.sizes["unit"])
    table = pd.DataFrame({"unit": gain["unit"].values.astype(object)})
    for name in _axes(found, dims):
        table[name] = gain[name].values[chosen.plan]
    table["value"] = gain.values[chosen.plan, at]
    if priced is not None:
        table["cost"] = paid[chosen.plan, at]
    members = [d for d, has_members in luck.items() if has_members and d in values.dims]
    if members and all(values.sizes[d] > 1 for d in members):
        each = values.mean([d for d in luck if d in values.dims and d not in members], skipna=False)
        by_member = each.stack(one=members).stack(plan=dims).transpose("one", "plan", "unit")  # noqa: PD013
        own = by_member.values[:, chosen.plan, at]
        table["lo"], table["hi"] = bounds(own, alpha)
        whole = bounds(own.sum(-1, dtype=np.float64, keepdims=True), alpha)
        table.attrs["total"] = tuple(float(end[0]) for end in whole)
    if marks is not None:
        table["supported"] = marks[chosen.plan, at]
    table.attrs["of"], table.attrs["priced"] = str(values.name), priced is not None
    table.attrs["unit"] = _unit(found, values)
    return table, chosen


def _unit(found: xr.Dataset, values: xr.DataArray) -> str:
    """Say in what the values are: that of the outcome, or of the prices."""
    if str(values.name).split("_")[-1] == "profit":
        return "the money of --worth and --cost"
    known = found.attrs["provenance"].get("units", {})
    name = str(values.attrs.get("outcome", ""))
    return f"{name}, {known[name]}" if name in known else "outcome units"


def counted(table: pd.DataFrame) -> pd.DataFrame:
    """Count the units of each plan that `best` chose, most first, those with doubts apart."""
    known = ("unit", "value", "lo", "hi", "supported", *(["cost"] if table.attrs["priced"] else []))
    levels = [str(name) for name in table if name not in known]
    told = {"units": ("unit", "size"), "value": ("value", "sum")}
    if table.attrs["priced"]:
        told["cost"] = ("cost", "sum")
    if "supported" in table:
        table = table.assign(doubt=~table["supported"])
        told["not supported"] = ("doubt", "sum")
    # Of a total, 0 is no mark: that it is above says nothing.
    if "lo" in table and table.attrs["of"].split("_")[-1] != "total":
        table = table.assign(zero=(table["lo"] <= 0) & (table["hi"] >= 0))
        told["interval holds 0"] = ("zero", "sum")
    found: Any = table.groupby(levels, as_index=False).agg(**told)
    return found.sort_values("units", ascending=False)


def at_the_end(path: Path, table: pd.DataFrame) -> list[str]:
    """Say which axes of numbers end at the level that `best` chose for units: more of it may be better still.

    A level of 0 is an end that nothing lies beyond, of two levels both are ends, and where values have intervals only
    those that do not hold 0 count.
    """
    found, said = store.read(path), []
    if "lo" in table and table.attrs["of"].split("_")[-1] != "total":
        table = frames.where(table, ((table["lo"] > 0) | (table["hi"] < 0)).to_numpy())
    for name in (str(name) for name in table if str(name) in found.coords and name != "unit"):
        levels = found[name].values
        if levels.dtype.kind not in "iuf" or len(np.unique(levels)) < 3:
            continue
        for end in (levels.min(), levels.max()):
            units = int(np.count_nonzero(table[name] == end))
            if end and units:
                said.append(f"{units:,} get {name} {end:g}, where the grid ends")
    return said


def warnings_of(table: pd.DataFrame, told: Mapping[str, Any]) -> list[str]:
    """Give a sweep's warnings that concern the plans chosen, where the sweep tells which plans are supported.

    Those of the grid's worst points speak of plans that may have been passed over; those of actions hold where a plan
    that is chosen is not supported; all else holds for every plan.
    """
    known = "supported" in table
    left = set(told.get("of_points", [])) if known else set()
    if known and np.asarray(table["supported"]).all():
        left |= set(told.get("of_actions", []))
    return [line for line in told.get("warnings", []) if line not in left]


def _luck(found: xr.Dataset) -> dict[str, bool]:
    """Find the dimensions of nothing but seeds and members, which are no plans, and whether they hold members.

    Raises:
        UserError: horizons, which are no plans either.
    """
    axes: dict[str, dict[str, str]] | None = found.attrs["sweep"].get("axes")
    if axes is None:
        raise UserError("the sweep was made by an earlier version; sweep again")
    if any(sweeping.HORIZON in columns for columns in axes.values()):
        raise UserError("a horizon is no plan to choose; sweep with one horizon")
    kinds = {
        dim: {"member" if name == sweeping.MEMBER else kind for name, kind in columns.items()}
        for dim, columns in axes.items()
    }
    return {dim: "member" in own for dim, own in kinds.items() if own <= {"seed", "member"}}


def _values(found: xr.Dataset, outcome: str | None) -> xr.DataArray:
    """Find what plans are worth to units."""
    grid = set(found.attrs["sweep"]["grid"])
    for value in VALUES:
        names = [n for n in found.data_vars if str(n).split("_")[-1] == value and grid <= set(found[n].dims)]
        if names:
            break
    else:
        raise UserError("the sweep did not keep every plan; sweep with --reduce full, gain.full or profit.full")
    values = found[names[0]]
    if "outcome" in values.dims:
        known = [str(x) for x in values["outcome"].values]
        if outcome is None and len(known) > 1:
            raise UserError(f"say which --outcome; there are {', '.join(known)}")
        if outcome is not None and outcome not in known:
            raise UserError(f"no outcome {outcome!r}; there are {', '.join(known)}")
        at = 0 if outcome is None else known.index(outcome)
        values = values.isel(outcome=at, drop=True).assign_attrs(outcome=known[at])
    if "unit" not in values.dims:
        raise UserError("the sweep has no units to choose plans for")
    return values


def _costs(
    found: xr.Dataset, gain: xr.DataArray, cost: str, dims: list[Any], budget: float | None
) -> np.ndarray | None:
    """Lay out what each plan costs each unit: `[plans, units]`, or nothing where neither prices nor costs are known."""
    own = [n for n in found.data_vars if str(n).split("_")[-1] == "cost" and set(found[n].dims) >= {*dims, "unit"}]
    if own and not cost:
        paid = found[own[0]]
        paid = paid.mean([d for d in paid.dims if d not in (*dims, "unit")], skipna=False)
        return _plans_by_units(paid, dims).values.astype(np.float64)
    if not cost:
        if budget is None:
            return None
        raise UserError('a budget needs costs; give prices of the axes, --cost "coupon=0.5", or sweep with cost.full')
    total = np.zeros(gain.sizes["plan"])
    for name, price in prices(cost, "cost"):
        if name not in _axes(found, dims):
            raise UserError(f"no axis {name!r} to price; there are {', '.join(_axes(found, dims))}")
        total += price * np.asarray(gain[name].values, np.float64)
    return np.broadcast_to(total[:, None], (len(total), gain.sizes["unit"])).copy()


def _supported(marks: xr.DataArray, values: xr.DataArray, dims: list[Any]) -> np.ndarray:
    """Lay the sweep's marks out as the plans are, along dimensions that no plan reads too."""
    plain = xr.DataArray(marks.values, dims=marks.dims)
    sizes = {d: values.sizes[d] for d in dims if d not in marks.dims}
    return plain.expand_dims(sizes).stack(plan=dims).transpose("plan", "unit").values.astype(bool)  # noqa: PD013


def _plans_by_units(values: xr.DataArray, dims: list[Any]) -> xr.DataArray:
    return values.stack(plan=dims).transpose("plan", "unit")  # noqa: PD013 - an xarray


def _axes(found: xr.Dataset, dims: list[Any]) -> list[str]:
    return [str(name) for name, c in found.coords.items() if c.dims and c.dims[0] in dims]
