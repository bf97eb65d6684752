"""What `wmjax best` does: the best plan for each unit, or each segment, from a sweep that kept every plan's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float

from wmjax.core.errors import UserError
from wmjax.evaluate import policy
from wmjax.report import frames
from wmjax.report.sweeping import prices
from wmjax.sweep import plan_reading, store
from wmjax.sweep.plans import EVERYONE, Axis, near
from wmjax.sweep.reduce import Segments
from wmjax.worlds import sweep_checks, sweep_segments
from wmjax.worlds.consumer.intervals import bounds, quantiles
from wmjax.worlds.sweep_segments import REACHED

TAKEN = ("unit", "units", "value", "cost", "lo", "hi", "supported", "supported_share")
"""Names of the columns of a table of choices."""

TIE = 1e-6
"""Of the largest value, by which two that differ are equal."""
VALUES = ("profit", "gain", "total")


class Targets(NamedTuple):
    """Who is given a plan, units or segments, and what each plan brings them.

    names: of them. units: how many each one is. gain, cost: of each plan; `members` of each member, None where the
    sweep has none. supported: the share of its units for which a plan is supported; None where the sweep does not tell.
    reached: whether a plan may change any of its units; None where all may.
    """

    names: np.ndarray
    units: np.ndarray
    gain: Float[np.ndarray, "plans targets"]
    cost: Float[np.ndarray, "plans targets"]
    members: Float[np.ndarray, "members plans targets"] | None
    supported: Float[np.ndarray, "plans targets"] | None
    reached: Bool[np.ndarray, "plans targets"] | None

    def take(self, keep: Bool[np.ndarray, " targets"]) -> Targets:
        own: Any = (None if x is None else x[..., keep] for x in self)
        return Targets(*own)


def best(
    path: Path,
    *,
    budget: float | None = None,
    cost: str = "",
    outcome: str | None = None,
    by: str | None = None,
    solver: Literal["greedy", "exact"] | None = None,
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
        by: a static column that the sweep has labelled its units with: one plan for all units of a level, whose values
            and costs are sums over them; `all` is one plan for all units.
        solver: `"greedy"`, within one step of the best, or `"exact"`; by default greedy for units, exact for segments,
            of which one step is much.
        supported_only: pass over plans that go, for the unit or any unit of the segment, beyond what the data speak
            for; those that have no other get none.
        alpha: of the intervals.

    Returns:
        A table of units (`by`: of segments, and how many `units` each has), their plan's levels (none where no plan
        that is for them is worth more than to leave them as they were) and value, its cost
        where costs are known, whether it is `supported` where the sweep tells (of a segment for all of its units;
        `supported_share` of them), and `lo` and `hi` of its value where the sweep has members, by Student's t over
        them, as if the plan had not been chosen for its value; without units absent in the sweep's periods, or that no
        plan reaches; among its attributes `of`, the sweep's variable, `unit`, in what the values are, `priced`, whether
        costs are known, `by`, `targets`, how many units or segments there are to be given a plan, `left`, how many of
        them are left as they were for want of a plan of their own that is worth more, and `total`, bounds
        of the sum over them where the sweep has members. And the allocation.
    """
    found = _there(store.read(path))
    values = _values(found, outcome)
    luck = _luck(found)
    dims = [d for d in values.dims if d != "unit" and d not in luck]
    gain = _plans_by_units(values.mean([d for d in luck if d in values.dims], skipna=False), dims)
    priced = _costs(found, values, gain, cost, dims, budget)
    who = Targets(
        gain["unit"].values.astype(object),
        np.ones(gain.sizes["unit"], int),
        gain.values.astype(np.float64),
        np.zeros(gain.shape) if priced is None else priced,
        _by_member(values, luck, dims),
        None if "supported" not in found else _marks(found["supported"], values, dims).astype(np.float64),
        None if REACHED not in found else _marks(found[REACHED], values, dims),
    )
    if by in TAKEN:
        raise UserError(f"a column named {by!r} cannot be told from the table's own; rename it to choose by it")
    if by is not None:
        who = _grouped(who, _labels(found, by), by)
    everyone = len(who.names)
    if supported_only:
        who = _supported_alone(who, by)
        # Worse and dearer than any other, so that no method takes it.
        worth = np.where(who.supported == 1, who.gain, who.gain.min() - 1.0)
        paid = np.where(who.supported == 1, who.cost, who.cost.max() + 1.0)
    else:
        worth, paid = who.gain, who.cost
    limit = float(paid.max(0).sum()) if budget is None else budget
    chosen = getattr(policy, solver or ("greedy" if by is None else "exact"))(worth, paid, limit)
    at = np.arange(len(who.names))
    if who.reached is not None:
        plan = _own(chosen.plan, who.reached, worth, paid)
        chosen = chosen._replace(plan=plan, gain=float(worth[plan, at].sum()), cost=float(paid[plan, at].sum()))
    table = pd.DataFrame({"unit": who.names} if by is None else {by: who.names, "units": who.units})
    left = None if who.reached is None else ~who.reached[chosen.plan, at]
    for name in _axes(found, dims):
        table[name] = _levels(gain[name].values[chosen.plan], left)
    table["value"] = who.gain[chosen.plan, at]
    if priced is not None:
        table["cost"] = who.cost[chosen.plan, at]
    if who.members is not None:
        own, told = who.members[:, chosen.plan, at], quantiles if found.attrs["provenance"].get("drawn") else bounds
        table["lo"], table["hi"] = told(own, alpha)
        whole = told(own.sum(-1, dtype=np.float64, keepdims=True), alpha)
        table.attrs["total"] = tuple(float(end[0]) for end in whole)
    if who.supported is not None:
        share = who.supported[chosen.plan, at]
        table["supported"] = share == 1
        if by is not None:
            table["supported_share"] = share
    table.attrs["left"] = 0 if left is None else int(left.sum())
    table.attrs["of"], table.attrs["priced"] = str(values.name), priced is not None
    table.attrs["unit"], table.attrs["targets"], table.attrs["by"] = _unit(found, values), everyone, by
    return table, chosen


