"""Grids as people write them: words of a command line, and TOML.

Words, one an axis, in the order of the product:

    discount=0:0.3:31        31 levels from 0 to 0.3: with a decimal point the last number counts levels
    start=10:40:5            10, 15, .. 40: of three whole numbers the last is a step, which must reach the end
    tv=0:100:x11             11 levels from 0 to 100, said outright
    week=10:40               every whole number from 10 to 40
    campaign_a=0,1           these levels
    segment=young,old        a choice among names
    seed=0:15  member=0:3    seeds and members of an ensemble, by their names
    discount=0..0.3 design=sobol:1024:7
                             intervals, filled by 1024 points of a Sobol sequence (or latin), seed 7

In TOML each dimension is a list of levels, a text as in words, or a table: `values`, or `low, high, count`, or `start,
stop, step`, or `choices`, `seeds`, `members`; `zip = {..}` and `list = [..]` hold several axes; `sobol = 1024` and
`latin = 1000` sample `of = {..}`.

    coupon = [0, 1]
    discount = "0:0.3:31"
    member = { members = 3 }
    flight = { zip = { tv = [0, 1], radio = [1, 0] } }
    design = { sobol = 1024, seed = 7, of = { price = { low = 0.0, high = 0.3 } } }
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import reduce
from operator import mul
from pathlib import Path
from typing import Any

from wmjax.core.errors import UserError
from wmjax.sweep import axes
from wmjax.sweep.axes import Interval
from wmjax.sweep.grids import Grid, Kind, check_levels
from wmjax.sweep.plans import near

KINDS: dict[str, Kind] = {"seed": "seed", "member": "member"}
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_SPAN = re.compile(rf"({_NUMBER}):({_NUMBER})(?::(x?)({_NUMBER}))?")
_INTERVAL = re.compile(r"(.+?)\.\.(.+)")
_SAMPLE = re.compile(r"(sobol|latin):(\d+)(?::(\d+))?")


def grid_from_words(words: Iterable[str]) -> Grid:
    """Read a grid from words such as `discount=0:0.3:31`; see the module.

    Raises:
        UserError: a word that is not understood, and how to mend it.
    """
    found: list[Grid] = []
    intervals: list[Interval] = []
    samples: list[tuple[str, re.Match[str]]] = []
    for word in words:
        name, equals, value = word.partition("=")
        name, value = name.strip(), value.strip()
        if not (equals and name and value):
            raise UserError(f"{word!r} is no axis of a grid; write name=levels, for example {name or 'ACTION'}=0,1")
        if match := _SAMPLE.fullmatch(value):
            samples.append((name, match))
        elif match := _INTERVAL.fullmatch(value):
            low, high = (_number(part, word) for part in match.groups())
            whole = isinstance(low, int) and isinstance(high, int)
            intervals.append(Interval(name=name, low=low, high=high, whole=whole))
        else:
            found.append(_axis_from_word(name, value, word))
    if len(samples) > 1 or bool(samples) != bool(intervals):
        example = intervals[0].name if intervals else "ACTION"
        raise UserError(
            f"intervals such as {example}=0..1.0 need one sample to fill them, such as design=sobol:1024, "
            f"and a sample needs intervals; there are {len(intervals)} intervals and {len(samples)} samples"
        )
    for dim, match in samples:
        method, size, seed = match.groups()
        found.append(axes.sample(dim, _method(method), int(size), intervals, seed=int(seed or 0)))
    if not found:
        raise UserError("the grid has no axis; write for example ACTION=0,1")
    return _whole_grid(found)


def _whole_grid(parts: Iterable[Grid]) -> Grid:
    """Multiply dimensions; levels that are named twice are a slip of the pen."""
    grid = reduce(mul, parts)
    check_levels(grid)
    return grid


def _axis_from_word(name: str, value: str, word: str) -> Grid:
    if match := _SPAN.fullmatch(value):
        low, high, count_mark, third = match.groups()
        return _span(name, _number(low, word), _number(high, word), count_mark, third, word)
    if ":" in value:
        raise UserError(f"{word!r}: a span is low:high, low:high:step, low:high:count or low:high:xCOUNT, of numbers")
    parts = [part.strip() for part in value.split(",")]
    if not all(parts):
        raise UserError(f"{word!r} has an empty level between commas")
    numbers = [bool(re.fullmatch(_NUMBER, part)) for part in parts]
    if any(numbers) and not all(numbers):
        raise UserError(f"{word!r} mixes numbers and names")
    if not any(numbers):
        return axes.choices(name, parts)
    return axes.axis(name, [_number(part, word) for part in parts], KINDS.get(name))


def _span(name: str, low: float | int, high: float | int, count_mark: str | None, third: str | None, word: str) -> Grid:
    step = 1 if third is None else _number(third, word)
    whole = all(isinstance(x, int) for x in (low, high, step))
    if count_mark or (third is not None and not whole):
        if not isinstance(step, int) or step < 1:
            raise UserError(f"{word!r} asks for {third} levels, must be a whole number of at least 1")
        return axes.linear(name, low, high, step)
    if not whole:
        raise UserError(f"{word!r}: say how many levels, for example {name}={low}:{high}:11")
    if step and (high - low) % step:
        raise UserError(
            f"{word!r}: steps of {step} from {low} do not reach {high}; "
            f"for {step} levels write {name}={low}:{high}:x{step}, for steps choose an end that they reach"
        )
    return axes.steps(name, int(low), int(high), int(step), KINDS.get(name, "integer"))


def _number(text: str, word: str) -> int | float:
    if not re.fullmatch(_NUMBER, text):
        raise UserError(f"{word!r}: {text!r} is not a number")
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)


def _method(name: str) -> axes.Sample:
    return "sobol" if name == "sobol" else "latin"


# ---- TOML -----------------------------------------------------------------------------------------------------------

_FORMS: dict[str, set[str]] = {
    "values": {"values"},
    "count": {"low", "high", "count"},
    "start": {"start", "stop", "step"},
    "choices": {"choices"},
    "seeds": {"seeds"},
    "members": {"members"},
    "zip": {"zip"},
    "list": {"list"},
    "sobol": {"sobol", "of", "seed"},
    "latin": {"latin", "of", "seed"},
}


def read_grid(source: str | Path | Mapping[str, Any]) -> Grid:
    """Read a grid from a TOML file, or a dict of the same shape; see the module.

    Raises:
        UserError: a missing file, broken TOML, or a dimension that is not understood.
    """
    tables = source if isinstance(source, Mapping) else read_toml(Path(source))
    where = "grid" if isinstance(source, Mapping) else str(source)
    if not tables:
        raise UserError(f"{where}: the grid has no axis; write for example ACTION = [0, 1]")
    return _whole_grid(_dimension(name, table, where) for name, table in tables.items())


def read_toml(path: Path) -> dict[str, Any]:
    """Read TOML; a missing or broken file is a `UserError` that names it."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML ({error})") from None


