"""A consumer world on disk: JSON, TOML, Parquet and one Orbax folder; nothing is pickled.

world.json  schema.toml  frame.json  support.json  together.json  training.parquet  params/
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wmjax.core.files import read_json, write_json
from wmjax.data.frame import Frame
from wmjax.dbm import types
from wmjax.evaluate.overlap import OverlapReport
from wmjax.evaluate.together import Together
from wmjax.heads import adapter
from wmjax.train import checkpoint
from wmjax.worlds import storing
from wmjax.worlds.consumer.config import ConsumerConfig
from wmjax.worlds.consumer.model import ConsumerModel, ConsumerParams, Scales
from wmjax.worlds.consumer.world import REFERENCE, ConsumerWorld

FORMAT = 5


def save(world: ConsumerWorld, path: str | Path) -> None:
    """Write a world's folder, whole or not at all."""

    def more(folder: Path) -> None:
        write_json(folder / "frame.json", world.model.frame.to_json())
        write_json(folder / "support.json", {name: report.to_json() for name, report in world.overlap.items()})
        write_json(folder / "together.json", world.together.to_json())

    storing.save(
        path,
        world,
        kind="consumer",
        version=FORMAT,
        cfg=world.model.cfg,
        arrays=(world.params, jnp.asarray(world.reference)),
        about={"levels": dict(world.levels), "kinds": list(world.model.kinds)},
        more=more,
    )


def load(path: str | Path) -> ConsumerWorld:
    """Open a world's folder.

    Raises:
        UserError: where it was written in a format that this version does not read, or a file is missing.
    """
    folder = Path(path)
    about = storing.about(folder, version=FORMAT)
    common = storing.common(folder, about)
    cfg = storing.rebuild(ConsumerConfig, about["config"])
    model = ConsumerModel(cfg, Frame.from_json(read_json(folder / "frame.json")), tuple(about["kinds"]))
    like = _like(model, num_actions=len(common["schema"].names("action")))
    params, reference = checkpoint.load_tree(folder / "params", like)
    return ConsumerWorld(
        model=model,
        params=params,
        levels={name: tuple(levels) for name, levels in about["levels"].items()},
        overlap={n: OverlapReport.from_json(r) for n, r in read_json(folder / "support.json").items()},
        together=Together.from_json(read_json(folder / "together.json")),
        reference=np.asarray(reference),
        **common,
    )


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
