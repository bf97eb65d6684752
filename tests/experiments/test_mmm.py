"""The pieces of the media experiments: the truth they ask for, the scores, the tables they read."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pandas as pd
import pytest

from experiments import media_methods, mmm_public, mmm_recovery, peers_mmm, public_tables
from experiments.common import Cell, Options
from wmjax.baselines import bayesian_mmm
from wmjax.baselines import media as regressions
from wmjax.baselines.media import MediaTable
from wmjax.core.errors import UserError
from wmjax.report.run import Run
from wmjax.simulate import media as simulated

SIZE = mmm_recovery.SMALLEST


@pytest.fixture(scope="module")
def asked():
    return mmm_recovery.ask(0, 2.0, SIZE)


@pytest.fixture(scope="module")
def true(asked):
    return media_methods.truth(asked)


def test_the_truth_is_the_simulators(asked, true):
    """ROI in the train weeks, from the simulator's own media; float32 sums of outcomes of 100 in 96 rows."""
    train = asked.split.train
    media = (asked.sim.outcome - asked.sim.without)[:, train].sum()
    assert (true.roi[0] * asked.cost).sum() == pytest.approx(media, rel=1e-3)
    np.testing.assert_allclose(true.outcome, asked.sim.outcome, rtol=1e-5)


def test_the_truth_scores_perfectly_and_twice_the_truth_does_not(asked, true):
    cell = lambda q: Cell("s", "m", q)  # noqa: E731
    got = mmm_recovery.score("s", "m", true, true, asked)
    assert got[cell("roi_mdape")] == 0
    assert got[cell("marginal_roi_mape")] == 0
    assert got[cell("shift_sign_right")] == 1
    assert got[cell("shift_wape")] == 0
    assert got[cell("holdout_r2")] == pytest.approx(1, abs=1e-6)
    double = true._replace(roi=2 * true.roi, marginal=1.5 * true.marginal, shift=-2 * true.shift)
    got = mmm_recovery.score("s", "m", double, true, asked)
    assert got[cell("roi_mdape")] == pytest.approx(1)
    assert got[cell("share_mae")] == pytest.approx(0, abs=1e-6)
    assert got[cell("total_media_ratio")] == pytest.approx(2)
    assert got[cell("marginal_roi_mdape")] == pytest.approx(0.5)
    assert got[cell("shift_sign_right")] == 0
    assert got[cell("shift_mdape")] == pytest.approx(3)
    assert got[cell("shift_wape")] == pytest.approx(3)


def test_the_marginal_return_is_the_simulators_own_slope(asked, true):
    """Beside a central difference of 2 % in float64 on the host; its error is of the order of the square of that."""
    train = asked.split.train
    sim, carry = asked.sim, asked.cfg.carry

    def media(channel, factor):
        spend = np.array(sim.spend)
        spend[:, train, channel] *= factor
        return np.asarray(simulated.combined(sim.truth, spend, np, carry))[:, train].sum()

    want = [(media(k, 1.02) - media(k, 0.98)) / 0.04 / asked.cost[k] for k in range(len(asked.cost))]
    np.testing.assert_allclose(true.marginal[0], want, rtol=2e-3)


@pytest.mark.parametrize("method", ["ols", "adstock_hill"])
def test_a_regression_is_asked_as_it_was_fitted(asked, method):
    table = media_methods.table_of(asked, SIZE.world)
    fitted = getattr(regressions, method)(table)
    found = media_methods.by_regression(fitted, asked)
    np.testing.assert_allclose(found.outcome, fitted.respond(table.spend), rtol=2e-4)


def test_one_answer_has_no_interval():
    assert all(np.isnan(end).all() for end in media_methods.interval(np.ones((1, 3))))
    lo, hi = media_methods.interval(np.linspace(0, 1, 101)[:, None])
    np.testing.assert_allclose((lo, hi), [[0.05], [0.95]])


