"""The media world's compiled programs: once for each shape. Members, or draws, wait for each other: memory is one's."""

from __future__ import annotations

from collections.abc import Callable
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
from wmjax.worlds.media.model import History, Ready


def mean_over(ask: Callable[[Any], Any], members: Any) -> Any:
    """Average what all answer, one after the other.

    Each sum carries what rounding has lost of it (Kahan): of hundreds of float32 numbers added one by one a plan's gain
    would be lost too.
    """

    def add(carry: tuple[Any, Any], member: Any) -> tuple[tuple[Any, Any], None]:
        total, lost = carry
        own = jax.tree.map(jnp.subtract, ask(member), lost)
        now = jax.tree.map(jnp.add, total, own)
        return (now, jax.tree.map(lambda new, old, x: (new - old) - x, now, total, own)), None

    shapes = jax.eval_shape(ask, jax.tree.map(lambda x: x[0], members))
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    (total, _), _ = jax.lax.scan(add, (zero, zero), members)
    return jax.tree.map(lambda x: x / jax.tree.leaves(members)[0].shape[0], total)


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


def _ask(history: History, start: Any, cfg: MMMConfig, feed: bool = True) -> attribution.Respond:
    return lambda member, plan: pure.respond(member, history, plan, start, cfg=cfg, feed=feed)


def _terms(history: History, cfg: MMMConfig) -> attribution.Terms:
    return lambda member, plan: pure.terms(member, history, plan, cfg=cfg)


@partial(jax.jit, static_argnames=("cfg",))
def terms(members: Ready, history: History, plan: Array, *, cfg: MMMConfig) -> tuple[Array, Array]:
    """Give the response form's base `[units, time]` and channels `[units, time, channels]`: means over members."""
    return mean_over(lambda member: pure.terms(member, history, plan, cfg=cfg), members)


@partial(jax.jit, static_argnames=("cfg",))
def added(members: Ready, history: History, plan: Array, rows: Array, *, cfg: MMMConfig) -> Array:
    """Sum what each channel adds by every member of the response form, over the rows: `[members, channels]`."""
    sums = lambda member: jnp.einsum("utk,ut->k", pure.terms(member, history, plan, cfg=cfg)[1], rows)  # noqa: E731
    return jax.lax.map(sums, members)


@partial(jax.jit, static_argnames=("cfg",))
def effect(members: Ready, history: History, plan: Array, at: Any, t0: Any, t1: Any, *, cfg: MMMConfig) -> Array:
    """Change one period's spend at a time: the difference in that period, `[members, units, time]`."""
    chosen = jnp.arange(plan.shape[2]) == at

    def member(asked: Ready) -> Array:
        if cfg.head == "response":
            pair = [pure.respond_now(asked, history, plan, jnp.where(chosen, x, plan), cfg=cfg) for x in (t0, t1)]
            return pair[1] - pair[0]

        def period(t: Array) -> Array:
            now = (jnp.arange(plan.shape[1]) == t)[:, None] & chosen
            pair = [pure.respond(asked, history, jnp.where(now, x, plan), t, cfg=cfg)[:, t] for x in (t0, t1)]
            return pair[1] - pair[0]

        return jax.lax.map(period, jnp.arange(plan.shape[1])).T

    return jax.lax.map(member, members)


@partial(jax.jit, static_argnames=("cfg", "chunk", "feed"))
def attribute(
    members: Ready,
    history: History,
    plan: Array,
    over: Window,
    grid: Array,
    start: Any,
    *,
    cfg: MMMConfig,
    chunk: int,
    feed: bool = True,
) -> Any:
    """Attribute by every member."""
    if cfg.head == "response":
        terms = _terms(history, cfg)
        return jax.lax.map(lambda own: attribution.attribute_terms(terms, own, plan, over, grid, chunk=chunk), members)
    ask = _ask(history, start, cfg, feed)
    return jax.lax.map(lambda own: attribution.attribute(ask, own, plan, over, grid, chunk=chunk), members)


@partial(jax.jit, static_argnames=("cfg", "chunk", "feed"))
def contributions(
    members: Ready, history: History, plan: Array, over: Window, *, cfg: MMMConfig, chunk: int, feed: bool = True
) -> Any:
    """Give every member's contributions by period, and its expectation."""
    if cfg.head == "response":
        terms = _terms(history, cfg)
        return jax.lax.map(lambda own: attribution.contribution_terms(terms, own, plan, over), members)
    respond = _ask(history, 0, cfg, feed)

    def member(own: Ready) -> Any:
        return attribution.contributions(respond, own, plan, over, chunk=chunk), respond(own, plan)

    return jax.lax.map(member, members)


@partial(jax.jit, static_argnames=("cfg",))
def totals(members: Ready, history: History, plans: Array, over: Window, start: Any, *, cfg: MMMConfig) -> Array:
    """Sum every member's outcome under each plan: `[members, plans, units]`."""
    ask = _ask(history, start, cfg)
    return jax.lax.map(lambda own: jax.lax.map(lambda x: attribution.total(ask, own, x, over), plans), members)


@partial(jax.jit, static_argnames=("cfg",))
def ready(params: Any, history: History, *, cfg: MMMConfig) -> Ready:
    """Prepare every member to be asked."""
    return jax.lax.map(lambda p: pure.ready(p, history, cfg=cfg), params)


@partial(jax.jit, static_argnames=("cfg",))
def value(
    factors: Array, members: Any, history: History, plan: Array, over: Window, start: Any, *, cfg: MMMConfig
) -> Any:
    """Give R, the mean over members, and its gradient by the channels' factors."""

    def whole(m: Array, member: Ready) -> Array:
        moved = plan * (1 + (m - 1) * over.change[:, None])
        return attribution.total(_ask(history, start, cfg), member, moved, over).sum()

    # The gradient member by member, as the mean's would keep what all of them need at once.
    return mean_over(partial(jax.value_and_grad(whole), factors), members)
