"""What the network sees and when, its size, its roll-out."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.transformer import network, response, tokens
from wmjax.transformer.config import SMALL, MMMConfig
from wmjax.transformer.network import Series

TIME, CHANNELS, START = 12, 3, 5
TINY = MMMConfig(
    width=8, heads=2, blocks=2, feed_forward=8, reach=3, frequencies=3, code=4, representation=4, head_units=4, carry=3
)
KNOWN = {"num_covariates": 2, "num_static": 1}


@pytest.fixture(scope="module", params=["free", "response"])
def head(request):
    return request.param


@pytest.fixture(scope="module")
def cfg(head):
    return dataclasses.replace(TINY, head=head)


@pytest.fixture(scope="module")
def known(cfg):
    return tokens.channels(CHANNELS, cfg=cfg)


@pytest.fixture(scope="module")
def params(cfg, known):
    curves = response.centre(jnp.full(CHANNELS, 0.4))
    found = network.init(jax.random.key(0), known, cfg=cfg, curves=curves, **KNOWN)["outcome"]
    # The response form's head starts at zero, where nothing could leak: make it see.
    changed = jax.tree.map(lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape), found)
    return changed | ({"intercepts": jnp.array([0.3, -2.0])} if cfg.head == "response" else {})


@pytest.fixture(scope="module")
def series():
    rng = np.random.default_rng(0)
    parts = rng.random((TIME, CHANNELS)), rng.normal(size=(TIME, 2)), rng.normal(size=TIME), rng.normal(size=1)
    observed = np.arange(TIME) != 3
    blank = [np.where(observed.reshape(-1, *[1] * (p.ndim - 1)), p, 0) if len(p) == TIME else p for p in parts]
    return Series(*(jnp.asarray(p, jnp.float32) for p in blank), jnp.asarray(observed), jnp.asarray(1))


@pytest.fixture(scope="module")
def apply(cfg, known):
    return jax.jit(lambda p, s, k=known: network.apply(p, s, k, cfg=cfg))


@pytest.fixture(scope="module")
def roll(cfg, known):
    return jax.jit(lambda p, s, start, noise: network.roll_out(p, s, known, start, noise, cfg=cfg))


def test_the_past_is_unchanged_by_the_future_exactly(apply, params, series, head):
    """Perturb one input at week t: week by week, what changes is told by the time alignment, to 0.0 elsewhere."""
    base, t = apply(params, series), 7
    first = {
        # (first change of the representation, first change of the outcome)
        "spend": (t + 1, t),
        "covariates": (t, t),
        "outcome": (t + 1, t + 1),
    }
    for name, (phi_from, outcome_from) in first.items():
        changed = apply(params, series._replace(**{name: getattr(series, name).at[t].add(0.7)}))
        for field, start in (("representation", phi_from), ("outcome", outcome_from)):
            moved = np.abs(np.asarray(getattr(changed, field) - getattr(base, field))).reshape(TIME, -1).max(1)
            assert (moved[:start] == 0).all(), (name, field)
            assert moved[start] > 0, (name, field)


def test_a_unit_has_its_own_level(apply, roll, params, series, head):
    """Outcomes and intercept raised alike: forecasts are, and nothing else sees it; another unit's does nothing."""
    if head == "free":
        pytest.skip("the free form has no intercepts")
    raised = series._replace(outcome=jnp.where(series.observed, series.outcome + 1.5, 0.0))
    for ask in (apply, lambda p, s: roll(p, s, START, jnp.zeros(TIME))):
        base = ask(params, series)
        for by, at in ((1.5, 1), (0.0, 0)):
            moved = {**params, "intercepts": params["intercepts"].at[at].add(1.5)}
            found = ask(moved, raised if at == 1 else series)
            np.testing.assert_allclose(found.outcome, base.outcome + by, atol=5e-6)
            np.testing.assert_allclose(found.representation, base.representation, atol=5e-6)


def test_a_unit_does_not_see_its_batch(cfg, known, params, series):
    """A unit is the same whoever stands beside it, what is dropped included."""
    other = series._replace(outcome=series.outcome[::-1] * series.observed, unit=jnp.asarray(0))
    beside = lambda *units: jax.tree.map(lambda *x: jnp.stack(x), *units)  # noqa: E731
    keys = jax.random.split(jax.random.key(5), 2)
    ask = jax.jit(lambda s: network.apply(params, s, known, cfg=cfg, key=keys))
    found = ask(beside(series, other))
    assert np.abs(np.asarray(found.outcome[0] - found.outcome[1])).max() > 0.01
    for at, own in enumerate((series, other)):
        for a, b in zip(found, ask(beside(own, own)), strict=True):
            np.testing.assert_array_equal(a[at], b[at])


def test_an_unobserved_period_tells_others_nothing(apply, params, series):
    base = apply(params, series)
    other = series._replace(covariates=series.covariates.at[3].add(5.0), outcome=series.outcome.at[3].add(5.0))
    moved = np.abs(np.asarray(apply(params, other).outcome - base.outcome))
    assert (moved[np.arange(TIME) != 3] == 0).all()


