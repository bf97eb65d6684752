import datetime

import numpy as np
import pandas as pd
import pytest

from wmjax.core.errors import UserError
from wmjax.data import calendar


def place(times, unit=None, frequency="auto"):
    column = pd.Series(times, name="when")
    unit = np.zeros(len(column), np.int64) if unit is None else np.asarray(unit)
    return calendar.place(column, unit, frequency, lambda r: f"unit {unit[r]}, time {column.iloc[r]}")


@pytest.mark.parametrize(
    ("times", "frequency", "position", "last"),
    [
        (["2025-01-01", "2025-01-02", "2025-01-05"], "daily", [0, 1, 4], "2025-01-05"),
        (["2025-01-06", "2025-01-13", "2025-02-03"], "weekly", [0, 1, 4], "2025-02-03"),
        (["2025-01-01", "2025-02-01", "2025-03-01", "2025-06-01"], "monthly", [0, 1, 2, 5], "2025-06-01"),
        (["2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30"], "monthly", [0, 1, 2, 3], "2024-04-30"),
        (["2023-01-30", "2023-02-28", "2023-03-30"], "monthly", [0, 1, 2], "2023-03-30"),
        (["2025-04-30", "2025-06-30", "2025-07-30"], "monthly", [0, 2, 3], "2025-07-30"),
        (["2025-03-05"], "daily", [0], "2025-03-05"),
        ([3, 4, 7], "step", [0, 1, 4], 7),
        ([-2.0, -1.0], "step", [0, 1], -1),
    ],
)
def test_auto_settles_the_frequency_and_places_every_row(times, frequency, position, last):
    found = place(times)
    assert found.frequency == frequency
    assert found.position.tolist() == position
    assert found.times[-1] == (pd.Timestamp(last) if isinstance(last, str) else last)
    assert len(found.times) == position[-1] + 1


@pytest.mark.parametrize(
    "times",
    [
        pd.to_datetime(["2025-01-06", "2025-01-13", "2025-01-20"]),
        pd.to_datetime(["2025-01-06", "2025-01-13", "2025-01-20"]).as_unit("s"),
        pd.to_datetime(["2025-01-06", "2025-01-13", "2025-01-20"]).tz_localize("Asia/Tokyo"),
        [datetime.date(2025, 1, 6), datetime.date(2025, 1, 13), datetime.date(2025, 1, 20)],
        pd.Categorical(["2025-01-06", "2025-01-13", "2025-01-20"]),
        pd.PeriodIndex(["2025-01-06", "2025-01-13", "2025-01-20"], freq="D"),
    ],
)
def test_dates_come_in_many_types(times):
    found = place(times)
    assert found.frequency == "weekly"
    assert found.times.equals(pd.DatetimeIndex(["2025-01-06", "2025-01-13", "2025-01-20"]).as_unit("ns"))


def test_the_usual_step_is_within_units_so_two_weekdays_are_an_error():
    mondays, tuesdays = (
        pd.date_range("2025-01-06", periods=6, freq="7D"),
        pd.date_range("2025-01-07", periods=5, freq="7D"),
    )
    with pytest.raises(
        UserError, match=r"'when': 5 rows are off the weekly calendar \(Mondays\).*unit 1, time 2025-01-07"
    ):
        place([*mondays, *tuesdays], [0] * 6 + [1] * 5)


def test_steps_from_one_unit_to_the_next_do_not_count():
    assert (
        place(["2025-01-06", "2025-01-13", "2025-01-27", "2025-02-10", "2025-02-24"], [0, 0, 1, 2, 3]).frequency
        == "weekly"
    )


def test_one_stray_date_does_not_make_weeks_into_days():
    dates = [*pd.date_range("2025-01-06", periods=8, freq="7D").astype(str), "2025-03-04"]
    with pytest.raises(UserError, match=r"1 rows are off the weekly calendar.*2025-03-04"):
        place(dates)


def test_a_monthly_calendar_has_one_day_of_the_month():
    with pytest.raises(UserError, match=r"1 rows are off the monthly calendar \(day 1 of the month\).*2025-03-02"):
        place(["2025-01-01", "2025-02-01", "2025-03-02", "2025-04-01"])


@pytest.mark.parametrize(
    ("times", "frequency", "words"),
    [
        (["2025-01-01", "2025-01-15", "2025-01-29"], "auto", ["14 days", "2 of 2", "step"]),
        (["2025-01-01", None, "2025-01-03"], "auto", ["missing in 1 rows", "unit 0"]),
        (["2025-01-01", "soon"], "auto", ["1 rows", "not readable", "soon"]),
        (["01/02/2025", "02/02/2025"], "auto", ["2 rows", "not readable", "2025-01-31"]),
        (["2025-01-01", "2025-01-02", 7], "auto", ["1 rows", "mixed types", "time 7"]),
        ([True, False], "auto", ["boolean", "no dates"]),
        (["2025-01-01", "2025-01-02T12:00"], "auto", ["1 rows", "time of day", "2025-01-02T12:00"]),
        ([0, 1, 2.5], "auto", ["1 rows", "whole numbers", "2.5"]),
        ([0, 1], "weekly", ["weekly", "needs dates"]),
        (["2025-01-01"], "step", ["step", "whole numbers"]),
        ([0, 10_000_000], "auto", ["10000001 periods"]),
    ],
)
def test_a_bad_calendar_is_told_with_unit_time_and_count(times, frequency, words):
    with pytest.raises(UserError) as error:
        place(times, frequency=frequency)
    assert all(w in str(error.value) for w in ["'when'", *words]), error.value


def test_a_declared_frequency_accepts_sparse_rows():
    dates = ["2025-01-01", "2025-01-15", "2025-01-29"]
    assert place(dates, frequency="daily").position.tolist() == [0, 14, 28]
    assert place(dates, frequency="weekly").position.tolist() == [0, 2, 4]


def test_parts_of_dates():
    times = pd.DatetimeIndex(["2025-01-06", "2025-12-28"])
    assert calendar.codes(times, ("month", "dow", "quarter")).tolist() == [[0, 0, 0], [11, 6, 3]]
    assert calendar.codes(pd.RangeIndex(3), ()).shape == (3, 0)
    with pytest.raises(UserError, match="calendar of steps has no month"):
        calendar.codes(pd.RangeIndex(3), ("month",))
