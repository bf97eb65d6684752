"""A media world a region, all in one program: what one region alone would have got."""

from __future__ import annotations

import dataclasses
import logging

import jax
import numpy as np
import pandas as pd
import pytest

from wmjax import cli
from wmjax.core import files
from wmjax.core.errors import DivergedError, UserError
from wmjax.data.panel import Panel
from wmjax.report import media_commands
from wmjax.simulate import media as simulated
from wmjax.simulate.media import MediaSimConfig
from wmjax.worlds import contract, media
from wmjax.worlds.media import each
from wmjax.worlds.media.config import SMOKE

SIM = MediaSimConfig(num_geos=6, num_weeks=40, num_channels=2, always_on=1)
CFG = dataclasses.replace(SMOKE, members=2, errors_in_variables=False)
KEY = jax.random.key(4)


@pytest.fixture(scope="module")
def panel():
    return simulated.panel(simulated.simulate(3, SIM))


class Compiled(logging.Handler):
    """Hears what JAX says while it compiles."""

    def __init__(self):
        super().__init__()
        self.said = []

    def emit(self, record):
        self.said.append(record.getMessage())

    def count(self, name):
        return sum(f"XLA compilation of jit({name})" in line for line in self.said)


@pytest.fixture(scope="module")
def compiled():
    return Compiled()


@pytest.fixture(scope="module")
def fitted(panel, compiled):
    logger = logging.getLogger("jax")
    logger.addHandler(compiled)
    with jax.log_compiles():
        found = media.fit_each(KEY, panel, CFG)
    logger.removeHandler(compiled)
    return found


def spoilt(panel: Panel, **changes):
    """Change arrays of some units: `name={unit number: (column, value)}`."""
    arrays = {}
    for name, units in changes.items():
        values = getattr(panel.arrays, name).copy()
        for unit, (column, value) in units.items():
            values[unit, :, column] = value
        arrays[name] = values
    return dataclasses.replace(panel, arrays=panel.arrays._replace(**arrays))


def test_many_regions_are_one_program(fitted, panel, compiled):
    assert list(fitted.worlds) == list(panel.units)
    assert compiled.count("advance") == 1
    assert compiled.count("_call") == 1


@pytest.mark.parametrize("at", [0, 5])
def test_a_region_among_many_is_what_it_is_alone(fitted, panel, at):
    unit = panel.units[at]
    own = panel.select(units=[unit])
    alone = media.fit(each.unit_key(KEY, unit), own, CFG)
    got = fitted[unit]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), got.params, alone.params)
    for name in ("contribution", "roi", "roi_lo", "roi_hi", "marginal_roi"):
        a, b = (w.attribute(own, grid=(0.0, 1.0))[name].values for w in (got, alone))
        np.testing.assert_allclose(a, b, rtol=1e-3)
    np.testing.assert_allclose(got.predict(own)["mean"], alone.predict(own)["mean"], rtol=1e-4)
    assert got.facts["r2"] == pytest.approx(alone.facts["r2"], abs=1e-3)
    assert got.provenance == alone.provenance
    assert all(any("learnt of one series" in line for line in w.warnings()) for w in (got, alone))
    assert len(got.training) == len(alone.training)


def test_returns_by_region_stand_in_one_table(fitted, panel):
    table = fitted.roi(panel)
    assert set(table["geo"]) == set(panel.units)
    assert len(table) == 6 * 2 * 5
    one = table.query("geo == @panel.units[2] and quantity == 'roi'").set_index("channel")["mean"]
    own = fitted[panel.units[2]].attribute(panel.select(units=[panel.units[2]]), grid=(0.0, 1.0))
    np.testing.assert_allclose(one, own.roi.sel(unit="all").to_series()[one.index])
    assert table["lo"].le(table["mean"]).all()
    fits = fitted.table()
    assert fits["geo"].tolist() == list(panel.units)
    assert (fits["diverged"] == 0).all()
    assert fits["r2_train"].gt(0.5).all()


