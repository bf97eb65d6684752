"""What `wmjax sweep` does: a sweep of a run's world in words."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import xarray as xr

from wmjax.core import devices
from wmjax.core.errors import UserError
from wmjax.core.files import read_provenance
from wmjax.core.observe import Observer
from wmjax.data.panel import Panel, show_time
from wmjax.data.schema import PanelSchema
from wmjax.sweep import plan_reading, processes, reading, reduce_reading, results, store
from wmjax.sweep.grids import Grid
from wmjax.worlds import contract, sweeping
from wmjax.worlds.sweeping import Setting, Warn

TABLES = (".parquet", ".csv", ".tsv", ".json", ".nc", ".xlsx", ".feather")
"""Ends of the names of files that a sweep is none of."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A sweep in words; see `wmjax sweep --help`."""

    grid: str
    reduce: str = "full"
    plan: Path | None = None
    start: int | None = None
    periods: int = 1
    carry: int | None = None
    feedback: bool = False
    by: str | None = None
    worth: str = ""
    cost: str = ""
    seed: int = 0
    chunk: int | None = None

    def __post_init__(self) -> None:
        try:
            Setting(start=self.start or 0, periods=self.periods, carry=self.carry)
        except ValueError as error:
            raise UserError(str(error)) from None
        read_grid(self.grid)
        reduce_reading.reduce_from_words(self.reduce.split())

    def check(self, schema: PanelSchema) -> None:
        """Refuse money without prices.

        Args:
            schema: of the panel to be swept.

        Raises:
            UserError: naming what could have one.
        """
        kept = {one.of for one in reduce_reading.reduce_from_words(self.reduce.split()).values()}
        for output, name, words, role in (
            ("profit", "worth", self.worth, "outcome"),
            ("cost", "cost", self.cost, "action"),
        ):
            if not prices(words, name) and output in kept:
                first = next(column.name for column in schema.columns if column.role == role)
                raise UserError(f'the sweep is to keep {output}, and nothing has a price; give --{name} "{first}=1"')

    def arguments(self, world: Any, panel: Panel) -> dict[str, Any]:
        """Give the arguments of `sweeping.sweep`.

        Raises:
            UserError: words that cannot be read, or a world that cannot be swept.
        """
        sweeping.forecasting(world)
        self.check(panel.schema)
        start = contract.periods(world.facts, panel, "test").start if self.start is None else self.start
        setting = Setting(
            start=start,
            periods=self.periods,
            carry=self.carry,
            feedback=self.feedback,
            by=self.by,
            worth=prices(self.worth, "worth"),
            cost=prices(self.cost, "cost"),
        )
        return {
            "grid": read_grid(self._named(world)),
            "key": jax.random.key(self.seed),
            "setting": setting,
            "plan": None if self.plan is None else plan_reading.read_plan(self.plan),
            "reduce": reduce_reading.reduce_from_words(self.reduce.split()),
            "chunk": self.chunk,
            "mesh": processes.local_mesh(),
        }

    def _named(self, world: Any) -> str:
        """Say in numbers which members `member=all` are."""
        count = import_module(sweeping.forecasting(world)).answers(world, feedback=self.feedback).count
        words = [f"member=0:{count - 1}" if word == "member=all" else word for word in self.grid.split()]
        return " ".join(words) if "member=all" in self.grid.split() else self.grid


def read_grid(words: str) -> Grid:
    """Read a grid from words, or from a TOML file."""
    return reading.read_grid(words) if words.endswith(".toml") else reading.grid_from_words(words.split())


def prices(words: str, what: str) -> tuple[tuple[str, float], ...]:
    """Read `buy=3.5 visit=0.1`.

    Raises:
        UserError: a word that is not NAME=NUMBER.
    """
    found = []
    for word in words.split():
        name, _, value = word.partition("=")
        try:
            found.append((name, float(value)))
        except ValueError:
            example = f"{name or 'NAME'}=3.5"
            raise UserError(f"{what} {word!r} must be NAME=NUMBER, for example {example}") from None
    return tuple(found)


