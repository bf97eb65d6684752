"""What experiments share: averages over seeds, strict JSON, Markdown, exit codes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from experiments import common
from experiments.common import Cell, Check, Options

A, B = Cell("push", "adapter", "rho"), Cell("sale", "adapter", "rho")


def test_rows_average_over_the_seeds_that_have_a_number():
    seeds = [{A: 1.0, B: 5.0}, {A: 2.0, B: math.nan}, {A: 4.0}]
    first, second = common.summarise(seeds, reference={A: 0.5}, ceiling={B: 9.0})
    assert (first.value, first.n, first.reference, first.ceiling) == (pytest.approx(7 / 3), 3, 0.5, None)
    assert first.sd == pytest.approx(np.std([1, 2, 4], ddof=1))
    assert (second.value, second.sd, second.n, second.ceiling) == (5.0, None, 1, 9.0)
    assert common.value_of([first, second], B) == 5.0
    assert common.value_of([first], B) is None


def test_a_cell_without_any_number_is_kept_and_empty():
    (row,) = common.summarise([{A: math.nan}])
    assert (row.value, row.sd, row.n) == (None, None, 0)


@pytest.mark.parametrize(("value", "held"), [(0.5, True), (0.49, False), (0.71, False), (None, False)])
def test_checks_hold_within_their_band(value, held):
    assert Check("rho", value, 0.5, 0.7).ok is held


def test_a_result_is_strict_json_and_a_table(tmp_path):
    options = Options(out=tmp_path, size="smoke")
    rows = common.summarise([{A: 0.25, B: 1234.5}, {A: 0.75, B: 1234.5}], reference={A: 0.6})
    checks = [Check("rho within its band", 0.5, 0.4, 0.7), Check("mean above zero", None, 0.0, math.inf)]
    path = common.write_result(options, "toy", rows, seeds=[0, 1], seconds=3.21, checks=checks)
    result = json.loads(path.read_text(), parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))
    assert {"name", "command", "device", "versions", "seeds", "seconds", "rows"} <= result.keys()
    assert result["rows"][0] == {
        "setting": "push",
        "method": "adapter",
        "quantity": "rho",
        "value": 0.5,
        "sd": pytest.approx(0.35355, abs=1e-5),
        "n": 2,
        "reference": 0.6,
        "ceiling": None,
    }
    assert [c["ok"] for c in result["checks"]] == [True, False]
    text = (tmp_path / "toy.md").read_text()
    assert "| rho | adapter | 0.5 ± 0.3536 | 0.6 |  |" in text
    assert "the numbers mean nothing" in text
    assert "| mean above zero |  | 0 |  | **no** |" in text


def test_rows_made_anew_take_the_place_of_their_own(tmp_path):
    """All rows of a setting's method are replaced where they stood, others stay, and claims are judged anew."""
    options, mlp, gone = Options(out=tmp_path), Cell("push", "mlp", "rho"), Cell("push", "adapter", "gone")
    study = {"panel": {"seed": 42}, "val": 30}
    with pytest.raises(common.UserError, match="there is no result"):
        common.standing(options, "toy", seeds=[0], study=study)
    first = common.summarise([{A: 0.5, mlp: 2.0, gone: 1.0}])
    common.write_result(options, "toy", first, seeds=[0], seconds=9.0, facts={"study": study, "left_out": ["B"]})
    for wrong, message in (({"seeds": [0, 1]}, "its seeds is"), ({"study": {"val": 14}}, "its val is 30")):
        with pytest.raises(common.UserError, match=message):
            common.standing(options, "toy", **{"seeds": [0], "study": study} | wrong)
    assert common.standing(options, "toy", seeds=[0], study=study)["seconds"] == 9.0
    common.write_scores(tmp_path / "kept.json", "owner", {A: 0.75})
    path = common.revise(
        options,
        "toy",
        common.summarise([{A: 0.75, B: 3.0}]),
        kept=[tmp_path / "kept.json"],
        checks=lambda rows: [Check("less", common.value_of(rows, A), 0.0, common.value_of(rows, mlp) or 0.0)],
        facts=lambda rows, old: {"left_out": old["left_out"][1:]},
    )
    result = json.loads(path.read_text())
    values = [((r["setting"], r["method"], r["quantity"]), r["value"]) for r in result["rows"]]
    assert values == [(A, 0.75), (mlp, 2.0), (B, 3.0)]
    assert result["checks"] == [{"name": "less", "value": 0.75, "low": 0.0, "high": 2.0, "ok": True}]
    assert (result["seconds"], result["seeds"], result["facts"]["left_out"]) == (9.0, [0], [])
    (part,) = result["facts"]["parts"]
    assert part["of"] == ["push/adapter", "sale/adapter"]
    assert part["made"] == [common.origin()]
    assert f"Put in later: adapter (push, sale) by `toy` on {common.device()}" in (tmp_path / "toy.md").read_text()
    assert common.parts(result, {"mlp"}) == ""


def test_a_users_error_is_one_line_and_code_2(tmp_path, capsys):
    def work(options, observer):
        raise common.UserError("no such panel")

    assert common.run("experiments.toy", work, ["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.strip().endswith("error: no such panel")


def test_the_clock_adds_what_earlier_commands_spent(tmp_path):
    first = common.Clock(tmp_path).read()
    common.files.write_json(tmp_path / "seconds.json", 100.0)
    assert 0 <= first < 60
    assert 100 <= common.Clock(tmp_path).read() < 160


def test_negative_seeds_are_refused(tmp_path):
    with pytest.raises(ValueError, match="seeds is -1"):
        Options(out=tmp_path, seeds=-1)


def test_a_command_names_no_path_of_this_machine():
    argv = ["experiments.x", "--data", "/home/me/tables", "--out", "experiments/results", "--seeds=3"]
    assert common.shown(argv) == "python -m experiments.x --data DATA --out experiments/results --seeds=3"
    assert common.shown(["b.x", "--out=../here", "--size", "smoke"]) == "python -m b.x --out=OUT --size smoke"
