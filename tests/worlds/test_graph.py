import dataclasses
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import wmjax as wm
from wmjax import cli
from wmjax.core.errors import UserError
from wmjax.data.readers import read_panel
from wmjax.data.schema import Column, PanelSchema
from wmjax.graph.decoder import DecoderConfig
from wmjax.graph.support import SupportConfig
from wmjax.report import graph_page
from wmjax.report.run import Run
from wmjax.sweep import axes, store
from wmjax.worlds import certifying, graph, sweeping
from wmjax.worlds.graph import GraphConfig, fitting, judging
from wmjax.worlds.graph import model as pure
from wmjax.worlds.sweeping import Setting

CFG = GraphConfig(
    support=SupportConfig(decays=(0.3, 0.7), shapes=(2.0,), halves=(1.0,), components=3, draws=30, common=False),
    decoder=DecoderConfig(hidden=6, embedding=2, horizon=3, first=8, stride=8),
    members=2,
    epochs=25,
    batch_size=8,
    learning_rate=2e-2,
)
UNITS, TIMES, START = 30, 40, 33


def table():
    """Two channels and sales: `tv` acts on sales a day later, `radio` on nothing."""
    rng = np.random.default_rng(0)
    x = np.full((UNITS, TIMES, 3), 4.0)
    for t in range(1, TIMES):
        x[:, t] = 4 + 0.5 * (x[:, t - 1] - 4) + 0.4 * rng.normal(size=(UNITS, 3))
        x[:, t, 2] += 0.8 * (x[:, t - 1, 0] - 4)
    rows = x.reshape(-1, 3)
    days = pd.date_range("2026-01-01", periods=TIMES)
    frame = pd.DataFrame(rows, columns=["tv", "radio", "sales"])
    frame.insert(0, "day", np.tile(days, UNITS))
    frame.insert(0, "shop", np.repeat(np.arange(UNITS), TIMES))
    return frame


SCHEMA = PanelSchema(
    unit="shop",
    time="day",
    columns=(
        Column(name="tv", role="action", kind="currency"),
        Column(name="radio", role="action", kind="currency"),
        Column(name="sales", role="outcome", kind="continuous"),
    ),
)


@pytest.fixture(scope="module")
def panel():
    return read_panel(table(), SCHEMA)


@pytest.fixture(scope="module")
def world(panel):
    return graph.fit(jax.random.key(0), panel, CFG)


def test_the_graph_that_acts_is_chosen_and_claimed(world):
    found = world.graph()
    assert list(found.sender.values) == ["tv", "radio", "sales"]
    assert float(found.edge.sel(sender="tv", receiver="sales")) == 1
    assert float(found.t.sel(sender="tv", receiver="sales")) == float(found.t.max())
    assert float(found.stability.sel(sender="tv", receiver="sales")) == 1
    assert world.claims().tolist() == [[1.0], [0.0]]


def test_nothing_travels_without_an_edge(world, panel):
    radio = world.effect(panel, "radio", 2.0, 6.0)
    assert np.all(radio.effect.to_numpy() == 0.0)
    assert "no path" in radio.attrs["warnings"][0]
    tv = world.effect_interval(panel, "tv", 3.0, 5.0)
    assert tv.effect.dims == ("outcome", "unit", "time")
    assert 0.3 < float(tv.effect.mean()) < 2.2  # truth: 1.6
    assert (tv.lo <= tv.effect).all()
    found = world.influence(panel)
    assert float(found.ar_cig.sel(sender="radio", receiver="sales")) == 0
    assert float(found.ar_cig.sel(sender="tv", receiver="sales")) > 0


