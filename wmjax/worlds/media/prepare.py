"""A panel on the network's scale: scales from train periods only, zero spend exactly zero, mediators left out."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Float

from wmjax.core.errors import UserError
from wmjax.data import scaling
from wmjax.data.panel import Panel, show_time
from wmjax.data.schema import near
from wmjax.data.splits import Split
from wmjax.transformer.network import Series
from wmjax.worlds.media import proxies
from wmjax.worlds.media.config import MediaConfig
from wmjax.worlds.media.proxies import Errors, Seen

YEAR = 365.25
ALL_UNITS = ", all units"
"""Ends the name of a covariate's mean over units."""
IDLE = 0.05
"""Share of a channel's typical spend below which there is next to none."""
PEERS = 5
"""Units from which their mean is worth a covariate."""


class Scales(NamedTuple):
    """Numbers between a table's units and the network's, fitted on the train periods; NumPy float64.

    spend: [channels], largest spend of a period per unit of size. size: [units]. outcome_centre: [units], mean outcome
    per unit of size. outcome_scale: one number. covariate_*: [covariates]. static_*: [static]. typical: [channels],
    mean of the scaled spend where there is any. origin, span: of the trend, in days. level: [units, own], each unit's
    mean of the schema's covariates. errors: of covariates. place: [units], of each unit among those fitted together.
    """

    spend: np.ndarray
    size: np.ndarray
    outcome_centre: np.ndarray
    outcome_scale: np.ndarray
    covariate_centre: np.ndarray
    covariate_scale: np.ndarray
    static_centre: np.ndarray
    static_scale: np.ndarray
    typical: np.ndarray
    origin: np.ndarray
    span: np.ndarray
    level: np.ndarray
    errors: Errors
    place: np.ndarray

    def of(self, units: np.ndarray) -> Scales:
        """Take some units' part."""
        own = {"size": self.size[units], "outcome_centre": self.outcome_centre[units], "level": self.level[units]}
        own["place"] = self.place[units]
        return self._replace(**own, errors=self.errors.of(units))


def days(times: pd.Index) -> Float[np.ndarray, " time"]:
    """Number the periods: days since 1970, or the steps themselves."""
    if isinstance(times, pd.DatetimeIndex):
        return times.to_numpy("datetime64[s]").astype(np.float64) / 86400
    return times.to_numpy(np.float64)


def outcome_name(panel: Panel, cfg: MediaConfig) -> str:
    """Name the outcome that is modelled."""
    if cfg.outcome and cfg.outcome not in panel.outcome_names:
        raise UserError(f"no outcome {cfg.outcome!r}; {near(cfg.outcome, panel.outcome_names)}")
    return cfg.outcome or panel.outcome_names[0]


def check(panel: Panel, train: np.ndarray, cfg: MediaConfig) -> None:
    """Say in one error what in a panel a media world cannot be fitted to.

    Raises:
        UserError: too few periods, negative spend, a channel or an outcome that is never there in the train periods.
    """
    problems = []
    rows = panel.arrays.mask & train
    if train.sum() < 8:
        problems.append(f"only {int(train.sum())} train periods; a media world needs at least 8, and years to be good")
    elif not (rows[:, 1:] & rows[:, :-1]).any():
        problems.append(
            f"no unit has two train periods in a row, {rows.any(0).sum()} of {train.sum()} {panel.schema.frequency} "
            "periods have rows: is the frequency right?"
        )
    if not panel.action_names:
        problems.append("the schema has no action: declare the channels' spend as actions")
    for at, name in enumerate(panel.action_names):
        values = np.where(panel.arrays.mask, panel.arrays.actions[..., at], 0)
        if (values < 0).any():
            u, t = (int(i[0]) for i in np.nonzero(values < 0))
            problems.append(
                f"column {name!r}: spend is negative in {int((values < 0).sum())} rows, first at unit "
                f"{panel.units[u]!r}, time {show_time(panel.times[t])}; a media world knows none below 0"
            )
        elif not values[rows].any():
            where = "anywhere" if not values.any() else "in the train periods, only later"
            problems.append(f"column {name!r}: no spend {where}; its effect cannot be learnt, drop the channel")
    name = outcome_name(panel, cfg)
    values = panel.arrays.outcomes[..., panel.outcome_index(name)][rows]
    if len(values) and (values == values[0]).all():
        problems.append(f"column {name!r}: the outcome is {values[0]:g} in all train rows; there is nothing to explain")
    for field in ("negative", "unknown"):
        for wrong in (n for n in getattr(cfg, field) if n not in panel.action_names):
            problems.append(f"{field} names {wrong!r}, which is no channel; {near(wrong, panel.action_names)}")
    for wrong in (p.channel for p in cfg.roi if p.channel not in panel.action_names):
        problems.append(f"an ROI prior names {wrong!r}, which is no channel; {near(wrong, panel.action_names)}")
    if len(problems) == 1:
        raise UserError(problems[0])
    if problems:
        raise UserError(f"the panel has {len(problems)} problems:\n" + "\n".join(f"- {p}" for p in problems))


