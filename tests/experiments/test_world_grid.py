"""The grid of worlds: what counts as won, and one tiny world from the simulator to the map."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from experiments import world_grid
from experiments.common import Cell, Options
from experiments.world_grid import METHODS, SMOKE, World

WORLD = World(64, 30, 0.0, 0.1)


def seeds(errors: dict[str, list[float]]):
    """Lay out root-PEHE by method and seed; methods that are not named err by 1."""
    count = len(next(iter(errors.values())))
    full = {m: errors.get(m, [9.0] * count) for m in METHODS}
    return [{Cell(WORLD.name, m, "root_pehe"): full[m][at] for m in METHODS} for at in range(count)]


def test_a_world_is_won_by_more_than_luck():
    """Paired: a method that is better by .1 on every seed wins, whatever all methods' errors do from seed to seed."""
    shared = np.array([0.2, 0.9, 0.4, 0.7])
    best = world_grid.best_of(seeds({"traits": list(shared), "constant": list(shared + 0.1)}), WORLD)
    assert best == ("traits", pytest.approx(shared.mean() / (shared + 0.1).mean()), True)
    noisy = shared + np.array([0.3, -0.2, 0.2, -0.25])
    best = world_grid.best_of(seeds({"traits": list(shared), "constant": list(noisy)}), WORLD)
    assert (best.method, best.clear) == ("traits", False)
    assert not world_grid.best_of(seeds({"traits": [0.1], "constant": [0.9]}), WORLD).clear, "one seed proves nothing"


def test_wins_are_counted_by_level():
    study = dataclasses.replace(SMOKE, consumers=(64,), days=(30,), targeting=(0.0,), shock=(0.1,), seeds=2)
    found = seeds({"additive": [0.1, 0.2], "constant": [0.6, 0.7]})
    rows = {Cell(r.setting, r.method, r.quantity): r.value for r in world_grid.tell(found, study)}
    for setting in ("all", "consumers=64", "shock=0.1"):
        assert rows[Cell(setting, "additive", "wins")] == 1
        assert rows[Cell(setting, "traits", "wins")] == rows[Cell(setting, "traits", "smallest")] == 0
        assert rows[Cell(setting, "constant", "root_pehe")] == pytest.approx(0.65)


def test_a_world_is_kept_and_read_again(tmp_path, monkeypatch):
    """With a stand-in for the fits: the truth itself has no error and wins; a second command simulates nothing."""

    def truth(key, data, world, *, study):
        true = world_grid.consumer_truth.effect(data.sim, "sale1", "purchase", cfg=data.cfg, gumbel="averaged")
        own = true.probability[:, data.days[2]].ravel()
        return {m: own + 0.01 * at for at, m in enumerate(METHODS)}

    monkeypatch.setattr(world_grid, "estimate", truth)
    study = dataclasses.replace(SMOKE, shock=(0.1,), seeds=2)
    path = world_grid.work(Options(out=tmp_path, size="smoke"), lambda event: None, study)
    rows = {Cell(r["setting"], r["method"], r["quantity"]): r["value"] for r in json.loads(path.read_text())["rows"]}
    (world,) = study.worlds()
    assert rows[Cell(world.name, "traits", "root_pehe")] == pytest.approx(0.0, abs=1e-6)
    assert rows[Cell(world.name, "constant", "ate_error")] == pytest.approx(0.01, abs=1e-6)
    assert rows[Cell(world.name, "truth", "mean")] > 0.02, "a sale of a quarter of the price is felt"
    assert rows[Cell("all", "traits", "wins")] == 1
    assert (tmp_path / "world_grid.png").stat().st_size > 1000
    monkeypatch.setattr(world_grid, "simulate", None)
    again = world_grid.work(Options(out=tmp_path, size="smoke"), lambda event: None, study)
    assert json.loads(again.read_text())["rows"] == json.loads(path.read_text())["rows"]
