"""The pieces of the tumour experiment: two players kept apart, roll-outs, masks of what is asked, the choice."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import tumour_asked, tumour_fits, tumour_growth, tumour_published
from experiments.common import Cell
from experiments.tumour_fits import Begin, Hyper, Learner
from wmjax.simulate import tumour
from wmjax.simulate.tumour import TumourConfig
from wmjax.transformer import ct
from wmjax.transformer.ct import CTConfig

SIM = TumourConfig(days=9, window=4, horizon=2)
NET = CTConfig(width=4, reach=3, representation=3, head_units=4, features=tumour_fits.FEATURES)
LEARNER = Learner(network=NET, batch=4, epochs=3)
COUNT = 6


@pytest.fixture(scope="module")
def study():
    keys = jax.random.split(jax.random.key(0), 1)
    found = tumour_asked.simulate(keys, jnp.float32(2), train=COUNT, val=COUNT, test=COUNT, cfg=SIM)
    return jax.tree.map(lambda x: x[0], found)


def hyper(form: int, alpha: float = 0.01) -> Hyper:
    weight, rate, cosine, decay = (jnp.float32(x) for x in (alpha, 1e-2, 0.0, 0.0))
    return Hyper(
        jnp.int32(0), weight, rate, cosine, decay, jax.nn.one_hot(form, len(tumour_fits.FORMS)), ct.live(NET, NET)
    )


@pytest.fixture(scope="module")
def state():
    return jax.jit(lambda key, h: Begin(LEARNER)(key, h))(jax.random.key(1), hyper(0))


@pytest.fixture(scope="module")
def update(study):
    def run(state, seeds):
        return tumour_fits.update(state, study.data.train, study.data.scale, seeds, learner=LEARNER, steps=2)

    return jax.jit(run)


def seeds():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.integers(0, 2**32, (2, ct.SEEDS, 2), dtype=np.uint32))


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_the_players_are_kept_apart(state, update):
    late = state._replace(step=jnp.int32(4))
    base, _ = update(late, seeds())
    # In the first epoch alpha is 0: the head stands still, as published, and the encoder does not.
    first, _ = update(state, seeds())
    assert same(first.params["treatment"], state.params["treatment"])
    assert not same(first.params["encoder"], state.params["encoder"])
    assert not same(base.params["treatment"], state.params["treatment"])
    # The encoder's step sees the averaged head alone, the head's step the averaged encoder alone.
    moved = jax.tree.map(lambda x: x + 0.1, late.params["treatment"])
    other, _ = update(late._replace(params={**late.params, "treatment": moved}), seeds())
    assert same(other.params["encoder"], base.params["encoder"])
    averaged = jax.tree.map(lambda x: x + 0.1, late.average["treatment"])
    other, _ = update(late._replace(average={**late.average, "treatment": averaged}), seeds())
    assert not same(other.params["encoder"], base.params["encoder"])


def test_the_heads_loss_has_no_slope_in_the_representation(study, state):
    data = study.data.train
    phi = jnp.ones((*data.treatment.shape, NET.representation)) * 0.3
    slope = jax.grad(lambda phi: tumour_fits.head_loss(state.params["treatment"], phi, data, jnp.float32(1))[0])(phi)
    assert (np.asarray(slope) == 0).all()


def test_the_averages_follow_with_their_warm_up(state, update):
    first, _ = update(state, seeds())
    want = jax.tree.map(lambda a, p: 2 / 11 * a + 9 / 11 * p, state.average["encoder"], first.params["encoder"])
    for x, y in zip(jax.tree.leaves(first.average["encoder"]), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)


def test_days_after_the_last_one_do_not_train(study, state):
    """Padding rows may hold anything: the step is the same."""
    data = study.data.train._replace(length=jnp.arange(COUNT) + 2)
    far = jnp.arange(data.volume.shape[1]) > data.length[:, None]
    spoiled = data._replace(
        volume=jnp.where(far, 77.0, data.volume), treatment=jnp.where(far[:, 1:], 3, data.treatment)
    )

    def loss(p, data):
        args = state.params["treatment"], data, study.data.scale, hyper(0), jnp.float32(0.01), seeds()[0]
        return tumour_fits.encoder_loss(p, *args, learner=LEARNER)[0]

    run = jax.jit(jax.value_and_grad(loss))
    found, want = run(state.params["encoder"], spoiled), run(state.params["encoder"], data)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)


def test_packing_is_undone(study):
    data = study.data.train
    found = tumour_fits.unpack(tumour_fits.pack(data))
    for x, y in zip(found, data, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("form", range(len(tumour_fits.FORMS)), ids=tumour_fits.FORMS)
def test_a_roll_out_is_whole_passes_one_by_one(study, state, form):
    """Predict a day, write it into the volumes, predict the next one: the slow way, from every origin."""
    scale, own, params = study.data.scale, hyper(form), state.params["encoder"]
    patient = int(np.argmax(study.random.data.length))
    data = jax.tree.map(lambda x: x[patient], study.random.data)
    plan = study.random.plan[patient]
    roll = jax.jit(lambda data, plan: tumour_asked.roll_out(params, data, plan, scale, own, cfg=NET))
    options = jax.jit(lambda data: tumour_asked.all_options(params, data, scale, own, cfg=NET))
    found = np.asarray(roll(data, plan))
    assert found.shape == (SIM.days - 1, 2 * SIM.horizon, SIM.horizon)
    for origin in (0, 2, SIM.days - 2 - SIM.horizon):
        own_data = data._replace(
            treatment=data.treatment.at[origin + 1 : origin + 1 + SIM.horizon].set(plan[origin, 1])
        )
        for day in range(origin, origin + 1 + SIM.horizon):
            every = options(jax.tree.map(lambda x: x[None], own_data))[0]
            after = every[day, own_data.treatment[day]]
            own_data = own_data._replace(volume=own_data.volume.at[day + 1].set(after))
        want = own_data.volume[origin + 2 : origin + 2 + SIM.horizon]
        np.testing.assert_allclose(found[origin, 1], want, rtol=2e-4, atol=2e-3)


def test_what_is_asked_of_the_past_is_what_happened(study):
    asked, data = study.val_days, study.val_days.data
    steps = SIM.days - 1
    for i in range(COUNT):
        for t in range(steps):
            for j in range(SIM.horizon):
                real = t + 2 + j <= int(data.length[i])
                np.testing.assert_array_equal(asked.mask[i, t, :, j], [real] + [False] * (2 * SIM.horizon - 1))
                if real:
                    assert asked.volume[i, t, 0, j] == data.volume[i, t + 2 + j]
                    assert asked.plan[i, t, 0, j] == data.treatment[i, t + 1 + j]
    step = study.val_next
    np.testing.assert_array_equal(step.mask.sum(-1), np.arange(steps) < np.asarray(data.length)[:, None])


def test_errors_are_those_of_predictions_one_by_one(study, state):
    """Two members and their average, against a sum in NumPy; the truth of test patients is scored where it is valid."""
    scale = study.data.scale
    hypers = jax.tree.map(lambda *x: jnp.stack(x), hyper(0), hyper(1))
    params = jax.tree.map(lambda x: jnp.stack([x, x]), state.params["encoder"])
    members = jax.tree.map(lambda x: x[None], (params, hypers))
    mix = jnp.asarray([[1.0, 0.0], [0.5, 0.5]])
    lead = lambda x: jax.tree.map(lambda y: y[None], x)  # noqa: E731
    found = tumour_asked.rmse(members, mix, lead(study.options), lead(scale), cfg=NET, chunk=3, plans=False)[0]
    each = [
        np.asarray(tumour_asked.all_options(state.params["encoder"], study.options.data, scale, h, cfg=NET), float)
        for h in (hyper(0), hyper(1))
    ]
    mask = np.asarray(study.options.mask)
    for at, own in enumerate((each[0], (each[0] + each[1]) / 2)):
        want = np.sqrt(np.mean((own - np.asarray(study.options.volume))[mask] ** 2))
        np.testing.assert_allclose(found[at], want, rtol=1e-4)


def test_the_scale_is_that_of_the_days_before_the_last(study):
    data, scale = study.data.train, study.data.scale
    values = np.concatenate([np.asarray(v[:n], float) for v, n in zip(data.volume, data.length, strict=True)])
    assert float(scale.mean) == pytest.approx(values.mean(), rel=1e-5)
    assert float(scale.sd) == pytest.approx(values.std(), rel=1e-5)


def test_the_choice_is_by_validation_alone():
    scores = {
        "a": {"val_rmse_1": [1.0, 1.0], "val_rmse_own_2": [1.0, 2.0], "val_rmse_own_3": [1.0, 2.0], "rmse_1": [9, 9]},
        "b": {"val_rmse_1": [1.1, 1.1], "val_rmse_own_2": [1.0, 1.0], "val_rmse_own_3": [1.0, 1.0], "rmse_1": [8, 8]},
    }
    assert tumour_growth.choose(scores) == ["a", "b"]
    cells = tumour_growth.per_seed("ours-4", {"scores": scores, "seeds": [0, 1]})
    assert [c[Cell("gamma=4", "ours_best", "rmse_1")] for c in cells] == [9, 8]


def test_a_table_tells_of_each_piece_what_it_had_itself(tmp_path):
    """Pieces of two sizes and machines in one folder, and none of the command that writes the table."""
    scores = {"val_rmse_1": [1.0], "val_rmse_own_2": [1.0], "rmse_1": [2.0]}
    common = {"owner": "x", "seeds": [0], "last_epoch": {}, "seconds": 1.0, "train_seconds": 1.0}
    small, large = dataclasses.replace(tumour_growth.FULL, test=200), tumour_growth.FULL
    for name, kind, epochs, size, device in (
        ("ct-0", tumour_growth.CT, 150, large, "gpu"),
        ("ours-4", tumour_growth.OURS, 12, small, "cpu"),
    ):
        told = tumour_growth.told_of(kind, epochs, size)
        made = {"device": device, "versions": {}}
        methods = {m: scores for m, _ in kind.methods}
        value = {**common, "scores": methods, "made": made, "size": told}
        (tmp_path / "pieces").mkdir(exist_ok=True)
        (tmp_path / "pieces" / f"{name}.json").write_text(json.dumps(value))
    options = tumour_growth.TumourOptions(out=tmp_path)
    found = json.loads(tumour_growth.write(options, tmp_path / "pieces").read_text())
    pieces = found["facts"]["pieces"]
    assert (pieces["ct-0"]["size"]["epochs"], pieces["ct-0"]["size"]["test"]) == (150, 1000)
    own = pieces["ours-4"]["size"]
    assert (own["epochs"], own["test"], own["members"]) == (12, 200, 3)
    assert own["methods"]["ours_growth_ensemble"] == ["growth"] * 3
    assert "size" not in found["facts"]
    assert found["facts"]["not_run"] == [n for n in tumour_growth.ORDER if n not in ("ct-0", "ours-4")]
    assert found["device"] == "gpu (ct-0); cpu (ours-4)"


def test_published_tables():
    """A few cells of each table, and all of them there."""
    known = tumour_published.PUBLISHED
    assert len(known) == 5 * 6 * 11
    assert known[Cell("gamma=3", "crn", "rmse_sliding_6")] == (2.480, 1.078)
    assert known[Cell("gamma=4", "rmsn", "rmse_random_6")] == (0.947, 0.225)
    assert known[Cell("gamma=2", "ct", "rmse_1")] == (0.864, 0.059)
    assert tumour_published.best("gamma=4", "rmse_sliding_6") == 1.436
    assert tumour.DEATH > 0
    assert json.dumps([r.value for r in tumour_published.rows({"gamma=0"})])
