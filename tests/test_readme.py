"""The README's promises: its commands on a small table, its Python as written, its tables as the files have them."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

from experiments import readme
from wmjax import cli
from wmjax.core import files
from wmjax.report import canvas
from wmjax.report.run import Run
from wmjax.simulate import consumer_panel
from wmjax.simulate.consumer import ConsumerSimConfig
from wmjax.simulate.consumer_numpy import simulate_numpy
from wmjax.sweep import plan_reading, reading
from wmjax.worlds import consumer

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL = shlex.split(
    "--members 2 --epochs 2 --machine.hidden 16 8 --learn.batch-size 256 --learn.num-chains 64 --learn.gibbs-steps 1"
    " --learn.mean-field-sweeps 5 --adapter.hidden 16 8 --adapter.batch-size 1024 --adapter.learning-rate 2e-3"
    " --adapter.epochs 2 --adapter.patience 1 --adapter.form additive"
)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A folder with `panel.parquet` and `schema.toml`: 48 consumers over 40 days."""
    folder = tmp_path_factory.mktemp("table")
    cfg = ConsumerSimConfig(num_consumers=48, num_days=40, start="2025-02-10")
    panel = consumer_panel.to_panel(simulate_numpy(cfg), cfg=cfg)
    panel.to_frame().astype({"store": str}).to_parquet(folder / "panel.parquet")
    (folder / "schema.toml").write_text(panel.schema.to_toml())
    return folder


@pytest.fixture(scope="module")
def run(table):
    """The run that `wmjax fit consumer` leaves behind; each figure of its page is a dot, which others draw and test."""
    out = table / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canvas, "draw", lambda *args, **words: "<svg/>")
        cli.main(["fit", "consumer", "--panel", str(table / "panel.parquet"), "--schema", str(table / "schema.toml"),
                  "--out", str(out), *SMALL])  # fmt: skip
    return out


def test_a_fit_leaves_every_file_the_readme_names(run):
    named = set(re.findall(r"`(\w+\.(?:parquet|json|html))`", TEXT)) - {"panel.parquet", "effects.parquet"}
    assert named
    assert all((run / name).exists() for name in named | {"world", "checkpoints", "effects.parquet"})
    summary = json.loads((run / "summary.json").read_text())
    for outcome in ("visit", "purchase"):
        assert summary["outcomes"][outcome]["auc"].keys() == {"world", "logistic", "mlp"}
        expected = pd.read_parquet(run / "predictions.parquet").query("part == 'test' and outcome == @outcome")["mean"]
        assert summary["outcomes"][outcome]["expected_rate"] == pytest.approx(expected.mean(), rel=1e-4)
    assert any("sale1" in line and "dow" in line for line in summary["warnings"])
    assert summary["provenance"]["seed"] == 0
    provenance = files.read_provenance(run / "effects.parquet")
    assert {"seed", "config", "schema_fingerprint", "data_fingerprint", "versions"} <= provenance.keys()


def test_commands_answer_from_a_finished_run(run, tmp_path, monkeypatch, capsys):
    cli.main(["effect", str(run), "--action", "push", "--out", str(tmp_path / "e.parquet")])
    assert set(pd.read_parquet(tmp_path / "e.parquet").outcome) == {"visit", "purchase"}
    answer = files.read_provenance(tmp_path / "e.parquet")["answer"]
    assert answer.items() >= {"action": "push", "t0": 0.0, "t1": 1.0, "alpha": 0.1}.items()
    cli.main(["predict", str(run), "--out", str(tmp_path / "p.parquet")])
    assert len(pd.read_parquet(tmp_path / "p.parquet")) == 2 * 48 * 40
    own = files.read_provenance(tmp_path / "p.parquet")
    assert own["answer"]["panel_fingerprint"] == own["data_fingerprint"] == answer["panel_fingerprint"]
    pd.read_parquet(run / "panel.parquet").query("date < '2025-03-10'").to_parquet(tmp_path / "early.parquet")
    early = ["--panel", str(tmp_path / "early.parquet"), "--out", str(tmp_path / "q.parquet")]
    cli.main(["predict", str(run), "--alpha", "0.2", *early])
    answer = files.read_provenance(tmp_path / "q.parquet")["answer"]
    assert answer["panel_fingerprint"] != own["data_fingerprint"]
    assert answer["alpha"] == 0.2
    cli.main(["plausibility", str(run), "--out", str(tmp_path / "f.parquet")])
    assert len(pd.read_parquet(tmp_path / "f.parquet")) == 48 * 40
    for _ in range(2):  # fitted, then opened
        cli.main(["traits", str(run), "--action", "push", "--out", str(tmp_path / "t.parquet")])
    assert len(pd.read_parquet(tmp_path / "t.parquet")) == 2 * 48
    assert len(pd.read_parquet(tmp_path / "traits_push.parquet")) == 2 * 48 * 40
    said = capsys.readouterr().out
    assert "Log loss of validation periods" in said
    assert "push: 1 instead of 0, in each row from the unit's past" in said
    before, page = (run / "summary.json").read_text(), (run / "report.html").read_text()
    monkeypatch.setattr(canvas, "draw", lambda *args, **words: "<svg/>")
    cli.main(["report", str(run)])
    assert (run / "summary.json").read_text() == before
    assert (run / "report.html").read_text().count("<svg") == page.count("<svg")