def unspent(panel: Panel, split: Split) -> dict[str, list[str]]:
    """Name the channels without spend in the `val` and `test` periods: what is held out says nothing of them."""
    found = {}
    for part, times in (("val", split.val), ("test", split.test)):
        spent = panel.arrays.actions[panel.arrays.mask & times]
        found[part] = [n for at, n in enumerate(panel.action_names) if len(spent) and not spent[:, at].any()]
    return found


def size_ratio(panel: Panel, train: np.ndarray, cfg: MediaConfig) -> float | None:
    """Compare the largest unit's mean outcome in the train periods with the smallest's, where units are taken as equal.

    Returns:
        Their ratio; None of one unit, where units are divided by their size, and where a mean is not positive.
    """
    rows = panel.arrays.mask & train
    y = panel.arrays.outcomes[..., panel.outcome_index(outcome_name(panel, cfg))].astype(np.float64)
    mean = np.where(rows, y, 0).sum(1)[rows.any(1)] / rows.sum(1)[rows.any(1)]
    if cfg.size != "none" or len(mean) < 2 or mean.min() <= 0:
        return None
    return float(mean.max() / mean.min())


def seen(panel: Panel, cfg: MediaConfig, scales: Scales) -> Seen:
    """Lay out what is known of a period: the schema's covariates (one column a level, mediators left out) less each
    unit's own mean, as the outcome is; their means over units where these are many, trend, seasons, spend.
    """
    mask = panel.arrays.mask
    own = _own(panel) - scales.level[:, None]
    peers = _peers(own, mask) if cfg.peers and panel.num_units >= PEERS else own[..., :0]
    at = days(panel.times)
    # Beyond the train periods the trend stays where it was.
    shared = [np.clip((at - scales.origin) / scales.span - 0.5, -0.5, 0.5)] if cfg.trend else []
    if isinstance(panel.times, pd.DatetimeIndex):
        for k in range(1, cfg.seasons + 1):
            shared += [np.sin(2 * np.pi * k * at / YEAR), np.cos(2 * np.pi * k * at / YEAR)]
    rest = np.stack(shared, axis=-1) if shared else np.zeros((len(at), 0))
    spend = panel.arrays.actions / (scales.size[:, None, None] * scales.spend * scales.typical)
    return Seen(own, peers, np.broadcast_to(rest, (*mask.shape, rest.shape[-1])), spend, mask)


def _own(panel: Panel) -> np.ndarray:
    shape = panel.arrays.mask.shape
    return np.concatenate([np.zeros((*shape, 0))] + [_expand(panel, n) for n in _covariates(panel)], axis=-1)


def _level(panel: Panel, rows: np.ndarray) -> np.ndarray:
    """Average each unit's covariates over its rows; of a unit without any it is the units' mean."""
    count = rows.sum(1)[:, None]
    mean = np.where(rows[..., None], _own(panel), 0.0).sum(1) / np.maximum(count, 1)
    return np.where(count > 0, mean, mean[count[:, 0] > 0].mean(0))


