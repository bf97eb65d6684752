"""A consumer run's result files: the world's answers as tables, a summary, and the report made from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from wmjax.core.files import write_json, write_parquet
from wmjax.core.observe import Event, Observer, silent
from wmjax.data.panel import Panel, show_time
from wmjax.evaluate.overlap import overlap_table
from wmjax.report import frames
from wmjax.report.answers import rival
from wmjax.report.html import write_report
from wmjax.report.inputs import ReportInput
from wmjax.worlds.consumer import judging, support, tables
from wmjax.worlds.consumer.judging import Judgement
from wmjax.worlds.consumer.rows import some_rows
from wmjax.worlds.consumer.tables import Question
from wmjax.worlds.consumer.world import ConsumerWorld

FILES = (
    ("predictions.parquet", "every unit, time and outcome: train, val or test, observed, expected, interval"),
    ("effects.parquet", "every unit and test period: what each action changed, interval, support, plausibility after"),
    ("segments.parquet", "the effects averaged over the supported rows, of all and by segment, on both scales"),
    ("plausibility.parquet", "every unit and time: free energy of its own history, and its rank among the train rows"),
    ("accuracy.parquet", "held-out scores of the world and its baselines"),
    ("calibration.parquet", "expected against observed frequencies on held-out rows"),
    ("overlap.parquet", "histograms of each action's propensity, with and without the action"),
    ("overlap_table.parquet", "each action's overlap: AUC or R2, rows without a counterpart, limits of the propensity"),
    ("training.parquet", "training curves"),
    ("summary.json", "the numbers of this page"),
)
ENOUGH = 8
"""Members from which an interval's width is not told to be rough."""
ODD = 0.01
"""A history whose rank is this low is odder than 99 % of the train rows."""
SAMPLE = 4000
"""Units whose effects the report draws the distribution of."""


class Answers(NamedTuple):
    """What a run's files hold, as tables; `doubts` are the warnings that hold whatever is asked of the world."""

    predictions: pd.DataFrame
    effects: pd.DataFrame
    segments: pd.DataFrame
    plausibility: pd.DataFrame
    judgement: Judgement
    warnings: list[str]
    doubts: list[str]


def answer(
    world: ConsumerWorld,
    panel: Panel,
    questions: Sequence[Question],
    *,
    key: jax.Array,
    targeted: str = "",
    alpha: float = 0.1,
    observer: Observer = silent,
) -> Answers:
    """Ask the world everything that a report shows. Effects are those of the test periods.

    Args:
        key: seeds the baselines.
        targeted: a sentence that warns how the actions were chosen, where it is known; left out where all of them were
            drawn by chance.
    """
    total = 3 + 2 * len(questions)
    done = iter(range(total + 1))

    def tell() -> None:
        observer(Event("answers", next(done), total, unit="question"))

    tell()
    times = world.periods(panel)
    predicted = tables.predictions(world, panel, alpha=alpha)
    tell()
    effects, segments, warnings = [], [], list(chosen := how_chosen(panel, targeted))
    by = (None, *panel.static_names)
    for question in questions:
        found = tables.effects(world, panel, question, times=times, alpha=alpha)
        effects.append(found)
        tell()
        asked = (question.action, question.t0, question.t1)
        segments.append(world.ate_by(panel, *asked, by=by, alpha=alpha, times=times))
        warnings += weak_causes(segments[-1])
        once = found["outcome"] == panel.outcome_names[0]
        warnings += world.warnings_for(question.action, found.loc[once, "supported"].to_numpy(bool))
        tell()
    plausible = tables.plausibility(world, panel)
    tell()
    tell()
    judgement = judging.judge(key, world, panel, alpha=alpha, observer=observer)
    if world.members < ENOUGH:
        chosen.append(few_members(world.members))
    return Answers(
        predicted,
        pd.concat(effects, ignore_index=True),
        pd.concat(segments, ignore_index=True),
        plausible,
        judgement,
        list(dict.fromkeys([*chosen, *warnings, *judgement.warnings, *world.facts.get("warnings", [])])),
        [*chosen, *judgement.warnings],
    )


def write(
    folder: Path, world: ConsumerWorld, panel: Panel, answers: Answers, *, title: str, alpha: float = 0.1
) -> dict:
    """Write every result file of a run and return the summary."""
    provenance = dict(world.provenance)
    summary = summarise(world, panel, answers, alpha=alpha)
    overlap, support_table = histograms(world, panel), overlap_table(world.overlap)
    for name, table in (
        ("predictions", answers.predictions),
        ("effects", answers.effects),
        ("segments", answers.segments),
        ("plausibility", answers.plausibility),
        ("accuracy", answers.judgement.accuracy),
        ("calibration", answers.judgement.calibration),
        ("overlap", overlap),
        ("overlap_table", support_table),
        ("training", world.training),
    ):
        write_parquet(folder / f"{name}.parquet", table, provenance)
    write_json(folder / "summary.json", summary)
    write_report(
        folder / "report.html",
        ReportInput(
            title=title,
            summary=summary,
            training=world.training,
            calibration=answers.judgement.calibration,
            accuracy=answers.judgement.accuracy,
            segments=shown_segments(answers.segments, panel),
            effects_sample=_sample(answers.effects, panel),
            plausibility=_plausibility(answers, panel),
            overlap=overlap,
            overlap_table=support_table,
            columns=columns(panel),
            files=list(FILES),
            warnings=answers.warnings,
            provenance=provenance,
        ),
    )
    return summary


