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
    own = bayesian_mmm.members(posterior, 50, settings=None)
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
    with pytest.raises(UserError, match="did not converge"):
        bayesian_mmm.members(posterior._replace(rhat=1.5), 5, settings=settings)
    assert bayesian_mmm.members(posterior._replace(rhat=1.5), 5, settings=None)["base"].shape[0] == 5
    loose = dataclasses.replace(settings, most_rhat=9.0, most_divergent=1.0)
    posterior.check(loose)


def test_the_samplers_own_coordinates_leave_the_model_as_it_was():
    """Differences of the log density between points, by NumPy in float64: levels, coefficients, priors, likelihood.

    Points differ in what a channel adds too, from which the coordinates start.
    """
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3, 30, 2))
    x[..., 1] += 5 * x[..., 0]
    rows = np.ones((3, 30), bool)
    rows[:, 25:] = False
    spend = rng.random((3, 30, 1)) + 0.1
    y = x @ [1.0, -0.5] + spend[..., 0] + rng.normal(size=(3, 30))
    round_ = bayesian_mmm.round_coordinates(x, y, rows)
    plain = {"spend": spend, "x": x, "y": y, "train": rows, "typical": np.ones(1), "exchange": np.ones(1)}
    data = {name: jnp.asarray(v, jnp.float32) for name, v in (plain | round_).items()}
    known = {"theta": jnp.array([1e-6]), "half": jnp.array([1.0]), "slope": jnp.array([1.0])}

    def densities(free, beta):
        params = {**known, "beta": jnp.array([beta]), "sigma": jnp.array(0.7), "free": jnp.asarray(free, jnp.float32)}
        got, _ = log_density(bayesian_mmm.model, (data,), {"carry": 2, "hierarchical": False, "roi": ()}, params)
        media = beta * spend[..., 0] / (1 + spend[..., 0])
        told = ((y - media) * rows)[..., None] * np.concatenate([np.repeat(np.eye(3)[:, None], 30, 1), x], -1)
        linear = round_["root"] @ (round_["root"].T @ told.sum((0, 1)) / round_["noise"] + free)
        level, gamma = linear[:3], linear[3:]
        left = (y - level[:, None] - x @ gamma - media)[rows]
        return float(got), -0.5 * (left @ left / 0.49 + level @ level / 4 + gamma @ gamma + beta**2 / 4)

    points = np.array([densities(rng.normal(size=5), beta) for beta in (0.2, 0.5, 1.0, 2.0)])
    np.testing.assert_allclose(points[1:, 0] - points[0, 0], points[1:, 1] - points[0, 1], rtol=1e-3, atol=1e-2)
    # At the coordinates' origin the linear part is a ridge regression on what media leave.
    middle = densities(np.zeros(5), 1.0)[0]
    assert all(densities(step, 1.0)[0] < middle for step in (2 * np.eye(5)[0], -2 * np.eye(5)[3]))
