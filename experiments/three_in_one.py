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
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import adapters, clamping, common, consumer_data, learners, machines, recovery
from experiments.adapters import Fitted, Table
from experiments.common import Cell, Check, Row, Scores, read_scores, write_scores
from experiments.consumer_data import QUESTIONS, ConsumerData
from experiments.learners import LearnerOptions, Learners
from experiments.machines import Stages
from wmjax.baselines.meta import ForestConfig
from wmjax.baselines.meta_networks import MetaConfig
from wmjax.baselines.tarnet import TarnetConfig
from wmjax.core import devices, files
from wmjax.core.keys import key_for
from wmjax.core.observe import Event, Observer
from wmjax.core.provenance import fingerprint
from wmjax.dbm import learn, pretrain
from wmjax.dbm.learn import LearnConfig
from wmjax.dbm.types import DBMConfig, DBMParams
from wmjax.evaluate import rank
from wmjax.heads.adapter import AdapterConfig
from wmjax.simulate import consumer_frame
from wmjax.simulate.consumer import ConsumerSimConfig
from wmjax.train import many

NAME = "three_in_one"
SCORING = 2
"""Counts the changes of what is scored: scores kept under another number are made anew."""
TRAINED, MACHINES = "trained.json", "machines.npz"
"""Where it is kept what trained all seeds, and how long that took, and the machines: the rest may be done elsewhere."""
METHODS = ("dbm_adapter", "dbm_adapter_top", "mlp", "s_learner", "t_learner", "x_learner", "dr_learner")
SPLITS = ("train", "val", "test")
OUTCOMES, ACTIONS = consumer_frame.OUTCOMES, consumer_frame.ACTIONS


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
        learners: that are fitted once: on forests from all train and validation rows, as published (the causal forest
            from 60,000 of them), and on networks.
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
    learners: Learners = field(default_factory=lambda: Learners(rows=None))
    seeds: int = 5


FULL = Study()
SMOKE = Study(
    panel=ConsumerSimConfig(num_consumers=128, num_days=120, start="2025-02-10"),
    val=14,
    test=21,
    pretrain_epochs=2,
    epochs=2,
    adapter=AdapterConfig(schedule="plateau", epochs=2),
    t_learners=("push",),
    learners=Learners(
        forests=ForestConfig(trees=2, min_leaf=50),
        trees=4,
        rows=None,
        tarnet=TarnetConfig(epochs=1),
        networks=MetaConfig(network=AdapterConfig(epochs=1, batch_size=1024, monitor="loss")),
    ),
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

REPLICATE: Scores = {
    Cell(setting, method, quantity): value
    for setting, method, found in (
        ("push", "replicate_mlp", {"auc_visit": 0.71279}),
        ("push", "replicate_dbm_adapter", {"auc_visit": 0.71114, "rho_gamma_logit": 0.5638, "rho_gamma_prob": 0.298}),
        ("push", "replicate_dbm_adapter", {"rho_alpha_logit": -0.2475, "rho_beta_logit": 0.4694}),
        ("push", "replicate_s_learner", {"rho_gamma_logit": 0.5724, "rho_gamma_prob": 0.236}),
        ("sale_faithful", "replicate_mlp", {"auc_purchase": 0.67931}),
        ("sale_faithful", "replicate_dbm_adapter", {"auc_purchase": 0.6777, "rho_alpha_logit": 0.6393}),
        ("sale_faithful", "replicate_dbm_adapter", {"rho_beta_logit": -0.6814, "rho_alpha_prob": 0.303}),
        ("sale_faithful", "replicate_s_learner", {"rho_alpha_logit": 0.4605, "rho_beta_logit": -0.5647}),
        ("sale_faithful", "replicate_s_learner", {"rho_alpha_prob": 0.335}),
        ("clamp_test", "replicate", {"clamp_mean": 1.679, "clamp_high_beta": 0.217, "clamp_low_beta": 3.148}),
        ("clamp_test", "replicate", {"welch_t": -40.65}),
    )
    for quantity, value in found.items()
}
"""What the paper's author found when he ran his code again, of one seed: `boltzmann-fly`, run `V0_none_seed0`."""

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


def tables(data: ConsumerData, features: list[np.ndarray]) -> list[Table]:
    """Lay out train, val and test rows with the given features, `[rows, f]` or `[seeds, rows, f]`."""
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
    key: jax.Array, setting: str, parts: list[Table], data: ConsumerData, *, study: Study, seeds: int, stages: Stages
) -> list[Scores]:
    """Fit one network a value of the action on raw bits and the other actions, and score the contrast, seed by seed."""
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
        at = stages.at(f"t-learner-{setting}-{value}")
        fitted = adapters.fit_seeds(own, train, val, seeds=seeds, cfg=study.adapter, **at)
        others = np.delete(parts[2].actions, action, axis=1)
        arms.append([one.logits(0, parts[2].features, others) for one in fitted])
    out = []
    for low, high in zip(*arms, strict=True):
        found = {"logit": high - low, "prob": adapters.probability(high) - adapters.probability(low)}
        out.append(recovery.effect_scores(setting, "t_learner", data, found))
    return out


