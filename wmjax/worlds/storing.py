"""What every world's folder has in common: `world.json`, `schema.toml`, `training.parquet`, and one Orbax folder.

A world's own store says what else lies in its folder. Nothing is pickled.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from wmjax.core.errors import UserError
from wmjax.core.files import read_json, replace_folder, write_json, write_parquet, write_text
from wmjax.core.provenance import to_plain
from wmjax.data.schema import PanelSchema, read_schema
from wmjax.train import checkpoint


def save(
    path: str | Path,
    world: Any,
    *,
    kind: str,
    version: int,
    cfg: Any,
    arrays: Any,
    about: Mapping[str, Any],
    more: Callable[[Path], None],
) -> None:
    """Write a world's folder, whole or not at all.

    Args:
        world: what has a schema, training rows, facts and a provenance.
        kind: of world; `version`: of its folder's format.
        cfg: the frozen dataclass that the world was fitted with.
        arrays: the tree for `params/`.
        about: what else is written to `world.json`.
        more: writes the files that are this kind's own.
    """
    own = {name: to_plain(value) for name, value in about.items()}

    def fill(folder: Path) -> None:
        write_text(folder / "schema.toml", world.schema.to_toml())
        write_parquet(folder / "training.parquet", world.training, dict(world.provenance))
        checkpoint.save_tree(folder / "params", arrays)
        more(folder)
        common = {"facts": to_plain(dict(world.facts)), "config": to_plain(cfg)}
        provenance = to_plain(dict(world.provenance))
        write_json(folder / "world.json", {"kind": kind, "format": version, **own, **common, "provenance": provenance})

    replace_folder(path, fill)


def about(path: str | Path, *, version: int) -> dict[str, Any]:
    """Read `world.json`.

    Raises:
        UserError: where it was written in a format that this version does not read, or is missing.
    """
    found = read_json(Path(path) / "world.json")
    if found["format"] != version:
        raise UserError(f"{path}: written in format {found['format']}, this version reads {version}; fit it again")
    return found


def columns(path: str | Path) -> tuple[PanelSchema, dict[str, tuple[str, ...]]]:
    """Read what a table must hold to be asked about: the schema, and the levels of categorical columns."""
    levels = read_json(Path(path) / "world.json").get("levels", {})
    return read_schema(Path(path) / "schema.toml"), {name: tuple(own) for name, own in levels.items()}


def common(path: str | Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Read the fields that every world has: schema, training rows, facts and provenance."""
    folder = Path(path)
    return {
        "schema": read_schema(folder / "schema.toml"),
        "training": pd.read_parquet(folder / "training.parquet"),
        "facts": about["facts"],
        "provenance": about["provenance"],
    }


def rebuild(cls: Any, plain: Mapping[str, Any]) -> Any:
    """Make a frozen dataclass again from its JSON; fields that are dataclasses, or tuples of them, included."""
    hints = typing.get_type_hints(cls)
    return cls(**{f.name: _rebuild(hints[f.name], plain[f.name]) for f in dataclasses.fields(cls)})


def _rebuild(hint: Any, value: Any) -> Any:
    if isinstance(value, list):
        inner = (typing.get_args(hint) or (Any,))[0]
        return tuple(_rebuild(inner, v) for v in value)
    if isinstance(value, dict) and dataclasses.is_dataclass(hint):
        return rebuild(hint, value)
    return value
