"""What each channel was worth: one definition of a counterfactual for every model, and for the truth of a simulator.

A model is a function `respond(params, spend [units, time, channels]) -> [units, time]`, the expected outcome in its own
units had the plan been `spend`. A plan changes inside a window of periods; the outcome is counted there and in the
`carry` periods after it, so that what a window's spend does later belongs to it and what earlier spend does in the
window does not.

    ATE_k = R(plan) - R(plan without channel k),   ROI_k = ATE_k / sum spend_k,   R = sum of the counted outcomes
    curve_k(m) = R(plan with channel k times m) - R(plan without channel k)
    marginal ROI_k = (d R / d m at m = 1) / sum spend_k

Every scenario of a call is one row of a number: the plan is decoded from it on the device, so memory does not grow with
the grid. Where channels do not interact, what each adds is a term of its own, and one evaluation with all channels
times m holds every channel's answer at m: `attribute_terms` is `attribute` with as many times fewer evaluations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Respond = Callable[[Any, Array], Array]
Terms = Callable[[Any, Array], tuple[Array, Array]]
"""`terms(params, spend) -> (base [units, time], added [units, time, channels])`, the outcome being their sum."""
Spend = Float[Array, "units time channels"]


class Window(NamedTuple):
    """change: [time], 1 where a plan may differ. count: [time] or [units, time], 1 where the outcome counts."""

    change: Float[Array, " time"]
    count: Float[Array, "*units time"]


class Attribution(NamedTuple):
    """Sums over the window, of one member or with an axis of members in front; in units of the outcome.

    zero: [channels, units], ATE. none: [units], R without any spend; factual: [units], R. curve: [channels, grid,
    units], against no spend in the channel. marginal: [channels, units], d R / d m at m = 1 by automatic
    differentiation. slope: the same by a central difference of 5 %. bend: the one-sided difference above less the one
    below. noise: how much float32 may move slope, 4 roundings of the sums that it is taken of. See `marginals`.
    """

    zero: Float[Array, "*m channels units"]
    none: Float[Array, "*m units"]
    factual: Float[Array, "*m units"]
    curve: Float[Array, "*m channels grid units"]
    marginal: Float[Array, "*m channels units"]
    slope: Float[Array, "*m channels units"]
    bend: Float[Array, "*m channels units"]
    noise: Float[Array, "*m channels units"]


STEP = 0.05
"""Relative step of the central difference."""


def window(time: int, start: int, stop: int, *, carry: int, observed: Any = None) -> Window:
    """Let plans differ in `[start, stop)`, and count the outcome in the `carry` periods after it too.

    Args:
        time: periods in all.
        start, stop: positions.
        carry: periods after the window whose outcome counts.
        observed: [units, time], where outcomes count at all; everywhere if not given.
    """
    at = np.arange(time)
    change = ((at >= start) & (at < stop)).astype(np.float32)
    count = ((at >= start) & (at < stop + carry)).astype(np.float32)
    return Window(jnp.asarray(change), jnp.asarray(count if observed is None else count * observed, jnp.float32))


def scaled(spend: Spend, channel: Int[Array, ""] | int, factor: Float[Array, ""] | float, change: Array) -> Spend:
    """Multiply one channel's spend where plans may differ; a channel of -1 multiplies all."""
    chosen = (jnp.arange(spend.shape[2]) == channel) | (jnp.asarray(channel) < 0)
    return spend * (1 + (factor - 1) * chosen * change[:, None])


def total(respond: Respond, params: Any, spend: Spend, over: Window) -> Float[Array, " units"]:
    """Sum the counted outcomes of each unit."""
    return jnp.sum(respond(params, spend) * over.count, axis=-1)


