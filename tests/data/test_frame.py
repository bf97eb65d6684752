import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from tests.data import oracle
from tests.data.tables import SCHEMA, table
from wmjax.core.errors import UserError
from wmjax.data import frame as frames
from wmjax.data import recipes as R
from wmjax.data.frame import Frame, build, fit_frame
from wmjax.data.readers import read_panel

EVERYTHING = (
    R.OneHot("segment"),
    R.QuantileBins("income", 4),
    R.Binned("footfall_", (2, 4.5)),
    R.Binary("loyal"),
    R.Calendar(("month", "dow", "quarter")),
    R.OneHot("weather"),
    R.QuantileBins("price", 3),
    R.Binary("holiday"),
    R.Continuous("footfall_"),
    R.Recency("visit", (0, 2, 7)),
    R.Recency("spend", (1,)),
    R.Recency("items", (0,)),
    R.Cumulative("visit", (1, 3, 5)),
    R.Cumulative("push", (2,)),
    R.Lag(("visit", "items", "spend"), (1, 2, 5)),
    R.Lag("push", (1, 3)),
)
COLUMNS = {
    **SCHEMA["columns"],
    "footfall_": {"role": "covariate", "kind": "count", "future": "known", "source": "footfall"},
}
FULL = {**SCHEMA, "columns": COLUMNS}


@pytest.fixture(scope="module")
def panel():
    return read_panel(table(), FULL)


@pytest.fixture(scope="module")
def train(panel):
    return np.arange(panel.num_times) < 28


@pytest.fixture(scope="module")
def frame(panel, train) -> Frame:
    return fit_frame(panel, EVERYTHING, train)


@pytest.fixture(scope="module")
def visible(frame, panel):
    return build(frame, panel)


def test_the_frame_is_its_slow_twin(frame, panel, train, visible):
    expected = oracle.build(panel, EVERYTHING, train)
    assert visible.shape == expected.shape == (7, 40, frame.visible.size)
    assert visible.dtype == np.float32
    gaussian = frame.visible.mask([g.name for g in frame.visible.groups if g.kind == "gaussian"])
    assert gaussian.sum() == 7
    assert np.array_equal(visible[..., ~gaussian], expected[..., ~gaussian])
    np.testing.assert_allclose(visible[..., gaussian], expected[..., gaussian], rtol=1e-5, atol=1e-6)


def test_chunks_do_not_matter(frame, panel, visible):
    for chunk in (1, 3, 100):
        assert np.array_equal(build(frame, panel, chunk=chunk), visible)


def test_a_last_chunk_that_is_not_full_compiles_nothing_new(frame, panel):
    before = frames._scan._cache_size()
    build(frame, panel, chunk=5)
    assert frames._scan._cache_size() == before + 1


def test_a_roll_out_is_the_same_definition(frame, panel, visible):
    """Step by step outside of `build`, with one compiled step, every unit of every row is the same."""
    step = jax.jit(lambda *a: (frames.read(frame, *a[:4]), frames.advance(frame, a[0], *a[4:])))
    state, codes, arrays = frames.init(frame, panel.num_units), frame.calendar(panel.times), panel.arrays
    for t in range(panel.num_times):
        now = (arrays.static, codes[t], arrays.covariates[:, t])
        shown, state = step(state, *now, arrays.actions[:, t], arrays.outcomes[:, t], arrays.mask[:, t])
        assert np.array_equal(shown, visible[:, t])
        if t == 19:
            replayed = frames.replay(frame, *(a[:, :20] for a in (arrays.actions, arrays.outcomes, arrays.mask)))
            assert all(np.array_equal(a, b) for a, b in zip(replayed, state, strict=True))


def test_steps_can_be_mapped_over_plans(frame, panel):
    state, arrays = frames.init(frame, panel.num_units), panel.arrays
    plans = jnp.stack([jnp.zeros_like(arrays.actions[:, 0]), jnp.ones_like(arrays.actions[:, 0])])
    advance = jax.jit(jax.vmap(lambda a: frames.advance(frame, state, a, arrays.outcomes[:, 0], arrays.mask[:, 0])))
    after = advance(plans)
    push = [t.column for t in frame.lagged].index("push")
    assert np.array_equal(after.lags[1, :, 0, push], arrays.mask[:, 0].astype(np.float32))
    assert not after.lags[0, :, 0, push].any()


