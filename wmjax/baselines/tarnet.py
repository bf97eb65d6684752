"""TARNet: one representation, one head for each value of a binary action (Shalit, Johansson and Sontag, 2017).

    z = trunk(x),   eta(x, a) = head_a(z),   effect = sigmoid(head_1(z)) - sigmoid(head_0(z))

The rows of each value train the head of their own and the trunk of both. For binary outcomes. `x` holds what was known
before and the other actions.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Key

from wmjax.baselines import tables
from wmjax.baselines.tables import Arms, Contrast, Scale, Table
from wmjax.core.keys import key_for
from wmjax.core.observe import Observer, silent
from wmjax.train import loop
from wmjax.train.loop import LoopConfig

CHUNK = 8192
"""Rows that are asked about at once."""


@dataclass(frozen=True, kw_only=True)
class TarnetConfig:
    """Shape and training; widths and rate are those of the Three-in-One paper's code.

    Attributes:
        trunk: units of the shared layers, ReLU.
        head: units of each head's hidden layer.
        learning_rate, batch_size: Adam's, and rows a step.
        epochs, patience: passes over the train rows, at most, and passes without a smaller validation loss.
    """

    trunk: tuple[int, ...] = (64, 64)
    head: int = 32
    learning_rate: float = 1e-3
    batch_size: int = 256
    epochs: int = 50
    patience: int = 10

    def __post_init__(self) -> None:
        for name, value in (
            ("trunk", min(self.trunk, default=0)),
            ("head", self.head),
            ("batch_size", self.batch_size),
            ("epochs", self.epochs),
            ("patience", self.patience),
        ):
            if value < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}, must be positive")


class Rows(NamedTuple):
    """features: [rows, features]. treated: [rows], which head answers. labels: [rows], 0 or 1."""

    features: Array
    treated: Array
    labels: Array


class Tables(NamedTuple):
    """Train rows teach, validation rows pick the best epoch."""

    train: Rows
    val: Rows


class State(NamedTuple):
    """The network's parameters and Adam's state."""

    params: Any
    adam: Any


class _Network(nnx.Module):
    """The definition only: every use goes through `_init` and `heads`."""

    def __init__(self, num_features: int, cfg: TarnetConfig, rngs: nnx.Rngs) -> None:
        widths, self.depth = (num_features, *cfg.trunk), len(cfg.trunk)
        for i, (below, above) in enumerate(itertools.pairwise(widths)):
            setattr(self, f"trunk_{i}", nnx.Linear(below, above, rngs=rngs))
        for arm in range(2):
            setattr(self, f"inner_{arm}", nnx.Linear(widths[-1], cfg.head, rngs=rngs))
            setattr(self, f"outer_{arm}", nnx.Linear(cfg.head, 1, rngs=rngs))

    def __call__(self, x: Float[Array, "rows features"]) -> Float[Array, "rows 2"]:
        for i in range(self.depth):
            x = jax.nn.relu(getattr(self, f"trunk_{i}")(x))
        inner = [jax.nn.relu(getattr(self, f"inner_{arm}")(x)) for arm in range(2)]
        return jnp.concatenate([getattr(self, f"outer_{arm}")(inner[arm]) for arm in range(2)], axis=-1)


@functools.cache
def _definition(num_features: int, cfg: TarnetConfig) -> Any:
    """Trace the network's structure without making an array."""
    return nnx.split(nnx.eval_shape(lambda: _Network(num_features, cfg, nnx.Rngs(0))))[0]


@partial(jax.jit, static_argnames=("num_features", "cfg"))
def _init(key: Key[Array, ""], *, num_features: int, cfg: TarnetConfig) -> State:
    params = nnx.to_pure_dict(nnx.split(_Network(num_features, cfg, nnx.Rngs(key)))[1])
    return State(params, optax.adam(cfg.learning_rate).init(params))


def heads(params: Any, features: Float[Array, "rows features"], *, cfg: TarnetConfig) -> Float[Array, "rows 2"]:
    """Compute both heads' log odds."""
    return nnx.merge(_definition(features.shape[1], cfg), params)(features)


