"""A fitted media world: what a person asks of it, answered with names, units, dates, intervals and warnings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Array, Float, Key

from wmjax.core.errors import UserError
from wmjax.data.panel import Panel
from wmjax.data.schema import PanelSchema, near
from wmjax.evaluate import attribution
from wmjax.evaluate.attribution import Window
from wmjax.transformer import tokens
from wmjax.worlds import contract
from wmjax.worlds.consumer.intervals import bounds
from wmjax.worlds.media import doubts, posterior, prepare, programs
from wmjax.worlds.media import model as pure
from wmjax.worlds.media.config import MediaConfig
from wmjax.worlds.media.doubts import Doubts
from wmjax.worlds.media.model import History, Ready
from wmjax.worlds.media.prepare import Scales

ALL = "all"
"""Label of the sum over units."""
GRID = tuple(np.linspace(0, 2, 21).round(2))


@dataclass(frozen=True, eq=False, repr=False)
class MediaWorld(contract.Named):
    """A fitted media world.

    Attributes:
        cfg: how it was fitted.
        params: averaged parameters with a leading axis of members.
        scales: between the table's units and the network's.
        creative: [channels, c], of length 1.
        spread: [members, curves, curves], what the data leave open of each member's curves, see `posterior.spread`.
        residual: [members], standard deviation of the outcome around its prediction, on the network's scale.
        schema, levels, units: of the table it was fitted to.
        support: what the train periods can tell of each channel, see `fitting.support`.
        training: tidy table of the training curves.
        facts: dates of the split.
        provenance: seed, configuration, fingerprints, versions.
    """

    cfg: MediaConfig
    params: Any
    spread: np.ndarray
    scales: Scales
    creative: np.ndarray
    residual: np.ndarray
    schema: PanelSchema
    levels: Mapping[str, tuple[str, ...]]
    units: tuple[int, ...] | tuple[str, ...]
    support: pd.DataFrame
    training: pd.DataFrame
    facts: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @property
    def members(self) -> int:
        return self.cfg.members

    @property
    def channels(self) -> tuple[str, ...]:
        return self.schema.names("action")

    def history(self, panel: Panel) -> History:
        """Put a panel on the network's scale; its units are among those that the world was fitted to.

        Raises:
            UserError: other columns, other units, or negative spend.
        """
        if panel.schema.plain().columns != self.schema.plain().columns:
            raise UserError("the panel's columns are not those that the world was fitted to")
        place = {unit: at for at, unit in enumerate(self.units)}
        new = [u for u in panel.units if u not in place]
        if new:
            raise UserError(f"{len(new)} units are new to this world, first {new[0]!r}; {near(new[0], place)}")
        if self.cfg.peers and len(self.units) >= prepare.PEERS and len(panel.units) < len(self.units):
            raise UserError(
                f"the panel has {len(panel.units)} of the world's {len(self.units)} units; give all of them: what "
                "moves them all alike is told by their mean"
            )
        if (panel.arrays.actions < 0).any():
            at = int(np.nonzero((panel.arrays.actions < 0).any((0, 1)))[0][0])
            raise UserError(f"column {self.channels[at]!r}: spend is negative")
        chosen = np.array([place[u] for u in panel.units])
        own = self.scales.of(chosen)
        sign = tuple(self.cfg.sign(name) for name in self.channels)
        known = tokens.channels(len(sign), cfg=self.cfg.network, creative=self.creative, sign=sign)
        numbers = (own.size, own.outcome_centre, own.outcome_scale, own.spend)
        return History(prepare.series(panel, own, self.cfg), known, *(jnp.asarray(x, jnp.float32) for x in numbers))

    # ---- prediction -------------------------------------------------------------------------------------------------

    def predict(self, panel: Panel, *, alpha: float = 0.1) -> xr.Dataset:
        """Predict the outcome of every observed period from the periods before it, its covariates and its spend.

        Returns:
            `mean`, `lo`, `hi` over (outcome, unit, time), in the table's units; NaN where nothing was observed.
        """
        found = np.asarray(programs.predict(self.params, self.history(panel), cfg=self.cfg.network))
        lo, hi = bounds(found, alpha)
        return self._by_row(panel, {"mean": found.mean(0), "lo": lo, "hi": hi}, alpha=alpha)

    def simulate(
        self,
        key: Key[Array, ""],
        panel: Panel,
        actions: Float[Any, "unit time action"],
        *,
        start: int,
        draws: int = 1,
        as_happened: bool = False,
    ) -> xr.Dataset:
        """Roll the panel out from period `start` under `actions`, feeding drawn outcomes back into the history.

        Args:
            key: one key means one luck: two plans under the same key differ by the plan alone.
            actions: the whole panel's actions; those before `start` are read from the panel instead.
            start: position of the first simulated period.
            draws: independent roll-outs of each member.
            as_happened: read covariates that are only observed when they happen from `start` on too, as for a what-if
                of the past. Otherwise they stand at the unit's mean of the train periods: a forecast cannot know them.

        Returns:
            `drawn` and `mean` (expected given the drawn past) over (member, draw, outcome, unit, time).
        """
        contract.check_roll_out(key, panel, start)
        if (np.asarray(actions)[:, start:] < 0).any():
            raise UserError("the plan has negative spend")
        plan = np.array(panel.arrays.actions)
        plan[:, start:] = np.asarray(actions)[:, start:]
        noise, history = programs.noise(key, (draws, *panel.arrays.mask.shape)), self.history(panel)
        if not as_happened:
            history = history._replace(series=prepare.unforeseen(history.series, panel, self.cfg, self.scales, start))
        found = programs.simulate(
            noise,
            jnp.asarray(self.residual, jnp.float32),
            self.params,
            history,
            jnp.asarray(plan),
            start,
            cfg=self.cfg.network,
        )
        labels = {
            "member": np.arange(self.members),
            "draw": np.arange(draws),
            "outcome": [prepare.outcome_name(panel, self.cfg)],
            "unit": list(panel.units),
            "time": panel.times[start:],
        }
        drawn, mean = (np.asarray(v)[:, :, None, :, start:] for v in found)
        arrays = {"drawn": (tuple(labels), drawn), "mean": (tuple(labels), mean)}
        return xr.Dataset(arrays, coords=labels, attrs={"provenance": dict(self.provenance)})

    # ---- effects ----------------------------------------------------------------------------------------------------

    def effect(self, panel: Panel, action: str, T0: float | int, T1: float | int) -> xr.Dataset:
        """Contrast spend of `T1` with `T0` in each period: what it changes in the same period, all else as observed.

        Returns:
            `effect` over (outcome, unit, time) in the table's units. `attribute` counts carry-over too.
        """
        return self.effect_interval(panel, action, T0, T1).drop_vars(["lo", "hi"])

    def effect_interval(
        self, panel: Panel, action: str, T0: float | int, T1: float | int, *, alpha: float = 0.1
    ) -> xr.Dataset:
        """Add to `effect` the bounds `lo`, `hi` of level `1 - alpha`, and `supported`: spend that was seen."""
        at = self._channel(action)
        if min(T0, T1) < 0:
            raise UserError(f"spend must not be negative; asked for {T0} and {T1}")
        history = self.history(panel)
        args = (history, jnp.asarray(panel.arrays.actions), at, float(T0), float(T1))
        found, drawn = self._asked(programs.effect, history, *args)
        lo, hi = posterior.bounds(found, drawn, alpha)
        result = self._by_row(panel, {"effect": found.mean(0), "lo": lo, "hi": hi}, action=action, T0=T0, T1=T1)
        top = self.scales.spend[at] * np.asarray(history.size)
        result["supported"] = (("unit",), max(T0, T1) <= top)
        return result.assign_attrs(alpha=alpha, warnings=self.warnings())

    def plausibility(self, panel: Panel, actions: Float[Any, "unit time action"] | None = None) -> xr.Dataset:
        """Score each period's spend, factual or planned, against the largest of the train periods.

        Returns:
            `ratio` over (channel, unit, time): 1 is the largest spend seen; `extrapolated` where it is above.
        """
        history = self.history(panel if actions is None else panel.with_actions(np.asarray(actions)))
        ratio = np.moveaxis(np.asarray(history.series.spend), -1, 0)
        labels = {"channel": list(self.channels), "unit": list(panel.units), "time": panel.times}
        data = {"ratio": (tuple(labels), ratio), "extrapolated": (tuple(labels), ratio > 1 + 1e-6)}
        return xr.Dataset(data, coords=labels, attrs={"provenance": dict(self.provenance)})

    # ---- attribution ------------------------------------------------------------------------------------------------

    def attribute(
        self,
        panel: Panel,
        *,
        times: slice = slice(None),
        grid: tuple[float, ...] = GRID,
        carry: int | None = None,
        alpha: float = 0.1,
        chunk: int = 16,
        feed: bool = True,
    ) -> xr.Dataset:
        """Attribute the outcome to the channels; see `wmjax.evaluate.attribution` for the one definition behind it.

        Args:
            times: positions of the periods whose spend is asked about; all if not given.
            grid: multiples of each channel's spend for its response curve.
            carry: periods after `times` in which the outcome still counts; the network's own carry-over if not given.
            alpha: `lo` and `hi` hold with probability `1 - alpha`.
            feed: let the `free` head feed predicted outcomes back. Otherwise it sees the observed ones (the published
                form): what past spend did to them is in them, so carry-over is counted in part. `response` needs none.

        Returns:
            Over (channel, unit), unit `"all"` being the sum, and the only one where there is one series: `contribution`
            (zero-spend ATE), `spend`, `roi`, `marginal_roi`, `marginal_roi_difference` (the same by a difference of
            5 %), `share` (of all media), each with `_lo` and `_hi` but for spend. Over (channel, factor, unit):
            `curve`, with bounds, and over (channel, factor) `extrapolated`. Over unit: `baseline`, `interaction` (media
            together less the sum of channels).
        """
        over, plan = self._window(panel, times, carry), jnp.asarray(panel.arrays.actions)
        history, start = self.history(panel), times.indices(panel.num_times)[0]
        args = (history, plan, over, jnp.asarray(grid, jnp.float32), start)
        found, drawn = self._asked(programs.attribute, history, *args, chunk=chunk, feed=feed)
        # One series is its own sum: it is answered for once.
        units = [str(u) for u in panel.units] if panel.num_units > 1 else []
        if ALL in units:
            raise UserError(f"a unit is named {ALL!r}, which names the sum over units; rename it")
        summed = lambda x: np.concatenate([x.sum(-1, keepdims=True), x], -1)[..., : 1 + len(units)]  # noqa: E731
        change = np.asarray(over.change) > 0
        cost = (panel.arrays.actions * panel.arrays.mask[..., None])[:, change].sum(1).T.astype(np.float64)
        cost = summed(cost)
        paid = np.where(cost > 0, cost, np.nan)

        def worth(parts: Any) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
            """Derive what is told from the sums of each member, or each draw."""
            both = jax.tree.map(lambda x: summed(x).astype(np.float64), parts)
            media, by = both.factual - both.none, ("channel", "unit")
            return {
                "contribution": (by, both.zero),
                "roi": (by, both.zero / paid),
                "marginal_roi": (by, both.marginal / paid),
                "marginal_roi_difference": (by, both.slope / paid),
                "share": (by, both.zero / np.where(media == 0, np.nan, media)[:, None]),
                "curve": (("channel", "factor", "unit"), both.curve),
                "baseline": (("unit",), both.none),
                "interaction": (("unit",), media - both.zero.sum(1)),
            }

        coords = {"channel": list(self.channels), "factor": list(grid), "unit": [ALL, *units]}
        data: dict[str, Any] = {"spend": (("channel", "unit"), cost)}
        other = None if drawn is None else worth(drawn)
        for name, (dims, value) in worth(found).items():
            lo, hi = posterior.bounds(value, None if other is None else other[name][1], alpha)
            data |= {name: (dims, value.mean(0)), f"{name}_lo": (dims, lo), f"{name}_hi": (dims, hi)}
        # Shares of the amounts that are told; a mean of the members' shares would order channels otherwise.
        added, media = data["contribution"][1], (found.factual - found.none).mean(0).astype(np.float64)
        own = added / np.where(summed(media) == 0, np.nan, summed(media))
        dims, lo, hi = ("channel", "unit"), data["share_lo"][1], data["share_hi"][1]
        data |= {"share": (dims, own), "share_lo": (dims, np.fmin(lo, own)), "share_hi": (dims, np.fmax(hi, own))}
        highest = np.asarray(history.series.spend)[:, change].max((0, 1))
        data["extrapolated"] = (("channel", "factor"), highest[:, None] * np.asarray(grid) > 1 + 1e-6)
        attrs = {"alpha": alpha, "outcome": prepare.outcome_name(panel, self.cfg), "warnings": self.warnings()}
        return xr.Dataset(data, coords=coords, attrs={**attrs, "provenance": dict(self.provenance)})

    def contributions(self, panel: Panel, *, alpha: float = 0.1, chunk: int = 16, feed: bool = True) -> xr.Dataset:
        """Give each period's contribution of each channel, and the baseline that is left without any spend.

        `feed` as in `attribute`.

        Returns:
            `contribution`, `lo`, `hi` over (channel, unit, time); `total`, `total_lo`, `total_hi` over (channel, time),
            of all observed units together; `baseline` over (unit, time).
        """
        over, plan = self._window(panel, slice(None), 0), jnp.asarray(panel.arrays.actions)
        history = self.history(panel)
        asked = self._asked(programs.contributions, history, history, plan, over, chunk=chunk, feed=feed)
        (found, base), drawn = asked
        labels = {"channel": list(self.channels), "unit": list(panel.units), "time": panel.times}
        lo, hi = posterior.bounds(found[:, :-1], None if drawn is None else drawn[0][:, :-1], alpha)
        parts = {"contribution": found[:, :-1].mean(0), "lo": lo, "hi": hi}
        data: dict[str, Any] = {n: (tuple(labels), v) for n, v in parts.items()}
        summed = lambda x: (x[:, :-1] * panel.arrays.mask).sum(2)  # noqa: E731
        own = summed(found)
        low, high = posterior.bounds(own, None if drawn is None else summed(drawn[0]), alpha)
        for name, values in (("total", own.mean(0)), ("total_lo", low), ("total_hi", high)):
            data[name] = (("channel", "time"), values)
        data["baseline"] = (("unit", "time"), (base - found[:, -1]).mean(0))
        return xr.Dataset(data, coords=labels, attrs={"alpha": alpha, "provenance": dict(self.provenance)})

    def shift(
        self, panel: Panel, source: str, target: str, share: float, *, times: slice = slice(None), alpha: float = 0.1
    ) -> dict[str, float]:
        """Say what moving a share of one channel's spend to another changes: mean, lo, hi, and the amount moved."""
        if not 0 <= share <= 1:
            raise UserError(f"share is {share}, must be from 0 to 1")
        i, j = self._channel(source), self._channel(target)
        if i == j:
            raise UserError(f"{source} is both source and target; nothing would move")
        over, plan = self._window(panel, times, None), jnp.asarray(panel.arrays.actions)
        moved = attribution.shifted(plan, i, j, share, over.change)
        amount = float(jnp.sum(plan[..., i] * over.change) * share)
        return self._gain(panel, moved, over, times, alpha) | {"moved": amount}

    def _gain(self, panel: Panel, plan: Array, over: Window, times: slice, alpha: float) -> dict[str, float]:
        """Say what another plan changes in all: mean, lo, hi."""
        history, both = self.history(panel), jnp.stack([jnp.asarray(panel.arrays.actions), plan])
        start = times.indices(panel.num_times)[0]
        own, drawn = self._asked(programs.totals, history, history, both, over, start)
        difference = lambda x: np.diff(x.astype(np.float64).sum(-1), axis=1)  # noqa: E731
        gain = difference(own)
        ends = posterior.bounds(gain, None if drawn is None else difference(drawn), alpha)
        lo, hi = (float(end[0]) for end in ends)
        return {"mean": float(gain.mean()), "lo": lo, "hi": hi}

    def optimize_budget(
        self,
        panel: Panel,
        *,
        budget: float | None = None,
        bounds: tuple[float, float] | Mapping[str, tuple[float, float]] = (0.5, 1.5),
        times: slice = slice(None),
        alpha: float = 0.1,
    ) -> tuple[pd.DataFrame, dict[str, float]]:
        """Split a budget over the channels for the largest expected outcome; see `budget.best`.

        Args:
            budget: spend in all; as it is now if not given.
            bounds: least and largest multiple of each channel's spend; a channel that a mapping leaves out stays.
            times: positions of the periods whose spend may change.

        Returns:
            A table (channel, factor, spend, new_spend, bound, extrapolated: beyond the largest spend of a period that
            was learnt from), and the numbers `start`, `value`, `price` (marginal return), `residual` (of the optimality
            conditions), and `gain`, `lo`, `hi`: what the split adds to what was done, with bounds of level `1 - alpha`,
            as if it had not been chosen for it.
        """
        from wmjax.worlds.media import budget as budgets

        over, plan = self._window(panel, times, None), jnp.asarray(panel.arrays.actions)
        cost = np.asarray(jnp.einsum("utk,t->k", plan, over.change), np.float64)
        if not (cost > 0).all():
            raise UserError(f"column {self.channels[int(cost.argmin())]!r}: no spend in these periods to scale")
        pairs = {c: bounds.get(c, (1.0, 1.0)) for c in self.channels} if isinstance(bounds, Mapping) else bounds
        low, high = np.array([pairs[c] if isinstance(pairs, dict) else pairs for c in self.channels], float).T
        history, start = self.history(panel), times.indices(panel.num_times)[0]
        members = programs.ready(self.params, history, cfg=self.cfg.network)

        def value(m: np.ndarray) -> tuple[float, np.ndarray]:
            args = (jnp.asarray(m, jnp.float32), members, history, plan, over, start)
            r, g = programs.value(*args, cfg=self.cfg.network)
            return float(r), np.asarray(g, np.float64)

        found = budgets.best(value, cost, low, high, float(cost.sum()) if budget is None else float(budget))
        highest = np.asarray(history.series.spend)[:, np.asarray(over.change) > 0].max((0, 1))
        table = pd.DataFrame(
            {
                "channel": list(self.channels),
                "factor": found.factors,
                "spend": cost,
                "new_spend": cost * found.factors,
                "bound": found.bound,
                "extrapolated": highest * found.factors > 1 + 1e-6,
            }
        )
        factors = jnp.where((over.change > 0)[:, None], jnp.asarray(found.factors, plan.dtype), 1.0)
        gain = self._gain(panel, plan * factors, over, times, alpha)
        numbers = {"start": found.start, "value": found.value, "price": found.price, "residual": found.residual}
        return table, numbers | {"gain": gain["mean"], "lo": gain["lo"], "hi": gain["hi"]}

    # ---- what may be believed, labels -------------------------------------------------------------------------------

    def doubts(self) -> Doubts:
        """Say of which channels the data tell little, and why."""
        return doubts.of(self.support, self.facts, self.cfg.negative, self.cfg.unknown)

    def warnings(self, among: frozenset[str] | None = None) -> list[str]:
        """Say in words what biases every answer, and which channels' lean on the model, of all or of those given."""
        chosen = frozenset(self.channels) if among is None else among
        return doubts.warnings(self.support, self.doubts(), self.members, self.facts, chosen)

    def with_residual(self, panel: Panel, part: np.ndarray) -> MediaWorld:
        """Measure the outcome's spread around each member's prediction, over the given periods."""
        history = self.history(panel)
        mean = np.asarray(programs.predict(self.params, history, cfg=self.cfg.network), np.float64)
        y = np.asarray(pure.in_units(history, history.series.outcome), np.float64)
        unit = np.asarray(history.size)[:, None] * float(history.scale)
        rows = panel.arrays.mask & part
        return replace(self, residual=np.sqrt([np.mean((((y - m) / unit)[rows]) ** 2) for m in mean]))

    def save(self, path: str | Path) -> None:
        """Write the world's folder, whole or not at all."""
        from wmjax.worlds.media import store

        store.save(self, path)

    def _asked(self, program: Any, history: History, *args: Any, **options: Any) -> tuple[Any, Any]:
        """Ask every member, and the draws of what the data leave open of it, if there are any."""
        members = programs.ready(self.params, history, cfg=self.cfg.network)
        ask = lambda who: jax.tree.map(np.asarray, program(who, *args, cfg=self.cfg.network, **options))  # noqa: E731
        drawn = self.draws(history, members)
        return ask(members), None if drawn is None else ask(drawn)

    def draws(self, history: History, members: Ready) -> Ready | None:
        """Draw what the data leave open of the curves, the same draws for every question.

        None in the free form; nor of a single member, whose network other luck would have made another.
        """
        if self.cfg.network.head == "free" or self.members < 2:
            return None
        factors = jnp.asarray(self.spread, jnp.float32)
        return posterior.sample(jax.random.key(0), members, factors, history, cfg=self.cfg.network)

    def _channel(self, name: str) -> int:
        if name not in self.channels:
            raise UserError(f"no channel {name!r}; {near(name, self.channels)}")
        return self.channels.index(name)

    def _window(self, panel: Panel, times: slice, carry: int | None) -> Window:
        start, stop, _ = times.indices(panel.num_times)
        after = self.cfg.network.carry if carry is None else carry
        return attribution.window(panel.num_times, start, stop, carry=after, observed=panel.arrays.mask)

    def _by_row(self, panel: Panel, values: Mapping[str, np.ndarray], **attrs: Any) -> xr.Dataset:
        coords = {
            "outcome": [prepare.outcome_name(panel, self.cfg)],
            "unit": list(panel.units),
            "time": panel.times,
        }
        arrays = {n: (tuple(coords), np.where(panel.arrays.mask, v, np.nan)[None]) for n, v in values.items()}
        return xr.Dataset(arrays, coords=coords, attrs={**attrs, "provenance": dict(self.provenance)})
