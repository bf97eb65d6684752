"""A consumer run whose outcomes are a bit, a count and money: its files, its page, and the numbers behind them."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
import pytest

from wmjax import cli
from wmjax.data.readers import read_panel
from wmjax.evaluate.overlap import overlap_table
from wmjax.report import consumer, html, sections
from wmjax.report.inputs import ReportInput
from wmjax.report.run import Run
from wmjax.worlds.consumer import fitting, judging
from wmjax.worlds.consumer.config import ConsumerConfig

SMALL = shlex.split(
    "--members 2 --epochs 1 --machine.hidden 8 --learn.batch-size 64 --learn.num-chains 16 --learn.gibbs-steps 1"
    " --learn.mean-field-sweeps 3 --adapter.hidden 8 --adapter.batch-size 256 --adapter.epochs 1 --adapter.patience 1"
    " --adapter.form additive"
)
SCHEMA = """
unit = "household"
time = "day"
[columns]
region = { role = "static", kind = "categorical" }
push = { role = "action", kind = "binary" }
visit = { role = "outcome", kind = "binary" }
items = { role = "outcome", kind = "count" }
spend = { role = "outcome", kind = "currency" }
"""
UNITS, DAYS = 24, 30


class Fitted(NamedTuple):
    """A finished run and what its page was made from."""

    run: Run
    summary: dict
    page: str


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Fitted:
    folder = tmp_path_factory.mktemp("mixed")
    rng, n = np.random.default_rng(0), UNITS * DAYS
    push = rng.integers(0, 2, n)
    items = rng.poisson(1 + 2 * push)
    days = pd.date_range("2025-03-03", periods=DAYS).strftime("%Y-%m-%d")
    pd.DataFrame(
        {
            "household": np.repeat([f"h{i:02d}" for i in range(UNITS)], DAYS),
            "day": np.tile(days, UNITS),
            "region": np.repeat(np.where(np.arange(UNITS) % 2, "north", "south"), DAYS),
            "push": push,
            "visit": (rng.random(n) < 0.3 + 0.3 * push).astype(int),
            "items": items,
            "spend": items * rng.gamma(4.0, 2.5, n),
        }
    ).to_csv(folder / "panel.csv", index=False)
    (folder / "schema.toml").write_text(SCHEMA)
    out = folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        # One baseline is not trained: each row gets the train rows' mean.
        means = lambda key, train, val, ask, **_: np.tile(train.labels.mean(0), (len(ask.features), 1))  # noqa: E731
        patch.setattr(judging.mlp, "fit_predict", means)
        cli.main(["fit", "consumer", "--panel", str(folder / "panel.csv"), "--schema", str(folder / "schema.toml"),
                  "--out", str(out), "--seed", "3", *SMALL])  # fmt: skip
    page = (out / "report.html").read_text(encoding="utf-8")
    return Fitted(Run(out), json.loads((out / "summary.json").read_text()), page)


def test_an_effect_has_one_row_a_scale(fitted):
    keys = [(e["action"], e["outcome"], e["scale"]) for e in fitted.summary["effects"]]
    assert sorted(keys) == [
        ("push", "items", "outcome"),
        ("push", "spend", "outcome"),
        ("push", "visit", "logit"),
        ("push", "visit", "probability"),
    ]
    assert all(e["lo"] < e["ate"] < e["hi"] for e in fitted.summary["effects"])
    assert consumer.headline(fitted.summary)["outcome"].tolist() == ["visit", "items", "spend"]


def test_segments_are_shown_once_and_on_the_scale_of_the_outcome(fitted):
    table = pd.read_parquet(fitted.run.folder / "segments.parquet")
    shown = consumer.shown_segments(table, fitted.run.panel())
    assert not shown.duplicated(["outcome", "action", "segment", "level"]).any()
    response = table[(table["scale"] == "response") & (table["segment"] != "all")]
    assert shown["effect"].tolist() == response["effect"].tolist()
    assert shown["scale"].tolist() == ["probability"] * 2 + ["outcome"] * 4


def test_averages_tell_how_many_rows_are_supported(fitted):
    table = pd.read_parquet(fitted.run.folder / "segments.parquet").query("segment == 'region'")
    table.loc[table["level"] == "south", "supported_share"] = 0.0
    table.loc[table["level"] == "north", ["n", "supported_share"]] = 40, 0.75
    shown = consumer.averages(table, fitted.run.panel())
    assert set(shown["scale"]) == {"probability", "logit", "outcome"}
    assert (shown.loc[shown["level"] == "south", "supported"] == 0).all()
    assert (shown.loc[shown["level"] == "north", ["supported", "rows"]] == [30, 40]).all(axis=None)


def test_the_page_speaks_of_the_outcomes_units(fitted):
    assert "higher outcome units" not in fitted.page
    assert "lower outcome units" not in fitted.page
    assert "in the outcome&#39;s units" in fitted.page


def test_scores_have_intervals_and_captions_that_say_which_way_is_better(fitted):
    scores = pd.read_parquet(fitted.run.folder / "accuracy.parquet")
    assert np.isfinite(scores[["value", "lo", "hi"]]).all(axis=None)
    drawn = sections.accuracy(ReportInput(accuracy=scores))
    told = {}
    for figure, (_, part) in zip(drawn.figures, scores.groupby(["outcome", "quantity"], sort=False), strict=True):
        told.setdefault(part["quantity"].iloc[0], set()).add(
            ("higher is better" in figure.svg, "lower is better" in figure.svg, "0.5 is chance" in figure.svg)
        )
    assert told == {
        "auc": {(True, False, True)},
        "log_loss": {(False, True, False)},
        "r2": {(True, False, False)},
        "rmse": {(False, True, False)},
    }


def test_unit_effects_are_finite(fitted):
    effects = pd.read_parquet(fitted.run.folder / "effects.parquet")
    assert set(effects["outcome"]) == {"visit", "items", "spend"}
    assert np.isfinite(effects[["effect", "lo", "hi"]]).all(axis=None)
    assert (effects["lo"] <= effects["hi"]).all()


def test_every_source_stands_beside_the_page(fitted):
    named = set(re.findall(r'class="source" href="\./([^"]+)"', fitted.page))
    assert named == {
        "summary.json", "segments.parquet", "effects.parquet", "overlap.parquet", "accuracy.parquet",
        "calibration.parquet", "training.parquet",
    }  # fmt: skip
    assert all((fitted.run.folder / name).exists() for name in named | {name for name, _ in consumer.FILES})
    assert "overlap_table.parquet" in fitted.page


def test_the_files_hold_what_is_drawn_from_them(fitted):
    folder = fitted.run.folder
    pd.testing.assert_frame_equal(
        pd.read_parquet(folder / "overlap_table.parquet"), overlap_table(fitted.run.world().overlap)
    )
    assert {"free_energy", "delta"} <= set(pd.read_parquet(folder / "effects.parquet"))


def test_sources_are_the_files_that_hold_the_numbers(report):
    assert {f.source for f in sections.plausibility(report).figures} == {"effects.parquet"}
    found = sections.overlap(report)
    assert {f.source for f in found.figures} == {"overlap.parquet"}
    assert all("overlap_table.parquet" in f.caption for f in found.figures)
    assert "overlap_table.parquet" in found.tables[0].caption


def test_odd_histories_are_a_share_of_those_that_were_scored(fitted):
    assert consumer.odd_share(pd.DataFrame({"rank": [0.005, 0.5, np.nan, np.nan]})) == 0.5
    assert consumer.odd_share(pd.DataFrame({"rank": [np.nan]})) is None
    ranks = pd.read_parquet(fitted.run.folder / "effects.parquet")["rank"]
    assert ranks.isna().any()  # the last period's
    told = fitted.summary["plausibility"]["counterfactuals odder than 99 % of the train rows"]
    assert told == (ranks.dropna() <= consumer.ODD).mean()


def test_a_page_says_that_no_history_could_be_scored():
    found = sections.plausibility(ReportInput(summary={"plausibility": {"odd counterfactuals": None}}))
    assert [tuple(fact) for fact in found.facts] == [("odd counterfactuals", "none could be scored")]
    assert "none could be scored" in html.render(ReportInput(summary={"plausibility": {"odd": None}}))


def test_the_distribution_is_of_units_with_all_their_rows(fitted, monkeypatch):
    effects = pd.read_parquet(fitted.run.folder / "effects.parquet")
    monkeypatch.setattr(consumer, "SAMPLE", 5)
    drawn = consumer._sample(effects, fitted.run.panel())
    assert set(drawn["outcome"]) == {"visit"}
    mean = drawn.groupby("unit")["effect_probability"].mean()
    assert len(mean) == 5
    whole = effects[effects["outcome"] == "visit"].groupby("household")["effect"].mean()
    np.testing.assert_array_equal(mean, whole[mean.index])


def test_a_seed_that_was_not_given_is_not_made_up(fitted):
    panel, cfg = fitted.run.panel(), ConsumerConfig()
    assert inspect.signature(fitting.fit).parameters["seed"].default is None
    assert fitted.run.world().provenance["seed"] == fitted.summary["provenance"]["seed"] == 3
    key = jax.random.key(7)
    assert fitting.origin(key, None, cfg, panel)["seed"] == jax.random.key_data(key).tolist()
    assert fitting.origin(key, 0, cfg, panel)["seed"] == 0
    json.dumps(fitting.origin(key, None, cfg, panel))


def test_actions_that_were_all_randomised_are_not_called_targeted():
    drawn = {"role": "action", "kind": "binary", "randomised": True, "propensity": 0.5}
    table = pd.DataFrame({"id": [1, 1, 2, 2], "a": [0, 1, 1, 0], "b": [0, 0, 1, 1], "y": [0, 1, 1, 0]})
    for other, told in ((drawn, []), ({"role": "action", "kind": "binary"}, ["Targeted."])):
        columns = {"a": drawn, "b": other, "y": {"role": "outcome", "kind": "binary"}}
        panel = read_panel(table, {"unit": "id", "columns": columns})
        assert consumer.how_chosen(panel, "Targeted.") == told
        own = consumer.how_chosen(panel, "")
        assert len(own) == len(told)
        assert all(line.startswith("b is not declared randomised: this is an effect only if") for line in own)
        assert consumer.columns(panel)["role"].tolist()[0] == "action, randomised"


def test_what_a_weak_cause_could_make_is_warned_of():
    """Of clear averages alone, and where what is needed is weaker than what the table knows."""
    one = {"action": "push", "outcome": "visit", "robustness": 0.03, "robustness_interval": 0.01, "times_known": 0.6}
    rows = [
        {**one, "known_columns": "month"},
        {**one, "known_columns": "month", "outcome": "buy", "times_known": 1.2},
        {**one, "known_columns": "month", "outcome": "spend", "robustness_interval": 0.0},
        {**one, "known_columns": "", "outcome": "rest", "times_known": np.nan, "robustness": np.nan},
    ]
    (line,) = consumer.weak_causes(pd.DataFrame(rows))
    assert line.startswith("push on visit: a hidden cause 0.60 times as strong as month")
