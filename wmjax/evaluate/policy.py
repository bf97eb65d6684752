"""Who should get what under a budget, and what a policy is worth on rows whose action was drawn by chance.

An allocation gives each unit one of the plans: it maximises `sum gain[plan_i, i]` subject to
`sum cost[plan_i, i] <= budget` (a knapsack with a choice in each class; Sinha and Zoltners, 1979).
"""

from __future__ import annotations

import heapq
import itertools
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import scipy.sparse
from jaxtyping import Bool, Float, Int

from wmjax.core.errors import UserError


class Allocation(NamedTuple):
    """A plan for each unit.

    Attributes:
        plan: [units], the plan's number.
        gain, cost: of all units together.
        bound: no allocation within the budget gains more.
    """

    plan: Int[np.ndarray, " units"]
    gain: float
    cost: float
    bound: float


def greedy(gain: Float[np.ndarray, "plans units"], cost: Float[np.ndarray, "plans units"], budget: float) -> Allocation:
    """Buy the steps of most gain a unit of money, until the budget is spent.

    Each unit's plans are reduced to their upper concave hull; its steps, sorted by their slope over all units, are
    bought while they fit. What is lost against the best is less than the gain of the one step that no longer fits
    (the relaxation buys a part of it), which `bound` adds. With what is left then, units are given better plans, off
    the hull too, largest gain first: of one unit that is the best there is.

    Raises:
        UserError: not even each unit's cheapest plan is within the budget.
    """
    _check(gain, cost, budget)
    base = _cheapest(gain, cost)
    units = np.arange(gain.shape[1])
    spent = float(cost[base, units].sum())
    if spent > budget + _slack(budget):
        raise UserError(f"the cheapest plan of every unit costs {spent:.6g} together, the budget is {budget:.6g}")
    steps = [step for unit in units for step in _hull(gain[:, unit], cost[:, unit], int(base[unit]), int(unit))]
    steps.sort(key=lambda s: -s.slope)
    plan, left, bound, first = base.copy(), budget - spent, None, float(gain[base, units].sum())
    total, closed = first, np.zeros(len(units), bool)
    for step in steps:
        if step.cost > left + _slack(budget):
            bound = total + step.slope * left if bound is None else bound
            closed[step.unit] = True
        elif not closed[step.unit]:
            plan[step.unit], left, total = step.plan, left - step.cost, total + step.gain
    plan = _completed(plan, gain, cost, left + _slack(budget))
    chosen = float(gain[plan, units].sum())
    # Of one unit it is the best, and so its own bound.
    bound = chosen if len(units) == 1 else max(chosen, total if bound is None else bound)
    return Allocation(plan, chosen, float(cost[plan, units].sum()), bound)


def _completed(
    plan: Int[np.ndarray, " units"],
    gain: Float[np.ndarray, "plans units"],
    cost: Float[np.ndarray, "plans units"],
    left: float,
) -> Int[np.ndarray, " units"]:
    """Give one unit after the other the best plan that the money left allows, the largest gain first."""

    def better(unit: int) -> tuple[float, int, int]:
        """Say what the unit's best plan gains more, negated, as heaps have it."""
        own = np.where(cost[:, unit] <= cost[plan[unit], unit] + left, gain[:, unit], -np.inf)
        best = int(own.argmax())
        return float(gain[plan[unit], unit] - own[best]), unit, best

    plan = plan.copy()
    waiting = [found for unit in range(len(plan)) if (found := better(unit))[0] < 0]
    heapq.heapify(waiting)
    while waiting:
        # What was found while there was more money is found anew, and waits again where others gain more now.
        found = better(heapq.heappop(waiting)[1])
        if found[0] >= 0:
            continue
        if waiting and found > waiting[0]:
            heapq.heappush(waiting, found)
            continue
        _, unit, best = found
        left -= float(cost[best, unit] - cost[plan[unit], unit])
        plan[unit] = best
    return plan


def exact(gain: Float[np.ndarray, "plans units"], cost: Float[np.ndarray, "plans units"], budget: float) -> Allocation:
    """Find the best allocation by mixed integer linear programming (HiGHS, through `scipy.optimize.milp`).

    Raises:
        UserError: nothing is within the budget, or the solver gives up.
    """
    _check(gain, cost, budget)
    plans, units = gain.shape
    once = scipy.sparse.kron(np.ones((1, plans)), scipy.sparse.eye(units), format="csr")
    found = scipy.optimize.milp(
        -gain.ravel(),
        constraints=[
            scipy.optimize.LinearConstraint(once, 1, 1),
            scipy.optimize.LinearConstraint(cost.reshape(1, -1), -np.inf, budget),
        ],
        integrality=np.ones(gain.size),
        bounds=scipy.optimize.Bounds(0, 1),
    )
    if found.x is None:
        raise UserError(f"no allocation within a budget of {budget:.6g} was found ({found.message})")
    plan = np.asarray(found.x).reshape(plans, units).argmax(0)
    at = np.arange(units)
    bound = -float(found.mip_dual_bound)
    return Allocation(plan, float(gain[plan, at].sum()), float(cost[plan, at].sum()), bound)


