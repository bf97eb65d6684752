"""The media world on a small simulated panel: the contract, attribution, storage, bad input."""

from __future__ import annotations

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from tests.worlds import untrained
from wmjax import cli
from wmjax.core.errors import UserError
from wmjax.data.readers import read_panel
from wmjax.data.splits import split_times
from wmjax.report.run import Run
from wmjax.train import many
from wmjax.transformer import network, response, tokens
from wmjax.worlds import contract, media
from wmjax.worlds.media import fitting, luck, placebo, posterior, prepare, tables
from wmjax.worlds.media import model as pure
from wmjax.worlds.media.config import SMOKE, MediaConfig


@pytest.fixture(scope="module")
def panel(geos):
    return geos


@pytest.fixture(scope="module")
def world(media_world):
    return media_world


@pytest.fixture(scope="module")
def found(world, panel):
    return world.attribute(panel, grid=(0.0, 1.0, 2.0))


def test_predictions_are_labelled_and_in_units(world, panel):
    got = world.predict(panel)
    assert got["mean"].dims == ("outcome", "unit", "time")
    assert got.sizes == {"outcome": 1, "unit": 5, "time": 48}
    assert (got.lo <= got["mean"]).all()
    # Warm curves and controls alone explain most of a panel whose covariates do.
    y = panel.arrays.outcomes[..., 0]
    assert np.corrcoef(got["mean"].values[0].ravel(), y.ravel())[0, 1] > 0.8


def test_attribution_is_consistent(found, world, panel):
    """Sums over units are `all`, media and baseline make the whole, both derivatives agree, no spend adds nothing."""
    got = found
    np.testing.assert_allclose(got.contribution[:, 0], got.contribution[:, 1:].sum("unit"), rtol=1e-6)
    np.testing.assert_allclose(got.roi * got.spend, got.contribution, rtol=1e-6)
    np.testing.assert_allclose(got.share, got.contribution / got.contribution.sum("channel"), rtol=1e-3)
    assert ((got.share_lo <= got.share) & (got.share <= got.share_hi)).all()
    # Channels do not interact in the response form; float32 sums of outcomes of about 5,000.
    assert abs(got.interaction).max() < 0.5
    assert (got.curve.sel(factor=0.0) == 0).all()
    np.testing.assert_allclose(got.curve.sel(factor=1.0), got.contribution, rtol=1e-3, atol=5e-2)
    assert (got.contribution > 0).all()
    assert (got.marginal_roi > 0).all()
    np.testing.assert_allclose(got.marginal_roi[:, 0], got.marginal_roi_difference[:, 0], rtol=0.05)
    assert (got.marginal_apart == "").all()
    assert not any("marginal returns" in line for line in got.attrs["warnings"])
    assert got.extrapolated.sel(factor=2.0, unit="all").all()
    assert not got.extrapolated.sel(factor=1.0).any()
    # By geo: whether twice its own largest spend is above the largest of any geo in the train weeks.
    train = split_times(panel, val=SMOKE.val, test=SMOKE.test).train
    largest = panel.arrays.actions[:, train].max((0, 1))
    spend = panel.arrays.actions * np.array([1, 1, 0.3, 1, 0.2], np.float32)[:, None, None]
    less = world.attribute(panel.with_actions(spend), grid=(0.0, 1.0, 2.0))
    want = largest[:, None] < 2 * spend.max(1).T
    assert 0 < want.sum() < want.size
    np.testing.assert_array_equal(less.extrapolated.sel(factor=2.0)[:, 1:], want)
    np.testing.assert_array_equal(less.extrapolated.sel(factor=2.0, unit="all"), want.any(1))
    (line,) = (line for line in got.attrs["warnings"] if "always on" in line)
    assert "channel_2" in line


def test_tables_are_tidy(found):
    """One row a channel, geo and quantity; a curve's row knows its spend and whether it was ever seen."""
    worth = tables.roi(found)
    assert list(worth.columns) == [
        "channel", "geo", "quantity", "mean", "lo", "hi", "unit", "extrapolated", "no_overlap"
    ]  # fmt: skip
    # One channel is always on: against no spend in it, nothing was learnt from.
    assert set(worth[worth["extrapolated"]]["channel"]) == {"channel_2"}
    assert set(worth[worth["extrapolated"]]["quantity"]) == {"contribution", "roi", "share"}
    assert not worth["no_overlap"].any()
    doubted = tables.roi(found.assign_attrs(no_overlap=["channel_1"]).drop_sel(factor=0.0))
    assert set(doubted[doubted["no_overlap"]]["channel"]) == {"channel_1"}
    assert doubted["extrapolated"].isna().tolist() == [not q.startswith("marginal") for q in doubted["quantity"]]
    assert len(worth) == 3 * 6 * 5
    one = worth.query("channel == 'channel_1' and geo == 'geo_02' and quantity == 'roi'").iloc[0]
    assert one["mean"] == pytest.approx(float(found.roi.sel(channel="channel_1", unit="geo_02")))
    assert one["unit"] == "sales per unit of spend"
    both = [worth[worth["quantity"] == q]["mean"].to_numpy() for q in ("marginal_roi", "marginal_roi_difference")]
    np.testing.assert_allclose(*both, rtol=0.05)
    assert (both[0] != both[1]).any()
    traced = tables.curves(found)
    assert len(traced) == 3 * 3 * 6
    assert traced.query("factor == 2.0 and geo == 'all'").extrapolated.all()
    np.testing.assert_allclose(traced.query("factor == 2.0 and geo == 'all'").spend, 2 * found.spend[:, 0])
    assert traced["roi"].isna().tolist() == (traced["factor"] == 0).tolist()
    as_it_was = traced.query("factor == 1.0").set_index(["channel", "geo"])
    for end in ("roi", "roi_lo", "roi_hi"):
        own = found[end].to_series().rename_axis(["channel", "geo"])
        np.testing.assert_allclose(as_it_was[end], own.loc[as_it_was.index], rtol=2e-3)


