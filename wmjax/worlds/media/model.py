"""The media world's pure functions: one member, no labels; `jit`, `vmap` and `grad` see these.

outcome_u,t = size_u (centre_u + scale network_u,t),   network spend = spend / (size_u scale_k)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from wmjax.transformer import network, response
from wmjax.transformer.config import MMMConfig
from wmjax.transformer.network import Series
from wmjax.transformer.tokens import Channels


class History(NamedTuple):
    """A panel as a member sees it, and the way back to the table's units.

    series: see `Series`, leaves [units, ..]. known: the channels. size, centre: [units]. scale: of the outcome. spend:
    [channels], scale of spend. taught: bool [units, time], the rows that told the units' levels; all that were observed
    where the panel has none of them.
    """

    series: Series
    known: Channels
    size: Float[Array, " units"]
    centre: Float[Array, " units"]
    scale: Float[Array, ""]
    spend: Float[Array, " channels"]
    taught: Bool[Array, "units time"]


def in_units(history: History, values: Float[Array, "*draws units time"]) -> Float[Array, "*draws units time"]:
    """Turn the network's outcomes into the table's."""
    return history.size[:, None] * (history.centre[:, None] + history.scale * values)


def on_scale(
    history: History, spend: Float[Array, "*plans units time channels"]
) -> Float[Array, "*plans units time channels"]:
    """Turn the table's spend into the network's; none stays exactly none."""
    return spend / (history.size[:, None, None] * history.spend)


def predict(params: Any, history: History, *, cfg: MMMConfig) -> Float[Array, "units time"]:
    """Expect the outcome of each period given all before it and the period's spend."""
    found = network.apply(params["outcome"], history.series, history.known, cfg=cfg)
    return in_units(history, found.outcome)


class Ready(NamedTuple):
    """What does not depend on a plan, computed once for all of them.

    params: of the outcome. base: [units, time], the response form's outcome less its media; zeros in the free form.
    """

    params: Any
    base: Float[Array, "units time"]


def ready(params: Any, history: History, *, cfg: MMMConfig) -> Ready:
    """Prepare a member to be asked about many plans."""
    own = params["outcome"]
    if cfg.head == "free":
        return Ready(own, jnp.zeros(history.series.outcome.shape))
    found = network.apply(own, history.series, history.known, cfg=cfg)
    return Ready(own, found.outcome - found.media.sum(-1))


def respond(
    member: Ready,
    history: History,
    spend: Float[Array, "units time channels"],
    start: Int[Array, ""] | int,
    *,
    cfg: MMMConfig,
    feed: bool = True,
) -> Float[Array, "units time"]:
    """Expect the outcome had the spend been another one from `start` on, in the table's units, all else as it happened.

    The free form feeds its own predictions back from `start` on, or with `feed` off sees the observed outcomes (see
    `network.respond`); the response form needs neither.
    """
    scaled = on_scale(history, spend)
    if cfg.head == "response":
        media = response.media(member.params["curves"], scaled, history.known.sign, cfg=cfg)
        return in_units(history, member.base + media.sum(-1))
    found = network.respond(member.params, history.series, scaled, history.known, start, cfg=cfg, feed=feed)
    return in_units(history, found)


def terms(
    member: Ready, history: History, spend: Float[Array, "units time channels"], *, cfg: MMMConfig
) -> tuple[Float[Array, "units time"], Float[Array, "units time channels"]]:
    """Give the response form's base, and what each channel adds to it, in the table's units; `respond` is their sum."""
    scaled = on_scale(history, spend)
    media = response.media(member.params["curves"], scaled, history.known.sign, cfg=cfg)
    return in_units(history, member.base), history.size[:, None, None] * history.scale * media


def left(
    member: Ready,
    history: History,
    spend: Float[Array, "units time channels"],
    without: tuple[int, ...],
    *,
    cfg: MMMConfig,
) -> Float[Array, "units time"]:
    """Give the response form's base, and what all channels add to it but those at `without`, on the network's scale."""
    if len(without) == history.spend.shape[0]:
        return member.base
    curves, signs = member.params["curves"], history.known.sign
    media = response.media(curves, on_scale(history, spend), signs, cfg=cfg)
    return member.base + media.at[..., jnp.array(without, jnp.int32)].set(0.0).sum(-1)


def added(
    member: Ready, history: History, spend: Float[Array, "units time"], at: int, *, cfg: MMMConfig
) -> Float[Array, "units time"]:
    """Give what the channel at `at` adds to it, on the network's scale, had its spend been this."""
    scaled = spend / (history.size[:, None] * history.spend[at])
    return response.channel(member.params["curves"], scaled, at, history.known.sign, cfg=cfg)


def respond_now(
    member: Ready,
    history: History,
    plan: Float[Array, "units time channels"],
    now: Float[Array, "units time channels"],
    *,
    cfg: MMMConfig,
) -> Float[Array, "units time"]:
    """Expect each period's outcome had the spend of that period alone been `now`'s, and all before it `plan`'s.

    Of the response form, where it is one product for all periods: a period's own spend enters its carried-over spend
    with the first weight.
    """
    curves = member.params["curves"]
    theta = jax.nn.sigmoid(curves.carry)
    first = 1 / (theta ** jnp.arange(cfg.carry + 1)[:, None]).sum(0)
    before, own = on_scale(history, plan), on_scale(history, now)
    stock = response.adstock(before, theta, cfg.carry) + first * (own - before)
    raised = response.saturated(curves, stock, cfg=cfg)
    media = jnp.sum(response.amplitude(curves.size, history.known.sign) * raised, axis=-1)
    return in_units(history, member.base + media)


def simulate(
    noise: Float[Array, "units time"],
    params: Any,
    history: History,
    spend: Float[Array, "units time channels"],
    start: Int[Array, ""] | int,
    *,
    cfg: MMMConfig,
) -> tuple[Float[Array, "units time"], Float[Array, "units time"]]:
    """Roll forward from `start` under a plan, feeding each outcome, noise included, into the next.

    Args:
        noise: on the network's scale; the same noise under two plans makes their difference paired.

    Returns:
        Outcomes as drawn, and as expected given each drawn past.
    """
    planned = history.series._replace(spend=on_scale(history, spend))
    mean = network.roll_out(params["outcome"], planned, history.known, start, noise, cfg=cfg).outcome
    return in_units(history, mean + noise), in_units(history, mean)
