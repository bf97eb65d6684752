"""The check of `experiments.sweep_at_scale`: a table of best plans is asked of `predict`, and a wrong one is found."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from experiments import sweep_at_scale as scale
from wmjax.sweep import axes
from wmjax.sweep.ranks import Best
from wmjax.worlds import sweeping
from wmjax.worlds.sweeping import Setting

START = 65


@pytest.fixture
def prices(monkeypatch):
    monkeypatch.setattr(scale, "WORTH", (("visit", 1.0), ("purchase", 2.0)))
    monkeypatch.setattr(scale, "COST", (("push", 0.02), ("coupon", 0.3)))


def test_a_published_plan_is_worth_what_predict_says(world, panel, prices):
    few = panel.select(units=panel.units[:6])
    grid = axes.axis("push", [0, 1]) * axes.axis("coupon", [0, 1])
    setting = Setting(start=START, worth=scale.WORTH, cost=scale.COST)
    found = sweeping.sweep(world, few, grid, key=jax.random.key(0), setting=setting, reduce={"best": Best(of="profit")})
    value = found["best_value"].values
    told = scale.profits(world, few, found, grid.names, START)
    np.testing.assert_allclose(told, value, atol=1e-5)
    wrong = found.copy(deep=True)
    wrong["best_best_push"][2] = 1 - wrong["best_best_push"][2]
    other = scale.profits(world, few, wrong, grid.names, START)
    assert other[2] < value[2] - 1e-4
    np.testing.assert_allclose(np.delete(other, 2), np.delete(value, 2), atol=1e-5)


def test_the_subgrid_holds_every_published_level_and_both_ends():
    levels = np.linspace(0.0, 1.0, 11)
    got = scale.with_levels(levels, np.array([levels[3], levels[3], levels[8]]))
    np.testing.assert_array_equal(got, levels[[0, 2, 3, 4, 6, 8, 10]])


def test_a_process_knows_how_long_it_has_run():
    first = scale.age()
    assert 0 < first < 24 * 3600
    assert scale.age() >= first
