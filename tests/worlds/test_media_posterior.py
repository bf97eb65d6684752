"""What the data leave open of response curves, against a regression written down in NumPy."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.optimize

from wmjax.data.readers import read_panel
from wmjax.data.splits import split_times
from wmjax.simulate import media as simulated
from wmjax.simulate.media import MediaSimConfig
from wmjax.transformer import network, response, tokens
from wmjax.transformer.losses import ROIPrior
from wmjax.worlds.media import beginning, doubts, fitting, learning, luck, posterior, prepare
from wmjax.worlds.media import model as pure
from wmjax.worlds.media.config import SMOKE

SIM = MediaSimConfig(num_geos=4, num_weeks=40, num_channels=2, always_on=1)
CHANNELS = ("channel_0", "channel_1")
CFG = dataclasses.replace(SMOKE, block=5, val=0.1, test=0.1)


@pytest.fixture(scope="module")
def learnt():
    """A member at its start, whose network adds nothing, and what it learns from."""
    panel = simulated.panel(simulated.simulate(1, SIM))
    split = split_times(panel, val=CFG.val, test=CFG.test)
    data = fitting.learn_data(panel, prepare.fit_scales(panel, split.train, CFG), split, CFG, None)
    known = tokens.channels(2, cfg=CFG.network)
    shape = {"num_covariates": data.series.covariates.shape[-1], "num_static": 0, "curves": data.centre}
    return network.init(jax.random.key(0), known, cfg=CFG.network, **shape), data


def alone(data):
    """What a member that is alone has of its own, without its axis."""
    drawn = luck.balanced(jax.random.key(0), np.asarray(data.train).any(0), channels=2, members=1, block=5)
    return jax.tree.map(lambda x: x[0], drawn)


def media(free, spend, carry, form="hill"):
    """Curves of carried-over spend, in float64."""
    theta, half, slope = 1 / (1 + np.exp(-free[0])), np.exp(free[1]), np.exp(free[2])
    weights = theta ** np.arange(carry + 1)[:, None]
    weights /= weights.sum(0)
    padded = np.concatenate([np.zeros((len(spend), carry, spend.shape[2])), spend], axis=1)
    stock = sum(weights[i] * padded[:, carry - i : carry - i + spend.shape[1]] for i in range(carry + 1))
    ratio = (np.maximum(stock, 1e-30) / half) ** slope
    raised = ratio / (1 + ratio) if form == "hill" else (1 - 3.0**-ratio) / (1 + 3.0**-ratio)
    return np.exp(free[3]) * np.where(stock > 0, raised, 0)


def oracle(params, data, beliefs=(), form="hill"):
    """The covariance by finite differences, dummies of units and an explicit regression on the controls."""
    train = np.asarray(data.train)
    spend, x, y = (np.asarray(v, np.float64) for v in (data.series.spend, data.series.covariates, data.series.outcome))
    free = np.stack([np.asarray(v, np.float64) for v in params["outcome"]["curves"]])

    def by_channel(flat):
        return media(flat.reshape(4, 2), spend, CFG.network.carry, form)

    def slopes_of(fn, step=1e-5):
        moves = step * np.eye(free.size)
        return np.stack([(fn(free.ravel() + m) - fn(free.ravel() - m)) / (2 * step) for m in moves], -1)

    dummies = np.repeat(np.eye(len(y))[:, None], y.shape[1], 1)
    design = np.concatenate([x, dummies], -1)[train]
    slopes = slopes_of(lambda v: by_channel(v).sum(-1))[train]
    slopes -= design @ np.linalg.lstsq(design, slopes, rcond=1e-6)[0]
    # The network adds nothing and controls start from nothing: what is left is the outcome less media.
    left = (y - by_channel(free.ravel()).sum(-1))[train]
    left -= dummies[train] @ np.linalg.lstsq(dummies[train], left, rcond=None)[0]
    sigma2 = (left**2).sum() / (len(left) - x.shape[-1] - free.size - len(y))
    told = slopes.T @ slopes / sigma2
    prior = np.diag(np.repeat(1 / np.array(response.SPREAD) ** 2, 2))
    believed = 1.001 * prior
    for channel, family, b in beliefs:
        spent = np.where(train[..., None], spend, 0).sum((0, 1))
        scale = np.asarray(data.exchange) / spent
        returns = lambda v, scale=scale: scale * by_channel(v)[train].sum(0)  # noqa: E731
        slope = slopes_of(returns)[channel] / (returns(free.ravel())[channel] if family == "lognormal" else 1)
        believed = believed + np.outer(slope, slope) / b**2
    inverse = np.linalg.inv(told + believed)
    scores = slopes * left[:, None]
    blocks = np.nonzero(train)[1] // CFG.block
    # Every block of the panel counts, those of the held-out periods with a score of nothing.
    count = -(-train.shape[1] // CFG.block)
    sums = np.stack([scores[blocks == b].sum(0) for b in range(count)])
    sums -= sums.mean(0)
    rows = np.einsum("nc,cd,nd->", scores, inverse, scores)
    freedom = max(len(np.unique(blocks)) - 1, 3)
    effect = np.einsum("nc,cd,nd->", sums, inverse, sums) * count / (count - 1) / rows
    factor = max(1, effect) * freedom / (freedom - 2)
    return np.linalg.inv(told / factor + believed), factor


@pytest.mark.parametrize(
    ("beliefs", "form"), [((), "hill"), (((0, "normal", 0.5), (1, "lognormal", 0.2)), "hill"), ((), "logistic")]
)
def test_the_covariance_is_that_of_a_regression(learnt, beliefs, form):
    params, data = learnt
    roi = tuple(ROIPrior(channel=CHANNELS[at], family=family, a=1.0, b=b) for at, family, b in beliefs)
    cfg = dataclasses.replace(CFG, roi=roi, members=1, network=dataclasses.replace(CFG.network, saturation=form))
    data = data._replace(beliefs=jnp.asarray(cfg.beliefs))
    one = jax.tree.map(lambda x: x[None], params)
    factor = np.asarray(posterior.spread(one, data, cfg=cfg, channels=CHANNELS), np.float64)[0]
    want, effect = oracle(params, data, beliefs, form)
    assert effect >= 1
    np.testing.assert_allclose(factor @ factor.T, want, rtol=2e-2, atol=2e-3)


def test_other_lift_tests_compile_nothing(learnt):
    params, data = learnt
    one, found = jax.tree.map(lambda x: x[None], params), []
    for a, b in ((1.0, 0.5), (2.0, 0.1)):
        cfg = dataclasses.replace(CFG, roi=(ROIPrior(channel=CHANNELS[0], a=a, b=b),), members=1)
        own = data._replace(beliefs=jnp.asarray(cfg.beliefs))
        found.append(posterior.spread(one, own, cfg=cfg.compiled, channels=CHANNELS))
        if len(found) == 1:
            programs = posterior.spread._cache_size()
    assert posterior.spread._cache_size() == programs
    assert np.linalg.norm(found[1]) < np.linalg.norm(found[0])  # a surer test leaves less open
    other = dataclasses.replace(cfg, roi=(ROIPrior(channel=CHANNELS[1]),))
    learners = [
        learning.Learner(c.compiled, CHANNELS, 32, 1)
        for c in (cfg, dataclasses.replace(cfg, roi=(ROIPrior(channel=CHANNELS[0], b=9.0),)), other)
    ]
    assert learners[0] == learners[1] != learners[2]


def test_a_belief_pulls_a_return_towards_it(learnt):
    """The gradient of the log prior by a channel's size of effect: up to a return above it, down to one below."""
    params, data = learnt
    cfg = dataclasses.replace(CFG, roi=(ROIPrior(channel=CHANNELS[0], a=1.0, b=0.1),), members=1, alpha=0.0)
    learner = learning.Learner(cfg.compiled, CHANNELS, int(data.train.any(0).sum()), len(data.train))
    own = data._replace(beliefs=jnp.asarray(cfg.beliefs))
    state = learning.init(jax.random.key(0), alone(data), own, learner=learner)

    @jax.jit
    def pull(beliefs):
        own = data._replace(beliefs=beliefs)
        batch = learning.take(jax.random.key(1), state, own, learner=learner)

        def value(curves):
            outcome = {**params["outcome"], "curves": curves}
            found = learning.forward(outcome, batch.series, own.known, None, cfg=cfg)
            return learning.priors(outcome, batch, found, jnp.ones(()), state, own, jax.random.key(2), learner=learner)

        return jax.grad(value)(params["outcome"]["curves"]).size[0]

    assert pull(jnp.array([[1e3, 0.1]])) < 0  # a larger effect is more plausible
    assert pull(jnp.array([[-1e3, 0.1]])) > 0