def test_the_readmes_sweep_and_best_run_as_written(run, tmp_path, monkeypatch, capsys):
    """Only the run's folder and the names of the actions and the outcome are this table's own."""
    (block,) = (b for b in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL) if "wmjax best" in b)
    names = {"runs/demo": str(run), "campaign_a": "push", "mailer_exposure": "coupon", "shopped": "visit"}
    names |= {"0:0.3:31": "0,1", "member=0:3": "member=0:1"}  # this table's coupon is binary, its members are two
    for name, own in names.items():
        block = block.replace(name, own)
    monkeypatch.chdir(tmp_path)
    commands = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
    assert [words[:2] for words in commands] == [["wmjax", "sweep"], ["wmjax", "best"]]
    for words in commands:
        cli.main(words[1:])
    assert "summed over units and periods; cost " in capsys.readouterr().out
    chosen = pd.read_parquet("s.best.parquet")
    assert len(chosen) == 48
    assert {"push", "coupon", "value", "cost"} <= set(chosen.columns)


def test_another_table_is_answered_for_all_periods_unless_the_test_dates_are_asked_for(run, tmp_path, capsys):
    out, table = tmp_path / "e.parquet", pd.read_parquet(run / "panel.parquet")
    words = ["effect", str(run), "--action", "push", "--out", str(out)]

    def answer(*more):
        cli.main([*words, *more])
        return files.read_provenance(out)["answer"]["periods"], pd.read_parquet(out)["date"].nunique()

    test = answer()
    assert test[0] == "test"
    assert 0 < test[1] < 40
    table[table["date"] > "2025-02-20"].to_parquet(tmp_path / "late.parquet")
    late = ["--panel", str(tmp_path / "late.parquet")]
    assert answer(*late) == ("all", 29)
    assert answer(*late, "--periods", "test") == test
    table[table["date"] <= "2025-02-20"].to_parquet(tmp_path / "early.parquet")
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        answer("--panel", str(tmp_path / "early.parquet"), "--periods", "test")
    assert stopped.value.code == 2
    assert "no period within the fit's test dates" in " ".join(capsys.readouterr().err.split())


def test_warnings_count_rows_and_say_where_nothing_is_answered(run, tmp_path, capsys):
    out = tmp_path / "e.parquet"

    def told(*more):
        capsys.readouterr()
        cli.main(["effect", str(run), "--out", str(out), *more])
        return " ".join(" ".join(capsys.readouterr()).split())

    # `sale1` follows from the day of the week, so that no row of it is supported.
    assert "sale1: no row is supported" in told("--action", "sale1")
    said, rows = told("--action", "campaign"), pd.read_parquet(out).query("outcome == 'visit'")
    assert 0 < (~rows["supported"]).sum() < len(rows)
    assert f"campaign: {(~rows['supported']).sum()} of {len(rows)} rows have no overlap" in said
    assert "no row" not in told("--action", "push")


def test_one_household_in_days_without_a_push_is_asked_about(run, tmp_path):
    """What a fit would refuse: one unit, an action that never varies."""
    table = pd.read_parquet(run / "panel.parquet")
    table[table["consumer_id"] == 3].assign(push=0).to_parquet(tmp_path / "one.parquet")
    cli.main(["predict", str(run), "--panel", str(tmp_path / "one.parquet"), "--out", str(tmp_path / "p.parquet")])
    assert len(pd.read_parquet(tmp_path / "p.parquet")) == 2 * 40