def test_kept_keys_and_values_give_the_whole_pass(apply, roll, params, series):
    """From the last period on nothing is fed back: a roll-out period by period is `apply`."""
    found, want = roll(params, series, TIME, jnp.zeros(TIME)), apply(params, series)
    for a, b in zip(found, want, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_a_roll_out_is_whole_passes_one_by_one(apply, roll, params, series):
    """The slow way: predict a period, write it (plus noise) into the outcomes, predict the next."""
    noise = jnp.asarray(np.random.default_rng(1).normal(size=TIME), jnp.float32)
    found = roll(params, series, START, noise)
    s = series
    for t in range(START, TIME):
        out = apply(params, s).outcome[t]
        np.testing.assert_allclose(found.outcome[t], out, atol=5e-6)
        s = s._replace(outcome=s.outcome.at[t].set(out + noise[t]))


def test_channels_are_a_set(apply, params, series, known, head):
    """Permute spend and codes together: the free form cannot tell; the response form has its own curve a channel."""
    order = np.array([2, 0, 1])
    moved = known._replace(code=known.code[order], creative=known.creative[order])
    s = series._replace(spend=series.spend[:, order])
    p = params
    if head == "response":
        p = {**params, "curves": jax.tree.map(lambda x: x[order], params["curves"])}
    np.testing.assert_allclose(apply(p, s, moved).outcome, apply(params, series).outcome, atol=2e-6)


def test_the_default_has_its_size_whatever_the_channels():
    def size(cfg, channels):
        known = tokens.channels(channels, cfg=cfg)
        curves = response.centre(jnp.ones(channels))
        make = lambda k: network.init(k, known, cfg=cfg, num_covariates=10, num_static=4, curves=curves)  # noqa: E731
        return sum(x.size for x in jax.tree.leaves(jax.eval_shape(make, jax.random.key(0))))

    assert [size(MMMConfig(), k) for k in (5, 20, 60)] == [2_106_498] * 3
    assert size(SMALL, 5) < 70_000


def test_no_spend_adds_exactly_nothing():
    curves = response.centre(jnp.array([0.1, 0.5]))
    spend = jnp.zeros((9, 2)).at[4, 1].set(1.0)
    media = np.asarray(response.media(curves, spend, jnp.ones(2), cfg=TINY))
    assert (media[:, 0] == 0).all()
    assert (media[:4, 1] == 0).all()
    assert (media[4:8, 1] > 0).all()
    assert media[8, 1] == 0
    slope = jax.grad(lambda s: response.media(curves, s, jnp.ones(2), cfg=TINY).sum())(spend)
    assert np.isfinite(slope).all()


def test_adstock_and_saturation_are_their_formulas():
    rng = np.random.default_rng(2)
    spend, theta = rng.random((10, 2)), np.array([0.2, 0.8])
    want = np.zeros((10, 2))
    for t in range(10):
        for lag in range(min(t, 3) + 1):
            want[t] += theta**lag * spend[t - lag]
    want /= (theta ** np.arange(4)[:, None]).sum(0)
    found = response.adstock(jnp.asarray(spend, jnp.float32), jnp.asarray(theta, jnp.float32), 3)
    np.testing.assert_allclose(found, want, rtol=1e-5)
    half, s = np.array([0.4, 0.1]), np.array([1.7, 1.0])
    free = response.Curves(*(jnp.asarray(x, jnp.float32) for x in (0 * half, np.log(half), np.log(s), 0 * half)))
    found = response.saturated(free, jnp.asarray(want, jnp.float32), cfg=TINY)
    np.testing.assert_allclose(found, want**s / (want**s + half**s), rtol=2e-5)
    logistic = dataclasses.replace(TINY, saturation="logistic")
    found = response.saturated(free, jnp.asarray(want, jnp.float32), cfg=logistic)
    decay = np.exp(-np.log(3) * (want / half) ** s)
    np.testing.assert_allclose(found, (1 - decay) / (1 + decay), rtol=2e-5)


@pytest.mark.parametrize("form", ["hill", "logistic"])
def test_curves_of_either_form_rise_from_nothing_through_a_half_to_one(form):
    """And have a slope that is a number everywhere: at no spend, and where all is saturated."""
    cfg = dataclasses.replace(TINY, saturation=form)
    free = response.Curves(*(jnp.full(1, x, jnp.float32) for x in (0.0, np.log(0.4), np.log(1.3), 0.0)))
    at = jnp.array([0.0, 1e-6, 0.1, 0.4, 1.0, 10.0, 1e30])[:, None]
    found = np.asarray(response.saturated(free, at, cfg=cfg))[:, 0]
    assert found[0] == 0
    assert (np.diff(found) >= 0).all()
    assert (np.diff(found[1:6]) > 0).all()
    assert found[3] == pytest.approx(0.5, rel=1e-5)
    assert found[-1] == pytest.approx(1)
    for argument in (0, 1):
        slope = jax.grad(lambda *x: response.saturated(*x, cfg=cfg).sum(), argnums=argument)(free, at)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(slope))


def test_configs_refuse_nonsense():
    for wrong in ({"width": 10, "heads": 4}, {"dropout": 1.0}, {"code": 3}, {"blocks": 0}, {"saturation": "linear"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MMMConfig(**wrong)
