"""The best split of a fixed budget: `max R(m)` over multiples m of the channels' spend, within bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import minimize

from wmjax.core.errors import UserError

Numbers = Float[np.ndarray, " channels"]


class Split(NamedTuple):
    """A split of a budget.

    factors: multiple of each channel's spend. value, start: R at it and at the plan that it began from. price: the
    marginal return that all channels inside their bounds share. residual: largest relative distance of such a channel's
    marginal return from it, and of a bound one that should move inwards (0 at an exact optimum). bound: which are at a
    bound.
    """

    factors: Numbers
    value: float
    start: float
    price: float
    residual: float
    bound: Bool[np.ndarray, " channels"]


def best(
    value: Callable[[Numbers], tuple[float, Numbers]], cost: Numbers, low: Numbers, high: Numbers, budget: float
) -> Split:
    """Find the best factors, beginning from equal ones, by sequential quadratic programming (Kraft 1988).

    Args:
        value: `factors -> (R, its gradient)`.
        cost: spend of each channel at factor 1; positive.
        low, high: bounds of the factors.
        budget: what the factors must cost.

    Raises:
        UserError: bounds that cross, or that the budget cannot meet.
    """
    if (low > high).any() or (low < 0).any():
        raise UserError(f"bounds must be 0 <= low <= high; they are {low.tolist()} and {high.tolist()}")
    least, most = float(cost @ low), float(cost @ high)
    if not least - 1e-6 * budget <= budget <= most + 1e-6 * budget:
        raise UserError(f"a budget of {budget:,.6g} cannot be met: the bounds cost from {least:,.6g} to {most:,.6g}")
    begin = _feasible(np.full(len(cost), budget / cost.sum()), cost, low, high, budget)
    start, slope = value(begin)
    unit = max(float(np.abs(slope).max()), 1e-12)

    def loss(m: Numbers) -> tuple[float, Numbers]:
        r, g = value(m)
        return -(r - start) / unit, -g / unit

    share = cost / budget
    found = minimize(
        loss,
        begin,
        jac=True,
        method="SLSQP",
        bounds=list(zip(low, high, strict=True)),
        constraints=[{"type": "eq", "fun": lambda m: share @ m - 1, "jac": lambda m: share}],
        options={"maxiter": 200, "ftol": 1e-10},
    )
    end = _feasible(np.clip(found.x, low, high), cost, low, high, budget)
    reached, gradient = value(end)
    if not reached >= start:
        # Rounding, or a search that failed: the plan that it began from is never given up for less.
        end, reached, gradient = begin, start, slope
    at_low, at_high = end <= low + 1e-6, end >= high - 1e-6
    inside = ~(at_low | at_high)
    returns = gradient / cost
    price = float(np.average(returns[inside], weights=cost[inside])) if inside.any() else float(np.median(returns))
    off = np.where(inside, np.abs(returns - price), np.where(at_low, returns - price, price - returns))
    # A channel whose two bounds are one cannot move.
    off = np.where(high - low < 1e-9, 0.0, off)
    residual = float(np.maximum(off, 0).max() / max(abs(price), 1e-12))
    return Split(end, float(reached), float(start), price, residual, ~inside)


def _feasible(m: Numbers, cost: Numbers, low: Numbers, high: Numbers, budget: float) -> Numbers:
    """Move factors by equal spend shares into the bounds until they cost the budget."""
    m = np.clip(m, low, high)
    for _ in range(100):
        gap = budget - cost @ m
        room = (high - m) if gap > 0 else (m - low)
        total = cost @ room
        if abs(gap) <= 1e-9 * budget or total <= 0:
            break
        m = np.clip(m + np.sign(gap) * room * min(1.0, abs(gap) / total), low, high)
    return m
