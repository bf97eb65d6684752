import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import norm

import wmjax as wm
from tests.worlds import untrained
from wmjax.core.errors import UserError
from wmjax.core.keys import key_for
from wmjax.core.observe import silent
from wmjax.data import frame as frames
from wmjax.heads import warm
from wmjax.heads.warm import Start
from wmjax.simulate import consumer_panel, consumer_truth
from wmjax.worlds import consumer
from wmjax.worlds.consumer import fitting, judging, machine, support, tables
from wmjax.worlds.consumer import model as pure
from wmjax.worlds.consumer.tables import Question


def test_a_belief_may_be_made_of_ones_own_recipes(panel, cfg, tmp_path):
    world = untrained.fit(
        functools.partial(consumer.fit, recipes=consumer_panel.published_recipes()),
        jax.random.key(0),
        panel,
        dataclasses.replace(cfg, units="bernoulli", skip=False),
    )
    assert world.model.frame.visible.size == 72
    assert world.model.num_features == sum(cfg.machine.hidden)
    assert not any(label.startswith("sale") for label in world.model.frame.visible.labels)
    world.save(tmp_path / "world")
    again = wm.load(tmp_path / "world")
    np.testing.assert_array_equal(again.predict(panel)["mean"], world.predict(panel)["mean"])


def test_answers_carry_names_units_and_dates(world, panel):
    found = world.predict(panel)
    assert dict(found.sizes) == {"outcome": 2, "unit": 96, "time": 70}
    assert list(found.outcome.values) == ["visit", "purchase"]
    assert pd.DatetimeIndex(found.time.values).equals(panel.times)
    assert ((found["mean"] > 0) & (found["mean"] < 1)).all()
    assert (found.lo <= found["mean"]).all()
    assert (found["mean"] <= found.hi).all()
    assert {"seed", "config_fingerprint", "data_fingerprint", "versions"} <= found.attrs["provenance"].keys()


