"""X-learner and doubly robust learner on effects that are known."""

from __future__ import annotations

import numpy as np
import pytest

from wmjax.baselines import meta
from wmjax.baselines.tables import Contrast, Table
from wmjax.core.errors import UserError

CFG = meta.ForestConfig(trees=20, jobs=1)
LEARNERS = {"x": meta.x_learner, "dr": meta.dr_learner}


def table(rows: int, *, confounded: bool, seed: int = 0) -> tuple[Table, np.ndarray]:
    """Draw rows with effect `0.3 + 0.6 b` (b a bit), outcome level `2 c` and, if confounded, treatment by c."""
    rng = np.random.default_rng(seed)
    b, c, other = rng.integers(0, 2, (3, rows))
    share = 0.2 + 0.6 * c if confounded else np.full(rows, 0.25)
    treated = (rng.random(rows) < share).astype(float)
    effect = 0.3 + 0.6 * b
    y = 2.0 * c + effect * treated + 0.4 * other + rng.normal(0, 0.5, rows)
    return Table(np.column_stack([b, c]).astype(float), np.column_stack([other, treated]), y[:, None]), effect


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("confounded", [False, True])
def test_known_effects_are_recovered(name, confounded):
    """Eight cells of about 375 rows and more: the mean effect's standard error is .03, five of them are allowed."""
    train, _ = table(3000, confounded=confounded)
    ask, effect = table(500, confounded=confounded, seed=1)
    ask = ask._replace(actions=np.column_stack([ask.actions[:, 0], np.full(500, np.nan)]), labels=ask.labels * np.nan)
    found = LEARNERS[name](train, ask, contrast=Contrast(action_index=1), cfg=CFG)
    assert found[effect > 0.5].mean() == pytest.approx(0.9, abs=0.15)
    assert found[effect < 0.5].mean() == pytest.approx(0.3, abs=0.15)
    if confounded:
        naive = [train.labels[train.actions[:, 1] == a].mean() for a in (0, 1)]
        assert naive[1] - naive[0] > 1.2


@pytest.mark.parametrize("name", LEARNERS)
def test_a_reversed_contrast_reverses_the_effect(name):
    train, _ = table(800, confounded=False)
    args = {"ask": train, "cfg": CFG}
    forth = LEARNERS[name](train, contrast=Contrast(action_index=1), **args)
    back = LEARNERS[name](train, contrast=Contrast(action_index=1, a0=1.0, a1=0.0), **args)
    assert np.corrcoef(forth, -back)[0, 1] > 0.8
    assert back.mean() == pytest.approx(-forth.mean(), abs=0.1)


def test_the_same_seed_gives_the_same_effects():
    train, _ = table(400, confounded=False)
    for learner in LEARNERS.values():
        one, two = (learner(train, train, contrast=Contrast(action_index=1), cfg=CFG) for _ in range(2))
        np.testing.assert_array_equal(one, two)


def test_an_action_that_cannot_be_contrasted_is_named():
    train, _ = table(50, confounded=False)
    constant = train._replace(actions=np.column_stack([train.actions[:, 0], np.zeros(50)]))
    for learner in LEARNERS.values():
        with pytest.raises(UserError, match="action 1 takes the value 0 in all 50 rows"):
            learner(constant, train, contrast=Contrast(action_index=1), cfg=CFG)
        with pytest.raises(UserError, match="action 1 must take the values 0 and 2"):
            learner(train, train, contrast=Contrast(action_index=1, a1=2.0), cfg=CFG)


@pytest.mark.parametrize("wrong", [{"trees": 0}, {"min_leaf": 0}, {"folds": 1}, {"floor": 0.0}])
def test_configuration_says_what_is_wrong(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        meta.ForestConfig(**wrong)
