"""Grids and plans from words and TOML, and what is said to a wrong one."""

import json

import numpy as np
import pytest

from wmjax.core.errors import UserError
from wmjax.sweep import axes, plan_reading, plans, reading, reduce_reading
from wmjax.sweep.plans import Axis


def levels(grid):
    return {name: (dim, values.tolist()) for name, (dim, values) in grid.labels().items()}


def test_words_of_every_form():
    words = "discount=0:0.3:31 campaign_a=0,1 start=10:40:5 tv=0:100:x11 week=3:5 segment=young,old seed=0:3 member=1,3"
    grid = reading.grid_from_words(words.split())
    found = {name: values for name, (_, values) in levels(grid).items()}
    assert list(found) == ["discount", "campaign_a", "start", "tv", "week", "segment", "seed", "member"]
    assert found["discount"] == [round(0.01 * i, 2) for i in range(31)]
    assert found["campaign_a"] == [0, 1]
    assert found["start"] == [10, 15, 20, 25, 30, 35, 40]
    assert found["tv"] == [10.0 * i for i in range(11)]
    assert found["week"] == [3, 4, 5]
    assert found["segment"] == ["young", "old"]
    assert found["seed"] == [0, 1, 2, 3]
    assert found["member"] == [1, 3]
    kinds = [c.kind for c in grid.columns]
    assert kinds == ["number", "integer", "integer", "number", "integer", "choice", "seed", "member"]
    assert grid.size == 31 * 2 * 7 * 11 * 3 * 2 * 4 * 2


def test_one_kind_asked_for_in_several_ways_has_several_names():
    words = ["gain.mean:age,tv", "gain.best:age", "gain.mean", "gain.full", "mean"]
    for order in (words, words[::-1]):
        found = reduce_reading.reduce_from_words(order)
        assert set(found) == {"gain_mean", "gain_mean_age_tv", "gain_best", "gain_full", "mean"}
        assert (found["gain_mean"].keep, found["gain_mean_age_tv"].keep) == ((), ("age", "tv"))
    assert set(reduce_reading.reduce_from_words(["mean:a", "mean:b"])) == {"mean_a", "mean_b"}
    for words in (["gain.mean", "gain.mean"], ["mean:age", "mean:income", "mean:income"]):
        with pytest.raises(UserError, match="mean is asked for twice of one output"):
            reduce_reading.reduce_from_words(words)


def test_words_of_negative_and_scientific_numbers():
    grid = reading.grid_from_words(["a=-1.5:1:6", "b=1e-3,2.5e2", "c=10:-10:-5"])
    found = {name: values for name, (_, values) in levels(grid).items()}
    assert found == {"a": [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0], "b": [0.001, 250.0], "c": [10, 5, 0, -5, -10]}


def test_words_of_a_sample():
    grid = reading.grid_from_words(["design=latin:50:3", "discount=0..0.3", "segment=a,b", "start=10..20"])
    assert (grid.dims, grid.sizes) == (("segment", "design"), (2, 50))
    same = axes.sample(
        "design",
        "latin",
        50,
        [axes.Interval(name="discount", high=0.3), axes.Interval(name="start", low=10, high=20, whole=True)],
        seed=3,
    )
    assert grid == axes.choices("segment", ("a", "b")) * same


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no axis"),
        (["mailer"], "'mailer' is no axis of a grid; write name=levels, for example mailer=0,1"),
        (["=1,2"], "no axis of a grid"),
        (["discount="], "no axis of a grid"),
        (["tv=0:100:11"], "steps of 11 from 0 do not reach 100; for 11 levels write tv=0:100:x11"),
        (["tv=0:0.3"], "say how many levels"),
        (["tv=0:1:0.5"], "asks for 0.5 levels"),
        (["tv=0:1:x0"], "asks for 0 levels"),
        (["tv=0:b:3"], "a span is low:high"),
        (["tv=1:2:3:4"], "a span is low:high"),
        (["tv=1,,2"], "empty level"),
        (["tv=1,high"], "mixes numbers and names"),
        (["tv=5:1"], "do not lead from 5 to 1"),
        (["tv=0:4:0"], "steps of 0"),
        (["tv=0..1"], "intervals such as tv=0..1.0 need one sample to fill them"),
        (["d=sobol:16"], "a sample needs intervals"),
        (["d=sobol:16", "tv=0..x"], "'x' is not a number"),
        (["tv=1,2", "tv=3,4"], "two of axis 'tv'"),
    ],
)
def test_wrong_words(words, message):
    with pytest.raises(UserError, match=message):
        reading.grid_from_words(words)


