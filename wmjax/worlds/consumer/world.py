"""A fitted consumer world: what a person asks, answered with names, units, dates, intervals and warnings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Array, Float, Key

from wmjax.core.errors import UserError
from wmjax.data import frame as frames
from wmjax.data.panel import Panel
from wmjax.data.schema import PanelSchema, near
from wmjax.dbm import scores
from wmjax.evaluate.overlap import OverlapReport
from wmjax.evaluate.together import Together
from wmjax.worlds import contract
from wmjax.worlds.consumer import hidden, repeats, support
from wmjax.worlds.consumer import model as pure
from wmjax.worlds.consumer.after import next_visible
from wmjax.worlds.consumer.intervals import average_by, bounds, expected_bounds, own_effect_sd, response_bounds
from wmjax.worlds.consumer.model import ConsumerModel, ConsumerParams, History
from wmjax.worlds.consumer.rows import Rows, check_same_columns, some_rows, take_rows

REFERENCE = 1001
"""Quantiles of the train rows' free energy that a world keeps."""
CHUNK = 4096
"""Rows that one step of a compiled program holds at once, for each member."""


@dataclass(frozen=True, eq=False, repr=False)
class ConsumerWorld(contract.Named):
    """A fitted consumer world.

    Attributes:
        model: what is fixed at compile time: configuration, frame, outcome kinds.
        params: everything fitted, with a leading axis of members.
        schema: the table's schema.
        levels: categories of the table's categorical columns.
        overlap, together: of each action, where its contrasts are supported, and why not; how actions came together.
        reference: 1,001 quantiles of the train rows' free energy, the scale of `rank`.
        training: tidy table of the training curves: stage, epoch, member, metric, value.
        facts: what the fit found: split dates, convergence, warnings.
        provenance: seed, configuration, fingerprints, versions.
    """

    model: ConsumerModel
    params: ConsumerParams
    schema: PanelSchema
    levels: Mapping[str, tuple[str, ...]]
    overlap: Mapping[str, OverlapReport]
    together: Together
    reference: np.ndarray
    training: pd.DataFrame
    facts: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @property
    def members(self) -> int:
        return self.model.cfg.members

    def observed(self, panel: Panel, times: slice | None = None) -> Rows:
        """Take a panel's observed rows as the networks see them, in the periods asked for."""
        check_same_columns(self.schema, self.levels, panel)
        return take_rows(self.model.frame, panel, times)

    # ---- prediction -------------------------------------------------------------------------------------------------

    def predict(self, panel: Panel, *, times: slice | None = None, alpha: float = 0.1) -> xr.Dataset:
        """Predict every outcome of every observed row from its history and its actions.

        Args:
            panel: a panel of the same columns; its own past is the history.
            times: positions of the periods to answer for; all periods if not given.
            alpha: `lo` and `hi` hold the expected outcome with probability `1 - alpha` over members.

        Returns:
            `mean`, `lo`, `hi` over (outcome, unit, time): probabilities for binary outcomes, the outcome's own units
            otherwise; NaN where the unit was not observed.
        """
        rows = self.observed(panel, times)
        mean = np.asarray(self._predict(self.params, rows.visible, rows.actions))
        lo, hi = expected_bounds(mean, np.asarray(self.model.binary), alpha)
        return self._dataset(rows, {"mean": mean.mean(0), "lo": lo, "hi": hi}, alpha=alpha)

    def expected(self, rows: Rows) -> np.ndarray:
        """Expected outcomes of rows, the mean over members: `[rows, outcomes]`."""
        return np.asarray(self._predict(self.params, rows.visible, rows.actions)).mean(0)

    def _predict(self, params: ConsumerParams, visible: Any, actions: Any) -> Array:
        return _by_rows(params, None, visible, actions, one=_predict_row, model=self.model)

    # ---- effects ----------------------------------------------------------------------------------------------------

    def effect(
        self, panel: Panel, action: str, T0: float | int, T1: float | int, *, times: slice | None = None
    ) -> xr.Dataset:
        """Contrast `action = T1` with `action = T0` in each row; the belief and the other actions stay as they were.

        A one-step effect: what the period's own action does in that period. `compare` rolls plans forward.

        Returns:
            Over (outcome, unit, time): `effect` on the response scale (risk difference for a binary outcome, outcome
            units otherwise) and `effect_linear` (logit scale for a binary outcome). Over (unit, time): `supported`,
            false where such rows were not seen under both values; `attrs["warnings"]` says why.
        """
        found = self.effect_interval(panel, action, T0, T1, times=times)
        return found.drop_vars(["lo", "hi", "lo_linear", "hi_linear"])

    def effect_interval(
        self,
        panel: Panel,
        action: str,
        T0: float | int,
        T1: float | int,
        *,
        alpha: float = 0.1,
        times: slice | None = None,
    ) -> xr.Dataset:
        """Add to `effect` the bounds `lo`, `hi` (response scale) and `lo_linear`, `hi_linear` of level `1 - alpha`.

        Bounds are Student's t over members, see `intervals.bounds`, of risk differences `intervals.response_bounds`.
        They hold what units differ by beyond the adapters (`facts["own_effect_sd"]`); NaN for a single member.
        """
        self._check_values(action, T0, T1)
        rows = self.observed(panel, times)
        linear, response, base = self._contrasts(rows, action, T0, T1)
        apart = abs(T1 - T0) * own_effect_sd(self.facts, action, self.schema.names("outcome"))
        # Most is known of what was done most: the end that is nearer to it.
        usual, ends = float(np.median(rows.actions[:, self._action_index(action)])), bounds(linear, alpha, apart)
        how = {"binary": np.asarray(self.model.binary), "known_at_t0": abs(T0 - usual) <= abs(T1 - usual)}
        lo, hi = response_bounds(linear, response, base, ends, **how, alpha=alpha, more=apart)
        values = {"effect": response.mean(0), "lo": lo, "hi": hi}
        values |= {"effect_linear": linear.mean(0), "lo_linear": ends[0], "hi_linear": ends[1]}
        supported = self.supported(rows, action, T0, T1)
        result = self._dataset(rows, values, alpha=alpha, action=action, T0=T0, T1=T1)
        result["supported"] = (("unit", "time"), rows.scatter(supported, fill=False))
        result.attrs["warnings"] = self.warnings_for(action, supported)
        return result

    def ate(
        self,
        panel: Panel,
        action: str,
        T0: float | int,
        T1: float | int,
        *,
        by: str | None = None,
        alpha: float = 0.1,
        times: slice | None = None,
    ) -> pd.DataFrame:
        """Average the effect over the supported rows, of the whole panel or of each level of a static column.

        Args:
            by: a static column; a real-valued one is cut at its quintiles.

        Returns:
            Tidy table: outcome, action, t0, t1, segment, level, scale, effect, lo, hi, n, supported_share, and what a
            hidden cause would have to be like, see `hidden.beside`. `scale` is `response` or `linear`. Where no row is
            supported the average is over all rows, and not to be believed.
        """
        return self.ate_by(panel, action, T0, T1, by=(by,), alpha=alpha, times=times)

    def ate_by(
        self,
        panel: Panel,
        action: str,
        T0: float | int,
        T1: float | int,
        *,
        by: tuple[str | None, ...],
        alpha: float = 0.1,
        times: slice | None = None,
    ) -> pd.DataFrame:
        """Average as `ate` by several columns, one after the other, from one computation of the effects."""
        self._check_values(action, T0, T1)
        rows = self.observed(panel, times)
        linear, response = self.member_effects(rows, action, T0, T1)
        effects: dict[str, np.ndarray] = {"linear": linear, "response": response}
        supported, parts = self.supported(rows, action, T0, T1), []
        for name in by:
            table = average_by(effects, rows.segment(panel, name), supported, panel.outcome_names, alpha)
            named = {"action": action, "t0": T0, "t1": T1, "segment": name or "all"}
            for at, (column, value) in enumerate(named.items()):
                table.insert(1 + at, column, value)
            parts.append(table)
        return hidden.beside(pd.concat(parts, ignore_index=True), self.facts, self.schema.column(action))

    def member_effects(self, rows: Rows, action: str, T0: float | int, T1: float | int) -> tuple[np.ndarray, ...]:
        """Effects of every member, on the linear and on the response scale: two `[members, rows, outcomes]`."""
        return self._contrasts(rows, action, T0, T1)[:2]

    def _contrasts(self, rows: Rows, action: str, T0: float | int, T1: float | int) -> tuple[np.ndarray, ...]:
        t0, t1 = (np.full(len(rows), value, np.float32) for value in (T0, T1))
        index = jnp.asarray(self._action_index(action))
        columns = (rows.visible, rows.actions, t0, t1)
        found = _by_rows(self.params, index, *columns, one=_contrast_row, model=self.model)
        return tuple(np.asarray(x) for x in found)

    # ---- plausibility -----------------------------------------------------------------------------------------------

    def plausibility(
        self,
        panel: Panel,
        actions: Float[Any, "unit time action"] | None = None,
        *,
        times: slice | None = None,
    ) -> xr.Dataset:
        """Score how well each row's history agrees with the train rows' by variational free energy.

        Args:
            actions: other actions, which change the histories of later rows while the outcomes stay as observed.

        Returns:
            Over (unit, time): `free_energy` (nats, up to the constant log Z; lower is more plausible), `rank`, the
            share of train rows at least as surprising (0.01 says: odder than 99 % of them), and with `actions`
            `delta`, the rise in free energy over the factual history.
        """
        factual = self.observed(panel, times)
        rows = factual if actions is None else self.observed(panel.with_actions(np.asarray(actions)), times)
        energy = self._free_energy(rows.visible)
        values = {"free_energy": energy, "rank": self.rank(energy)}
        if actions is not None:
            values["delta"] = energy - self._free_energy(factual.visible)
        return self._dataset(rows, values)

    def counterfactual_plausibility(
        self, panel: Panel, action: str, value: float | int, *, times: slice | None = None
    ) -> xr.Dataset:
        """Score the history that a one-step counterfactual leaves behind, one period later.

        Row (unit, t) is the history at t + 1 had the action of t been `value`, outcomes as observed, against the
        factual one; NaN where the unit was not observed at t + 1.

        Returns:
            `free_energy`, `rank`, `delta` over (unit, time) as in `plausibility`.
        """
        index = self._action_index(action)
        rows = self.observed(panel, times)
        factual = rows.of(next_visible(self.model.frame, panel))
        changed = np.array(panel.arrays.actions)
        changed[..., index] = np.where(panel.arrays.mask, value, changed[..., index])
        other = rows.of(next_visible(self.model.frame, panel, changed))
        energy, base = self._free_energy(other), self._free_energy(factual)
        later = np.minimum(rows.time + 1, panel.num_times - 1)
        last = (later == rows.time) | ~panel.arrays.mask[rows.unit, later]
        values = {"free_energy": energy, "rank": self.rank(energy), "delta": energy - base}
        return self._dataset(
            rows, {k: np.where(last, np.nan, v) for k, v in values.items()}, action=action, value=value
        )

    def rank(self, energy: np.ndarray) -> np.ndarray:
        """Share of train rows whose free energy is at least `energy`."""
        return 1.0 - np.searchsorted(self.reference, energy) / len(self.reference)

    def with_reference(self, visible: np.ndarray) -> ConsumerWorld:
        """Measure the train rows' free energy, the scale of `rank`, on at most 20,000 rows drawn by chance."""
        energy = self._free_energy(visible[some_rows(len(visible), 20_000)])
        return replace(self, reference=np.quantile(energy, np.linspace(0, 1, REFERENCE)).astype(np.float32))

    def _free_energy(self, visible: np.ndarray) -> np.ndarray:
        return np.asarray(_by_rows(self.params, None, visible, one=_score_row, model=self.model)).mean(0)

    # ---- plans ------------------------------------------------------------------------------------------------------

    def simulate(
        self, key: Key[Array, ""], panel: Panel, actions: Float[Any, "unit time action"], *, start: int, draws: int = 1
    ) -> xr.Dataset:
        """Roll every unit forward from period `start` under `actions`, feeding drawn outcomes back into its history.

        Args:
            key: one key means one luck: two plans under the same key differ by the plan alone.
            actions: the whole panel's actions; those before `start` are read from the panel instead.
            start: position of the first simulated period.
            draws: independent roll-outs of each member.

        Returns:
            `drawn` (fed back) and `mean` (expected given the drawn past) over (member, draw, outcome, unit, time).
            Counts and money are drawn around the mean with the spread of validation rows, none below zero; the mean is
            the adapter's and does not know of that floor.

        Raises:
            UserError: a start outside the panel, or a plan of another shape or with values that are not finite.
        """
        contract.check_roll_out(key, panel, start)
        check_same_columns(self.schema, self.levels, panel)
        planned = panel.with_actions(np.asarray(actions)).arrays.actions
        history = self.history(panel, start)
        plan = jnp.swapaxes(jnp.asarray(planned, jnp.float32)[:, start:], 0, 1)
        keys = jax.random.split(key, (self.members, draws))
        found = _roll_out(keys, self.params, history, plan, model=self.model)
        labels = {
            "member": np.arange(self.members),
            "draw": np.arange(draws),
            "outcome": list(panel.outcome_names),
            "unit": list(panel.units),
            "time": panel.times[start:],
        }
        arrays = {}
        for name, value in (("outcome", found.outcomes), ("mean", found.means)):
            array = np.moveaxis(np.asarray(value), (2, 3, 4), (4, 3, 2)).copy()
            array[..., ~panel.arrays.mask[:, start:]] = np.nan
            arrays[name if name == "mean" else "drawn"] = (tuple(labels), array)
        return xr.Dataset(arrays, coords=labels, attrs={"provenance": dict(self.provenance)})

    def compare(
        self,
        key: Key[Array, ""],
        panel: Panel,
        plan: Float[Any, "unit time action"],
        baseline: Float[Any, "unit time action"],
        *,
        start: int,
        draws: int = 8,
        alpha: float = 0.1,
    ) -> xr.Dataset:
        """Contrast two plans by horizon: what `plan` adds to each outcome, summed over units and periods so far.

        Both meet the same luck (see `simulate`), so the difference is paired. What was drawn is fed back, and what the
        world makes of it: on simulated panels sums of a month were off by a tenth, as the one-step effects of the same
        days (`effect`) were, but by unit they were further off than these (`experiments/trajectories.py`).

        Returns:
            `difference`, `lo`, `hi` over (outcome, time): cumulated expected outcomes, `plan` less `baseline`;
            `warnings` among its attributes where either goes beyond what was seen.

        Raises:
            UserError: as `simulate`; and where a plan has a value that its action's kind does not.
        """
        for asked in (plan, baseline):
            contract.check_plan(panel, asked)
        sums = [
            self.simulate(key, panel, x, start=start, draws=draws)["mean"].sum("unit").mean("draw").cumsum("time")
            for x in (plan, baseline)
        ]
        gap = (sums[0] - sums[1]).transpose("member", "outcome", "time")
        lo, hi = bounds(gap.values, alpha)
        mean = gap.mean("member")
        result = xr.Dataset({"difference": mean, "lo": (mean.dims, lo), "hi": (mean.dims, hi)})
        window = slice(start, panel.num_times)
        rows = self.observed(panel, window)
        warnings = support.warnings_of_plans(self.overlap, self.together, rows, plan, baseline, facts=self.facts)
        seen, rolled = self.facts.get("repeats", {}), [x[:, window] for x in (plan, baseline)]
        warnings += repeats.warnings_of_plans(seen, panel, window, rolled, frame=self.model.frame)
        return result.assign_attrs(alpha=alpha, warnings=warnings, provenance=dict(self.provenance))

    def history(self, panel: Panel, start: int) -> History:
        """Replay every unit's past before period `start`; what a roll-out starts from."""
        arrays = panel.arrays
        return History(
            state=frames.replay(
                self.model.frame, arrays.actions[:, :start], arrays.outcomes[:, :start], arrays.mask[:, :start]
            ),
            static=jnp.asarray(arrays.static),
            calendar=jnp.asarray(self.model.frame.calendar(panel.times[start:])),
            covariates=jnp.swapaxes(jnp.asarray(arrays.covariates), 0, 1)[start:],
            present=jnp.asarray(arrays.mask).T[start:],
        )

    # ---- support, labels --------------------------------------------------------------------------------------------

    def supported(self, rows: Rows, action: str, T0: float | int, T1: float | int) -> np.ndarray:
        """Mark rows whose like was seen under both values of the action: bool `[rows]`."""
        return self.overlap[action].supported(support.given(rows, self._action_index(action)), T0, T1)

    def warnings_for(self, action: str, supported: np.ndarray) -> list[str]:
        """Say in words why an effect of the action is not to be believed, where it is not."""
        column = self.schema.column(action)
        report = self.overlap[action]
        return support.warnings_of_effect(column, report, supported, members=self.members, facts=self.facts)

    def save(self, path: str | Path) -> None:
        """Write the world's folder, whole or not at all."""
        from wmjax.worlds.consumer import store

        store.save(self, path)

    def _action_index(self, action: str) -> int:
        if action not in (names := self.schema.names("action")):
            raise UserError(f"no action {action!r}; {near(action, names)}")
        return names.index(action)

    def _check_values(self, action: str, T0: float | int, T1: float | int) -> None:
        self._action_index(action)
        binary = self.schema.column(action).kind == "binary"
        if not (np.isin([T0, T1], [0, 1]) if binary else np.isfinite([T0, T1])).all():
            kinds = "0 and 1, it is binary" if binary else "finite numbers"
            raise UserError(f"{action}: {T1} instead of {T0} is asked about; give {kinds}")

    def _dataset(self, rows: Rows, values: Mapping[str, np.ndarray], **attrs: Any) -> xr.Dataset:
        return rows.dataset(values, self.schema.names("outcome")).assign_attrs(
            provenance=dict(self.provenance), **attrs
        )


