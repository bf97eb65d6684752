"""Other plans of a media world: money moved from one channel to another, and budgets split for the largest outcome.

Both answer with one tidy table: a row for each channel whose spend moves, and one for all of them together, by geo and
in all. A channel's row holds what its own move brings if no other channel moves; under synergy these do not add up to
the row of all. Money says nothing where no such spend was learnt from, so each row says whether it asks for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Bool, Float, Int

from wmjax.core.errors import UserError
from wmjax.data.panel import Panel
from wmjax.data.schema import near
from wmjax.evaluate import attribution
from wmjax.evaluate.attribution import Window
from wmjax.worlds import contract
from wmjax.worlds.media import budget as budgets
from wmjax.worlds.media import model as pure
from wmjax.worlds.media import prepare, programs
from wmjax.worlds.media.budget import Bounds, Pair
from wmjax.worlds.media.model import Ready

if TYPE_CHECKING:
    from wmjax.worlds.media.world import MediaWorld

ALL = "all"
"""Label of the sum over units, and of all channels together."""
Move = Literal["channels", "within", "between"]
"""Where money moves: between channels, each keeping its split over geos; between channels within each geo; or between
channels and geos."""


def geos(panel: Panel) -> list[str]:
    """Name the geos that are answered for by themselves: none where there is one series, which is its own sum.

    Raises:
        UserError: a geo or a channel by the name of the sum.
    """
    if ALL in panel.schema.names("action"):
        raise UserError(f"a channel is named {ALL!r}, which names the sum over channels; rename it")
    names = [str(u) for u in panel.units] if panel.num_units > 1 else []
    if ALL in names:
        raise UserError(f"a unit is named {ALL!r}, which names the sum over units; rename it")
    return names


def shift(
    world: MediaWorld,
    panel: Panel,
    source: str,
    target: str,
    share: float,
    *,
    times: slice = slice(None),
    alpha: float = 0.1,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Say what moving a share of one channel's spend to another changes.

    Returns:
        A table (see `changes`), and of all together `mean`, `lo`, `hi`, the amount `moved`, `unit`, whether it is
        `extrapolated` and has `no_overlap`, and `warnings` that say why.
    """
    if not 0 <= share <= 1:
        raise UserError(f"share is {share}, must be from 0 to 1")
    i, j = world.channel_index(source), world.channel_index(target)
    if i == j:
        raise UserError(f"{source} is both source and target; nothing would move")
    over, plan = world.window(panel, times, None), jnp.asarray(panel.arrays.actions)
    moved = attribution.shifted(plan, i, j, share, over.change)
    table = changes(world, panel, moved, over, times, alpha, [i, j])
    beyond = outside(world, panel, moved, over)
    warned = [_told(world, panel, at, beyond[:, at], over) for at in (i, j) if beyond[:, at].any()]
    support = world.support.set_index("channel")["explained"]
    alone = [c for c in (source, target) if c in world.doubts().unidentified]
    warned += [
        f"no overlap: covariates explain {support[c]:.0%} of {c}'s spend, so hardly a period shows it moving by itself"
        for c in alone
    ]
    whole = table[(table["channel"] == ALL) & (table["geo"] == ALL)].iloc[0]
    numbers = {name: float(whole[name]) for name in ("mean", "lo", "hi")}
    flags = {"extrapolated": bool(beyond.any()), "no_overlap": bool(alone), "warnings": warned}
    return table, numbers | {"moved": float(jnp.sum(plan[..., i] * over.change) * share), "unit": whole["unit"]} | flags