def test_contributions_by_week_sum_to_the_attribution(found, world, panel):
    """And with baseline and interaction to what draws expect in each geo and week: in train weeks what is predicted."""
    by_week = world.contributions(panel)
    expected = by_week.contribution.sum("channel") + by_week.baseline + by_week.interaction
    history, plan = world.history(panel), jnp.asarray(panel.arrays.actions)
    draws = jax.lax.map(
        lambda one: pure.respond(one, history, plan, 0, cfg=world.cfg.network), world.answering(history)
    )
    np.testing.assert_allclose(expected, draws.mean(0), rtol=1e-4)
    train = split_times(panel, val=world.cfg.val, test=world.cfg.test).train
    predicted = world.predict(panel)["mean"][0]
    np.testing.assert_allclose(expected[:, train].sum("time"), predicted[:, train].sum("time"), rtol=1e-4)
    np.testing.assert_allclose(by_week.baseline_total, by_week.baseline.sum("unit"), rtol=1e-5)
    assert (by_week.baseline_lo <= by_week.baseline).all()
    np.testing.assert_allclose(by_week.interaction, 0, atol=1e-2)
    holey = np.array(panel.arrays.mask)
    holey[2, 4:9] = False
    spend = np.where(holey[..., None], panel.arrays.actions, 0)
    part = dataclasses.replace(panel, arrays=panel.arrays._replace(mask=holey, actions=spend))
    table = tables.contributions(world.contributions(part))
    assert list(table.columns) == ["channel", "geo", "time", "quantity", "mean", "lo", "hi", "unit"]
    assert len(table) == 5 * (48 + holey.sum())
    assert set(table["quantity"]) == {"contribution", "baseline", "interaction"}
    assert set(table["channel"]) == {*world.channels, "baseline", "interaction"}
    sums = table.groupby(["geo", "time"])["mean"].sum()
    np.testing.assert_allclose(sums["all"], sums.drop("all").groupby("time").sum(), rtol=1e-5)
    history, plan = world.history(part), jnp.asarray(part.arrays.actions)
    draws = jax.lax.map(
        lambda one: pure.respond(one, history, plan, 0, cfg=world.cfg.network), world.answering(history)
    )
    np.testing.assert_allclose(sums["geo_02"], draws.mean(0)[2][holey[2]], rtol=1e-4)
    np.testing.assert_allclose(by_week.contribution.sum("time"), found.contribution[:, 1:], rtol=2e-3, atol=5e-2)
    assert (by_week.contribution.values >= 0).all()


def test_an_effect_is_a_difference_of_its_own_week(world, panel):
    got = world.effect_interval(panel, "channel_0", 0.0, 0.5)
    assert (got.effect > 0).all()
    assert (got.lo <= got.effect).all()
    same = world.effect(panel, "channel_0", 0.3, 0.3)
    # Two arms of one program, rounded apart: float32 of outcomes of hundreds.
    assert abs(same.effect).max() < 1e-3
    assert "lo" not in same
    assert not world.effect(panel, "channel_0", 0.0, 1e6).supported.any()


def test_simulations_share_their_luck(world, panel):
    more = np.array(panel.arrays.actions)
    more[..., 0] += 0.2
    pair = [world.simulate(jax.random.key(1), panel, a, start=40, draws=2) for a in (panel.arrays.actions, more)]
    assert pair[0].drawn.dims == ("member", "draw", "outcome", "unit", "time")
    assert pair[0].sizes["time"] == 8
    gain = (pair[1] - pair[0]).drawn
    # The same noise in both: what is left is the plan, the same in every draw.
    np.testing.assert_allclose(gain[:, 0], gain[:, 1], atol=2e-2)
    assert gain.mean() > 0


def test_a_world_comes_back_from_disk_as_it_was(world, panel, tmp_path):
    world.save(tmp_path / "world")
    again = contract.load(tmp_path / "world")
    np.testing.assert_array_equal(again.predict(panel)["mean"], world.predict(panel)["mean"])
    assert again.cfg == world.cfg
    assert again.units == world.units


# ---- preparation ----------------------------------------------------------------------------------------------------