def test_the_present_is_not_visible_and_the_future_moves_no_past(frame, panel, visible):
    arrays = panel.arrays
    u, t = np.argwhere(arrays.mask[:, :30])[60]
    for name in ("actions", "outcomes"):
        other = np.array(getattr(arrays, name))
        other[u, t:] = np.where(arrays.mask[u, t:, None], 1 - other[u, t:], 0)
        changed = build(frame, dataclasses.replace(panel, arrays=arrays._replace(**{name: other})))
        assert np.array_equal(changed[u, : t + 1], visible[u, : t + 1])
        assert np.array_equal(np.delete(changed, u, 0), np.delete(visible, u, 0))
        assert not np.array_equal(changed[u, t + 1], visible[u, t + 1])


def test_only_train_rows_are_fitted_on(frame, panel, train):
    arrays = panel.arrays
    static_free = tuple(r for r in EVERYTHING if getattr(r, "column", "") != "income")
    moved = {n: np.where(train[:, None], getattr(arrays, n), 1 + getattr(arrays, n)) for n in ("actions", "outcomes")}
    covariates = arrays.covariates.copy()
    covariates[:, ~train, 1:] += 1
    other = dataclasses.replace(panel, arrays=arrays._replace(**moved, covariates=covariates))
    assert fit_frame(other, static_free, train) == fit_frame(panel, static_free, train)
    assert fit_frame(other, static_free, ~train) != fit_frame(panel, static_free, ~train)


def test_a_static_counts_once_and_only_where_the_unit_has_a_train_row(panel, train):
    income = panel.values("income").copy()
    assert not panel.arrays.mask[-1, :18].any()
    early = np.arange(40) < 18
    frame = fit_frame(panel, (R.QuantileBins("income", 2),), early)
    assert frame.features[0].numbers == (float(np.median(income[:-1])),)


def test_recency_is_the_published_convention():
    """An event yesterday is 0 days ago, so "within 7 d" holds on the 8 days after an event, and on no ninth."""
    visits = np.zeros(12)
    visits[1] = 1
    rows = pd.DataFrame({"t": np.arange(12), "visit": visits})
    panel = read_panel(rows, {"time": "t", "columns": {"visit": {"role": "outcome", "kind": "binary"}}})
    frame = fit_frame(panel, (R.Recency("visit", (0, 7)), R.Cumulative("visit", (1,))), np.ones(12, bool))
    out = build(frame, panel)[0]
    assert np.flatnonzero(out[:, 0]).tolist() == [2]
    assert np.flatnonzero(out[:, 1]).tolist() == list(range(2, 10))
    assert np.flatnonzero(out[:, 2]).tolist() == list(range(2, 12))
    assert frame.visible.labels == ("visit_within_0", "visit_within_7", "visit_cum_1plus")


PUBLISHED = (
    R.OneHot("store"),
    R.Binary("loyalty"),
    R.Binned("age", (30, 40, 50, 60)),
    R.QuantileBins("income", 5),
    R.Calendar(("month", "dow")),
    R.Recency("visit", (7, 14, 30)),
    R.Recency("purchase", (7, 14, 30)),
    R.Cumulative("visit", (5, 10, 30)),
    R.Cumulative("purchase", (5, 10, 30)),
    R.Lag(("visit", "purchase", "coupon", "campaign", "push"), (1, 2, 3, 4)),
)


def published_panel():
    rng = np.random.default_rng(1)
    n, t = 40, 30
    each = {"store": np.arange(n) % 10, "loyalty": np.arange(n) % 2, "age": rng.integers(20, 70, n)}
    each["income"] = rng.lognormal(6, 0.5, n)
    rows = pd.DataFrame({k: np.repeat(v, t) for k, v in {"id": np.arange(n), **each}.items()})
    rows["date"] = np.tile(pd.date_range("2025-01-01", periods=t), n)
    columns = {k: {"role": "static", "kind": "continuous"} for k in each}
    columns["store"]["kind"], columns["loyalty"]["kind"] = "categorical", "binary"
    for name in ("coupon", "campaign", "push", "visit", "purchase"):
        rows[name] = rng.integers(0, 2, n * t)
        columns[name] = {"role": "outcome" if name in ("visit", "purchase") else "action", "kind": "binary"}
    return read_panel(rows, {"unit": "id", "time": "date", "columns": columns})


