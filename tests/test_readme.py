"""The README's promises: its commands on a small table, its Python as written, its tables as the files have them."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import pandas as pd
import pytest

from experiments import readme
from wmjax import cli
from wmjax.core import files
from wmjax.simulate import consumer_panel
from wmjax.simulate.consumer import ConsumerSimConfig
from wmjax.simulate.consumer_numpy import simulate_numpy
from wmjax.worlds import consumer
from wmjax.worlds.consumer.config import SMOKE

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
    """The run that `wmjax fit consumer` leaves behind."""
    out = table / "run"
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
    assert any("sale1" in line and "dow" in line for line in summary["warnings"])
    assert summary["provenance"]["seed"] == 0
    provenance = files.read_provenance(run / "effects.parquet")
    assert {"seed", "config", "schema_fingerprint", "data_fingerprint", "versions"} <= provenance.keys()


def test_commands_answer_from_a_finished_run(run, tmp_path, capsys):
    cli.main(["effect", str(run), "--action", "push", "--t0", "0", "--t1", "1", "--out", str(tmp_path / "e.parquet")])
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
    before = (run / "summary.json").read_text()
    cli.main(["report", str(run)])
    assert (run / "summary.json").read_text() == before


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


@pytest.mark.parametrize(
    "words", [[], ["demo"], ["fit", "consumer"], ["predict"], ["effect"], ["plausibility"], ["report"]]
)
def test_help_answers(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([*words, "--help"])
    assert stopped.value.code == 0
    assert "usage: wmjax" in capsys.readouterr().out


def test_the_readmes_python_runs_as_written(table, monkeypatch):
    """Only the size of the fit is cut down."""
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    monkeypatch.chdir(table)
    monkeypatch.setattr(consumer, "ConsumerConfig", lambda members: SMOKE)
    scope = {}
    exec(compile(block, "README.md", "exec"), scope)
    assert scope["world"].members == SMOKE.members
    assert isinstance(scope["world"].params.machine.weights[0], jax.Array)


def test_the_two_commands_stand_in_the_readme_and_in_ci():
    script = (ROOT / ".ci" / "run").read_text()
    for command in ('pip install -e ".[demo]" && wmjax demo', 'pip install -e ".[test]" && pytest'):
        assert command in TEXT
        assert command in script


def test_the_tables_are_those_of_the_result_files():
    assert readme.fill(TEXT) == TEXT


def test_the_command_starts_without_a_device():
    found = subprocess.run([sys.executable, "-m", "wmjax.cli", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert found.returncode == 0
    assert "fit consumer" in found.stdout
