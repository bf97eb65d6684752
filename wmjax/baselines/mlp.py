"""An MLP on raw features and actions: a world's adapter, split and stopping, on visible units in place of a belief.

In the `mlp` form it is the published MLP baseline and the S-learner at once: one model gives both its accuracy and its
effects.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from scipy.special import expit

from wmjax.baselines import tables
from wmjax.baselines.tables import Baseline, Contrast, Kind, Scale, Table
from wmjax.core.keys import key_for
from wmjax.core.observe import Observer, silent
from wmjax.heads import adapter, ensemble, learn
from wmjax.heads.adapter import AdapterConfig
from wmjax.heads.ensemble import EnsembleEpoch
from wmjax.heads.learn import AdapterData, AdapterTables
from wmjax.train import loop
from wmjax.train.loop import LoopConfig


def fit_predict(
    key: Key[Array, ""],
    train: Table,
    val: Table,
    ask: Table,
    *,
    cfg: AdapterConfig,
    kinds: tuple[Kind, ...] | None = None,
    members: int = 1,
    observer: Observer = silent,
) -> Float[np.ndarray, "rows outcomes"]:
    """Fit and predict other rows: probabilities of binary outcomes, expected values of others; see `fit`."""
    found = fit(key, train, val, ask, candidates=(cfg,), kinds=kinds, members=members, observer=observer)
    return found.prediction


def fit(
    key: Key[Array, ""],
    train: Table,
    val: Table,
    ask: Table,
    *,
    candidates: tuple[AdapterConfig, ...],
    kinds: tuple[Kind, ...] | None = None,
    contrast: Contrast | None = None,
    members: int = 1,
    observer: Observer = silent,
    folder: str | Path | None = None,
    stage: str = "baseline MLP",
) -> Baseline:
    """Train `members` networks an outcome, all in one program, and average them.

    Each network keeps the epoch that scores best on the validation rows.

    Args:
        key: seeds everything.
        train, val: rows to learn from and rows to choose by. Columns of zeros and ones stay as they are, others are
            standardised on the train rows, and those that do not vary there are left out.
        ask: rows to answer for; their labels are not read.
        candidates: configurations, of which the validation rows choose one an outcome by its members' mean score.
        kinds: one an outcome; all binary where not given.
        contrast: whose uplift is wanted.
        members: networks averaged: logits for `linear`, probabilities for `prediction`.
        observer: told of progress.
        folder: where checkpoints go; a killed run goes on from there.
        stage: name of each candidate's run, for the observer.

    Raises:
        UserError: see `tables.known_kinds`.
        DivergedError: every network of a candidate met values that are not finite.
    """
    kinds = tables.known_kinds(train, val, kinds)
    scale_x, scale_a = (tables.fit_scale(c, keep_bits=True) for c in (train.features, train.actions))
    binary = np.array([kind == "binary" for kind in kinds])
    centre, sd = _outcome_scale(train.labels, binary)
    data = AdapterTables(*(_data(t, scale_x, scale_a, centre, sd) for t in (train, val)))
    fits = []
    for number, cfg in enumerate(candidates):
        where = None if folder is None else Path(folder) / f"candidate-{number}"
        fits.append(_train(key, data, cfg, kinds, members, stage=stage, observer=observer, folder=where))
    scores = np.stack([score for _, score in fits])
    asked = _data(ask, scale_x, scale_a, centre, sd)
    answers = []
    for outcome, number in enumerate(scores.argmax(axis=0)):
        params = jax.tree.map(lambda x, o=outcome: x[o], ensemble.by_outcome(fits[number][0], len(kinds)))
        found = _answer(params, asked.features, asked.actions, scale_a, contrast, cfg=candidates[number])
        answers.append(_in_units(found, float(centre[outcome]), float(sd[outcome]), bool(binary[outcome])))
    linear, prediction, uplift_linear, uplift = (np.column_stack(a) for a in zip(*answers, strict=True))
    chosen = [{"candidate": int(n), "score": float(scores[n, o])} for o, n in enumerate(scores.argmax(axis=0))]
    if contrast is None:
        return Baseline(linear, prediction, None, None, chosen)
    return Baseline(linear, prediction, uplift_linear, uplift, chosen)


def _outcome_scale(labels: np.ndarray, binary: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y = labels.astype(np.float64)
    sd = y.std(axis=0)
    return np.where(binary, 0.0, y.mean(axis=0)), np.where(binary | (sd == 0), 1.0, sd)


def _data(table: Table, scale_x: Scale, scale_a: Scale, centre: np.ndarray, sd: np.ndarray) -> AdapterData:
    features, actions = tables.scaled(table.features, scale_x), tables.scaled(table.actions, scale_a)
    labels = ((table.labels - centre) / sd).T.astype(np.float32)
    weights = np.ones((1, 1, len(features)), np.float32)
    return AdapterData._make(jnp.asarray(x) for x in (features, actions, labels, weights))


def _train(
    key: Key[Array, ""],
    data: AdapterTables,
    cfg: AdapterConfig,
    kinds: tuple[Kind, ...],
    members: int,
    *,
    stage: str,
    observer: Observer,
    folder: Path | None,
) -> tuple[Any, np.ndarray]:
    """Train one candidate: its best parameters `[outcomes * members, ..]` and mean validation scores `[outcomes]`."""
    state = _init(
        key_for(key, "init"),
        cfg=cfg,
        num_features=data.train.features.shape[1],
        num_actions=data.train.actions.shape[1],
        outcomes=len(kinds),
        members=members,
    )
    done, _ = loop.run(
        key_for(key, "epochs"),
        state,
        EnsembleEpoch(cfg, kinds),
        cfg=LoopConfig(epochs=cfg.epochs, monitor="score", mode="max", patience=cfg.patience),
        data=data,
        observer=observer,
        folder=folder,
        stage=stage,
        snapshot=learn.trained,
    )
    return done.best, np.asarray(done.best_value).reshape(len(kinds), members).mean(axis=1)


class _Answer(NamedTuple):
    """Linear predictors `[members, rows]` float64: as observed, with the action at a0, and the contrast."""

    observed: np.ndarray
    base: np.ndarray
    tau: np.ndarray


def _answer(
    params: Any, features: Array, actions: Array, scale: Scale, contrast: Contrast | None, *, cfg: AdapterConfig
) -> _Answer:
    """Ask every member about every row; without a contrast the contrast is of nothing."""
    observed = np.asarray(_predict(params, features, actions, cfg=cfg), np.float64)
    if contrast is None:
        return _Answer(observed, observed, np.zeros_like(observed))
    index = contrast.action_index
    a0, a1 = (float((v - scale.centre[index]) / scale.scale[index]) for v in (contrast.a0, contrast.a1))
    base = np.asarray(_predict(params, features, actions.at[:, index].set(a0), cfg=cfg), np.float64)
    asked = (jnp.asarray(index), jnp.float32(a0), jnp.float32(a1))
    tau = _effect(params, features, actions, *asked, cfg=cfg)
    return _Answer(observed, base, np.asarray(tau, np.float64))


_init = jax.jit(ensemble.init, static_argnames=("cfg", "num_features", "num_actions", "outcomes", "members"))


@partial(jax.jit, static_argnames="cfg")
def _predict(params: Any, features: Array, actions: Array, *, cfg: AdapterConfig) -> Float[Array, "members rows"]:
    return jax.lax.map(lambda one: learn.predict(one, features, actions, cfg=cfg), params)


@partial(jax.jit, static_argnames="cfg")
def _effect(
    params: Any, features: Array, actions: Array, index: Array, a0: Array, a1: Array, *, cfg: AdapterConfig
) -> Float[Array, "members rows"]:
    def member(one: Any) -> Float[Array, " rows"]:
        def row(inputs: tuple[Array, Array]) -> Array:
            return adapter.effect(one, inputs[0][None], index, a0[None], a1[None], inputs[1][None], cfg=cfg)[0]

        return jax.lax.map(row, (features, actions), batch_size=learn.CHUNK)

    return jax.lax.map(member, params)


def _in_units(
    found: _Answer, centre: float, sd: float, binary: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Average members on the outcome's own scales: linear, prediction, uplift_linear, uplift, each `[rows]`."""
    linear, tau = found.observed.mean(axis=0) * sd + centre, found.tau.mean(axis=0) * sd
    if not binary:
        return linear, linear, tau, tau
    risk = tables.risk_difference(found.base, found.tau).mean(axis=0)
    return linear, expit(found.observed).mean(axis=0), tau, risk