def test_the_study_has_its_methods_in_every_setting():
    study = mmm_recovery.settings(mmm_recovery.FULL, 5)
    strengths, away = [f"confounding={x}" for x in (2, 0, 4, 1)], ["other_world", "other_series"]
    assert list(study) == [*strengths, "feedback", "synergy", "hidden", "one_series", "twenty seeds", *away]
    for name in strengths:
        assert {"media_alpha0", "media_priors", "numpyro_mmm", "ols"} <= set(study[name].seeds)
    assert study["confounding=2"].seeds["media_free"] == 2
    assert "media_free" not in study["confounding=0"].seeds
    assert mmm_recovery.ask(0, size=SIZE, **study["one_series"].change).panel.num_units == 1
    assert study["one_series"].seeds == dict.fromkeys(("ols", "adstock_hill", "media", "media_many", "numpyro_mmm"), 20)
    for name, units in zip(away, (SIZE.sim.num_geos, 1), strict=True):
        asked = mmm_recovery.ask(0, size=SIZE, **study[name].change)
        assert asked.panel.num_units == units
        assert mmm_recovery.STRANGE.items() <= dataclasses.asdict(asked.cfg).items()
        assert {*study[name].seeds.values()} == {20}
    for name in ("feedback", "synergy", "hidden"):
        changed = mmm_recovery.ask(0, size=SIZE, **study[name].change)
        assert getattr(changed.cfg, name) > 0
        assert not np.allclose(changed.sim.outcome, mmm_recovery.ask(0, 2.0, SIZE).sim.outcome)


def test_pieces_are_read_again_only_where_they_answer_what_is_asked(tmp_path, monkeypatch):
    """One of another model is worked out anew; another's sampler is not read."""
    count = []
    own = media_methods.Found(*(np.ones(s) for s in ((1, 2), (1, 2), (1, 2, 9), (1, 2, 2), (3, 40))))
    monkeypatch.setattr(mmm_recovery, "run_method", lambda *_: (count.append(1), (own, {}))[1])
    options, change = Options(out=tmp_path, size="smoke"), {"confounding": 2.0}
    for _ in range(2):
        got = mmm_recovery.piece(options, 0, "2", change, "ols", SIZE)
    assert len(count) == 1
    assert got == mmm_recovery.files.read_json(tmp_path / "pieces" / "2-0-ols.json")
    monkeypatch.setattr(mmm_recovery, "MODEL", mmm_recovery.MODEL + 1)
    mmm_recovery.piece(options, 0, "2", change, "ols", SIZE)
    assert len(count) == 2
    longer = SIZE._replace(sampler=dataclasses.replace(SIZE.sampler, samples=6))
    assert mmm_recovery.owner_of(change, "numpyro_mmm", SIZE) != mmm_recovery.owner_of(change, "numpyro_mmm", longer)
    bent = {"confounding": 2.0, "hidden": 0.5}
    assert mmm_recovery.owner_of(bent, "ols", SIZE) != mmm_recovery.owner_of({**bent, "hidden": 0.4}, "ols", SIZE)


def run(work, options, *, anew=False):
    """Give a study's result, and its rows by setting, method and quantity; `anew` takes kept pieces away first."""
    for path in (options.out / "pieces").iterdir() if anew else ():
        path.unlink()
    told = json.loads(work(options).read_text())
    return told, {(r["setting"], r["method"], r["quantity"]): r["value"] for r in told["rows"]}