def test_one_member_answers_as_a_numpy_twin(world, panel, cfg):
    """Mean field, adapter and effect of one row, written out in NumPy float64 from the parameters."""
    rows = world.observed(panel)
    at, member = 1234, 1
    machine = jax.tree.map(lambda x: np.asarray(x[member], np.float64), world.params.machine)
    w, (_, c1, c2), v = machine.weights, machine.biases, rows.visible[at].astype(np.float64)
    h1, h2 = np.full(16, 0.5), np.full(8, 0.5)
    for _ in range(cfg.learn.mean_field_sweeps):
        h1 = expit(v @ w[0] + c1 + w[1] @ h2)
        h2 = expit(h1 @ w[1] + c2)
    labels = np.array(world.model.frame.visible.labels)
    memory = np.array(["_lag" in label or "_within_" in label for label in labels])
    assert 0 < memory.sum() < len(labels)
    read = np.r_[h1, h2, v[memory]]
    head = jax.tree.map(lambda x: np.asarray(x[member, 0], np.float64), world.params.adapters)
    x = read @ head["features"]["kernel"] + head["features"]["bias"]
    for layer in ("layer_0", "layer_1"):
        x = np.maximum(x, 0) @ head[layer]["kernel"] + head[layer]["bias"]
    tau = read @ head["tau"]["kernel"] + head["tau"]["bias"]
    actions = rows.actions[at].astype(np.float64)
    push = panel.action_index("push")
    base = x[0] + tau @ np.where(np.arange(5) == push, 0, actions)
    linear, response = world.member_effects(rows, "push", 0, 1)
    np.testing.assert_allclose(linear[member, at, 0], tau[push], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(response[member, at, 0], expit(base + tau[push]) - expit(base), rtol=1e-4, atol=1e-6)


def test_an_effect_keeps_the_belief_and_the_other_actions(world, panel):
    """Predicting with the action set to 1 and to 0 by hand gives the risk difference."""
    push = panel.action_index("push")
    expected = []
    for value in (0.0, 1.0):
        rows = world.observed(panel)
        actions = rows.actions.copy()
        actions[:, push] = value
        expected.append(np.asarray(world._predict(world.params, rows.visible, actions)))
    _, response = world.member_effects(rows, "push", 0, 1)
    np.testing.assert_allclose(response, expected[1] - expected[0], atol=2e-6)


def test_effects_are_antisymmetric_and_vanish_between_equal_values(world, panel):
    there = world.effect(panel, "coupon", 0, 1)
    back = world.effect(panel, "coupon", 1, 0)
    np.testing.assert_allclose(there.effect, -back.effect, atol=1e-6)
    assert (world.effect(panel, "coupon", 1, 1).effect == 0).all()


def test_a_calendar_sale_is_not_identified_and_says_why(world, panel):
    found = world.effect(panel, "sale1", 0, 1)
    assert not found.supported.any()
    (warning,) = found.attrs["warnings"]
    assert "sale1" in warning
    assert "dow" in warning
    pushed = world.effect(panel, "push", 0, 1)
    assert pushed.supported.mean() > 0.95


def test_a_declared_coin_that_is_none_is_told(world, panel):
    """Pushes were drawn by chance, and say so in silence; the same declaration of what the past tells is told."""
    columns = tuple(
        dataclasses.replace(c, randomised=True) if c.name in ("push", "coupon") else c for c in panel.schema.columns
    )
    told = dataclasses.replace(world, schema=dataclasses.replace(world.schema, columns=columns))
    everywhere = np.ones(5, bool)
    assert told.warnings_for("push", everywhere) == world.warnings_for("push", everywhere) == []
    known = {**world.overlap, "push": dataclasses.replace(world.overlap["push"], score=0.8)}
    (line,) = dataclasses.replace(told, overlap=known).warnings_for("push", everywhere)
    assert "push: declared randomised" in line
    assert "0.80" in line


def test_an_action_of_everyone_at_once_is_told_by_its_periods_and_has_no_lags(world, panel):
    seen = panel.arrays.actions[0, world.periods(panel, "train")]
    days = {name: int(seen[:, panel.action_index(name)].sum()) for name in ("sale1", "sale2")}
    assert world.facts["common_actions"] == days
    read = {f.column for f in world.model.frame.features if f.recipe == "lag"}
    assert {"push", "coupon"} <= read
    assert not {"sale1", "sale2"} & read
    # The calendar tells these sales, which is worse; the same sales on days of chance are told by their periods.
    # Rows of one day lie in both folds of its propensity, so that its AUC says nothing against a coin a day.
    chance = dataclasses.replace(world.overlap["sale1"], deterministic=False, score=0.8)
    columns = tuple(dataclasses.replace(c, randomised=c.name == "sale1") for c in panel.schema.columns)
    schema = dataclasses.replace(world.schema, columns=columns)
    free = dataclasses.replace(world, overlap={**world.overlap, "sale1": chance}, schema=schema)
    plan = panel.arrays.actions.copy()
    plan[:, 60:, panel.action_index("sale1")] = 1
    told = (
        free.warnings_for("sale1", np.ones(5, bool)),
        free.compare(jax.random.key(0), panel, plan, panel.arrays.actions, start=60, draws=1).attrs["warnings"],
    )
    say = f"sale1: falls on all units at once; {days['sale1']} train periods"
    for lines in told:
        (line,) = (line for line in lines if line.startswith(say))
        assert "its interval allows for what befell these periods" in line
    blind = dataclasses.replace(free, facts={**free.facts, "luck": False})
    assert any("too narrow, blind to" in line for line in blind.warnings_for("sale1", np.ones(5, bool)))
    assert not any("declared randomised" in line for line in told[0])


def test_a_misspelt_action_is_told_with_near_names(world, panel):
    with pytest.raises(UserError, match=r"no action 'pusch'; did you mean 'push'\?"):
        world.effect(panel, "pusch", 0, 1)


def test_averages_are_means_of_the_rows_and_segments_add_up(world, panel):
    rows = world.effect(panel, "push", 0, 1)
    whole = world.ate(panel, "push", 0, 1).set_index(["outcome", "scale"])
    assert whole.loc[("visit", "response"), "effect"] == pytest.approx(
        float(rows.effect.sel(outcome="visit").where(rows.supported).mean()), rel=1e-4
    )
    parts = world.ate(panel, "push", 0, 1, by="loyalty")
    parts = parts[(parts.outcome == "visit") & (parts.scale == "response")]
    assert set(parts.level) == {"no", "yes"}
    again = np.average(parts.effect, weights=parts.n * parts.supported_share)
    assert whole.loc[("visit", "response"), "effect"] == pytest.approx(again, rel=1e-6)


def test_averages_say_what_a_hidden_cause_would_have_to_be(world, panel):
    """By least squares on the comparable train rows; of segments, and of what chance or a rule decides, none."""
    rows = world.observed(panel, world.periods(panel, "train"))
    at = panel.action_index("push")
    known = world.overlap["push"].supported(support.given(rows, at), 0, 1)
    x = np.column_stack([np.ones(len(rows)), rows.visible, np.delete(rows.actions, at, axis=1)])[known]
    push, y = rows.actions[known, at], rows.outcomes[known]
    both = np.column_stack([x, push])
    rank = np.linalg.matrix_rank(x)
    left_push = push - x @ np.linalg.lstsq(x, push, rcond=None)[0]
    left = y - both @ np.linalg.lstsq(both, y, rcond=None)[0]
    found = world.ate(panel, "push", 0, 1).set_index(["outcome", "scale"])
    for k, outcome in enumerate(panel.outcome_names):
        one = found.loc[(outcome, "response")]
        ratio = (left[:, k] @ left[:, k] / (len(y) - rank - 1)) / (left_push @ left_push / (len(y) - rank))
        # The code counts collinear columns of one-hot groups as columns.
        assert one.robustness**2 / (1 - one.robustness) == pytest.approx(one.effect**2 / ratio, rel=0.01)
        assert (one.robustness_interval == 0) == (one.lo <= 0 <= one.hi)
        assert one.known_columns in {f.name for f in world.model.frame.features if f.column != "push"} | {
            *panel.action_names
        }
    numbers = ["robustness", "robustness_interval", "times_known"]
    assert found.xs("linear", level="scale")[numbers].isna().all(axis=None)
    assert world.ate(panel, "push", 0, 1, by="loyalty")[numbers].isna().all(axis=None)
    columns = tuple(dataclasses.replace(c, randomised=c.name == "push") for c in panel.schema.columns)
    drawn = dataclasses.replace(world, schema=dataclasses.replace(world.schema, columns=columns))
    alone = dataclasses.replace(world, facts={k: v for k, v in world.facts.items() if k != "hidden"})
    for own, action in ((drawn, "push"), (world, "sale1"), (alone, "push")):
        none = own.ate(panel, action, 0, 1)
        assert none[numbers].isna().all(axis=None)
        assert (none["known_columns"] == "").all()


def test_ragged_units_are_not_answered_for(world, panel):
    mask = panel.arrays.mask.copy()
    mask[3, :50] = False
    ragged = dataclasses.replace(panel, arrays=panel.arrays._replace(mask=mask))
    found = world.predict(ragged)
    assert np.isnan(found["mean"].values[:, 3, :50]).all()
    assert np.isfinite(found["mean"].values[:, 3, 50:]).all()
    others = np.arange(96) != 3
    whole = world.predict(panel)["mean"].values
    np.testing.assert_allclose(found["mean"].values[:, others], whole[:, others], rtol=1e-6)


def test_some_periods_alone_read_the_same_history(world, panel):
    late = world.predict(panel, times=slice(60, 70))
    np.testing.assert_allclose(late["mean"], world.predict(panel)["mean"].values[..., 60:], atol=1e-6)


def test_the_future_does_not_reach_the_past(world, panel):
    outcomes = panel.arrays.outcomes.copy()
    outcomes[:, 40:] = 1 - outcomes[:, 40:]
    other = dataclasses.replace(panel, arrays=panel.arrays._replace(outcomes=outcomes))
    was, now = world.predict(panel)["mean"].values, world.predict(other)["mean"].values
    np.testing.assert_array_equal(was[..., :41], now[..., :41])
    assert (was[..., 41:] != now[..., 41:]).any()


def test_rollout_of_the_factual_plan_starts_at_the_prediction(world, panel):
    """The first simulated period reads the observed history, so its means are the predictions of that row."""
    found = world.simulate(jax.random.key(3), panel, panel.arrays.actions, start=65, draws=2)
    assert dict(found.sizes) == {"member": 3, "draw": 2, "outcome": 2, "unit": 96, "time": 5}
    expected = world.predict(panel)["mean"].values[..., 65]
    np.testing.assert_allclose(found["mean"].values[:, 0, :, :, 0].mean(0), expected, atol=1e-5)
    assert set(np.unique(found["drawn"])) <= {0.0, 1.0}


def test_plans_meet_the_same_luck(world, panel):
    """A plan that differs from day 68 on leaves the days before bitwise as they were, and equal plans differ by 0."""
    plan = panel.arrays.actions.copy()
    plan[:, 68:, panel.action_index("push")] = 1
    key = jax.random.key(5)
    a = world.simulate(key, panel, plan, start=60)
    b = world.simulate(key, panel, panel.arrays.actions, start=60)
    np.testing.assert_array_equal(a.drawn.values[..., :8], b.drawn.values[..., :8])
    assert (a["mean"].values[..., 8:] != b["mean"].values[..., 8:]).any()
    same = world.compare(key, panel, panel.arrays.actions, panel.arrays.actions, start=60, draws=1)
    assert (same.difference == 0).all()
    assert same.attrs["warnings"] == []


def test_a_plan_beyond_what_was_seen_comes_with_a_warning(world, panel):
    """Pushes are randomised, a Sunday's sale is a matter of the calendar, and half a push is none."""

    def told(action, value):
        plan = np.array(panel.arrays.actions)
        plan[..., panel.action_index(action)] = value
        found = world.compare(jax.random.key(0), panel, plan, panel.arrays.actions, start=66, draws=1)
        return found.attrs["warnings"]

    assert told("push", 1.0) == []  # too few days for its lags to fill
    assert told("sale1", 1.0)[0].startswith("sale1: not identified")
    with pytest.raises(UserError, match=r"'push': 6,720 actions of the plan are no binary values, first 0\.5"):
        told("push", 0.5)
    daily = np.array(panel.arrays.actions)
    daily[:, 60:, panel.action_index("push")] = 1.0
    (line,) = world.compare(jax.random.key(0), panel, daily, daily, start=60, draws=1).attrs["warnings"]
    assert "push: 6" in line
    assert "had it on at every lag that is read (1, 2, 3, 4), 0." in line


def test_a_rollout_remakes_lags_from_what_it_drew(world, panel):
    """Replaying the drawn outcomes through the frame gives the visible rows that the roll-out must have read."""
    start = 66
    found = world.simulate(jax.random.key(1), panel, panel.arrays.actions, start=start)
    drawn = np.moveaxis(found.drawn.values[0, 0], 0, -1)
    outcomes = panel.arrays.outcomes.copy()
    outcomes[:, start:] = drawn
    told = dataclasses.replace(panel, arrays=panel.arrays._replace(outcomes=outcomes))
    one = jax.tree.map(lambda x: x[0], world.params)
    visible = jnp.asarray(frames.build(world.model.frame, told)[:, -1])
    expected = pure.predict(one, visible, jnp.asarray(panel.arrays.actions[:, -1]), model=world.model)
    np.testing.assert_allclose(found["mean"].values[0, 0, :, :, -1].T, expected, atol=1e-5)


def test_plausibility_ranks_impossible_histories_last(world, panel):
    """Visits within 7 days but not within 14 cannot happen; such rows score worse than the rows they came from."""
    rows = world.observed(panel, world.periods(panel, "train"))
    frame = world.model.frame
    seven, longer = frame.unit("visit_within_7d"), frame.unit("visit_within_14d")
    visible = rows.visible[(rows.visible[:, seven] == 1)][:500].copy()
    before = world._free_energy(visible)
    visible[:, longer] = 0
    assert (world._free_energy(visible) > before).mean() > 0.9
    found = world.plausibility(panel, times=world.periods(panel, "train"))
    assert 0.45 < float(found["rank"].mean()) < 0.55


def test_counterfactual_history_changes_its_own_action_only(world, panel):
    found = world.counterfactual_plausibility(panel, "push", 1.0)
    already = panel.arrays.actions[..., panel.action_index("push")] == 1
    delta = found.delta.values
    assert np.isnan(delta[:, -1]).all()
    assert (delta[:, :-1][already[:, :-1]] == 0).all()
    assert (delta[:, :-1][~already[:, :-1]] != 0).mean() > 0.99


def test_without_a_successor_there_is_no_counterfactual_history(world, panel):
    mask = np.array(panel.arrays.mask)
    mask[3, 60:] = False
    gone = dataclasses.replace(panel, arrays=panel.arrays._replace(mask=mask))
    delta = world.counterfactual_plausibility(gone, "push", 1.0).delta.values
    assert np.isnan(delta[3, 59:]).all()
    assert np.isfinite(delta[3, :59]).all()


def test_an_effect_stays_finite_however_far_the_action_is_moved(world, panel):
    """Against float64; the far value takes the log odds hundreds away."""
    push = panel.action_index("push")
    rows = world.observed(panel)
    for far in (-1e4, 1e4):
        linear, response = world.member_effects(rows, "push", 0, far)
        assert np.isfinite(response).all()
        assert np.abs(linear).max() > 200
        actions = rows.actions.copy()
        actions[:, push] = 0
        before = np.asarray(world._predict(world.params, rows.visible, actions), np.float64)
        certain = np.abs(linear) > 50
        np.testing.assert_allclose((before + response)[certain], (linear > 0)[certain], atol=1e-5)


def test_a_world_is_shown_in_a_line(world):
    assert repr(world).startswith("ConsumerWorld(3 members; actions ")
    assert repr(world).endswith("; outcomes visit, purchase)")


def test_a_binary_action_has_two_values(world, panel):
    with pytest.raises(UserError, match="push: 2 instead of 0 is asked about; give 0 and 1"):
        world.effect(panel, "push", 0, 2)


def test_a_part_of_one_unit_is_refused_before_anything_is_fitted(panel, cfg):
    mask = np.array(panel.arrays.mask)
    mask[1:, -7:] = False
    thin = dataclasses.replace(panel, arrays=panel.arrays._replace(mask=mask))
    with pytest.raises(UserError, match=r"test times hold 7 row\(s\) of 1 unit"):
        consumer.fit(jax.random.key(0), thin, cfg)


def test_a_rows_interval_holds_what_units_differ_by_and_an_average_does_not(world, panel):
    """Squares of half widths add up on the logit scale."""
    told = world.facts["own_effect_sd"]
    assert {(a, o) for a in told for o in told[a]} == set(itertools.product(panel.action_names, panel.outcome_names))
    assert all(np.isfinite(sd) and sd >= 0 for own in told.values() for sd in own.values())

    def asked(sd):
        facts = {**world.facts, "own_effect_sd": {"push": dict.fromkeys(panel.outcome_names, sd)}}
        return dataclasses.replace(world, facts=facts)

    none, some = (asked(sd).effect_interval(panel, "push", 0, 1) for sd in (0.0, 0.5))
    more = 0.5 * norm.ppf(0.95)
    half = lambda found, end: found[f"hi{end}"].values - found["effect" + end].values  # noqa: E731
    np.testing.assert_allclose(half(some, "_linear"), np.hypot(half(none, "_linear"), more), rtol=1e-4)
    for outcome in panel.outcome_names:
        got, was = (found.sel(outcome=outcome) for found in (some, none))
        assert ((got.hi - got.lo) >= (was.hi - was.lo)).where(np.isfinite(got.effect), other=True).all()
    pd.testing.assert_frame_equal(asked(0.5).ate(panel, "push", 0, 1), world.ate(panel, "push", 0, 1))


def test_a_saved_world_gives_the_same_bits(world, panel, tmp_path):
    world.save(tmp_path / "w")
    again = wm.load(tmp_path / "w")
    for name in ("effect", "lo", "hi", "supported"):
        a, b = (w.effect_interval(panel, "push", 0, 1)[name].values for w in (world, again))
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(world.plausibility(panel)["rank"], again.plausibility(panel)["rank"])
    pd.testing.assert_frame_equal(world.training, again.training)
    assert again.provenance == world.provenance


def test_a_killed_fit_goes_on_to_the_same_world(world, panel, cfg, tmp_path):
    """Stop after the machine's first epoch by an error in the observer; the second call ends bitwise where one does."""

    class Stop(Exception):
        pass

    def stop(event):
        if event.stage == "adapters" and event.done == 1:
            raise Stop

    with pytest.raises(Stop):
        consumer.fit(jax.random.key(0), panel, cfg, folder=tmp_path, observer=stop)
    again = consumer.fit(jax.random.key(0), panel, cfg, folder=tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again.params, world.params)


def test_tables_speak_the_users_words(world, panel):
    test = world.periods(panel)
    table = tables.effects(world, panel, Question(action="push", t0=0, t1=1), times=test)
    assert {"consumer_id", "date", "outcome", "effect", "lo", "hi", "supported", "delta", "rank"} <= set(table)
    assert len(table) == 96 * 7 * 2
    predicted = tables.predictions(world, panel, times=test)
    assert len(predicted) == 96 * 7 * 2
    visits = predicted[predicted.outcome == "visit"]
    np.testing.assert_array_equal(visits.observed.to_numpy(), panel.arrays.outcomes[:, 63:, 0].ravel())
    parts = tables.predictions(world, panel).drop_duplicates("date").sort_values("date")["part"].tolist()
    assert parts == ["train"] * (len(parts) - 7 - parts.count("val")) + ["val"] * parts.count("val") + ["test"] * 7
    assert "val" in parts
    assert len(tables.plausibility(world, panel)) == 96 * 70


def test_the_users_mistakes_are_named(world, panel):
    with pytest.raises(UserError, match="no action 'pusch'"):
        world.effect(panel, "pusch", 0, 1)
    with pytest.raises(UserError, match="static column"):
        world.ate(panel, "push", 0, 1, by="visit")
    with pytest.raises(UserError, match="start is 70"):
        world.simulate(jax.random.key(0), panel, panel.arrays.actions, start=70)
    with pytest.raises(UserError, match="no period within"):
        world.periods(panel.select(times=slice(0, 50)), "test")


def test_a_member_is_the_same_in_any_company(world, panel, cfg):
    """Keys are a member's own: the first of three machines equals the only one of a fit of one.

    Sums of floats come in another order in another shape, and learning amplifies that; so the bar is a hundredth of
    the distance between two members; a key that were not the member's own would be off by the whole distance.
    """
    model = dataclasses.replace(world.model, cfg=dataclasses.replace(cfg, members=1))
    rows = {part: world.observed(panel, world.periods(panel, part)) for part in ("train", "val")}
    stages, key = fitting.Stages(None, silent, ""), jax.random.key(0)
    weights = fitting.unit_weights(key_for(key, "bootstrap"), rows["train"], members=cfg.members, bootstrap=True)[:1]
    alone, _, _ = machine.fit_members(
        key_for(key, "machine"),
        rows["train"].visible,
        rows["val"].visible,
        weights=weights,
        model=model,
        stages=stages,
    )
    together = world.params.machine
    for a, b in zip(alone.weights, together.weights, strict=True):
        assert np.linalg.norm(a[0] - b[0]) < 0.01 * np.linalg.norm(b[1] - b[0])


@pytest.mark.parametrize("members", [2, 4, 16])
def test_a_bootstrap_is_balanced_over_the_members(world, panel, members):
    """Each unit counts once on average, and a mean's spread over members is its error (4 sd: false alarms of 1e-4)."""
    rows = world.observed(panel, world.periods(panel, "train"))
    found, rng = [], np.random.default_rng(0)
    for seed in range(100):
        weights = np.asarray(fitting.unit_weights(jax.random.key(seed), rows, members=members, bootstrap=True))
        per_unit = np.array([weights[:, rows.unit == u][:, 0] for u in range(panel.num_units)])
        np.testing.assert_allclose(per_unit.mean(1), 1, atol=1e-5)
        value = rng.normal(size=panel.num_units)
        means = per_unit.T @ value / per_unit.sum(0)
        found.append(means.var(ddof=1) / (value.var() / panel.num_units))
    assert np.mean(found) == pytest.approx(1, abs=4 * np.sqrt(2 / (members - 1) / 100))
    ones = fitting.unit_weights(jax.random.key(0), rows, members=1, bootstrap=True)
    np.testing.assert_array_equal(ones, np.ones((1, len(rows))))


def test_a_greedy_start_trains_one_layer_after_the_other(world, panel, cfg):
    small = dataclasses.replace(cfg.machine, hidden=(6, 4))
    cfg = dataclasses.replace(cfg, members=2, machine=small, pretrain_epochs=1)
    rows = world.observed(panel, world.periods(panel, "val")).visible[:512]
    found, curves = machine.start(
        jax.random.split(jax.random.key(0)),
        jax.numpy.asarray(rows),
        jax.numpy.ones((2, len(rows))),
        model=dataclasses.replace(world.model, cfg=cfg),
        stages=fitting.Stages(None, silent, ""),
    )
    assert [list(c["stage"].unique()) for c in curves] == [["pretraining 1 of 2"], ["pretraining 2 of 2"]]
    assert [w.shape for w in found.weights] == [(2, rows.shape[1], 6), (2, 6, 4)]
    assert all(np.isfinite(w).all() and (w[0] != w[1]).any() for w in map(np.asarray, found.weights))


def test_what_cannot_be_is_refused_before_a_roll_out(world, panel):
    plan = panel.arrays.actions.copy()
    plan[0, -1, 0] = np.nan
    with pytest.raises(UserError, match="not finite"):
        world.simulate(jax.random.key(0), panel, plan, start=panel.num_times - 2)


def test_expected_outcomes_of_bits_and_their_bounds_are_probabilities(world, panel):
    found = world.predict(panel, alpha=0.001)
    lo, hi = (found[name].values[..., panel.arrays.mask] for name in ("lo", "hi"))
    assert (lo >= 0).all()
    assert (hi <= 1).all()
    assert (lo < hi).all()


def test_a_randomised_effect_is_recovered(simulated, world, panel, sim_cfg):
    """Push is a fair lottery; its true mean effect on visits is within twice the half width of a 90 % interval.

    Were the model right that would fail in 3 of 100 panels (t of 2 df beyond 5.8). The half width must also be below
    the effect itself, so that "not zero" could have failed.
    """
    truth = consumer_truth.effect(simulated, "push", "visit", cfg=sim_cfg)
    true = float(np.mean(truth.probability))
    row = world.ate(panel, "push", 0, 1, alpha=0.1).query("outcome == 'visit' and scale == 'response'").iloc[0]
    half = (row.hi - row.lo) / 2
    assert half < row.effect
    assert abs(row.effect - true) < 2 * half


def test_a_world_that_loses_to_the_mean_is_told_of(world, panel):
    split = {name: world.observed(panel, world.periods(panel, name)) for name in ("train", "test")}
    labels = split["test"].outcomes
    good, bad = 0.1 + 0.8 * labels, 0.9 - 0.8 * labels
    told = judging._worse_than_the_mean(panel.outcome_names, world, split, np.stack([good[:, 0], bad[:, 1]], axis=1))
    assert len(told) == 1
    assert told[0].startswith("purchase: on the test rows the world's log loss")


def test_a_rate_far_from_the_expected_one_is_told_of(world, panel):
    """A third more than happened, half and twice are; a tenth more is not."""
    test = world.observed(panel, world.periods(panel))
    rates = test.outcomes.mean(0)

    def told(*factors):
        expected = np.tile(rates * factors, (len(test), 1)).astype(np.float32)
        return judging._off_the_mark(panel.outcome_names, world.model.kinds, test, expected)

    assert told(1.1, 0.95) == []
    assert [line.split(":")[0] for line in told(1.33, 1.1)] == ["visit"]
    assert [line.split(":")[0] for line in told(0.5, 2.0)] == ["visit", "purchase"]
    assert f"{rates[0]:.1%} happened ({int(test.outcomes[:, 0].sum()):,} of {len(test):,} rows" in told(0.5, 1.0)[0]


def test_adapters_begin_with_the_regression_of_their_train_rows(world, panel, cfg, monkeypatch):
    """Taught nothing, they end where they began."""
    cfg = dataclasses.replace(cfg, adapter=dataclasses.replace(cfg.adapter, effect_sd=None))
    days = world.periods(panel, "train")
    rows = world.observed(panel, days)
    effects, asked = jnp.full((2, cfg.members, len(panel.action_names)), 0.7), []

    def told(data, at, kinds):
        asked.append((at.num_units, at.num_periods))
        np.testing.assert_array_equal(at.units, rows.unit)
        np.testing.assert_array_equal(at.periods, rows.time)
        zero = jnp.zeros_like(effects)
        return Start(
            effects, zero, zero, zero, zero, zero[..., None] * effects[0, 0], effects[..., 0], jnp.ones(cfg.members)
        )

    monkeypatch.setattr(warm, "regress", told)
    begun = untrained.fit(consumer.fit, jax.random.key(0), panel, cfg)
    assert asked == [(panel.num_units, days.stop - days.start)]
    np.testing.assert_allclose(begun.params.adapters["tau"]["bias"], effects.swapaxes(0, 1), atol=1e-6)


def test_the_luck_of_periods_widens_the_members_spread_and_leaves_their_mean(panel, cfg, monkeypatch):
    """Nor is there any where steps of a table without times are no periods that units share."""
    cfg = dataclasses.replace(cfg, adapter=dataclasses.replace(cfg.adapter, effect_sd=None))

    def told(data, at, kinds):
        members = len(data.features)
        zero = jnp.zeros((2, members, len(panel.action_names)))
        luck = jnp.broadcast_to(jnp.diag(jnp.arange(5.0) / 10), (*zero.shape, 5)) ** 2
        return Start(zero, zero, zero, zero, zero, luck, zero[..., 0] + 1, jnp.ones(members))

    monkeypatch.setattr(warm, "regress", told)
    timeless = dataclasses.replace(panel, schema=dataclasses.replace(panel.schema, time=None, frequency="step"))
    # Once a whole ensemble, and once each member on its own, as a wide table has it.
    for whose, at_once in ((panel, 2**29), (panel, 1), (timeless, 1)):
        monkeypatch.setattr(fitting, "BELIEF_BYTES", at_once)
        still = untrained.fit(consumer.fit, jax.random.key(0), whose, dataclasses.replace(cfg, bootstrap=False))
        then = np.asarray(still.params.adapters["layer_1"]["bias"])[..., 0]
        assert still.facts["luck"] is False
        np.testing.assert_array_equal(still.params.adapters["tau"]["bias"], 0)
        world = untrained.fit(consumer.fit, jax.random.key(0), whose, cfg)
        lucky = whose is panel
        bias = np.asarray(world.params.adapters["tau"]["bias"])
        np.testing.assert_allclose(bias.mean(0), 0, atol=1e-6)
        want = np.arange(5) / 10 if lucky else np.zeros(5)
        np.testing.assert_allclose(bias.std(0, ddof=1), np.tile(want, (2, 1)), atol=1e-6)
        assert world.facts["luck"] is lucky
        # A member's forecast at the actions' mean stays: what its effects gain its level loses.
        usual = world.observed(whose, world.periods(whose, "train")).actions.mean(0)
        level = np.asarray(world.params.adapters["layer_1"]["bias"])[..., 0]
        np.testing.assert_allclose(level + bias @ usual, then, atol=1e-5)
    alone = untrained.fit(consumer.fit, jax.random.key(0), panel, dataclasses.replace(cfg, members=1))
    np.testing.assert_array_equal(alone.params.adapters["tau"]["bias"], 0)


def test_one_shock_moves_the_effects_that_it_moves_together():
    """Of 4,000 members and three actions, correlated and not; a covariance that chance made negative is none."""
    whole = np.array([[0.04, 0.03, 0.0], [0.03, 0.09, 0.0], [0.0, 0.0, 0.01]])
    adapters = {
        "layer_0": {"bias": jnp.zeros((4000, 2, 1))},
        "tau": {"bias": jnp.zeros((4000, 2, 3))},
    }
    luck = jnp.asarray(np.stack([whole, -whole]), jnp.float32)
    found = fitting.with_luck(jax.random.key(1), adapters, luck, jnp.asarray([1.0, 0.0, 2.0]))
    bias = np.asarray(found["tau"]["bias"])
    np.testing.assert_allclose(np.cov(bias[:, 0], rowvar=False), whole, atol=3e-3)
    np.testing.assert_allclose(bias[:, 0].std(0, ddof=1), np.sqrt(np.diag(whole)), rtol=1e-4)
    np.testing.assert_array_equal(bias[:, 1], 0)
    np.testing.assert_allclose(found["layer_0"]["bias"][:, 0, 0], -bias[:, 0] @ [1, 0, 2], atol=1e-5)


def test_adapters_trained_some_members_at_a_time_begin_as_all_at_once_do(panel, cfg, monkeypatch):
    whole = untrained.fit(consumer.fit, jax.random.key(0), panel, cfg)
    monkeypatch.setattr(fitting, "BELIEF_BYTES", 1)
    apart = untrained.fit(consumer.fit, jax.random.key(0), panel, cfg)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
        whole.params.adapters["tau"],
        apart.params.adapters["tau"],
    )


@pytest.mark.parametrize("part", ["first", "all"])
def test_an_outcome_that_never_varies_in_what_is_learnt_from_is_answered_in_numbers(panel, cfg, part):
    constant = panel.arrays.outcomes.copy()
    constant[..., 0] = 1
    if part == "first":
        constant[:5, -3:, 0] = 0
    still = dataclasses.replace(panel, arrays=panel.arrays._replace(outcomes=constant))
    world = untrained.fit(consumer.fit, jax.random.key(0), still, cfg)
    assert np.isfinite(world.predict(still)["mean"]).all()
