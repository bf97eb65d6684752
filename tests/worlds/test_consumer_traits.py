"""Traits on a fitted world: filtered forwards only, labelled, kept, and better than none where units differ."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from scipy.special import expit

from wmjax.core.errors import UserError
from wmjax.heads.traits import TraitConfig
from wmjax.simulate import consumer_truth
from wmjax.worlds import consumer
from wmjax.worlds.consumer import trait_effects, traits


@pytest.fixture(scope="module")
def fitted(world, panel):
    return traits.fit(world, panel, cfg=TraitConfig(rounds=8))


@pytest.fixture(scope="module")
def found(fitted, panel):
    return fitted.effect_interval(panel, "push", 0, 1)


@pytest.mark.parametrize("alpha", [0.013, 0.1, 0.999])
def test_tails_are_quantiles(alpha):
    draws = jax.random.normal(jax.random.key(0), (41, 7))
    expected = np.quantile(np.asarray(draws, np.float64), [alpha / 2, 1 - alpha / 2], axis=0)
    np.testing.assert_allclose(trait_effects.tails(draws, alpha), expected, atol=1e-6)
    spoilt = np.asarray(trait_effects.tails(draws.at[3, 2].set(np.nan), alpha))
    assert np.isnan(spoilt).sum(0).tolist() == [0, 0, 2, 0, 0, 0, 0]


def test_half_widths_add_in_quadrature_and_only_what_is_not_known_yet():
    lo_mid_hi = (np.array([1.0]), np.array([-2.0]), np.array([5.0]))
    found = trait_effects.widen(*lo_mid_hi, known=np.array([3.0]), spread=np.array([5.0]))
    np.testing.assert_allclose(np.concatenate(found), [1, 1 - 5, 1 + np.sqrt(32)])
    np.testing.assert_array_equal(
        trait_effects.widen(*lo_mid_hi, known=np.array([3.0]), spread=np.array([1.0])), lo_mid_hi
    )


def test_replicates_span_bootstraps_and_beliefs_each_with_its_own_t():
    """Of two members in turn: 6 degrees of freedom within, 1 between; without either part the other is left."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(8, 3))
    values[1::2] += 10
    groups = values[::2], values[1::2]
    within = sum(g.var(0, ddof=1) for g in groups) / 2
    between = np.stack([g.mean(0) for g in groups]).var(0, ddof=1) - within / 4
    expected = np.sqrt((1.9432 * np.sqrt(within)) ** 2 + (6.3138 * np.sqrt(between)) ** 2)
    np.testing.assert_allclose(trait_effects.half_width(values, 2, 0.1), expected, rtol=1e-4)
    same = np.repeat(rng.normal(size=(4, 1, 3)), 2, axis=1).reshape(8, 3)  # members agree, bootstraps do not
    freedom6 = 1.9432 * np.sqrt(sum(same[m::2].var(0, ddof=1) for m in (0, 1)) / 2)
    np.testing.assert_allclose(trait_effects.half_width(same, 2, 0.1), freedom6, rtol=1e-4)
    np.testing.assert_allclose(trait_effects.half_width(values, 1, 0.1), 1.8946 * values.std(0, ddof=1), rtol=1e-4)


def test_what_replicates_differ_by_is_in_the_intervals(fitted, found, panel):
    """Replicates of one population that all read one member's belief span nothing, and the intervals are narrower."""
    one = lambda tree: jax.tree.map(lambda x: np.broadcast_to(x[:1], x.shape), tree)  # noqa: E731
    params = fitted.world.params
    world = dataclasses.replace(fitted.world, params=params._replace(machine=one(params.machine)))
    alike = dataclasses.replace(fitted, world=world, replicates=tuple(map(one, fitted.replicates)))
    less = alike.effect_interval(panel, "push", 0, 1)
    np.testing.assert_array_equal(less.effect, found.effect)
    for width, narrow in zip(found.hi - found.lo, less.hi - less.lo, strict=True):
        assert float((width - narrow).mean()) > 0.05 * float(narrow.mean())
        assert float((width - narrow).min()) > -1e-6


def test_answers_carry_names_and_only_where_a_unit_was_seen(fitted, found, panel):
    assert dict(found.sizes) == {"outcome": 2, "unit": panel.num_units, "time": panel.num_times}
    assert list(found.outcome.values) == ["visit", "purchase"]
    assert (np.isnan(found.effect.values) == ~panel.arrays.mask).all()
    assert (found.lo <= found.effect).where(found.effect.notnull(), True).all()
    assert (found.effect <= found.hi).where(found.effect.notnull(), True).all()
    profile = fitted.profile(panel)
    assert (profile.periods.values == panel.arrays.mask.sum(1)).all()
    assert (profile.level_sd > 0).all()


