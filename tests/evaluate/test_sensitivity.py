"""Bounds on hidden confounding, in linear worlds in which a cause is really hidden."""

from __future__ import annotations

import numpy as np
import pytest

from wmjax.evaluate import sensitivity
from wmjax.evaluate.sensitivity import Group

ROWS = 200_000


def residual(target: np.ndarray, *columns: np.ndarray) -> np.ndarray:
    x = np.column_stack([np.ones(len(target)), *columns])
    return target - x @ np.linalg.lstsq(x, target, rcond=None)[0]


def asked(known: sensitivity.Known, a: np.ndarray, y: np.ndarray, *columns: np.ndarray) -> tuple[float, float]:
    """Give the effect that a regression of y on a and columns finds, and the bound's size."""
    left = residual(a, *columns)
    return float(left @ y / (left @ left)), float(np.sqrt(known.outcomes[0] / known.actions[0]))


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_a_hidden_twin_of_the_known_cause_is_one_time_as_strong(strength):
    """The action does nothing; a known cause and its hidden twin move action and outcome alike, all bias is the twin's.

    200,000 rows: the bias has a relative standard error of .5 % or less.
    """
    rng = np.random.default_rng(0)
    x, u, noise_a, noise_y = rng.normal(size=(4, ROWS))
    a = strength * (x + u) + noise_a
    y = strength * (x + u) + noise_y
    known = sensitivity.known({"x": x[:, None], "idle": rng.normal(size=(ROWS, 2))}, {"a": a}, [y])
    assert known is not None
    effect, size = asked(known, a, y, x)
    found = sensitivity.weakest(effect, size, known.groups[0][0])
    assert found.name == "x"
    assert found.times == pytest.approx(1.0, rel=0.03)
    share_y = 1 - residual(y, x, a, u).var() / residual(y, x, a).var()
    share_a = 1 - residual(a, x, u).var() / residual(a, x).var()
    assert size * np.sqrt(share_y * share_a / (1 - share_a)) == pytest.approx(effect, rel=0.02)
    value = float(sensitivity.robustness(effect, size))
    assert min(share_y, share_a) <= value <= max(share_y, share_a)


def test_a_cause_of_half_the_strength_makes_less():
    """Half the coefficients are a quarter of the variances: what is asked for is near that, and not above it."""
    rng = np.random.default_rng(1)
    x, u, noise_a, noise_y = rng.normal(size=(4, ROWS))
    a, y = x + 0.5 * u + noise_a, x + 0.5 * u + noise_y
    known = sensitivity.known({"x": x[:, None]}, {"a": a}, [y])
    assert known is not None
    effect, size = asked(known, a, y, x)
    assert 0.2 < sensitivity.weakest(effect, size, known.groups[0][0]).times < 0.255


def test_the_yardstick_is_the_group_of_the_least_multiple():
    """One column goes with the outcome, one with the action: which asks for less depends on the size of the effect."""
    by_outcome, by_action = Group("outcome", 0.5, 0.05), Group("action", 0.001, 0.45)
    for effect, name in ((0.02, "outcome"), (3.0, "action")):
        each = [sensitivity.times_as_strong(effect, 1.0, group) for group in (by_outcome, by_action)]
        found = sensitivity.weakest(effect, 1.0, (by_outcome, by_action))
        assert found == (min(each), name)
    assert sensitivity.weakest(1.0, 1.0, ()) == (np.inf, "")
    assert np.isnan(sensitivity.weakest(np.nan, 1.0, (by_outcome,)).times)


def test_what_explains_half_of_the_action_is_no_yardstick():
    rng = np.random.default_rng(3)
    x, z, noise_a, noise_y = rng.normal(size=(4, 20_000))
    a = 3 * x + 0.5 * z + noise_a
    found = sensitivity.known({"x": x[:, None], "z": z[:, None]}, {"a": a}, [x + z + a + noise_y])
    assert found is not None
    assert [group.name for group in found.groups[0][0]] == ["z"]


