"""Checkpoints that are whole or absent; the only file that knows Orbax.

A checkpoint is a folder: `tree/` holds the arrays (Orbax, by number), `about.json` their names, shapes and types, and
what the host wants to remember. The caller's own pytree gives the structure back, so tuples, NamedTuples and optimiser
states return as what they were, bit by bit.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wmjax.core import files
from wmjax.core.errors import UserError


class Restored(NamedTuple):
    """What `restore` found: the tree, the host's own values and the step they belong to."""

    tree: Any
    host: dict[str, Any]
    step: int


def save(folder: str | Path, step: int, tree: Any, host: dict[str, Any] | None = None, *, keep: int = 2) -> Path:
    """Save `tree` and the JSON-able `host` as `folder/step`, then drop all but the last `keep` checkpoints.

    The call returns when the checkpoint lies whole in its place, so the arrays may be donated at once. (An
    asynchronous save would still be reading them: on a CPU Orbax may hold a view of a donated buffer.)

    Raises:
        UserError: it could not be written, for example because the disk is full. Earlier checkpoints are untouched.
    """
    folder = Path(folder)
    clean(folder)
    try:
        _write(folder / str(step), tree, host or {})
    except Exception as error:
        last = latest(folder)
        good = "there is no earlier one" if last is None else f"the last good one is {folder / str(last)}"
        raise UserError(
            f"{folder / str(step)}: could not save the checkpoint ({_first_line(error)}); {good}"
        ) from error
    for old in steps(folder)[:-keep]:
        shutil.rmtree(folder / str(old), ignore_errors=True)
    return folder / str(step)


def restore(folder: str | Path, like: Any) -> Restored:
    """Restore the newest readable checkpoint into the structure, types and placement of `like`.

    Args:
        folder: where `save` wrote.
        like: a pytree of arrays, `jax.ShapeDtypeStruct`s or Python numbers with the structure that was saved.

    Raises:
        UserError: there is no checkpoint, none can be read, or it holds other leaves, shapes or types than `like`.
    """
    found = steps(folder)
    if not found:
        raise UserError(f"{folder}: no checkpoint")
    fault: Exception | None = None
    for step in reversed(found):
        try:
            tree, host = _read(Path(folder) / str(step), like)
            return Restored(tree, host, step)
        except _Mismatch:
            raise
        except Exception as error:  # a damaged checkpoint: this is what the one before it is kept for
            fault = fault or error
    raise UserError(f"{folder}: no checkpoint of {list(found)} can be read ({_first_line(fault)})") from fault


def steps(folder: str | Path) -> tuple[int, ...]:
    """List the steps that have a whole checkpoint, oldest first."""
    folder = Path(folder)
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return tuple(sorted(int(n) for n in names if n.isdecimal()))


def latest(folder: str | Path) -> int | None:
    """Name the newest whole checkpoint's step, or None."""
    return max(steps(folder), default=None)


def clean(folder: str | Path) -> None:
    """Remove what interrupted writes left in the folder; whatever is whole stays."""
    for pattern in (".*.part", ".*.old"):
        for left in Path(folder).glob(pattern):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def save_tree(path: str | Path, tree: Any, host: dict[str, Any] | None = None) -> None:
    """Save one finished pytree as the folder `path`, whole or not at all; what was there is replaced."""
    try:
        _write(Path(path), tree, host or {})
    except Exception as error:
        raise UserError(f"{path}: could not be saved ({_first_line(error)})") from error


def load_tree(path: str | Path, like: Any) -> Any:
    """Load what `save_tree` wrote, into the structure, types and placement of `like`.

    Raises:
        UserError: there is nothing at `path`, it cannot be read, or it holds other leaves, shapes or types.
    """
    try:
        return _read(Path(path), like)[0]
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}: cannot be read ({_first_line(error)})") from error


class _Mismatch(UserError):
    """The checkpoint is whole but another model's: an older one would not fit either."""


class _Leaf(NamedTuple):
    """How one leaf is stored. `finish` turns the stored array back into the leaf's own type."""

    about: list[Any]
    stored: Any
    finish: Callable[[Any], Any]


