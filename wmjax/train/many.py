"""Many models in one program: seeds and hyperparameters are a leading axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Key

from wmjax.core import devices, keys
from wmjax.core.observe import Observer, silent
from wmjax.train import loop
from wmjax.train.history import History
from wmjax.train.state import TrainState


@dataclass(frozen=True)
class Members:
    """A function of one model made one of many; see `members`.

    It is a value, not a closure: two of the same function are equal, so a second run compiles nothing.
    """

    fn: Callable[..., Any]
    mapped: int
    batch_size: int | None

    def __call__(self, *args: Any) -> Any:
        own, shared = args[: self.mapped], args[self.mapped :]

        def one(own: Any) -> Any:
            return self.fn(*own, *shared)

        if self.batch_size is None:
            return jax.vmap(one)(own)
        return lax.map(one, own, batch_size=self.batch_size)


def members(fn: Callable[..., Any], mapped: int = 2, *, batch_size: int | None = None) -> Members:
    """Map `fn` over a leading member axis of its first `mapped` arguments; the others are shared.

    Args:
        fn: pure, of one model: `init(key, hyper)`, `epoch(key, state, data)`, `evaluate(key, state, data)`.
        mapped: how many leading arguments carry the member axis.
        batch_size: members computed side by side; the others wait, and memory is that of `batch_size` members. None
            computes all at once.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, must be at least 1")
    return Members(fn, mapped, batch_size)


def side_by_side() -> int | None:
    """Say how many small models are best computed at once: two on a core, where more are no faster; else all."""
    return 2 if jax.default_backend() == "cpu" else None


def member(tree: Any, index: int) -> Any:
    """Take one model out of many."""
    return jax.tree.map(lambda x: x[index], tree)


def stack(trees: list[Any]) -> Any:
    """Lay models of equal structure side by side on a new leading axis."""
    return jax.tree.map(lambda *xs: jnp.stack(xs), *trees)


def fit_many(
    key: Key[Array, " members"],
    hyper: Any,
    init: Callable[[Any, Any], Any],
    epoch: Callable[[Any, Any, Any], tuple[Any, dict[str, Any]]],
    *,
    cfg: loop.LoopConfig,
    data: Any = None,
    evaluate: Callable[[Any, Any, Any], dict[str, Any]] | None = None,
    batch_size: int | None = None,
    observer: Observer = silent,
    folder: str | Path | None = None,
    stage: str = "train",
    snapshot: Callable[[Any], Any] = loop.whole,
    fingerprint: str = "",
) -> tuple[TrainState, History]:
    """Train one model for each key and hyperparameter setting, all in one program; resumable like any run.

    Member `m` is what `loop.run(key[m], init(key_for(key[m], stage + "/init"), hyper[m]), epoch, ...)` gives, to
    rounding: its keys do not depend on the others. One that diverges is frozen, the others go on.

    Args:
        key: one key a member `[members]`; equal keys share their initial values and batches.
        hyper: a pytree of `[members]` numbers, handed to `init`, which puts into the state what `epoch` needs of them.
        init: `(key, hyper) -> state` of one model.
        epoch: `(key, state, data) -> (state, metrics)` of one model.
        cfg, data, evaluate, observer, folder, stage, snapshot, fingerprint: as in `loop.run`; `evaluate` and
            `snapshot` are those of one model.
        batch_size: members trained side by side on each device, see `members`; None is all.

    Members are laid over as many of this process's devices as divide them; on a CPU, `core.devices.use_cores()` at the
    start of a program makes a device of every core.
    """
    start = partial(keys.key_for, name=f"{stage}/init")
    state = _call(jax.vmap(start)(key), hyper, fn=members(init, batch_size=batch_size))
    return loop.run(
        key,
        state,
        members(epoch, batch_size=batch_size),
        cfg=cfg,
        data=data,
        evaluate=None if evaluate is None else members(evaluate, batch_size=batch_size),
        observer=observer,
        folder=folder,
        stage=stage,
        snapshot=snapshot if snapshot is loop.whole else members(snapshot, 1),
        fingerprint=fingerprint,
        mesh=devices.mesh(key.shape[0]),
    )


@partial(jax.jit, static_argnames="fn")
def _call(*args: Any, fn: Members) -> Any:
    """Call a compiled `Members`; an equal one compiles nothing."""
    return fn(*args)