def _dimension(name: str, table: Any, where: str) -> Grid:
    at = f"{where}: axis {name!r}"
    if isinstance(table, str):
        return _axis_from_word(name, table, f"{name}={table}")
    table = {"values": table} if isinstance(table, list) else table
    form = next((f for f in _FORMS if isinstance(table, Mapping) and f in table), None)
    if form is None:
        raise UserError(f"{at} is {table!r}, must be a list of levels, or a table with one of {', '.join(_FORMS)}")
    strange = sorted(table.keys() - _FORMS[form])
    if strange:
        raise UserError(f"{at}: unknown key {strange[0]!r}; {near(strange[0], _FORMS[form])}")
    missing = sorted(_FORMS[form] - {"step", "seed"} - table.keys())
    if missing:
        raise UserError(f"{at}: {missing[0]} is missing beside {form}")
    try:
        return _made(name, form, table, at)
    except (TypeError, AttributeError):
        raise UserError(f"{at}: {dict(table)!r} holds a value of the wrong kind") from None


def _made(name: str, form: str, table: Mapping[str, Any], at: str) -> Grid:
    if form == "values":
        return axes.axis(name, table["values"], KINDS.get(name))
    if form == "count":
        return axes.linear(name, table["low"], table["high"], _whole(table["count"], at))
    if form == "start":
        start, stop, step = (_whole(table.get(k, 1), at) for k in ("start", "stop", "step"))
        return axes.steps(name, start, stop, step, KINDS.get(name, "integer"))
    if form == "choices":
        return axes.choices(name, table["choices"])
    if form in ("seeds", "members"):
        return {"seeds": axes.seeds, "members": axes.members}[form](_whole(table[form], at), name)
    if form == "zip":
        return axes.zipped(name, *(_dimension(k, v, at) for k, v in table["zip"].items()))
    if form == "list":
        return axes.points(name, table["list"])
    intervals = [_interval(k, v, at) for k, v in table["of"].items()]
    return axes.sample(name, _method(form), _whole(table[form], at), intervals, seed=_whole(table.get("seed", 0), at))


def _interval(name: str, table: Mapping[str, Any], at: str) -> Interval:
    if "choices" in table:
        return Interval(name=name, names=tuple(table["choices"]))
    if table.keys() != {"low", "high"}:
        raise UserError(f"{at}: {name!r} is {dict(table)}, must be {{ low = .., high = .. }} or {{ choices = [..] }}")
    low, high = table["low"], table["high"]
    return Interval(name=name, low=low, high=high, whole=isinstance(low, int) and isinstance(high, int))


def _whole(value: Any, at: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"{at}: {value!r} must be a whole number")
    return value