def clamps(params: DBMParams, data: ConsumerData) -> Scores:
    """Run the clamp test on every split."""
    out: Scores = {}
    for part, split in enumerate(SPLITS):
        rows = data.rows(part)
        beta = data.sim.traits.beta[rows.consumer]
        out |= clamping.clamp_scores(f"clamp_{split}", params, rows.bits, beta, rows.consumer, visible=data.visible)
    return out


def run_seeds(
    seeds: list[int],
    data: ConsumerData,
    *,
    study: Study,
    folder: Path,
    observer: Observer,
    without: tuple[str, ...] = (),
    trained: Path | None = None,
) -> list[Scores]:
    """Run all stages of all seeds together, each from where a killed run left it, and keep each seed's scores.

    `without` are methods left out; `trained` is a file of machines that were trained elsewhere (`machines.keep`).
    """
    # What the other learners are does not concern the seeds.
    own = {f.name: getattr(study, f.name) for f in dataclasses.fields(study) if f.name != "learners"}
    owner, scored = fingerprint(own, seeds), fingerprint(SCORING, own, seeds, sorted(without))
    kept = [folder / f"seed-{seed}.json" for seed in seeds]
    known = [read_scores(path, scored) for path in kept]
    if all(scores is not None for scores in known):
        return [scores for scores in known if scores is not None]
    stages, key, count, clock = Stages(folder, observer, owner), jax.random.key(0), len(seeds), common.Clock(folder)
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    bits = [data.rows(part).bits for part in range(3)]

    if trained is not None:
        params, out, made = machines.kept(trained, count)
    else:
        start = (
            machines.blank(study.machine, data.visible, count)
            if machines.begun(stages)
            else machines.pretrain_layers(
                _named(keys, "pretrain"),
                bits[0],
                data.visible,
                machine=study.machine,
                cfg=study.pretraining,
                epochs=study.pretrain_epochs,
                stages=stages,
            )
        )
        params, out = machines.fine_tune(
            _named(keys, "fine-tune"),
            start,
            bits[0],
            bits[1],
            data.visible,
            cfg=study.learning,
            epochs=study.epochs,
            patience=study.patience,
            stages=stages,
        )
        made = {**common.origin(), "seconds": clock.read()}
        if not (folder / MACHINES).exists():
            machines.keep(folder / MACHINES, params, out, made)
    machine = [many.member(params, at) for at in range(count)]
    full = [np.stack([machines.belief(one, rows) for one in machine]) for rows in bits]
    top = [np.ascontiguousarray(x[..., -study.machine.hidden[-1] :]) for x in full]
    fitted, parts = {}, {}
    for method, features in (("dbm_adapter", full), ("dbm_adapter_top", top), ("mlp", bits)):
        if method in without:
            continue
        parts[method] = tables(data, features)
        fitted[method] = adapters.fit_seeds(
            key_for(key, method),
            *parts[method][:2],
            seeds=count,
            cfg=study.adapter,
            **stages.at(method.replace("_", "-")),
        )
    for setting in () if "t_learner" in without else study.t_learners:
        found = t_learner(key_for(key, "t"), setting, tables(data, bits), data, study=study, seeds=count, stages=stages)
        out = [scores | more for scores, more in zip(out, found, strict=True)]
    if not (told := folder / TRAINED).exists():
        files.write_json(told, {"machines": made, "adapters": {**common.origin(), "seconds": clock.read()}})
    for at in range(count):
        observer(Event("scores", at, count, unit="seed"))
        out[at] |= score_seed(at, machine[at], fitted, parts, data)
        write_scores(kept[at], scored, out[at])
    observer(Event("scores", count, count, unit="seed"))
    return out


