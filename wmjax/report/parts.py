"""What a page is made of: facts, figures, tables and sections. Every world's report is composed of these."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from wmjax.report.numbers import as_float, label_of, value_of


class Fact(NamedTuple):
    """A number or word worth seeing by itself."""

    label: str
    value: str


class Cell(NamedTuple):
    """One cell: what is shown, and what it is sorted by (a number, or its text)."""

    text: str
    order: str


class Head(NamedTuple):
    """One column's heading; numbers stand to the right."""

    text: str
    numeric: bool


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One panel: an SVG element, what to see in it, and the name of the file that holds its data."""

    svg: str
    caption: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; a folded one shows its caption until it is opened."""

    heads: tuple[Head, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    folded: bool = False


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of a page.

    Attributes:
        title: what the reader learns here.
        lead: a paragraph or two before the figures.
        figures: panels, placed side by side where there is room.
        tables: under the figures.
        facts: single numbers between the lead and the figures.
        caution: a sentence that must not be missed; set apart.
        chapter: sections of one chapter stand under its heading.
        folded: show only the title until it is opened.
    """

    title: str
    lead: str = ""
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    facts: tuple[Fact, ...] = ()
    caution: str = ""
    chapter: str = ""
    folded: bool = False

    @property
    def anchor(self) -> str:
        """The section's name in an address."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-") or "section"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One question, answered in words.

    Attributes:
        question: `push → visit`.
        value, unit: the estimate with its sign; what it is measured in.
        interval: `95 % interval 13.9 to 15.7`.
        words: the sentence.
        standing: `supported`, `partly` or `not`: whether the data can tell.
        because: why, in a few words.
    """

    question: str
    value: str
    unit: str
    interval: str
    words: str
    standing: str
    because: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str = ""
    answers: tuple[Answer, ...] = ()
    warnings: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    footer: str = ""


Printer = Callable[[Any], str]


def tabulate(
    frame: pd.DataFrame,
    columns: Mapping[str, tuple[str, Printer | None]],
    *,
    caption: str = "",
    folded: bool = False,
) -> Table:
    """Make a table of the named columns of a frame, in the mapping's order; columns the frame lacks are left out.

    Args:
        frame: the rows.
        columns: from a column's name to its heading and its printer; without a printer it is text, to the left.
        caption: what the table says.
        folded: show only the caption until it is opened.
    """
    kept = {name: spec for name, spec in columns.items() if name in frame.columns}
    heads = tuple(Head(heading, printer is not None) for heading, printer in kept.values())
    rows = tuple(
        tuple(_cell(value, printer) for value, (_, printer) in zip(row, kept.values(), strict=True))
        for row in frame[list(kept)].itertuples(index=False, name=None)
    )
    return Table(heads=heads, rows=rows, caption=caption, folded=folded)


def _cell(value: Any, printer: Printer | None) -> Cell:
    if printer is None:
        text = "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)
        return Cell(text, text.lower())
    order = as_float(value)
    return Cell(printer(value), repr(order) if math.isfinite(order) else "")


def facts(values: Mapping[str, Any], *, leave_out: tuple[str, ...] = ()) -> tuple[Fact, ...]:
    """Turn a plain mapping into facts, in its own order; what is nested deeper is left to the provenance."""
    return tuple(
        Fact(label_of(name), value_of(name, value))
        for name, value in values.items()
        if name not in leave_out and not isinstance(value, Mapping) and value not in (None, "", [], ())
    )


def flatten(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """List the leaves of nested mappings as dotted names and their values in words."""
    if isinstance(value, Mapping):
        return [leaf for k, v in value.items() for leaf in flatten(v, f"{prefix}.{k}" if prefix else str(k))]
    if isinstance(value, list | tuple):
        return [(prefix, "[" + ", ".join(str(v) for v in value) + "]")]
    return [(prefix, str(value))]
