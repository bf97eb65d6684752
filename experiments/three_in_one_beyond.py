"""Beyond the published study: each consumer's own traits, filtered from all days seen, and a sale that is identified.

Five panels, each a draw of its own. On each, the traits head (a linear head, a level and a responsiveness a consumer;
no constant of the simulator enters) is fitted to train days, runs on day by day through validation and test days, and
is scored against the truth of the test rows: on the visible bits (`traits_bits`), on the belief of a machine
(`dbm_best`), and `best`, which is the one of the two with the smaller log loss on validation days. Beside it:
`constant`, the head on bits without responsiveness of its own, which gives every consumer the mean effect;
`dbm_adapter`, the published adapter on the same belief; `mlp`, that network on the visible bits, whose contrast is the
`s_learner`; the learners of `experiments.learners` (the causal forest where EconML is installed); and the `oracle`.
Machines learn by the library's own rule, one a panel and setting. Settings: `push` on visits (randomised by consumer
and day), `sale_randomised` and `sale_targeted` on purchases, and `placebo`, where consumers buy with the mean price
sensitivity while the recorded one stays: what ranks there, ranks by accident.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from experiments import adapters, common, consumer_data, learners, machines, recovery, representations
from experiments.adapters import Table
from experiments.common import Cell, Row, Scores, read_scores, write_scores
from experiments.consumer_data import ConsumerData
from experiments.learners import LearnerOptions, Learners
from wmjax.baselines.meta import ForestConfig
from wmjax.baselines.meta_networks import MetaConfig
from wmjax.baselines.tarnet import TarnetConfig
from wmjax.core.errors import UserError
from wmjax.core.keys import key_for
from wmjax.core.observe import Event, Observer
from wmjax.core.provenance import fingerprint
from wmjax.dbm.types import DBMConfig
from wmjax.evaluate import metrics
from wmjax.heads import traits
from wmjax.heads.adapter import AdapterConfig
from wmjax.heads.traits import TraitConfig, TraitData
from wmjax.simulate.consumer import ConsumerSimConfig
from wmjax.simulate.consumer_frame import ACTIONS, OUTCOMES

NAME = "three_in_one_beyond"
SETTINGS: dict[str, dict[str, Any]] = {
    "push": {"sale": "calendar"},
    "sale_randomised": {"sale": "randomised"},
    "sale_targeted": {"sale": "targeted"},
    "placebo": {"sale": "randomised", "alpha_in_outcome": "constant"},
}
SCORING = 1
"""Counts the changes of what is scored: scores kept under another number are made anew."""
FIRST_PANEL = 42
DRAWS = 400
TARGETS: dict[Cell, tuple[float, float]] = {
    Cell("push", "best", "root_pehe_prob"): (0.0, 0.019),
    Cell("push", "best", "rho_gamma_logit_tiebroken"): (0.79, 1.0),
    Cell("push", "best", "rho_gamma_within_loyalty"): (0.35, 1.0),
    Cell("push", "best", "auc_visit"): (0.725, 1.0),
    Cell("push", "best", "auc_purchase"): (0.690, 1.0),
    Cell("push", "best", "coverage90"): (0.87, 0.93),
    Cell("sale_randomised", "best", "rho_alpha_logit"): (0.60, 1.0),
    Cell("sale_randomised", "best", "coverage90"): (0.87, 0.93),
}


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is run.

    Attributes:
        panel, val, test: each simulated panel, and the days held out at its end.
        head: of the traits.
        machine, machine_epochs: whose belief is read.
        network: of the adapter on the belief, and of the MLP.
        learners: other learners.
        compared: settings in which adapters, networks and other learners are asked.
    """

    panel: ConsumerSimConfig = field(default_factory=ConsumerSimConfig)
    val: int = 30
    test: int = 30
    head: TraitConfig = field(default_factory=TraitConfig)
    machine: DBMConfig = field(default_factory=DBMConfig)
    machine_epochs: int = 12
    network: AdapterConfig = field(default_factory=lambda: AdapterConfig(schedule="plateau"))
    learners: Learners = field(default_factory=Learners)
    compared: tuple[str, ...] = ("push", "sale_randomised", "sale_targeted")