def test_scales_come_from_train_weeks_and_no_spend_stays_none(panel):
    train = np.arange(48) < 30
    a = prepare.fit_scales(panel, train, SMOKE)
    arrays = panel.arrays._replace(
        actions=np.where(train[:, None], panel.arrays.actions, 99.0).astype(np.float32),
        outcomes=np.where(train[:, None], panel.arrays.outcomes, -1e4).astype(np.float32),
    )
    b = prepare.fit_scales(dataclasses.replace(panel, arrays=arrays), train, SMOKE)
    jax.tree.map(np.testing.assert_array_equal, a, b)
    spend = np.asarray(prepare.series(panel, a, SMOKE).spend)
    np.testing.assert_array_equal(spend == 0, panel.arrays.actions == 0)
    assert spend[:, train].max() == pytest.approx(1.0)


def test_mediators_are_not_shown(panel):
    columns = tuple(
        dataclasses.replace(c, future="mediator") if c.name == "demand_proxy" else c for c in panel.schema.columns
    )
    other = dataclasses.replace(panel, schema=dataclasses.replace(panel.schema, columns=columns))
    train = np.ones(48, bool)
    shapes = [prepare.covariates(p, SMOKE, prepare.fit_scales(p, train, SMOKE)).shape[-1] for p in (panel, other)]
    assert shapes[0] - shapes[1] == 2  # itself and its error


def test_bad_panels_get_one_clear_error(panel):
    def spoil(name, index, value):
        array = np.array(getattr(panel.arrays, name))
        array[index] = value
        return dataclasses.replace(panel, arrays=panel.arrays._replace(**{name: array}))

    cases = (
        ("spend is negative in 1 rows, first at unit 'geo_01'", "actions", (1, 2, 0), -1.0),
        ("no spend anywhere", "actions", np.s_[:, :, 1], 0.0),
        ("only later", "actions", np.s_[:, :38, 1], 0.0),
        ("outcome is 0 in all", "outcomes", np.s_[:], 0.0),
    )
    for message, *change in cases:
        with pytest.raises(UserError, match=message):
            media.fit(jax.random.key(0), spoil(*change), SMOKE)
    every_week = np.zeros((5, 48 * 7), bool)
    every_week[:, ::7] = True
    sparse = jax.tree.map(lambda x: np.repeat(x, 7, axis=1) if x.ndim > 1 and x.shape[1] == 48 else x, panel.arrays)
    daily = dataclasses.replace(
        panel,
        arrays=sparse._replace(mask=every_week),
        times=pd.date_range("2024-01-01", periods=48 * 7),
        schema=dataclasses.replace(panel.schema, frequency="daily"),
    )
    with pytest.raises(UserError, match="no unit has two train periods in a row, 39 of 268 daily periods have rows"):
        media.fit(jax.random.key(0), daily, SMOKE)
    with pytest.raises(UserError, match="only 1 train periods"):
        media.fit(jax.random.key(0), panel.select(times=slice(0, 1)), dataclasses.replace(SMOKE, val=0, test=0))
    with pytest.raises(UserError, match="names 'tv'"):
        media.fit(jax.random.key(0), panel, dataclasses.replace(SMOKE, negative=("tv",)))


def test_the_users_mistakes_are_named(world, panel):
    with pytest.raises(UserError, match="no channel 'chanel_0'"):
        world.effect(panel, "chanel_0", 0, 1)
    with pytest.raises(UserError, match="negative"):
        world.effect(panel, "channel_0", -1, 1)
    with pytest.raises(UserError, match="start is 99"):
        world.simulate(jax.random.key(0), panel, panel.arrays.actions, start=99)
    stranger = dataclasses.replace(panel, units=("geo_00", "geo_01", "geo_02", "geo_03", "mars"))
    with pytest.raises(UserError, match="first 'mars'"):
        world.predict(stranger)


# ---- learning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [2, 5])
def test_members_learn_from_every_week_equally_often_and_their_priors_have_the_priors_mean(members):
    """Sums over members are exact; a member's weeks come in blocks, and 200 draws differ by what chance has it.

    Over 200 draws of two channels the mean variance over members is 1 (of 400 numbers with one degree of freedom at
    least, sd .07: five of them).
    """
    train = (np.arange(50) < 45) & (np.arange(50) % 20 != 7) | (np.arange(50) == 47)
    keys = jax.random.split(jax.random.key(0), 200)
    draw = jax.vmap(lambda k: luck.balanced(k, train, channels=2, members=members, block=8))
    weights, curves, beliefs = jax.tree.map(np.asarray, jax.jit(draw)(keys))
    np.testing.assert_array_equal(weights.sum(1), np.tile(members * train, (200, 1)))
    taught = weights[:, :, train]
    # Of 43 weeks six blocks of seven or eight each; a block ends where it began, on the ring.
    assert ((taught.sum(2) >= 6 * 7) & (taught.sum(2) <= 6 * 8)).all()
    assert (np.diff(taught, axis=2) != 0).sum(2).max() <= 6 * 2
    assert (taught.std((0, 1)) > 0.3).all()
    for noise in (*curves, beliefs):
        np.testing.assert_allclose(noise.sum(1), 0, atol=1e-5)
        assert abs(noise.var(1, ddof=1).mean() - 1) < 0.35