def test_the_published_frame_of_72_units_in_its_order():
    panel = published_panel()
    frame = fit_frame(panel, PUBLISHED, np.arange(30) < 20, units="bernoulli")
    order = [f"store_{i}" for i in range(10)] + ["loyalty"]
    order += ["age_below_30", "age_30_to_40", "age_40_to_50", "age_50_to_60", "age_60_up"]
    order += [f"income_q{i}" for i in range(1, 6)]
    order += [f"month_{i}" for i in range(1, 13)] + [f"dow_{i}" for i in range(7)]
    order += [f"{n}_within_{w}d" for n in ("visit", "purchase") for w in (7, 14, 30)]
    order += [f"{n}_cum_{k}plus" for n in ("visit", "purchase") for k in (5, 10, 30)]
    order += [f"{n}_lag{k}" for k in (1, 2, 3, 4) for n in ("visit", "purchase", "coupon", "campaign", "push")]
    assert list(frame.visible.labels) == order
    assert frame.visible.size == 72
    assert frame.visible.all_bernoulli
    income = panel.values("income").astype(float)
    bins = np.digitize(income, np.percentile(income, [20, 40, 60, 80]))
    assert np.array_equal(build(frame, panel)[:, 0, 16:21].argmax(axis=1), bins)
    clamp = frame.units_of("purchase", "lag")
    assert [label for label, on in zip(order, clamp, strict=True) if on] == [f"purchase_lag{k}" for k in (1, 2, 3, 4)]
    assert frame.units_of("purchase").sum() == 10
    assert frame.unit("purchase_within_7d") == order.index("purchase_within_7d")


def test_kinds_of_groups(frame, panel, train, visible):
    kinds = {g.name: g.kind for g in frame.visible.groups}
    softmax = ["segment", "income_bins", "footfall__bins", "month", "dow", "quarter", "weather", "price_bins"]
    assert [n for n, k in kinds.items() if k == "softmax"] == softmax
    assert kinds["push_lag"] == kinds["loyal"] == kinds["visit_recency"] == kinds["visit_lag1"] == "bernoulli"
    assert kinds["spend_lag5"] == kinds["items_lag1"] == "gaussian"
    for group in frame.visible.groups:
        if group.kind == "softmax":
            assert (visible[..., group.slice].sum(axis=-1) == 1).all()
        elif group.kind == "bernoulli":
            assert np.isin(visible[..., group.slice], (0, 1)).all()
    bits = fit_frame(panel, EVERYTHING, train, units="bernoulli")
    assert not any(g.kind == "softmax" for g in bits.visible.groups)
    assert np.array_equal(build(bits, panel), visible)


def test_gaussian_lags_are_standard_on_train_rows_and_zero_where_unobserved(frame, panel, visible):
    lag = visible[..., frame.unit("spend_lag1")]
    seen = panel.arrays.mask[:, :-1]
    assert (lag[:, 1:][~seen] == 0).all()
    train = lag[:, 1:29][seen[:, :28]]
    np.testing.assert_allclose([train.mean(), train.std()], [0, 1], atol=1e-5)


def test_json_round_trip_is_bitwise(frame, panel, visible):
    again = Frame.from_json(json.loads(json.dumps(frame.to_json())))
    assert again == frame
    assert hash(again) == hash(frame)
    assert again.fingerprint == frame.fingerprint
    assert np.array_equal(build(again, panel), visible)


def test_another_frame_has_another_fingerprint(frame, panel, train):
    shorter = train & (np.arange(40) > 0)
    assert fit_frame(panel, EVERYTHING, train).fingerprint == frame.fingerprint
    assert fit_frame(panel, EVERYTHING, shorter).fingerprint != frame.fingerprint


