"""Sweeps of a fitted world against its own pure functions, called plan by plan with nothing hoisted."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.core.errors import UserError
from wmjax.core.keys import key_for
from wmjax.heads import adapter
from wmjax.sweep import axes, engine, plans
from wmjax.sweep.moments import Moments
from wmjax.sweep.plans import Axis
from wmjax.sweep.ranks import Best, Top
from wmjax.sweep.reduce import Full
from wmjax.worlds import sweep_support, sweeping
from wmjax.worlds.consumer import model as pure
from wmjax.worlds.consumer import repeats
from wmjax.worlds.consumer.config import ConsumerConfig
from wmjax.worlds.sweeping import Setting

KEY = jax.random.key(7)
START, PERIODS = 60, 3


@pytest.fixture(scope="module")
def ragged(panel):
    """The panel with one unit away in the second period of the window, its coupons of any depth."""
    mask = panel.arrays.mask.copy()
    mask[5, START + 1] = False
    arrays = panel.arrays._replace(mask=mask)
    columns = (dataclasses.replace(c, kind="count") if c.name == "coupon" else c for c in panel.schema.columns)
    return dataclasses.replace(panel, arrays=arrays, schema=dataclasses.replace(panel.schema, columns=tuple(columns)))


def plan_of(panel, discount, campaign, start=0):
    """Factual actions of the window, with the plan's own from `start` on."""
    out = panel.arrays.actions[:, START : START + PERIODS].copy()
    seen = panel.arrays.mask[:, START : START + PERIODS].copy()
    seen[:, :start] = False
    for name, value in (("coupon", discount), ("campaign", campaign)):
        k = panel.action_names.index(name)
        out[..., k] = np.where(seen, value, out[..., k])
    return out


@pytest.fixture(scope="module")
def predicted(world, ragged):
    """Expected outcomes of the window's rows from their observed histories: `[members, units, periods, outcomes]`."""
    from wmjax.data import frame as frames

    visible = frames.build(world.model.frame, ragged)[:, START : START + PERIODS]
    one = jax.jit(jax.vmap(lambda p, v, a: pure.predict(p, v, a, model=world.model), (0, None, None)))

    def at(actions):
        flat = one(world.params, visible.reshape(-1, visible.shape[-1]), actions.reshape(-1, actions.shape[-1]))
        return np.asarray(flat).reshape(world.members, *actions.shape[:2], -1)

    return at


def summed(ragged, path):
    return np.where(ragged.arrays.mask[:, START : START + PERIODS, None], path, 0.0).sum(1)


GRID = axes.axis("coupon", [0.0, 0.15, 0.3]) * axes.axis("campaign", [0, 1])
ASKED = Setting(start=START, periods=PERIODS, worth=(("purchase", 10.0),), cost=(("campaign", 0.5), ("coupon", 2.0)))


def test_rows_of_many_plans_are_those_of_each(world, ragged, predicted, panel):
    keep = {name: Full(of=name) for name in ("total", "gain", "cost", "profit", "path")}
    found = sweeping.sweep(world, ragged, GRID, key=KEY, setting=ASKED, reduce=keep, chunk=4)
    factual = predicted(ragged.arrays.actions[:, START : START + PERIODS]).mean(0)
    prices = np.array([dict(ASKED.cost).get(name, 0.0) for name in panel.action_names])
    seen = ragged.arrays.mask[:, START : START + PERIODS, None]
    for i, discount in enumerate((0.0, 0.15, 0.3)):
        for j, campaign in enumerate((0, 1)):
            actions = plan_of(ragged, discount, campaign)
            path = predicted(actions).mean(0)
            at = found.isel(coupon=i, campaign=j)
            np.testing.assert_allclose(at["path_path"].values[seen[..., 0]], path[seen[..., 0]], rtol=2e-5, atol=1e-6)
            np.testing.assert_allclose(at["total_total"], summed(ragged, path), rtol=2e-5, atol=1e-6)
            gain = summed(ragged, path - factual)
            np.testing.assert_allclose(at["gain_gain"], gain, atol=2e-5)
            spent = summed(ragged, (actions - ragged.arrays.actions[:, START : START + PERIODS]) * prices).sum(-1)
            np.testing.assert_allclose(at["cost_cost"], spent, atol=1e-5)
            np.testing.assert_allclose(at["profit_profit"], 10 * gain[:, 1] - spent, atol=2e-4)
    assert found["total_total"].dims == ("coupon", "campaign", "unit", "outcome")
    assert found["unit"].values.tolist() == list(ragged.units)
    assert found["outcome"].values.tolist() == list(panel.outcome_names)
    assert (found["time"].values == panel.times[START : START + PERIODS].values).all()
    assert found.attrs["provenance"]["world"]["data_fingerprint"] == panel.fingerprint
    assert found.attrs["provenance"]["units"] == {"visit": "probability", "purchase": "probability"}
    assert found.attrs["provenance"]["setting"]["start"] == START