def score_seed(
    at: int,
    machine: DBMParams,
    fitted: dict[str, list[Fitted]],
    parts: dict[str, list[Table]],
    data: ConsumerData,
) -> Scores:
    """Score one seed's forecasts, effects and clamps."""
    own = {m: [p.seed(at) if p.features.ndim == 3 else p for p in parts[m]] for m in parts}
    scores: Scores = {}
    for method, found in fitted.items():
        scores |= forecasts(method, found[at], own[method])
    # Effects come from the belief whose adapter has the better validation AUC, outcome by outcome, as published.
    areas = {m: fitted[m][at].val_auc for m in ("dbm_adapter", "dbm_adapter_top") if m in fitted}
    if areas:
        chosen = [max(areas, key=lambda m, k=k: areas[m][k]) for k in range(len(OUTCOMES))]
        scores |= effects("dbm_adapter", [fitted[m][at] for m in chosen], [own[m][2].features for m in chosen], data)
    if "mlp" in fitted:
        scores |= effects("s_learner", [fitted["mlp"][at]] * 2, [own["mlp"][2].features] * 2, data)
    return scores | clamps(machine, data)


def _named(keys: jax.Array, name: str) -> jax.Array:
    return jax.vmap(lambda key: key_for(key, name))(keys)


def other_learners(data: ConsumerData, *, study: Study, folder: Path, observer: Observer) -> Scores:
    """Fit the learners that have a seed of their own, and keep each one's scores when it is done."""
    owner, out = fingerprint(study.panel, study.val, study.test), {}
    for setting in QUESTIONS:
        key = key_for(key_for(jax.random.key(0), "learners"), setting)
        out |= learners.scores(key, setting, data, cfg=study.learners, folder=folder, observer=observer, owner=owner)
    return out


def oracles(data: ConsumerData) -> Scores:
    """Score the truth itself, and the loyalty bit alone, with its ties and with ties broken at random."""
    rows, out = data.rows(2), {}
    for setting in QUESTIONS:
        truth = data.truth(setting, 2)
        out |= recovery.effect_scores(setting, "oracle", data, {"logit": truth.logit, "prob": truth.probability})
        out |= recovery.forecast_ceilings(setting, data)
    loyal = data.sim.statics.loyalty[rows.consumer].astype(float)
    gamma = data.sim.traits.gamma[rows.consumer]
    out[Cell("push", "loyalty_bit", "rho_gamma_logit")] = rank.spearman(loyal, gamma)
    broken = rank.spearman_tie_broken(jax.random.key(0), loyal, gamma)
    out[Cell("push", "loyalty_bit_ties_broken", "rho_gamma_logit")] = broken
    return out


def checks(rows: list[Row], size: str, without: Sequence[str] = ()) -> list[Check]:
    """Hold the means over seeds against the bands in which the study counts as reproduced.

    A claim about methods that were left out (`without`) is none.
    """
    if size != "full":
        return []
    found = [Check(name, common.value_of(rows, cell), low, high) for name, (cell, low, high) in BANDS.items()]
    for setting, (_, outcome) in QUESTIONS.items():
        own, other = (common.value_of(rows, Cell(setting, m, f"auc_{outcome}")) for m in ("dbm_adapter", "mlp"))
        gap = None if own is None or other is None else own - other
        found.append(Check(f"{outcome} AUC of the adapter less the MLP's", gap, -0.004, 0.004))
    high, low = (common.value_of(rows, Cell("clamp_test", "paper", f"clamp_{h}_beta")) for h in ("high", "low"))
    gap = None if high is None or low is None else high - low
    every = common.value_of(rows, Cell("clamp_test", "paper", "high_below_low"))
    found += [
        Check("clamp, high beta less low beta", gap, -math.inf, 0.0),
        Check("clamp, high beta below low beta, share of seeds", every, 1.0, 1.0),
    ]
    return [c for c in found if c.value is not None or not without]


