import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.core import devices
from wmjax.core.errors import UserError
from wmjax.core.keys import key_for
from wmjax.train import crossing, loop, many

KEYS = jax.random.split(jax.random.key(1), 6)  # six lie on two devices
RATES = jnp.array([0.01, 0.05, 0.1, 0.05, 0.2, 0.15])


def config(**given):
    return loop.LoopConfig(
        **{"epochs": 6, "save_seconds": 0.0, "monitor": "score", "eval_every": 2, "patience": 50, **given}
    )


@pytest.fixture(scope="module")
def fit(tiny):
    data = tiny.make_data()

    def run(cfg, keys=KEYS, rates=RATES, **given):
        return many.fit_many(
            keys,
            rates,
            tiny.init,
            tiny.epoch,
            cfg=cfg,
            data=data,
            evaluate=tiny.evaluate,
            snapshot=tiny.averaged,
            **given,
        )

    return run


@pytest.fixture(scope="module")
def whole(fit):
    return fit(config())


def numbers(tree):
    """Read keys as their data, so that all leaves are arrays of numbers."""
    is_key = lambda x: jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if is_key(x) else x), tree)


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6), numbers(a), numbers(b))


def test_a_member_equals_the_same_model_alone(tiny, whole):
    state, metrics = whole
    for m in (0, 3):
        alone, alone_metrics = loop.run(
            KEYS[m],
            tiny.init(key_for(KEYS[m], "train/init"), RATES[m]),
            tiny.epoch,
            cfg=config(),
            data=tiny.make_data(),
            evaluate=tiny.evaluate,
            snapshot=tiny.averaged,
        )
        close(many.member((state.model, state.best, state.best_value), m), (alone.model, alone.best, alone.best_value))
        assert int(state.best_epoch[m]) == int(alone.best_epoch)
        close({name: values[:, m] for name, values in metrics.items()}, alone_metrics)


def test_members_lie_on_as_many_devices_as_divide_them(whole):
    assert [devices.mesh(n) is None for n in (1, 5, 6)] == [True, True, False]
    assert devices.mesh(6).size == 2
    # What comes back is free: the next program need not know where it was trained.
    assert all(not x.committed for x in jax.tree.leaves(whole[0]))


def test_members_differ_by_key_and_by_hyperparameter(fit, whole):
    paths = whole[1]["loss"].T
    assert len(np.unique(paths, axis=0)) == 6
    same_key, _ = fit(config(), keys=jnp.stack([KEYS[0]] * 6))
    assert len(np.unique(same_key.model.params["w"], axis=0)) == 5  # two members share a rate too
    np.testing.assert_array_equal(same_key.model.params["w"][1], same_key.model.params["w"][3])


def test_the_company_of_a_member_does_not_matter(fit, whole):
    turned, metrics = fit(config(), keys=KEYS[::-1], rates=RATES[::-1])
    close(many.member(turned.model, 5), many.member(whole[0].model, 0))
    np.testing.assert_allclose(metrics["loss"][:, ::-1], whole[1]["loss"], rtol=2e-5)


def test_members_in_batches_give_the_same(fit, whole):
    state, metrics = fit(config(), batch_size=2)
    close(state, whole[0])
    close(metrics, whole[1])


def test_many_are_resumed_bit_by_bit(fit, whole, tmp_path, bits):
    fit(config(epochs=2), folder=tmp_path)
    assert bits(fit(config(), folder=tmp_path)) == bits(whole)


def test_a_diverging_rate_is_frozen_and_its_neighbours_learn_on(fit, whole, bits):
    state, metrics = fit(config(), rates=RATES.at[2].set(jnp.inf))
    assert state.diverged.tolist() == [False, False, True, False, False, False]
    for m in (0, 1, 3, 4, 5):
        assert bits(many.member(numbers(state.model), m)) == bits(many.member(numbers(whole[0].model), m))
        assert bits(many.member(state.best, m)) == bits(many.member(whole[0].best, m))
    assert np.isfinite(state.model.params["w"]).all()
    assert np.isnan(metrics["loss"][:, 2]).all()


def test_a_second_run_traces_nothing(tiny):
    traces, seen = [], []

    def epoch(key, state, data):
        traces.append(1)
        return tiny.epoch(key, state, data)

    for _ in range(2):
        many.fit_many(
            KEYS, RATES, tiny.init, epoch, cfg=config(epochs=2, monitor="loss", eval_every=1), data=tiny.make_data()
        )
        seen.append(len(traces))
    assert seen[0] == seen[1] == 1


@pytest.mark.parametrize("batch_size", [1, 3, 5, 9])
def test_batches_of_any_size_map_and_share_the_same_arguments(batch_size):
    own, shared = (jnp.arange(5.0), {"a": jnp.arange(10.0).reshape(5, 2)}), jnp.array([2.0, 3.0])

    def fn(x, tree, shared):
        return {"y": x + tree["a"] @ shared}

    expected = np.arange(5) + np.arange(10).reshape(5, 2) @ [2, 3]
    np.testing.assert_allclose(many.members(fn, batch_size=batch_size)(*own, shared)["y"], expected)
    np.testing.assert_allclose(many.members(fn)(*own, shared)["y"], expected)


