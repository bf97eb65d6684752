"""Numbers for people: thousands, three significant digits, percentage points, intervals that share their decimals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

MISSING = "–"
QUANTITIES = {"auc": "AUC", "log_loss": "log-loss", "brier": "Brier score", "rmse": "RMSE", "mae": "MAE", "r2": "R²"}
MINUS = "−"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Unit(NamedTuple):
    """How one scale is spoken of: shown number = `factor` x value, `short` beside a chart, `long` in a sentence."""

    factor: float
    short: str
    long: str


SCALES: Mapping[str, Unit] = {
    "probability": Unit(100.0, "pp", "percentage points"),
    "logit": Unit(1.0, "log-odds", "on the log-odds scale"),
    "currency": Unit(1.0, "", "in currency"),
    "outcome": Unit(1.0, "", "in the outcome's units"),
}


class Amount(NamedTuple):
    """An estimate in words: `value` is signed, `low` and `high` are its interval, all with the same decimals."""

    value: str
    size: str
    low: str
    high: str
    unit: Unit


def unit_of(scale: str) -> Unit:
    """Look up how a scale is spoken of; an unknown one is named as it is."""
    return SCALES.get(scale, Unit(1.0, scale, scale))


def as_float(value: Any) -> float:
    """Read a number, or NaN where there is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def decimals(*values: float | int, digits: int = 3) -> int:
    """Count the decimals that give the largest of `values` `digits` significant digits, between 0 and 8."""
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    if largest == 0.0:
        return 0
    # Rounded first, so that 0.9996 counts as 1.00 and not as 0.9996.
    largest = float(f"{largest:.{digits - 1}e}")
    return min(max(digits - 1 - math.floor(math.log10(largest)), 0), 8)


def shared_decimals(*values: float | int) -> int:
    """Count the decimals for numbers that stand together: 3 digits for the largest, 2 where it is below one."""
    finite = [abs(v) for v in values if math.isfinite(v)]
    return decimals(*finite, digits=3 if max(finite, default=0.0) >= 1.0 else 2)


def fixed(value: float | int, places: int, *, sign: bool = False) -> str:
    """Print with thousands, a true minus and, if asked, a plus; a rounded zero has no sign."""
    if not math.isfinite(value):
        return MISSING
    text = f"{abs(value):,.{places}f}"
    if not any(c in "123456789" for c in text):
        return text
    return (MINUS if value < 0 else "+" if sign else "") + text


def number(value: Any, *, digits: int = 3, sign: bool = False) -> str:
    """Print any number: whole ones in full, others to `digits` significant digits, tiny ones as powers of ten."""
    x = as_float(value)
    if not math.isfinite(x):
        return MISSING
    if x == int(x) and abs(x) < 1e15:
        return fixed(x, 0, sign=sign)
    if abs(x) < 1e-4 or abs(x) >= 1e15:
        mantissa, exponent = f"{abs(x):.{digits - 1}e}".split("e")
        power = str(int(exponent)).translate(_SUPERSCRIPT)
        return f"{MINUS if x < 0 else '+' if sign else ''}{mantissa} × 10{power}"
    return fixed(x, decimals(x, digits=digits), sign=sign)


def percent(share: Any) -> str:
    """Print a share as per cent, to one decimal or two digits; what is not quite all never reads 100 %."""
    x = 100.0 * as_float(share)
    if not math.isfinite(x):
        return MISSING
    if 99.95 <= x < 100.0 - 1e-9:
        return "over 99.9 %"
    if 0.0 < abs(x) < 1e-3:
        return f"{number(x, digits=2)} %"
    text = fixed(x, max(1, decimals(x, digits=2)))
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"


def amount(value: Any, low: Any, high: Any, scale: str) -> Amount:
    """Put an estimate and its interval on the scale's shown unit, all three with the same decimals.

    Decimals are those that give the largest of the three 3 significant digits, or 2 where it is below one: 0.1481 in
    [0.1392, 0.157] on the probability scale reads +14.8 (13.9 to 15.7) percentage points.
    """
    unit = unit_of(scale)
    x, lo, hi = (unit.factor * as_float(v) for v in (value, low, high))
    places = shared_decimals(x, lo, hi)
    return Amount(fixed(x, places, sign=True), fixed(abs(x), places), fixed(lo, places), fixed(hi, places), unit)


def span(seconds: float | int) -> str:
    """Print a duration as m:ss or h:mm:ss."""
    if not math.isfinite(seconds) or seconds < 0:
        return MISSING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def label_of(name: Any) -> str:
    """Turn an identifier into words: `share_beyond` reads "share beyond"."""
    return str(name).replace("_", " ").replace(".", " · ")


def value_of(name: Any, value: Any) -> str:
    """Print a value of unknown kind, told by its name: shares and rates as per cent, lists joined, the rest plain."""
    if value is None:
        return MISSING
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(value_of(name, v) for v in value) or MISSING
    if isinstance(value, Mapping):
        return ", ".join(f"{label_of(k)} {value_of(k, v)}" for k, v in value.items()) or MISSING
    if isinstance(value, str) or not math.isfinite(as_float(value)):
        return str(value) if isinstance(value, str) else MISSING
    is_share = any(word in str(name) for word in ("share", "rate", "missing")) and not isinstance(value, int)
    return percent(value) if is_share and 0.0 <= as_float(value) <= 1.0 else number(value)