def _covariates(panel: Panel) -> list[str]:
    return [n for n in panel.covariate_names if panel.schema.column(n).future != "mediator"]


def covariates(panel: Panel, cfg: MediaConfig, scales: Scales) -> np.ndarray:
    """Lay out what the network is told of a period beside spend, not yet scaled: `[units, time, covariates]`.

    What is `seen`, and what is error in columns that are measured with error (`proxies`). The mean over units of such
    a column tells the error, and so is no covariate of its own.
    """
    known = seen(panel, cfg, scales)
    errors = scales.errors
    parts = [known.columns, known.exact(errors.columns), known.shared, proxies.tell(errors, known)]
    return np.concatenate(parts, axis=-1)


def own_names(panel: Panel) -> list[str]:
    """Name the schema's covariates, one column a level."""
    return [n for n in _covariates(panel) for _ in range(_expand(panel, n).shape[-1])]


def covariate_names(panel: Panel, cfg: MediaConfig, scales: Scales) -> list[str]:
    """Name the columns of `covariates`; those of one thing (a categorical column, its error, the seasons) share one."""
    own, noisy = own_names(panel), scales.errors.columns.tolist()
    peers = own if cfg.peers and panel.num_units >= PEERS else []
    exact = [f"{name}{ALL_UNITS}" for at, name in enumerate(peers) if at not in noisy]
    seasons = 2 * cfg.seasons if isinstance(panel.times, pd.DatetimeIndex) else 0
    return [*own, *exact, *["the trend"] * cfg.trend, *["the seasons"] * seasons, *(own[at] for at in noisy)]


def unforeseen(series: Series, panel: Panel, cfg: MediaConfig, scales: Scales, start: int) -> Series:
    """Set what is only observed when it happens to its mean of the train periods, from period `start` on."""
    own = [name.removesuffix(ALL_UNITS) for name in covariate_names(panel, cfg, scales)]
    schema = {name: panel.schema.column(name).future for name in panel.covariate_names}
    late = jnp.asarray([schema.get(name) == "observed" for name in own], bool)
    hidden = (jnp.arange(panel.num_times) >= start)[:, None] & late
    return series._replace(covariates=jnp.where(hidden, 0.0, series.covariates))


def as_measured(series: Series, scales: Scales) -> np.ndarray:
    """Give a series' covariates less what was told of their errors, which spend has a part in: float64."""
    width = series.covariates.shape[-1] - len(scales.errors.columns)
    return np.asarray(series.covariates, np.float64)[..., :width]


def _may_err(panel: Panel) -> list[int]:
    """Give the positions of columns that are only observed when they happen, and numbers."""
    columns = [panel.schema.column(n) for n in own_names(panel)]
    numbers = ("count", "continuous", "currency")
    return [at for at, c in enumerate(columns) if c.future == "observed" and c.kind in numbers]


