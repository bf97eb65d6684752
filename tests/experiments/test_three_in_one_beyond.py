"""The identified study: learners that are fitted anew join a result that stands."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from experiments import common, three_in_one_beyond
from experiments.common import Cell
from experiments.learners import Learners
from experiments.three_in_one_beyond import BeyondOptions
from wmjax.baselines.meta import ForestConfig
from wmjax.core.errors import UserError
from wmjax.core.observe import silent
from wmjax.simulate.consumer import ConsumerSimConfig

TINY = dataclasses.replace(
    three_in_one_beyond.SMOKE,
    panel=ConsumerSimConfig(num_consumers=48, num_days=60, start="2025-02-10"),
    learners=Learners(names=("x_learner", "dr_learner"), forests=ForestConfig(trees=2, jobs=1)),
)
BEST = Cell("sale_randomised", "best", "root_pehe_prob")


def write(folder, study=TINY):
    rows = common.summarise([{BEST: 0.0}])
    facts = {
        "study": dataclasses.asdict(study),
        "left_out": ["sale_randomised: x_learner", "sale_randomised: dr_learner"],
    }
    common.write_result(
        common.Options(out=folder, size="smoke"), three_in_one_beyond.NAME, rows, seeds=[42], seconds=1.0, facts=facts
    )


def test_a_learner_joins_a_result_that_stands(tmp_path):
    write(tmp_path)
    options = BeyondOptions(out=tmp_path, size="smoke", only=("x_learner",))
    result = json.loads(three_in_one_beyond.main(options, silent, TINY).read_text())
    values = {(r["setting"], r["method"], r["quantity"]): r["value"] for r in result["rows"]}
    assert values[BEST] == 0.0
    assert np.isfinite(values["sale_randomised", "x_learner", "root_pehe_prob"])
    assert {cell[:2] for cell in values} == {BEST[:2], ("sale_randomised", "x_learner")}
    assert result["facts"]["left_out"] == ["sale_randomised: dr_learner"]
    kept = tmp_path / "panel-42" / "x_learner-sale_randomised.json"
    assert result["facts"]["parts"][0]["made"] == [json.loads(kept.read_text())["made"]]
    rows = [common.Row(**r) for r in result["rows"]]
    names = [c.name for c in three_in_one_beyond.checks(rows, "full", TINY)]
    assert "sale_randomised root_pehe_prob less that of x_learner" in names
    assert not any("dr_learner" in name for name in names)


def test_rows_of_another_study_or_of_no_learner_are_refused_before_any_work(tmp_path):
    write(tmp_path, dataclasses.replace(TINY, val=TINY.val + 1))
    options = BeyondOptions(out=tmp_path, size="smoke", only=("x_learner",))
    with pytest.raises(UserError, match="its val is"):
        three_in_one_beyond.main(options, silent, TINY)
    with pytest.raises(UserError, match="placebo: learners are asked in sale_randomised"):
        three_in_one_beyond.main(dataclasses.replace(options, settings=("placebo",)), silent, TINY)
    for wrong in ({"settings": ("push",)}, {"only": ("x_learner",), "settings": ("nowhere",)}):
        with pytest.raises(ValueError, match="settings"):
            BeyondOptions(out=tmp_path, **wrong)
    assert not (tmp_path / "panel-42").exists()
