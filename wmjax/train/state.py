"""The state of a run and one epoch on it, all on the device: training, scoring, the best so far, who goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key

from wmjax.core import devices, keys

Metrics = dict[str, Any]
EpochFn = Callable[[Any, Any, Any], tuple[Any, Metrics]]
EvaluateFn = Callable[[Any, Any, Any], Metrics]


class TrainState(NamedTuple):
    """What a run needs to go on and what it found; `*members` is empty for a single model.

    Attributes:
        model: the model's own state; that of a member which stopped or diverged is its last good one.
        best: `snapshot(model)` after the best epoch.
        epoch: epochs done.
        best_value: the monitor's value at the best epoch, plus or minus infinity before there is one.
        best_epoch: the best epoch, counted from 1; 0 before there is one.
        stale: values of the monitor since the best one.
        diverged: met a metric or a parameter that is not finite.
    """

    model: Any
    best: Any
    epoch: Int[Array, ""]
    best_value: Float[Array, "*members"]
    best_epoch: Int[Array, "*members"]
    stale: Int[Array, "*members"]
    diverged: Bool[Array, "*members"]


class EpochInfo(NamedTuple):
    """What the host reads of one epoch: metrics (NaN where a member rested), who goes on, who diverged `[*members]`."""

    metrics: dict[str, Float[Array, "*members"]]
    running: Bool[Array, "*members"]
    diverged: Bool[Array, "*members"]


class Rule(NamedTuple):
    """The part of a run that is compiled in: static, and equal for runs that differ only in length or saving."""

    epoch_fn: EpochFn
    evaluate: EvaluateFn | None
    snapshot: Callable[[Any], Any]
    stage: str
    shape: tuple[int, ...]
    monitor: str | None
    mode: str
    patience: int | None
    min_delta: float
    eval_every: int
    mesh: Mesh | None = None
    share: Mesh | None = None


@jax.jit
def own(tree: Any) -> Any:
    """Copy every leaf, in one program and not in one a shape: a donated buffer must have one owner.

    A named dtype drops weak types; the first epoch would drop them too, and the second one would compile anew.
    """
    return jax.tree.map(lambda x: jnp.copy(x) if is_key(x) else jnp.array(x, dtype=jnp.result_type(x)), tree)


def begin(model: Any, rule: Rule) -> TrainState:
    """Build the state before the first epoch around `model`, which it takes over."""
    worst = jnp.inf if rule.mode == "min" else -jnp.inf
    return TrainState(
        model=model,
        best=own(rule.snapshot(model)),
        epoch=jnp.zeros((), jnp.int32),
        best_value=jnp.full(rule.shape, worst, jnp.float32),
        best_epoch=jnp.zeros(rule.shape, jnp.int32),
        stale=jnp.zeros(rule.shape, jnp.int32),
        diverged=jnp.zeros(rule.shape, bool),
    )


def running(state: TrainState, rule: Rule) -> Bool[Array, "*members"]:
    """Mark the members that still learn: neither diverged nor out of patience."""
    patient = True if rule.patience is None else state.stale < rule.patience
    return ~state.diverged & patient


def epoch_key(key: Key[Array, "*members"], name: str, epoch: Int[Array, ""]) -> Key[Array, "*members"]:
    """Derive the epoch's key, member by member: a member's stream does not depend on the company it runs in."""
    derive = partial(keys.key_for, name=name, step=epoch)
    return jax.vmap(derive)(key) if key.ndim else derive(key)


@partial(jax.jit, static_argnames=("rule",), donate_argnames=("state",))
def advance(key: Any, state: TrainState, data: Any, *, rule: Rule) -> tuple[TrainState, EpochInfo]:
    """Run one epoch, score it, and keep of each member the new state or, if it rests or diverged, the old one."""
    going = running(state, rule)
    model, metrics = _train(key, state, data, going, rule)
    # Behind a branch the compiler works it out once, and not again in each leaf's choice between new and old.
    trained = (metrics, rule.snapshot(model))
    finite = lax.cond(going.any(), lambda t: _finite(t, rule.shape), lambda t: jnp.zeros(rule.shape, bool), trained)
    measured = jnp.asarray(True)
    if rule.evaluate is not None:
        due = (state.epoch + 1) % rule.eval_every == 0
        scores = _score(rule.evaluate, key, state.epoch, model, data, due & going.any(), rule)
        finite &= ~due | _finite(scores, rule.shape)
        measured = due if rule.monitor in scores else measured
        metrics |= scores
    new = _judge(state, model, metrics, going, finite, measured, rule)
    metrics = {name: jnp.where(going, value, jnp.nan) for name, value in metrics.items()}
    # As it came, or the next epoch would be another program.
    if rule.mesh is not None:
        new = devices.keep(new, rule.mesh, *rule.shape)
    elif rule.share is not None:
        new = devices.keep(new, rule.share, -1)
    return new, EpochInfo(metrics, running(new, rule), new.diverged)


@lru_cache(maxsize=128)
def over_devices(fn: Callable[..., Any], mesh: Mesh | None) -> Callable[..., Any]:
    """Give each device its share of the members, and all of the data; one object a pair, so that it is traced once."""
    if mesh is None:
        return fn
    own, whole = PartitionSpec(devices.AXIS), PartitionSpec()
    return jax.shard_map(fn, mesh=mesh, in_specs=(own, own, whole), out_specs=own, check_vma=False)


def _train(key: Any, state: TrainState, data: Any, going: Any, rule: Rule) -> tuple[Any, dict[str, Any]]:
    """Run the epoch if anyone goes on. The host learns one epoch late that nobody does; that epoch costs nothing."""
    train = jax.jit(over_devices(rule.epoch_fn, rule.mesh))
    args = (epoch_key(key, rule.stage, state.epoch), state.model, data)
    names = jax.eval_shape(train, *args)[1].keys()

    def work(*args: Any) -> Any:
        model, metrics = train(*args)
        return model, _spread(metrics, rule.shape)

    return lax.cond(going.any(), work, lambda k, model, d: (model, _unknown(names, rule.shape)), *args)


def _score(
    evaluate: EvaluateFn, key: Any, epoch: Any, model: Any, data: Any, due: Any, rule: Rule
) -> dict[str, Float[Array, "*members"]]:
    """Evaluate where it is due; metrics are NaN where it is not."""
    score = jax.jit(over_devices(evaluate, rule.mesh))
    args = (epoch_key(key, f"{rule.stage}/evaluate", epoch), model, data)
    names = jax.eval_shape(score, *args).keys()
    return lax.cond(
        due, lambda *args: _spread(score(*args), rule.shape), lambda *args: _unknown(names, rule.shape), *args
    )


def _judge(
    state: TrainState, model: Any, metrics: Metrics, going: Any, finite: Any, measured: Any, rule: Rule
) -> TrainState:
    """Settle, member by member, what is kept, what is the best, and how long nothing improved."""
    good = going & finite
    if rule.monitor is None:
        value, better = state.best_value, good
    else:
        value = metrics[rule.monitor]
        gain = state.best_value - value if rule.mode == "min" else value - state.best_value
        better = good & measured & (gain > rule.min_delta)
    epoch = state.epoch + going.any()
    return TrainState(
        model=_choose(good, model, state.model),
        best=_choose(better, rule.snapshot(model), state.best),
        epoch=epoch,
        best_value=jnp.where(better, value, state.best_value),
        best_epoch=jnp.where(better, epoch, state.best_epoch),
        stale=jnp.where(better, 0, state.stale + (good & measured)),
        diverged=state.diverged | (going & ~finite),
    )


def is_key(x: Any) -> bool:
    """Tell typed random keys from numbers, which cannot be added, tested or copied the same way."""
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _choose(mask: Bool[Array, "*members"], new: Any, old: Any) -> Any:
    """Take `new` where the member's mask is set, leaf by leaf, with the mask spread over the trailing axes."""

    def pick(x: Any, y: Any) -> Any:
        return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, y)

    return jax.tree.map(pick, new, old)


def _finite(tree: Any, shape: tuple[int, ...]) -> Bool[Array, "*members"]:
    """Test each member's share of every leaf of real numbers."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    good = [jnp.isfinite(x).all(axis=tuple(range(len(shape), x.ndim))) for x in leaves]
    return jnp.stack(good).all(axis=0) if good else jnp.ones(shape, bool)


def _spread(metrics: Metrics, shape: tuple[int, ...]) -> dict[str, Float[Array, "*members"]]:
    return {name: jnp.broadcast_to(jnp.asarray(value, jnp.float32), shape) for name, value in metrics.items()}


def _unknown(names: Iterable[str], shape: tuple[int, ...]) -> dict[str, Float[Array, "*members"]]:
    """Fill in for metrics that were not measured."""
    return {name: jnp.full(shape, jnp.nan, jnp.float32) for name in names}
