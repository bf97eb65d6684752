"""Reductions against NumPy float64 over all points at once, folded in random batches and merged in random trees."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.core.errors import UserError
from wmjax.sweep import axes, reduce, wide
from wmjax.sweep.moments import Moments
from wmjax.sweep.quantiles import Quantiles
from wmjax.sweep.ranks import Best, Top
from wmjax.sweep.reduce import Batch, Scene, Segments

GRID = axes.choices("who", ("x", "y", "z")) * axes.linear("cut", 0.0, 0.4, 5) * axes.seeds(17)
SHAPE = (6, 2)
SCENE = Scene(GRID.dims, GRID.sizes, SHAPE, ("unit", "outcome"))
SEGMENTS = Segments.of(["b", "a", "b", None, "a", "b"])
PLACES = 64
"""Points of a padded batch."""


@pytest.fixture(scope="module")
def values():
    """Numbers far from zero (so that a naive variance is lost), of both signs, with zeros and some not finite."""
    rng = np.random.default_rng(2)
    out = rng.normal(0.0, 3.0, (GRID.size, *SHAPE)) + np.array([1000.0, -2.0])
    out[rng.random(out.shape) < 0.05] = 0.0
    out = out.astype(np.float32)
    out[7, 1, 0], out[30, 2, 1], out[200, :, :] = np.nan, np.inf, -np.inf
    return out


@lru_cache(maxsize=64)
def programs(reduction, scene):
    fold = jax.jit(lambda state, batch: reduction.fold(state, batch, scene))
    merge = jax.jit(lambda a, b: reduction.merge(a, b, scene))
    return jax.jit(lambda: reduction.init(scene)), fold, merge


def batch_of(values, at, grid=GRID, places=PLACES):
    """Points of any numbers, padded with points that must not count."""
    fill = [0] * (places - len(at))
    at = np.array([*at, *fill], np.int64)
    digits = np.stack(np.unravel_index(at % grid.size, grid.sizes), axis=1).astype(np.int32)
    index = np.stack([wide.split(int(i)) for i in at])
    padded = np.where(np.arange(places) < places - len(fill), 1.0, np.nan)[:, None, None] * values[at % grid.size]
    return Batch(padded.astype(np.float32), digits, index, np.arange(places) < places - len(fill))


def reduced(reduction, values, rng, scene=SCENE):
    """Fold batches of random sizes into several states, points in random order, and merge these in random order."""
    init, fold, merge = programs(reduction, scene)
    order = rng.permutation(GRID.size)
    cuts = np.sort(rng.choice(np.arange(1, GRID.size), rng.integers(8, 20), replace=False))
    cuts = sorted({*cuts, *range(PLACES, GRID.size, PLACES)})
    states = [init() for _ in range(rng.integers(1, 4))]
    for piece in np.split(order, cuts):
        # Within a batch points come in order, as the engine gives them.
        k = rng.integers(len(states))
        states[k] = fold(states[k], batch_of(values, np.sort(piece)))
    while len(states) > 1:
        a = states.pop(rng.integers(len(states)))
        states[0] = merge(states[0], a) if rng.random() < 0.5 else merge(a, states[0])
    return reduction.finish(jax.device_get(states[0]), scene, GRID)


def clean(values):
    return np.where(np.isfinite(values), values.astype(np.float64), np.nan)


def grouped(values, keep, segments):
    """Split numbers into `[cells, groups, rest, many]` with NaN where a point or unit is not of the group."""
    x = clean(values).reshape(*GRID.sizes, *SHAPE)
    axis = [GRID.dims.index(k) for k in keep]
    rest = [k for k in range(3) if k not in axis]
    x = np.transpose(x, (*axis, *rest, 3, 4)).reshape(*(GRID.sizes[k] for k in axis), -1, *SHAPE)
    if segments is None:
        return np.moveaxis(x, len(axis), -1)
    codes = np.array(segments.codes)
    groups = [np.where((codes == g)[:, None], x, np.nan) for g in range(len(segments.names))]
    stacked = np.stack(groups, axis=len(axis))  # [cells, groups, many, unit, outcome]
    moved = np.moveaxis(stacked, -1, len(axis) + 1)
    return moved.reshape(*moved.shape[:-2], -1)


CASES = [((), None), (("who",), None), (("cut", "who"), SEGMENTS), ((), SEGMENTS)]


@pytest.mark.parametrize(("keep", "segments"), CASES)
def test_moments(values, keep, segments):
    truth = grouped(values, keep, segments)
    for seed in range(3):
        found = reduced(Moments(keep=keep, segments=segments), values, np.random.default_rng(seed))
        expected_dims = (*keep, *(("unit",) if segments is None else ("segment",)), "outcome")
        assert found["mean"][0] == found["variance"][0] == found["count"][0] == expected_dims
        np.testing.assert_array_equal(found["count"][1], np.isfinite(truth).sum(-1))
        np.testing.assert_allclose(found["mean"][1], np.nanmean(truth, -1), rtol=2e-7, atol=2e-6)
        np.testing.assert_allclose(found["variance"][1], np.nanvar(truth, -1, ddof=1), rtol=2e-5)
        assert found["nonfinite"][1] == 2 + np.prod(SHAPE)
        if segments is not None:
            assert found["segment"][1].tolist() == ["a", "b"]


def test_moments_of_too_few():
    scene = Scene(GRID.dims, GRID.sizes, SHAPE, ("unit", "outcome"))
    init, fold, _ = programs(Moments(keep=("who",)), scene)
    ones = np.ones((GRID.size, *SHAPE), np.float32)
    found = Moments(keep=("who",)).finish(jax.device_get(fold(init(), batch_of(ones, [0]))), scene, GRID)
    assert (found["mean"][1][0] == 1).all()
    assert np.isnan(found["mean"][1][1:]).all()
    assert np.isnan(found["variance"][1]).all()


def test_moments_keep_their_digits_over_a_billion_points():
    """2,000 batches that stand for 10^6 points each: what float32 alone would round off is kept."""
    reduction, scene = Moments(), Scene(("seed",), (10**9,), (), ())
    rng = np.random.default_rng(0)
    means = (5.0 + 1e-3 * rng.standard_normal(2000)).astype(np.float32)
    million = jnp.asarray(wide.split(10**6)).reshape(1, 1, 1, 2)

    def step(state, mean):
        pair = jnp.stack([mean, 0.0]).reshape(1, 1, 1, 2)
        squares = jnp.asarray([1e6, 0.0]).reshape(1, 1, 1, 2)
        return reduction.merge(state, type(state)(million, pair, squares, jnp.zeros(2, jnp.uint32)), scene), None

    state = jax.jit(lambda: jax.lax.scan(step, reduction.init(scene), jnp.asarray(means))[0])()
    found = reduction.finish(jax.device_get(state), scene, axes.seeds(10**9))
    exact = means.astype(np.float64)
    assert found["count"][1] == 2 * 10**9
    np.testing.assert_allclose(found["mean"][1], exact.mean(), rtol=1e-8)
    np.testing.assert_allclose(found["variance"][1], 1.0 + exact.var(), rtol=1e-6)


@pytest.mark.parametrize(("keep", "segments"), CASES)
def test_quantiles(values, keep, segments):
    truth = grouped(values, keep, segments)
    reduction = Quantiles(keep=keep, segments=segments, probabilities=(0.0, 0.1, 0.5, 0.99, 1.0), error=0.02)
    found = [reduced(reduction, values, np.random.default_rng(seed)) for seed in range(3)]
    for other in found:
        np.testing.assert_array_equal(other["quantile"][1], found[0]["quantile"][1])
    dims, numbers = found[0]["quantile"]
    assert dims[-1] == "probability"
    flat, guess = truth.reshape(-1, truth.shape[-1]), numbers.reshape(-1, 5)
    for row, got in zip(flat, guess, strict=True):
        row = np.sort(row[np.isfinite(row)])
        exact = row[np.floor(np.array(reduction.probabilities) * (len(row) - 1)).astype(int)]
        assert (np.abs(got - exact) <= 0.02001 * np.abs(exact) + 1e-6).all()


def test_quantile_bins_keep_the_stated_error_over_the_whole_range():
    reduction = Quantiles(error=0.01)
    rng = np.random.default_rng(1)
    x = (10 ** rng.uniform(-6, 9, 20_000) * rng.choice([-1, 1], 20_000)).astype(np.float32)
    edges = np.array([1e-6, -1e-6, 1e9, -1e9, 0.0, 1e-7, -1e-7], np.float32)
    answer = reduction.bins()[np.asarray(reduction.bin_of(jnp.asarray(x)))]
    assert (np.abs(answer / x - 1) <= 0.01001).all()
    answer = reduction.bins()[np.asarray(reduction.bin_of(jnp.asarray(edges)))]
    np.testing.assert_allclose(answer[:4], edges[:4], rtol=0.01001)
    assert (answer[4:] == 0).all()
    beyond = reduction.bins()[np.asarray(reduction.bin_of(jnp.asarray([1e30, -1e30], jnp.float32)))]
    assert (np.abs(beyond) >= 0.99e9).all()
    assert (np.diff(reduction.bins()) > 0).all()


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("score", ["mean", "sum"])
def test_top(values, largest, score):
    exact = getattr(clean(values).reshape(GRID.size, -1), score)(axis=1)
    order = np.argsort(-exact if largest else exact, kind="stable")[:9]
    for seed in range(3):
        found = reduced(Top(k=9, score=score, largest=largest), values, np.random.default_rng(seed))
        # Sums in float32 may swap neighbours; the scores themselves and each index's own score must agree.
        np.testing.assert_allclose(found["score"][1], exact[order], rtol=1e-5)
        np.testing.assert_allclose(exact[found["index"][1]], exact[order], rtol=1e-5)
        assert found["nonfinite"][1] == 3
        assert found["rank"][1].tolist() == list(range(1, 10))
        labels = GRID.at(found["index"][1].astype(np.uint64))
        for name, at in labels.items():
            assert found[f"best_{name}"][0] == ("rank",)
            assert (found[f"best_{name}"][1] == at).all()


def test_top_of_ties_and_of_few_points():
    ties = np.zeros((GRID.size, *SHAPE), np.float32)
    for seed in range(3):
        found = reduced(Top(k=5), ties, np.random.default_rng(seed))
        assert found["index"][1].tolist() == [0, 1, 2, 3, 4]
    init, fold, _ = programs(Top(k=300), SCENE)
    far = 2**32 * 5 + 3
    batch = batch_of(ties, [4, 9])._replace(index=np.stack([wide.split(far + k) for k in range(PLACES)]))
    state = jax.device_get(fold(init(), batch))
    assert wide.join(state.index)[:3].tolist() == [far, far + 1, wide.NOWHERE]
    few = Top(k=300).finish(jax.device_get(fold(init(), batch_of(ties, [4, 9]))), SCENE, GRID)
    assert few["index"][1].tolist() == [4, 9]


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("segments", [None, SEGMENTS])
def test_best(values, segments, largest):
    x = clean(values)
    if segments is not None:
        codes = np.array(segments.codes)
        x[200] = 0.0  # not finite in any unit: no segment has a mean there
        x = np.stack([np.nanmean(x[:, codes == g], axis=1) for g in range(2)], axis=1)
        x[200] = np.nan
    ranked = np.where(np.isnan(x), -np.inf, x if largest else -x)
    order = np.sort(ranked, axis=0)
    for seed in range(3):
        found = reduced(Best(segments=segments, largest=largest), values, np.random.default_rng(seed))
        dims = ("unit" if segments is None else "segment", "outcome")
        assert found["value"][0] == found["margin"][0] == found["index"][0] == dims
        sign = 1 if largest else -1
        np.testing.assert_allclose(found["value"][1], sign * order[-1], rtol=1e-6)
        np.testing.assert_allclose(found["margin"][1], order[-1] - order[-2], rtol=1e-4, atol=2e-4)
        at = np.take_along_axis(ranked, found["index"][1][None], axis=0)[0]
        np.testing.assert_allclose(at, order[-1], rtol=1e-6)
        assert (
            found["best_who"][1]
            == GRID.at(found["index"][1].ravel().astype(np.uint64))["who"].reshape(2 if segments else 6, 2)
        ).all()


def test_best_of_ties_and_of_nothing():
    ties = np.ones((GRID.size, *SHAPE), np.float32)
    ties[:, 0, 0] = np.nan
    for seed in range(3):
        found = reduced(Best(), ties, np.random.default_rng(seed))
        assert found["index"][1].ravel().tolist() == [-1] + [0] * 11
        assert found["best_who"][1].ravel().tolist() == [""] + ["x"] * 11
        assert np.isnan(found["best_cut"][1][0, 0])
        assert found["margin"][1].ravel()[1:].tolist() == [0.0] * 11
        assert np.isnan(found["value"][1][0, 0])
    init, fold, _ = programs(Best(), SCENE)
    one = Best().finish(jax.device_get(fold(init(), batch_of(ties, [5]))), SCENE, GRID)
    assert np.isnan(one["margin"][1]).all()
    assert one["index"][1][1, 1] == 5


def test_scalars_are_reduced_too():
    scene = Scene(GRID.dims, GRID.sizes, (), ())
    values = np.random.default_rng(4).normal(size=GRID.size).astype(np.float32)
    at = np.arange(PLACES)
    batch = batch_of(values[:, None, None], at)._replace(values=jnp.asarray(values[:PLACES]))
    for reduction, name, exact in (
        (Moments(), "mean", values[:PLACES].mean(dtype=np.float64)),
        (Best(), "value", values[:PLACES].max()),
        (Top(k=1), "score", values[:PLACES].max()),
        (Quantiles(probabilities=(0.0,)), "quantile", values[:PLACES].min()),
    ):
        init, fold, _ = programs(reduction, scene)
        found = reduction.finish(jax.device_get(fold(init(), batch)), scene, GRID)
        np.testing.assert_allclose(found[name][1], exact, rtol=0.0101 if name == "quantile" else 1e-6)


def test_states_stay_float32_and_words():
    for reduction in (Moments(), Quantiles(), Top(), Best(), reduce.Full()):
        state = jax.eval_shape(partial(reduction.init, SCENE))
        batch = jax.tree.map(jnp.asarray, batch_of(np.zeros((GRID.size, *SHAPE), np.float32), [0]))
        after = jax.eval_shape(lambda s, r=reduction, b=batch: r.fold(s, b, SCENE), state)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
        assert {str(x.dtype) for x in jax.tree.leaves(state)} <= {"float32", "uint32"}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Moments(keep=("whom",)).init(SCENE), "no dimension 'whom' to keep"),
        (lambda: Moments(segments=Segments((0, 0), ("a",))).init(SCENE), "given for 2 units"),
        (lambda: Best(segments=Segments((0, 0), ("a",))).init(SCENE), "given for 2 units"),
        (lambda: Segments((0, 2), ("a", "b")), "codes 0 to 1; 2 is none"),
        (lambda: Top(k=0), "k is 0"),
        (lambda: Quantiles(probabilities=(1.5,)), "must be between 0 and 1"),
        (lambda: Quantiles(error=0.0), "error is 0.0"),
        (lambda: Quantiles(smallest=2.0, largest=1.0), "smallest is 2.0"),
    ],
)
def test_reductions_that_make_no_sense_are_refused(make, words):
    with pytest.raises((UserError, ValueError), match=words):
        make()
