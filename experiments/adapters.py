"""Adapters and their raw-feature twins, trained as published, and what is read off them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit as probability

from experiments.common import Cell, Scores
from experiments.consumer_data import QUESTIONS
from wmjax.core.keys import key_for
from wmjax.core.observe import Observer
from wmjax.evaluate import metrics
from wmjax.heads import adapter, ensemble, learn, warm
from wmjax.heads.adapter import AdapterConfig
from wmjax.train import loop

OUTCOMES = ("visit", "purchase")
ASKED_OF = {outcome: setting for setting, (_, outcome) in QUESTIONS.items()}


class Table(NamedTuple):
    """Rows that adapters read: features `[rows, f]`, or `[seeds, rows, f]`; actions `[rows, a]`; outcomes."""

    features: np.ndarray
    actions: np.ndarray
    outcomes: np.ndarray

    def where(self, rows: np.ndarray) -> Table:
        return Table(*(x[rows] for x in self))

    def seed(self, at: int) -> Table:
        """Take one seed's table, where features are `[seeds, rows, f]`."""
        return self._replace(features=self.features[at])


@dataclass(frozen=True)
class Fitted:
    """Adapters of the outcomes of one table: leading axis of `params` is the outcome; `val_auc [outcomes]`."""

    cfg: AdapterConfig
    params: Any
    val_auc: np.ndarray

    def logits(self, outcome: int, features: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Compute the log odds of rows: `[rows]`."""
        return np.asarray(_predict(self._one(outcome), features, actions, cfg=self.cfg), np.float64)

    def effect(self, outcome: int, action: int, features: np.ndarray, actions: np.ndarray) -> dict[str, np.ndarray]:
        """Contrast an action at 1 with 0, all else as it was, on both scales: `[rows]` each."""
        params, off = self._one(outcome), actions.copy()
        off[:, action] = 0.0
        base = self.logits(outcome, features, off)
        gain = np.asarray(_effect(params, features, off, action=action, cfg=self.cfg), np.float64)
        return {"logit": gain, "prob": probability(base + gain) - probability(base)}

    def _one(self, outcome: int) -> Any:
        return jax.tree.map(lambda x: x[outcome], self.params)


@partial(jax.jit, static_argnames="cfg")
def _predict(params: Any, features: Any, actions: Any, *, cfg: AdapterConfig) -> jax.Array:
    return learn.predict(params, features, actions, cfg=cfg)


@partial(jax.jit, static_argnames=("cfg", "action"))
def _effect(params: Any, features: Any, actions: Any, *, action: int, cfg: AdapterConfig) -> jax.Array:
    return adapter.effect(params, features, action, 0.0, 1.0, actions, cfg=cfg)


def fit(
    key: jax.Array,
    train: Table,
    val: Table,
    *,
    cfg: AdapterConfig,
    stage: str,
    folder: Path | None,
    observer: Observer,
    fingerprint: str,
    cells: warm.Cells | None = None,
) -> Fitted:
    """Train one adapter an outcome, each kept at its epoch of best validation score; goes on where it was killed.

    `cells`: where each train row stands; additive adapters then start as a consumer world's do, from a regression.
    """
    options: Any = {"cfg": cfg, "stage": stage, "folder": folder, "observer": observer, "fingerprint": fingerprint}
    return fit_seeds(key, train, val, seeds=1, cells=cells, **options)[0]


def fit_seeds(
    key: jax.Array,
    train: Table,
    val: Table,
    *,
    seeds: int,
    cfg: AdapterConfig,
    stage: str,
    folder: Path | None,
    observer: Observer,
    fingerprint: str,
    cells: warm.Cells | None = None,
) -> list[Fitted]:
    """Train as `fit` for many seeds in one program.

    They differ in their start, their dropout and, where features are `[seeds, rows, f]`, in what they read; all meet
    the same batches.

    Raises:
        ValueError: `cells` for adapters of another form than additive, or for more than one seed of them.
    """
    if cells is not None and (cfg.form != "additive" or seeds != 1):
        raise ValueError(f"only one additive adapter starts from a regression; form is {cfg.form!r}, seeds is {seeds}")
    width, count = train.features.shape[-1], train.outcomes.shape[1]
    state = jax.jit(
        lambda k: ensemble.init(
            k, cfg=cfg, num_features=width, num_actions=train.actions.shape[1], outcomes=count, members=seeds
        )
    )(key_for(key, "init"))
    kinds: tuple[Any, ...] = ("binary",) * count
    if cells is not None:
        rows = _data(train)
        rows = rows._replace(features=jnp.asarray(rows.features[None], jnp.float32))
        state = warm.begin(state, warm.pool([warm.regress(rows, cells, kinds)]), rows, cfg=cfg)
    done, history = loop.run(
        key_for(key, "epochs"),
        state,
        ensemble.EnsembleEpoch(cfg, kinds),
        cfg=loop.LoopConfig(epochs=cfg.epochs, monitor="score", mode="max", patience=cfg.patience),
        data=learn.AdapterTables(_data(train), _data(val)),
        observer=observer,
        folder=folder,
        stage=stage,
        snapshot=learn.trained,
        fingerprint=fingerprint,
    )
    best = ensemble.by_outcome((jax.device_get(done.best), np.nanmax(history["score"], axis=0)), count)
    return [Fitted(cfg, *jax.tree.map(lambda x, at=at: x[:, at], best)) for at in range(seeds)]


def _data(table: Table) -> learn.AdapterData:
    weights = np.ones((1, 1, len(table.actions)), np.float32)
    return learn.AdapterData(*map(jnp.asarray, (table.features, table.actions, table.outcomes.T, weights)))


def forecast_scores(method: str, logits: dict[str, dict[str, np.ndarray]], labels: dict[str, np.ndarray]) -> Scores:
    """Score forecasts of both outcomes on test rows, the threshold chosen by F1 on validation rows.

    Args:
        method: name in the table.
        logits: split (`"val"`, `"test"`) to outcome to log odds `[rows]`.
        labels: split to `[rows, outcomes]`.
    """
    out: Scores = {}
    for at, outcome in enumerate(OUTCOMES):
        chance = {split: probability(logits[split][outcome]) for split in ("val", "test")}
        truth = {split: labels[split][:, at] for split in ("val", "test")}
        threshold = metrics.best_threshold(truth["val"], chance["val"])
        called = metrics.classified(truth["test"], chance["test"], threshold)
        values = {
            "auc": metrics.auc(truth["test"], logits["test"][outcome]),
            "loss": metrics.log_loss_of_logits(truth["test"], logits["test"][outcome]),
            **called._asdict(),
        }
        out |= {Cell(ASKED_OF[outcome], method, f"{name}_{outcome}"): float(value) for name, value in values.items()}
    return out
