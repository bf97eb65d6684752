"""The sections of a consumer world's report: each reads the input and gives a section, or none where it is empty."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from wmjax.report import curves, figures, frames
from wmjax.report.answers import overlap_of, standing_of
from wmjax.report.inputs import ReportInput
from wmjax.report.numbers import amount, as_float, fixed, number, percent, shared_decimals, unit_of, value_of
from wmjax.report.parts import Fact, Figure, Section, Table, facts, flatten, tabulate

ANSWER = "The answer"
BELIEF = "May you believe it?"
MAKING = "How it was made"

NO_EVIDENCE = (
    "Accuracy shows how well the world predicts what happened. It is no evidence that an effect is right: "
    "a model may forecast well and attribute wrongly."
)


def _ate(report: ReportInput, outcome: str, action: str, scale: str) -> float:
    for effect in report.summary.get("effects", []):
        if (effect["outcome"], effect["action"], effect["scale"]) == (outcome, action, scale):
            return as_float(effect["ate"])
    return math.nan


def _shown_scale(present: list[str]) -> str:
    """Pick one scale to draw: probabilities speak to most people; scales are never mixed in a picture."""
    return next((s for s in ("probability", "currency") if s in present), present[0])


def average_effects(report: ReportInput) -> Section | None:
    """All average effects of one scale side by side; left out where there is only one."""
    table = pd.DataFrame(report.summary.get("effects", []))
    if table.empty:
        return None
    drawn, tables = [], []
    for (scale,), part in frames.groups(table, "scale"):
        standings = [standing_of(e, overlap_of(report.overlap_table, e["action"])) for e in frames.records(part)]
        part = part.assign(supported=[s.kind != "not" for s in standings], standing=[s.because for s in standings])
        if len(part) > 1:
            drawn.append(Figure(svg=figures.effects(part), source=report.source("summary")))
            tables.append(_effect_table(part, scale))
    if not drawn:
        return None
    lead = "Each effect is the difference between two plans that are alike but for one action, over comparable rows."
    if len(frames.distinct(table, "scale")) > 1:
        lead += (
            " On the log odds every row counts alike; a probability moves most where it is near one half, so the rows "
            "that can move decide the average, and the two may differ in sign. Plan by the probabilities."
        )
    return Section(
        title="Which action matters most?", lead=lead, figures=tuple(drawn), tables=tuple(tables), chapter=ANSWER
    )


def _effect_table(part: pd.DataFrame, scale: str) -> Table:
    factor, short = unit_of(scale).factor, unit_of(scale).short
    places = shared_decimals(*(factor * frames.column(part, "ate")))

    def effect(value: Any) -> str:
        return fixed(factor * as_float(value), places, sign=True)

    columns = {
        "action": ("action", None),
        "outcome": ("outcome", None),
        "t0": ("from", lambda v: value_of("", v)),
        "t1": ("to", lambda v: value_of("", v)),
        "ate": (f"effect{', ' + short if short else ''}", effect),
        "lo": ("low", effect),
        "hi": ("high", effect),
        "n_supported": ("comparable", number),
        "n": ("of", number),
        "standing": ("standing", None),
    }
    return tabulate(part, columns, caption=f"All average effects in numbers, on the scale of the {scale}")


def _segment_table(part: pd.DataFrame, scale: str, caption: str) -> Table:
    factor, short = unit_of(scale).factor, unit_of(scale).short

    places = shared_decimals(*(factor * frames.column(part, "effect")))

    def effect(value: Any) -> str:
        return fixed(factor * as_float(value), places, sign=True)

    unit = f", {short}" if short else ""
    columns = {
        "segment": ("segment", None),
        "level": ("level", None),
        "n": ("rows", number),
        "effect": (f"effect{unit}", effect),
        "lo": ("low", effect),
        "hi": ("high", effect),
        "supported_share": ("comparable", percent),
    }
    return tabulate(part, columns, caption=caption, folded=True)


def _extremes(part: pd.DataFrame, scale: str) -> str:
    """Say which segments respond most and least, or that they cannot be told apart."""
    best = frames.ordered(frames.where(part, frames.column(part, "supported_share") >= figures.SUPPORTED), "effect")
    if len(best) < 2:
        return ""
    *_, high = rows = frames.records(best)
    low = rows[0]
    if not as_float(high["lo"]) > as_float(low["hi"]):
        return "No segment stands apart: the intervals of the largest and the smallest effect overlap."
    top, bottom = (amount(r["effect"], r["lo"], r["hi"], scale) for r in (high, low))
    return (
        f"Most: {high['segment']} {high['level']} ({top.value} {top.unit.short}). "
        f"Least: {low['segment']} {low['level']} ({bottom.value} {bottom.unit.short})."
    )


def _clear_share(part: pd.DataFrame) -> str:
    """Say for how many supported rows of the sample the interval leaves out zero."""
    known = frames.column(part, "supported") > 0
    if not known.any():
        return ""
    up = float((frames.column(part, "lo")[known] > 0).mean())
    down = float((frames.column(part, "hi")[known] < 0).mean())
    if up + down == 0:
        return "No sampled row's interval leaves out zero."
    return f"The interval lies above zero for {percent(up)} of the sampled rows, below it for {percent(down)}."


def responders(report: ReportInput) -> Section | None:
    """Effects by segment, and how units differ."""
    drawn: list[Figure] = []
    tables: list[Table] = []
    for (outcome, action), part in frames.groups(report.segments, "outcome", "action"):
        scale = _shown_scale(frames.distinct(part, "scale"))
        part = frames.where(part, frames.equal(part, "scale", scale))
        svg = figures.segments(part, ate=_ate(report, outcome, action, scale))
        drawn.append(Figure(svg=svg, caption=_extremes(part, scale), source=report.source("segments")))
        tables.append(_segment_table(part, scale, f"{action} → {outcome}: the numbers by segment"))
    for (outcome, action), part in frames.groups(report.effects_sample, "outcome", "action"):
        svg = figures.effect_distribution(part, ate=_ate(report, outcome, action, "probability"))
        drawn.append(Figure(svg=svg, caption=_clear_share(part), source=report.source("effects")))
    if not drawn:
        return None
    lead = "The same contrast within segments. Segments overlap: what shows under one trait may belong to another."
    return Section(title="Who responds?", lead=lead, figures=tuple(drawn), tables=tuple(tables), chapter=ANSWER)


def overlap(report: ReportInput) -> Section | None:
    """Whether treated and untreated rows can be compared."""
    if report.overlap.empty and report.overlap_table.empty:
        return None
    numbers = report.source("overlap_table")
    drawn = []
    for (action,), part in frames.groups(report.overlap, "action"):
        row = overlap_of(report.overlap_table, action)
        low, high = as_float(row.get("trim_low")), as_float(row.get("trim_high"))
        trim = (low, high) if math.isfinite(low) and math.isfinite(high) else None
        outside = as_float(row.get("share_outside"))
        caption = f"{percent(outside)} of the train rows have no counterpart." if math.isfinite(outside) else ""
        if bool(row.get("deterministic", False)):
            caption = f"Not identified: {row.get('reason') or 'the action follows from what came before it'}."
        if row and numbers:
            caption = f"{caption} Limits and shares: {numbers}.".strip()
        drawn.append(Figure(svg=figures.overlap(part, trim=trim), caption=caption, source=report.source("overlap.")))
    columns = {
        "action": ("action", None),
        "auc": ("predictable (AUC)", lambda v: fixed(as_float(v), 3)),
        "share_outside": ("no counterpart", percent),
        "ess": ("effective rows", lambda v: number(round(as_float(v))) if math.isfinite(as_float(v)) else number(v)),
        "deterministic": ("determined", lambda v: "yes" if v else "no"),
        "reason": ("why", None),
    }
    caption = f"Each action's overlap in numbers{f': {numbers}' if numbers else ''}"
    tables = (tabulate(report.overlap_table, columns, caption=caption),) if len(report.overlap_table) else ()
    lead = (
        "An effect can be learnt only where rows that got the action resemble rows that did not. An AUC near 0.5 means "
        "that the action was given as if by a coin; near 1, that it followed from what came before it. All of this is "
        "of the train rows; the effects above count the comparable ones among their own. Effective rows: as many drawn "
        "by a coin would tell as much of the average; few, where single rows have to stand for many."
    )
    return Section(title="Are the rows comparable?", lead=lead, figures=tuple(drawn), tables=tables, chapter=BELIEF)


def plausibility(report: ReportInput) -> Section | None:
    """How far the plans asked about lie from what was seen."""
    known = report.summary.get("plausibility", {})
    shown = facts({name: "none could be scored" if value is None else value for name, value in known.items()})
    table = report.plausibility
    if table.empty and not shown:
        return None
    drawn = []
    factual = frames.where(table, frames.equal(table, "kind", "factual"))
    for (action,), part in frames.groups(frames.where(table, frames.equal(table, "kind", "counterfactual")), "action"):
        own = frames.where(factual, frames.equal(factual, "action", action))
        delta = frames.column(part, "delta")
        delta = delta[np.isfinite(delta)]
        caption = ""
        if delta.size:
            moved = number(np.median(delta), digits=2, sign=True)
            worse = percent(float((delta > 0).mean()))
            caption = f"The change moves free energy by {moved} in the median; {worse} of rows become less likely."
        # The question's own rows come first, so that the picture is named after its action.
        svg = figures.plausibility(pd.concat([part, own if len(own) else factual], ignore_index=True))
        drawn.append(Figure(svg=svg, caption=caption, source=report.source("effects")))
    lead = (
        "The world scores how well a history fits what it has learnt. A plan that scores far worse than anything seen "
        "is extrapolation."
    )
    return Section(title="Are the plans plausible?", lead=lead, facts=shown, figures=tuple(drawn), chapter=BELIEF)


def accuracy(report: ReportInput) -> Section | None:
    """Held-out accuracy beside baselines, and calibration."""
    drawn = []
    for _, part in frames.groups(report.accuracy, "outcome", "quantity"):
        drawn.append(Figure(svg=figures.accuracy(part), source=report.source("accuracy")))
    for (outcome,), part in frames.groups(report.calibration, "outcome"):
        told = report.summary.get("outcomes", {}).get(outcome, {})
        base, expected = told.get("base_rate"), told.get("expected_rate")
        caption = f"{outcome} happened in {percent(base)} of held-out rows." if base is not None else ""
        if caption and expected is not None:
            caption = f"{caption[:-1]}; the world expected {percent(expected)}."
        drawn.append(Figure(svg=figures.calibration(part), caption=caption, source=report.source("calibration")))
    if not drawn:
        return None
    lead = "Later periods were held out of training, for the world and its baselines alike."
    return Section(
        title="Does it predict what it has not seen?",
        lead=lead,
        figures=tuple(drawn),
        caution=NO_EVIDENCE,
        chapter=BELIEF,
    )


def data(report: ReportInput) -> Section | None:
    """The panel and its columns."""
    shown = facts(report.summary.get("panel", {}))
    if not shown and report.columns.empty:
        return None
    tables = ()
    if len(report.columns):
        columns = {
            "column": ("column", None),
            "role": ("role", None),
            "kind": ("kind", None),
            "missing": ("missing", lambda v: percent(v) if isinstance(v, float) else number(v)),
            "summary": ("summary", None),
        }
        tables = (tabulate(report.columns, columns),)
    return Section(title="The data", facts=shown, tables=tables, chapter=MAKING)


def training(report: ReportInput) -> Section | None:
    """The training curves."""
    if report.training.empty:
        return None
    source = report.source("training") or report.source("history")
    drawn = tuple(Figure(svg=curves.training_curve(part), source=source) for part in curves.panels(report.training))
    members = len(frames.distinct(report.training, "member"))
    lead = f"The world is an ensemble of {members} members, trained from different seeds." if members > 1 else ""
    return Section(title="Training", lead=lead, figures=drawn, chapter=MAKING)


def files(report: ReportInput) -> Section | None:
    """The files behind the charts."""
    if not report.files:
        return None
    frame = pd.DataFrame(report.files, columns=["name", "holds"])
    table = tabulate(frame, {"name": ("file", None), "holds": ("what is in it", None)})
    lead = "Every chart is drawn from a file that stands beside this page."
    return Section(title="The files behind the charts", lead=lead, tables=(table,), chapter=MAKING)


def provenance(report: ReportInput) -> Section | None:
    """Seed, configuration, fingerprints and versions, folded away."""
    leaves = flatten(report.all_provenance)
    if not leaves:
        return None
    short = [(k, v) for k, v in leaves if "." not in k]
    nested = [(k, v) for k, v in leaves if "." in k]
    frame = pd.DataFrame(nested, columns=["name", "value"])
    tables = (tabulate(frame, {"name": ("name", None), "value": ("value", None)}),) if nested else ()
    shown = tuple(Fact(k.replace("_", " "), v) for k, v in short)
    return Section(title="Provenance", facts=shown, tables=tables, chapter=MAKING, folded=True)


SECTIONS = (average_effects, responders, overlap, plausibility, accuracy, data, training, files, provenance)


def sections(report: ReportInput) -> tuple[Section, ...]:
    """Make every section that has something to show, in reading order."""
    return tuple(made for make in SECTIONS if (made := make(report)) is not None)
