"""A run's folder gives back the panel that it was begun with, and knows whose it is."""

import shutil

import pytest

from tests.data.tables import SCHEMA, table
from wmjax import cli
from wmjax.core import files
from wmjax.core.errors import UserError
from wmjax.data.readers import read_panel
from wmjax.report.run import ANSWERS, Run


def test_a_part_of_a_panel_comes_back_with_the_levels_of_the_whole(tmp_path):
    """Units 100, 101, .. have segments b, a, c by turns; two of them lack the level a, which stands first."""
    panel = read_panel(table(), SCHEMA).select(units=[100, 102, 103])
    assert set(panel.values("segment")) == {1.0, 2.0}
    run = Run(tmp_path / "run")
    run.claim(panel, None, 0, overwrite=False)
    again = run.panel(panel.levels)
    assert again.levels["segment"] == ("a", "b", "c")
    assert again.fingerprint == panel.fingerprint


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("left", [("panel.parquet",), ("panel.parquet", "schema.toml"), ()])
def test_a_run_killed_before_it_had_begun_begins_anew(tmp_path, left, overwrite):
    panel = read_panel(table(), SCHEMA)
    run = Run(tmp_path / "run")
    run.claim(panel, None, 0, overwrite=False)
    for path in run.folder.iterdir():
        if path.name not in left:
            path.unlink()
    (run.folder / ".run.json.x1.part").write_text("{")
    run.claim(panel, None, 1, overwrite=overwrite)
    assert sorted(path.name for path in run.folder.iterdir()) == ["panel.parquet", "run.json", "schema.toml"]
    assert run.asked["seed"] == 1


def test_a_run_killed_while_it_was_cleared_is_not_gone_on_with(tmp_path, monkeypatch):
    panel, run = read_panel(table(), SCHEMA), Run(tmp_path / "run")
    run.claim(panel, None, 0, overwrite=False)

    (run.folder / "checkpoints" / "dbm").mkdir(parents=True)

    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            run.claim(panel, None, 1, overwrite=True)
    with pytest.raises(UserError, match="another run"):
        run.claim(panel, None, 0, overwrite=False)
    run.claim(panel, None, 0, overwrite=True)
    assert run.asked["seed"] == 0


def test_a_fit_that_failed_before_it_learnt_leaves_its_folder_free(tmp_path):
    panel, run = read_panel(table(), SCHEMA), Run(tmp_path / "run")

    def fit(seed, does=lambda: None):
        with run.begun(panel, None, seed, overwrite=False):
            does()
            raise UserError("8 periods are too few")

    with pytest.raises(UserError, match="too few"):
        fit(0)
    assert not list(run.folder.iterdir())
    # What it has learnt, or somebody put there, stays, and so does the claim.
    for seed, made in enumerate(("checkpoints/dbm", "notes")):
        own = run.folder / made
        with pytest.raises(UserError, match="too few"):
            fit(seed, lambda own=own: own.mkdir(parents=True))
        assert own.is_dir()
        with pytest.raises(UserError, match="another run"):
            run.claim(panel, None, 7, overwrite=False)
        shutil.rmtree(run.folder)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_no_run_has_written_is_left_alone(tmp_path, overwrite):
    panel = read_panel(table(), SCHEMA)
    table().to_parquet(tmp_path / "panel.parquet")
    (tmp_path / "schema.toml").write_text("")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        Run(tmp_path).claim(panel, None, 0, overwrite=overwrite)
    (tmp_path / "panel.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        Run(tmp_path).claim(panel, None, 0, overwrite=overwrite)
    Run(tmp_path / "other").claim(panel, None, 0, overwrite=False)
    (tmp_path / "other" / "run.json").rename(tmp_path / "other" / "notes.json")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        Run(tmp_path / "other").claim(panel, None, 0, overwrite=overwrite)


def test_overwriting_takes_the_whole_folder(tmp_path):
    panel, run = read_panel(table(), SCHEMA), Run(tmp_path / "run")
    run.claim(panel, None, 0, overwrite=False)
    (run.folder / "checkpoints").mkdir()
    (run.folder / "checkpoints" / "old").write_text("")
    run.claim(panel, None, 1, overwrite=True)
    assert not (run.folder / "checkpoints").exists()


def test_every_command_on_a_run_is_for_some_kind_of_world():
    asking = {name for name in cli.COMMANDS if name not in ("demo", "best") and not name.startswith("fit ")}
    assert {name for names in ANSWERS.values() for name in names} == asking


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_command_for_another_kind_of_world_is_told_before_the_world_is_opened(tmp_path, kind):
    files.write_json(tmp_path / "world" / "world.json", {"kind": kind})
    for command in ANSWERS[kind]:
        Run(tmp_path).check(command)
    for command in {name for names in ANSWERS.values() for name in names} - set(ANSWERS[kind]):
        with pytest.raises(UserError, match=f"`wmjax {command}` is for a .* this is a {kind} world, which answers"):
            Run(tmp_path).open(command)


def test_a_wrong_table_is_told_before_the_world_is_opened(tmp_path):
    """The folder holds no parameters: a world that was opened first would say so instead."""
    panel, run = read_panel(table(), SCHEMA), Run(tmp_path / "run")
    run.claim(panel, None, 0, overwrite=False)
    (run.folder / "world").mkdir()
    files.write_text(run.folder / "world" / "schema.toml", panel.schema.to_toml())
    files.write_json(run.folder / "world" / "world.json", {"kind": "consumer", "levels": panel.levels})
    table().drop(columns="spend").to_parquet(tmp_path / "other.parquet")
    with pytest.raises(UserError, match="spend"):
        run.open("predict", tmp_path / "other.parquet")