def test_blocks_that_move_together_are_fewer_rows():
    """Scores that are equal within blocks of five count once a block; independent ones count each."""
    rng = np.random.default_rng(0)
    slopes, one = jnp.ones((1, 400, 1)), jnp.eye(1)
    together = jnp.asarray(np.repeat(rng.normal(size=80), 5)[None], jnp.float32)
    apart = jnp.asarray(rng.normal(size=(1, 400)), jnp.float32)
    students = 79 / 77
    assert float(posterior.design_effect(slopes, together, one, 5)) == pytest.approx(5 * students, rel=0.05)
    assert float(posterior.design_effect(slopes, apart, one, 5)) < 1.5


def test_draws_have_the_spread_and_keep_what_was_observed(learnt):
    """Moves of the draws from the members' mean have the covariance; media and level together stay as they were."""
    params, data = learnt
    own = params["outcome"]
    series = data.series
    members = pure.Ready(own, jnp.zeros(series.outcome.shape))
    members = jax.tree.map(lambda x: jnp.stack([x - 0.1, x + 0.1]), members)
    factors = 0.1 * jnp.asarray(np.tril(np.random.default_rng(0).normal(size=(2, 8, 8)) + 2 * np.eye(8)), jnp.float32)
    ones = jnp.ones(4)
    # Held-out periods say nothing of levels.
    history = pure.History(series, data.known, ones, ones, jnp.ones(()), jnp.ones(2), data.train)
    got = posterior.sample(jax.random.key(0), members, factors, history, cfg=CFG.network)
    assert got.base.shape == (posterior.count(2), *series.outcome.shape)
    moves = np.concatenate(list(got.params["curves"]), 1) - np.concatenate(list(own["curves"]))
    # Pair by pair, member by member, a move and its mirror.
    moves = moves.reshape(-1, 2, 2, moves.shape[-1])
    np.testing.assert_allclose(moves[:, :, 0], -moves[:, :, 1], atol=1e-6)
    for member in (0, 1):
        noise = moves[:, member, 0] @ np.linalg.inv(np.asarray(factors[member], np.float64)).T
        assert 0.6 < noise.std() < 1.4
    rows = np.asarray(data.train)
    assert not rows.all()

    def total(who, at):
        base, added = pure.terms(jax.tree.map(lambda x: x[at], who), history, series.spend, cfg=CFG.network)
        return ((base + added.sum(-1)) * rows).sum(1)

    for member in (0, 1):
        for pair in (0, 5):
            np.testing.assert_allclose(total(got, 4 * pair + 2 * member), total(members, member), rtol=1e-3, atol=1e-3)


