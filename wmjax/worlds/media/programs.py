"""The media world's compiled programs: once for each shape; members wait for each other, so memory is that of one."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from wmjax.core import draws
from wmjax.core.keys import key_for
from wmjax.evaluate import attribution
from wmjax.evaluate.attribution import Window
from wmjax.transformer.config import MMMConfig
from wmjax.worlds.media import model as pure
from wmjax.worlds.media.model import History


@partial(jax.jit, static_argnames=("cfg",))
def predict(params: Any, history: History, *, cfg: MMMConfig) -> Array:
    """Predict by every member: `[members, units, time]`."""
    return jax.lax.map(lambda p: pure.predict(p, history, cfg=cfg), params)


@partial(jax.jit, static_argnames=("shape",))
def noise(key: Any, shape: tuple[int, ...]) -> Array:
    """Draw standard normal noise; one key, one luck for every plan."""
    return draws.normal(key_for(key, "outcome"), shape)


@partial(jax.jit, static_argnames=("cfg",))
def simulate(
    noise: Any, residual: Any, params: Any, history: History, plan: Array, start: Any, *, cfg: MMMConfig
) -> Any:
    """Roll out every member under every draw of noise."""

    def member(own: tuple[Any, Array]) -> Any:
        return jax.lax.map(lambda e: pure.simulate(own[1] * e, own[0], history, plan, start, cfg=cfg), noise)

    return jax.lax.map(member, (params, residual))


def _ask(history: History, start: Any, cfg: MMMConfig) -> attribution.Respond:
    return lambda member, plan: pure.respond(member, history, plan, start, cfg=cfg)


@partial(jax.jit, static_argnames=("cfg",))
def effect(params: Any, history: History, plan: Array, at: Any, t0: Any, t1: Any, *, cfg: MMMConfig) -> Array:
    """Change one period's spend at a time: the difference in that period."""

    def member(p: Any) -> Array:
        asked = pure.ready(p, history, cfg=cfg)
        chosen = jnp.arange(plan.shape[2]) == at

        def period(t: Array) -> Array:
            now = (jnp.arange(plan.shape[1]) == t)[:, None] & chosen
            pair = [pure.respond(asked, history, jnp.where(now, x, plan), t, cfg=cfg)[:, t] for x in (t0, t1)]
            return pair[1] - pair[0]

        return jax.lax.map(period, jnp.arange(plan.shape[1])).T

    return jax.lax.map(member, params)


@partial(jax.jit, static_argnames=("cfg", "chunk"))
def attribute(
    params: Any, history: History, plan: Array, over: Window, grid: Array, start: Any, *, cfg: MMMConfig, chunk: int
) -> Any:
    """Attribute by every member."""

    def member(p: Any) -> Any:
        asked = pure.ready(p, history, cfg=cfg)
        return attribution.attribute(_ask(history, start, cfg), asked, plan, over, grid, chunk=chunk)

    return jax.lax.map(member, params)


@partial(jax.jit, static_argnames=("cfg", "chunk"))
def contributions(params: Any, history: History, plan: Array, over: Window, *, cfg: MMMConfig, chunk: int) -> Any:
    """Give every member's contributions by period, and its expectation."""

    def member(p: Any) -> Any:
        asked, respond = pure.ready(p, history, cfg=cfg), _ask(history, 0, cfg)
        return attribution.contributions(respond, asked, plan, over, chunk=chunk), respond(asked, plan)

    return jax.lax.map(member, params)


@partial(jax.jit, static_argnames=("cfg",))
def totals(params: Any, history: History, plans: Array, over: Window, start: Any, *, cfg: MMMConfig) -> Array:
    """Sum every member's outcome under each plan: `[members, plans, units]`."""

    def member(p: Any) -> Array:
        asked = pure.ready(p, history, cfg=cfg)
        return jax.lax.map(lambda x: attribution.total(_ask(history, start, cfg), asked, x, over), plans)

    return jax.lax.map(member, params)


@partial(jax.jit, static_argnames=("cfg",))
def ready(params: Any, history: History, *, cfg: MMMConfig) -> Any:
    """Prepare every member to be asked."""
    return jax.lax.map(lambda p: pure.ready(p, history, cfg=cfg), params)


@partial(jax.jit, static_argnames=("cfg",))
def value(
    factors: Array, members: Any, history: History, plan: Array, over: Window, start: Any, *, cfg: MMMConfig
) -> Any:
    """Give R, the mean over members, and its gradient by the channels' factors."""

    def whole(m: Array) -> Array:
        moved = plan * (1 + (m - 1) * over.change[:, None])
        found = jax.lax.map(lambda p: attribution.total(_ask(history, start, cfg), p, moved, over).sum(), members)
        return found.mean()

    return jax.value_and_grad(whole)(factors)
