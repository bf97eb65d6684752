"""What the numbers of a world's sweep are, in words: names, units, and what they are over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wmjax.data.panel import Panel
from wmjax.sweep.grids import Grid

UNITS = {"binary": "probability", "currency": "currency"}
"""In what each kind of outcome is expected; of others in the outcome's own units."""
BASELINE = "what was done in the same periods, under the same luck"
MONEY = "money of the prices of outcomes and actions"
PERIODS = "summed over the periods asked for"


def units(panel: Panel) -> dict[str, str]:
    """Say in what each outcome is expected."""
    return {name: UNITS.get(panel.schema.column(name).kind, "outcome units") for name in panel.outcome_names}


def described(panel: Panel, grid: Grid, outcomes: Sequence[str], carry: int) -> dict[str, Mapping[str, str]]:
    """Describe the outputs of a sweep, what stands beside them, and the labels; `carry` as in `Setting`."""
    counted = f"{PERIODS} and {carry} after them" if carry else PERIODS
    known = {name: units(panel).get(name, "outcome units") for name in outcomes}
    same = set(known.values())
    unit = same.pop() if len(same) == 1 else "; ".join(f"{name}: {one}" for name, one in known.items())
    over = {"baseline": BASELINE}
    found: dict[str, Mapping[str, str]] = {
        "total": {"long_name": f"expected outcome under the plan, {counted}", "units": unit},
        "gain": {"long_name": f"expected outcome gained by the plan, {counted}", "units": unit} | over,
        "cost": {"long_name": f"cost of the plan's actions over those of what was done, {PERIODS}", "units": MONEY}
        | {"baseline": "what was done in the same periods"},
        "profit": {"long_name": f"worth of the plan's gain less its cost, {counted}", "units": MONEY} | over,
        "path": {"long_name": "expected outcome under the plan, in each period", "units": unit},
        "present": {"long_name": "whether the unit has a row in the periods; numbers of one that has none are 0"},
        "reached": {"long_name": "whether the plan may change the unit; others are left as they were"},
        "best_reached": {"long_name": "whether the best plan may change the unit; others are best left as they were"},
        "unit": {"long_name": f"unit of the panel, {panel.schema.unit or 'the only one'}"},
        "outcome": {"long_name": "outcome that is expected"},
        "time": {"long_name": f"period of the panel, {panel.schema.time or 'counted from 0'}"},
        "member": {"long_name": "member of the ensemble, or draw of what the data leave open"},
        "horizon": {"long_name": "how many of the periods are summed", "units": "periods"},
        "segment": {"long_name": "units that the plan is for"},
    }
    supported = {"long_name": "whether like data have seen all that the plan moves for the unit"}
    for column in grid.columns:
        if column.name in panel.action_names:
            kind = panel.schema.column(column.name).kind
            found[column.name] = {"long_name": f"{column.name}, as the plan sets it", "units": UNITS_OF.get(kind, "1")}
    for name in panel.static_names:
        found.setdefault(name, {"long_name": f"level of {name} of the unit; real values are cut at their quintiles"})
        found[f"by_{name}"] = {"long_name": f"units of a level of {name}, those with a row"}
    return found | {"supported": supported}


UNITS_OF = {"currency": "currency", "continuous": "units of the action", "count": "units of the action"}
"""In what each kind of action is counted; a bit and a category have none."""
