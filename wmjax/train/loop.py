"""One training loop for every model: epochs on the device, reports one epoch late, exact resumption.

The model is two pure functions. `epoch_fn(key, model, data) -> (model, metrics)` trains one epoch (one `lax.scan`
inside), `evaluate(key, model, data) -> metrics` scores it. A metric is a number, or one number a member where `model`
holds many members on a leading axis of every leaf. Epochs count from 1 wherever a person reads them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Key

from wmjax.core import devices, files
from wmjax.core.errors import DivergedError, UserError
from wmjax.core.observe import Event, Observer, silent
from wmjax.core.provenance import fingerprint as hash_of
from wmjax.train import checkpoint, history
from wmjax.train.history import History
from wmjax.train.state import (
    EpochFn,
    EpochInfo,
    EvaluateFn,
    Rule,
    TrainState,
    advance,
    begin,
    is_key,
    over_devices,
    own,
    running,
)


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long to train, when to stop and how often to save.

    Attributes:
        epochs: epochs at most.
        eval_every: epochs from one call of `evaluate` to the next.
        monitor: the metric, of the epoch or of `evaluate`, that decides which parameters are the best; None takes the
            last ones.
        mode: whether the lower (`"min"`) or the higher (`"max"`) value of `monitor` is better.
        patience: values of `monitor` without improvement after which a member stops; None never stops.
        min_delta: what counts as an improvement must be more than this.
        save_every: epochs between two moments at which a checkpoint may be saved.
        save_seconds: time that must have passed since the last one, so that short epochs do not wait for the disk.
        keep: checkpoints kept.
    """

    epochs: int = 100
    eval_every: int = 1
    monitor: str | None = None
    mode: Literal["min", "max"] = "min"
    patience: int | None = None
    min_delta: float = 0.0
    save_every: int = 1
    save_seconds: float = 30.0
    keep: int = 2

    def __post_init__(self) -> None:
        for name in ("epochs", "eval_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        for name in ("min_delta", "save_seconds"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, must be 0 or more")
        if self.mode not in ("min", "max"):
            raise ValueError(f"mode is {self.mode!r}, must be 'min' or 'max'")
        if self.patience is not None and (self.patience < 1 or self.monitor is None):
            raise ValueError(f"patience is {self.patience}: it must be at least 1 and needs a monitor")


def whole(model: Any) -> Any:
    """Keep all of the model's state: the default snapshot."""
    return model


def rule_of(
    epoch_fn: EpochFn,
    evaluate: EvaluateFn | None,
    snapshot: Callable[[Any], Any],
    stage: str,
    shape: tuple[int, ...],
    cfg: LoopConfig,
    mesh: Mesh | None,
    share: Mesh | None = None,
) -> Rule:
    """Say what of a run is compiled in; `shape` is `()` or `(members,)`."""
    judged = (cfg.monitor, cfg.mode, cfg.patience, cfg.min_delta, cfg.eval_every)
    return Rule(epoch_fn, evaluate, snapshot, stage, shape, *judged, mesh, share)


