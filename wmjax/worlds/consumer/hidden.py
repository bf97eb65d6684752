"""What a cause that the table does not know would have to be like, to explain an average effect away.

Measured at the fit on train rows: how much of each outcome a linear regression leaves, which is no less than the world
itself leaves, so that no effect looks sturdier than it is; and the strongest known cause of each action and outcome,
as the yardstick. Actions that were drawn by chance have no hidden cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from wmjax.core.visible import Visible
from wmjax.data.schema import Column, PanelSchema
from wmjax.evaluate import sensitivity
from wmjax.evaluate.overlap import OverlapReport
from wmjax.evaluate.sensitivity import Cause
from wmjax.worlds.consumer.rows import Rows, some_rows

MOST_ROWS = 40_000
COLUMNS = ("robustness", "robustness_interval", "times_known", "known_cause")


class Hidden(NamedTuple):
    """What bounds need.

    left: variance of each outcome that is left. squares: [rows], the representer's expected square. causes: the
    strongest known one of each outcome.
    """

    left: tuple[float, ...]
    squares: Float[np.ndarray, " rows"]
    causes: tuple[Cause, ...]


def fit(rows: Rows, *, visible: Visible, schema: PanelSchema) -> dict[str, Any]:
    """Measure the known causes on train rows, as facts that JSON can hold."""
    chosen = some_rows(len(rows), MOST_ROWS)
    groups = {g.name: rows.visible[chosen][:, g.slice] for g in visible.groups}
    actions = {name: rows.actions[chosen, at] for at, name in enumerate(schema.names("action"))}
    names = schema.names("outcome")
    found = sensitivity.known_causes(groups, actions, list(rows.outcomes[chosen].T))
    causes = [dict(zip(names, map(list, of), strict=True)) for of in found.strongest]
    return {"left": dict(zip(names, found.left, strict=True)), "causes": dict(zip(actions, causes, strict=True))}


def bound(
    facts: Mapping[str, Any], column: Column, report: OverlapReport, rows: Rows, given: np.ndarray, T0: Any, T1: Any
) -> Hidden | None:
    """Lay out what bounds an effect of these rows; None where nothing hidden can have moved the action, or all of it is
    determined.

    Args:
        facts: of the world.
        column, report: the action's.
        rows, given: those asked about, and what a contrast holds fixed of them.
    """
    known = facts.get("hidden")
    if known is None or column.randomised or report.deterministic or T0 == T1:
        return None
    if report.binary:
        squares = sum(1 / np.maximum(report.share_like(given, v), report.least(v)) for v in (T0, T1))
    else:
        # Of an effect that is linear in the dose: what of the action is its own tells it.
        own = rows.actions[:, list(facts["hidden"]["causes"]).index(column.name)].var() * (1 - max(report.score, 0.0))
        squares = np.full(len(rows), (T1 - T0) ** 2 / max(own, 1e-30))
    causes = tuple(Cause(*cause) for cause in known["causes"][column.name].values())
    return Hidden(tuple(known["left"].values()), np.asarray(squares, np.float64), causes)


def columns(table: pd.DataFrame, squares: Float[np.ndarray, " levels"], hidden: Hidden | None) -> pd.DataFrame:
    """Add to a table of averages on the response scale what a hidden cause would have to be like.

    Args:
        table: outcome by outcome, level by level: effect, lo, hi.
        squares: mean of `Hidden.squares` over each level's rows.
        hidden: None leaves all unknown.

    Returns:
        `robustness`: the share of what is left of outcome and action, of both, that a hidden cause must explain to take
        the effect away; `robustness_interval`, to let the interval hold 0 (0 where it does); `times_known`: how many
        times as strong it must be as `known_cause`, the strongest that the table knows.
    """
    if hidden is None:
        return table.assign(**dict.fromkeys(COLUMNS[:3], np.nan), known_cause="")
    levels = len(squares)
    size = np.sqrt(np.repeat(hidden.left, levels) * np.tile(squares, len(hidden.left)))
    effect, lo, hi = (table[name].to_numpy(np.float64) for name in ("effect", "lo", "hi"))
    nearest = np.where(lo > 0, lo, np.where(hi < 0, -hi, np.where(np.isnan(lo), np.nan, 0.0)))
    times = [
        sensitivity.times_as_strong(effect[at], size[at], hidden.causes[at // levels]) for at in range(len(effect))
    ]
    return table.assign(
        robustness=sensitivity.robustness(effect, size),
        robustness_interval=sensitivity.robustness(nearest, size),
        times_known=np.array(times, np.float64),
        known_cause=np.repeat([cause.name for cause in hidden.causes], levels),
    )
