"""Turn the columns of a table into numbers: unit ids into codes, categories into levels, text into a complaint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Number
from typing import cast

import numpy as np
import pandas as pd

from wmjax.core.errors import UserError
from wmjax.data.schema import Column, PanelSchema, near
from wmjax.data.validate import Problem, problem

MISSING = "missing"


def series(table: pd.DataFrame, name: str) -> pd.Series:
    """Give one column; pandas' own annotation says that it might be a table."""
    return cast(pd.Series, table[name])


def units(
    table: pd.DataFrame, name: str | None, known: pd.Index | None
) -> tuple[np.ndarray, tuple[int, ...] | tuple[str, ...]]:
    """Code the units of each row `[rows]`, in order of first row, and give their ids.

    Args:
        table: with the unit column.
        name: of the unit column; None makes the table one unit, `"all"`.
        known: ids that the source lists beside its rows, which may be without one.

    Raises:
        UserError: ids that are missing, or neither whole numbers nor strings, or both mixed.
    """
    if name is None:
        return np.zeros(len(table), np.int64), ("all",)
    column = series(table, name)
    codes, uniques = pd.factorize(column)
    if (codes < 0).any():
        bad = np.flatnonzero(codes < 0)
        raise UserError(f"unit column {name!r}: missing in {len(bad)} rows, first in row {bad[0] + 1} of the table")
    if known is not None:
        uniques = pd.Index(known)
        codes = uniques.get_indexer(column)
    elif isinstance(column.dtype, pd.CategoricalDtype):
        # Declared but unused categories are units without a row, which is a mistake to be told of.
        unused = column.cat.categories.difference(pd.Index(uniques))
        uniques = pd.Index(np.asarray(uniques)).append(unused)
    ids = pd.Series(np.asarray(uniques))
    kind = pd.api.types.infer_dtype(ids, skipna=False)
    if kind == "floating" and (ids == ids.round()).all():
        kind = "integer"
    if kind not in ("integer", "string"):
        bad = np.flatnonzero(minority(ids)[codes])
        few = f": {len(bad)} rows are unlike the others, first unit {ids[codes[bad[0]]]!r}" if len(bad) else ""
        raise UserError(f"unit column {name!r}: mixed types ({kind}); ids are all whole numbers or all text{few}")
    codes = codes.astype(np.int64)
    return (codes, tuple(int(v) for v in ids)) if kind == "integer" else (codes, tuple(str(v) for v in ids))


def columns(
    table: pd.DataFrame, schema: PanelSchema, known: Mapping[str, Sequence[str]], *, seen: bool = True
) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, ...]], list[Problem]]:
    """Turn every column into float64 `[rows]`; give levels of the categorical ones, and what could not be turned.

    Args:
        table: with the schema's columns.
        schema: says what they are.
        known: levels to code by, for the columns where they are given.
        seen: whether a value of `equals` must occur.
    """
    values, levels, problems = {}, {}, []
    for column in schema.columns:
        name, raw = column.name, series(table, column.table_name)
        if column.equals is not None:
            values[name], found = _equal(column, raw, seen)
        elif column.kind == "categorical":
            found = list(_mixed(column, raw))
            if not found:
                values[name], levels[name] = encode(raw)
            if not found and name in known:
                values[name], levels[name], found = _recode(name, values[name], levels[name], tuple(known[name]))
        else:
            values[name], found = _numbers(column, raw)
        problems += found
    return values, levels, problems


def encode(raw: pd.Series) -> tuple[np.ndarray, tuple[str, ...]]:
    """Code categories as 0, 1, ..; levels sorted (a pandas categorical keeps its order), `"missing"` last.

    Numbers become their shortest text: 1 and 1.0 are the level "1".
    """
    if isinstance(raw.dtype, pd.CategoricalDtype):
        raw = raw.cat.remove_unused_categories()
        code, found = raw.cat.codes.to_numpy(np.int64), raw.cat.categories
    else:
        code, found = pd.factorize(raw, sort=True)
    names = [_level(v) for v in found]
    kept = [n for n in names if n != MISSING]
    levels = (*kept, MISSING) if MISSING in names or (code < 0).any() else tuple(kept)
    # The last entry serves code -1.
    recode = np.array([levels.index(n) for n in names] + [len(levels) - 1], np.float64)
    return recode[code], levels


