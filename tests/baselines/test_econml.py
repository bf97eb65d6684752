"""Meta-learners beside EconML's, on the same nuisances: equal to rounding, so that a table may name either."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression

from wmjax.baselines import meta, pseudo
from wmjax.baselines.tables import Contrast, Table

dml = pytest.importorskip("econml.dml")
dr = pytest.importorskip("econml.dr")
metalearners = pytest.importorskip("econml.metalearners")

ROWS, FLOOR = 600, 0.01


@pytest.fixture(scope="module")
def drawn():
    """Confounded rows: x, action, outcome, and two folds."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 3))
    a = rng.random(ROWS) < 1 / (1 + np.exp(-x[:, 0]))
    y = x[:, 0] + a * (1 + x[:, 1]) + rng.normal(size=ROWS)
    fold = np.arange(ROWS) % 2
    return x, a, y, fold


def forests():
    shared = {"n_estimators": 10, "min_samples_leaf": 5, "random_state": 42}
    return RandomForestRegressor(**shared), RandomForestClassifier(**shared)


def regressed(x, y, weight=None):
    return LinearRegression().fit(x, y, weight).predict(x)


def splits(fold):
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(2)]


def out_of_fold(fit, x, a, y, fold):
    out = np.empty(len(y))
    for away, here in splits(fold):
        out[here] = fit(away, here)
    return out


def test_the_x_learner_is_theirs_on_forests(drawn):
    """On the published forests, seeds and all; rows not treated lie first, as theirs come to be for the propensity."""
    x, a, y, _ = drawn
    order = np.argsort(a, kind="stable")
    x, a, y = x[order], a[order], y[order]
    regressor, classifier = forests()
    theirs = metalearners.XLearner(models=regressor, cate_models=regressor, propensity_model=classifier)
    table = Table(x[:, :2], np.column_stack([a, x[:, 2]]), y[:, None])
    ask = np.column_stack([table.features, x[:, 2]]).astype(np.float32)
    theirs.fit(y, a.astype(int), X=ask)
    cfg = meta.ForestConfig(trees=10, jobs=1)
    ours = meta.x_learner(table, table, contrast=Contrast(action_index=0), cfg=cfg)
    np.testing.assert_allclose(ours, theirs.effect(ask).ravel(), atol=1e-9)


def test_imputed_effects_are_theirs(drawn):
    x, a, y, _ = drawn
    theirs = metalearners.XLearner(models=LinearRegression(), propensity_model=LogisticRegression())
    theirs.fit(y, a.astype(int), X=x)
    arm = {k: LinearRegression().fit(x[a == k], y[a == k]).predict(x) for k in (0, 1)}
    gains = pseudo.imputed(y, a, low=arm[0], high=arm[1])
    missed, gained = (LinearRegression().fit(x[a == k], gains[a == k]).predict(x) for k in (0, 1))
    share = LogisticRegression().fit(x, a).predict_proba(x)[:, 1]
    ours = pseudo.combined(share=share, missed=missed, gained=gained)
    np.testing.assert_allclose(ours, theirs.effect(x).ravel(), atol=1e-9)


def test_doubly_robust_pseudo_outcomes_are_theirs(drawn):
    x, a, y, fold = drawn
    theirs = dr.DRLearner(
        model_propensity=LogisticRegression(),
        model_regression=LinearRegression(),
        model_final=LinearRegression(),
        min_propensity=FLOOR,
        cv=splits(fold),
    ).fit(y, a.astype(int), X=x)

    def level(value):
        def fit(away, here):
            model = LinearRegression().fit(np.column_stack([x[away], a[away]]), y[away])
            return model.predict(np.column_stack([x[here], np.full(len(here), value)]))

        return out_of_fold(fit, x, a, y, fold)

    share = out_of_fold(
        lambda away, here: LogisticRegression().fit(x[away], a[away]).predict_proba(x[here])[:, 1], x, a, y, fold
    )
    psi = pseudo.doubly_robust(y, a, low=level(0.0), high=level(1.0), share=share, floor=FLOOR)
    np.testing.assert_allclose(regressed(x, psi), theirs.effect(x).ravel(), atol=1e-9)


def test_the_doubly_robust_learner_is_theirs_on_forests(drawn):
    x, a, y, _ = drawn
    table = Table(x[:, :2], np.column_stack([a, x[:, 2]]), y[:, None])
    ask = np.column_stack([table.features, x[:, 2]]).astype(np.float32)
    cfg = meta.ForestConfig(trees=10, jobs=1)
    fold = np.random.default_rng(cfg.seed).permutation(ROWS) % cfg.folds
    regressor, classifier = forests()
    theirs = dr.DRLearner(
        model_propensity=classifier,
        model_regression=regressor,
        model_final=regressor,
        min_propensity=cfg.floor,
        cv=splits(fold),
    ).fit(y, a.astype(int), X=ask)
    ours = meta.dr_learner(table, table, contrast=Contrast(action_index=0), cfg=cfg)
    np.testing.assert_allclose(ours, theirs.effect(ask).ravel(), atol=1e-9)


def test_the_residual_regression_is_theirs(drawn):
    x, a, y, fold = drawn
    theirs = dml.NonParamDML(
        model_y=LinearRegression(),
        model_t=LogisticRegression(),
        model_final=LinearRegression(),
        discrete_treatment=True,
        cv=splits(fold),
    ).fit(y, a.astype(int), X=x)
    mean = out_of_fold(lambda away, here: LinearRegression().fit(x[away], y[away]).predict(x[here]), x, a, y, fold)
    share = out_of_fold(
        lambda away, here: LogisticRegression().fit(x[away], a[away]).predict_proba(x[here])[:, 1], x, a, y, fold
    )
    target = pseudo.residual(y, a, mean=mean, share=share)
    np.testing.assert_allclose(regressed(x, target.value, target.weight), theirs.effect(x).ravel(), atol=1e-9)
