"""The published machine, many seeds in one program: greedy pretraining and fine-tuning, each stage resumable.

Seeds lie on a leading axis. Where they do not divide over the devices, the rows of each do while it is fine-tuned
(`devices.use_cores` makes every core of a CPU one: work as small as this uses no more than one core well). A layer's
machine learns from hidden bits of the layers below, drawn once a seed; they are drawn anew every epoch from the same
key, which costs one product and spares 20 MB a seed in every checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments.common import Cell, Scores
from wmjax.core import bits, devices, files
from wmjax.core.errors import UserError
from wmjax.core.keys import key_for
from wmjax.core.observe import Observer
from wmjax.core.visible import Visible
from wmjax.dbm import learn, meanfield, pretrain, readout, types
from wmjax.dbm.learn import LearnConfig, LearnState
from wmjax.dbm.types import DBMConfig, DBMParams
from wmjax.train import checkpoint, loop, many

CHUNK = 8192
"""Rows whose belief is inferred at once."""


class Stages(NamedTuple):
    """Where stages keep their checkpoints, whom they tell, and whose they are."""

    folder: Path
    observer: Observer
    owner: str

    def at(self, stage: str) -> dict[str, Any]:
        return {
            "folder": self.folder / stage,
            "stage": stage,
            "observer": self.observer,
            "fingerprint": self.owner,
        }


class Layer(NamedTuple):
    """What a seed's layer trains, and what its rows are drawn from: its own key, and the layers below."""

    machine: LearnState
    key: jax.Array
    below: tuple[DBMParams, ...]


@dataclass(frozen=True)
class LayerRows:
    """Draws the rows of one layer from visible rows, in the order in which the layer takes them, once and for all."""

    index: int
    cfg: LearnConfig

    def __call__(self, key: jax.Array, below: tuple[DBMParams, ...], rows: jax.Array) -> jax.Array:
        for index, params in enumerate(below):
            rows = pretrain.hidden_rows(key_for(key_for(key, "layer", index), "rows"), params, rows, cfg=self.cfg)
        return rows


@dataclass(frozen=True)
class LayerEpoch:
    """One epoch of one seed's layer; a value, so that equal ones share a compiled program."""

    rows: LayerRows
    visible: Visible

    def __call__(self, key: jax.Array, layer: Layer, data: Any) -> tuple[Layer, dict[str, Any]]:
        rows = self.rows(layer.key, layer.below, data[0])
        if not self.rows.cfg.shuffle:
            rows = rows[_order(layer.key, self.rows.index, rows)]
        machine, metrics = learn.epoch(key, layer.machine, rows, cfg=self.rows.cfg, visible=self.visible)
        return layer._replace(machine=machine), metrics


@dataclass(frozen=True)
class MachineEpoch:
    """One epoch of one seed's whole machine."""

    cfg: LearnConfig
    visible: Visible
    share: Mesh | None = None

    def __call__(self, key: jax.Array, state: LearnState, data: Any) -> tuple[LearnState, dict[str, Any]]:
        return learn.epoch(key, state, data[0], cfg=self.cfg, visible=self.visible, share=self.share)


@dataclass(frozen=True)
class Reconstruction:
    """How validation rows come back: the published sampled measure, and the proper one."""

    cfg: LearnConfig
    visible: Visible

    def __call__(self, key: jax.Array, state: LearnState, data: Any) -> dict[str, Any]:
        rows = data[1].astype(jnp.float32)
        return {
            f"val_{kind}": readout.reconstruction(
                key, state.params, rows, visible=self.visible, kind=kind, sweeps=self.cfg.mean_field_sweeps
            )
            for kind in ("sampled", "prob")
        }


@dataclass(frozen=True)
class Kept:
    """What is told of a machine that was kept: its reconstruction of validation rows, and how active its layers are."""

    cfg: LearnConfig
    visible: Visible

    def __call__(self, key: jax.Array, params: DBMParams, data: Any) -> dict[str, Any]:
        rows, sweeps = data[1].astype(jnp.float32), self.cfg.mean_field_sweeps
        out = {
            f"val_{kind}": readout.reconstruction(key, params, rows, visible=self.visible, kind=kind, sweeps=sweeps)
            for kind in ("sampled", "prob")
        }
        means, _ = meanfield.infer(params, rows, sweeps=sweeps)
        return out | {f"activation_h{i}": x.mean() for i, x in enumerate(means) if i > 0}


def layer_params(layer: Layer) -> DBMParams:
    """Take what a layer's training keeps."""
    return layer.machine.params


def machine_params(state: LearnState) -> DBMParams:
    """Take what the best epoch keeps."""
    return state.params


def pretrain_layers(
    keys: jax.Array,
    train: np.ndarray,
    visible: Visible,
    *,
    machine: DBMConfig,
    cfg: LearnConfig,
    epochs: int,
    stages: Stages,
) -> DBMParams:
    """Train every seed's machine a layer, bottom up, and assemble them: parameters `[seeds, ..]`."""
    rows, below, depth = jnp.asarray(train), (), len(machine.hidden)
    for index in range(depth):
        own = pretrain.layer_config(cfg, index=index, depth=depth, scheme="paper")
        layer_visible = pretrain.layer_visible(visible, index=index, machine=machine)
        draw = LayerRows(index, own)

        def begin(
            key: jax.Array, below: Any, rows: jax.Array, *, own=own, layer_visible=layer_visible, draw=draw
        ) -> Layer:
            problem = pretrain.layer_problem(
                key_for(key, "layer", draw.index),
                draw(key, below, rows),
                index=draw.index,
                visible=layer_visible,
                machine=machine,
                cfg=own,
                scheme="paper",
            )
            return Layer(problem.state, key, below)

        state = jax.jit(_each(begin, mapped=2))(keys, below, rows)
        done, _ = loop.run(
            jax.vmap(lambda key, at=index: key_for(key, "layer", at))(keys),
            state,
            _each(LayerEpoch(draw, layer_visible), mapped=2),
            cfg=loop.LoopConfig(epochs=epochs),
            data=(rows,),
            snapshot=many.members(layer_params, 1),
            mesh=devices.mesh(len(keys)),
            **stages.at(f"pretrain-{index + 1}"),
        )
        below = (*below, done.model.machine.params)
    assemble = lambda rbms, rows: pretrain.assemble(rbms, rows, scheme="paper")  # noqa: E731
    return jax.jit(_each(assemble, mapped=1))(below, rows)