def test_draws_are_as_many_whatever_the_members():
    assert [posterior.count(members) for members in (2, 3, 5, 16, 64, 200)] == [128, 126, 130, 128, 128, 400]


def test_draws_are_told_by_quantiles_and_members_by_their_spread():
    own = np.array([[1.0, 5.0], [3.0, 5.0]])
    mean, lo, hi = posterior.told(own, 0.1, drawn=False)
    assert lo[0] < 1 < mean[0] == 2 < 3 < hi[0]
    draws = np.linspace(0, 1, 101)[:, None] * np.array([1.0, 10.0])
    # One draw far out moves the mean beyond the quantiles of all, which let it in.
    draws[-1, 1] = 1e4
    mean, lo, hi = posterior.told(draws, 0.1, drawn=True)
    np.testing.assert_allclose(mean, draws.mean(0))
    np.testing.assert_allclose(lo, [0.05, 0.5])
    np.testing.assert_allclose(hi, [0.95, mean[1]])
    assert mean[1] > 9.5
    for wrong in (0.0, 1.0, 90.0):
        for drawn in (True, False):
            with pytest.raises(ValueError, match=r"must lie in \(0, 1\)"):
                posterior.told(own, wrong, drawn=drawn)


@pytest.mark.parametrize("believed", [False, True])
def test_the_fit_before_the_network_ends_at_the_mode(believed):
    """The posterior's density in float64, written out; SciPy finds next to nothing better from there."""
    panel = simulated.panel(simulated.simulate(1, SIM))
    roi = (ROIPrior(channel="channel_0", a=1.0, b=0.1),) if believed else ()
    cfg = dataclasses.replace(CFG, members=1, warm=100, roi=roi)
    split = split_times(panel, val=cfg.val, test=cfg.test)
    scales = prepare.fit_scales(panel, split.train, cfg)
    data = fitting.learn_data(panel, scales, split, cfg, None)
    learner = learning.Learner(cfg.compiled, panel.action_names, int(split.train.sum()), panel.num_units)
    start = learning.init(jax.random.key(0), alone(data), data, learner=learner)
    found = beginning.warm(start, data, learner=learner)
    spend, x, y, _, seen, _ = (np.asarray(v, np.float64) for v in data.series)
    rows = seen * split.train
    centre, exchange = np.stack(learning.centre(start.luck, data)).astype(float), np.asarray(data.exchange, float)

    def density(flat):
        curves = flat[: centre.size].reshape(centre.shape)
        made = media(curves, spend, cfg.network.carry)
        own = flat[centre.size :]
        left = y - made.sum(-1) - x @ own[:-1] - own[-1]
        left -= ((rows * left).sum(1) / rows.sum(1))[:, None]  # each geo has a level of its own
        priors = 0.5 * np.sum(((curves - centre) / np.array(response.SPREAD)[:, None]) ** 2) + 0.5 * own @ own
        if believed:
            returns = exchange[0] * (made[..., 0] * rows).sum() / (spend[..., 0] * rows).sum()
            priors += 0.5 * ((returns - 1.0) / 0.1) ** 2
        return 0.5 * (rows.sum() - len(y)) * np.log((rows * left**2).sum() / rows.sum()) + priors

    def flat(state):
        own = state.params["outcome"]
        parts = [np.stack(own["curves"]).ravel(), np.ravel(own["controls"]["w"]), np.ravel(own["controls"]["b"])]
        return np.concatenate(parts).astype(float)

    here = density(flat(found))
    best = scipy.optimize.minimize(density, flat(found), method="BFGS", options={"maxiter": 300})
    assert here < density(flat(start)) - 10
    assert here < best.fun + 0.05


