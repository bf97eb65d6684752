"""Fitting a consumer world: split, frame, machine, adapters, support. Each stage resumes from its own checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Int, Key

from wmjax.core.errors import UserError
from wmjax.core.keys import key_for
from wmjax.core.observe import Observer, silent
from wmjax.core.provenance import fingerprint
from wmjax.data import frame as frames
from wmjax.data import scaling, splits
from wmjax.data.frame import Frame
from wmjax.data.panel import Panel, show_time
from wmjax.data.recipes import Recipe, common_actions, default_recipes
from wmjax.data.splits import Split, split_times
from wmjax.dbm.types import DBMParams
from wmjax.heads import ensemble, warm
from wmjax.heads import learn as heads
from wmjax.heads.ensemble import EnsembleEpoch
from wmjax.heads.learn import AdapterData, AdapterTables
from wmjax.train import loop
from wmjax.train.loop import LoopConfig
from wmjax.worlds.consumer import hidden, machine, repeats, support
from wmjax.worlds.consumer import model as pure
from wmjax.worlds.consumer.config import ConsumerConfig
from wmjax.worlds.consumer.model import ConsumerModel, ConsumerParams, Scales
from wmjax.worlds.consumer.rows import Rows, take_rows
from wmjax.worlds.consumer.world import ConsumerWorld
from wmjax.worlds.contract import check_key, origin

BELIEF_BYTES = 512 * 2**20
"""What adapters read of as many members as fit in here is held at once while they are trained."""


class Parts(NamedTuple):
    """A panel's rows by part of the calendar, and the scales fitted on the train rows."""

    train: Rows
    val: Rows
    test: Rows
    scales: Scales


def fit(
    key: Key[Array, ""],
    panel: Panel,
    cfg: ConsumerConfig,
    *,
    recipes: Sequence[Recipe] | None = None,
    seed: int | None = None,
    folder: str | Path | None = None,
    observer: Observer = silent,
) -> ConsumerWorld:
    """Fit a consumer world.

    The test periods are not touched: scales, bins, the machine, the adapters and the support of the effects come from
    the train periods, and the validation periods stop training.

    Args:
        key: seeds everything.
        panel: at least two units, at least one action, ten periods or more are sensible.
        cfg: how.
        recipes: what the belief is made of (`wmjax.data.recipes`); `default_recipes` of the train periods if not given.
        seed: that `key` was made from, written to the results' provenance; without one the key's own data are.
        folder: where each stage keeps its checkpoints; a killed fit goes on from them, bitwise.
        observer: told of progress.

    Raises:
        UserError: where the panel has one unit or no action, cannot be split, or the folder belongs to another fit.
        DivergedError: where every member of a stage meets values that are not finite.
    """
    check_key(key)
    _check(panel)
    split = split_times(panel, val=cfg.val, test=cfg.test)
    _check_parts(panel, split)
    made_of = default_recipes(panel, split.train) if recipes is None else tuple(recipes)
    frame = frames.fit_frame(panel, made_of, train=split.train, units=cfg.units)
    # The schema refuses categorical outcomes, so each kind is one that adapters know.
    kinds: Any = tuple(panel.schema.column(n).kind for n in panel.outcome_names)
    model = ConsumerModel(cfg, frame, kinds)
    parts = cut(panel, frame, split, model)
    own = fingerprint(cfg, panel.schema, *made_of) + panel.fingerprint
    stages = Stages(None if folder is None else Path(folder), observer, own)

    weights = unit_weights(key_for(key, "bootstrap"), parts.train, members=cfg.members, bootstrap=cfg.bootstrap)
    fitted, history, facts = machine.fit_members(
        key_for(key, "machine"), parts.train.visible, parts.val.visible, weights=weights, model=model, stages=stages
    )
    adapters, curves, luck, own_sd = fit_adapters(
        key_for(key, "adapters"), fitted, parts, weights, model=model, stages=stages, outcomes=panel.outcome_names
    )
    params = with_residuals(ConsumerParams(fitted, adapters, _per_member(parts.scales, cfg.members)), parts, model)
    if not cfg.bootstrap or cfg.members == 1 or panel.schema.time is None:
        luck = None  # steps that a table without times counts are no periods that units share
    if luck is not None:
        usual = _scaled(parts.train, parts.scales).mean(0)
        params = params._replace(adapters=with_luck(key_for(key, "luck"), params.adapters, luck, usual))
    reports = support.fit(parts.train, visible=frame.visible, schema=panel.schema, observer=observer)
    world = ConsumerWorld(
        model=model,
        params=params,
        schema=panel.schema,
        levels=panel.levels,
        overlap=reports,
        together=support.fit_together(parts.train, reports, schema=panel.schema),
        reference=np.zeros(0),
        training=pd.concat([history, curves], ignore_index=True),
        facts={
            **facts,
            **_dates(panel, split),
            "common_actions": common_actions(panel, split.train),
            "luck": luck is not None,
            "own_effect_sd": _named(own_sd, parts.scales, panel),
            "rarer": support.rarer(parts.train, schema=panel.schema),
            "hidden": hidden.fit(parts.train, reports, frame=frame, schema=panel.schema),
            "repeats": repeats.shares(panel, panel.arrays.actions, panel.arrays.mask & split.train, frame=frame),
        },
        provenance=origin(key, seed, cfg, panel) | {"recipes_fingerprint": fingerprint(*made_of)},
    )
    return world.with_reference(parts.train.visible)


