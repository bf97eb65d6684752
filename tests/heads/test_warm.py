"""The regression that additive adapters start from, against scikit-learn's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from wmjax.heads import adapter, ensemble, warm
from wmjax.heads.adapter import AdapterConfig
from wmjax.heads.learn import AdapterData

ROWS, MEMBERS = 400, 2


@pytest.fixture(scope="module")
def data():
    """Features of each member's own, two actions of which the second is rare, a binary and a real outcome."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(MEMBERS, ROWS, 3))
    a = np.stack([rng.normal(size=ROWS), rng.random(ROWS) < 0.05], axis=1)
    eta = x[0] @ [0.5, -0.3, 0.0] + a @ [-0.8, 1.5] - 1
    y = np.stack([rng.random(ROWS) < 1 / (1 + np.exp(-eta)), eta + rng.normal(size=ROWS)])
    parts = [jnp.asarray(v, jnp.float32) for v in (x, a, y, rng.exponential(size=(1, MEMBERS, ROWS)))]
    return AdapterData(*parts)


def test_coefficients_are_those_of_scikit_learn(data):
    found = warm.main_effects(data, ("binary", "continuous"), ridge=2.0)
    assert found.shape == (2, MEMBERS, 2)
    for m in range(MEMBERS):
        design, weights = np.concatenate([data.features[m], data.actions], axis=1), np.asarray(data.weights[0, m])
        logistic = LogisticRegression(C=0.5, tol=1e-8, max_iter=1000).fit(design, data.labels[0], sample_weight=weights)
        np.testing.assert_allclose(found[0, m], logistic.coef_[0, 3:], atol=2e-3)
        ridge = Ridge(alpha=2.0).fit(design, data.labels[1], sample_weight=weights)
        np.testing.assert_allclose(found[1, m], ridge.coef_[3:], atol=2e-3)


@pytest.mark.parametrize(("rate", "effect"), [(1e-3, 2.0), (1e-4, 1.0), (0.999, -2.0)])
def test_what_is_rare_has_its_whole_effect(rate, effect):
    """Two cells of a saturated model, whose maximum is the difference of their log odds."""
    base = np.log(rate / (1 - rate))
    chance = 1 / (1 + np.exp(-np.array([base, base + effect])))
    weights = np.stack([1 - chance, chance]) * 1e6  # of the rows (label 0 or 1, action 0 or 1)
    labels, actions = np.repeat([0.0, 1.0], 2), np.tile([0.0, 1.0], 2)
    parts = [np.zeros((1, 4, 1)), actions[:, None], labels[None], weights.reshape(1, 1, 4)]
    table = AdapterData(*(jnp.asarray(x, jnp.float32) for x in parts))
    found = warm.main_effects(table, ("binary",), ridge=1e-3)
    np.testing.assert_allclose(found, effect, atol=0.02)


def test_adapters_start_with_these_effects_whoever_is_asked(data):
    cfg = AdapterConfig(form="additive", hidden=(4,))
    effects = warm.main_effects(data, ("binary", "continuous"))
    states = ensemble.init(jax.random.key(0), cfg=cfg, num_features=3, num_actions=2, outcomes=2, members=MEMBERS)
    params = warm.start(states.params, effects)
    own = jax.tree.map(lambda x: x[1 * MEMBERS + 1], params)  # the second outcome's second member
    one = jnp.ones(ROWS)
    got = adapter.effect(own, data.features[1], 1, 0 * one, one, data.actions, cfg=cfg)
    np.testing.assert_allclose(got, effects[1, 1, 1], rtol=1e-5)
