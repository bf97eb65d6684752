"""What other learners make of one contrast on a simulated panel, scored as every method of the study is.

`x_learner` and `dr_learner` on forests, which give EconML's numbers on the same nuisances
(`tests/baselines/test_econml.py`), and `causal_forest` (EconML's `CausalForestDML`, where `pip install -e ".[econml]"`
has been run) learn from train and validation rows, of which some may be drawn by chance, and answer in probability.
Networks learn from all train rows and stop by validation rows: `tarnet`, and the meta-learners `t_network`,
`x_network`, `dr_network` and `r_learner` of `wmjax.baselines.meta_networks`.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import consumer_data, recovery
from experiments.common import Cell, Options, Scores, read_scores, write_scores
from experiments.consumer_data import ConsumerData
from wmjax.baselines import meta, meta_networks, tables, tarnet
from wmjax.baselines.meta import ForestConfig
from wmjax.baselines.meta_networks import MetaConfig
from wmjax.baselines.tables import Contrast, Table
from wmjax.baselines.tarnet import TarnetConfig
from wmjax.core.errors import UserError
from wmjax.core.observe import Event, Observer
from wmjax.core.provenance import fingerprint
from wmjax.simulate.consumer_frame import ACTIONS, OUTCOMES

PEER = "causal_forest"
SCORING = 2
"""Counts the changes of what is scored: scores kept under another number are made anew."""
NETWORKS: dict[str, meta_networks.Learner] = {
    "t_network": "t_learner",
    "x_network": "x_learner",
    "dr_network": "dr_learner",
    "r_learner": "r_learner",
}


@dataclass(frozen=True, kw_only=True)
class LearnerOptions(Options):
    """The command line.

    Attributes:
        only: other learners whose rows are put into the result that the folder holds, of x_learner, dr_learner, tarnet,
            t_network, x_network, dr_network, r_learner and causal_forest; all other rows stay. They are fitted where
            the folder keeps no scores of theirs.
    """

    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := set(self.only) - set(Learners().names):
            raise ValueError(f"only is {sorted(unknown)}, must be of {Learners().names}")


@dataclass(frozen=True, kw_only=True)
class Learners:
    """What is fitted.

    Attributes:
        names: of the learners.
        forests: of the meta-learners, and of the nuisances of the causal forest.
        trees: of the causal forest, a multiple of 4.
        rows, peer_rows: that forests learn from, and that the causal forest does, at most; None is all.
        tarnet: the network with two heads.
        networks: of the meta-learners on networks.
        alpha: the causal forest's intervals hold with probability `1 - alpha`.
    """

    names: tuple[str, ...] = ("x_learner", "dr_learner", "tarnet", *NETWORKS, PEER)
    forests: ForestConfig = field(default_factory=ForestConfig)
    trees: int = 1000
    rows: int | None = 60_000
    peer_rows: int | None = 60_000
    tarnet: TarnetConfig = field(default_factory=TarnetConfig)
    networks: MetaConfig = field(default_factory=MetaConfig)
    alpha: float = 0.1

    @property
    def able(self) -> tuple[str, ...]:
        """Name the learners whose libraries are there."""
        return tuple(n for n in self.names if n != PEER or importlib.util.find_spec("econml") is not None)

    def only(self, names: tuple[str, ...]) -> Learners:
        """Keep those that are named; all where none is."""
        return dataclasses.replace(self, names=tuple(n for n in self.names if not names or n in names))

    def check(self) -> None:
        """Refuse a learner whose library is not there."""
        if missing := set(self.names) - set(self.able):
            raise UserError(f'{", ".join(missing)} is EconML\'s, which is not installed: pip install -e ".[econml]"')


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


def kept_in(folder: Path, name: str, setting: str) -> Path:
    """Name the file of a learner's scores."""
    return folder / f"{name}-{setting}.json"


def _mean(scores: list[Scores]) -> Scores:
    return {cell: float(np.mean([one[cell] for one in scores])) for cell in scores[0]}


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
        setting_of = {"tarnet": cfg.tarnet, PEER: cfg.peer_rows} | dict.fromkeys(NETWORKS, cfg.networks)
        own = fingerprint(SCORING, owner, cfg.forests, setting_of.get(name, cfg.rows), cfg.trees, cfg.alpha)
        kept = kept_in(folder, name, setting)
        if (found := read_scores(kept, own)) is None and name in cfg.able:
            found = _score(key, setting, name, data, cfg=cfg, observer=observer)
            write_scores(kept, own, found)
        out |= found or {}
    observer(Event("learners", len(cfg.names), len(cfg.names), unit="learner"))
    return out


def _score(key: jax.Array, setting: str, name: str, data: ConsumerData, *, cfg: Learners, observer: Observer) -> Scores:
    train, val, test = (Table(*data.rows(part)[:3]) for part in range(3))
    both = Table(*(np.concatenate(pair) for pair in zip(train, val, strict=True)))
    most = cfg.peer_rows if name == PEER else cfg.rows
    if most is not None and len(both.labels) > most:
        drawn = np.random.default_rng(cfg.forests.seed).choice(len(both.labels), most, replace=False)
        both = Table(*(x[drawn] for x in both))
    action, outcome = consumer_data.question(setting)
    asked: dict[str, Any] = {
        "contrast": Contrast(action_index=ACTIONS.index(action)),
        "outcome": OUTCOMES.index(outcome),
    }
    if name == "tarnet":
        logit, prob = tarnet.effects(key, train, val, test, **asked, cfg=cfg.tarnet, observer=observer)
        return recovery.effect_scores(setting, name, data, {"logit": logit, "prob": prob})
    if name in NETWORKS:
        found = meta_networks.effects(
            key, train, val, test, **asked, learner=NETWORKS[name], cfg=cfg.networks, observer=observer
        )
        each = [
            {"prob": x} if found.logit is None else {"logit": found.logit[at], "prob": x}
            for at, x in enumerate(found.response)
        ]
        return _mean([recovery.effect_scores(setting, name, data, one) for one in each])
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
