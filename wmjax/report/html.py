"""The report as one self-contained HTML page: no network, no outside file, readable without scripts and on paper."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from wmjax.core.files import write_text
from wmjax.report.answers import answers
from wmjax.report.inputs import ReportInput
from wmjax.report.parts import Page, Section
from wmjax.report.sections import sections

__all__ = ["Page", "ReportInput", "Section", "page", "render", "write_page", "write_report"]


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _chapters(parts: tuple[Section, ...]) -> Iterator[tuple[str, list[Section]]]:
    for chapter, members in groupby(parts, key=lambda section: section.chapter):
        yield chapter, list(members)


def page(content: Page) -> str:
    """Render any page: worlds compose their own sections and hand them in.

    Only the figures are taken as markup, and they are written by this package with their words escaped; every other
    string is escaped here.
    """
    template = _environment().get_template("template.html")
    count = len(content.answers)
    columns = count if count < 4 else 4 if count % 4 in (0, 3) else 3
    return template.render(page=content, chapters=list(_chapters(content.sections)), columns=columns, svg=Markup)


def compose(report: ReportInput) -> Page:
    """Put a consumer world's report together: headline, warnings, sections."""
    provenance = report.all_provenance
    version = provenance.get("versions", {}).get("wmjax", "")
    parts = [f"wmjax {version}".strip()]
    parts += [
        f"{label} {provenance[key]}"
        for key, label in (("seed", "seed"), ("data_fingerprint", "data"))
        if key in provenance
    ]
    panel = report.summary.get("panel", {})
    subtitle = str(panel.get("description", ""))
    return Page(
        title=report.title,
        subtitle=subtitle,
        answers=answers(report),
        warnings=report.all_warnings,
        sections=sections(report),
        footer=" · ".join(parts),
    )


def render(report: ReportInput) -> str:
    """Render a consumer world's report to HTML; equal input gives equal text."""
    return page(compose(report))


def write_page(path: str | Path, content: Page) -> None:
    """Write any page, whole or not at all."""
    write_text(path, page(content))


def write_report(path: str | Path, report: ReportInput) -> None:
    """Write a consumer world's report, whole or not at all."""
    write_page(path, compose(report))