def _own(plan: np.ndarray, reached: np.ndarray, worth: np.ndarray, paid: np.ndarray) -> np.ndarray:
    """Give those whose plan is not for them one of their own that is worth as much and costs no more, if there is one.

    It changes as little for them: their own plan is then what was done, which is told to rounding.
    """
    at, out = np.arange(len(plan)), plan.copy()
    same = reached & (worth >= worth[plan, at] - TIE * np.abs(worth).max()) & (paid <= paid[plan, at])
    swap = ~reached[plan, at] & same.any(0)
    out[swap] = same.argmax(0)[swap]
    return out


def _levels(levels: np.ndarray, left: Bool[np.ndarray, " targets"] | None) -> pd.Series:
    """Give the levels that are chosen; none to those who are left as they were, by a plan that is not for them."""
    if left is None or not left.any():
        return pd.Series(levels)
    return pd.Series(levels, dtype="Int64" if levels.dtype.kind in "iu" else None).mask(left)


def _there(found: xr.Dataset) -> xr.Dataset:
    """Leave out units absent in the sweep's periods, and those that no plan of the grid reaches."""
    if "unit" not in found.dims:
        return found
    absent = set(found.attrs["provenance"].get("absent", []))
    keep = np.array([str(u) not in absent for u in found["unit"].values])
    if sweep_segments.REACHED in found:
        keep &= found[sweep_segments.REACHED].values.astype(bool).reshape(-1, len(keep)).any(0)
    return found.isel(unit=keep)


