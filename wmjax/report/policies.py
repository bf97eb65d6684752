"""What `wmjax policy` does: the policy that a sweep chooses, judged on held-out rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wmjax.core.errors import UserError
from wmjax.core.provenance import to_plain
from wmjax.data.panel import Panel
from wmjax.report import choosing
from wmjax.sweep import store
from wmjax.worlds import policies
from wmjax.worlds.consumer.world import ConsumerWorld
from wmjax.worlds.policies import Judged, Reward


def judged(
    world: ConsumerWorld, panel: Panel, sweep: Path, how: Mapping[str, Any], *, alpha: float
) -> tuple[Judged, str]:
    """Choose plans as `choosing.best` does, and judge them; also give in what their value is.

    Args:
        how: arguments of `choosing.best`.

    Raises:
        UserError: a sweep of another world, one with feedback, or one from before plans were kept with it.
    """
    about = dict(store.read(sweep).attrs)
    told = about["provenance"]
    if "edits" not in told:
        raise UserError(f"{sweep}: made by an earlier version; sweep again")
    if told["world"] != to_plain(dict(world.provenance)):
        raise UserError(f"{sweep}: a sweep of another world than the run's; sweep the run again")
    if told["setting"]["feedback"]:
        raise UserError(f"{sweep}: swept with --feedback; held-out rows tell of one period at a time, so sweep without")
    table, _ = choosing.best(sweep, alpha=alpha, **how)
    table = choosing.each_unit(sweep, table)
    setting, unit = told["setting"], str(table.attrs["unit"])
    worth, cost = np.zeros(len(panel.outcome_names)), np.zeros(len(panel.action_names))
    if table.attrs["of"].split("_")[-1] == "profit":
        for name, price in setting["worth"]:
            worth[panel.outcome_index(name)] = price
        for name, price in setting["cost"]:
            cost[panel.action_index(name)] = price
    else:
        worth[0 if how["outcome"] is None else panel.outcome_index(how["outcome"])] = 1.0
    own = policies.planned(panel, about, table)
    found = policies.judge(world, panel, own, setting["start"], Reward(worth, cost, unit), alpha=alpha)
    # What holds whatever is asked of the world holds of its own number here too.
    left = {*told.get("of_points", []), *told.get("of_actions", [])}
    return found._replace(warnings=[*found.warnings, *(w for w in told["warnings"] if w not in left)]), unit
