"""Tables with one row a unit, time and variable ("variable, value"), turned into one row a unit and time.

The order of such rows means nothing, as every row names its cell: the rows that come out stand in order of time.
Nothing is added up and nothing is filled in: a variable has one row in every unit and time in which any other has one.
A static variable may have as few as one row a unit, at any time, which is not read; a row without a value is none.
Rows of variables that the schema does not name say nothing, of units and times neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import pandas as pd
from jaxtyping import Bool

from wmjax.core.errors import UserError
from wmjax.data import convert
from wmjax.data.panel import show_time
from wmjax.data.schema import LongSchema, near
from wmjax.data.validate import Rows


def declared(table: pd.DataFrame, schema: LongSchema) -> pd.DataFrame:
    """Keep the rows of the schema's variables: those of others say nothing of units or times.

    Raises:
        UserError: rows without a variable, or variables that the table lacks.
    """
    names = convert.opened(convert.series(table, schema.variable))
    where = f"variable column {schema.variable!r}"
    nameless = np.flatnonzero(names.isna())
    if len(nameless):
        row = table.iloc[int(nameless[0])]
        unit = "" if schema.unit is None else f"unit {row[schema.unit]!r}, "
        at = f"{unit}time {show_time(row[schema.time])}"
        raise UserError(f"{where}: missing in {len(nameless)} rows, first at {at}")
    present = names.unique()
    columns = {c.table_name for c in schema.columns}
    if absent := [c.table_name for c in schema.columns if c.table_name not in present]:
        told = "; and no variable ".join(f"{n!r} ({near(n, present)})" for n in absent)
        raise UserError(f"{where}: {len(table)} rows, and no variable {told}")
    kept = table.loc[names.isin(columns).to_numpy()].reset_index(drop=True)
    unit = None if schema.unit is None else convert.series(table, schema.unit)
    if unit is not None and isinstance(unit.dtype, pd.CategoricalDtype):
        # A unit of other variables alone is none; a category without any row is still told of.
        gone = [u for u in unit.dropna().unique() if u not in set(kept[schema.unit])]
        kept[schema.unit] = convert.series(kept, str(schema.unit)).cat.remove_categories(gone)
    return kept


def moves(table: pd.DataFrame, schema: LongSchema) -> Bool[np.ndarray, " rows"]:
    """Tell the rows that have a time from those of static variables, whose time says nothing."""
    static = {c.table_name for c in schema.columns if c.role == "static"}
    return ~convert.series(table, schema.variable).isin(static).to_numpy()


def widen(
    table: pd.DataFrame, schema: LongSchema, rows: Rows, describe: Callable[[int], str]
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Turn one row a unit, time and variable into one row a unit and time.

    Args:
        table: with the schema's unit, time, variable and value, of the schema's variables alone (see `declared`).
        schema: its columns are the variables that are read.
        rows: unit and time of the table's rows; no values. The time of a static variable's rows is not read.
        describe: writes unit and time of a row, for messages.

    Returns:
        A table with a column for each of the schema's variables, and the unit and the time of its rows.

    Raises:
        UserError: variables that repeat a unit and time, or that lack one; names variable, unit, time and count.
    """
    names = convert.opened(convert.series(table, schema.variable))
    columns = {c.table_name: c for c in schema.columns}
    key = rows.unit * len(rows.times) + rows.time
    moving = moves(table, schema)
    cells, first = np.unique(key[moving], return_index=True)
    row_of = np.flatnonzero(moving)[first]
    unit, time = rows.unit[row_of], rows.time[row_of]
    value = convert.series(table, schema.value)
    problems: list[str] = []
    out: dict[str, pd.Series] = {}
    for name, column in columns.items():
        own = np.flatnonzero((names == name).to_numpy())
        twice = own[pd.Series(key[own]).duplicated().to_numpy()]
        if len(twice) and column.role != "static":
            problems.append(
                f"variable {name!r}: {len(twice)} rows repeat a unit and time, first at "
                f"{describe(int(twice[0]))}; keep one row a unit, time and variable (add up what belongs together)"
            )
            continue
        values = _numbers(value.iloc[own].reset_index(drop=True))
        if column.role == "static":
            own, values, lacking = _fixed(name, own, values, rows.unit[own], describe)
            problems += lacking
            at = pd.Index(rows.unit[own]).get_indexer(pd.Index(unit))
        else:
            at = pd.Index(key[own]).get_indexer(pd.Index(cells))
            if (at < 0).any():
                problems.append(
                    f"variable {name!r}: no row in {int((at < 0).sum())} of {len(cells)} units and times in which "
                    f"others have one, first at {describe(int(row_of[at < 0][0]))}; give it a row there (0 "
                    "where nothing was spent); nothing is filled for you"
                )
        # A static value that a unit lacks stays missing, and is told of as in any table.
        out[name] = values.reindex(at).reset_index(drop=True)
    if problems:
        head = f"the table has {len(problems)} problems:\n- " if len(problems) > 1 else ""
        raise UserError(head + "\n- ".join(problems))
    return pd.DataFrame(out), unit, time


def _numbers(values: pd.Series) -> pd.Series:
    """Read text as numbers where all of a variable's values are: one word of another variable made the column text."""
    if pd.api.types.is_numeric_dtype(values.dtype):
        return values
    try:
        return cast(pd.Series, pd.to_numeric(convert.opened(values)))
    except (ValueError, TypeError):
        return values


def _fixed(
    name: str, own: np.ndarray, values: pd.Series, unit: np.ndarray, describe: Callable[[int], str]
) -> tuple[np.ndarray, pd.Series, list[str]]:
    """Keep one row a unit of a static variable, the first that has a value; say where a unit has several values."""
    differs = np.flatnonzero((values.notna() & (values != values.groupby(unit).transform("first"))).to_numpy())
    lines = []
    if len(differs):
        lines.append(
            f"variable {name!r}: static, and {len(differs)} rows differ from their unit's first, first at "
            f'{describe(int(own[differs[0]]))}; declare role = "covariate" if it moves'
        )
    filled_first = np.argsort(values.isna().to_numpy(), kind="stable")
    kept = filled_first[~pd.Series(unit[filled_first]).duplicated().to_numpy()]
    return own[kept], values.iloc[kept].reset_index(drop=True), lines