def loss(params: Any, rows: Rows, *, cfg: TarnetConfig) -> Float[Array, ""]:
    """Compute the mean log loss of each row under the head of its own value."""
    both = heads(params, rows.features, cfg=cfg)
    eta = jnp.where(rows.treated, both[:, 1], both[:, 0])
    return jnp.mean(jax.nn.softplus(eta) - rows.labels * eta)


@dataclass(frozen=True)
class Epoch:
    """Train and judge for one epoch: a value, so that a second fit compiles nothing."""

    cfg: TarnetConfig

    def __call__(self, key: Key[Array, ""], state: State, data: Tables) -> tuple[State, dict[str, Array]]:
        """Pass once over the train rows in a fresh order; rows that do not fill the last batch wait for another."""
        rows = data.train.labels.shape[0]
        size = min(self.cfg.batch_size, rows)
        order = jax.random.permutation(key, rows)[: rows // size * size].reshape(-1, size)

        def step(state: State, at: Array) -> tuple[State, Array]:
            batch = Rows(*(x[at] for x in data.train))
            value, gradient = jax.value_and_grad(loss)(state.params, batch, cfg=self.cfg)
            update, adam = optax.adam(self.cfg.learning_rate).update(gradient, state.adam, state.params)
            return State(optax.apply_updates(state.params, update), adam), value

        state, values = jax.lax.scan(step, state, order)
        return state, {"loss": values.mean(), "val_loss": loss(state.params, data.val, cfg=self.cfg)}


def trained(state: State) -> Any:
    """Take what a fit keeps."""
    return state.params


def _rows(arms: Arms, scale: Scale) -> Rows:
    x = tables.scaled(arms.x, scale)
    return Rows(jnp.asarray(x), jnp.asarray(arms.treated), jnp.asarray(arms.y, jnp.float32))


@partial(jax.jit, static_argnames="cfg")
def _ask(params: Any, features: Array, *, cfg: TarnetConfig) -> Float[Array, "rows 2"]:
    return jax.lax.map(lambda x: heads(params, x[None], cfg=cfg)[0], features, batch_size=CHUNK)


def effects(
    key: Key[Array, ""],
    train: Table,
    val: Table,
    ask: Table,
    *,
    contrast: Contrast,
    outcome: int = 0,
    cfg: TarnetConfig,
    observer: Observer = silent,
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """Fit a TARNet and contrast its heads.

    Args:
        key: seeds start and order.
        train, val: rows to learn from and rows to choose the epoch by; the action takes the contrast's two values and
            no other. Bits stay as they are, other columns are standardised on the train rows.
        ask: rows to answer for; their action and labels are not read.
        contrast: which action.
        outcome: which column of the labels, zeros and ones.
        cfg: shape and training.
        observer: told of progress.

    Returns:
        The effects on the log odds, and on the probability.

    Raises:
        UserError: the action takes other values or one of the two never, or the outcome is not binary.
        DivergedError: values that are not finite.
    """
    labelled = [table._replace(labels=table.labels[:, [outcome]]) for table in (train, val)]
    tables.known_kinds(labelled[0], labelled[1], None)
    arms = [tables.arms(table, contrast, 0) for table in labelled]
    scale = tables.fit_scale(arms[0].x, keep_bits=True)
    known = Tables(*(_rows(a, scale) for a in arms))
    state = _init(key_for(key, "init"), num_features=known.train.features.shape[1], cfg=cfg)
    done, _ = loop.run(
        key_for(key, "epochs"),
        state,
        Epoch(cfg),
        cfg=LoopConfig(epochs=cfg.epochs, monitor="val_loss", patience=cfg.patience),
        data=known,
        observer=observer,
        stage="tarnet",
        snapshot=trained,
    )
    asked = tables.scaled(tables.columns(ask, contrast), scale)
    both = np.asarray(_ask(done.best, jnp.asarray(asked), cfg=cfg), np.float64)
    gain = both[:, 1] - both[:, 0]
    return gain, tables.risk_difference(both[:, 0], gain)