def run(
    key: Key[Array, "*members"],
    state: Any,
    epoch_fn: EpochFn,
    *,
    cfg: LoopConfig,
    data: Any = None,
    evaluate: EvaluateFn | None = None,
    observer: Observer = silent,
    folder: str | Path | None = None,
    stage: str = "train",
    snapshot: Callable[[Any], Any] = whole,
    fingerprint: str = "",
    mesh: Mesh | None = None,
    share: Mesh | None = None,
) -> tuple[TrainState, History]:
    """Train to the end, to the end of patience, or on from where a killed run of the same folder stood.

    Epoch `e` (from 0) gets the key `key_for(key, stage, e)` and its evaluation `key_for(key, stage + "/evaluate", e)`,
    so a run that is resumed on as many devices is bitwise equal to one that was not disturbed. The program is compiled
    once for one set of functions: pass the same function objects again and a second run compiles nothing.

    Args:
        key: a typed key, or one a member `[members]`; then the functions get one key a member too.
        state: the model's state before the first epoch. It is copied, not donated.
        epoch_fn: `(key, model, data) -> (model, metrics)`, pure.
        cfg: length, early stopping and saving.
        data: arrays handed to the functions as arguments, moved to the device once.
        evaluate: `(key, model, data) -> metrics`, pure, called every `cfg.eval_every` epochs.
        observer: told each epoch while the next one runs; metrics are means over the members that still ran.
        folder: where checkpoints and `metrics.jsonl` go, one folder a run; None keeps nothing.
        stage: the name of this run: in events, in errors and in the keys.
        snapshot: the part of the model's state that `best` keeps, for example its averaged parameters.
        fingerprint: of the configuration and data; a folder of another fingerprint is refused.
        mesh: devices over which members are laid in equal shares (`core.devices.mesh`); every metric is then
            `[members]`, and there is one key a member. None is the default device.
        share: devices that work on every model together, in place of `mesh`: all of them hold all of it, and the
            functions themselves share out what they do (`dbm.learn.epoch`).

    Returns:
        The state, and the metrics by name: `[epochs]`, or `[epochs, members]`, NaN where not measured.

    Raises:
        DivergedError: a single model, or every member, met a value that is not finite.
        UserError: the folder belongs to another run, another process trains in it, or a checkpoint could not be
            written.
        ValueError: the functions' shapes do not fit each other or `cfg`.
    """
    if mesh is not None and share is not None:
        raise ValueError("devices are given as mesh and as share: they have members each, or work on all together")
    data, model = jax.device_put(data), own(state)
    _check_key(key, mesh)
    if mesh is not None:
        _check_axes(jax.tree_util.tree_leaves_with_path(model), key.shape)
        key, model = devices.place((key, model), mesh, *key.shape)
        data = devices.place(data, mesh, -1)
    elif share is not None:
        key, model, data = devices.place((key, model, data), share, -1)
    shape = _check(key, model, epoch_fn, evaluate, snapshot, data, cfg, mesh)
    rule = rule_of(epoch_fn, evaluate, snapshot, stage, shape, cfg, mesh, share)
    owner = {"stage": stage, "key": hash_of(np.asarray(jax.random.key_data(key))), "fingerprint": fingerprint}
    host = _Host(folder, cfg, stage, observer, owner)
    train = begin(model, rule)
    if mesh is not None:
        train = devices.place(train, mesh, *shape)
    elif share is not None:
        train = devices.place(train, share, -1)
    with files.alone(host.folder):
        train = host.resume(train)
        done = int(train.epoch)
        going = done < cfg.epochs and bool(running(train, rule).any())
        observer(Event(stage, done, cfg.epochs if going else done))
        waiting: EpochInfo | None = None
        while going and done < cfg.epochs:
            train, info = advance(key, train, data, rule=rule)
            # The device is busy with this epoch; meanwhile the host reads the one before.
            if waiting is not None and not host.report(done, waiting):
                break  # nobody ran in the epoch just sent: `train` is what it was
            done, waiting, due = done + 1, info, host.due(done + 1)
            if due or done == cfg.epochs:
                going, waiting = host.report(done, info), None
            if due:
                host.save(done, train)
        host.save(done, train)
    return train if mesh is None and share is None else devices.gather(train), history.stack(host.rows, shape)


class _Host:
    """The host's side of a run: what it has read, where it writes, when it saved."""

    def __init__(self, folder: Any, cfg: LoopConfig, stage: str, observer: Observer, owner: dict[str, str]) -> None:
        self.folder = None if folder is None else Path(folder)
        self.cfg, self.stage, self.observer, self.owner = cfg, stage, observer, owner
        self.rows: list[history.Row] = []
        self.last: history.Row = {}
        self.saved: int | None = None
        self.clock = time.monotonic()

    @property
    def log(self) -> Path | None:
        return None if self.folder is None else self.folder / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path | None:
        return None if self.folder is None else self.folder / "checkpoints"

    def resume(self, train: TrainState) -> TrainState:
        """Take up the newest checkpoint, if there is one, and the metrics up to it."""
        if self.log is None or self.checkpoints is None:
            return train
        self.log.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.clean(self.log.parent)
        if checkpoint.latest(self.checkpoints) is not None:
            found = checkpoint.restore(self.checkpoints, train)
            for name, value in self.owner.items():
                if found.host.get(name) != value:
                    raise UserError(
                        f"{self.folder}: holds a run whose {name} is {found.host.get(name)!r}, not {value!r}; "
                        "choose another folder or remove this one"
                    )
            train, self.saved = found.tree, found.step
        self.rows = history.trim(self.log, self.saved or 0)
        self.rows = [{}] * ((self.saved or 0) - len(self.rows)) + self.rows
        for row in self.rows:
            self.last |= {name: np.where(np.isnan(v), self.last.get(name, v), v) for name, v in row.items()}
        return train

    def report(self, epoch: int, info: EpochInfo) -> bool:
        """Read one epoch's numbers, which waits for it: log them, tell the observer, say whether anyone goes on."""
        info = jax.device_get(info)
        values = history.row(dict(info.metrics))
        if np.all(info.diverged):
            raise DivergedError(self._diverged(epoch, info))
        self.rows.append(values)
        if self.log is not None:
            history.append(self.log, epoch, values)
        # Members that stopped by their rule count with what they were last, or the mean would jump with who is left.
        stopped = ~(info.running | info.diverged)
        full = {name: np.where(stopped & np.isnan(v), self.last.get(name, v), v) for name, v in values.items()}
        self.last |= {name: np.where(np.isnan(v), self.last.get(name, v), v) for name, v in full.items()}
        shown = {name: float(np.nanmean(full[name])) for name, v in values.items() if not np.isnan(v).all()}
        if info.diverged.any():
            shown["diverged"] = float(info.diverged.sum())
        going = bool(info.running.any())
        self.observer(Event(self.stage, epoch, self.cfg.epochs if going else epoch, metrics=shown))
        return going

    def due(self, epoch: int) -> bool:
        late = time.monotonic() - self.clock >= self.cfg.save_seconds
        return self.checkpoints is not None and late and epoch % self.cfg.save_every == 0

    def save(self, epoch: int, train: TrainState) -> None:
        """Save, unless this epoch is saved already; only ever called for an epoch whose numbers were read and good."""
        if self.log is None or self.checkpoints is None or self.saved == epoch:
            return
        history.sync(self.log)
        checkpoint.save(self.checkpoints, epoch, train, self.owner, keep=self.cfg.keep)
        self.saved, self.clock = epoch, time.monotonic()

    def _diverged(self, epoch: int, info: EpochInfo) -> str:
        bad = [name for name, v in info.metrics.items() if not np.isfinite(v).any()]
        what = f"{', '.join(bad)} not finite" if bad else "parameters not finite"
        who = f"all {info.diverged.size} members diverged, " if info.diverged.ndim else ""
        last = None if self.checkpoints is None else checkpoint.latest(self.checkpoints)
        good = "there is no checkpoint" if last is None else f"last good checkpoint {self.checkpoints}/{last}"
        return f"{self.stage}: epoch {epoch} of {self.cfg.epochs}: {who}{what}; {good}"


