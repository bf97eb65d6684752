"""Fitting a graph world: the support first, then an ensemble of decoders that may only talk along it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Key

from wmjax.core.errors import UserError
from wmjax.core.files import finite
from wmjax.core.keys import key_for
from wmjax.core.observe import Event, Observer, silent
from wmjax.core.provenance import fingerprint
from wmjax.data.panel import Panel, show_time
from wmjax.graph import edges, learn, series, support
from wmjax.graph.learn import LearnConfig, LearnState
from wmjax.graph.series import Batch, Split
from wmjax.graph.support import Support
from wmjax.train import loop, many
from wmjax.worlds.contract import check_key, origin
from wmjax.worlds.graph import judging
from wmjax.worlds.graph import model as pure
from wmjax.worlds.graph.config import GraphConfig
from wmjax.worlds.graph.model import GraphModel, GraphParams
from wmjax.worlds.graph.world import GraphWorld


def values_of(panel: Panel) -> Float[np.ndarray, "unit time node"]:
    """Lay a panel out as nodes: actions, then outcomes.

    Raises:
        UserError: where a node is categorical or a unit has gaps.
    """
    for name in (*panel.action_names, *panel.outcome_names):
        if panel.schema.column(name).kind == "categorical":
            raise UserError(f"column {name!r} is categorical; the graph world's nodes are numbers")
    gaps = ~panel.arrays.mask
    if gaps.any():
        u, t = (int(i[0]) for i in np.nonzero(gaps))
        raise UserError(
            f"{int(gaps.any(1).sum())} of {panel.num_units} units have periods without a row, first unit "
            f"{panel.units[u]!r} at {show_time(panel.times[t])}; the graph world needs them all: fill or drop them"
        )
    if not panel.action_names or not panel.outcome_names:
        raise UserError("the graph world needs at least one action and one outcome")
    return np.concatenate([panel.arrays.actions, panel.arrays.outcomes], -1)


def check(panel: Panel, cfg: GraphConfig) -> tuple[Float[np.ndarray, "unit time node"], int]:
    """Refuse a panel that no graph world can be fitted to; give its nodes and how many periods are learnt from.

    Raises:
        UserError: too few units or periods, gaps, columns that are no numbers or stand still.
    """
    values = values_of(panel)
    if panel.num_units < 8:
        raise UserError(f"{panel.num_units} units: the graph world needs at least 8 to tell an edge from luck")
    train_times = panel.num_times - max(1, round(cfg.test * panel.num_times))
    least = cfg.decoder.horizon + cfg.support.own_lags + 8
    if train_times < least:
        raise UserError(
            f"{train_times} of the {panel.num_times} periods are to be learnt from, too few for a horizon of "
            f"{cfg.decoder.horizon}, which takes {least}"
        )
    _check_moves(values[:, :train_times], panel)
    return values, train_times


def fit(
    key: Key[Array, ""],
    panel: Panel,
    cfg: GraphConfig,
    *,
    seed: int | None = None,
    folder: str | Path | None = None,
    observer: Observer = silent,
) -> GraphWorld:
    """Fit a graph world.

    The last periods are not touched. The support comes from all units' other periods; each decoder learns from its own
    bootstrap of the training units and keeps the epoch that forecasts the validation units best. Static columns and
    covariates are not used.

    Args:
        key: seeds everything.
        panel: at least 8 units without gaps; numeric actions and outcomes. The last outcome is the target.
        cfg: how.
        seed: that `key` was made from, written to the results' provenance; without one the key's own data are.
        folder: where the decoders keep their checkpoints; a killed fit goes on from them.
        observer: told of progress.

    Raises:
        UserError: where the panel does not fit, or the folder belongs to another fit.
    """
    check_key(key)
    values, train_times = check(panel, cfg)
    # NumPy's generator, seeded by the key: the support is a statistic of the host.
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key_for(key, "support"))).tolist())
    observer(Event("support", 0, 1, unit="graph"))
    chosen = support.select(rng, values[:, :train_times], cfg=cfg.support)
    observer(Event("support", 1, 1, unit="graph"))
    model = GraphModel(cfg, len(panel.action_names), len(panel.outcome_names))
    graph = supplied(chosen, cfg)
    parts, scale = _deal(rng, values[:, :train_times], graph, cfg)
    params, history = _learn(key_for(key, "decoders"), parts, cfg, rng, folder, observer, panel)
    stacked = GraphParams(
        decoder=params,
        graph=jnp.broadcast_to(graph, (cfg.members, *graph.shape)),
        scale=jax.tree.map(lambda a: jnp.broadcast_to(a, (cfg.members, *a.shape)), scale),
        noise=jnp.ones((cfg.members, model.outcomes)),
    )
    world = GraphWorld(
        model=model,
        params=stacked._replace(noise=_noise(stacked, parts.validation.values, model)),
        support=chosen,
        schema=panel.schema,
        training=_curves(history),
        facts={
            "train": [str(panel.times[0]), str(panel.times[train_times - 1])],
            "test": [str(panel.times[train_times]), str(panel.times[-1])],
            "train_periods": train_times,
        },
        provenance=origin(key, seed, cfg, panel),
    )
    found = judging.accuracy(world, panel)
    unread = (*panel.static_names, *panel.covariate_names)
    mute = [name for name, t in zip(world.nodes, chosen.t.T, strict=True) if not t.any()]
    lines = [f"not read, as the graph world knows nodes alone: {', '.join(unread)}"] if unread else []
    lines += [
        f"{name}: in too few of the training periods clear of its floor to say what acts on it" for name in mute
    ] + judging.warnings(found, panel.num_units)
    told = {"accuracy": _plain(found), "warnings": lines}
    return replace(world, facts=dict(world.facts) | told)


def _plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Lay a table out as strict JSON can hold it."""
    rows = table.to_dict("records")
    return [{str(k): finite(v) if isinstance(v, float) else v for k, v in row.items()} for row in rows]


