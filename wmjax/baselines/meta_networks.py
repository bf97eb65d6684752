"""Meta-learners on networks: S, T, X, doubly robust and R, every seed and every nuisance in one program.

    s_learner   one network of features and action, contrasted
    t_learner   one network a value of the action
    x_learner   effects imputed by the T-learner's networks, regressed in each arm, averaged by the propensity
    dr_learner  the doubly robust pseudo-outcome, cross-fitted, regressed
    r_learner   residual on residual, cross-fitted, regressed

`pseudo` has the formulas. Networks that learn at the same time are one ensemble: those of a fold or an arm give rows
outside it no weight. Each keeps its epoch of least validation loss, and a pseudo-outcome of a validation row is made by
the mean of the folds' nuisances.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from scipy.special import expit

from wmjax.baselines import pseudo, tables
from wmjax.baselines.tables import Arms, Contrast, Table
from wmjax.core.errors import UserError
from wmjax.core.keys import key_for
from wmjax.core.observe import Observer, silent
from wmjax.heads import ensemble, learn
from wmjax.heads.adapter import AdapterConfig
from wmjax.heads.learn import AdapterData, AdapterTables, Kind
from wmjax.train import loop
from wmjax.train.loop import LoopConfig

Learner = Literal["s_learner", "t_learner", "x_learner", "dr_learner", "r_learner"]
Rows = Float[np.ndarray, "seeds rows"]


@dataclass(frozen=True, kw_only=True)
class MetaConfig:
    """How the learners are fitted.

    Attributes:
        network: of every nuisance and every last step.
        seeds: how many of each learner, side by side; they share folds and batches.
        folds: of cross-fitting (doubly robust, R).
        floor: propensities are kept this far from 0 and 1.
    """

    network: AdapterConfig = field(
        default_factory=lambda: AdapterConfig(
            batch_size=1024, learning_rate=2e-3, schedule="cosine", epochs=15, patience=5, monitor="loss"
        )
    )
    seeds: int = 1
    folds: int = 2
    floor: float = 0.01

    def __post_init__(self) -> None:
        for name, least in (("seeds", 1), ("folds", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least {least}")
        if not 0 < self.floor < 0.5:
            raise ValueError(f"floor is {self.floor}, must be in (0, 0.5)")
        if self.network.form != "mlp":
            raise ValueError(
                f"network.form is {self.network.form!r}, must be 'mlp': it has no action to be additive in"
            )


class Effects(NamedTuple):
    """Effects of the rows asked about, `[seeds, rows]`: on the outcome's own scale, and log odds where there are any.

    logit is None but for a binary outcome's S- and T-learner: the others learn differences of probabilities.
    """

    response: Rows
    logit: Rows | None


class _Task(NamedTuple):
    """What networks learn, one a seed: labels and weights `[seeds, rows]` of train rows, and of validation rows."""

    kind: Kind
    train: pseudo.Target
    val: pseudo.Target


@dataclass(frozen=True)
class _Problem:
    """Rows of all parts laid out for a contrast, features scaled: `arms` are train and validation rows'."""

    key: Key[Array, ""]
    arms: tuple[Arms, Arms]
    ask: np.ndarray
    kind: Kind
    cfg: MetaConfig
    observer: Observer

    def task(self, pick: Any, labels: Any = None, kind: Kind | None = None) -> _Task:
        """Ask for labels (the outcome's where none are given) of the rows that `pick(part, arms)` marks."""
        parts = []
        for at, arms in enumerate(self.arms):
            values = arms.y if labels is None else labels[at]
            shape = (self.cfg.seeds, len(arms.y))
            weight = np.asarray(pick(at, arms), float)
            parts.append(pseudo.Target(np.broadcast_to(values, shape), np.broadcast_to(weight, shape)))
        return _Task(kind or self.kind, *parts)

    def learn(self, name: str, tasks: list[_Task], *, acting: bool = False) -> _Bank:
        """Train every task's networks together; `acting` ones read the action."""
        cfg, spread = self.cfg, [_spread(task) for task in tasks]
        kinds: tuple[Kind, ...] = tuple(task.kind for task in tasks for _ in range(cfg.seeds))
        parts = []
        for at, arms in enumerate(self.arms):
            own = [(task.train, task.val)[at] for task in tasks]
            labels = [(t.value - c) / s for t, (c, s) in zip(own, spread, strict=True)]
            action = arms.treated[:, None][:, : int(acting)].astype(np.float32)
            weights = np.concatenate([t.weight for t in own])[:, None]
            arrays = (arms.x, action, np.concatenate(labels), weights)
            parts.append(AdapterData._make(jnp.asarray(x, jnp.float32) for x in arrays))
        key = key_for(self.key, name)
        state = _init(
            key_for(key, "init"),
            cfg=cfg.network,
            num_features=self.ask.shape[1],
            num_actions=int(acting),
            outcomes=len(kinds),
            members=1,
        )
        done, _ = loop.run(
            key_for(key, "epochs"),
            state,
            ensemble.EnsembleEpoch(cfg.network, kinds),
            cfg=LoopConfig(epochs=cfg.network.epochs, monitor="score", mode="max", patience=cfg.network.patience),
            data=AdapterTables(*parts),
            observer=self.observer,
            stage=name,
            snapshot=learn.trained,
        )
        return _Bank(done.best, cfg, tuple(t.kind for t in tasks), tuple(spread))


