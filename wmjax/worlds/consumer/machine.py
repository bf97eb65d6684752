"""The consumer world's machine: an ensemble of Deep Boltzmann Machines trained in one program, and its beliefs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from wmjax.core import devices
from wmjax.core.keys import key_for
from wmjax.core.visible import Visible
from wmjax.dbm import learn, meanfield, pretrain, readout, types
from wmjax.dbm.learn import LearnConfig, LearnState
from wmjax.dbm.types import DBMConfig, DBMParams
from wmjax.train import loop, many
from wmjax.worlds.consumer import model as pure
from wmjax.worlds.consumer.model import ConsumerModel
from wmjax.worlds.consumer.rows import some_rows

Read = Callable[..., Array]
"""What is read of rows, given one member's machine, the rows, and `model`."""

CHUNK = 8192
"""Rows whose belief is inferred at once."""


def fit_members(
    key: Key[Array, ""],
    train: Float[np.ndarray, "rows units"],
    val: Float[np.ndarray, "others units"],
    *,
    weights: Float[Array, "members rows"],
    model: ConsumerModel,
    stages: Any,
) -> tuple[DBMParams, pd.DataFrame, dict[str, Any]]:
    """Train every member's machine; each keeps the epoch that rebuilds the validation rows best.

    Args:
        key: random key.
        train: visible rows to learn from.
        val: visible rows that choose the epoch.
        weights: of the train rows, each member's own.
        model: shapes and configuration.
        stages: where training keeps its checkpoints, and whom it tells.

    Returns:
        Parameters with a leading axis of members, the training curves, and facts: members that diverged, and the share
        of validation rows whose mean field had not settled.
    """
    cfg = model.cfg
    keys = jax.vmap(lambda m: key_for(key, "member", m))(jnp.arange(cfg.members))
    data = (_compact(train, model), _compact(_thin(val), model))
    params, curves = start(keys, data[0], weights, model=model, stages=stages)
    learned, visible = cfg.learn, model.frame.visible
    state = _begin(keys, params, weights, data[0], cfg=learned, visible=visible)
    layout = devices.layout(cfg.members, learn.rows_to_share(learned, len(train)))
    options = loop.LoopConfig(epochs=cfg.epochs, monitor="val_reconstruction", patience=cfg.patience)
    done, history = stages.run(
        keys,
        state,
        _epoch(learned, visible, layout.share),
        stage="belief",
        cfg=options,
        data=data,
        evaluate=_evaluate(learned, visible),
        snapshot=_params,
        **layout._asdict(),
    )
    curves.append(curve_table(history, "belief"))
    settled = float(_settled(done.best, data[1], sweeps=learned.mean_field_sweeps).mean())
    facts = {
        "diverged": int(np.asarray(done.diverged).sum()),
        "unsettled_share": float(1 - settled),
        "warnings": [],
    }
    if facts["diverged"]:
        facts["warnings"].append(
            f"{facts['diverged']} of {cfg.members} machines diverged and stand at their last good epoch"
        )
    if facts["unsettled_share"] > 0.01:
        facts["warnings"].append(
            f"mean field had not settled after {cfg.learn.mean_field_sweeps} sweeps for {facts['unsettled_share']:.0%} "
            "of the validation rows; raise learn.mean-field-sweeps"
        )
    return done.best, pd.concat(curves, ignore_index=True), facts


class Member(NamedTuple):
    """What one member trains: its machine, and the weights [rows] that its own bootstrap gives the train rows."""

    machine: LearnState
    weights: Array


def _params(member: Member) -> DBMParams:
    return member.machine.average  # of the parameters themselves where the configuration asks for no average


def _compact(visible: np.ndarray, model: ConsumerModel) -> Array:
    """Hold bits as bytes: a quarter of the memory, and the values stay what they were."""
    bits = all(group.kind != "gaussian" for group in model.frame.visible.groups)
    return jnp.asarray(visible, jnp.uint8 if bits else jnp.float32)


def _thin(rows: np.ndarray) -> np.ndarray:
    """Keep as many rows as an epoch's readout takes: the validation score costs no more than that."""
    return rows[some_rows(len(rows), readout.ROWS)]


@functools.partial(jax.jit, static_argnames=("cfg", "visible"))
def _begin(
    keys: Array, params: DBMParams, weights: Array, rows: Array, *, cfg: LearnConfig, visible: Visible
) -> Member:
    """Start every member's training."""

    def one(key: Array, params: DBMParams, weights: Array) -> Member:
        return Member(learn.init(key, params, rows, cfg=cfg, visible=visible, weights=weights), weights)

    return jax.vmap(one)(keys, params, weights)


@functools.partial(jax.jit, static_argnames="sweeps")
def _settled(machine: DBMParams, val: Array, *, sweeps: int) -> Float[Array, " members"]:
    """Share of rows whose mean field settled, of every member."""
    rows = val.astype(jnp.float32)
    return jax.vmap(lambda p: meanfield.infer(p, rows, sweeps=sweeps, report=1e-2)[1].converged.mean())(machine)


def start(
    keys: Key[Array, " members"], train: Array, weights: Array, *, model: ConsumerModel, stages: Any
) -> tuple[DBMParams, list[pd.DataFrame]]:
    """Start every member's machine: from small weights, or from a greedy stack where the configuration asks for one."""
    if model.cfg.pretrain_epochs:
        return _greedy_start(keys, train, weights, model=model, stages=stages)
    return _small_start(keys, weights, train, cfg=model.cfg.machine, visible=model.frame.visible), []


