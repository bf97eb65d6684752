"""`wmjax sweep` and `wmjax best` from a run's folder, in words."""

import contextlib
import dataclasses
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import xarray as xr

from tests.sweep.test_kill import contents
from wmjax import cli
from wmjax.core import devices, files
from wmjax.core.errors import UserError
from wmjax.evaluate import policy as evaluate
from wmjax.report import choosing, sweeping
from wmjax.report.run import Run
from wmjax.simulate import consumer_numpy
from wmjax.sweep import store
from wmjax.worlds import policies, sweep_support
from wmjax.worlds.sweep_support import looked_at

GRID = ["--grid", "push=0,1 coupon=0,1"]


@pytest.fixture(scope="module")
def panel(panel):
    """Coupons may be any number, so that levels that nobody has seen can be asked for; pushes were drawn by chance."""

    def told(column):
        if column.name == "coupon":
            return dataclasses.replace(column, kind="count")
        return dataclasses.replace(column, randomised=True, propensity=0.25) if column.name == "push" else column

    columns = tuple(told(column) for column in panel.schema.columns)
    return dataclasses.replace(panel, schema=dataclasses.replace(panel.schema, columns=columns))


@pytest.fixture(scope="module")
def world(world, panel):
    return dataclasses.replace(world, schema=panel.schema)