def test_what_errors_of_covariates_explain_is_error_of_the_equation(learnt):
    """As of an outcome to which their part was given back."""
    params, data = learnt
    weights = jnp.zeros_like(params["outcome"]["controls"]["w"]).at[data.series.covariates.shape[-1] - 1].set(0.7)
    own = {**params, "outcome": {**params["outcome"], "controls": {**params["outcome"]["controls"], "w": weights}}}
    given = data.series.outcome + 0.7 * data.series.covariates[..., -1]
    other = data._replace(series=data.series._replace(outcome=given))
    found = posterior.covariance(own, data, cfg=CFG, channels=CHANNELS, noisy=1)
    np.testing.assert_allclose(
        found, posterior.covariance(own, other, cfg=CFG, channels=CHANNELS), rtol=1e-3, atol=1e-6
    )
    plain = posterior.covariance(own, data, cfg=CFG, channels=CHANNELS)
    assert not np.allclose(found, plain, rtol=1e-2)


# ---- signs and beliefs ----------------------------------------------------------------------------------------------

WARM = jax.jit(beginning.warm, static_argnames="learner")


def returns_of(panel, cfg, units=None):
    """Fit curves and controls alone; give both channels' returns over the train periods, and what they come from."""
    split = split_times(panel, val=cfg.val, test=cfg.test)
    data = fitting.learn_data(panel, prepare.fit_scales(panel, split.train, cfg), split, cfg, None)
    learner = learning.Learner(cfg.compiled, panel.action_names, int(split.train.sum()), units or panel.num_units)
    state = WARM(learning.init(jax.random.key(0), alone(data), data, learner=learner), data, learner=learner)
    curves, series = state.params["outcome"]["curves"], data.series
    added = jax.vmap(lambda s: response.media(curves, s, data.known.sign, cfg=cfg.network))(series.spend)
    batch = learning.whole_batch(data, state.luck)
    found = learning.roi_of(None, batch, added, data, jax.random.key(0), learner=learner)[0]
    return np.asarray(found), state.params, data


