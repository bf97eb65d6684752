"""Reading tidy tables: groups, rows as dictionaries, columns as floats; an empty table has no groups."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd


def where(table: pd.DataFrame, mask: np.ndarray) -> pd.DataFrame:
    """Keep the rows under a boolean mask."""
    return cast("pd.DataFrame", table[mask])


def equal(table: pd.DataFrame, name: str, value: Any) -> np.ndarray:
    """Mask the rows whose column `name` reads like `value`; none in an empty table."""
    if not len(table):
        return np.zeros(0, bool)
    return np.asarray(table[name].astype(str), dtype=object) == str(value)


def groups(table: pd.DataFrame, *names: str) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    """Cut a table by the named columns, in the order of first appearance."""
    if not len(table):
        return []
    found = table.groupby(list(names), sort=False)
    return [(tuple(map(str, cast("tuple[Any, ...]", key))), part) for key, part in found]


def column(table: pd.DataFrame, name: str) -> np.ndarray:
    """Read a column as float64; what is no number is NaN."""
    return np.asarray(pd.to_numeric(table[name], errors="coerce"), dtype=np.float64)


def first(table: pd.DataFrame, name: str) -> str:
    """Read the first row's value as text."""
    return str(table[name].iloc[0])


def distinct(table: pd.DataFrame, name: str) -> list[str]:
    """List a column's values as text, each once, in the order of first appearance."""
    return list(dict.fromkeys(map(str, table[name])))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """List the rows as dictionaries from column names to values."""
    return [dict(zip(map(str, table.columns), row, strict=True)) for row in table.itertuples(index=False, name=None)]


def ordered(table: pd.DataFrame, name: str, *, down: bool = False) -> pd.DataFrame:
    """Sort rows by a number, equal ones staying in order, those without one last."""
    value = column(table, name)
    return table.iloc[np.argsort(-value if down else value, kind="stable")]
