"""Many models in one program: seeds, hyperparameters and subsets of the data are one leading axis; see `crossing`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, Key

from wmjax.core import devices, keys
from wmjax.core.observe import Observer, silent
from wmjax.core.provenance import fingerprint as hash_of
from wmjax.train import loop, sizing
from wmjax.train.history import History
from wmjax.train.state import Rule, TrainState, is_key


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
        return _in_batches(one, own, self.batch_size)


def _in_batches(one: Callable[[Any], Any], own: Any, size: int) -> Any:
    """Map in batches, as `lax.map` does, which divides by zero where an array has no numbers: those are left out."""
    leaves, tree = jax.tree.flatten(own)
    told: dict[str, Any] = {}

    def inner(some: list[Any]) -> list[Any]:
        left = iter(some)
        found = one(tree.unflatten(next(left) if x.size else jnp.zeros(x.shape[1:], x.dtype) for x in leaves))
        flat, told["tree"] = jax.tree.flatten(found)
        told["out"] = [None if jnp.size(x) else (jnp.shape(x), jnp.result_type(x)) for x in flat]
        return [x for x in flat if jnp.size(x)]

    done = iter(lax.map(inner, [x for x in leaves if x.size], batch_size=size))
    count = leaves[0].shape[0]
    empty = [None if x is None else jnp.zeros((count, *x[0]), x[1]) for x in told["out"]]
    return told["tree"].unflatten(next(done) if x is None else x for x in empty)


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


def member(tree: Any, index: int | Int[Array, ""]) -> Any:
    """Take one model out of many."""
    return jax.tree.map(lambda x: x[index], tree)


def stack(trees: list[Any]) -> Any:
    """Lay models of equal structure side by side on a new leading axis."""
    return jax.tree.map(lambda *xs: jnp.stack(xs), *trees)


class Placed(NamedTuple):
    """A member's state and the number of the subset that it learns from."""

    state: Any
    subset: Int[Array, "*m"]


@dataclass(frozen=True)
class OnSubset:
    """A function of one model and its data made one of all subsets: `(key, placed, (data, subsets))`, as a value.

    Where nothing is shared the model is given its subset, else the pair of what is shared and its subset.
    """

    fn: Callable[..., Any]
    trains: bool = False

    def __call__(self, key: Any, own: Placed, given: tuple[Any, Any]) -> Any:
        found = self.fn(key, own.state, of_subset(own.subset, given))
        return (own._replace(state=found[0]), found[1]) if self.trains else found


@dataclass(frozen=True)
class Begin:
    """`init` of one member made one of all subsets: `(key, hyper, subset, (data, subsets))`, as a value."""

    fn: Callable[..., Any]

    def __call__(self, key: Any, hyper: Any, subset: Any, given: tuple[Any, Any]) -> Placed:
        return Placed(self.fn(key, hyper, of_subset(subset, given)), subset)


@dataclass(frozen=True)
class Unplaced:
    """A snapshot of a model's state made one of a placed state's."""

    fn: Callable[[Any], Any]

    def __call__(self, own: Placed) -> Any:
        return self.fn(own.state)


def of_subset(subset: Int[Array, ""], given: tuple[Any, Any]) -> Any:
    """Take a member's data out of what is shared and all subsets."""
    shared, subsets = given
    own = member(subsets, subset)
    return own if shared is None else (shared, own)


