"""Allocations against all allocations, one by one; policy values against the truth of a simulated experiment."""

import itertools

import numpy as np
import pytest

from wmjax.core.errors import UserError
from wmjax.evaluate import policy


def brute(gain, cost, budget):
    """The best of all plans ** units allocations."""
    units = np.arange(gain.shape[1])
    fits = (np.array(p) for p in itertools.product(range(gain.shape[0]), repeat=len(units)))
    return max(gain[p, units].sum() for p in fits if cost[p, units].sum() <= budget + 1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_allocations_against_all_allocations(seed):
    rng = np.random.default_rng(seed)
    gain, cost = rng.normal(1.0, 2.0, (4, 5)), rng.uniform(0.0, 3.0, (4, 5))
    gain[0] = cost[0] = 0.0
    for budget in (0.0, 1.0, 4.0, 100.0):
        best = brute(gain, cost, budget)
        found, rough = policy.exact(gain, cost, budget), policy.greedy(gain, cost, budget)
        assert found.gain == pytest.approx(best, abs=1e-6)
        assert found.bound == pytest.approx(best, abs=1e-5)
        for each in (found, rough):
            assert each.cost <= budget + 1e-6
            assert each.gain == pytest.approx(gain[each.plan, np.arange(5)].sum())
        assert rough.gain <= best + 1e-9 <= rough.bound + 2e-9
    assert rough.gain == pytest.approx(gain.max(0).sum())


def test_greedy_is_near_the_best_of_many_units():
    """What greedy loses is less than one step of one unit, so little of a thousand units."""
    rng = np.random.default_rng(0)
    gain, cost = np.sort(rng.uniform(0, 1, (6, 1000)), axis=0), np.sort(rng.uniform(0, 2, (6, 1000)), axis=0)
    gain[0] = cost[0] = 0.0
    rough = policy.greedy(gain, cost, 300.0)
    assert rough.cost <= 300.0
    assert rough.bound - rough.gain < 1.0
    assert rough.gain > 0.99 * rough.bound


def test_of_one_unit_greedy_is_exact():
    """The hull of one unit's plans may have far ends alone; what the budget allows lies between."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        gain, cost = rng.normal(0.0, 3.0, (30, 1)), rng.uniform(-5.0, 5.0, (30, 1))
        found = policy.greedy(gain, cost, 0.0)
        assert found.gain == found.bound == np.where(cost <= 0, gain, -np.inf).max()
        assert found.cost <= 0.0


def test_what_is_left_of_the_budget_buys_plans_off_the_hull():
    """Two units whose hull goes from nothing to a plan of cost 4; the budget of 3 buys the plan of cost 3 of one."""
    gain, cost = np.array([[0.0, 0.0], [4.0, 5.0], [8.0, 9.0]]), np.array([[0.0, 0.0], [3.0, 3.0], [4.0, 4.0]])
    found = policy.greedy(gain, cost, 3.0)
    assert found.plan.tolist() == [0, 1]
    assert found.bound == pytest.approx(3 * 9 / 4)
    assert policy.greedy(gain, cost, 7.0).gain == policy.exact(gain, cost, 7.0).gain == 13.0


def test_plans_that_cost_less_than_nothing_are_taken():
    gain, cost = np.array([[0.0, 0.0], [1.0, -1.0]]), np.array([[0.0, 0.0], [-2.0, -1.0]])
    for found in (policy.greedy(gain, cost, 0.0), policy.exact(gain, cost, 0.0)):
        assert found.plan[0] == 1
        assert found.cost <= 0.0


def test_policy_values_hold_the_truth():
    """400 experiments of 200 units x 3 rows: 95 % intervals hold 92 to 98 %; false alarm below 1 in 100."""
    rng = np.random.default_rng(1)
    hit = {"ipw": 0, "dr": 0}
    spread = {"ipw": [], "dr": []}
    wrong = 0
    for _ in range(400):
        unit = np.repeat(np.arange(200), 3)
        x = rng.normal(size=200)[unit]
        chance = 1 / (1 + np.exp(-x))
        taken = (rng.random(600) < chance).astype(int)
        mean = np.stack([x, 0.5 + 0 * x], axis=1)
        y = mean[np.arange(600), taken] + 0.3 * rng.normal(size=200)[unit] + 0.2 * rng.normal(size=600)
        chosen = (x < 0.5).astype(int)
        truth = np.mean(np.where(chosen, 0.5, x))
        p = np.where(taken == 1, chance, 1 - chance)
        for name, predicted in (("ipw", None), ("dr", mean + 0.1)):
            found = policy.policy_value(chosen, taken, y, p, predicted=predicted, unit=unit)
            spread[name].append(found.value - truth)
            # The truth of this sample's rows: x is fixed, what is left is the draw of actions and outcomes.
            hit[name] += abs(found.value - truth) < 1.96 * found.se
        # A probability that was not drawn with is found out by the same interval.
        found = policy.policy_value(chosen, taken, y, np.full(600, 0.5), unit=unit)
        wrong += abs(found.value - truth) < 1.96 * found.se
    assert wrong < 0.5 * 400
    for errors in spread.values():
        assert abs(np.mean(errors)) < 5 * np.std(errors) / 20
    assert np.std(spread["dr"]) < np.std(spread["ipw"])
    # Units' own x adds to the standard error what it does not add to the error, so intervals err on the long side.
    assert all(count >= 0.92 * 400 for count in hit.values())


def test_mistakes_are_named():
    one = np.ones((2, 3))
    with pytest.raises(UserError, match="cheapest plan of every unit costs 3 together, the budget is 2"):
        policy.greedy(one, one, 2.0)
    with pytest.raises(UserError, match="no allocation within a budget of 2"):
        policy.exact(one, one, 2.0)
    for solver, budget in itertools.product((policy.greedy, policy.exact), (np.nan, -np.inf)):
        with pytest.raises(UserError, match=r"budget is -?(nan|inf), must be a number"):
            solver(one, one, budget)
    with pytest.raises(UserError, match="1 gains or costs are not finite"):
        policy.exact(np.where(np.eye(2, 3) > 0, np.nan, 1.0)[:1], one[:1], 2.0)
    with pytest.raises(UserError, match="must be above 0"):
        policy.policy_value(np.zeros(2, int), np.zeros(2, int), np.zeros(2), np.array([0.0, 1.0]))
