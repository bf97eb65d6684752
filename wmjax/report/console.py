"""Progress and plain words on a terminal: one bar a stage, or a line now and then where there is no terminal."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from wmjax.core.observe import Event, Observer
from wmjax.report.numbers import number, span, value_of

WINDOW_SECONDS = 30.0
SETTLING_SECONDS = 0.5
"""Reports that lie closer together tell nothing of the rate: the first ones often come in one burst."""
# Rich answers a closed pipe by leaving the program; losing sight of the work is no reason to end it.
FAILURES = (Exception, SystemExit)


@dataclass(kw_only=True)
class Pace:
    """How fast one stage goes: the rate over the last `WINDOW_SECONDS`, so that a resumed stage is not flattered."""

    stage: str
    started: float
    samples: deque[tuple[float, float]] = field(default_factory=deque)
    shown: float = -math.inf
    first: Event | None = None
    last: Event | None = None

    def add(self, now: float, event: Event) -> None:
        """Take in one report and forget what is older than the window, but for two samples."""
        if len(self.samples) > 1 and now - self.samples[-2][0] < 0.1:  # thousands of reports a second keep few samples
            self.samples.pop()
        self.samples.append((now, float(event.done)))
        self.first = self.first or event
        while len(self.samples) > 2 and now - self.samples[1][0] > WINDOW_SECONDS:
            self.samples.popleft()
        self.last = event

    @property
    def rate(self) -> float:
        """Units a second, NaN before two samples lie far enough apart; a stage's first unit waits for a compiler."""
        fresh = self.first is not None and self.samples[0][1] == self.first.done
        (t0, n0), (t1, n1) = self.samples[min(int(fresh), len(self.samples) - 1)], self.samples[-1]
        return (n1 - n0) / (t1 - t0) if t1 - t0 >= SETTLING_SECONDS and n1 > n0 else math.nan

    def mean_rate(self, now: float) -> float:
        """Units a second since the stage's first report, NaN where it had only one."""
        done = self.last.done - self.first.done if self.first and self.last else 0
        return done / (now - self.started) if done > 0 and now > self.started else math.nan

    def left(self, event: Event) -> float:
        """Seconds to the end at the present rate, NaN while the rate is unknown."""
        return max(event.total - event.done, 0) / self.rate


def _plural(count: int, unit: str) -> str:
    return f"{number(count)} {unit}" if count == 1 else f"{number(count)} {unit}{'es' if unit.endswith('x') else 's'}"


def _metrics(metrics: Mapping[str, Any], shown: int) -> str:
    # A value that is not finite is worth seeing as it is: it is how a diverged member looks.
    return ", ".join(
        f"{name} {'not finite' if isinstance(value, float) and not math.isfinite(value) else value_of('', value)}"
        for name, value in list(metrics.items())[:shown]
    )


def _rate(rate: float, unit: str) -> str:
    return f"{number(rate)} {unit}/s" if math.isfinite(rate) else "rate not yet known"