def test_a_row_as_a_numpy_twin(fitted, found, panel, world):
    """Forecast and effect of one row from the unit's state before it, in NumPy float64."""
    outcome, unit, time = 0, 7, 40
    before, _ = fitted.follow(panel)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), fitted.params[outcome])
    level, more = np.asarray(before[outcome].mean, np.float64)[time, unit]
    features = traits.features_of(world, panel, fitted.features[outcome])[unit, time].astype(np.float64)
    actions = panel.arrays.actions[unit, time].astype(np.float64)
    own = np.asarray(fitted._moderators(panel), np.float64)[unit]
    scale = own @ params.moderators + more
    eta = params.bias + features @ params.base + actions @ params.effects
    eta += actions @ (params.effects * params.tied) * scale + level
    assert fitted.predict(panel).values[outcome, unit, time] == pytest.approx(expit(eta), abs=1e-5)
    push = panel.action_index("push")
    gain = params.effects[push] * (1 + params.tied[push] * scale)
    base = eta - actions[push] * gain
    at = found.isel(outcome=outcome, unit=unit, time=time)
    assert float(at.effect_linear) == pytest.approx(gain, abs=1e-5)
    assert float(at.effect) == pytest.approx(expit(base + gain) - expit(base), abs=1e-5)


def test_a_period_follows_from_those_before_it(fitted, found, panel):
    """What happens in a period, and after it, reaches no answer of that period."""
    at = 50
    outcomes = panel.arrays.outcomes.copy()
    outcomes[:, at:] = np.where(panel.arrays.mask[:, at:, None], 1 - outcomes[:, at:], outcomes[:, at:])
    other = dataclasses.replace(panel, arrays=panel.arrays._replace(outcomes=outcomes))
    again = fitted.effect_interval(other, "push", 0, 1)
    seen = panel.arrays.mask[:, at + 1]
    np.testing.assert_array_equal(again.effect[..., : at + 1], found.effect[..., : at + 1])
    assert (np.abs(again.effect[0, :, at + 1] - found.effect[0, :, at + 1])[seen] > 0).all()


def test_a_new_day_alone_moves_the_units_on(fitted, panel):
    _, whole = fitted.follow(panel)
    _, first = fitted.follow(panel, times=slice(0, 60))
    _, second = fitted.follow(panel, start=first, times=slice(60, None))
    for x, y in zip(jax.tree.leaves(whole), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5)


def test_long_memory_forecasts_validation_periods_better_where_units_differ(fitted):
    """The simulated consumers differ by a standard deviation of .7 logits, which 56 train days tell.

    A week of 96 consumers tells of one outcome's loss to some .005, which is half of what is gained: so, both.
    """
    losses = [fitted.facts[outcome]["val_log_loss"] for outcome in fitted.outcomes]
    best = [loss[kind] for loss, kind in zip(losses, fitted.features, strict=True)]
    assert best == [min(loss["belief"], loss["visible"]) for loss in losses]
    assert sum(best) < sum(loss["without_traits"] for loss in losses) - 0.005


def test_randomised_effects_are_recovered(fitted, found, panel, simulated, sim_cfg):
    """Every consumer's effect is one number a row: the intervals hold most, and the mean is near the true one.

    With 96 consumers over 70 days the mean effect's standard error is .014; .05 is 3.5 of them (1 in 2,000).
    """
    truth = consumer_truth.effect(simulated, "push", "visit", cfg=sim_cfg).probability
    test = slice(60, None)
    effect, lo, hi = (found[name].values[0][:, test] for name in ("effect", "lo", "hi"))
    seen = panel.arrays.mask[:, test]
    assert effect[seen].mean() == pytest.approx(truth[:, test][seen].mean(), abs=0.05)
    assert ((lo <= truth[:, test]) & (truth[:, test] <= hi))[seen].mean() > 0.6


def test_saved_traits_give_the_same_answers(fitted, found, panel, world, tmp_path):
    fitted.save(tmp_path / "traits")
    again = consumer.load_traits(tmp_path / "traits", world)
    assert again.facts == fitted.facts
    np.testing.assert_array_equal(again.effect_interval(panel, "push", 0, 1).lo, found.lo)


def test_what_cannot_be_is_refused(fitted, panel, world):
    with pytest.raises(UserError, match="push: 7 instead of 0"):
        fitted.effect_interval(panel, "push", 0, 7)
    with pytest.raises(ValueError, match="alpha is 2"):
        fitted.effect_interval(panel, "push", 0, 1, alpha=2.0)
    real = dataclasses.replace(world, model=dataclasses.replace(world.model, kinds=("count", "count")))
    with pytest.raises(UserError, match="traits are of binary outcomes"):
        traits.fit(real, panel)
