"""Training of one adapter: an epoch is one `lax.scan` over shuffled batches of row numbers; many are in `ensemble`."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from wmjax.core.keys import key_for
from wmjax.heads import adapter, ranking
from wmjax.heads.adapter import AdapterConfig, Params

Kind = Literal["binary", "continuous", "currency", "count"]
Metrics = dict[str, Array]

PLATEAU_FACTOR, PLATEAU_PATIENCE, PLATEAU_GAIN, PLATEAU_LEAST_RATE = 0.5, 5, 1e-4, 1e-6
CHUNK = 8192
"""Rows that `predict` holds at once."""


class AdapterData(NamedTuple):
    """Rows of a table, on the device.

    features: [rows, features], uint8 or float32. actions: [rows, actions]. labels: [rows], finite in every row; 0 or 1,
    or the standardised outcome. weights: [rows], not negative: mask, bootstrap weights, or their product.
    """

    features: Array
    actions: Array
    labels: Array
    weights: Array


class AdapterTables(NamedTuple):
    """Train rows teach, validation rows pick the best epoch."""

    train: AdapterData
    val: AdapterData


class AdapterState(NamedTuple):
    """One adapter in training.

    member: number that sets an adapter's dropout apart from those trained beside it. epoch: epochs done.
    pull, centre: how much the slopes of each action's effect are pulled, in the gradient, and to where (additive; see
    `warm`, 0 without it).
    rate: factor on the learning rate; plateau_best, plateau_stale: score to beat, and epochs since (plateau schedule).
    """

    params: Any
    opt_state: Any
    member: UInt32[Array, "*m"]
    epoch: Int[Array, "*m"]
    pull: Float[Array, "*m actions"]
    centre: Float[Array, "*m features actions"]
    rate: Float[Array, "*m"]
    plateau_best: Float[Array, "*m"]
    plateau_stale: Int[Array, "*m"]


def is_binary(kind: Kind | Bool[Array, ""]) -> bool | Bool[Array, ""]:
    """Tell whether an outcome's loss is logistic; a traced flag stands for itself."""
    return kind == "binary" if isinstance(kind, str) else kind


def row_losses(
    eta: Float[Array, " rows"], labels: Float[Array, " rows"], *, kind: Kind | Bool[Array, ""]
) -> Float[Array, " rows"]:
    """Score each row: `softplus(eta) - y eta` in nats for a binary outcome, `(eta - y)^2` for others."""
    return jnp.where(is_binary(kind), jax.nn.softplus(eta) - labels * eta, jnp.square(eta - labels))


def weighted_mean(values: Float[Array, " rows"], weights: Float[Array, " rows"]) -> Float[Array, ""]:
    """Average over rows; 0 where no row has weight, which is a batch without a gradient."""
    total = jnp.sum(weights)
    return jnp.sum(weights * values) / jnp.where(total > 0, total, 1.0)


def loss(
    params: Params,
    batch: AdapterData,
    *,
    cfg: AdapterConfig,
    kind: Kind | Bool[Array, ""],
    dropout_key: Key[Array, ""] | None = None,
) -> Float[Array, ""]:
    """Compute the weighted mean of `row_losses` over a batch."""
    eta = adapter.apply(params, batch.features, batch.actions, cfg=cfg, dropout_key=dropout_key)
    return weighted_mean(row_losses(eta, batch.labels, kind=kind), batch.weights)


def _optimizer(cfg: AdapterConfig) -> optax.GradientTransformation:
    def kernels(params: Params) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)

    # The learning rate is applied in `epoch`, where the schedule's factor is known.
    return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(cfg.weight_decay, mask=kernels))


def init_state(
    key: Key[Array, ""], *, cfg: AdapterConfig, num_features: int, num_actions: int, member: int | Array = 0
) -> AdapterState:
    """Start one adapter.

    Args:
        key: of this adapter: adapters trained together have keys of their own.
        member: its number among them, which seeds its dropout.
    """
    params = adapter.init(key, cfg=cfg, num_features=num_features, num_actions=num_actions)
    return AdapterState(
        params=params,
        opt_state=_optimizer(cfg).init(params),
        member=jnp.asarray(member, jnp.uint32),
        epoch=jnp.zeros((), jnp.int32),
        pull=jnp.zeros(num_actions),
        centre=jnp.zeros((num_features, num_actions)),
        rate=jnp.ones(()),
        plateau_best=jnp.full((), -jnp.inf),
        plateau_stale=jnp.zeros((), jnp.int32),
    )


def trained(state: AdapterState) -> Params:
    """Take what a fit keeps: the snapshot of a training loop."""
    return state.params


