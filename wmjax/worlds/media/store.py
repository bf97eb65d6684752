"""A media world on disk: JSON, TOML, Parquet and one Orbax folder; nothing is pickled.

world.json  schema.toml  support.parquet  training.parquet  params/
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
from wmjax.train import checkpoint
from wmjax.transformer import network, response, tokens
from wmjax.transformer.config import MMMConfig
from wmjax.transformer.losses import ROIPrior
from wmjax.worlds.media.config import MediaConfig
from wmjax.worlds.media.prepare import Scales
from wmjax.worlds.media.world import MediaWorld

FORMAT = 1


def save(world: MediaWorld, path: str | Path) -> None:
    """Write a world's folder, whole or not at all."""

    def fill(folder: Path) -> None:
        write_text(folder / "schema.toml", world.schema.to_toml())
        write_parquet(folder / "support.parquet", world.support, dict(world.provenance))
        write_parquet(folder / "training.parquet", world.training, dict(world.provenance))
        checkpoint.save_tree(folder / "params", world.params)
        about = {
            "kind": "media",
            "format": FORMAT,
            "units": list(world.units),
            "levels": to_plain(dict(world.levels)),
            "scales": to_plain(world.scales._asdict()),
            "creative": world.creative.tolist(),
            "residual": world.residual.tolist(),
            "facts": to_plain(dict(world.facts)),
            "config": to_plain(world.cfg),
            "provenance": to_plain(dict(world.provenance)),
        }
        write_json(folder / "world.json", about)

    replace_folder(path, fill)


def load(path: str | Path) -> MediaWorld:
    """Open a world's folder.

    Raises:
        UserError: where it was written in a format that this version does not read, or a file is missing.
    """
    folder = Path(path)
    about = read_json(folder / "world.json")
    if about["format"] != FORMAT:
        raise UserError(f"{folder}: written in format {about['format']}, this version reads {FORMAT}")
    cfg = _config(about["config"])
    scales = Scales(**{name: np.asarray(value, np.float64) for name, value in about["scales"].items()})
    creative = np.asarray(about["creative"], np.float64).reshape(len(scales.spend), -1)
    return MediaWorld(
        cfg=cfg,
        params=checkpoint.load_tree(folder / "params", _like(cfg, scales, creative)),
        scales=scales,
        creative=creative,
        residual=np.asarray(about["residual"]),
        schema=read_schema(folder / "schema.toml"),
        levels={name: tuple(levels) for name, levels in about["levels"].items()},
        units=tuple(about["units"]),
        support=pd.read_parquet(folder / "support.parquet"),
        training=pd.read_parquet(folder / "training.parquet"),
        facts=about["facts"],
        provenance=about["provenance"],
    )


def _config(plain: dict[str, Any]) -> MediaConfig:
    values = {f.name: plain[f.name] for f in dataclasses.fields(MediaConfig)}
    values["network"] = MMMConfig(**_own(MMMConfig, values["network"]))
    values["roi"] = tuple(ROIPrior(**_own(ROIPrior, p)) for p in values["roi"])
    values["negative"] = tuple(values["negative"])
    return MediaConfig(**values)


def _own(cls: Any, plain: dict[str, Any]) -> dict[str, Any]:
    return {f.name: plain[f.name] for f in dataclasses.fields(cls)}


def _like(cfg: MediaConfig, scales: Scales, creative: np.ndarray) -> Any:
    """Describe the parameters without making them."""
    count = len(scales.spend)

    def make() -> Any:
        known = tokens.channels(count, cfg=cfg.network, creative=creative)
        own = network.init(
            jax.random.key(0),
            known,
            cfg=cfg.network,
            num_covariates=len(scales.covariate_centre),
            num_static=len(scales.static_centre),
            curves=response.centre(jnp.ones(count)),
        )
        return jax.tree.map(lambda x: jnp.zeros((cfg.members, *x.shape), x.dtype), own)

    return jax.eval_shape(make)
