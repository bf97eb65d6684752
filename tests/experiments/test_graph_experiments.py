"""The graph experiments at a size that only shows that they run, go on where they stopped, and write their result."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from experiments import attribution_bypass, common, graph_recovery, support_selection
from experiments.common import Cell, Options
from wmjax.simulate.channel_logs import LogConfig
from wmjax.simulate.channels import sparse_target


@pytest.fixture(scope="module")
def bypass(tmp_path_factory):
    options = Options(out=tmp_path_factory.mktemp("bypass"), size="smoke", seeds=1)
    return options, json.loads(attribution_bypass.main(options, lambda event: None).read_text())


def test_every_decoder_meets_every_graph(bypass):
    _, result = bypass
    cells = {Cell(r["setting"], r["method"], r["quantity"]): r["value"] for r in result["rows"]}
    for trained in attribution_bypass.TRAINED:
        for tested in attribution_bypass.TESTED:
            assert np.isfinite(cells[Cell(f"{trained}>{tested}", "graph_safe", "mse7")])
        # Without a graph nothing travels: all influences tie at exactly 0.
        assert cells[Cell(f"{trained}>none", "graph_safe", "nauprc_target")] == pytest.approx(0, abs=1e-6)
        assert cells[Cell(f"{trained}>oracle", "graph_safe", "nauprc_ancestors")] == pytest.approx(1)
    assert cells[Cell("graph", "full", "density")] == 1
    assert result["checks"] == []
    published = {Cell(r["setting"], r["method"], r["quantity"]): r["reference"] for r in result["rows"]}
    assert published[Cell("hard>oracle", "graph_safe", "nauprc_target")] == 0.894


def test_a_killed_bypass_goes_on_to_the_same_numbers(bypass):
    options, result = bypass
    trained = []
    again = json.loads(attribution_bypass.main(options, trained.append).read_text())
    assert again["rows"] == result["rows"]
    assert all(e.done == e.total for e in trained if e.unit == "epoch")
    other = dataclasses.replace(attribution_bypass.SMOKE, length=18, encoder_rate=1e-3)
    with pytest.raises(common.UserError, match="another folder"):
        attribution_bypass.main(options, lambda event: None, other)


def test_checks_judge_the_full_size_only():
    rows = common.summarise([dict(attribution_bypass.PUBLISHED)])
    assert attribution_bypass.checks(rows, "smoke") == []
    held = {c.name: c.ok for c in attribution_bypass.checks(rows, "full")}
    assert held["oracle: influence follows the graph"]
    assert held["hard, swapped to the oracle graph"]
    assert not held["none: influence is no attribution"]  # not among the published cells


def test_supports_are_chosen_scored_and_kept(tmp_path):
    study = dataclasses.replace(
        support_selection.SMOKE,
        cells={
            "sparse_target/small": sparse_target(**support_selection.DECOYS, shops=20, times=36, nodes=5),
            "log_style/small": LogConfig(shops=20, times=36, nodes=5, graphs=1),
        },
    )
    options = support_selection.Options(out=tmp_path, size="smoke")
    one = dataclasses.replace(options, only="log_style/small")
    support_selection.main(one, lambda event: None, study)
    assert [p.name for p in tmp_path.iterdir()] == ["log_style-small"]
    with pytest.raises(common.UserError, match="'log_style'"):
        support_selection.main(dataclasses.replace(options, only="log_style"), lambda event: None, study)
    first = json.loads(support_selection.main(options, lambda event: None, study).read_text())
    cells = {Cell(r["setting"], r["method"], r["quantity"]): r for r in first["rows"]}
    for setting in study.cells:
        for method in ("selected", "fixed_features", "true_features"):
            assert 0 <= cells[Cell(setting, method, "fdr")]["value"] <= 1
        assert cells[Cell(setting, "selected", "nauprc_target")]["n"] == 2
    kept = tmp_path / "log_style-small" / "seed-1.json"
    stamp = kept.stat().st_mtime_ns
    again = json.loads(support_selection.main(options, lambda event: None, study).read_text())
    assert kept.stat().st_mtime_ns == stamp
    assert again["rows"] == first["rows"]


def test_the_referee_finds_the_parents():
    """With the true curves and the true demand, 60 shops and strong edges leave no doubt."""
    cfg = sparse_target(**(support_selection.DECOYS | {"target_strength": 0.5}), shops=60)
    world = support_selection.make(0, cfg)
    t = support_selection.true_features(world)
    parent = world.graph[:-1, -1] > 0
    assert t[parent].min() > 8
    assert np.abs(t[~parent]).max() < 5
    # A false alarm above 5 in five t values has probability 3e-6.


def test_recovery_keeps_its_pieces_and_runs_what_is_asked(tmp_path):
    options = graph_recovery.Options(out=tmp_path, size="smoke", only="/neural_granger, base/linear_granger")
    first = json.loads(graph_recovery.main(options, lambda event: None).read_text())
    assert {r["method"] for r in first["rows"]} == {"neural_granger", "linear_granger"}
    assert all(0 <= r["value"] <= 1 for r in first["rows"])
    done = []
    again = json.loads(graph_recovery.main(options, done.append).read_text())
    assert done == []
    assert again["rows"] == first["rows"]
    assert list(again["facts"]["pieces"]) == ["base/neural_granger", "base/linear_granger"]
    with pytest.raises(common.UserError, match="'/granger'"):
        graph_recovery.main(dataclasses.replace(options, only="/granger"), lambda event: None)


def test_dice_has_to_stay_above_both_forms_on_four_of_five_seeds():
    def scores(dice, mended, quirks):
        values = {"dice": dice, "causalmmm": mended, "causalmmm_quirks": quirks}
        return {Cell("base", method, "final20_auroc"): value for method, value in values.items()}

    found = [scores(0.9, 0.8, 0.7), scores(0.9, 0.7, 0.8), scores(0.8, 0.7, 0.7), scores(0.7, 0.6, 0.6)]
    for last, held in ((scores(0.7, 0.8, 0.6), True), (scores(0.7, 0.6, 0.8), True)):
        (check,) = graph_recovery.checks(graph_recovery.gains([*found, last]), "full")
        assert (check.value, check.ok) == (4, held)
    (check,) = graph_recovery.checks(graph_recovery.gains([*found[1:], last, last]), "full")
    assert (check.value, check.ok) == (3, False)
    # A piece that is missing is no win.
    unfinished = graph_recovery.gains([{k: v for k, v in found[0].items() if k.method != "causalmmm"}])
    assert graph_recovery.checks(unfinished, "full") == []
