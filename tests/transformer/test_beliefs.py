"""Beliefs about returns: in words and out of them, compiled once for any numbers, and beyond their support."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from wmjax.transformer import beliefs
from wmjax.transformer.beliefs import ROIPrior

MANY = (
    dist.Normal(2.0, 0.3),
    dist.LogNormal(0.2, 0.9),
    dist.HalfNormal(2.0),
    dist.Gamma(2.0, 1.0),
    dist.StudentT(3.0, 1.0, 0.5),
    dist.TruncatedNormal(1.0, 0.5, low=0.0),
    dist.Uniform(0.0, 3.0),
    dist.Exponential(2.0),
    dist.InverseGamma(2.0, 1.0),
    dist.MixtureSameFamily(
        dist.Categorical(probs=jnp.array([0.25, 0.75])), dist.Normal(jnp.array([0.0, 2.0]), jnp.ones(2))
    ),
)


@pytest.mark.parametrize("given", MANY, ids=lambda d: type(d).__name__)
def test_any_distribution_comes_back_from_its_words(given):
    """As an object, as words, and with its numbers taken out and put back under a trace."""
    prior = ROIPrior(channel="tv", density=given)
    assert ROIPrior(channel="tv", density=prior.density) == prior
    x = jnp.float32(0.7)
    want = float(given.log_prob(x))
    assert float(prior.distribution().log_prob(x)) == pytest.approx(want, rel=1e-5)
    hollow = prior.form
    assert hollow.form == hollow
    padded = jnp.asarray([*prior.numbers, 0.0, 0.0], jnp.float32)
    found = jax.jit(lambda n: beliefs.log_density(hollow.distribution(n), x))(padded)
    assert float(found) == pytest.approx(want, rel=1e-4)


def test_other_numbers_are_the_same_form():
    a, b = (ROIPrior(channel="tv", density=f"Gamma({n}, 1)") for n in (2, 3))
    assert a.form == b.form
    assert a != b
    assert a.form != ROIPrior(channel="tv", density="InverseGamma(2, 1)").form
    assert ROIPrior(channel="tv", a=1.0, b=2.0).form == ROIPrior(channel="tv", a=5.0, b=3.0).form
    # A lift test, in the three ways it may be written.
    ways = (
        ROIPrior(channel="tv", a=1.2, b=0.4),
        ROIPrior(channel="tv", density=dist.Normal(1.2, 0.4)),
        beliefs.parse("tv=Normal(1.2, 0.4)"),
    )
    for prior in ways:
        assert prior.channel == "tv"
        assert prior.numbers == pytest.approx((1.2, 0.4))
        assert float(prior.distribution().log_prob(1.0)) == pytest.approx(float(dist.Normal(1.2, 0.4).log_prob(1.0)))


@pytest.mark.parametrize("words", ["LogNormal(0.0, 0.5)", "HalfNormal(1.0)", "Uniform(0.5, 1.0)", "Gamma(2.0, 2.0)"])
def test_a_return_beyond_the_support_is_pulled_back(words):
    """Its log density is finite there, and rises towards the support on either side of it."""
    belief = ROIPrior(channel="tv", density=words).distribution()
    slope = jax.grad(lambda x: beliefs.log_density(belief, x))
    assert np.isfinite(beliefs.log_density(belief, jnp.float32(-1.0)))
    assert slope(jnp.float32(-1.0)) > 0
    assert slope(jnp.float32(3.0)) < 0


@pytest.mark.parametrize(
    ("belief", "returns"),
    [
        (dist.LogNormal(0.0, 2.0), (0.01, 0.05, 1.0, 50.0)),
        (dist.LogNormal(0.0, 3.0), (1e-3, 0.1, 1.0, 8.0)),
        (dist.LogUniform(1e-3, 1e3), (0.01, 0.1, 1.0)),
    ],
    ids=("two", "three", "uniform"),
)
def test_a_heavy_tail_leaves_the_bulk_as_it_is(belief, returns):
    """Its slope is the density's own, from a median on down; below the support it still rises towards it."""
    slope = jax.grad(lambda x: beliefs.log_density(belief, x))
    for x in returns:
        bent = np.log(x) / float(belief.scale) ** 2 if isinstance(belief, dist.LogNormal) else 0.0
        assert float(slope(jnp.float32(x))) == pytest.approx(-(1 + bent) / x, rel=1e-4)
    assert slope(jnp.float32(-1.0)) > 0.05