def _check_parts(panel: Panel, split: Split) -> None:
    """Refuse parts of a single unit: what stops training, and what scores it, are averages over units."""
    for name in ("val", "test"):
        seen = splits.rows(panel, getattr(split, name))
        units, count = int(seen.any(1).sum()), int(seen.sum())
        if count and units < 2:
            raise UserError(
                f"the {name} times hold {count} row(s) of {units} unit, at least 2 units are needed; "
                f"give {name} a larger share"
            )


def _check(panel: Panel) -> None:
    """Refuse what no effect can be learnt from, before anything is fitted."""
    if panel.num_units < 2:
        named = panel.schema.unit is not None
        why = "the table has one" if named else 'the schema names no unit column (unit = ".."), so the table is one'
        raise UserError(f"a consumer world learns from many units; {why}")
    if not panel.action_names:
        raise UserError('a consumer world needs an action to ask about; declare a column with role = "action"')


class Stages(NamedTuple):
    """Where the stages of one fit keep their checkpoints, whom they tell, and whose they are."""

    folder: Path | None
    observer: Observer
    owner: str

    def run(self, key: Array, state: Any, epoch_fn: Any, *, stage: str, **options: Any):
        """Run one stage of training, resumable on its own."""
        folder = None if self.folder is None else self.folder / stage.replace(" ", "-").replace("/", "-of-")
        return loop.run(
            key, state, epoch_fn, stage=stage, folder=folder, observer=self.observer, fingerprint=self.owner, **options
        )


def cut(panel: Panel, frame: Frame, split: Split, model: ConsumerModel) -> Parts:
    """Cut the panel's observed rows by time and fit the scales of actions and outcomes on the train rows."""
    train, val, test = (take_rows(frame, panel, _run_of(mask)) for mask in split)
    action = [_action_scale(panel.schema.column(n).kind, train.actions[:, i]) for i, n in enumerate(panel.action_names)]
    outcome = scaling.fit_standard(train.outcomes, np.ones(len(train), bool))
    binary = np.asarray(model.binary)
    numbers = (
        [centre for centre, _ in action],
        [scale for _, scale in action],
        np.where(binary, 0.0, outcome.centre),
        np.where(binary, 1.0, outcome.scale),
        np.zeros(len(binary)),
    )
    return Parts(train, val, test, Scales(*(jnp.asarray(n, jnp.float32) for n in numbers)))


def _action_scale(kind: str, values: np.ndarray) -> tuple[float, float]:
    """Centre and scale an action: bits stay, what counts from zero keeps its zero, the rest is standardised."""
    if kind == "binary":
        return 0.0, 1.0
    if kind in ("currency", "count"):
        return 0.0, float(scaling.fit_max(values[:, None], np.ones(len(values), bool)).scale[0])
    scaler = scaling.fit_standard(values[:, None], np.ones(len(values), bool))
    return float(scaler.centre[0]), float(scaler.scale[0])


def _named(own_sd: Array | None, scales: Scales, panel: Panel) -> dict[str, dict[str, float]] | None:
    """Name the deviations of effects of one unit of an action, on the linear scale in the table's units."""
    if own_sd is None:
        return None
    sizes = np.asarray(own_sd * scales.outcome_scale[:, None] / scales.action_scale, np.float64)
    return pd.DataFrame(sizes, panel.outcome_names, panel.action_names).to_dict()


def _run_of(mask: np.ndarray) -> slice:
    at = np.flatnonzero(mask)
    return slice(int(at[0]), int(at[-1]) + 1)


def _per_member(scales: Scales, members: int) -> Scales:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (members, *x.shape)), scales)


def _dates(panel: Panel, split: Split) -> dict[str, Any]:
    """Say in words which dates each part of the calendar holds."""
    named = zip(Split._fields, split, strict=True)
    return {name: [show_time(panel.times[m][0]), show_time(panel.times[m][-1])] for name, m in named}