class _Plain:
    """Lines for logs and pipes: at a stage's start and end, and every `every` seconds between."""

    def __init__(self, console: Console, every: float) -> None:
        self.console, self.every = console, every

    def write(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def start(self, pace: Pace, event: Event) -> None:
        self.write(f"{event.stage}: {number(event.done)} of {_plural(event.total, event.unit)}")

    def update(self, pace: Pace, event: Event, now: float) -> None:
        if now - pace.shown < self.every:
            return
        pace.shown = now
        counted = f"{number(event.done)} of {_plural(event.total, event.unit)}"
        times = (_rate(pace.rate, event.unit), f"ETA {span(pace.left(event))}", f"elapsed {span(now - pace.started)}")
        self.write(f"{event.stage}: " + ", ".join(filter(None, (counted, *times, _metrics(event.metrics, 4)))))

    def finish(self, pace: Pace, event: Event, now: float) -> None:
        head = "done," if event.done >= event.total else f"stopped at {number(event.done)} of"
        counted = f"{head} {_plural(event.total, event.unit)} in {span(now - pace.started)}"
        rate = pace.mean_rate(now)
        measured = f" ({_rate(rate, event.unit)})" if math.isfinite(rate) else ""
        self.write(f"{event.stage}: " + ", ".join(filter(None, (counted + measured, _metrics(event.metrics, 4)))))


class _Bars:
    """Live bars for the running stages; a finished stage leaves one line above them."""

    def __init__(self, console: Console, every: float) -> None:
        self.plain = _Plain(console, every)
        self.bars = Progress(
            TextColumn("{task.description}", markup=False, style="bold"),
            BarColumn(bar_width=20, complete_style="blue", finished_style="blue"),
            TextColumn("{task.fields[counted]}", markup=False),
            TextColumn("{task.fields[rate]}", markup=False, style="cyan"),
            TextColumn("{task.fields[times]}", markup=False, style="dim"),
            TextColumn("{task.fields[metrics]}", markup=False),
            console=console,
            auto_refresh=False,  # what is shown changes with reports only, and a thread of its own could fail unseen
            transient=True,
        )
        self.tasks: dict[str, TaskID] = {}
        self.drawn = -math.inf

    def _fields(self, pace: Pace, event: Event, now: float) -> dict[str, Any]:
        return {
            "counted": f"{number(event.done)}/{number(event.total)}",
            "rate": _rate(pace.rate, event.unit) if math.isfinite(pace.rate) else "",
            "times": f"ETA {span(pace.left(event))}, elapsed {span(now - pace.started)}",
            "metrics": _metrics(event.metrics, 2),
        }

    def start(self, pace: Pace, event: Event) -> None:
        fields = self._fields(pace, event, pace.started)
        self.tasks[event.stage] = self.bars.add_task(event.stage, total=max(event.total, 1), **fields)

        self.bars.refresh()

    def update(self, pace: Pace, event: Event, now: float) -> None:
        self.bars.update(self.tasks[event.stage], completed=event.done, **self._fields(pace, event, now))
        if now - self.drawn >= 0.1:
            self.drawn = now
            self.bars.refresh()

    def finish(self, pace: Pace, event: Event, now: float) -> None:
        self.bars.remove_task(self.tasks.pop(event.stage))
        self.plain.finish(pace, event, now)


@contextmanager
def console_observer(
    console: Console | None = None, *, every: float = 5.0, clock: Callable[[], float] = time.monotonic
) -> Iterator[Observer]:
    """Give an observer that draws progress on `console` (standard error unless told) until the block ends.

    On a terminal every running stage has a bar with its rate (in its unit per second), ETA, elapsed time and last
    metrics; elsewhere a line is printed when a stage starts and ends, and at most every `every` seconds between.
    Showing progress must not stop work: whatever goes wrong in drawing is dropped. Errors of the block itself pass
    through, after the bars are closed.

    Args:
        console: where to draw.
        every: seconds between two lines of one stage, where there is no terminal.
        clock: monotonic seconds.
    """
    screen = console or Console(stderr=True)
    painter = _Bars(screen, every) if screen.is_terminal and not screen.is_dumb_terminal else _Plain(screen, every)
    running: dict[str, Pace] = {}

    def close(pace: Pace) -> None:
        running.pop(pace.stage, None)
        if pace.last is not None:
            painter.finish(pace, pace.last, clock())

    def observe(event: Event) -> None:
        with suppress(*FAILURES):
            now = clock()
            pace = running.get(event.stage)
            if pace is None:
                pace = running[event.stage] = Pace(stage=event.stage, started=now, shown=now)
                pace.add(now, event)
                painter.start(pace, event)
            else:
                pace.add(now, event)
                painter.update(pace, event, now)
            if event.done >= event.total:
                close(pace)

    if isinstance(painter, _Bars):
        with suppress(*FAILURES):
            painter.bars.start()
    try:
        yield observe
    finally:
        for pace in list(running.values()):
            with suppress(*FAILURES):
                close(pace)
        if isinstance(painter, _Bars):
            with suppress(*FAILURES):
                painter.bars.stop()


def say(text: str, *, console: Console | None = None) -> None:
    """Print one plain paragraph on standard output; brackets in it are not markup."""
    (console or Console()).print(text, markup=False, highlight=False, soft_wrap=True)


def heading(text: str, *, console: Console | None = None) -> None:
    """Print a bold line with an empty one before it."""
    out = console or Console()
    out.print()
    out.print(Text(text, style="bold"), soft_wrap=True)


def warning(text: str, *, console: Console | None = None) -> None:
    """Print a yellow line on standard error."""
    (console or Console(stderr=True)).print(Text(f"warning: {text}", style="yellow"), soft_wrap=True)


def error(text: str, *, console: Console | None = None) -> None:
    """Print a red line on standard error."""
    (console or Console(stderr=True)).print(Text(f"error: {text}", style="bold red"), soft_wrap=True)


def table(frame: pd.DataFrame, *, title: str = "", console: Console | None = None) -> None:
    """Print a small table: numbers to three significant digits and to the right, words to the left.

    Where there is no terminal its rows are as long as they need to be: a file has no right edge.
    """
    drawn = Table(
        title=Text(title) if title else None, title_justify="left", box=None, header_style="bold", pad_edge=False
    )
    for name in frame.columns:
        numeric = pd.api.types.is_numeric_dtype(frame.dtypes[name])
        drawn.add_column(Text(str(name)), justify="right" if numeric else "left", no_wrap=numeric)
    for row in frame.itertuples(index=False, name=None):
        drawn.add_row(*(Text(value_of("", value)) for value in row))
    out = console or Console()
    # What `print` is told of a width is cut to the console's own.
    (out if out.is_terminal else Console(file=out.file, width=1000)).print(drawn)
