"""The consumer world's pure functions: one member, no labels; `jit`, `vmap` and `grad` see these.

A row is one unit in one period. Its *belief* is the machine's mean-field means given what was known before the period;
the adapters read the belief (with `skip`, lags and recency as well) and the period's actions. A counterfactual keeps
these and varies the action.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from wmjax.core.keys import key_for
from wmjax.data import frame as frames
from wmjax.data.frame import Frame, FrameState
from wmjax.dbm import meanfield
from wmjax.dbm.types import DBMParams
from wmjax.heads import adapter
from wmjax.heads.learn import Kind
from wmjax.worlds.consumer.config import ConsumerConfig


class Scales(NamedTuple):
    """Fixed numbers between the table's units and the networks', from the train rows.

    action_centre, action_scale: [actions]; a network reads `(action - centre) / scale`.
    outcome_centre, outcome_scale: [outcomes]; 0 and 1 for a binary outcome.
    residual: [outcomes], standard deviation around the prediction in outcome units; 0 for a binary outcome.
    """

    action_centre: Float[Array, "*m actions"]
    action_scale: Float[Array, "*m actions"]
    outcome_centre: Float[Array, "*m outcomes"]
    outcome_scale: Float[Array, "*m outcomes"]
    residual: Float[Array, "*m outcomes"]


class ConsumerParams(NamedTuple):
    """Everything fitted, of one member; an ensemble has a leading axis on every leaf.

    machine: the belief's Deep Boltzmann machine.
    adapters: parameters of one adapter an outcome, leaves `[outcomes, ..]`.
    scales: see `Scales`.
    """

    machine: DBMParams
    adapters: Any
    scales: Scales


@dataclass(frozen=True)
class ConsumerModel:
    """What is fixed when a program is compiled."""

    cfg: ConsumerConfig
    frame: Frame
    kinds: tuple[Kind, ...]
    """Kind of each outcome, in the panel's order."""

    @property
    def binary(self) -> tuple[bool, ...]:
        return tuple(kind == "binary" for kind in self.kinds)

    @property
    def num_features(self) -> int:
        """Width of what the adapters read."""
        hidden = self.cfg.machine.hidden
        belief = sum(hidden) if self.cfg.belief == "all" else hidden[-1]
        return belief + len(self.skipped)

    @cached_property
    def skipped(self) -> Int[np.ndarray, " units"]:
        """Number the visible units that adapters read beside the belief: what moves from period to period and comes
        back. Counts only grow, and statics and calendar are the same under every plan; these the belief alone tells."""
        own = [np.full(len(f.labels), self.cfg.skip and f.recipe in ("lag", "recency")) for f in self.frame.features]
        return np.flatnonzero(np.concatenate(own))

    @property
    def floors(self) -> tuple[float, ...]:
        """Least value of each outcome: counts and money are never negative."""
        return tuple(0.0 if kind in ("count", "currency") else -float("inf") for kind in self.kinds)


class History(NamedTuple):
    """What a roll-out starts from and is told of the future.

    state: the frame's memory of every unit before the first period.
    static: [units, static]. calendar: [periods, parts]. covariates: [periods, units, covariates].
    present: bool [periods, units]; an absent unit neither acts nor remembers.
    """

    state: FrameState
    static: Float[Array, "units static"]
    calendar: Int[Array, "periods parts"]
    covariates: Float[Array, "periods units covariates"]
    present: Bool[Array, "periods units"]


class Rollout(NamedTuple):
    """outcomes: [periods, units, outcomes], drawn and fed back. means: the same, expected given each drawn past."""

    outcomes: Float[Array, "periods units outcomes"]
    means: Float[Array, "periods units outcomes"]


class Contrast(NamedTuple):
    """An effect of every row on two scales, `[rows, outcomes]`.

    linear: on the logit scale (binary outcomes) or in outcome units (others).
    response: risk difference (binary) or the same as `linear`.
    base: where the linear effect starts from, on its scale (0 where it is in outcome units).
    """

    linear: Float[Array, "rows outcomes"]
    response: Float[Array, "rows outcomes"]
    base: Float[Array, "rows outcomes"]


def belief(machine: DBMParams, visible: Float[Array, "*rows units"], *, model: ConsumerModel) -> Array:
    """Infer the belief of each row: `[.., hidden]` in (0, 1)."""
    cfg = model.cfg
    return meanfield.belief(machine, visible, layers=cfg.belief, sweeps=cfg.learn.mean_field_sweeps)


def features(machine: DBMParams, visible: Float[Array, "*rows units"], *, model: ConsumerModel) -> Array:
    """Lay out what the adapters read of each row, `[.., features]`: the belief, then the visible units that skip it."""
    return jnp.concatenate([belief(machine, visible, model=model), visible[..., model.skipped]], axis=-1)


def linear(
    params: ConsumerParams, visible: Float[Array, "rows units"], actions: Float[Array, "rows actions"], *, model
) -> Float[Array, "rows outcomes"]:
    """Apply every adapter: logits for binary outcomes, standardised outcomes for others."""
    read = features(params.machine, visible, model=model)
    scaled = (actions - params.scales.action_centre) / params.scales.action_scale
    apply = jax.vmap(lambda p: adapter.apply(p, read, scaled, cfg=model.cfg.adapter), out_axes=-1)
    return apply(params.adapters)


