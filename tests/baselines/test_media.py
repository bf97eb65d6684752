"""Regressions and the Bayesian model on panels whose answer is known."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density

from wmjax.baselines import bayesian_mmm, media
from wmjax.baselines.bayesian_mmm import MMMSettings
from wmjax.baselines.media import MediaTable
from wmjax.core.errors import UserError


@pytest.fixture(scope="module")
def table():
    """Two geos, two channels: theta 0.4 and 0, half 0.5; effects 3 and 0; one covariate; noise 0.1."""
    rng = np.random.default_rng(0)
    spend = rng.random((2, 80, 2)) * (rng.random((2, 80, 2)) < 0.7)
    x = rng.normal(size=(2, 80, 1))
    stock = media.adstock(spend[..., 0], 0.4, 6)
    y = np.array([[5.0], [9.0]]) + 2 * x[..., 0] + 3 * stock / (stock + 0.5) + 0.1 * rng.normal(size=(2, 80))
    train = np.ones((2, 80), bool)
    train[:, 70:] = False
    return MediaTable(spend, x, y, train, 6)


def test_a_linear_truth_is_recovered_by_ols(table):
    """Within five of its own standard errors, of normal errors: a false alarm in 10^6."""
    y = table.outcome * 0 + 4 + 2 * table.spend[..., 1] - table.covariates[..., 0]
    y = y + 0.1 * np.random.default_rng(1).normal(size=y.shape)
    got = media.ols(table._replace(outcome=y))
    assert (np.abs(got.beta - [0, 2]) < 5 * got.error).all()
    np.testing.assert_allclose(got.respond(table.spend), y, atol=0.6)


def test_controls_matter_where_they_confound(table):
    spend = np.clip(table.spend + 0.3 * table.covariates, 0, None)
    y = 2 * table.covariates[..., 0] + spend[..., 0]
    naive, honest = (media.ols(table._replace(spend=spend, outcome=y), controls=c) for c in (False, True))
    assert abs(honest.beta[0] - 1) < 0.01
    assert abs(naive.beta[0] - 1) > 0.5


def test_carry_over_and_saturation_are_found_on_the_grid(table):
    got = media.adstock_hill(table)
    assert got.theta[0] == 0.4
    without = np.array(table.spend)
    without[..., 0] = 0
    effect = (got.respond(table.spend) - got.respond(without)).sum()
    stock = media.adstock(table.spend[..., 0], 0.4, 6)
    assert effect == pytest.approx((3 * stock / (stock + 0.5)).sum(), rel=0.15)
    nothing = np.array(table.spend)
    nothing[..., 1] = 0
    assert abs((got.respond(table.spend) - got.respond(nothing)).sum()) < 0.05 * effect


@pytest.fixture(scope="module")
def sampled(table):
    settings = MMMSettings(warmup=100, samples=60, chains=2, tree_depth=5)
    return settings, bayesian_mmm.fit(jax.random.key(0), table, settings=settings)


def test_the_bayesian_model_recovers_the_total_effect(table, sampled):
    """The truth lies within the range of 50 draws widened by half: far outside what a sound sampler would miss."""
    _, posterior = sampled
    own = bayesian_mmm.members(posterior, 50)
    top = jnp.asarray(posterior.spend_scale, jnp.float32)
    ask = jax.jit(
        jax.vmap(lambda m, s: bayesian_mmm.respond(m, s, scale=posterior.scale, top=top, carry=table.carry), (0, None))
    )
    spend = jnp.asarray(table.spend, jnp.float32)
    effect = np.asarray(ask(own, spend) - ask(own, spend.at[..., 0].set(0.0))).sum((1, 2))
    stock = media.adstock(table.spend[..., 0], 0.4, 6)
    truth = (3 * stock / (stock + 0.5)).sum()
    half = (effect.max() - effect.min()) * 0.75
    assert abs(truth - effect.mean()) < max(half, 0.1 * truth)
    none = np.asarray(ask(own, spend) - ask(own, spend.at[..., 1].set(0.0))).sum((1, 2))
    assert none.mean() < 0.15 * truth


def test_a_fit_that_did_not_converge_is_refused(sampled):
    settings, posterior = sampled
    assert posterior.rhat > 0.9
    assert posterior.ess > 1
    with pytest.raises(UserError, match="did not converge"):
        posterior._replace(rhat=1.5).check(settings)
    with pytest.raises(UserError, match="divergent"):
        posterior._replace(divergent=0.5).check(settings)
    loose = dataclasses.replace(settings, most_rhat=9.0, most_divergent=1.0)
    posterior.check(loose)


def test_the_samplers_own_coordinates_leave_the_model_as_it_was():
    """Differences of the log density between points, by NumPy in float64: levels, coefficients, priors, likelihood."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3, 30, 2))
    x[..., 1] += 5 * x[..., 0]
    rows = np.ones((3, 30), bool)
    rows[:, 25:] = False
    y = x @ [1.0, -0.5] + rng.normal(size=(3, 30))
    round_ = {name: jnp.asarray(v, jnp.float32) for name, v in bayesian_mmm.round_coordinates(x, y, rows).items()}
    spend = np.zeros((3, 30, 1))
    plain = {"spend": spend, "x": x, "y": y, "train": rows, "typical": np.ones(1), "exchange": np.ones(1)}
    data = {name: jnp.asarray(v, jnp.float32) for name, v in plain.items()} | round_
    known = {"theta": jnp.array([0.5]), "half": jnp.array([1.0]), "slope": jnp.array([1.0]), "beta": jnp.array([1.0])}

    def densities(free):
        params = {**known, "sigma": jnp.array(0.7), "free": jnp.asarray(free, jnp.float32)}
        got, _ = log_density(bayesian_mmm.model, (data,), {"carry": 2, "hierarchical": False, "roi": ()}, params)
        linear = np.asarray(round_["centre"] + round_["root"] @ params["free"], np.float64)
        level, gamma = linear[:3], linear[3:]
        left = (y - level[:, None] - x @ gamma)[rows]
        return float(got), -0.5 * (left @ left / 0.49 + level @ level / 4 + gamma @ gamma)

    points = np.array([densities(rng.normal(size=5)) for _ in range(4)])
    np.testing.assert_allclose(points[1:, 0] - points[0, 0], points[1:, 1] - points[0, 1], rtol=1e-3, atol=1e-2)