@dataclass(frozen=True, kw_only=True)
class StudyOptions(LearnerOptions):
    """The command line.

    Attributes:
        without: methods left out, of dbm_adapter, dbm_adapter_top, mlp (the S-learner with it) and t_learner.
        machines: a file of machines that were trained elsewhere, `seeds-N/machines.npz` of another run's folder.
    """

    without: tuple[str, ...] = ()
    machines: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.only and (self.without or self.machines):
            raise ValueError("only is of learners that have no machine: without and machines do not go with it")
        if unknown := set(self.without) - set(METHODS):
            raise ValueError(f"without is {sorted(unknown)}, must be of {METHODS}")


def revise(options: StudyOptions, observer: Observer, study: Study, data: ConsumerData, ceiling: Scores) -> Path:
    """Fit the learners that are named and put their rows into the result that the folder holds."""
    seeds, folder = list(range(options.seeds or study.seeds)), options.out / "learners"
    cfg = study.learners.only(options.only)
    cfg.check()
    own = dataclasses.asdict(study)
    old = common.standing(options, NAME, seeds=seeds, study={k: own[k] for k in ("panel", "val", "test")})
    once = other_learners(data, study=dataclasses.replace(study, learners=cfg), folder=folder, observer=observer)
    return common.revise(
        options,
        NAME,
        common.summarise([once], ceiling=ceiling),
        kept=[learners.kept_in(folder, name, setting) for name in cfg.names for setting in QUESTIONS],
        checks=lambda rows: checks(rows, options.size, old["facts"]["without"]),
    )


def main(options: StudyOptions, observer: Observer, study: Study | None = None) -> Path:
    """Run the study and write its result."""
    study = study or (FULL if options.size == "full" else SMOKE)
    clock, seeds = common.Clock(options.out), list(range(options.seeds or study.seeds))
    data = consumer_data.make(study.panel, val=study.val, test=study.test)
    ceiling = recovery.ceilings(data, METHODS)
    if options.only:
        return revise(options, observer, study, data, ceiling)
    folder = options.out / f"seeds-{len(seeds)}"
    kept: dict[str, Any] = {"without": options.without, "trained": options.machines}
    found = run_seeds(seeds, data, study=study, folder=folder, observer=observer, **kept)
    trained = files.read_json(folder / TRAINED)
    clock.read()
    once = other_learners(data, study=study, folder=options.out / "learners", observer=observer)
    clock.read()
    rows = common.summarise(found, reference=PUBLISHED, ceiling=ceiling)
    rows += common.summarise([once | oracles(data)], ceiling=ceiling)
    rows += common.summarise([REPLICATE if options.size == "full" else {}])
    elsewhere = trained["machines"]["seconds"] if options.machines else 0.0
    seconds = {"seconds_total": clock.read() + elsewhere, "seconds_machines": trained["machines"]["seconds"]}
    rows += common.summarise([{Cell("all", "study", name): value for name, value in seconds.items()}])
    return common.write_result(
        options,
        NAME,
        rows,
        seeds=seeds,
        seconds=clock.read(),
        checks=checks(rows, options.size, options.without),
        facts={
            "without": options.without,
            "study": dataclasses.asdict(study),
            "trained_on": trained,
            "rows": {split: len(data.rows(part).actions) for part, split in enumerate(SPLITS)},
        },
    )


if __name__ == "__main__":
    devices.use_cores()
    sys.exit(common.run("experiments.three_in_one", main, kind=StudyOptions))
