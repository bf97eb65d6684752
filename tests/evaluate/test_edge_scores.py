import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from wmjax.evaluate import edge_scores


@pytest.fixture(scope="module")
def score():
    return jax.jit(
        lambda s, t: (edge_scores.average_precision(s, t), edge_scores.auroc(s, t), edge_scores.nauprc(s, t))
    )


@pytest.mark.parametrize("levels", [2, 4, 1000])
def test_scores_agree_with_scikit_learn_ties_included(score, levels):
    rng = np.random.default_rng(levels)
    scores = rng.integers(0, levels, (60, 9)).astype(np.float32)
    truth = (rng.random((60, 9)) < 0.3).astype(np.float32)
    truth[:, 0], truth[:, 1] = 1, 0
    ap, area, normed = map(np.asarray, score(scores, truth))
    want = np.array([average_precision_score(t, s) for t, s in zip(truth, scores, strict=True)])
    np.testing.assert_allclose(ap, want, atol=1e-6)
    np.testing.assert_allclose(area, [roc_auc_score(t, s) for t, s in zip(truth, scores, strict=True)], atol=1e-6)
    pi = truth.mean(1)
    np.testing.assert_allclose(normed, (want - pi) / (1 - pi), atol=1e-6)


def test_constant_scores_are_worth_exactly_nothing(score):
    truth = np.array([1, 0, 0, 1, 0, 0, 0], np.float32)
    assert abs(float(score(np.zeros(7, np.float32), truth)[2])) < 1e-7
    assert float(score(truth, truth)[2]) == 1.0


def test_the_worst_ranking_is_as_bad_as_arithmetic_allows(score):
    for n, positives, worst in ((7, 1, 0.0), (7, 2, -0.083), (9, 3, -0.137), (14, 2, -0.038)):
        truth = (np.arange(n) < positives).astype(np.float32)
        got = score(np.arange(n, dtype=np.float32), truth)[2]
        assert float(got) == pytest.approx(worst, abs=1e-3)


def test_degenerate_columns_are_nan_and_counted(score):
    truth = jnp.array([[1.0, 1, 1], [0, 0, 0], [1, 0, 0]])
    scores = jnp.array([[3.0, 2, 1], [3, 2, 1], [3, 2, 1]])
    _, area, normed = score(scores, truth)
    assert np.isnan(normed).tolist() == [True, True, False]
    assert np.isnan(area).tolist() == [True, True, False]
    assert int(edge_scores.count_degenerate(truth)) == 2


def test_a_random_ranking_of_few_edges_is_not_worth_nothing():
    truth = jnp.array([1.0, 1, 0, 0, 0, 0, 0])
    run = jax.jit(lambda key, s: edge_scores.permutation_baseline(key, s, truth, num_permutations=2000))
    base = run(jax.random.key(0), jnp.arange(7.0))
    # Mean over all rankings 0.272; 5 standard errors, false alarm 6e-7.
    assert abs(float(base.mean) - 0.272) < 5 * float(base.sd) / np.sqrt(2000)
    best = run(jax.random.key(0), truth + jnp.arange(7) * 0.01)
    assert float(best.p_value) == pytest.approx(1 / 21, abs=0.03)
    tied = run(jax.random.key(0), jnp.zeros(7))
    assert float(tied.p_value) == 1.0
    assert abs(float(tied.mean)) < 1e-6
    assert float(tied.sd) < 1e-6