def test_a_users_mistake_is_one_line_and_exit_code_two(run, table, tmp_path, capsys):
    capsys.readouterr()
    broken, latin, blocked = tmp_path / "broken.parquet", tmp_path / "latin.csv", tmp_path / "file"
    for path, content in ((broken, b"no parquet"), (latin, "\xe9,y\n".encode("latin1")), (blocked, b"")):
        path.write_bytes(content)
    fit, whole = ["fit", "consumer", "--schema", str(table / "schema.toml")], str(table / "panel.parquet")
    for words in (
        [*fit, "--panel", whole, "--out", str(tmp_path / "new"), "--members", "0"],
        [*fit, "--panel", whole, "--out", str(tmp_path / "new"), "--val", "0.9", "--test", "0.5"],
        [*fit, "--panel", str(broken), "--out", str(tmp_path / "new")],
        [*fit, "--panel", str(latin), "--out", str(tmp_path / "new")],
        [*fit, "--panel", whole, "--out", str(blocked / "new")],
        ["effect", str(run), "--action", "push", "--alpha", "2"],
        ["predict", str(run), "--panel", whole],
        ["plausibility", str(run), "--out", str(tmp_path)],
        ["effect", str(run), "--action", "pusch"],
        ["effect", str(run), "--action", "push", "--t1", "nan"],
        ["effect", str(run), "--action", "push", "--t0=-inf"],
        ["effect", str(table), "--action", "push"],
        ["fit", "consumer", "--panel", "none.csv", "--schema", str(table / "schema.toml"), "--out", "x"],
        ["fit", "consumer", "--panel", str(table / "panel.parquet"), "--schema", str(table / "schema.toml"),
         "--out", str(run), "--seed", "1", *SMALL],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as stopped:
            cli.main(words)
        assert stopped.value.code == 2
        told = capsys.readouterr().err.strip()
        assert told.startswith("error: ")
        assert "\n" not in told


@pytest.mark.parametrize("words", [[], *(name.split() for name in cli.COMMANDS)], ids=" ".join)
def test_help_answers(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([*words, "--help"])
    assert stopped.value.code == 0
    assert "usage: wmjax" in capsys.readouterr().out


def test_the_readmes_python_runs_as_written(run, table, monkeypatch):
    """Only the size of the fit is cut down, to the run's, whose programs are compiled already."""
    # The last is the graph world's, run by its tests.
    first, swept, own, _ = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    monkeypatch.chdir(table)
    cfg = Run(run).world().model.cfg
    monkeypatch.setattr(consumer, "ConsumerConfig", lambda members: cfg)
    scope = {}
    exec(compile(first, "README.md", "exec"), scope)
    exec(compile(swept, "README.md", "exec"), scope)
    assert scope["world"].members == cfg.members
    assert scope["found"]["gain"].dims == ("coupon", "member", "unit", "outcome")
    assert isinstance(scope["world"].params.machine.weights[0], jax.Array)
    # Two units over 12 periods; what they bring is spend, here.
    scope |= {"simulate": lambda key, params, history, actions: params * actions.sum((1, 2))}
    scope |= {"params": 2.0, "history": (), "actions": np.ones((2, 12, 2), np.float32)}
    exec(compile(own, "README.md", "exec"), scope)
    brought = scope["found"]["mean"].transpose("tv", "start", ...)
    assert brought.sizes == {"tv": 10, "start": 9} | dict.fromkeys(brought.dims[2:], 2)
    assert brought.values.max() > brought.values.min()


def test_the_two_commands_stand_in_the_readme_and_in_ci():
    script = (ROOT / ".ci" / "run").read_text()
    for command in ('pip install -e ".[demo]" && wmjax demo', 'pip install -e ".[test]" && pytest'):
        assert command in TEXT
        assert command in script


@pytest.mark.parametrize("page", readme.PAGES)
def test_tables_and_figures_are_those_of_the_result_files(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert readme.fill(text) == text


@pytest.mark.parametrize("page", readme.PAGES)
def test_links_and_pictures_lead_to_files(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
    assert not [link for link in found if not (ROOT / page).parent.joinpath(link).exists()]


def test_a_table_of_names_that_are_not_there_is_refused():
    mark = "<!-- results: benchmarks/results/fit_many.json {} -->\n<!-- end -->"
    for words, why in (
        ("setting=none", "no setting named none"),
        ("method=none", "no method named none"),
        ("'setting=a b'", "no setting named a b"),
        ("settings=regions", "settings names no column"),
        ("setting=regions quantity=seeds16_over_seed1", "no row of"),
    ):
        with pytest.raises(ValueError, match=why):
            readme.fill(mark.format(words))


def test_grids_and_plans_are_read_as_written():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = {name: re.search(rf"```toml\n# {name}.*\n((?:.*\n)*?)```", text) for name in ("grid.toml", "plan.toml")}
    grid, plan = (tomllib.loads(found.group(1)) for found in blocks.values() if found)
    assert reading.read_grid(grid).size == 2 * 2 * 256
    assert [type(edit).__name__ for edit in plan_reading.read_plan(plan["edit"])] == ["Move", "Shift", "Clamp"]


def test_every_mark_is_read():
    for page in readme.PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert len(readme.MARK.findall(text)) == text.count("<!-- results:")
        assert len(readme.VALUE.findall(text)) == text.count("<!-- value:")


def test_a_figure_is_the_one_that_is_named():
    mark = "<!-- value: benchmarks/results/fit_many.json regions//speedup_64_models -->"
    rows = json.loads((ROOT / "benchmarks/results/fit_many.json").read_text())["rows"]
    (row,) = (r for r in rows if r["quantity"] == "speedup_64_models")
    assert readme.fill(f"| {mark}0<!-- end --> |") == f"| {mark}{row['value']:.4g}<!-- end --> |"
    with pytest.raises(ValueError, match="unpack"):
        readme.fill(mark.replace("regions", "none") + "0<!-- end -->")