def attribute(
    respond: Respond, params: Any, spend: Spend, over: Window, grid: Float[Array, " grid"], *, chunk: int = 16
) -> Attribution:
    """Attribute the outcome to the channels, for one member: channels x grid points in one mapped call.

    Args:
        respond: see the module.
        params: of one member; map over members outside.
        spend: the plan in the table's units.
        over: see `window`.
        grid: multiples of each channel's spend; keeps its flighting.
        chunk: scenarios computed side by side.
    """
    channels, points = spend.shape[2], grid.shape[0]
    # Scenarios: none at all, the plan; then by channel nothing of it, 5 % less, 5 % more, the grid.
    factors = jnp.concatenate([jnp.array([0.0, 1 - STEP, 1 + STEP]), grid])
    per = factors.shape[0]

    def scenario(at: Array) -> Array:
        channel = jnp.where(at < 2, -1, (at - 2) // per)
        factor = jnp.where(at < 2, at.astype(jnp.float32), factors[(at - 2) % per])
        return total(respond, params, scaled(spend, channel, factor, over.change), over)

    found = jax.lax.map(scenario, jnp.arange(2 + channels * per), batch_size=chunk)
    none, factual, rest = found[0], found[1], found[2:].reshape(channels, per, -1)
    return Attribution(
        zero=factual - rest[:, 0],
        none=none,
        factual=factual,
        curve=rest[:, 3 : 3 + points] - rest[:, :1],
        marginal=jnp.swapaxes(marginal(respond, params, spend, over), 0, 1),
        **_sides(rest[:, 1], jnp.broadcast_to(factual, rest[:, 0].shape), rest[:, 2]),
    )


def attribute_terms(
    terms: Terms, params: Any, spend: Spend, over: Window, grid: Float[Array, " grid"], *, chunk: int = 16
) -> Attribution:
    """Attribute as `attribute` does, by a model in which each channel adds a term that no other channel changes."""
    factors = jnp.concatenate([jnp.array([0.0, 1 - STEP, 1 + STEP]), grid])

    def added(factor: Array) -> Float[Array, "channels units"]:
        return _sums(terms(params, scaled(spend, -1, factor, over.change))[1], over)

    found = jax.lax.map(added, factors, batch_size=chunk)
    tangent = spend * over.change[:, None]
    (base, media), (_, slope) = jax.jvp(lambda x: terms(params, x), (spend,), (tangent,))
    now = _sums(media, over)
    factual = jnp.sum(base * over.count, axis=-1) + now.sum(0)
    zero = now - found[0]
    return Attribution(
        zero=zero,
        none=factual - zero.sum(0),
        factual=factual,
        curve=jnp.swapaxes(found[3:] - found[0], 0, 1),
        marginal=_sums(slope, over),
        **_sides(found[1], now, found[2]),
    )


def _sides(less: Array, now: Array, more: Array) -> dict[str, Array]:
    """Give the central difference, how it bends, and how much rounding may move it."""
    noise = 4 * jnp.finfo(jnp.float32).eps * jnp.abs(now) / STEP
    return {"slope": (more - less) / (2 * STEP), "bend": (more + less - 2 * now) / STEP, "noise": noise}


def _sums(media: Float[Array, "units time channels"], over: Window) -> Float[Array, "channels units"]:
    return jnp.sum(media * over.count[..., None], axis=-2).T


def contribution_terms(
    terms: Terms, params: Any, spend: Spend, over: Window
) -> tuple[Float[Array, "channels+1 units time"], Float[Array, "units time"]]:
    """Give `contributions` of such a model, and the factual outcome."""
    base, media = terms(params, spend)
    own = jnp.moveaxis(media - terms(params, scaled(spend, -1, 0.0, over.change))[1], -1, 0)
    return jnp.concatenate([own, own.sum(0, keepdims=True)]), base + media.sum(-1)


def marginal(respond: Respond, params: Any, spend: Spend, over: Window) -> Float[Array, "units channels"]:
    """Differentiate R by a multiple of each channel's spend in each unit, at the plan: one reverse pass.

    Units do not act on each other, so the gradient of the sum holds each unit's own.
    """

    def whole(factors: Array) -> Array:
        plan = spend * (1 + (factors[:, None, :] - 1) * over.change[:, None])
        return total(respond, params, plan, over).sum()

    return jax.grad(whole)(jnp.ones((spend.shape[0], spend.shape[2])))


def contributions(
    respond: Respond, params: Any, spend: Spend, over: Window, *, chunk: int = 16
) -> Float[Array, "channels+1 units time"]:
    """Give what each channel's spend in the window added to each period; the last row is all channels together."""
    channels = spend.shape[2]
    factual = respond(params, spend)

    def without(at: Array) -> Array:
        channel = jnp.where(at == channels, -1, at)
        return factual - respond(params, scaled(spend, channel, 0.0, over.change))

    return jax.lax.map(without, jnp.arange(channels + 1), batch_size=chunk)


def shifted(spend: Spend, source: Array | int, target: Array | int, share: Array | float, change: Array) -> Spend:
    """Move a share of one channel's spend of each period to another one."""
    moved = share * jnp.take(spend, source, axis=2) * change
    at = jnp.arange(spend.shape[2])
    return spend + moved[..., None] * ((at == target).astype(jnp.float32) - (at == source).astype(jnp.float32))


def shifts(
    respond: Respond, params: Any, spend: Spend, over: Window, share: float, *, chunk: int = 16
) -> Float[Array, "source target units"]:
    """Give what moving `share` of each channel's spend to each other one changes in R; the diagonal is 0."""
    channels = spend.shape[2]
    base = total(respond, params, spend, over)

    def move(at: Array) -> Array:
        plan = shifted(spend, at // channels, at % channels, share, over.change)
        return total(respond, params, plan, over) - base

    found = jax.lax.map(move, jnp.arange(channels**2), batch_size=chunk)
    return found.reshape(channels, channels, -1)


def members(fn: Callable[..., Any], respond: Respond, params: Any, *args: Any, **options: Any) -> Any:
    """Call any of this module's functions for every member, one after the other: an axis in front of each answer."""
    return jax.lax.map(lambda own: partial(fn, respond)(own, *args, **options), params)
