"""The host's side of a sweep: send steps, write what they gave, remember how far it is."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from wmjax.core.errors import UserError
from wmjax.core.observe import Event, Observer
from wmjax.sweep import boxes, results, sizing, store, wide
from wmjax.sweep.boxes import Work
from wmjax.sweep.grids import Grid
from wmjax.sweep.reduce import Full
from wmjax.sweep.sizing import Shapes
from wmjax.sweep.store import Piece, Store
from wmjax.sweep.tiles import Region, Tiling

STAGE, READ = "sweep", "read back"
POLL_SECONDS = 0.05
"""Between two looks for what another worker has finished."""


@partial(jax.jit, static_argnames="work")
def _begin(*, work: Work) -> Any:
    """Begin every reduction; equal work compiles once."""
    return boxes.init_states(work)


class Job(NamedTuple):
    """A sweep's fixed part, its arguments (key, tables, data) on the device, and their shapes."""

    grid: Grid
    work: Work
    mesh: Mesh | None
    arguments: tuple[Any, Any, tuple[Any, ...]]
    shapes: Shapes


class _Sent(NamedTuple):
    """A step that the device is working on; `fresh` are numbers still to be written."""

    step: int
    regions: list[Region]
    values: Mapping[str, Any]
    fresh: bool


class Run:
    """One process's share of a sweep: every n-th step, each of one box a lane, a lane a device.

    Attributes:
        steps: numbers of this worker's steps; step s has the boxes `s lanes .. s lanes + lanes - 1`.
        arrays: outputs kept in full.
        kept: their numbers, where there is no store.
        folds: whether any reduction folds.
        stored: whether all that is folded is kept in full as well, so that it is read back and not computed again.
    """

    def __init__(
        self, job: Job, tiling: Tiling, place: Store | None, worker: tuple[int, int], observer: Observer, save: float
    ) -> None:
        self.job, self.tiling, self.place, self.worker, self.save = job, tiling, place, worker, save
        self.programs = sizing.compiled(job.work, tiling, job.mesh, job.shapes)
        self.lanes, self.split = sizing.lanes_of(job.mesh), sizing.shardings(job.mesh)[0]
        self.arrays = results.growing(job.work, tiling, {k: x.dtype for k, x in self.programs.values.items()})
        self.folds = any(not isinstance(r, Full) for _, r in job.work.reductions)
        self.stored = set(self.programs.values) == set(results.full_names(job.work))
        self.steps = self.steps_of(worker[0])
        self.kept: dict[str, np.ndarray] = {}
        self.progress = _Progress(observer, self._points(), self.programs.bytes, tiling.chunk)

    def steps_of(self, worker: int) -> range:
        return range(worker, -(-self.tiling.num_regions // self.lanes), self.worker[1])

    def regions(self, step: int) -> list[Region]:
        return [self.tiling.region(step * self.lanes + lane) for lane in range(self.lanes)]

    def _points(self) -> int:
        if self.worker[1] == 1:
            return self.job.grid.size
        return sum(region.count for step in self.steps for region in self.regions(step))

    # ---- the loop ---------------------------------------------------------------------------------------------------

    def all_steps(self) -> list[Any]:
        """Take every step that is not done yet; give this worker's states, one a lane."""
        folded, begun = self._resume()
        self.kept = {} if self.place is not None else _room(self.arrays)
        done, states = folded, begun
        if self.place is not None and self.arrays:
            self.progress.known = sum(self.place.marker(step).exists() for step in self.steps)
        try:
            for done, states in self._steps(folded, begun):
                self._checkpoint(done, states)
        except KeyboardInterrupt:
            # States that a step was just taking up are gone: the last checkpoint then stands.
            if done > folded and not any(x.is_deleted() for x in jax.tree.leaves(states)):
                self._checkpoint(done, states, now=True)
            raise
        if self.place is not None and self.worker[1] > 1 and self.arrays:
            store.settle(self.place, self.steps)
        self._checkpoint(len(self.steps), states, now=True, whole=True)
        self.progress.end()
        return _lanes(jax.device_get(states), self.lanes)

    def _steps(self, folded: int, states: Any) -> Iterator[tuple[int, Any]]:
        """Take the steps; after each give how many are folded into the states, and these."""
        sent: _Sent | None = None
        for count, step in enumerate(self.steps):
            regions = self.regions(step)
            stored = store.read_box(self.place, step) if self.place is not None and self.arrays else None
            fold = self.folds and count >= folded
            if stored is not None:
                self.progress.read_back()
            if not fold and (stored is not None or not self.arrays):
                self.progress.skip(regions)
                continue
            self.progress.begin()
            start = self._start(regions)
            if stored is None or (fold and not self.stored):
                values = self._evaluate(start)
            else:
                values = self._unpack(stored, regions)
            if fold:
                states = self._fold(states, values, start, regions)
                yield count + 1, states
            # One step behind: the device is busy with this step while the host writes the one before.
            if sent is not None:
                self._land(sent)
            sent = _Sent(step, regions, values, stored is None and bool(self.arrays))
        if sent is not None:
            self._land(sent)

    def seconds(self) -> float:
        """Predict how long all steps take by the second of two times that the first is taken; nothing is written."""
        regions, took = self.regions(0), 0.0
        for _ in range(2):
            states, start = self._put(self._empty()), self._start(regions)
            begun = time.monotonic()
            values = jax.block_until_ready(self._evaluate(start))
            jax.block_until_ready(self._fold(states, values, start, regions))
            took = time.monotonic() - begun
        return took * len(self.steps)

    def _start(self, regions: list[Region]) -> Any:
        return self._put(np.array([r.start for r in regions], np.int32))

    def _fold(self, states: Any, values: Mapping[str, Any], start: Any, regions: list[Region]) -> Any:
        index = self._put(np.stack([wide.split(r.index) for r in regions]))
        points = self._put(np.array([r.count for r in regions], np.int32))
        return self.programs.fold(states, values, start, index, points)

    def _evaluate(self, start: Any) -> Mapping[str, Any]:
        key, tables, data = self.job.arguments
        return self.programs.evaluate(key, start, tables, data)

    def _put(self, tree: Any) -> Any:
        # `jnp.array` copies: what will be donated must not be a view of the host's memory.
        return jax.tree.map(lambda x: jax.device_put(jnp.array(x), self.split), tree)

    def _land(self, sent: _Sent) -> None:
        """Wait for a step, and write its numbers."""
        if sent.fresh:
            pieces = self._pieces(sent)
            if self.place is not None:
                store.write_box(self.place, sent.step, pieces)
            else:
                for piece in pieces:
                    self.kept[piece.name][piece.slices] = piece.values
        jax.block_until_ready(sent.values)
        self.progress.tell(sent.regions)

    def _pieces(self, sent: _Sent) -> list[Piece]:
        """Cut a step's numbers from their boxes."""
        out = []
        for output, name in results.full_names(self.job.work).items():
            numbers = np.asarray(sent.values[output])
            for lane, region in enumerate(sent.regions):
                if region.count:
                    box = numbers[lane].reshape(*self.tiling.box, *numbers.shape[2:])
                    slices = self.tiling.slices(region)
                    out.append(Piece(name, slices, box[tuple(slice(0, s.stop - s.start) for s in slices)]))
        return out

    def _unpack(self, pieces: list[Piece], regions: list[Region]) -> Mapping[str, Any]:
        """Put stored numbers back into boxes; what sticks out of the grid is zero, and not counted."""
        out = {}
        for output, name in results.full_names(self.job.work).items():
            shape = self.programs.values[output]
            numbers = np.zeros(shape.shape, shape.dtype)
            at = {_starts(piece.slices): piece.values for piece in pieces if piece.name == name}
            for lane, region in enumerate(regions):
                if region.count:
                    slices = self.tiling.slices(region)
                    box = numbers[lane].reshape(*self.tiling.box, *shape.shape[2:])
                    box[tuple(slice(0, s.stop - s.start) for s in slices)] = at[_starts(slices)]
            out[output] = numbers
        return self._put(out)

    # ---- what is folded ---------------------------------------------------------------------------------------------

    def _empty(self) -> Any:
        states = _begin(work=self.job.work)
        return jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (self.lanes, *x.shape)), states)

    def _resume(self) -> tuple[int, Any]:
        found = store.load_state(self.place, self.worker[0]) if self.place is not None else None
        return (0, self._put(self._empty())) if found is None else (found.done, self._put(self._tree(found.leaves)))

    def _tree(self, leaves: list[np.ndarray]) -> Any:
        return jax.tree.structure(self._empty()).unflatten(leaves)

    def _checkpoint(self, done: int, states: Any, *, now: bool = False, whole: bool = False) -> None:
        """Keep what is folded of the first `done` steps; their boxes are all written at the end alone, `whole`."""
        if self.place is not None and (now or self.progress.since_save() >= self.save):
            leaves = [np.asarray(x) for x in jax.tree.leaves(jax.device_get(states))]
            store.save_state(self.place, self.worker[0], store.Folded(done, whole, leaves))
            self.progress.saved()

    def wait_for(self, other: int, patience: float) -> list[Any]:
        """Wait until another worker has done its share; give its states."""
        assert self.place is not None
        sign, since = None, time.monotonic()
        while True:
            found = store.load_state(self.place, other)
            if found is not None and found.whole:
                self._check(other)
                return _lanes(self._tree(found.leaves), self.lanes)
            newest = store.last_sign(self.place, other)
            if newest != sign:
                sign, since = newest, time.monotonic()
            if time.monotonic() - since > patience:
                raise UserError(
                    f"worker {other} of {self.worker[1]} has given no sign for {patience:.0f} s; start it again, and "
                    "worker 0 again: what they finished is kept"
                )
            time.sleep(min(POLL_SECONDS, patience / 4))

    def _check(self, other: int) -> None:
        """Refuse to end where boxes are not there that a worker has said it wrote."""
        assert self.place is not None
        lost = [step for step in self.steps_of(other) if not self.place.marker(step).exists()] if self.arrays else []
        if lost:
            raise UserError(f"{len(lost)} boxes of worker {other} are not there; start it again, and worker 0 again")

    def merged(self, states: list[Any]) -> Any:
        """Join the states of all lanes of all workers, in their order."""
        out = states[0]
        for state in states[1:]:
            out = _merge(out, state, work=self.job.work)
        return jax.device_get(out)