@pytest.fixture(scope="module")
def mixed():
    """Of the same spend channel 0 takes away what it gave: (panel, true returns)."""
    cfg = dataclasses.replace(SIM, confounding=0.0, noise=0.5, num_weeks=60, always_on=0)
    sim = simulated.simulate(1, cfg)
    own = simulated.contributions(sim)
    panel = simulated.panel(sim._replace(outcome=sim.outcome - 2 * own[..., 0]))
    return panel, np.array([-1.0, 1.0]) * own.sum((0, 1)) / sim.spend.sum((0, 1))


def test_a_sign_is_believed_or_learnt(mixed):
    """Of unknown sign each channel is found on its own side; a wrong belief holds the return on the other."""
    panel, true = mixed
    base = dataclasses.replace(CFG, alpha=0.0, warm=100)
    for cfg in (dataclasses.replace(base, unknown=CHANNELS), dataclasses.replace(base, negative=("channel_0",))):
        # Four geos over a year: on its side, and of its order.
        ratio = returns_of(panel, cfg)[0] / true
        assert ((ratio > 0.2) & (ratio < 2)).all(), ratio
    wrong = returns_of(panel, base)[0]
    assert 0 < wrong[0] < 0.2 * abs(true[0])
    with pytest.raises(ValueError, match="negative and unknown both name 'channel_0'"):
        dataclasses.replace(base, negative=CHANNELS, unknown=CHANNELS[:1])


@pytest.mark.parametrize("words", ["Normal({}, 0.02)", "Gamma({}e4, 1e4)", "TruncatedNormal({}, 0.02, low=0.0)"])
def test_a_belief_of_any_kind_moves_the_fitted_return_its_way(mixed, words):
    """A sure lift test of half or of twice the return that the data tell, whatever the distribution it is given as."""
    panel, true = mixed
    told = {}
    for factor in (0.5, 2.0):
        cfg = dataclasses.replace(
            CFG, alpha=0.0, warm=100, negative=("channel_0",), roi={"channel_1": words.format(factor * true[1])}
        )
        told[factor] = returns_of(panel, cfg)[0]
    assert 0.4 * true[1] < told[0.5][1] < 0.8 * true[1] < 1.2 * true[1] < told[2.0][1] < 2.2 * true[1]


