"""Where a world's effects are supported: the overlap of each action given the history and the other actions.

A contrast keeps the belief and the other actions of a row, so like rows are those alike in both; where two actions
always come together, neither has a row without the other to compare with. A plan that moves several actions is asked
of their combination too: the regressions behind each action's overlap know of two actions only how they go together
on the whole, so that a pair seen three times may pass them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from wmjax.core.observe import Event, Observer, silent
from wmjax.core.visible import UnitKind, Visible
from wmjax.data.schema import Column, PanelSchema
from wmjax.evaluate import overlap, together
from wmjax.evaluate.overlap import OverlapReport
from wmjax.evaluate.together import Together
from wmjax.worlds.consumer.rows import Rows

LEVELS = 64
"""Values of an action at which a plan's support is looked up, where it has more."""
FEW_ROWS, FEW_UNITS = 100, 30
"""A binary action's rarer value is told of where it has fewer, and any action whose comparable rows count for fewer
than the first: an interval rests on how these few happened to be."""
TOLD = 0.65
"""Cross-fitted AUC from which an action is no coin's: one of a few hundred rows reaches .6 by luck."""


def given(rows: Rows, at: int) -> Float[np.ndarray, "rows columns"]:
    """Lay out what a contrast of action `at` holds fixed: the visible units, then the other actions."""
    return np.concatenate([rows.visible, np.delete(rows.actions, at, axis=1)], axis=1)


def layer(visible: Visible, schema: PanelSchema, at: int) -> Visible:
    """Name the columns of `given`."""
    parts: list[tuple[str, UnitKind, tuple[str, ...]]] = [(g.name, g.kind, g.labels) for g in visible.groups]
    for i, name in enumerate(schema.names("action")):
        if i != at:
            parts.append(
                (f"action {name}", "bernoulli" if schema.column(name).kind == "binary" else "gaussian", (name,))
            )
    return Visible.pack(parts)


def fit(rows: Rows, *, visible: Visible, schema: PanelSchema, observer: Observer = silent) -> dict[str, OverlapReport]:
    """Fit every action's overlap on train rows.

    Args:
        rows: the train rows.
        visible: the layer of `rows.visible`.
        schema: of the panel.
        observer: told of progress.
    """
    names, found = schema.names("action"), {}
    for at, name in enumerate(names):
        observer(Event("support", at, len(names), unit="action"))
        found[name] = overlap.fit_overlap(
            name,
            given(rows, at),
            rows.actions[:, at],
            kind=schema.column(name).kind,
            visible=layer(visible, schema, at),
        )
    observer(Event("support", len(names), len(names), unit="action"))
    return found


def fit_together(rows: Rows, reports: Mapping[str, OverlapReport], *, schema: PanelSchema) -> Together:
    """Count on train rows how actions come together; like rows are those alike in the reports' propensities."""
    return together.fit(
        rows.actions,
        rows.visible,
        np.stack([report.model.coefficients[: rows.visible.shape[1]] for report in reports.values()]),
        kinds=[schema.column(name).kind for name in reports],
        widths=[report.width for report in reports.values()],
        settled=[report.deterministic for report in reports.values()],
    )


def rarer(rows: Rows, *, schema: PanelSchema) -> dict[str, tuple[int, int, int]]:
    """Count what the train rows have of each binary action's rarer value: the value, its rows, their units."""
    found = {}
    for at, name in enumerate(schema.names("action")):
        if schema.column(name).kind == "binary":
            on = rows.actions[:, at] > 0.5
            value = int(on.mean() < 0.5)
            chosen = on == value
            found[name] = (value, int(chosen.sum()), len(np.unique(rows.unit[chosen])))
    return found


def warnings_of_plans(
    reports: Mapping[str, OverlapReport],
    joint: Together,
    rows: Rows,
    *plans: Float[np.ndarray, "unit time action"],
    facts: Mapping[str, Any],
) -> list[str]:
    """Say of which actions plans move rows to values that the data cannot speak for, each thing once.

    Args:
        reports: of every action, in the panel's order.
        joint: how the actions come together.
        rows: as observed; what a later period's history would be under the plan is not known here.
        plans: the whole panel's actions.
        facts: of the world.
    """
    found: list[str] = []
    strata = joint.strata_of(rows.visible)
    for plan in plans:
        planned = np.asarray(plan)[rows.unit, rows.time]
        moves = (planned != rows.actions).any(0)
        found += reasons(reports, facts, [name for name, moved in zip(reports, moves, strict=True) if moved])
        beyond = alone(reports, rows, planned) | joint.apart(planned, planned != rows.actions, strata)
        counts = beyond.sum(0), (planned != rows.actions).sum(0)
        for name, few, moved in zip(reports, *counts, strict=True):
            if few:
                found.append(
                    f"{name}: {few:,} of the {moved:,} rows that the plan moves have no like row at its value, or "
                    "too few at what it combines; there the answer is extrapolated"
                )
    return list(dict.fromkeys(found))


