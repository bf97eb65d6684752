"""A graph world on disk: JSON, TOML, Parquet and one Orbax folder; nothing is pickled.

world.json  schema.toml  support.json  training.parquet  params/
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
from wmjax.data.schema import read_schema
from wmjax.graph import decoder
from wmjax.graph.decoder import DecoderConfig
from wmjax.graph.series import Scale
from wmjax.graph.support import Support, SupportConfig
from wmjax.train import checkpoint
from wmjax.worlds.graph.config import GraphConfig
from wmjax.worlds.graph.model import GraphModel, GraphParams
from wmjax.worlds.graph.world import GraphWorld

FORMAT = 1
NESTED = {"support": SupportConfig, "decoder": DecoderConfig}


def save(world: GraphWorld, path: str | Path) -> None:
    """Write a world's folder, whole or not at all."""

    def fill(folder: Path) -> None:
        write_text(folder / "schema.toml", world.schema.to_toml())
        write_json(folder / "support.json", to_plain(world.support._asdict()))
        write_parquet(folder / "training.parquet", world.training, dict(world.provenance))
        checkpoint.save_tree(folder / "params", world.params)
        about = {
            "kind": "graph",
            "format": FORMAT,
            "facts": to_plain(dict(world.facts)),
            "config": to_plain(world.model.cfg),
            "provenance": to_plain(dict(world.provenance)),
        }
        write_json(folder / "world.json", about)

    replace_folder(path, fill)


def load(path: str | Path) -> GraphWorld:
    """Open a world's folder.

    Raises:
        UserError: where it was written in a format that this version does not read, or a file is missing.
    """
    folder = Path(path)
    about = read_json(folder / "world.json")
    if about["format"] != FORMAT:
        raise UserError(f"{folder}: written in format {about['format']}, this version reads {FORMAT}")
    schema = read_schema(folder / "schema.toml")
    model = GraphModel(_build(GraphConfig, about["config"]), len(schema.names("action")), len(schema.names("outcome")))
    stored = read_json(folder / "support.json")
    return GraphWorld(
        model=model,
        params=checkpoint.load_tree(folder / "params", _like(model)),
        support=Support(**{name: np.asarray(value, np.float64) for name, value in stored.items()}),
        schema=schema,
        training=pd.read_parquet(folder / "training.parquet"),
        facts=about["facts"],
        provenance=about["provenance"],
    )


def _build(cls: Any, plain: dict[str, Any]) -> Any:
    values = {}
    for field in dataclasses.fields(cls):
        value = plain[field.name]
        if isinstance(value, dict):
            value = _build(NESTED[field.name], value)
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return cls(**values)


def _like(model: GraphModel) -> Any:
    """Describe the arrays of a world without making them."""

    def make() -> GraphParams:
        own = decoder.init(jax.random.key(0), cfg=model.cfg.decoder, num_nodes=model.nodes)
        n = model.nodes
        one = GraphParams(own, jnp.zeros((n, n)), Scale(jnp.zeros(n), jnp.zeros(n)), jnp.zeros(model.outcomes))
        return jax.tree.map(lambda a: jnp.zeros((model.cfg.members, *a.shape), a.dtype), one)

    return jax.eval_shape(make)
