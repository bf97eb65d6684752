"""A graph world on disk: JSON, TOML, Parquet and one Orbax folder; nothing is pickled.

world.json  schema.toml  support.json  training.parquet  params/
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wmjax.core.files import read_json, write_json
from wmjax.core.provenance import to_plain
from wmjax.graph import decoder
from wmjax.graph.series import Scale
from wmjax.graph.support import Support
from wmjax.train import checkpoint
from wmjax.worlds import storing
from wmjax.worlds.graph.config import GraphConfig
from wmjax.worlds.graph.model import GraphModel, GraphParams
from wmjax.worlds.graph.world import GraphWorld

FORMAT = 1


def save(world: GraphWorld, path: str | Path) -> None:
    """Write a world's folder, whole or not at all."""
    storing.save(
        path,
        world,
        kind="graph",
        version=FORMAT,
        cfg=world.model.cfg,
        arrays=world.params,
        about={},
        more=lambda folder: write_json(folder / "support.json", to_plain(world.support._asdict())),
    )


def load(path: str | Path) -> GraphWorld:
    """Open a world's folder.

    Raises:
        UserError: where it was written in a format that this version does not read, or a file is missing.
    """
    folder = Path(path)
    about = storing.about(folder, version=FORMAT)
    common = storing.common(folder, about)
    schema, cfg = common["schema"], storing.rebuild(GraphConfig, about["config"])
    model = GraphModel(cfg, len(schema.names("action")), len(schema.names("outcome")))
    stored = read_json(folder / "support.json")
    return GraphWorld(
        model=model,
        params=checkpoint.load_tree(folder / "params", _like(model)),
        support=Support(**{name: np.asarray(value, np.float64) for name, value in stored.items()}),
        **common,
    )


def _like(model: GraphModel) -> Any:
    """Describe the arrays of a world without making them."""

    def make() -> GraphParams:
        own = decoder.init(jax.random.key(0), cfg=model.cfg.decoder, num_nodes=model.nodes)
        n = model.nodes
        one = GraphParams(own, jnp.zeros((n, n)), Scale(jnp.zeros(n), jnp.zeros(n)), jnp.zeros(model.outcomes))
        return jax.tree.map(lambda a: jnp.zeros((model.cfg.members, *a.shape), a.dtype), one)

    return jax.eval_shape(make)
