"""How the Causal Transformer learns tumour volumes: data laid out for the device, and two players.

A member is one network: its data set, its hyperparameters and the form in which it predicts,

    level     y_{t+1} = out                        (the published form)
    growth    y_{t+1} = y_t + g V_t out            g: standard deviation of daily relative changes

y is the volume standardised by train data. In the growth form the outcome stream also reads the log of the volume, the
relative change since the day before, and the treatment before. Forms are numbers, so all members share one program.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from wmjax.core import bits
from wmjax.core.keys import key_for
from wmjax.simulate import tumour
from wmjax.simulate.tumour import Factual, Patients
from wmjax.train import ema
from wmjax.transformer import ct
from wmjax.transformer.ct import CTConfig, Live

FORMS = ("level", "growth")
FEATURES = 3 + tumour.TREATMENTS
ADAM = optax.scale_by_adam()


class Scale(NamedTuple):
    """What is read off the train data of one data set."""

    mean: Float[Array, "*m"]
    sd: Float[Array, "*m"]
    kind_mean: Float[Array, "*m"]
    kind_sd: Float[Array, "*m"]
    log_mean: Float[Array, "*m"]
    log_sd: Float[Array, "*m"]
    growth: Float[Array, "*m"]


class Series(NamedTuple):
    """Patients as a network reads them: volumes of all days, treatments between them, days that count, static."""

    volume: Float[Array, "*m patients days"]
    treatment: Int[Array, "*m patients steps"]
    length: Int[Array, "*m patients"]
    static: Float[Array, "*m patients"]


class Data(NamedTuple):
    """Train patients of every data set."""

    train: Series
    scale: Scale


class Hyper(NamedTuple):
    """What makes a member; numbers, so that members of all kinds train side by side.

    dataset: which. alpha: weight of the confusion. rate, cosine (0 or 1), decay: of the optimiser. form: one of
    `FORMS`, one-hot. live: units in use.
    """

    dataset: Int[Array, "*m"]
    alpha: Float[Array, "*m"]
    rate: Float[Array, "*m"]
    cosine: Float[Array, "*m"]
    decay: Float[Array, "*m"]
    form: Float[Array, "*m forms"]
    live: Live


class State(NamedTuple):
    """A member in training."""

    params: Any
    average: Any
    opt: tuple[Any, Any]
    step: Int[Array, "*m"]
    hyper: Hyper


def scale_of(who: Patients, found: Factual) -> Scale:
    """Read scales off the days before each patient's last, as published."""
    volume, mask = found.volume, jnp.arange(found.volume.shape[1]) < found.length[:, None]

    def moments(x: Array, weight: Array) -> tuple[Array, Array]:
        mean = (x * weight).sum() / weight.sum()
        return mean, jnp.sqrt((jnp.square(x - mean) * weight).sum() / weight.sum())

    mean, sd = moments(volume, mask)
    log_mean, log_sd = moments(jnp.log1p(volume / (_FLOOR * mean)), mask)
    change = jnp.diff(volume)
    kind = who.kind.astype(jnp.float32)
    return Scale(
        mean,
        sd,
        *moments(kind, jnp.ones_like(kind)),
        log_mean,
        log_sd,
        # Weighed by volume: that is where relative changes count.
        moments(change / (volume[:, :-1] + _FLOOR * mean), mask[:, :-1] * volume[:, :-1])[1],
    )


_FLOOR = 1e-3
"""Volumes far below this share of the mean one look all alike in the logarithm."""


def series(who: Patients, found: Any, scale: Scale) -> Series:
    """Lay simulated patients out."""
    static = (who.kind - scale.kind_mean) / scale.kind_sd
    return Series(found.volume, found.treatment, found.length, static)