def test_columns_without_variation_do_no_harm(panel, train):
    arrays = panel.arrays
    flat = arrays.covariates.copy()
    flat[..., 1] = 2.5
    static = arrays.static.copy()
    static[:, 1] = [1, 1, 1, 1, 1, 5, 9]
    actions = np.zeros_like(arrays.actions)
    still = dataclasses.replace(panel, arrays=arrays._replace(covariates=flat, static=static, actions=actions))
    chosen = (R.QuantileBins("price"), R.QuantileBins("income", 4), R.Continuous("price"), R.Lag("spend"))
    frame = fit_frame(still, chosen, train)
    assert {g.name: g.size for g in frame.visible.groups} == {
        "price_bins": 1,
        "income_bins": 2,
        "price": 1,
        "spend_lag": 4,
    }
    out = build(frame, still)
    assert (out[..., 0] == 1).all()
    assert np.array_equal(out[:, 0, 1:3], np.eye(2)[(static[:, 1] >= 3).astype(int)])
    assert np.array_equal(out[..., 3], np.where(panel.arrays.mask, 0, out[..., 3]))
    assert (out[..., 4:] == 0).all()


def test_edges_hold_for_numbers_that_float32_cannot_write():
    """Quantile edges are rounded up to float32, so that every value keeps the bin it has in float64."""
    values = np.array([0.1, 0.2, 0.3, 0.7, 1.1, 1.3], np.float32)
    rows = pd.DataFrame({"u": np.arange(6), "t": 0, "x": values, "y": 1})
    columns = {"x": {"role": "static", "kind": "continuous"}, "y": {"role": "outcome", "kind": "count"}}
    panel = read_panel(rows, {"unit": "u", "time": "t", "columns": columns})
    edges = tuple(float(np.nextafter(np.float64(v), d)) for v in values[[1, 3]] for d in (-1, 9))
    frame = fit_frame(panel, (R.Binned("x", edges),), np.ones(1, bool))
    expected = np.digitize(values.astype(np.float64), edges)
    got = build(frame, panel)[:, 0]
    assert [frame.visible.labels[i] for i in got.argmax(axis=1)] == [frame.visible.labels[i] for i in expected]


def test_one_time_and_one_unit():
    rows = pd.DataFrame({"t": [0], "y": [1], "a": [1]})
    columns = {"y": {"role": "outcome", "kind": "binary"}}
    panel = read_panel(rows, {"time": "t", "columns": columns})
    frame = fit_frame(panel, R.default_recipes(panel), np.ones(1, bool))
    assert build(frame, panel).shape == (1, 1, 10)
    assert not build(frame, panel).any()


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (R.OneHot("price"), "OneHot of 'price': it is continuous, must be categorical"),
        (R.Binary("income"), "Binary of 'income': it is currency, must be binary"),
        (R.QuantileBins("segment"), "QuantileBins of 'segment': it is categorical"),
        (R.Continuous("push"), "Continuous of 'push': it is an action, must be static or covariate"),
        (R.QuantileBins("footfall"), "QuantileBins of 'footfall': a mediator"),
        (R.Lag("price"), "Lag of 'price': it is a covariate, must be action or outcome"),
        (R.Recency("nope", (1,)), "no column 'nope'"),
        (R.Binary("loyal"), "two visible labels are called 'loyal'"),
    ],
)
def test_a_recipe_that_does_not_suit_is_told(panel, train, recipe, words):
    with pytest.raises(UserError, match=words):
        fit_frame(panel, (R.Binary("loyal"), recipe), train)


