"""Numbers in words: digits, signs, shares and intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wmjax.report import numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (312320, "312,320"),
        (0.71304, "0.713"),
        (12.345, "12.3"),
        (1234.5, "1,234"),  # ties go to even, as everywhere in Python
        (0.99996, "1.00"),
        (-0.00412, "−0.00412"),
        (2.34e-7, "2.34 × 10⁻⁷"),
        (-0.0, "0"),
        (float("nan"), "–"),
        (None, "–"),
        ("many", "–"),
        (True, "1"),
    ],
)
def test_number_has_three_digits_and_thousands(value, text):
    assert numbers.number(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.5, "50 %"),
        (0.981, "98.1 %"),
        (1.0, "100 %"),
        (0.99999, "over 99.9 %"),
        (0.0, "0 %"),
        (0.0004, "0.04 %"),
        (0.000004, "0.00040 %"),
        (0.0000004, "4.0 × 10⁻⁵ %"),
        (math.nan, "–"),
    ],
)
def test_percent_never_rounds_up_to_all(share, text):
    assert numbers.percent(share) == text


def test_amount_is_in_percentage_points_with_shared_decimals():
    spoken = numbers.amount(0.1481, 0.1392, 0.157, "probability")
    assert (spoken.value, spoken.size, spoken.low, spoken.high) == ("+14.8", "14.8", "13.9", "15.7")
    assert spoken.unit.long == "percentage points"
    small = numbers.amount(-0.0004, -0.0079, 0.0071, "probability")
    assert (small.value, small.low, small.high) == ("−0.04", "−0.79", "0.71")
    assert numbers.amount(0.71, 0.5, 0.9, "logit").unit.short == "log-odds"
    assert numbers.amount(3.0, 1.0, 5.0, "litres").unit.long == "litres"


def test_a_rounded_zero_has_no_sign():
    assert numbers.fixed(-0.0004, 2, sign=True) == "0.00"
    assert numbers.fixed(-0.006, 2, sign=True) == "−0.01"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (61, "1:01"), (3725, "1:02:05"), (math.nan, "–"), (-1, "–")]
)
def test_span(seconds, text):
    assert numbers.span(seconds) == text


def test_value_of_reads_shares_by_name():
    assert numbers.value_of("missing_share", 0.0014) == "0.14 %"
    assert numbers.value_of("missing", 3) == "3"
    assert numbers.value_of("median", 0.0014) == "0.00140"
    assert numbers.value_of("on", False) == "no"
    assert numbers.value_of("on", np.True_) == "yes"
    assert numbers.value_of("levels", ["a", "b"]) == "a, b"
    assert numbers.value_of("counts", {"kept_rows": 1200}) == "kept rows 1,200"
    assert numbers.value_of("when", object()) == "–"
