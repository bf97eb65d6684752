"""The media world's commands: what they write, and what they say of tables that cannot be fitted to."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pandas as pd
import pytest

from tests.worlds import untrained
from wmjax import cli
from wmjax.core import files
from wmjax.data.readers import read_panel
from wmjax.report.run import Run
from wmjax.worlds import contract, media
from wmjax.worlds.media.config import SMOKE

TIDY = {"channel", "geo", "mean", "lo", "hi", "unit"}
SCHEMA = """
unit = "geo"
time = "week"
[columns]
tv = { role = "action", kind = "currency" }
radio = { role = "action", kind = "KIND" }
sales = { role = "outcome", kind = "continuous" }
"""
GEOS = {
    "unit": "geo",
    "time": "week",
    "columns": {
        "tv": {"role": "action", "kind": "currency"},
        "radio": {"role": "action", "kind": "currency"},
        "sales": {"role": "outcome", "kind": "continuous"},
    },
}
TINY = ["--members", "2", "--steps", "2", "--epochs", "1", "--seasons", "0", "--network.width", "4"]


@pytest.fixture(scope="module")
def run(geos, media_world, tmp_path_factory):
    found = Run(tmp_path_factory.mktemp("runs") / "m")
    found.claim(geos, SMOKE, 0, overwrite=False)
    media_world.save(found.folder / "world")
    return found.folder


def sold() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    weeks = pd.date_range("2024-01-01", periods=30, freq="W-MON").strftime("%Y-%m-%d")
    table = pd.DataFrame([(g, w) for g in ("north", "south") for w in weeks], columns=["geo", "week"])
    table["tv"], table["radio"] = rng.exponential(10, len(table)), rng.exponential(5, len(table))
    table["sales"] = 100 + 2 * table["tv"] + rng.normal(0, 5, len(table))
    return table


# ---- what is written -------------------------------------------------------------------------------------------------

ASKED = {
    "roi": (["--start", "3", "--periods", "20"], {"quantity", "extrapolated", "no_overlap"}),
    "curves": ([], {"factor", "spend", "roi", "roi_lo", "roi_hi", "extrapolated"}),
    "shift": (
        ["--source", "channel_0", "--target", "channel_1"],
        {"spend", "new_spend", "factor", "extrapolated"},
    ),
    "optimize": (
        ["--move", "within", "--bounds", "channel_0=0.5:2 channel_1@geo_02=1:1"],
        {"spend", "new_spend", "factor", "extrapolated", "low", "high", "bound", "return", "residual"},
    ),
}


@pytest.mark.parametrize("command", ASKED)
def test_every_answer_is_tidy_as_parquet_and_as_json(run, tmp_path, command):
    """The same rows by either name; JSON has the warnings and numbers of the whole beside them."""
    options, more = ASKED[command]
    for name in ("x.json", "x.parquet"):
        cli.main([command, str(run), *options, "--out", str(tmp_path / name)])
    told, table = json.loads((tmp_path / "x.json").read_text()), pd.read_parquet(tmp_path / "x.parquet")
    assert set(table.columns) == TIDY | more
    rows = pd.DataFrame(told["rows"])
    assert list(rows.columns) == list(table.columns)
    pd.testing.assert_frame_equal(rows, table, check_dtype=False, rtol=1e-12)
    assert set(table["geo"]) == {"all", *(f"geo_{at:02}" for at in range(5))}
    assert (table["lo"] <= table["mean"] + 1e-9).all()
    assert (table["mean"] <= table["hi"] + 1e-9).all()
    assert any("observed spend" in line for line in told["warnings"])
    assert told["provenance"]["answer"]["alpha"] == 0.1
    kept = files.read_provenance(tmp_path / "x.parquet")
    assert kept["answer"] == told["provenance"]["answer"]
    assert kept["summary"] == {k: v for k, v in told.items() if k not in ("rows", "provenance")}
    if command == "roi":
        world, panel = Run(run).open("roi")
        want = world.attribute(panel, times=slice(3, 23)).roi.sel(unit="all")
        np.testing.assert_allclose(rows.query("geo == 'all' and quantity == 'roi'")["mean"], want, rtol=1e-6)
        assert f"spend of {str(panel.times[3])[:10]} to {str(panel.times[22])[:10]}" in kept["answer"]["window"]
    if command == "shift":
        assert (told["channel"], told["geo"], told["unit"]) == ("all", "all", "sales")
        assert told["mean"] == rows.query("channel == 'all' and geo == 'all'")["mean"].item()
        assert told["extrapolated"] == bool(rows["extrapolated"].any())
        assert told["no_overlap"] is False
    if command == "optimize":
        assert told["value"] >= told["start"]
        assert told["residual"] == rows["residual"].max()


@pytest.mark.parametrize("words", [["--start", "-1"], ["--periods", "0"], ["--start", "5", "--periods", "999"]])
def test_periods_that_are_not_there_are_refused(run, capsys, words):
    move = ["--source", "channel_0", "--target", "channel_1"]
    for command, more in (("roi", []), ("curves", []), ("shift", move), ("optimize", [])):
        with pytest.raises(SystemExit):
            cli.main([command, str(run), *words, *more])
        assert "the table has periods 0 to" in " ".join(capsys.readouterr().err.split())


def test_answers_go_by_default_into_the_run(run, capsys):
    cli.main(["optimize", str(run), "--bounds", "channel_0=1:1", "--low", "0.9", "--high", "1.1"])
    table = pd.read_parquet(run / "budget.parquet").query("geo == 'all'").set_index("channel")
    assert table.loc["channel_0", "factor"] == pytest.approx(1)
    assert table["low"].tolist()[:3] == [1, 0.9, 0.9]
    out = " ".join(capsys.readouterr().out.split())
    assert "At a bound" not in out
    assert "by the old split, scaled to the budget and moved into the bounds, " in out
    cli.main(["shift", str(run), "--source", "channel_0", "--target", "channel_1"])
    assert len(json.loads((run / "shift_channel_0_channel_1.json").read_text())["rows"]) == 3 * 6


def test_moves_and_budgets_may_be_of_some_periods(run, tmp_path, capsys):
    """As the world itself has them of these; others keep what was spent in them."""
    world, panel = Run(run).open("shift")
    out, when, times = tmp_path / "x.json", ["--start", "4", "--periods", "6"], slice(4, 10)
    cli.main(["shift", str(run), "--source", "channel_0", "--target", "channel_1", *when, "--out", str(out)])
    told = json.loads(out.read_text())
    want = world.shift(panel, "channel_0", "channel_1", 0.1, times=times)
    assert told["mean"] == pytest.approx(want["mean"], rel=1e-5)
    assert told["moved"] == pytest.approx(0.1 * panel.arrays.actions[:, times, 0].sum(), rel=1e-5)
    assert f"of {str(panel.times[4])[:10]} to {str(panel.times[9])[:10]}" in " ".join(capsys.readouterr().out.split())
    cli.main(["optimize", str(run), *when, "--out", str(out)])
    table = pd.DataFrame(json.loads(out.read_text())["rows"]).query("geo == 'all' and channel == 'all'")
    assert table["spend"].item() == pytest.approx(panel.arrays.actions[:, times].sum(), rel=1e-5)
    assert table["new_spend"].item() == pytest.approx(table["spend"].item(), rel=1e-5)


def test_a_budget_in_money_and_from_a_file(run, geos, tmp_path, capsys):
    spend = geos.arrays.actions.sum((1,))
    path = tmp_path / "bounds.csv"
    path.write_text(
        f"channel,geo,low,high\nchannel_0,geo_01,0,{spend[1, 0] / 2}\nchannel_1,,0,{2 * spend[:, 1].sum()}\n"
    )
    out = tmp_path / "b.parquet"
    asked = ["--bounds", str(path), "--money", "--move", "between", "--low", "0.7", "--high", "1.3", "--out", str(out)]
    cli.main(["optimize", str(run), *asked])
    rows = pd.read_parquet(out).set_index(["channel", "geo"])
    at = [f"{channel} in {geo} ({end})" for (channel, geo), end in rows["bound"].items() if end]
    assert at
    assert rows.loc[("channel_0", "geo_01"), "new_spend"] <= spend[1, 0] / 2 * (1 + 1e-6)
    assert rows.loc[("channel_0", "geo_00"), ["low", "high"]].tolist() == [0.7, 1.3]
    np.testing.assert_allclose(rows.loc["channel_1", "high"].iloc[1:], 2, rtol=1e-5)
    told = " ".join(capsys.readouterr().out.split())
    assert f"At a bound: {', '.join(at)}" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["roi", "--out", "x.csv"], "Parquet or JSON"),
        (["optimize", "--bounds", "channel_9=0:1"], "'channel_9', which is no channel"),
        (["optimize", "--bounds", "channel_0"], "cannot read 'channel_0'"),
        (["optimize", "--bounds", "channel_0@geo_00=0:1"], "need geos to move by"),
        (["optimize", "--low", "2", "--high", "1"], "bounds of all channels are 2 to 1"),
        (["optimize", "--budget", "1"], "a budget of 1 cannot be met"),
        (["optimize", "--money"], "--money says that --bounds are amounts, and there are none"),
        (["shift", "--source", "channel_0", "--target", "channel_1", "--share", "2"], "share is 2"),
        (["roi", "--alpha", "90"], "--alpha is 90.0, must lie in (0, 1)"),
        (["curves", "--alpha", "1"], "--alpha is 1.0, must lie in (0, 1)"),
        (["roi", "--start", "999"], "--start 999: the table has periods 0 to"),
    ],
)
def test_wrong_questions_are_one_line(run, capsys, arguments, words):
    with pytest.raises(SystemExit) as stopped:
        cli.main([arguments[0], str(run), *arguments[1:]])
    assert stopped.value.code == 2
    told = capsys.readouterr().err.strip()
    assert words in " ".join(told.split())


# ---- what is read ----------------------------------------------------------------------------------------------------


def test_a_long_table_is_fitted_by_the_command(tmp_path, monkeypatch):
    """The same spend and outcome as the wide table, a row a variable; nothing is trained."""
    wide = sold()
    wide.melt(["geo", "week"], var_name="what", value_name="much").to_csv(tmp_path / "long.csv", index=False)
    head = 'long = { variable = "what", value = "much" }'
    (tmp_path / "s.toml").write_text(head + SCHEMA.replace("KIND", "currency"))
    seen, real = {}, media.fit

    def fit(key, panel, cfg, **options):
        seen["panel"] = panel
        return untrained.fit(real, key, panel, cfg)

    monkeypatch.setattr("wmjax.worlds.media.fit", fit)
    out = tmp_path / "run"
    where = ["--panel", str(tmp_path / "long.csv"), "--schema", str(tmp_path / "s.toml"), "--out", str(out)]
    cli.main(["fit", "media", *where, "--no-placebos", *TINY])
    plain = seen["panel"].schema.plain()
    np.testing.assert_array_equal(seen["panel"].arrays.actions, read_panel(wide, plain).arrays.actions)
    assert set(pd.read_parquet(out / "roi.parquet")["channel"]) == {"tv", "radio"}
    again = read_panel(tmp_path / "long.csv", contract.load(out).schema)
    assert again.fingerprint == seen["panel"].fingerprint


SPOILT = {
    "negative spend": (
        lambda t: t.assign(radio=t["radio"].where(t.index != 33, -1.0)),
        "column 'radio': 1 rows of a currency are negative, first at unit 'south', time 2024-01-22",
    ),
    "negative spend of another kind": (
        lambda t: t.assign(radio=t["radio"].where(t.index != 33, -1.0)),
        "column 'radio': spend is negative in 1 rows, first at unit 'south', time 2024-01-22",
    ),
    "an all-zero channel": (
        lambda t: t.assign(radio=0.0),
        "column 'radio': action is constant (0) in all 60 rows, first at unit 'north', time 2024-01-01",
    ),
    "a channel that begins after the train weeks": (
        lambda t: t.assign(radio=t["radio"].where(t["week"] > "2024-07-01", 0)),
        "column 'radio': no spend in the train periods, only later; its effect cannot be learnt, drop the channel",
    ),
    "an all-zero outcome": (
        lambda t: t.assign(sales=0.0),
        "column 'sales': the outcome is 0 in all train rows; there is nothing to explain",
    ),
    "one week": (
        lambda t: t[t["week"] == "2024-01-01"],
        "val = 0.1 and test = 0.1 take 1 + 1 of 1 periods; none is left to train",
    ),
    "one week of one geo": (
        lambda t: t.head(1),
        "the table has one row, unit 'north', time 2024-01-01; nothing can be learnt from it",
    ),
    "NaN": (
        lambda t: t.assign(sales=t["sales"].mask(t.index == 33)),
        "column 'sales': outcome is missing (NaN) in 1 rows, first at unit 'south', time 2024-01-22",
    ),
    "NaN spend": (
        lambda t: t.assign(tv=t["tv"].mask(t.index == 33)),
        "column 'tv': action is missing (NaN) in 1 rows, first at unit 'south', time 2024-01-22",
    ),
    "dates out of order": (
        lambda t: t.iloc[[*range(33), 34, 33, *range(35, 60)]],
        "time column 'week': 1 rows are unsorted (earlier than the row before them of the same unit), first at unit "
        "'south', time 2024-01-22",
    ),
    "a week twice": (
        lambda t: pd.concat([t.iloc[:34], t.iloc[33:]]),
        "1 rows repeat a unit and time, first at unit 'so",
    ),
    "a date off the calendar": (
        lambda t: t.assign(week=t["week"].mask(t.index == 33, "2024-01-23")),
        "time column 'week': 1 rows are off the weekly calendar (Mondays), first at unit 'south', time 2024-01-23",
    ),
    "gaps everywhere": (
        lambda t: t[t["week"].isin(sorted(set(t["week"]))[::2])],
        "time column 'week': the usual step between a unit's rows is 14 days",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_table_that_cannot_be_fitted_to_is_one_clear_line(tmp_path, capsys, case):
    """Exit code 2, one line with column, unit, time and count where there are any, and the folder stays free."""
    spoil, words = SPOILT[case]
    spoil(sold()).to_csv(tmp_path / "t.csv", index=False)
    kind = "continuous" if case.endswith("another kind") else "currency"
    (tmp_path / "s.toml").write_text(SCHEMA.replace("KIND", kind))
    where = ["--panel", str(tmp_path / "t.csv"), "--schema", str(tmp_path / "s.toml"), "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as stopped:
        cli.main(["fit", "media", *where, *TINY])
    assert stopped.value.code == 2
    told = " ".join(capsys.readouterr().err.split())
    assert words in told
    assert "problems" not in told
    assert not (tmp_path / "run" / "run.json").exists()


def test_weeks_that_a_geo_lacks_are_left_out_of_everything():
    """A gap is masked: no contribution, no spend of it, no prediction."""
    table = sold().drop(index=[10, 11, 40])
    panel = read_panel(table, GEOS)
    assert panel.arrays.mask.sum() == 57
    world = untrained.fit(media.fit, jax.random.key(0), panel, dataclasses.replace(SMOKE, warm=0, window=20))
    got = world.attribute(panel, grid=(1.0,))
    assert float(got.spend.sel(channel="tv", unit="all")) == pytest.approx(table["tv"].sum(), rel=1e-5)
    assert np.isnan(world.predict(panel)["mean"].values).sum() == 3


@pytest.mark.parametrize(("stops", "words"), [("2024-06-17", ["held-out"]), ("2024-05-20", ["held-out", "watched"])])
def test_a_channel_in_train_only_is_fitted_with_a_warning(stops, words):
    """Its effect is learnt; that the weeks held out know nothing of it is said, and of no other channel."""
    table = sold()
    panel = read_panel(table.assign(radio=table["radio"].where(table["week"] < stops, 0)), GEOS)
    world = untrained.fit(
        media.fit, jax.random.key(0), panel, dataclasses.replace(SMOKE, warm=0, window=20, val=4, test=4)
    )
    told = [line for line in world.warnings() if "without any spend in the" in line]
    assert told == [
        f"without any spend in the {part} periods, which so say nothing of them: radio; what is told of their effects "
        "is of the train periods alone"
        for part in words
    ]
    assert not any("without any spend" in line for line in world.warnings(frozenset({"tv"})))
    assert float(world.attribute(panel, grid=(1.0,)).contribution.sel(channel="radio", unit="all")) > 0
