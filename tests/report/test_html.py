"""The page: whole, self-contained, escaped, and honest about what the data cannot tell."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from wmjax.core.errors import UserError
from wmjax.report import answers, html
from wmjax.report.answers import answer, standing_of
from wmjax.report.inputs import COLUMNS, ReportInput
from wmjax.report.parts import Answer, Fact, Page, Section, flatten, tabulate

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Reader(HTMLParser):
    """Checks that tags are balanced, and collects words, attributes and identifiers."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]

    def handle_endtag(self, tag):
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        if not {"script", "style"} & set(self.stack):
            self.words.append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.stack == []
    return reader


@pytest.fixture(scope="module")
def text(report) -> str:
    return html.render(report)


@pytest.fixture(scope="module")
def page(text) -> Reader:
    return read(text)


def test_page_is_whole_and_its_identifiers_are_single(text, page):
    assert text.lstrip().startswith("<!DOCTYPE html>")
    identifiers = [value for _, key, value in page.attributes if key == "id"]
    assert len(identifiers) == len(set(identifiers))
    inner = {value[1:] for _, key, value in page.attributes if key == "href" and value.startswith("#")}
    assert inner <= set(identifiers)


def test_page_refers_to_nothing_outside(text, page):
    for tag, key, value in page.attributes:
        if key in ("src", "href", "srcset", "data", "action", "poster"):
            assert key == "href", (tag, key, value)
            assert value.startswith(("#", "./")), (tag, value)
    assert "@import" not in text
    assert "url(http" not in text
    assert "default-src 'none'" in text
    assert not {"link", "iframe", "object", "embed", "img", "form"} & set(page.tags)


def test_every_warning_is_at_the_top_and_escaped(report, text, page):
    words = "".join(page.words)
    assert len(report.all_warnings) == 5
    for warning in report.all_warnings:
        assert warning in words
    assert words.index(report.all_warnings[0]) < words.index("Who responds?")
    assert "5 warnings" in words
    assert page.tags.count("script") == 1  # the page's own
    assert "alert(" not in text.replace("&lt;script&gt;alert(", "")


def test_headline_is_in_words_with_intervals(page):
    words = " ".join("".join(page.words).split())
    assert "95 % interval 13.9 to 15.7" in words
    assert "With push at 1 instead of 0, the probability of visit is 14.8 percentage points higher" in words
    assert "on average over 30,136 of 30,720 rows" in words
    assert re.search(r"no clear change in purchase[^:]*: the interval holds zero", words)
    assert "The data cannot tell what sale1 does to purchase." in words


def test_clear_answers_come_first_and_those_the_data_cannot_tell_last(report):
    found = answers.answers(report)
    clear = ["no clear change" not in a.words and a.standing != "not" for a in found]
    assert clear == sorted(clear, reverse=True)
    assert [a.standing == "not" for a in found] == sorted(a.standing == "not" for a in found)
    # Eight unclear ones before it do not push the one that is clear from the page.
    dull = {**report.summary["effects"][0], "ate": 0.0, "lo": -0.1, "hi": 0.1}
    effects = [*({**dull, "outcome": f"other_{i}"} for i in range(9)), report.summary["effects"][0]]
    (first, *others) = answers.answers(dataclasses.replace(report, summary={**report.summary, "effects": effects}))
    assert first.question == "push → visit"
    assert len(others) == answers.MOST_ANSWERS - 1
    # Clear, but of one row in fifty: no headline before what speaks for many.
    few = {**report.summary["effects"][0], "outcome": "rarely", "n": 1000, "n_supported": 20}
    found = answers.answers(dataclasses.replace(report, summary={**report.summary, "effects": [few, dull]}))
    assert [a.question for a in found] == [f"push → {dull['outcome']}", "push → rarely"]


def test_sections_come_in_order_and_accuracy_is_no_evidence(page):
    words = "".join(page.words)
    titles = ["Who responds?", "Are the rows comparable?", "Are the plans plausible?", "Does it predict", "The data"]
    places = [words.rindex(t) for t in titles]
    assert places == sorted(places)
    assert "It is no evidence that an effect is right" in words


def test_every_file_behind_a_chart_is_named_and_linked(report, page):
    linked = {value for tag, key, value in page.attributes if tag == "a" and key == "href" and value[0] == "."}
    for name, description in report.files:
        assert name in "".join(page.words)
        assert description in "".join(page.words)
    behind_facts = {"./plausibility.parquet", "./overlap_table.parquet"}
    assert linked == {f"./{name}" for name, _ in report.files} - behind_facts


def part_of(table: object) -> object:
    """Keep one picture's worth of a table."""
    kept = {"stage": "adapter: visit", "metric": "val_auc", "outcome": "visit", "action": "push", "quantity": "auc"}
    for name, value in kept.items():
        if isinstance(table, pd.DataFrame) and name in table.columns:
            table = table[table[name] == value]
    return table