def unit_weights(key: Key[Array, ""], rows: Rows, *, members: int, bootstrap: bool) -> Float[Array, "members rows"]:
    """Weigh each row by its unit's draw: a Bayesian bootstrap (Rubin 1981), balanced over the members.

    A unit's weights over the members are `members` times a Dirichlet draw: their mean is 1 (Davison, Hinkley and
    Schechtman 1986) and the standard deviation around it 1 on average. So the members' mean is, to first order, a fit
    to the data as they are, without the luck of few draws, and the members' spread is that of independent ones. A
    member alone has the data as they are.
    """
    if not bootstrap or members == 1:
        return jnp.ones((members, len(rows)))
    shape = (members - 1) / members
    draw = jax.vmap(lambda m: jax.random.gamma(key_for(key, "units", m), shape, (len(rows.units),)))(
        jnp.arange(members)
    )
    return (members * draw / draw.sum(0))[:, rows.unit]


class Trained(NamedTuple):
    """Adapters, and what `warm` tells of their effects where they are additive (else None).

    adapters: leaves `[members, outcomes, ..]`. curves: of training, tidy. luck: what shocks to whole periods add to the
    covariance of effects. own_sd: standard deviation of units' own effects beyond the adapters', of the scaled action.
    """

    adapters: Any
    curves: pd.DataFrame
    luck: Float[Array, "outcomes actions actions"] | None
    own_sd: Float[Array, "outcomes actions"] | None


def fit_adapters(
    key: Key[Array, ""],
    fitted: DBMParams,
    parts: Parts,
    weights: Float[Array, "members rows"],
    *,
    model: ConsumerModel,
    stages: Stages,
    outcomes: tuple[str, ...],
) -> Trained:
    """Train one adapter an outcome on each member's frozen belief, and what skips it."""
    cfg, width, num_actions = model.cfg, model.num_features, parts.train.actions.shape[1]
    at_once = max(1, BELIEF_BYTES // (4 * width * (len(parts.train) + len(parts.val))))
    read = partial(_features, model=model)
    chunks = {first: slice(first, min(first + at_once, cfg.members)) for first in range(0, cfg.members, at_once)}

    @lru_cache(maxsize=1)
    def tables(first: int) -> AdapterTables:
        chosen = chunks[first]
        members = jax.tree.map(lambda x: x[chosen], fitted)
        return AdapterTables(
            _table(read(members, parts.train.visible), parts.train, weights[chosen], parts.scales),
            _table(read(members, parts.val.visible), parts.val, None, parts.scales),
        )

    told, draws = None, None
    if cfg.adapter.form == "additive":
        # Too few rows make too few steps, and rows that differ by noise: see `warm`.
        told = warm.pool([warm.regress(tables(n).train, _cells(parts.train), model.kinds) for n in chunks])
        if cfg.bootstrap:
            draws = balanced(key_for(key, "prior"), (cfg.members, len(model.kinds), width, num_actions))
    found, curves = [], []
    for first, chosen in chunks.items():
        state = ensemble.init(
            key_for(key, "init", first),
            cfg=cfg.adapter,
            num_features=width,
            num_actions=num_actions,
            outcomes=len(model.kinds),
            members=chosen.stop - chosen.start,
        )
        if told is not None:
            own = None if draws is None else draws[chosen]
            state = warm.begin(state, told.of(chosen), tables(first).train, cfg=cfg.adapter, draws=own)
        stage = "adapters" if len(chunks) == 1 else f"adapters {1 + first // at_once}"
        done, history = stages.run(
            key_for(key, "epochs", first),
            state,
            EnsembleEpoch(cfg.adapter, model.kinds),
            stage=stage,
            cfg=LoopConfig(epochs=cfg.adapter.epochs, monitor="score", mode="max", patience=cfg.adapter.patience),
            data=tables(first),
            snapshot=heads.trained,
        )
        by_member = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), ensemble.by_outcome(done.best, len(model.kinds)))
        found.append(by_member)
        curves += _curves(history, stage, outcomes, first)
    adapters = jax.tree.map(lambda *x: jnp.concatenate(x), *found)
    # Cut at 0 only where it is drawn: of members one by one what chance tells would not cancel.
    luck = None if told is None else told.luck.mean(1)
    own_sd = None
    if told is not None:
        units, count = jnp.asarray(parts.train.unit), len(parts.train.units)
        slopes = [adapters["tau"]["kernel"][chosen] for chosen in chunks.values()]
        known = sum(
            _explained(own, tables(n).train.features, units, count) for n, own in zip(chunks, slopes, strict=True)
        )
        own_sd = jnp.sqrt(jnp.maximum(jnp.square(warm.unit_sd(told, cfg.adapter.effect_sd)) - known / cfg.members, 0))
    return Trained(adapters, pd.concat(curves, ignore_index=True), luck, own_sd)