def test_methods_run_anew_are_put_into_the_table_that_stands(tmp_path, monkeypatch):
    """Their rows alone change, comparisons seed by seed included; the table says that they came later."""
    by = [1.0]

    def run_method(method, seed, asked, *_):
        worth = by[0] * (2.0 if method == "ols" else 1.1) * np.ones((1, 2))
        shapes = (1, 2), (1, 2, 9), (1, 2, 2)
        marginal, curve, shift = (np.ones(s) for s in shapes)
        return media_methods.Found(worth, marginal, curve, shift, asked.panel.arrays.outcomes[..., 0]), {}

    monkeypatch.setattr(mmm_recovery, "run_method", run_method)
    options = mmm_recovery.StudyOptions(out=tmp_path, size="smoke")
    _, before = run(mmm_recovery.work, options)
    by[0] = 1.5
    chosen = ("media", "ols", "numpyro_mmm", "numpyro_mmm_errors")
    again = dataclasses.replace(options, only=chosen)
    second, after = run(mmm_recovery.work, again, anew=True)
    assert before.keys() == after.keys()
    assert {key[1] for key in before if before[key] != after[key]} == {*chosen}
    assert {group.split("/")[1] for group in second["facts"]["parts"][0]["of"]} == {*chosen}
    # Anew means that no kept piece is told of others.
    assert {path.stem.split("-")[-1] for path in (tmp_path / "pieces").iterdir()} == {*chosen}
    third, _ = run(mmm_recovery.work, dataclasses.replace(options, only=("media_priors",)))
    assert [len(part["of"]) for part in third["facts"]["parts"]] == [len(second["facts"]["parts"][0]["of"]), 1]
    with pytest.raises(ValueError, match="only is"):
        dataclasses.replace(options, only=("prophet",))
    # Compared with what is named with it, in the settings that are named.
    fewer = dataclasses.replace(options, only=("media", "ols"))
    main, better = "confounding=2", "seeds_better_than_numpyro_mmm"
    _, fourth = run(mmm_recovery.work, fewer)
    assert (main, "media", better) not in fourth
    assert (main, "media", "seeds_better_than_ols") in fourth
    fifth = dataclasses.replace(options, only=(*fewer.only, "numpyro_mmm"), settings=(main,))
    told, rows = run(mmm_recovery.work, fifth)
    assert (main, "media", better) in rows
    assert {group.split("/")[0] for group in told["facts"]["parts"][-1]["of"]} == {main}
    assert told["facts"]["settings"] == third["facts"]["settings"]
    # A result that knows no other world yet takes it in; one whose other world is another does not.
    young = {**told, "rows": [r for r in told["rows"] if r["setting"] != "other_world"]}
    known = {name: own for name, own in told["facts"]["settings"].items() if "other" not in name}
    young["facts"] = {**told["facts"], "settings": known}
    (tmp_path / "mmm_recovery.json").write_text(json.dumps(young))
    sixth = dataclasses.replace(fewer, settings=("other_world",))
    grown, _ = run(mmm_recovery.work, sixth)
    assert grown["facts"]["settings"].keys() == {*known, "other_world"}
    assert grown["facts"]["settings"]["other_world"]["seeds"] == {"ols": 1, "media": 1}
    grown["facts"]["settings"]["other_world"]["change"]["delay"] = 1.0
    (tmp_path / "mmm_recovery.json").write_text(json.dumps(grown))
    with pytest.raises(mmm_recovery.UserError, match="other_world is"):
        mmm_recovery.work(sixth)
    for wrong in (("ols",), ("media",), ("numpyro_mmm", "ols")):
        with pytest.raises(ValueError, match="only lacks"):
            dataclasses.replace(options, only=wrong)
    with pytest.raises(ValueError, match="settings are"):
        dataclasses.replace(fewer, settings=("confounding=9",))
    with pytest.raises(UserError, match="its seeds is"):
        mmm_recovery.work(dataclasses.replace(again, seeds=2))


def test_a_sampler_whose_chains_disagree_is_refused_and_enters_no_mean(asked, true, monkeypatch):
    plain = dataclasses.replace(SIZE.world, errors_in_variables=False)
    fitted = bayesian_mmm.fit(jax.random.key(0), media_methods.table_of(asked, plain), settings=SIZE.sampler)
    monkeypatch.setattr(bayesian_mmm, "fit", lambda *_, **__: fitted)
    strict = dataclasses.replace(SIZE.sampler, most_rhat=0.5)
    found, told = media_methods.run_method("numpyro_mmm", 0, asked, true, SIZE.world, strict)
    assert found is None
    assert "R-hat" in told["refused"]
    scores = mmm_recovery.scores_of("s", "numpyro_mmm", {"rows": [], "told": told}, SIZE)
    assert set(scores) == {Cell("s", "numpyro_mmm", f"sampler_{q}") for q in ("rhat", "ess", "divergent")}
    many = mmm_recovery.scores_of("twenty seeds", "numpyro_mmm", {"rows": [], "told": told, "roi": []}, SIZE)
    assert len(many) == len(scores)
    scores |= {Cell("s", "media", "roi_mdape"): 0.11, Cell("s", "ols", "roi_mdape"): 0.2}
    better, half = (Cell("s", "media", f"seeds_{words}_ols") for words in ("better_than", "half_of"))
    assert mmm_recovery.wins("s", scores) == {better: 1.0, half: 0.0}
    assert mmm_recovery.wins("s", scores | {Cell("s", "media", "roi_mdape"): 0.1}) == {better: 1.0, half: 1.0}
    kept, told = media_methods.run_method("numpyro_mmm", 0, asked, true, SIZE.world, SIZE.sampler)
    assert kept is not None
    assert not told["refused"]