def test_arrays_without_numbers_go_through_batches_too():
    """A network without static inputs has weights of width 0."""
    own = (jnp.arange(5.0), {"w": jnp.zeros((5, 0, 3)), "a": jnp.ones((5, 2))})

    def fn(x, tree):
        return {"y": x + tree["a"].sum(), "w": tree["w"] + x, "none": jnp.zeros((4, 0), jnp.int32)}

    got, expected = many.members(fn, batch_size=2)(*own), many.members(fn)(*own)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), got) == jax.tree.map(lambda x: (x.shape, x.dtype), expected)
    np.testing.assert_array_equal(got["y"], expected["y"])


def test_batches_bound_the_memory():
    def wide(key, state, data):
        return state, jnp.sin(state[:, None] * data).sum()

    def temp(members, batch_size):
        keys = jax.random.split(jax.random.key(0), members)
        args = (keys, jnp.ones((members, 200)), jnp.ones(300))
        compiled = jax.jit(many.members(wide, batch_size=batch_size)).lower(*args).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    small, large = temp(8, 4), temp(64, 4)
    # What grows is the members' own state, a copy of which lax.map may keep, not the 200 x 300 table of each.
    assert large - small <= 2 * 64 * 200 * 4
    assert large < 6 * 200 * 300 * 4


def test_stack_and_member_undo_each_other(tiny, bits):
    models = [tiny.init(key, 0.1) for key in KEYS[:3]]
    stacked = many.stack(models)
    for m, model in enumerate(models):
        assert bits(many.member(stacked, m)) == bits(model)


def test_a_batch_holds_at_least_one():
    with pytest.raises(ValueError, match="batch_size is 0"):
        many.members(lambda key, state: state, batch_size=0)


def test_a_second_run_begins_without_compiling(fit, whole):
    before = many._call._cache_size()
    fit(config(epochs=2))
    assert many._call._cache_size() == before


# ---- subsets of the data -------------------------------------------------------------------------------------------


def region(tiny, at):
    return tiny.make_data(10 + at)


GRID = crossing.cross(jax.random.key(5), seeds=2, hyper={"rate": (0.05, 0.2)}, subsets=("north", "south", "west"))


@pytest.fixture(scope="module")
def fit_regions(tiny):
    subsets = many.stack([region(tiny, at) for at in range(3)])

    # Three arguments where there are subsets: a model may begin from its data.
    def init(key, hyper, data):
        return tiny.init(key, hyper["rate"])._replace(chain=data["y"][:4])

    def run(cfg, grid=GRID, subsets=subsets, epoch=tiny.epoch, **given):
        given = {"evaluate": tiny.evaluate, "snapshot": tiny.averaged, **given}
        return many.fit_many(grid.key, grid.hyper, init, epoch, cfg=cfg, subsets=subsets, which=grid.which, **given)

    run.init = init
    return run


@pytest.fixture(scope="module")
def regions(fit_regions):
    return fit_regions(config())


def test_a_member_learns_from_its_own_subset_as_if_alone(tiny, fit_regions, regions):
    state, metrics = regions
    for m in (0, 6, 11):
        data = region(tiny, GRID.which[m])
        start = fit_regions.init(key_for(GRID.key[m], "train/init"), member_hyper(m), data)
        given = {"evaluate": tiny.evaluate, "snapshot": tiny.averaged}
        alone, alone_metrics = loop.run(GRID.key[m], start, tiny.epoch, cfg=config(), data=data, **given)
        close(many.member((state.model, state.best, state.best_value), m), (alone.model, alone.best, alone.best_value))
        close({name: values[:, m] for name, values in metrics.items()}, alone_metrics)


def member_hyper(m):
    return {name: values[m] for name, values in GRID.hyper.items()}


def test_subsets_may_be_row_numbers_of_a_shared_table(tiny, fit_regions, regions):
    table = jax.tree.map(lambda *xs: np.concatenate(xs), *(region(tiny, at) for at in range(3)))
    rows = np.arange(3 * 48).reshape(3, 48)

    def own(given):
        shared, rows = given
        return jax.tree.map(lambda x: x[rows], shared)

    found, metrics = many.fit_many(
        GRID.key,
        GRID.hyper,
        lambda key, hyper, given: fit_regions.init(key, hyper, own(given)),
        lambda key, state, given: tiny.epoch(key, state, own(given)),
        cfg=config(),
        data=table,
        subsets=rows,
        which=GRID.which,
        evaluate=lambda key, state, given: tiny.evaluate(key, state, own(given)),
        snapshot=tiny.averaged,
    )
    close((found.model, found.best), (regions[0].model, regions[0].best))
    close(metrics, regions[1])


def test_regions_are_resumed_bit_by_bit_and_others_are_refused(fit_regions, regions, tmp_path, bits):
    fit_regions(config(epochs=2), folder=tmp_path)
    assert bits(fit_regions(config(), folder=tmp_path)) == bits(regions)
    other = GRID._replace(hyper={"rate": GRID.hyper["rate"] * 2})
    with pytest.raises(UserError, match="holds a run whose fingerprint"):
        fit_regions(config(), grid=other, folder=tmp_path)
    with pytest.raises(UserError, match="holds a run whose fingerprint"):
        fit_regions(config(), grid=GRID._replace(which=GRID.which[::-1]), folder=tmp_path)