def test_members_and_horizons_are_axes(world, ragged, predicted):
    grid = axes.members(3) * axes.axis("coupon", [0.0, 0.3]) * axes.steps("horizon", 1, 3)
    found = sweeping.sweep(world, ragged, grid, key=KEY, setting=ASKED, reduce=Full(of="gain"))["gain"]
    seen = ragged.arrays.mask[:, START : START + PERIODS, None]
    factual = ragged.arrays.actions[:, START : START + PERIODS]
    k = ragged.action_names.index("coupon")
    for i, discount in enumerate((0.0, 0.3)):
        actions = factual.copy()
        actions[..., k] = np.where(seen[..., 0], discount, actions[..., k])
        gap = np.where(seen, predicted(actions) - predicted(factual), 0.0)
        for horizon in (1, 2, 3):
            exact = gap[:, :, :horizon].sum(2)
            np.testing.assert_allclose(found.isel(coupon=i).sel(horizon=horizon), exact, atol=2e-5)


def test_the_best_plan_of_each_unit_is_that_of_brute_force(world, ragged, predicted):
    found = sweeping.sweep(
        world,
        ragged,
        GRID,
        key=KEY,
        setting=ASKED,
        reduce={"best": Best(), "top": Top(k=2, of="profit"), "mean": Moments()},
    )
    totals = np.stack(
        [summed(ragged, predicted(plan_of(ragged, d, c)).mean(0)) for d in (0.0, 0.15, 0.3) for c in (0, 1)]
    )
    np.testing.assert_allclose(found["best_value"], totals.max(0), rtol=2e-5)
    reached = np.take_along_axis(totals, found["best_index"].values[None], 0)[0]
    np.testing.assert_allclose(reached, totals.max(0), rtol=2e-5)
    np.testing.assert_allclose(found["mean_mean"], totals.mean(0), rtol=2e-5)
    profit = sweeping.sweep(world, ragged, GRID, key=KEY, setting=ASKED, reduce=Full(of="profit"))["profit"]
    scores = profit.values.reshape(len(totals), -1).mean(1)
    np.testing.assert_allclose(found["top_score"], np.sort(scores)[::-1][:2], rtol=2e-5)


