"""Results by name: what the reductions found, labelled with the grid's own axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from wmjax.core.errors import UserError
from wmjax.core.files import write_parts
from wmjax.sweep.boxes import Work
from wmjax.sweep.grids import Grid
from wmjax.sweep.reduce import Full, Variables
from wmjax.sweep.store import Growing
from wmjax.sweep.tiles import Tiling

MOST_ROWS = 2**20
"""Rows of a tidy table that are laid out at a time."""


class Label(NamedTuple):
    """Labels of a dimension that are not its own name's: `income` along `unit`."""

    dim: str
    values: Any


def full_names(work: Work) -> dict[str, str]:
    """Name the variable of each output that is kept in full: as it, unless the reduction has a name of its own."""
    full = {name: work.output_of(r) for name, r in work.reductions if isinstance(r, Full)}
    plain = lambda name, output: name in ("", "full", f"{output}_full")  # noqa: E731
    return {output: output if plain(name, output) else f"{name}_{output}" for name, output in full.items()}


def growing(work: Work, tiling: Tiling, dtypes: Mapping[str, Any]) -> dict[str, Growing]:
    """Describe the arrays that hold all points of an output: one chunk a box."""
    out = {}
    for output, name in full_names(work).items():
        scene = dict(work.scenes)[output]
        shape = (*scene.sizes, *scene.shape)
        chunks = (*tiling.box, *scene.shape)
        out[name] = Growing((*scene.dims, *scene.out_dims), shape, chunks, np.dtype(dtypes[output]).str)
    return out


def finished(work: Work, states: tuple[Any, ...], grid: Grid) -> Variables:
    """Finish every reduction; the variables of one that has a name are `<name>_<variable>`."""
    out: Variables = {}
    for (name, reduction), state in zip(work.reductions, states, strict=True):
        for key, (dims, values) in reduction.finish(state, work.scene_of(reduction), grid).items():
            label = (key,) == dims
            out[f"{name}_{key}" if name and not label else key] = (dims, values)
    return out


def check_names(grid: Grid, names: Mapping[str, tuple[str, ...]], labels: Iterable[str] = ()) -> None:
    """Refuse variables, given with their dimensions, that are called as an axis of the grid or another label.

    Raises:
        UserError: one that is.
    """
    clash = sorted({*grid.names, *labels} & {name for name, dims in names.items() if dims != (name,)})
    if clash:
        raise UserError(f"{clash[0]!r} is an axis and a variable of the result; rename the axis")


def labelled(
    grid: Grid,
    variables: Variables,
    coords: Mapping[str, Any],
    attrs: Mapping[str, Any],
    dims: tuple[str, ...] = (),
    words: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> xr.Dataset:
    """Make a dataset: the grid's axes label the dimensions that are left of it, and those of `dims`.

    `words` are the attributes of variables by name.

    Raises:
        UserError: an axis has the name of a variable, or a coordinate does not fit.
    """
    left = {d for names, _ in variables.values() for d in names} | set(dims)
    labels = {name: found for name, found in _grid_labels(grid, left).items() if found[0] in left}
    check_names(grid, {name: dims for name, (dims, _) in variables.items()}, coords)
    along = {name: one if isinstance(one, Label) else Label(name, one) for name, one in coords.items()}
    own = {name: (one.dim, _array(one.values)) for name, one in along.items() if one.dim in left}
    try:
        found = xr.Dataset(dict(variables), coords={**labels, **own}, attrs=dict(attrs))
    except ValueError as error:
        raise UserError(f"the labels do not fit the results: {error}") from None
    for name, variable in found.variables.items():
        variable.attrs.update(words.get(str(name), {}))
    return found


def _grid_labels(grid: Grid, left: set[str]) -> dict[str, tuple[str, np.ndarray]]:
    """Labels of the dimensions asked for alone: an axis of 10^9 seeds that was averaged over is not listed."""
    return {c.name: (part.dim, c.labels()) for part in grid.parts if part.dim in left for c in part.columns}


def _array(values: Any) -> Any:
    array = values.array if isinstance(values, pd.Index) else values
    out = np.asarray(array)
    # Text of fixed width has no meaning in Zarr v3.
    return out.astype(object) if out.dtype.kind in "US" else out


def write_tidy(result: xr.Dataset, path: str | Path) -> None:
    """Write a result as one tidy Parquet table a shape, into a folder: `path/<dimensions>.parquet`.

    A row a number, or several of one shape, with all labels of its place; of a store, so many rows at a time that
    memory does not grow with it.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, variable in result.data_vars.items():
        groups.setdefault(tuple(map(str, variable.dims)), []).append(str(name))
    for dims, names in groups.items():
        parts = _parts(result[names], dims) if dims else [pd.DataFrame({n: [result[n].item()] for n in names})]
        write_parts(Path(path) / f"{'-'.join(dims) or 'numbers'}.parquet", parts, dict(result.attrs))


def _parts(result: xr.Dataset, dims: tuple[str, ...]) -> Iterator[pd.DataFrame]:
    """Lay a result out as rows, the last dimension counting fastest, a run of rows at a time."""
    # A dimension without labels of its own is counted over the whole, and not anew in every run.
    result = result.assign_coords({dim: np.arange(result.sizes[dim]) for dim in dims if dim not in result.coords})
    for place in _runs(tuple(result.sizes[dim] for dim in dims)):
        table = result.isel(dict(zip(dims, place, strict=False))).to_dataframe(dim_order=list(dims))
        yield table.reset_index()


def _runs(sizes: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Cut an array into runs of at most `MOST_ROWS` numbers, by slices of its first dimensions."""
    rest = math.prod(sizes[1:])
    if rest > MOST_ROWS:
        for at in range(sizes[0]):
            yield from ((slice(at, at + 1), *more) for more in _runs(sizes[1:]))
        return
    step = max(1, MOST_ROWS // max(rest, 1))
    yield from ((slice(at, at + step),) for at in range(0, max(sizes[0], 1), step))
