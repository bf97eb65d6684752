"""Training of one member: two players who move in turn on the same batch, averaged parameters, an epoch in one scan.

    adversary:          loss(G_A, Phi of the averaged encoder, spend)           see `adversary`
    encoder, outcome:   outcome_loss + alpha_e confusion(averaged G_A, Phi) + priors
    alpha_e = alpha (2 / (1 + exp(-10 e / epochs)) - 1)

A batch is a draw of units and of one window of periods. What a member has of its own is its `Luck`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from wmjax.core.keys import key_for
from wmjax.train import ema
from wmjax.transformer import beliefs, losses, network, response
from wmjax.transformer.network import Forecast, Series
from wmjax.transformer.response import Curves
from wmjax.transformer.tokens import Channels
from wmjax.worlds.media import adversary
from wmjax.worlds.media.config import MediaConfig
from wmjax.worlds.media.luck import Luck, lots

MODEL = 3
"""Raised with every change of what is learnt or answered, so that nothing kept of another model is taken up."""
SLOW = ("curves", "controls")
"""Parts of the outcome's parameters that are few and well determined, and so learn at the curves' rate."""


class LearnData(NamedTuple):
    """What all members learn from.

    series: see `Series`, leaves [units, time, ..]. train, val: bool [units, time], the rows that teach and that are
    watched. spend_target: [units, time, channels], spend as the adversary sees it. confusion: [channels], what one that
    predicts is made to say. size: [units]. exchange: [channels], outcome for a unit of spend at a scaled ratio of 1.
    beliefs: see `MediaConfig.beliefs`: an argument, so that other lift tests compile nothing.
    """

    series: Series
    known: Channels
    train: Bool[Array, "units time"]
    val: Bool[Array, "units time"]
    spend_target: Float[Array, "units time channels"]
    confusion: Float[Array, " channels"]
    size: Float[Array, " units"]
    exchange: Float[Array, " channels"]
    centre: Curves
    beliefs: Float[Array, "beliefs numbers"]


class MediaState(NamedTuple):
    """One member in training.

    params, average: see `network.init`. opt_state: of both players. step: updates done. rate: factor on all learning
    rates. luck: its own.
    """

    params: Any
    average: Any
    opt_state: Any
    step: Int[Array, "*m"]
    rate: Float[Array, "*m"]
    luck: Luck


@dataclass(frozen=True)
class Learner:
    """What is fixed when a program is compiled; a value, so that equal learners share their programs.

    Attributes:
        cfg: how it learns, of `MediaConfig.compiled`.
        channels: the actions' names, in order.
        periods: train periods.
        units: series that learn together.
    """

    cfg: MediaConfig
    channels: tuple[str, ...]
    periods: int
    units: int

    @property
    def window(self) -> int:
        return min(self.cfg.window + self.cfg.network.carry, self.periods)

    @property
    def steps(self) -> int:
        """Updates in an epoch."""
        return -(-self.cfg.steps // self.cfg.epochs)

    @property
    def intercepts(self) -> bool:
        """Whether each unit has an intercept of its own."""
        return self.cfg.network.head == "response" and self.units > 1

    def optimizers(self) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        """Give the outcome player's optimiser, partitioned, and the adversary's."""
        cfg = self.cfg
        rate = partial(optax.cosine_decay_schedule, decay_steps=self.steps * cfg.epochs)
        parts: dict[Any, Any] = {
            "network": optax.chain(
                optax.clip_by_global_norm(cfg.clip), optax.adamw(rate(cfg.learning_rate), weight_decay=cfg.weight_decay)
            ),
            "slow": optax.adam(rate(cfg.curve_rate)),
        }
        return optax.partition(parts, _labels), optax.adam(cfg.spend_rate)


def _labels(params: Any) -> Any:
    """Say by which optimiser each parameter moves; a label stands for all that is below it."""
    return {name: "slow" if name in SLOW else "network" for name in params}


def init(key: Key[Array, ""], luck: Luck, data: LearnData, *, learner: Learner) -> MediaState:
    """Start one member."""
    cfg, series = learner.cfg, data.series
    params = network.init(
        key_for(key, "params"),
        data.known,
        cfg=cfg.network,
        num_covariates=series.covariates.shape[-1],
        num_static=series.static.shape[-1],
        # All start from the common centre: which basin is found must not hang on the draw.
        curves=data.centre,
        discriminates=cfg.confusion == "shuffle",
    )
    outcome, spend = learner.optimizers()
    return MediaState(
        params=params,
        average=jax.tree.map(jnp.copy, params),
        opt_state=(outcome.init(params["outcome"]), spend.init(params["spend"])),
        step=jnp.zeros((), jnp.int32),
        rate=jnp.ones(()),
        luck=luck,
    )


def centre(luck: Luck, data: LearnData) -> Curves:
    """Give the centre of a member's priors of curves."""
    return Curves(*(c + sd * e for c, sd, e in zip(data.centre, response.SPREAD, luck.curves, strict=True)))


