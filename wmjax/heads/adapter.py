"""The adapter: a small network from a row's features and actions to one linear predictor.

    mlp:       eta(x, a) = MLP([x, a])                                       (the published adapter; an S-learner)
    additive:  eta(x, a) = f(x) + sum_k tau_k(x) a_k,   tau_k(x) = w_k.x + b_k

`eta` is a logit for a binary outcome and the standardised outcome otherwise. In the additive form the effect of an
action is a term of the model, not a difference of two predictions: it costs no accuracy in float32, and its seed noise
is that of a linear fit. `x` is a belief or the raw visible units; the code does not know which.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key, UInt8

Features = Float[Array, "rows features"] | UInt8[Array, "rows features"]
"""Bits may stay `uint8` in memory, a quarter of `float32`; they are cast batch by batch."""

Params = dict[str, Any]
"""Nested dict of arrays, as `flax.nnx` names them."""


Form = Literal["mlp", "additive"]


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Shape of an adapter and how it is trained.

    The defaults are the published ones but for the schedule, which is `"plateau"` there.

    Attributes:
        hidden: units of each hidden layer, ReLU.
        dropout: share of hidden units dropped in training, rounded to a multiple of 1/256.
        form: `"mlp"` or `"additive"`, see the module.
        effect_sd: first guess of the standard deviation, over rows, of an additive form's effect of one unit of an
            action as the adapter reads it: logits, or standard deviations of the outcome. A world averages it with an
            estimate from the data and shrinks the effects' differences to suit (`warm`); None leaves them free.
        learning_rate: of Adam.
        weight_decay: decoupled, on kernels only, as a share of the learning rate.
        batch_size: rows a step. Tables of 100,000 rows and more train as well, and twice as fast, with 1,024 rows at
            learning rate 2e-3 under the cosine schedule.
        epochs: passes over the train rows, at most.
        patience: epochs without a better validation score before a member is left as it was at its best.
        schedule: `"constant"`; `"plateau"`, which halves the rate after 5 epochs without a score better by 1e-4 of
            itself, down to 1e-6; or `"cosine"`, to 0 at the last epoch.
        monitor: validation score that picks the best epoch: `"auc"` (binary outcomes; others use the loss) or `"loss"`.
    """

    hidden: tuple[int, ...] = (64, 32, 16)
    dropout: float = 0.1
    form: Form = "mlp"
    effect_sd: float | None = 0.1
    learning_rate: float = 5e-4
    weight_decay: float = 0.0
    batch_size: int = 256
    epochs: int = 100
    patience: int = 30
    schedule: Literal["constant", "plateau", "cosine"] = "constant"
    monitor: Literal["auc", "loss"] = "auc"

    def __post_init__(self) -> None:
        for name, value, least in (
            ("batch_size", self.batch_size, 1),
            ("epochs", self.epochs, 1),
            ("patience", self.patience, 1),
            ("hidden", min(self.hidden, default=0), 1),
        ):
            if value < least:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least {least}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, must be in [0, 1)")
        for name, value in (("learning_rate", self.learning_rate), ("effect_sd", self.effect_sd)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}, must be positive and finite")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay is {self.weight_decay}, must not be negative")
        for name, value, known in (
            ("form", self.form, ("mlp", "additive")),
            ("schedule", self.schedule, ("constant", "plateau", "cosine")),
            ("monitor", self.monitor, ("auc", "loss")),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}, must be one of {known}")


def _uniform(fan_in: int):
    """Draw from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), for kernels and biases alike."""
    bound = 1 / math.sqrt(max(fan_in, 1))

    def draw(key: Key[Array, ""], shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        # Drawn flat, bit for bit the same: under vmap a matrix of draws takes seconds to compile.
        return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)

    return draw


def _linear(fan_in: int, num_in: int, num_out: int, rngs: nnx.Rngs, *, bias: bool = True) -> nnx.Linear:
    draw = _uniform(fan_in)
    return nnx.Linear(num_in, num_out, use_bias=bias, kernel_init=draw, bias_init=draw, rngs=rngs)