def test_one_region_that_diverges_is_marked_in_the_table(tiny, fit_regions, regions, bits):
    spoilt = region(tiny, 1)
    spoilt["y"] = np.full_like(spoilt["y"], np.nan)
    found, _ = fit_regions(config(), subsets=many.stack([region(tiny, 0), spoilt, region(tiny, 2)]))
    told = crossing.table(found, GRID.labels)
    assert told.columns.tolist() == ["member", "seed", "rate", "subset", "best_epoch", "score", "diverged"]
    assert len(told) == 12
    assert told.loc[told["diverged"], "subset"].tolist() == ["south"] * 4
    assert told.loc[told["diverged"], "score"].isna().all()
    assert (told.loc[told["diverged"], "best_epoch"] == 0).all()
    whole = crossing.table(regions[0], GRID.labels)
    good = told["subset"] != "south"
    assert told[good].equals(whole[good])
    assert (whole["best_epoch"] > 0).all()
    np.testing.assert_array_equal(whole["score"], np.asarray(regions[0].best_value, np.float64))


def test_keys_and_subsets_must_fit_each_other(fit_regions):
    with pytest.raises(ValueError, match="12 members and numbers of subsets of shape"):
        fit_regions(config(), grid=GRID._replace(which=GRID.which[:5]))
    with pytest.raises(ValueError, match="which goes from 1 to 3 and there are 3 subsets"):
        fit_regions(config(), grid=GRID._replace(which=GRID.which + 1))
    with pytest.raises(ValueError, match="subsets have leading axes"):
        fit_regions(config(), subsets={"x": np.zeros((3, 2)), "y": np.zeros(4)})
    with pytest.raises(ValueError, match="there are none"):
        fit_regions(config(), subsets=None)


# ---- how many are trained side by side -----------------------------------------------------------------------------


class Compiled:
    """Counts what XLA compiled, or took from the cache on disk."""

    def __init__(self):
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self.told)

    def told(self, event, _, **__):
        self.count += event.endswith("backend_compile_duration")


COMPILED = Compiled()


def compiled_by(run):
    before = COMPILED.count
    run()
    return COMPILED.count - before


def test_where_all_fit_choosing_compiles_nothing_more(tiny, fit_regions):
    def fresh():  # another object is another program
        return lambda key, state, data: tiny.epoch(key, state, data)

    chosen, given = ({"epoch": fresh(), "stage": "s"}, {"epoch": fresh(), "stage": "s", "batch_size": 12})
    fit_regions(config(), epoch=fresh())  # what is shared, keys and copies, is compiled before the two are counted
    counts = [compiled_by(lambda how=how: fit_regions(config(), **how)) for how in (chosen, given)]
    assert counts[0] <= counts[1]
    # A second run, of as many regions with other data, compiles nothing.
    assert compiled_by(lambda: fit_regions(config(), **chosen)) == 0


def wide_epoch(key, state, data):
    """Hold a table of a megabyte and its product while it lasts."""
    table = jnp.sin(jnp.arange(512.0)[:, None] * jnp.arange(512.0) + state.sum())
    return state + 1e-9 * (table @ table).sum(), {"loss": state.sum()}


def fit_wide(**given):
    keys = jax.random.split(jax.random.key(0), 16)
    return many.fit_many(
        keys,
        jnp.arange(16.0),
        lambda key, at: jnp.full(8, at),
        wide_epoch,
        cfg=config(monitor=None, patience=None, epochs=1),
        **given,
    )[0].model


def test_members_side_by_side_are_those_whose_predicted_bytes_fit(monkeypatch):
    tried = []
    original = many.members

    def spy(fn, mapped=2, *, batch_size=None):
        if fn is wide_epoch:
            tried.append(batch_size)
        return original(fn, mapped, batch_size=batch_size)

    monkeypatch.setattr(many, "members", spy)
    whole = fit_wide()
    assert set(tried) == {None}
    tried.clear()
    close(fit_wide(budget_bytes=6 * 2**20), whole)
    assert tried[0] is None
    assert 1 <= tried[-1] <= 4
    tried.clear()
    close(fit_wide(batch_size=3), whole)
    assert set(tried) == {3}
    with pytest.raises(UserError, match=r"16 models, one at a time on each device, take .* and the budget is 0.5 MiB"):
        fit_wide(budget_bytes=2**19)


def test_one_model_on_all_devices_is_one_program(tiny):
    """Its second epoch finds its state where the first one left it."""
    state, data = tiny.init(KEYS[0], 0.05), tiny.make_data()

    def run(epochs):
        cfg = loop.LoopConfig(epochs=epochs)
        return loop.run(KEYS[0], state, tiny.epoch, cfg=cfg, data=data, stage="all", share=devices.mesh(2))

    run(1)
    assert compiled_by(lambda: run(4)) == 0
