"""The published study at a size that only shows that its stages fit together, stop, go on and write what they found."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from experiments import common, three_in_one
from experiments.common import Cell
from experiments.learners import Learners
from experiments.three_in_one import StudyOptions
from wmjax.baselines.meta import ForestConfig
from wmjax.baselines.meta_networks import MetaConfig
from wmjax.core.observe import Event
from wmjax.dbm import learn, pretrain
from wmjax.dbm.types import DBMConfig
from wmjax.heads.adapter import AdapterConfig
from wmjax.simulate.consumer import ConsumerSimConfig

TINY = three_in_one.Study(
    panel=ConsumerSimConfig(num_consumers=48, num_days=60, start="2025-02-10"),
    val=10,
    test=14,
    machine=DBMConfig(hidden=(6, 4)),
    pretrain_epochs=1,
    epochs=2,
    adapter=AdapterConfig(schedule="plateau", hidden=(4,), epochs=2),
    t_learners=(),
    learners=Learners(
        names=("x_learner", "dr_learner", "r_learner"),
        forests=ForestConfig(trees=2, jobs=1),
        rows=None,
        networks=MetaConfig(network=AdapterConfig(hidden=(4,), epochs=1, batch_size=512, monitor="loss")),
    ),
    seeds=2,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, dict]:
    options = StudyOptions(out=tmp_path_factory.mktemp("study"), size="smoke", without=("dbm_adapter_top",))
    path = three_in_one.main(options, lambda event: None, TINY)
    return options.out, json.loads(path.read_text())


def test_every_use_of_the_belief_is_in_the_table(finished):
    _, result = finished
    cells = {Cell(r["setting"], r["method"], r["quantity"]): r for r in result["rows"]}
    assert cells.keys() >= three_in_one.PUBLISHED.keys()
    for cell, published in three_in_one.PUBLISHED.items():
        assert cells[cell]["reference"] == published
        assert np.isfinite(cells[cell]["value"])
    assert cells[Cell("push", "oracle", "rho_gamma_logit")]["value"] == pytest.approx(1)
    assert result["facts"]["rows"] == {"train": 48 * 36, "val": 480, "test": 672}
    assert np.isfinite(cells[Cell("sale_faithful", "dr_learner", "rho_alpha_prob")]["value"])
    assert Cell("sale_faithful", "dr_learner", "rho_alpha_logit") not in cells
    assert np.isfinite(cells[Cell("push", "r_learner", "root_pehe_prob")]["value"])
    assert cells[Cell("push", "oracle", "pearson_effect_prob")]["value"] == pytest.approx(1)
    assert cells[Cell("clamp_test", "paper", "high_below_low")]["value"] in (0.0, 0.5, 1.0)
    assert result["checks"] == []
    assert (cells[Cell("push", "mlp", "auc_visit")]["ceiling"] or 0) > 0.6


def test_a_killed_study_goes_on_to_the_same_numbers(finished):
    """Without its scores a seed is read again from its checkpoints: no epoch is trained, and no number moves."""
    out, result = finished
    kept = out / "seeds-2" / "seed-0.json"
    before = kept.read_text()
    kept.unlink()
    trained: list[Event] = []
    options = StudyOptions(out=out, size="smoke", without=("dbm_adapter_top",))
    again = three_in_one.main(options, trained.append, TINY)
    assert kept.read_text() == before
    timeless = lambda rows: [r for r in rows if not r["quantity"].startswith("seconds_")]  # noqa: E731
    assert timeless(json.loads(again.read_text())["rows"]) == timeless(result["rows"])
    stages = {e.stage for e in trained if e.unit == "epoch"}
    assert stages == {"fine-tune", "dbm-adapter", "mlp"}
    assert all(e.done == e.total for e in trained if e.unit == "epoch")


def test_machines_go_on_elsewhere_and_methods_can_be_left_out(finished, tmp_path):
    """From the file of machines alone: the same clamps, nothing of what was left out, no claim about it."""
    out, result = finished
    options = StudyOptions(
        out=tmp_path, size="smoke", without=("dbm_adapter_top", "mlp"), machines=out / "seeds-2" / "machines.npz"
    )
    found = json.loads(three_in_one.main(options, lambda event: None, TINY).read_text())
    value = lambda result, *cell: {  # noqa: E731
        (r["setting"], r["method"], r["quantity"]): r["value"] for r in result["rows"]
    }[cell]
    for cell in (("clamp_test", "paper", "clamp_mean"), ("machine", "dbm", "best_epoch")):
        assert value(found, *cell) == pytest.approx(value(result, *cell), rel=1e-5)
    assert {r["method"] for r in found["rows"]}.isdisjoint({"mlp", "s_learner", "dbm_adapter_top"})
    assert found["facts"]["without"] == ["dbm_adapter_top", "mlp"]
    with pytest.raises(common.UserError, match="holds 2 seeds, 3 are asked for"):
        three_in_one.main(dataclasses.replace(options, out=tmp_path / "more", seeds=3), lambda event: None, TINY)


def test_one_learner_can_be_fitted_anew_and_all_else_stays(finished, tmp_path):
    """Of a spoilt table, the rows of the learner that is named are mended, and no others."""
    _, result = finished
    spoilt = [r | {"value": -9.0} if r["method"] in ("dr_learner", "x_learner") else r for r in result["rows"]]
    common.files.write_json(tmp_path / "three_in_one.json", result | {"rows": spoilt})
    stages: list[str] = []
    options = StudyOptions(out=tmp_path, size="smoke", only=("dr_learner",))
    found = json.loads(three_in_one.main(options, lambda e: stages.append(e.stage), TINY).read_text())
    mended = [was if r["method"] == "dr_learner" else r for r, was in zip(spoilt, result["rows"], strict=True)]
    assert found["rows"] == mended
    assert set(stages) == {"learners"}
    assert found["facts"]["parts"][0]["of"] == ["push/dr_learner", "sale_faithful/dr_learner"]
    assert (found["seconds"], found["facts"]["without"]) == (result["seconds"], ["dbm_adapter_top"])
    with pytest.raises(common.UserError, match="its val is 10, that of the new rows 12"):
        three_in_one.main(options, lambda event: None, dataclasses.replace(TINY, val=12))
    for wrong, message in (({"only": ("mlp",)}, "only is"), ({"machines": tmp_path}, "do not go with it")):
        with pytest.raises(ValueError, match=message):
            StudyOptions(**{"out": tmp_path, "only": ("dr_learner",)} | wrong)


def test_another_study_does_not_take_up_the_folder(finished):
    out, _ = finished
    other = dataclasses.replace(TINY, patience=3)
    with pytest.raises(common.UserError, match="another folder"):
        three_in_one.main(StudyOptions(out=out, size="smoke"), lambda event: None, other)


def test_the_full_study_is_the_published_one():
    study = three_in_one.FULL
    assert study.panel == ConsumerSimConfig()
    assert (study.panel.num_consumers, study.panel.num_days, study.val, study.test) == (1024, 365, 30, 30)
    assert study.machine.hidden == (64, 32, 16)
    assert (study.pretraining, study.learning) == (pretrain.PAPER, learn.PAPER)
    assert (study.pretrain_epochs, study.epochs, study.patience) == (100, 300, 20)
    adapter = study.adapter
    assert (adapter.hidden, adapter.dropout, adapter.learning_rate) == ((64, 32, 16), 0.1, 5e-4)
    assert (adapter.batch_size, adapter.epochs, adapter.patience) == (256, 100, 30)
    assert (adapter.schedule, adapter.monitor, adapter.form) == ("plateau", "auc", "mlp")


def test_checks_judge_the_full_size_only():
    rows = common.summarise([three_in_one.PUBLISHED | {Cell("clamp_test", "paper", "high_below_low"): 0.8}])
    assert three_in_one.checks(rows, "smoke") == []
    held = {c.name: c.ok for c in three_in_one.checks(rows, "full")}
    assert held["push, rank of gamma"]
    assert held["sale, rank of beta"]
    assert held["visit AUC of the adapter less the MLP's"]
    assert held["clamp, high beta less low beta"]
    assert not held["clamp, high beta below low beta, share of seeds"]
    assert not held["eligible test rows"]  # not among the published cells
    worse = [dataclasses.replace(r, value=0.1) if r.quantity == "rho_gamma_logit" else r for r in rows]
    assert not {c.name: c.ok for c in three_in_one.checks(worse, "full")}["push, rank of gamma"]


def test_the_command_says_what_it_takes(capsys):
    with pytest.raises(SystemExit) as stopped:
        common.run("experiments.three_in_one", three_in_one.main, ["--help"], kind=StudyOptions)
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert all(option in said for option in ("--out", "--size", "--seeds", "--without"))