@pytest.mark.parametrize("name", [*COLUMNS, "summary", "files", "warnings", "provenance"])
def test_each_part_stands_alone_and_vanishes_when_empty(report, name):
    with_one = html.compose(ReportInput(**{name: part_of(getattr(report, name))}))
    shown = (with_one.sections, with_one.warnings, with_one.answers)
    assert any(shown)
    assert not any((html.compose(ReportInput()).sections, html.compose(ReportInput()).warnings))
    assert len(read(html.page(with_one)).words) > len(read(html.render(ReportInput())).words)


def test_an_empty_report_is_a_page():
    words = "".join(read(html.render(ReportInput(title="Nothing"))).words)
    assert "Nothing" in words
    assert "warning" not in words


def test_a_table_that_lacks_a_column_is_named():
    with pytest.raises(UserError, match="calibration lacks the columns model, predicted"):
        ReportInput(calibration=pd.DataFrame({"outcome": ["visit"]}))


EFFECT = {"outcome": "y", "action": "x", "t0": 0, "t1": 1, "scale": "probability", "ate": 0.1, "lo": 0.05, "hi": 0.15}


@pytest.mark.parametrize(
    ("effect", "overlap", "kind"),
    [
        ({"n": 100, "n_supported": 95}, {}, "supported"),
        ({"n": 100, "n_supported": 60}, {}, "partly"),
        ({"n": 100, "n_supported": 0}, {}, "not"),
        ({"n": 100, "n_supported": 100}, {"deterministic": np.bool_(True), "reason": "because"}, "not"),
        ({}, {"share_outside": 0.1}, "supported"),
        ({}, {}, "partly"),
        ({"n": 100, "n_supported": 95, "ate": None}, {}, "not"),
    ],
)
def test_standing(effect, overlap, kind):
    assert standing_of({**EFFECT, **effect}, overlap).kind == kind


def test_a_clear_answer_says_what_could_make_all_of_it():
    hidden = {"robustness": 0.0312, "robustness_interval": 0.012, "times_known": 2.345, "known_columns": "visit_lag"}
    told = answer({**EFFECT, **hidden}, {}).words
    assert told.endswith(
        "A hidden cause 2.3 times as strong as visit_lag, or one that explains 3.1 % of what the table leaves "
        "unexplained of x and of y, could make all of it, or hide as much again."
    )
    assert "hidden" not in answer({**EFFECT, **hidden, "robustness_interval": 0.0}, {}).words
    assert "hidden" not in answer(EFFECT, {}).words
    alone = answer({**EFFECT, **hidden, "times_known": None}, {}).words
    assert alone.endswith("unexplained of x and of y could make all of it, or hide as much again.")


def test_answers_speak_of_falls_and_of_other_scales():
    counts = {"n": 10, "n_supported": 10, "counted": "shop-weeks"}
    fall = answer({**EFFECT, **counts, "ate": -0.1, "lo": -0.15, "hi": -0.05}, {})
    assert fall.words.startswith("With x at 1 instead of 0, the probability of y is 10.0 percentage points lower")
    assert fall.words.endswith("10 of 10 shop-weeks.")
    assert fall.interval == "interval −15.0\u00a0to\u00a0−5.0"
    money = answer({**EFFECT, **counts, "scale": "currency", "ate": 1234.5, "lo": 1000.0, "hi": 1500.0}, {})
    assert money.words.startswith("With x at 1 instead of 0, y is 1,234 higher in currency")


def test_files_are_written_whole_and_equal_input_gives_equal_pages(tmp_path, report):
    path = tmp_path / "run" / "report.html"
    some = ReportInput(summary=report.summary, columns=report.columns, files=report.files)
    html.write_report(path, some)
    assert path.read_text(encoding="utf-8") == html.render(some)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_other_worlds_compose_their_own_pages(tmp_path):
    bad = "<script>x</script>"
    table = tabulate(pd.DataFrame({"a": [bad], "b": [1234.0]}), {"a": (bad, None), "b": ("b", lambda v: f"{v:,.0f}")})
    given = Answer(question=bad, value=bad, unit=bad, interval=bad, words=bad, standing="partly", because=bad)
    section = Section(title=bad, lead=bad, caution=bad, chapter=bad, facts=(Fact(bad, bad),), tables=(table,))
    content = Page(title=bad, subtitle=bad, answers=(given,), warnings=(bad,), sections=(section,), footer=bad)
    html.write_page(tmp_path / "page.html", content)
    reader = read((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert reader.tags.count("script") == 1
    assert "".join(reader.words).count(bad) >= 16
    assert "1,234" in reader.words


def test_tables_carry_what_they_are_sorted_by():
    frame = pd.DataFrame({"n": [1200, 3], "name": ["B", None]})
    table = tabulate(frame, {"name": ("name", None), "lacking": ("?", None), "n": ("rows", lambda v: f"{v:,}")})
    assert [h.text for h in table.heads] == ["name", "rows"]
    assert [[tuple(c) for c in row] for row in table.rows] == [
        [("B", "b"), ("1,200", "1200.0")],
        [("", ""), ("3", "3.0")],
    ]


def test_flatten_names_the_leaves():
    assert flatten({"a": {"b": 1, "c": (2, 3)}, "d": None}) == [("a.b", "1"), ("a.c", "[2, 3]"), ("d", "None")]
