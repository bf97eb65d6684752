"""Read a panel from CSV, Parquet, a DataFrame or xarray, by one schema."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import xarray as xr

from wmjax.core.errors import UserError
from wmjax.data import calendar, convert, long, validate
from wmjax.data.panel import ARRAY_OF, Panel, PanelArrays, show_time
from wmjax.data.schema import LongSchema, PanelSchema, near, read_schema

_LARGEST = 2_000_000_000


def read_panel(
    source: str | Path | pd.DataFrame | xr.Dataset,
    schema: str | Path | Mapping[str, Any] | PanelSchema,
    *,
    min_units: int = 2,
    levels: Mapping[str, Sequence[str]] | None = None,
    purpose: Literal["fit", "ask"] = "fit",
) -> Panel:
    """Read a long table (one row a unit and time) into a panel, or say in one error what is wrong with it.

    Units keep the order of their first row; the rows of a unit must stand in order of time, units may interleave. Times
    that a unit lacks are masked, never filled. A missing category is the level `"missing"`, the last; a missing number
    is an error. Columns that the schema does not name are ignored. A schema with `long` reads a table with one row a
    unit, time and variable, whose rows may stand in any order (`wmjax.data.long`).

    Args:
        source: a `.csv` (or `.csv.gz`) or `.parquet` file, a DataFrame (unit and time may be index levels), or a
            Dataset on the dimensions (unit, time), where a boolean variable `observed` marks the rows there are and,
            without it, a row whose moving columns are all NaN is not there.
        schema: a `PanelSchema`, a dict or a TOML file.
        min_units: fewest units accepted; 1 for one series. A schema without a unit column is one series by itself.
        levels: of categorical columns, such as another panel's, so that codes mean the same; a level that is not among
            them is an error.
        purpose: `"ask"` for a panel that a fitted world is only asked about: one unit is enough, an action may never
            vary or be a copy of another column, and a value of `equals` may never occur. Such a panel identifies
            nothing, and need not.

    Raises:
        UserError: naming column, unit, time and count of all that is wrong.
    """
    schema = read_schema(schema)
    table, known = _load(source, schema)
    if table.empty:
        raise UserError("the table has no rows")
    if isinstance(schema, LongSchema):
        table = long.declared(table, schema)
    unit, units = convert.units(table, schema.unit, known)
    if schema.time is None:
        placed = calendar.Placed("step", *_row_order(unit))
    elif isinstance(schema, LongSchema):
        raw, moving = convert.series(table, schema.time), np.flatnonzero(long.moves(table, schema))
        describe = lambda r: f"unit {units[unit[r]]!r}, time {show_time(raw.iloc[r])}"  # noqa: E731
        placed = calendar.place(raw.iloc[moving], unit[moving], schema.frequency, lambda r: describe(int(moving[r])))
        position = np.zeros(len(table), np.int64)
        position[moving] = placed.position
        rows = validate.Rows(unit, position, {}, units, placed.times, {})
        table, unit, position = long.widen(table, schema, rows, describe)
        placed = placed._replace(position=position)
    else:
        raw = convert.series(table, schema.time)
        placed = calendar.place(raw, unit, schema.frequency, lambda r: f"unit {units[unit[r]]!r}, time {raw.iloc[r]}")
    if len(units) * len(placed.times) * (len(schema.columns) + 1) > _LARGEST:
        raise UserError(
            f"time column {schema.time!r}: {len(units)} units over {len(placed.times)} periods are too many for "
            f"{len(table)} rows; are the times right?"
        )
    rows = validate.Rows(unit, placed.position, {}, units, placed.times, {})
    validate.check_layout(rows, schema)
    fitted = purpose == "fit"
    validate.check_units(rows, schema, min_units if fitted else 1)
    values, found, problems = convert.columns(table, schema, levels or {}, seen=fitted)
    rows = rows._replace(values=values, levels=found)
    unread = {p.column for p in problems}
    readable = tuple(c for c in schema.columns if c.name not in unread)
    problems += validate.find_problems(readable, rows)
    if fitted and len(unit) == 1 and schema.names("action"):
        raise UserError(f"the table has one row, {rows.describe(0)}; nothing can be learnt from it")
    if fitted:
        problems += validate.unidentified(readable, rows, {p.column for p in problems})
    validate.raise_all(problems, rows.describe)
    return _fill(rows, replace(schema, frequency=placed.frequency))


def _row_order(unit: np.ndarray) -> tuple[pd.Index, np.ndarray]:
    """Number the rows of each unit 0, 1, 2, .. as they stand."""
    position = pd.Series(unit).groupby(unit).cumcount().to_numpy(np.int64)
    return pd.RangeIndex(int(position.max()) + 1), position


def _fill(rows: validate.Rows, schema: PanelSchema) -> Panel:
    u, t = len(rows.units), len(rows.times)
    arrays: dict[str, np.ndarray] = {}
    for role, field in ARRAY_OF.items():
        names = schema.names(role)
        array = np.zeros((u, len(names)) if role == "static" else (u, t, len(names)), np.float32)
        for i, name in enumerate(names):
            at = rows.unit if role == "static" else (rows.unit, rows.time)
            array[..., i][at] = rows.values[name]
        arrays[field] = array
    mask = np.zeros((u, t), bool)
    mask[rows.unit, rows.time] = True
    return Panel(
        arrays=PanelArrays(**arrays, mask=mask), schema=schema, units=rows.units, times=rows.times, levels=rows.levels
    )


def _load(source: object, schema: PanelSchema) -> tuple[pd.DataFrame, pd.Index | None]:
    """Load the schema's columns; where the source lists its units apart from its rows, give that list too."""
    if isinstance(source, xr.Dataset):
        return _load_dataset(source, schema)
    if isinstance(source, pd.DataFrame):
        levels = [n for n in source.index.names if n is not None and n in schema.table_names]
        table = source.reset_index(level=levels) if levels else source
        return _pick(table, schema, "the table"), None
    if not isinstance(source, str | Path):
        raise UserError(f"cannot read a {type(source).__name__}; give a path, a DataFrame or an xarray Dataset")
    path = Path(source)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        return _load_file(path, schema), None
    except UserError:
        raise
    # What pandas, pyarrow and gzip raise of a file that is not what its name says, or is not UTF-8.
    except (OSError, ValueError, EOFError, pa.ArrowException, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None


def _load_file(path: Path, schema: PanelSchema) -> pd.DataFrame:
    if path.suffix in (".parquet", ".pq"):
        import pyarrow.parquet as pq

        _require(pq.read_schema(path).names, schema, str(path))
        return pd.read_parquet(path, columns=list(schema.table_names))
    if path.name.endswith((".csv", ".csv.gz")):
        _require(pd.read_csv(path, nrows=0).columns, schema, str(path))
        return pd.read_csv(path, usecols=list(schema.table_names), low_memory=False)
    raise UserError(f"{path}: not a .csv, .csv.gz or .parquet file")


def _load_dataset(source: xr.Dataset, schema: PanelSchema) -> tuple[pd.DataFrame, pd.Index | None]:
    if schema.unit is None or schema.time is None:
        raise UserError("a Dataset has named dimensions; the schema must name its unit and time")
    if isinstance(schema, LongSchema):
        raise UserError("a Dataset has a variable a name; leave long out of the schema")
    _require([str(n) for n in source.variables], schema, "the Dataset")
    if set(source.sizes) != {schema.unit, schema.time}:
        raise UserError(f"the Dataset has dimensions {list(source.sizes)}, must be {[schema.unit, schema.time]}")
    extra = ["observed"] if "observed" in source and "observed" not in schema.table_names else []
    names = [n for n in schema.table_names if n not in (schema.unit, schema.time)]
    table = source[names + extra].to_dataframe(dim_order=[schema.unit, schema.time]).reset_index()
    moving = list(dict.fromkeys(c.table_name for c in schema.columns if c.role != "static"))
    there = table[extra[0]].astype(bool) if extra else table[moving].notna().any(axis=1)
    return table.loc[there].reset_index(drop=True), pd.Index(source[schema.unit].values)


def _pick(table: pd.DataFrame, schema: PanelSchema, where: str) -> pd.DataFrame:
    _require(table.columns, schema, where)
    names = list(schema.table_names)
    repeated = [n for n in names if list(table.columns).count(n) > 1]
    if repeated:
        raise UserError(f"{where} has {repeated[0]!r} as the name of several columns")
    return table.loc[:, names].reset_index(drop=True)


def _require(present: object, schema: PanelSchema, where: str) -> None:
    names = [str(n) for n in present]  # type: ignore[union-attr]
    absent = [n for n in schema.table_names if n not in names]
    if absent:
        raise UserError(
            f"{where} has no column " + "; and no column ".join(f"{n!r} ({near(n, names)})" for n in absent)
        )