def test_a_long_table_is_read_and_its_mediator_kept_out(tmp_path):
    weeks = [str(d.date()) for d in pd.date_range("2024-01-01", periods=12, freq="W-MON")]
    rng = np.random.default_rng(0)
    names = ("Sales", "TV", "price", "awareness")
    rows = [(w, n, 1 + rng.random()) for w in weeks for n in names]
    pd.DataFrame(rows, columns=["Period", "VariableName", "VariableValue"]).to_csv(
        tmp_path / "national_mff.csv", index=False
    )
    truth = {
        "channels": ["TV"],
        "true_contribution": {"TV": 5.0},
        "notes": {"roles": {"price": "precision", "awareness": "mediator"}},
    }
    (tmp_path / "national_truth.json").write_text(json.dumps(truth))
    got = mmm_public.national(tmp_path)
    assert got.panel.action_names == ("TV",)
    wide = pd.DataFrame(rows, columns=["week", "name", "value"]).pivot_table("value", "week", "name", aggfunc="sum")
    for name in names:
        np.testing.assert_array_equal(got.panel.values(name)[0], wide[name].to_numpy(np.float32))
    assert [str(t.date()) for t in got.panel.times] == weeks
    assert got.panel.schema.column("awareness").future == "mediator"
    from wmjax.worlds.media import prepare

    quiet = dataclasses.replace(got.cfg, trend=False, seasons=0)
    scales = prepare.fit_scales(got.panel, np.ones(12, bool), quiet)
    assert prepare.covariates(got.panel, quiet, scales).shape[-1] == 1
    with pytest.raises(UserError, match="mmm_roas_data"):
        mmm_public.roas(tmp_path)


def test_drawn_tables_have_the_columns_of_the_public_ones(tmp_path):
    """Every setting reads them, and what channels brought is what was drawn."""
    folder = public_tables.draw(tmp_path / "drawn")
    read = {name: setting(folder) for name, setting in mmm_public.SETTINGS.items()}
    assert read["MMM_Data"].panel.num_units == 4
    assert read["geo_media"].panel.num_units == 3
    spend = read["national_mff"].panel.arrays.actions[0].sum(0)
    np.testing.assert_allclose(read["national_mff"].contribution, public_tables.RETURN * spend, rtol=1e-5)
    both = read["mmm_roas_data"].panel.arrays.actions[0].sum(0)
    np.testing.assert_allclose(read["mmm_roas_data"].contribution, public_tables.RETURN * both, rtol=1e-5)
    with pytest.raises(UserError, match="--data"):
        mmm_public.work(mmm_public.PublicOptions(out=tmp_path))


def test_tables_read_anew_are_put_into_the_result_that_stands(tmp_path, monkeypatch):
    by = [1.0]

    def run_method(setting, method, seed, asked, *_):
        roi = by[0] * np.ones((1, asked.panel.arrays.actions.shape[2]))
        return media_methods.NOTHING._replace(roi=roi, outcome=by[0] + asked.panel.arrays.outcomes[..., 0]), {}

    monkeypatch.setattr(mmm_public, "run_method", run_method)
    options = mmm_public.PublicOptions(out=tmp_path, size="smoke")
    _, before = run(mmm_public.work, options)
    by[0] = 2.0
    _, after = run(mmm_public.work, dataclasses.replace(options, only=("MMM_Data",)), anew=True)
    assert before.keys() == after.keys()
    assert {key[0] for key in before if before[key] != after[key]} == {"MMM_Data"}
    assert after["MMM_Data", "ols", "holdout_r2"] < before["MMM_Data", "ols", "holdout_r2"]
    with pytest.raises(ValueError, match="only is"):
        dataclasses.replace(options, only=("geo",))
    with pytest.raises(UserError, match="the smoke size has none of geo_media"):
        mmm_public.work(dataclasses.replace(options, only=("geo_media",)))


