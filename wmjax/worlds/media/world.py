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
from wmjax.evaluate import attribution, marginals
from wmjax.evaluate.ate import ATEEstimator
from wmjax.evaluate.attribution import Window
from wmjax.transformer import tokens
from wmjax.worlds import contract
from wmjax.worlds.consumer.intervals import bounds
from wmjax.worlds.media import doubts, planning, posterior, prepare, programs
from wmjax.worlds.media import model as pure
from wmjax.worlds.media.budget import Bounds, Pair
from wmjax.worlds.media.config import MediaConfig
from wmjax.worlds.media.doubts import Doubts
from wmjax.worlds.media.model import History, Ready
from wmjax.worlds.media.planning import ALL, Move
from wmjax.worlds.media.prepare import Scales

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
        own = self.scales.of(np.array([place[u] for u in panel.units]))
        sign = tuple(self.cfg.sign(name) for name in self.channels)
        known = tokens.channels(len(sign), cfg=self.cfg.network, creative=self.creative, sign=sign)
        numbers = [jnp.asarray(x, jnp.float32) for x in (own.size, own.outcome_centre, own.outcome_scale, own.spend)]
        taught = jnp.asarray(planning.taught(self, panel))
        return History(prepare.series(panel, own, self.cfg), known, *numbers, taught=taught)

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

        The members roll out, each with its own curves; what a plan changes is told by draws, see `attribute`.

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
        at = self.channel_index(action)
        if min(T0, T1) < 0:
            raise UserError(f"spend must not be negative; asked for {T0} and {T1}")
        history = self.history(panel)
        args = (history, jnp.asarray(panel.arrays.actions), at, float(T0), float(T1))
        mean, lo, hi = self.told(self.asked(programs.effect, history, *args), alpha)
        result = self._by_row(panel, {"effect": mean, "lo": lo, "hi": hi}, action=action, T0=T0, T1=T1)
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
            5 %), `share` (of all media), each with `_lo` and `_hi` but for spend, and `marginal_apart`: why the two
            marginal returns are more than 5 % apart, empty where they agree; the warnings say it too. Over (channel,
            factor, unit): `curve`, with bounds, and `extrapolated`, below the least or above the largest spend learnt
            from, of the sum where it is of any unit. Over unit: `baseline`, `interaction` (media together less the sum
            of channels). Attribute `no_overlap`: channels that hardly move by themselves.
        """
        over, plan = self.window(panel, times, carry), jnp.asarray(panel.arrays.actions)
        history, start = self.history(panel), times.indices(panel.num_times)[0]
        args = (history, plan, over, jnp.asarray(grid, jnp.float32), start)
        found = self.asked(programs.attribute, history, *args, chunk=chunk, feed=feed)
        units = planning.geos(panel)
        summed = lambda x: np.concatenate([x.sum(-1, keepdims=True), x], -1)[..., : 1 + len(units)]  # noqa: E731
        spent = (panel.arrays.actions * panel.arrays.mask[..., None])[:, np.asarray(over.change) > 0]
        cost = summed(spent.sum(1).T.astype(np.float64))
        paid = np.where(cost > 0, cost, np.nan)

        both = jax.tree.map(lambda x: summed(x).astype(np.float64), found)
        media, by = both.factual - both.none, ("channel", "unit")
        worth: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
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
        for name, (dims, answers) in worth.items():
            ends = zip((name, f"{name}_lo", f"{name}_hi"), self.told(answers, alpha), strict=True)
            data |= {label: (dims, value) for label, value in ends}
        # Shares of the amounts that are told; a mean of shares would order channels otherwise.
        own = data["contribution"][1] / np.where(media.mean(0) == 0, np.nan, media.mean(0))
        dims, lo, hi = ("channel", "unit"), data["share_lo"][1], data["share_hi"][1]
        data |= {"share": (dims, own), "share_lo": (dims, np.minimum(lo, own)), "share_hi": (dims, np.maximum(hi, own))}
        scaled = jnp.where(over.change[:, None] > 0, jnp.multiply.outer(jnp.asarray(grid), plan), plan)
        beyond = planning.outside(self, panel, scaled, over).sum(0).swapaxes(0, 1) > 0
        beyond = np.concatenate([beyond.any(-1, keepdims=True), beyond], -1)[..., : 1 + len(units)]
        data["extrapolated"] = (("channel", "factor", "unit"), beyond)
        mean = jax.tree.map(lambda x: x.mean(0), both)
        automatic, difference = mean.marginal / paid, mean.slope / paid
        why = marginals.reasons(automatic, difference, mean.bend / paid, mean.noise / paid)
        why = np.where(np.isfinite(paid), why, "")
        data["marginal_apart"] = (("channel", "unit"), why)
        told = self.warnings() + marginals.words(self.channels, [ALL, *units], automatic, difference, why)
        attrs = {"alpha": alpha, "outcome": prepare.outcome_name(panel, self.cfg), "warnings": told}
        attrs |= {"no_overlap": sorted(self.doubts().unidentified), "provenance": dict(self.provenance)}
        return xr.Dataset(data, coords=coords, attrs=attrs)

    def estimator(
        self, panel: Panel, *, times: slice = slice(None), carry: int | None = None, alpha: float = 0.1
    ) -> ATEEstimator:
        """Give the estimator of what this panel's spend did, by those who answer all else, without labels."""
        history, start = self.history(panel), times.indices(panel.num_times)[0]
        return ATEEstimator(
            respond=lambda member, plan: pure.respond(member, history, plan, start, cfg=self.cfg.network),
            params=self.answering(history),
            spend=jnp.asarray(panel.arrays.actions),
            over=self.window(panel, times, carry),
            tell=self.told,
            channels=self.channels,
            alpha=alpha,
        )

    def contributions(self, panel: Panel, *, alpha: float = 0.1, chunk: int = 16, feed: bool = True) -> xr.Dataset:
        """Give each period's contribution of each channel, and the baseline that is left without any spend.

        `feed` as in `attribute`.

        Returns:
            Over (channel, unit, time) `contribution`, `lo`, `hi`, and over (unit, time) `baseline` and `interaction`
            (media together less the sum of channels), each with `_lo` and `_hi`; all of them add up to the outcome that
            draws expect, which summed over a unit's train periods is what `predict` says. Of all observed units
            together `total` over (channel, time), and over time `baseline_total` and `interaction_total`, with bounds.
            Over (unit, time) `observed`.
        """
        planning.geos(panel)  # refuses what is named as the sums are
        over, plan = self.window(panel, slice(None), 0), jnp.asarray(panel.arrays.actions)
        history = self.history(panel)
        added, whole = self.asked(programs.contributions, history, history, plan, over, chunk=chunk, feed=feed)
        labels = {"channel": list(self.channels), "unit": list(panel.units), "time": panel.times}
        by = tuple(labels)
        parts: dict[str, tuple[str, tuple[str, ...], np.ndarray]] = {
            "contribution": ("total", by, added[:, :-1]),
            "baseline": ("baseline_total", by[1:], whole - added[:, -1]),
            "interaction": ("interaction_total", by[1:], added[:, -1] - added[:, :-1].sum(1)),
        }
        data: dict[str, Any] = {"observed": (by[1:], panel.arrays.mask)}
        for name, (total, dims, answers) in parts.items():
            summed = (answers * panel.arrays.mask).sum(-2)
            for label, axes, part in ((name, dims, answers), (total, (*dims[:-2], "time"), summed)):
                ends = zip((label, f"{label}_lo", f"{label}_hi"), self.told(part, alpha), strict=True)
                data |= {key.removeprefix("contribution_"): (axes, x) for key, x in ends}
        attrs = {"alpha": alpha, "outcome": prepare.outcome_name(panel, self.cfg)}
        return xr.Dataset(data, coords=labels, attrs={**attrs, "provenance": dict(self.provenance)})

    def shift(
        self, panel: Panel, source: str, target: str, share: float, *, times: slice = slice(None), alpha: float = 0.1
    ) -> dict[str, Any]:
        """Say what moving a share of one channel's spend to another changes; see `planning.shift`.

        Returns:
            `mean`, `lo`, `hi` in `unit`, the amount `moved`, whether it is `extrapolated` or has `no_overlap`, and
            `warnings`, which say why. `planning.shift` has it by channel and geo too.
        """
        return planning.shift(self, panel, source, target, share, times=times, alpha=alpha)[1]

    def optimize_budget(
        self,
        panel: Panel,
        *,
        budget: float | None = None,
        bounds: Bounds = (0.5, 1.5),
        move: Move = "channels",
        money: bool = False,
        rest: Pair = (1.0, 1.0),
        times: slice = slice(None),
        alpha: float = 0.1,
    ) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Split a budget for the largest expected outcome; see `budget.best`.

        Args:
            budget: spend in all; as it is now if not given.
            bounds: least and largest multiple of what was spent: one pair, or pairs by channel, or by channel and geo
                (`{"tv": (0.5, 1.5), ("tv", "north"): (1, 1)}`; the latter go first).
            move: between `channels`, each keeping its split over geos; `within` each geo, whose own total stays (or
                grows with the budget); or `between` channels and geos.
            money: pairs by channel and geo are amounts of spend and no multiples; see `budget.limits`.
            rest: multiples of what a mapping leaves out; by default it stays.
            times: positions of the periods whose spend may change.

        Returns:
            A table: channel, geo (`all` is the sum), spend, new_spend, factor; mean, lo, hi: what the channel's own
            change adds, in `unit`, with bounds of level `1 - alpha`; extrapolated: beyond what was learnt from; and
            where money moves low, high, bound (`low`, `high` or empty), return (of the last unit spent) and residual
            (of the optimality conditions). The channel `all` is all together. And the numbers `start` (expected by the
            old split, scaled to the budget and moved into the bounds), `value` (by this one), `price` (marginal
            return), `residual` (the largest), and `gain`, `lo`, `hi`: what the split adds to what was done, as if it
            had not been chosen for it.
        """
        return planning.optimize(
            self, panel, budget=budget, bounds=bounds, move=move, money=money, rest=rest, times=times, alpha=alpha
        )

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

    def asked(self, program: Any, history: History, *args: Any, **options: Any) -> Any:
        """Ask those who answer: their answers on an axis in front."""
        found = program(self.answering(history), *args, cfg=self.cfg.network, **options)
        return jax.tree.map(np.asarray, found)

    def told(self, answers: np.ndarray, alpha: float) -> posterior.Told:
        """Tell answers by their mean and bounds of level `1 - alpha`."""
        return posterior.told(answers, alpha, drawn=self.draws)

    @property
    def draws(self) -> bool:
        """Whether draws answer: not in the free form, nor of one member, whose network other luck would change."""
        return self.cfg.network.head == "response" and self.members > 1

    @property
    def answers(self) -> int:
        """How many draws, or members, answer what a plan changes."""
        return posterior.count(self.members) if self.draws else self.members

    def answering(self, history: History) -> Ready:
        """Give those who answer what a plan changes, the same for every question, on an axis in front.

        Draws of what the data leave open of the curves; the members where there are none.
        """
        members = programs.ready(self.params, history, cfg=self.cfg.network)
        if not self.draws:
            return members
        factors = jnp.asarray(self.spread, jnp.float32)
        return posterior.sample(jax.random.key(0), members, factors, history, cfg=self.cfg.network)

    def channel_index(self, name: str) -> int:
        """Find a channel's position."""
        if name not in self.channels:
            raise UserError(f"no channel {name!r}; {near(name, self.channels)}")
        return self.channels.index(name)

    def window(self, panel: Panel, times: slice, carry: int | None) -> Window:
        """Let plans differ in `times`, and count the outcome of observed rows in the `carry` periods after it too."""
        start, stop, _ = times.indices(panel.num_times)
        after = self.cfg.network.carry if carry is None else carry
        return attribution.window(panel.num_times, start, stop, carry=after, observed=panel.arrays.mask)

    def _by_row(self, panel: Panel, values: Mapping[str, np.ndarray], **attrs: Any) -> xr.Dataset:
        coords = {"outcome": [prepare.outcome_name(panel, self.cfg)], "unit": list(panel.units), "time": panel.times}
        arrays = {n: (tuple(coords), np.where(panel.arrays.mask, v, np.nan)[None]) for n, v in values.items()}
        return xr.Dataset(arrays, coords=coords, attrs={**attrs, "provenance": dict(self.provenance)})