@pytest.fixture(scope="module")
def run(world, panel, cfg, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    Run(folder).claim(panel, cfg, 0, overwrite=False)
    files.write_json(folder / "summary.json", {"doubts": ["visit: the world expects 9.0% in the test rows"]})
    world.save(folder / "world")
    return folder


@pytest.fixture(scope="module")
def swept(run):
    """Every plan's gain and cost, by the command."""
    out = run / "s.zarr"
    words = ["--reduce", "gain.full cost.full gain.best", "--cost", "push=0.1 coupon=0.5", "--periods", "2"]
    cli.main(["sweep", str(run), *GRID, *words, "--out", str(out)])
    return out


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(run, capsys):
    cli.main(["sweep", str(run), *GRID, "--out", str(run / "dry.zarr"), "--dry-run"])
    said = capsys.readouterr().out
    assert "points: 4" in said
    assert "MiB at its peak" in said
    assert float(re.search(r"seconds, as the first box goes: (\S+)", said)[1]) > 0
    assert not list(run.glob("dry.zarr*"))


def test_what_goes_beyond_the_data_is_said_before_anything_is_swept(run, panel, tmp_path, monkeypatch, capsys):
    """And by a dry run; with the panel's own range. So is a seed of luck that nothing draws."""
    words = ["sweep", str(run), "--grid", "coupon=0,4 seed=0:2", "--reduce", "gain.full", "--out", str(tmp_path / "s")]
    own = panel.arrays.actions[..., panel.action_index("coupon")]

    def swept(*args, **options):
        raise UserError("not swept")

    monkeypatch.setattr(sweeping.sweeping.engine, "sweep", swept)
    with pytest.raises(SystemExit, match="2"):
        cli.main([*words, "--seed", "3"])
    said = " ".join(capsys.readouterr().err.split())
    cli.main([*words, "--dry-run"])
    for told in (said, " ".join(capsys.readouterr().err.split())):
        assert f"(in the panel coupon goes from {own.min():g} to {own.max():g}); there the answer is" in told
        assert "seed: without feedback no luck is drawn, so the same numbers come 3 times" in told
        assert "visit: the world expects 9.0%" in told
        assert ("--seed 3 changes nothing" in told) == (told is said)
    assert said.index("coupon: at") < said.index("not swept")
    with pytest.raises(SystemExit, match="2"):
        cli.main([*words, "--seed", "3", "--feedback"])
    assert "luck" not in capsys.readouterr().err


def test_levels_beyond_what_was_seen_are_warned_of(run, capsys):
    out = run / "beyond.zarr"
    cli.main(["sweep", str(run), "--grid", "coupon=0,1,4 sale1=0,1", "--reduce", "gain.full", "--out", str(out)])
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(
        r"coupon: at coupon=4, sale1=\d, the worst of the points looked at, (\d+) rows of the \1 that", said
    )
    assert "sale1: not identified" in said
    assert "visit: the world expects 9.0%" in said  # what the run's report says of the world
    warnings = store.read(out).attrs["provenance"]["warnings"]
    assert [line.split(":")[0] for line in warnings] == ["visit", "sale1", "coupon"]
    cli.main(["best", str(out), "--outcome", "visit"])
    told = " ".join(capsys.readouterr().err.split())
    assert "sale1: not identified" in told
    assert "visit: the world expects 9.0%" in told
    assert "worst of the points looked at" not in told  # of plans that may have been passed over
    with pytest.raises(SystemExit, match="2"):
        cli.main(["best", str(out), "--outcome", "visit", "--supported-only"])
    assert "beyond.best.parquet is there already" in " ".join(capsys.readouterr().err.split())
    cli.main(["best", str(out), "--outcome", "visit", "--supported-only", "--overwrite"])
    told = " ".join(capsys.readouterr().err.split())
    assert "not identified" not in told
    assert "visit: the world expects 9.0%" in told


@pytest.mark.parametrize("words", ["set.coupon=0,4", "add.coupon=0,4", "coupon=0,4"])
def test_a_plan_is_looked_at_however_it_is_worded(run, words, capsys):
    cli.main(["sweep", str(run), "--grid", words, "--reduce", "gain.full", "--out", str(run / f"{words}.zarr")])
    assert "coupon: at " in " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def doubtful(run):
    """Plans within and beyond what the data speak for, by member."""
    out = run / "doubtful.zarr"
    cli.main(
        [
            "sweep",
            str(run),
            "--grid",
            "member=0:1 coupon=0,1,4 sale1=0,1",
            "--reduce",
            "gain.full",
            "--out",
            str(out),
        ]
    )
    return out


@pytest.fixture(scope="module")
def scaled(run):
    """Plans that multiply what was done."""
    out = run / "scaled.zarr"
    cli.main(["sweep", str(run), "--grid", "scale.coupon=0,1", "--reduce", "gain.full", "--out", str(out)])
    return out


def test_every_plan_tells_for_whom_it_is_supported(run, doubtful, world, panel):
    found = store.read(doubtful)
    assert found["gain"].dims == ("member", "coupon", "sale1", "unit", "outcome")
    assert found["supported"].dims == ("coupon", "sale1", "unit")
    factual = panel.arrays.actions[:, world.periods(panel).start]
    was = {name: factual[:, panel.action_index(name)] for name in ("coupon", "sale1")}
    marks = found["supported"].astype(bool)
    assert not marks.sel(coupon=4).any()  # never seen
    for sale in (0, 1):
        assert not marks.sel(sale1=sale).values[:, was["sale1"] != sale].any()  # a function of the calendar
    same = [bool(marks.sel(coupon=p, sale1=s, unit=u)) for u, p, s in zip(panel.units, *was.values(), strict=True)]
    assert all(same)  # what was done needs no like rows
    assert 0 < marks.sel(coupon=[0, 1]).mean() < 1
    # Of each unit's best plan as of every plan.
    words = ["--grid", "coupon=0,1,4 sale1=0,1", "--reduce", "gain.best", "--out", str(run / "of_best.zarr")]
    cli.main(["sweep", str(run), *words])
    own_best = store.read(run / "of_best.zarr")
    best = own_best["gain_best_supported"]
    assert best.dims == ("unit", "outcome")
    for outcome in best["outcome"].values:
        for unit in panel.units:
            own = own_best.sel(outcome=outcome, unit=unit)
            at = {name: own[f"gain_best_best_{name}"].item() for name in ("coupon", "sale1")}
            assert bool(best.sel(outcome=outcome, unit=unit)) == bool(marks.sel(**at, unit=unit))


def test_too_many_plans_for_support_are_told_of(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep_support, "MOST_PLANS", 3)
    ask = ["sweep", str(run), "--grid", "coupon=0,1 push=0,1 member=0,1"]
    told = "of these 4 plans for 96 units the result will not tell which are supported"
    cli.main([*ask, "--reduce", "gain.full", "--dry-run", "--out", str(tmp_path / "s.zarr")])
    assert told in " ".join(capsys.readouterr().err.split())
    cli.main([*ask, "--reduce", "gain.full", "--out", str(tmp_path / "s.zarr")])
    assert told in " ".join(capsys.readouterr().err.split())
    assert "supported" not in store.read(tmp_path / "s.zarr")
    cli.main([*ask, "--reduce", "mean", "--dry-run", "--out", str(tmp_path / "m.zarr")])
    assert told not in " ".join(capsys.readouterr().err.split())


def test_best_says_and_heeds_what_is_supported(run, doubtful, panel, capsys):
    found = store.read(doubtful)
    units = len(panel.units)
    gain = found["gain"].sel(outcome="visit").mean("member").values.reshape(-1, units).T.astype(float)
    marks = found["supported"].values.astype(bool).reshape(-1, units).T
    cli.main(["best", str(doubtful), "--outcome", "visit"])
    out, err = capsys.readouterr()
    table = pd.read_parquet(run / "doubtful.best.parquet")
    assert not table["supported"].all()
    assert f"{(~table['supported']).sum()} of {len(table)} plans go, for their unit, beyond" in " ".join(err.split())
    asked = files.read_provenance(run / "doubtful.best.parquet")["best"]
    assert asked["asked"].items() >= {"outcome": "visit", "supported_only": False, "budget": None}.items()
    assert asked["value"] == pytest.approx(table["value"].sum(), rel=1e-5)
    unclear = ((table["lo"] <= 0) & (table["hi"] >= 0)).sum()
    assert f"{unclear} of {len(table)} values have an interval that holds 0" in " ".join(out.split())
    assert "gain in visit, probability, summed over units" in " ".join(out.split())
    counted = choosing.counted(choosing.best(doubtful, outcome="visit")[0])
    assert counted["interval holds 0"].sum() == unclear
    assert counted["not supported"].sum() == (~table["supported"]).sum()
    assert counted["units"].sum() == len(table)
    np.testing.assert_allclose(table["value"], gain.max(1), rtol=1e-5)
    for solver in ("greedy", "exact"):
        sure, _ = choosing.best(doubtful, outcome="visit", supported_only=True, solver=solver)
        assert sure["supported"].all()
        np.testing.assert_allclose(sure["value"], np.where(marks, gain, -np.inf).max(1), rtol=1e-5)


@pytest.mark.parametrize("method", ["greedy", "exact"])
def test_units_without_a_supported_plan_get_none_within_the_budget(run, panel, world, method, capsys):
    """Of a sale that the calendar sets, only plans that leave it as it was are supported, and one level is swept."""
    sale = panel.arrays.actions[:, world.periods(panel).start, panel.action_index("sale1")]
    assert (sale == sale[0]).all()
    held = run / "held.zarr"
    if not held.exists():
        mask = np.array(panel.arrays.mask)
        mask[[2, 5], world.periods(panel).start] = False
        actions = np.array(panel.arrays.actions)
        actions[:10, world.periods(panel).start, panel.action_index("sale1")] = 1 - sale[0]
        arrays = panel.arrays._replace(mask=mask, actions=actions)
        asked = sweeping.Asked(grid=f"push=0,1 sale1={int(sale[0])}", reduce="gain.full cost.full", cost="push=1")
        sweeping.run(world, dataclasses.replace(panel, arrays=arrays), asked, held, observer=lambda event: None)
    marks = store.read(held)["supported"].values.astype(bool)
    assert not marks[..., [2, 5]].any()
    assert np.flatnonzero(~store.read(held)["present"].values.astype(bool)).tolist() == [2, 5]
    had = marks.reshape(-1, len(panel.units)).any(0)
    assert not had[:10].any()
    assert had.sum() > 10
    cost = store.read(held)["cost"].values.reshape(2, -1)[:, had]
    budget = float(cost.min(0).sum()) + 3
    words = ["--outcome", "visit", "--budget", str(budget), "--method", method, "--supported-only"]
    cli.main(["best", str(held), *words, "--out", str(run / "held.parquet"), "--overwrite"])
    table = pd.read_parquet(run / "held.parquet")
    assert table["unit"].tolist() == [u for u, one in zip(panel.units, had, strict=True) if one]
    assert table["supported"].all()
    assert table["cost"].sum() <= budget + 1e-6
    assert f"{(~had).sum() - 2} units have no supported plan" in " ".join(capsys.readouterr().out.split())


def test_members_are_no_plans_but_the_interval(doubtful):
    table, _ = choosing.best(doubtful, outcome="visit", alpha=0.2)
    assert "member" not in table
    each = store.read(doubtful)["gain"].sel(outcome="visit")
    for row in table.itertuples():
        own = each.sel(coupon=row.coupon, sale1=row.sale1, unit=row.unit).values.astype(float)
        half = scipy.stats.t.ppf(0.9, len(own) - 1) * own.std(ddof=1)
        want = [own.mean() - half, own.mean(), own.mean() + half]
        np.testing.assert_allclose([row.lo, row.value, row.hi], want, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("push=0,1 member=0:9", "asks for member 3; the world has members 0 to 2"),
        ("push=0,1 pusch=0,1", "nothing reads the grid's axis 'pusch'; did you mean 'push'"),
        ("push=0,1 income=1,2", "nothing reads the grid's axis 'income'"),
    ],
)
def test_axes_that_nothing_reads_are_refused(run, tmp_path, capsys, grid, said):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["sweep", str(run), "--grid", grid, "--reduce", "gain.full", "--out", str(tmp_path / "s.zarr")])
    assert stopped.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_draws_are_averaged_whatever_their_dimension(run, world, panel, tmp_path, capsys):
    """A dimension of seeds and members in step is luck; one with a horizon is refused."""
    grid = "[draw]\nzip = {seed = {seeds = 2}, member = {members = 2}}\n[push]\nvalues = [0, 1]\n"
    (tmp_path / "grid.toml").write_text(grid)
    asked = sweeping.Asked(grid=str(tmp_path / "grid.toml"), reduce="gain.full", feedback=True)
    sweeping.run(world, panel, asked, tmp_path / "s.zarr", observer=lambda event: None)
    table, _ = choosing.best(tmp_path / "s.zarr", outcome="visit")
    gain = store.read(tmp_path / "s.zarr")["gain"].sel(outcome="visit")
    assert gain.dims == ("draw", "push", "unit")
    np.testing.assert_allclose(table["value"], gain.values.astype(float).mean(0).max(0), rtol=1e-5)
    assert not {"seed", "member", "draw", "cost"} & set(table)
    cli.main(["best", str(tmp_path / "s.zarr"), "--outcome", "visit"])
    assert "the sweep kept no costs, and no --cost is given" in " ".join(capsys.readouterr().out.split())
    asked = sweeping.Asked(grid="push=0,1 horizon=1,2", reduce="gain.full", periods=2)
    sweeping.run(world, panel, asked, tmp_path / "h.zarr", observer=lambda event: None)
    with pytest.raises(UserError, match="horizon is no plan"):
        choosing.best(tmp_path / "h.zarr", outcome="visit")


