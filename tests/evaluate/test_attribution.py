"""Attribution of a model that is written down."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.evaluate import attribution, marginals

TIME = 8
A, B = 2.0, 3.0


def respond(base, spend):
    """base + A x0 + B x1^2 + x0 x1, half of it a period later; channel 2 does nothing."""
    x0, x1 = spend[..., 0], spend[..., 1]
    now = A * x0 + B * x1**2 + x0 * x1
    later = jnp.pad(now, ((0, 0), (1, 0)))[:, :-1]
    return base + 0.5 * now + 0.5 * later


@pytest.fixture(scope="module")
def spend():
    x = np.random.default_rng(0).random((2, TIME, 3)).astype(np.float32)
    x[:, -1] = 0
    return jnp.asarray(x)


@pytest.fixture(scope="module")
def found(spend):
    over = attribution.window(TIME, 0, TIME, carry=0)
    grid = jnp.array([0.0, 0.5, 1.0, 2.0])
    run = jax.jit(lambda p, s: attribution.members(attribution.attribute, respond, p, s, over, grid, chunk=4))
    return jax.tree.map(np.asarray, run(jnp.array([10.0, 20.0]), spend))


def test_zero_spend_is_the_whole_term_with_its_interaction(found, spend):
    """The last period has no spend, so all of the carry-over is counted."""
    x = np.asarray(spend, np.float64)
    both = (x[..., 0] * x[..., 1]).sum(1)
    np.testing.assert_allclose(found.zero[1, 0], A * x[..., 0].sum(1) + both, rtol=1e-4)
    np.testing.assert_allclose(found.zero[1, 1], B * (x[..., 1] ** 2).sum(1) + both, rtol=1e-4)
    np.testing.assert_allclose(found.none, np.array([[80.0], [160.0]]) * np.ones((2, 2)), rtol=1e-6)
    interaction = found.factual - found.none - found.zero.sum(1)
    np.testing.assert_allclose(interaction[0], -both, rtol=2e-3)


def test_a_channel_that_does_nothing_has_exactly_nothing(found):
    assert (found.zero[:, 2] == 0).all()
    assert (found.marginal[:, 2] == 0).all()
    assert (found.curve[:, 2] == 0).all()


def test_curves_run_from_nothing_through_the_plan(found, spend):
    x = np.asarray(spend, np.float64)
    assert (found.curve[:, :, 0] == 0).all()
    np.testing.assert_allclose(found.curve[:, :, 2], found.zero, rtol=1e-4)
    at2 = B * 4 * (x[..., 1] ** 2).sum(1) + 2 * (x[..., 0] * x[..., 1]).sum(1)
    np.testing.assert_allclose(found.curve[0, 1, 3], at2, rtol=1e-4)


def test_both_marginal_returns_are_the_derivative(found, spend):
    x = np.asarray(spend, np.float64)
    want = 2 * B * (x[..., 1] ** 2).sum(1) + (x[..., 0] * x[..., 1]).sum(1)
    np.testing.assert_allclose(found.marginal[0, 1], want, rtol=1e-5)
    # A central difference of a square is exact but for rounding: 1e-7 of 200 over a step of 0.1.
    np.testing.assert_allclose(found.slope[0, 1], want, rtol=5e-3)


def test_both_marginal_returns_agree_or_say_why(spend):
    """A smooth curve; one that stops at the plan; a square root where there is no spend; a ripple; rounding."""
    over = attribution.window(TIME, 0, TIME, carry=0)
    paused = jnp.asarray(np.where(np.arange(TIME)[:, None] % 3 == 0, 0.0, 0.5 + np.asarray(spend))).astype(jnp.float32)

    def why(curve, plan):
        """Of channel 0 in the first unit; channel 1 is smooth, and channel 2 does nothing."""
        respond = lambda base, x: base + curve(x[..., 0]) + x[..., 1] ** 2 / (1 + x[..., 1] ** 2)  # noqa: E731
        got = attribution.attribute(respond, jnp.asarray(10.0), plan, over, jnp.array([1.0]))
        parts = [np.asarray(x, np.float64) for x in (got.marginal, got.slope, got.bend, got.noise)]
        found = marginals.reasons(*parts)
        assert (found[1:] == "").all()
        return found[0, 0], parts

    assert why(jnp.sqrt, spend + 0.1)[0] == ""
    kink, parts = why(lambda x: jax.nn.relu(x - paused[..., 0]), paused)
    assert kink == marginals.KINK
    x = np.asarray(paused, np.float64)[0, :, 0].sum()
    # On the left the slope is 0, which is the automatic derivative; on the right it is the spend itself.
    np.testing.assert_allclose([p[0, 0] for p in parts[:3]], [0, x / 2, x], atol=2e-3 * x)
    line = marginals.words(["tv", "radio"], ["all"], parts[0][:2, :1], parts[1][:2, :1], np.array([[kink], [""]]))
    assert len(line) == 1
    assert "more than 5% apart, as the response has a kink at the spend as it was" in line[0]
    assert line[0].endswith(f": tv (0 and {parts[1][0, 0]:.3g})")
    assert why(jnp.sqrt, paused)[0] == marginals.ENDLESS
    assert why(lambda x: jnp.sin(200 * x), jnp.full((2, TIME, 3), 0.7))[0] == marginals.BEND
    assert why(lambda x: 1e-4 * x + 1e3, spend)[0] == marginals.ROUNDING


def test_a_window_counts_its_own_carry_over_and_not_its_past(spend):
    over = attribution.window(TIME, 2, 4, carry=1)
    x = np.asarray(spend, np.float64)[:, 2:4]
    got = attribution.attribute(respond, jnp.array(0.0), spend, over, jnp.array([1.0]))
    np.testing.assert_allclose(got.zero[0], A * x[..., 0].sum(1) + (x[..., 0] * x[..., 1]).sum(1), rtol=1e-4)
    cut = attribution.attribute(respond, jnp.array(0.0), spend, over._replace(count=over.change), jnp.array([1.0]))
    assert (np.asarray(cut.zero[0]) < np.asarray(got.zero[0])).all()


def test_contributions_add_up_over_time(spend, found):
    over = attribution.window(TIME, 0, TIME, carry=0)
    by_time = np.asarray(attribution.contributions(respond, jnp.array(10.0), spend, over))
    np.testing.assert_allclose(by_time[:3].sum(-1), found.zero[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_time[3].sum(-1), (found.factual - found.none)[0], rtol=1e-5)


def test_shifts_move_money_and_nothing_moved_changes_nothing(spend):
    over = attribution.window(TIME, 0, TIME, carry=0)
    none = attribution.shifts(respond, jnp.array(0.0), spend, over, 0.0)
    assert (np.asarray(none) == 0).all()
    moved = attribution.shifted(spend, 0, 2, 0.1, over.change)
    np.testing.assert_allclose(moved.sum(-1), spend.sum(-1), rtol=1e-6)
    some = np.asarray(attribution.shifts(respond, jnp.array(0.0), spend, over, 0.1))
    x = np.asarray(spend, np.float64)
    np.testing.assert_allclose(some[0, 2], -0.1 * (A * x[..., 0] + x[..., 0] * x[..., 1]).sum(1), rtol=1e-4, atol=1e-5)
    assert (some[np.arange(3), np.arange(3)] == 0).all()


def test_memory_does_not_grow_with_the_grid(spend):
    """Temporary bytes at 80 grid points: those of 8, and the answer's own size."""

    def temp(points):
        over, grid = attribution.window(TIME, 0, TIME, carry=0), jnp.linspace(0, 2, points)
        run = jax.jit(lambda s: attribution.attribute(respond, jnp.array(0.0), s, over, grid, chunk=4))
        return run.lower(spend).compile().memory_analysis().temp_size_in_bytes

    assert temp(80) - temp(8) < 4 * 3 * 72 * 2 * 4 + 2_000


