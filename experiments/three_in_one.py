"""The published study, faithfully: one belief, three uses, on 1,024 simulated consumers over 365 days.

A Deep Boltzmann Machine is pretrained layer by layer and fine-tuned by the published rules, its mean-field belief is
frozen, adapters forecast visits and purchases from it, effects are read off by varying an adapter's action, and the
clamp test reads the machine's own score (Niimi, arXiv 2605.07199; one seed there). Beside the published numbers stand
what they leave out: both scales, ties, error against the truth, t by consumer, and the score that is a free energy.

Two warnings belong to every row of it. `sale_faithful` falls on Sundays and Sundays are visible, so its effect is
not identified here and its rows measure inductive bias. And the published score of the clamp test is not a free energy.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import adapters, clamping, common, consumer_data, recovery
from experiments.adapters import Fitted, Table
from experiments.common import Cell, Check, Options, Row, Scores
from experiments.consumer_data import QUESTIONS, ConsumerData
from wmjax.baselines import meta
from wmjax.baselines import tables as baseline_tables
from wmjax.baselines.meta import ForestConfig
from wmjax.core import files
from wmjax.core.keys import key_for
from wmjax.core.observe import Event, Observer
from wmjax.core.provenance import fingerprint
from wmjax.core.visible import Visible
from wmjax.dbm import learn, meanfield, pretrain, readout
from wmjax.dbm.learn import LearnConfig
from wmjax.dbm.types import DBMConfig, DBMParams
from wmjax.evaluate import rank
from wmjax.heads.adapter import AdapterConfig
from wmjax.simulate import consumer_frame
from wmjax.simulate.consumer import ConsumerSimConfig
from wmjax.train import loop

NAME = "three_in_one"
SPLITS = ("train", "val", "test")
OUTCOMES, ACTIONS = consumer_frame.OUTCOMES, consumer_frame.ACTIONS
CHUNK = 8192


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is run; the defaults are the published study.

    Attributes:
        panel, val, test: the simulated panel, and the days held out at its end.
        machine: shape of the Deep Boltzmann Machine.
        pretraining, pretrain_epochs: of each layer.
        learning, epochs, patience: of the fine-tuning, stopped by the sampled reconstruction of validation rows.
        adapter: of every network that forecasts.
        t_learners: questions that a T-learner answers too; each takes two networks.
        forests: of the X-learner and the doubly robust learner, which are fitted once, on train and validation rows.
        seeds: how many where the command line does not say; the panel is the same for all.
    """

    panel: ConsumerSimConfig = field(default_factory=ConsumerSimConfig)
    val: int = 30
    test: int = 30
    machine: DBMConfig = field(default_factory=DBMConfig)
    pretraining: LearnConfig = pretrain.PAPER
    pretrain_epochs: int = 100
    learning: LearnConfig = learn.PAPER
    epochs: int = 300
    patience: int = 20
    adapter: AdapterConfig = field(default_factory=lambda: AdapterConfig(schedule="plateau"))
    t_learners: tuple[str, ...] = tuple(QUESTIONS)
    forests: ForestConfig = field(default_factory=ForestConfig)
    seeds: int = 3


FULL = Study()
SMOKE = Study(
    panel=ConsumerSimConfig(num_consumers=128, num_days=120, start="2025-02-10"),
    val=14,
    test=21,
    pretrain_epochs=2,
    epochs=2,
    adapter=AdapterConfig(schedule="plateau", epochs=2),
    t_learners=("push",),
    forests=ForestConfig(trees=2, min_leaf=50),
    seeds=1,
)

PUBLISHED: Scores = {
    Cell("push", "mlp", "auc_visit"): 0.7119,
    Cell("push", "dbm_adapter", "auc_visit"): 0.7130,
    Cell("sale_faithful", "mlp", "auc_purchase"): 0.6777,
    Cell("sale_faithful", "dbm_adapter", "auc_purchase"): 0.6772,
    Cell("push", "dbm_adapter", "rho_gamma_logit"): 0.625,
    Cell("push", "dbm_adapter", "rho_alpha_logit"): -0.148,
    Cell("sale_faithful", "dbm_adapter", "rho_alpha_logit"): 0.548,
    Cell("sale_faithful", "dbm_adapter", "rho_beta_logit"): -0.597,
    Cell("clamp_test", "paper", "clamp_mean"): 1.07,
    Cell("clamp_test", "paper", "clamp_high_beta"): 0.77,
    Cell("clamp_test", "paper", "clamp_low_beta"): 1.38,
    Cell("clamp_test", "paper", "welch_t"): -7.66,
}