def test_points_along_every_dimension_and_corners_are_looked_at():
    looked = looked_at((3, 2, 1000))
    digits = {tuple(int(d) for d in np.unravel_index(i, (3, 2, 1000))) for i in looked}
    assert {(0, 0, 0), (2, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 999), (2, 1, 999), (2, 1, 0)} <= digits
    assert len(digits) == len(looked) < 40


def test_absent_units_get_no_plan(run, world, panel, tmp_path):
    mask = np.array(panel.arrays.mask)
    start = world.periods(panel).start
    mask[[2, 5], start] = False
    ragged = dataclasses.replace(panel, arrays=panel.arrays._replace(mask=mask))
    asked = sweeping.Asked(grid="push=0,1", reduce="gain.full", cost="push=0.01")
    sweeping.run(world, ragged, asked, tmp_path / "s.zarr", observer=lambda event: None)
    table, _ = choosing.best(tmp_path / "s.zarr", cost="push=0.01", outcome="visit")
    assert table["unit"].tolist() == [u for i, u in enumerate(panel.units) if i not in (2, 5)]


def test_best_within_a_budget(run, swept, panel, capsys):
    found = store.read(swept)
    assert found["gain"].dims == ("push", "coupon", "unit", "outcome")
    gain = found["gain"].sel(outcome="purchase").values.reshape(4, -1).astype(float)
    cost = found["cost"].values.reshape(4, -1).astype(float)
    budget = 0.1 * cost.max(0).sum() + 0.9 * cost.min(0).sum()
    assert np.take_along_axis(cost, gain.argmax(0)[None], 0).sum() > budget, "a budget that binds"
    for method in ("greedy", "exact"):
        out = run / f"{method}.parquet"
        words = ["--budget", str(budget), "--outcome", "purchase", "--solver", method, "--out", str(out)]
        cli.main(["best", str(swept), *words])
        table = pd.read_parquet(out)
        assert table["unit"].tolist() == list(panel.units)
        plan = (2 * table["push"] + table["coupon"]).to_numpy()
        at = np.arange(len(plan))
        np.testing.assert_allclose(table["value"], gain[plan, at], rtol=1e-6)
        np.testing.assert_allclose(table["cost"], cost[plan, at], rtol=1e-6)
        assert table["cost"].sum() <= budget + 1e-6
    assert "(no choice within the budget is above " in capsys.readouterr().out
    # Prices of the axes instead of the sweep's own costs.
    table, chosen = choosing.best(swept, budget=0.0, cost="push=1 coupon=1", outcome="purchase")
    assert chosen.cost == 0.0
    assert (table["push"] + table["coupon"] == 0).all()
    # No money, and the grid holds nothing but levels: what was done was worth more, which is told of.
    losing = ["--outcome", "visit", "--out", str(run / "losing.parquet"), "--overwrite"]
    for words, told in ((["--budget", "0", "--cost", "push=1 coupon=1"], True), ([], False)):
        cli.main(["best", str(swept), *words, *losing])
        assert bool(pd.read_parquet(run / "losing.parquet")["value"].sum() < 0) is told
        assert ("leaving things as they were" in capsys.readouterr().err) is told
    free, _ = choosing.best(swept, outcome="purchase")
    np.testing.assert_allclose(free["value"].sum(), gain.max(0).sum(), rtol=1e-6)