def test_what_the_data_add_to_the_prior_is_told(mixed):
    """Much with the data as they are; nothing where the outcome is noise all through, whose channel is warned of."""
    panel, _ = mixed
    cfg = dataclasses.replace(CFG, alpha=0.0, warm=100, unknown=CHANNELS, members=1)

    def learned(panel):
        _, params, data = returns_of(panel, cfg)
        one = jax.tree.map(lambda x: x[None], params)
        factors = posterior.spread(one, data, cfg=cfg.compiled, channels=CHANNELS)
        moved, share = posterior.learned(one, factors, data, cfg=cfg.compiled, channels=CHANNELS)
        return np.asarray(moved), np.asarray(share)

    moved, share = learned(panel)
    assert (share > 0.8).all()
    assert moved[0] < -0.5
    assert moved[1] > 0.5
    noise = 100 * np.random.default_rng(0).normal(size=panel.arrays.outcomes.shape).astype(np.float32)
    _, none = learned(dataclasses.replace(panel, arrays=panel.arrays._replace(outcomes=noise)))
    assert (none < share).all()
    support = pd.DataFrame({"channel": CHANNELS, "idle": 0.5, "explained": 0.1, "learned": [0.04, 0.9]})
    found = doubts.of(support, {}, ())
    assert set(found.prior_alone) == {"channel_0"}
    (line,) = (x for x in doubts.warnings(support, found, 5, {}, frozenset(CHANNELS)) if "prior alone" in x)
    assert line.endswith(": channel_0 (4%)")


ONE = {
    (4, "response"): "median channel, by more with 4 members than with 16 (here 4);",
    (16, "response"): "median channel;",
    (4, "free"): "each channel;",
}


@pytest.mark.parametrize(("members", "form"), ONE)
def test_a_world_of_one_series_says_so(members, form):
    support = pd.DataFrame({"channel": CHANNELS, "idle": 0.5, "explained": 0.1})
    tell = lambda facts: doubts.warnings(support, doubts.of(support, {}, ()), members, facts, frozenset())  # noqa: E731
    (line,) = (x for x in tell({"one_series": form}) if "one series" in x)
    assert ONE[members, form] in line
    assert not any("one series" in x for x in tell({"one_series": ""}))


# ---- units of their own level ---------------------------------------------------------------------------------------


def unequal(units=12, times=60):
    """Units whose spend differs tenfold, with levels that have nothing to do with it; returns .5 and .2."""
    rng = np.random.default_rng(3)
    size = np.geomspace(0.2, 2, units)[:, None]
    spend = size[..., None] * rng.gamma(2.0, 0.5, (units, times, 2)) * (rng.random((units, times, 2)) < 0.8)
    outcome = 10 * rng.random((units, 1)) + spend @ np.array([0.5, 0.2]) + 0.3 * rng.normal(size=(units, times))
    unit, time = np.indices((units, times))
    table = {"geo": [f"g{u:02}" for u in unit.ravel()], "week": time.ravel(), "sales": outcome.ravel()}
    table |= {name: spend[..., k].ravel() for k, name in enumerate(CHANNELS)}
    columns = {name: {"role": "action", "kind": "currency"} for name in CHANNELS}
    columns |= {"sales": {"role": "outcome", "kind": "continuous"}}
    return read_panel(pd.DataFrame(table), {"unit": "geo", "time": "week", "frequency": "step", "columns": columns})


def test_returns_are_told_within_units():
    """Without intercepts of their own what units differ by in spend, and not in outcome, speaks against all media."""
    panel, cfg = unequal(), dataclasses.replace(CFG, alpha=0.0, warm=100, trend=False)
    found = returns_of(panel, cfg)[0] / np.array([0.5, 0.2])
    # A quarter off is what the prior and the noise of 576 rows leave.
    assert (abs(found - 1) < 0.25).all(), found
    assert (returns_of(panel, cfg, units=1)[0] / np.array([0.5, 0.2]) < 0.6).all()