def features(volume: Array, last: Array, before: Array, scale: Scale) -> Float[Array, "*axes features"]:
    """Give what the outcome stream may read of a day: volume, its log, its relative change, the treatment before."""
    floor = _FLOOR * scale.mean
    level = (volume - scale.mean) / scale.sd
    log = (jnp.log1p(jnp.maximum(volume, 0.0) / floor) - scale.log_mean) / scale.log_sd
    change = (volume - last) / (jnp.maximum(last, 0.0) + floor) / scale.growth
    return jnp.concatenate([jnp.stack([level, log, change], axis=-1), before], axis=-1)


def inputs(data: Series, scale: Scale) -> ct.Inputs:
    """Give a network's inputs: one time less than there are days; the treatment before the first is all zeros."""
    now = jax.nn.one_hot(data.treatment, tumour.TREATMENTS)
    before = jnp.concatenate([jnp.zeros_like(now[..., :1, :]), now[..., :-1, :]], axis=-2)
    volume = data.volume[..., :-1]
    last = jnp.concatenate([volume[..., :1], volume[..., :-1]], axis=-1)
    return ct.Inputs(before, features(volume, last, before, scale), data.static[..., None], now)


def predict(hyper: Hyper, scale: Scale, volume: Array, out: Array) -> Array:
    """Turn a network's output into the next day's standardised volume."""
    level, growth = hyper.form
    own = level + growth * scale.growth / scale.sd * volume
    return (1 - level) * (volume - scale.mean) / scale.sd + own * out


def _mean(values: Array, mask: Array) -> Array:
    return (values * mask).sum() / jnp.maximum(mask.sum(), 1)


@dataclass(frozen=True, kw_only=True)
class Learner:
    """What is compiled in.

    Attributes:
        network: shape that holds all members.
        batch: patients in an update.
        epochs: epochs of the whole run, over which schedules reach.
        adversary: train the treatment's head and the confusion; without it alpha is 0.
        ema: decay of the averages.
        precision: of products with attention weights in training; None is float32 everywhere.
    """

    network: CTConfig
    batch: int = 128
    epochs: int = 150
    adversary: bool = True
    ema: float = 0.99
    precision: str | None = "default"


@dataclass(frozen=True)
class Begin:
    """Start one member."""

    learner: Learner

    def __call__(self, key: Key[Array, ""], hyper: Hyper) -> State:
        params = ct.init(key, hyper.live, cfg=self.learner.network)
        opt = ADAM.init(params["encoder"]), ADAM.init(params["treatment"])
        return State(params, jax.tree.map(jnp.copy, params), opt, jnp.zeros((), jnp.int32), hyper)


def encoder_loss(
    params: Any, head: Any, batch: Series, scale: Scale, hyper: Hyper, alpha: Array, seed: Array, *, learner: Learner
) -> tuple[Array, tuple[Array, Array]]:
    """Score the encoder: squared error of tomorrow's volume, and how far a frozen head is from knowing nothing."""
    given, mask = inputs(batch, scale), jnp.arange(batch.treatment.shape[-1]) < batch.length[:, None]
    phi = ct.encode(params, given, hyper.live, cfg=learner.network, seed=seed, precision=learner.precision)
    found = predict(hyper, scale, batch.volume[:, :-1], ct.outcome(params, phi, given.now))
    error = _mean(jnp.square(found - (batch.volume[:, 1:] - scale.mean) / scale.sd), mask)
    if not learner.adversary:
        return error, (error, jnp.zeros(()))
    confusion = _mean(-jax.nn.log_softmax(ct.treatment(head, phi)).mean(-1), mask)
    return error + alpha * confusion, (error, confusion)


def head_loss(head: Any, phi: Array, batch: Series, alpha: Array) -> tuple[Array, Array]:
    """Score the treatment's head on a frozen representation; alpha weighs it as published."""
    mask = jnp.arange(batch.treatment.shape[-1]) < batch.length[:, None]
    told = jax.nn.log_softmax(ct.treatment(head, jax.lax.stop_gradient(phi)))
    entropy = _mean(-jnp.take_along_axis(told, batch.treatment[..., None], -1)[..., 0], mask)
    return alpha * entropy, entropy


