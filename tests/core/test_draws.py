import jax
import numpy as np
import pytest

from wmjax.core import draws


@pytest.mark.parametrize("shape", [(), (3, 4)])
def test_draws_are_those_of_jax(shape):
    key = jax.random.key(3)
    np.testing.assert_array_equal(draws.normal(key, shape), jax.random.normal(key, shape))
    np.testing.assert_array_equal(draws.uniform(key, shape), jax.random.uniform(key, shape))
    np.testing.assert_array_equal(draws.logistic(key, shape), jax.random.logistic(key, shape))