def changes(
    world: MediaWorld, panel: Panel, plan: Array, over: Window, times: slice, alpha: float, moved: Sequence[int]
) -> pd.DataFrame:
    """Tabulate what a plan changes: channel, geo, spend, new_spend, factor, mean, lo, hi, extrapolated, unit.

    Args:
        plan: [units, time, channels], which differs from the panel's in the channels `moved`, within the window.

    Returns:
        mean, lo, hi are what the row's move alone adds to the outcome, in its `unit`; the channel `all` is them all.
    """
    names, old, history = geos(panel), jnp.asarray(panel.arrays.actions), world.history(panel)
    at = jnp.arange(old.shape[2])
    alone = [jnp.where(at == k, plan, old) for k in moved]
    start = times.indices(panel.num_times)[0]
    totals = world.asked(programs.totals, history, history, jnp.stack([old, *alone, plan]), over, start)
    by_geo = totals[:, 1:].astype(np.float64) - totals[:, :1]
    gains = np.concatenate([by_geo.sum(-1, keepdims=True), by_geo], -1)[..., : 1 + len(names)]
    mean, lo, hi = world.told(gains, alpha)
    change = np.asarray(over.change, np.float64)
    spent = [np.einsum("utk,t->ku", np.asarray(x, np.float64), change)[list(moved)] for x in (old, plan)]
    beyond = (outside(world, panel, plan, over) > 0)[:, list(moved)].any(0)
    spent = [np.concatenate([x, x.sum(0, keepdims=True)]) for x in spent]
    beyond = np.concatenate([beyond, beyond.any(0, keepdims=True)])
    whole = lambda x, sums: np.concatenate([sums[:, None], x], 1)[:, : 1 + len(names)]  # noqa: E731
    before, after = (whole(x, x.sum(1)) for x in spent)
    labels = [[*(world.channels[k] for k in moved), ALL], [ALL, *names]]
    columns = {
        "spend": before,
        "new_spend": after,
        "factor": after / np.where(before > 0, before, np.nan),
        "mean": mean,
        "lo": lo,
        "hi": hi,
        "extrapolated": whole(beyond, beyond.any(1)),
    }
    rows = pd.MultiIndex.from_product(labels, names=["channel", "geo"])
    table = pd.DataFrame({name: value.ravel() for name, value in columns.items()}, index=rows).reset_index()
    return table.assign(unit=prepare.outcome_name(panel, world.cfg))


def taught(world: MediaWorld, panel: Panel) -> Bool[np.ndarray, "units time"]:
    """Mark the rows that a world learnt from; of a panel without any, all that were observed."""
    learnt = contract.parts(world.facts, panel) == "train"
    return panel.arrays.mask & (learnt if learnt.any() else True)


def least(world: MediaWorld, panel: Panel) -> Float[np.ndarray, " channels"]:
    """Give the least spends that were learnt from, of all geos, per unit of size and as shares of the largest ones.

    Less by what is next to nothing: where there is hardly a difference to none, none is not beyond what was seen.
    """
    spend = np.asarray(world.history(panel).series.spend, np.float64)
    return spend[taught(world, panel)].min(0) - prepare.IDLE * world.scales.typical - 1e-6


def outside(
    world: MediaWorld, panel: Panel, plan: Float[Array, "*plans units time channels"], over: Window
) -> Int[np.ndarray, "ends *plans channels units"]:
    """Count the periods whose spend a plan moves below the least, and above the largest, that was learnt from.

    Both are of all geos' train periods, per unit of size; the periods are the panel's where it has no train period.
    """
    planned = np.asarray(pure.on_scale(world.history(panel), plan), np.float64)
    asked = (np.asarray(plan) != panel.arrays.actions) & panel.arrays.mask[..., None]
    asked &= (np.asarray(over.change) > 0)[:, None]
    beyond = (planned < least(world, panel), planned > 1 + 1e-6)
    return np.stack([(asked & there).sum(-2).swapaxes(-1, -2) for there in beyond])


def _told(world: MediaWorld, panel: Panel, at: int, beyond: Int[np.ndarray, "ends units"], over: Window) -> str:
    words, rows = ("below the least", "above the largest"), panel.arrays.mask[:, np.asarray(over.change) > 0].sum()
    ends = [f"{w} in {n} of {rows} rows" for w, n in zip(words, beyond.sum(1), strict=True) if n]
    there = [name for at, name in enumerate(geos(panel)) if beyond[:, at].any()]
    where = f", in {len(there)} of {panel.num_units} geos, first {there[0]}" if there else ""
    return f"extrapolated: {world.channels[at]} is put {' and '.join(ends)} of the spends that were learnt from{where}"


