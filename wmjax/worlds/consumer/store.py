"""A consumer world on disk: JSON, TOML, Parquet and one Orbax folder; nothing is pickled.

world.json  schema.toml  frame.json  support.json  training.parquet  params/
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from wmjax.core.errors import UserError
from wmjax.core.files import read_json, replace_folder, write_json, write_parquet, write_text
from wmjax.core.provenance import to_plain
from wmjax.data.frame import Frame
from wmjax.data.schema import read_schema
from wmjax.dbm import types
from wmjax.dbm.learn import LearnConfig
from wmjax.dbm.types import DBMConfig
from wmjax.evaluate.overlap import OverlapReport
from wmjax.heads import adapter
from wmjax.heads.adapter import AdapterConfig
from wmjax.train import checkpoint
from wmjax.worlds.consumer.config import ConsumerConfig
from wmjax.worlds.consumer.model import ConsumerModel, ConsumerParams, Scales
from wmjax.worlds.consumer.world import REFERENCE, ConsumerWorld

FORMAT = 2
NESTED = {"machine": DBMConfig, "learn": LearnConfig, "adapter": AdapterConfig}


def save(world: ConsumerWorld, path: str | Path) -> None:
    """Write a world's folder, whole or not at all."""

    def fill(folder: Path) -> None:
        write_text(folder / "schema.toml", world.schema.to_toml())
        write_json(folder / "frame.json", world.model.frame.to_json())
        write_json(folder / "support.json", {name: report.to_json() for name, report in world.overlap.items()})
        write_parquet(folder / "training.parquet", world.training, dict(world.provenance))
        checkpoint.save_tree(folder / "params", (world.params, jnp.asarray(world.reference)))
        about = {
            "kind": "consumer",
            "format": FORMAT,
            "levels": to_plain(dict(world.levels)),
            "kinds": list(world.model.kinds),
            "facts": to_plain(dict(world.facts)),
            "config": to_plain(world.model.cfg),
            "provenance": to_plain(dict(world.provenance)),
        }
        write_json(folder / "world.json", about)

    replace_folder(path, fill)


def load(path: str | Path) -> ConsumerWorld:
    """Open a world's folder.

    Raises:
        UserError: where it was written in a format that this version does not read, or a file is missing.
    """
    folder = Path(path)
    about = read_json(folder / "world.json")
    if about["format"] != FORMAT:
        raise UserError(f"{folder}: written in format {about['format']}, this version reads {FORMAT}")
    schema = read_schema(folder / "schema.toml")
    model = ConsumerModel(
        _config(about["config"]), Frame.from_json(read_json(folder / "frame.json")), tuple(about["kinds"])
    )
    like = _like(model, num_actions=len(schema.names("action")))
    params, reference = checkpoint.load_tree(folder / "params", like)
    return ConsumerWorld(
        model=model,
        params=params,
        schema=schema,
        levels={name: tuple(levels) for name, levels in about["levels"].items()},
        overlap={n: OverlapReport.from_json(r) for n, r in read_json(folder / "support.json").items()},
        reference=np.asarray(reference),
        training=pd.read_parquet(folder / "training.parquet"),
        facts=about["facts"],
        provenance=about["provenance"],
    )


def _config(plain: dict[str, Any]) -> ConsumerConfig:
    return _build(ConsumerConfig, plain)


def _build(cls: Any, plain: dict[str, Any]) -> Any:
    values = {}
    for field in dataclasses.fields(cls):
        value = plain[field.name]
        if isinstance(value, dict):
            value = _build(NESTED[field.name], value)
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return cls(**values)


def _like(model: ConsumerModel, *, num_actions: int) -> Any:
    """Describe the arrays of a world without making them."""
    cfg, members, outcomes = model.cfg, model.cfg.members, len(model.kinds)

    def make() -> Any:
        key = jax.random.key(0)
        machine = types.init(key, jnp.zeros(model.frame.visible.size), cfg=cfg.machine)
        width = model.num_features
        head = adapter.init(key, cfg=cfg.adapter, num_features=width, num_actions=num_actions)
        scales = Scales(*(jnp.zeros(n) for n in (num_actions, num_actions, outcomes, outcomes, outcomes)))
        lead = lambda tree, *axes: jax.tree.map(lambda x: jnp.zeros((*axes, *x.shape), x.dtype), tree)  # noqa: E731
        params = ConsumerParams(lead(machine, members), lead(head, members, outcomes), lead(scales, members))
        return params, jnp.zeros(REFERENCE)

    return jax.eval_shape(make)