def test_one_plan_for_all_units_of_a_segment_within_a_budget(run, doubtful, swept, panel, monkeypatch, capsys):
    """By brute force over the plans of three segments; intervals and support are those of the segment's units."""
    found = store.read(swept)
    segment = sweeping.sweeping.segments(panel, "income")
    assert found["income"].dims == ("unit",)
    assert found["income"].values.tolist() == [segment.names[code] for code in segment.codes]
    member = segment.indicator()
    gain = found["gain"].sel(outcome="purchase").values.reshape(4, -1).astype(float) @ member
    cost = found["cost"].values.reshape(4, -1).astype(float) @ member
    budget = 0.3 * cost.max(0).sum() + 0.7 * cost.min(0).sum()
    everything = list(itertools.product(range(4), repeat=len(segment.names)))
    at = np.arange(len(segment.names))
    afford = [plans for plans in everything if cost[plans, at].sum() <= budget]
    assert 0 < len(afford) < len(everything)
    cli.main(["best", str(swept), "--by", "income", "--budget", str(budget), "--outcome", "purchase"])
    table = pd.read_parquet(run / "s.best_income.parquet")
    assert table["income"].tolist() == list(segment.names)
    assert table["units"].tolist() == member.sum(0).tolist()
    plan = (2 * table["push"] + table["coupon"]).to_numpy()
    np.testing.assert_allclose(table["value"], gain[plan, at], rtol=1e-5)
    np.testing.assert_allclose(table["cost"], cost[plan, at], rtol=1e-5)
    assert table["value"].sum() == pytest.approx(max(gain[plans, at].sum() for plans in afford), rel=1e-5)
    assert "One plan for all units of each level of income" in " ".join(capsys.readouterr().out.split())
    assert files.read_provenance(run / "s.best_income.parquet")["best"]["asked"]["by"] == "income"
    cli.main(["best", str(swept), "--by", "all", "--outcome", "purchase"])
    one = pd.read_parquet(run / "s.best_all.parquet")
    assert one["all"].tolist() == ["all"]
    assert (2 * one["push"] + one["coupon"]).tolist() == [gain.sum(1).argmax()]
    np.testing.assert_allclose(one["value"], gain.sum(1).max(), rtol=1e-5)
    assert "One plan for all units; value" in " ".join(capsys.readouterr().out.split())
    each = store.read(doubtful)["gain"].sel(outcome="visit")
    marks = store.read(doubtful)["supported"].values.astype(bool)
    table, _ = choosing.best(doubtful, outcome="visit", by="income", alpha=0.2)
    for code, row in enumerate(table.itertuples()):
        inside = np.array(segment.codes) == code
        at = {"coupon": row.coupon, "sale1": row.sale1}
        own = each.sel(**at).values[:, inside].astype(float).sum(1)
        half = scipy.stats.t.ppf(0.9, len(own) - 1) * own.std(ddof=1)
        np.testing.assert_allclose([row.lo, row.value, row.hi], [own.mean() - half, own.mean(), own.mean() + half],
                                   rtol=1e-3, atol=1e-5)  # fmt: skip
        mark = marks[list(each["coupon"].values).index(row.coupon), row.sale1, inside]
        assert row.supported == mark.all()
        assert row.supported_share == pytest.approx(mark.mean())
    assert not table["supported"].all()
    sure, _ = choosing.best(doubtful, outcome="visit", by="income", supported_only=True)
    for row in sure.itertuples():
        inside = np.array(segment.codes) == segment.names.index(row.income)
        whole = marks.reshape(-1, len(inside))[:, inside].all(1)
        own = each.mean("member").values.reshape(-1, len(inside))[:, inside].astype(float).sum(1)
        assert row.value == pytest.approx(own[whole].max(), rel=1e-4)
    found = store.read(doubtful)
    few = found.assign(supported=found["supported"] & (found["coupon"] > 1))  # of which nothing is
    monkeypatch.setattr(choosing.store, "read", lambda path: few)
    with pytest.raises(UserError, match="no level of income has a supported plan"):
        choosing.best(doubtful, outcome="visit", by="income", supported_only=True)


def test_averages_and_best_plans_by_a_static_column_in_words(run, world, panel, tmp_path):
    """Of units with a row; beside every plan's numbers, folded by hand."""
    mask = np.array(panel.arrays.mask)
    start = world.periods(panel).start
    mask[[2, 5], start] = False
    ragged = dataclasses.replace(panel, arrays=panel.arrays._replace(mask=mask))
    words = "gain.full gain.mean:income gain.mean:loyalty,push gain.best:income gain.quantiles:income"
    asked = sweeping.Asked(grid="push=0,1 coupon=0,1", reduce=words.replace(" gain.mean:loyalty,push", ""))
    found = sweeping.run(world, ragged, asked, tmp_path / "s.zarr", observer=lambda event: None)
    gain = found["gain"].values.astype(float)
    income = np.array(sweeping.sweeping.segments(panel, "income").codes)
    there = ~np.isin(np.arange(len(income)), [2, 5])
    assert found["gain_mean_mean"].dims == ("by_income", "outcome")
    assert found["gain_quantiles_quantile"].dims == ("by_income", "outcome", "probability")
    for code, name in enumerate(found["by_income"].values):
        own = gain[:, :, (income == code) & there]
        np.testing.assert_allclose(found["gain_mean_mean"].sel(by_income=name), own.mean((0, 1, 2)), rtol=1e-4)
        best = own.mean(2).reshape(4, -1)
        np.testing.assert_allclose(found["gain_best_value"].sel(by_income=name), best.max(0), rtol=1e-4)
        assert found["gain_best_index"].sel(by_income=name).values.tolist() == best.argmax(0).tolist()
    # One mean by a column and by an axis of the grid.
    asked = sweeping.Asked(grid="push=0,1 coupon=0,1", reduce="gain.mean:loyalty,push")
    found = sweeping.run(world, ragged, asked, tmp_path / "m.zarr", observer=lambda event: None)
    loyal = np.array(sweeping.sweeping.segments(panel, "loyalty").codes)
    assert found["gain_mean_mean"].dims == ("push", "by_loyalty", "outcome")
    own = np.stack([gain[:, :, (loyal == code) & there].mean((1, 2)) for code in range(2)], axis=1)
    np.testing.assert_allclose(found["gain_mean_mean"], own, rtol=1e-4, atol=1e-7)


def test_units_that_no_plan_reaches_are_marked_and_get_none(run, world, panel, tmp_path, capsys):
    words = ["--by", "loyalty", "--grid", "segment=yes push=0,1", "--reduce", "gain.full"]
    cli.main(["sweep", str(run), *words, "--out", str(tmp_path / "s.zarr")])
    found, inside = store.read(tmp_path / "s.zarr"), panel.values("loyalty") > 0.5
    assert found["loyalty"].values.tolist() == np.where(inside, "yes", "no").tolist()
    assert found["reached"].dims == ("segment", "unit")
    assert found["reached"].values.astype(bool).tolist() == [inside.tolist()]
    assert (found["gain"].values[..., ~inside, :] == 0).all()
    cli.main(["best", str(tmp_path / "s.zarr"), "--outcome", "visit"])
    assert f"{(~inside).sum()} units are in no segment that a plan" in " ".join(capsys.readouterr().out.split())
    table = pd.read_parquet(tmp_path / "s.best.parquet")
    assert table["unit"].tolist() == [unit for unit, one in zip(panel.units, inside, strict=True) if one]


