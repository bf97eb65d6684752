"""Beyond the published study: each consumer's own traits, filtered from all days seen, and a sale that is identified.

Five panels, each a draw of its own. On each, the traits head (`best`: a linear head on the visible bits, a level and a
responsiveness a consumer; no constant of the simulator enters) is fitted to train days, runs on day by day through
validation and test days, and is scored against the truth of the test rows. Beside it: `constant`, the same head without
responsiveness of its own, which gives every consumer the mean effect; `mlp`, a network on the visible bits and actions;
the learners of `experiments.learners` (the causal forest where EconML is installed); and the `oracle`. Settings: `push`
on visits (randomised by consumer and day), `sale_randomised` and `sale_targeted` on purchases, and `placebo`, where
consumers buy with the mean price sensitivity while the recorded one stays: what ranks there, ranks by accident.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from experiments import adapters, common, consumer_data, learners, recovery
from experiments.adapters import Table
from experiments.common import Cell, Options, Row, Scores
from experiments.consumer_data import ConsumerData
from experiments.learners import Learners
from experiments.three_in_one import read_scores, write_scores
from wmjax.baselines.meta import ForestConfig
from wmjax.baselines.tarnet import TarnetConfig
from wmjax.core.keys import key_for
from wmjax.core.observe import Event, Observer
from wmjax.core.provenance import fingerprint
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
        network: of the MLP; settings in `networks` get one.
        networks: settings with an MLP beside them.
        learners, compared: other learners, and the settings that they are asked about.
    """

    panel: ConsumerSimConfig = field(default_factory=ConsumerSimConfig)
    val: int = 30
    test: int = 30
    head: TraitConfig = field(default_factory=TraitConfig)
    network: AdapterConfig = field(default_factory=lambda: AdapterConfig(schedule="plateau"))
    networks: tuple[str, ...] = ("sale_randomised",)
    learners: Learners = field(default_factory=Learners)
    compared: tuple[str, ...] = ("sale_randomised",)


FULL = Study()
SMOKE = Study(
    panel=ConsumerSimConfig(num_consumers=64, num_days=100, start="2025-02-10"),
    val=10,
    test=14,
    head=TraitConfig(rounds=2),
    network=AdapterConfig(schedule="plateau", epochs=1),
    learners=Learners(forests=ForestConfig(trees=2), trees=4, tarnet=TarnetConfig(epochs=1)),
)

_fit = jax.jit(traits.fit, static_argnames="cfg")
_replay = jax.jit(traits.replay)


def trait_data(data: ConsumerData, outcome: int) -> TraitData:
    """Lay the whole panel out for the head; a consumer's constant bits, centred, may move its responsiveness."""
    actions = np.stack([getattr(data.sim.actions, n) for n in ACTIONS], axis=-1)
    outcomes = getattr(data.sim.outcomes, OUTCOMES[outcome])
    train = data.bits[:, data.days[0]]
    own = data.bits[:, 0, (train == train[:, :1]).all((0, 1))].astype(np.float32)
    own = own[:, own.std(0) > 0]
    parts = [jnp.asarray(x, jnp.float32) for x in (data.bits, actions, own - own.mean(0), outcomes)]
    return TraitData(*parts, seen=jnp.ones(outcomes.shape, bool))


class Asked(NamedTuple):
    """A fitted head on the test days: the states before each, `[days, ..]`, and log odds `[consumers, days]`."""

    params: Any
    states: Any
    logits: np.ndarray

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
    logits = np.asarray(_logits(params, before, panel), np.float64)[:, days[2]]
    return Asked(params, jax.tree.map(lambda x: x[days[2]], before), logits)


@jax.jit
def _logits(params: Any, before: Any, data: TraitData) -> jax.Array:
    def at(state: Any, features: Any, actions: Any) -> jax.Array:
        return traits.logits(params, state, features, actions, data.moderators)

    return jax.vmap(at, (0, 1, 1), 1)(before, data.features, data.actions)