@dataclass(frozen=True)
class _Bank:
    """Networks of some tasks; `spread` is each task's label scale."""

    params: Any
    cfg: MetaConfig
    kinds: tuple[Kind, ...]
    spread: tuple[tuple[float, float], ...]

    def linear(self, x: np.ndarray, action: float | None = None) -> list[Rows]:
        """Give each task's linear predictor in the labels' own units: `[seeds, rows]`."""
        actions = np.full((len(x), int(action is not None)), action or 0.0, np.float32)
        count = len(self.kinds) * self.cfg.seeds
        asked = (jnp.asarray(x, jnp.float32), jnp.asarray(actions))
        eta = np.asarray(_predict(self.params, *asked, cfg=self.cfg.network, outcomes=count), np.float64)
        own = eta.reshape(len(self.kinds), self.cfg.seeds, -1)
        return [value * s + c for value, (c, s) in zip(own, self.spread, strict=True)]

    def mean(self, x: np.ndarray, action: float | None = None) -> list[Rows]:
        """Give each task's expected label."""
        found = zip(self.kinds, self.linear(x, action), strict=True)
        return [expit(eta) if kind == "binary" else eta for kind, eta in found]


def effects(
    key: Key[Array, ""],
    train: Table,
    val: Table,
    ask: Table,
    *,
    contrast: Contrast,
    learner: Learner,
    outcome: int = 0,
    kind: Kind = "binary",
    cfg: MetaConfig,
    observer: Observer = silent,
) -> Effects:
    """Fit a learner on train rows and answer for others.

    Args:
        key: seeds networks, batches and folds.
        train, val: rows to learn from and rows to choose epochs by; the action takes the contrast's two values and no
            other. Bits stay as they are, other columns are standardised on the train rows.
        ask: rows to answer for; their action and labels are not read.
        contrast: which action.
        learner: which one, see the module.
        outcome: which column of the labels.
        kind: of the outcome; `binary` labels are zeros and ones.
        cfg: the networks.
        observer: told of progress.

    Raises:
        UserError: the action takes other values, or one of the two never (in a fold: of the train rows).
        DivergedError: values that are not finite.
    """
    labelled = [table._replace(labels=table.labels[:, [outcome]]) for table in (train, val)]
    tables.known_kinds(labelled[0], labelled[1], (kind,))
    arms = [tables.arms(table, contrast, 0) for table in labelled]
    scale = tables.fit_scale(arms[0].x, keep_bits=True)
    arms = [own._replace(x=tables.scaled(own.x, scale)) for own in arms]
    asked = tables.scaled(tables.columns(ask, contrast), scale)
    own = _Problem(key_for(key, learner), (arms[0], arms[1]), asked, kind, cfg, observer)
    return {"s_learner": _s, "t_learner": _t, "x_learner": _x, "dr_learner": _dr, "r_learner": _r}[learner](own)


def _s(own: _Problem) -> Effects:
    bank = own.learn("s-learner", [own.task(_all)], acting=True)
    return _contrast(own, bank.linear(own.ask, 0.0)[0], bank.linear(own.ask, 1.0)[0])


def _t(own: _Problem) -> Effects:
    bank = own.learn("t-learner", [own.task(_off), own.task(_on)])
    return _contrast(own, *bank.linear(own.ask))