@pytest.mark.parametrize(
    "belief",
    [
        dist.LogNormal(0.3, 0.4),
        dist.LogNormal(-2.0, 1.0),
        dist.HalfNormal(2.0),
        dist.Uniform(0.5, 3.0),
        dist.TruncatedNormal(1.0, 0.5, low=0.0),
        dist.Gamma(2.0, 1.0),
    ],
    ids=lambda d: type(d).__name__,
)
def test_an_ordinary_belief_is_left_a_thousandth_of_its_spread_from_the_end(belief):
    sd = beliefs.spread(belief)
    low = belief.support.lower_bound
    for x in (low - sd, low + 5e-4 * sd, low + 2e-3 * sd, low + sd):
        inside = jnp.maximum(x, low + 1e-3 * sd)
        want = belief.log_prob(inside) - 0.5 * jnp.square((x - inside) / sd)
        np.testing.assert_allclose(beliefs.log_density(belief, x), want, rtol=1e-5)


def test_precisions_are_second_derivatives():
    normal, gamma = dist.Normal(1.0, 0.5), dist.Gamma(3.0, 2.0)
    assert float(beliefs.precision(normal, jnp.float32(3.0))) == pytest.approx(4.0, rel=1e-4)
    assert float(beliefs.precision(gamma, jnp.float32(0.5))) == pytest.approx(2 / 0.25, rel=1e-4)
    assert float(beliefs.precision(dist.LogNormal(0.0, 0.5), jnp.float32(2.0))) == pytest.approx(1.0, rel=1e-5)
    # Far in a tail that is bent the other way: no less than nothing.
    assert float(beliefs.precision(dist.StudentT(3.0, 0.0, 1.0), jnp.float32(9.0))) == 0


def test_a_members_draw_moves_the_centre_where_there_is_one():
    move = lambda d: float(beliefs.moved(d, jnp.float32(2.0), jnp.float32(3.0)))  # noqa: E731
    assert move(dist.Normal(1.0, 0.5)) == pytest.approx(2.0)
    assert move(dist.LogNormal(0.0, 0.5)) == pytest.approx(3 * np.exp(-1))
    assert move(dist.Laplace(1.0, 1.0)) == pytest.approx(3 - 2 * np.sqrt(2), rel=1e-5)
    assert move(dist.HalfNormal(1.0)) == 3.0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("Normal", "must read like"),
        ("Normal(1, x)", "'x' where a number must stand"),
        ("Gama(1, 2)", "'Gama', which is no distribution of NumPyro"),
        ("Normal(1, -1)", "invalid scale"),
        ("Poisson(3)", "density of one number"),
        ("Dirichlet([1, 2])", "density of one number"),
        ("__import__(1)", "no distribution of NumPyro"),
        ("Normal(1, 2, 3)", r"'Normal\(1, 2, 3\)', which NumPyro does not take"),
        ("Normal(scal=1.0)", "does not take.*'scal'"),
        ("MixtureSameFamily(1, 2)", "does not take"),
        ("Normal(loc=1.0, loc=2.0)", "gives loc twice"),
        ("Uniform(3, 1)", "no finite log density"),
        ("Delta(1.0)", "no finite log density"),
        ("Delta(0.5)", "no finite log density"),
    ],
)
def test_nonsense_is_refused(words, told):
    with pytest.raises(ValueError, match=told):
        ROIPrior(channel="tv", density=words)


@pytest.mark.parametrize("words", ["Normal(1e4, 1e-3)", "LogNormal(9, 0.01)", "Beta(0.5, 0.5)", "HalfCauchy(1)"])
def test_beliefs_far_from_where_they_are_probed_are_taken(words):
    assert ROIPrior(channel="tv", density=words).call == words


def test_doors_refuse_nonsense():
    with pytest.raises(ValueError, match="must read channel="):
        beliefs.parse("Normal(1, 2)")
    with pytest.raises(ValueError, match="not both"):
        ROIPrior(channel="tv", a=2.0, density="Normal(1, 2)")
    with pytest.raises(ValueError, match="must be a NumPyro distribution"):
        ROIPrior(channel="tv", density=3.0)
