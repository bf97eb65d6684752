"""A fitted graph world: what a person asks, answered with names, units, dates, and the graph behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Array, Float, Key

from wmjax.core.keys import key_for
from wmjax.data.panel import Panel
from wmjax.data.schema import PanelSchema
from wmjax.evaluate import influence as probes
from wmjax.evaluate.influence import InfluenceConfig
from wmjax.graph import decoder, edges, interfaces
from wmjax.graph.support import Support
from wmjax.worlds import contract
from wmjax.worlds.consumer.intervals import bounds
from wmjax.worlds.consumer.rows import check_same_columns
from wmjax.worlds.graph import model as pure
from wmjax.worlds.graph.model import GraphModel, GraphParams

CHUNK = 256
"""Units rolled out side by side."""


@dataclass(frozen=True, eq=False, repr=False)
class GraphWorld(contract.Named):
    """A fitted graph world. An action of a period acts from the next period on.

    Attributes:
        model: what is fixed at compile time.
        params: everything fitted, with a leading axis of members.
        support: what the data said of every edge; `support.graph` is what the world claims.
        schema: the table's schema.
        training: tidy table of the training curves.
        facts: split dates, accuracy in the test periods, warnings.
        provenance: seed, configuration, fingerprints, versions.
    """

    model: GraphModel
    params: GraphParams
    support: Support
    schema: PanelSchema
    training: pd.DataFrame
    facts: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @property
    def members(self) -> int:
        return self.model.cfg.members

    @property
    def nodes(self) -> tuple[str, ...]:
        """Name the nodes: actions, then outcomes; the last is the target."""
        return (*self.schema.names("action"), *self.schema.names("outcome"))

    @property
    def levels(self) -> dict[str, tuple[str, ...]]:
        """A graph world reads no categories."""
        return {}

    # ---- the graph --------------------------------------------------------------------------------------------------

    def graph(self) -> xr.Dataset:
        """Say what is known of every edge, over (sender, receiver).

        Returns:
            `edge` (chosen at the rate asked for), `supplied` (what the decoder may use), `t`, `p_value`, `q_value`
            (the smallest rate of false discoveries at which the edge is chosen), `stability` (share of the bootstrap
            draws of units that choose it), `effect` (rise of the receiver by one sd of the sender's memory).
        """
        found = {"edge": self.support.graph, "supplied": np.asarray(self.params.graph[0])}
        found |= {name: value for name, value in self.support._asdict().items() if name != "graph"}
        return self._matrices(found, rate=self.model.cfg.support.rate)

    def claims(self) -> Float[np.ndarray, "actions outcomes"]:
        """Mark the actions that can reach each outcome under a plan, by the chosen support.

        A plan sets every action, so paths lead through outcomes and not through other actions.
        """
        into_outcomes = np.arange(self.model.nodes) >= self.model.actions
        reach = np.asarray(edges.closure(jnp.asarray(self.support.graph * into_outcomes)))
        return reach[: self.model.actions, self.model.actions :]

    def influence(self, panel: Panel, *, cfg: InfluenceConfig = InfluenceConfig()) -> xr.Dataset:  # noqa: B008 - frozen
        """Push every node over the last training periods and see what moves: `cig`, `ar_cig` over (sender, receiver).

        In standard deviations of sender and receiver, averaged over units and members; see `wmjax.evaluate.influence`.
        A property of this model, and no causal estimate.
        """
        found = self._probe(self.params.graph[:1], self._values(panel), cfg)
        return self._matrices({"cig": found.one_step.mean((0, 1)), "ar_cig": found.rolled.mean((0, 1))})

    def swap(self, panel: Panel, *, key: Key[Array, ""] | None = None) -> pd.DataFrame:
        """Supply other graphs to the frozen decoders: the error of the last periods' forecast beside the influence.

        Returns:
            Tidy table, a row a graph: `graph`, `density`, `mse` of the target (squared sd, free-running over the
            horizon), `nauprc_target` of the influence against the chosen support (NaN where it cannot be ranked), and
            `nauprc_shuffled`, what shuffled influences reach.
        """
        key = jax.random.key(0) if key is None else key
        chosen = jnp.asarray(self.support.graph, jnp.float32)
        graphs = {
            "supplied": self.params.graph[0],
            "selected": chosen,
            "none": interfaces.none(chosen),
            "full": interfaces.full(chosen),
            "reversed": interfaces.reverse(chosen),
            "wrong": interfaces.wrong(key_for(key, "wrong"), chosen),
        }
        stacked, values = jnp.stack(list(graphs.values())), self._values(panel)
        found = self._probe(stacked, values, InfluenceConfig()).rolled.mean(0)
        error = self._errors(stacked, values).mean(0)
        aligned = jax.jit(jax.vmap(lambda m: probes.alignment(key_for(key, "chance"), m, chosen)))(found)
        return pd.DataFrame(
            {
                "graph": list(graphs),
                "density": np.asarray(interfaces.density(stacked)),
                "mse": error,
                "nauprc_target": np.asarray(aligned.target),
                "nauprc_shuffled": np.asarray(aligned.target_chance.mean),
            }
        )

    def _probe(self, graphs: Array, values: Array, cfg: InfluenceConfig) -> probes.Influence:
        """Influence of every member under every graph: `[members, graphs, nodes, nodes]`."""
        seen = self._standard(values[:, : int(self.facts["train_periods"])])
        return jax.tree.map(np.asarray, _probe(self.params.decoder, graphs, seen, cfg=cfg, model=self.model))

    def _errors(self, graphs: Array, values: Array) -> np.ndarray:
        """Free-running mean squared error of the target over the last horizon: `[members, graphs]`."""
        steps = self.model.cfg.decoder.horizon
        seen = self._standard(values)
        parts = seen[:, :-steps], seen[:, -steps:]
        return np.asarray(_errors(self.params.decoder, graphs, *parts, model=self.model))

    # ---- answers ----------------------------------------------------------------------------------------------------

    def predict(self, panel: Panel, *, alpha: float = 0.1) -> xr.Dataset:
        """Predict every outcome one period ahead, from all that came before it.

        Returns:
            `mean`, `lo`, `hi` over (outcome, unit, time), in the outcome's units; the bounds are Student's t over
            members; NaN in the first period, which nothing precedes.
        """
        ahead = self._ahead(self._values(panel))[..., self.model.actions :]
        mean = np.pad(ahead[:, :, :-1], ((0, 0), (0, 0), (1, 0), (0, 0)), constant_values=np.nan)
        lo, hi = bounds(mean, alpha)
        return self._dataset(panel, {"mean": mean.mean(0), "lo": lo, "hi": hi}, alpha=alpha)

    def effect(self, panel: Panel, action: str, T0: float | int, T1: float | int) -> xr.Dataset:
        """Contrast `action = T1` with `action = T0` in each period, all else as observed: `effect` one period later.

        Over (outcome, unit, time), in the outcome's units; exactly 0 without an edge. Use `simulate` for plans and for
        what arrives by other channels.
        """
        return self.effect_interval(panel, action, T0, T1).drop_vars(["lo", "hi"])

    def effect_interval(
        self, panel: Panel, action: str, T0: float | int, T1: float | int, *, alpha: float = 0.1
    ) -> xr.Dataset:
        """Add to `effect` the bounds `lo` and `hi` of level `1 - alpha`, Student's t over members."""
        index, ends = jnp.asarray(panel.action_index(action)), (jnp.float32(T0), jnp.float32(T1))
        found = np.asarray(_contrast(self.params, self._values(panel), index, *ends, model=self.model))
        lo, hi = bounds(found, alpha)
        result = self._dataset(panel, {"effect": found.mean(0), "lo": lo, "hi": hi}, alpha=alpha, action=action)
        result.attrs |= {"T0": T0, "T1": T1, "warnings": self.warnings_for(action)}
        return result

    def warnings_for(self, action: str) -> list[str]:
        """Say in words why an effect of the action is not to be believed, where it is not."""
        names, found = self.nodes, list(self.facts.get("warnings", []))
        claimed = self.claims()[names.index(action)]
        if not claimed.any():
            found.append(f"{action}: the data choose no path from it to an outcome; that is no proof of no effect")
        if self.model.cfg.supply == "full":
            found.append("the decoder was given the full graph: its effects follow no chosen edge")
        if self.model.cfg.supply == "none":
            found.append("the decoder was given no graph: its effects are all 0")
        if self.members < 3:
            found.append(f"{self.members} member(s) give no trustworthy interval; fit with 3 or more")
        return found

    def simulate(
        self, key: Key[Array, ""], panel: Panel, actions: Float[Any, "unit time action"], *, start: int, draws: int = 1
    ) -> xr.Dataset:
        """Roll every unit forward from period `start` under `actions`, feeding drawn outcomes back.

        Args:
            key: one key means one luck: two plans under the same key differ by the plan alone.
            actions: the whole panel's actions; those before `start` are read from the panel instead.
            start: position of the first simulated period, at least 1.
            draws: independent roll-outs of each member.

        Returns:
            `drawn` and `mean` (expected given the drawn past) over (member, draw, outcome, unit, time).
        """
        contract.check_roll_out(key, panel, start, least=1)
        history = self._values(panel)[:, :start]
        plan = jnp.asarray(np.asarray(actions)[:, start:], jnp.float32)
        keys = jax.random.split(key, (self.members, draws, panel.num_units))
        found = _simulate(self.params, keys, history, plan, model=self.model)
        coords = {
            "member": np.arange(self.members),
            "draw": np.arange(draws),
            "outcome": list(panel.outcome_names),
            "unit": list(panel.units),
            "time": panel.times[start:],
        }
        arrays = {n: (tuple(coords), np.moveaxis(np.asarray(v), -1, 2)) for n, v in found._asdict().items()}
        return xr.Dataset(arrays, coords=coords, attrs={"provenance": dict(self.provenance)})

    def plausibility(self, panel: Panel, actions: Float[Any, "unit time action"] | None = None) -> xr.Dataset:
        """Score each row by how well the world foresaw it: mean squared one-step error of its nodes, in noise units.

        Args:
            actions: other actions, with the outcomes as observed.

        Returns:
            `surprise` over (unit, time), about 1 for rows like those seen, and `rank`, the share of the training
            periods' rows at least as surprising; NaN in the first period.
        """
        factual = self._surprise(panel)
        last = int(self.facts["train_periods"])
        reference = np.sort(factual[:, 1:last].ravel())
        asked = factual if actions is None else self._surprise(panel.with_actions(np.asarray(actions, np.float32)))
        rank = 1 - np.searchsorted(reference, asked) / len(reference)
        rank = np.where(np.isnan(asked), np.nan, rank)
        return self._dataset(panel, {"surprise": asked, "rank": rank})

    def _surprise(self, panel: Panel) -> np.ndarray:
        values = self._values(panel)
        error = (self._ahead(values).mean(0)[:, :-1] - np.asarray(values)[:, 1:]) ** 2
        last = int(self.facts["train_periods"])
        score = (error / np.maximum(error[:, : last - 1].mean((0, 1)), 1e-12)).mean(-1)
        return np.pad(score, ((0, 0), (1, 0)), constant_values=np.nan)

    def save(self, path: str | Path) -> None:
        """Write the world's folder, whole or not at all."""
        from wmjax.worlds.graph import store

        store.save(self, path)

    # ---- arrays and labels ------------------------------------------------------------------------------------------

    def _values(self, panel: Panel) -> Array:
        from wmjax.worlds.graph.fitting import values_of

        check_same_columns(self.schema, {}, panel)
        return jnp.asarray(values_of(panel))

    def _standard(self, values: Array) -> Array:
        return (values - self.params.scale.mean[0]) / self.params.scale.sd[0]

    def _ahead(self, values: Array) -> np.ndarray:
        """Expect every node one period ahead: `[members, units, times, nodes]` in the nodes' units."""
        scale = jax.tree.map(lambda a: a[0], self.params.scale)
        return np.asarray(_listen(self.params, self._standard(values), model=self.model) * scale.sd + scale.mean)

    def _matrices(self, found: Mapping[str, Any], **attrs: Any) -> xr.Dataset:
        coords = {"sender": list(self.nodes), "receiver": list(self.nodes)}
        arrays = {name: (("sender", "receiver"), np.asarray(value)) for name, value in found.items()}
        return xr.Dataset(arrays, coords=coords, attrs={**attrs, "provenance": dict(self.provenance)})

    def _dataset(self, panel: Panel, found: Mapping[str, np.ndarray], **attrs: Any) -> xr.Dataset:
        coords: dict[str, Any] = {"unit": list(panel.units), "time": panel.times}
        arrays = {}
        for name, value in found.items():
            if value.ndim == 3:
                coords["outcome"] = list(panel.outcome_names)
                arrays[name] = (("outcome", "unit", "time"), np.moveaxis(value, -1, 0))
            else:
                arrays[name] = (("unit", "time"), value)
        return xr.Dataset(arrays, coords=coords, attrs={**attrs, "provenance": dict(self.provenance)})


# ---- compiled: once for all worlds of one model, so that a world read from its folder compiles nothing anew ---------


def _roll(params: Any, graph: Array, history: Array, *, model: GraphModel) -> Array:
    return decoder.rollout(params, graph, history, cfg=model.cfg.decoder)


def _of_all_units(graphs: Array, units: int) -> Array:
    return jnp.broadcast_to(graphs[:, None], (graphs.shape[0], units, *graphs.shape[1:]))


@partial(jax.jit, static_argnames=("cfg", "model"))
def _probe(params: Any, graphs: Array, history: Array, *, cfg: InfluenceConfig, model: GraphModel) -> probes.Influence:
    every, unit = _of_all_units(graphs, history.shape[0]), jnp.ones(model.nodes)
    own = {"cfg": model.cfg.decoder}
    roll = probes.Resumable(partial(decoder.remember, **own), partial(decoder.go_on, **own))
    return probes.swap(roll, params, every, history, cfg=cfg, input_sd=unit, output_sd=unit, chunk=CHUNK)


@partial(jax.jit, static_argnames="model")
def _errors(params: Any, graphs: Array, past: Array, future: Array, *, model: GraphModel) -> Array:
    every = _of_all_units(graphs, past.shape[0])
    return probes.swap_errors(partial(_roll, model=model), params, every, past, future, chunk=CHUNK)[..., -1]


@partial(jax.jit, static_argnames="model")
def _contrast(params: GraphParams, values: Array, index: Array, low: Array, high: Array, *, model: GraphModel) -> Array:
    def one(own: GraphParams) -> Array:
        return jax.vmap(lambda v: pure.contrast(own, v, index, low, high, model=model))(values)

    return jax.lax.map(one, params)


@partial(jax.jit, static_argnames="model")
def _simulate(params: GraphParams, keys: Array, history: Array, plan: Array, *, model: GraphModel) -> pure.Rollout:
    def one(own: GraphParams, key: Array, past: Array, future: Array) -> pure.Rollout:
        return pure.simulate(key, own, past, future, model=model)

    units = jax.vmap(one, in_axes=(None, 0, 0, 0))
    by_draw = lambda own, k: jax.lax.map(lambda d: units(own, d, history, plan), k)  # noqa: E731
    return jax.lax.map(lambda pair: by_draw(*pair), (params, keys))


@partial(jax.jit, static_argnames="model")
def _listen(params: GraphParams, values: Array, *, model: GraphModel) -> Array:
    def one(own: GraphParams) -> Array:
        return jax.vmap(lambda v: pure.listen(own, v, model=model)[1])(values)

    return jax.lax.map(one, params)