def _dropout(key: Key[Array, ""], x: Float[Array, "rows units"], rate: float) -> Float[Array, "rows units"]:
    """Drop units by one random byte each: four from every 32-bit draw, which halves the cost of a step on a CPU."""
    cut = round(rate * 256)
    words = jax.random.bits(key, (-(-x.size // 4),), jnp.uint32)
    draws = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[: x.size].reshape(x.shape)
    return jnp.where(draws >= cut, x * (256 / (256 - cut)), 0.0)


class _Network(nnx.Module):
    """The definition only: every use goes through `init` and `apply`."""

    def __init__(self, num_features: int, num_actions: int, cfg: AdapterConfig, rngs: nnx.Rngs) -> None:
        self.cfg = cfg
        first = cfg.hidden[0]
        if cfg.form == "mlp":
            # Two kernels of one layer: a contrast then projects the features once.
            fan_in = num_features + num_actions
            self.features = _linear(fan_in, num_features, first, rngs)
            self.actions = _linear(fan_in, num_actions, first, rngs, bias=False)
        else:
            self.features = _linear(num_features, num_features, first, rngs)
            # Zero, not random: a column that the train rows never show must not change the effect.
            self.tau = nnx.Linear(num_features, num_actions, kernel_init=nnx.initializers.zeros_init(), rngs=rngs)
        self.depth = len(cfg.hidden)
        for i, (below, above) in enumerate(zip(cfg.hidden, (*cfg.hidden[1:], 1), strict=True)):
            setattr(self, f"layer_{i}", _linear(below, below, above, rngs))

    def rest(self, first: Float[Array, "rows hidden"], key: Key[Array, ""] | None) -> Float[Array, " rows"]:
        """Apply everything above the first layer's sum."""
        x = first
        for i in range(self.depth):
            x = jax.nn.relu(x)
            if key is not None and self.cfg.dropout > 0:
                x = _dropout(jax.random.fold_in(key, i), x, self.cfg.dropout)
            x = getattr(self, f"layer_{i}")(x)
        return x[:, 0]


@functools.cache
def _definition(num_features: int, num_actions: int, cfg: AdapterConfig) -> Any:
    """Trace the network's structure without making an array."""
    return nnx.split(nnx.eval_shape(lambda: _Network(num_features, num_actions, cfg, nnx.Rngs(0))))[0]


def _network(params: Params, num_actions: int, cfg: AdapterConfig) -> _Network:
    num_features = params["features"]["kernel"].shape[0]
    return nnx.merge(_definition(num_features, num_actions, cfg), params)


def init(key: Key[Array, ""], *, cfg: AdapterConfig, num_features: int, num_actions: int) -> Params:
    """Draw weights and biases from U(-1/sqrt(fan_in), 1/sqrt(fan_in)); an additive form's effects start at zero.

    Args:
        key: typed key.
        cfg: shape.
        num_features, num_actions: at least one feature; actions may be none.
    """
    if num_features < 1 or num_actions < 0:
        raise ValueError(f"num_features is {num_features} (at least 1), num_actions is {num_actions} (at least 0)")
    state = nnx.split(_Network(num_features, num_actions, cfg, nnx.Rngs(key)))[1]
    return nnx.to_pure_dict(state)


def apply(
    params: Params,
    features: Features,
    actions: Float[Array, "rows actions"],
    *,
    cfg: AdapterConfig,
    dropout_key: Key[Array, ""] | None = None,
) -> Float[Array, " rows"]:
    """Compute the linear predictor of each row.

    Args:
        params: of one adapter; for many, `vmap` over its leading axis.
        features: belief or visible units of the rows.
        actions: on the scale that the adapter was trained on.
        dropout_key: drops hidden units in training; without it the network is deterministic.
    """
    network = _network(params, actions.shape[1], cfg)
    x = features.astype(jnp.float32)
    if cfg.form == "mlp":
        return network.rest(network.features(x) + network.actions(actions), dropout_key)
    return network.rest(network.features(x), dropout_key) + jnp.sum(network.tau(x) * actions, axis=1)


class Projected(NamedTuple):
    """What an adapter makes of a row before it sees an action: it serves all plans that share the row's history.

    base: `[rows, hidden]`, the features' share of the first layer's sum (mlp); `[rows]`, f(x) (additive).
    tau: `[rows, actions]`, effects of one unit of each action (additive); `[rows, 0]` (mlp).
    """

    base: Float[Array, "rows *hidden"]
    tau: Float[Array, "rows effects"]


def project(params: Params, features: Features, *, cfg: AdapterConfig, num_actions: int) -> Projected:
    """Apply what does not depend on the actions."""
    network, x = _network(params, num_actions, cfg), features.astype(jnp.float32)
    if cfg.form == "mlp":
        return Projected(network.features(x), jnp.zeros((x.shape[0], 0)))
    return Projected(network.rest(network.features(x), None), network.tau(x))


def complete(
    params: Params, projected: Projected, actions: Float[Array, "rows actions"], *, cfg: AdapterConfig
) -> Float[Array, " rows"]:
    """Compute the linear predictor from a projection: `apply(x, a) = complete(project(x), a)`."""
    if cfg.form == "mlp":
        network = _network(params, actions.shape[1], cfg)
        return network.rest(projected.base + network.actions(actions), None)
    return projected.base + jnp.sum(projected.tau * actions, axis=1)


def effect(
    params: Params,
    features: Features,
    action_index: int | Int[Array, ""],
    a0: Float[Array, " rows"] | float | int,
    a1: Float[Array, " rows"] | float | int,
    actions: Float[Array, "rows actions"],
    *,
    cfg: AdapterConfig,
) -> Float[Array, " rows"]:
    """Contrast one action at `a1` with `a0` in each row: `eta(x, a1) - eta(x, a0)`, other actions as given.

    Additive form: `tau_k(x) (a1 - a0)`, exact to the last bit and without ties broken by rounding. MLP form: two
    applications that share the first layer's projection of the features.

    Args:
        action_index: position of the action that varies.
        a0, a1: its two values, one a row or one for all.
        actions: all actions as observed; the column that varies is ignored.
    """
    network = _network(params, actions.shape[1], cfg)
    x = features.astype(jnp.float32)
    if cfg.form == "additive":
        kernel, bias = params["tau"]["kernel"][:, action_index], params["tau"]["bias"][action_index]
        return (x @ kernel + bias) * (jnp.asarray(a1) - jnp.asarray(a0))
    shared = network.features(x) + network.actions(jnp.asarray(actions).at[:, action_index].set(0.0))
    row = params["actions"]["kernel"][action_index]

    def at(value: Float[Array, " rows"] | float | int) -> Float[Array, " rows"]:
        return network.rest(shared + jnp.broadcast_to(value, x.shape[:1])[:, None] * row, None)

    return at(a1) - at(a0)