def _x(own: _Problem) -> Effects:
    share = own.task(_all, [a.treated for a in own.arms], "binary")
    first = own.learn("x-learner, nuisances", [own.task(_off), own.task(_on), share])
    gained = []
    for arms in own.arms:
        low, high, _ = first.mean(arms.x)
        gained.append(pseudo.imputed(arms.y, arms.treated, low=low, high=high))
    last = own.learn("x-learner", [own.task(pick, gained, "continuous") for pick in (_off, _on)])
    missed, found = last.mean(own.ask)
    return Effects(pseudo.combined(share=first.mean(own.ask)[2], missed=missed, gained=found), None)


def _dr(own: _Problem) -> Effects:
    def target(arms: Arms, low: Rows, high: Rows, share: Rows) -> pseudo.Target:
        psi = pseudo.doubly_robust(arms.y, arms.treated, low=low, high=high, share=share, floor=own.cfg.floor)
        return pseudo.Target(psi, np.ones_like(psi))

    return _cross_fitted(own, "dr-learner", ("low", "high", "share"), target)


def _r(own: _Problem) -> Effects:
    def target(arms: Arms, mean: Rows, share: Rows) -> pseudo.Target:
        # Where the action is all but certain a residual of nothing would be divided by nothing.
        share = np.clip(share, own.cfg.floor, 1 - own.cfg.floor)
        return pseudo.residual(arms.y, arms.treated, mean=mean, share=share)

    return _cross_fitted(own, "r-learner", ("mean", "share"), target)


def _cross_fitted(own: _Problem, name: str, nuisances: tuple[str, ...], target: Any) -> Effects:
    """Fit nuisances away from each fold, make every row's target by those that have not seen it, and regress it."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key_for(own.key, "folds"))))
    folds, arms = own.cfg.folds, own.arms[0]
    fold = rng.permutation(len(arms.y)) % folds
    for k in range(folds):
        if len(set(arms.treated[fold != k])) < 2:
            raise UserError(f"the action takes one value only away from fold {k}; there are too few rows")
    picks = {"low": _off, "high": _on, "mean": _all, "share": _all}
    shares = [a.treated for a in own.arms]

    def away(k: int, pick: Any) -> Any:
        return lambda at, arms: pick(at, arms) & ((fold != k) if at == 0 else True)

    def task(k: int, nuisance: str) -> _Task:
        pick = away(k, picks[nuisance])
        return own.task(pick, shares, "binary") if nuisance == "share" else own.task(pick)

    tasks = [task(k, nuisance) for k in range(folds) for nuisance in nuisances]
    bank = own.learn(f"{name}, nuisances", tasks)
    parts = []
    for at, rows in enumerate(own.arms):
        found = np.stack(bank.mean(rows.x)).reshape(folds, len(nuisances), own.cfg.seeds, -1)
        held = found[fold, :, :, np.arange(len(fold))].transpose(1, 2, 0) if at == 0 else found.mean(0)
        parts.append(target(rows, *held))
    last = own.learn(name, [_Task("continuous", *parts)])
    return Effects(last.mean(own.ask)[0], None)


def _contrast(own: _Problem, low: Rows, high: Rows) -> Effects:
    if own.kind != "binary":
        return Effects(high - low, None)
    return Effects(expit(high) - expit(low), high - low)


def _all(at: int, arms: Arms) -> np.ndarray:
    return np.ones(len(arms.y), bool)


def _on(at: int, arms: Arms) -> np.ndarray:
    return arms.treated


def _off(at: int, arms: Arms) -> np.ndarray:
    return ~arms.treated


def _spread(task: _Task) -> tuple[float, float]:
    """Centre and scale of a continuous task's train labels, by their weights; networks learn standardised ones."""
    if task.kind == "binary":
        return 0.0, 1.0
    value, weight = task.train
    centre = float(np.average(value, weights=weight))
    sd = float(np.sqrt(np.average((value - centre) ** 2, weights=weight)))
    return centre, sd if sd > 0 else 1.0


_init = jax.jit(ensemble.init, static_argnames=("cfg", "num_features", "num_actions", "outcomes", "members"))


@partial(jax.jit, static_argnames=("cfg", "outcomes"))
def _predict(params: Any, features: Array, actions: Array, *, cfg: AdapterConfig, outcomes: int) -> Array:
    return ensemble.predict(params, features, actions, cfg=cfg, outcomes=outcomes)[:, 0]
