"""An adapter cut in two, what comes before the actions and what comes after, is the whole adapter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.heads import adapter
from wmjax.heads.adapter import AdapterConfig


@pytest.mark.parametrize("form", ["mlp", "additive"])
def test_project_and_complete_make_apply(form):
    cfg = AdapterConfig(hidden=(8, 4), form=form)
    rng = np.random.default_rng(0)
    start = jax.jit(lambda key: adapter.init(key, cfg=cfg, num_features=5, num_actions=3))(jax.random.key(0))
    params = jax.tree.map(lambda x: x + 0.3 * rng.standard_normal(x.shape, np.float32), start)
    features, actions = rng.standard_normal((7, 5), np.float32), rng.standard_normal((7, 3), np.float32)

    @jax.jit
    def both(actions):
        shared = adapter.project(params, jnp.asarray(features), cfg=cfg, num_actions=3)
        return adapter.complete(params, shared, actions, cfg=cfg), adapter.apply(
            params, jnp.asarray(features), actions, cfg=cfg
        )

    cut, whole = jax.vmap(both)(jnp.asarray([[[0.0]], [[1.0]], [[-2.0]]]) * actions)
    np.testing.assert_allclose(cut, whole, rtol=1e-5, atol=1e-6)
    assert jnp.abs(cut[1] - cut[0]).max() > 0.1
