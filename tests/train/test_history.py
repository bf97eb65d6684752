import json

import numpy as np

from wmjax.train import history


def test_float32_survives_the_file_bit_by_bit(tmp_path):
    values = (np.random.default_rng(0).normal(size=(50, 7)) * 10.0 ** np.arange(-40, 30, 10)).astype(np.float32)
    values[3, 2], values[4, 4] = np.inf, np.nan
    rows = [history.row({"loss": v, "one": v[0]}) for v in values]
    for epoch, row in enumerate(rows, 1):
        history.append(tmp_path / "m.jsonl", epoch, row)
    read = history.stack(history.trim(tmp_path / "m.jsonl", 50), (7,))
    values[3, 2] = np.nan
    assert read["loss"].tobytes() == values.tobytes()
    assert read["loss"].dtype == np.float32
    np.testing.assert_array_equal(read["one"], np.repeat(values[:, :1], 7, axis=1))
    lines = (tmp_path / "m.jsonl").read_text().splitlines()
    assert json.loads(lines[3])["loss"][2] is None


def test_a_torn_last_line_is_dropped(tmp_path):
    path = tmp_path / "m.jsonl"
    for epoch in (1, 2):
        history.append(path, epoch, history.row({"loss": 0.1 * epoch}))
    whole = path.read_bytes()
    for torn in (b'{"epoch": 3, "lo', b'{"epoch": 3, "loss": 0.3}', b"\xff\xfe", b"7\n", b"[]\n"):
        path.write_bytes(whole + torn)
        assert [float(r["loss"]) for r in history.trim(path, 3)] == [np.float32(0.1), np.float32(0.2)]
        assert path.read_bytes() == whole


def test_epochs_beyond_the_checkpoint_are_cut(tmp_path):
    path = tmp_path / "m.jsonl"
    for epoch in range(1, 6):
        history.append(path, epoch, history.row({"loss": float(epoch)}))
    before = path.read_bytes()
    assert len(history.trim(path, 5)) == 5
    assert path.read_bytes() == before
    assert len(history.trim(path, 2)) == 2
    assert len(path.read_text().splitlines()) == 2
    assert history.trim(path, 0) == []
    assert path.read_text() == ""
    assert history.trim(tmp_path / "none.jsonl", 4) == []


def test_missing_values_are_nan():
    stacked = history.stack([{}, history.row({"a": np.float32(2)})], ())
    np.testing.assert_array_equal(stacked["a"], [np.nan, 2])
    assert history.stack([], (3,)) == {}