TOML = """
[discount]
low = 0
high = 0.3
count = 4

[start]
start = 10
stop = 40
step = 15

[segment]
choices = ["young", "old"]

[campaign_a]
values = [0, 1]

[seed]
seeds = 3

[net]
members = 2

[budget.zip]
tv = { values = [1.5, 2] }
search = { low = 2, high = 1, count = 2 }

[deal]
list = [{ price = 2, pack = "big" }, { price = 3, pack = "small" }]

[design]
sobol = 8
seed = 4
of = { cut = { low = 0.0, high = 1.0 }, week = { low = 1, high = 4 }, shop = { choices = ["a", "b"] } }
"""


def test_toml_of_every_form(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(TOML)
    grid = reading.read_grid(path)
    cube = [
        axes.Interval(name="cut"),
        axes.Interval(name="week", low=1, high=4, whole=True),
        axes.Interval(name="shop", names=("a", "b")),
    ]
    expected = (
        axes.linear("discount", 0, 0.3, 4)
        * axes.steps("start", 10, 40, 15)
        * axes.choices("segment", ("young", "old"))
        * axes.axis("campaign_a", [0, 1])
        * axes.seeds(3)
        * axes.members(2, "net")
        * axes.zipped("budget", axes.axis("tv", [1.5, 2.0]), axes.linear("search", 2, 1, 2))
        * axes.points("deal", [{"price": 2, "pack": "big"}, {"price": 3, "pack": "small"}])
        * axes.sample("design", "sobol", 8, cube, seed=4)
    )
    assert grid == expected
    assert levels(grid)["pack"] == ("deal", ["big", "small"])
    assert levels(grid)["tv"] == ("budget", [1.5, 2.0])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "no axis"),
        ({"tv": 3}, "must be a list of levels, or a table with one of"),
        ({"tv": {"lo": 1}}, "must be a list of levels, or a table with one of"),
        ({"tv": {"low": 1, "count": 2}}, "high is missing beside count"),
        ({"tv": {"low": 1, "high": 2, "count": 2, "stp": 1}}, "unknown key 'stp'"),
        ({"tv": {"low": 1, "high": 2, "count": 2.5}}, "2.5 must be a whole number"),
        ({"tv": {"low": "a", "high": 2, "count": 2}}, "wrong kind"),
        ({"tv": {"values": 3}}, "wrong kind"),
        ({"tv": {"sobol": 4, "of": {"x": {"from": 1}}}}, "must be"),
        ({"tv": {"zip": {"a": {"values": [1]}, "b": {"values": [1, 2]}}}}, "as many levels each"),
    ],
)
def test_wrong_tables(table, message):
    with pytest.raises(UserError, match=message):
        reading.read_grid(table)