# ---- compiled: once for all worlds of one model, so that a world read from its folder compiles nothing anew ---------


@partial(jax.jit, static_argnames=("one", "model"))
def _by_rows(params: ConsumerParams, shared: Any, *columns: Any, one: Callable[..., Any], model: ConsumerModel) -> Any:
    """Ask `one(params, shared, *row)` of every member and row, a bounded number of rows at a time."""

    def member(own: ConsumerParams) -> Any:
        return jax.lax.map(lambda row: one(own, shared, *row, model=model), columns, batch_size=CHUNK)

    return jax.lax.map(member, params)


def _predict_row(params: ConsumerParams, _: None, visible: Array, actions: Array, *, model: ConsumerModel) -> Array:
    return pure.predict(params, visible[None], actions[None], model=model)[0]


def _contrast_row(
    params: ConsumerParams, index: Array, visible: Array, actions: Array, t0: Array, t1: Array, *, model: ConsumerModel
) -> pure.Contrast:
    found = pure.contrast(params, visible[None], actions[None], index, t0[None], t1[None], model=model)
    return jax.tree.map(lambda x: x[0], found)


def _score_row(params: ConsumerParams, _: None, visible: Array, *, model: ConsumerModel) -> Array:
    sweeps = model.cfg.learn.mean_field_sweeps
    return scores.score(params.machine, visible, visible=model.frame.visible, sweeps=sweeps)


@partial(jax.jit, static_argnames=("model",))
def _roll_out(
    keys: Any, params: ConsumerParams, history: History, plan: Array, *, model: ConsumerModel
) -> pure.Rollout:
    """Roll every member forward under each of its keys `[members, draws]`."""

    def member(own: tuple[Any, ConsumerParams]) -> pure.Rollout:
        return jax.lax.map(lambda k: pure.simulate(k, own[1], history, plan, model=model), own[0])

    return jax.lax.map(member, (keys, params))
