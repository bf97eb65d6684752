"""The belief's uses: whole groups are lost, what fills them is the textbook's, and corruptions touch their part."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from experiments import belief_uses, consistency, consumer_data, copula, representations
from experiments.belief_uses import SMOKE
from experiments.common import Cell
from wmjax.core.visible import Visible
from wmjax.dbm import exact, types


@pytest.fixture(scope="module")
def data():
    return consumer_data.make(SMOKE.panel, val=SMOKE.val, test=SMOKE.test)


def test_lost_bits_come_in_whole_groups(data):
    gone = belief_uses.lost(data, 0.3, 0)
    starts = [g.start for g in data.visible.groups]
    np.testing.assert_array_equal(gone, np.repeat(gone[:, starts], [g.size for g in data.visible.groups], axis=1))
    draws = gone[:, starts].size
    # Five standard errors: one false alarm in a million seeds.
    assert abs(gone[:, starts].mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / draws)
    assert (gone != belief_uses.lost(data, 0.3, 1)).any()


def test_gaussian_fill_is_the_conditional_mean():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    covariance, mean = root @ root.T / 60 + 0.01 * np.eye(6), np.full(6, 0.5)
    rows, gone = rng.random((40, 6)), rng.random((40, 6)) < 0.5
    found = belief_uses.gaussian_fill(mean, covariance, rows, gone)
    for row, free, filled in zip(rows, gone, found, strict=True):
        known = ~free
        gain = covariance[np.ix_(free, known)] @ np.linalg.pinv(covariance[np.ix_(known, known)])
        expected = np.clip(mean[free] + gain @ (row - mean)[known], 1e-3, 1 - 1e-3)
        np.testing.assert_allclose(filled[free], expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(filled[known], row[known])


def test_gibbs_and_mean_field_fill_as_enumeration_does():
    """Half of eight bits are lost: the means of 600 chains, 80 steps each, against all 16 completions.

    Neighbouring steps of one chain are alike, so chains are the sample: five standard errors over them, one false alarm
    in a million for each bit.
    """
    rng = np.random.default_rng(3)
    params = types.DBMParams(
        weights=tuple(jnp.asarray(rng.normal(0, 0.7, s), jnp.float32) for s in ((8, 4), (4, 3))),
        biases=tuple(jnp.asarray(rng.normal(0, 0.3, s), jnp.float32) for s in (8, 4, 3)),
    )
    row, gone = (rng.random(8) < 0.5).astype(np.float32), np.arange(8) % 2 == 0
    rows, mask = np.tile(row, (600, 1)), np.tile(gone, (600, 1))
    found = belief_uses.by_gibbs(jax.random.key(0), params, rows, mask)
    states = np.tile(row, (16, 1))
    states[:, gone] = list(itertools.product([0, 1], repeat=4))
    energy = np.asarray(exact.free_energy(params, jnp.asarray(states), visible=Visible.bernoulli(8)), np.float64)
    weight = np.exp(energy.min() - energy)
    expected = weight @ states / weight.sum()
    means = np.asarray(found.means, np.float64)
    error = means.std(0) / np.sqrt(len(means))
    assert (np.abs(means.mean(0) - expected)[gone] < 5 * error[gone]).all()
    np.testing.assert_array_equal(means[:, ~gone], rows[:, ~gone])
    drawn = np.asarray(found.rows)
    assert drawn.shape == (belief_uses.IMPUTATIONS, 600, 8)
    assert set(np.unique(drawn)) == {0.0, 1.0}
    np.testing.assert_array_equal(drawn[..., ~gone], np.broadcast_to(rows[:, ~gone], drawn[..., ~gone].shape))
    # Mean field is biased, but no worse a filling than an even chance.
    near = np.asarray(belief_uses.by_mean_field(params, rows[:1], mask[:1]).means)[0]
    assert np.abs(near - expected)[gone].mean() < np.abs(0.5 - expected)[gone].mean()


@pytest.mark.parametrize("kind", ["recency", "lags", "demographics", "promotions"])
def test_a_corruption_touches_its_part_alone(data, kind):
    bits, visible = data.rows(2).bits, data.visible
    wrong = consistency.corrupt(kind, np.random.default_rng(0), bits, visible)
    part = consistency.parts(visible)[kind]
    np.testing.assert_array_equal(np.delete(wrong, part, axis=1), np.delete(bits, part, axis=1))
    assert (wrong != bits).any(1).mean() > 0.5
    at = {label: i for i, label in enumerate(visible.labels)}
    if kind == "lags":  # in another order: as many as before
        for name in ("visit", "push"):
            own = [at[f"{name}_lag{k}"] for k in (1, 2, 3, 4)]
            np.testing.assert_array_equal(wrong[:, own].sum(1), bits[:, own].sum(1))
    if kind == "recency":  # no true row is so, and every corrupted one is
        windows = [at[f"visit_within_{d}d"] for d in (7, 14, 30)]
        lately = bits[:, [at[f"visit_lag{k}"] for k in (1, 2, 3, 4)]].any(1)

        def impossible(rows):
            short, middle, long = rows[:, windows].T.astype(int)
            return (short > middle) | (middle > long) | (lately & (short == 0))

        assert not impossible(bits).any()
        assert impossible(wrong).all()


def test_a_chain_of_regressions_is_a_distribution():
    rng = np.random.default_rng(1)
    first = rng.random(4000) < 0.3
    train = np.stack([first, first ^ (rng.random(4000) < 0.2), np.zeros(4000, bool), rng.random(4000) < 0.6], axis=1)
    surprise = consistency.chain(train.astype(np.uint8), 0)
    states = np.array(list(itertools.product([0, 1], repeat=4)), np.uint8)
    assert np.exp(-surprise(states)).sum() == pytest.approx(1.0)
    # The entropy of what was drawn, in nats: .611 + .500 + 0 + .673.
    assert surprise(train.astype(np.uint8)).mean() == pytest.approx(1.784, abs=0.05)


def test_an_autoencoder_gives_back_what_its_layers_say():
    rng = np.random.default_rng(2)
    bits = (rng.random((600, 8)) < 0.5).astype(np.uint8)
    bits[:, 4:] = bits[:, :4]  # four bits tell all eight
    found = representations.autoencoder(bits, (16, 4), seed=0, epochs=500)
    assert found.encode_all(bits).shape == (600, 20)
    np.testing.assert_array_equal(found.encode_all(bits)[:, 16:], found.encode(bits))
    error = float(found.error(bits).mean())
    assert error < 0.5 * 8 * 0.25  # less than half of what the means leave


def test_two_normals_exceed_two_thresholds_as_scipy_says():
    cases = [(0.3, -0.5, 0.7), (1.2, 1.0, -0.4), (0.0, 0.0, 0.95), (-2.0, 2.5, 0.2), (0.5, -1.0, -0.99)]
    a, b, r = (np.array(x) for x in zip(*cases, strict=True))
    expected = [multivariate_normal([0, 0], [[1, z], [z, 1]]).cdf([-x, -y]) for x, y, z in cases]
    np.testing.assert_allclose(copula.both_above(a, b, r), expected, atol=1e-6)


def test_a_copula_recovers_its_correlations_and_is_a_distribution():
    rng = np.random.default_rng(5)
    true = np.array([[1.0, 0.6, -0.3, 0.0], [0.6, 1.0, 0.1, 0.2], [-0.3, 0.1, 1.0, 0.5], [0.0, 0.2, 0.5, 1.0]])
    latent = rng.multivariate_normal(np.zeros(4), true, size=200_000)
    bits = (latent > np.array([0.2, -0.5, 1.0, 0.0])).astype(np.uint8)
    found = copula.fit(bits)
    # A correlation of 200,000 pairs of bits is known to about .005.
    np.testing.assert_allclose(found.factor @ found.factor.T, true, atol=0.025)
    states = np.array(list(itertools.product([0, 1], repeat=4)), np.uint8)
    chance = np.exp(copula.log_likelihood(found, states, draws=20_000, seed=0))
    # Shares of 200,000 rows are known to .001, each chance by 20,000 draws to less: four of those, and so for the sum.
    assert chance.sum() == pytest.approx(1.0, abs=4e-3)
    often = np.bincount(bits @ np.array([8, 4, 2, 1]), minlength=16) / len(bits)
    np.testing.assert_allclose(chance, often, atol=4e-3)


def test_a_sum_over_months_is_what_is_left_without_them(data):
    """Independent bits: the chance of the other bits, times that of exactly one month."""
    rows, groups = data.rows(2).bits, consistency.unseen(data)
    (month,) = groups
    assert [data.visible.labels[i] for i in month] == [f"month_{m}" for m in range(1, 13)]
    p = np.random.default_rng(0).uniform(0.1, 0.9, rows.shape[1])
    found = consistency.summed(lambda x: -(x @ np.log(p) + (1 - x) @ np.log1p(-p)), rows, groups)
    rest = np.delete(np.arange(rows.shape[1]), month)
    one = np.prod(1 - p[month]) * np.sum(p[month] / (1 - p[month]))
    expected = -(rows[:, rest] @ np.log(p[rest]) + (1 - rows[:, rest]) @ np.log1p(-p[rest])) - np.log(one)
    np.testing.assert_allclose(found, expected)


def test_errors_of_a_push_are_of_the_mean_over_complete_rows(data):
    truth = data.truth("push", 2).probability

    class Known:
        def effect(self, outcome, action, features, actions):
            assert (outcome, action, actions.shape) == (0, 4, data.rows(2).actions.shape)
            return {"prob": truth + features[:, 0]}

    features = np.zeros((2, len(truth), 1))
    features[0, ::2], features[1, ::2], features[:, 1::2] = 0.1, 0.3, -0.2
    found = belief_uses.push_errors("missing=0.5", "m", Known(), features, data)
    assert found[Cell("missing=0.5", "m", "root_pehe_prob")] == pytest.approx(0.2)
    assert found[Cell("missing=0.5", "m", "ate_error_prob")] == pytest.approx(0.0, abs=1e-9)
