"""The headline: every effect that was asked for as a number, an interval and a sentence that a person can repeat."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from wmjax.report import frames
from wmjax.report.inputs import ReportInput
from wmjax.report.numbers import Amount, amount, as_float, number, percent, value_of
from wmjax.report.parts import Answer

# Below this share of comparable rows an answer speaks for a part of the rows only.
MOSTLY = 0.8
# Below this share it speaks for so few that it is no headline, however clear.
HARDLY = 0.1
# More headlines than this are no headlines; the section on average effects holds them all.
MOST_ANSWERS = 8


class Standing(NamedTuple):
    """Whether the data can tell: `supported`, `partly` or `not`, and why."""

    kind: str
    because: str


def standing_of(effect: Mapping[str, Any], overlap: Mapping[str, Any]) -> Standing:
    """Judge one effect by its own count of comparable rows and its action's row of the overlap table."""
    if bool(overlap.get("deterministic", False)):
        return Standing("not", str(overlap.get("reason") or "the action is a function of what came before it"))
    if not math.isfinite(as_float(effect.get("ate"))):
        return Standing("not", "no estimate could be made")
    rows, known = as_float(effect.get("n")), as_float(effect.get("n_supported"))
    if not rows > 0 or not math.isfinite(known):
        outside = as_float(overlap.get("share_outside"))
        rows, known = 1.0, 1.0 - outside
    if not math.isfinite(known):
        return Standing("partly", "overlap was not measured")
    share = known / rows
    if share <= 0:
        return Standing("not", "no row could have gone either way")
    if share < MOSTLY:
        return Standing("partly", f"speaks for {percent(share)} of rows only")
    return Standing("supported", f"{percent(share)} of rows are comparable")


def is_of_few(effect: Mapping[str, Any]) -> bool:
    """Say whether hardly any of an effect's rows are comparable; not where that was not counted."""
    return as_float(effect.get("n_supported")) < HARDLY * as_float(effect.get("n"))


def is_clear(effect: Mapping[str, Any]) -> bool:
    """Say whether an effect's interval lies on one side of zero."""
    return as_float(effect["lo"]) > 0 or as_float(effect["hi"]) < 0


def overlap_of(table: pd.DataFrame, action: str) -> dict[str, Any]:
    """Look up an action's row of the overlap table, empty where it has none."""
    rows = frames.records(frames.where(table, frames.equal(table, "action", action)))
    return rows[0] if rows else {}


def _change(effect: Mapping[str, Any], spoken: Amount) -> str:
    outcome, scale = effect["outcome"], effect["scale"]
    what = f"the probability of {outcome}" if scale == "probability" else str(outcome)
    unit = "" if spoken.unit.long == "percentage points" else spoken.unit.long
    points = " percentage points" if not unit else ""
    way = "higher" if as_float(effect["ate"]) >= 0 else "lower"
    return f"{what} is {spoken.size}{points} {way}{' ' + unit if unit else ''}"


def _sentence(effect: Mapping[str, Any], spoken: Amount, standing: Standing) -> str:
    action, outcome = effect["action"], effect["outcome"]
    plan = f"With {action} at {value_of('', effect.get('t1', 1))} instead of {value_of('', effect.get('t0', 0))}"
    if standing.kind == "not":
        cannot = f"The data cannot tell what {action} does to {outcome}."
        return f"{cannot} The world's own guess is shown, but no row tests it."
    counted = effect.get("counted", "rows")
    over = (
        f", on average over {number(effect['n_supported'])} of {number(effect['n'])} {counted}" if "n" in effect else ""
    )
    if not is_clear(effect):
        why = "the interval holds zero" if math.isfinite(as_float(effect["lo"])) else "there is no interval"
        return f"{plan}, no clear change in {outcome}{over}: {why}."
    doubt = rival(effect)
    return f"{plan}, {_change(effect, spoken)}{over}.{f' {doubt[0].upper()}{doubt[1:]}.' if doubt else ''}"


def rival(effect: Mapping[str, Any]) -> str:
    """Say how strong a hidden cause would have to be to make all of a clear effect.

    Empty where the interval holds zero, none is possible (drawn by chance) or it was not measured.
    """
    times, share = as_float(effect.get("times_known")), as_float(effect.get("robustness"))
    if not as_float(effect.get("robustness_interval")) > 0:
        return ""
    least = f"{percent(share)} of what the table leaves unexplained of {effect['action']} and of {effect['outcome']}"
    if math.isfinite(times):
        strong = f"{number(times, digits=2)} times as strong as {effect['known_columns']}"
        return f"a hidden cause {strong}, or one that explains {least}, could make all of it, or hide as much again"
    return f"a hidden cause that explains {least} could make all of it, or hide as much again"


def answer(effect: Mapping[str, Any], overlap: Mapping[str, Any]) -> Answer:
    """Put one effect of the summary into words."""
    standing = standing_of(effect, overlap)
    spoken = amount(effect["ate"], effect["lo"], effect["hi"], str(effect["scale"]))
    level = f"{percent(effect['level'])} interval" if "level" in effect else "interval"
    return Answer(
        question=f"{effect['action']} → {effect['outcome']}",
        value=spoken.value,
        unit=spoken.unit.long,
        interval=f"{level} {spoken.low}\u00a0to\u00a0{spoken.high}",
        words=_sentence(effect, spoken, standing),
        standing=standing.kind,
        because=standing.because,
    )


def answers(report: ReportInput) -> tuple[Answer, ...]:
    """Put effects of the summary into words: on each scale what is clear first; what the data cannot tell last.

    Log odds, which few readers think in, come after the other scales, and what speaks for few rows after all of these.
    """
    effects = report.summary.get("effects", [])
    made = [(e, answer(e, overlap_of(report.overlap_table, e["action"]))) for e in effects]

    def order(one: tuple[Mapping[str, Any], Answer]) -> tuple[bool, ...]:
        effect, words = one
        last = words.standing == "not", is_of_few(effect), effect["scale"] == "logit"
        return *last, not is_clear(effect), words.standing == "partly"

    return tuple(words for _, words in sorted(made, key=order))[:MOST_ANSWERS]