@pytest.mark.parametrize(
    "make",
    [
        lambda: R.QuantileBins("x", 1),
        lambda: R.Binned("x", ()),
        lambda: R.Binned("x", (2, 1)),
        lambda: R.Calendar(("week",)),
        lambda: R.Calendar(()),
        lambda: R.Lag("x", (0,)),
        lambda: R.Lag("x", ()),
        lambda: R.Recency("x", (-1,)),
        lambda: R.Recency("x", (999,)),
        lambda: R.Cumulative("x", (3, 3)),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(make):
    with pytest.raises(ValueError, match="must be"):
        make()


def test_a_frame_meets_only_panels_like_its_own(frame, panel, train):
    fewer = read_panel(table(), SCHEMA)
    with pytest.raises(UserError, match="covariate columns are"):
        build(frame, fewer)
    levels = {**panel.levels, "weather": ("fog", "rain", "snow")}
    with pytest.raises(UserError, match="'weather' has levels"):
        build(frame, dataclasses.replace(panel, levels=levels))
    steps = table()
    steps["day"] = (steps["day"] - steps["day"].min()).dt.days
    with pytest.raises(UserError, match="panel is step"):
        build(frame, read_panel(steps, FULL))
    with pytest.raises(UserError, match="calendar of steps"):
        fit_frame(read_panel(steps, FULL), (R.Calendar(("month",)),), train)
    with pytest.raises(UserError, match="0 train times"):
        fit_frame(panel, EVERYTHING, np.zeros(40, bool))
    with pytest.raises(UserError, match="no recipes"):
        fit_frame(panel, (), train)
    with pytest.raises(UserError, match="no visible unit of 'visit' by onehot"):
        frame.units_of("visit", "onehot")
    with pytest.raises(UserError, match="no visible unit 'x'"):
        frame.unit("x")


def test_memory_of_a_build_is_bounded_by_the_chunk(frame, panel):
    def temporary(num_units: int) -> int:
        shapes = [(num_units, *a.shape[1:]) for a in panel.arrays]
        args = [jnp.zeros(s, bool if s == shapes[-1] else jnp.float32) for s in shapes]
        codes = frame.calendar(panel.times)
        lowered = frames._scan.lower(frame, args[0], codes, *args[1:])
        return lowered.compile().memory_analysis().temp_size_in_bytes

    one_panel = 4 * 40 * frame.visible.size
    assert temporary(8) < 8 * 2 * one_panel


@pytest.mark.parametrize(
    ("step", "parts", "windows"),
    [
        ("1D", ("month", "dow"), (7, 14, 30)),
        ("7D", ("month",), (4, 8, 13)),
        ("MS", ("month",), (3, 6, 12)),
        (None, (), (4, 8, 16)),
    ],
)
def test_default_recipes_suit_the_calendar_and_read_no_covariate_before_its_time(step, parts, windows):
    rows = table(drop=0)
    position = (rows["day"] - rows["day"].min()).dt.days
    rows["day"] = position if step is None else pd.date_range("2025-01-01", periods=40, freq=step)[position]
    panel = read_panel(rows, SCHEMA)
    chosen = R.default_recipes(panel)
    assert [r.parts for r in chosen if isinstance(r, R.Calendar)] == ([parts] if parts else [])
    assert [r for r in chosen if isinstance(r, R.Recency)] == [R.Recency("visit", windows)]
    assert chosen[:3] == (R.OneHot("segment"), R.QuantileBins("income"), R.Binary("loyal"))
    assert [r.columns for r in chosen if isinstance(r, R.Lag)] == [("visit",), ("items",), ("push",), ("spend",)]
    read = {getattr(r, "column", None) for r in chosen}
    assert {"weather", "price", "holiday"} <= read
    assert "footfall" not in read
    seen = {**SCHEMA["columns"], "weather": {"role": "covariate", "kind": "categorical", "future": "observed"}}
    later = read_panel(rows, {**SCHEMA, "columns": seen})
    assert "weather" not in {getattr(r, "column", None) for r in R.default_recipes(later)}
    with pytest.raises(UserError, match="only observed when its period happens"):
        fit_frame(later, (R.OneHot("weather"),), np.arange(40) < 30)
    frame = fit_frame(panel, chosen, np.arange(40) < 30)
    assert np.isfinite(build(frame, panel)).all()


def test_actions_of_all_units_at_once_are_found_in_train_periods_and_have_no_lags():
    panel = read_panel(table(drop=0), SCHEMA)
    actions = panel.arrays.actions.copy()
    actions[..., panel.action_index("push")] = np.arange(40) % 2
    together = panel.with_actions(np.where(panel.arrays.mask[..., None], actions, 0))
    assert R.common_actions(panel) == {}
    assert R.common_actions(together) == {"push": 20}
    assert R.common_actions(together.select(units=together.units[:1])) == {}
    # Held-out periods have no say, and units that are never seen together are no crowd.
    split = together.arrays.actions.copy()
    split[:, 30:] = panel.arrays.actions[:, 30:]
    assert R.common_actions(panel.with_actions(split)) == {}
    assert R.common_actions(panel.with_actions(split), np.arange(40) < 30) == {"push": 15}
    arrays = together.arrays
    apart = np.arange(40) % len(arrays.mask) == np.arange(len(arrays.mask))[:, None]
    alone = dataclasses.replace(together, arrays=arrays._replace(mask=arrays.mask & apart))
    assert R.common_actions(alone) == {}
    assert [r.columns for r in R.default_recipes(together) if isinstance(r, R.Lag)] == [
        ("visit",),
        ("items",),
        ("spend",),
    ]
