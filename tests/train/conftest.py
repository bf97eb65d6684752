import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest


@pytest.fixture(scope="session")
def tiny():
    """The small model of tiny.py; one module object, so that all tests share its compiled epochs."""
    spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def bits():
    """List a tree's leaves as (type, shape, dtype, bytes), keys by their data: equal lists are equal bit by bit."""

    def one(x):
        if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return str(x.dtype), x.shape, np.asarray(jax.random.key_data(x)).tobytes()
        array = np.asarray(x)
        return type(x).__name__, array.shape, str(array.dtype), array.tobytes()

    def all_of(tree):
        return jax.tree.structure(tree), [one(x) for x in jax.tree.leaves(tree)]

    return all_of
