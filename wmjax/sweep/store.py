"""A sweep on disk: a Zarr store that is there when it is whole, and the folder that it grows in.

While a sweep runs, `NAME.part` stands beside the place of its result:

    sweep.json         what sweep this is; another one is refused
    data.zarr          numbers, written box by box
    boxes/7.json       box 7 is whole: its slices and checksums, renamed into place after its numbers are written
    state-0.npz        folded so far by worker 0, written beside and renamed

At the end all is brought to the disk, `data.zarr` renamed to the result's place and the rest removed. So a process may
be killed at any moment: a box without its marker, or whose numbers do not sum up to it, is computed again, all others
never. (Nor does a cut of the power spoil anything; the boxes of the last seconds before it may be computed again.)
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BytesCodec

from wmjax.core.errors import UserError
from wmjax.core.files import read_json, replacing, sync, write_json

Slices = tuple[slice, ...]
FORMAT = 2
"""Of the folder that a sweep grows in; one that was begun in another cannot be gone on with."""


class Growing(NamedTuple):
    """An array that is written box by box."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str


class Piece(NamedTuple):
    """Numbers of one box: their array, their place, and they."""

    name: str
    slices: Slices
    values: np.ndarray


@dataclass(frozen=True)
class Store:
    """A sweep's place on disk."""

    out: Path

    @property
    def folder(self) -> Path:
        """Where the result grows."""
        return self.out.with_name(self.out.name + ".part")

    @property
    def data(self) -> Path:
        return self.folder / "data.zarr"

    @cached_property
    def array(self) -> Callable[[str], Any]:
        """Open an array that grows, once."""
        group = zarr.open_group(self.data, mode="r+")
        return lru_cache(None)(lambda name: group[name])

    def chunk(self, name: str, starts: Sequence[int | None]) -> Path:
        """Where an array keeps the box that begins there."""
        array = self.array(name)
        at = [(start or 0) // size for start, size in zip(starts, array.chunks, strict=False)]
        at += [0] * (len(array.chunks) - len(at))
        return self.data / name / array.metadata.encode_chunk_key(tuple(at))

    def marker(self, step: int) -> Path:
        return self.folder / "boxes" / f"{step}.json"

    def state(self, worker: int) -> Path:
        return self.folder / f"state-{worker}.npz"


def find(out: str | Path, identity: str) -> tuple[Store, dict[str, Any] | None, bool]:
    """Look for an earlier start of a sweep.

    Returns:
        The store; what `sweep.json` holds, None where nothing was begun; and whether the result is whole.

    Raises:
        UserError: another sweep, or something else, stands there.
    """
    store = Store(Path(out))
    whole = store.out.exists()
    if not whole and not (store.folder / "sweep.json").exists():
        return store, None, False
    if whole:
        attrs = read_json(store.out / "zarr.json") if (store.out / "zarr.json").exists() else {}
        about = attrs.get("attributes", {}).get("sweep")
        if about is None:
            raise UserError(f"{store.out}: something that is no sweep stands there; choose another place")
    else:
        about = read_json(store.folder / "sweep.json")
    if about["identity"] != identity:
        raise another(store, whole=whole)
    if not whole and about.get("format") != FORMAT:
        raise UserError(f"{store.folder}: begun by another version of wmjax, which wrote it otherwise; remove it")
    if whole:
        shutil.rmtree(store.folder, ignore_errors=True)
    return store, about, whole


def another(store: Store, *, whole: bool) -> UserError:
    """Say that another sweep stands at a place."""
    return UserError(
        f"{store.out}: holds {'the result' if whole else 'the beginning'} of another sweep "
        "(its grid, world, reductions or key differ); choose another place or remove it"
    )


def begun(out: str | Path) -> dict[str, Any] | None:
    """Read what `sweep.json` holds of a sweep that has begun and not finished; None where there is none."""
    path = Store(Path(out)).folder / "sweep.json"
    return read_json(path) if path.exists() and not Path(out).exists() else None


def begin(
    store: Store,
    about: Mapping[str, Any],
    arrays: Mapping[str, Growing],
    labels: xr.Dataset,
    words: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """Make the folder, whole or not at all; where another worker was first, its folder is taken.

    Args:
        store: the place.
        about: what sweep it is.
        arrays: by name.
        labels: of their dimensions.
        words: attributes of the arrays, by name.

    Returns:
        What `sweep.json` holds: `about`, or that of the worker that was first.
    """
    store.out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=store.out.parent, prefix=f".{store.folder.name}."))
    try:
        _write(labels.assign_attrs(sweep=dict(about)), beside / "data.zarr", "w")
        group = zarr.open_group(beside / "data.zarr", mode="r+")
        for name, array in arrays.items():
            floating = np.issubdtype(np.dtype(array.dtype), np.floating)
            group.create_array(
                name,
                shape=array.shape,
                chunks=array.chunks,
                dtype=array.dtype,
                fill_value=float("nan") if floating else 0,
                dimension_names=array.dims,
                attributes=dict(words.get(name, {})),
                # Plain bytes in one folder, see `write_box`.
                compressors=None,
                serializer=BytesCodec(endian="little"),
                chunk_key_encoding={"name": "default", "separator": "."},
            )
        (beside / "boxes").mkdir()
        write_json(beside / "sweep.json", dict(about))
        _sync_tree(beside)
        mask = os.umask(0)
        os.umask(mask)
        beside.chmod(0o777 & ~mask)
        os.rename(beside, store.folder)
    except OSError:
        if not (store.folder / "sweep.json").exists():
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return read_json(store.folder / "sweep.json")