_merge = jax.jit(boxes.merge_states, static_argnames="work")


def _starts(slices: tuple[slice, ...]) -> tuple[int, ...]:
    """Name a box by its first point: slices cannot be looked up before Python 3.12."""
    return tuple(s.start for s in slices)


def _lanes(states: Any, lanes: int) -> list[Any]:
    return [jax.tree.map(lambda x, lane=lane: np.asarray(x)[lane], states) for lane in range(lanes)]


def _room(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Make room for outputs kept in full, if the machine has it."""
    need = sum(np.dtype(a.dtype).itemsize * math.prod(a.shape) for a in arrays.values()) / 2**30
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if need > have / 2:
        raise UserError(
            f"all points take {need:.3g} GiB and the machine has {have:.3g} GiB; give out, which writes them to disk, "
            "or a reduction such as Moments or Top"
        )
    return {name: np.empty(a.shape, a.dtype) for name, a in arrays.items()}


class _Progress:
    """How far a sweep is, and when it was last saved."""

    def __init__(self, observer: Observer, total: int, size: int, chunk: int) -> None:
        self.observer, self.total, self.size, self.chunk = observer, total, size, chunk
        self.done = self.fresh = 0
        self.begun = False
        self.read = self.known = 0
        self.save = time.monotonic()

    def begin(self) -> None:
        """Say how far the sweep is, at the first step that is taken: those before it were done earlier."""
        if not self.begun:
            self.begun, self.save = True, time.monotonic()
            self._say({"chunk": float(self.chunk), "megabytes": self.size / 2**20})

    def read_back(self) -> None:
        """Say how many of the boxes that were there before have been looked at."""
        self.read += 1
        self.observer(Event(READ, self.read, max(self.known, self.read), "box"))

    def skip(self, regions: list[Region]) -> None:
        self.done += sum(r.count for r in regions)

    def tell(self, regions: list[Region]) -> None:
        points = sum(r.count for r in regions)
        self.done, self.fresh = self.done + points, self.fresh + points
        self._say({})

    def end(self) -> None:
        if self.fresh == 0:
            self._say({})

    def _say(self, metrics: Mapping[str, float]) -> None:
        self.observer(Event(STAGE, self.done, self.total, "plan", metrics))

    def since_save(self) -> float:
        return time.monotonic() - self.save

    def saved(self) -> None:
        self.save = time.monotonic()
