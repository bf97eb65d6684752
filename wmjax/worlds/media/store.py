"""A media world on disk: JSON, TOML, Parquet and one Orbax folder; nothing is pickled.

world.json  schema.toml  support.parquet  training.parquet  params/
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from wmjax.core.files import write_parquet
from wmjax.train import checkpoint
from wmjax.transformer import network, response, tokens
from wmjax.transformer.response import Curves
from wmjax.worlds import storing
from wmjax.worlds.media.config import MediaConfig
from wmjax.worlds.media.prepare import Scales
from wmjax.worlds.media.proxies import Errors
from wmjax.worlds.media.world import MediaWorld

FORMAT = 7


def save(world: MediaWorld, path: str | Path) -> None:
    """Write a world's folder, whole or not at all."""
    storing.save(
        path,
        world,
        kind="media",
        version=FORMAT,
        cfg=world.cfg,
        arrays={"members": world.params, "spread": world.spread},
        about={
            "units": list(world.units),
            "levels": dict(world.levels),
            "scales": {**world.scales._asdict(), "errors": world.scales.errors._asdict()},
            "creative": world.creative.tolist(),
            "residual": world.residual.tolist(),
        },
        more=lambda folder: write_parquet(folder / "support.parquet", world.support, dict(world.provenance)),
    )


def load(path: str | Path) -> MediaWorld:
    """Open a world's folder.

    Raises:
        UserError: where it was written in a format that this version does not read, or a file is missing.
    """
    folder = Path(path)
    about = storing.about(folder, version=FORMAT)
    cfg = storing.rebuild(MediaConfig, about["config"])
    numbers = dict(about["scales"])
    errors = Errors(**{name: np.asarray(value, np.float64) for name, value in numbers.pop("errors").items()})
    errors = errors._replace(columns=errors.columns.astype(int), left=errors.left.astype(int))
    place = np.asarray(numbers.pop("place"), int)
    numbers = {name: np.asarray(value, np.float64) for name, value in numbers.items()}
    scales = Scales(**numbers, errors=errors, place=place)
    creative = np.asarray(about["creative"], np.float64).reshape(len(scales.spend), -1)
    curves = 0 if cfg.network.head == "free" else len(Curves._fields) * len(scales.spend)
    spread = jax.ShapeDtypeStruct((cfg.members, curves, curves), jnp.float32)
    arrays = checkpoint.load_tree(folder / "params", {"members": _like(cfg, scales, creative), "spread": spread})
    return MediaWorld(
        cfg=cfg,
        params=arrays["members"],
        spread=np.asarray(arrays["spread"]),
        scales=scales,
        creative=creative,
        residual=np.asarray(about["residual"]),
        levels={name: tuple(levels) for name, levels in about["levels"].items()},
        units=tuple(about["units"]),
        support=pd.read_parquet(folder / "support.parquet"),
        **storing.common(folder, about),
    )


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
            discriminates=cfg.confusion == "shuffle",
        )
        if cfg.network.head == "response" and len(scales.size) > 1:
            own["outcome"]["intercepts"] = jnp.zeros(len(scales.size))
        return jax.tree.map(lambda x: jnp.zeros((cfg.members, *x.shape), x.dtype), own)

    return jax.eval_shape(make)