def fit_many(
    key: Key[Array, " members"],
    hyper: Any,
    init: Callable[..., Any],
    epoch: Callable[[Any, Any, Any], tuple[Any, dict[str, Any]]],
    *,
    cfg: loop.LoopConfig,
    data: Any = None,
    subsets: Any = None,
    which: Int[Any, " numbers"] | None = None,
    evaluate: Callable[[Any, Any, Any], dict[str, Any]] | None = None,
    batch_size: int | None = None,
    budget_bytes: int | None = None,
    observer: Observer = silent,
    folder: str | Path | None = None,
    stage: str = "train",
    snapshot: Callable[[Any], Any] = loop.whole,
    fingerprint: str = "",
) -> tuple[TrainState, History]:
    """Train one model for each key, hyperparameter setting and subset, all in one program; resumable like any run.

    Member `m` is what `loop.run(key[m], init(key_for(key[m], stage + "/init"), hyper[m]), epoch, ...)` gives, to
    rounding: its keys do not depend on the others. One that diverges is frozen, the others go on.

    Args:
        key: one key a member `[members]`; equal keys share their initial values and batches.
        hyper: a pytree of `[members]` numbers, handed to `init`, which puts into the state what `epoch` needs of them.
        init: `(key, hyper) -> state` of one model; `(key, hyper, data) -> state` where there are subsets.
        epoch: `(key, state, data) -> (state, metrics)` of one model.
        cfg, evaluate, observer, folder, stage, snapshot: as in `loop.run`; `evaluate` and `snapshot` are those of one
            model.
        data: what all members share.
        subsets: a pytree of `[subsets, ..]` arrays; a member's functions get its own subset as `data`, or the pair
            `(data, subset)` where something is shared too: a subset may be row numbers of a shared table. Ragged ones
            are laid side by side by `crossing.pad`.
        which: the number of each member's subset; without it there is one member a subset.
        batch_size: members trained side by side on each device, see `members`; None is as many as the predicted bytes
            of the compiled program allow, all where they fit.
        budget_bytes: what the members may take on each device; None is `devices.spare_bytes`.
        fingerprint: of the configuration and data, as in `loop.run`; `hyper` and `which` are told apart without it.

    Members are laid over as many of this process's devices as divide them; on a CPU, `core.devices.use_cores()` at the
    start of a program makes a device of every core.

    Raises:
        UserError: not even one member at a time fits into the budget; and as `loop.run`.
        ValueError: keys, subsets and their numbers do not fit each other.
    """
    count, given = key.shape[0], data
    mapped: tuple[Any, ...] = (hyper,)
    if subsets is None and which is not None:
        raise ValueError("which numbers subsets, and there are none")
    if subsets is not None:
        mapped, given = (hyper, _numbered(which, subsets, count)), (data, subsets)
        init, epoch, snapshot = Begin(init), OnSubset(epoch, trains=True), Unplaced(snapshot)
        evaluate = None if evaluate is None else OnSubset(evaluate)
    kept = snapshot if snapshot is loop.whole else members(snapshot, 1)
    mesh, start = devices.mesh(count), jax.vmap(partial(keys.key_for, name=f"{stage}/init"))(key)
    begin_args = (start, *mapped, *(() if subsets is None else (given,)))

    def program(size: int | None) -> tuple[Members, Rule]:
        own = None if evaluate is None else members(evaluate, batch_size=size)
        rule = loop.rule_of(members(epoch, batch_size=size), own, kept, stage, (count,), cfg, mesh)
        return members(init, 1 + len(mapped), batch_size=size), rule

    if batch_size is None:
        batch_size = sizing.side_by_side(program, _call, begin_args, key, given, budget_bytes)
    first, rule = program(batch_size)
    done, history = loop.run(
        key,
        _call(*begin_args, fn=first),
        rule.epoch_fn,
        cfg=cfg,
        data=given,
        evaluate=rule.evaluate,
        observer=observer,
        folder=folder,
        stage=stage,
        snapshot=kept,
        fingerprint=fingerprint + hash_of(*map(_plain, jax.tree.leaves(mapped))),
        mesh=mesh,
    )
    return (done if subsets is None else done._replace(model=done.model.state)), history


def _numbered(which: Any, subsets: Any, count: int) -> Int[Array, " members"]:
    """Give every member the number of its subset, which must be there."""
    sizes = {jnp.shape(x)[:1] for x in jax.tree.leaves(subsets)}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(f"subsets have leading axes {sorted(sizes)}, must have one of equal length")
    have = sizes.pop()[0]
    numbers = np.arange(have) if which is None else np.asarray(which)
    if numbers.shape != (count,):
        raise ValueError(f"there are {count} members and numbers of subsets of shape {numbers.shape}")
    if count and not (numbers.min() >= 0 and numbers.max() < have):
        raise ValueError(f"which goes from {numbers.min()} to {numbers.max()} and there are {have} subsets")
    return jnp.asarray(numbers, jnp.int32)


def _plain(x: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(x) if is_key(x) else x)


@partial(jax.jit, static_argnames="fn")
def _call(*args: Any, fn: Members) -> Any:
    """Call a compiled `Members`; an equal one compiles nothing."""
    return fn(*args)