@pytest.fixture
def some_tables(tmp_path):
    """Twenty weeks of the national table and of the one of two channels, in their own forms."""
    weeks = [str(d.date()) for d in pd.date_range("2024-01-01", periods=20, freq="W-MON")]
    rng = np.random.default_rng(0)
    roles = {"price": "precision", "demand": "confounder", "moon": "irrelevant", "awareness": "mediator"}
    rows = [(w, n, 1 + rng.random()) for w in weeks for n in ("Sales", "TV", "Radio", *roles)]
    pd.DataFrame(rows, columns=["Period", "VariableName", "VariableValue"]).to_csv(
        tmp_path / "national_mff.csv", index=False
    )
    truth = {"channels": ["TV", "Radio"], "true_contribution": {"TV": 5.0, "Radio": 2.0}, "notes": {"roles": roles}}
    (tmp_path / "national_truth.json").write_text(json.dumps(truth))
    small = pd.DataFrame({n: 1 + rng.random(20) for n in ("y", "x1", "x2", "trend", "y01", "y02")})
    small.assign(date=weeks).to_csv(tmp_path / "mmm_roas_data.csv", index=False)
    return tmp_path


@pytest.mark.parametrize("setting", ["national_mff", "national_confounders", "mmm_roas_data"])
def test_peers_read_what_our_methods_are_shown(some_tables, setting):
    table, own = peers_mmm.read(some_tables, setting), mmm_public.SETTINGS[setting](some_tables)
    assert tuple(table.channels) == own.panel.action_names
    shown = [n for n in own.panel.covariate_names if own.panel.schema.column(n).future != "mediator"]
    assert table.controls == shown
    for name in (*table.channels, *table.controls):
        np.testing.assert_allclose(table.frame[name], own.panel.values(name)[0], rtol=1e-6)
    np.testing.assert_allclose(table.frame[table.outcome], own.panel.arrays.outcomes[0, :, 0], rtol=1e-6)
    assert own.contribution is not None
    np.testing.assert_allclose(table.truth, own.contribution)


def test_roles_choose_the_controls(some_tables):
    names = lambda s: peers_mmm.read(some_tables, s).controls  # noqa: E731
    assert names("national_all_controls") == ["price", "demand", "moon", "awareness"]
    assert names("national_mff") == ["price", "demand", "moon"]
    assert names("national_confounders") == ["price", "demand"]


def test_peers_scores_and_their_way_into_the_table(tmp_path):
    truth = np.array([1.0, 4.0])
    draws = truth * np.array([1.5, 0.5]) + np.linspace(-0.6, 0.6, 101)[:, None]
    got = peers_mmm.score(draws, truth, ["tv", "radio"])
    assert got["roas_mape"] == got["contribution_mape"] == pytest.approx(0.5)
    assert got["contribution_error.tv"] == pytest.approx(0.5)
    assert got["contribution_error.radio"] == pytest.approx(-0.5)
    assert got["coverage90"] == 0.5
    options = mmm_public.PublicOptions(out=tmp_path)
    asked = peers_mmm.options_of(["--peer", "meridian", "--data", "d", "--out", str(tmp_path)])
    told = peers_mmm.result("meridian", "national_mff", {**got, "seconds": 3.0}, version="2.1.0", options=asked)
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "meridian-national_mff.json").write_text(json.dumps(told))
    rows, made = mmm_public.peers(options.out)
    assert mmm_public.common.value_of(rows, Cell("national_mff", "meridian", "roas_mape")) == pytest.approx(0.5)
    assert made["meridian-national_mff"]["versions"]["meridian"] == "2.1.0"


def test_halves_of_chains_that_drift_apart_do_not_agree():
    rng = np.random.default_rng(0)
    sound = rng.normal(size=(4, 1000, 2))
    assert (np.abs(peers_mmm.split_rhat(sound) - 1) < 0.01).all()
    drift = sound + np.linspace(0, 3, 1000)[:, None] * np.array([0, 1])
    found = peers_mmm.split_rhat(drift)
    assert found[0] < 1.01
    # Halves' means lie 1.5 apart, 0.75 to each side (0.643 over eight parts); within is 1 and a ramp's 1.5^2 / 12.
    assert found[1] == pytest.approx(np.sqrt(499 / 500 + 0.643 / 1.1875), abs=0.03)


def test_errors_by_channel_are_those_of_what_was_found(some_tables):
    public = mmm_public.SETTINGS["national_mff"](some_tables)
    cost = mmm_public.ask(public).cost
    got = mmm_public.by_channel("s", "m", public, list(np.array([6.0, 1.0]) / cost))
    assert got[Cell("s", "m", "contribution_error.TV")] == pytest.approx(0.2)
    assert got[Cell("s", "m", "contribution_error.Radio")] == pytest.approx(-0.5)
    assert got[Cell("s", "m", "contribution_mape")] == pytest.approx(0.35)