def respond(params: ConsumerParams, eta: Float[Array, "*rows outcomes"], *, model: ConsumerModel):
    """Turn linear predictors into expected outcomes in the table's units: probabilities for binary outcomes."""
    return respond_scaled(params.scales, eta, model=model)


def respond_scaled(scales: Scales, eta: Float[Array, "*rows outcomes"], *, model: ConsumerModel):
    """Turn linear predictors into expected outcomes, where nothing but the scales is at hand."""
    in_units = scales.outcome_centre + scales.outcome_scale * eta
    return jnp.where(jnp.asarray(model.binary), jax.nn.sigmoid(eta), in_units)


def predict(params: ConsumerParams, visible: Array, actions: Array, *, model: ConsumerModel) -> Array:
    """Expected outcomes of each row: `[rows, outcomes]`."""
    return respond(params, linear(params, visible, actions, model=model), model=model)


def contrast(
    params: ConsumerParams,
    visible: Float[Array, "rows units"],
    actions: Float[Array, "rows actions"],
    index: int | Int[Array, ""],
    t0: Float[Array, " rows"],
    t1: Float[Array, " rows"],
    *,
    model: ConsumerModel,
) -> Contrast:
    """Vary one action of each row from `t0` to `t1`; the belief and the other actions stay.

    The risk difference `s(x1) - s(x0)` is `-expm1(-tau) s(x1) s(-x0)` where tau = x1 - x0 is positive, and
    `expm1(tau) s(x0) s(-x1)` where it is not: no small difference of near numbers, and no infinity however far.
    """
    read = features(params.machine, visible, model=model)
    centre, scale = params.scales.action_centre, params.scales.action_scale
    scaled = (actions - centre) / scale
    a0, a1 = (t0 - centre[index]) / scale[index], (t1 - centre[index]) / scale[index]
    base = scaled.at[:, index].set(a0)
    eta0 = jax.vmap(lambda p: adapter.apply(p, read, base, cfg=model.cfg.adapter), out_axes=-1)(params.adapters)
    tau = jax.vmap(lambda p: adapter.effect(p, read, index, a0, a1, scaled, cfg=model.cfg.adapter), out_axes=-1)(
        params.adapters
    )
    s, eta1 = jax.nn.sigmoid, eta0 + tau
    up = -jnp.expm1(-jnp.maximum(tau, 0)) * s(eta1) * s(-eta0)
    down = jnp.expm1(jnp.minimum(tau, 0)) * s(eta0) * s(-eta1)
    risk = jnp.where(tau > 0, up, down)
    in_units = tau * params.scales.outcome_scale
    binary = jnp.asarray(model.binary)
    base = jnp.where(binary, eta0, 0.0)
    return Contrast(jnp.where(binary, tau, in_units), jnp.where(binary, risk, in_units), base)


def simulate(
    key: Key[Array, ""],
    params: ConsumerParams,
    history: History,
    actions: Float[Array, "periods units actions"],
    *,
    model: ConsumerModel,
) -> Rollout:
    """Roll forward under `actions`: lags, recency and counts are re-made from what the roll-out itself drew.

    The noise of period t depends on the key and t alone, so that two plans under one key meet the same luck (common
    random numbers) and their difference is paired.
    """
    return roll(key, params, history, actions, model=model)[1]


def roll(
    key: Key[Array, ""],
    params: ConsumerParams,
    history: History,
    actions: Float[Array, "periods units actions"],
    *,
    model: ConsumerModel,
    first: int = 0,
) -> tuple[FrameState, Rollout]:
    """Roll forward as `simulate`, and give the memory after the last period as well.

    Args:
        first: number of the first period, for its luck: a roll-out cut in two meets the luck of the whole.
    """

    def one(state: FrameState, inputs: Any) -> tuple[FrameState, Rollout]:
        t, action, *at = inputs
        return period(key, params, state, (history.static, *at), action, t, model=model)

    times = first + jnp.arange(actions.shape[0])
    return jax.lax.scan(one, history.state, (times, actions, history.calendar, history.covariates, history.present))


def period(
    key: Key[Array, ""],
    params: ConsumerParams,
    state: FrameState,
    seen: tuple[Array, Array, Array, Array],
    action: Float[Array, "units actions"],
    t: Int[Array, ""] | int,
    *,
    model: ConsumerModel,
) -> tuple[FrameState, Rollout]:
    """Live through one period, number `t`; `seen` are its static columns, calendar, covariates and who is present."""
    static, calendar, covariates, present = seen
    visible = frames.read(model.frame, state, static, calendar, covariates)
    eta = linear(params, visible, action, model=model)
    mean = respond(params, eta, model=model)
    luck, noise = jax.random.split(key_for(key, "outcome", t))
    drawn = jnp.where(
        jnp.asarray(model.binary),
        (jax.random.uniform(luck, mean.shape) < mean).astype(mean.dtype),
        jnp.maximum(mean + params.scales.residual * jax.random.normal(noise, mean.shape), jnp.asarray(model.floors)),
    )
    return frames.advance(model.frame, state, action, drawn, present), Rollout(drawn, mean)