def test_a_unit_gets_a_plan_of_its_own_segment_or_none(run, panel, tmp_path, capsys):
    """Other segments' plans change nothing for it, which may be worth more than any of its own."""
    words = ["--by", "loyalty", "--grid", "segment=yes,no push=1 coupon=0,1", "--worth", "visit=1"]
    kept = ["--cost", "push=0.2 coupon=0.02", "--reduce", "profit.full profit.best"]
    cli.main(["sweep", str(run), *words, *kept, "--out", str(tmp_path / "s.zarr")])
    found, loyal = store.read(tmp_path / "s.zarr"), panel.values("loyalty") > 0.5
    own = np.where(loyal, found["profit"].values[0, 0], found["profit"].values[1, 0])  # coupon, unit
    cli.main(["best", str(tmp_path / "s.zarr")])
    table = pd.read_parquet(tmp_path / "s.best.parquet")
    left = table["segment"].isna().to_numpy()
    assert left[own.max(0) < 0].all()
    assert not left[own.max(0) > 0].any()  # of one whose best is worth 0 it is as well to do nothing
    assert 0 < left.sum() < len(left)
    assert f"{left.sum()} units get no plan: none that is for them" in " ".join(capsys.readouterr().out.split())
    assert table["push"].isna().tolist() == left.tolist()
    assert table["segment"][~left].tolist() == np.where(loyal, "yes", "no")[~left].tolist()
    assert table["coupon"][~left].tolist() == own.argmax(0)[~left].tolist()
    np.testing.assert_allclose(table["value"], np.maximum(own.max(0), 0), atol=1e-7)
    assert found["profit_best_reached"].values[own.max(0) > 0].all()
    assert not found["profit_best_reached"].values[own.max(0) < 0].any()
    planned = policies.planned(panel, dict(found.attrs), table)
    start, k = found.attrs["provenance"]["setting"]["start"], panel.action_index("push")
    was = panel.arrays.actions[:, start : start + 1]
    np.testing.assert_array_equal(planned.actions[left], was[left])
    assert planned.covered.all()
    assert planned.decides[~left, :, k].all()
    assert not planned.decides[left].any()


def test_who_is_left_as_it_was_goes_with_what_was_done_and_gets_no_estimate(run, world, panel, tmp_path, capsys):
    """Where the grid holds what was done, a unit's own plan is taken for it, and a policy by segment is one of all."""
    means = {}
    for name, words in {
        "best": ["--grid", "push=0,1"],
        "best by segment": ["--by", "loyalty", "--grid", "segment=yes,no push=0,1"],
        "all": ["--grid", "push=1"],
        "all by segment": ["--by", "loyalty", "--grid", "segment=yes,no push=1"],
        "none by segment": ["--by", "loyalty", "--grid", "segment=yes,no push=0"],
    }.items():
        out = tmp_path / f"{name}.zarr"
        cli.main(["sweep", str(run), *words, "--reduce", "gain.full", "--out", str(out)])
        capsys.readouterr()
        cli.main(["policy", str(run), str(out), "--outcome", "visit"])
        said = " ".join(capsys.readouterr().err.split())
        assert ("as that depends on what was done, it tells nothing" in said) == name.startswith("none")
        table = pd.read_parquet(tmp_path / f"{name}.policy.parquet").set_index(["quantity", "by"])
        means[name] = table["value"]
    np.testing.assert_allclose(means["best by segment"], means["best"], rtol=1e-5)
    np.testing.assert_allclose(means["all by segment"], means["all"], rtol=1e-5)
    assert means["none by segment"].isna()[[("value", "inverse propensity"), ("gain", "doubly robust")]].all()


def test_what_bounds_the_choice_is_named_and_parts_of_levels_get_no_plan(run, tmp_path, capsys):
    out = tmp_path / "s.zarr"
    words = ["--by", "loyalty", "--grid", "segment=yes,no push=0,1", "--reduce", "gain.full"]
    cli.main(["sweep", str(run), *words, "--out", str(out)])
    cli.main(["best", str(out), "--outcome", "visit", "--cost", "push=1", "--budget", "3", "--overwrite"])
    cli.main(["best", str(out), "--outcome", "visit", "--by", "loyalty"])
    with pytest.raises(SystemExit):
        cli.main(["best", str(out), "--outcome", "visit", "--by", "income"])
    assert "are for other segments than the levels of income" in " ".join(capsys.readouterr().err.split())
    cli.main(["sweep", str(run), "--grid", "segment=all push=0,1", "--reduce", "gain.full", "--out", str(out) + "2"])


def test_best_says_what_its_prices_count(run, swept, capsys):
    cli.main(["best", str(swept), "--outcome", "visit", "--cost", "push=1 coupon=0.5", "--out", str(run / "p.parquet")])
    assert "not what that is over what was done" in capsys.readouterr().out.replace("\n", " ")
    with pytest.raises(UserError, match=r"ends in \.parquet"):
        files.write_parquet(run / "p.xlsx", pd.DataFrame({"a": [1]}), {})


def test_best_tells_of_choices_where_the_grid_ends(monkeypatch):
    """Not of bits, nor of 0."""
    grid = xr.Dataset(coords={"push": [0, 1], "price": [0.0, 0.1, 0.3], "week": [3, 4, 5]})
    monkeypatch.setattr(choosing.store, "read", lambda path: grid)
    table = pd.DataFrame({"unit": list("abcd"), "push": 1, "price": [0.0, 0.3, 0.3, 0.1], "week": 4, "value": 1.0})
    assert choosing.at_the_end(Path("s.zarr"), table) == ["2 get price 0.3, where the grid ends"]
    table = table.assign(lo=[0.1, -0.1, 0.1, 0.1], hi=1.0)
    table.attrs["of"] = "gain"
    assert choosing.at_the_end(Path("s.zarr"), table) == ["1 get price 0.3, where the grid ends"]


@pytest.fixture(scope="module")
def pushed(run):
    """Pushes, drawn by a coin of 1 in 4, in the test days."""
    out = run / "pushed.zarr"
    words = ["--grid", "push=0,1", "--reduce", "gain.full cost.full", "--cost", "push=1", "--periods", "7"]
    cli.main(["sweep", str(run), *words, "--out", str(out)])
    return out


def true_outcome(simulated, sim_cfg, policy, start, name):
    """What would have happened in each row had its own day's push been the policy's: `[units, days]`."""
    found = np.empty(policy.shape)
    for day in range(policy.shape[1]):
        push = np.array(simulated.actions.push)
        push[:, start + day] = policy[:, day]
        outcomes = consumer_numpy.roll_out(simulated, simulated.actions._replace(push=push), cfg=sim_cfg)
        found[:, day] = getattr(outcomes, name)[:, start + day]
    return found