def _leaf(path: Any, leaf: Any) -> _Leaf:
    """Store keys as their data and Python numbers as arrays without axes."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if isinstance(leaf, bool | int | float | np.generic):
        return _Leaf([name, [], str(np.result_type(leaf))], np.asarray(leaf), type(leaf))
    about = [name, list(leaf.shape), str(leaf.dtype)]
    if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return _Leaf(about, leaf, lambda x: x if isinstance(leaf, np.ndarray) else _on_device(x))
    data = jax.random.key_data(leaf) if isinstance(leaf, jax.Array) else jax.eval_shape(jax.random.key_data, leaf)
    return _Leaf(about, data, lambda x: jax.random.wrap_key_data(_on_device(x), impl=_impl(leaf)))


def _on_device(array: Any) -> jax.Array:
    # A copy: JAX may look into the memory of a NumPy array, which could then not be donated.
    return array if isinstance(array, jax.Array) else jnp.array(array)


def _impl(key: Any) -> Any:
    """Name a key's generator; a shape without values tells it only inside a trace."""
    found = []
    jax.eval_shape(lambda k: found.append(jax.random.key_impl(k)), key)
    return found[0]


def _leaves(tree: Any) -> tuple[list[_Leaf], Any]:
    paths, treedef = jax.tree_util.tree_flatten_with_path(tree)
    return [_leaf(path, leaf) for path, leaf in paths], treedef


def _numbered(leaves: list[_Leaf]) -> dict[str, Any]:
    """Number the leaves; Orbax refuses arrays of size zero, which hold nothing to store."""
    return {f"{i:05d}": x.stored for i, x in enumerate(leaves) if np.prod(x.stored.shape) > 0}


def _write(path: Path, tree: Any, host: dict[str, Any]) -> None:
    leaves, _ = _leaves(tree)
    about = json.dumps({"host": host, "leaves": [x.about for x in leaves]}, allow_nan=False)
    arrays = _numbered(leaves)

    def fill(folder: Path) -> None:
        if arrays:
            from orbax.checkpoint import v1 as ocp  # half a second, so only where it is used

            with _quiet():
                ocp.save_checkpointables(str(folder.absolute() / "tree"), {"tree": arrays})
        (folder / "about.json").write_text(about, encoding="utf-8")

    files.replace_folder(path, fill)


def _read(path: Path, like: Any) -> tuple[Any, dict[str, Any]]:
    leaves, treedef = _leaves(like)
    about = files.read_json(path / "about.json")
    _check(path, [x.about for x in leaves], about["leaves"])
    wanted = {name: _abstract(x) for name, x in _numbered(leaves).items()}
    found: dict[str, Any] = {}
    if wanted:
        from orbax.checkpoint import v1 as ocp

        with _quiet():
            found = ocp.load_checkpointables(str(path.absolute() / "tree"), {"tree": wanted})["tree"]
    arrays = [found.get(f"{i:05d}", x.stored) for i, x in enumerate(leaves)]
    arrays = [jnp.zeros(a.shape, a.dtype) if isinstance(a, jax.ShapeDtypeStruct) else a for a in arrays]
    return treedef.unflatten([x.finish(a) for x, a in zip(leaves, arrays, strict=True)]), about["host"]


def _abstract(array: Any) -> Any:
    """Ask for NumPy, or for a device array where the caller has bound `array` to a place."""
    if isinstance(array, np.ndarray):
        return array
    # An array bound to a place gives another program than a free one, and the resumed run is to use the same. The
    # place in the file is never taken: it may name devices that are not here.
    if getattr(array, "sharding", None) is None or not getattr(array, "committed", True):
        return np.empty(array.shape, array.dtype)
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)


def _check(path: Path, wanted: list[Any], stored: list[Any]) -> None:
    for want, have in zip(wanted, stored, strict=False):
        if want != have:
            raise _Mismatch(f"{path}: holds leaf {_say(have)} where {_say(want)} is expected; another model wrote it")
    if len(wanted) != len(stored):
        raise _Mismatch(f"{path}: holds {len(stored)} leaves where {len(wanted)} are expected; another model wrote it")


def _say(about: list[Any]) -> str:
    name, shape, dtype = about
    return f"{name or '(root)'} {dtype}{shape}"


def _first_line(error: Exception | None) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Orbax from logging: a failed write prints hundreds of lines before it raises what we pass on in one."""
    logger = logging.getLogger("absl")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
