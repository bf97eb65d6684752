"""The panel: one shape for consumers, geos and shops."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float

from wmjax.core import provenance
from wmjax.core.errors import UserError
from wmjax.data.schema import PanelSchema, Role, near


class PanelArrays(NamedTuple):
    """The numbers of a panel, NumPy float32; a categorical column holds the index of its level.

    Attributes:
        static: `[unit, s]`.
        covariates: `[unit, time, x]`.
        actions: `[unit, time, a]`.
        outcomes: `[unit, time, y]`.
        mask: `[unit, time]` bool, True where the unit was observed; elsewhere the numbers are 0 and mean nothing.
    """

    static: Float[np.ndarray, "unit s"]
    covariates: Float[np.ndarray, "unit time x"]
    actions: Float[np.ndarray, "unit time a"]
    outcomes: Float[np.ndarray, "unit time y"]
    mask: Bool[np.ndarray, "unit time"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Panel:
    """Units over time, with names on everything.

    Attributes:
        arrays: see `PanelArrays`; the last axes follow the order of the schema's columns.
        schema: with its frequency settled (never `"auto"`).
        units: unit ids, whole numbers or strings.
        times: the regular calendar, a `DatetimeIndex`, or an index of whole numbers for `"step"`.
        levels: of each categorical column, in code order; `"missing"` stands last where there is one.
    """

    arrays: PanelArrays
    schema: PanelSchema
    units: tuple[int, ...] | tuple[str, ...]
    times: pd.Index
    levels: dict[str, tuple[str, ...]]

    def __repr__(self) -> str:
        roles = ("static", "covariate", "action", "outcome")
        named = [f"{role} {', '.join(names)}" for role in roles if (names := self.schema.names(role))]
        span = f"{self.num_times} periods, {show_time(self.times[0])} to {show_time(self.times[-1])}"
        rows = int(self.arrays.mask.sum())
        return f"Panel({self.num_units:,} units, {self.schema.frequency}, {span}, {rows:,} rows; {'; '.join(named)})"

    def __post_init__(self) -> None:
        names = (self.static_names, self.covariate_names, self.action_names, self.outcome_names)
        u, t = len(self.units), len(self.times)
        want = [(u, len(names[0]))] + [(u, t, len(n)) for n in names[1:]] + [(u, t)]
        for label, array, shape in zip(PanelArrays._fields, self.arrays, want, strict=True):
            if array.shape != shape:
                raise ValueError(f"panel: {label} has shape {array.shape}, must be {shape}")
        if self.schema.frequency == "auto":
            raise ValueError('panel: the schema\'s frequency must be settled, not "auto"')
        categorical = {c.name for c in self.schema.columns if c.kind == "categorical"}
        if set(self.levels) != categorical:
            raise ValueError(f"panel: levels are of {sorted(self.levels)}, must be of {sorted(categorical)}")

    @property
    def num_units(self) -> int:
        return len(self.units)

    @property
    def num_times(self) -> int:
        return len(self.times)

    @property
    def static_names(self) -> tuple[str, ...]:
        return self.schema.names("static")

    @property
    def covariate_names(self) -> tuple[str, ...]:
        return self.schema.names("covariate")

    @property
    def action_names(self) -> tuple[str, ...]:
        return self.schema.names("action")

    @property
    def outcome_names(self) -> tuple[str, ...]:
        return self.schema.names("outcome")

    @cached_property
    def fingerprint(self) -> str:
        """Hash of numbers, schema, ids, dates and levels: equal panels, equal fingerprints."""
        times = [str(t) for t in self.times]
        return provenance.fingerprint(*self.arrays, self.schema, self.units, times, self.levels)

    def action_index(self, name: str) -> int:
        """Find an action on the last axis of `arrays.actions`."""
        return _index("action", name, self.action_names)

    def outcome_index(self, name: str) -> int:
        """Find an outcome on the last axis of `arrays.outcomes`."""
        return _index("outcome", name, self.outcome_names)

    def values(self, name: str) -> Float[np.ndarray, "unit ..."]:
        """Give one column: `[unit]` where static, else `[unit, time]`; categorical as level index."""
        role = self.schema.column(name).role
        array = getattr(self.arrays, ARRAY_OF[role])
        return array[..., self.schema.names(role).index(name)]

    def select(self, *, times: slice = slice(None), units: Iterable[int | str] | None = None) -> Panel:
        """Cut a run of times, and keep the units named.

        Args:
            times: positions where its ends are whole numbers (end excluded), as in a list; dates or strings select
                by label (end included), as in pandas.
            units: ids, in the order wanted; None keeps all.
        """
        labels = any(end is not None and not isinstance(end, int | np.integer) for end in (times.start, times.stop))
        cut = self.times.slice_indexer(times.start, times.stop) if labels else times
        if cut.step not in (None, 1):
            raise UserError(f"times must be a run without gaps; the slice has step {cut.step}")
        rows = np.arange(self.num_units) if units is None else self._rows(units)
        kept = self.times[cut]
        if not len(kept) or not len(rows):
            raise UserError(f"nothing is left: {len(rows)} units, {len(kept)} times")
        arrays = PanelArrays(self.arrays.static[rows], *(a[rows][:, cut] for a in self.arrays[1:]))
        return replace(self, arrays=arrays, units=tuple(self.units[r] for r in rows), times=kept)

    def _rows(self, units: Iterable[int | str]) -> np.ndarray:
        index = {u: i for i, u in enumerate(self.units)}
        units = list(units)
        unknown = [u for u in units if u not in index]
        if unknown:
            raise UserError(
                f"{len(unknown)} units are not in the panel, first {unknown[0]!r}; {near(unknown[0], index)}"
            )
        return np.array([index[u] for u in units], np.int64)

    def with_actions(self, actions: Float[np.ndarray, "unit time a"]) -> Panel:
        """Replace the actions: another plan on the same units and times."""
        if actions.shape != self.arrays.actions.shape:
            raise UserError(f"actions have shape {actions.shape}, the panel's have {self.arrays.actions.shape}")
        bad = ~np.isfinite(actions) & self.arrays.mask[..., None]
        if bad.any():
            u, t, a = (int(i[0]) for i in np.nonzero(bad))
            raise UserError(
                f"column {self.action_names[a]!r}: {int(bad.sum())} actions are not finite, first at unit "
                f"{self.units[u]!r}, time {show_time(self.times[t])}"
            )
        clean = np.where(self.arrays.mask[..., None], actions, 0).astype(np.float32)
        return replace(self, arrays=self.arrays._replace(actions=clean))

    def to_frame(self) -> pd.DataFrame:
        """Give the long table of observed rows; `schema.plain()` reads it back."""
        u, t = np.nonzero(self.arrays.mask)
        plain = self.schema.plain()
        out: dict[str, object] = {str(plain.unit): pd.Index(self.units)[u], str(plain.time): self.times[t]}
        for column in self.schema.columns:
            values = self.values(column.name)
            values = values[u] if column.role == "static" else values[u, t]
            if column.kind == "categorical":
                out[column.name] = pd.Categorical.from_codes(values.astype(int), list(self.levels[column.name]))
            else:
                out[column.name] = values
        return pd.DataFrame(out)

    def to_xarray(self) -> xr.Dataset:
        """Give a labelled Dataset: a variable a column, NaN (or "" for a level) where unobserved, and `observed`."""
        plain = self.schema.plain()
        dims = (str(plain.unit), str(plain.time))
        data = {}
        for column in self.schema.columns:
            values, static = self.values(column.name), column.role == "static"
            if column.kind == "categorical":
                values = np.array(self.levels[column.name], object)[values.astype(int)]
                values = values if static else np.where(self.arrays.mask, values, "")
            elif not static:
                values = np.where(self.arrays.mask, values, np.nan)
            attrs = {"role": column.role, "kind": column.kind}
            data[column.name] = (dims[:1] if static else dims, values, attrs)
        data["observed"] = (dims, self.arrays.mask)
        attrs = {"frequency": self.schema.frequency, "fingerprint": self.fingerprint}
        return xr.Dataset(data, coords={dims[0]: list(self.units), dims[1]: self.times}, attrs=attrs)


ARRAY_OF: dict[Role, str] = {
    "static": "static",
    "covariate": "covariates",
    "action": "actions",
    "outcome": "outcomes",
}


def show_time(time: object) -> str:
    """Write a time as in a message: a date without its midnight, or the step's number."""
    return str(time.date()) if isinstance(time, pd.Timestamp) and time == time.normalize() else str(time)


def _index(role: str, name: str, names: tuple[str, ...]) -> int:
    if name not in names:
        raise UserError(f"no {role} {name!r}; {near(name, names)}")
    return names.index(name)