def test_regions_that_cannot_be_fitted_are_told_of_and_the_others_are_what_they_were(fitted, panel):
    """One has no spend in a channel, one a covariate that is not finite: its members diverge."""
    wrong = spoilt(panel, actions={1: (0, 0.0)}, covariates={4: (0, np.nan)})
    found = media.fit_each(KEY, wrong, CFG)
    assert set(found.failed) == {panel.units[1], panel.units[4]}
    assert "no spend anywhere" in found.failed[panel.units[1]]
    assert found.failed[panel.units[4]] == "all 2 members diverged"
    assert found.table().set_index("geo").loc[panel.units[4], "failed"] == "all 2 members diverged"
    own = panel.units[3]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), found[own].params, fitted[own].params
    )


def test_a_killed_fit_goes_on_one_member_at_a_time_too(panel, fitted, tmp_path, monkeypatch):
    two = panel.select(units=panel.units[:2])
    first, again = (media.fit_each(KEY, two, CFG, batch_size=1, folder=tmp_path) for _ in range(2))
    assert (tmp_path / "0" / "checkpoints").exists()
    for unit in two.units:
        jax.tree.map(np.testing.assert_array_equal, again[unit].params, first[unit].params)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), first[unit].params, fitted[unit].params
        )
    with pytest.raises(UserError, match="holds a run whose"):
        media.fit_each(jax.random.key(5), two, CFG, folder=tmp_path)
    # Nor are parameters of another model, whatever of it changed.
    monkeypatch.setattr(each, "MODEL", each.MODEL + 1)
    with pytest.raises(UserError, match="fingerprint"):
        media.fit_each(KEY, two, CFG, batch_size=1, folder=tmp_path)


def test_the_command_keeps_a_world_a_region(panel, tmp_path, capsys):
    some = spoilt(panel.select(units=panel.units[:3]), actions={2: (1, 0.0)})
    table, schema, run = tmp_path / "panel.parquet", tmp_path / "schema.toml", tmp_path / "run"
    some.to_frame().to_parquet(table)
    schema.write_text(some.schema.to_toml())
    media_commands.fit_media(panel=table, schema=schema, out=run, seed=1, each=True, cfg=CFG)
    said = capsys.readouterr()
    assert "Returns by channel, over the worlds of 2 units" in said.out
    assert f"{panel.units[2]}: no world" in " ".join(said.err.split())
    returns, fits = (pd.read_parquet(run / f"{name}.parquet") for name in ("roi", "fits"))
    assert set(returns["geo"]) == set(panel.units[:2])
    assert fits["failed"].astype(bool).tolist() == [False, False, True]
    unit = panel.units[0]
    world, own = contract.load(run / "worlds" / str(unit)), some.select(units=[unit])
    roi = world.attribute(own, grid=(0.0, 1.0)).roi.sel(unit="all").to_series()
    told = returns.query("geo == @unit and quantity == 'roi'").set_index("channel")["mean"]
    np.testing.assert_allclose(roi[told.index], told, rtol=1e-6)
    assert files.read_provenance(run / "roi.parquet")["seed"] == 1
    with pytest.raises(SystemExit):
        cli.main(["roi", str(run)])
    assert "holds a world a unit" in " ".join(capsys.readouterr().err.split())


def test_where_no_region_can_be_fitted_it_says_why(panel):
    few = panel.select(units=panel.units[:2])
    with pytest.raises(UserError, match=r"none of 2 units can be fitted, first .*no spend anywhere"):
        media.fit_each(KEY, spoilt(few, actions={0: (0, 0.0), 1: (1, 0.0)}), CFG)
    with pytest.raises(DivergedError, match="the members of all 2 units diverged"):
        media.fit_each(KEY, spoilt(few, covariates={0: (0, np.nan), 1: (0, np.nan)}), CFG)