def test_a_model_of_terms_is_attributed_as_by_scenarios(spend):
    """Channels that do not interact: both ways give the same numbers, in a window inside the periods too."""

    def terms(scale, x):
        now = scale * jnp.stack([A * x[..., 0], B * x[..., 1] ** 2, jnp.sqrt(x[..., 2] + 0.1) - jnp.sqrt(0.1)], -1)
        later = jnp.pad(now, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        return jnp.full(x.shape[:2], 5.0), 0.5 * now + 0.5 * later

    def whole(scale, x):
        base, added = terms(scale, x)
        return base + added.sum(-1)

    over = attribution.window(TIME, 2, 5, carry=2)
    grid, scale = jnp.array([0.0, 1.0, 1.7]), jnp.asarray(2.0)
    want = jax.jit(lambda s: attribution.attribute(whole, scale, s, over, grid))(spend)
    got = jax.jit(lambda s: attribution.attribute_terms(terms, scale, s, over, grid))(spend)
    for name, a, b in zip(got._fields, got, want, strict=True):
        # Differences of two sums against sums of differences, over a step of 5 % in `slope`.
        if name != "noise":
            np.testing.assert_allclose(a, b, rtol=1e-4, atol={"slope": 2e-3, "bend": 5e-3}.get(name, 2e-5))
    # Sums without the base are rounded less.
    assert (got.noise < want.noise).all()
    assert (abs(got.slope - got.marginal) < got.noise + 1e-3 * abs(got.marginal)).all()
    by_period, factual = attribution.contribution_terms(terms, scale, spend, over)
    np.testing.assert_allclose(by_period, attribution.contributions(whole, scale, spend, over), atol=1e-5)
    np.testing.assert_allclose(factual, whole(scale, spend), rtol=1e-6)