BANDS: dict[str, tuple[Cell, float, float]] = {
    "visit AUC of the MLP": (Cell("push", "mlp", "auc_visit"), 0.7099, 0.7139),
    "purchase AUC of the MLP": (Cell("sale_faithful", "mlp", "auc_purchase"), 0.6757, 0.6797),
    "visit AUC of the top-layer adapter": (Cell("push", "dbm_adapter_top", "auc_visit"), 0.673, 0.713),
    "purchase AUC of the top-layer adapter": (Cell("sale_faithful", "dbm_adapter_top", "auc_purchase"), 0.627, 0.667),
    "push, rank of gamma": (Cell("push", "dbm_adapter", "rho_gamma_logit"), 0.50, 0.70),
    "push, rank of alpha": (Cell("push", "dbm_adapter", "rho_alpha_logit"), -0.35, 0.05),
    "sale, rank of alpha": (Cell("sale_faithful", "dbm_adapter", "rho_alpha_logit"), 0.45, 0.72),
    "sale, rank of beta": (Cell("sale_faithful", "dbm_adapter", "rho_beta_logit"), -0.76, -0.50),
    "clamp, Welch t below zero": (Cell("clamp_test", "paper", "welch_t"), -math.inf, 0.0),
    "clamp, variational difference above zero": (Cell("clamp_test", "variational", "clamp_mean"), 0.0, math.inf),
    "eligible train rows": (Cell("clamp_train", "data", "rows"), 129_568, 129_568),
    "eligible val rows": (Cell("clamp_val", "data", "rows"), 12_694, 12_694),
    "eligible test rows": (Cell("clamp_test", "data", "rows"), 12_432, 12_432),
    "eligible test rows of high beta": (Cell("clamp_test", "data", "rows_high_beta"), 6_229, 6_229),
}


class Stages(NamedTuple):
    """Where one seed's stages keep their checkpoints, whom they tell, and whose they are."""

    folder: Path
    observer: Observer
    owner: str

    def at(self, stage: str) -> dict[str, Any]:
        return {
            "folder": self.folder / stage,
            "stage": stage,
            "observer": self.observer,
            "fingerprint": self.owner,
        }


@dataclass(frozen=True)
class MachineEpoch:
    """One epoch of a machine; a value, so that equal ones share a compiled program."""

    cfg: LearnConfig
    visible: Visible

    def __call__(self, key: jax.Array, state: learn.LearnState, data: Any) -> tuple[learn.LearnState, dict[str, Any]]:
        return learn.epoch(key, state, data[0], cfg=self.cfg, visible=self.visible)


@dataclass(frozen=True)
class Reconstruction:
    """How validation rows come back: the published sampled measure, and the proper one."""

    cfg: LearnConfig
    visible: Visible

    def __call__(self, key: jax.Array, state: learn.LearnState, data: Any) -> dict[str, Any]:
        rows = data[1].astype(jnp.float32)
        return {
            f"val_{kind}": readout.reconstruction(
                key, state.params, rows, visible=self.visible, kind=kind, sweeps=self.cfg.mean_field_sweeps
            )
            for kind in ("sampled", "prob")
        }


def params_of(state: learn.LearnState) -> DBMParams:
    """Take what the best epoch keeps."""
    return state.params


