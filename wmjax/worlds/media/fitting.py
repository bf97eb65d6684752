"""Fitting a media world: split, scales, members trained together, what the data can and cannot tell of each channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Key

from wmjax.core.files import finite
from wmjax.core.keys import key_for
from wmjax.core.observe import Observer, silent
from wmjax.core.provenance import fingerprint
from wmjax.data.panel import Panel, show_time
from wmjax.data.splits import Split, split_times
from wmjax.train import loop, many
from wmjax.train.loop import LoopConfig
from wmjax.transformer import response, tokens
from wmjax.worlds.contract import check_key, member_key, origin
from wmjax.worlds.media import creatives, hidden, learning, posterior, prepare, programs
from wmjax.worlds.media.beginning import Begin
from wmjax.worlds.media.config import MediaConfig
from wmjax.worlds.media.learning import MODEL, Epoch, LearnData, Learner, averaged, whole_batch
from wmjax.worlds.media.luck import Luck, balanced
from wmjax.worlds.media.prepare import Scales
from wmjax.worlds.media.world import MediaWorld


def fit(
    key: Key[Array, ""],
    panel: Panel,
    cfg: MediaConfig,
    *,
    seed: int | None = None,
    creative: np.ndarray | pd.DataFrame | None = None,
    folder: str | Path | None = None,
    observer: Observer = silent,
    stage: str = "media",
) -> MediaWorld:
    """Fit a media world.

    The test periods are not touched: scales and parameters come from the train periods; validation is only watched.

    Args:
        key: seeds everything.
        panel: one series, or geos; actions are the channels' spend.
        cfg: how.
        seed: that `key` was made from, written to the results' provenance; without one the key's own data are.
        creative: [channels, c], vectors of the channels' advertisements (CLIP, BERT), for the `free` head; or a table
            of them, a column `channel` and columns of numbers.
        folder: where checkpoints are kept; a killed fit goes on from them, bitwise.
        observer: told of progress.
        stage: what it is told by.

    Raises:
        UserError: see `prepare.check` and `creatives.read`; or the folder belongs to another fit.
        DivergedError: where every member meets values that are not finite.
    """
    cfg = cfg.settled(alone=panel.num_units == 1)
    begun = prepared(key, panel, cfg, creative)
    begin = many.Members(Begin(begun.learner), 2, None)
    done, history = loop.run(
        begun.keys,
        jax.jit(begin)(begun.keys, begun.luck, begun.data),
        many.members(Epoch(begun.learner)),
        cfg=LoopConfig(epochs=cfg.epochs),
        data=begun.data,
        folder=folder,
        observer=observer,
        stage=stage,
        snapshot=many.members(averaged, 1),
        fingerprint=fingerprint(MODEL, cfg, panel.schema, *begun.drawn) + panel.fingerprint,
    )
    return world_of(panel, cfg, begun, done.best, history, origin(key, seed, cfg, panel))


class Prepared(NamedTuple):
    """What a fit reads: parts of the calendar, scales, the arrays, and each member's key and luck.

    drawn: vectors of the channels' advertisements, where there are any, for the fingerprint.
    """

    split: Split
    scales: Scales
    learner: Learner
    data: LearnData
    keys: Key[Array, " members"]
    luck: Luck
    drawn: list[Any]


def prepared(
    key: Key[Array, ""], panel: Panel, cfg: MediaConfig, creative: np.ndarray | pd.DataFrame | None
) -> Prepared:
    """Split a panel, fit its scales, lay it out, and draw what members differ by.

    Raises:
        UserError: see `prepare.check` and `creatives.read`.
    """
    check_key(key)
    split = split_times(panel, val=cfg.val, test=cfg.test)
    scales = prepare.fit_scales(panel, split.train, cfg)
    vectors = None if creative is None else creatives.read(creative, panel.action_names, cfg.network)
    data = learn_data(panel, scales, split, cfg, vectors)
    taught = np.any(data.train, axis=0)
    luck = balanced(
        key_for(key, "luck"),
        np.asarray(taught),
        channels=len(panel.action_names),
        members=cfg.members,
        block=cfg.block,
        further=len(cfg.roi) - len({p.channel for p in cfg.roi}),
    )
    return Prepared(
        split=split,
        scales=scales,
        learner=Learner(cfg.compiled, panel.action_names, int(split.train.sum()), panel.num_units),
        data=data,
        keys=jnp.stack([member_key(key, m) for m in range(cfg.members)]),
        luck=luck,
        drawn=[] if vectors is None else [vectors.tolist()],
    )


def world_of(
    panel: Panel, cfg: MediaConfig, begun: Prepared, params: Any, history: Mapping[str, np.ndarray], provenance: Any
) -> MediaWorld:
    """Make a world of trained members, and measure what it says about itself."""
    split, scales, data = begun.split, begun.scales, begun.data
    params = with_intercepts(params, begun.luck, data, learner=begun.learner)
    noisy, told = len(scales.errors.columns), support(panel, scales, split, cfg)
    spread = posterior.spread(params, data, cfg=cfg.compiled, channels=panel.action_names, noisy=noisy)
    if cfg.network.head == "response":
        own = posterior.learned(params, spread, data, cfg=cfg.compiled, channels=panel.action_names)
        told = told.assign(moved=np.asarray(own[0], np.float64), learned=np.asarray(own[1], np.float64))
    world = MediaWorld(
        cfg=cfg,
        params=params,
        spread=np.asarray(spread),
        scales=scales,
        creative=np.asarray(data.known.creative),
        residual=np.zeros(cfg.members),
        schema=panel.schema,
        levels=panel.levels,
        units=panel.units,
        support=told,
        training=_curves(history),
        facts={
            **_dates(panel, split),
            **_errors(panel, scales),
            "unspent": prepare.unspent(panel, split),
            "gaps": prepare.gaps(panel),
            # The head that learnt of one alone, as what is known of such answers hangs on it; empty of several.
            "one_series": cfg.network.head if panel.num_units == 1 else "",
            "size": cfg.size,
            "size_ratio": prepare.size_ratio(panel, split.train, cfg),
        },
        provenance=provenance,
    )
    world = world.with_residual(panel, split.val if split.val.any() else split.train)
    found = {
        "hidden": hidden.measure(world, panel, split.train),
        "r2": accuracy(world, panel, split),
        "disagree": disagreement(world, panel, split.train),
    }
    return replace(world, facts={**world.facts, **found})


@partial(jax.jit, static_argnames=("learner",))
def with_intercepts(params: Any, luck: Luck, data: LearnData, *, learner: Learner) -> Any:
    """Add the units' intercepts to every member, see `learning.leveled`."""

    def member(own: tuple[Any, Luck]) -> Any:
        params, luck = own
        outcome = learning.leveled(params["outcome"], whole_batch(data, luck), data, learner=learner)
        return {**params, "outcome": outcome}

    return jax.lax.map(member, (params, luck))