@partial(jax.jit, static_argnames=("num_units",))
def _explained(
    slopes: Float[Array, "members outcomes features actions"],
    features: Float[Array, "members rows features"],
    units: Int[Array, " rows"],
    num_units: int,
) -> Float[Array, "outcomes actions"]:
    """Sum over members how much units differ by their mean effects."""
    count = jnp.bincount(units, length=num_units)

    def one(own: tuple[Array, Array]) -> Array:
        mean = jax.ops.segment_sum(own[1], units, num_units) / jnp.maximum(count, 1)[:, None]
        return jnp.var(jnp.einsum("uf,ofa->uoa", mean, own[0]), axis=0, where=(count > 0)[:, None, None])

    return jax.lax.map(one, (slopes, features)).sum(0)


def with_luck(
    key: Key[Array, ""],
    adapters: Any,
    luck: Float[Array, "outcomes actions actions"],
    usual: Float[Array, " actions"],
) -> Any:
    """Move each member's main effects by its own draw of what shocks to whole periods may have made of them.

    A bootstrap of the units does not know of these. The ensemble's mean stays, each effect's spread is exactly that of
    its variance in what of `luck` is not negative, and each member's forecast at the `usual` actions stays: a shock
    moves level and effect against each other.
    """
    bias = adapters["tau"]["bias"]
    value, vector = jnp.linalg.eigh(luck)
    root = vector * jnp.sqrt(jnp.maximum(value, 0))[:, None]
    moved = jnp.einsum("oab,mob->moa", root, jax.random.normal(key, bias.shape))
    moved = standard(moved) * jnp.linalg.norm(root, axis=-1)
    last = max((name for name in adapters if name.startswith("layer_")), key=lambda name: int(name.split("_")[1]))
    level = adapters[last]["bias"] - (moved @ usual)[..., None]
    return {**adapters, "tau": {**adapters["tau"], "bias": bias + moved}, last: {**adapters[last], "bias": level}}


def balanced(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "members *rest"]:
    """Draw normal numbers, `standard` over the first axis."""
    return standard(jax.random.normal(key, shape))


def standard(draw: Float[Array, "members *rest"]) -> Float[Array, "members *rest"]:
    """Give draws mean 0 and standard deviation 1 over the first axis exactly; a single member has 0."""
    draw = draw - draw.mean(0)
    return draw / jnp.maximum(jnp.std(draw, axis=0, ddof=1 if len(draw) > 1 else 0), 1e-12)


def _cells(rows: Rows) -> warm.Cells:
    periods = rows.time - rows.time.min()
    return warm.Cells(jnp.asarray(rows.unit), jnp.asarray(periods), len(rows.units), int(periods.max()) + 1)


_features = jax.jit(partial(machine.read_rows, read=pure.features), static_argnames="model")


@partial(jax.jit, static_argnames="model")
def _predict(params: ConsumerParams, visible: Array, actions: Array, *, model: ConsumerModel) -> Array:
    """Expect the outcomes of rows by every member: `[members, rows, outcomes]`."""
    return jax.lax.map(lambda own: pure.predict(own, visible, actions, model=model), params)


def _curves(history: dict[str, np.ndarray], stage: str, outcomes: tuple[str, ...], first: int) -> list[pd.DataFrame]:
    """Split the adapters' curves by outcome: one stage an outcome, one line a member."""
    at = np.arange(next(iter(history.values())).shape[1]).reshape(len(outcomes), -1)
    return [
        machine.curve_table({k: v[:, own] for k, v in history.items()}, f"{stage}: {outcome}", first)
        for own, outcome in zip(at, outcomes, strict=True)
    ]


def _table(features: Array, rows: Rows, weights: Array | None, scales: Scales) -> AdapterData:
    """Lay rows out as an ensemble wants them: features [members, rows, f], labels [outcomes, rows]."""
    labels = (jnp.asarray(rows.outcomes) - scales.outcome_centre) / scales.outcome_scale
    weights = jnp.ones((1, 1, len(rows))) if weights is None else weights[None]
    return AdapterData(features, _scaled(rows, scales), labels.T, weights)


def _scaled(rows: Rows, scales: Scales) -> Float[Array, "rows actions"]:
    return (jnp.asarray(rows.actions) - scales.action_centre) / scales.action_scale


def with_residuals(params: ConsumerParams, parts: Parts, model: ConsumerModel) -> ConsumerParams:
    """Measure each real outcome's spread around its prediction on validation rows, which no adapter was fitted to."""
    if all(model.binary):
        return params
    mean = _predict(params, parts.val.visible, parts.val.actions, model=model)
    spread = jnp.sqrt(jnp.mean(jnp.square(parts.val.outcomes - mean), axis=1))
    residual = jnp.where(jnp.asarray(model.binary), 0.0, spread)
    return params._replace(scales=params.scales._replace(residual=residual))