def write_box(store: Store, step: int, pieces: Sequence[Piece]) -> None:
    """Write a box's numbers, then say so in its marker.

    A box is a chunk, which the store holds as plain bytes: written at once, and without waiting for the disk, it costs
    a tenth of what it does by way of Zarr, and a sweep has thousands. What a marker promises is checked when it is
    read, and all is on the disk before the result takes its place.
    """
    about = []
    for name, slices, values in pieces:
        array = store.array(name)
        chunk = np.full(array.chunks, array.fill_value, array.dtype.newbyteorder("<"))
        chunk[tuple(map(slice, values.shape))] = values
        store.chunk(name, [s.start for s in slices]).write_bytes(chunk.tobytes())
        about.append({"name": name, "at": [[s.start, s.stop] for s in slices], "crc32": _sum(values)})
    beside = store.marker(step).with_suffix(".part")
    beside.write_text(json.dumps(about), encoding="utf-8")
    os.replace(beside, store.marker(step))


def read_box(store: Store, step: int) -> list[Piece] | None:
    """Read a box back; None where it is not there, or not what its marker says."""
    if not store.marker(step).exists():
        return None
    pieces = []
    try:
        for piece in read_json(store.marker(step)):
            slices = tuple(slice(*at) for at in piece["at"])
            values = np.asarray(store.array(piece["name"])[slices])
            if _sum(values) != piece["crc32"]:
                return None
            pieces.append(Piece(piece["name"], slices, values))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError):
        return None  # a chunk that cannot even be decoded, or a marker that was not whole when the power went
    return pieces


def settle(store: Store, steps: Iterable[int]) -> None:
    """Bring a worker's boxes to the disk, before it says to those who share it that they are there."""
    for step in steps:
        for piece in read_json(store.marker(step)):
            sync(store.chunk(piece["name"], [at[0] for at in piece["at"]]))
        sync(store.marker(step))
    for folder in (*(path for path in store.data.iterdir() if path.is_dir()), store.folder / "boxes"):
        sync(folder)


class Folded(NamedTuple):
    """What a worker has folded.

    done: of its steps. whole: whether it has ended, all of its boxes written. leaves: of its states.
    """

    done: int
    whole: bool
    leaves: list[np.ndarray]


def save_state(store: Store, worker: int, folded: Folded) -> None:
    """Keep what a worker has folded."""
    with replacing(store.state(worker)) as beside, beside.open("wb") as file:
        np.savez(file, np.int64(folded.done), np.bool_(folded.whole), *folded.leaves)


def load_state(store: Store, worker: int) -> Folded | None:
    """Take up what was folded; None where nothing was kept, or its checksums say that it was spoilt."""
    if not store.state(worker).exists():
        return None
    try:
        with np.load(store.state(worker)) as found:
            done, whole, *leaves = (found[f"arr_{i}"] for i in range(len(found.files)))
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError):
        return None
    return Folded(int(done), bool(whole), leaves)


def last_sign(store: Store, worker: int) -> float:
    """Tell when a worker's state, or any box, was last written."""
    places = (store.state(worker), store.folder / "boxes")
    return max((place.stat().st_mtime for place in places if place.exists()), default=0.0)


def finish(store: Store, result: xr.Dataset) -> None:
    """Add what was folded, and put the store in the result's place by one rename."""
    for torn in store.data.rglob("*.partial"):
        torn.unlink()
    for child in store.data.iterdir():
        # Where an earlier end was cut, an array that is there would be written into, and lose its attributes by it.
        if child.is_dir() and (child.name in result.variables or not (child / "zarr.json").exists()):
            shutil.rmtree(child)
    _write(result, store.data, "a")
    group = zarr.open_group(store.data, mode="r+")
    loose = [str(name) for name in result.coords if name not in result.dims]
    if loose:
        group.attrs["coordinates"] = " ".join(loose)
    with warnings.catch_warnings():
        # Consolidated metadata is not in the Zarr v3 text yet; xarray and zarr write and read it, others ignore it.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(store.data)
    _sync_tree(store.data)
    os.rename(store.data, store.out)
    sync(store.out.parent)
    for rest in (store.folder, *store.out.parent.glob(f".{store.folder.name}.*")):
        shutil.rmtree(rest, ignore_errors=True)


def read(path: str | Path) -> xr.Dataset:
    """Open a finished sweep; numbers are read when they are asked for."""
    if not (Path(path) / "zarr.json").exists():
        part = Store(Path(path)).folder
        begun = f"; one that has not finished stands in {part}" if part.exists() else ""
        raise UserError(f"{path}: no sweep here{begun}")
    return xr.open_zarr(path, chunks=None)


def _write(dataset: xr.Dataset, path: Path, mode: Any) -> None:
    dataset.to_zarr(path, mode=mode, zarr_format=3, consolidated=False)


def _sum(values: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(values).tobytes())


def _sync_tree(root: Path) -> None:
    """Bring all files and folders to the disk, several at once: most of it is waiting."""
    places = [Path(folder, name) for folder, _, names in os.walk(root) for name in (*names, "")]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(sync, places))
