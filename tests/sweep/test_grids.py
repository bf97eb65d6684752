"""Grids: decoded on the device as listed by itertools, and at 10^10 points."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import qmc

from wmjax.core.errors import UserError
from wmjax.sweep import axes, grids, tiles, wide

HUGE = axes.seeds(100_000) * axes.linear("a", -1.0, 1.0, 1001) * axes.steps("b", -50, 50) * axes.axis("c", [0.5])


@pytest.fixture(scope="module")
def mixed():
    return (
        axes.linear("discount", 0.0, 0.3, 4)
        * axes.choices("segment", ("young", "old", "all"))
        * axes.zipped("budget", axes.axis("tv", [1.5, 2.5]), axes.steps("search", 10, 5, -5))
        * axes.points("deal", [{"who": "x", "cut": 1}, {"who": "y", "cut": 3}, {"who": "x", "cut": 2}])
        * axes.seeds(2, first=7)
    )


def decode_all(grid):
    """Decode every point in one program, as the engine does: digits are traced."""
    digits = np.array([grids.unravel(i, grid.sizes) for i in range(grid.size)], np.int32)
    return jax.jit(jax.vmap(lambda d: grids.decode(grid, list(d))))(digits)


def test_decoding_lists_the_product_in_order(mixed):
    found = decode_all(mixed)
    assert mixed.size == 4 * 3 * 2 * 3 * 2
    expected = list(
        itertools.product(
            np.linspace(0, 0.3, 4).astype(np.float32),
            range(3),
            ((1.5, 10), (2.5, 5)),
            ((0, 1), (1, 3), (0, 2)),
            (7, 8),
        )
    )
    columns = {
        "discount": [e[0] for e in expected],
        "segment": [e[1] for e in expected],
        "tv": [e[2][0] for e in expected],
        "search": [e[2][1] for e in expected],
        "who": [e[3][0] for e in expected],
        "cut": [e[3][1] for e in expected],
        "seed": [e[4] for e in expected],
    }
    assert found.keys() == columns.keys() == set(mixed.names)
    for name, values in columns.items():
        np.testing.assert_allclose(found[name], np.array(values), rtol=1e-7)
        assert found[name].dtype == (np.float32 if name in ("discount", "tv") else np.int32)
    assert mixed.dims == ("discount", "segment", "budget", "deal", "seed")
    assert mixed.choices == {"segment": ("young", "old", "all"), "who": ("x", "y")}


def test_points_by_index_agree_with_the_device(mixed):
    found = decode_all(mixed)
    labels = mixed.at(np.arange(mixed.size, dtype=np.uint64))
    for name, values in labels.items():
        if name in mixed.choices:
            values = [mixed.choices[name].index(v) for v in values]
        np.testing.assert_allclose(np.asarray(found[name], float), np.array(values, float), rtol=1e-7)
    named = mixed.labels()
    assert named["tv"][0] == "budget"
    assert named["discount"][1].tolist() == [0.0, 0.1, 0.2, 0.3]


def test_ten_billion_points_cost_nothing_and_decode_exactly():
    """Indices past 2^32, beyond float32 and 32 bits, against Python's own whole numbers."""
    assert HUGE.size == 100_000 * 1001 * 101 > 10**10
    draw = np.random.default_rng(0)
    indices = [0, HUGE.size - 1, 2**32 - 1, 2**32, 2**32 + 1, *(int(i) for i in draw.integers(0, HUGE.size, 50))]
    decode = jax.jit(lambda digits, tables: grids.decode(HUGE.layout, digits, tables))
    labels = HUGE.at(np.array(indices, np.uint64))
    for k, index in enumerate(indices):
        found = decode(list(grids.unravel(index, HUGE.sizes)), HUGE.tables())
        rest, b = divmod(index, 101)
        seed, a = divmod(rest, 1001)
        assert (int(found["seed"]), int(found["b"])) == (seed, b - 50) == (labels["seed"][k], labels["b"][k])
        assert float(found["a"]) == np.float32(labels["a"][k])
        np.testing.assert_allclose(float(found["a"]), -1 + a / 500, atol=1e-7)
    assert sum(np.asarray(t).nbytes for t in HUGE.tables().values()) < 10_000
    with pytest.raises(IndexError, match="of a grid of"):
        HUGE.at(np.array([HUGE.size], np.uint64))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(1, 300))
def test_boxes_cover_every_point_once_in_order(sizes, limit):
    tiling = tiles.tile(sizes, limit)
    assert tiling.chunk <= max(limit, 1)
    assert math.prod(tiling.box) == tiling.chunk
    seen = []
    for number in range(tiling.num_regions):
        region = tiling.region(number)
        assert 0 < region.count <= tiling.chunk
        local = [grids.unravel(i, tiling.box) for i in range(region.count)]
        digits = [tuple(s + d for s, d in zip(region.start, at, strict=True)) for at in local]
        seen += digits
        assert region.index == int(np.ravel_multi_index(digits[0], sizes))
    assert seen == list(itertools.product(*map(range, sizes)))
    assert tiling.region(tiling.num_regions).count == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=4), st.integers(1, 10_000))
def test_boxes_are_near_the_limit(sizes, limit):
    """Nothing is wasted: a box has a third of the limit at least, or there is but one, or a row is cut in halves."""
    tiling = tiles.tile(sizes, limit)
    below = tiling.chunk // tiling.width
    assert tiling.num_regions == 1 or tiling.chunk > limit / 3 or tiling.width >= sizes[tiling.lead] / 2
    assert below * (tiling.width + 1) > limit / 2 or tiling.across <= 2