def test_rollouts_of_many_plans_are_those_of_each(world, ragged):
    """Nothing is changed by telling the first periods, and the first belief, once for all plans."""
    window = Setting(start=START, periods=PERIODS + 2, feedback=True)
    grid = axes.seeds(2) * axes.steps("start", 2, 3) * axes.axis("coupon", [0.0, 0.3])
    keep = {"path": Full(of="path"), "gain": Full(of="gain")}
    found = sweeping.sweep(world, ragged, grid, key=KEY, setting=window, reduce=keep)
    at, k = slice(START, START + PERIODS + 2), ragged.action_names.index("coupon")
    factual = ragged.arrays.actions[:, at]
    seen, whole = ragged.arrays.mask[:, at], world.history(ragged, START)
    history = whole._replace(
        calendar=whole.calendar[: PERIODS + 2],
        covariates=whole.covariates[: PERIODS + 2],
        present=whole.present[: PERIODS + 2],
    )

    @jax.jit
    def alone(seed, actions):
        key = key_for(KEY, "seed", seed)

        def one(params, m):
            own = key_for(key, "member", m)
            return pure.simulate(own, params, history, jnp.swapaxes(actions, 0, 1), model=world.model).means

        return jnp.swapaxes(jax.vmap(one)(world.params, jnp.arange(world.members)).mean(0), 0, 1)

    for seed in range(2):
        usual = np.asarray(alone(seed, factual))
        for start in (2, 3):
            for i, discount in enumerate((0.0, 0.3)):
                actions = factual.copy()
                actions[:, start:, k] = np.where(seen[:, start:], discount, actions[:, start:, k])
                path = np.asarray(alone(seed, actions))
                got = found.sel(seed=seed, start=start).isel(coupon=i)
                np.testing.assert_allclose(got["path_path"].values[seen], path[seen], rtol=1e-4, atol=1e-5)
                gain = np.where(seen[..., None], path - usual, 0.0).sum(1)
                np.testing.assert_allclose(got["gain_gain"], gain, atol=1e-4)
                # What comes before every plan is not even computed twice.
                assert (got["path_path"].values[:, :2] == found["path_path"].values[seed, 0, 0, :, :2]).all()


@pytest.mark.parametrize(("feedback", "levels", "lines"), [(True, [0, 1], 1), (True, [0], 0), (False, [0, 1], 0)])
def test_what_is_fed_back_and_was_seldom_repeated_is_told_of(world, panel, feedback, levels, lines):
    lags = repeats.lags_of(world.model.frame)["push"]
    facts = {**world.facts, "repeats": {"push": [list(lags), 5000, 0.001, 0.5]}}
    setting = Setting(start=START, periods=panel.num_times - START, feedback=feedback)
    evaluate, grid, _ = sweeping.prepare(world, panel, axes.axis("push", levels), key=KEY, setting=setting)
    asked = sweeping.question(dataclasses.replace(world, facts=facts), panel, evaluate, grid, setting)
    _, of_points, _ = sweep_support.warnings(asked, grid)
    told = [line for line in of_points if "at every lag that is read" in line]
    assert len(told) == lines
    assert all(line.startswith("push: ") and " on at every lag" in line for line in told)


def test_groups_and_written_plans(world, panel, predicted, ragged):
    """A plan in words, for the units of one segment."""
    by = "loyalty"
    names = sweeping.segments(panel, by).names
    grid = axes.choices("segment", names) * axes.axis("level", [0.0, 0.3])
    plan = (plans.Set(action="coupon", value=Axis("level"), units=Axis("segment"), start=1),)
    found = sweeping.sweep(
        world, ragged, grid, key=KEY, plan=plan, setting=dataclasses.replace(ASKED, by=by), reduce=Full(of="gain")
    )["gain"]
    codes = np.array(sweeping.segments(panel, by).codes)
    for g in range(len(names)):
        outside = found.values[g][:, codes != g]
        np.testing.assert_allclose(outside, 0.0, atol=2e-6)
        assert np.abs(found.values[g][:, codes == g]).max() > 1e-4


def test_a_sweep_goes_on_and_another_worlds_does_not(world, ragged, tmp_path):
    out = tmp_path / "s.zarr"
    first = sweeping.sweep(world, ragged, GRID, key=KEY, setting=ASKED, out=out)
    again = sweeping.sweep(world, ragged, GRID, key=KEY, setting=ASKED, out=out)
    np.testing.assert_array_equal(first["total"].values, again["total"].values)
    other = dataclasses.replace(ASKED, cost=())
    with pytest.raises(UserError, match="the result of another sweep"):
        sweeping.sweep(world, ragged, GRID, key=KEY, setting=other, out=out)
    told = sweeping.plan_sweep(world, ragged, GRID, key=KEY, setting=ASKED)
    assert told.points == 6
    assert told.stored_bytes == 6 * ragged.num_units * len(ragged.outcome_names) * 4