def test_a_lag_is_the_outcome_before_where_it_was_seen():
    outcome = np.array([[1.0, 2.0, 0.0, 4.0, 9.0]])
    observed = np.array([[True, True, False, True, True]])
    train = np.array([[True, True, False, True, False]])
    got = mmm_public.lagged(MediaTable(np.ones((1, 5, 1)), np.zeros((1, 5, 0)), outcome, train, 2), observed)
    mean = 7 / 3
    np.testing.assert_allclose(got.covariates[0, :, 0], [mean, 1, 2, mean, 4])


def test_tables_without_truth_are_read_as_declared(tmp_path):
    """The three tables that the command line is run on, a few weeks each in their own columns."""
    weeks = [str(d.date()) for d in pd.date_range("2024-01-01", periods=30, freq="W-MON")]
    rng = np.random.default_rng(0)
    random = lambda *names: {n: 1 + rng.random(30) for n in names}  # noqa: E731
    spends = [f"Channel{k}_spend" for k in range(4)]
    controls = ("competitor_activity_score_control", "sentiment_score_control")
    geo = pd.DataFrame({"time": weeks, **random(*spends, *controls, "conversions", "revenue_per_conversion")})
    geo = pd.concat([geo.assign(geo=f"g{g}", population=100.0 * g) for g in (1, 2)])
    geo.to_csv(tmp_path / "geo_media.csv", index=False)
    columns = ("tv_S", "ooh_S", "print_S", "facebook_S", "search_S", "facebook_I", "search_clicks_P", "newsletter")
    weekly = pd.DataFrame({"DATE": weeks, **random(*columns, "competitor_sales_B", "revenue"), "events": "na"})
    weekly.to_csv(tmp_path / "dt_simulated_weekly.csv", index=False)
    example = pd.DataFrame({"date_week": weeks, **random("x1", "x2", "y"), "event_1": 0, "event_2": 0, "t": 1})
    example.to_csv(tmp_path / "mmm_example.csv", index=False)
    panels = {s: mmm_public.SETTINGS[s](tmp_path).panel for s in mmm_public.REPORTED}
    assert panels["geo_media"].num_units == 2
    first = geo[geo.geo == "g1"]
    want = first["conversions"] * first["revenue_per_conversion"]
    np.testing.assert_allclose(panels["geo_media"].arrays.outcomes[0, :, 0], want, rtol=1e-6)
    assert panels["dt_simulated_weekly"].schema.column("facebook_I").future == "mediator"
    assert panels["dt_simulated_weekly"].action_names == ("tv_S", "ooh_S", "print_S", "facebook_S", "search_S")
    assert panels["mmm_example"].covariate_names == ("event_1", "event_2")


def test_a_table_is_fitted_and_reported_as_the_commands_do(some_tables):
    """A page and the files behind it, and returns that the page's own table holds."""
    public = mmm_public.SETTINGS["mmm_roas_data"](some_tables)
    cfg = dataclasses.replace(SIZE.world, test=4, val=0, network=dataclasses.replace(SIZE.world.network, carry=2))
    asked = mmm_public.ask(public._replace(cfg=cfg))
    found, told = mmm_public.by_command(0, asked, cfg, some_tables / "runs" / "x")
    assert {"report.html", "roi.parquet", "curves.parquet", "placebos.parquet", "run.json"} <= set(told["files"])
    assert told["report_kb"] > 50
    assert found.outcome.shape == (1, 20)
    assert found.roi.shape == (1, 2)
    assert (found.roi > 0).all()
    # Rolled out, the world is told no outcome that was held out, as it is one step ahead; what came before it knows.
    world, panel = Run(some_tables / "runs" / "x" / "run").open("report")

    def told_other(week):
        outcomes = np.array(panel.arrays.outcomes)
        outcomes[:, week] *= 2
        other = dataclasses.replace(panel, arrays=panel.arrays._replace(outcomes=outcomes))
        return mmm_public.rolled(world, asked._replace(panel=other)), world.predict(other)["mean"].to_numpy()[0]

    (rolled, ahead), (late, late_ahead), (early, _) = (told_other(week) for week in ([], 17, 15))
    np.testing.assert_array_equal(rolled, late)
    assert not np.array_equal(ahead[:, 18:], late_ahead[:, 18:])
    assert not np.array_equal(rolled[:, 16:], early[:, 16:])