FULL = Study()
SMOKE = Study(
    panel=ConsumerSimConfig(num_consumers=64, num_days=100, start="2025-02-10"),
    val=10,
    test=14,
    head=TraitConfig(rounds=2),
    machine=DBMConfig(hidden=(16, 8)),
    machine_epochs=1,
    network=AdapterConfig(schedule="plateau", epochs=1),
    learners=Learners(
        forests=ForestConfig(trees=2),
        trees=4,
        tarnet=TarnetConfig(epochs=1),
        networks=MetaConfig(network=AdapterConfig(epochs=1, batch_size=1024, monitor="loss")),
    ),
    compared=("sale_randomised",),
)

_fit = jax.jit(traits.fit, static_argnames="cfg")
_replay = jax.jit(traits.replay)


def trait_data(data: ConsumerData, outcome: int, features: np.ndarray) -> TraitData:
    """Lay the whole panel out for the head on features `[consumers, days, f]`.

    A consumer's constant bits, centred, may move its responsiveness.
    """
    actions = np.stack([getattr(data.sim.actions, n) for n in ACTIONS], axis=-1)
    outcomes = getattr(data.sim.outcomes, OUTCOMES[outcome])
    train = data.bits[:, data.days[0]]
    own = data.bits[:, 0, (train == train[:, :1]).all((0, 1))].astype(np.float32)
    own = own[:, own.std(0) > 0]
    parts = [jnp.asarray(x, jnp.float32) for x in (features, actions, own - own.mean(0), outcomes)]
    return TraitData(*parts, seen=jnp.ones(outcomes.shape, bool))


class Asked(NamedTuple):
    """A fitted head on the test days: the states before each, `[days, ..]`, and log odds `[consumers, days]`.

    loss: log loss of the validation days.
    """

    params: Any
    states: Any
    logits: np.ndarray
    loss: float

    def effect(self, panel: TraitData, action: int, days: slice) -> tuple[np.ndarray, np.ndarray]:
        """Give the log odds without the action, and what it adds: `[consumers, days]` each."""
        tell = jax.vmap(lambda s: traits.effect(self.params, s, panel.moderators, action=action)[0])
        gain = np.asarray(tell(self.states)).T
        return self.logits - gain * np.asarray(panel.actions)[:, days, action], gain


def ask(panel: TraitData, days: tuple[slice, slice, slice], *, cfg: TraitConfig) -> Asked:
    """Fit a head on train days and run it on, day by day, to the test days."""
    own = {name: getattr(panel, name)[:, days[0]] for name in ("features", "actions", "outcomes", "seen")}
    params, _ = _fit(panel._replace(**own), cfg=cfg)
    before, _ = _replay(params, panel)
    logits = np.asarray(_logits(params, before, panel), np.float64)
    val = (np.asarray(panel.outcomes)[:, days[1]].ravel(), logits[:, days[1]].ravel())
    loss = float(metrics.log_loss_of_logits(*val))
    return Asked(params, jax.tree.map(lambda x: x[days[2]], before), logits[:, days[2]], loss)


@jax.jit
def _logits(params: Any, before: Any, data: TraitData) -> jax.Array:
    def at(state: Any, features: Any, actions: Any) -> jax.Array:
        return traits.logits(params, state, features, actions, data.moderators)

    return jax.vmap(at, (0, 1, 1), 1)(before, data.features, data.actions)


