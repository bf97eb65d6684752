"""Recovery scores on effects whose answer is known, and the rows an experiment reads."""

from __future__ import annotations

import numpy as np
import pytest

from experiments import recovery
from experiments.common import Cell
from wmjax.simulate import consumer_frame


def test_rows_are_the_panels_own_in_consumer_order(small_data):
    sim, rows = small_data.sim, small_data.rows(2)
    assert [s.stop - s.start for s in small_data.days] == [55, 14, 21]
    bits = consumer_frame.frame72(sim, cfg=small_data.cfg)
    np.testing.assert_array_equal(rows.bits.reshape(96, 21, 72), bits[:, 69:])
    np.testing.assert_array_equal(rows.actions.reshape(96, 21, 5)[..., 4], sim.actions.push[:, 69:])
    np.testing.assert_array_equal(rows.outcomes.reshape(96, 21, 2)[..., 1], sim.outcomes.purchase[:, 69:])
    np.testing.assert_array_equal(rows.consumer.reshape(96, 21)[:, 0], np.arange(96))
    truth = small_data.truth("push", 2)
    np.testing.assert_allclose(truth.logit, 0.6 * sim.traits.gamma[rows.consumer], rtol=1e-12)


def test_the_true_effect_scores_perfectly_and_reaches_the_ceilings(small_data):
    for setting, trait in (("push", "gamma"), ("sale_faithful", "alpha")):
        truth = small_data.truth(setting, 2)
        found = recovery.effect_scores(setting, "oracle", small_data, {"logit": truth.logit, "prob": truth.probability})
        ceiling = recovery.ceilings(small_data, ("oracle",))

        def at(quantity, found=found, setting=setting):
            return found[Cell(setting, "oracle", quantity)]

        assert at(f"rho_{trait}_logit") == pytest.approx(1)
        assert at("rho_effect_logit") == at("rho_effect_prob") == pytest.approx(1)
        assert at("root_pehe_logit") == at("root_pehe_prob") == 0
        # On the probability scale the rank of the trait is not the rank of the effect, even for the truth.
        assert at(f"rho_{trait}_prob") == pytest.approx(ceiling[Cell(setting, "oracle", f"rho_{trait}_prob")])
        assert at(f"rho_{trait}_prob") < 0.95
        assert at("mean_prob") == pytest.approx(ceiling[Cell(setting, "oracle", "mean_prob")])


def test_an_effect_that_knows_the_loyalty_bit_alone_stands_at_the_ceiling(small_data):
    rows = small_data.rows(2)
    loyal = small_data.sim.statics.loyalty[rows.consumer].astype(float)
    found = recovery.effect_scores("push", "bit", small_data, {"logit": 0.6 + 0.3 * loyal})
    cell = Cell("push", "bit", "rho_gamma_logit")
    assert found[cell] == pytest.approx(recovery.ceilings(small_data, ("bit",))[cell])
    assert 0.6 < found[cell] < 0.9
    assert np.isnan(found[Cell("push", "bit", "rho_gamma_within_loyalty")])
    assert Cell("push", "bit", "rho_gamma_prob") not in found
