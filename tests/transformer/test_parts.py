"""Tokens, attention and losses against second implementations in NumPy float64."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from wmjax.transformer import attention, losses, nets, response, tokens
from wmjax.transformer.config import MMMConfig
from wmjax.transformer.losses import ROIPrior

CFG = MMMConfig(
    width=6, heads=2, blocks=1, feed_forward=6, reach=2, frequencies=4, code=4, representation=4, head_units=4
)


def test_the_published_code_takes_the_largest_spend_for_none_and_ours_does_not():
    ends = jnp.array([0.0, 1.0])
    faithful = np.asarray(tokens.encode(ends, cfg=dataclasses.replace(CFG, encoding="faithful")))
    np.testing.assert_allclose(faithful[0], faithful[1], atol=1e-4)
    ours = np.asarray(tokens.encode(jnp.linspace(0, 1.95, 40), cfg=CFG))
    apart = np.linalg.norm(ours[:, None, :-2] - ours[None, :, :-2], axis=-1)
    assert apart[~np.eye(40, dtype=bool)].min() > 0.1


def test_fourier_is_its_formula():
    x = np.array([0.13, 0.7])
    found = np.asarray(tokens.fourier(jnp.asarray(x, jnp.float32), 3))
    angle = 2 * np.pi * x[:, None] * 2.0 ** np.arange(3)
    np.testing.assert_allclose(found, np.concatenate([np.sin(angle), np.cos(angle)], 1), atol=1e-5)


def test_creative_vectors_reach_the_tokens_at_unit_length():
    vectors = np.array([[3.0, 4.0], [0.0, 0.0]])
    known = tokens.channels(2, cfg=CFG, creative=vectors)
    np.testing.assert_allclose(known.creative, [[0.6, 0.8], [0, 0]], rtol=1e-6)
    params = nets.draw(jax.random.key(0), tokens.leaves(cfg=CFG, creative=2))
    spend = jnp.ones((1, 2))
    with_them = tokens.pooled(params, spend, known, cfg=CFG)
    without = tokens.pooled(params, spend, known._replace(creative=jnp.zeros((2, 2))), cfg=CFG)
    assert np.abs(np.asarray(with_them - without)).max() > 1e-3


@pytest.mark.parametrize("aligned", [True, False])
def test_attention_is_its_formula(aligned):
    """Loops over heads, queries and rows in float64, with clipped distances and a mask; all rows, and looked up."""
    params = nets.draw(jax.random.key(1), attention.leaves(cfg=CFG))
    tables = nets.draw(jax.random.key(2), attention.table_leaves(cfg=CFG))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 6)).astype(np.float32)
    seen = np.tril(np.ones((5, 5), bool))
    seen[4, 1] = False
    at = jnp.arange(5)
    kept = attention.project(params, jnp.asarray(x), cfg=CFG)
    relative = attention.look_up(tables, None if aligned else at[:, None] - at, cfg=CFG)
    found = attention.attend(params, relative, jnp.asarray(x), kept, jnp.asarray(seen), cfg=CFG)

    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    r = jax.tree.map(lambda a: np.asarray(a, np.float64), tables)
    q, k, v = (x @ p[n]["w"] + p[n]["b"] for n in ("query", "key", "value"))
    out = np.zeros((5, 6))
    for h in (slice(0, 3), slice(3, 6)):
        for t in range(5):
            near = [np.clip(s - t, -2, 2) + 2 for s in range(5)]
            score = np.array([q[t, h] @ (k[s, h] + r["key"][near[s]]) / np.sqrt(3) for s in range(5)])
            weight = np.where(seen[t], np.exp(score), 0)
            weight /= weight.sum()
            out[t, h] = sum(weight[s] * (v[s, h] + r["value"][near[s]]) for s in range(5))
    np.testing.assert_allclose(found, out @ p["out"]["w"] + p["out"]["b"], atol=1e-5)


def test_dropout_keeps_the_mean_and_its_share():
    """20,000 units at rate 0.3: five standard errors, a false alarm in 10^6."""
    x = jnp.ones(20_000)
    out = np.asarray(nets.dropout(jnp.array([1, 2], jnp.uint32), x, 0.3))
    assert abs((out == 0).mean() - 0.3) < 5 * np.sqrt(0.21 / 20_000)
    np.testing.assert_allclose(out[out > 0], 1 / 0.7, rtol=1e-6)


def test_losses_are_their_formulas():
    rng = np.random.default_rng(3)
    a, b, w = rng.random((4, 5, 2)), rng.random((4, 5, 2)), rng.integers(0, 2, (4, 5)).astype(float)
    f = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    want = ((a - b) ** 2).mean(-1)[w > 0].mean()
    assert float(losses.by_channel(f(a), f(b), f(w))) == pytest.approx(want, rel=1e-5)
    assert float(losses.squared(f(a[..., 0]), 0.5, f(w))) == pytest.approx(((a[..., 0] - 0.5) ** 2)[w > 0].mean())
    assert float(losses.mean(f(a[..., 0]), jnp.zeros((4, 5)))) == 0
    slopes, signs = jnp.array([0.2, -0.3, 0.4]), jnp.array([1.0, 1.0, -1.0])
    assert float(losses.sign(slopes, signs)) == pytest.approx(0.7)
    assert float(losses.sign(slopes, jnp.zeros(3))) == 0


def test_roi_priors_are_log_densities():
    """The Gaussian prior is `(roi - mu)^2 / (2 sigma^2)` and a constant; other families come through the same door."""
    returns = jnp.array([2.0, 0.5])
    found = losses.roi(returns, {0: ROIPrior(channel="tv", a=1.0, b=0.5).distribution()})
    assert float(found) == pytest.approx(0.5 * (1 / 0.5) ** 2 + np.log(0.5 * np.sqrt(2 * np.pi)), rel=1e-5)
    both = losses.roi(
        returns,
        {0: dist.Gamma(2.0, 1.0), 1: ROIPrior(channel="radio", family="lognormal", a=0.2, b=0.9).distribution()},
    )
    want = -stats.gamma(2).logpdf(2.0) - stats.lognorm(0.9, scale=np.exp(0.2)).logpdf(0.5)
    assert float(both) == pytest.approx(want, rel=1e-5)
    half = ROIPrior(channel="x", family="halfnormal", b=2.0).distribution()
    assert float(losses.roi(returns, {0: half})) == pytest.approx(-stats.halfnorm(scale=2).logpdf(2.0), rel=1e-5)
    with pytest.raises(ValueError, match="must be positive"):
        ROIPrior(channel="x", b=0.0)


def test_curve_priors_are_normal():
    centre = response.centre(jnp.array([0.3]))
    assert float(losses.curves(centre, centre)) == 0
    one_sd = response.Curves(*(c + sd for c, sd in zip(centre, response.SPREAD, strict=True)))
    assert float(losses.curves(one_sd, centre)) == pytest.approx(2.0, rel=1e-5)