def test_a_policys_value_from_rows_that_were_drawn_by_chance(run, pushed, world, panel, simulated, sim_cfg, capsys):
    """Both estimates within 4.5 standard errors of the truth, a false alarm in 100,000 each; a wrong coin is not."""
    start = world.periods(panel).start
    cost = store.read(pushed)["cost"].values.reshape(2, -1)
    budget = str(0.6 * cost.max(0).sum() + 0.4 * cost.min(0).sum())
    for solver in ("greedy", "exact"):
        words = ["--outcome", "visit", "--budget", budget, "--solver", solver, "--overwrite"]
        cli.main(["policy", str(run), str(pushed), *words])
    said = " ".join(capsys.readouterr().out.split())
    assert "in visit, probability" in said
    chosen, _ = choosing.best(pushed, outcome="visit", budget=float(budget), solver="exact")
    assert 0.2 < chosen["push"].mean() < 0.9
    policy = np.repeat(chosen["push"].to_numpy()[:, None], 7, axis=1)
    truth = true_outcome(simulated, sim_cfg, policy, start, "visit").mean()
    table = pd.read_parquet(run / "pushed.policy.parquet").set_index(["quantity", "by"])
    happened = panel.arrays.outcomes[:, start : start + 7, panel.outcome_index("visit")].astype(float)
    taken = panel.arrays.actions[:, start : start + 7, panel.action_index("push")]
    assert table.loc[("value", "what was done"), "value"] == pytest.approx(happened.mean(), rel=1e-6)
    within = scipy.stats.t.ppf(0.975, len(policy) - 1)
    for name in ("inverse propensity", "doubly robust"):
        value, gain = table.loc[("value", name)], table.loc[("gain", name)]
        assert abs(value["value"] - truth) < 4.5 * value["se"]
        np.testing.assert_allclose([value["hi"] - value["value"], value["value"] - value["lo"]], within * value["se"])
        assert gain["value"] == pytest.approx(value["value"] - happened.mean(), rel=1e-6)
    assert table.loc[("value", "doubly robust"), "se"] < table.loc[("value", "inverse propensity"), "se"]
    unit = np.repeat(np.arange(len(policy)), 7)
    met, p = (policy == taken).ravel(), np.where(taken == 1, 0.25, 0.75).ravel()
    own = evaluate.clustered_mean(evaluate.scores(met, happened.ravel(), p), unit)
    assert own.value == pytest.approx(table.loc[("value", "inverse propensity"), "value"], rel=1e-6)
    # A push for everyone, by the coin that was thrown and by another one.
    truth = true_outcome(simulated, sim_cfg, np.ones_like(policy), start, "visit").mean()
    met = (taken == 1).ravel()
    right, wrong = (
        evaluate.clustered_mean(evaluate.scores(met, happened.ravel(), np.full(met.shape, p)), unit)
        for p in (0.25, 0.75)
    )
    assert abs(right.value - truth) < 4.5 * right.se
    assert abs(wrong.value - truth) > 4.5 * wrong.se
    # The world's own: the mean of its expectations, and its gain is that of the sweep.
    assert np.isnan(table.loc[("value", "the world"), "se"])
    assert table.loc[("gain", "the world"), "value"] * policy.size == pytest.approx(chosen["value"].sum(), rel=1e-3)


def test_a_policy_of_one_plan_a_segment_is_judged_unit_by_unit(run, pushed, world, panel, capsys):
    ask = ["--outcome", "visit", "--cost", "push=1", "--budget", "40", "--by", "income"]
    cli.main(["policy", str(run), str(pushed), *ask])
    chosen, _ = choosing.best(pushed, outcome="visit", cost="push=1", budget=40.0, by="income")
    assert set(chosen["push"]) == {0, 1}
    table = pd.read_parquet(run / "pushed.policy_income.parquet").set_index(["quantity", "by"])
    own = choosing.each_unit(pushed, chosen)
    assert own["unit"].tolist() == list(panel.units)
    push = own["push"].to_numpy()
    assert push.sum() == chosen["units"].to_numpy()[chosen["push"] == 1].sum() <= 40
    assert table.loc[("gain", "the world"), "value"] * 7 * len(own) == pytest.approx(chosen["value"].sum(), rel=1e-3)
    with pytest.raises(SystemExit):
        cli.main(["policy", str(run), str(pushed), *ask])
    assert "is there already; choose another --out, or --overwrite" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("keep", "flag"), [("profit.full", '--worth "visit=1"'), ("gain.full cost.best", '--cost "sale1=1"')]
)
def test_money_is_not_kept_where_nothing_has_a_price(run, tmp_path, capsys, keep, flag):
    """What could have a price is called by the table's own name."""
    with pytest.raises(SystemExit, match="2"):
        cli.main(["sweep", str(run), *GRID, "--reduce", keep, "--out", str(tmp_path / "s.zarr"), "--processes", "2"])
    assert flag in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "s.zarr").exists()


def test_a_policy_that_was_not_drawn_by_chance_gets_no_estimate(run, pushed, world, panel, tmp_path, capsys):
    out = tmp_path / "coupons.zarr"
    cli.main(["sweep", str(run), "--grid", "coupon=0,1 push=0,1", "--reduce", "gain.full", "--out", str(out)])
    cli.main(["policy", str(run), str(out), "--outcome", "visit"])
    assert "coupon: the schema does not say that it was randomised" in " ".join(capsys.readouterr().err.split())
    table = pd.read_parquet(tmp_path / "coupons.policy.parquet").set_index(["quantity", "by"])
    assert table.loc[("value", "the world"), "value"] > 0
    assert table.loc[[("value", "doubly robust"), ("gain", "inverse propensity")], "value"].isna().all()
    # Nor one whose probability the rows belie; without one, the train rows' share is taken, and told.
    start = world.periods(panel).start
    about = dict(store.read(pushed).attrs)
    chosen, _ = choosing.best(pushed, outcome="visit")
    reward = policies.Reward(np.array([1.0, 0.0]), np.zeros(5), "visit, probability")
    for propensity, told, given in ((0.5, "was 1 in", False), (None, "gives no propensity", True)):
        columns = (
            dataclasses.replace(c, propensity=propensity) if c.name == "push" else c for c in panel.schema.columns
        )
        other = dataclasses.replace(world, schema=dataclasses.replace(panel.schema, columns=tuple(columns)))
        found = policies.judge(other, panel, policies.planned(panel, about, chosen), start, reward)
        assert told in found.warnings[0]
        assert found.table["value"].notna().all() == given
    with pytest.raises(UserError, match="among the world's train periods, not held out"):
        policies.judge(world, panel, policies.planned(panel, about, chosen), 3, reward)


def test_a_policy_of_profit_is_judged_in_money(run, world, panel, tmp_path, capsys):
    out = tmp_path / "profit.zarr"
    words = ["--reduce", "profit.full", "--worth", "visit=2 purchase=10", "--cost", "push=0.3"]
    cli.main(["sweep", str(run), "--grid", "push=0,1", *words, "--out", str(out)])
    cli.main(["policy", str(run), str(out)])
    table = pd.read_parquet(tmp_path / "profit.policy.parquet").set_index(["quantity", "by"])
    start = world.periods(panel).start
    worth = panel.arrays.outcomes[:, start] @ [2.0, 10.0] - 0.3 * panel.arrays.actions[:, start, -1]
    assert table.loc[("value", "what was done"), "value"] == pytest.approx(worth.mean(), rel=1e-5)
    cli.main(["best", str(out)])
    assert "with costs of push taken off" in capsys.readouterr().out
    chosen, _ = choosing.best(out)
    assert table.loc[("gain", "the world"), "value"] * len(chosen) == pytest.approx(chosen["value"].sum(), rel=1e-3)