def test_toml_of_plain_lists_and_of_words(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text('coupon = [0, 1]\nsegment = ["young", "(1.5, 2.0]"]\ncut = "0:0.3:4"\nseed = [4, 2]\n')
    expected = (
        axes.axis("coupon", [0, 1])
        * axes.choices("segment", ("young", "(1.5, 2.0]"))
        * axes.linear("cut", 0, 0.3, 4)
        * axes.axis("seed", [4, 2], "seed")
    )
    assert reading.read_grid(path) == expected


@pytest.mark.parametrize(
    ("make", "level"),
    [
        (lambda: reading.grid_from_words(["email=0,1,0"]), "0"),
        (lambda: reading.grid_from_words(["email=0.5:0.5:3"]), "0.5"),
        (lambda: reading.read_grid({"email": [0, 0]}), "0"),
        (lambda: reading.read_grid({"email": {"list": [{"email": 2}, {"email": 2}]}}), "2"),
    ],
)
def test_levels_named_twice_are_refused(make, level):
    with pytest.raises(UserError, match=f"axis 'email' has the level {level} twice"):
        make()


def test_axes_in_step_may_repeat_levels():
    found = reading.read_grid({"flight": {"zip": {"tv": [0, 0, 1], "radio": [0, 1, 0]}}})
    assert found.labels()["tv"][1].tolist() == [0, 0, 1]


def test_wrong_files(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        reading.read_grid(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[tv\n")
    with pytest.raises(UserError, match="not TOML"):
        reading.read_grid(tmp_path / "bad.toml")


def test_plans_from_toml(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(
        """
        [[edit]]
        do = "scale"
        action = "tv"
        factor = "$tv_factor"
        start = 10

        [[edit]]
        do = "move"
        action = ["tv", "mail"]
        to = "search"
        share = 0.5
        units = "$segment"

        [[edit]]
        do = "clamp"
        low = 0.0
        """
    )
    assert plan_reading.read_plan(path) == (
        plans.Scale(action="tv", factor=Axis("tv_factor"), start=10),
        plans.Move(action=("tv", "mail"), to="search", share=0.5, units=Axis("segment")),
        plans.Clamp(low=0.0),
    )
    again = plan_reading.to_edits(plan_reading.read_plan(path))
    assert again[2] == {"do": "clamp", "low": 0.0}
    assert plan_reading.read_plan(again) == plan_reading.read_plan(path)
    assert plan_reading.read_plan(json.loads(json.dumps(again))) == plan_reading.read_plan(path)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"do": "scal", "factor": 1.0}, "did you mean 'scale'"),
        ({"factor": 1.0}, "edit 0: do = ''"),
        ({"do": "scale", "factr": 1.0}, "scale has no 'factr'; did you mean 'factor'"),
        ({"do": "scale"}, "scale needs 'factor'"),
        ({"do": "move", "to": "tv", "share": 2.0}, "share is 2.0"),
    ],
)
def test_wrong_plans(table, message):
    with pytest.raises(UserError, match=message):
        plan_reading.read_plan([table])


def test_a_grid_speaks_for_itself():
    found = plan_reading.plan_from_axes(["start", "tv", "scale.mail", "shift.tv", "seed", "every"], ("tv", "mail"))
    window = {"start": Axis("start"), "every": Axis("every")}
    assert found == (
        plans.Set(action="tv", value=Axis("tv"), **window),
        plans.Scale(action="mail", factor=Axis("scale.mail"), **window),
        plans.Shift(action="tv", periods=Axis("shift.tv"), start=Axis("start")),
    )
    with pytest.raises(UserError, match="did you mean 'mail'"):
        plan_reading.plan_from_axes(["scale.mial"], ("tv", "mail"))
    with pytest.raises(UserError, match=r"no axis of the grid \(seed\) is one of the actions"):
        plan_reading.plan_from_axes(["seed"], ("tv", "mail"))


def test_a_grid_from_words_runs_its_plan():
    """From the command line's words to actions, end to end."""
    import jax.numpy as jnp

    from wmjax.sweep import grids

    grid = reading.grid_from_words(["tv=0:1:x3", "start=1:2"])
    plan = plan_reading.plan_from_axes(grid.names, ("tv", "mail"))
    point = grids.decode(grid, grids.unravel(3, grid.sizes))
    found = plans.apply(plan, jnp.full((1, 4, 2), 9.0), point, names=("tv", "mail"), choices=grid.choices)
    np.testing.assert_array_equal(found[0], [[9, 9], [9, 9], [0.5, 9], [0.5, 9]])