def disagreement(world: MediaWorld, panel: Panel, train: np.ndarray) -> list[str]:
    """Name the channels of whose contribution in the train periods members and draws are `posterior.apart`."""
    if not world.draws:
        return []
    history, rows = world.history(panel), jnp.asarray(panel.arrays.mask & train, jnp.float32)
    plan, cfg = jnp.asarray(panel.arrays.actions), world.cfg.network
    who = (programs.ready(world.params, history, cfg=cfg), world.answering(history))
    own, draws = (np.asarray(programs.added(x, history, plan, rows, cfg=cfg), np.float64) for x in who)
    return [c for c, here in zip(world.channels, posterior.apart(own, draws), strict=True) if here]


def accuracy(world: MediaWorld, panel: Panel, split: Split) -> dict[str, float | None]:
    """Compare predictions, one period ahead, with each unit's mean of the train periods: R2 by part, or None.

    With `_sum` of all units together, in periods that have them all; what is off by a share for all shows there.
    """
    name = prepare.outcome_name(panel, world.cfg)
    y = np.asarray(panel.arrays.outcomes[..., panel.outcome_index(name)], np.float64)
    expected = world.predict(panel)["mean"].values[0]
    train = panel.arrays.mask & split.train
    mean = np.where(train, y, 0).sum(1, keepdims=True) / np.maximum(train.sum(1, keepdims=True), 1)
    found: dict[str, float | None] = {}
    for part, times in zip(Split._fields, split, strict=True):
        rows = panel.arrays.mask & times & train.any(1, keepdims=True)
        spread = ((y - mean)[rows] ** 2).sum()
        found[part] = finite(float(1 - ((y - expected)[rows] ** 2).sum() / spread)) if spread > 0 else None
        whole = panel.arrays.mask.all(0) & times
        known = panel.arrays.mask.all(0) & split.train
        sums, told = y.sum(0), np.where(panel.arrays.mask, expected, 0).sum(0)
        around = ((sums[whole] - sums[known].mean()) ** 2).sum() if known.any() else 0.0
        found[f"{part}_sum"] = finite(float(1 - ((sums - told)[whole] ** 2).sum() / around)) if around > 0 else None
    return found