def test_each_belief_has_a_luck_of_its_own():
    """Another one about a channel moves nothing that was there, and both are in balance."""
    train = np.arange(50) < 43
    shape = {"channels": 2, "members": 5, "block": 8}
    few, more = (luck.balanced(jax.random.key(0), train, **shape, further=n) for n in (0, 2))
    for one, other in zip((few.weights, *few.curves), (more.weights, *more.curves), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(few.beliefs, more.beliefs[:, :2])
    assert more.beliefs.shape == (5, 4)
    np.testing.assert_allclose(more.beliefs.sum(0), 0, atol=1e-5)
    assert len(np.unique(more.beliefs)) == 20
    assert luck.lots([1, 0], 2) == [1, 0]
    assert luck.lots([1, 1, 0, 1], 2) == [1, 2, 0, 3]


def test_one_member_has_no_luck():
    train = np.arange(50) < 43
    weights, curves, beliefs = luck.balanced(jax.random.key(0), train, channels=2, members=1, block=8)
    np.testing.assert_array_equal(weights[0], train)
    assert not any(np.any(noise) for noise in (*curves, beliefs))


def test_members_that_are_left_open_are_as_many_as_a_table_wants(panel, monkeypatch):
    asked = []

    def stop(key, panel, cfg, creative):
        asked.append(cfg.members)
        raise UserError("stop")

    monkeypatch.setattr(fitting, "prepared", stop)
    open_, one = dataclasses.replace(SMOKE, members=0), panel.select(units=panel.units[:1])
    free = dataclasses.replace(open_, network=dataclasses.replace(SMOKE.network, head="free"))
    for table, cfg in ((panel, open_), (one, open_), (one, free), (one, SMOKE)):
        with pytest.raises(UserError, match="stop"):
            media.fit(jax.random.key(0), table, cfg)
    assert asked == [5, 16, 5, 3]
    with pytest.raises(UserError, match="none of 1 units"):
        media.fit_each(jax.random.key(0), one, open_)
    assert asked[4:] == [5]


def test_rows_that_are_missing_between_others_are_told(world, panel):
    assert world.facts["gaps"] == prepare.gaps(panel) == {}
    mask = np.array(panel.arrays.mask)
    mask[1, :3] = mask[2, -2:] = False  # where a unit begins and ends
    assert prepare.gaps(dataclasses.replace(panel, arrays=panel.arrays._replace(mask=mask))) == {}
    mask[1, 7:9] = mask[3, 20] = False
    found = prepare.gaps(dataclasses.replace(panel, arrays=panel.arrays._replace(mask=mask)))
    assert found == {"rows": 3, "units": 2, "unit": "geo_01", "time": "2022-02-21"}
    assert not any("one series" in line for line in world.warnings())
    told = dataclasses.replace(world, facts={**world.facts, "gaps": found}).warnings()
    assert any(
        w.startswith("3 periods of 2 units are missing between others, first 'geo_01' at 2022-02-21") for w in told
    )


def test_members_and_draws_apart():
    """Outside the middle nine tenths of the draws, whatever level is asked for."""
    own = np.array([[0.0, 0.5, 1.0, 0.0], [0.0, 0.5, 1.0, 0.0]])
    draws = np.linspace(0, 1, 101)[:, None] * np.array([1.0, 1.0, 0.9, 0.0])
    assert posterior.apart(own, draws).tolist() == [True, False, True, False]


def test_curves_of_the_other_form_answer_the_same_questions(world, panel):
    """Of a period's own spend and of all spend; written down in NumPy."""
    cfg = dataclasses.replace(world.cfg, network=dataclasses.replace(world.cfg.network, saturation="logistic"))
    other = dataclasses.replace(world, cfg=cfg)
    history, plan = other.history(panel), jnp.asarray(panel.arrays.actions)
    one = jax.tree.map(lambda x: x[0], other.answering(history))
    curves = jax.tree.map(lambda x: np.asarray(x, np.float64), one.params["curves"])
    spend = np.asarray(history.series.spend, np.float64)
    weights = (1 / (1 + np.exp(-curves.carry))) ** np.arange(cfg.network.carry + 1)[:, None]
    before = [np.roll(np.pad(spend, ((0, 0), (4, 0), (0, 0))), lag, axis=1)[:, 4:] for lag in range(5)]
    stock = sum(w * x for w, x in zip(weights / weights.sum(0), before, strict=True))
    decay = 3.0 ** -((stock / np.exp(curves.half)) ** np.exp(curves.slope))
    base, added = pure.terms(one, history, plan, cfg=cfg.network)
    want = np.asarray(history.size)[:, None, None] * float(history.scale) * np.exp(curves.size)
    np.testing.assert_allclose(added, want * (1 - decay) / (1 + decay), rtol=1e-3, atol=1e-4)
    now = pure.respond_now(one, history, plan, plan, cfg=cfg.network)
    np.testing.assert_allclose(now, base + added.sum(-1), rtol=1e-4)
    assert (pure.terms(one, history, 0 * plan, cfg=cfg.network)[1] == 0).all()
    assert not np.allclose(added, pure.terms(one, history, plan, cfg=world.cfg.network)[1], rtol=0.02)


def test_a_world_whose_members_disagree_says_so(world, panel):
    """One member's first curve all but vanishes: its mean contribution is then beside that of draws around the mean."""
    size = world.params["outcome"]["curves"].size
    off = jax.tree.map(jnp.copy, world.params)
    off["outcome"]["curves"] = world.params["outcome"]["curves"]._replace(size=size.at[0, 0].add(-12.0))
    narrow = dataclasses.replace(world, params=off, spread=1e-3 * world.spread)
    train = split_times(panel, val=world.cfg.val, test=world.cfg.test).train
    assert world.channels[0] in fitting.disagreement(narrow, panel, train)
    (line,) = (
        x
        for x in dataclasses.replace(narrow, facts={**world.facts, "disagree": [world.channels[0]]}).warnings()
        if x.startswith("members disagree")
    )
    assert world.channels[0] in line
    same = jax.tree.map(lambda x: jnp.broadcast_to(x.mean(0), x.shape), world.params)
    assert fitting.disagreement(dataclasses.replace(world, params=same), panel, train) == []
    one = dataclasses.replace(world.cfg, members=1)
    assert fitting.disagreement(dataclasses.replace(world, cfg=one), panel, train) == []


def test_a_gappy_national_panel_of_months_is_fitted_and_answered():
    """One series, two months missing, a belief about one channel's return."""
    rng = np.random.default_rng(0)
    spend = rng.random((40, 2)) * 100
    spend[::5, 0] = 0
    table = pd.DataFrame({"month": pd.date_range("2020-01-01", periods=40, freq="MS"), "tv": spend[:, 0]})
    table["radio"] = spend[:, 1]
    table["sales"] = 500 + 2 * spend[:, 0] + rng.normal(0, 5, 40)
    schema = {
        "unit": None,
        "time": "month",
        "columns": {
            "tv": {"role": "action", "kind": "currency"},
            "radio": {"role": "action", "kind": "currency"},
            "sales": {"role": "outcome", "kind": "continuous"},
        },
    }
    national = read_panel(table.drop(index=[20, 21]), schema)
    belief = media.ROIPrior(channel="tv", a=2.0, b=0.2)
    world = media.fit(jax.random.key(0), national, dataclasses.replace(SMOKE, alpha=0.0, warm=50, roi=(belief,)))
    got = world.attribute(national, times=slice(30, 38), grid=(1.0,), chunk=4)
    assert float(got.spend.sel(unit="all", channel="tv")) == pytest.approx(spend[30:38, 0].sum(), rel=1e-5)
    assert got.contribution.sel(unit="all", channel="tv") > got.contribution.sel(unit="all", channel="radio")
    assert np.isnan(world.predict(national)["mean"]).sum() == 2


def test_the_published_head_is_asked_by_the_same_calls(world, panel):
    """Untrained: that the roll-out answers, and that a plan that is the plan changes nothing."""
    free = dataclasses.replace(SMOKE, network=dataclasses.replace(SMOKE.network, head="free"), members=2)
    known = tokens.channels(3, cfg=free.network)
    covariates = world.params["outcome"]["covariates"]["w"].shape[1]
    draw = lambda m: network.init(  # noqa: E731
        jax.random.key(m),
        known,
        cfg=free.network,
        num_covariates=covariates,
        num_static=0,
        curves=response.centre(jnp.ones(3)),
    )
    other = dataclasses.replace(world, cfg=free, params=many.stack([draw(0), draw(1)]))
    assert other.shift(panel, "channel_0", "channel_1", 0.0)["mean"] == 0
    assert other.shift(panel, "channel_0", "channel_1", 0.5, times=slice(10, 20))["mean"] != 0


def test_configs_refuse_nonsense():
    for wrong in ({"members": -1}, {"alpha": -1.0}, {"ema": 1.0}, {"epochs": 99999}, {"clip": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MediaConfig(**wrong)


def test_a_shift_says_what_it_is_of(world, panel, tmp_path):
    """One member has no interval: its bounds are null, which strict JSON can hold."""
    one = jax.tree.map(lambda a: a[:1], world.params)
    cfg = dataclasses.replace(world.cfg, members=1)
    alone = dataclasses.replace(world, params=one, spread=world.spread[:1], residual=world.residual[:1], cfg=cfg)
    for name, asked in (("run", world), ("alone", alone)):
        run = Run(tmp_path / name)
        run.claim(panel, SMOKE, 0, overwrite=False)
        asked.save(run.folder / "world")
        cli.main(["shift", str(run.folder), "--source", "channel_0", "--target", "channel_1", "--share", "0.2"])
        told = json.loads((run.folder / "shift_channel_0_channel_1.json").read_text())
        assert (told["lo"] is None) == (name == "alone")
        assert {"seed", "config", "data_fingerprint", "versions"} <= set(told["provenance"])
        answer = told["provenance"]["answer"]
        assert answer["panel_fingerprint"] == panel.fingerprint
        assert answer["share"] == 0.2


def test_the_report_of_a_run_says_what_its_files_hold(world, panel, tmp_path):
    """The page and every file behind it; what channels added by week is what the page says they added in all."""
    run = Run(tmp_path / "run")
    run.claim(panel, SMOKE, 0, overwrite=False)
    given = {name: {"roi": 2.0, "lo": 1.0, "hi": 3.0, "placebo": 0.5, "alpha": 0.1} for name in world.channels}
    given["channel_0"]["placebo"] = 1.5
    dataclasses.replace(world, facts={**world.facts, "placebo": given}).save(run.folder / "world")
    cli.main(["report", str(run.folder), "--title", "Worth it?"])
    page = (run.folder / "report.html").read_text()
    assert "Worth it?" in page
    # Returns, marginal returns, shares; a response and a course a channel; the outcome; training curves.
    assert page.count("<svg") >= 3 + 3 + 3 + 1 + 2
    assert "always on: hardly a period shows the outcome without it" in page
    assert "a copy that does nothing is given a return of 1.5, the channel beside it 2 (90% interval 1 to 3)" in page
    assert pd.read_parquet(run.folder / "placebos.parquet")["placebo"].tolist() == [1.5, 0.5, 0.5]
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert "What the outcome that draws expect is made of" in page
    assert re.search(r"<t[dh][^>]*>interaction</t[dh]>", page)
    whole = pd.read_parquet(run.folder / "contributions.parquet")
    assert set(whole["geo"]) == {"all", *panel.units}
    by_week = whole.query("geo == 'all' and quantity == 'contribution'")
    assert (by_week["lo"] <= by_week["mean"] + 1e-6).all()
    assert (by_week["mean"] <= by_week["hi"] + 1e-6).all()
    roi = pd.read_parquet(run.folder / "roi.parquet").query("geo == 'all' and quantity == 'contribution'")
    np.testing.assert_allclose(
        by_week.groupby("channel")["mean"].sum(), roi.set_index("channel")["mean"].sort_index(), rtol=1e-4
    )
    table = pd.read_parquet(run.folder / "outcome.parquet")
    np.testing.assert_allclose(table["observed"], panel.arrays.outcomes[..., 0].sum(0), rtol=1e-5)
    assert (table["baseline"] < table["expected"]).all()


def test_a_copy_of_a_channel_has_its_values_and_not_its_weeks(panel):
    """Rank by rank the unit's own spend, in other train weeks: what is the channel's own does not come along."""
    gone, train = panel.arrays.mask.copy(), split_times(panel, val=SMOKE.val, test=SMOKE.test).train
    gone[1, 3:9] = False
    holey = dataclasses.replace(panel, arrays=panel.arrays._replace(mask=gone))
    found = placebo.copies(jax.random.key(0), holey, SMOKE)
    for unit, seen in enumerate(gone & train):
        own = panel.arrays.actions[unit, seen]
        np.testing.assert_array_equal(np.sort(found[unit, seen], axis=0), np.sort(own, axis=0))
        # Weeks without any spend are alike wherever they stand.
        assert (found[unit, seen] != own)[own > 0].mean() > 0.8
    np.testing.assert_array_equal(found[:, ~train], panel.arrays.actions[:, ~train])
    # Later weeks have no say.
    later = panel.arrays._replace(outcomes=np.where(train[:, None], panel.arrays.outcomes, 1e3))
    again = placebo.copies(jax.random.key(0), dataclasses.replace(panel, arrays=later), SMOKE)
    np.testing.assert_array_equal(again, placebo.copies(jax.random.key(0), panel, SMOKE))


def test_a_copy_follows_what_its_channel_follows_and_is_as_common_to_the_geos(panel):
    """Spend of a geo a thousand times as large follows the covariate like the others'; a national channel stays one."""
    rng, spend = np.random.default_rng(0), panel.arrays.actions.copy()
    train = split_times(panel, val=SMOKE.val, test=SMOKE.test).train
    told = panel.arrays.covariates[..., 0] - panel.arrays.covariates[..., 0].min()
    size = np.array([1000.0, 1, 1, 1, 1])[:, None]
    spend[..., 0] = size * (5 + 4 * told + rng.normal(size=told.shape))
    spend[..., 1] = size * rng.exponential(size=told.shape[1])
    spend[..., 2] = size * rng.exponential(size=told.shape)
    outcomes = (panel.arrays.outcomes - panel.arrays.outcomes.min() + 100) * size[..., None]
    asked = panel.with_actions(spend)
    asked = dataclasses.replace(asked, arrays=asked.arrays._replace(outcomes=outcomes.astype(np.float32)))
    copy = placebo.copies(jax.random.key(0), asked, dataclasses.replace(SMOKE, size="outcome"))[:, train]
    own, told = spend[:, train], told[:, train]
    for unit in (0, 1):
        follows = [np.corrcoef(x[unit, :, 0], told[unit])[0, 1] for x in (own, copy)]
        assert follows[1] > 0.7 * follows[0] > 0.4
    # Of one national pattern the covariates tell some by chance, in each geo by its own.
    assert np.corrcoef(copy[..., 1])[np.triu_indices(5, 1)].min() > 0.5
    # 190 weeks of luck: a correlation beyond .3 has a chance of 1 in 30,000.
    ratio = [(x[..., 2] / size).ravel() for x in (copy, own)]
    assert abs(np.corrcoef(*ratio)[0, 1]) < 0.3


def test_what_copies_are_given_is_kept_told_and_saved(world, panel, tmp_path):
    """The second fit trains nothing here: its copies are given what the prior's centre gives them."""
    world = dataclasses.replace(world, cfg=dataclasses.replace(world.cfg, warm=0))
    checked = untrained.fit(placebo.check, jax.random.key(1), world, panel)
    kept = checked.facts["placebo"]
    assert set(kept) == set(world.channels)
    table = placebo.table(checked)
    assert list(table.columns) == ["channel", "roi", "lo", "hi", "placebo"]
    # Untrained, a channel and its copy of the same spends have one return and the interval of either holds it.
    np.testing.assert_allclose(table["roi"], table["placebo"], rtol=0.2)
    assert (table["lo"] < table["placebo"]).all()
    assert set(checked.doubts().like_placebos) == set(world.channels)
    name = world.channels[0]
    low = {name: {**kept[name], "placebo": 0.99 * kept[name]["lo"]} for name in kept}
    assert dataclasses.replace(world, facts={**world.facts, "placebo": low}).doubts().like_placebos == {}
    none = {name: {**kept[name], "lo": None} for name in kept}
    assert dataclasses.replace(world, facts={**world.facts, "placebo": none}).doubts().like_placebos == {}
    high = {**low, name: {**kept[name], "placebo": 1.01 * kept[name]["lo"]}}
    told = dataclasses.replace(world, facts={**world.facts, "placebo": high})
    assert set(told.doubts().like_placebos) == {name}
    (line,) = (line for line in told.warnings() if "smaller fit" in line)
    assert f": {name} (copy {high[name]['placebo']:.3g}; channel {high[name]['roi']:.3g}, " in line
    told.save(tmp_path / "world")
    assert contract.load(tmp_path / "world").warnings() == told.warnings()
    # A channel that lowers the outcome is doubted where its copy lowers it as much.
    minus = {
        n: {**p, "roi": -p["roi"], "lo": -p["hi"], "hi": -p["lo"], "placebo": -p["placebo"]} for n, p in high.items()
    }
    cfg = dataclasses.replace(world.cfg, negative=world.channels)
    lowering = dataclasses.replace(world, cfg=cfg, facts={**world.facts, "placebo": minus})
    assert set(lowering.doubts().like_placebos) == {name}
    # Of either sign: a copy is given as much on any side.
    flipped = {**high, name: {**high[name], "placebo": -high[name]["placebo"]}}
    for signs, found in ({"unknown": world.channels}, {name}), ({}, set()):
        cfg = dataclasses.replace(world.cfg, **signs)
        either = dataclasses.replace(world, cfg=cfg, facts={**world.facts, "placebo": flipped})
        assert set(either.doubts().like_placebos) == found
    alone = dataclasses.replace(world, cfg=dataclasses.replace(world.cfg, members=1))
    with pytest.raises(UserError, match="one member has no intervals"):
        placebo.check(jax.random.key(0), alone, panel)


def test_how_strong_a_hidden_cause_must_be_is_kept_and_told(world, panel):
    """By least squares within units: each channel's curve on the others, the covariates and the last period."""
    kept, train = world.facts["hidden"], split_times(panel, val=world.cfg.val, test=world.cfg.test).train
    assert set(kept) == set(world.channels)
    history = world.history(panel)
    added = world.contributions(panel)["contribution"].values
    size = np.asarray(history.size)[:, None]
    media_of = np.moveaxis(added, 0, -1) / size[..., None]
    y = np.asarray(history.series.outcome) * float(history.scale)
    before = np.pad((y - media_of.sum(-1))[:, :-1], ((0, 0), (1, 0)))
    told = prepare.as_measured(history.series, world.scales)
    wide = np.concatenate([media_of, told, before[..., None], y[..., None]], -1)[:, train][:, 1:]
    flat = (wide - wide.mean(1, keepdims=True)).reshape(-1, wide.shape[-1])
    read, outcome = flat[:, :-1], flat[:, -1]
    left = outcome - read @ np.linalg.lstsq(read, outcome, rcond=None)[0]
    names = prepare.covariate_names(panel, world.cfg, world.scales)[: told.shape[-1]]
    assert len(names) == read.shape[1] - len(world.channels) - 1
    for at, name in enumerate(world.channels):
        others = np.delete(read, at, axis=1)
        own = read[:, at] - others @ np.linalg.lstsq(others, read[:, at], rcond=None)[0]
        share, free = kept[name]["robustness"], len(flat) - read.shape[1] - 1
        assert share**2 / (1 - share) == pytest.approx(own @ own / (free + 1) / (left @ left / free), rel=0.02)
        assert kept[name]["known_columns"] in {*names, "the last period", *world.channels, ""}
    weak = {name: {**told, "times_known": 0.5 if name == world.channels[0] else 2.0} for name, told in kept.items()}
    told = dataclasses.replace(world, facts={**world.facts, "hidden": weak})
    assert set(told.doubts().explained_away) == {world.channels[0]}
    (line,) = (line for line in told.warnings() if "hidden cause" in line)
    assert line.endswith(f"{world.channels[0]} (0.50 times as strong as {kept[world.channels[0]]['known_columns']})")
    assert not any("hidden cause" in line for line in told.warnings(frozenset(world.channels[1:])))


def test_a_world_that_forecasts_worse_than_means_says_so_first(world, panel):
    """R2 by hand, around each unit's mean of the train periods; held-out periods speak before watched ones."""
    split = split_times(panel, val=world.cfg.val, test=world.cfg.test)
    y, expected = panel.arrays.outcomes[..., 0], world.predict(panel)["mean"].values[0]
    mean = y[:, split.train].mean(1, keepdims=True)
    for part, times in zip(("train", "val", "test"), split, strict=True):
        own = 1 - ((y - expected)[:, times] ** 2).sum() / ((y - mean)[:, times] ** 2).sum()
        assert world.facts["r2"][part] == pytest.approx(own, rel=1e-4)
    whole, mean = y.sum(0), y[:, split.train].sum(0).mean()
    own = 1 - ((whole - expected.sum(0))[split.test] ** 2).sum() / ((whole - mean)[split.test] ** 2).sum()
    assert world.facts["r2"]["test_sum"] == pytest.approx(own, rel=1e-4)
    for r2, told in (
        ({"test": -2.3, "val": 0.9}, "held-out periods are predicted no better than by each unit's mean"),
        ({"test": 0.1, "test_sum": 0.2, "val": -1.0}, ""),
        (
            {"test": 0.6, "test_sum": -1.6},
            "held-out periods are predicted no better than by the mean of all units' sum",
        ),
        ({"val": -1.0}, "watched periods are predicted no better than by each unit's mean"),
    ):
        warned = dataclasses.replace(world, facts={**world.facts, "r2": r2, "size_ratio": None}).warnings()
        assert told in warned[0]
        uneven = dataclasses.replace(world, facts={**world.facts, "r2": r2, "size_ratio": 40.0}).warnings()
        assert ("differ 40-fold" in uneven[0]) is ("--size outcome" in uneven[0]) is bool(told)
        assert ("no better than" in warned[0]) is bool(told)
        sized = dataclasses.replace(world, facts={**world.facts, "r2": r2, "size": "outcome"}).warnings()
        assert ("--size none" in sized[0]) is bool(told)


def test_units_keep_their_own_numbers_in_any_order(world, panel):
    """Each its intercept, size and centre, wherever it stands in a table."""
    back = panel.select(units=panel.units[::-1])
    assert back.units == panel.units[::-1]
    level = np.asarray(world.params["outcome"]["intercepts"])
    assert level.shape == (world.members, panel.num_units)
    assert np.ptp(level, axis=1).min() > 1e-3
    there, here = (world.predict(p)["mean"].values[0] for p in (back, panel))
    np.testing.assert_allclose(there[::-1], here, rtol=1e-4)


def test_units_of_unequal_size_are_noticed(panel):
    """By their means of the train rows; not where each is divided by its own."""
    train = np.arange(panel.num_times) < 20
    outcomes = np.ones_like(panel.arrays.outcomes)
    outcomes[0, :20], outcomes[1, 20:] = 8.0, 100.0
    uneven = dataclasses.replace(panel, arrays=panel.arrays._replace(outcomes=outcomes))
    assert prepare.size_ratio(uneven, train, SMOKE) == pytest.approx(8.0)
    assert prepare.size_ratio(uneven, train, dataclasses.replace(SMOKE, size="outcome")) is None
    assert prepare.size_ratio(uneven.select(units=uneven.units[:1]), train, SMOKE) is None
    negative = dataclasses.replace(panel, arrays=panel.arrays._replace(outcomes=-outcomes))
    assert prepare.size_ratio(negative, train, SMOKE) is None


@pytest.mark.parametrize("told", [True, False])
def test_covariates_are_named_in_their_order(panel, told):
    """A column moves the columns of its name, its mean over units with it or its error, and others' errors alone."""
    cfg = dataclasses.replace(SMOKE, errors_in_variables=told)
    scales = prepare.fit_scales(panel, np.ones(panel.num_times, bool), cfg)
    names = np.array(prepare.covariate_names(panel, cfg, scales))
    base = prepare.covariates(panel, cfg, scales)
    assert base.shape[-1] == len(names)
    assert (names == "demand_proxy").sum() == 1 + told
    for at, name in enumerate(panel.covariate_names):
        moved = panel.arrays.covariates.copy()
        moved[0, 3, at] += 1
        other = prepare.covariates(
            dataclasses.replace(panel, arrays=panel.arrays._replace(covariates=moved)), cfg, scales
        )
        changed = (other != base).any((0, 1))
        noisy = told and name == "demand_proxy"
        assert set(names[changed]) == {name} | ({"demand_proxy"} if told else set()) | (
            set() if noisy else {f"{name}, all units"}
        )
        # Nothing before the week is moved.
        assert not (other != base)[:, :3].any()


def test_a_part_of_the_units_is_refused_where_their_mean_tells(world, panel):
    with pytest.raises(UserError, match=r"3 of the world's 5 units; give all of them"):
        world.predict(panel.select(units=panel.units[:3]))


def test_covariates_whose_error_nothing_tells_are_warned_of(world):
    noisy = dataclasses.replace(world, facts={**world.facts, "as_measured": ["searches"]})
    assert any("nothing tells their error: searches" in line for line in noisy.warnings())
    told = dataclasses.replace(world, facts={**world.facts, "as_measured": []})
    assert not any("nothing tells their error" in line for line in told.warnings())
