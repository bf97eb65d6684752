"""A graph run's report: the graph, what the decoders do along it, and why forecast error does not judge it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from wmjax.core.files import write_parquet
from wmjax.data.panel import Panel, show_time
from wmjax.evaluate.influence import InfluenceConfig
from wmjax.report import frames, graph_figures, sections
from wmjax.report.consumer import columns
from wmjax.report.html import write_page
from wmjax.report.inputs import ReportInput
from wmjax.report.numbers import as_float, number, percent
from wmjax.report.parts import Answer, Figure, Page, Section, tabulate
from wmjax.report.sections import ANSWER, BELIEF
from wmjax.worlds.graph import GraphWorld
from wmjax.worlds.graph.judging import HORIZONS, MODELS

FILES = (
    ("graph.parquet", "every pair of nodes: chosen or not, t, q value, stability, effect, influence"),
    ("accuracy.parquet", "errors in the test periods, beside forecasts that need no model"),
    ("swap.parquet", "the frozen decoders under other graphs: density, forecast error, attribution"),
    ("training.parquet", "training curves"),
)
STABLE = 0.8
"""Share of the bootstrap draws of the units from which an edge is told as stable."""
PAIRS = {
    "sender": ("from", None),
    "receiver": ("to", None),
    "effect": ("rise by one sd of its memory", number),
    "t": ("t", number),
    "q_value": ("q", number),
    "stability": ("of draws that choose it", percent),
    "ar_cig": ("influence over the horizon, sd", number),
}


def edges(world: GraphWorld, panel: Panel) -> pd.DataFrame:
    """Lay every pair of nodes out: what the data say of the edge, and the influence routed along it."""
    found = world.graph().merge(world.influence(panel), combine_attrs="override").to_dataframe().reset_index()
    return found.query("sender != receiver").reset_index(drop=True)


def write(folder: Path, world: GraphWorld, panel: Panel, *, title: str) -> Path:
    """Ask the world what the page shows, write the files behind it and the page; return its path."""
    told = {"graph": edges(world, panel), "swap": world.swap(panel), "training": world.training}
    told["accuracy"] = pd.DataFrame(world.facts.get("accuracy", []))
    for name, table in told.items():
        write_parquet(folder / f"{name}.parquet", table, dict(world.provenance))
    write_page(folder / "report.html", compose(world, panel, told, title=title))
    return folder / "report.html"


def compose(world: GraphWorld, panel: Panel, told: dict[str, pd.DataFrame], *, title: str) -> Page:
    """Put the page together from the tables that stand beside it."""
    provenance, pairs = dict(world.provenance), told["graph"]
    files = ReportInput(
        title=title, columns=columns(panel), training=told["training"], files=list(FILES), provenance=provenance
    )
    made = (
        _graph(world, pairs),
        _along(world, pairs),
        _accuracy(told["accuracy"]),
        _judged(told["swap"], world.nodes[-1]),
        *(make(files) for make in (sections.data, sections.training, sections.files, sections.provenance)),
    )
    span = f"{show_time(panel.times[0])} to {show_time(panel.times[-1])}"
    version = provenance.get("versions", {}).get("wmjax", "")
    footer = (f"wmjax {version}", f"seed {provenance.get('seed')}", f"data {provenance.get('data_fingerprint')}")
    warnings = [line for action in panel.action_names for line in world.warnings_for(action)]
    return Page(
        title=title,
        subtitle=f"{len(world.nodes)} nodes of {panel.num_units} {panel.schema.unit or 'unit'}s, {span}",
        answers=_answers(world, pairs),
        warnings=tuple(dict.fromkeys(warnings)),
        sections=tuple(section for section in made if section is not None),
        footer=" · ".join(footer),
    )


def _outcomes(world: GraphWorld) -> tuple[str, ...]:
    return world.schema.names("outcome")


def _answers(world: GraphWorld, pairs: pd.DataFrame) -> tuple[Answer, ...]:
    """Say of the surest edges into an outcome what they bring."""
    into = np.isin(pairs["receiver"], _outcomes(world)) & (frames.column(pairs, "edge") > 0)
    chosen = frames.ordered(frames.where(pairs, into), "t", down=True)
    return tuple(
        Answer(
            question=f"{row['sender']} → {row['receiver']}",
            value=number(as_float(row["effect"]), sign=True),
            unit=f"{row['receiver']}, by one standard deviation of {row['sender']}'s memory",
            interval=f"t {number(as_float(row['t']))}, q {number(as_float(row['q_value']))}",
            words=f"Chosen from data alone; {percent(row['stability'])} of draws of the units choose it too.",
            standing="supported" if row["stability"] >= STABLE else "partly",
            because="draws of the units agree" if row["stability"] >= STABLE else "draws of the units differ",
        )
        for row in frames.records(chosen)[:4]
    )


def _graph(world: GraphWorld, pairs: pd.DataFrame) -> Section:
    drawn = (
        graph_figures.network(pairs, nodes=world.nodes, outcomes=_outcomes(world)),
        graph_figures.matrix(
            pairs,
            "t",
            nodes=world.nodes,
            title="What the data say of every pair",
            subtitle="t of sender (down) on receiver (across), 0 where negative; framed: chosen",
        ),
    )
    edge = frames.column(pairs, "edge") > 0
    rate = world.model.cfg.support.rate
    lead = (
        f"Edges are chosen at {rate:.0%} false discoveries, among those into {world.nodes[-1]} and among all others, "
        "conditional on every unit's own level and, where further channels agree on it, on one demand that all share. "
        "Only rises are tested. A node's memory is its series, carried over and bent as the data prefer. An edge that "
        "is not here is not shown to be absent."
    )
    return Section(
        title="Which nodes act on which?",
        lead=lead,
        figures=tuple(Figure(svg=svg, source="graph.parquet") for svg in drawn),
        tables=(
            tabulate(frames.where(pairs, edge), PAIRS, caption="Chosen edges"),
            tabulate(
                frames.ordered(frames.where(pairs, ~edge), "t", down=True),
                PAIRS,
                caption="Pairs that were not chosen, the nearest first",
                folded=True,
            ),
        ),
        chapter=ANSWER,
    )


def _along(world: GraphWorld, pairs: pd.DataFrame) -> Section:
    drawn = tuple(
        graph_figures.matrix(pairs, value, nodes=world.nodes, title=title, subtitle=subtitle)
        for value, title, subtitle in (
            (
                "cig",
                "One step after a push",
                "how far the receiver moves, in its standard deviations; framed: chosen",
            ),
            ("ar_cig", "Rolled on over the horizon", "the mean over the steps, nothing read in between"),
        )
    )
    lead = (
        f"Each node in turn is pushed by {InfluenceConfig().size:g} standard deviations and the decoders forecast on, "
        f"along the graph that they were given ({world.model.cfg.supply}). Where no path of it leads the influence is "
        "exactly 0: that is the decoders' form, and no finding."
    )
    return Section(
        title="What do the decoders do along it?",
        lead=lead,
        figures=tuple(Figure(svg=svg, source="graph.parquet") for svg in drawn),
        chapter=ANSWER,
    )


def _accuracy(found: pd.DataFrame) -> Section | None:
    if found.empty:
        return None
    words = found.replace({"horizon": HORIZONS, "model": MODELS})
    shown = {
        "outcome": ("outcome", None),
        "horizon": ("forecast", None),
        "model": ("by", None),
        "rmse": ("error (rmse)", number),
    }
    lead = (
        "Errors in the last periods, which nothing was learnt from, with the actions as they were. Where a world loses "
        "to no change or to a mean, its answers to other plans rest on nothing."
    )
    return Section(
        title="Does it forecast?",
        lead=lead,
        tables=(tabulate(words, shown, caption="Errors in the outcome's units, the less the better"),),
        chapter=BELIEF,
    )


def _judged(swap: pd.DataFrame, target: str) -> Section:
    shown = {
        "graph": ("graph supplied", None),
        "density": ("density", number),
        "mse": ("squared error, variances", number),
        "nauprc_target": ("nAUPRC of the target", number),
        "nauprc_shuffled": ("of shuffled influences", number),
    }
    lead = (
        f"The decoders are frozen and other graphs supplied: the error of the forecast of {target}, and how well the "
        "influences on it rank the chosen edges. Under the chosen graph they rank high by construction, where it has "
        "an edge there."
    )
    return Section(
        title="Does forecast error tell whether it attributes?",
        lead=lead,
        figures=(Figure(svg=graph_figures.swapped(swap), source="swap.parquet"),),
        tables=(tabulate(swap, shown, caption="The same in numbers"),),
        caution=sections.NO_EVIDENCE,
        chapter=BELIEF,
    )
