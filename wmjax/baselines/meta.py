"""Meta-learners on random forests: the X-learner and the doubly robust learner, effects on the outcome's own scale.

They estimate `tau(x) = E[Y(1) - Y(0) | x]`, for a binary outcome a difference of probabilities. Both need overlap:
where an action is a function of the features the propensity is 0 or 1, and what they return is extrapolation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from wmjax.baselines import pseudo, tables
from wmjax.baselines.tables import Contrast, Table
from wmjax.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ForestConfig:
    """Forests of every nuisance and effect model; the defaults are those of the published baselines.

    Attributes:
        trees: in each forest.
        min_leaf: rows in a leaf, at least.
        folds: of the doubly robust learner's cross-fitting.
        floor: propensities are kept this far from 0 and 1.
        seed: of the forests and folds.
        jobs: processes; -1 takes every core.
    """

    trees: int = 100
    min_leaf: int = 5
    folds: int = 2
    floor: float = 1e-6
    seed: int = 42
    jobs: int = -1

    def __post_init__(self) -> None:
        for name, least in (("trees", 1), ("min_leaf", 1), ("folds", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least {least}")
        if not 0 < self.floor < 0.5:
            raise ValueError(f"floor is {self.floor}, must be in (0, 0.5)")

    def regressor(self) -> RandomForestRegressor:
        return RandomForestRegressor(
            n_estimators=self.trees, min_samples_leaf=self.min_leaf, random_state=self.seed, n_jobs=self.jobs
        )

    def classifier(self) -> RandomForestClassifier:
        return RandomForestClassifier(
            n_estimators=self.trees, min_samples_leaf=self.min_leaf, random_state=self.seed, n_jobs=self.jobs
        )


def x_learner(
    train: Table, ask: Table, *, contrast: Contrast, outcome: int = 0, cfg: ForestConfig
) -> Float[np.ndarray, " rows"]:
    """Estimate effects by the X-learner (Kuenzel et al., 2019).

        mu_a(x) = E[Y | x, A = a];  D1 = Y - mu_0(x) on treated rows,  D0 = mu_1(x) - Y on the others
        tau(x) = e(x) E[D0 | x] + (1 - e(x)) E[D1 | x],  e the propensity

    Args:
        train: rows to learn from; the action must take the contrast's two values and no other.
        ask: rows to answer for; their action and labels are not read.
        contrast: which action.
        outcome: which column of the labels.
        cfg: the forests.

    Raises:
        UserError: the action takes other values, or one of the two never.
    """
    arms, asked = tables.arms(train, contrast, outcome), tables.columns(ask, contrast)
    on, off = arms.treated, ~arms.treated
    control = cfg.regressor().fit(arms.x[off], arms.y[off])
    treated = cfg.regressor().fit(arms.x[on], arms.y[on])
    # Each arm's effects need the other arm's forest alone.
    gains = np.empty(len(arms.y))
    gains[on] = pseudo.imputed(arms.y[on], arms.treated[on], low=control.predict(arms.x[on]), high=arms.y[on])
    gains[off] = pseudo.imputed(arms.y[off], arms.treated[off], low=arms.y[off], high=treated.predict(arms.x[off]))
    gained, missed = (cfg.regressor().fit(arms.x[own], gains[own]).predict(asked) for own in (on, off))
    share = cfg.classifier().fit(arms.x, arms.treated).predict_proba(asked)[:, 1]
    return pseudo.combined(share=share, missed=missed, gained=gained)


def dr_learner(
    train: Table, ask: Table, *, contrast: Contrast, outcome: int = 0, cfg: ForestConfig
) -> Float[np.ndarray, " rows"]:
    """Estimate effects by the doubly robust learner (Kennedy, 2020), cross-fitted.

        psi = mu_1(x) - mu_0(x) + A / e(x) (Y - mu_1(x)) - (1 - A) / (1 - e(x)) (Y - mu_0(x)),   tau(x) = E[psi | x]

    One forest learns `mu_a(x)` with the action among its features, one the propensity e, each on the other folds; a
    last forest learns psi. Arguments and errors as in `x_learner`.
    """
    arms, asked = tables.arms(train, contrast, outcome), tables.columns(ask, contrast)
    fold = np.random.default_rng(cfg.seed).permutation(len(arms.y)) % cfg.folds
    psi = np.empty(len(arms.y))
    for k in range(cfg.folds):
        away, here = fold != k, fold == k
        if arms.treated[away].all() or not arms.treated[away].any():
            raise UserError(f"action {contrast.action_index} takes one value only in fold {k}; there are too few rows")
        model = cfg.regressor().fit(np.column_stack([arms.x[away], arms.treated[away]]), arms.y[away])
        share = cfg.classifier().fit(arms.x[away], arms.treated[away]).predict_proba(arms.x[here])[:, 1]
        low, high = (model.predict(np.column_stack([arms.x[here], np.full(here.sum(), a)])) for a in (0, 1))
        found = {"low": low, "high": high, "share": share}
        psi[here] = pseudo.doubly_robust(arms.y[here], arms.treated[here], **found, floor=cfg.floor)
    return cfg.regressor().fit(arms.x, psi).predict(asked)