def pretrain_machine(key: jax.Array, train: np.ndarray, visible: Visible, *, study: Study, stages: Stages) -> DBMParams:
    """Train one machine a layer, bottom up, and assemble them."""
    depth, rows, rbms = len(study.machine.hidden), jnp.asarray(train), []
    for index in range(depth):
        own = key_for(key, "layer", index)
        cfg = pretrain.layer_config(study.pretraining, index=index, depth=depth, scheme="paper")
        below = pretrain.layer_visible(visible, index=index, machine=study.machine)
        problem = pretrain.layer_problem(
            own, rows, index=index, visible=below, machine=study.machine, cfg=cfg, scheme="paper"
        )
        done, _ = loop.run(
            own,
            problem.state,
            MachineEpoch(cfg, below),
            cfg=loop.LoopConfig(epochs=study.pretrain_epochs),
            data=(problem.data,),
            snapshot=params_of,
            **stages.at(f"pretrain-{index + 1}"),
        )
        rbms.append(done.model.params)
        if index + 1 < depth:
            rows = pretrain.hidden_rows(key_for(own, "rows"), done.model.params, rows, cfg=cfg)
    return pretrain.assemble(tuple(rbms), jnp.asarray(train), scheme="paper")


def fine_tune(
    key: jax.Array,
    start: DBMParams,
    train: np.ndarray,
    val: np.ndarray,
    visible: Visible,
    *,
    study: Study,
    stages: Stages,
) -> tuple[DBMParams, Scores]:
    """Learn all layers jointly and keep the epoch whose sampled validation reconstruction is lowest."""
    cfg = study.learning
    data = (jnp.asarray(train), jnp.asarray(val))
    state = learn.init(key_for(key, "init"), start, data[0], cfg=cfg, visible=visible)
    done, history = loop.run(
        key,
        state,
        MachineEpoch(cfg, visible),
        cfg=loop.LoopConfig(epochs=study.epochs, monitor="val_sampled", patience=study.patience),
        data=data,
        evaluate=Reconstruction(cfg, visible),
        snapshot=params_of,
        **stages.at("fine-tune"),
    )
    best = int(done.best_epoch) - 1
    values = {name: float(history[name][best]) for name in ("val_sampled", "val_prob")}
    values |= {f"activation_h{i + 1}": float(history[f"activation_h{i + 1}"][best]) for i in range(len(start.weights))}
    facts = {"best_epoch": best + 1.0, "epochs_run": float(done.epoch)}
    return done.best, {Cell("machine", "dbm", name): value for name, value in (values | facts).items()}


@jax.jit
def _belief(params: DBMParams, rows: jax.Array) -> jax.Array:
    def one(row: jax.Array) -> jax.Array:
        return meanfield.belief(params, row.astype(jnp.float32))

    return jax.lax.map(one, rows, batch_size=CHUNK)


def tables(data: ConsumerData, features: list[np.ndarray]) -> list[Table]:
    """Lay out train, val and test rows with the given features."""
    return [Table(x, r.actions, r.outcomes) for x, r in zip(features, map(data.rows, range(3)), strict=True)]


def forecasts(method: str, fitted: Fitted, parts: list[Table]) -> Scores:
    """Score both outcomes' forecasts."""
    logits = {
        split: {o: fitted.logits(at, part.features, part.actions) for at, o in enumerate(OUTCOMES)}
        for split, part in zip(SPLITS[1:], parts[1:], strict=True)
    }
    labels = {split: part.outcomes for split, part in zip(SPLITS[1:], parts[1:], strict=True)}
    return adapters.forecast_scores(method, logits, labels)


def effects(method: str, by_outcome: list[Fitted], features: list[np.ndarray], data: ConsumerData) -> Scores:
    """Score both questions' effects on test rows; each outcome has its own fitted adapters and features."""
    rows, out = data.rows(2), {}
    for setting, (action, outcome) in QUESTIONS.items():
        at = OUTCOMES.index(outcome)
        found = by_outcome[at].effect(at, ACTIONS.index(action), features[at], rows.actions)
        out |= recovery.effect_scores(setting, method, data, found)
    return out


