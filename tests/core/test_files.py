import os

import pandas as pd
import pytest

from wmjax.core import files
from wmjax.core.errors import UserError


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"x": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"x": float("nan")})
    assert files.read_json(path) == {"x": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_failed_fill_leaves_the_old_folder(tmp_path):
    folder = tmp_path / "run"
    files.replace_folder(folder, lambda d: (d / "one").write_text("1"))

    def broken(d):
        (d / "two").write_text("2")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        files.replace_folder(folder, broken)
    assert os.listdir(folder) == ["one"]
    assert os.listdir(tmp_path) == ["run"]
    files.replace_folder(folder, lambda d: (d / "three").write_text("3"))
    assert os.listdir(folder) == ["three"]


def test_parquet_carries_its_provenance(tmp_path):
    files.write_parquet(tmp_path / "t.parquet", pd.DataFrame({"a": [1.5]}), {"seed": 3})
    assert files.read_provenance(tmp_path / "t.parquet") == {"seed": 3}
    assert pd.read_parquet(tmp_path / "t.parquet").a.tolist() == [1.5]


def test_missing_json_is_a_users_error(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        files.read_json(tmp_path / "none.json")