def test_robustness_at_its_ends():
    found = sensitivity.robustness([0.0, 1e-9, 1e9, 1e100, np.inf], 1.0)
    np.testing.assert_allclose(found, [0, 1e-9, 1, 1, 1], rtol=1e-6)
    assert np.isnan(sensitivity.robustness(np.nan, 1.0))
    assert sensitivity.times_as_strong(0.1, 1.0, Group("nothing", 0.0, 0.3)) == np.inf
    assert np.isnan(sensitivity.times_as_strong(np.nan, 1.0, Group("x", 0.1, 0.3)))
    # However large an effect, a cause that leaves nothing of the action could make it.
    assert sensitivity.times_as_strong(1e9, 1.0, Group("x", 0.1, 0.1)) == pytest.approx(9.0)


@pytest.fixture(scope="module")
def table():
    """Two actions, one of which follows a store and one a lag; a one-hot group, and a column that never varies."""
    rng, n = np.random.default_rng(1), 5000
    which = rng.integers(0, 3, n)
    x = rng.normal(size=(n, 2))
    push = (rng.random(n) < 0.2 + 0.3 * (which == 0)).astype(float)
    tv = x[:, 0] + 2 * rng.normal(size=n)
    y = which + x @ [1.0, 0.3] + 0.5 * push + rng.normal(size=n)
    return {"store": np.eye(3)[which], "lags": x, "same": np.ones((n, 1))}, {"push": push, "tv": tv}, y


@pytest.mark.parametrize("unit", [1.0, 1e7])
def test_what_is_known_is_of_least_squares_in_any_unit(table, unit):
    groups, actions, y = table
    found = sensitivity.known(groups, {"push": actions["push"], "tv": unit * actions["tv"]}, [y, -100 * y])
    assert found is not None
    push, tv = actions.values()
    store, x = groups["store"][:, :2], groups["lags"]
    every = (store, x, push, tv)
    n = len(y)
    left = residual(y, *every)
    assert found.outcomes[0] == pytest.approx(left @ left / (n - 9), rel=1e-5)
    assert found.outcomes[1] == pytest.approx(1e4 * found.outcomes[0])
    alone = residual(push, store, x, tv)
    assert found.actions[0] == pytest.approx(alone @ alone / (n - 8), rel=1e-5)
    groups_of_push, groups_of_tv = ({g.name: g for g in each} for each, _ in found.groups)
    assert {"store", "tv"} <= groups_of_push.keys()
    assert {"lags", "push"} <= groups_of_tv.keys()
    assert "same" not in groups_of_push
    by_store = groups_of_push["store"]
    assert by_store.outcome == pytest.approx(1 - left.var() / residual(y, x, push, tv).var(), rel=1e-3)
    assert by_store.action == pytest.approx(1 - alone.var() / residual(push, x, tv).var(), rel=1e-3)


def test_an_action_s_own_past_is_no_yardstick(table):
    groups, actions, y = table
    found = sensitivity.known(groups, actions, [y], own={"tv": ["lags"]})
    assert found is not None
    assert "lags" not in {group.name for group in found.groups[1][0]}
    assert "lags" in {group.name for group in found.groups[0][0]}
    assert found.actions == sensitivity.known(groups, actions, [y]).actions  # pyright: ignore


def test_what_never_varies_is_nothing_s_cause_and_few_rows_say_nothing(table):
    groups, actions, y = table
    idle = {**actions, "idle": np.zeros(len(y))}
    found = sensitivity.known(groups, idle, [np.ones(len(y))])
    assert found is not None
    assert found.actions[2] == 0
    assert all(groups == () for (groups,) in found.groups)
    few = slice(0, 12)
    assert sensitivity.known({n: g[few] for n, g in groups.items()}, {"push": actions["push"][few]}, [y[few]]) is None