def test_plans_differ_by_the_plan_alone(world, panel):
    key, actions = jax.random.key(3), panel.arrays.actions
    base = world.simulate(key, panel, actions, start=START, draws=2)
    assert dict(base.sizes) == {"member": 2, "draw": 2, "outcome": 1, "unit": UNITS, "time": TIMES - START}
    more = np.array(actions)
    more[:, START + 2 :, 0] += 1.0
    lifted = world.simulate(key, panel, more, start=START, draws=2)
    gap = (lifted.drawn - base.drawn).to_numpy()
    assert np.all(gap[..., :3] == 0)
    assert gap[..., 3:].mean() > 0.1
    other = np.array(actions)
    other[:, START:, 1] += 5.0
    np.testing.assert_array_equal(world.simulate(key, panel, other, start=START, draws=2).drawn, base.drawn)
    noise = (base.drawn - base["mean"]).to_numpy().std((1, 2, 3, 4)) / np.asarray(world.params.scale.sd[0, 2])
    np.testing.assert_allclose(noise, np.asarray(world.params.noise)[:, 0], rtol=0.15)


def test_the_pure_function_is_what_a_world_runs(world, panel):
    values = np.concatenate([panel.arrays.actions, panel.arrays.outcomes], -1)
    own = jax.tree.map(lambda a: a[1], world.params)
    key = jax.random.split(jax.random.key(3), (2, 1, UNITS))[1, 0, 4]
    found = jax.jit(lambda p, h, plan: pure.simulate(key, p, h, plan, model=world.model))(
        own, values[4, :START], values[4, START:, :2]
    )
    whole = world.simulate(jax.random.key(3), panel, panel.arrays.actions, start=START)
    np.testing.assert_allclose(whole.drawn[1, 0, 0, 4], found.drawn[:, 0], rtol=1e-4)


def test_predictions_see_the_past_only(world, panel):
    found = world.predict(panel)
    assert np.isnan(found["mean"][:, :, 0]).all()
    error = (found["mean"][0].to_numpy() - panel.arrays.outcomes[..., 0])[:, 1:]
    assert error.std() < 0.9 * panel.arrays.outcomes.std()
    changed = np.array(panel.arrays.actions)
    changed[:, 20:] += 3.0
    other = world.predict(panel.with_actions(changed))["mean"]
    np.testing.assert_array_equal(other[:, :, 1:21], found["mean"][:, :, 1:21])
    surprise = world.plausibility(panel, changed)
    assert float(surprise.surprise[:, 20].mean()) > 3 * float(surprise.surprise[:, 1:20].mean())
    assert float(surprise["rank"][:, 20].mean()) < 0.1


def test_a_swap_lists_error_beside_influence(world, panel):
    found = world.swap(panel).set_index("graph")
    assert found.loc["none", "nauprc_target"] == pytest.approx(0, abs=1e-6)
    assert found.loc["selected", "nauprc_target"] == 1
    assert found.loc["selected", "mse"] < found.loc["none", "mse"]
    assert found.loc["full", "density"] == 1


def test_a_saved_world_answers_alike(world, panel, tmp_path):
    world.save(tmp_path / "world")
    again = wm.load(tmp_path / "world")
    assert again.model == world.model
    for name, value in world.graph().data_vars.items():
        np.testing.assert_array_equal(again.graph()[name], value)
    np.testing.assert_array_equal(again.predict(panel)["mean"], world.predict(panel)["mean"])
    assert again.facts == world.facts


def test_the_certificate_passes_a_world_that_keeps_to_its_graph_and_fails_one_that_does_not(world, panel):
    kept = certifying.certify(world, panel)
    assert not kept.bypass
    assert kept.along == 1
    assert kept.skill > 0
    # The same decoders under the full graph still claim the chosen support, and move along other edges.
    loose = jnp.broadcast_to(1 - jnp.eye(3), world.params.graph.shape)
    escaped = dataclasses.replace(world, params=world.params._replace(graph=loose))
    assert certifying.certify(escaped, panel).along < 1
    shut = dataclasses.replace(world, params=world.params._replace(graph=0 * loose))
    found = certifying.certify(shut, panel)
    assert found.reasons == ("none of the 1 claimed pairs moves",)
    assert found.kept == pytest.approx(1, abs=1e-4)
    declared = certifying.certify(world, panel, claims={"radio": ["sales"]})
    assert declared.along == 0