def optimize(
    world: MediaWorld,
    panel: Panel,
    *,
    budget: float | None = None,
    bounds: Bounds = (0.5, 1.5),
    move: Move = "channels",
    money: bool = False,
    rest: Pair = (1.0, 1.0),
    times: slice = slice(None),
    alpha: float = 0.1,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Split a budget for the largest expected outcome; see `MediaWorld.optimize_budget`."""
    if move not in get_args(Move):
        raise UserError(f"move is {move!r}, must be one of {', '.join(get_args(Move))}; {near(move, get_args(Move))}")
    over, plan = world.window(panel, times, None), jnp.asarray(panel.arrays.actions)
    cost = np.einsum("utk,t->ku", np.asarray(plan, np.float64), np.asarray(over.change, np.float64))
    if not (cost.sum(1) > 0).all():
        raise UserError(f"column {world.channels[int(cost.sum(1).argmin())]!r}: no spend in these periods to scale")
    if budget is not None and not budget > 0:
        raise UserError(f"budget is {budget:g}, must be positive")
    by_geo = move != "channels" and panel.num_units > 1
    places = geos(panel) if by_geo else [ALL]
    own = cost if by_geo else cost.sum(1, keepdims=True)
    if not by_geo and isinstance(bounds, Mapping) and (named := [k for k in bounds if isinstance(k, tuple)]):
        why = 'need geos to move by: move = "within" or "between"'
        if panel.num_units == 1:
            why = "name a geo, and there is one series; leave the geo out"
        raise UserError(f"bounds of {named[0][0]!r} in {named[0][1]!r} {why}")
    low, high = budgets.limits(bounds, world.channels, places, own, money=money, default=rest)
    some = own > 0
    within = move == "within" and by_geo
    # Geos without spend have no budget to split.
    filled, group = np.unique(np.nonzero(some)[1] * within, return_inverse=True)
    named = [places[at] for at in filled] if within else [""]
    wanted = np.bincount(group, own[some]) * (1.0 if budget is None else budget / own.sum())
    history, start = world.history(panel), times.indices(panel.num_times)[0]
    answering = world.answering(history)

    def spread(m: np.ndarray) -> np.ndarray:
        """Lay factors out as [units, 1, channels]; what was not spent cannot be scaled."""
        found = np.ones(own.shape)
        found[some] = m
        return found.T[:, None].astype(np.float32)

    def value(who: Ready, m: np.ndarray) -> tuple[float, np.ndarray]:
        r, g = programs.value(jnp.asarray(spread(m)), who, history, plan, over, start, cfg=world.cfg.network)
        return float(r), np.asarray(g, np.float64)[:, 0].T[some]

    # A pair of draws of each member come first, and are nearly all that there is to know.
    few = partial(value, jax.tree.map(lambda x: x[: 2 * world.members], answering)) if world.draws else None
    sides = (low[some], high[some], wanted, group, named)
    found = budgets.best(partial(value, answering), own[some], *sides, rough=few)
    factors = jnp.where((over.change > 0)[:, None], spread(found.factors), 1.0)
    told = changes(world, panel, plan * factors, over, times, alpha, range(len(world.channels)))
    names = np.array(world.channels)[np.nonzero(some)[0]]
    settled = pd.DataFrame(
        {
            "channel": names,
            "geo": np.array(places)[np.nonzero(some)[1]],
            "low": low[some],
            "high": high[some],
            "bound": np.select([found.at_low, found.at_high], ["low", "high"], ""),
            "return": found.returns,
            "residual": found.residual,
        }
    )
    table = told.merge(settled, on=["channel", "geo"], how="left").fillna({"bound": ""})
    gain = table[(table["channel"] == ALL) & (table["geo"] == ALL)].iloc[0]
    price = float(np.average(found.price, weights=wanted))
    numbers = {"start": found.start, "value": found.value, "price": price, "residual": float(found.residual.max())}
    return table, numbers | {"gain": float(gain["mean"]), "lo": float(gain["lo"]), "hi": float(gain["hi"])}