def t_learner(
    key: jax.Array, setting: str, parts: list[Table], data: ConsumerData, *, study: Study, stages: Stages
) -> Scores:
    """Fit one network a value of the action on raw bits and the other actions, and score the contrast."""
    action, outcome = (ACTIONS.index(QUESTIONS[setting][0]), OUTCOMES.index(QUESTIONS[setting][1]))
    arms = []
    for value in (0, 1):
        train, val = (
            Table(p.features, np.delete(p.actions, action, axis=1), p.outcomes[:, [outcome]]).where(
                p.actions[:, action] == value
            )
            for p in parts[:2]
        )
        own = key_for(key_for(key, setting), "arm", value)
        fitted = adapters.fit(own, train, val, cfg=study.adapter, **stages.at(f"t-learner-{setting}-{value}"))
        arms.append(fitted.logits(0, parts[2].features, np.delete(parts[2].actions, action, axis=1)))
    low, high = arms
    found = {"logit": high - low, "prob": adapters.probability(high) - adapters.probability(low)}
    return recovery.effect_scores(setting, "t_learner", data, found)


def clamps(params: DBMParams, data: ConsumerData) -> Scores:
    """Run the clamp test on every split."""
    out: Scores = {}
    for part, split in enumerate(SPLITS):
        rows = data.rows(part)
        beta = data.sim.traits.beta[rows.consumer]
        out |= clamping.clamp_scores(f"clamp_{split}", params, rows.bits, beta, rows.consumer, visible=data.visible)
    return out


def run_seed(seed: int, data: ConsumerData, *, study: Study, folder: Path, observer: Observer) -> Scores:
    """Run all stages of one seed, each from where a killed run left it, and keep the scores."""
    owner = fingerprint(study, seed)
    kept = folder / "scores.json"
    if (scores := read_scores(kept, owner)) is not None:
        return scores
    stages, key = Stages(folder, observer, owner), jax.random.key(seed)
    bits = [data.rows(part).bits for part in range(3)]

    start = pretrain_machine(key_for(key, "pretrain"), bits[0], data.visible, study=study, stages=stages)
    machine, scores = fine_tune(
        key_for(key, "fine-tune"), start, bits[0], bits[1], data.visible, study=study, stages=stages
    )
    full = [np.asarray(_belief(machine, rows)) for rows in bits]
    top = [np.ascontiguousarray(x[:, -study.machine.hidden[-1] :]) for x in full]
    fitted, parts = {}, {}
    for method, features in (("dbm_adapter", full), ("dbm_adapter_top", top), ("mlp", bits)):
        parts[method] = tables(data, features)
        fitted[method] = adapters.fit(
            key_for(key, method), *parts[method][:2], cfg=study.adapter, **stages.at(method.replace("_", "-"))
        )
        scores |= forecasts(method, fitted[method], parts[method])

    # Effects come from the belief whose adapter has the better validation AUC, outcome by outcome, as published.
    areas = {method: fitted[method].val_auc for method in ("dbm_adapter", "dbm_adapter_top")}
    chosen = [max(areas, key=lambda m, at=at: areas[m][at]) for at in range(len(OUTCOMES))]
    scores |= effects("dbm_adapter", [fitted[m] for m in chosen], [parts[m][2].features for m in chosen], data)
    scores |= effects("s_learner", [fitted["mlp"]] * 2, [bits[2]] * 2, data)
    for setting in study.t_learners:
        scores |= t_learner(key_for(key, "t"), setting, parts["mlp"], data, study=study, stages=stages)
    observer(Event("clamp", 0, 1, unit="split"))
    scores |= clamps(machine, data)
    observer(Event("clamp", 1, 1, unit="split"))
    write_scores(kept, owner, scores)
    return scores


def forest_learners(data: ConsumerData, *, study: Study, folder: Path, observer: Observer) -> Scores:
    """Fit the meta-learners on forests, which have a seed of their own, and keep each one's scores when it is done."""
    owner, out = fingerprint(study.panel, study.val, study.test, study.forests), {}
    train, val, test = (data.rows(part) for part in range(3))
    known = baseline_tables.Table(*(np.concatenate(pair) for pair in zip(train[:3], val[:3], strict=True)))
    asked = baseline_tables.Table(*test[:3])
    jobs = [(setting, name) for setting in QUESTIONS for name in ("x_learner", "dr_learner")]
    for done, (setting, name) in enumerate(jobs):
        observer(Event("forests", done, len(jobs), unit="learner"))
        kept = folder / f"{name}-{setting}.json"
        if (scores := read_scores(kept, owner)) is None:
            action, outcome = QUESTIONS[setting]
            contrast = baseline_tables.Contrast(action_index=ACTIONS.index(action))
            found = getattr(meta, name)(
                known, asked, contrast=contrast, outcome=OUTCOMES.index(outcome), cfg=study.forests
            )
            scores = recovery.effect_scores(setting, name, data, {"prob": found})
            write_scores(kept, owner, scores)
        out |= scores
    observer(Event("forests", len(jobs), len(jobs), unit="learner"))
    return out