def test_a_policys_cells_are_those_that_the_plan_sets(panel):
    """In some days and for a segment; what it leaves, or changes by what was there, it does not decide."""
    edits = [
        {"do": "set", "action": "push", "value": "$push", "start": "$start", "length": 2, "units": "$segment"},
        {"do": "add", "action": "coupon", "amount": 1},
    ]
    axes = {"push": {"push": "integer"}, "start": {"start": "integer"}, "segment": {"segment": "choice"}}
    about = {
        "provenance": {"edits": edits, "setting": {"start": 10, "periods": 4, "by": "loyalty"}},
        "sweep": {"axes": axes},
    }
    units = list(panel.units[:3])
    table = {"unit": units, "push": [1, 0, 1], "start": [0, 1, 2], "segment": ["yes", "no", "all"]}
    found = policies.planned(panel, about, pd.DataFrame(table))
    loyal = panel.values("loyalty")[:3] > 0.5
    applies = [bool(loyal[0]), not loyal[1], True]
    k, other = panel.action_index("push"), panel.action_index("coupon")
    was = panel.arrays.actions[:, 10:14]
    for unit, (value, start, there) in enumerate(zip(table["push"], table["start"], applies, strict=True)):
        inside = there & (np.arange(4) >= start) & (np.arange(4) < start + 2)
        assert found.decides[unit, :, k].tolist() == inside.tolist()
        np.testing.assert_array_equal(found.actions[unit, :, k], np.where(inside, value, was[unit, :, k]))
    np.testing.assert_array_equal(found.actions[:3, :, other], was[:3, :, other] + 1)
    assert not found.decides[..., other].any()
    assert found.covered.sum() == 3


def test_a_store_says_what_its_numbers_are_and_of_which_panel(run, swept, doubtful, panel):
    found = store.read(swept)
    assert found.attrs["provenance"]["panel_fingerprint"] == panel.fingerprint
    for each in (found, store.read(doubtful)):
        assert all(each[name].attrs.get("long_name") for name in each.variables), "every variable has a name"
    gain, cost = found["gain"].attrs, found["cost"].attrs
    assert gain["units"] == "probability"
    assert gain["baseline"] == found["gain_best_value"].attrs["baseline"]
    assert gain["baseline"].startswith("what was done")
    assert cost["units"].startswith("money")
    assert "second best" in found["gain_best_margin"].attrs["long_name"]
    assert found["push"].attrs["long_name"] == "push, as the plan sets it"


def test_a_sweep_as_tidy_tables_from_the_command(run, tmp_path, capsys):
    words = ["sweep", str(run), "--grid", "push=0,1", "--reduce", "gain.full gain.best", "--tidy", str(tmp_path / "t")]
    for _ in range(2):  # the same command again writes the same tables
        cli.main([*words, "--out", str(tmp_path / "s.zarr")])
    found, table = store.read(tmp_path / "s.zarr"), pd.read_parquet(tmp_path / "t" / "push-unit-outcome.parquet")
    np.testing.assert_array_equal(table["gain"], found["gain"].values.ravel())
    assert table["income"].tolist() == np.tile(np.repeat(found["income"].values, 2), 2).tolist()
    assert f"{len(table):,} rows: {tmp_path / 't' / 'push-unit-outcome.parquet'}" in capsys.readouterr().out
    assert files.read_provenance(tmp_path / "t" / "unit-outcome.parquet")["sweep"] == found.attrs["sweep"]
    with pytest.raises(SystemExit, match="2"):
        cli.main([*words, "--periods", "2", "--out", str(tmp_path / "other.zarr")])
    assert "is no table of" in " ".join(capsys.readouterr().err.split())


def test_two_processes_from_one_command(run, swept, panel):
    out = run / "two.zarr"
    words = ["--reduce", "gain.full cost.full gain.best", "--cost", "push=0.1 coupon=0.5", "--periods", "2"]
    cli.main(["sweep", str(run), *GRID, *words, "--chunk", "1", "--out", str(out), "--processes", "2"])
    one, two = store.read(swept), store.read(out)
    assert two.attrs["sweep"]["workers"] == 2
    for name in one.data_vars:
        np.testing.assert_allclose(two[name].values, one[name].values, rtol=1e-4, atol=1e-6)


CORES = """
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
from wmjax import cli
cli.main(sys.argv[2:])
"""