def _recode(
    name: str, codes: np.ndarray, levels: tuple[str, ...], known: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...], list[Problem]]:
    """Code by levels known beforehand."""
    new = [v for v in levels if v not in known]
    unknown = np.isin(codes, [levels.index(v) for v in new])
    text = f"{{n}} rows have levels that are not known (such as {new[0]!r})" if new else ""
    found = list(problem(name, text, unknown, f"known are {', '.join(known)}"))
    table = np.array([known.index(v) if v in known else 0 for v in levels], np.float64)
    return table[codes.astype(int)], known, found


def _level(value: object) -> str:
    return f"{value:.12g}" if isinstance(value, float | np.floating) else str(value)


def minority(values: pd.Series) -> np.ndarray:
    """Mark the rarer of text and other things, `[rows]`: what to name where a column mixes the two; NaN is neither."""
    text = values.map(lambda v: isinstance(v, str)).to_numpy(bool)
    other = ~text & values.notna().to_numpy()
    return text if text.sum() <= other.sum() else other


def _equal(column: Column, raw: pd.Series, seen: bool) -> tuple[np.ndarray, list[Problem]]:
    """Give 1 where the source equals the value, NaN where it is missing; never is a problem if it must be `seen`."""
    raw = opened(raw)
    equal = (raw == column.equals).fillna(False).to_numpy(bool)
    text = f"none of {{n}} rows has {column.table_name!r} equal to {column.equals!r}"
    never = np.full(len(raw), seen and not equal.any())
    found = list(problem(column.name, text, never, near(column.equals, raw.dropna().unique())))
    return np.where(raw.isna().to_numpy(), np.nan, equal.astype(np.float64)), found


def opened(raw: pd.Series) -> pd.Series:
    """Undo a pandas categorical."""
    return raw.astype(raw.cat.categories.dtype) if isinstance(raw.dtype, pd.CategoricalDtype) else raw


def _mixed(column: Column, raw: pd.Series) -> list[Problem]:
    """Complain of categories that are partly text and partly numbers."""
    if raw.dtype != object or not pd.api.types.infer_dtype(raw, skipna=True).startswith("mixed"):
        return []
    text = "mixed types, {n} rows unlike the others"
    return list(problem(column.name, text, minority(raw), "make them all text or all numbers"))


def _numbers(column: Column, raw: pd.Series) -> tuple[np.ndarray, list[Problem]]:
    """Turn a column of numbers or booleans into float64; text is a problem, even where it looks like a number."""
    raw = opened(raw)
    if pd.api.types.is_numeric_dtype(raw.dtype) and not pd.api.types.is_complex_dtype(raw.dtype):
        return raw.to_numpy(dtype=np.float64, na_value=np.nan), []
    texts = raw.notna().to_numpy() & raw.map(_is_text).to_numpy(bool)
    # One word makes a reader take the whole column for text: the rows at fault are those that no number can be read of.
    odd = texts & np.isnan(np.asarray(pd.to_numeric(raw.where(texts), errors="coerce"), np.float64))
    wrong = odd if odd.any() else texts
    sample = raw.iloc[int(wrong.argmax())] if wrong.any() else None
    text = f"{'mixed types, ' if not wrong.all() else ''}{{n}} rows are not numbers (such as {sample!r})"
    advice = "write numbers" + (", or declare source and equals" if column.kind == "binary" else "")
    problems = list(problem(column.name, text, wrong, advice))
    numbers = cast(pd.Series, pd.to_numeric(raw.mask(texts), errors="coerce"))
    return numbers.to_numpy(dtype=np.float64, na_value=np.nan), problems


def _is_text(value: object) -> bool:
    return not isinstance(value, Number | np.bool_)
