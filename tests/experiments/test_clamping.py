"""The clamp test on machines whose answer is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments import clamping
from experiments.common import Cell
from wmjax.dbm import clamp, scores, types
from wmjax.dbm.types import DBMParams


@pytest.fixture(scope="module")
def rows(small_data):
    return small_data.rows(2)


@pytest.fixture(scope="module")
def machine(small_data) -> DBMParams:
    cfg = types.DBMConfig(hidden=(5, 4, 2), init_scale=0.3)
    return types.init(jax.random.key(0), 0.5 * jax.random.normal(jax.random.key(1), (72,)), cfg=cfg)


def test_eligible_rows_have_not_bought_for_four_days(small_data, rows):
    found = clamping.eligible(rows.bits, small_data.visible).reshape(96, 21)
    bought = small_data.sim.outcomes.purchase
    want = np.stack([~bought[:, d - 4 : d].any(axis=1) for d in range(69, 90)], axis=1)
    np.testing.assert_array_equal(found, want)


def test_contrasts_are_differences_of_the_scores(small_data, rows, machine):
    bits = rows.bits[clamping.eligible(rows.bits, small_data.visible)][:50]
    found = clamping.differences(machine, bits, visible=small_data.visible)

    @jax.jit
    def direct(v):
        bought = clamp.apply(v, clamping.BOUGHT, visible=small_data.visible)
        both = clamp.apply(bought, clamping.UNPROMOTED, visible=small_data.visible)
        return {
            f"{kind}/{name}": scores.difference(machine, v, target, visible=small_data.visible, kind=kind)
            for kind in ("paper", "variational")
            for name, target in (("dF", both), ("purchases_only", bought))
        }

    want = direct(jnp.asarray(bits, jnp.float32))
    for kind in ("paper", "variational"):
        for name in ("dF", "purchases_only"):
            np.testing.assert_allclose(found[f"{kind}/{name}"], want[f"{kind}/{name}"], atol=2e-5)


def test_without_couplings_the_biases_are_all_there_is(small_data, rows, machine):
    loose = DBMParams(tuple(jnp.zeros_like(w) for w in machine.weights), machine.biases)
    bits = rows.bits[:40]
    found = clamping.differences(loose, bits, visible=small_data.visible)
    for kind in clamping.KINDS:
        alone = kind == "conditional"  # promotions are no part of what is scored, and say nothing of it
        want = found["conditional/purchases_only" if alone else "bias_only"]
        np.testing.assert_allclose(found[f"{kind}/dF"], want, atol=1e-5)
        np.testing.assert_allclose(found[f"{kind}/interaction"], 0, atol=1e-5)
    assert np.abs(found["conditional/dF"] - found["bias_only"]).max() > 0.1


def test_the_condition_is_all_else_in_the_row(small_data, rows, machine):
    """Against the exact probabilities of a machine of one hidden layer, by all histories of a row in turn."""
    small = DBMParams((machine.weights[0] * 20,), machine.biases[:2])
    bits = rows.bits[clamping.eligible(rows.bits, small_data.visible)][:40]
    found = clamping.differences(small, bits, visible=small_data.visible)
    v, at = np.asarray(bits, np.float64), clamp.units(clamping.WHOLE, visible=small_data.visible)
    off = clamp.units(clamping.PROMOTED, visible=small_data.visible)
    weights, (visible_bias, hidden_bias) = np.asarray(small.weights[0], np.float64), map(np.asarray, small.biases)

    def free_energy(x):
        return -(x @ visible_bias) - np.logaddexp(0, x @ weights + hidden_bias).sum(-1)

    def alone(x):
        every = np.repeat(x[None], len(clamping.HISTORIES), axis=0)
        every[:, :, at] = clamping.HISTORIES[:, None]
        return free_energy(x) + np.log(np.exp(-free_energy(every)).sum(0))

    unpromoted = v.copy()
    unpromoted[:, off] = 0
    both = unpromoted.copy()
    both[:, at] = 1
    np.testing.assert_allclose(found["conditional/original"], alone(v), atol=1e-4)
    np.testing.assert_allclose(found["conditional/dF"], alone(both) - alone(v), atol=1e-4)
    np.testing.assert_allclose(found["conditional/promotions_off_only"], alone(unpromoted) - alone(v), atol=1e-4)
    assert (found["conditional/original"] > 0).all()
    # Every history that occurs is among them, and they are all different.
    seen = {tuple(row) for row in rows.bits[:, at].astype(int)}
    assert seen <= {tuple(row) for row in clamping.HISTORIES}
    assert len(np.unique(clamping.HISTORIES, axis=0)) == len(clamping.HISTORIES) == 19


def test_a_machine_that_ties_purchases_to_promotions_shows_in_the_interaction(small_data, rows):
    """One hidden unit that is on with both: purchases cost more without promotion."""
    weights = np.zeros((72, 2), np.float32)
    bought = clamp.units(clamping.BOUGHT, visible=small_data.visible)
    weights[bought, 0] = 2.0
    weights[clamp.units(clamping.PROMOTED, visible=small_data.visible), 0] = 1.0
    biases = (jnp.zeros(72), jnp.array([-9.0, 0.0]), jnp.zeros(1))
    machine = DBMParams((jnp.asarray(weights), jnp.zeros((2, 1))), biases)
    found = clamping.differences(machine, rows.bits[:60], visible=small_data.visible)
    for kind in clamping.KINDS:
        assert found[f"{kind}/interaction"].min() > 0.9


def test_welch_t_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 2, 40), rng.normal(0, 1, 25)
    assert clamping.welch_t(a, b) == pytest.approx(stats.ttest_ind(a, b, equal_var=False).statistic)
    assert np.isnan(clamping.welch_t(np.ones(3), np.ones(4)))


def test_the_table_counts_rows_and_halves(small_data, rows, machine):
    beta = small_data.sim.traits.beta[rows.consumer]
    found = clamping.clamp_scores("clamp", machine, rows.bits, beta, rows.consumer, visible=small_data.visible)
    chosen = clamping.eligible(rows.bits, small_data.visible)
    assert found[Cell("clamp", "data", "rows")] == chosen.sum()
    high = beta[chosen] >= np.median(beta[chosen])
    assert found[Cell("clamp", "data", "rows_high_beta")] == high.sum()
    for kind in clamping.KINDS:
        at = {name: found[Cell("clamp", kind, name)] for name in ("clamp_mean", "clamp_high_beta", "clamp_low_beta")}
        mixed = high.mean() * at["clamp_high_beta"] + (1 - high.mean()) * at["clamp_low_beta"]
        assert at["clamp_mean"] == pytest.approx(mixed)
        # Rows of one consumer resemble each other: treating them as independent overstates the difference.
        by_row, by_consumer = (found[Cell("clamp", kind, n)] for n in ("welch_t", "welch_t_by_consumer"))
        assert np.isfinite([by_row, by_consumer]).all()


def test_t_by_consumer_is_scipys():
    values = np.random.default_rng(0).normal(0.3, 1, 50)
    assert clamping.one_sample_t(values) == pytest.approx(stats.ttest_1samp(values, 0).statistic)
    assert np.isnan(clamping.one_sample_t(np.ones(3)))