def head_scores(key: jax.Array, setting: str, data: ConsumerData, belief: np.ndarray, *, study: Study) -> Scores:
    """Fit both outcomes' heads on train days and score forecasts, effects and intervals on test days."""
    out: Scores = {}
    asked = consumer_data.question(setting)
    constant = dataclasses.replace(study.head, unexplained=2.0)  # no action is tied: one effect for all
    for at, outcome in enumerate(OUTCOMES):
        losses = {}
        for method, cfg, features in (
            ("traits_bits", study.head, data.bits),
            ("dbm_best", study.head, belief),
            ("constant", constant, data.bits),
        ):
            if method == "constant" and outcome != asked[1]:
                continue
            panel = trait_data(data, at, features)
            found = ask(panel, data.days, cfg=cfg)
            happened = np.asarray(panel.outcomes)[:, data.days[2]]
            out[Cell(setting, method, f"auc_{outcome}")] = float(metrics.auc(happened.ravel(), found.logits.ravel()))
            out[Cell(setting, method, f"val_log_loss_{outcome}")] = losses[method] = found.loss
            if outcome == asked[1]:
                out |= effect_scores(key, setting, method, data, found, panel, ACTIONS.index(asked[0]))
        chosen = min(("traits_bits", "dbm_best"), key=lambda name: losses[name])
        out[Cell(setting, "best", f"reads_belief_{outcome}")] = float(chosen == "dbm_best")
        out[Cell(setting, "best", f"auc_{outcome}")] = out[Cell(setting, chosen, f"auc_{outcome}")]
        if outcome == asked[1]:
            own = {q: v for (_, method, q), v in out.items() if method == chosen and not q.startswith(("auc_", "val_"))}
            out |= {Cell(setting, "best", quantity): value for quantity, value in own.items()}
    return out


def effect_scores(
    key: jax.Array,
    setting: str,
    method: str,
    data: ConsumerData,
    head: Asked,
    panel: TraitData,
    action: int,
) -> Scores:
    """Score a head's effects on test rows, and its 90 % intervals on the probability scale.

    By draws of the traits, and of the population's effect, which all consumers share.
    """
    params, states, *_ = head
    base, gain = head.effect(panel, action, data.days[2])
    found = {"logit": gain.ravel(), "prob": (expit(base + gain) - expit(base)).ravel()}
    out = recovery.effect_scores(setting, method, data, found)
    if method == "constant":
        return out
    # Traits move slowly: one set of standard draws a consumer, carried by each day's posterior.
    drawn = np.asarray(jax.jit(jax.vmap(lambda s: traits.draws(key, s, DRAWS)))(states))  # [days, draws, consumers, 2]
    mean = np.asarray(states.mean)
    truth = data.truth(setting, 2).probability.reshape(gain.shape)
    tied = float((params.effects * params.tied)[action])
    scale = gain / float(params.effects[action])
    shared = np.asarray(jax.random.normal(key_for(key, "population"), (DRAWS, 1)))
    shared = shared * np.sqrt(float(params.effects_variance[action]))
    inside, width = [], []
    for day in range(gain.shape[1]):
        level = base[:, day] + drawn[day, :, :, 0] - mean[day, :, 0]
        own = gain[:, day] + tied * (drawn[day, :, :, 1] - mean[day, :, 1]) + shared * scale[:, day]
        low, high = np.quantile(expit(level + own) - expit(level), (0.05, 0.95), axis=0)
        inside.append((low <= truth[:, day]) & (truth[:, day] <= high))
        width.append(high - low)
    out[Cell(setting, method, "coverage90")] = float(np.mean(inside))
    out[Cell(setting, method, "width90")] = float(np.mean(width))
    return out


def believed(seed: int, data: ConsumerData, *, study: Study, stages: machines.Stages) -> np.ndarray:
    """Train a machine on train rows, and give its belief of every row: `[consumers, days, f]`."""
    made = representations.centred_machines(
        jnp.stack([jax.random.key(seed)]),
        data.rows(0).bits,
        data.rows(1).bits,
        data.visible,
        machine=study.machine,
        epochs=study.machine_epochs,
        stages=stages,
    )
    rows = data.bits.reshape(-1, data.bits.shape[-1])
    return representations.beliefs(made, rows)[0].reshape(*data.bits.shape[:2], -1)


