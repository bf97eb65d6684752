"""The published network, trained on media data: two players, what is asked of it, priors, roll-out or teacher."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest

from wmjax import cli
from wmjax.core.errors import UserError
from wmjax.core.keys import key_for
from wmjax.data.splits import split_times
from wmjax.simulate import media as simulated
from wmjax.simulate.media import MediaSimConfig
from wmjax.transformer.beliefs import ROIPrior
from wmjax.transformer.config import MMMConfig
from wmjax.worlds import contract, media
from wmjax.worlds.media import creatives, fitting, learning, luck, prepare
from wmjax.worlds.media.config import CONFUSIONS, ORDERS, MediaConfig

SIM = MediaSimConfig(num_geos=4, num_weeks=40, num_channels=2, always_on=1)
NET = MMMConfig(
    width=8,
    heads=2,
    blocks=1,
    feed_forward=8,
    frequencies=2,
    code=4,
    representation=4,
    head_units=8,
    dropout=0.0,
    head="free",
    carry=3,
)
CFG = MediaConfig(
    members=2,
    steps=40,
    epochs=2,
    window=20,
    batch=4,
    learning_rate=1e-2,
    spend_rate=1e-2,
    alpha=0.5,
    network=NET,
    seasons=0,
    errors_in_variables=False,
    peers=False,
)


@pytest.fixture(scope="module")
def panel():
    return simulated.panel(simulated.simulate(3, SIM))


@pytest.fixture(scope="module")
def world(panel):
    return media.fit(jax.random.key(0), panel, CFG)


def start(panel, cfg):
    """Give a member before its first step, what it learns from, and its learner."""
    split = split_times(panel, val=cfg.val, test=cfg.test)
    data = fitting.learn_data(panel, prepare.fit_scales(panel, split.train, cfg), split, cfg, None)
    learner = learning.Learner(cfg.compiled, panel.action_names, int(split.train.sum()), panel.num_units)
    drawn = luck.balanced(jax.random.key(0), np.asarray(data.train).any(0), channels=2, members=1, block=5)
    one = jax.tree.map(lambda x: x[0], drawn)
    return learning.init(jax.random.key(0), one, data, learner=learner), data, learner


UPDATE = jax.jit(learning.update, static_argnames="learner")


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


# ---- two players ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("confusion", "order"),
    [(kind, order) for kind in CONFUSIONS for order in ORDERS if kind != "shuffle" or order == "outcome_first"],
)
def test_the_players_are_kept_apart(panel, confusion, order):
    """Neither loss moves the other's parameters, each player meets the other's averages, and losses fall.

    Kinds whose adversary predicts share a program, so three are compiled for seven cases.
    """
    state, data, learner = start(panel, dataclasses.replace(CFG, confusion=confusion, order=order))
    late = state._replace(step=jnp.int32(learner.steps))  # alpha is above 0
    step = lambda s, key=0: UPDATE(jax.random.key(key), s, data, learner=learner)  # noqa: E731
    base, _ = step(late)
    assert not same(base.params["outcome"], state.params["outcome"])
    assert not same(base.params["spend"], state.params["spend"])
    shift = lambda tree, who: {**tree, who: jax.tree.map(lambda x: x + 0.1, tree[who])}  # noqa: E731
    # The encoder's step: of the adversary it meets the averages alone, and those move it.
    raw, _ = step(late._replace(params=shift(late.params, "spend")))
    average, _ = step(late._replace(average=shift(late.average, "spend")))
    if order == "outcome_first":
        assert same(raw.params["outcome"], base.params["outcome"])
    assert not same(average.params["outcome"], base.params["outcome"])
    # The adversary's step: of the encoder it meets the averages alone.
    raw, _ = step(late._replace(params=shift(late.params, "outcome")))
    average, _ = step(late._replace(average=shift(late.average, "outcome")))
    if order == "spend_first":
        assert same(raw.params["spend"], base.params["spend"])
    assert not same(average.params["spend"], base.params["spend"])
    # With alpha still 0 (the first epoch) no adversary, however it answers, moves the encoder.
    found = [step(s)[0] for s in (state, state._replace(average=shift(state.average, "spend")))]
    assert same(found[0].params["outcome"], found[1].params["outcome"])
    # Forty steps: the outcome's error and the adversary's loss fall on the batches that both ends share.
    told, moving = [], state
    for at in range(40):
        moving, found = step(moving, at % 4)
        told.append(found)
    for name in ("train_loss", "spend_loss"):
        begin, end = (np.mean([float(x[name]) for x in told[part]]) for part in (slice(0, 4), slice(-4, None)))
        assert end < begin, (name, begin, end)


@pytest.mark.parametrize("confusion", CONFUSIONS)
def test_neither_loss_has_a_slope_in_the_others_parameters(panel, confusion):
    state, data, learner = start(panel, dataclasses.replace(CFG, confusion=confusion))
    batch = learning.take(jax.random.key(0), state, data, learner=learner)
    kind = learner.cfg.confusion

    @jax.jit
    def slopes(encoder, head, batch):
        def spend_loss(encoder):
            phi = learning.forward(encoder, batch.series, data.known, None, cfg=learner.cfg).representation
            args = head, phi, batch.spend_target, batch.weights, data.known, jax.random.key(1)
            return learning.adversary.loss(*args, kind=kind)

        def outcome_loss(head, encoder):
            args = encoder, head, batch, state, data, jnp.float32(1), jax.random.key(1)
            return learning.outcome_loss(*args, learner=learner)[0]

        return jax.grad(spend_loss)(encoder), *jax.grad(outcome_loss, argnums=(0, 1))(head, encoder)

    into_encoder, into_head, own = slopes(state.params["outcome"], state.params["spend"], batch)
    assert not any(np.any(x) for x in jax.tree.leaves((into_encoder, into_head)))
    assert np.any(own["represent"]["w"])


def test_order_says_who_moves_first(panel):
    """The second player meets the averages that the first has just moved."""
    cfgs = [dataclasses.replace(CFG, order=order) for order in ORDERS]
    states = []
    for cfg in cfgs:
        state, data, learner = start(panel, cfg)
        late = state._replace(step=jnp.int32(learner.steps))
        states.append(UPDATE(jax.random.key(0), late, data, learner=learner)[0])
    first, second = states
    assert not same(first.params["outcome"], second.params["outcome"])
    assert not same(first.params["spend"], second.params["spend"])
    with pytest.raises(ValueError, match="order is 'both', must be one of"):
        dataclasses.replace(CFG, order="both")
    with pytest.raises(ValueError, match="confusion is 'uniform', must be one of"):
        dataclasses.replace(CFG, confusion="uniform")


# ---- the fitted world -----------------------------------------------------------------------------------------------


def test_a_trained_world_attributes(world, panel):
    """Sums over geos are `all`, no spend adds nothing, the curve at 1 is the zero-spend ATE, slopes agree."""
    told = world.training.groupby(["metric", "epoch"])["value"].mean()
    assert set(world.training["metric"]) == {"train_loss", "val_loss", "spend_loss", "confusion"} | {
        f"watched_{name}"
        for name in (
            "critic",
            "critic_chance",
            "critic_slope",
            "said_variance",
            "probe_r2",
            "probe_chance",
            "outcome_slope",
        )
    }
    assert (told["watched_outcome_slope"] > 0).all()
    assert told["train_loss"][2] < told["train_loss"][1]
    assert world.facts["r2"]["train"] > 0.2
    got = world.attribute(panel, grid=(0.0, 1.0))
    # Float32 sums over 40 weeks of outcomes of about 100.
    np.testing.assert_allclose(got.contribution[:, 0], got.contribution[:, 1:].sum("unit"), rtol=1e-4, atol=0.1)
    assert (abs(got.curve.sel(factor=0.0)) < 0.1).all()
    np.testing.assert_allclose(got.curve.sel(factor=1.0), got.contribution, rtol=1e-3, atol=0.1)
    assert (abs(got.contribution.sel(unit="all")) > 0.5).all()
    assert ((got.roi_lo <= got.roi) & (got.roi <= got.roi_hi)).all()
    # By a difference of 5 % of a curve that bends, and by its derivative.
    own, other = got.marginal_roi.sel(unit="all"), got.marginal_roi_difference.sel(unit="all")
    np.testing.assert_allclose(own, other, rtol=0.2, atol=0.05 * float(abs(own).max()))


def test_a_trained_world_comes_back_from_disk(world, panel, tmp_path):
    world.save(tmp_path / "world")
    again = contract.load(tmp_path / "world")
    assert again.cfg == world.cfg
    np.testing.assert_array_equal(again.predict(panel)["mean"], world.predict(panel)["mean"])


def test_a_teacher_hides_what_the_roll_out_counts(world, panel):
    """They differ where an outcome is fed back, and are the same question where nothing comes after."""
    rolled, taught = (world.attribute(panel, grid=(1.0,), feed=feed) for feed in (True, False))
    assert (abs(rolled.contribution - taught.contribution).sel(unit="all") > 0.5).all()
    # The last week alone: nothing is fed back into it.
    last = slice(panel.num_times - 1, panel.num_times)
    rolled, taught = (world.attribute(panel, grid=(1.0,), times=last, feed=feed) for feed in (True, False))
    np.testing.assert_allclose(rolled.contribution, taught.contribution, atol=2e-3)
    by_week = [world.contributions(panel, feed=feed).contribution.values for feed in (True, False)]
    # From the start of all: in the first week no outcome was fed back yet.
    np.testing.assert_allclose(by_week[0][..., 0], by_week[1][..., 0], atol=2e-3)
    assert np.abs(by_week[0] - by_week[1])[..., 5:].max() > 1e-2


def test_what_is_only_observed_later_does_not_tell_a_forecast(world, panel):
    key, plan, start = jax.random.key(0), panel.arrays.actions, 30

    def run(column, **options):
        moved = np.array(panel.arrays.covariates)
        moved[:, start:, panel.covariate_names.index(column)] += 1.0
        other = dataclasses.replace(panel, arrays=panel.arrays._replace(covariates=moved))
        pair = [world.simulate(key, p, plan, start=start, **options)["mean"].values for p in (panel, other)]
        return np.abs(pair[1] - pair[0]).max()

    assert run("demand_proxy") == 0
    assert run("demand_proxy", as_happened=True) > 0.1
    assert run("price") > 0.1  # known ahead


def test_the_command_fits_and_asks_it(panel, tmp_path, capsys):
    """From a table on disk to returns and curves, with creatives and a belief, all by the command line."""
    panel.to_frame().to_csv(tmp_path / "geos.csv", index=False)
    (tmp_path / "schema.toml").write_text(panel.schema.to_toml())
    vectors = pd.DataFrame({"channel": ["channel_1", "channel_0"], "a": [0.0, 1.0], "b": [1.0, 1.0]})
    vectors.to_csv(tmp_path / "creative.csv", index=False)
    tiny = "--network.width 4 --network.heads 1 --network.feed-forward 4 --network.frequencies 1 --network.code 2"
    tiny += " --network.representation 2 --network.head-units 2 --network.carry 2 --members 2 --steps 2 --epochs 1"
    files = f"--panel {tmp_path}/geos.csv --schema {tmp_path}/schema.toml --out {tmp_path}/run"
    asked = f"{tiny} {files} --head free --window 10 --seasons 0 --no-placebos --creative {tmp_path}/creative.csv"
    cli.main(["fit", "media", *asked.split(), "--belief", "channel_0=Gamma(2, 1)"])
    cli.main(["curves", f"{tmp_path}/run"])
    world = contract.load(tmp_path / "run")
    assert world.cfg.network.head == "free"
    (belief,) = world.cfg.roi
    assert (belief.channel, belief.call, belief.numbers) == ("channel_0", "Gamma(2, 1)", (2.0, 1.0))
    np.testing.assert_allclose(world.creative, [[2**-0.5, 2**-0.5], [0.0, 1.0]], rtol=1e-6)
    roi, curves = (pd.read_parquet(tmp_path / "run" / f"{name}.parquet") for name in ("roi", "curves"))
    assert set(roi["channel"]) == {"channel_0", "channel_1"}
    assert np.isfinite(curves["mean"]).all()
    for belief, words in (("Gama(2, 1)", "no distribution of NumPyro"), ("Gamma(1, 2, 3)", "NumPyro does not take")):
        with pytest.raises(SystemExit):
            cli.main(["fit", "media", *asked.split(), "--overwrite", "--belief", f"channel_0={belief}"])
        assert words in capsys.readouterr().err


def test_creatives_are_read_or_refused(panel):
    names = panel.action_names
    table = pd.DataFrame({"channel": [names[1], names[0], "other"], "a": [1.0, 2.0, 3.0]})
    np.testing.assert_array_equal(creatives.read(table, names, NET), [[2.0], [1.0]])
    for given, words in (
        (table.iloc[:1], "1 channels have no row, first 'channel_0'"),
        (pd.concat([table, table]), "3 channels have more than one row"),
        (table.assign(a="x"), "column 'a' holds no numbers"),
        (table.drop(columns="channel"), "no column 'channel'"),
        (np.ones((3, 2)), r"shape \(3, 2\), must be \[channels, numbers\] for 2 channels"),
        (np.array([[1.0], [np.nan]]), "'channel_1' holds numbers that are not finite"),
    ):
        with pytest.raises(UserError, match=words):
            creatives.read(given, names, NET)
    response = dataclasses.replace(CFG, network=dataclasses.replace(NET, head="response"))
    with pytest.raises(UserError, match="not read by the 'response' head"):
        media.fit(jax.random.key(0), panel, response, creative=np.ones((2, 3)))


# ---- priors ---------------------------------------------------------------------------------------------------------


def test_a_belief_and_a_sign_move_the_free_heads_return(panel):
    """Slopes of the loss: towards a belief on either side of the return; against a sign that is broken, 0 never."""
    key = jax.random.key(2)
    beliefs = {"channel_0": dist.StudentT(4.0, 0.0, 0.1)}
    state, data, learner = start(panel, dataclasses.replace(CFG, roi=beliefs, alpha=0.0))
    batch = learning.take(key_for(key, "batch"), state, data, learner=learner)
    params = state.params["outcome"]

    def worth(params):
        none = jnp.zeros_like(batch.series.spend)
        return learning.roi_of(params, batch, none, data, key, learner=learner)[0][0]

    def prior(params, numbers):
        own = data._replace(beliefs=numbers)
        found = learning.forward(params, batch.series, data.known, None, cfg=learner.cfg)
        return learning.priors(params, batch, found, jnp.ones(()), state, own, key, learner=learner)

    def sign(params, signs):
        own = data._replace(known=data.known._replace(sign=signs))
        return learning.sign_loss(params, batch, own, learner=learner)

    def mean_slopes(params):
        total = lambda s: jnp.sum(  # noqa: E731
            learning.forward(params, batch.series._replace(spend=s), data.known, None, cfg=learner.cfg).outcome
            * batch.weights
        )
        return jax.grad(total)(batch.series.spend).sum((0, 1)) / batch.weights.sum()

    @jax.jit
    def everything(far):
        up = jax.grad(worth)(params)
        inner = lambda a, b: sum(jnp.vdot(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))  # noqa: E731
        pulls = [inner(up, jax.grad(prior)(params, jnp.asarray([[4.0, mu, 0.1]]))) for mu in (far, -far)]
        slopes = mean_slopes(params)
        signs = jnp.sign(slopes)
        return worth(params), pulls, slopes, [sign(params, s) for s in (signs, -signs, 0 * signs)]

    here, (up, down), slopes, (kept, broken, unknown) = everything(jnp.float32(50.0))
    assert abs(here) < 50
    assert up < 0 < down  # a gradient step raises the return to a belief above it
    assert kept == 0
    assert unknown == 0
    assert broken == pytest.approx(float(jnp.abs(slopes).sum()), rel=1e-4)


def test_beliefs_about_one_channel_count_once_each(panel):
    """Over what is dropped the free head's mean is the sum over all beliefs, each moved by a luck of its own.

    400 draws of one of two channels: five standard deviations of a share are .125.
    """
    told = (("channel_0", 0.5), ("channel_0", 2.0), ("channel_1", 1.0))
    roi = tuple(ROIPrior(channel=channel, a=a, b=2.0) for channel, a in told)
    cfg = dataclasses.replace(CFG, roi=roi, alpha=0.0)
    state, data, learner = start(panel, cfg)
    assert fitting.prepared(jax.random.key(0), panel, cfg, None).luck.beliefs.shape == (2, 3)
    own = state.luck._replace(beliefs=jnp.asarray([1.0, -0.5, -2.0]))
    batch = learning.take(jax.random.key(0), state, data, learner=learner)

    @jax.jit
    def dropped(key):
        params, none = state.params["outcome"], jnp.zeros_like(batch.series.spend)
        returns, factor = learning.roi_of(params, batch, none, data, key, learner=learner)
        return returns, learning.believed(returns, factor, own, data, learner=learner)

    found = [dropped(k) for k in jax.random.split(jax.random.key(1), 400)]
    returns, values = (np.asarray(x) for x in zip(*found, strict=True))
    first = np.isfinite(returns[:, 0])
    assert abs(first.mean() - 0.5) < 0.125
    at = first.argmax(), first.argmin()
    centres = np.asarray([a for _, a in told]) + 2.0 * np.asarray([1.0, -2.0, -0.5])
    each = returns[at[0], 0], returns[at[0], 0], returns[at[1], 1]
    want = -sum(float(dist.Normal(c, 2.0).log_prob(x)) for c, x in zip(centres, each, strict=True))
    assert values[list(at)].mean() == pytest.approx(want, rel=1e-4)
