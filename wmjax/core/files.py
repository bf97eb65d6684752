"""Files that are whole or absent: written beside their place, then renamed into it."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from wmjax.core.errors import UserError


def sync(path: Path) -> None:
    """Bring a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def alone(folder: Path | None) -> Iterator[None]:
    """Hold a folder's `.lock`, which the system lets go of however the process ends; nothing where folder is None.

    Two processes that train in one folder would write their epochs between each other's. A system without such locks
    (Windows, some network file systems) does not keep them apart.

    Raises:
        UserError: another run holds it.
    """
    if folder is None or fcntl is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process is training here; wait for it, or choose another") from None
        except OSError:
            pass
        yield


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write a file to; on success it takes `path`'s place in one rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        # mkstemp makes private files; a result is meant to be read by others, so the umask decides again.
        mask = os.umask(0)
        os.umask(mask)
        beside.chmod(0o666 & ~mask)
        sync(beside)
        os.replace(beside, path)
        sync(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def replace_folder(path: str | Path, fill: Callable[[Path], None]) -> None:
    """Fill a new folder beside `path`, then put it in `path`'s place; what was there is removed last."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    old = beside.with_suffix(".old")
    try:
        fill(beside)
        mask = os.umask(0)
        os.umask(mask)
        beside.chmod(0o777 & ~mask)
        if path.exists():
            os.rename(path, old)
        os.rename(beside, path)
    finally:
        if not path.exists() and old.exists():
            os.rename(old, path)
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write strict JSON (no NaN: a missing number is `null`), sorted by nothing, two spaces deep."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def finite(value: float) -> float | None:
    """Give a number as strict JSON can hold it: None where it is not finite."""
    return float(value) if math.isfinite(value) else None


def read_json(path: str | Path) -> Any:
    """Read JSON; a missing or broken file is a `UserError` that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON ({error})") from None


def parquet(path: str | Path) -> Path:
    """Give the path of a table that is to be written as Parquet.

    Raises:
        UserError: a name that says something else.
    """
    if (found := Path(path)).suffix != ".parquet":
        raise UserError(f"{found}: answers are written as Parquet; name a file that ends in .parquet")
    return found


def write_parquet(path: str | Path, table: pd.DataFrame, provenance: dict[str, Any]) -> None:
    """Write a tidy table with its provenance as JSON under the file metadata key `wmjax`."""
    write_parts(path, [table], provenance)


def write_parts(path: str | Path, parts: Iterable[pd.DataFrame], provenance: dict[str, Any]) -> None:
    """Write a tidy table that comes in parts, of which there is at least one and but one in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, about = parquet(path), json.dumps(provenance).encode()
    with replacing(path) as beside, ExitStack() as opened:
        writer = None
        for part in parts:
            table = pa.Table.from_pandas(part, schema=writer and writer.schema, preserve_index=False)
            if writer is None:
                # A column of nothing yet may hold text later.
                fields = [f.with_type(pa.string()) if pa.types.is_null(f.type) else f for f in table.schema]
                table = table.cast(pa.schema(fields, metadata=table.schema.metadata))
                table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"wmjax": about})
                writer = opened.enter_context(pq.ParquetWriter(beside, table.schema, compression="zstd"))
            writer.write_table(table.cast(writer.schema))


def table_place(path: str | Path) -> Path:
    """Give the path of a table that is to be written as its name says, Parquet or JSON.

    Raises:
        UserError: a name that says neither.
    """
    if (found := Path(path)).suffix not in (".parquet", ".json"):
        raise UserError(f"{found}: answers are written as Parquet or JSON; name a file that ends in .parquet or .json")
    return found


def write_table(path: str | Path, table: pd.DataFrame, provenance: dict[str, Any], **more: Any) -> None:
    """Write a tidy table as its name says: Parquet (see `write_parquet`), or JSON with a list `rows`, one object a row.

    Args:
        more: what JSON holds beside the rows and the provenance: numbers of the whole, warnings. Parquet keeps it with
            the provenance, as `summary`.
    """
    path = table_place(path)
    more = {name: _plain(value) for name, value in more.items()}
    if path.suffix == ".parquet":
        return write_parquet(path, table, {**provenance, **({"summary": more} if more else {})})
    records = table.to_dict(orient="records")
    rows = [{str(name): _plain(value) for name, value in record.items()} for record in records]
    write_json(path, {**more, "rows": rows, "provenance": provenance})


def _plain(value: Any) -> Any:
    """Turn a cell into what strict JSON holds: dates as text, what is missing or infinite as None."""
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    if value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, pd.Timestamp):
        return value.date().isoformat() if value == value.normalize() else value.isoformat()
    return value.item() if hasattr(value, "item") else value


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Read the provenance that `write_parquet` left in a file."""
    import pyarrow.parquet as pq

    return json.loads((pq.read_schema(path).metadata or {}).get(b"wmjax", b"{}"))