class _Step(NamedTuple):
    """From one plan of a unit's hull to the next: what it costs and gains more."""

    unit: int
    plan: int
    cost: float
    gain: float

    @property
    def slope(self) -> float:
        return self.gain / self.cost if self.cost > 0 else np.inf


def _hull(gain: np.ndarray, cost: np.ndarray, base: int, unit: int) -> list[_Step]:
    """Give the steps of the upper concave hull of a unit's plans, from the cheapest one on, slopes falling."""
    order = np.lexsort((-gain, cost))
    hull = [base]
    for at in map(int, order):
        if gain[at] <= gain[hull[-1]] or cost[at] <= cost[base]:
            continue
        while len(hull) > 1 and _above(gain, cost, hull[-2], hull[-1], at):
            hull.pop()
        hull.append(at)
    return [_Step(unit, b, float(cost[b] - cost[a]), float(gain[b] - gain[a])) for a, b in itertools.pairwise(hull)]


def _above(gain: np.ndarray, cost: np.ndarray, a: int, b: int, c: int) -> bool:
    """Tell whether b lies on or below the line from a to c."""
    return bool((gain[b] - gain[a]) * (cost[c] - cost[a]) <= (gain[c] - gain[a]) * (cost[b] - cost[a]))


def _cheapest(gain: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Take each unit's cheapest plan, of equals the one of most gain."""
    least = cost == cost.min(axis=0)
    return np.where(least, gain, -np.inf).argmax(axis=0)


def _slack(budget: float) -> float:
    return 1e-9 * max(1.0, abs(budget))


def _check(gain: np.ndarray, cost: np.ndarray, budget: float) -> None:
    if not budget > -np.inf:
        raise UserError(f"budget is {budget}, must be a number")
    if gain.shape != cost.shape:
        raise ValueError(f"gains are {gain.shape} and costs {cost.shape}; both are [plans, units]")
    if not (np.isfinite(gain).all() and np.isfinite(cost).all()):
        bad = int((~np.isfinite(gain)).sum() + (~np.isfinite(cost)).sum())
        raise UserError(f"{bad} gains or costs are not finite")


class PolicyValue(NamedTuple):
    """Mean outcome of a row under a policy, and its standard error over units."""

    value: float
    se: float


def policy_value(
    policy: Int[np.ndarray, " rows"],
    taken: Int[np.ndarray, " rows"],
    outcome: Float[np.ndarray, " rows"],
    probability: Float[np.ndarray, " rows"],
    *,
    predicted: Float[np.ndarray, "rows actions"] | None = None,
    unit: Any = None,
) -> PolicyValue:
    """Estimate what a policy would have brought, from rows whose action was drawn with a known probability.

        IPW:  mean of  1[a = pi(x)] y / p(a | x)
        DR:   mean of  m(x, pi(x)) + 1[a = pi(x)] (y - m(x, a)) / p(a | x)

    IPW is unbiased where the probabilities are right; with predictions the estimate is doubly robust (Robins and
    Rotnitzky, 1995; Dudik, Langford and Li, 2011), and has less variance the better they are. Neither holds for
    actions that were not drawn by chance.

    Args:
        policy: the action that the policy would take in each row.
        taken: the action that was taken.
        outcome: of each row, held out from what made the policy.
        probability: that the action taken was taken.
        predicted: expected outcome of each row under each action.
        unit: of each row; rows of one unit are one draw for the standard error. Each row is one if not given.
    """
    at = np.arange(len(policy))
    expected = None if predicted is None else (predicted[at, policy], predicted[at, taken])
    return clustered_mean(scores(policy == taken, outcome, probability, expected=expected), unit)


def scores(
    met: Bool[np.ndarray, " rows"],
    outcome: Float[np.ndarray, " rows"],
    probability: Float[np.ndarray, " rows"],
    *,
    expected: tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]] | None = None,
) -> Float[np.ndarray, " rows"]:
    """Score rows so that their mean is the policy's value; see `policy_value`.

    Args:
        met: whether what was done is what the policy does.
        outcome: of each row.
        probability: of what was done.
        expected: of each row, under the policy and under what was done; doubly robust with it.
    """
    if not ((probability > 0) & (probability <= 1)).all():
        raise UserError("probabilities must be above 0 and at most 1: an action that had none says nothing")
    weight = np.where(met, 1.0 / probability, 0.0)
    return weight * outcome if expected is None else expected[0] + weight * (outcome - expected[1])


def clustered_mean(score: Float[np.ndarray, " rows"], unit: Any = None) -> PolicyValue:
    """Average rows, with the standard error of units that are drawn whole."""
    value = float(score.mean())
    groups = np.arange(len(score)) if unit is None else np.unique(unit, return_inverse=True)[1]
    sums = np.bincount(groups, score - value)
    count = len(sums)
    return PolicyValue(value, float(np.sqrt((sums**2).sum() * count / max(count - 1, 1)) / len(score)))