def test_tables_that_do_not_fit_are_refused(panel):
    with pytest.raises(UserError, match="5 units"):
        graph.fit(jax.random.key(0), panel.select(units=panel.units[:5]), CFG)
    gaps = table().drop(index=[3])
    with pytest.raises(UserError, match="1 of 30 units have periods without a row, first unit 0 at 2026-01-04;"):
        graph.fit(jax.random.key(0), read_panel(gaps, SCHEMA), CFG)
    with pytest.raises(UserError, match="8 of the 9 periods"):
        graph.fit(jax.random.key(0), panel.select(times=slice(0, 9)), CFG)


def test_the_command_fits_certifies_and_says_no(tmp_path, capsys):
    table().to_parquet(tmp_path / "shops.parquet")
    (tmp_path / "schema.toml").write_text(SCHEMA.to_toml())
    # The module's own configuration, whose programs are compiled already.
    same = (
        "--support.decays 0.3 0.7 --support.shapes 2.0 --support.halves 1.0 --support.components 3 --support.draws 30"
    )
    same += " --support.no-common --decoder.hidden 6 --decoder.embedding 2 --decoder.horizon 3 --decoder.first 8"
    same += " --decoder.stride 8 --members 2 --epochs 25 --batch-size 8 --learning-rate 0.02"
    run = tmp_path / "run"
    asked = {"--panel": tmp_path / "shops.parquet", "--schema": tmp_path / "schema.toml", "--out": run}
    cli.main(["fit", "graph", *(str(word) for pair in asked.items() for word in pair), *same.split()])
    assert {"sender", "receiver", "edge", "ar_cig"} <= set(pd.read_parquet(run / "graph.parquet").columns)
    cli.main(["certify", str(run)])
    assert json.loads((run / "certificate.json").read_text())["bypass"] is False
    (tmp_path / "claims.toml").write_text('radio = ["sales"]\n')
    with pytest.raises(SystemExit) as stopped:
        cli.main(["certify", str(run), "--claims", str(tmp_path / "claims.toml")])
    assert stopped.value.code == 1
    assert json.loads((run / "certificate.json").read_text())["bypass"] is True
    assert "outside the claims" in "".join(capsys.readouterr())


@pytest.fixture(scope="module")
def run(world, panel, tmp_path_factory):
    """A finished run's folder."""
    folder = tmp_path_factory.mktemp("run")
    Run(folder).claim(panel, CFG, 0, overwrite=False)
    world.save(folder / "world")
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["predict"],
        ["plausibility"],
        ["effect", "--action", "tv"],
        ["curves"],
        ["roi"],
        ["shift", "--source", "tv", "--target", "radio"],
    ],
)
def test_commands_of_other_worlds_are_one_line(run, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([words[0], str(run), *words[1:]])
    assert stopped.value.code == 2
    told = capsys.readouterr().err.strip()
    assert "this is a graph world, which answers report, certify" in told.replace("\n", " ")
    assert f"`wmjax {words[0]}` is for a" in told.replace("\n", " ")


def test_the_report_shows_the_graph_the_matrices_and_the_swap(run, world, panel):
    """Every chosen edge stands in a picture's words and a table; what is written beside is what the page shows."""
    cli.main(["report", str(run), "--title", "What acts on what?"])
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<h1>What acts on what?</h1>" in page
    assert page.count("<svg") >= 5
    pairs, swap = pd.read_parquet(run / "graph.parquet"), pd.read_parquet(run / "swap.parquet")
    assert len(pairs) == 3 * 2
    chosen = pairs[pairs["edge"] == 1]
    assert f"{len(chosen)} edge{'s' * (len(chosen) != 1)} chosen" in page
    assert "tv → sales" in page
    assert "radio: the data choose no path from it to an outcome" in page
    for name in swap["graph"]:
        assert name in page
    pd.testing.assert_frame_equal(
        pairs[["sender", "receiver", "t", "ar_cig"]],
        graph_page.edges(world, panel)[["sender", "receiver", "t", "ar_cig"]],
    )


def test_the_readmes_lines_run_as_written(world, panel, tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    *_, block = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    world.save(tmp_path / "runs" / "g" / "world")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"wm": wm, "panel": panel})


