"""Budgets and shifts: against SciPy and by hand where returns are written down, and of a small fitted world."""

from __future__ import annotations

import dataclasses

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import scipy.optimize

from wmjax.core.errors import UserError
from wmjax.data.splits import split_times
from wmjax.worlds.media import budget, planning


@pytest.fixture(scope="module")
def panel(geos):
    return geos


@pytest.fixture(scope="module")
def world(media_world):
    return media_world


# ---- the search ------------------------------------------------------------------------------------------------------


def curves(n, seed=0):
    """sum b c x / (1 + x), x = m / h: concave, each spend for itself."""
    rng = np.random.default_rng(seed)
    c, b, h = 10 * rng.lognormal(0, 1, n), rng.lognormal(0, 1, n), rng.lognormal(0, 0.5, n)

    def value(m):
        return float((b * c * m / (h + m)).sum()), b * c * h / (h + m) ** 2

    return value, c, lambda price: np.sqrt(b * h / price) - h


def one(n):
    return np.zeros(n, int)


def test_the_split_of_square_roots_is_in_proportion_to_their_squared_factors():
    """sum b sqrt(m c): at the optimum m c is in proportion to b^2; a bound that binds is told by its side."""
    b, c = np.array([1.0, 2.0, 3.0]), np.array([10.0, 10.0, 20.0])

    def value(m):
        return float((b * np.sqrt(m * c)).sum()), b * np.sqrt(c) / (2 * np.sqrt(m))

    got = budget.best(value, c, np.full(3, 0.01), np.full(3, 9.0), np.array([40.0]), one(3))
    np.testing.assert_allclose(got.factors * c, 40 * b**2 / (b**2).sum(), rtol=1e-3)
    assert got.residual.max() < 1e-3
    assert not (got.at_low | got.at_high).any()
    np.testing.assert_allclose(got.returns, got.price[0], rtol=1e-3)
    tight = budget.best(value, c, np.full(3, 0.8), np.array([1.2, 1.2, 1.1]), np.array([40.0]), one(3))
    np.testing.assert_allclose(tight.factors, [0.8, 1.0, 1.1], atol=1e-4)
    assert tight.at_low.tolist() == [True, False, False]
    assert tight.at_high.tolist() == [False, False, True]
    assert tight.residual.max() < 1e-3
    assert tight.value > tight.start
    with pytest.raises(UserError, match="a budget of 400 cannot be met: the bounds cost from 32 to 48"):
        budget.best(value, c, np.full(3, 0.8), np.full(3, 1.2), np.array([400.0]), one(3))


