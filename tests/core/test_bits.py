"""The draws are uniform and independent as far as these statistics see; every bound is a two-sided z of 5.

A z beyond 5 has probability 6e-7 for a normal statistic. About 200 of them are looked at here: false alarm 1.2e-4 over
the whole file. Keys are fixed, so a test that passes once passes always.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from wmjax.core import bits

CALLS, SIZE = 1000, 8320  # 128 chains of 65 units


@pytest.fixture(scope="module")
def words():
    seeds = bits.seeds(jax.random.key(1), (CALLS,))
    return np.asarray(jax.jit(jax.vmap(lambda seed: bits.words(seed, (128, 65))))(seeds)).reshape(CALLS, SIZE)


def centred(words):
    return (words >> np.uint32(8)) / 2.0**24 - 0.5


def test_every_bit_is_balanced(words):
    for bit in range(32):
        ones = int(((words >> np.uint32(bit)) & 1).sum())
        assert abs(ones - words.size / 2) < 5 * np.sqrt(words.size) / 2, bit


@pytest.mark.parametrize("shift", [0, 8, 16, 24])
def test_bytes_are_uniform(words, shift):
    counts = np.bincount(((words >> np.uint32(shift)) & 255).ravel(), minlength=256)
    assert abs(chi_square_z(counts)) < 5


def test_triples_of_neighbours_are_uniform(words):
    top = (words >> np.uint32(28)).astype(np.int64)[:, : SIZE // 3 * 3].reshape(CALLS, -1, 3)
    counts = np.bincount((top @ np.array([256, 16, 1])).ravel(), minlength=4096)
    assert abs(chi_square_z(counts)) < 5


def chi_square_z(counts):
    chi2 = stats.chisquare(counts).statistic
    return (chi2 - (len(counts) - 1)) / np.sqrt(2 * (len(counts) - 1))


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 8, 16, 32, 65, 130, 1024, 4160])
def test_draws_of_one_array_do_not_correlate(words, lag):
    u = centred(words)
    product = u[:, :-lag] * u[:, lag:]
    assert abs(product.sum()) * 12 < 5 * np.sqrt(product.size)


def test_draws_of_different_seeds_do_not_correlate(words):
    u = centred(words)
    product = u[:-1] * u[1:]
    assert abs(product.sum()) * 12 < 5 * np.sqrt(product.size)


def test_no_bit_of_a_neighbour_predicts_a_bit(words):
    """32 x 32 correlations at three lags: the largest of 3,072 |z|, threshold 6 (false alarm 6e-6)."""
    bit = np.unpackbits(words[:20].view(np.uint8).reshape(-1, 4), axis=-1).astype(np.float32) - 0.5
    for lag in (1, 2, 65):
        z = (bit[:-lag].T @ bit[lag:]) * 4 / np.sqrt(len(bit))
        assert np.abs(z).max() < 6


@pytest.mark.parametrize("p", [0.5, 0.03])
def test_counts_have_binomial_spread_over_seeds_and_over_places(words, p):
    """Too even as well as too uneven counts show: |z| < 5 for the sum of squared standardised counts."""
    hit = centred(words) + 0.5 < p
    for axis, number in ((1, SIZE), (0, CALLS)):
        counts = hit.sum(axis)
        dispersion = ((counts - number * p) ** 2 / (number * p * (1 - p))).sum()
        assert abs(dispersion - len(counts)) < 5 * np.sqrt(2 * len(counts))


def test_seeds_that_differ_in_one_bit_share_nothing():
    """A seed and its 64 neighbours differ in about half of all bits of an array (the worst in 0.6 of them)."""
    seed, one = bits.seeds(jax.random.key(2)), np.uint32(1) << np.arange(32, dtype=np.uint32)
    flips = np.stack([np.concatenate([one, 0 * one]), np.concatenate([0 * one, one])], axis=1)
    others = np.asarray(jax.vmap(lambda s: bits.words(s, (4096,)))(seed ^ flips))
    differing = np.unpackbits((others ^ np.asarray(bits.words(seed, (4096,)))).view(np.uint8), axis=-1).mean(-1)
    assert differing.min() > 0.48
    assert differing.max() < 0.62


def test_bernoulli_probabilities_are_exact_at_the_ends_and_right_between():
    seed, size = bits.seeds(jax.random.key(3)), 1 << 20
    for field in (-6.0, -2.0, 0.0, 0.5, 3.0):
        p = 1 / (1 + np.exp(-field))
        ones = float(bits.bernoulli(seed, jnp.full(size, field)).sum())
        assert abs(ones - size * p) < 5 * np.sqrt(size * p * (1 - p))
    assert bits.bernoulli(seed, jnp.full(size, -jnp.inf)).sum() == 0
    assert bits.bernoulli(seed, jnp.full(size, jnp.inf)).sum() == size
    assert bits.coin(seed, jnp.zeros(size)).sum() == 0
    assert bits.coin(seed, jnp.ones(size)).sum() == size


def test_signed_and_uniform_cover_their_documented_grids():
    signed = np.asarray(bits.signed(bits.seeds(jax.random.key(4)), (1 << 16,)))
    assert signed.min() >= -1
    assert signed.max() < 1
    np.testing.assert_array_equal(signed * 2**23, np.round(signed * 2**23))
    uniform = np.asarray(bits.uniform(bits.seeds(jax.random.key(4)), (1 << 16,)))
    assert uniform.min() >= 0
    assert uniform.max() < 1
    np.testing.assert_array_equal(uniform * 2**23, np.round(uniform * 2**23))


def test_normals_are_normal():
    """Kolmogorov-Smirnov at 1e-6."""
    draws = np.asarray(bits.normal(bits.seeds(jax.random.key(5)), (1 << 18,)))
    assert np.isfinite(draws).all()
    assert stats.kstest(draws, "norm").pvalue > 1e-6


def test_the_same_seed_gives_the_same_words_in_any_shape():
    seed = bits.seeds(jax.random.key(6))
    np.testing.assert_array_equal(bits.words(seed, (6, 4)).ravel(), bits.words(seed, (24,)))
    assert len(np.unique(bits.spread(seed, 64))) == 128


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10, 100, 101, 4096, 10_007])
def test_permutation_deals_every_number_once(size):
    dealt = np.asarray(bits.permutation(bits.seeds(jax.random.key(size)), size))
    np.testing.assert_array_equal(np.sort(dealt), np.arange(size))


def test_permutations_put_every_number_everywhere():
    """10,000 shuffles of 60: the place of a number and the number at a place are uniform, and the mean number of fixed
    points and of neighbours that stay neighbours is 1 (59/60) with the variance of a true shuffle; |z| < 5 each.
    """
    seeds, count = bits.seeds(jax.random.key(7), (10_000,)), 10_000
    dealt = np.asarray(jax.jit(jax.vmap(lambda seed: bits.permutation(seed, 60)))(seeds))
    for place in (0, 1, 7, 30, 59):
        assert abs(chi_square_z(np.bincount(dealt[:, place], minlength=60))) < 5
        assert abs(chi_square_z(np.bincount(np.argmax(dealt == place, axis=1), minlength=60))) < 5
    fixed, stayed = (dealt == np.arange(60)).sum(1), (np.diff(dealt, axis=1) == 1).sum(1)
    assert abs(fixed.mean() - 1) < 5 / np.sqrt(count)
    assert abs(stayed.mean() - 59 / 60) < 5 / np.sqrt(count)
