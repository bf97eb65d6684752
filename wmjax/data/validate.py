"""Checks of a converted table, before anything is traced: one error for all that is wrong, with column, unit, time and
count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from wmjax.core.errors import UserError
from wmjax.data.panel import show_time
from wmjax.data.schema import Column, PanelSchema


class Rows(NamedTuple):
    """A long table in numbers.

    Attributes:
        unit: `[rows]`, index into `units`.
        time: `[rows]`, index into `times`.
        values: by column, `[rows]` float64; categorical columns as codes.
        units: unit ids.
        times: the calendar.
        levels: of the categorical columns.
    """

    unit: Int[np.ndarray, " rows"]
    time: Int[np.ndarray, " rows"]
    values: dict[str, Float[np.ndarray, " rows"]]
    units: tuple[int, ...] | tuple[str, ...]
    times: pd.Index
    levels: dict[str, tuple[str, ...]]

    def describe(self, row: int) -> str:
        """Write the unit and the time of a row."""
        return f"unit {self.units[self.unit[row]]!r}, time {show_time(self.times[self.time[row]])}"


class Problem(NamedTuple):
    """Something wrong in `rows` of one column; `text` holds `{n}` for how many rows there are."""

    column: str
    text: str
    rows: Int[np.ndarray, " bad"]
    advice: str


def problem(column: str, text: str, bad: Bool[np.ndarray, " rows"], advice: str) -> Iterator[Problem]:
    """Yield a problem where any row is bad."""
    if bad.any():
        yield Problem(column, text, np.flatnonzero(bad), advice)


def raise_all(problems: list[Problem], describe: Callable[[int], str]) -> None:
    """Raise one `UserError` for all problems, one line each; nothing where there is none."""
    lines = []
    for p in problems:
        text = p.text.replace("{n}", str(len(p.rows)))
        lines.append(f"column {p.column!r}: {text}, first at {describe(int(p.rows[0]))}; {p.advice}")
    if len(lines) == 1:
        raise UserError(lines[0])
    if lines:
        raise UserError(f"the table has {len(lines)} problems:\n" + "\n".join(f"- {line}" for line in lines))


def check_layout(rows: Rows, schema: PanelSchema) -> None:
    """Check that a unit has one row a time, and that its rows stand in order of time."""
    name = f"time column {schema.time!r}"
    repeated = pd.Series(rows.unit * len(rows.times) + rows.time).duplicated().to_numpy()
    if repeated.any():
        bad = np.flatnonzero(repeated)
        if schema.unit is None:
            raise UserError(
                f"{name}: {len(bad)} rows repeat a time, first at {rows.describe(int(bad[0]))}; name the column of "
                'units in the schema (unit = ".."), or keep one row a time'
            )
        raise UserError(
            f"unit column {schema.unit!r}, {name}: {len(bad)} rows repeat a unit and time, first at "
            f"{rows.describe(int(bad[0]))}; keep one row a unit and time"
        )
    order = np.argsort(rows.unit, kind="stable")
    back = (np.diff(rows.unit[order]) == 0) & (np.diff(rows.time[order]) < 0)
    if back.any():
        bad = order[1:][back]
        raise UserError(
            f"{name}: {len(bad)} rows are unsorted (earlier than the row before them of the same unit), first at "
            f"{rows.describe(int(bad[0]))}; sort the table by unit and time"
        )


def check_units(rows: Rows, schema: PanelSchema, min_units: int) -> None:
    """Check that every unit was observed, and that there are enough of them."""
    name = f"unit column {schema.unit!r}"
    seen = np.bincount(rows.unit, minlength=len(rows.units))
    empty = np.flatnonzero(seen == 0)
    if len(empty):
        span = f"between {show_time(rows.times[0])} and {show_time(rows.times[-1])}"
        raise UserError(
            f"{name}: {len(empty)} units have no observed row {span}, first {rows.units[empty[0]]!r}; drop them"
        )
    if schema.unit is not None and len(rows.units) < min_units:
        raise UserError(
            f"{name}: {len(rows.units)} unit ({rows.units[0]!r}) over {len(rows.times)} times, needs at least "
            f"{min_units}; a panel of consumers has many units, pass min_units=1 for one series"
        )


def find_problems(columns: tuple[Column, ...], rows: Rows) -> list[Problem]:
    """Collect what is wrong with the values, column by column."""
    out: list[Problem] = []
    for column in columns:
        found = list(_missing(column, rows)) or list(_values(column, rows))
        if not found and column.role == "static":
            found = list(_static(column, rows))
        if not found and column.name in {c.propensity for c in columns}:
            values = rows.values[column.name]
            advice = "a randomised action's propensity is its probability of 1; leave out rows that had no draw"
            inside = (values > 0) & (values < 1)
            found = list(problem(column.name, "{n} rows are no probability in (0, 1)", ~inside, advice))
        out += found
    return out


def unidentified(columns: tuple[Column, ...], rows: Rows, bad: Set[str]) -> list[Problem]:
    """Collect the actions whose effect the table cannot tell: that never vary, or are a copy of another column.

    Args:
        columns: that could be read.
        rows: of the table.
        bad: names of the columns that have another problem, which are passed over.
    """
    out, sound = [], []
    for column in columns:
        found = list(_constant(column, rows)) if column.role == "action" and column.name not in bad else []
        out += found
        sound += [] if found or column.name in bad else [column]
    for at, action in enumerate(sound):
        if action.role == "action":
            others = [c for c in sound if c.role in ("static", "covariate")]
            others += [c for c in sound[:at] if c.role == "action"]
            out += [p for column in others for p in _same(action.name, column, rows)]
    return out


def _missing(column: Column, rows: Rows) -> Iterator[Problem]:
    values = rows.values[column.name]
    if column.role == "static":
        bad = np.zeros(len(values), bool)
        bad[_first_rows(rows)] = np.isnan(values[_first_rows(rows)])
        advice = 'bin it and declare kind = "categorical" (missing is then a level of its own), or drop these units'
        yield from problem(column.name, "missing (NaN) for {n} units", bad, advice)
        return
    advice = "drop these rows (a unit may miss periods) or fill them in knowingly; nothing is filled for you"
    yield from problem(column.name, f"{column.role} is missing (NaN) in {{n}} rows", np.isnan(values), advice)


def _values(column: Column, rows: Rows) -> Iterator[Problem]:
    values = rows.values[column.name]
    with np.errstate(over="ignore"):
        infinite = ~np.isfinite(values.astype(np.float32))
    if infinite.any():
        yield from problem(column.name, "{n} rows are infinite", infinite, "mend or drop these rows")
    elif column.kind == "binary":
        bad = (values != 0) & (values != 1)
        example = f"{values[bad][0]:g}" if bad.any() else ""
        advice = 'a binary column holds 0 and 1; or declare source = ".." and equals = .., or another kind'
        yield from problem(column.name, f"{{n}} rows are not binary (such as {example})", bad, advice)
    elif column.kind in ("count", "currency"):
        advice = 'declare kind = "continuous" if that is meant'
        yield from problem(column.name, f"{{n}} rows of a {column.kind} are negative", values < 0, advice)
        if column.kind == "count":
            yield from problem(column.name, "{n} rows of a count are fractions", values != np.round(values), advice)


def _static(column: Column, rows: Rows) -> Iterator[Problem]:
    values = rows.values[column.name]
    differs = values != values[_first_rows(rows)][rows.unit]
    advice = 'a static column has one value a unit; declare role = "covariate" if it moves'
    yield from problem(column.name, "{n} rows differ from their unit's first row", differs, advice)


def _constant(column: Column, rows: Rows) -> Iterator[Problem]:
    values = rows.values[column.name]
    same = values == values[0]
    advice = "an action that never varies has no effect to learn; drop it"
    if same.all():
        yield from problem(column.name, f"action is constant ({values[0]:g}) in all {{n}} rows", same, advice)


def _same(action: str, column: Column, rows: Rows) -> Iterator[Problem]:
    """Find an action that is a copy of another column: equal, negated, 1 minus it, or the indicator of one level."""
    a, x = rows.values[action], rows.values[column.name]
    if column.kind == "categorical":
        relation = _level_of(a, x, rows.levels[column.name])
    else:
        signs = (("equals", x), ("is the negative of", -x), ("is 1 minus", 1 - x))
        relation = next((word for word, other in signs if np.array_equal(a, other)), None)
    if relation is not None:
        text = f"action {relation} {column.role} {column.name!r} in all {{n}} rows"
        advice = "their effects cannot be told apart; drop one of the two"
        yield Problem(action, text, np.arange(len(a)), advice)


def _level_of(a: np.ndarray, codes: np.ndarray, levels: tuple[str, ...]) -> str | None:
    for on, word in ((1, "is the indicator of"), (0, "is 0 only at")):
        there = np.unique(codes[a == on])
        if len(there) == 1 and np.isin(a, (0, 1)).all() and not (codes[a != on] == there[0]).any():
            return f"{word} level {levels[int(there[0])]!r} of"
    return None


def _first_rows(rows: Rows) -> Int[np.ndarray, " unit"]:
    """Find the first row of each unit."""
    first = np.full(len(rows.units), len(rows.unit), np.int64)
    np.minimum.at(first, rows.unit, np.arange(len(rows.unit)))
    return first
