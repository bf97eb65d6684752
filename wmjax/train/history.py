"""The metrics of a run: one JSON line an epoch on disk, one array a metric in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wmjax.core import files

History = dict[str, np.ndarray]
Row = dict[str, np.ndarray]


def row(values: Mapping[str, Any]) -> Row:
    """Make a row of float32 arrays, `[]` or `[members]`; what is not finite becomes NaN, which the file spells null."""
    arrays = {name: np.asarray(value, np.float32) for name, value in values.items()}
    return {name: np.where(np.isfinite(a), a, np.float32(np.nan)) for name, a in arrays.items()}


def append(path: Path, epoch: int, values: Row) -> None:
    """Append one epoch (counted from 1) as a JSON line, in a single write."""
    line = json.dumps({"epoch": epoch, **{name: _plain(value) for name, value in values.items()}}, allow_nan=False)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def sync(path: Path) -> None:
    """Wait until the lines are on disk: a checkpoint must never be newer than the metrics it counts."""
    if path.exists():
        with path.open("a") as file:
            os.fsync(file.fileno())


def trim(path: Path, epochs: int) -> list[Row]:
    """Cut the file back to its first `epochs` epochs, without a torn last line, and return their rows.

    A resumed run writes the epochs after its checkpoint anew; without this they would stand there twice.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.exists() else []
    kept: list[str] = []
    rows: list[Row] = []
    for line in lines:
        values = _parse(line)
        if values is None or values.pop("epoch", None) != len(rows) + 1 or len(rows) == epochs:
            break
        kept.append(line)
        rows.append({name: np.array(value, dtype=np.float32) for name, value in values.items()})
    if len(kept) < len(lines):
        files.write_text(path, "".join(kept))
    return rows


def stack(rows: list[Row], shape: tuple[int, ...]) -> History:
    """Stack rows to `[epochs]`, or `[epochs, members]` for `shape == (members,)`; a value that is missing is NaN."""
    names = list(dict.fromkeys(name for r in rows for name in r))
    empty = np.full(shape, np.nan, np.float32)
    return {name: np.stack([np.broadcast_to(r.get(name, empty), shape) for r in rows]) for name in names}


def _plain(value: np.ndarray) -> object:
    """Spell float32 by its shortest decimal, which reads back to the same bits; NaN is null."""
    if value.ndim:
        return [_number(v) for v in value]
    return _number(value[()])


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(str(value))


def _parse(line: str) -> dict | None:
    if not line.endswith("\n"):
        return None
    try:
        values = json.loads(line)
    except json.JSONDecodeError:
        return None
    return values if isinstance(values, dict) else None
