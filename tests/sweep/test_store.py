"""Sweeps on disk: the same numbers, resumed to the same bits, half-written never trusted, finished never redone."""

import errno
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

from wmjax.core import devices
from wmjax.core.errors import UserError
from wmjax.core.files import read_provenance
from wmjax.sweep import axes, engine, results, stepping, store
from wmjax.sweep.reduce import Full
from wmjax.sweep.store import Store


class Killed(BaseException):
    """Not an `Exception`, so that nothing below mends it."""


def contents(path):
    """List a store's files by name: JSON by its value, all else by its bytes."""
    found = {}
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        raw = file.read_bytes()
        found[str(file.relative_to(path))] = json.loads(raw) if file.suffix == ".json" else raw
    return found


@pytest.fixture(scope="module")
def calm(toy, tmp_path_factory):
    """A sweep that nobody disturbed."""
    out = tmp_path_factory.mktemp("calm") / "s.zarr"
    toy.run(out=out)
    return contents(out)


@pytest.fixture
def evaluated(monkeypatch):
    """Count the steps that are evaluated."""
    count, real = [], stepping.Run._evaluate

    def counted(self, start):
        count.append(np.asarray(start).tolist())
        return real(self, start)

    monkeypatch.setattr(stepping.Run, "_evaluate", counted)
    return count


def test_a_store_holds_what_memory_holds(toy, tmp_path, evaluated):
    words = {"sales": {"long_name": "sold", "units": "pieces"}, "unit": {"long_name": "shop"}}
    inside = toy.run(described=words)
    out = tmp_path / "deep" / "s.zarr"
    opened = toy.run(out=out, provenance={"seed": 5}, described=words)
    plain = xr.open_zarr(out, chunks=None)
    assert set(opened.data_vars) == set(inside.data_vars)
    for name in inside.variables:
        np.testing.assert_array_equal(opened[name].values, inside[name].values)
        np.testing.assert_array_equal(plain[name].values, inside[name].values)
        assert opened[name].dims == inside[name].dims
        assert opened[name].attrs == plain[name].attrs == inside[name].attrs
        assert opened[name].attrs["long_name"]
    assert opened["all_sales"].attrs == {"long_name": "sold", "units": "pieces"}
    assert opened["mean_variance"].attrs == {"long_name": "variance of sold", "units": "(pieces)^2"}
    assert opened["top_best_cut"].attrs == {"long_name": "level of cut in the best plan"}
    assert opened.attrs["provenance"] == {"seed": 5}
    about = opened.attrs["sweep"]
    assert about["points"] == 105
    assert about["grid"] == {"who": 3, "cut": 5, "seed": 7}
    assert about["reductions"]["top"]["k"] == 4
    assert about["versions"]["jax"] == jax.__version__
    assert [p.name for p in out.parent.iterdir()] == ["s.zarr"]
    # Asked again, a finished sweep is opened and nothing is evaluated.
    evaluated.clear()
    events = []
    again = toy.run(out=out, observer=events.append)
    assert (again["all_sales"].values == inside["all_sales"].values).all()
    assert not evaluated
    assert [e.done for e in events] == [105]


def test_points_in_step_keep_their_labels(tmp_path):
    grid = axes.zipped("week", axes.axis("start", [3, 1]), axes.axis("cut", [0.5, 0.25]))
    found = engine.sweep(lambda key, p: p["cut"], grid, key=jax.random.key(0), out=tmp_path / "s.zarr")
    assert set(found.coords) == {"start", "cut"}
    assert found["start"].values.tolist() == [3, 1]


STORED = ("all", "mean", "best", "spread")
"""Reductions of the toy that all read the output that is kept in full."""


def test_finished_boxes_are_never_computed_again(toy, tmp_path, evaluated):
    keep, done = {name: toy.KEEP[name] for name in STORED}, (0, 14, 28, 35, 49, 63, 70, 84, 98, 105)
    toy.run(keep, out=tmp_path / "calm.zarr")
    for boxes in (0, 1, 4, 9):
        out = tmp_path / f"{boxes}.zarr"

        def until(event, last=done[boxes]):
            if event.done >= last:
                raise Killed

        evaluated.clear()
        with pytest.raises(Killed):
            toy.run(keep, out=out, observer=until)
        with pytest.raises(UserError, match="no sweep here"):
            store.read(out)
        # The device is one box ahead of the disk.
        assert len(evaluated) == (0 if boxes == 0 else min(boxes + 1, 9))
        evaluated.clear()
        toy.run(keep, out=out)
        assert len(evaluated) == 9 - boxes
        assert contents(out) == contents(tmp_path / "calm.zarr")