def summarise(world: ConsumerWorld, panel: Panel, answers: Answers, *, alpha: float) -> dict[str, Any]:
    """Put the run's numbers in one dictionary that JSON can hold."""
    scores: Any = answers.judgement.accuracy
    outcomes = {}
    for outcome in panel.outcome_names:
        mine = scores[scores["outcome"] == outcome]
        found: dict[str, Any] = {
            quantity: {r.model: _number(r.value) for r in part.itertuples()}
            for quantity, part in mine.groupby("quantity", sort=False)
        }
        judged = answers.judgement
        rates = {"base_rate": judged.base_rates[outcome], "expected_rate": judged.expected_rates[outcome]}
        outcomes[outcome] = {**found, **rates}
    segments: Any = answers.segments
    # The response scale first: it is the one that a person reads.
    rows: Any = segments[segments["segment"] == "all"].sort_values("scale", ascending=False, kind="stable")
    rows = with_scales(rows, panel)
    effects = [
        {
            "outcome": r.outcome,
            "action": r.action,
            "t0": r.t0,
            "t1": r.t1,
            "scale": r.scale,
            "ate": _number(r.effect),
            "lo": _number(r.lo),
            "hi": _number(r.hi),
            "n": int(r.n),
            "n_supported": round(r.n * r.supported_share),
            "level": 1 - alpha,
            "robustness": _number(r.robustness),
            "robustness_interval": _number(r.robustness_interval),
            "times_known": _number(r.times_known),
            "known_columns": r.known_columns,
        }
        for r in rows.itertuples()
    ]
    return {
        "panel": describe(world, panel),
        "outcomes": outcomes,
        "effects": effects,
        "actions": {name: _how(panel, name) for name in panel.action_names},
        "plausibility": {
            "histories odder than 99 % of the train rows": odd_share(answers.plausibility),
            "counterfactuals odder than 99 % of the train rows": odd_share(answers.effects),
        },
        "members": world.members,
        "diverged": world.facts.get("diverged", 0),
        "warnings": answers.warnings,
        "doubts": answers.doubts,
        "provenance": dict(world.provenance),
    }


def few_members(members: int) -> str:
    """Say what intervals of few members are worth."""
    return f"the intervals are of {members} members: that they are wide is told, not how wide; quote 16's"


def how_chosen(panel: Panel, targeted: str) -> list[str]:
    """Say what effects stand on where actions were not drawn by chance; `targeted` is the table's own sentence."""
    observed = [name for name in panel.action_names if not _how(panel, name)["randomised"]]
    if not observed:
        return []
    return [targeted or support.unless_missing(observed)]


def _how(panel: Panel, action: str) -> dict[str, Any]:
    """Say whether an action was drawn by chance, as the schema has it, and with what probability."""
    column = panel.schema.column(action)
    return {"randomised": column.randomised, "propensity": column.propensity}


def headline(summary: dict[str, Any]) -> pd.DataFrame:
    """Tabulate the average effects of a summary for the terminal, one scale an outcome."""
    table: Any = pd.DataFrame(summary["effects"])
    table = table[table["scale"] != "logit"]
    table["supported"] = (table["n_supported"] / table["n"]).map("{:.0%}".format)
    return table[["action", "outcome", "t0", "t1", "ate", "lo", "hi", "supported"]]


