"""The best split of fixed budgets, one a group of spends: `max R(m)` over multiples m of the spends, within bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from wmjax.core.errors import UserError
from wmjax.data.schema import near

Numbers = Float[np.ndarray, " spends"]
Pair = tuple[float | int, float | int]
Value = Callable[[Numbers], tuple[float, Numbers]]
"""`factors -> (R, its gradient)`."""
STEPS = 200
Bounds = Pair | Mapping[str, Pair] | Mapping[tuple[str, str], Pair] | Mapping[str | tuple[str, str], Pair]
"""One pair for all, or pairs by channel, or by channel and geo, which go before those by channel alone."""


class Split(NamedTuple):
    """A split of budgets.

    factors: multiple of each spend. value, start: R at it and at the plan that it began from. returns: the marginal
    return of each spend. price: [groups], the marginal return that the spends of a group inside their bounds share.
    residual: relative distance of a spend inside its bounds from its group's price, and of one at a bound by as much as
    it should move inwards (0 at an exact optimum). at_low, at_high: which are at a bound.
    """

    factors: Numbers
    value: float
    start: float
    returns: Numbers
    price: Float[np.ndarray, " groups"]
    residual: Numbers
    at_low: Bool[np.ndarray, " spends"]
    at_high: Bool[np.ndarray, " spends"]


def best(
    value: Value,
    cost: Numbers,
    low: Numbers,
    high: Numbers,
    budgets: Float[np.ndarray, " groups"],
    group: Int[np.ndarray, " spends"],
    names: Sequence[str] = ("",),
    *,
    rough: Value | None = None,
) -> Split:
    """Find the best factors, beginning from equal ones in a group.

    Where R is not concave the optimum may be a local one; it is never worse than the plan that it began from.

    Args:
        value: `factors -> (R, its gradient)`.
        rough: cheaper and nearly the same; climbed first, so that few steps are left to `value`.
        cost: each spend at factor 1; positive.
        low, high: bounds of the factors.
        budgets: what the factors of each group must cost.
        group: of each spend; money moves within groups alone.
        names: of the groups, for messages.

    Raises:
        UserError: bounds that cross, or that a budget cannot meet.
    """
    if not ((low <= high) & (low >= 0)).all():
        raise UserError(f"bounds must be 0 <= low <= high; they are {low.tolist()} and {high.tolist()}")
    member = group == np.arange(len(budgets))[:, None]
    for name, own, budget in zip(names, member, budgets, strict=True):
        least, most = float(cost[own] @ low[own]), float(cost[own] @ high[own])
        if not least - 1e-6 * budget <= budget <= most + 1e-6 * budget:
            of = f" of {name}" if name else ""
            raise UserError(
                f"a budget{of} of {budget:,.6g} cannot be met: the bounds cost from {least:,.6g} to {most:,.6g}"
            )
    # Equal factors, moved into their bounds by equal amounts.
    begin = _project((budgets / (member @ cost))[group], np.ones(len(cost)), cost, low, high, budgets, group)
    start, slope = value(begin)
    first = begin, start, slope
    if rough is not None:
        there = _climb(rough, (begin, *rough(begin)), cost, low, high, budgets, group)[0]
        first = max(first, (there, *value(there)), key=lambda at: at[1])
    end, reached, gradient = _climb(value, first, cost, low, high, budgets, group)
    at_low, at_high = end <= low + 1e-6, end >= high - 1e-6
    returns, fixed = gradient / cost, high - low < 1e-9
    price = np.array([_price(returns, cost, at_low, at_high, own & ~fixed) for own in member])
    off = returns - price[group]
    off = np.where(at_low, off, np.where(at_high, -off, np.abs(off)))
    # A spend whose two bounds are one cannot move.
    residual = np.where(fixed, 0.0, np.maximum(off, 0.0)) / np.maximum(np.abs(price), 1e-12)[group]
    return Split(end, float(reached), float(start), returns, price, residual, at_low, at_high)


def _price(returns: Numbers, cost: Numbers, at_low: np.ndarray, at_high: np.ndarray, among: np.ndarray) -> float:
    """Average the returns inside; where all are at bounds, stand between those at the lower and those at the upper."""
    if (inside := among & ~(at_low | at_high)).any():
        return float(np.average(returns[inside], weights=cost[inside]))
    ends = (returns[among & at_low].max(initial=-np.inf), returns[among & at_high].min(initial=np.inf))
    known = [float(end) for end in ends if np.isfinite(end)]
    return sum(known) / len(known) if known else float(returns.mean())


def _climb(
    value: Value, at: tuple[Numbers, float, Numbers], cost: Numbers, low: Numbers, high: Numbers, *groups: Any
) -> tuple[Numbers, float, Numbers]:
    """Climb by steps that are best for a model of R without cross terms, its curvature told by the last two gradients.

    R of channels that do not interact has none, and the steps are Newton's; else they still climb. SciPy's SLSQP finds
    the same in ten times as many evaluations, and takes minutes of its own for 400 spends.
    """
    m, r, g = highest = at
    curve = cost * max(float(np.abs(g / cost).max()), 1e-12) / np.maximum(0.5 * (high - low), 1e-12)
    floor = 1e-3 * curve
    for _ in range(STEPS):
        move = _project(m + g / curve, cost / curve, cost, low, high, *groups) - m
        rise = float(g @ move)
        if rise <= 1e-10 * float(np.abs(g) @ m):
            break
        step, there = 1.0, value(m + move)
        # Near the top what is won is less than float32 can tell; of the points seen the best is given.
        while there[0] < r + 1e-4 * step * rise - 2e-7 * abs(r) and step > 1e-3:
            step /= 2
            there = value(m + step * move)
        if step <= 1e-3:
            break
        moved = np.abs(move) > 1e-9
        told = np.where(moved, (g - there[1]) / np.where(moved, step * move, 1.0), curve)
        curve = np.maximum(np.clip(told, curve / 10, curve * 10), floor)
        m, (r, g) = m + step * move, there
        if r >= highest[1]:
            highest = m, r, g
    return highest


def _project(
    m: Numbers, slope: Numbers, cost: Numbers, low: Numbers, high: Numbers, budgets: np.ndarray, group: np.ndarray
) -> Numbers:
    """Give `clip(m - price slope, low, high)` at the price of each group at which it costs its budget, by bisection."""
    ends = np.stack([(m - high) / slope, (m - low) / slope])
    least = np.full(len(budgets), np.inf)
    most = -least
    np.minimum.at(least, group, ends[0])
    np.maximum.at(most, group, ends[1])
    for _ in range(100):
        price = (least + most) / 2
        spent = np.bincount(group, cost * np.clip(m - price[group] * slope, low, high), len(budgets))
        least, most = np.where(spent > budgets, price, least), np.where(spent > budgets, most, price)
    return np.clip(m - ((least + most) / 2)[group] * slope, low, high)


def limits(
    bounds: Bounds,
    channels: Sequence[str],
    geos: Sequence[str],
    cost: Float[np.ndarray, "channels geos"],
    *,
    money: bool,
    default: Pair = (1.0, 1.0),
) -> tuple[Float[np.ndarray, "channels geos"], Float[np.ndarray, "channels geos"]]:
    """Lay bounds out by channel and geo, as multiples of the spend that was.

    Args:
        bounds: see `Bounds`; a channel's pair holds in each of its geos.
        channels, geos: their names.
        cost: what was spent.
        money: whether pairs of a mapping are amounts: of a channel, all its geos together, in proportion to what was
            spent there, and none of its geos is named too; of a channel and geo, there. Where nothing was spent there
            is nothing to scale, and bounds have no effect.
        default: multiples of what a mapping leaves out.

    Raises:
        UserError: names that there are not, bounds that are not 0 <= low <= high, amounts both of a channel and of one
            of its geos, an amount asked for where nothing was spent, or money without named channels.
    """
    whole = not isinstance(bounds, Mapping)
    given: dict[tuple[str, str | None], Pair] = {}
    for name, pair in {} if whole else bounds.items():
        channel, geo = name if isinstance(name, tuple) else (name, None)
        if channel not in channels:
            raise UserError(f"bounds name {channel!r}, which is no channel; {near(channel, channels)}")
        if geo is not None and geo not in geos:
            raise UserError(f"bounds of {channel!r} name {geo!r}, which is no geo; {near(geo, geos)}")
        given[channel, geo] = _checked(pair, channel if geo is None else f"{channel} in {geo}")
        if money and geo is not None and pair[0] > 0 and not cost[channels.index(channel), geos.index(geo)] > 0:
            raise UserError(
                f"bounds of {channel} in {geo} are from {pair[0]:g}, where no spend is that could be scaled"
            )
    if money and (mixed := [key for key in given if key[1] is not None and (key[0], None) in given]):
        raise UserError(
            f"bounds of {mixed[0][0]} are amounts of all its geos and of {mixed[0][1]} alone; in money, bound a "
            "channel or its geos"
        )
    if money and whole:
        raise UserError("money is said of no bounds: amounts are of named channels, one pair for all is of multiples")
    rest = _checked(bounds if whole else default, "all channels")
    found = np.empty((2, *cost.shape))
    for i, channel in enumerate(channels):
        for j, geo in enumerate(geos):
            own = next((key for key in ((channel, geo), (channel, None)) if key in given), None)
            if own is None:
                found[:, i, j] = rest
                continue
            of = cost[i, j] if own[1] is not None else cost[i].sum()
            found[:, i, j] = np.array(given[own]) / (max(of, 1e-12) if money else 1.0)
    return found[0], found[1]


def _checked(pair: Pair, whose: str) -> Pair:
    low, high = pair
    if not (0 <= low <= high and math.isfinite(high)):
        raise UserError(f"bounds of {whose} are {low:g} to {high:g}; they must be 0 <= low <= high")
    return float(low), float(high)


def read_bounds(source: str) -> dict[str | tuple[str, str], Pair]:
    """Read bounds by channel and geo from words, `tv=0.5:1.5 search@north=0:2`, or from a table.

    Args:
        source: words; or the name of a `.csv` or `.parquet` file with the columns channel, low, high, and geo where
            bounds differ by geo (empty or `all`: in every geo).

    Raises:
        UserError: words or a table that say something else, or the same thing twice.
    """
    if source.endswith((".csv", ".parquet")):
        return _table(Path(source))
    found: dict[str | tuple[str, str], Pair] = {}
    for word in source.split():
        name, _, pair = word.rpartition("=")
        ends = pair.split(":")
        try:
            low, high = (float(end) for end in ends)
        except ValueError:
            name = ""
        channel, _, geo = name.partition("@")
        if not channel or name.endswith("@"):
            raise UserError(f"bounds: cannot read {word!r}; write tv=0.5:1.5, or tv@north=0.5:1.5 for one geo")
        _add(found, (channel, geo) if geo else channel, (low, high), word)
    if not found:
        raise UserError("bounds: nothing is said; write tv=0.5:1.5, or name a .csv or .parquet file")
    return found


def _table(path: Path) -> dict[str | tuple[str, str], Pair]:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        if path.suffix == ".csv":
            # A geo may be called NA; only an empty one is none.
            table = pd.read_csv(
                path, dtype={"channel": str, "geo": str}, keep_default_na=False, na_values={"geo": [""]}
            )
        else:
            table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    for name in ("channel", "low", "high"):
        if name not in table:
            raise UserError(f"{path}: no column {name!r}; {near(name, table.columns)}")
    found: dict[str | tuple[str, str], Pair] = {}
    geos = table["geo"] if "geo" in table else pd.Series([None] * len(table))
    for row, (channel, geo, low, high) in enumerate(
        zip(table["channel"], geos, table["low"], table["high"], strict=True)
    ):
        try:
            pair = float(low), float(high)
        except (TypeError, ValueError):
            raise UserError(f"{path}: row {row + 1} has no numbers ({low!r}, {high!r})") from None
        everywhere = pd.isna(geo) or str(geo) in ("", "all")
        _add(found, str(channel) if everywhere else (str(channel), str(geo)), pair, f"{path}: row {row + 1}")
    return found


def _add(found: dict[str | tuple[str, str], Pair], key: str | tuple[str, str], pair: Pair, where: str) -> None:
    if key in found:
        raise UserError(f"bounds: {where} says twice what {key!r} may be")
    found[key] = pair