def network_scores(
    key: jax.Array,
    setting: str,
    methods: tuple[str, ...],
    data: ConsumerData,
    features: np.ndarray,
    *,
    study: Study,
    stages: machines.Stages,
) -> Scores:
    """Fit a network on features `[consumers, days, f]` and actions, and score its forecasts and what it implies.

    The same scores stand under each of `methods`.
    """
    parts = []
    for part in range(3):
        rows, days = data.rows(part), data.days[part]
        parts.append(Table(features[:, days].reshape(len(rows.actions), -1), rows.actions, rows.outcomes))
    fitted = adapters.fit(key, parts[0], parts[1], cfg=study.network, **stages.at(methods[0]))
    action, outcome = consumer_data.question(setting)
    effects = fitted.effect(OUTCOMES.index(outcome), ACTIONS.index(action), parts[2].features, parts[2].actions)
    out: Scores = {}
    for at, name in enumerate(OUTCOMES):
        logits = fitted.logits(at, parts[2].features, parts[2].actions)
        area = float(metrics.auc(parts[2].outcomes[:, at], logits))
        out |= {Cell(setting, method, f"auc_{name}"): area for method in methods}
    for method in methods:
        out |= recovery.effect_scores(setting, method, data, effects)
    return out


def run_panel(
    seed: int, setting: str, *, study: Study, folder: Path, observer: Observer, learners_alone: bool = False
) -> Scores:
    """Run one setting on one panel, or its other learners alone; what is finished is read from its file."""
    panel = dataclasses.replace(
        study.panel, seed=FIRST_PANEL + seed, sale_seed=study.panel.sale_seed + 1000 * seed, **SETTINGS[setting]
    )
    data = consumer_data.make(panel, val=study.val, test=study.test)
    key = key_for(jax.random.key(seed), setting)
    own = fingerprint(panel, study.val, study.test)
    stages = machines.Stages(folder / setting, observer, fingerprint(SCORING, study.machine, study.machine_epochs, own))
    # What reads the belief shares it, and it is not made again where all of them have their scores.
    belief = cache(lambda: believed(seed, data, study=study, stages=stages._replace(folder=folder / f"dbm-{setting}")))

    def head() -> Scores:
        truth = data.truth(setting, 2)
        found = head_scores(key, setting, data, belief(), study=study) | recovery.forecast_ceilings(setting, data)
        return found | recovery.effect_scores(
            setting, "oracle", data, {"logit": truth.logit, "prob": truth.probability}
        )

    def network(methods: tuple[str, ...], features: Any) -> Scores:
        mine = {"study": study, "stages": stages._replace(owner=fingerprint(study.network, stages.owner))}
        return network_scores(key_for(key, methods[0]), setting, methods, data, features(), **mine)

    jobs: dict[str, tuple[Any, Callable[[], Scores]]] = {} if learners_alone else {"traits": (study.head, head)}
    if setting in study.compared and not learners_alone:
        jobs["dbm_adapter"] = (study.network, lambda: network(("dbm_adapter",), belief))
        jobs["mlp"] = (study.network, lambda: network(("mlp", "s_learner"), lambda: data.bits))
    scores: Scores = {}
    for name, (cfg, work) in jobs.items():
        kept, owner = folder / f"{name}-{setting}.json", fingerprint(cfg, stages.owner)
        if (found := read_scores(kept, owner)) is None:
            found = work()
            write_scores(kept, owner, found)
        scores |= found
    if setting in study.compared:
        kept = {"folder": folder, "observer": observer, "owner": own}
        scores |= learners.scores(key_for(key, "learners"), setting, data, cfg=study.learners, **kept)
    return scores


def checks(rows: list[Row], size: str, study: Study) -> list[common.Check]:
    """Hold the means over panels against the targets; and the effect errors against the constant effect's."""
    if size != "full":
        return []
    out = [
        common.Check(" ".join(cell), common.value_of(rows, cell), low, high) for cell, (low, high) in TARGETS.items()
    ]
    there = {(r.setting, r.method) for r in rows}
    names = ("constant", "dbm_adapter", *study.learners.names)
    for setting, method in ((s, n) for s in study.compared for n in names if (s, n) in there):
        own, other = (common.value_of(rows, Cell(setting, m, "root_pehe_prob")) for m in ("best", method))
        gap = None if own is None or other is None else own - other
        out.append(common.Check(f"{setting} root_pehe_prob less that of {method}", gap, -1.0, 0.0))
    return out