def averages(table: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """Lay average effects out for the terminal: scales in people's words, and how many rows are supported.

    The averages are of these; where there is none, of all rows of the level.
    """
    named = with_scales(table, panel)
    every, shares = frames.column(named, "n"), frames.column(named, "supported_share")
    shown: Any = named[["outcome", "segment", "level", "scale", "effect", "lo", "hi"]]
    return shown.assign(supported=np.round(every * shares).astype(int), rows=every.astype(int))


def hidden_causes(table: pd.DataFrame) -> list[str]:
    """Say what could make all of each clear average over all rows, once an outcome."""
    rows: Any = table.to_dict("records")
    return [f"{row['action']} on {row['outcome']}: {told}" for row in rows if (told := rival(row))]


def weak_causes(table: pd.DataFrame) -> list[str]:
    """Say of which clear averages a hidden cause that is weaker than what the table knows could make all."""
    rows: Any = table[table["times_known"] < 1]
    return hidden_causes(rows)


def odd_share(table: pd.DataFrame) -> float | None:
    """Compute the share of scored histories that are odder than 99 % of the train rows; None where none was scored."""
    rank = frames.column(table, "rank")
    known = rank[np.isfinite(rank)]
    return float((known <= ODD).mean()) if known.size else None


def with_scales(effects: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """Name scales for people: `probability` and `logit` of a binary outcome, `outcome` (its own units) of any other.

    Any other outcome is modelled on its own scale, where linear and response are one; its linear rows are left out.
    """
    binary = np.array([panel.schema.column(o).kind == "binary" for o in effects["outcome"]], bool)
    linear = frames.equal(effects, "scale", "linear")
    names = np.where(binary, np.where(linear, "logit", "probability"), "outcome")
    return frames.where(effects.assign(scale=names), binary | ~linear)


def describe(world: ConsumerWorld, panel: Panel) -> dict[str, Any]:
    """Say what the panel is, in facts that a page can show."""
    dates = world.facts
    return {
        "units": panel.num_units,
        "periods": panel.num_times,
        "rows": int(panel.arrays.mask.sum()),
        "calendar": panel.schema.frequency,
        "from": show_time(panel.times[0]),
        "to": show_time(panel.times[-1]),
        **{f"{part} periods": " to ".join(dates[part]) for part in ("train", "val", "test")},
        "visible units": world.model.frame.visible.size,
    }


def columns(panel: Panel) -> pd.DataFrame:
    """Tabulate what each column is: column, role, kind, missing, summary."""
    rows = []
    for column in panel.schema.columns:
        values = panel.values(column.name)
        values = values if column.role == "static" else values[panel.arrays.mask]
        missing = 0.0
        if column.kind == "categorical":
            levels = panel.levels[column.name]
            missing = float((values == len(levels) - 1).mean()) if levels[-1] == "missing" else 0.0
            known = len(levels) - (levels[-1] == "missing")
            summary = f"{known} levels"
        elif column.kind == "binary":
            summary = f"1 in {values.mean():.1%} of rows"
        else:
            low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
            summary = f"median {middle:.3g}, 5 % to 95 %: {low:.3g} to {high:.3g}"
        role = f"{column.role}, randomised" if column.randomised else column.role
        rows.append((column.name, role, column.kind, missing, summary))
    return pd.DataFrame(rows, columns=["column", "role", "kind", "missing", "summary"])


def histograms(world: ConsumerWorld, panel: Panel, bins: int = 25) -> pd.DataFrame:
    """Count the test rows' propensities of each binary action, with the action and without it."""
    rows = world.observed(panel, world.periods(panel))
    edges = np.linspace(0, 1, bins + 1)
    parts = []
    for at, action in enumerate(panel.action_names):
        if panel.schema.column(action).kind != "binary":
            continue
        propensity = world.overlap[action].propensity(support.given(rows, at))
        for side, chosen in (("treated", rows.actions[:, at] > 0.5), ("control", rows.actions[:, at] <= 0.5)):
            counts, _ = np.histogram(propensity[chosen], edges)
            parts.append(
                pd.DataFrame(
                    {
                        "action": action,
                        "side": side,
                        "propensity_bin_left": edges[:-1],
                        "propensity_bin_right": edges[1:],
                        "count": counts,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _plain_keys(table: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    plain = panel.schema.plain()
    return table.rename(columns={str(plain.unit): "unit", str(plain.time): "time"})


def shown_segments(segments: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """Take the effects by segment, one scale an outcome."""
    named = with_scales(frames.where(segments, ~frames.equal(segments, "segment", "all")), panel)
    return frames.where(named, ~frames.equal(named, "scale", "logit"))


def _sample(effects: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """Draw units by chance, each with all of its rows so that its mean is its own; binary outcomes only."""
    binary = [o for o in panel.outcome_names if panel.schema.column(o).kind == "binary"]
    plain: Any = _plain_keys(effects, panel).rename(columns={"effect": "effect_probability"})
    units = plain["unit"].unique()
    drawn = plain["unit"].isin(units[some_rows(len(units), SAMPLE)])
    return plain[drawn & plain["outcome"].isin(binary)]


def _plausibility(answers: Answers, panel: Panel) -> pd.DataFrame:
    """Lay factual and counterfactual histories side by side, once a row: all outcomes share them."""
    effects: Any = answers.effects
    first = effects["outcome"] == panel.outcome_names[0]
    asked = _plain_keys(effects[first].dropna(subset=["delta"]), panel)
    factual = asked.assign(kind="factual", free_energy=asked["free_energy"] - asked["delta"], delta=0.0)
    both: Any = pd.concat([asked.assign(kind="counterfactual"), factual], ignore_index=True)
    both = both.iloc[some_rows(len(both), 10 * SAMPLE)]
    return both[["unit", "time", "kind", "action", "free_energy", "delta"]]


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
