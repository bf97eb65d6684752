"""Regular calendars: infer one from the dates of a table, place every row on it, and read months and weekdays off it.

Regular is not evenly spaced: a monthly calendar steps by 28 to 31 days. A unit may miss periods (they are masked), but
a date between two periods is an error, never rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from wmjax.core.errors import UserError
from wmjax.data import convert
from wmjax.data.schema import Frequency

PARTS = {"month": 12, "dow": 7, "quarter": 4}
STEP_UNIT = {"daily": "d", "weekly": "w", "monthly": "m", "step": ""}
_DAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")
_MOST_TIMES = 1_000_000


class Placed(NamedTuple):
    """Rows on a calendar.

    Attributes:
        frequency: settled, never `"auto"`.
        times: every period from the first to the last, also those without a row.
        position: `[rows]`, the period of each row.
    """

    frequency: Frequency
    times: pd.Index
    position: Int[np.ndarray, " rows"]


def place(
    column: pd.Series, unit: Int[np.ndarray, " rows"], frequency: Frequency, describe: Callable[[int], str]
) -> Placed:
    """Settle the calendar of a time column and place every row on it.

    `"auto"` goes by the usual step between a unit's neighbouring rows: 1 day, 7 days, or 28 to 31 days; whole numbers
    are steps; a table with one date only is daily. Weeks are counted from the most common weekday, months from the
    most common day (a later day than the month has is its last).

    Args:
        column: the table's time column.
        unit: the unit of each row, as a code.
        frequency: as declared.
        describe: writes unit and time of a row, for messages.

    Raises:
        UserError: missing or unreadable times, mixed types, or dates off the calendar; names column, unit, time, count.
    """
    name = f"time column {str(column.name)!r}"
    codes, uniques = pd.factorize(convert.opened(column))
    if (codes < 0).any():
        bad = np.flatnonzero(codes < 0)
        raise UserError(f"{name}: missing in {len(bad)} rows, first at {describe(int(bad[0]))}")
    kind = pd.api.types.infer_dtype(pd.Series(uniques), skipna=True)
    if kind in ("integer", "floating"):
        if frequency not in ("auto", "step"):
            raise UserError(f"{name}: holds numbers, but a {frequency} calendar needs dates such as 2025-01-31")
        return _place_steps(name, np.asarray(uniques), codes, describe)
    if frequency == "step":
        raise UserError(f'{name}: holds {kind}, but frequency = "step" needs whole numbers')
    return _place_dates(name, _dates(name, uniques, codes, kind, describe), codes, unit, frequency, describe)


def _place_steps(name: str, uniques: np.ndarray, codes: np.ndarray, describe: Callable[[int], str]) -> Placed:
    values = uniques.astype(np.float64)
    steps = np.where(np.isfinite(values), values, 0.5).round().astype(np.int64)
    _raise_off(name, steps != values, codes, describe, 'off the "step" calendar', "steps are whole numbers")
    first, last = int(steps.min()), int(steps.max())
    _check_length(name, last - first + 1, "number the periods 0, 1, 2, .. or write dates as 2025-01-31")
    return Placed("step", pd.RangeIndex(first, last + 1), (steps - first)[codes])


def _dates(
    name: str, uniques: object, codes: np.ndarray, kind: str, describe: Callable[[int], str]
) -> pd.DatetimeIndex:
    if kind not in ("string", "datetime64", "datetime", "date", "period"):
        rare = convert.minority(pd.Series(uniques, dtype=object))
        _raise_off(name, rare, codes, describe, f"of mixed types ({kind})", "write them as 2025-01-31")
        raise UserError(f"{name}: holds {kind}, which are no dates; write every time as 2025-01-31")
    values = pd.PeriodIndex(uniques).to_timestamp() if kind == "period" else uniques
    dates = pd.DatetimeIndex(pd.to_datetime(pd.Series(values), errors="coerce", format=_format(kind)))
    _raise_off(name, np.asarray(dates.isna()), codes, describe, "not readable as dates", "write them as 2025-01-31")
    return dates.tz_localize(None).as_unit("ns")


def _format(kind: str) -> str | None:
    return "ISO8601" if kind == "string" else None


def _place_dates(
    name: str,
    dates: pd.DatetimeIndex,
    codes: np.ndarray,
    unit: np.ndarray,
    frequency: Frequency,
    describe: Callable[[int], str],
) -> Placed:
    whole = dates.normalize()
    _raise_off(name, np.asarray(dates != whole), codes, describe, "off the calendar", "a date has no time of day")
    day = whole.to_numpy().astype("datetime64[D]").astype(np.int64)
    settled = _infer(name, day[codes], unit) if frequency == "auto" else frequency
    period, times, what = _PERIODS[settled](day)
    hint = "mend the dates, or declare the frequency" if frequency == "auto" else "mend the dates"
    _raise_off(name, period < 0, codes, describe, f"off the {settled} calendar ({what})", hint)
    _check_length(name, len(times), "are the first and last dates right?")
    return Placed(settled, times, period[codes])


def _infer(name: str, day: np.ndarray, unit: np.ndarray) -> Frequency:
    """Infer a frequency from the most common step, in days, between neighbouring rows of a unit."""
    order = np.lexsort((day, unit))
    step = np.diff(day[order])[np.diff(unit[order]) == 0]
    step = step[step > 0]
    if not len(step):
        step = np.diff(np.unique(day))
    if not len(step):
        return "daily"
    usual = int(pd.Series(step).mode().iloc[0])
    if usual == 1:
        return "daily"
    if usual == 7:
        return "weekly"
    if 28 <= usual <= 31:
        return "monthly"
    raise UserError(
        f"{name}: the usual step between a unit's rows is {usual} days ({int((step == usual).sum())} of {len(step)}), "
        'which is not daily, weekly or monthly; declare frequency = "daily" (or "weekly", "monthly") if rows are '
        'missing, or number the periods 0, 1, 2, .. and declare frequency = "step"'
    )


def _days(day: np.ndarray) -> tuple[np.ndarray, pd.Index, str]:
    first, last = day.min(), day.max()
    return day - first, _index(np.arange(first, last + 1)), "every day"


def _weeks(day: np.ndarray) -> tuple[np.ndarray, pd.Index, str]:
    # Day 0 of NumPy's calendar, 1970-01-01, is a Thursday.
    weekday = (day + 3) % 7
    anchor = np.bincount(weekday, minlength=7).argmax()
    on = weekday == anchor
    first, last = day[on].min(), day[on].max()
    return np.where(on, (day - first) // 7, -1), _index(np.arange(first, last + 1, 7)), _DAYS[anchor]


def _months(day: np.ndarray) -> tuple[np.ndarray, pd.Index, str]:
    dates = day.astype("datetime64[D]")
    month = dates.astype("datetime64[M]")
    of_month = (dates - month.astype("datetime64[D]")).astype(np.int64) + 1
    latest, usual = of_month.max(), np.bincount(of_month).argmax()
    anchor = latest if (of_month == np.minimum(latest, _length(month))).all() else usual
    on = of_month == np.minimum(anchor, _length(month))
    first, last = month[on].min(), month[on].max()
    grid = np.arange(first, last + 1)
    starts = grid.astype("datetime64[D]").astype(np.int64)
    times = _index(starts + np.minimum(anchor, _length(grid)) - 1)
    return np.where(on, (month - first).astype(np.int64), -1), times, f"day {anchor} of the month"


_PERIODS = {"daily": _days, "weekly": _weeks, "monthly": _months}


def _length(month: np.ndarray) -> np.ndarray:
    return ((month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")).astype(np.int64)


def _index(day: np.ndarray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(day.astype("datetime64[D]").astype("datetime64[ns]"))


def _raise_off(
    name: str,
    bad: Bool[np.ndarray, " dates"],
    codes: np.ndarray,
    describe: Callable[[int], str],
    what: str,
    advice: str,
) -> None:
    if bad.any():
        rows = np.flatnonzero(bad[codes])
        raise UserError(f"{name}: {len(rows)} rows are {what}, first at {describe(int(rows[0]))}; {advice}")


def _check_length(name: str, length: int, advice: str) -> None:
    if length > _MOST_TIMES:
        raise UserError(f"{name}: the calendar would have {length} periods; {advice}")


def codes(times: pd.Index, parts: tuple[str, ...]) -> Int[np.ndarray, "time parts"]:
    """Read the parts of dates as codes from 0: `"month"` 0..11, `"dow"` 0..6 (Monday 0), `"quarter"` 0..3."""
    if not parts:
        return np.zeros((len(times), 0), np.int32)
    if not isinstance(times, pd.DatetimeIndex):
        raise UserError(f"a calendar of steps has no {', '.join(parts)}; leave Calendar out or give dates")
    of = {"month": times.month - 1, "dow": times.day_of_week, "quarter": times.quarter - 1}
    return np.stack([np.asarray(of[p], np.int32) for p in parts], axis=1)
