"""The simulated geos and their truth."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from wmjax.simulate import media
from wmjax.simulate.media import MediaSimConfig

CFG = MediaSimConfig(num_geos=4, num_weeks=60, num_channels=3, always_on=1, synergy=0.1)


@pytest.fixture(scope="module")
def sim():
    return media.simulate(0, CFG)


def test_the_outcome_is_what_would_have_been_and_the_media(sim):
    """`respond` at the plan is what happened; at nothing, what would have been: float32 of a number about 100."""
    np.testing.assert_allclose(media.respond(sim, sim.spend, cfg=CFG), sim.outcome, rtol=2e-6)
    np.testing.assert_allclose(media.respond(sim, 0 * sim.spend, cfg=CFG), sim.without, rtol=1e-6)


def test_media_is_its_formula(sim):
    """Adstock, Hill curve and synergy by loops, for one geo."""
    t, g = sim.truth, 2
    own = np.zeros((60, 3))
    for k in range(3):
        w = t.theta[k] ** np.arange(14)
        for week in range(60):
            x = sum(w[lag] * sim.spend[g, week - lag, k] for lag in range(min(week, 13) + 1)) / w.sum()
            own[week, k] = t.beta[k] * x ** t.slope[k] / (x ** t.slope[k] + t.half[k] ** t.slope[k]) if x > 0 else 0
    np.testing.assert_allclose((sim.outcome - sim.without)[g], own.sum(1) + 0.1 * own[:, 0] * own[:, 1], rtol=1e-9)
    np.testing.assert_allclose(media.contributions(sim)[g], own, rtol=1e-9)


STRANGE = dataclasses.replace(
    CFG, delay=2.0, saturation="exponential", seasonal=0.5, memory=0.7, synergy=0.0, confounding=0.0
)


@pytest.fixture(scope="module")
def strange():
    return media.simulate(0, STRANGE)


def test_media_of_another_family_is_its_formula(strange):
    """Carry-over that peaks late and exponential saturation by loops, pauses included."""
    t, g = strange.truth, 1
    assert ((t.peak > 0) & (t.peak < 2)).all()
    own = np.zeros((60, 3))
    for k in range(3):
        w = t.theta[k] ** ((np.arange(14) - t.peak[k]) ** 2)
        for week in range(60):
            x = sum(w[lag] * strange.spend[g, week - lag, k] for lag in range(min(week, 13) + 1)) / w.sum()
            own[week, k] = t.beta[k] * (1 - 2 ** (-x / t.half[k]))
    np.testing.assert_allclose(media.contributions(strange)[g], own, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(media.respond(strange, strange.spend, cfg=STRANGE), strange.outcome, rtol=2e-6)


def test_spend_follows_the_season_by_plan_and_all_else_stays(strange):
    """Of running weeks the logarithm moves by the season, each channel by .25 to .75; nothing else is drawn anew."""
    plain = media.simulate(0, dataclasses.replace(CFG, confounding=0.0))
    np.testing.assert_array_equal(strange.spend == 0, plain.spend == 0)
    for name in ("demand", "proxy", "price", "holiday"):
        np.testing.assert_array_equal(getattr(strange, name), getattr(plain, name))
    for name in ("beta", "theta", "half"):
        np.testing.assert_array_equal(getattr(strange.truth, name), getattr(plain.truth, name))
    season = np.sin(2 * np.pi * (np.arange(60) / 52 - 0.2))
    for k in range(3):
        on = plain.spend[..., k] > 0
        moved = np.log(strange.spend[..., k][on] / plain.spend[..., k][on]) / np.broadcast_to(season, on.shape)[on]
        assert 0.25 <= moved.mean() <= 0.75
        np.testing.assert_allclose(moved, moved.mean(), rtol=1e-6)
    only = media.simulate(0, dataclasses.replace(CFG, confounding=0.0, seasonal=0.5))
    np.testing.assert_array_equal(only.spend, strange.spend)


def test_noise_that_lasts_has_the_same_size():
    """Of 40 geos x 156 weeks: correlation .7 (standard error .01) and standard deviation 2 (.04), five of each."""
    cfg = MediaSimConfig(num_geos=40, memory=0.7)
    plain, lasting = (media.simulate(0, c) for c in (dataclasses.replace(cfg, noise=0.0), cfg))
    noise = lasting.without - plain.without
    assert np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1] == pytest.approx(0.7, abs=0.05)
    assert noise.std() == pytest.approx(2.0, abs=0.2)


def test_spend_follows_demand_as_told(sim):
    """At confounding 0 spend and demand are independent (r of 240 rows, clustered: below 0.3); at 4 they are not."""

    def follows(strength):
        s = media.simulate(1, dataclasses.replace(CFG, confounding=strength))
        on = s.spend[..., 2]
        return np.corrcoef(np.log(on).ravel(), s.demand.ravel())[0, 1]

    assert abs(follows(0.0)) < 0.3
    assert follows(4.0) > 0.5


def test_flights_pause_and_always_on_channels_do_not(sim):
    assert (sim.spend[..., 2] > 0).all()
    assert 0.1 < (sim.spend[..., 0] == 0).mean() < 0.5


def test_the_panel_shows_what_an_analyst_sees(sim):
    panel = media.panel(sim)
    assert panel.action_names == ("channel_0", "channel_1", "channel_2")
    assert "demand" not in panel.covariate_names
    np.testing.assert_allclose(panel.arrays.outcomes[..., 0], sim.outcome, rtol=1e-6)


def test_configs_refuse_nonsense():
    with pytest.raises(ValueError, match="always_on is 9"):
        MediaSimConfig(num_channels=5, always_on=9)
    with pytest.raises(ValueError, match="two channels"):
        MediaSimConfig(num_channels=1, always_on=0, synergy=1.0)
    with pytest.raises(ValueError, match="delay is 20"):
        MediaSimConfig(delay=20.0)
    with pytest.raises(ValueError, match="memory is 1"):
        MediaSimConfig(memory=1.0)
