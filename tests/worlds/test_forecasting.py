"""Sweeps of media and graph worlds against the worlds' own answers, plan by plan with nothing hoisted.

They agree whatever the parameters are, so no world here is trained: its members stay where they began, all shaken.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.worlds import test_graph, test_media, untrained
from wmjax.core.errors import UserError
from wmjax.data.readers import read_panel
from wmjax.report import choosing
from wmjax.sweep import axes
from wmjax.sweep.plans import Axis, Move, Scale
from wmjax.sweep.reduce import Full
from wmjax.worlds import graph, media, sweeping
from wmjax.worlds.media import planning, programs
from wmjax.worlds.sweeping import Setting

KEY = jax.random.key(3)
START, PERIODS = 30, 4
ASKED = Setting(start=START, periods=PERIODS, carry=0)
WINDOW = slice(START, START + PERIODS)


@pytest.fixture(scope="module")
def channels(geos):
    return geos


@pytest.fixture(scope="module", params=["response", "free"])
def planned(request, channels):
    network = dataclasses.replace(test_media.SMOKE.network, head=request.param)
    cfg = dataclasses.replace(test_media.SMOKE, network=network)
    return untrained.fit(media.fit, jax.random.key(0), channels, cfg, shake=0.1)


@pytest.fixture(scope="module")
def shops():
    return read_panel(test_graph.table(), test_graph.SCHEMA)


@pytest.fixture(scope="module")
def heard(shops):
    return untrained.fit(graph.fit, jax.random.key(0), shops, test_graph.CFG, shake=0.1)


def with_plan(panel, name, change):
    actions = np.array(panel.arrays.actions)
    at = panel.action_names.index(name)
    actions[:, WINDOW, at] = change(actions[:, WINDOW, at])
    return actions


def test_media_plans_are_those_of_the_worlds_own_programs(planned, channels):
    """Contrasts of two plans, each computed over all weeks by the world."""
    plan = (Scale(action="channel_0", factor=Axis("factor")),)
    grid = axes.members(planned.answers) * axes.axis("factor", [0.0, 1.0, 1.7])
    found = sweeping.sweep(planned, channels, grid, key=KEY, setting=ASKED, plan=plan, reduce=Full(of="path"))["path"]
    assert found.dims == ("member", "factor", "unit", "time", "outcome")
    history, cfg = planned.history(channels), planned.cfg.network
    members = planned.answering(history)
    respond = jax.jit(partial(media.model.respond, cfg=cfg))
    for at, factor in enumerate((0.0, 1.0, 1.7)):
        actions = jnp.asarray(with_plan(channels, "channel_0", lambda x: x * factor))  # noqa: B023
        for m in (0, 1, planned.answers - 1):
            own = jax.tree.map(lambda x: x[m], members)  # noqa: B023
            expected = respond(own, history, actions, START)[:, WINDOW]
            np.testing.assert_allclose(found[m, at, ..., 0], expected, rtol=2e-5, atol=1e-3)


@pytest.mark.parametrize("planned", ["response"], indirect=True)
def test_media_sweeps_say_what_the_world_says_of_a_channel(planned, channels, tmp_path):
    """With an axis of all draws or without, and the attribution of the same weeks: one number of one source.

    A few of the draws, which would say something else, are refused; a choice is bounded by their quantiles.
    """
    how = {"key": KEY, "setting": ASKED, "plan": (Scale(action="channel_0", factor=Axis("factor")),)}
    grid = axes.axis("factor", [0.0, 1.0])
    found = sweeping.sweep(planned, channels, grid, reduce=Full(of="gain"), **how)["gain"]
    told = planned.attribute(channels, times=WINDOW, carry=0, grid=(0.0, 1.0)).sel(channel="channel_0")
    np.testing.assert_allclose(-found[0, :, 0], told.contribution[1:], rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(found[1], 0, atol=1e-4)
    with pytest.raises(UserError, match=r"has 4 of the world's 126 draws; .* which are member=0:125"):
        sweeping.sweep(planned, channels, axes.members(4) * grid, **how)
    out = tmp_path / "all.zarr"
    every = axes.members(planned.answers) * axes.axis("factor", [0.0])
    sweeping.sweep(planned, channels, every, reduce=Full(of="gain"), out=out, **how)
    table, _ = choosing.best(out, alpha=0.2)
    np.testing.assert_allclose(table["value"], found[0, :, 0], rtol=2e-3, atol=1e-3)
    wide = planned.attribute(channels, times=WINDOW, carry=0, grid=(0.0, 1.0), alpha=0.2).sel(channel="channel_0")
    np.testing.assert_allclose(-table["hi"], wide.contribution_lo[1:], rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(-table["lo"], wide.contribution_hi[1:], rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("planned", ["response"], indirect=True)
def test_media_sweeps_count_what_spend_does_later(planned, channels):
    """By default as `attribute` does, in the same weeks; plans change nothing there, as nothing is paid for it."""
    how = {"key": KEY, "plan": (Scale(action="channel_0", factor=Axis("factor")),)}
    asked = dataclasses.replace(ASKED, carry=None, cost=(("channel_0", 1.0),))
    kept = {name: Full(of=name) for name in ("gain", "cost", "path")}
    found = sweeping.sweep(planned, channels, axes.axis("factor", [0.0, 1.0]), setting=asked, reduce=kept, **how)
    carry = planned.cfg.network.carry
    assert found.sizes["time"] == PERIODS + carry > PERIODS
    told = planned.attribute(channels, times=WINDOW, grid=(0.0, 1.0)).sel(channel="channel_0")
    np.testing.assert_allclose(-found["gain_gain"][0, :, 0], told.contribution[1:], rtol=2e-3, atol=1e-3)
    alone = planned.attribute(channels, times=WINDOW, carry=0, grid=(0.0, 1.0)).sel(channel="channel_0")
    assert (told.contribution[0] > 1.02 * alone.contribution[0]).all()
    np.testing.assert_allclose(-found["cost_cost"][0], channels.arrays.actions[:, WINDOW, 0].sum(1), rtol=1e-5)
    assert f"{carry} after them" in found["gain_gain"].attrs["long_name"]

    # As far as the panel goes; and to the horizon where that is an axis.
    last = Setting(start=channels.num_times - 3, periods=2)
    end = sweeping.sweep(planned, channels, axes.axis("factor", [0.0]), setting=last, reduce=Full(of="path"), **how)
    assert end.sizes["time"] == 3
    many = axes.axis("factor", [0.0]) * axes.steps("horizon", 1, 3)
    end = sweeping.sweep(planned, channels, many, setting=asked, reduce=Full(of="path"), **how)
    assert end.sizes["time"] == PERIODS
    with pytest.raises(UserError, match="carry is 2, must be 0"):
        sweeping.sweep(planned, channels, many, setting=dataclasses.replace(asked, carry=2), **how)


def logarithms(jaxpr):
    """Give the sizes of all logarithms in a program, of which saturation takes one a spend."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "log":
            yield eqn.outvars[0].aval.size
        for inner in jax.tree.leaves(eqn.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from logarithms(inner)


@pytest.mark.parametrize("planned", ["response"], indirect=True)
def test_a_level_of_a_channels_spend_is_worked_out_once_for_all_plans_that_share_it(planned, channels):
    """One of them hangs on one axis, one on both; what no plan touches is worked out once. And all is as the world has
    it of each plan by itself."""
    plan = (
        Move(action="channel_0", to="channel_1", share=Axis("share")),
        Scale(action="channel_1", factor=Axis("factor")),
    )
    shares, factors = [0.0, 0.2, 0.9], [0.0, 0.4, 0.8, 1.0, 1.3, 1.9, 2.2]
    grid = axes.axis("share", shares) * axes.axis("factor", factors)
    how = {"key": KEY, "setting": ASKED, "plan": plan, "reduce": Full(of="path")}
    found = sweeping.sweep(planned, channels, grid, **how)["path"]
    history, cfg = planned.history(channels), planned.cfg.network
    everyone = planned.answering(history)
    mean = jax.jit(
        lambda actions: programs.mean_over(lambda m: media.model.respond(m, history, actions, 0, cfg=cfg), everyone)
    )
    for at, to in ((0, 6), (1, 3), (2, 0)):
        actions = np.array(channels.arrays.actions)
        taken = shares[at] * actions[:, WINDOW, 0]
        actions[:, WINDOW, 0] -= taken
        actions[:, WINDOW, 1] += taken
        actions[:, WINDOW, 1] *= factors[to]
        want = mean(jnp.asarray(actions))[:, WINDOW]
        np.testing.assert_allclose(found[at, to, ..., 0], want, rtol=2e-6, atol=1e-3)

    evaluate, _, options = sweeping.prepare(planned, channels, grid, **how)
    point = lambda share, factor: evaluate(KEY, {"share": share, "factor": factor}, *options["data"])["path"]  # noqa: E731
    box = jax.vmap(jax.vmap(point, (None, 0)), (0, None))
    program = jax.make_jaxpr(box)(jnp.asarray(shares), jnp.asarray(factors))
    sizes = [size for size in logarithms(program.jaxpr) if size > 1]
    weeks = found.sizes["unit"] * (PERIODS + cfg.carry)
    # Channel 0 at three levels, then all three as they were, of which the last is kept.
    assert sorted(sizes) == [3 * weeks, 3 * weeks, 21 * weeks]


@pytest.mark.parametrize("planned", ["response"], indirect=True)
def test_media_sweeps_go_as_far_as_the_world_itself_says(planned, channels):
    """Below the least spend of a channel that never pauses too; spend below nothing is refused."""
    actions = np.array(channels.arrays.actions)
    actions[..., 0] = actions[..., 0] + actions[..., 0].max()
    always = channels.with_actions(actions.astype(np.float32))
    how = {"key": KEY, "setting": ASKED, "plan": (Scale(action="channel_0", factor=Axis("factor")),)}
    grid = axes.axis("factor", [0.0, 0.1, 0.9, 1.0, 9.0])
    wide = dataclasses.replace(planned, scales=planned.scales._replace(spend=10 * planned.scales.spend))
    found = sweeping.sweep(wide, always, grid, reduce=Full(of="gain"), **how)
    over, plan = wide.window(always, WINDOW, 0), np.asarray(always.arrays.actions)
    for at, factor in enumerate(grid.at(np.arange(5, dtype=np.uint64))["factor"]):
        moved = np.array(plan)
        moved[:, WINDOW, 0] *= factor
        beyond = planning.outside(wide, always, jnp.asarray(moved), over)[:, 0].any(0)
        np.testing.assert_array_equal(found["supported"][at], ~beyond)
    assert not found["supported"][:2].any()
    assert found["supported"][3].all()
    with pytest.raises(UserError, match="channel_0 is spend and not negative; the grid's axis 'factor' has -1"):
        sweeping.sweep(planned, channels, axes.axis("factor", [-1.0, 1.0]), **how)
    # Nor may it be taken below by what is added, and no more moved than there is.
    add = {**how, "plan": None}
    with pytest.raises(UserError, match=r"channel_0 is spend and not negative; at add.channel_0=-\d"):
        sweeping.sweep(planned, channels, axes.axis("add.channel_0", [-1e6, 0.0]), **add)
    move = {**how, "plan": (Move(action="channel_0", to="channel_1", share=Axis("share")),)}
    with pytest.raises(UserError, match=r"'share' has 1.5: a share to be moved is 0 to 1"):
        sweeping.sweep(planned, channels, axes.axis("share", [0.0, 1.5]), **move)
    with pytest.raises(UserError, match=r"none of its edits reads it: give it one, with \$scale.channel_2"):
        sweeping.sweep(planned, channels, axes.axis("scale.channel_2", [0.0, 1.5]), **how)
    priced = dataclasses.replace(ASKED, worth=(("sales", 2.0),))
    free = sweeping.sweep(planned, channels, grid, reduce=Full(of="profit"), **{**how, "setting": priced})
    assert (
        "channel_0: no price (--cost), so that cost and profit count none of it"
        in (free.attrs["provenance"]["warnings"])
    )


def test_sums_over_draws_lose_nothing():
    """Of 400 numbers that differ by a thousandth, added one by one, the mean is right to a rounding."""
    values = (1e4 * (1 + 1e-3 * np.random.default_rng(0).normal(size=(400, 3)))).astype(np.float32)
    found = jax.jit(partial(programs.mean_over, lambda x: {"a": x, "b": 2 * x}))(jnp.asarray(values))
    want = values.mean(0, dtype=np.float64)
    np.testing.assert_allclose(found["a"], want, rtol=1.2e-7)
    np.testing.assert_allclose(found["b"], 2 * want, rtol=1.2e-7)
    plain = jax.lax.scan(lambda t, x: (t + x, None), jnp.zeros(3), jnp.asarray(values))[0] / 400
    assert np.abs(plain - want).max() > 2e-7 * want.max()


def test_media_rollouts_are_those_of_simulate(planned, channels):
    fed = dataclasses.replace(ASKED, feedback=True)
    grid = axes.axis("channel_1", [0.0, 0.4])
    found = sweeping.sweep(planned, channels, grid, key=KEY, setting=fed, reduce=Full(of="path"))
    said = [line for line in found.attrs["provenance"]["warnings"] if "members answer" in line]
    assert len(said) == planned.draws
    found = found["path"]
    # One luck for every plan: the engine gives all points without an axis of seeds the sweep's own key.
    for at, value in enumerate((0.0, 0.4)):
        actions = with_plan(channels, "channel_1", lambda x: np.full_like(x, value))  # noqa: B023
        again = planned.simulate(KEY, channels, actions, start=START)["mean"].mean("member")[0, 0]
        np.testing.assert_allclose(found[at, ..., 0], again.values[:, :PERIODS], rtol=2e-5, atol=1e-3)


def test_graph_rollouts_are_those_of_simulate_and_rows_those_of_predict(heard, shops):
    grid = axes.axis("tv", [3.0, 5.0])
    # To the panel's end, so that as much noise is drawn as by `simulate`.
    fed = Setting(start=START, periods=shops.num_times - START, feedback=True)
    found = sweeping.sweep(heard, shops, grid, key=KEY, setting=fed, reduce=Full(of="path"))["path"]
    alone = sweeping.sweep(heard, shops, grid, key=KEY, setting=ASKED, reduce=Full(of="path"))["path"]
    for at, value in enumerate((3.0, 5.0)):
        actions = np.array(shops.arrays.actions)
        actions[:, START:, 0] = value
        again = heard.simulate(KEY, shops, actions, start=START)["mean"].mean("member")[0, 0]
        np.testing.assert_allclose(found[at, ..., 0], again, rtol=1e-5, atol=1e-5)
        own = heard.predict(shops.with_actions(actions.astype(np.float32)))["mean"].values[0]
        np.testing.assert_allclose(alone[at, ..., 0], own[:, WINDOW], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("planned", ["response"], indirect=True)  # what was spent tells, in either form of the head
def test_what_goes_beyond_the_data_is_warned_of(planned, channels, heard, shops):
    def told(world, panel, words):
        grid = axes.axis(words[0], words[1])
        found = sweeping.sweep(world, panel, grid, key=KEY, setting=ASKED, reduce=Full(of="gain"))
        return found.attrs["provenance"]["warnings"]

    assert any("channel_0: at channel_0=1e+06" in line for line in told(planned, channels, ("channel_0", [0.0, 1e6])))
    assert not any("channel_2" in line for line in told(planned, channels, ("channel_0", [0.0, 0.1])))
    assert any("always on" in line for line in told(planned, channels, ("channel_2", [0.0, 0.1])))
    assert any("radio: at radio=9" in line for line in told(heard, shops, ("radio", [4.0, 9.0])))

    def marks(world, panel, words):
        grid = axes.axis(words[0], words[1])
        found = sweeping.sweep(world, panel, grid, key=KEY, setting=ASKED, reduce=Full(of="gain"))
        assert found["supported"].dims == (words[0], "unit")
        return found["supported"].values.astype(bool)

    assert not marks(planned, channels, ("channel_0", [0.1, 1e6]))[1].any()
    usual = float(np.median(channels.arrays.actions[..., 2]))
    always = marks(planned, channels, ("channel_2", [0.0, usual / 100, usual]))
    assert not always[:2].any()
    assert always[2].all()
    assert marks(heard, shops, ("radio", [4.0, 9.0])).tolist() == [
        [True] * len(shops.units),
        [False] * len(shops.units),
    ]
    with pytest.raises(UserError, match="start of at least 1"):
        sweeping.sweep(heard, shops, axes.axis("tv", [3.0]), key=KEY, setting=Setting(start=0, periods=2))