def _check_key(key: Any, mesh: Mesh | None) -> None:
    if not is_key(key):
        raise ValueError("key is not a typed key; make it with jax.random.key")
    if mesh is not None and not key.shape:
        raise ValueError("there is one key, and members laid over devices need one each")


def _check(
    key: Any, state: Any, epoch_fn: Any, evaluate: Any, snapshot: Any, data: Any, cfg: LoopConfig, mesh: Mesh | None
) -> tuple:
    """Read the functions' shapes without running them; return `()` or `(members,)`.

    They are traced as the epochs will run them, which JAX remembers.
    """
    after, metrics = jax.eval_shape(jax.jit(over_devices(epoch_fn, mesh)), key, state, data)
    scores = {} if evaluate is None else jax.eval_shape(jax.jit(over_devices(evaluate, mesh)), key, state, data)
    shape = _check_metrics(metrics, scores, cfg)
    if key.shape not in ((), shape):
        raise ValueError(f"key has shape {key.shape}, must be one key or one a member {shape}")
    if jax.tree.structure(after) != jax.tree.structure(state):
        raise ValueError(f"epoch_fn returns {jax.tree.structure(after)} for a state {jax.tree.structure(state)}")
    before = jax.tree_util.tree_leaves_with_path(state)
    for (path, x), y in zip(before, jax.tree.leaves(after), strict=True):
        was = (jnp.shape(x), x.dtype if is_key(x) else jnp.result_type(x))
        if was != (y.shape, y.dtype):
            raise ValueError(f"epoch_fn turns state{jax.tree_util.keystr(path)} from {was} into {(y.shape, y.dtype)}")
    _check_axes([*before, *jax.tree_util.tree_leaves_with_path(jax.eval_shape(snapshot, state))], shape)
    return shape


def _check_axes(leaves: Any, shape: tuple) -> None:
    for path, x in leaves:
        if jnp.shape(x)[: len(shape)] != shape:
            raise ValueError(f"state{jax.tree_util.keystr(path)} has shape {jnp.shape(x)}, must start with {shape}")


def _check_metrics(metrics: dict[str, Any], scores: dict[str, Any], cfg: LoopConfig) -> tuple[int, ...]:
    if twice := metrics.keys() & scores.keys():
        raise ValueError(f"metrics {sorted(twice)} come from the epoch and from evaluate; each needs one name")
    metrics = {**metrics, **scores}
    if "epoch" in metrics:
        raise ValueError("a metric is named 'epoch', which names the epoch's number in metrics.jsonl")
    if cfg.monitor is not None and cfg.monitor not in metrics:
        raise ValueError(f"monitor is {cfg.monitor!r}, must be one of {sorted(metrics)}")
    if cfg.monitor in scores and cfg.eval_every > cfg.epochs:
        raise ValueError(f"eval_every is {cfg.eval_every} with {cfg.epochs} epochs: {cfg.monitor} is never measured")
    shapes = {m.shape for m in metrics.values()} - {()}
    if len(shapes) > 1 or any(len(s) > 1 for s in shapes):
        raise ValueError(f"metrics have shapes {sorted(shapes)}, must be numbers or all [members]")
    return shapes.pop() if shapes else ()