def update(state: State, batch: Series, scale: Scale, seeds: Array, *, learner: Learner, steps: int) -> tuple:
    """Move the encoder against the averaged head, then the head against the averaged encoder."""
    hyper, average = state.hyper, partial(ema.update, step=state.step + 1, decay=learner.ema)
    progress = (state.step // steps) / learner.epochs
    alpha = hyper.alpha * (2 / (1 + jnp.exp(-10 * progress)) - 1)
    wave = 0.5 * (1 + jnp.cos(jnp.pi * state.step / (learner.epochs * steps)))
    rate = hyper.rate * jnp.where(hyper.cosine > 0, wave, 1.0)

    def move(params: Any, grads: Any, opt: Any) -> tuple[Any, Any]:
        change, opt = ADAM.update(grads, opt)
        return jax.tree.map(lambda p, c: p - rate * (c + hyper.decay * p), params, change), opt

    loss = jax.grad(partial(encoder_loss, learner=learner), has_aux=True)
    own = state.params["encoder"]
    grads, (error, confusion) = loss(own, state.average["treatment"], batch, scale, hyper, alpha, seeds[0])
    own, opt = move(own, grads, state.opt[0])
    params, kept = (
        {**state.params, "encoder": own},
        {**state.average, "encoder": average(state.average["encoder"], own)},
    )
    opts, entropy = (opt, state.opt[1]), jnp.zeros(())
    if learner.adversary:
        given = inputs(batch, scale)
        phi = ct.encode(
            kept["encoder"], given, hyper.live, cfg=learner.network, seed=seeds[1], precision=learner.precision
        )
        grads, entropy = jax.grad(head_loss, has_aux=True)(params["treatment"], phi, batch, alpha)
        own, opt = move(params["treatment"], grads, opts[1])
        params, kept = {**params, "treatment": own}, {**kept, "treatment": average(kept["treatment"], own)}
        opts = (opts[0], opt)
    told = {"train_error": error, "confusion": confusion, "entropy": entropy}
    return State(params, kept, opts, state.step + 1, hyper), told


@dataclass(frozen=True)
class Epoch:
    """Train one member for an epoch, all of it on the device: an `epoch(key, state, data)` for a loop."""

    learner: Learner

    def __call__(self, key: Key[Array, ""], state: State, data: Data) -> tuple[State, dict[str, Array]]:
        with jax.default_matmul_precision("float32"):
            return self.run(key, state, data)

    def run(self, key: Key[Array, ""], state: State, data: Data) -> tuple[State, dict[str, Array]]:
        count = data.train.volume.shape[1]
        batch = min(self.learner.batch, count)
        steps = count // batch
        own, scale = jax.tree.map(lambda x: x[state.hyper.dataset], data)
        rows = pack(own)
        order = bits.permutation(bits.seeds(key_for(key, "order")), count)[: steps * batch].reshape(steps, batch)
        seeds = bits.seeds(key_for(key, "dropout"), (steps, 2, ct.SEEDS))

        def step(state: State, x: tuple[Array, Array]) -> tuple[State, dict[str, Array]]:
            return update(state, unpack(rows[x[0]]), scale, x[1], learner=self.learner, steps=steps)

        state, told = jax.lax.scan(step, state, (order, seeds))
        return state, {name: value.mean() for name, value in told.items()}


def pack(data: Series) -> Float[Array, "patients columns"]:
    """Lay a patient in one row, so that a batch is one look-up."""
    rest = data.treatment, data.length[:, None], data.static[:, None]
    return jnp.concatenate([data.volume, *(x.astype(jnp.float32) for x in rest)], axis=1)


def unpack(rows: Float[Array, "patients columns"]) -> Series:
    """Undo `pack`."""
    days = (rows.shape[1] - 1) // 2
    treatment, length = rows[:, days : 2 * days - 1].astype(jnp.int32), rows[:, -2].astype(jnp.int32)
    return Series(rows[:, :days], treatment, length, rows[:, -1])
