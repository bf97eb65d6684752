"""The sweep: any grid, any pure function of a point, any number of devices, in memory that the grid does not move.

Each step evaluates one box on each device, folds it into the reductions there, and hands the numbers that are kept in
full to the host, which writes them while the next step runs. Only boxes and states are ever held.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.sharding import Mesh, SingleDeviceSharding
from jaxtyping import Array, Key

from wmjax.core import devices
from wmjax.core.errors import UserError
from wmjax.core.observe import Event, Observer, silent
from wmjax.core.provenance import fingerprint as hash_of
from wmjax.core.provenance import to_plain, versions
from wmjax.sweep import boxes, describing, grids, results, sizing, store
from wmjax.sweep.boxes import Evaluate, Work
from wmjax.sweep.grids import Grid
from wmjax.sweep.reduce import Full, Reduction, Variable, Variables
from wmjax.sweep.simulating import Simulated
from wmjax.sweep.sizing import SweepPlan
from wmjax.sweep.stepping import STAGE, Job, Run
from wmjax.sweep.tiles import Tiling, tile


def plan_sweep(
    evaluate: Evaluate,
    grid: Grid,
    *,
    key: Key[Array, ""],
    reduce: Reduction | Mapping[str, Reduction] | None = None,
    data: tuple[Any, ...] = (),
    chunk: int | None = None,
    budget_bytes: int | None = None,
    mesh: Mesh | None = None,
    dims: Mapping[str, tuple[str, ...]] | None = None,
    timed: bool = False,
) -> SweepPlan:
    """Say what a sweep would take, without running it; arguments as of `sweep`, which compiles nothing anew.

    `timed` works out the first boxes to predict seconds.
    """
    job = _prepare(evaluate, grid, key, reduce, data, mesh, dims)
    tiling = sizing.fit(job.work, mesh, job.shapes, chunk, budget_bytes)
    plan = sizing.describe(job.work, tiling, mesh, job.shapes)
    return replace(plan, seconds=Run(job, tiling, None, (0, 1), silent, math.inf).seconds()) if timed else plan


def sweep(
    evaluate: Evaluate,
    grid: Grid,
    *,
    key: Key[Array, ""],
    reduce: Reduction | Mapping[str, Reduction] | None = None,
    data: tuple[Any, ...] = (),
    chunk: int | None = None,
    budget_bytes: int | None = None,
    mesh: Mesh | None = None,
    out: str | Path | None = None,
    dims: Mapping[str, tuple[str, ...]] | None = None,
    coords: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    described: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    extra: Mapping[str, Callable[[Variables], Variable | None]] = MappingProxyType({}),
    fingerprint: str = "",
    save_seconds: float = 30.0,
    worker: tuple[int, int] = (0, 1),
    patience_seconds: float = 3600.0,
    observer: Observer = silent,
) -> xr.Dataset | None:
    """Evaluate every point of a grid and keep what the reductions keep.

    Points share one key (common random numbers); axes of seeds fold their seed into it. What depends on the grid's
    first dimensions alone is computed once for all points that share them (see `boxes`). The same function object and
    shapes swept again compile nothing.

    Args:
        evaluate: `(key, point, *data) -> numbers`, pure; `point` holds a scalar for each axis; numbers are one array,
            or arrays by name. `simulating.of_simulate` makes one of a `simulate(key, params, history, actions)`.
        grid: its points.
        key: a typed key.
        reduce: a reduction, or several by name; `Full()` if not given.
        data: arrays handed to `evaluate` (parameters, histories); closed over instead, they would be compiled in.
        chunk: most points of a box; chosen from predicted bytes if not given.
        budget_bytes: what the compiled programs may take on each device; by default half of what it has free, of which
            a box on a processor takes what its caches hold.
        mesh: one axis; each of its devices takes every n-th box. None is the default device.
        out: place of a Zarr store; a sweep that was killed goes on from there and ends with the same bits. Numbers
            kept in full are never computed again; what is only folded goes on from the last checkpoint. It goes on with
            the devices and workers that it was begun with, of which there must be as many.
        dims: names of each output's dimensions, `{"value": ("unit", "outcome")}`.
        coords: labels of these dimensions, and more along them (`results.Label`).
        provenance: what the result carries, beside the grid, the reductions and the versions.
        described: attributes (`long_name`, `units`, ..) of outputs, and of any variable or label by its own name; what
            reductions make of an output is described by it.
        extra: variables by name that stand beside what is kept, along the grid's dimensions and `dims`; asked for at
            the end, of the worker that finishes, which tells what the reductions found. None leaves one out.
        fingerprint: of what `evaluate` closes over, so that another world's sweep is not continued.
        save_seconds: time between two checkpoints of what is folded.
        worker: `(i, n)`: this process is number i of n that share `out`; each takes every n-th step, and number 0 waits
            for the others and finishes.
        patience_seconds: for how long no sign of the others is bearable.
        observer: told of every step.

    Returns:
        What was kept, labelled with the grid's axes; opened from `out`, where given. None for a worker but the first.

    Raises:
        UserError: a grid, reduction, place or budget that does not fit; a disk that is full; a worker that stays away.
    """
    job = _prepare(evaluate, grid, key, reduce, data, mesh, dims)
    if not 0 <= worker[0] < worker[1]:
        raise UserError(f"worker is {worker}, must be (number from 0, how many)")
    if out is None and worker[1] > 1:
        raise UserError(f"{worker[1]} workers need a place to share: give out")
    identity = _identity(job, fingerprint)
    place, about, whole = (None, None, False) if out is None else store.find(out, identity)
    if whole and place is not None:
        observer(Event(STAGE, grid.size, grid.size, "plan"))
        return store.read(place.out)
    if about is not None:
        job = _as_begun(job, about, worker[1])
    tiling = _tiling(job, about, chunk, budget_bytes)
    run = Run(job, tiling, place, worker, observer, save_seconds)
    results.check_names(grid, {**{name: array.dims for name, array in run.arrays.items()}, **dict.fromkeys(extra, ())})
    attrs = {"sweep": dict(about or _about(run, identity)), "provenance": dict(provenance or {})}
    words = describing.attributes(job.work, grid, described)
    full_dims = tuple(dim for array in run.arrays.values() for dim in array.dims)
    try:
        if place is not None and about is None:
            labels = results.labelled(grid, {}, coords or {}, attrs, full_dims, words)
            about = store.begin(place, attrs["sweep"], run.arrays, labels, words)
            if about["identity"] != identity:
                raise store.another(place, whole=False)
            # Another worker may have been first, on other devices or with another budget.
            job = _as_begun(job, about, worker[1])
            if (about["chunk"], about["devices"]) != (tiling.chunk, run.lanes):
                run = Run(job, _tiling(job, about, chunk, None), place, worker, observer, save_seconds)
                attrs["sweep"] = about
        states = run.all_steps()
        if worker[0]:
            return None
        for other in range(1, worker[1]):
            states += run.wait_for(other, patience_seconds)
        kept = {name: (run.arrays[name].dims, numbers) for name, numbers in run.kept.items()}
        folded = results.finished(job.work, run.merged(states), grid)
        more = {name: one for name, ask in extra.items() if (one := ask(folded)) is not None}
        variables = {**kept, **folded, **more}
        found = results.labelled(grid, variables, coords or {}, attrs, full_dims, words)
        if place is None:
            return found
        store.finish(place, found)
        return store.read(place.out)
    except OSError as error:
        raise UserError(f"{out}: {error}; what is finished is kept, and the same sweep goes on from there") from error


def _tiling(job: Job, about: Mapping[str, Any] | None, chunk: int | None, budget: int | None) -> Tiling:
    """Take up the boxes of an earlier start, or choose them."""
    if about is None:
        return sizing.fit(job.work, job.mesh, job.shapes, chunk, budget)
    if chunk is not None and tile(job.grid.sizes, chunk).chunk != about["chunk"]:
        raise UserError(f"the sweep was begun with a chunk of {about['chunk']} points; go on with that, or without one")
    return Tiling(job.grid.sizes, about["lead"], about["width"])


def _as_begun(job: Job, about: Mapping[str, Any], workers: int) -> Job:
    """Take up the devices of an earlier start: boxes are dealt out to them, and folded in their order.

    Raises:
        UserError: fewer devices than it was begun on, or other workers.
    """
    if about["workers"] != workers:
        raise UserError(f"the sweep was begun by {about['workers']} worker(s), not {workers}; go on with as many")
    count, have = about["devices"], sizing.lanes_of(job.mesh)
    if count == have:
        return job
    if job.mesh is None or count > have:
        raise UserError(
            f"the sweep was begun on {count} devices a worker, and this one is given {have}; go on with a mesh of "
            f"{count}, which a processor has by {devices.ENVIRONMENT}={count}"
        )
    own = job.mesh.devices.flat[:count]
    mesh = None if count == 1 else Mesh(own, job.mesh.axis_names)
    # From all devices back to one: no sharding at all would leave them where they are.
    there = SingleDeviceSharding(own[0]) if mesh is None else sizing.shardings(mesh)[1]
    return job._replace(mesh=mesh, arguments=jax.device_put(job.arguments, there))


def _prepare(evaluate: Any, grid: Grid, key: Any, reduce: Any, data: Any, mesh: Any, dims: Any) -> Job:
    if mesh is not None and len(mesh.axis_names) != 1:
        raise UserError(f"the mesh has axes {mesh.axis_names}; a sweep takes one")
    grids.check_levels(grid)
    kept = Full() if reduce is None else reduce
    reductions = tuple(kept.items()) if isinstance(kept, Mapping) else (("", kept),)
    if not reductions:
        raise UserError("a sweep that keeps nothing: give a reduction")
    shared = sizing.shardings(mesh)[1]
    arguments = jax.device_put((key, grid.tables(), jax.tree.map(jnp.asarray, tuple(data))), shared)
    shapes = sizing.shapes_of(arguments)
    scenes = boxes.scenes(evaluate, grid.layout, reductions, dims or {}, shapes)
    return Job(grid, Work(evaluate, grid.layout, reductions, scenes), mesh, arguments, shapes)


def _identity(job: Job, fingerprint: str) -> str:
    """Tell one sweep from another: by everything that its numbers depend on, to the rounding of their folds.

    Not by devices and workers: a finished sweep is the same whoever worked on it, and one that was begun remembers
    them (`_as_begun`), so that it ends with the same bits.
    """
    key, _, data = job.arguments
    leaves = [_words(x) for x in jax.tree.leaves((key, data))]
    own: Any = job.work.evaluate
    named = own.told if isinstance(own, Simulated) else getattr(own, "__qualname__", type(own).__qualname__)
    fixed = [named, fingerprint, job.grid, job.work.reductions, job.work.scenes]
    fixed.append(sorted(results.full_names(job.work).items()))
    return hash_of(*fixed, *leaves)


def _words(x: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)


def _about(run: Run, identity: str) -> dict[str, Any]:
    job = run.job
    key = _words(job.arguments[0]).tolist()
    return {
        "identity": identity,
        "format": store.FORMAT,
        "grid": dict(zip(job.grid.dims, job.grid.sizes, strict=True)),
        "axes": {part.dim: {column.name: column.kind for column in part.columns} for part in job.grid.parts},
        "points": job.grid.size,
        "chunk": run.tiling.chunk,
        "lead": run.tiling.lead,
        "width": run.tiling.width,
        "devices": run.lanes,
        "workers": run.worker[1],
        "key": key,
        "reductions": {name or "all": to_plain(reduction) for name, reduction in job.work.reductions},
        "versions": versions(),
    }