def test_few_units_make_as_many_updates_as_many_do(monkeypatch, panel):
    """An eighth of the training units at most is an update; a smaller batch that is asked for is kept."""
    sizes = []

    def told(*args, **options):
        sizes.append(options["batch_size"])
        raise InterruptedError

    monkeypatch.setattr(fitting, "LearnConfig", told)
    for asked in (32, 2):
        with pytest.raises(InterruptedError):
            graph.fit(jax.random.key(0), panel, dataclasses.replace(CFG, batch_size=asked))
    assert sizes == [26 // 8, 2]


def test_the_command_sweeps_from_the_first_test_period(run, panel, capsys):
    words = ["sweep", str(run), "--grid", "tv=3,5 radio=4,5", "--reduce", "gain.full", "--out", str(run / "s.zarr")]
    with pytest.raises(SystemExit):
        cli.main([*words, "--start", "39"])
    assert "the panel ends with this one" in " ".join(capsys.readouterr().err.split())
    cli.main(words)  # by two processes: `test_sweep_commands`
    gain = store.read(run / "s.zarr")["gain"]
    assert "summed over the periods asked for and 1 after them" in gain.attrs["long_name"]
    assert (gain.sel(tv=5, radio=4) > gain.sel(tv=3, radio=4)).all()
    assert (gain.sel(radio=5) == gain.sel(radio=4)).all()
    last = pd.Timestamp(Run(run).world().facts["test"][0])
    assert panel.times[store.read(run / "s.zarr").attrs["provenance"]["setting"]["start"]] == last


def test_a_certificate_says_what_it_is_of_and_another_table_has_its_own(run, panel, tmp_path, capsys):
    cli.main(["certify", str(run), "--size", "1.0"])
    own = (run / "certificate.json").read_text()
    told = json.loads(own)["provenance"]
    assert {"seed", "config", "config_fingerprint", "schema_fingerprint", "data_fingerprint", "versions"} <= set(told)
    assert told["answer"]["panel_fingerprint"] == told["data_fingerprint"] == panel.fingerprint
    assert told["answer"]["cfg"]["size"] == 1.0
    # A table whose sales stand still at the end: no change is then a perfect forecast.
    still = table()
    still.loc[still["day"] >= still["day"].max() - pd.Timedelta(days=7), "sales"] = 4.0
    still.to_parquet(tmp_path / "still.parquet")
    words = ["certify", str(run), "--panel", str(tmp_path / "still.parquet")]
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2
    assert "name a file with --out" in capsys.readouterr().err.replace("\n", " ")
    cli.main([*words, "--out", str(tmp_path / "c.json")])
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["skill"] is None
    assert found["bypass"] is False
    assert found["provenance"]["answer"]["panel_fingerprint"] != told["data_fingerprint"]
    assert (run / "certificate.json").read_text() == own


def test_held_out_errors_are_those_by_hand(world, panel):
    found = pd.DataFrame(world.facts["accuracy"]).set_index(["horizon", "model"])["rmse"]
    actual = np.asarray(panel.arrays.outcomes[..., 0], np.float64)
    start = world.facts["train_periods"]
    ahead = world.predict(panel)["mean"].sel(outcome="sales").to_numpy()
    rmse = lambda error: float(np.sqrt(np.mean(np.square(error))))  # noqa: E731
    assert found["next", "world"] == pytest.approx(rmse((ahead - actual)[:, start:]))
    assert found["next", "no change"] == pytest.approx(rmse(np.diff(actual, axis=1)[:, start - 1 :]))
    assert found["rolled", "no change"] == pytest.approx(rmse(actual[:, start:] - actual[:, start - 1, None]))
    assert found["rolled", "mean"] == pytest.approx(rmse(actual[:, start:] - actual[:, :start].mean(1)[:, None]))
    # The channel is known in the test periods, so the world beats both, rolled on as well.
    assert found["rolled", "world"] < min(found["rolled", "mean"], found["rolled", "no change"])
    assert world.facts["warnings"] == []


def test_a_world_that_forecasts_nothing_says_so_in_every_answer(panel, tmp_path):
    frame = table()
    # Sales that wander: a decoder of two epochs is far behind no change.
    frame["sales"] = frame.groupby("shop")["sales"].cumsum()
    wandering = read_panel(frame, SCHEMA)
    lost = graph.fit(jax.random.key(0), wandering, dataclasses.replace(CFG, epochs=2))
    assert "it has not learnt this outcome" in lost.facts["warnings"][0]
    assert lost.facts["warnings"][0] in lost.effect_interval(wandering, "tv", 3.0, 5.0).attrs["warnings"]
    asked = sweeping.sweep(
        lost, wandering, axes.axis("tv", [3.0, 5.0]), key=jax.random.key(1), setting=Setting(start=START, periods=3)
    )
    assert asked.attrs["provenance"]["warnings"].count(lost.facts["warnings"][0]) == 1
    lost.save(tmp_path / "w")
    assert wm.load(tmp_path / "w").facts == lost.facts


def test_a_table_that_cannot_be_fitted_leaves_the_run_that_it_would_overwrite(run, tmp_path, capsys):
    frame = table()
    frame.drop(index=frame.index[5]).to_parquet(tmp_path / "gap.parquet")
    (tmp_path / "s.toml").write_text(SCHEMA.to_toml())
    words = ["--panel", str(tmp_path / "gap.parquet"), "--schema", str(tmp_path / "s.toml"), "--out", str(run)]
    with pytest.raises(SystemExit):
        cli.main(["fit", "graph", *words, "--overwrite"])
    assert "periods without a row" in " ".join(capsys.readouterr().err.split())
    assert (run / "world" / "world.json").exists()


def test_columns_that_are_not_read_are_named():
    frame = table().assign(price=1.0)
    schema = dataclasses.replace(
        SCHEMA, columns=(*SCHEMA.columns, Column(name="price", role="covariate", kind="currency"))
    )
    found = graph.fit(jax.random.key(0), read_panel(frame, schema), dataclasses.replace(CFG, epochs=1))
    assert "not read, as the graph world knows nodes alone: price" in found.facts["warnings"]


def test_a_column_that_stands_still_is_refused():
    frame = table().assign(radio=lambda f: f["shop"] * 1.0)
    with pytest.raises(UserError, match="'radio': no unit's value ever changes in the 36 training periods"):
        graph.fit(jax.random.key(0), read_panel(frame, SCHEMA), CFG)


@pytest.mark.parametrize(("blown", "says"), [(np.inf, "beyond all bounds"), (1e15, "errs by")])
def test_a_roll_out_that_blows_up_is_told_and_loses_nothing(world, panel, monkeypatch, tmp_path, blown, says):
    usual = type(world).simulate

    def one_unit_goes(self, *args, **options):
        found = usual(self, *args, **options).copy(deep=True)
        found["mean"][:, :, :, 3] = blown
        return found

    monkeypatch.setattr(type(world), "simulate", one_unit_goes)
    found = judging.accuracy(world, panel)
    (line,) = judging.warnings(found, panel.num_units)
    assert says in line
    facts = dict(world.facts) | {"accuracy": fitting._plain(found)}
    dataclasses.replace(world, facts=facts).save(tmp_path / "w")
    assert wm.load(tmp_path / "w").facts == facts


def test_worlds_as_good_as_a_mean_are_seldom_warned_of():
    """Twelve units, 400 outcomes whose world errs as a mean does: 5 % of 400 at most, 36 with odds of 1e-3."""
    rng = np.random.default_rng(0)
    error = rng.chisquare(4, (400, 3, 12))
    rows = [
        {"outcome": str(at), "horizon": horizon, "model": name, "rmse": e.mean() ** 0.5, "worse": np.mean(own[0] > e)}
        for at, own in enumerate(error)
        for horizon in judging.HORIZONS
        for name, e in zip(judging.MODELS, own, strict=True)
    ]
    assert len(judging.warnings(pd.DataFrame(rows), 12)) <= 35