class Batch(NamedTuple):
    """A draw of units and of one window; `weights` [units, time] are 0 where a row is only context.

    whole, rows: the same units in all periods that tell their intercepts, with these rows' weights.
    """

    series: Series
    weights: Float[Array, "units time"]
    spend_target: Float[Array, "units time channels"]
    size: Float[Array, " units"]
    whole: Series
    rows: Float[Array, "units periods"]


def take(key: Key[Array, ""], state: MediaState, data: LearnData, *, learner: Learner) -> Batch:
    """Draw a batch: units without replacement, one window for all of them."""
    units = data.train.shape[0]
    chosen = jax.random.permutation(key_for(key, "units"), units)[: min(learner.cfg.batch, units)]
    width = learner.window
    start = jax.random.randint(key_for(key, "window"), (), 0, learner.periods - width + 1)

    def cut(x: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(x[chosen], start, width, axis=1)

    s, place = data.series, jnp.arange(len(chosen))
    series = Series(cut(s.spend), cut(s.covariates), cut(s.outcome), s.static[chosen], cut(s.observed), place)
    context = (jnp.arange(width) < learner.cfg.network.carry) & (start > 0)
    weights = cut(data.train * state.luck.weights) * ~context
    taught = slice(learner.periods)
    whole = Series(
        s.spend[chosen, taught],
        s.covariates[chosen, taught],
        s.outcome[chosen, taught],
        s.static[chosen],
        s.observed[chosen, taught],
        place,
    )
    rows = level_rows(data, state.luck)[chosen, taught]
    return Batch(series, weights, cut(data.spend_target), data.size[chosen], whole, rows)


def whole_batch(data: LearnData, luck: Luck) -> Batch:
    """Take all units in all periods."""
    weights = data.train * luck.weights
    return Batch(data.series, weights, data.spend_target, data.size, data.series, level_rows(data, luck))


def level_rows(data: LearnData, luck: Luck) -> Float[Array, "units time"]:
    """Weigh the rows that tell intercepts: a member's own, and all a little, lest a unit have none of them."""
    return data.train * (luck.weights + 1e-3)


def freedom(data: LearnData, *, learner: Learner) -> Int[Array, ""]:
    """Count the train rows, less the intercepts that they tell."""
    return jnp.sum(data.train) - (data.train.any(1).sum() if learner.intercepts else 0)


def leveled(params: Any, batch: Batch, data: LearnData, *, learner: Learner) -> Any:
    """Add each unit's intercept to the outcome's parameters, where there are several units.

    It is what curves and linear controls, the model less its network, leave of the outcome on average over the unit's
    train periods: profiled out, as a fixed effect is, and so never behind the curves. A unit without train periods has
    the others' mean. What intercepts hold already, a common level and what is fixed about units, stays where it is:
    its slope is nothing but rounding, which Adam would walk on.
    """
    if not learner.intercepts:
        return params
    covariates, still = data.series.covariates.shape[-1], jax.lax.stop_gradient(params["controls"])
    w = jnp.concatenate([params["controls"]["w"][:covariates], still["w"][covariates:]])
    params = {**params, "controls": {"w": w, "b": still["b"]}}
    return {**params, "intercepts": unexplained(params, batch, data, learner=learner)[1]}


def unexplained(
    params: Any, batch: Batch, data: LearnData, *, learner: Learner
) -> tuple[Float[Array, "units time"], Float[Array, " units"]]:
    """Give what curves and linear controls leave of the outcome, and the intercepts in it; 0 of one unit."""
    told = network.controlled(params, batch.whole, data.known, cfg=learner.cfg.network)
    own, count = batch.whole.outcome - told, batch.rows.sum(1)
    if not learner.intercepts:
        return own, jnp.zeros_like(count)
    level = jnp.sum(own * batch.rows, axis=1) / jnp.where(count > 0, count, 1.0)
    return own, jnp.where(count > 0, level, losses.mean(level, (count > 0).astype(jnp.float32)))


def forward(params: Any, series: Series, known: Channels, key: Key[Array, ""] | None, *, cfg: MediaConfig) -> Forecast:
    """Apply the network to a batch of units."""
    keys = None if key is None else jax.random.split(key, series.outcome.shape[0])
    return network.apply(params, series, known, cfg=cfg.network, key=keys)


def roi_of(
    params: Any, batch: Batch, media: Array, data: LearnData, key: Key[Array, ""], *, learner: Learner
) -> tuple[Float[Array, " channels"], Float[Array, ""]]:
    """Give each channel's return over a batch, in the table's units, and the scale of the estimate.

    The free form drops one channel with a belief, drawn at random, and counts it for all of them.
    """
    weights = batch.weights * batch.size[:, None]
    spent = jnp.einsum("utk,ut->k", batch.series.spend, weights)
    spent = jnp.where(spent > 0, spent, 1.0)
    if learner.cfg.network.head == "response":
        return data.exchange * jnp.einsum("utk,ut->k", media, weights) / spent, jnp.ones(())
    believed = list(dict.fromkeys(learner.channels.index(p.channel) for p in learner.cfg.roi))
    at = jnp.asarray(believed)[jax.random.randint(key_for(key, "channel"), (), 0, len(believed))]
    without = batch.series._replace(spend=batch.series.spend.at[..., at].set(0.0))
    pair = [forward(params, s, data.known, None, cfg=learner.cfg).outcome for s in (batch.series, without)]
    total = jnp.sum((pair[0] - pair[1]) * weights)
    one = jnp.arange(spent.shape[0]) == at
    return jnp.where(one, data.exchange * total / spent, jnp.nan), jnp.asarray(len(believed), jnp.float32)


def priors(
    params: Any,
    batch: Batch,
    found: Forecast,
    error: Float[Array, ""],
    state: MediaState,
    data: LearnData,
    key: Key[Array, ""],
    *,
    learner: Learner,
) -> Float[Array, ""]:
    """Give minus the log priors, weighed against the mean squared error as normal errors of its size would."""
    cfg = learner.cfg
    value = jnp.zeros(())
    if cfg.network.head == "response":
        value += losses.curves(params["curves"], centre(state.luck, data))
    if cfg.roi:
        value += believed(
            *roi_of(params, batch, found.media, data, key, learner=learner), state.luck, data, learner=learner
        )
    return cfg.prior_weight * 2 * jax.lax.stop_gradient(error) / freedom(data, learner=learner) * value


def believed(
    returns: Float[Array, " channels"],
    factor: Float[Array, ""],
    luck: Luck,
    data: LearnData,
    *,
    learner: Learner,
) -> Float[Array, ""]:
    """Give minus the log density of returns under what is believed of them, see `roi_of`."""
    value = jnp.zeros(())
    places = lots([learner.channels.index(prior.channel) for prior in learner.cfg.roi], len(learner.channels))
    for prior, numbers, place in zip(learner.cfg.roi, data.beliefs, places, strict=True):
        at, density = learner.channels.index(prior.channel), prior.distribution(numbers)
        moved = beliefs.moved(density, luck.beliefs[place], returns[at])
        # A channel that this step did not drop has no return, and no say.
        known = jnp.where(jnp.isnan(moved), 1.0, moved)
        value += jnp.where(jnp.isnan(moved), 0.0, factor * losses.roi(known[None], {0: density}))
    return value


def sign_loss(params: Any, batch: Batch, data: LearnData, *, learner: Learner) -> Float[Array, ""]:
    """Punish mean slopes of the free form that go the wrong way; in the response form none can."""

    def total(spend: Array) -> Array:
        found = forward(params, batch.series._replace(spend=spend), data.known, None, cfg=learner.cfg)
        return jnp.sum(found.outcome * batch.weights) / jnp.maximum(batch.weights.sum(), 1.0)

    slopes = jax.grad(total)(batch.series.spend)
    return losses.sign(slopes.sum((0, 1)), data.known.sign)


def outcome_loss(
    params: Any,
    against: Any,
    batch: Batch,
    state: MediaState,
    data: LearnData,
    alpha: Float[Array, ""],
    key: Key[Array, ""],
    *,
    learner: Learner,
) -> tuple[Float[Array, ""], tuple[Array, Array]]:
    """Score the encoder and the outcome's head against a frozen adversary: `(loss, (mse, confusion))`."""
    cfg = learner.cfg
    own = leveled(params, batch, data, learner=learner)
    found = forward(own, batch.series, data.known, key_for(key, "dropout"), cfg=cfg)
    error = losses.squared(found.outcome, batch.series.outcome, batch.weights)
    value = error + priors(params, batch, found, error, state, data, key, learner=learner)
    confusion = jnp.zeros(())
    if cfg.alpha > 0:
        confusion = adversary.confusion(
            against,
            found.representation,
            batch.spend_target,
            data.confusion,
            batch.weights,
            data.known,
            key_for(key, "confuse"),
            kind=cfg.confusion,
        )
        value += alpha * confusion
    if cfg.network.head == "free" and cfg.prior_weight > 0:
        value += 0.1 * cfg.prior_weight * sign_loss(params, batch, data, learner=learner)
    return value, (error, confusion)


def update(key: Key[Array, ""], state: MediaState, data: LearnData, *, learner: Learner) -> tuple[MediaState, Any]:
    """Move both players once, in the order of the configuration, and the averages after them."""
    cfg = learner.cfg
    batch = take(key, state, data, learner=learner)
    outcome_optimizer, spend_optimizer = learner.optimizers()
    progress = (state.step // learner.steps) / cfg.epochs
    alpha = cfg.alpha * (2 / (1 + jnp.exp(-10 * progress)) - 1)
    average = partial(ema.update, step=state.step, decay=cfg.ema)

    def move_spend(state: MediaState) -> tuple[MediaState, Array]:
        if cfg.alpha == 0:
            return state, jnp.zeros(())
        encoder = leveled(state.average["outcome"], batch, data, learner=learner)
        phi = forward(encoder, batch.series, data.known, None, cfg=cfg).representation

        own = state.params["spend"]
        value, grads = jax.value_and_grad(partial(adversary.loss, kind=cfg.confusion))(
            own, phi, batch.spend_target, batch.weights, data.known, key_for(key, "shuffle")
        )
        change, opt = spend_optimizer.update(grads, state.opt_state[1], own)
        own = optax.apply_updates(own, jax.tree.map(lambda u: state.rate * u, change))
        return state._replace(
            params={**state.params, "spend": own},
            average={**state.average, "spend": average(state.average["spend"], own)},
            opt_state=(state.opt_state[0], opt),
        ), value

    def move_outcome(state: MediaState) -> tuple[MediaState, tuple[Array, Array]]:
        own = state.params["outcome"]
        loss = jax.value_and_grad(partial(outcome_loss, learner=learner), has_aux=True)
        (_, told), grads = loss(own, state.average["spend"], batch, state, data, alpha, key)
        change, opt = outcome_optimizer.update(grads, state.opt_state[0], own)
        own = optax.apply_updates(own, jax.tree.map(lambda u: state.rate * u, change))
        return state._replace(
            params={**state.params, "outcome": own},
            average={**state.average, "outcome": average(state.average["outcome"], own)},
            opt_state=(opt, state.opt_state[1]),
        ), told

    if cfg.order == "spend_first":
        state, spend = move_spend(state)
        state, (error, confusion) = move_outcome(state)
    else:
        state, (error, confusion) = move_outcome(state)
        state, spend = move_spend(state)
    return state._replace(step=state.step + 1), {"train_loss": error, "spend_loss": spend, "confusion": confusion}


@dataclass(frozen=True)
class Epoch:
    """Train one member for an epoch and score the averaged parameters: an `epoch(key, state, data)` for a loop.

    A value, not a closure: two of equal learners are equal, so a second run compiles nothing.
    """

    learner: Learner

    def __call__(self, key: Key[Array, ""], state: MediaState, data: LearnData) -> tuple[MediaState, dict[str, Array]]:
        def step(state: MediaState, t: Array) -> tuple[MediaState, dict[str, Array]]:
            return update(key_for(key, "step", t), state, data, learner=self.learner)

        cfg = self.learner.cfg
        state, told = jax.lax.scan(step, state, jnp.arange(self.learner.steps))
        own = leveled(state.average["outcome"], whole_batch(data, state.luck), data, learner=self.learner)
        found, slope = _sloped(own, data, cfg=cfg)
        val = losses.squared(found.outcome, data.series.outcome, data.val.astype(jnp.float32))
        balance = adversary.readouts(
            state.average["spend"],
            found.representation,
            data.spend_target,
            data.train.astype(jnp.float32),
            data.known,
            key_for(key, "readouts"),
            kind=cfg.confusion if cfg.alpha > 0 else "",
        )
        told = {name: value.mean() for name, value in told.items()} | {"val_loss": val}
        return state, told | {f"watched_{name}": value for name, value in (balance | {"outcome_slope": slope}).items()}


def _sloped(params: Any, data: LearnData, *, cfg: MediaConfig) -> tuple[Forecast, Float[Array, ""]]:
    """Forecast all rows, and measure how steeply outcomes hang on spend: the root mean square slope of their sum."""
    series, rows = data.series, data.train.astype(jnp.float32)

    def total(spend: Array) -> tuple[Array, Forecast]:
        found = forward(params, series._replace(spend=spend), data.known, None, cfg=cfg)
        # In the response form spend works through its curves alone.
        told = found.media.sum(-1) if cfg.network.head == "response" else found.outcome
        return jnp.sum(told * rows), found

    slopes, found = jax.grad(total, has_aux=True)(series.spend)
    return found, jnp.sqrt(losses.mean(jnp.square(slopes).mean(-1), rows))


def averaged(state: MediaState) -> Any:
    """Take what a fit keeps: the averaged parameters."""
    return state.average