def warnings_of_effect(
    column: Column, report: OverlapReport, supported: np.ndarray, *, members: int, facts: Mapping[str, Any]
) -> list[str]:
    """Say in words why an effect of an action is not to be believed, where it is not.

    Args:
        column: the action's.
        report: its overlap.
        supported: bool [rows], of those that the effect is of.
        members: of the ensemble.
        facts: of the world.
    """
    action = column.name
    found = reasons({action: report}, facts, (action,))
    if not report.deterministic and not supported.all():
        left = "averages leave them out" if supported.any() else "so is every average"
        found.append(
            f"{action}: {np.count_nonzero(~supported):,} of {supported.size:,} rows have no overlap; there the "
            f"effect is extrapolated, and {left}"
        )
    # A propensity in a column may well follow from what came before: that is what it is for. And a coin tossed once a
    # period for all units is found in other rows of the same period, whatever came before.
    chance = column.randomised and not isinstance(column.propensity, str)
    if chance and action not in facts.get("common_actions", {}) and report.score > TOLD:
        found.append(
            f"{action}: declared randomised, but what came before it tells it (AUC {report.score:.2f}, .5 is a "
            "coin); without chance `wmjax policy` judges wrongly, so check the declaration"
        )
    if members < 3:
        found.append(f"{members} member(s) give no trustworthy interval; fit with 3 or more")
    return found


def unless_missing(actions: Sequence[str]) -> str:
    """Say what effects of actions stand on that were not drawn by chance."""
    if len(actions) == 1:
        return (
            f"{actions[0]} is not declared randomised: this is an effect only if nothing that moved both it and an "
            "outcome is missing from the table"
        )
    return (
        f"{', '.join(actions)} are not declared randomised: these are effects only if nothing that moved both an "
        "action and an outcome is missing from the table"
    )


def circumstances(column: Column, values: Float[np.ndarray, " rows"], t1: float) -> list[str]:
    """Say what any effect of an action stands on: how it was chosen, and which values the rows had.

    Args:
        column: the action's.
        values: of the rows that are asked about.
        t1: the value asked.
    """
    name, found = column.name, []
    if not column.randomised:
        found.append(unless_missing([name]))
    if column.kind == "binary":
        found.append(f"{name} was {t1:g} in {np.count_nonzero(values == t1):,} of the {len(values):,} rows asked about")
    elif len(values):
        found.append(f"{name} was from {values.min():g} to {values.max():g} in the {len(values):,} rows asked about")
    return found


def reasons(reports: Mapping[str, OverlapReport], facts: Mapping[str, Any], moved: Collection[str]) -> list[str]:
    """Say of moved actions why no answer about them is to be believed as it stands.

    Args:
        reports: of every action.
        facts: of the world: `common_actions`, which fall on all units at once, and how many train periods tell of each;
            `luck`, whether intervals allow for shocks that a period's units share; `rarer`, see there.
        moved: names.
    """
    common, rarer = facts.get("common_actions", {}), facts.get("rarer", {})
    found = []
    for name in (name for name in reports if name in moved):
        report = reports[name]
        if report.deterministic:
            found.append(f"{name}: not identified, {report.reason}")
        elif name in common:
            luck = "its interval allows for" if facts.get("luck") else "its interval is too narrow, blind to"
            found.append(
                f"{name}: falls on all units at once; {common[name]:,} train periods with another value than most "
                f"often tell of it, not the rows; {luck} what befell these periods"
            )
        elif name in rarer and (rarer[name][1] < FEW_ROWS or rarer[name][2] < FEW_UNITS):
            value, rows, units = rarer[name]
            found.append(
                f"{name}: was {value} in {rows:,} of the rows learnt from, of {units:,} units; from so few an "
                "answer and its interval are rough"
            )
        elif report.ess < FEW_ROWS:
            found.append(
                f"{name}: the comparable rows learnt from tell as much as {report.ess:,.0f} drawn by a coin; from so "
                "few an average leans on the model"
            )
    return found


def alone(
    reports: Mapping[str, OverlapReport], rows: Rows, planned: Float[np.ndarray, "rows action"]
) -> Bool[np.ndarray, "rows action"]:
    """Mark, of each action that may be answered, the moved rows without a like row.

    Like rows are those alike in what the plan has the other actions do, by a regression; `Together.apart` counts.
    """
    found = np.zeros(planned.shape, bool)
    for at, report in enumerate(reports.values()):
        moved = planned[:, at] != rows.actions[:, at]
        if report.deterministic or not moved.any():
            continue
        like, values = given(replace(rows, actions=planned), at)[moved], planned[moved, at]
        levels = np.unique(values)
        if len(levels) > LEVELS:
            levels = np.unique(np.quantile(values, np.linspace(0, 1, LEVELS), method="nearest"))
        nearest = levels[np.abs(values[:, None] - levels).argmin(1)]
        few = np.zeros(len(values), bool)
        for v in levels.tolist():
            few[nearest == v] = report.share_like(like[nearest == v], v) < report.least(v)
        found[moved, at] = few
    return found