def left_out(rows: list[Row], study: Study) -> list[str]:
    """Name the learners that have no rows, setting by setting."""
    there = {(r.setting, r.method) for r in rows}
    asked = [(setting, name) for setting in study.compared for name in study.learners.names]
    return [f"{setting}: {name}" for setting, name in asked if (setting, name) not in there]


@dataclass(frozen=True, kw_only=True)
class BeyondOptions(LearnerOptions):
    """The command line.

    Attributes:
        settings: in which `only` is asked, of push, sale_randomised and sale_targeted; all if not given.
    """

    settings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := set(self.settings) - set(SETTINGS):
            raise ValueError(f"settings is {sorted(unknown)}, must be of {tuple(SETTINGS)}")
        if self.settings and not self.only:
            raise ValueError("settings goes with only: a whole result has all of them")


def revise(options: BeyondOptions, observer: Observer, study: Study, seeds: list[int]) -> Path:
    """Fit the learners that are named and put their rows into the result that the folder holds."""
    whole, study = study, dataclasses.replace(study, learners=study.learners.only(options.only))
    study.learners.check()
    settings = options.settings or study.compared
    if unasked := set(settings) - set(study.compared):
        raise UserError(f"--settings {', '.join(sorted(unasked))}: learners are asked in {', '.join(study.compared)}")
    own = dataclasses.asdict(study)
    common.standing(
        options, NAME, seeds=[FIRST_PANEL + s for s in seeds], study={k: own[k] for k in ("panel", "val", "test")}
    )
    found: list[Scores] = []
    for seed in seeds:
        folder, scores = options.out / f"panel-{FIRST_PANEL + seed}", {}
        for setting in settings:
            kept = {"study": study, "folder": folder, "observer": observer, "learners_alone": True}
            scores |= run_panel(seed, setting, **kept)
        found.append(scores)
    return common.revise(
        options,
        NAME,
        common.summarise(found),
        kept=[
            learners.kept_in(options.out / f"panel-{FIRST_PANEL + seed}", name, setting)
            for seed in seeds
            for name in study.learners.names
            for setting in settings
        ],
        checks=lambda rows: checks(rows, options.size, whole),
        facts=lambda rows, _: {"left_out": left_out(rows, whole)},
    )


def main(options: BeyondOptions, observer: Observer, study: Study | None = None) -> Path:
    """Run every setting on every panel and write the result."""
    study = study or (FULL if options.size == "full" else SMOKE)
    clock, seeds = common.Clock(options.out), list(range(options.seeds or (5 if options.size == "full" else 1)))
    if options.only:
        return revise(options, observer, study, seeds)
    found: list[Scores] = []
    for seed in seeds:
        scores: Scores = {}
        for done, setting in enumerate(SETTINGS):
            observer(Event(f"panel {FIRST_PANEL + seed}", done, len(SETTINGS), unit="setting"))
            folder = options.out / f"panel-{FIRST_PANEL + seed}"
            scores |= run_panel(seed, setting, study=study, folder=folder, observer=observer)
            clock.read()
        observer(Event(f"panel {FIRST_PANEL + seed}", len(SETTINGS), len(SETTINGS), unit="setting"))
        found.append(scores)
    rows = common.summarise(found)
    rows += common.summarise([{Cell("all", "study", "seconds_total"): clock.read()}])
    return common.write_result(
        options,
        NAME,
        rows,
        seeds=[FIRST_PANEL + seed for seed in seeds],
        seconds=clock.read(),
        checks=checks(rows, options.size, study),
        facts={
            "study": dataclasses.asdict(study),
            "left_out": left_out(rows, study),
        },
    )


if __name__ == "__main__":
    sys.exit(common.run(f"experiments.{NAME}", main, kind=BeyondOptions))
