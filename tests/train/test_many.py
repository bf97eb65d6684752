import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.core import devices
from wmjax.core.keys import key_for
from wmjax.train import loop, many

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