def test_progress_goes_on_from_where_a_sweep_was_stopped(toy, tmp_path):
    def until(event):
        if event.done >= 35:
            raise Killed

    keep, told = {"all": Full(of="sales")}, []
    with pytest.raises(Killed):
        toy.run(keep, out=tmp_path / "s.zarr", observer=until)
    toy.run(keep, out=tmp_path / "s.zarr", observer=told.append)
    assert [(e.done, e.total) for e in told if e.stage == "read back"] == [(1, 3), (2, 3), (3, 3)]
    assert [e.done for e in told if e.stage == "sweep"] == [35, 49, 63, 70, 84, 98, 105]


def test_cut_at_every_kind_of_disk_operation(toy, calm, tmp_path, monkeypatch):
    """The process ends at its n-th write to disk, its renames and its syncs among them, n one in thirty-one."""
    place, count, at = tmp_path / "s.zarr", 0, -1

    def counting(real):
        def called(*args, **kwargs):
            nonlocal count
            count += 1
            if count == at:
                raise Killed
            return real(*args, **kwargs)

        return called

    for owner, name in ((os, "fsync"), (os, "rename"), (os, "replace"), (Path, "write_bytes"), (Path, "write_text")):
        monkeypatch.setattr(owner, name, counting(getattr(owner, name)))
    toy.run(toy.LIVED, out=place, save_seconds=0.0)
    undisturbed, whole = contents(place), count
    assert whole > 100
    for moment in range(3, whole, 31):
        place, count, at = tmp_path / f"{moment}.zarr", 0, moment
        with pytest.raises(Killed):
            toy.run(toy.LIVED, out=place, save_seconds=0.0)
        at = -1
        toy.run(toy.LIVED, out=place, save_seconds=0.0)
        assert contents(place) == undisturbed, moment


def test_what_was_folded_is_kept_when_a_person_stops_a_sweep(toy, tmp_path, evaluated):
    """Half a minute between checkpoints has not passed: what is stopped by hand saves itself."""
    keep = {name: toy.KEEP[name] for name in ("mean", "top")}
    toy.run(keep, out=tmp_path / "calm.zarr")
    out, calls = tmp_path / "s.zarr", len(evaluated)

    def stop(event):
        if event.done >= 63:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.run(keep, out=out, observer=stop)
    evaluated.clear()
    toy.run(keep, out=out)
    assert 0 < len(evaluated) <= calls - 5  # five boxes had landed
    assert contents(out) == contents(tmp_path / "calm.zarr")


