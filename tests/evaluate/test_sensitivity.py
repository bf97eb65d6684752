"""Bounds on hidden confounding, against a linear world in which a cause is really hidden."""

from __future__ import annotations

import numpy as np
import pytest

from wmjax.evaluate import sensitivity
from wmjax.evaluate.sensitivity import Cause

ROWS = 200_000


def world(hidden: float) -> dict[str, np.ndarray]:
    """Draw an action that does nothing, moved like the outcome by a known cause and by a hidden one."""
    rng = np.random.default_rng(0)
    known, u, noise_a, noise_y = rng.normal(size=(4, ROWS))
    a = known + hidden * u + noise_a
    return {"known": known, "u": u, "a": a, "y": 2 * known + hidden * u + noise_y}


def residual(target: np.ndarray, *columns: np.ndarray) -> np.ndarray:
    x = np.column_stack([np.ones(len(target)), *columns])
    return target - x @ np.linalg.lstsq(x, target, rcond=None)[0]


def test_a_hidden_cause_biases_by_no_more_than_its_shares_allow():
    """Linear: the bound holds with equality, as the hidden cause moves both the same way; to the sample's error."""
    table = world(0.7)
    left_a = residual(table["a"], table["known"])
    bias = float(left_a @ table["y"] / (left_a @ left_a))
    left_y = residual(table["y"], table["known"], table["a"])
    size = np.sqrt(left_y.var() / left_a.var())
    share_y = 1 - residual(table["y"], table["known"], table["a"], table["u"]).var() / left_y.var()
    share_a = 1 - residual(table["a"], table["known"], table["u"]).var() / left_a.var()
    bound = size * np.sqrt(share_y * share_a / (1 - share_a))
    assert bias == pytest.approx(bound, rel=0.02)
    value = float(sensitivity.robustness(bias, size))
    assert min(share_y, share_a) < value < max(share_y, share_a)
    assert size**2 * value**2 / (1 - value) == pytest.approx(bias**2, rel=1e-9)
    # A cause with these very shares is one time as strong.
    assert sensitivity.times_as_strong(bias, size, Cause("u", share_y, share_a)) == pytest.approx(1.0, rel=0.03)


def test_robustness_at_its_ends():
    np.testing.assert_allclose(sensitivity.robustness([0.0, 1e-9, 1e9, np.inf], 1.0), [0, 1e-9, 1, 1], rtol=1e-6)
    assert np.isnan(sensitivity.robustness(np.nan, 1.0))
    assert sensitivity.times_as_strong(0.1, 1.0, Cause("nothing", 0.0, 0.3)) == np.inf


def test_known_causes_are_partial_r2_of_regressions():
    """Against NumPy's least squares, with a one-hot group that is collinear and a column that never varies."""
    rng, n = np.random.default_rng(1), 5000
    which = rng.integers(0, 3, n)
    one_hot, x = np.eye(3)[which], rng.normal(size=(n, 2))
    push = (rng.random(n) < 0.2 + 0.3 * (which == 0)).astype(float)
    tv = x[:, 0] + rng.normal(size=n)
    y = which + x @ [1.0, 0.3] + 0.5 * push + rng.normal(size=n)
    groups = {"store": one_hot, "lags": x, "same": np.ones((n, 1))}
    found = sensitivity.known_causes(groups, {"push": push, "tv": tv}, [y, -y])
    every = (one_hot[:, :2], x, push, tv)
    assert found.left[0] == pytest.approx(residual(y, *every).var(), rel=1e-4)
    assert found.left[0] == pytest.approx(found.left[1])
    (store, _), (lags, _) = found.strongest
    assert (store.name, lags.name) == ("store", "lags")
    without = residual(y, x, push, tv).var()
    assert store.outcome == pytest.approx(1 - residual(y, *every).var() / without, rel=1e-3)
    whole, fewer = residual(push, one_hot[:, :2], x, tv).var(), residual(push, x, tv).var()
    assert store.action == pytest.approx(1 - whole / fewer, rel=1e-3)