def each_unit(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Give the units of a segment, chosen by `best`, a row each with the segment's plan."""
    by, found = table.attrs["by"], _there(store.read(path))
    if by is None:
        return table
    units = pd.DataFrame({"unit": found["unit"].values.astype(object), by: _labels(found, by)})
    rows = units.merge(table, on=by)
    rows.attrs = table.attrs
    return rows


def unreached(found: xr.Dataset) -> int:
    """Count the units, of those with a row, that no plan of the grid reaches."""
    if "unit" not in found.dims or sweep_segments.REACHED not in found:
        return 0
    there = found.sizes["unit"] - len(found.attrs["provenance"].get("absent", []))
    return there - _there(found).sizes["unit"]


def _labels(found: xr.Dataset, by: str) -> np.ndarray:
    """Read the units' levels of a static column; `all` is everyone.

    Raises:
        UserError: a column that the sweep did not label its units with.
    """
    known = [str(name) for name, own in found.coords.items() if own.dims == ("unit",) and name != "unit"]
    if by == EVERYONE and by not in known:
        return np.full(found.sizes["unit"], EVERYONE, object)
    if by not in known:
        raise UserError(f"the sweep's units have no {by!r} to choose by; {near(by, known) if known else 'none at all'}")
    return np.asarray(found[by].values, object)


def _grouped(who: Targets, labels: np.ndarray, by: str) -> Targets:
    """Sum what plans bring to units over those of each label; its plans are supported for a share of them.

    Raises:
        UserError: plans that are for some of a label's units, and so no plans for all of them.
    """
    segments = Segments.of(labels.tolist())
    member = segments.indicator().astype(np.float64)
    units = member.sum(0).astype(int)
    inside = np.zeros(1) if who.reached is None else who.reached @ member
    if ((inside > 0) & (inside < units)).any():
        raise UserError(
            f"the sweep's plans are for other segments than the levels of {by}, and so for a part of some of them; "
            "choose by the column of --by of the sweep, or sweep without an axis of segments"
        )
    return Targets(
        np.array(segments.names, object),
        units,
        who.gain @ member,
        who.cost @ member,
        None if who.members is None else who.members @ member,
        None if who.supported is None else (who.supported @ member) / units,
        None if who.reached is None else (who.reached @ member) > 0,
    )


def _supported_alone(who: Targets, by: str | None) -> Targets:
    """Leave out those for whom no plan is supported.

    Raises:
        UserError: no one is left, or the sweep does not tell.
    """
    if who.supported is None:
        raise UserError("the sweep does not tell which plans are supported; sweep fewer plans, with --reduce full")
    had = (who.supported == 1).any(0)
    if not had.any():
        whom = "no unit" if by is None else f"no level of {by}"
        more = "" if by is None else ": none is for all of its units; without --supported-only, see supported_share"
        raise UserError(f"{whom} has a supported plan in this sweep{more}")
    return who.take(had)


def _by_member(values: xr.DataArray, luck: Mapping[Any, bool], dims: list[Any]) -> np.ndarray | None:
    """Lay out what each plan brings by each member, `[members, plans, units]`; None where there are not two."""
    members = [d for d, has_members in luck.items() if has_members and d in values.dims]
    if not members or not all(values.sizes[d] > 1 for d in members):
        return None
    each = values.mean([d for d in luck if d in values.dims and d not in members], skipna=False)
    return each.stack(one=members).stack(plan=dims).transpose("one", "plan", "unit").values  # noqa: PD013


def _unit(found: xr.Dataset, values: xr.DataArray) -> str:
    """Say in what the values are: that of the outcome, or of the prices."""
    if str(values.name).split("_")[-1] == "profit":
        return "the money of --worth and --cost"
    known = found.attrs["provenance"].get("units", {})
    name = str(values.attrs.get("outcome", ""))
    return f"{name}, {known[name]}" if name in known else "outcome units"


def counted(table: pd.DataFrame) -> pd.DataFrame:
    """Count the rows of each plan that `best` chose, most first, those with doubts apart."""
    known = {"unit", "units", "value", "lo", "hi", "supported", "supported_share", table.attrs["by"]}
    known |= {"cost"} if table.attrs["priced"] else set()
    levels = [str(name) for name in table if name not in known]
    told = {"units": ("value", "size"), "value": ("value", "sum")}
    if table.attrs["priced"]:
        told["cost"] = ("cost", "sum")
    if "supported" in table:
        table = table.assign(doubt=~table["supported"])
        told["not supported"] = ("doubt", "sum")
    # Of a total, 0 is no mark: that it is above says nothing.
    if "lo" in table and table.attrs["of"].split("_")[-1] != "total":
        table = table.assign(zero=(table["lo"] <= 0) & (table["hi"] >= 0))
        told["interval holds 0"] = ("zero", "sum")
    found: Any = table.groupby(levels, as_index=False, dropna=False).agg(**told)
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
            units = int((table[name] == end).sum())
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
    if any(sweep_checks.HORIZON in columns for columns in axes.values()):
        raise UserError("a horizon is no plan to choose; sweep with one horizon")
    kinds = {
        dim: {"member" if name == sweep_checks.MEMBER else kind for name, kind in columns.items()}
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
    found: xr.Dataset, values: xr.DataArray, gain: xr.DataArray, cost: str, dims: list[Any], budget: float | None
) -> np.ndarray | None:
    """Lay out what each plan costs each unit: `[plans, units]`, or nothing where neither prices nor costs are known."""
    own = [n for n in found.data_vars if str(n).split("_")[-1] == "cost" and set(found[n].dims) >= {*dims, "unit"}]
    if own and not cost:
        paid = found[own[0]]
        paid = paid.mean([d for d in paid.dims if d not in (*dims, "unit")], skipna=False)
        return _plans_by_units(paid, dims).values.astype(np.float64)
    if not cost and budget is None:
        return None
    relative = _relative(found)
    if not cost:
        numbers = [n for n in _axes(found, dims) if found[n].dtype.kind in "iuf" and n not in relative]
        price = f'give prices of the axes, --cost "{numbers[0]}=0.5", or ' if numbers else ""
        raise UserError(f"a budget needs costs; {price}sweep again with cost.full and prices of actions")
    total = np.zeros(gain.sizes["plan"])
    for name, price in prices(cost, "cost"):
        if name not in _axes(found, dims):
            raise UserError(f"no axis {name!r} to price; there are {', '.join(_axes(found, dims))}")
        if name in relative:
            mend = (
                "leave --cost out, the sweep has costs" if own else "sweep again with cost.full and prices of actions"
            )
            raise UserError(f"axis {name!r} is no amount of an action, and has no price: {mend}")
        total += price * np.asarray(gain[name].values, np.float64)
    paid = np.broadcast_to(total[:, None], (len(total), gain.sizes["unit"])).copy()
    # A plan of some units costs nothing for others.
    return paid * _marks(found[REACHED], values, dims) if REACHED in found else paid


def _relative(found: xr.Dataset) -> set[str]:
    """Name the axes by which plans multiply or move what was done."""
    edits = plan_reading.read_plan(found.attrs["provenance"].get("edits", []))
    read = (getattr(edit, name, None) for edit in edits for name in ("factor", "share", "periods"))
    return {x.name for x in read if isinstance(x, Axis)}


def _marks(marks: xr.DataArray, values: xr.DataArray, dims: list[Any]) -> np.ndarray:
    """Lay the sweep's marks out as the plans are, along dimensions that no plan reads too."""
    plain = xr.DataArray(marks.values, dims=marks.dims)
    sizes = {d: values.sizes[d] for d in dims if d not in marks.dims}
    return plain.expand_dims(sizes).stack(plan=dims).transpose("plan", "unit").values.astype(bool)  # noqa: PD013


def _plans_by_units(values: xr.DataArray, dims: list[Any]) -> xr.DataArray:
    return values.stack(plan=dims).transpose("plan", "unit")  # noqa: PD013 - an xarray


def _axes(found: xr.Dataset, dims: list[Any]) -> list[str]:
    return [str(name) for name, c in found.coords.items() if c.dims and c.dims[0] in dims]
