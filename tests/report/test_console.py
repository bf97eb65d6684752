"""Progress on a terminal and in a pipe, and the command line's words."""

from __future__ import annotations

import io
import re

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from wmjax.core.observe import Event
from wmjax.report import console


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def pipe() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=200)


def screen() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=160, color_system="standard", legacy_windows=False)


def text_of(out: Console) -> str:
    file = out.file
    assert isinstance(file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())


def run(out: Console, *, total: int = 60, seconds: float = 1.0, begin: int = 0) -> None:
    clock = Clock()
    with console.console_observer(out, clock=clock) as observe:
        for done in range(begin, total + 1):
            observe(Event("pretrain 1/3", done, total, "epoch", {"loss": 0.5 / (done + 1)}))
            clock.now += seconds


def test_a_pipe_gets_rate_and_eta_but_no_more_than_a_line_every_five_seconds():
    out = pipe()
    run(out)
    lines = text_of(out).splitlines()
    assert lines[0] == "pretrain 1/3: 0 of 60 epochs"
    assert lines[1] == "pretrain 1/3: 5 of 60 epochs, 1 epoch/s, ETA 0:55, elapsed 0:05, loss 0.0833"
    assert lines[-1] == "pretrain 1/3: done, 60 epochs in 1:00 (1 epoch/s), loss 0.00820"
    assert len(lines) == 1 + 11 + 1 + 1  # start, one each 5 s up to 55 and one at 60, end


def test_a_resumed_stage_is_timed_from_where_it_went_on():
    out = pipe()
    run(out, total=60, seconds=2.0, begin=50)
    assert "0.500 epoch/s, ETA 0:14" in text_of(out)  # at 53 of 60, and not 53 epochs in six seconds
    assert "60 epochs in 0:20 (0.500 epoch/s)" in text_of(out)


def test_rate_follows_the_last_half_minute():
    out, clock = pipe(), Clock()
    with console.console_observer(out, clock=clock) as observe:
        for done in range(101):
            observe(Event("fit", done, 200))
            clock.now += 0.5 if done < 50 else 2.0
    assert "fit: stopped at 100 of 200 epochs" in text_of(out)
    assert re.findall(r"([\d.]+) epoch/s, ETA", text_of(out))[-1] == "0.500"


def test_a_terminal_shows_a_bar_and_leaves_one_line_for_a_finished_stage():
    out = screen()
    run(out, total=20)
    text = text_of(out)
    assert "━" in text
    assert "1 epoch/s" in text
    assert "ETA 0:10" in text
    assert text.count("pretrain 1/3: done, 20 epochs in 0:20 (1 epoch/s), loss") == 1


@pytest.mark.parametrize("make", [pipe, screen])
def test_stages_may_run_side_by_side_and_all_are_closed(make):
    out, clock = make(), Clock()
    with console.console_observer(out, clock=clock) as observe:
        observe(Event("a", 1, 4, "plan"))
        observe(Event("b", 0, 1, "row"))
        clock.now += 1
        observe(Event("a", 3, 4, "plan"))
        observe(Event("b", 1, 1, "row"))
    text = text_of(out)
    assert "b: done, 1 row in 0:01 (1 row/s)" in text
    assert "a: stopped at 3 of 4 plans in 0:01 (2 plan/s)" in text


@pytest.mark.parametrize("make", [pipe, screen])
def test_observing_never_raises(make):
    class Closed(io.StringIO):
        def write(self, s: str) -> int:
            raise OSError("no space left")

    strange = [
        Event("s", 0, 0),
        Event("s", 3, 2),
        Event("t", 0, 9, "epoch", {"loss": float("nan"), "many": np.arange(3.0), "none": None, "word": "good"}),  # type: ignore[dict-item]
        Event("[bold]m[/", 1, 9, "[x]", {"[y]": 1.0}),
    ]
    out = make()
    broken = Console(file=Closed(), force_terminal=out.is_terminal, width=80)
    for target in (out, broken):
        with console.console_observer(target, every=0.0) as observe:
            for event in strange:
                observe(event)
                observe(event)
    assert "[bold]m[/: stopped at 1 of 9 [x]s" in text_of(out)
    assert "loss not finite" in text_of(out)


@pytest.mark.parametrize("make", [pipe, screen])
def test_an_error_in_the_work_passes_through(make):
    out = make()

    def work() -> None:
        with console.console_observer(out) as observe:
            observe(Event("a", 1, 4))
            raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        work()
    assert "a: stopped at 1 of 4 epochs" in text_of(out)


def test_thousands_of_reports_keep_few_samples():
    pace = console.Pace(stage="s", started=0.0)
    for i in range(5000):
        pace.add(i * 1e-3, Event("s", i, 5000))
    assert len(pace.samples) < 60
    assert pace.rate == pytest.approx(1000, rel=0.05)


def test_words_are_not_markup(capsys):
    console.say("plain [red]text[/red]")
    console.heading("A [bold] heading")
    console.warning("beware [of] brackets")
    console.error("no [file]")
    out, err = capsys.readouterr()
    assert out == "plain [red]text[/red]\n\nA [bold] heading\n"
    assert err == "warning: beware [of] brackets\nerror: no [file]\n"


def test_warning_is_yellow_on_a_terminal():
    out = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=80)
    console.warning("careful", console=out)
    assert isinstance(out.file, io.StringIO)
    assert "\x1b[33mwarning: careful" in out.file.getvalue()


@pytest.mark.parametrize(
    ("count", "unit", "words"), [(1, "box", "1 box"), (126, "box", "126 boxes"), (2, "epoch", "2 epochs")]
)
def test_units_have_their_plural(count, unit, words):
    out = pipe()
    with console.console_observer(out) as observer:
        observer(Event("sweep", 0, count, unit=unit))
        observer(Event("sweep", count, count, unit=unit))
    assert words in text_of(out)


def test_table_aligns_numbers_and_keeps_names_as_they_are():
    out = pipe()
    frame = pd.DataFrame({"outcome": ["visit", "[b]uy"], "ate": [0.12345, np.nan], "n": [12345, 3]})
    console.table(frame, title="Effects", console=out)
    lines = [line.rstrip() for line in text_of(out).splitlines()]
    assert lines == ["Effects", "outcome    ate       n", "visit    0.123  12,345", "[b]uy        –       3"]


def test_a_file_has_no_right_edge():
    """Whatever width the console takes a pipe to have, no cell is cut."""
    out = io.StringIO()
    wide = pd.DataFrame({f"a_long_name_{i}": [f"a long word {i}", "x"] for i in range(12)})
    console.table(wide, console=Console(file=out, width=80))
    assert all(word in out.getvalue() for word in (*wide.columns, *wide.iloc[0]))
    assert "…" not in out.getvalue()
