import numpy as np
import pytest

from wmjax.evaluate import certificate
from wmjax.evaluate.certificate import CertificateConfig

UNITS, STEPS = 30, 5
CLAIMS = np.array([[True], [False]])


@pytest.fixture(scope="module")
def setting():
    """Two actions, one outcome: a level that is known beforehand plus what action 0 did a step before."""
    rng = np.random.default_rng(0)
    plan = rng.normal(size=(UNITS, STEPS, 2))
    level = 3 * rng.normal(size=(UNITS, 1, 1))
    drift = np.arange(1, STEPS + 1)[None, :, None]
    effect = np.pad(plan[:, :-1, :1], ((0, 0), (1, 0), (0, 0)))
    outcomes = level + drift + effect + 0.1 * rng.normal(size=(UNITS, STEPS, 1))
    return plan, outcomes, level, drift


def run(setting, rollout, claims=CLAIMS, **cfg):
    plan, outcomes, level, _ = setting
    return certificate.certify(
        np.random.default_rng(1), rollout, plan, outcomes, level[:, 0], claims,
        cfg=CertificateConfig(**cfg), action_sd=np.array([1.0, 2.0]), outcome_sd=np.array([4.0]),
    )  # fmt: skip


def world(setting, weights):
    _, _, level, drift = setting
    return lambda plan: level + drift + np.pad(plan[:, :-1] @ np.array(weights)[:, None], ((0, 0), (1, 0), (0, 0)))


def test_a_world_that_keeps_to_its_claims_passes(setting):
    found = run(setting, world(setting, [1.0, 0.0]))
    assert found.verdict == "no bypass"
    assert found.along == 1
    assert found.dead == 0
    assert found.skill > 0.95
    # The push of half a standard deviation lifts one of the five steps by 0.5, an eighth of the outcome's sd.
    np.testing.assert_allclose(found.influence, [[0.5 / 4 / STEPS], [0.0]])
    assert found.kept < found.skill


def test_influence_outside_the_claims_is_bypass(setting):
    found = run(setting, world(setting, [0.8, 0.4]))
    assert found.bypass
    assert found.skill > 0.9
    # Action 1 is pushed by half of its own standard deviation, which is twice as large.
    assert found.along == pytest.approx(0.5)
    assert "50% of the influence runs outside" in found.reasons[0]
    assert not run(setting, world(setting, [0.8, 0.4]), tolerance=0.6).bypass


def test_skill_without_any_influence_is_bypass(setting):
    found = run(setting, world(setting, [0.0, 0.0]))
    assert found.bypass
    assert np.isnan(found.along)
    assert found.reasons == ("none of the 1 claimed pairs moves",)
    assert found.kept == pytest.approx(1)


def test_without_skill_nothing_is_bypassed(setting):
    found = run(setting, lambda plan: 100 + plan[..., 1:])
    assert found.skill < 0
    assert found.verdict == "not testable"
    assert found.reasons
    assert "no forecasting skill" in found.notes[0]


def test_claims_of_everything_and_of_nothing_are_named(setting):
    honest = world(setting, [1.0, 0.0])
    everything = run(setting, honest, claims=np.ones((2, 1), bool))
    assert everything.verdict == "not testable"
    assert everything.notes == (
        "1 of the 2 claimed pairs do not move",
        "every pair is claimed, so no influence could leave the claims",
    )
    nothing = np.zeros((2, 1), bool)
    assert run(setting, honest, claims=nothing).verdict == "bypass"
    assert run(setting, world(setting, [0.0, 0.0]), claims=nothing).verdict == "not testable"


def test_a_push_of_nothing_is_refused():
    with pytest.raises(ValueError, match="size is 0"):
        CertificateConfig(size=0.0)
    with pytest.raises(ValueError, match=r"tolerance is 1\.0"):
        CertificateConfig(tolerance=1.0)


def test_outcomes_that_do_not_move_leave_skill_undefined(setting):
    plan, outcomes, level, drift = setting
    still = plan, np.broadcast_to(level, outcomes.shape), level, drift
    for rollout in (world(setting, [1.0, 0.0]), lambda plan: np.broadcast_to(level, outcomes.shape)):
        found = run(still, rollout)
        assert np.isnan(found.skill)
        assert np.isnan(found.kept)
        assert not found.bypass
        assert any("no outcome moves" in note for note in found.notes)
