"""Observed rows of a panel, flat for the networks, and the way back to (unit, time)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from wmjax.core.errors import UserError
from wmjax.data import frame as frames
from wmjax.data.frame import Frame
from wmjax.data.panel import Panel
from wmjax.data.schema import PanelSchema


@dataclass(frozen=True, eq=False)
class Rows:
    """Observed rows, unit by unit and in the order of time.

    Attributes:
        visible: [rows, units of the visible layer], what was known before the period.
        actions: [rows, actions] of the period.
        outcomes: [rows, outcomes] of the period.
        unit, time: [rows], positions in the panel.
        units: every unit's id. times: the labels of the periods asked for. first: position of `times[0]`.
    """

    visible: np.ndarray
    actions: np.ndarray
    outcomes: np.ndarray
    unit: np.ndarray
    time: np.ndarray
    units: tuple[Any, ...]
    times: pd.Index
    first: int

    def __len__(self) -> int:
        return len(self.unit)

    def scatter(self, values: np.ndarray, *, fill: Any) -> np.ndarray:
        """Lay `[rows, ..]` back on the grid `[units, times, ..]`; what was not observed gets `fill`."""
        grid = np.full((len(self.units), len(self.times), *values.shape[1:]), fill, values.dtype)
        grid[self.unit, self.time - self.first] = values
        return grid

    def dataset(self, values: Mapping[str, np.ndarray], outcomes: tuple[str, ...]) -> xr.Dataset:
        """Label values `[rows]` by (unit, time), and values `[rows, outcomes]` by (outcome, unit, time)."""
        coords: dict[str, Any] = {"unit": list(self.units), "time": self.times}
        arrays = {}
        for name, value in values.items():
            grid = self.scatter(value, fill=np.nan)
            if grid.ndim == 3:
                coords["outcome"] = list(outcomes)
                arrays[name] = (("outcome", "unit", "time"), np.moveaxis(grid, -1, 0))
            else:
                arrays[name] = (("unit", "time"), grid)
        return xr.Dataset(arrays, coords=coords)

    def of(self, grid: np.ndarray) -> np.ndarray:
        """Read rows from a whole panel's grid `[units, times, ..]`."""
        return grid[self.unit, self.time]

    def segment(self, panel: Panel, by: str | None) -> np.ndarray:
        """Label each row by its unit's level of a static column; real values are cut at their quintiles."""
        return unit_labels(panel, by)[self.unit]


def some_rows(count: int, limit: int) -> np.ndarray:
    """Choose at most `limit` of `count` rows by chance: a fixed stride could fall on Sundays alone."""
    chosen = np.random.default_rng(0).permutation(count)[:limit]
    return np.sort(chosen)


def unit_labels(panel: Panel, by: str | None) -> np.ndarray:
    """Label each unit by its level of a static column; real values are cut at their quintiles, equal ones are one."""
    if by is None:
        return np.full(panel.num_units, "all", dtype=object)
    if by not in panel.static_names:
        there = list(panel.static_names) or 'none: declare one with role = "static"'
        raise UserError(f"by is {by!r}, must be a static column; there are {there}")
    values = panel.values(by)
    if by in panel.levels:
        return np.asarray(panel.levels[by], dtype=object)[values.astype(int)]
    if panel.schema.column(by).kind == "binary":
        return np.where(values > 0.5, "yes", "no").astype(object)
    if (values == values[0]).all():
        return np.full(panel.num_units, f"{values[0]:g}", dtype=object)
    cut: Any = pd.qcut(pd.Series(values), 5, duplicates="drop")
    return cut.astype(str).to_numpy(dtype=object)


def take_rows(frame: Frame, panel: Panel, times: slice | None = None) -> Rows:
    """Build the visible layer of a panel and take its observed rows, in the periods asked for."""
    if times is not None and times.step not in (None, 1):
        raise UserError(f"times has step {times.step}, must be a run of neighbouring periods")
    start, stop, _ = (times or slice(None)).indices(panel.num_times)
    if start >= stop:
        raise UserError(f"times selects no period of the panel's {panel.num_times}")
    mask = np.zeros_like(panel.arrays.mask)
    mask[:, start:stop] = panel.arrays.mask[:, start:stop]
    unit, time = np.nonzero(mask)
    if not len(unit):
        raise UserError(f"no unit was observed in periods {panel.times[start]} to {panel.times[stop - 1]}")
    return Rows(
        visible=frames.build(frame, panel)[unit, time],
        actions=panel.arrays.actions[unit, time],
        outcomes=panel.arrays.outcomes[unit, time],
        unit=unit,
        time=time,
        units=tuple(panel.units),
        times=panel.times[start:stop],
        first=start,
    )


def check_same_columns(schema: PanelSchema, levels: Mapping[str, tuple[str, ...]], panel: Panel) -> None:
    """Refuse a panel whose columns or categories are not those that the world was fitted on."""
    for role in ("static", "covariate", "action", "outcome"):
        mine, theirs = schema.names(role), panel.schema.names(role)
        if mine != theirs:
            raise UserError(f"the world was fitted on the {role} columns {list(mine)}, the panel has {list(theirs)}")
    for column, known in levels.items():
        found = panel.levels.get(column, ())
        if tuple(found) != tuple(known):
            raise UserError(
                f"column {column!r}: the world was fitted on the categories {list(known)}, the panel has "
                f"{list(found)}; read it with `read_panel(.., levels=world.levels)`"
            )
