"""What a cause that the table does not know would have to be like, to make all of an average effect.

Measured at the fit, by linear regressions on the train rows that are comparable under the action's usual contrast: what
they leave of each outcome and of the action, and how known columns go with both, as yardsticks. The action's own past
is none: it tells the action as nothing hidden does. See `wmjax.evaluate.sensitivity`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from wmjax.data.frame import Frame
from wmjax.data.schema import Column, PanelSchema
from wmjax.evaluate import sensitivity
from wmjax.evaluate.overlap import OverlapReport, typical_contrast
from wmjax.evaluate.sensitivity import Group
from wmjax.worlds.consumer import support
from wmjax.worlds.consumer.rows import Rows, some_rows

MOST_ROWS = 40_000


def fit(rows: Rows, reports: Mapping[str, OverlapReport], *, frame: Frame, schema: PanelSchema) -> dict[str, Any]:
    """Measure on train rows, as facts that JSON can hold.

    Returns:
        Of each action that is not determined and has comparable rows enough: `own`, the variance that is left of it;
        and by outcome `left`, the variance that is left, and `groups`, the yardsticks: name, partial R2 with the
        outcome and with the action.
    """
    found: dict[str, Any] = {}
    for at, (name, report) in enumerate(reports.items()):
        if report.deterministic:
            continue
        ends = typical_contrast(rows.actions[:, at], kind=schema.column(name).kind)
        chosen = np.flatnonzero(report.supported(support.given(rows, at), *ends))
        chosen = chosen[some_rows(len(chosen), MOST_ROWS)]
        if len(chosen) < 2:
            continue
        visible, names = rows.visible[chosen], list(reports)
        known = sensitivity.known(
            {g.name: visible[:, g.slice] for g in frame.visible.groups},
            {n: rows.actions[chosen, k] for k, n in enumerate(names)},
            list(rows.outcomes[chosen].T),
            own={name: [f.name for f in frame.features if f.column == name]},
        )
        if known is not None and known.actions[at] > 0:
            each = zip(schema.names("outcome"), known.outcomes, known.groups[at], strict=True)
            found[name] = {
                "own": known.actions[at],
                "outcomes": {o: {"left": left, "groups": [list(g) for g in groups]} for o, left, groups in each},
            }
    return found


def beside(table: pd.DataFrame, facts: Mapping[str, Any], column: Column) -> pd.DataFrame:
    """Put what a hidden cause would have to be like beside average effects.

    Args:
        table: of `ConsumerWorld.ate`: averages of one action.
        facts: of the world.
        column: the action's.

    Returns:
        The table with, where all rows are averaged on the response scale and some of them are supported: `robustness`,
        the share of what is left of outcome and action, of both, that a hidden cause must explain to make all of the
        effect; `robustness_interval`, to let the interval hold 0 (0 where it does); `times_known`, of which multiple of
        the strength of `known_columns` one could make it: the least of all known groups. Missing elsewhere, and for an
        action that was drawn by chance, which has no hidden cause.
    """
    measured = {} if column.randomised else facts.get("hidden", {}).get(column.name, {})
    made = []
    for row in table.to_dict("records"):
        one = {"robustness": np.nan, "robustness_interval": np.nan, "times_known": np.nan, "known_columns": ""}
        whole = row["scale"] == "response" and row["segment"] == "all" and row["supported_share"] > 0
        if measured and whole and row["t0"] != row["t1"]:
            own = measured["outcomes"][row["outcome"]]
            size = abs(row["t1"] - row["t0"]) * np.sqrt(own["left"] / measured["own"])
            weakest = sensitivity.weakest(row["effect"], size, [Group(*group) for group in own["groups"]])
            nearest = max(row["lo"], -row["hi"], 0.0) if np.isfinite(row["lo"]) else np.nan
            one = {
                "robustness": float(sensitivity.robustness(row["effect"], size)),
                "robustness_interval": float(sensitivity.robustness(nearest, size)),
                "times_known": weakest.times,
                "known_columns": weakest.name,
            }
        made.append(one)
    return table.join(pd.DataFrame(made, index=table.index))
