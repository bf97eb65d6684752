"""Meta-learners on networks: known effects are found, seed by seed, and their formulas are the textbook's."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from scipy.special import expit

from wmjax.baselines import meta_networks, pseudo
from wmjax.baselines.meta_networks import MetaConfig
from wmjax.baselines.tables import Contrast, Table
from wmjax.core.errors import UserError
from wmjax.heads.adapter import AdapterConfig

LEARNERS = ("s_learner", "t_learner", "x_learner", "dr_learner", "r_learner")
NETWORK = AdapterConfig(hidden=(16,), dropout=0.0, learning_rate=1e-2, batch_size=200, epochs=20, monitor="loss")
CFG = MetaConfig(network=NETWORK, seeds=2)


def table(rows: int, *, seed: int, binary: bool = True) -> tuple[Table, np.ndarray]:
    """Draw confounded rows: c raises outcome and treatment, b the effect. Columns b, c; actions other, treated."""
    rng = np.random.default_rng(seed)
    b, c, other = rng.integers(0, 2, (3, rows)).astype(float)
    treated = (rng.random(rows) < 0.2 + 0.6 * c).astype(float)
    if binary:
        low, high = expit(2.0 * c - 1.5), expit(2.0 * c - 1.5 + 0.5 + 1.5 * b)
        y = (rng.random(rows) < np.where(treated > 0, high, low)).astype(float)
    else:
        low, high = 5.0 * c, 5.0 * c + 1.0 + 3.0 * b
        y = np.where(treated > 0, high, low) + rng.normal(0, 1, rows)
    return Table(np.column_stack([b, c]), np.column_stack([other, treated]), y[:, None]), high - low


def found(learner: str, cfg: MetaConfig = CFG, *, binary: bool = True) -> tuple[meta_networks.Effects, np.ndarray]:
    (train, _), (val, _), (ask, truth) = (table(n, seed=s, binary=binary) for s, n in enumerate((4000, 1000, 400)))
    blind = ask._replace(actions=np.column_stack([ask.actions[:, 0], np.full(400, np.nan)]), labels=ask.labels * np.nan)
    asked = {"contrast": Contrast(action_index=1), "learner": learner, "cfg": cfg}
    kind = "binary" if binary else "continuous"
    return meta_networks.effects(jax.random.key(0), train, val, blind, **asked, kind=kind), truth


@pytest.mark.parametrize("learner", LEARNERS)
def test_known_effects_are_found_in_spite_of_confounding(learner):
    """Cells of 500 rows and more: a difference of shares has a standard error of about .03 there, three are allowed.

    The plain difference of means is .2 above the mean effect.
    """
    effects, truth = found(learner)
    assert effects.response.shape == (2, 400)
    np.testing.assert_allclose(effects.response.mean(1), truth.mean(), atol=0.09)
    for cell in np.unique(truth):
        np.testing.assert_allclose(effects.response[:, truth == cell].mean(1), cell, atol=0.13)
    assert (effects.logit is not None) == (learner in ("s_learner", "t_learner"))
    assert np.abs(effects.response[0] - effects.response[1]).max() > 1e-4, "seeds are not one seed"


@pytest.mark.parametrize("learner", ["x_learner", "r_learner"])
def test_effects_of_a_continuous_outcome_are_in_its_own_units(learner):
    effects, truth = found(learner, binary=False)
    np.testing.assert_allclose(effects.response.mean(0)[truth > 2].mean(), 4.0, atol=0.4)
    np.testing.assert_allclose(effects.response.mean(0)[truth < 2].mean(), 1.0, atol=0.4)


@pytest.mark.parametrize("learner", ["dr_learner", "r_learner"])
def test_an_action_that_the_features_determine_gives_nothing_absurd(learner):
    """The propensity is 0 or 1; what is left to learn from is bounded by `1 / floor`."""
    train, _ = table(2000, seed=0)
    certain = train._replace(actions=np.column_stack([train.actions[:, 0], train.features[:, 1]]))
    asked = {"contrast": Contrast(action_index=1), "learner": learner, "cfg": CFG}
    found = meta_networks.effects(jax.random.key(0), certain, certain, certain, **asked)
    assert np.abs(found.response).max() < 2 / CFG.floor


def test_a_seed_is_the_same_whatever_trains_beside_it():
    alone, _ = found("s_learner", dataclasses.replace(CFG, seeds=1))
    both, _ = found("s_learner")
    np.testing.assert_allclose(alone.response[0], both.response[0], atol=1e-5)


def test_the_doubly_robust_formula_is_right_where_either_nuisance_is():
    """Its mean is the mean effect with the true propensity or the true levels, whatever the other one says."""
    rng = np.random.default_rng(0)
    rows, share = 200_000, np.array(0.3)
    a = rng.random(rows) < share
    y = 1.0 + 2.0 * a + rng.normal(size=rows)
    wrong = {"low": np.zeros(rows), "high": np.zeros(rows), "share": np.full(rows, 0.3)}
    right = {"low": np.full(rows, 1.0), "high": np.full(rows, 3.0), "share": np.full(rows, 0.6)}
    for nuisances in (wrong, right):
        psi = pseudo.doubly_robust(y, a, **nuisances, floor=0.01)
        assert psi.mean() == pytest.approx(2.0, abs=5 * psi.std() / rows**0.5)
    neither = pseudo.doubly_robust(y, a, low=wrong["low"], high=wrong["high"], share=right["share"], floor=0.01)
    assert abs(neither.mean() - 2.0) > 0.2


def test_what_cannot_be_fitted_is_refused():
    rows, _ = table(50, seed=0)
    constant = rows._replace(actions=np.column_stack([rows.actions[:, 0], np.zeros(50)]))
    asked = {"contrast": Contrast(action_index=1), "cfg": CFG}
    with pytest.raises(UserError, match="action 1 takes the value 0 in all 50 rows"):
        meta_networks.effects(jax.random.key(0), constant, rows, rows, **asked, learner="t_learner")
    for wrong in ({"seeds": 0}, {"folds": 1}, {"floor": 0.6}, {"network": AdapterConfig(form="additive")}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MetaConfig(**wrong)