def head_scores(key: jax.Array, setting: str, data: ConsumerData, *, study: Study) -> Scores:
    """Fit both outcomes' heads on train days and score forecasts, effects and intervals on test days."""
    out: Scores = {}
    asked = consumer_data.question(setting)
    constant = dataclasses.replace(study.head, unexplained=2.0)  # no action is tied: one effect for all
    for at, outcome in enumerate(OUTCOMES):
        panel = trait_data(data, at)
        for method, cfg in (("best", study.head), ("constant", constant)):
            if method == "constant" and outcome != asked[1]:
                continue
            found = ask(panel, data.days, cfg=cfg)
            happened = np.asarray(panel.outcomes)[:, data.days[2]]
            out[Cell(setting, method, f"auc_{outcome}")] = float(metrics.auc(happened.ravel(), found.logits.ravel()))
            if outcome == asked[1]:
                out |= effect_scores(key, setting, method, data, found, panel, ACTIONS.index(asked[0]))
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
    params, states, _ = head
    base, gain = head.effect(panel, action, data.days[2])
    found = {"logit": gain.ravel(), "prob": (expit(base + gain) - expit(base)).ravel()}
    out = recovery.effect_scores(setting, method, data, found)
    if method != "best":
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


def network_scores(
    key: jax.Array, setting: str, data: ConsumerData, *, study: Study, folder: Path, observer: Observer, owner: str
) -> Scores:
    """Fit a network on bits and actions, and score its forecasts and the effects that it implies."""
    parts = [Table(r.bits, r.actions, r.outcomes) for r in map(data.rows, range(3))]
    fitted = adapters.fit(
        key, parts[0], parts[1], cfg=study.network, stage="mlp", folder=folder, observer=observer, fingerprint=owner
    )
    out: Scores = {}
    for at, outcome in enumerate(OUTCOMES):
        logits = fitted.logits(at, parts[2].features, parts[2].actions)
        out[Cell(setting, "mlp", f"auc_{outcome}")] = float(metrics.auc(parts[2].outcomes[:, at], logits))
    action, outcome = consumer_data.question(setting)
    effects = fitted.effect(OUTCOMES.index(outcome), ACTIONS.index(action), parts[2].features, parts[2].actions)
    return out | recovery.effect_scores(setting, "mlp", data, effects)


def run_panel(seed: int, setting: str, *, study: Study, folder: Path, observer: Observer) -> Scores:
    """Run one setting on one panel; a finished one is read from its file."""
    panel = dataclasses.replace(
        study.panel, seed=FIRST_PANEL + seed, sale_seed=study.panel.sale_seed + 1000 * seed, **SETTINGS[setting]
    )
    data = consumer_data.make(panel, val=study.val, test=study.test)
    key = key_for(jax.random.key(seed), setting)
    kept, owner = folder / f"{setting}.json", fingerprint(study.head, panel, study.val, study.test)
    if (scores := read_scores(kept, owner)) is None:
        truth = data.truth(setting, 2)
        scores = head_scores(key, setting, data, study=study) | recovery.forecast_ceilings(setting, data)
        true = {"logit": truth.logit, "prob": truth.probability}
        scores |= recovery.effect_scores(setting, "oracle", data, true)
        write_scores(kept, owner, scores)
    # What the head is does not concern the others: what they keep is their own.
    own = fingerprint(panel, study.val, study.test)
    if setting in study.networks:
        kept, owner = folder / f"mlp-{setting}.json", fingerprint(study.network, own)
        if (found := read_scores(kept, owner)) is None:
            where = folder / f"mlp-{setting}"
            found = network_scores(key, setting, data, study=study, folder=where, observer=observer, owner=owner)
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
    others = [("push", "constant"), *(("sale_randomised", name) for name in ("constant", *study.learners.able))]
    for setting, method in others:
        own, other = (common.value_of(rows, Cell(setting, m, "root_pehe_prob")) for m in ("best", method))
        gap = None if own is None or other is None else own - other
        out.append(common.Check(f"{setting} root_pehe_prob less that of {method}", gap, -1.0, 0.0))
    return out


def main(options: Options, observer: Observer, study: Study | None = None) -> Path:
    """Run every setting on every panel and write the result."""
    study = study or (FULL if options.size == "full" else SMOKE)
    clock, seeds = common.Clock(options.out), list(range(options.seeds or (5 if options.size == "full" else 1)))
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
            "left_out": sorted(set(study.learners.names) - set(study.learners.able)),
        },
    )


if __name__ == "__main__":
    sys.exit(common.run(f"experiments.{NAME}", main))