@pytest.mark.parametrize("method", ["latin", "sobol"])
def test_samples_fill_every_slice(method):
    size = 64
    cube = [
        axes.Interval(name="x", low=-2.0, high=6.0),
        axes.Interval(name="week", low=10, high=13, whole=True),
        axes.Interval(name="who", names=("a", "b")),
    ]
    grid = axes.sample("design", method, size, cube, seed=5)
    assert (grid.size, grid.dims, grid.sizes) == (size, ("design",), (size,))
    found = decode_all(grid)
    slices = np.floor((np.asarray(found["x"]) + 2) / 8 * size).astype(int)
    assert sorted(slices) == list(range(size))
    # 64 points in 4 and in 2 even slices; the sample is no grid: the axes go their own ways.
    assert np.bincount(found["week"])[10:].tolist() == [16] * 4
    assert np.bincount(found["who"]).tolist() == [32] * 2
    assert abs(np.corrcoef(found["x"], found["week"])[0, 1]) < 0.5
    labels = grid.labels()
    np.testing.assert_allclose(labels["x"][1], found["x"], rtol=1e-6)
    np.testing.assert_array_equal(labels["week"][1], found["week"])
    assert set(labels["who"][1]) == {"a", "b"}
    other = axes.sample("design", method, size, cube, seed=6)
    assert not np.array_equal(other.labels()["x"][1], labels["x"][1])


def test_sobol_on_the_device_is_scipys():
    size = 3000
    cube = [axes.Interval(name=n) for n in "abcde"]
    found = decode_all(axes.sample("design", "sobol", size, cube, seed=3))
    truth = qmc.Sobol(5, bits=30, rng=np.random.default_rng(3)).random_base2(12)[:size]
    np.testing.assert_allclose(np.stack([found[n] for n in "abcde"], axis=1), truth, atol=2.0**-24)


def test_another_grid_of_the_same_shape_compiles_nothing():
    traces = []

    @jax.jit
    def program(digits, tables):
        traces.append(1)
        return grids.decode(axes.linear("a", 0, 1, 5).layout, digits, tables)["a"]

    for low in (0.0, 3.0):
        grid = axes.linear("a", low, low + 1, 5)
        assert float(program([jnp.int32(4)], grid.tables())) == low + 1
    assert len(traces) == 1


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 2**33), min_size=1, max_size=6))
def test_wide_counts(numbers):
    count = jnp.zeros(2, jnp.uint32)
    for n in numbers:
        count = wide.total(count, jnp.asarray(wide.split(n)))
    assert int(wide.join(np.asarray(count))) == sum(numbers)
    np.testing.assert_allclose(float(wide.to_float(count)), sum(numbers), rtol=1e-6)
    more = wide.add(count, jnp.uint32(2**32 - 1))
    assert int(wide.join(np.asarray(more))) == sum(numbers) + 2**32 - 1
    assert bool(wide.less(count, more))
    assert not bool(wide.less(more, count))
    assert not bool(wide.less(count, count))


def test_sums_keep_what_float32_rounds_off():
    """Ten million terms of 0.1: plainly summed the error is 8.9 %, here less than one rounding of the sum."""

    def add(pair, _):
        return wide.accumulate(pair, jnp.float32(0.1)), None

    pair = jax.jit(lambda: jax.lax.scan(add, jnp.zeros(2), None, length=10_000_000)[0])()
    exact = 10_000_000 * float(np.float32(0.1))
    assert abs(float(pair[0]) + float(pair[1]) - exact) < 1e-6 * exact / 16


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: axes.axis("a", []), "'a' has 0 levels"),
        (lambda: axes.axis("a", [1.0, float("nan")]), "not finite"),
        (lambda: axes.axis("a", [0.5], "seed"), "levels of a seed must be whole"),
        (lambda: axes.axis("a", [2**31]), "at most 2147483647"),
        (lambda: axes.axis("", [1]), "needs a name"),
        (lambda: axes.linear("a", 0, float("inf"), 3), "must be finite"),
        (lambda: axes.linear("a", 0, 1, 2**20 + 1), "must have 1 to 1048576"),
        (lambda: axes.steps("a", 3, 1), "do not lead from 3 to 1"),
        (lambda: axes.seeds(0), "do not lead"),
        (lambda: axes.choices("a", ("x", "y", "x")), "names 'x' twice"),
        (lambda: axes.choices("a", ()), "0 levels"),
        (lambda: axes.zipped("d", axes.seeds(2), axes.members(3)), "as many levels each"),
        (lambda: axes.zipped("d"), "no axis"),
        (lambda: axes.points("d", []), "no points"),
        (lambda: axes.points("d", [{"a": 1}, {"b": 1}]), "point 1 names"),
        (lambda: axes.points("d", [{"a": 1}, {"a": "x"}]), "mixes names and numbers"),
        (lambda: axes.Interval(name="a", low=2.0, high=1.0), "low must be below high"),
        (lambda: axes.sample("d", "sobol", 8, []), "no axis"),
        (lambda: axes.sample("d", "sobol", 0, [axes.Interval(name="a")]), "has 0 points"),
        (lambda: axes.seeds(2) * axes.seeds(3), "two of axis 'seed'"),
        (lambda: axes.seeds(2) * axes.zipped("seed", axes.members(2)), "two of dimension 'seed'"),
        (lambda: axes.zipped("seed", axes.seeds(2), axes.members(2)), "has the name of an axis"),
        (lambda: grids.Grid(()), "at least one axis"),
        (lambda: HUGE * axes.seeds(10**9, "x"), "cannot be counted"),
    ],
)
def test_grids_that_make_no_sense_are_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()