def _peers(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Average a covariate over the units that were observed in the period."""
    mean = (x * mask[..., None]).sum(0) / np.maximum(mask.sum(0), 1)[:, None]
    return np.broadcast_to(mean, x.shape)


def statics(panel: Panel) -> np.ndarray:
    """Lay out what is fixed about the units, not yet scaled: `[units, static]`."""
    return np.concatenate([np.zeros((panel.num_units, 0))] + [_expand(panel, n) for n in panel.static_names], axis=-1)


def _expand(panel: Panel, name: str) -> np.ndarray:
    values = panel.values(name)
    if panel.schema.column(name).kind != "categorical":
        return values[..., None].astype(np.float64)
    return (values[..., None] == np.arange(1, len(panel.levels[name]))).astype(np.float64)


def fit_scales(panel: Panel, train: np.ndarray, cfg: MediaConfig) -> Scales:
    """Fit every scale on the observed rows of the train periods."""
    check(panel, train, cfg)
    rows = panel.arrays.mask & train
    y = panel.arrays.outcomes[..., panel.outcome_index(outcome_name(panel, cfg))].astype(np.float64)
    count = rows.sum(1)
    mean = np.where(count > 0, np.where(rows, y, 0).sum(1) / np.maximum(count, 1), y[rows].mean())
    size = np.ones(panel.num_units)
    if cfg.size == "outcome":
        if (mean <= 0).any():
            raise UserError('size = "outcome" needs a positive mean outcome of every unit in the train periods')
        size = mean / mean.mean()
    centre = mean / size
    left = (y / size[:, None] - centre[:, None])[rows]
    spend = panel.arrays.actions / size[:, None, None]
    top = scaling.fit_max(spend, rows).scale
    some = np.where(rows[..., None], spend / top, 0)
    typical = some.sum((0, 1)) / np.maximum((some > 0).sum((0, 1)), 1)
    at, taught = days(panel.times)[train], np.asarray(rows.any(axis=1))
    fixed, nothing = scaling.fit_standard(statics(panel), taught), np.zeros(0)
    scales = Scales(
        spend=top,
        size=size,
        outcome_centre=centre,
        outcome_scale=np.asarray(max(left.std(), 1e-12)),
        covariate_centre=nothing,
        covariate_scale=nothing,
        static_centre=fixed.centre,
        static_scale=fixed.scale,
        typical=typical,
        origin=np.asarray(at[0]),
        span=np.asarray(max(np.ptp(at), 1.0)),
        level=_level(panel, rows),
        errors=proxies.nothing(panel.num_units),
        place=np.arange(panel.num_units),
    )
    if cfg.errors_in_variables:
        scales = scales._replace(errors=proxies.fit(seen(panel, cfg, scales), _may_err(panel), train))
    fitted = scaling.fit_standard(covariates(panel, cfg, scales), rows)
    return scales._replace(covariate_centre=fitted.centre, covariate_scale=fitted.scale)


def gaps(panel: Panel) -> dict[str, Any]:
    """Count the periods without a row that lie between a unit's first and last one, and name the first; empty if none.

    Where there is no row, no spend is known to be carried over.
    """
    mask = panel.arrays.mask
    inside = ~mask & np.logical_or.accumulate(mask, 1) & np.logical_or.accumulate(mask[:, ::-1], 1)[:, ::-1]
    if not inside.any():
        return {}
    unit, time = (int(i[0]) for i in np.nonzero(inside))
    return {
        "rows": int(inside.sum()),
        "units": int(inside.any(1).sum()),
        "unit": panel.units[unit] if panel.num_units > 1 else None,
        "time": show_time(panel.times[time]),
    }


def scaled_spend(scales: Scales, spend: Float[np.ndarray, "*axes channels"]) -> Any:
    """Put spend on the network's scale; the units are the third axis from the end."""
    return spend / (scales.size[:, None, None] * scales.spend)


def series(panel: Panel, scales: Scales, cfg: MediaConfig) -> Series:
    """Put a panel on the network's scale."""
    mask = panel.arrays.mask
    y = panel.arrays.outcomes[..., panel.outcome_index(outcome_name(panel, cfg))]
    z = (y / scales.size[:, None] - scales.outcome_centre[:, None]) / scales.outcome_scale
    x = (covariates(panel, cfg, scales) - scales.covariate_centre) / scales.covariate_scale
    s = (statics(panel) - scales.static_centre) / scales.static_scale
    blank = lambda v: np.where(mask.reshape(mask.shape + (1,) * (v.ndim - 2)), v, 0)  # noqa: E731
    spend, x, z, s = (
        jnp.asarray(part, jnp.float32)
        for part in (blank(scaled_spend(scales, panel.arrays.actions)), blank(x), blank(z), s)
    )
    return Series(spend, x, z, s, jnp.asarray(mask), jnp.asarray(scales.place, jnp.int32))