@pytest.mark.parametrize("seed", range(5))
def test_scipy_finds_the_same(seed):
    """Own bounds of every spend, two groups with a budget each; SLSQP with one equation a group."""
    value, c, _ = curves(8, seed)
    rng, group = np.random.default_rng(seed + 10), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    low, high = rng.uniform(0, 0.9, 8), rng.uniform(1.1, 3, 8)
    budgets = np.bincount(group, c)
    got = budget.best(value, c, low, high, budgets, group, ("a", "b"))
    want = scipy.optimize.minimize(
        lambda m: -value(m)[0],
        np.ones(8),
        jac=lambda m: -value(m)[1],
        method="SLSQP",
        bounds=list(zip(low, high, strict=True)),
        constraints=[{"type": "eq", "fun": lambda m, g=g: c[group == g] @ m[group == g] - budgets[g]} for g in (0, 1)],
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert want.success
    np.testing.assert_allclose(np.bincount(group, c * got.factors), budgets, rtol=1e-9)
    assert got.value == pytest.approx(-want.fun, rel=1e-6)
    np.testing.assert_allclose(got.factors, want.x, atol=2e-3)
    assert got.residual.max() < 1e-3


def counted(value, calls):
    """Note each call."""
    return lambda m: (calls.append(1), value(m))[1]


def test_a_thousand_spends_are_split_as_one_price_says():
    """Water filling: at the price whose clipped demands cost the budget, found by Brent's method."""
    value, c, demand = curves(1000)
    low, high, calls = np.full(1000, 0.3), np.full(1000, 3.0), []
    got = budget.best(counted(value, calls), c, low, high, np.array([1.2 * c.sum()]), one(1000))
    fill = lambda price: np.clip(demand(price), low, high)  # noqa: E731
    price = scipy.optimize.brentq(lambda p: c @ fill(p) - 1.2 * c.sum(), 1e-6, 1e6, xtol=1e-12)
    np.testing.assert_allclose(got.factors, fill(price), atol=5e-3)
    assert got.price[0] == pytest.approx(price, rel=1e-3)
    assert len(calls) < 60


def test_what_is_nearly_the_same_is_climbed_first():
    """Few steps are left to the dear one, whose optimum is reached; where the rough one misleads, nothing is lost."""
    value, c, _ = curves(30)
    low, high, calls = np.full(30, 0.3), np.full(30, 3.0), []

    def rough(m):
        r, g = value(m)
        tilt = 0.01 * np.cos(np.arange(30)) * c
        return r + float(tilt @ m), g + tilt

    asked = (c, low, high, np.array([1.2 * c.sum()]), one(30))
    alone = budget.best(counted(value, calls), *asked)
    told = len(calls)
    both = budget.best(counted(value, calls), *asked, rough=rough)
    assert len(calls) - told < told
    np.testing.assert_allclose(both.factors, alone.factors, atol=5e-3)
    assert both.start == alone.start
    misled = budget.best(value, *asked, rough=lambda m: (-value(m)[0], -value(m)[1]))
    assert misled.value >= misled.start
    np.testing.assert_allclose(misled.factors, alone.factors, atol=5e-3)


def test_where_all_are_at_bounds_nothing_is_left_to_move():
    """Three at the upper bound and one at the lower: any price between their returns will do."""
    returns, c = np.array([5.0, 4.5, 4.0, 1.0]), np.ones(4)

    def value(m):
        return float(returns @ m), returns

    got = budget.best(value, c, np.array([0, 0, 0, 0.4]), np.array([1.2, 1.2, 1.2, 9]), np.array([4.0]), one(4))
    np.testing.assert_allclose(got.factors, [1.2, 1.2, 1.2, 0.4])
    assert got.residual.max() == 0
    assert 1 < got.price[0] < 4


def test_a_search_that_rounding_misleads_gives_up_nothing():
    """R that lies about its slope: the plan that it began from is kept."""

    def value(m):
        return -float(((m - 1) ** 2).sum()), np.array([1.0, -1.0])

    got = budget.best(value, np.ones(2), np.zeros(2), np.full(2, 2.0), np.array([2.0]), one(2))
    np.testing.assert_allclose(got.factors, 1)
    assert got.value == got.start
    assert got.residual.max() > 0.5


def test_the_best_split_seen_is_given_and_not_the_last():
    """R of a million that falls, by less than is told from rounding, beyond where its slope still points up.

    The third spend has its own budget and stays; its large return makes the first step a short one.
    """
    seen = []

    def value(m):
        seen.append(1e6 + (m[0] - 1 if m[0] < 1.1 else 0.1 - 0.1 * (m[0] - 1.1)))
        return float(seen[-1]), np.array([1.0, -1.0, 10.0])

    group = np.array([0, 0, 1])
    got = budget.best(value, np.ones(3), np.zeros(3), np.full(3, 2.0), np.array([2.0, 1.0]), group, ("a", "b"))
    assert got.start < seen[-1] < max(seen)
    assert got.value == max(seen)
    assert value(got.factors)[0] == got.value


# ---- bounds ----------------------------------------------------------------------------------------------------------


def test_bounds_are_of_channels_and_geos_in_multiples_or_money():
    cost = np.array([[10.0, 30.0], [5.0, 5.0]])
    names = (("tv", "radio"), ("north", "south"))
    low, high = budget.limits((0.5, 2.0), *names, cost, money=False)
    assert (low == 0.5).all()
    assert (high == 2).all()
    own = {"tv": (0.2, 1.0), ("tv", "south"): (0.9, 1.1)}
    low, high = budget.limits(own, *names, cost, money=False, default=(0.0, 3.0))
    np.testing.assert_allclose(low, [[0.2, 0.9], [0, 0]])
    np.testing.assert_allclose(high, [[1.0, 1.1], [3, 3]])
    low, high = budget.limits({"tv": (20.0, 60.0), ("radio", "south"): (0.0, 10.0)}, *names, cost, money=True)
    np.testing.assert_allclose(low, [[0.5, 0.5], [1, 0]])
    np.testing.assert_allclose(high, [[1.5, 1.5], [1, 2]])
    for wrong, words in (
        ({"tvv": (0, 1)}, "'tvv', which is no channel; did you mean 'tv'"),
        ({("tv", "nord"): (0, 1)}, "'nord', which is no geo"),
        ({("tv", "north"): (2, 1)}, "bounds of tv in north are 2 to 1"),
        ({"tv": (-1, 1)}, "bounds of tv are -1 to 1"),
        ((float("nan"), 1), "bounds of all channels are nan"),
    ):
        with pytest.raises(UserError, match=words):
            budget.limits(wrong, *names, cost, money=False)


def test_amounts_that_could_not_be_kept_are_refused():
    """Of a channel and one of its geos at once, and where there is no spend to scale; as multiples both are clear."""
    cost = np.array([[10.0, 0.0, 20.0], [5.0, 5.0, 5.0]])
    names = (("tv", "radio"), ("north", "mid", "south"))
    both = {"tv": (0.0, 10.0), ("tv", "north"): (0.0, 9.0)}
    with pytest.raises(UserError, match="bounds of tv are amounts of all its geos and of north alone"):
        budget.limits(both, *names, cost, money=True)
    with pytest.raises(UserError, match="bounds of tv in mid are from 100, where no spend is"):
        budget.limits({("tv", "mid"): (100, 200)}, *names, cost, money=True)
    budget.limits({("tv", "mid"): (0, 200), "radio": (0.0, 15.0)}, *names, cost, money=True)
    low, high = budget.limits(both | {("tv", "mid"): (0.5, 2)}, *names, cost, money=False)
    np.testing.assert_allclose((low[0], high[0]), [[0, 0.5, 0], [9, 2, 10]])


def test_bounds_are_read_from_words_and_tables(tmp_path):
    assert budget.read_bounds("tv=0.5:1.5  search@north=0:2") == {
        "tv": (0.5, 1.5),
        ("search", "north"): (0.0, 2.0),
    }
    path = tmp_path / "bounds.csv"
    path.write_text("channel,geo,low,high\ntv,,0.5,1.5\ntv,north,1,1\nradio,all,0,2\n")
    want = {"tv": (0.5, 1.5), ("tv", "north"): (1.0, 1.0), "radio": (0.0, 2.0)}
    assert budget.read_bounds(str(path)) == want
    pd.DataFrame({"channel": ["tv"], "low": [0.0], "high": [1.0]}).to_parquet(tmp_path / "b.parquet")
    assert budget.read_bounds(str(tmp_path / "b.parquet")) == {"tv": (0.0, 1.0)}
    path.write_text("channel,geo,low,high\nNA,NA,0.5,1.5\ntv,,1,1\n")
    assert budget.read_bounds(str(path)) == {("NA", "NA"): (0.5, 1.5), "tv": (1.0, 1.0)}
    lacking = pd.DataFrame({"channel": ["tv"], "low": pd.Series([None], dtype=object), "high": [1.0]})
    for table in (lacking, lacking.astype({"low": "Float64"})):
        table.to_parquet(tmp_path / "b.parquet")
        with pytest.raises(UserError, match="row 1 has no numbers"):
            budget.read_bounds(str(tmp_path / "b.parquet"))
    for name in ("b.parquet", "b.csv"):
        (tmp_path / name).write_bytes(b"\xff\xfe")
        with pytest.raises(UserError, match=f"{name}: cannot be read"):
            budget.read_bounds(str(tmp_path / name))
    for wrong in ("tv", "tv=1", "tv=a:b", "=1:2", "tv@=1:2", ""):
        with pytest.raises(UserError, match=r"tv=0\.5:1\.5"):
            budget.read_bounds(wrong)
    with pytest.raises(UserError, match="tv=1:2 says twice"):
        budget.read_bounds("tv=0:1 tv=1:2")
    for text, words in (
        ("channel,low\ntv,1\n", "no column 'high'"),
        ("channel,low,high\ntv,1,x\n", "row 1 has no numbers"),
        ("channel,low,high\ntv,1,\n", "row 1 has no numbers"),
        ("channel,geo,low,high\ntv,,0,1\ntv,all,0,2\n", "row 2 says twice"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            budget.read_bounds(str(path))
    with pytest.raises(UserError, match="no such file"):
        budget.read_bounds(str(tmp_path / "none.csv"))


# ---- of a world ------------------------------------------------------------------------------------------------------


def total(table, column="new_spend", channel="all"):
    return table[(table["channel"] == channel) & (table["geo"] == "all")][column].item()


def test_a_budget_is_split_no_worse_than_it_was(world, panel):
    table, numbers = world.optimize_budget(panel, bounds=(0.5, 2.0))
    assert total(table) == pytest.approx(total(table, "spend"), rel=1e-6)
    assert numbers["value"] >= numbers["start"]
    assert numbers["residual"] < 0.05
    own = table[(table["geo"] == "all") & (table["channel"] != "all")]
    assert list(own["channel"]) == list(world.channels)
    assert own["factor"].between(0.5 - 1e-6, 2 + 1e-6).all()
    # Each geo's factor is its channel's, and a channel's spend is that of its geos.
    geos = table[(table["geo"] != "all") & (table["channel"] != "all")]
    for channel, part in geos.groupby("channel"):
        np.testing.assert_allclose(part["factor"], total(table, "factor", channel), rtol=1e-5)
        assert part["new_spend"].sum() == pytest.approx(total(table, channel=channel), rel=1e-6)
    assert (table["lo"] <= table["mean"]).all()
    assert set(table["unit"]) == {"sales"}


def test_the_best_split_says_what_it_gains(world, panel):
    """As the same split asked about by itself: what its plan brings less what was done, by channel and geo."""
    table, numbers = world.optimize_budget(panel, bounds=(0.8, 1.2))
    factors = [total(table, "factor", c) for c in world.channels]
    plans = (panel.arrays.actions * np.array(factors, np.float32), panel.arrays.actions)
    parts = [world.contributions(panel.with_actions(x))["contribution"].sum("time") for x in plans]
    gain = (parts[0] - parts[1]).values
    assert numbers["gain"] == pytest.approx(gain.sum(), rel=1e-2)
    assert numbers["lo"] <= numbers["gain"] <= numbers["hi"]
    told = table[(table["geo"] != "all") & (table["channel"] != "all")]["mean"].to_numpy().reshape(gain.shape)
    # Differences of two float32 sums of outcomes of about 5,000 each.
    np.testing.assert_allclose(told, gain, atol=0.01)


def test_money_moves_within_geos_or_between_them(world, panel):
    """Within: each geo's own total stays. Between: no worse than within, which is no worse than by channel."""
    values = {}
    own = {"channel_0": (0.5, 2.0), "channel_1": (0.25, 3.0), ("channel_1", "geo_02"): (1.0, 1.0)}
    for move in ("channels", "within", "between"):
        bounds = own if move != "channels" else {k: v for k, v in own.items() if isinstance(k, str)}
        table, numbers = world.optimize_budget(panel, bounds=bounds, move=move)
        values[move] = numbers["value"]
        assert numbers["value"] >= numbers["start"]
        assert numbers["residual"] < 0.05
        rows = table[(table["channel"] != "all") & (table["geo"] != "all")].set_index(["channel", "geo"])
        # What the bounds leave out stays.
        np.testing.assert_allclose(rows.loc["channel_2", "factor"], 1, rtol=1e-5)
        by_geo = table[table["channel"] == "all"].set_index("geo")
        np.testing.assert_allclose(by_geo.loc["all", "new_spend"], by_geo.loc["all", "spend"], rtol=1e-6)
        if move == "channels":
            continue
        assert rows.loc[("channel_1", "geo_02"), "factor"] == pytest.approx(1)
        assert (rows["factor"] >= rows["low"] - 1e-5).all()
        assert (rows["factor"] <= rows["high"] + 1e-5).all()
        at = np.where(rows["bound"] == "low", rows["low"], np.where(rows["bound"] == "high", rows["high"], np.nan))
        hit = np.isfinite(at)
        np.testing.assert_allclose(rows["factor"][hit], at[hit], rtol=1e-5)
        free = rows[~hit]
        if move == "within":
            np.testing.assert_allclose(by_geo["new_spend"], by_geo["spend"], rtol=1e-6)
            for _, part in free.groupby("geo"):
                assert np.ptp(part["return"]) < 0.05 * part["return"].mean()
        else:
            assert np.ptp(free["return"]) < 0.05 * free["return"].mean()
            assert (abs(by_geo["new_spend"] / by_geo["spend"] - 1) > 1e-3).any()
    assert values["between"] > values["within"]


def test_a_budget_by_geo_grows_with_the_whole(world, panel):
    spend = float(panel.arrays.actions.sum())
    table, _ = world.optimize_budget(panel, budget=1.1 * spend, move="within")
    by_geo = table[table["channel"] == "all"]
    np.testing.assert_allclose(by_geo["new_spend"], 1.1 * by_geo["spend"], rtol=1e-5)
    with pytest.raises(UserError, match=r"a budget of geo_00 of .* cannot be met"):
        world.optimize_budget(panel, budget=9 * spend, move="within")
    with pytest.raises(UserError, match="need geos to move by"):
        world.optimize_budget(panel, bounds={("channel_0", "geo_00"): (0, 1)})
    with pytest.raises(UserError, match="budget is -1"):
        world.optimize_budget(panel, budget=-1.0)


def test_a_channel_that_a_geo_does_not_have_stays_out_of_it(world, panel):
    gone = panel.arrays.actions.copy()
    gone[1, :, 0] = 0
    table, numbers = world.optimize_budget(panel.with_actions(gone), move="between")
    row = table[(table["channel"] == "channel_0") & (table["geo"] == "geo_01")].iloc[0]
    assert (row["spend"], row["new_spend"], row["bound"]) == (0, 0, "")
    assert row["mean"] == pytest.approx(0, abs=1e-3)
    assert np.isnan(row["factor"])
    assert numbers["value"] >= numbers["start"]


def test_a_shift_is_told_by_channel_and_geo(world, panel):
    table, moved = planning.shift(world, panel, "channel_0", "channel_1", 0.1)
    assert moved["lo"] <= moved["mean"] <= moved["hi"]
    assert moved["moved"] == pytest.approx(0.1 * panel.arrays.actions[..., 0].sum(), rel=1e-5)
    assert moved["unit"] == "sales"
    assert total(table, channel="channel_0") == pytest.approx(0.9 * total(table, "spend", "channel_0"))
    assert total(table, "mean", "channel_0") < 0 < total(table, "mean", "channel_1")
    # Channels do not interact here: what both do is the sum of what each does.
    parts = total(table, "mean", "channel_0") + total(table, "mean", "channel_1")
    assert moved["mean"] == pytest.approx(parts, abs=0.02)
    by_geo = table[(table["channel"] == "all") & (table["geo"] != "all")]
    assert len(by_geo) == 5
    assert by_geo["mean"].sum() == pytest.approx(moved["mean"], abs=1e-6)
    assert world.shift(panel, "channel_0", "channel_1", 0.0)["mean"] == 0
    with pytest.raises(UserError, match="both source and target"):
        world.shift(panel, "channel_0", "channel_0", 0.1)


def test_a_shift_beyond_what_was_learnt_from_is_flagged(world, panel):
    """Up: more than the largest spend of a train week; down: less than an always-on channel ever had; and where."""
    spend = np.array(panel.arrays.actions)
    spend[2, 5, 1], spend[2, 6, 1] = 0, 0.6 * spend[..., 1].max()
    spend[:, 45:, 1] = 0
    asked = panel.with_actions(spend)
    # The last weeks, whose spend in the target is none: 10 % of the source is less than the target's largest.
    few = world.shift(asked, "channel_0", "channel_1", 0.1, times=slice(45, 48))
    assert (few["extrapolated"], few["no_overlap"], few["warnings"]) == (False, False, [])
    up = world.shift(panel, "channel_2", "channel_1", 1.0)
    assert up["extrapolated"]
    source, target = up["warnings"]
    assert source == (
        "extrapolated: channel_2 is put below the least in 240 of 240 rows of the spends that were learnt from, in 5 "
        "of 5 geos, first geo_00"
    )
    moved = panel.arrays.actions[..., 1] + panel.arrays.actions[..., 2]
    largest = panel.arrays.actions[:, split_times(panel, val=0.1, test=0.1).train, 1].max()
    assert f"channel_1 is put above the largest in {(moved > largest * (1 + 1e-6)).sum()} of 240 rows" in target
    table, _ = planning.shift(world, panel, "channel_2", "channel_1", 1.0)
    beyond = (moved > largest * (1 + 1e-6)).any(1)
    told = table.set_index(["channel", "geo"])["extrapolated"]
    assert told.loc["channel_2"].all()
    assert told.loc["channel_1"].tolist() == [beyond.any(), *beyond]
    support = world.support.assign(explained=[0.2, 0.99, 0.2])
    told = dataclasses.replace(world, support=support).shift(panel, "channel_0", "channel_1", 0.0)
    assert told["no_overlap"]
    assert told["warnings"] == [
        "no overlap: covariates explain 99% of channel_1's spend, so hardly a period shows it moving by itself"
    ]


def test_the_estimator_of_average_effects_answers_as_the_world_does(world, panel):
    """Without labels: the four questions, by geo, with the world's intervals; ROI at no spend is not a number."""
    asked = world.estimator(panel, alpha=0.2)
    assert repr(asked) == "ATEEstimator(126 answers; 3 channels, 5 units, 48 periods)"
    found = world.attribute(panel, alpha=0.2, grid=(0.0, 1.0, 2.0))
    got = asked.zero_spend()
    for end, name in (("mean", "contribution"), ("lo", "contribution_lo"), ("hi", "contribution_hi")):
        np.testing.assert_allclose(getattr(got, end), found[name][:, 1:], rtol=2e-3, atol=2e-2)
    np.testing.assert_allclose(asked.marginal_roi().mean, found.marginal_roi[:, 1:], rtol=1e-3)
    curve = asked.roi_curve((0.0, 1.0, 2.0))
    assert np.isnan(curve.mean[:, 0]).all()
    np.testing.assert_allclose(curve.mean[:, 1], found.roi[:, 1:], rtol=2e-3)
    np.testing.assert_allclose(curve.mean[:, 2], found.curve[:, 2, 1:] / (2 * found.spend[:, 1:]), rtol=2e-3)
    for wrong, said in (
        (lambda: asked.budget_shift(0, 1, 20), "share is 20, must be from 0 to 1"),
        (lambda: asked.budget_shift(0, 7, 0.1), "no channel 7; there are channel_0, channel_1, channel_2"),
        (lambda: asked.budget_shift("tv", 1, 0.1), "no channel 'tv'; there are channel_0"),
        (lambda: asked.roi_curve((-1.0, 1.0)), "must be multiples of the spend"),
    ):
        with pytest.raises(UserError, match=said):
            wrong()
    moved = asked.budget_shift("channel_0", 1, 0.3)
    table, _ = planning.shift(world, panel, "channel_0", "channel_1", 0.3, alpha=0.2)
    told = table[(table["channel"] == "all") & (table["geo"] != "all")]
    for end in ("mean", "lo", "hi"):
        np.testing.assert_allclose(getattr(moved, end), told[end], atol=2e-3)


@pytest.mark.parametrize("idle", [2, 4])
def test_a_geo_without_spend_has_no_budget_of_its_own(world, panel, idle):
    """In the middle and the last: money moves within the others, each of which keeps its total, and its name."""
    gone = panel.arrays.actions.copy()
    gone[idle] = 0
    asked = panel.with_actions(gone)
    table, numbers = world.optimize_budget(asked, move="within")
    by_geo = table[table["channel"] == "all"].set_index("geo")
    np.testing.assert_allclose(by_geo["new_spend"], by_geo["spend"], rtol=1e-6)
    assert by_geo.loc[f"geo_{idle:02}", "new_spend"] == 0
    assert numbers["value"] > numbers["start"]
    assert np.isfinite(numbers["price"])
    last = {4: "geo_03", 2: "geo_04"}[idle]
    narrow = {(c, last): (0.1, 0.2) for c in world.channels}
    with pytest.raises(UserError, match=f"a budget of {last} of .* cannot be met"):
        world.optimize_budget(asked, bounds=narrow, move="within")


def test_questions_that_would_not_be_answered_as_asked_are_refused(world, panel, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users have it
    with pytest.raises(UserError, match="move is 'betwen', must be one of channels, within, between; did you mean 'b"):
        world.optimize_budget(panel, move="betwen")
    with pytest.raises(UserError, match="money is said of no bounds"):
        world.optimize_budget(panel, money=True)
    one = panel.select(units=["geo_00"])
    with pytest.raises(UserError, match="name a geo, and there is one series"):
        world.optimize_budget(one, bounds={("channel_0", "geo_00"): (0.5, 2)}, move="within")


def test_the_names_of_sums_are_refused(world, panel):
    columns = [dataclasses.replace(c, name="all") if c.name == "channel_0" else c for c in panel.schema.columns]
    channel = dataclasses.replace(panel, schema=dataclasses.replace(panel.schema, columns=tuple(columns)))
    unit = dataclasses.replace(panel, units=("all", *panel.units[1:]))
    with pytest.raises(UserError, match="a channel is named 'all'"):
        planning.geos(channel)
    with pytest.raises(UserError, match="a unit is named 'all'"):
        world.contributions(unit)


def test_rows_beyond_are_counted_of_the_periods_asked_about(world, panel):
    told = world.shift(panel, "channel_2", "channel_1", 1.0, times=slice(40, 44))["warnings"]
    assert "channel_2 is put below the least in 20 of 20 rows" in told[0]
