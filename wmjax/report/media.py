"""A media run's report: what each channel was worth, what other spend would do, when it worked, what to believe."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from wmjax.core.files import write_parquet
from wmjax.data.panel import Panel, show_time
from wmjax.evaluate import metrics
from wmjax.report import frames, media_figures, sections
from wmjax.report.consumer import columns
from wmjax.report.html import write_page
from wmjax.report.inputs import ReportInput
from wmjax.report.numbers import amount, as_float, number, percent
from wmjax.report.parts import Answer, Fact, Figure, Page, Section, Table, tabulate
from wmjax.report.sections import ANSWER, BELIEF
from wmjax.worlds.media import placebo, tables
from wmjax.worlds.media.world import ALL, MediaWorld

FILES = (
    ("roi.parquet", "every channel and geo: contribution, ROI, marginal ROI, share of media, with intervals"),
    ("curves.parquet", "every channel and geo: response over multiples of its spend, with intervals"),
    (
        "contributions.parquet",
        "every geo and period: what each channel added, the baseline and the interaction, with intervals",
    ),
    ("outcome.parquet", "every period: the outcome observed, expected and without media, all geos together"),
    ("support.parquet", "every channel: weeks without spend, largest spend, how far covariates explain it"),
    ("training.parquet", "training curves"),
)
COPIES = (
    "placebos.parquet",
    "every channel: its return in the train periods, and that of a copy that does nothing",
)
MOST_CHANNELS = 12
"""Channels with pictures of their own; the tables hold all."""


def write(folder: Path, world: MediaWorld, panel: Panel, *, title: str, alpha: float) -> Path:
    """Ask the world everything that the page shows, write the files behind it and the page; return its path."""
    found = world.attribute(panel, alpha=alpha)
    added = world.contributions(panel, alpha=alpha)
    expected = world.predict(panel, alpha=alpha)
    roi, curves = tables.roi(found), tables.curves(found)
    told = {
        "roi": roi,
        "curves": curves,
        "contributions": tables.contributions(added),
        "outcome": outcome_table(added, expected, panel, found.attrs["outcome"]),
        "support": flagged(world),
        "training": world.training.assign(stage="media"),
    }
    if "placebo" in world.facts:
        told["placebos"] = placebo.table(world)
    for name, table in told.items():
        write_parquet(folder / f"{name}.parquet", table, dict(world.provenance))
    page = compose(world, panel, told, found, title=title, alpha=alpha)
    write_page(folder / "report.html", page)
    return folder / "report.html"


def outcome_table(added: xr.Dataset, expected: xr.Dataset, panel: Panel, outcome: str) -> pd.DataFrame:
    """Tabulate the outcome by period, over the observed units: observed, expected, and that less what media added."""
    mask = panel.arrays.mask
    y, forecast = panel.arrays.outcomes[..., panel.outcome_index(outcome)], expected["mean"].to_numpy()[0]
    media = (added["contribution"].sum("channel") + added["interaction"]).to_numpy()
    parts = (y, forecast, forecast - media)
    sums = [np.where(mask.any(0), np.where(mask, x, 0).sum(0, dtype=np.float64), np.nan) for x in parts]
    return pd.DataFrame({"time": panel.times, **dict(zip(("observed", "expected", "baseline"), sums, strict=True))})


def flagged(world: MediaWorld) -> pd.DataFrame:
    """Add to the world's support what to think of each channel: `supported`, `partly` or `not`, and why; and what a
    hidden cause would have to be like.
    """
    doubts = world.doubts()

    def judge(channel: str) -> tuple[str, str]:
        if channel in doubts.unidentified:
            return "not", "covariates explain its spend all but wholly"
        reasons = ["always on: hardly a period shows the outcome without it"] if channel in doubts.always_on else []
        reasons += ["members disagree about it"] if channel in world.facts.get("disagree", ()) else []
        reasons += [words[channel] for words in (doubts.like_placebos, doubts.explained_away) if channel in words]
        if reasons:
            return "partly", "; ".join(reasons)
        return "supported", "weeks with and without it are there"

    judged = [judge(str(c)) for c in world.support["channel"]]
    table = world.support.assign(standing=[j[0] for j in judged], because=[j[1] for j in judged])
    hidden = pd.DataFrame.from_dict(world.facts.get("hidden", {}), orient="index")
    return table if hidden.empty else table.join(hidden, on="channel").fillna({"known_columns": ""})


def compose(
    world: MediaWorld, panel: Panel, told: dict[str, pd.DataFrame], found: xr.Dataset, *, title: str, alpha: float
) -> Page:
    """Put the page together from the tables that stand beside it."""
    outcome = str(found.attrs["outcome"])
    level, support = percent(1 - alpha), told["support"]
    total = frames.where(told["roi"], frames.equal(told["roi"], "geo", ALL))
    hollow = frozenset(
        frames.distinct(frames.where(support, ~frames.equal(support, "standing", "supported")), "channel")
    )
    provenance = dict(world.provenance)
    listed = [*FILES, *([COPIES] if "placebos" in told else [])]
    files = ReportInput(
        title=title, columns=columns(panel), training=told["training"], files=listed, provenance=provenance
    )
    made = (
        _worth(total, told["roi"], support, hollow, outcome, level),
        _responses(told["curves"], outcome, level),
        _periods(told, found, world, outcome),
        _support(support, told.get("placebos"), world.facts.get("errors", ())),
        _accuracy(world, panel, told["outcome"], outcome),
        *(make(files) for make in (sections.data, sections.training, sections.files, sections.provenance)),
    )
    version = provenance.get("versions", {}).get("wmjax", "")
    span = f"{show_time(panel.times[0])} to {show_time(panel.times[-1])}"
    units = f"{panel.num_units} {panel.schema.unit or 'unit'}s, " if panel.num_units > 1 else ""
    footer = [
        f"wmjax {version}".strip(),
        f"seed {provenance.get('seed')}",
        f"data {provenance.get('data_fingerprint')}",
    ]
    return Page(
        title=title,
        subtitle=f"{outcome} by {len(world.channels)} channels; {units}{span}",
        answers=_answers(total, support, outcome, level),
        warnings=tuple(found.attrs["warnings"]),
        sections=tuple(section for section in made if section is not None),
        footer=" · ".join(footer),
    )


def _largest(total: pd.DataFrame) -> list[str]:
    """Name the channels, those that added most first."""
    added = frames.where(total, frames.equal(total, "quantity", "contribution"))
    return frames.distinct(frames.ordered(added, "mean", down=True), "channel")


def _answers(total: pd.DataFrame, support: pd.DataFrame, outcome: str, level: str) -> tuple[Answer, ...]:
    """Say of the channels that added most what a unit of spend brought back."""
    standing = {str(r["channel"]): r for r in frames.records(support)}
    made = []
    for channel in _largest(total)[:4]:
        rows = frames.records(frames.where(total, frames.equal(total, "channel", channel)))
        part = {str(r["quantity"]): r for r in rows}
        roi = part["roi"]
        spoken = amount(roi["mean"], roi["lo"], roi["hi"], "outcome")
        added = number(as_float(part["contribution"]["mean"]))
        made.append(
            Answer(
                question=f"{channel} → {outcome}",
                value=spoken.value,
                unit=f"{outcome} for a unit of spend",
                interval=f"{level} interval {spoken.low}\u00a0to\u00a0{spoken.high}",
                words=f"{channel} added {added} in all, {percent(part['share']['mean'])} of what media added.",
                standing=str(standing[channel]["standing"]),
                because=str(standing[channel]["because"]),
            )
        )
    return tuple(made)


def _worth(
    total: pd.DataFrame, by_geo: pd.DataFrame, support: pd.DataFrame, hollow: frozenset[str], outcome: str, level: str
) -> Section:
    drawn = []
    for quantity, title in (
        ("roi", "What did a unit of spend bring back?"),
        ("marginal_roi", "And what would the next unit bring?"),
        ("share", "Each channel's share of what media added"),
    ):
        part = frames.where(total, frames.equal(total, "quantity", quantity))
        unit = frames.first(part, "unit")
        drawn.append(
            Figure(svg=media_figures.returns(part, title=title, xlabel=unit, hollow=hollow), source="roi.parquet")
        )
    shown = {"channel": ("channel", None), "quantity": ("quantity", None)}
    shown |= {name: (heading, number) for name, heading in (("mean", "mean"), ("lo", "low"), ("hi", "high"))}
    shown |= {"unit": ("unit", None)}
    judged = total.merge(support[["channel", "because"]], on="channel")
    made = [tabulate(judged, {**shown, "because": ("may it be believed?", None)}, caption="All of it in numbers")]
    geos = frames.where(by_geo, frames.equal(by_geo, "quantity", "roi") & ~frames.equal(by_geo, "geo", ALL))
    if len(geos):
        made.append(tabulate(geos, {"geo": ("geo", None), **shown}, caption="ROI by geo", folded=True))
    lead = (
        f"What {outcome} would have lacked without the channel's spend, carry-over included, over that spend, with "
        f"{level} intervals."
    )
    return Section(
        title="What was each channel worth?", lead=lead, figures=tuple(drawn), tables=tuple(made), chapter=ANSWER
    )


def _responses(curves: pd.DataFrame, outcome: str, level: str) -> Section:
    total = frames.where(curves, frames.equal(curves, "geo", ALL))
    parts = frames.groups(total, "channel")[:MOST_CHANNELS]
    drawn = tuple(
        Figure(svg=media_figures.response(part, outcome=outcome), source="curves.parquet") for _, part in parts
    )
    lead = (
        "Each channel's spend of every period times the same number, from nothing to twice as much, all other channels "
        f"as they were. The band is the {level} interval."
    )
    return Section(title="What would more or less spend do?", lead=lead, figures=drawn, chapter=ANSWER)


def _periods(told: dict[str, pd.DataFrame], found: xr.Dataset, world: MediaWorld, outcome: str) -> Section:
    total = frames.where(told["contributions"], frames.equal(told["contributions"], "geo", ALL))
    channels = frames.where(total, frames.equal(total, "quantity", "contribution"))
    parts = frames.groups(channels, "channel")[:MOST_CHANNELS]
    drawn = [
        Figure(svg=media_figures.over_time(part, outcome=outcome), source="contributions.parquet") for _, part in parts
    ]
    times = told["outcome"]["time"]
    names = {"val": "validation", "test": "test"}
    starts = [(words, world.facts[name][0]) for name, words in names.items() if world.facts.get(name)]
    shown = [show_time(t) for t in times]
    held = [(words, times.iloc[shown.index(start)]) for words, start in starts if start in shown]
    whole = media_figures.base(told["outcome"], outcome=outcome, held_out=held)
    lead = "What is left without any spend is the base; between it and what was expected lies what media added."
    figures = (Figure(svg=whole, source="outcome.parquet"), *drawn)
    made = tabulate(_made_of(told["roi"], found), {"part": ("part", None), **_ENDS}, caption=_SUM)
    return Section(title="When did it work?", lead=lead, figures=figures, tables=(made,), chapter=ANSWER)


_ENDS = {name: (heading, number) for name, heading in (("mean", "mean"), ("lo", "low"), ("hi", "high"))}
_SUM = (
    "What the outcome that draws expect is made of, over all periods: the interaction is what media do together less "
    "what each does alone, so that shares of channels add up to all of media only where it is nothing"
)


def _made_of(roi: pd.DataFrame, found: xr.Dataset) -> pd.DataFrame:
    """List the baseline, what each channel added, and the interaction: they add up to what was expected."""
    total = frames.where(roi, frames.equal(roi, "geo", ALL) & frames.equal(roi, "quantity", "contribution"))
    whole = found.sel(unit=ALL)

    def ends(name: str) -> dict[str, object]:
        named = (("mean", name), ("lo", f"{name}_lo"), ("hi", f"{name}_hi"))
        return {"part": name, **{end: float(whole[own]) for end, own in named}}

    channels = [{"part": r["channel"], **{k: r[k] for k in ("mean", "lo", "hi")}} for r in frames.records(total)]
    return pd.DataFrame([ends("baseline"), *channels, ends("interaction")])


def _support(support: pd.DataFrame, copies: pd.DataFrame | None, errors: Collection[str]) -> Section:
    shown = {
        "channel": ("channel", None),
        "idle": ("periods without it", percent),
        "top": ("largest spend of a period", number),
        "explained": ("explained by covariates (R²)", percent),
    }
    lead = (
        "A channel that never pauses, or that follows what the covariates tell, leaves nothing to compare: its number "
        "is then made by the model's form and its prior. A cause of both spend and outcome that is not in the table "
        "shows nowhere on this page."
    )
    if errors:
        lead += (
            f" What of {', '.join(errors)} is error of measurement is told by its past (and by other units) and held "
            "apart: a noisy column takes only a part of demand out, and channels that follow demand would get the rest."
        )
    if "robustness" in support:
        shown |= {
            "robustness": ("share that a hidden cause must explain", percent),
            "times_known": ("times as strong as", lambda v: number(v, digits=2)),
            "known_columns": ("these columns", None),
        }
        lead += (
            " How strong it would have to be is told: the share of what the table leaves unexplained of the outcome, "
            "and of the channel's spend as much, from which it could be all of the return; or the multiple of the "
            "strength of known columns, the least of all of them."
        )
    shown["because"] = ("may it be believed?", None)
    made: list[Table] = [tabulate(support, shown)]
    if copies is not None:
        columns = {"channel": ("channel", None), "roi": ("return in that fit", number)}
        columns |= {"lo": ("low", number), "hi": ("high", number), "placebo": ("given to its copy", number)}
        caption = (
            "What a copy of each channel that does nothing is given, in a fit of both: its spend follows what the "
            "covariates and the last period's outcome tell, the rest of it is moved to other periods."
        )
        made.append(tabulate(copies, columns, caption=caption))
    return Section(title="Do the data tell the channels apart?", lead=lead, tables=tuple(made), chapter=BELIEF)


def _accuracy(world: MediaWorld, panel: Panel, outcome: pd.DataFrame, name: str) -> Section:
    observed, expected = (frames.column(outcome, column) for column in ("observed", "expected"))
    shown = [show_time(t) for t in panel.times]
    facts = []
    for part, words in (("train", "learnt from"), ("val", "watched"), ("test", "held out")):
        span = world.facts.get(part)
        if span:
            rows = slice(shown.index(span[0]), shown.index(span[1]) + 1)
            known = np.isfinite(observed[rows]) & np.isfinite(expected[rows])
            if known.sum() > 2:
                r2 = metrics.r2(observed[rows][known], expected[rows][known])
                facts.append(Fact(f"R² of {name}, all units, {words}", number(float(r2))))
    lead = "One period ahead, from the periods before it, its covariates and its spend."
    return Section(
        title="Does it predict what it has not seen?",
        lead=lead,
        facts=tuple(facts),
        caution=sections.NO_EVIDENCE,
        chapter=BELIEF,
    )