def fine_tune(
    keys: jax.Array,
    start: DBMParams,
    train: np.ndarray,
    val: np.ndarray,
    visible: Visible,
    *,
    cfg: LearnConfig,
    epochs: int,
    patience: int,
    stages: Stages,
) -> tuple[DBMParams, list[Scores]]:
    """Learn all layers jointly; every seed keeps the epoch whose sampled validation reconstruction is lowest.

    Returns:
        Parameters `[seeds, ..]`, and each seed's facts.
    """
    data = (jnp.asarray(train), jnp.asarray(val))
    layout = devices.layout(len(keys), learn.rows_to_share(cfg, len(train)))

    def begin(key: jax.Array, start: DBMParams, rows: jax.Array) -> LearnState:
        return learn.init(key_for(key, "init"), start, rows, cfg=cfg, visible=visible)

    done, _ = loop.run(
        keys,
        jax.jit(_each(begin, mapped=2))(keys, start, data[0]),
        _each(MachineEpoch(cfg, visible, layout.share), mapped=2),
        cfg=loop.LoopConfig(epochs=epochs, monitor="val_sampled", patience=patience),
        data=data,
        evaluate=_each(Reconstruction(cfg, visible), mapped=2),
        snapshot=many.members(machine_params, 1),
        **layout._asdict(),
        **stages.at("fine-tune"),
    )
    # Of what is kept, not of the curve: a run goes on from a checkpoint alone.
    found = jax.device_get(jax.jit(_each(Kept(cfg, visible), mapped=2))(keys, done.best, data))
    found |= {"best_epoch": done.best_epoch, "epochs_run": done.best_epoch + done.stale}
    facts = [{Cell("machine", "dbm", name): float(x[seed]) for name, x in found.items()} for seed in range(len(keys))]
    return done.best, facts


def keep(path: Path, params: DBMParams, facts: list[Scores], made: dict[str, Any]) -> None:
    """Write machines `[seeds, ..]` and what is told of them to one file, so that a study can go on elsewhere."""
    arrays: dict[str, Any] = {
        f"{name}_{i}": np.asarray(x) for name, tree in params._asdict().items() for i, x in enumerate(tree)
    }
    plain = [{cell.quantity: value for cell, value in scores.items()} for scores in facts]
    with files.replacing(path) as part, part.open("wb") as out:
        np.savez_compressed(out, about=json.dumps({"facts": plain, "made": made}), **arrays)


def kept(path: Path, seeds: int) -> tuple[DBMParams, list[Scores], dict[str, Any]]:
    """Read the first seeds' machines of `keep`.

    Raises:
        UserError: there are fewer, or no such file.
    """
    if not path.exists():
        raise UserError(f"no machines in {path.absolute()}: give a file that `experiments.three_in_one` wrote")
    with np.load(path) as found:
        about = json.loads(str(found["about"]))
        names = DBMParams._fields
        trees = [tuple(found[f"{n}_{i}"] for i in range(sum(k.startswith(f"{n}_") for k in found))) for n in names]
    if (there := len(about["facts"])) < seeds:
        raise UserError(f"{path}: holds {there} seeds, {seeds} are asked for")
    params = DBMParams(*(tuple(jnp.asarray(x[:seeds]) for x in tree) for tree in trees))
    facts = [{Cell("machine", "dbm", name): v for name, v in scores.items()} for scores in about["facts"][:seeds]]
    return params, facts, about["made"]


def begun(stages: Stages) -> bool:
    """Tell whether fine-tuning goes on from a checkpoint of its own, so that nothing before it is needed."""
    return checkpoint.latest(stages.folder / "fine-tune" / "checkpoints") is not None


def blank(machine: DBMConfig, visible: Visible, seeds: int) -> DBMParams:
    """Make parameters of the right shapes, for a fine-tuning that goes on."""
    one = types.init(jax.random.key(0), jnp.zeros(visible.size), cfg=machine)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (seeds, *x.shape)), one)


@jax.jit
def belief(params: DBMParams, rows: jax.Array) -> jax.Array:
    """Infer the hidden means of visible rows, all layers: `[rows, features]`."""

    def one(row: jax.Array) -> jax.Array:
        return meanfield.belief(params, row.astype(jnp.float32))

    return jax.lax.map(one, rows, batch_size=CHUNK)


def _each(fn: Any, *, mapped: int) -> Any:
    """Map over seeds."""
    return many.members(fn, mapped, batch_size=many.side_by_side())


def _order(key: jax.Array, index: int, rows: jax.Array) -> jax.Array:
    """Repeat the order in which `pretrain.layer_problem` lays a layer's rows."""
    return bits.permutation(bits.seeds(key_for(key_for(key, "layer", index), "order")), rows.shape[0])