def read_scores(path: Path, owner: str) -> Scores | None:
    """Read the scores of a finished stage; None where there are none, or another study's."""
    if not path.exists() or (stored := files.read_json(path))["owner"] != owner:
        return None
    return {Cell(*cell): math.nan if value is None else value for *cell, value in stored["scores"]}


def write_scores(path: Path, owner: str, scores: Scores) -> None:
    """Keep the scores of a finished stage."""
    plain = [[*cell, value if math.isfinite(value) else None] for cell, value in scores.items()]
    files.write_json(path, {"owner": owner, "scores": plain})


def oracles(data: ConsumerData) -> Scores:
    """Score the truth itself, and the loyalty bit alone, with its ties and with ties broken at random."""
    rows, out = data.rows(2), {}
    for setting in QUESTIONS:
        truth = data.truth(setting, 2)
        out |= recovery.effect_scores(setting, "oracle", data, {"logit": truth.logit, "prob": truth.probability})
    loyal = data.sim.statics.loyalty[rows.consumer].astype(float)
    gamma = data.sim.traits.gamma[rows.consumer]
    out[Cell("push", "loyalty_bit", "rho_gamma_logit")] = rank.spearman(loyal, gamma)
    broken = rank.spearman_tie_broken(jax.random.key(0), loyal, gamma)
    out[Cell("push", "loyalty_bit_ties_broken", "rho_gamma_logit")] = broken
    return out


def checks(rows: list[Row], size: str) -> list[Check]:
    """Hold the means over seeds against the bands in which the study counts as reproduced."""
    if size != "full":
        return []
    found = [Check(name, common.value_of(rows, cell), low, high) for name, (cell, low, high) in BANDS.items()]
    for setting, (_, outcome) in QUESTIONS.items():
        own, other = (common.value_of(rows, Cell(setting, m, f"auc_{outcome}")) for m in ("dbm_adapter", "mlp"))
        gap = None if own is None or other is None else own - other
        found.append(Check(f"{outcome} AUC of the adapter less the MLP's", gap, -0.004, 0.004))
    high, low = (common.value_of(rows, Cell("clamp_test", "paper", f"clamp_{h}_beta")) for h in ("high", "low"))
    gap = None if high is None or low is None else high - low
    return [*found, Check("clamp, high beta less low beta", gap, -math.inf, 0.0)]


def main(options: Options, observer: Observer, study: Study | None = None) -> Path:
    """Run the study and write its result."""
    study = study or (FULL if options.size == "full" else SMOKE)
    clock, seeds = common.Clock(options.out), list(range(options.seeds or study.seeds))
    data = consumer_data.make(study.panel, val=study.val, test=study.test)
    found = []
    for seed in seeds:
        found.append(run_seed(seed, data, study=study, folder=options.out / f"seed-{seed}", observer=observer))
        clock.read()
    once = forest_learners(data, study=study, folder=options.out / "forests", observer=observer)
    clock.read()
    methods = ("dbm_adapter", "dbm_adapter_top", "mlp", "s_learner", "t_learner", "x_learner", "dr_learner")
    ceiling = recovery.ceilings(data, methods)
    rows = common.summarise(found, reference=PUBLISHED, ceiling=ceiling)
    rows += common.summarise([once | oracles(data)], ceiling=ceiling)
    rows += common.summarise([{Cell("all", "study", "seconds_total"): clock.read()}])
    return common.write_result(
        options,
        NAME,
        rows,
        seeds=seeds,
        seconds=clock.read(),
        checks=checks(rows, options.size),
        facts={
            "study": dataclasses.asdict(study),
            "rows": {split: len(data.rows(part).actions) for part, split in enumerate(SPLITS)},
        },
    )


if __name__ == "__main__":
    sys.exit(common.run("experiments.three_in_one", main))