@pytest.mark.parametrize("harm", ["truncated", "changed", "missing", "no marker", "state"])
def test_what_is_torn_is_made_again(toy, calm, tmp_path, evaluated, harm):
    out = tmp_path / "s.zarr"

    def until(event):
        if event.done >= 70:
            raise Killed

    with pytest.raises(Killed):
        toy.run(out=out, observer=until, save_seconds=0.0)
    part = Store(out)
    chunk = part.data / "all_sales" / "c.1.0.0.0"
    if harm == "truncated":
        chunk.write_bytes(chunk.read_bytes()[:20])
    elif harm == "changed":
        group = store.zarr.open_group(part.data, mode="r+")
        group["all_sales"][1, 0, 0, 0] = 7.0
    elif harm == "missing":
        chunk.unlink()
    elif harm == "no marker":
        part.marker(3).unlink()
    else:
        raw = bytearray(part.state(0).read_bytes())
        raw[len(raw) // 2] ^= 1
        part.state(0).write_bytes(raw)
    evaluated.clear()
    toy.run(out=out)
    # Boxes 0 to 5 are there; the harmed one is made again. What was folded of numbers not kept begins anew.
    assert len(evaluated) == (9 if harm == "state" else 4)
    assert contents(out) == calm


@pytest.mark.parametrize("what", ["write_box", "save_state", "begin", "finish"])
def test_a_full_disk_loses_nothing(toy, calm, tmp_path, monkeypatch, what):
    out, real, left = tmp_path / "s.zarr", getattr(store, what), 3 if what == "write_box" else 0

    def full(*args, **kwargs):
        nonlocal left
        if left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left -= 1
        return real(*args, **kwargs)

    monkeypatch.setattr(store, what, full)
    with pytest.raises(UserError, match=r"No space left on device; what is finished is kept"):
        toy.run(out=out)
    assert not out.exists()
    monkeypatch.setattr(store, what, real)
    toy.run(out=out)
    assert contents(out) == calm
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


@pytest.mark.parametrize("at", ["open_group", "consolidate_metadata", "_sync_tree"])
def test_an_end_that_is_cut_comes_to_the_same_bits(toy, calm, tmp_path, monkeypatch, at):
    """What an earlier end had added to the store is added anew, not written into."""
    out, real = tmp_path / "s.zarr", store.finish

    def cut(*args, **kwargs):
        def stop(*_, **__):
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(store if at == "_sync_tree" else store.zarr, at, stop)
            real(*args, **kwargs)

    monkeypatch.setattr(store, "finish", cut)
    with pytest.raises(Killed):
        toy.run(out=out)
    monkeypatch.setattr(store, "finish", real)
    about = Store(out).data / "top_score" / "zarr.json"
    if at == "consolidate_metadata":  # as a kill leaves it between an array and its attributes
        about.write_text(json.dumps(json.loads(about.read_text()) | {"attributes": {}}))
    toy.run(out=out)
    assert contents(out) == calm


def test_another_sweep_is_not_continued(toy, tmp_path):
    out = tmp_path / "s.zarr"

    def stop(event):
        raise Killed

    with pytest.raises(Killed):
        toy.run(out=out, observer=stop)
    with pytest.raises(UserError, match="the beginning of another sweep"):
        toy.run(out=out, fingerprint="another world")
    with pytest.raises(UserError, match="begun with a chunk of 14"):
        toy.run(out=out, chunk=7)
    toy.run(out=out, chunk=None)
    with pytest.raises(UserError, match="the result of another sweep"):
        toy.run(Full(of="sales"), out=out)
    (tmp_path / "letters").mkdir()
    with pytest.raises(UserError, match="no sweep stands there"):
        toy.run(out=tmp_path / "letters")


def test_workers_share_a_place(toy, tmp_path, evaluated):
    """Two workers, one after the other: each takes every second box, and the numbers are those of one."""
    alone, out = toy.run(), tmp_path / "s.zarr"
    assert toy.run(out=out, worker=(1, 2)) is None
    assert len(evaluated) == 9 + 4
    # A worker that has done its share does nothing when it is started again.
    assert toy.run(out=out, worker=(1, 2)) is None
    assert len(evaluated) == 9 + 4
    found = toy.run(out=out, worker=(0, 2))
    assert len(evaluated) == 9 + 9
    for name in alone.variables:
        if alone[name].dtype.kind == "f":
            np.testing.assert_allclose(found[name].values, alone[name].values, rtol=1e-6)
        else:
            np.testing.assert_array_equal(found[name].values, alone[name].values)


@pytest.mark.parametrize(("at", "stop", "save"), [(3, Killed, 0.0), (4, KeyboardInterrupt, 30.0)])
def test_a_worker_has_not_ended_before_its_boxes_are_there(toy, calm, tmp_path, monkeypatch, at, stop, save):
    """What it folds is ahead of what it writes: killed, or stopped by hand, at its last boxes, it is waited for."""
    out, real, count = tmp_path / "s.zarr", store.write_box, 0

    def write(*args):
        nonlocal count
        count += 1
        if count == at:
            raise stop
        real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_box", write)
        with pytest.raises(stop):
            toy.run(out=out, worker=(1, 2), save_seconds=save)
    assert store.load_state(Store(out), 1).done == 4
    with pytest.raises(UserError, match="worker 1 of 2 has given no sign"):
        toy.run(out=out, worker=(0, 2), patience_seconds=0.5)
    toy.run(out=out, worker=(1, 2))
    Store(out).marker(3).unlink()
    with pytest.raises(UserError, match="1 boxes of worker 1 are not there; start it again"):
        toy.run(out=out, worker=(0, 2))
    toy.run(out=out, worker=(1, 2))
    found = toy.run(out=out, worker=(0, 2))
    assert np.isfinite(found["all_sales"]).all()
    np.testing.assert_array_equal(found["all_sales"], toy.run()["all_sales"])


def test_what_an_earlier_version_began_is_not_gone_on_with(toy, tmp_path):
    def until(event):
        if event.done >= 35:
            raise Killed

    out = tmp_path / "s.zarr"
    with pytest.raises(Killed):
        toy.run(out=out, observer=until)
    place = Store(out).folder / "sweep.json"
    about = json.loads(place.read_text())
    place.write_text(json.dumps({name: value for name, value in about.items() if name != "format"}))
    with pytest.raises(UserError, match=r"s\.zarr\.part: begun by another version of wmjax"):
        toy.run(out=out)


@pytest.mark.parametrize("own", [None, 2], ids=["one device", "two devices"])
def test_it_goes_on_with_the_devices_and_workers_that_it_was_begun_with(toy, tmp_path, own):
    """And ends with the bits of these, whatever devices there are by then; finished, it is the same sweep on any."""
    two, out = devices.mesh(2), tmp_path / "s.zarr"
    meshes = {None: None, 2: two}
    toy.run(out=tmp_path / "calm.zarr", mesh=meshes[own])

    def stop(event):
        if event.done > 30:
            raise Killed

    with pytest.raises(Killed):
        toy.run(out=out, mesh=meshes[own], observer=stop, save_seconds=0.0)
    with pytest.raises(UserError, match=r"begun by 1 worker\(s\), not 2"):
        toy.run(out=out, mesh=meshes[own], worker=(0, 2))
    if own == 2:
        with pytest.raises(UserError, match=r"begun on 2 devices a worker, and this one is given 1; .*_DEVICES=2"):
            toy.run(out=out)
    assert toy.run(out=out, mesh=two).attrs["sweep"]["devices"] == (own or 1)
    assert contents(out) == contents(tmp_path / "calm.zarr")
    for mesh in meshes.values():
        assert toy.run(out=out, mesh=mesh).attrs["sweep"]["devices"] == (own or 1)


def test_a_worker_takes_the_devices_of_the_first_one(toy, tmp_path, monkeypatch):
    """Which had begun on a machine of fewer cores when it looked."""
    real, out = store.find, tmp_path / "s.zarr"
    toy.run(out=out, worker=(1, 2))
    monkeypatch.setattr(store, "find", lambda *args: (real(*args)[0], None, False))
    found = toy.run(out=out, worker=(0, 2), mesh=devices.mesh(2))
    assert found.attrs["sweep"]["devices"] == 1
    np.testing.assert_allclose(found["all_sales"], toy.brute()[0], rtol=1e-6, atol=1e-6)


def test_a_worker_that_never_comes_back_is_named(toy, tmp_path):
    out = tmp_path / "s.zarr"
    with pytest.raises(UserError, match=r"worker 1 of 2 has given no sign for 0 s; start it again"):
        toy.run(out=out, worker=(0, 2), patience_seconds=0.3)
    toy.run(out=out, worker=(1, 2))
    assert toy.run(out=out, worker=(0, 2)).attrs["sweep"]["workers"] == 2


def test_the_first_workers_boxes_are_taken(toy, tmp_path, monkeypatch):
    """A worker on a device with another budget, which looked before the first had begun."""
    out = tmp_path / "s.zarr"
    real = store.find

    def late(out, identity):
        place, _, whole = real(out, identity)
        return place, None, whole

    toy.run(out=out, worker=(1, 2))
    monkeypatch.setattr(store, "find", late)
    found = toy.run(out=out, worker=(0, 2), chunk=None)
    assert found.attrs["sweep"]["chunk"] == 14
    np.testing.assert_allclose(found["all_sales"], toy.brute()[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("most", [results.MOST_ROWS, 20, 5])
def test_a_result_as_tidy_tables(toy, tmp_path, monkeypatch, most):
    """However few rows are laid out at a time."""
    monkeypatch.setattr(results, "MOST_ROWS", most)
    found = toy.run()
    results.write_tidy(found, tmp_path)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {
        "who-cut-seed-unit.parquet",
        "who-cut-unit.parquet",
        "rank.parquet",
        "unit.parquet",
        "numbers.parquet",
        "unit-probability.parquet",
    }
    table = results.pd.read_parquet(tmp_path / "who-cut-seed-unit.parquet")
    assert list(table) == ["who", "cut", "seed", "unit", "all_sales"]
    assert (table["all_sales"].to_numpy() == found["all_sales"].values.ravel()).all()
    row = table[(table.who == "y") & (table.cut == 0.3) & (table.seed == 2) & (table.unit == "c")]
    assert row["all_sales"].item() == found["all_sales"].sel(who="y", cut=0.3, seed=2, unit="c").item()
    assert read_provenance(tmp_path / "rank.parquet")["sweep"]["points"] == 105