def on_cores(count, *words):
    """Give the command to a process of so many cores; what it says."""
    done = subprocess.run(
        [sys.executable, "-c", CORES, str(count), *map(str, words)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={name: value for name, value in os.environ.items() if name != devices.ENVIRONMENT},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(devices.num_cores() < 2, reason="there is but one core")
def test_each_core_is_a_device_and_a_sweep_ends_on_those_that_it_was_begun_on(run, world, panel, tmp_path):
    words = ["--grid", "push=0,1 coupon=0:3", "--reduce", "gain.full gain.mean", "--chunk", "1"]
    one, two = tmp_path / "one.zarr", tmp_path / "two.zarr"
    assert "devices: 1\n" in on_cores(1, "sweep", run, *words, "--out", one)
    assert "devices: 2\n" in on_cores(2, "sweep", run, *words, "--out", two)
    alone, both = store.read(one), store.read(two)
    assert [found.attrs["sweep"]["devices"] for found in (alone, both)] == [1, 2]
    for name in alone.data_vars:
        np.testing.assert_allclose(both[name].values, alone[name].values, rtol=1e-5, atol=1e-7)
    # Finished, it is not swept again for other cores; workers share those that there are.
    assert "Sweep: " in on_cores(1, "sweep", run, *words, "--out", two)
    assert "devices: 1\n" in on_cores(2, "sweep", run, *words, "--out", one, "--dry-run", "--processes", "2")

    def stop(event):
        if event.done > 3:
            raise InterruptedError

    begun = tmp_path / "begun.zarr"
    asked = sweeping.Asked(grid=words[1], reduce=words[3], chunk=1)
    with pytest.raises(UserError, match="goes on from there"):
        sweeping.run(world, panel, asked, begun, observer=stop)
    assert store.begun(begun)["devices"] == 2
    assert "devices: 2\n" in on_cores(1, "sweep", run, *words, "--out", begun)
    for name in both.data_vars:
        np.testing.assert_array_equal(store.read(begun)[name].values, both[name].values)


MANY = ["--grid", "push=0,1 coupon=0:1.0:120", "--reduce", "full gain.mean:push gain.best", "--chunk", "1"]


def workers_of(process):
    """Give the processes that a command has started, by their number in `--worker NUMBER/2`."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    lines = {int(child): Path(f"/proc/{child}/cmdline").read_text().split("\0") for child in children}
    return {line[line.index("--worker") + 1][0]: child for child, line in lines.items() if "--worker" in line}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for a process's children in /proc")
@pytest.mark.parametrize("number", ["0", "1"])
def test_a_killed_worker_of_two_costs_nothing_but_time(run, two_undisturbed, number, tmp_path):
    """SIGKILL amid the sweep; the command says so, and said again it ends with the same bits."""
    out = tmp_path / "killed.zarr"
    words = ["sweep", str(run), *MANY, "--out", str(out), "--processes", "2"]
    process = subprocess.Popen([sys.executable, "-m", "wmjax.cli", *words], stderr=subprocess.PIPE, text=True)
    boxes = out.with_name("killed.zarr.part") / "boxes"
    deadline = time.monotonic() + 240
    while len(list(boxes.glob("*.json"))) < 30:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    victim = workers_of(process)[number]
    os.kill(victim, signal.SIGKILL)
    said = process.communicate(timeout=240)[1]
    assert process.returncode == 2, said
    assert f"worker {number} of 2 ended with code -9" in " ".join(said.split())
    assert not out.exists()
    finished = {path.name: path.stat().st_mtime_ns for path in boxes.glob("*.json")}
    assert 30 <= len(finished) < 240
    # What stood was not done again: a marker is written anew with its box.
    again = threading.Thread(target=cli.main, args=(words,))
    again.start()
    kept = finished
    while again.is_alive():
        with contextlib.suppress(OSError):
            now = {path.name: path.stat().st_mtime_ns for path in boxes.glob("*.json")}
            kept = {name: now.get(name, when) for name, when in kept.items()}
        time.sleep(0.02)
    again.join()
    assert kept == finished
    assert contents(out) == contents(two_undisturbed)
    assert not out.with_name("killed.zarr.part").exists()


@pytest.fixture(scope="module")
def two_undisturbed(run):
    out = run / "undisturbed.zarr"
    cli.main(["sweep", str(run), *MANY, "--out", str(out), "--processes", "2"])
    return out


def test_a_table_that_could_not_be_fitted_can_be_asked_about(run, tmp_path, capsys):
    """One household, in days when nothing was pushed."""
    table = pd.read_parquet(run / "panel.parquet")
    table[table["consumer_id"] == 3].assign(push=0).to_parquet(tmp_path / "one.parquet")
    words = ["--panel", str(tmp_path / "one.parquet"), "--out", str(tmp_path / "one.zarr"), "--dry-run"]
    cli.main(["sweep", str(run), *GRID, *words])
    assert "points: 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep", "RUN", "--grid", "push", "--out", "x.zarr"], "is no axis of a grid"),
        (["sweep", "RUN", "--grid", "push=0,1", "--reduce", "bestest", "--out", "x.zarr"], "did you mean 'best'"),
        (["sweep", "RUN", "--grid", "push=0,1", "--cost", "push", "--out", "x.zarr"], "must be NAME=NUMBER"),
        (
            ["sweep", "RUN", "--grid", "push=0,1", "--periods", "0", "--out", "x.zarr"],
            "periods is 0, must be at least 1",
        ),
        (
            ["sweep", "RUN", "--grid", "push=0,1", "--periods", "0", "--processes", "2", "--out", "x.zarr"],
            "periods is 0",
        ),
        (["sweep", "RUN", "--grid", "push=0,1", "--start", "-1", "--out", "x.zarr"], "start is -1, must be at least 0"),
        (["sweep", "RUN", "--grid", "push=0,1", "--carry", "-1", "--out", "x.zarr"], "carry is -1, must be at least 0"),
        (["sweep", "RUN", "--grid", "push=0,1", "--worker", "2/2", "--out", "x.zarr"], "must be NUMBER/COUNT"),
        (["sweep", "RUN", "--grid", "push=0,7", "--out", "x.zarr"], "push is binary, 0 or 1; the grid's axis"),
        (["sweep", "RUN", "--grid", "push=0,1", "--out", "x.parquet"], "a sweep is a Zarr store, such as x.zarr"),
        (["sweep", "RUN", "--grid", "push=0,1", "--out", "x.csv"], "a sweep is a Zarr store"),
        (["sweep", "RUN", "--grid", "push=0,1", "--out", "x.zarr", "--tidy", "t.parquet"], "--tidy names a folder"),
        (["sweep", "RUN", "--grid", "push=0,0", "--out", "x.zarr"], "axis 'push' has the level 0 twice"),
        (["best", "doubtful.zarr", "--outcome", "visit", "--budget", "1"], '--cost "coupon=0.5"'),
        (["policy", "RUN", "SWEPT"], "say which --outcome"),
        (["best", "SWEPT", "--outcome", "buy"], "no outcome 'buy'; there are visit, purchase"),
        (["best", "SWEPT"], "say which --outcome"),
        (["best", "SWEPT", "--outcome", "visit", "--cost", "tv=1"], "no axis 'tv' to price"),
        (["best", "scaled.zarr", "--outcome", "visit", "--budget", "1"], "a budget needs costs; sweep again with"),
        (
            ["best", "scaled.zarr", "--outcome", "visit", "--cost", "scale.coupon=2"],
            "'scale.coupon' is no amount of an action, and has no price: sweep again with cost.full",
        ),
        (["best", "RUN"], "no sweep here"),
        (["best", "SWEPT", "--outcome", "visit", "--by", "incme"], "no 'incme' to choose by; did you mean 'income'"),
        (["sweep", "RUN", "--grid", "push=0,1", "--reduce", "mean:incme", "--out", "x.zarr"], "did you mean 'income'"),
        (
            ["sweep", "RUN", "--grid", "push=0,1", "--reduce", "mean:income,loyalty", "--out", "x.zarr"],
            "units are averaged by one static column",
        ),
        (
            ["sweep", "RUN", "--grid", "segment=yes,no push=0,1", "--out", "x.zarr"],
            "say which (--by), there are",
        ),
        (
            ["sweep", "RUN", "--grid", "segment=0:1 push=0,1", "--by", "loyalty", "--out", "x.zarr"],
            "has numbers, must be names of levels; there are 'no', 'yes'",
        ),
        (
            ["sweep", "RUN", "--grid", "segment=loyal push=0,1", "--by", "loyalty", "--out", "x.zarr"],
            "has 'loyal', no level of the column; there are 'no', 'yes'",
        ),
    ],
)
def test_mistakes_are_one_line(run, swept, doubtful, scaled, words, said, capsys):
    places = {"RUN": str(run), "SWEPT": str(swept), "doubtful.zarr": str(doubtful), "scaled.zarr": str(scaled)}
    words = [places.get(word, word) for word in words]
    words += ["--overwrite"] if words[0] == "best" else []
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    told = capsys.readouterr()
    assert said in (told.out + told.err).replace("\n", " ")
