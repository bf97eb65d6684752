"""The adapter network: its two forms, effects, gradients, and that many in one program are each as if alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from jaxtyping import TypeCheckError

from wmjax.heads import adapter
from wmjax.heads.adapter import AdapterConfig
from wmjax.heads.learn import AdapterData, loss

ROWS, FEATURES, ACTIONS = 7, 5, 3


def config(form, **kwargs):
    return AdapterConfig(hidden=(6, 4), form=form, dropout=kwargs.pop("dropout", 0.25), **kwargs)


@partial(jax.jit, static_argnums=(1, 2, 3))
def initial(key, cfg, num_features, num_actions):
    return adapter.init(key, cfg=cfg, num_features=num_features, num_actions=num_actions)


def drawn(form, seed=0):
    keys = jax.random.split(jax.random.key(seed), 4)
    params = initial(keys[0], config(form), FEATURES, ACTIONS)
    # The additive form's effects start at zero; tests of them need others.
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(keys[1], p.shape), params)
    features = jax.random.normal(keys[2], (ROWS, FEATURES))
    return params, features, jax.random.normal(keys[3], (ROWS, ACTIONS))


def by_hand(params, x, a, form):
    """The same network in NumPy float64."""
    p = jax.tree.map(lambda w: np.asarray(w, np.float64), params)
    x, a = np.asarray(x, np.float64), np.asarray(a, np.float64)
    h = x @ p["features"]["kernel"] + p["features"]["bias"]
    if form == "mlp":
        h = h + a @ p["actions"]["kernel"]
    for name in ("layer_0", "layer_1"):
        h = np.maximum(h, 0) @ p[name]["kernel"] + p[name]["bias"]
    eta = h[:, 0]
    if form == "additive":
        eta = eta + ((x @ p["tau"]["kernel"] + p["tau"]["bias"]) * a).sum(1)
    return eta


@pytest.mark.parametrize("form", ["mlp", "additive"])
def test_apply_equals_a_second_implementation(form):
    params, x, a = drawn(form)
    np.testing.assert_allclose(adapter.apply(params, x, a, cfg=config(form)), by_hand(params, x, a, form), atol=2e-6)


@pytest.mark.parametrize("form", ["mlp", "additive"])
def test_effect_is_the_difference_of_two_applications(form):
    params, x, a = drawn(form)
    a0, a1 = jnp.linspace(-1.0, 1.0, ROWS), 2.0
    found = adapter.effect(params, x, 1, a0, a1, a, cfg=config(form))
    low, high = (by_hand(params, x, np.asarray(a.at[:, 1].set(v)), form) for v in (a0, a1))
    np.testing.assert_allclose(found, high - low, atol=3e-6)
    assert np.abs(high - low).min() > 1e-3, "a test of zeros shows nothing"


def test_additive_effects_of_like_rows_tie_and_do_not_read_the_other_actions():
    params, x, a = drawn("additive")
    x = x.at[3].set(x[0])
    found = adapter.effect(params, x, 0, 0.0, 1.0, a, cfg=config("additive"))
    assert found[3] == found[0]
    np.testing.assert_array_equal(found, adapter.effect(params, x, 0, 0.0, 1.0, 1e6 * a, cfg=config("additive")))


def test_a_column_that_was_never_seen_does_not_change_an_additive_effect():
    cfg = config("additive")
    params = initial(jax.random.key(0), cfg, FEATURES, ACTIONS)
    features, actions = (jnp.ones((ROWS, n)) for n in (FEATURES, ACTIONS))
    train = AdapterData(features.at[:, 2].set(0.0), actions, jnp.ones(ROWS), jnp.ones(ROWS))
    grads = jax.grad(loss)(params, train, cfg=cfg, kind="binary")
    stepped = jax.tree.map(lambda p, g: p - g, params, grads)
    seen = adapter.effect(stepped, train.features, 0, 0.0, 1.0, actions, cfg=cfg)
    unseen = adapter.effect(stepped, features, 0, 0.0, 1.0, actions, cfg=cfg)
    np.testing.assert_array_equal(seen, unseen)
    assert abs(float(seen[0])) > 1e-3


@pytest.mark.parametrize("form", ["mlp", "additive"])
@pytest.mark.parametrize("kind", ["binary", "currency"])
def test_gradients_of_the_loss(form, kind):
    params, x, a = drawn(form)
    labels = jnp.asarray([0, 1, 0, 1, 1, 0, 0], jnp.float32)
    batch = AdapterData(x, a, labels, jnp.asarray([1, 0.5, 2, 1, 0, 3, 1], jnp.float32))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda p: p.astype(jnp.float64), params)
        check_grads(lambda p: loss(p, batch, cfg=config(form), kind=kind), (wide,), order=1, modes=["rev"], atol=5e-3)


def test_bytes_and_floats_give_the_same():
    params, _, a = drawn("mlp")
    bits = np.random.default_rng(0).integers(0, 2, (ROWS, FEATURES))
    found = [adapter.apply(params, jnp.asarray(bits, d), a, cfg=config("mlp")) for d in (jnp.uint8, jnp.float32)]
    np.testing.assert_array_equal(*found)


def test_initial_weights_fill_their_range():
    """U(-1/sqrt(n), 1/sqrt(n)) for n inputs: 5,000 draws all inside, and the largest within 1 % of the bound."""
    cfg = AdapterConfig(hidden=(50,))
    params = initial(jax.random.key(0), cfg, 95, 5)
    first = jnp.concatenate([params["features"]["kernel"], params["actions"]["kernel"]])
    # P(largest of 5,000 below 99 % of the bound) = 0.99^5000 < 1e-21.
    assert 0.99 / 10 < jnp.abs(first).max() <= 1 / 10
    assert params["layer_0"]["kernel"].shape == (50, 1)
    assert jnp.abs(params["layer_0"]["kernel"]).max() <= 50**-0.5


def test_dropout_keeps_the_mean_and_drops_its_share():
    x = jnp.ones((1000, 101))
    out = adapter._dropout(jax.random.key(3), x, 0.1)
    share = float((out == 0).mean())
    # 26/256 of 101,000 independent units: |z| < 5, a false alarm in 1.7 million.
    expected = 26 / 256
    assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / x.size)
    assert np.isclose(out.max(), 256 / 230)
    assert not np.array_equal(out, adapter._dropout(jax.random.key(4), x, 0.1))


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [
        ({"hidden": ()}, "hidden"),
        ({"hidden": (4, 0)}, "hidden"),
        ({"dropout": 1.0}, "dropout"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"effect_sd": 0.0}, "effect_sd"),
        ({"effect_sd": float("inf")}, "effect_sd"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"form": "tree"}, "form"),
        ({"schedule": "step"}, "schedule"),
        ({"batch_size": 0}, "batch_size"),
        ({"patience": 0}, "patience"),
    ],
)
def test_a_wrong_setting_is_named(kwargs, word):
    # Under the tests' type checker a literal is refused before our own rule sees it.
    with pytest.raises((ValueError, TypeCheckError), match=word):
        AdapterConfig(**kwargs)