def asked_about(world: Any, panel: Panel, asked: Asked) -> str:
    """Say which periods plans are of, and how many after them count."""
    options = asked.arguments(world, panel)
    setting = sweeping.carried(world, panel, options["grid"], options["setting"])
    if (stop := setting.start + setting.periods) > panel.num_times:
        return f"periods {setting.start} to {stop - 1}"  # which are refused
    first, last = (show_time(panel.times[at]) for at in (setting.start, stop - 1))
    words = f"plans of {first}" if setting.periods == 1 else f"plans of {first} to {last}"
    return f"{words}, and what they do in them" + (f" and {setting.carry} periods later" if setting.carry else "")


def predicted(
    world: Any,
    panel: Panel,
    asked: Asked,
    *,
    timed: bool = False,
    workers: int = 1,
    notes: Sequence[str] = (),
    warn: Warn | None = None,
) -> dict[str, Any]:
    """Say what a sweep would take: points, boxes, bytes; and, if `timed`, its seconds, from those of the first boxes.

    Workers on one machine share its cores, and a device here is a device of one worker.
    `notes` and `warn` are as of `run`.
    """
    options = asked.arguments(world, panel)
    told = sweeping.plan_sweep(world, panel, **options, timed=timed, notes=notes, warn=warn)
    found = {
        "points": told.points,
        "points a box": told.chunk,
        "boxes": told.regions,
        "devices": told.devices,
        "MiB at its peak, each device": round(told.bytes / 2**20, 1),
        "MiB written": round(told.stored_bytes / 2**20, 1),
        "operations a point": told.flops,
    }
    if told.seconds is not None:
        found["seconds, as the first box goes"] = float(f"{told.seconds / workers:.2g}")
    return found


def run(
    world: Any,
    panel: Panel,
    asked: Asked,
    out: Path,
    *,
    worker: tuple[int, int] = (0, 1),
    patience_seconds: float = 3600.0,
    notes: Sequence[str] = (),
    warn: Warn | None = None,
    observer: Observer,
) -> xr.Dataset | None:
    """Sweep, or go on with a sweep that was stopped; `notes` are warnings that hold for whatever is asked.

    `warn` is told of all warnings before anything is swept.
    """
    options = asked.arguments(world, panel)
    return sweeping.sweep(
        world,
        panel,
        **options,
        out=out,
        worker=worker,
        patience_seconds=patience_seconds,
        notes=notes,
        warn=warn,
        observer=observer,
    )


def check_places(out: Path, tidy: Path | None) -> None:
    """Refuse names that say something else than what will stand there.

    Raises:
        UserError: a table's name for the store, or a file's for the folder of tables.
    """
    if out.suffix in TABLES:
        raise UserError(f"{out}: a sweep is a Zarr store, such as {out.with_suffix('.zarr')}; --tidy writes tables too")
    if tidy is not None and (tidy.suffix in TABLES or tidy.is_file()):
        raise UserError(f"{tidy}: --tidy names a folder, of a Parquet table for each shape, such as {tidy.stem}_tables")


def write_tidy(out: Path, tidy: Path) -> list[tuple[Path, int]]:
    """Write a finished sweep as tidy tables; give their places and rows.

    Raises:
        UserError: the folder holds tables of something else.
    """
    import pyarrow.parquet as pq

    found = store.read(out)
    own = found.attrs["sweep"]["identity"]
    for path in sorted(tidy.glob("*.parquet")):
        if read_provenance(path).get("sweep", {}).get("identity") != own:
            raise UserError(
                f"{path} is no table of {out}; choose another --tidy, the same command then goes on from here"
            )
    results.write_tidy(found, tidy)
    return [(path, pq.read_metadata(path).num_rows) for path in sorted(tidy.glob("*.parquet"))]


def use_cores(out: Path, workers: int = 1) -> dict[str, str]:
    """Make each core a device, of which workers on this machine have equal shares, before JAX is used.

    A sweep that was begun goes on with as many devices as it was begun on, however many cores there are now.

    Returns:
        The environment by which a worker that is started has its share.
    """
    about = store.begun(out)
    count = max(1, devices.num_cores() // workers) if about is None else about["devices"]
    own = not devices.chosen()
    devices.use_cores(count)
    return {devices.ENVIRONMENT: str(count)} if own else {}


def start_workers(words: list[str], count: int, env: Mapping[str, str]) -> None:
    """Run `wmjax sweep` once a worker, on this machine; `words` are those of the command without `--processes`."""
    command = [sys.executable, "-m", "wmjax.cli", *words]
    processes.start([[*command, "--worker", f"{number}/{count}"] for number in range(count)], env)