@functools.partial(jax.jit, static_argnames=("cfg", "visible"))
def _small_start(keys: Array, weights: Array, train: Array, *, cfg: DBMConfig, visible: Visible) -> DBMParams:
    """Draw every member's machine with small weights."""

    def one(key: Array, weights: Array) -> DBMParams:
        bias = learn.visible_bias(train, visible=visible, weights=weights)
        return types.init(key_for(key, "init"), bias, cfg=cfg)

    return jax.vmap(one)(keys, weights)


def _greedy_start(
    keys: Key[Array, " members"], train: Array, weights: Array, *, model: ConsumerModel, stages: Any
) -> tuple[DBMParams, list[pd.DataFrame]]:
    """Train one layer after the other, each a stage of its own, and assemble every member's machine."""
    cfg, depth = model.cfg, len(model.cfg.machine.hidden)
    rows = jnp.broadcast_to(train, (cfg.members, *train.shape))
    layers, curves = [], []
    for index in range(depth):
        options = {"index": index, "visible": model.frame.visible, "machine": cfg.machine, "scheme": cfg.scheme}
        own = pretrain.layer_config(cfg.learn, index=index, depth=depth, scheme=cfg.scheme)
        pose = functools.partial(pretrain.layer_problem, cfg=own, **options)

        def posed(key: Array, rows: Array, weights: Array, pose: Any = pose, at: int = index) -> pretrain.LayerProblem:
            return pose(key_for(key, "layer", at), rows, weights=weights)

        problem = jax.jit(jax.vmap(posed))(keys, rows, weights)
        below = pretrain.layer_visible(model.frame.visible, index=index, machine=cfg.machine)
        stage = f"pretraining {index + 1} of {depth}"
        done, history = stages.run(
            keys,
            problem.state,
            _layer_epoch(own, below),
            stage=stage,
            cfg=loop.LoopConfig(epochs=cfg.pretrain_epochs),
            data=(problem.data, problem.weights),
            snapshot=_layer_params,
        )
        layers.append(done.best)
        curves.append(curve_table(history, stage))
        weights = problem.weights
        if index + 1 < depth:
            draw = functools.partial(pretrain.hidden_rows, cfg=own)
            rows = jax.jit(jax.vmap(lambda k, p, r, draw=draw, at=index: draw(key_for(k, "rows", at), p, r)))(
                keys, done.best, problem.data
            )
    assemble = functools.partial(pretrain.assemble, scheme=cfg.scheme)
    return jax.jit(jax.vmap(assemble, (0, None)))(tuple(layers), train), curves


@functools.cache
def _layer_epoch(cfg: learn.LearnConfig, visible: Visible) -> Any:
    """Train one epoch of a layer of every member, each on its own rows."""

    def one(key: Array, state: LearnState, data: tuple[Array, Array]) -> Any:
        return learn.epoch(key, state, data[0], cfg=cfg, visible=visible, weights=data[1])

    return many.members(one, mapped=3)


def _layer_params(state: LearnState) -> DBMParams:
    return state.average


@functools.cache
def _epoch(cfg: LearnConfig, visible: Visible, share: Mesh | None = None) -> Any:
    """Train one epoch of every member; the same function object for the same machine, so that it compiles once."""
    teach = functools.partial(learn.epoch, cfg=cfg, visible=visible, share=share)

    def one(key: Array, member: Member, data: tuple[Array, Array]) -> Any:
        machine, metrics = teach(key, member.machine, data[0], weights=member.weights)
        return Member(machine, member.weights), metrics

    return many.members(one)


@functools.cache
def _evaluate(cfg: LearnConfig, visible: Visible) -> Any:
    """Measure how well each member's machine rebuilds validation rows."""

    def one(key: Array, member: Member, data: tuple[Array, Array]) -> dict[str, Array]:
        rows = data[1].astype(jnp.float32)
        loss = readout.reconstruction(key, _params(member), rows, visible=visible, sweeps=cfg.mean_field_sweeps)
        return {"val_reconstruction": loss}

    return many.members(one)


def read_rows(
    machine: DBMParams, visible: Float[Array, "rows units"], *, model: ConsumerModel, read: Read = pure.belief
) -> Float[Array, "members rows features"]:
    """Let every member read every row (`pure.belief` or `pure.features`), a bounded number of rows at a time."""

    def member(params: DBMParams) -> Array:
        row = lambda v: read(params, v.astype(jnp.float32), model=model)  # noqa: E731
        return jax.lax.map(row, visible, batch_size=CHUNK)

    return jax.lax.map(member, machine)


def curve_table(history: dict[str, np.ndarray], stage: str, first: int = 0) -> pd.DataFrame:
    """Lay a loop's history out as stage, epoch, member, metric, value."""
    parts = []
    for name, values in history.items():
        epochs, members = values.shape
        parts.append(
            pd.DataFrame(
                {
                    "stage": stage,
                    "epoch": np.repeat(np.arange(1, epochs + 1), members),
                    "member": np.tile(np.arange(first, first + members), epochs),
                    "metric": name,
                    "value": values.ravel(),
                }
            )
        )
    return pd.concat(parts, ignore_index=True).dropna(subset=["value"])
