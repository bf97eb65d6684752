"""Every kind of bad input: one error that names the column, the unit, the time and how many."""

import numpy as np
import pandas as pd
import pytest

from tests.data.tables import SCHEMA, table
from wmjax.core.errors import UserError
from wmjax.data.readers import read_panel


@pytest.fixture
def frame() -> pd.DataFrame:
    return table(drop=0)


def at(frame: pd.DataFrame, rows: list[int]) -> list[str]:
    """What the message must say of the first bad row and of how many there are."""
    first = frame.iloc[rows[0]]
    return [str(len(rows)), f"unit {first['household']}", str(first["day"].date())]


def message(frame: pd.DataFrame, schema: dict = SCHEMA, **options) -> str:
    with pytest.raises(UserError) as error:
        read_panel(frame, schema, **options)
    return str(error.value)


def expect(text: str, words: list[str]) -> None:
    assert all(w in text for w in words), text
    assert "\n" not in text


ROWS = [45, 46, 90]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("visit", np.nan, ["outcome is missing (NaN)"]),
        ("push", np.nan, ["action is missing (NaN)"]),
        ("price", np.nan, ["covariate is missing (NaN)"]),
        ("visit", 2, ["not binary", "such as 2"]),
        ("push", 0.5, ["not binary", "such as 0.5"]),
        ("spend", -1.0, ["currency are negative"]),
        ("items", -1, ["count are negative"]),
        ("items", 1.5, ["count are fractions"]),
        ("price", np.inf, ["infinite"]),
        ("spend", -np.inf, ["infinite"]),
        ("price", 1e39, ["infinite"]),
        ("price", "n/a?", ["mixed types", "not numbers", "'n/a?'"]),
        ("visit", "1", ["mixed types", "not numbers", "'1'"]),
        ("weather", 7, ["mixed types"]),
        ("loyal", 3, ["not binary"]),
    ],
)
def test_a_bad_value_is_told(frame, column, value, words):
    frame[column] = frame[column].astype(object)
    frame.loc[ROWS, column] = value
    expect(message(frame), [f"column '{column}'", *at(frame, ROWS), *words])


def test_one_word_in_a_column_that_was_read_as_text_is_the_row_at_fault(frame):
    frame["price"] = frame["price"].astype(str)
    frame.loc[ROWS, "price"] = "n/a?"
    expect(message(frame), ["column 'price'", f"{len(ROWS)} rows are not numbers", "'n/a?'", *at(frame, ROWS)])


@pytest.mark.parametrize(("copy", "word"), [(lambda a: a, "equals"), (lambda a: 1 - a, "is 1 minus")])
def test_two_actions_that_are_one_are_told(frame, copy, word):
    frame["mail"] = copy(frame["push"])
    schema = {**SCHEMA, "columns": {**SCHEMA["columns"], "mail": {"role": "action", "kind": "binary"}}}
    expect(message(frame, schema), ["column 'mail'", f"action {word} action 'push'", "drop one of the two"])


def test_text_in_place_of_numbers_is_told(frame):
    frame["visit"] = np.where(frame["visit"] == 1, "yes", "no")
    text = message(frame)
    expect(text, ["column 'visit'", "not numbers", *at(frame, list(range(len(frame))))])
    assert "mixed" not in text


def test_a_repeated_unit_and_time_is_told(frame):
    double = pd.concat([frame.iloc[:50], frame.iloc[[49]], frame.iloc[50:]])
    expect(message(double), ["'household'", "'day'", "repeat", *at(frame, [49])])


def test_unsorted_rows_are_told(frame):
    order = np.arange(len(frame))
    order[[45, 46]] = order[[46, 45]]
    expect(message(frame.iloc[order]), ["'day'", "unsorted", "sort the table", *at(frame, [45])])


def test_an_irregular_calendar_is_told():
    frame = table(drop=0)
    weekly = frame[(frame["day"] - frame["day"].min()).dt.days % 7 == 0].reset_index(drop=True)
    weekly.loc[8, "day"] += pd.Timedelta(days=1)
    expect(message(weekly), ["'day'", "off the weekly calendar", *at(weekly, [8])])


def test_a_gap_on_the_calendar_is_no_error(frame):
    assert not read_panel(frame.drop(index=[44, 45, 46]), SCHEMA).arrays.mask[1, 4:7].any()


def test_an_action_that_never_varies_is_told(frame):
    frame["push"] = 1
    expect(message(frame), ["column 'push'", "constant (1)", *at(frame, list(range(len(frame))))])


