import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.dbm import oracles
from wmjax.core.errors import UserError
from wmjax.core.visible import Visible
from wmjax.dbm import meanfield, scores

STATIC = ("visible", "kind", "sweeps")
score = jax.jit(scores.score, static_argnames=STATIC)
variational = jax.jit(scores.variational, static_argnames=("visible", "sweeps"))
difference = jax.jit(scores.difference, static_argnames=STATIC)
BITS = Visible.bernoulli(6)


def rows_of(visible, every=3):
    rows = oracles.visible_states(visible)[::every]
    units = oracles.gaussian_units(visible)
    rows[:, units] = np.random.default_rng(0).normal(size=(len(rows), len(units)))
    return jnp.asarray(rows, jnp.float32)


@pytest.mark.parametrize("depth", sorted(oracles.SIZES))
def test_variational_is_an_upper_bound_tight_for_one_layer(depth):
    sizes = oracles.SIZES[depth]
    params, visible = oracles.machine(sizes), Visible.bernoulli(sizes[0])
    rows = rows_of(visible)
    slack = np.asarray(score(params, rows, visible=visible, sweeps=10)) - oracles.free_energy(params, rows, visible)
    assert slack.min() > -1e-5
    if depth == 1:
        np.testing.assert_allclose(slack, 0, atol=1e-5)
    else:
        assert slack.max() > 1e-2, "the bound is not tight for a deep machine"


def test_a_sweep_never_raises_the_variational_free_energy():
    params, rows = oracles.machine((6, 4, 3, 2)), rows_of(BITS)
    once, often = (np.asarray(score(params, rows, visible=BITS, sweeps=sweeps)) for sweeps in (1, 10))
    assert (often <= once + 1e-5).all()
    assert (once - often).max() > 1e-3


def test_softplus_identity_at_a_fixed_point():
    """The score equals `E_q[E] - H(q)` summed over all hidden states; before a fixed point the gap makes up for it."""
    params, visible = oracles.machine((6, 4, 3, 2)), oracles.MIXED
    rows = rows_of(visible)
    for sweeps, settled in ((500, True), (2, False)):
        value, info = variational(params, rows, visible=visible, sweeps=sweeps)
        means = oracles.mean_field(params, rows, sweeps=sweeps)
        plain = [oracles.divergence_form(params, layers, visible) for layers in zip(*means, strict=True)]
        np.testing.assert_allclose(value + info.gap, plain, atol=2e-5)
        assert bool(info.converged.all()) == settled
        assert (float(info.gap.max()) < 1e-5) == settled


def test_exact_score_is_the_enumerated_free_energy():
    params = oracles.machine((6, 4, 3, 2))
    rows = rows_of(oracles.MIXED)
    expected = oracles.free_energy(params, rows, oracles.MIXED)
    np.testing.assert_allclose(score(params, rows, visible=oracles.MIXED, kind="exact"), expected, atol=1e-5)


@pytest.mark.parametrize("depth", sorted(oracles.SIZES))
def test_paper_score_counts_upper_couplings_twice_and_no_entropy(depth):
    """Against `S = -b.v - sum_l mu_l . (field of layer l)`, the published form, at means of the twin."""
    sizes = oracles.SIZES[depth]
    params, visible = oracles.machine(sizes), Visible.bernoulli(sizes[0])
    rows = rows_of(visible)
    means = oracles.mean_field(params, rows, sweeps=10)
    weights = [np.asarray(w, np.float64) for w in params.weights]
    expected = -means[0] @ np.asarray(params.biases[0], np.float64)
    for level in range(1, len(sizes)):
        field = np.asarray(params.biases[level], np.float64) + means[level - 1] @ weights[level - 1]
        if level < len(weights):
            field = field + means[level + 1] @ weights[level].T
        expected -= (means[level] * field).sum(1)
    np.testing.assert_allclose(score(params, rows, visible=visible, kind="paper"), expected, rtol=3e-6, atol=1e-5)


def test_kinds_differ_and_unknown_ones_are_named():
    params, rows = oracles.machine((6, 4, 3, 2)), rows_of(BITS)
    by_kind = {kind: score(params, rows, visible=BITS, kind=kind) for kind in ("variational", "paper", "exact")}
    assert abs(by_kind["paper"] - by_kind["exact"]).min() > 0.1
    with pytest.raises(UserError, match="'author', must be one of variational, paper, exact"):
        scores.check_kind("author")


def test_difference_is_formed_term_by_term():
    """On a machine of the published size the terms' difference is nearer to float64 than the difference of totals."""
    visible, rng = Visible.bernoulli(72), np.random.default_rng(3)
    params = oracles.machine((72, 64, 32, 16), scale=0.3, shift=0.0)
    old = (rng.random((128, 72)) < 0.28).astype(np.float32)
    new = old.copy()
    new[:, 5] = 1 - new[:, 5]
    at_once = jnp.stack([new, old])
    means = [oracles.mean_field(params, rows, sweeps=20) for rows in at_once]
    truth = oracles.variational(params, means[0]) - oracles.variational(params, means[1])
    terms = np.asarray(difference(params, at_once[1], at_once[0], visible=visible, sweeps=20)) - truth
    totals = np.subtract(*np.asarray(score(params, at_once, visible=visible, sweeps=20))) - truth
    assert np.abs(truth).mean() > 0.5
    assert np.sqrt((terms**2).mean()) < 0.6 * np.sqrt((totals**2).mean())
    np.testing.assert_allclose(terms, 0.0, atol=1.5e-5)
    np.testing.assert_array_equal(difference(params, at_once[1], at_once[1], visible=visible, sweeps=20), 0.0)


def test_saturated_means_leave_value_and_gradient_finite():
    """Means that round to exactly 0 and 1 have no entropy, and their logarithm reaches neither value nor slope."""
    params = jax.tree.map(lambda x: 200 * x, oracles.machine((6, 4, 3, 2)))
    rows = rows_of(BITS)

    def both(params):
        return scores.score(params, rows, visible=BITS).sum(), meanfield.infer(params, rows)[0][2]

    (value, means), slope = jax.jit(jax.value_and_grad(both, has_aux=True))(params)
    assert bool(((means == 0) | (means == 1)).any())
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves((value, slope)))


def test_one_row_without_leading_axis():
    params, rows = oracles.machine((6, 4, 3, 2)), rows_of(BITS)
    alone, info = variational(params, rows[4], visible=BITS, sweeps=10)
    assert alone.shape == info.gap.shape == info.converged.shape == ()
    np.testing.assert_allclose(alone, score(params, rows, visible=BITS, sweeps=10)[4], rtol=1e-6)