def test_intercepts_are_means_of_what_is_left():
    """Of a member's rows by their weights; a unit without any, of no train rows at all, has the others' mean."""
    panel = unequal()
    split = split_times(panel, val=CFG.val, test=CFG.test)
    data = fitting.learn_data(panel, prepare.fit_scales(panel, split.train, CFG), split, CFG, None)
    data = data._replace(train=data.train.at[4].set(False).at[5, 6:].set(False))
    weights = jnp.asarray(np.random.default_rng(0).integers(0, 3, data.train.shape[1]), jnp.float32).at[:6].set(0.0)
    own = alone(data)._replace(weights=weights)
    learner = learning.Learner(CFG.compiled, CHANNELS, int(split.train.sum()), panel.num_units)
    params = learning.init(jax.random.key(0), own, data, learner=learner).params["outcome"]
    told = np.random.default_rng(1).normal(size=params["controls"]["w"].shape)
    params["controls"] = {"w": jnp.asarray(told, jnp.float32), "b": jnp.array([0.4])}
    got = learning.leveled(params, learning.whole_batch(data, own), data, learner=learner)["intercepts"]
    curves = np.stack([np.asarray(v, np.float64) for v in params["curves"]])
    left = np.asarray(data.series.outcome, np.float64) - 0.4
    left = left - np.asarray(data.series.covariates, np.float64) @ told[:, 0]
    left = left - media(curves, np.asarray(data.series.spend, np.float64), CFG.network.carry).sum(-1)
    rows = np.asarray(data.train) * (np.asarray(weights) + 1e-3)
    told = np.delete(np.arange(panel.num_units), 4)
    want = np.zeros(panel.num_units)
    want[told] = (left * rows)[told].sum(1) / rows[told].sum(1)
    # Unit 5 has train rows, but none that this member was dealt.
    np.testing.assert_allclose(want[5], left[5, :6].mean(), rtol=1e-5)
    want[4] = want[told].mean()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_curves_feel_the_intercepts_follow_them():
    """The loss's slope is that of a loss whose intercepts are worked out anew; what they hold has no slope at all."""
    panel = unequal()
    cfg = dataclasses.replace(CFG, alpha=0.0, batch=20)
    split = split_times(panel, val=cfg.val, test=cfg.test)
    data = fitting.learn_data(panel, prepare.fit_scales(panel, split.train, cfg), split, cfg, None)
    learner = learning.Learner(cfg.compiled, CHANNELS, int(split.train.sum()), panel.num_units)
    state = learning.init(jax.random.key(0), alone(data), data, learner=learner)
    batch = learning.take(jax.random.key(1), state, data, learner=learner)

    def loss(outcome):
        args = state.params["spend"], batch, state, data, jnp.zeros(()), jax.random.key(2)
        return learning.outcome_loss(outcome, *args, learner=learner)[0]

    start = state.params["outcome"]

    def moved(by):
        return loss({**start, "curves": start["curves"]._replace(size=start["curves"].size.at[0].add(by))})

    def frozen(outcome):
        """Of intercepts that stay, as a wrong profile has it."""
        still = jax.lax.stop_gradient(learning.leveled(start, batch, data, learner=learner)["intercepts"])
        found = learning.forward({**outcome, "intercepts": still}, batch.series, data.known, None, cfg=cfg)
        return learning.losses.squared(found.outcome, batch.series.outcome, batch.weights)

    slopes = jax.grad(loss)(start)
    want = float(moved(0.05) - moved(-0.05)) / 0.1
    assert float(slopes["curves"].size[0]) == pytest.approx(want, rel=0.02)
    assert abs(float(jax.grad(frozen)(start)["curves"].size[0]) - want) > 0.1 * abs(
        want
    )  # where the first line allows .02
    assert float(abs(slopes["controls"]["b"]).max()) == 0
    assert float(abs(slopes["controls"]["w"]).max()) > 0