def _check_moves(values: Float[np.ndarray, "unit time node"], panel: Panel) -> None:
    """Refuse nodes that stand still.

    Raises:
        UserError: naming those that do not move in any unit over the training periods.
    """
    still = np.ptp(values, axis=1).max(0) == 0
    if still.any():
        names = [n for n, rests in zip((*panel.action_names, *panel.outcome_names), still, strict=True) if rests]
        raise UserError(
            f"{', '.join(map(repr, names))}: no unit's value ever changes in the {values.shape[1]} training periods, "
            "so nothing can be said of what it does or what acts on it; leave it out of the schema"
        )


def supplied(chosen: Support, cfg: GraphConfig) -> Float[Array, "nodes nodes"]:
    """Give the graph that the decoder may talk along."""
    nodes = chosen.graph.shape[0]
    graphs = {
        "selected": jnp.asarray(chosen.graph, jnp.float32),
        "full": edges.off_diagonal(nodes),
        "none": jnp.zeros((nodes, nodes)),
    }
    return graphs[cfg.supply]


def _deal(rng: np.random.Generator, values: np.ndarray, graph: Array, cfg: GraphConfig) -> tuple[Split, series.Scale]:
    """Deal the units to training and validation, standardised by the former."""
    units = len(values)
    order = rng.permutation(units)
    count = min(max(2, round(cfg.val * units)), units - 2)
    scale = series.fit_scale(jnp.asarray(values[order[count:]]))
    whole = series.standardise(jnp.asarray(values), scale)

    def batch(rows: np.ndarray) -> Batch:
        return Batch(whole[rows], jnp.broadcast_to(graph, (len(rows), *graph.shape)), jnp.zeros((len(rows), 0)))

    return Split(batch(order[count:]), batch(order[:count])), scale


class Member(NamedTuple):
    """One decoder and the units of its bootstrap."""

    state: LearnState
    units: Array


UPDATES = 8
"""Updates in an epoch, at least, where there are units for them."""


@dataclass(frozen=True)
class MemberEpoch:
    """One epoch of one decoder; a value, so that a second run compiles nothing."""

    cfg: LearnConfig

    def __call__(self, key: Array, member: Member, data: Split) -> tuple[Member, dict[str, Array]]:
        own = data._replace(train=series.take(data.train, member.units))
        state, metrics = learn.epoch(key, member.state, own, cfg=self.cfg)
        # Infinite until the first window of epochs is full, which the loop would take for divergence.
        metrics.pop("selection")
        return member._replace(state=state), metrics


def _best(member: Member) -> Any:
    return member.state.best_params


def _learn(
    key: Array,
    parts: Split,
    cfg: GraphConfig,
    rng: np.random.Generator,
    folder: Any,
    observer: Observer,
    panel: Panel,
) -> tuple[Any, dict[str, np.ndarray]]:
    own = LearnConfig(
        model=cfg.decoder,
        epochs=cfg.epochs,
        # Few units make few updates of large batches, and decoders that have not learnt.
        batch_size=max(1, min(cfg.batch_size, parts.train.values.shape[0] // UPDATES)),
        learning_rate=cfg.learning_rate,
        schedule="cosine",
        select_window=min(5, cfg.epochs),
    )
    units = parts.train.values.shape[0]
    drawn = jnp.asarray(rng.integers(0, units, (cfg.members, units)), jnp.int32)

    def init(key: Array, mine: Array) -> Member:
        return Member(learn.init(key, parts, cfg=own), mine)

    done, history = many.fit_many(
        jax.random.split(key, cfg.members),
        drawn,
        init,
        MemberEpoch(own),
        cfg=loop.LoopConfig(epochs=cfg.epochs),
        data=parts,
        observer=observer,
        folder=None if folder is None else Path(folder) / "decoders",
        stage="decoders",
        snapshot=_best,
        fingerprint=fingerprint(cfg, panel.schema) + panel.fingerprint,
    )
    return done.best, dict(history)


def _noise(params: GraphParams, values: Array, model: GraphModel) -> Float[Array, "members outcomes"]:
    """Measure the one-step errors of each member on units that it has not learnt from."""

    @jax.jit
    def all_members(params: GraphParams) -> Array:
        def one(own: GraphParams) -> Array:
            ahead = jax.vmap(lambda v: pure.listen(own, v, model=model)[1])(values)
            return (ahead[:, :-1] - values[:, 1:])[..., model.actions :].std((0, 1))

        return jax.lax.map(one, params)

    return all_members(params)


def _curves(history: dict[str, np.ndarray]) -> pd.DataFrame:
    """Lay the training curves out as a tidy table."""
    parts = []
    for metric, values in history.items():
        epoch, member = np.indices(np.shape(values))
        columns = {"epoch": epoch.ravel() + 1, "member": member.ravel(), "value": np.ravel(values)}
        parts.append(pd.DataFrame({"stage": "decoders", "metric": metric, **columns}))
    return pd.concat(parts, ignore_index=True)
