"""What other learners make of one contrast on a simulated panel, scored as every method of the study is.

`x_learner` and `dr_learner` on forests and `causal_forest` (EconML's `CausalForestDML`, where `pip install -e
".[econml]"` has been run) learn from train and validation rows, of which some are drawn by chance, and answer in
probability; `tarnet` learns from all train rows and stops by validation rows. On 60,000 rows the causal forest takes
five minutes a panel on one core, on all 343,000 it was not tried.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import consumer_data, recovery
from experiments.common import Cell, Scores
from experiments.consumer_data import ConsumerData
from experiments.three_in_one import read_scores, write_scores
from wmjax.baselines import meta, tables, tarnet
from wmjax.baselines.meta import ForestConfig
from wmjax.baselines.tables import Contrast, Table
from wmjax.baselines.tarnet import TarnetConfig
from wmjax.core.observe import Event, Observer
from wmjax.core.provenance import fingerprint
from wmjax.simulate.consumer_frame import ACTIONS, OUTCOMES

PEER = "causal_forest"


@dataclass(frozen=True, kw_only=True)
class Learners:
    """What is fitted.

    Attributes:
        names: of the learners.
        forests: of the meta-learners, and of the nuisances of the causal forest.
        trees: of the causal forest, a multiple of 4.
        rows: that forests learn from, at most.
        tarnet: the network with two heads.
        alpha: the causal forest's intervals hold with probability `1 - alpha`.
    """

    names: tuple[str, ...] = ("x_learner", "dr_learner", "tarnet", PEER)
    forests: ForestConfig = field(default_factory=ForestConfig)
    trees: int = 1000
    rows: int = 60_000
    tarnet: TarnetConfig = field(default_factory=TarnetConfig)
    alpha: float = 0.1

    @property
    def able(self) -> tuple[str, ...]:
        """Name the learners whose libraries are there."""
        return tuple(n for n in self.names if n != PEER or importlib.util.find_spec("econml") is not None)


def causal_forest(
    train: Table, ask: Table, *, contrast: Contrast, outcome: int, cfg: Learners
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimate effects by EconML's causal forest with forests as nuisances: effect, lo, hi, `[rows]` each."""
    arms, asked = tables.arms(train, contrast, outcome), tables.columns(ask, contrast)
    forest: Any = importlib.import_module("econml.dml").CausalForestDML(
        model_y=cfg.forests.regressor(),
        model_t=cfg.forests.classifier(),
        discrete_treatment=True,
        n_estimators=cfg.trees,
        min_samples_leaf=cfg.forests.min_leaf,
        cv=cfg.forests.folds,
        random_state=cfg.forests.seed,
        n_jobs=cfg.forests.jobs,
    )
    forest.fit(arms.y, arms.treated.astype(int), X=arms.x)
    parts = np.array_split(asked, max(1, len(asked) // 5000))
    low, high = zip(*(forest.effect_interval(x, alpha=cfg.alpha) for x in parts), strict=True)
    return np.concatenate([forest.effect(x) for x in parts]), np.concatenate(low), np.concatenate(high)


def scores(
    key: jax.Array, setting: str, data: ConsumerData, *, cfg: Learners, folder: Path, observer: Observer, owner: str
) -> Scores:
    """Fit every learner that can run, keep each one's scores when it is done, and give them all.

    Args:
        owner: fingerprint of the panel.
    """
    out: Scores = {}
    for done, name in enumerate(cfg.names):
        observer(Event("learners", done, len(cfg.names), unit="learner"))
        own = fingerprint(owner, cfg.forests, cfg.tarnet if name == "tarnet" else cfg.rows, cfg.trees, cfg.alpha)
        kept = folder / f"{name}-{setting}.json"
        if (found := read_scores(kept, own)) is None and name in cfg.able:
            found = _score(key, setting, name, data, cfg=cfg, observer=observer)
            write_scores(kept, own, found)
        out |= found or {}
    observer(Event("learners", len(cfg.names), len(cfg.names), unit="learner"))
    return out


def _score(key: jax.Array, setting: str, name: str, data: ConsumerData, *, cfg: Learners, observer: Observer) -> Scores:
    train, val, test = (Table(*data.rows(part)[:3]) for part in range(3))
    both = Table(*(np.concatenate(pair) for pair in zip(train, val, strict=True)))
    if len(both.labels) > cfg.rows:
        drawn = np.random.default_rng(cfg.forests.seed).choice(len(both.labels), cfg.rows, replace=False)
        both = Table(*(x[drawn] for x in both))
    action, outcome = consumer_data.question(setting)
    asked: dict[str, Any] = {
        "contrast": Contrast(action_index=ACTIONS.index(action)),
        "outcome": OUTCOMES.index(outcome),
    }
    if name == "tarnet":
        logit, prob = tarnet.effects(key, train, val, test, **asked, cfg=cfg.tarnet, observer=observer)
        return recovery.effect_scores(setting, name, data, {"logit": logit, "prob": prob})
    if name != PEER:
        learner: Callable[..., np.ndarray] = getattr(meta, name)
        found = learner(both, test, **asked, cfg=cfg.forests)
        return recovery.effect_scores(setting, name, data, {"prob": found})
    found, low, high = causal_forest(both, test, **asked, cfg=cfg)
    truth = data.truth(setting, 2).probability
    return recovery.effect_scores(setting, name, data, {"prob": found}) | {
        Cell(setting, name, "coverage90"): float(np.mean((low <= truth) & (truth <= high))),
        Cell(setting, name, "width90"): float(np.mean(high - low)),
    }
