"""Tables with one row a unit, time and variable ("variable, value"), turned into one row a unit and time.

The order of such rows means nothing, as every row names its cell: the rows that come out stand in order of time.
Nothing is added up and nothing is filled in: a variable has one row in every unit and time in which any other has one.
A static variable may have as few as one row a unit.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import pandas as pd

from wmjax.core.errors import UserError
from wmjax.data import convert
from wmjax.data.schema import LongSchema, near
from wmjax.data.validate import Rows


def widen(table: pd.DataFrame, schema: LongSchema, rows: Rows) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Turn one row a unit, time and variable into one row a unit and time.

    Args:
        table: with the schema's unit, time, variable and value.
        schema: its columns are the variables that are read; rows of others are passed over.
        rows: unit and time of the table's rows; no values.

    Returns:
        A table with a column for each of the schema's variables, and the unit and the time of its rows.

    Raises:
        UserError: rows without a variable, variables that the table lacks, that repeat a unit and time, or that lack
            one; names variable, unit, time and count.
    """
    names = convert.opened(convert.series(table, schema.variable))
    where = f"variable column {schema.variable!r}"
    nameless = np.flatnonzero(names.isna())
    if len(nameless):
        raise UserError(f"{where}: missing in {len(nameless)} rows, first at {rows.describe(int(nameless[0]))}")
    present = names.unique()
    columns = {c.table_name: c for c in schema.columns}
    if absent := [n for n in columns if n not in present]:
        told = "; and no variable ".join(f"{n!r} ({near(n, present)})" for n in absent)
        raise UserError(f"{where}: {len(table)} rows, and no variable {told}")
    key = rows.unit * len(rows.times) + rows.time
    moving = names.isin([n for n, c in columns.items() if c.role != "static"]).to_numpy()
    cells, first = np.unique(key[moving], return_index=True)
    row_of = np.flatnonzero(moving)[first]
    unit, time = rows.unit[row_of], rows.time[row_of]
    value = convert.series(table, schema.value)
    problems: list[str] = []
    out: dict[str, pd.Series] = {}
    for name, column in columns.items():
        own = np.flatnonzero((names == name).to_numpy())
        twice = own[pd.Series(key[own]).duplicated().to_numpy()]
        if len(twice):
            problems.append(
                f"variable {name!r}: {len(twice)} rows repeat a unit and time, first at "
                f"{rows.describe(int(twice[0]))}; keep one row a unit, time and variable (add up what belongs together)"
            )
            continue
        values = _numbers(value.iloc[own].reset_index(drop=True))
        if column.role == "static":
            own, values, lacking = _fixed(name, own, values, rows)
            problems += lacking
            at = pd.Index(rows.unit[own]).get_indexer(pd.Index(unit))
        else:
            at = pd.Index(key[own]).get_indexer(pd.Index(cells))
            if (at < 0).any():
                problems.append(
                    f"variable {name!r}: no row in {int((at < 0).sum())} of {len(cells)} units and times in which "
                    f"others have one, first at {rows.describe(int(row_of[at < 0][0]))}; give it a row there (0 "
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


def _fixed(name: str, own: np.ndarray, values: pd.Series, rows: Rows) -> tuple[np.ndarray, pd.Series, list[str]]:
    """Keep one row a unit of a static variable, and say where a unit has several values."""
    unit = rows.unit[own]
    differs = np.flatnonzero((values.notna() & (values != values.groupby(unit).transform("first"))).to_numpy())
    lines = []
    if len(differs):
        lines.append(
            f"variable {name!r}: static, and {len(differs)} rows differ from their unit's first, first at "
            f'{rows.describe(int(own[differs[0]]))}; declare role = "covariate" if it moves'
        )
    kept = np.flatnonzero(~pd.Series(unit).duplicated().to_numpy())
    return own[kept], values.iloc[kept].reset_index(drop=True), lines
