import jax.numpy as jnp
import numpy as np

from wmjax.train import ema


def test_the_average_is_the_weighted_mean_of_all_it_saw():
    seen = np.random.default_rng(0).normal(size=(40, 3))
    expected = np.zeros(3)
    average = {"w": jnp.zeros(3)}
    for step, params in enumerate(seen):
        d = min(0.6, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * params
        average = ema.update(average, {"w": jnp.asarray(params, jnp.float32)}, step, decay=0.6)
    np.testing.assert_allclose(average["w"], expected, rtol=1e-5)


def test_the_decay_rises_from_a_tenth_to_its_limit():
    decay = ema.decay_at(jnp.arange(200), 0.9)
    assert float(decay[0]) == np.float32(0.1)
    np.testing.assert_allclose(decay, np.minimum(0.9, (1 + np.arange(200)) / (10 + np.arange(200))), rtol=1e-6)
    assert float(decay[-1]) == np.float32(0.9)