def _batches(
    key: Key[Array, ""], rows: int, size: int
) -> tuple[Int[Array, "steps batch"], Float[Array, "steps batch"]]:
    """Shuffle row numbers into batches; the last is filled up with rows of weight 0."""
    size = min(size, rows)
    steps = -(-rows // size)
    # One sort by random bits, four times as fast as `random.permutation`; equal bits leave the order no less arbitrary.
    order = jax.lax.sort((jax.random.bits(key, (rows,)), jnp.arange(rows)), num_keys=1, is_stable=False)[1]
    at = jnp.arange(steps * size)
    return order[at % rows].reshape(steps, size), (at < rows).astype(jnp.float32).reshape(steps, size)


def epoch(
    key: Key[Array, ""], state: AdapterState, data: AdapterData, *, cfg: AdapterConfig, kind: Kind | Bool[Array, ""]
) -> tuple[AdapterState, Metrics]:
    """Train one adapter for one pass over the rows, in shuffled batches.

    The order depends on the key alone, the dropout on the key and `state.member`: mapped over members under one key,
    all members see the same batches.

    Args:
        key: of this epoch.
        data: rows without leading axes, as one adapter sees them.
        kind: of the outcome; or a traced flag, true for binary, where outcomes of both sorts share a program.

    Returns:
        The new state, and `train_loss`: mean over the steps, each with dropout and before its update.
    """
    optimizer = _optimizer(cfg)
    order, live = _batches(key_for(key, "order"), data.labels.shape[0], cfg.batch_size)
    steps = order.shape[0]

    def step(carry: tuple[Params, Any], inputs: tuple[Array, Array, Array]):
        params, opt_state = carry
        t, rows, live = inputs
        batch = AdapterData(*(x[rows] for x in data))
        batch = batch._replace(weights=batch.weights * live)
        dropout_key = jax.random.fold_in(key_for(key, "dropout", t), state.member)
        value, grads = jax.value_and_grad(loss)(params, batch, cfg=cfg, kind=kind, dropout_key=dropout_key)
        if cfg.form == "additive":
            grads["tau"]["kernel"] += state.pull * (params["tau"]["kernel"] - state.centre)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        rate = cfg.learning_rate * state.rate
        if cfg.schedule == "cosine":
            done = (state.epoch * steps + t) / (cfg.epochs * steps)
            rate = rate * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(done, 1.0)))
        params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
        return (params, opt_state), value

    (params, opt_state), losses = jax.lax.scan(step, (state.params, state.opt_state), (jnp.arange(steps), order, live))
    return state._replace(params=params, opt_state=opt_state, epoch=state.epoch + 1), {"train_loss": losses.mean()}


def predict(params: Params, features: Array, actions: Array, *, cfg: AdapterConfig) -> Float[Array, " rows"]:
    """Compute the linear predictor of many rows, `CHUNK` at a time."""

    def row(inputs: tuple[Array, Array]) -> Array:
        return adapter.apply(params, inputs[0][None], inputs[1][None], cfg=cfg)[0]

    return jax.lax.map(row, (features, actions), batch_size=CHUNK)


def evaluate(params: Params, data: AdapterData, *, cfg: AdapterConfig, kind: Kind | Bool[Array, ""]) -> Metrics:
    """Score an adapter on rows: `loss` (weighted mean), and `auc`, NaN where the outcome has not both classes."""
    eta = predict(params, data.features, data.actions, cfg=cfg)
    mean = weighted_mean(row_losses(eta, data.labels, kind=kind), data.weights)
    if isinstance(kind, str) and kind != "binary":
        return {"loss": mean, "auc": jnp.full((), jnp.nan)}
    area = ranking.auc(eta, data.labels, data.weights)
    return {"loss": mean, "auc": jnp.where(is_binary(kind), area, jnp.nan)}


def judge(
    state: AdapterState, val: AdapterData, *, cfg: AdapterConfig, kind: Kind | Bool[Array, ""]
) -> tuple[AdapterState, Metrics]:
    """Score the validation rows after an epoch, and move the plateau schedule's rate.

    Returns:
        The new state, and finite numbers: `val_loss`; `score`, higher is better, by which the best epoch is picked: the
        AUC under `cfg.monitor == "auc"` wherever there is one, else minus the loss; and for a binary outcome `val_auc`,
        0.5 where the rows have not both classes.
    """
    found = evaluate(state.params, val, cfg=cfg, kind=kind)
    known = jnp.isfinite(found["auc"])
    score = jnp.where(known & (cfg.monitor == "auc"), found["auc"], -found["loss"])
    metrics = {"val_loss": found["loss"], "score": score}
    if not isinstance(kind, str) or kind == "binary":
        metrics["val_auc"] = jnp.where(known, found["auc"], 0.5)
    return (_plateau(state, score, cfg=cfg) if cfg.schedule == "plateau" else state), metrics


def _plateau(state: AdapterState, score: Float[Array, ""], *, cfg: AdapterConfig) -> AdapterState:
    """Halve the rate after more than `PLATEAU_PATIENCE` epochs without a relative gain of `PLATEAU_GAIN`."""
    gain = PLATEAU_GAIN * jnp.abs(state.plateau_best)
    # Before the first score the best is -inf, and -inf + inf is NaN.
    better = score > jnp.where(jnp.isfinite(gain), state.plateau_best + gain, -jnp.inf)
    stale = jnp.where(better, 0, state.plateau_stale + 1)
    drop = stale > PLATEAU_PATIENCE
    lower = jnp.maximum(state.rate * PLATEAU_FACTOR, min(1.0, PLATEAU_LEAST_RATE / cfg.learning_rate))
    return state._replace(
        plateau_best=jnp.where(better, score, state.plateau_best),
        plateau_stale=jnp.where(drop, 0, stale),
        rate=jnp.where(drop, lower, state.rate),
    )
