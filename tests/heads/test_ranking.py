"""The device's AUC against scikit-learn's, with ties and weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import roc_auc_score

from wmjax.heads import ranking

auc = jax.jit(ranking.auc)
ROWS = 20


@settings(max_examples=60, deadline=None)
@given(
    scores=arrays.arrays(np.int8, ROWS, elements=st.integers(-3, 3)),
    labels=arrays.arrays(np.int8, ROWS, elements=st.integers(0, 1)),
    weights=arrays.arrays(np.int8, ROWS, elements=st.integers(0, 4)),
)
def test_auc_with_ties_and_weights(scores, labels, weights):
    found = float(auc(*(jnp.asarray(x, jnp.float32) for x in (scores, labels, weights))))
    kept = weights > 0
    if len(set(labels[kept])) < 2:
        assert np.isnan(found)
    else:
        expected = roc_auc_score(labels, scores, sample_weight=weights)
        assert found == pytest.approx(expected, abs=1e-6)


def test_auc_of_a_long_table():
    rng = np.random.default_rng(0)
    n = 30_000
    labels = (rng.random(n) < 0.1).astype(np.float32)
    scores = (rng.normal(size=n) + 0.5 * labels).round(2).astype(np.float32)
    weights = rng.exponential(size=n).astype(np.float32)
    expected = roc_auc_score(labels, scores, sample_weight=weights.astype(np.float64))
    assert float(auc(*map(jnp.asarray, (scores, labels, weights)))) == pytest.approx(expected, abs=3e-6)