def test_a_unit_without_rows_is_told(frame):
    units = pd.Categorical(frame["household"], categories=[*range(100, 107), 999, 998])
    text = message(frame.assign(household=units))
    expect(text, ["'household'", "2 units", "no observed row", "998", "2025-01-20", "2025-02-28"])
    dataset = read_panel(frame, SCHEMA).to_xarray()
    dataset["observed"][3] = False
    expect(message(dataset), ["'household'", "1 units", "no observed row", "103", "2025-01-20"])


def test_one_unit_alone_is_told_but_can_be_allowed(frame):
    one = frame[frame["household"] == 100]
    expect(message(one), ["'household'", "1 unit ", "100", "40 times", "at least 2", "min_units=1"])
    assert read_panel(one, SCHEMA, min_units=1).num_units == 1
    expect(message(frame, min_units=8), ["7 unit", "at least 8"])


def test_a_static_column_that_moves_is_told(frame):
    frame.loc[ROWS, "income"] += 1
    expect(message(frame), ["column 'income'", "differ from their unit's first row", *at(frame, ROWS)])


def test_a_missing_static_number_counts_units_and_advises(frame):
    frame.loc[frame["household"].isin([102, 104]), "income"] = np.nan
    text = message(frame)
    expect(text, ["column 'income'", "missing (NaN) for 2 units", "unit 102", "2025-01-20", "bin it", "categorical"])


def test_equals_that_never_matches_is_told_with_near_levels(frame):
    columns = {**SCHEMA["columns"], "buy": {"role": "outcome", "kind": "binary", "source": "weather", "equals": "rian"}}
    text = message(frame, {**SCHEMA, "columns": columns})
    expect(text, ["column 'buy'", "'weather' equal to 'rian'", "'rain'", *at(frame, list(range(len(frame))))])


def test_equals_of_a_missing_source_is_missing(frame):
    columns = {**SCHEMA["columns"], "buy": {"role": "outcome", "kind": "binary", "source": "weather", "equals": "rain"}}
    frame.loc[ROWS, "weather"] = np.nan
    expect(message(frame, {**SCHEMA, "columns": columns}), ["column 'buy'", "missing", *at(frame, ROWS)])


@pytest.mark.parametrize(
    ("column", "make", "words"),
    [
        ("holiday", lambda a: a, ["equals covariate 'holiday'"]),
        ("holiday", lambda a: 1 - a, ["1 minus covariate 'holiday'"]),
        ("price", lambda a: -a, ["negative of covariate 'price'"]),
        (
            "weather",
            lambda a: np.where(a == 1, "sun", np.resize(["rain", "snow"], len(a))),
            ["level 'sun' of covariate"],
        ),
        ("weather", lambda a: np.where(a == 0, "sun", np.resize(["rain", "snow"], len(a))), ["only at level 'sun' of"]),
    ],
)
def test_an_action_that_copies_a_covariate_is_told(frame, column, make, words):
    frame[column] = make(frame["push"].to_numpy())
    expect(message(frame), ["column 'push'", *words, *at(frame, list(range(len(frame))))])
    frame.loc[5, "push"] = 1 - frame.loc[5, "push"]
    assert read_panel(frame, SCHEMA).num_units == 7


def test_an_action_that_copies_a_static_is_told(frame):
    frame["push"] = frame["loyal"]
    expect(message(frame), ["column 'push'", "equals static 'loyal'"])


def test_an_action_that_is_a_level_only_sometimes_is_no_copy(frame):
    """Every "sun" row has the action, but rows of other weather have it too."""
    frame["push"] = ((frame["weather"] == "sun") | (frame.index == 3)).astype(int)
    assert read_panel(frame, SCHEMA).num_units == 7


def test_several_problems_come_in_one_error(frame):
    frame.loc[3, "visit"] = 2
    frame.loc[[50, 51], "price"] = np.nan
    frame["push"] = frame["push"].astype(object)
    frame.loc[9, "push"] = "on"
    text = message(frame)
    lines = text.splitlines()
    assert lines[0] == "the table has 3 problems:"
    assert sorted(line.split("'")[1] for line in lines[1:]) == ["price", "push", "visit"]
    assert "2 rows" in text
    assert "unit 101, time 2025-01-30" in text


def test_a_probability_of_a_draw_is_one(frame):
    """The covariate that a randomised action names as its propensity."""
    columns = {
        **SCHEMA["columns"],
        "push": {"role": "action", "kind": "binary", "randomised": True, "propensity": "p"},
        "p": {"role": "covariate", "kind": "continuous"},
    }
    own = {**SCHEMA, "columns": columns}
    good = frame.assign(p=0.3)
    assert read_panel(good, own).schema.column("push").propensity == "p"
    good.loc[[4, 9], "p"] = [0.0, 1.0]
    expect(message(good, own), ["column 'p'", "2 rows are no probability in (0, 1)", *at(frame, [4, 9])])