def learn_data(panel: Panel, scales: Scales, split: Split, cfg: MediaConfig, creative: np.ndarray | None) -> LearnData:
    """Lay a panel out for learning; the adversary sees spend, or its rank among the train rows."""
    series = prepare.series(panel, scales, cfg)
    train = np.asarray(series.observed) & split.train
    sign = tuple(cfg.sign(name) for name in panel.action_names)
    target = np.asarray(series.spend)
    if cfg.confusion in ("rank", "shuffle"):
        target = np.stack([_ranks(target[..., k], train) for k in range(target.shape[-1])], -1)
    aim = target[train].mean(0) if cfg.confusion == "mean" else np.full(target.shape[-1], 0.5)
    return LearnData(
        series=series,
        known=tokens.channels(len(sign), cfg=cfg.network, creative=creative, sign=sign),
        train=jnp.asarray(train),
        val=jnp.asarray(np.asarray(series.observed) & split.val),
        spend_target=jnp.asarray(target, jnp.float32),
        confusion=jnp.asarray(aim, jnp.float32),
        size=jnp.asarray(scales.size, jnp.float32),
        exchange=jnp.asarray(scales.outcome_scale / scales.spend, jnp.float32),
        centre=response.centre(jnp.asarray(scales.typical, jnp.float32), jnp.asarray(sign, jnp.float32)),
        beliefs=jnp.asarray(cfg.beliefs),
    )


def _ranks(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Give the share of train rows below, ties counting one half: mean one half over the train rows."""
    known = np.sort(values[train])
    ends = [np.searchsorted(known, values, side=side) for side in ("left", "right")]
    return (ends[0] + ends[1]) / (2 * len(known))


def support(panel: Panel, scales: Scales, split: Split, cfg: MediaConfig) -> pd.DataFrame:
    """Tell what the train periods can say of each channel.

    Returns:
        channel; idle, the share of rows with next to no spend (below 5 % of the typical one); top, the largest spend of
        a row in the table's units per unit of size; explained, the R2 of spend given covariates and last period's
        outcome, linearly. Of the `response` head `fit` adds moved and learned, see `posterior.learned`.
    """
    series = prepare.series(panel, scales, cfg)
    rows = np.asarray(series.observed) & split.train
    before = np.concatenate([np.zeros((len(rows), 1)), np.asarray(series.outcome)[:, :-1]], axis=1)[..., None]
    x = np.concatenate([prepare.as_measured(series, scales), before, np.ones_like(before)], -1)[rows]
    spend = np.asarray(series.spend, np.float64)[rows]
    left = spend - x @ np.linalg.lstsq(x, spend, rcond=None)[0]
    return pd.DataFrame(
        {
            "channel": list(panel.action_names),
            "idle": (spend < prepare.IDLE * scales.typical).mean(0),
            "top": scales.spend,
            "explained": 1 - left.var(0) / np.maximum(spend.var(0), 1e-12),
        }
    )


def _dates(panel: Panel, split: Split) -> dict[str, Any]:
    named = zip(Split._fields, split, strict=True)
    return {n: [show_time(panel.times[m][0]), show_time(panel.times[m][-1])] if m.any() else None for n, m in named}


def _errors(panel: Panel, scales: Scales) -> dict[str, Any]:
    """Name the covariates whose error is told apart, with the F of what tells it, and those that are left alone."""
    names, errors = prepare.own_names(panel), scales.errors
    told = {names[at]: float(f) for at, f in zip(errors.columns, errors.strength, strict=True)}
    return {"errors": told, "as_measured": [names[at] for at in errors.left]}


def _curves(history: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Lay training curves out: epoch, member, metric, value."""
    parts = []
    for name, values in history.items():
        epoch, member = np.indices(values.shape)
        columns = {"epoch": epoch.ravel() + 1, "member": member.ravel(), "metric": name, "value": values.ravel()}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)
