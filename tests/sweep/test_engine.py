"""The engine against every point by NumPy: boxes of all shapes, reductions, labels, memory, and what is refused."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.core.errors import UserError
from wmjax.sweep import axes, sizing, stepping
from wmjax.sweep.engine import plan_sweep, sweep
from wmjax.sweep.moments import Moments
from wmjax.sweep.ranks import Top
from wmjax.sweep.reduce import Full


@pytest.fixture(scope="module")
def truth(toy):
    return toy.brute()


@pytest.mark.parametrize("chunk", [1, 14, 1000])
def test_every_point_whatever_the_box(toy, truth, chunk):
    """One point, a ragged box, and more than all points."""
    found = toy.run(Full(of="sales"), chunk=chunk)
    assert found["sales"].dims == ("who", "cut", "seed", "unit")
    np.testing.assert_allclose(found["sales"], truth[0], rtol=1e-6, atol=1e-6)
    assert found["who"].values.tolist() == ["x", "y", "z"]
    assert found["cut"].values.tolist() == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert found["seed"].values.tolist() == list(range(7))
    assert found["unit"].values.tolist() == list(toy.UNITS)


@pytest.mark.parametrize("chunk", [14, 105])
def test_reductions_whatever_the_box(toy, truth, chunk):
    sales, cost = truth
    found = toy.run(chunk=chunk)
    np.testing.assert_allclose(found["mean_mean"], sales.mean(2), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found["mean_variance"], sales.var(2, ddof=1), rtol=1e-4)
    assert found["mean_mean"].dims == ("who", "cut", "unit")
    # The dearest plans: who = z, cut = 0.4, whose seeds tie, to the first.
    assert found["top_best_who"].values.tolist() == ["z"] * 4
    assert found["top_best_cut"].values.tolist() == [0.4] * 4
    assert found["top_best_seed"].values.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(found["top_score"], np.sort(cost.ravel())[::-1][:4], rtol=1e-6)
    flat = sales.reshape(-1, 6)
    np.testing.assert_array_equal(found["best_index"], flat.argmax(0))
    np.testing.assert_allclose(found["best_value"], flat.max(0), rtol=1e-6)
    best = flat.argmax(0)
    assert found["best_best_who"].values.tolist() == [["x", "y", "z"][i // 35] for i in best]
    np.testing.assert_allclose(found["best_best_cut"], [0.1 * (i // 7 % 5) for i in best], atol=1e-12)
    assert found["best_best_seed"].values.tolist() == [i % 7 for i in best]
    ordered = np.sort(flat, axis=0)[np.floor(np.array([0.05, 0.25, 0.5, 0.75, 0.95]) * 104).astype(int)]
    np.testing.assert_allclose(found["spread_quantile"], ordered.T, rtol=0.051, atol=1e-6)


def test_plans_share_their_luck_and_seeds_have_their_own(toy):
    """With nothing but luck in the numbers, they vary with the seed and with nothing else."""
    found = sweep(lambda key, point: jax.random.normal(key), toy.GRID, key=jax.random.key(0), reduce=Full(), chunk=20)[
        "value"
    ].values
    assert (found == found[:1, :1]).all()
    assert len(np.unique(found[0, 0])) == 7


def test_points_in_step_and_lists_are_labelled(toy):
    grid = axes.zipped("week", axes.axis("start", [3, 1]), axes.axis("cut", [0.5, 0.25])) * axes.axis("x", [1.0, 2.0])
    found = sweep(lambda key, p: p["start"] * p["cut"] * p["x"], grid, key=jax.random.key(0))
    np.testing.assert_allclose(found["value"], [[1.5, 3.0], [0.25, 0.5]])
    assert found["start"].dims == found["cut"].dims == ("week",)
    assert found["start"].values.tolist() == [3, 1]


def test_integers_and_truth_values_are_kept_as_they_are():
    grid = axes.steps("n", 0, 4)
    found = sweep(
        lambda key, p: {"n": p["n"] * 2, "odd": p["n"] % 2 == 1},
        grid,
        key=jax.random.key(0),
        reduce={"a": Full(of="n"), "b": Full(of="odd")},
    )
    assert found["a_n"].dtype == np.int32
    assert found["b_odd"].values.tolist() == [False, True, False, True, False]


def test_the_same_shapes_compile_once(toy):
    toy.run()
    before = sizing._compiled.cache_info().misses
    other = axes.choices("who", ("p", "q", "r")) * axes.axis("cut", [5.0, 4.0, 3.0, 2.0, 1.0]) * axes.seeds(7, first=9)
    toy.run(grid=other)
    assert sizing._compiled.cache_info().misses == before


def test_a_second_sweep_traces_and_compiles_nothing(toy):
    toy.run()
    events = []
    listen = lambda name, seconds, **_: events.append(name)  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        toy.run()
        assert not [name for name in events if "compile" in name or "trace" in name]
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_what_the_inner_axes_do_not_move_is_computed_once_a_box():
    """The costly part depends on the outer axis alone: the flops of a point are those of the cheap part."""

    def evaluate(key, point, matrix):
        belief = jnp.tanh(matrix * point["outer"]) @ matrix
        return belief[0] * point["inner"]

    matrix = jnp.eye(64)
    costs = {}
    for name in ("outer", "inner"):
        last = "inner" if name == "outer" else "outer"
        grid = axes.linear(name, 0.0, 1.0, 4) * axes.linear(last, 0.0, 1.0, 256)
        costs[name] = plan_sweep(evaluate, grid, key=jax.random.key(0), data=(matrix,), chunk=256).flops
    assert costs["outer"] < 64 * 64 < 64**3 < costs["inner"]


def test_memory_is_the_boxes_and_not_the_grids(toy):
    def evaluate(key, point, own):
        return own * point["cut"] + point["seed"]

    own, plans = jnp.ones(100), []
    for count in (10**3, 10**6, 10**10):
        grid = axes.linear("cut", 0.0, 1.0, 10) * axes.seeds(count // 10)
        plans.append(
            plan_sweep(evaluate, grid, key=jax.random.key(0), data=(own,), reduce=Moments(), budget_bytes=2**20)
        )
    assert all(p.bytes <= 2**20 for p in plans)
    assert {p.points for p in plans} == {10**3, 10**6, 10**10}
    large = [p for p in plans if p.points >= 10**6]
    assert max(p.bytes for p in large) < 1.3 * min(p.bytes for p in large)
    assert all(p.chunk > 100 for p in plans)
    assert plans[0].stored_bytes == 0
    full = plan_sweep(evaluate, toy.GRID, key=jax.random.key(0), data=(own,))
    assert full.stored_bytes == 105 * 100 * 4


def test_a_box_that_nobody_asked_for_keeps_to_the_caches_of_a_processor(monkeypatch):
    def evaluate(key, point, own):
        return own * point["cut"]

    ask = {"key": jax.random.key(0), "data": (jnp.ones(10_000),)}
    grid = axes.linear("cut", 0.0, 1.0, 10**4)
    chunks = []
    for kept in (2**22, 2**20, 2**10):
        monkeypatch.setattr(sizing, "CACHED", kept)
        chunks.append(plan_sweep(evaluate, grid, **ask).chunk)
    assert chunks[0] > 2 * chunks[1] > 2 * chunks[2]
    assert chunks[2] == 1  # one point takes more, and is within the budget
    assert plan_sweep(evaluate, grid, budget_bytes=2**27, **ask).chunk > chunks[0]


def test_a_box_whose_bytes_are_not_its_points_grows(monkeypatch):
    """What is worked out once for a box makes a small one large: guessed from that, a box would be too small."""

    def evaluate(key, point, own):
        return sum(jax.lax.optimization_barrier(jnp.sin(own * point[name])).sum() for name in "abc")

    grid = axes.linear("a", 0.0, 1.0, 40) * axes.linear("b", 0.0, 1.0, 40) * axes.linear("c", 0.0, 1.0, 40)
    ask = {"key": jax.random.key(0), "data": (jnp.ones(20_000),), "reduce": Moments()}
    found = plan_sweep(evaluate, grid, **ask)
    assert found.bytes < sizing.CACHED + 2**20
    monkeypatch.setattr(sizing, "MANY", 10**9)
    assert found.chunk >= 4 * plan_sweep(evaluate, grid, **ask).chunk


def test_a_box_that_was_shrunk_to_fit_does_not_grow():
    """What all points share takes most of the budget: boxes shrink time and again, and the first that fits is taken."""

    def evaluate(key, point, own):
        shared = jnp.sort(own)
        return jnp.sort(shared[:100_000] * point["a"] + point["b"])[0]

    grid = axes.linear("a", 0.0, 1.0, 1000) * axes.linear("b", 0.0, 1.0, 1000)
    ask = {"key": jax.random.key(0), "data": (jnp.ones(2_000_000),), "reduce": Moments()}
    found = plan_sweep(evaluate, grid, budget_bytes=29 * 2**20, **ask)
    assert 5 < found.chunk < 63
    assert found.bytes <= 29 * 2**20


def test_large_states_do_not_shrink_the_box():
    """A mean for each of many levels and numbers: the state is copied whatever the box, which saves nothing by it."""

    def evaluate(key, point):
        return point["level"] * jnp.ones(3000)

    grid = axes.axis("level", np.linspace(0, 1, 4001)) * axes.seeds(50)
    found = plan_sweep(evaluate, grid, key=jax.random.key(0), reduce=Moments(keep=("level",)))
    assert found.chunk >= 64


def test_a_timed_plan_counts_every_box_like_the_second(monkeypatch):
    """Of two boxes the second counts: the first may still be warming up."""

    def evaluate(key, point, matrix):
        return (jnp.tanh(matrix * point["cut"]) @ matrix).sum()

    grid, own = axes.linear("cut", 0.0, 1.0, 40 * 64), jnp.eye(160)
    ask = {"key": jax.random.key(0), "data": (own,), "reduce": Moments(), "chunk": 64}
    assert plan_sweep(evaluate, grid, **ask).seconds is None
    ticks = iter([0.0, 0.0, 5.0, 10.0, 13.0])  # the first is the beginning
    monkeypatch.setattr(stepping, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    assert plan_sweep(evaluate, grid, timed=True, **ask).seconds == 3.0 * 40


def test_progress_is_told(toy):
    events = []
    toy.run(Moments(of="sales"), observer=events.append)
    assert [e.done for e in events] == [0, 14, 28, 35, 49, 63, 70, 84, 98, 105]
    assert {e.total for e in events} == {105}
    assert events[0].metrics["chunk"] == 14


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reduce": {}}, "keeps nothing"),
        ({"reduce": Full(of="profit")}, "reads the output 'profit'; there are"),
        ({"reduce": Full()}, "say of which output"),
        ({"reduce": Moments(of="sales", keep=("whom",))}, "no dimension 'whom' to keep"),
        ({"chunk": 0}, "chunk is 0"),
        ({"chunk": None, "budget_bytes": 100}, "one point of the sweep takes"),
        ({"dims": {"sales": ("unit", "time")}}, "its dimensions are named"),
        ({"dims": {"sales": ("who",)}}, "rename one"),
        ({"coords": {"unit": ["a"]}}, "do not fit"),
        ({"worker": (2, 2)}, r"worker is \(2, 2\)"),
        ({"worker": (0, 2)}, "need a place to share"),
        (
            {"reduce": {"who": Top(of="cost"), "": Top(of="cost")}, "coords": {"score": [1]}},
            "is an axis and a variable",
        ),
    ],
)
def test_mistakes_are_named(toy, options, words):
    with pytest.raises(UserError, match=words):
        toy.run(**options)


def test_more_points_than_the_machine_holds_need_a_place(toy):
    grid = axes.seeds(2**31 - 1) * axes.linear("cut", 0, 1, 100)
    with pytest.raises(UserError, match="give out, which writes them to disk"):
        sweep(lambda key, p: p["cut"], grid, key=jax.random.key(0), chunk=100)