@pytest.mark.parametrize(
    ("grid", "setting", "words"),
    [
        (
            GRID,
            dataclasses.replace(ASKED, start=69),
            "periods 69 to 71 are asked for, the panel has 0 to 69: start at 67",
        ),
        (GRID, dataclasses.replace(ASKED, worth=(("boy", 1.0),)), "no outcome 'boy' to price"),
        (GRID, dataclasses.replace(ASKED, by="shoe"), "by is 'shoe', must be a static column"),
        (axes.axis("pusch", [0.0]), ASKED, "no axis of the grid .*; did you mean 'push'"),
        (axes.axis("push", [0, 7]), ASKED, "push is binary, 0 or 1; the grid's axis 'push' has 7"),
        (axes.linear("push", 0, 1, 3), ASKED, "push is binary, 0 or 1; the grid's axis 'push' has 0.5"),
        (axes.axis("add.push", [1, 2]), ASKED, "push is binary, 0 or 1; at add.push=1 the plan makes it 2"),
    ],
)
def test_mistakes_are_named(world, ragged, grid, setting, words):
    with pytest.raises(UserError, match=words):
        sweeping.sweep(world, ragged, grid, key=KEY, setting=setting)


def test_numbers_do_not_depend_on_how_many_plans_are_worked_on_at_once():
    """An adapter of the default sizes, four members, three outcomes, 16 rows: shapes that a backend has got wrong."""
    cfg = ConsumerConfig(members=4)
    start = lambda key: adapter.init(key, cfg=cfg.adapter, num_features=8, num_actions=5)  # noqa: E731
    params = jax.vmap(jax.vmap(start))(jax.random.split(jax.random.key(0), (4, 3)))
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(16, 8)), jnp.float32)
    known = jax.vmap(jax.vmap(lambda p: adapter.project(p, features, cfg=cfg.adapter, num_actions=5)))(params)
    known = known._replace(tau=jnp.asarray(rng.normal(size=known.tau.shape), jnp.float32))

    def evaluate(key, point, params, known):
        actions = jnp.zeros((16, 5)).at[:, 0].set(point["a"])
        one = lambda p, x: adapter.complete(p, x, actions, cfg=cfg.adapter)  # noqa: E731
        return jax.nn.sigmoid(jax.vmap(jax.vmap(one))(params, known)).mean(0).sum(0)

    grid = axes.linear("a", 0.0, 1.0, 1000)
    found = [
        engine.sweep(evaluate, grid, key=jax.random.key(0), data=(params, known), reduce=Full(), chunk=chunk)
        for chunk in (1000, 500, 64)
    ]
    numbers = [next(iter(f.data_vars.values())).values for f in found]
    for other in numbers[1:]:
        np.testing.assert_allclose(numbers[0], other, atol=1e-5)


@pytest.mark.parametrize(
    ("grid", "reduce", "periods", "says"),
    [
        (
            axes.steps("start", 54, 56) * axes.axis("push", [0, 1]),
            Full(of="gain"),
            3,
            "'start' has 56: it counts from 0",
        ),
        (axes.steps("horizon", 1, 6) * axes.axis("push", [0, 1]), Full(of="gain"), 3, "horizon 6 is past the 3 period"),
        (axes.members(3) * axes.axis("push", [0, 1]), Best(of="gain"), 1, "best would choose among levels of member"),
        (axes.seeds(2) * axes.axis("push", [0, 1]), Top(of="profit"), 1, "top would choose among levels of seed"),
        (axes.axis("push", [0, 1]), Top(of="gain"), 1, "gain has one for each of visit, purchase"),
    ],
)
def test_what_would_mean_nothing_is_refused(world, panel, grid, reduce, periods, says):
    setting = Setting(start=START, periods=periods)
    with pytest.raises(UserError, match=says):
        sweeping.sweep(world, panel, grid, key=KEY, setting=setting, reduce=reduce)
