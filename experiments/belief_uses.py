"""Does the belief earn its place? Raw bits, components, an autoencoder and machines side by side, and three uses.

- `ablation`: adapters of two forms on each representation, `mlp` (the published one) and `additive`, their forecasts
  and the effects of a push that they imply, seed by seed; `.._ensemble` averages the seeds' answers.
- `labels=N`: a penalised logistic regression of visits is fitted to the rows of N consumers, its penalty chosen on
  their validation days; representation and standardisation come from everyone's bits. Those hold everyone's past
  visits as lags: this is how few rows a head needs, not a world in which outcomes are unknown.
- `missing=S`: in test rows each group of bits (a demographic, the calendar, a lag, a recency window) is lost with
  probability S and filled by its train mean, by a Gaussian's conditional mean, by a machine's mean field, or by Gibbs
  draws from it (forecasts averaged over the draws); the adapters are those of the ablation, which were fitted to whole
  rows. `bit_loss` is the log loss of the lost bits, every filling kept within .001 and .999, without bits that no train
  row has on (a month that had not come yet). `root_pehe_prob` and `ate_error_prob` are of a push on visits, answered
  from the filled rows, against the truth of the whole ones. `--missing` asks this alone, into a result of its own.

`dbm` is the published machine, from a file (`three_in_one`); `centred` has its shape and the library's learning rule;
`large` is one bigger machine. Nothing is chosen on test rows.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from experiments import adapters, common, consumer_data, machines, recovery, representations
from experiments.adapters import Fitted, Table
from experiments.common import Cell, Check, Options, Row, Scores, read_scores, write_scores
from experiments.consumer_data import ConsumerData
from experiments.machines import Stages
from wmjax.baselines import logistic
from wmjax.baselines import tables as baseline_tables
from wmjax.core.keys import key_for
from wmjax.core.observe import Event, Observer
from wmjax.core.provenance import fingerprint
from wmjax.core.visible import Visible
from wmjax.dbm import gibbs, meanfield
from wmjax.dbm.types import DBMConfig, DBMParams, Layers
from wmjax.evaluate import metrics
from wmjax.heads.adapter import AdapterConfig
from wmjax.simulate.consumer import ConsumerSimConfig
from wmjax.simulate.consumer_frame import ACTIONS, OUTCOMES
from wmjax.train import many

NAME = "belief_uses"
HEADS = ("mlp", "additive")
MACHINE_NAMES = ("dbm", "centred")
BURN_IN, GAP, IMPUTATIONS = 50, 10, 8
"""Gibbs steps before the first complete row and from one to the next, and how many are drawn."""
ASKED = ("rho_gamma_logit", "rho_gamma_logit_tiebroken", "rho_gamma_within_loyalty", "root_pehe_prob", "ate_error_prob")
SCORING, MISSING_SCORING = 2, 3
"""Count the changes of what is scored, of rows with lost inputs too: scores kept under another number are made anew."""
MACHINES = Path("experiments/results/three_in_one_machines.npz")


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is run.

    Attributes:
        panel, val, test: the simulated panel, and the days held out at its end.
        machine, large: shapes of the machines.
        centred_epochs, large_epochs, autoencoder_epochs: how long those learn.
        adapter: how every adapter is trained.
        labelled: numbers of consumers whose outcomes are known.
        penalties: of the regressions on them.
        missing: shares of groups that are lost.
        given: the published machines come from a file; otherwise centred ones stand in.
        only: representations that are made; all where empty. `raw` and `dbm_full` must be among them.
    """

    panel: ConsumerSimConfig = field(default_factory=ConsumerSimConfig)
    val: int = 30
    test: int = 30
    machine: DBMConfig = field(default_factory=DBMConfig)
    large: DBMConfig = field(default_factory=lambda: DBMConfig(hidden=(256, 128, 64)))
    centred_epochs: int = 30
    large_epochs: int = 8
    autoencoder_epochs: int = 10
    adapter: AdapterConfig = field(
        default_factory=lambda: AdapterConfig(
            batch_size=1024, learning_rate=2e-3, schedule="cosine", epochs=8, patience=8
        )
    )
    labelled: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    penalties: tuple[float, ...] = (1.0, 100.0, 10000.0)
    missing: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7)
    given: bool = True
    only: tuple[str, ...] = ()


FULL = Study()
SMOKE = Study(
    panel=ConsumerSimConfig(num_consumers=64, num_days=100, start="2025-02-10"),
    val=10,
    test=14,
    machine=DBMConfig(hidden=(16, 8, 4)),
    large=DBMConfig(hidden=(24, 8, 4)),
    centred_epochs=1,
    large_epochs=1,
    autoencoder_epochs=1,
    adapter=AdapterConfig(batch_size=1024, learning_rate=2e-3, schedule="cosine", epochs=1),
    labelled=(32, 64),
    penalties=(100.0,),
    missing=(0.5,),
    given=False,
    only=("raw", "pca4", "dbm_full"),
)


@dataclass(frozen=True)
class Sources:
    """What features are made of; each representation is made when it is asked for, and none is held."""

    study: Study
    data: ConsumerData
    stages: Stages
    seeds: int
    dbm: DBMParams

    def stages_of(self, name: str) -> Stages:
        """Where adapters on a representation are kept; those on a given machine are that machine's."""
        given = fingerprint(self.stages.owner, *jax.tree.leaves(self.dbm)) if name.startswith("dbm") else None
        return self.stages._replace(owner=given or self.stages.owner)

    def machine(self, name: str) -> DBMParams:
        if name == "dbm":
            return self.dbm
        study, large = self.study, name == "large"
        keys = jnp.stack([jax.random.key(100 + at) for at in range(1 if large else self.seeds)])
        return representations.centred_machines(
            keys,
            self.data.rows(0).bits,
            self.data.rows(1).bits,
            self.data.visible,
            machine=study.large if large else study.machine,
            epochs=study.large_epochs if large else study.centred_epochs,
            stages=self.stages._replace(folder=self.stages.folder / name),
        )

    def features(self) -> dict[str, Callable[[], list[np.ndarray]]]:
        """Name the representations that are asked for; each makes train, val and test features when it is called.

        They are `[rows, f]`, or `[seeds, rows, f]`.
        """
        study, bits = self.study, [self.data.rows(part).bits for part in range(3)]
        top = study.machine.hidden[-1]

        def pca() -> list[np.ndarray]:
            encode = representations.components(bits[0], top)
            return [encode(x) for x in bits]

        @cache
        def autoencoders() -> list[representations.Autoencoder]:
            own = partial(representations.autoencoder, bits[0], study.machine.hidden, epochs=study.autoencoder_epochs)
            return [own(seed=at) for at in range(self.seeds)]

        def belief(name: str, width: int | None) -> list[np.ndarray]:
            params = self.machine(name)
            full = [representations.beliefs(params, x) for x in bits]
            if name == "large":  # one machine, the same under every adapter
                full = [x[0] for x in full]
            return full if width is None else [np.ascontiguousarray(x[..., -width:]) for x in full]

        out: dict[str, Callable[[], list[np.ndarray]]] = {
            "raw": lambda: bits,
            f"pca{top}": pca,
            f"autoencoder{top}": lambda: [np.stack([one.encode(x) for one in autoencoders()]) for x in bits],
            "autoencoder_full": lambda: [np.stack([one.encode_all(x) for one in autoencoders()]) for x in bits],
        }
        for name in ("dbm", "centred", "large"):
            width = (study.large if name == "large" else study.machine).hidden[-1]
            out |= {f"{name}_top{width}": partial(belief, name, width), f"{name}_full": partial(belief, name, None)}
        return {name: make for name, make in out.items() if name in (study.only or out)}


def fit(sources: Sources, name: str, features: list[np.ndarray], form: Any) -> list[Fitted]:
    """Train one adapter a seed on a representation; a finished one is read from its checkpoint."""
    parts = [Table(x, r.actions, r.outcomes) for x, r in zip(features, map(sources.data.rows, range(3)), strict=True)]
    return adapters.fit_seeds(
        key_for(jax.random.key(0), f"{name}/{form}"),
        *parts[:2],
        seeds=sources.seeds,
        cfg=dataclasses.replace(sources.study.adapter, form=form),
        **sources.stages_of(name).at(f"{name}-{form}"),
    )


def answers(one: Fitted, features: np.ndarray, actions: np.ndarray) -> dict[str, np.ndarray]:
    """Give both outcomes' log odds, and what a push changes in visits on both scales."""
    out = {outcome: one.logits(at, features, actions) for at, outcome in enumerate(OUTCOMES)}
    return out | one.effect(OUTCOMES.index("visit"), ACTIONS.index("push"), features, actions)


def score(setting: str, method: str, found: dict[str, np.ndarray], data: ConsumerData) -> Scores:
    """Score one set of answers on test rows."""
    happened, out = data.rows(2).outcomes, {}
    for at, outcome in enumerate(OUTCOMES):
        out[Cell(setting, method, f"auc_{outcome}")] = float(metrics.auc(happened[:, at], found[outcome]))
    effects = recovery.effect_scores("push", method, data, {scale: found[scale] for scale in recovery.SCALES})
    return out | {Cell(setting, method, q): effects[Cell("push", method, q)] for q in ASKED}


def ablation(sources: Sources, name: str, features: list[np.ndarray]) -> list[Scores]:
    """Fit and score both forms of adapter on a representation: the seeds', and in the first the ensemble's."""
    actions = sources.data.rows(2).actions
    out: list[Scores] = [{} for _ in range(sources.seeds)]
    for form in HEADS:
        fitted = fit(sources, name, features, form)
        own = [x if (x := features[2]).ndim == 2 else x[at] for at in range(sources.seeds)]
        found = [answers(one, x, actions) for one, x in zip(fitted, own, strict=True)]
        for at, each in enumerate(found):
            out[at] |= score("ablation", f"{name}_{form}", each, sources.data)
        mean = {key: np.mean([f[key] for f in found], axis=0) for key in found[0]}
        out[0] |= score("ablation", f"{name}_{form}_ensemble", mean, sources.data)
    return out


def few_labels(sources: Sources, name: str, features: list[np.ndarray], seed: int) -> Scores:
    """Fit a regression of visits to few consumers' rows, and score it on all consumers' test rows."""
    study, data, out = sources.study, sources.data, {}
    parts = [data.rows(part) for part in range(3)]
    own = [x if x.ndim == 2 else x[seed] for x in features]
    everyone = baseline_tables.Table(own[0], parts[0].actions, parts[0].outcomes)
    # By everyone's rows: a hidden unit that hardly moves in few consumers' is thousands of their sd away elsewhere.
    scale = baseline_tables.fit_scale(logistic.columns(everyone), keep_bits=False)
    order = np.random.default_rng(seed).permutation(study.panel.num_consumers)
    visit, push = OUTCOMES.index("visit"), ACTIONS.index("push")
    for count in study.labelled:
        rows = [np.isin(part.consumer, order[:count]) for part in parts[:2]] + [slice(None)]
        train, val, ask = (
            baseline_tables.Table(x[r], part.actions[r], part.outcomes[r][:, [visit]])
            for x, part, r in zip(own, parts, rows, strict=True)
        )
        contrast = baseline_tables.Contrast(action_index=push)
        found = logistic.fit(train, val, ask, contrast=contrast, penalties=study.penalties, scale=scale)
        assert found.uplift is not None
        setting, truth = f"labels={count}", data.truth("push", 2).probability
        gap = found.uplift[:, 0] - truth
        out |= {
            Cell(setting, name, "auc_visit"): float(metrics.auc(ask.labels[:, 0], found.linear[:, 0])),
            Cell(setting, name, "log_loss_visit"): float(
                metrics.log_loss_of_logits(ask.labels[:, 0], found.linear[:, 0])
            ),
            Cell(setting, name, "root_pehe_prob"): float(np.sqrt(np.mean(gap**2))),
            Cell(setting, name, "ate_error_prob"): float(abs(gap.mean())),
        }
    return out


def lost(data: ConsumerData, share: float, seed: int) -> np.ndarray:
    """Draw which bits of the test rows are lost, group by group: `bool [rows, bits]`."""
    rng = np.random.default_rng([seed, round(100 * share)])
    gone = rng.random((len(data.rows(2).bits), len(data.visible.groups))) < share
    return np.repeat(gone, [g.size for g in data.visible.groups], axis=1)


def gaussian_fill(mean: np.ndarray, covariance: np.ndarray, rows: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """Fill lost bits by their conditional mean under a Gaussian, row by row, within (0, 1)."""
    out = rows.copy()
    for start in range(0, len(rows), 512):
        v, free = rows[start : start + 512], gone[start : start + 512]
        # Rows and columns of what is lost become those of the identity: they take no part in the solution.
        both = ~free[:, :, None] & ~free[:, None, :]
        own = np.where(both, covariance, 0.0) + np.eye(len(mean)) * free[:, None, :]
        weight = np.linalg.solve(own, np.where(free, 0.0, v - mean)[..., None])[..., 0]
        out[start : start + 512] = np.where(free, np.clip(mean + weight @ covariance, 1e-3, 1 - 1e-3), v)
    return out


class Filled(NamedTuple):
    """Rows whose lost bits were filled: their means `[rows, bits]`, and complete rows to forecast from.

    rows: `[draws, rows, bits]`; several where bits were drawn, and forecasts are then averaged. belief: of those rows
        as the machine sees them, `[draws, rows, f]`, or none.
    """

    means: Any
    rows: Any
    belief: Any = None


@jax.jit
def by_mean_field(params: DBMParams, rows: jax.Array, gone: jax.Array) -> Filled:
    """Infer lost bits and the hidden layers together."""

    def one(row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        layers, _ = meanfield.infer(params, row[0], free=row[1], sweeps=20)
        return layers[0], jnp.concatenate(layers[1:], axis=-1)

    means, belief = jax.lax.map(one, (rows, gone), batch_size=4096)
    return Filled(means, means[None], belief[None])


@jax.jit
def by_gibbs(key: jax.Array, params: DBMParams, rows: jax.Array, gone: jax.Array) -> Filled:
    """Draw lost bits given the rest, one chain a row: every `GAP` steps, after `BURN_IN`, a complete row.

    The means are averages over all steps of the conditional means, which vary less than the draws.
    """
    visible, clamp = Visible.bernoulli(rows.shape[-1]), gibbs.Clamp(~gone, rows)
    start = gibbs.init_layers(key_for(key, "start"), params, visible=visible, num_chains=len(rows))
    start = (jnp.where(gone, start[0], rows), *start[1:])

    def block(layers: Layers, key: jax.Array) -> tuple[Layers, tuple[jax.Array, jax.Array]]:
        def step(carry: tuple[Layers, jax.Array], key: jax.Array) -> tuple[tuple[Layers, jax.Array], None]:
            layers, means = gibbs.step_with_means(key, params, carry[0], visible=visible, clamp=clamp)
            return (layers, carry[1] + means[0]), None

        (layers, total), _ = jax.lax.scan(step, (layers, jnp.zeros_like(rows)), jax.random.split(key, GAP))
        return layers, (layers[0], total / GAP)

    start = gibbs.run(key_for(key, "burn-in"), params, start, visible=visible, num_steps=BURN_IN, clamp=clamp)
    _, (drawn, means) = jax.lax.scan(block, start, jax.random.split(key_for(key, "draws"), IMPUTATIONS))
    return Filled(means.mean(0), drawn)


def forecast(one: Fitted, outcome: int, features: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Average the chances that an adapter gives each of several complete rows `[draws, rows, f]`."""
    return np.mean([expit(one.logits(outcome, x, actions)) for x in features], axis=0)


def push_errors(setting: str, method: str, one: Fitted, features: np.ndarray, data: ConsumerData) -> Scores:
    """Score what a push changes in visits, averaged over several complete rows `[draws, rows, f]`."""
    visit, push, actions = OUTCOMES.index("visit"), ACTIONS.index("push"), data.rows(2).actions
    found = np.mean([one.effect(visit, push, x, actions)["prob"] for x in features], axis=0)
    gap = found - data.truth("push", 2).probability
    return {
        Cell(setting, method, "root_pehe_prob"): float(np.sqrt(np.mean(gap**2))),
        Cell(setting, method, "ate_error_prob"): float(abs(gap.mean())),
    }


def missing_inputs(sources: Sources, fitted: dict[str, list[Fitted]], share: float, seed: int) -> Scores:
    """Lose bits of test rows, fill them in several ways, and score what the whole-row adapters then forecast."""
    data, out = sources.data, Scores()
    train, test = data.rows(0).bits, data.rows(2)
    gone, bits = lost(data, share, seed), test.bits.astype(np.float32)
    mean, covariance = train.mean(0), np.cov(train.astype(np.float32), rowvar=False) + 1e-3 * np.eye(train.shape[1])
    filled = {
        name: Filled(rows, rows[None])
        for name, rows in (
            ("mean", np.where(gone, mean, bits).astype(np.float32)),
            ("gaussian", gaussian_fill(mean, covariance, bits, gone).astype(np.float32)),
        )
    }
    machine = {name: many.member(sources.machine(name), seed) for name in MACHINE_NAMES if f"{name}_full" in fitted}
    for name, params in machine.items():
        filled[f"{name}_mean_field"] = by_mean_field(params, bits, gone)
        filled[f"{name}_gibbs"] = by_gibbs(jax.random.key(seed), params, bits, gone)
    setting = f"missing={share}"
    for name, own in filled.items():
        chance = np.clip(np.asarray(own.means, np.float64), 1e-3, 1 - 1e-3)
        loss = -np.where(bits > 0, np.log(chance), np.log1p(-chance))
        asked = gone & train.any(0)
        out[Cell(setting, name, "bit_loss")] = float(loss[asked].mean())
        out[Cell(setting, name, "bit_auc")] = float(metrics.auc(bits[asked], chance[asked]))
        features = {f"raw_{name}": (fitted["raw"][seed], np.asarray(own.rows))}
        for kind, params in machine.items():
            if name in ("mean", "gaussian") or name.startswith(kind):
                belief = own.belief
                if belief is None:
                    belief = np.stack([machines.belief(params, jnp.asarray(x)) for x in own.rows])
                features[f"{kind}_full_{name.removeprefix(f'{kind}_')}"] = (fitted[f"{kind}_full"][seed], belief)
        for method, (one, x) in features.items():
            for at, outcome in enumerate(OUTCOMES):
                area = metrics.auc(test.outcomes[:, at], forecast(one, at, x, test.actions))
                out[Cell(setting, method, f"auc_{outcome}")] = float(area)
            out |= push_errors(setting, method, one, np.asarray(x), data)
    return out


def kept(path: Path, owner: str, work: Callable[[], Scores]) -> Scores:
    """Read a finished piece's scores, or make and keep them."""
    if (scores := read_scores(path, owner)) is None:
        scores = work()
        write_scores(path, owner, scores)
    return scores


def checks(rows: list[Row], size: str) -> list[Check]:
    """Say what would have the belief earn its place; each claim may fail, and those put to it afterwards say so."""
    if size != "full":
        return []

    def gap(setting: str, a: str, b: str, quantity: str) -> float | None:
        x, y = (common.value_of(rows, Cell(setting, m, quantity)) for m in (a, b))
        return None if x is None or y is None else x - y

    before = (
        ("ablation", "dbm_full_mlp", "raw_mlp", "auc_visit", True),
        ("ablation", "dbm_full_additive", "raw_additive", "root_pehe_prob", False),
        ("ablation", "dbm_top16_mlp", "pca16_mlp", "auc_visit", True),
        ("ablation", "dbm_top16_mlp", "autoencoder16_mlp", "auc_visit", True),
        ("labels=32", "dbm_full", "raw", "auc_visit", True),
        ("labels=1024", "dbm_full", "raw", "auc_visit", True),
        ("missing=0.5", "dbm_full_mean_field", "raw_mean", "auc_visit", True),
        ("missing=0.5", "dbm_full_mean_field", "raw_gaussian", "auc_visit", True),
        ("missing=0.5", "dbm_mean_field", "gaussian", "bit_loss", False),
    )
    # After the first table had been read, as much for them as against them.
    after = (
        ("ablation", "dbm_full_additive", "raw_additive", "rho_gamma_within_loyalty", True),
        ("ablation", "dbm_full_additive", "pca16_additive", "rho_gamma_within_loyalty", True),
        ("ablation", "large_full_additive", "raw_additive", "root_pehe_prob", False),
        ("ablation", "large_full_additive", "pca16_additive", "root_pehe_prob", False),
        ("labels=1024", "dbm_full", "raw", "log_loss_visit", False),
        ("labels=1024", "dbm_full", "autoencoder_full", "log_loss_visit", False),
        ("labels=1024", "dbm_full", "raw", "root_pehe_prob", False),
        ("labels=1024", "dbm_full", "autoencoder16", "root_pehe_prob", False),
        ("missing=0.5", "centred_full_gibbs", "raw_mean", "auc_visit", True),
        ("missing=0.5", "centred_full_gibbs", "raw_gaussian", "auc_visit", True),
        ("missing=0.5", "centred_gibbs", "gaussian", "bit_loss", False),
        ("missing=0.5", "centred_full_gibbs", "raw_gaussian", "root_pehe_prob", False),
    )
    return [
        Check(
            f"{'afterwards, ' if late else ''}{setting}: {quantity} of {a} less {b}'s",
            gap(setting, a, b, quantity),
            *((0, 1) if up else (-1, 0)),
        )
        for late, claims in enumerate((before, after))
        for setting, a, b, quantity, up in claims
    ]


def run(
    study: Study, seeds: int, folder: Path, observer: Observer, file: Path, clock: common.Clock, *, missing: bool
) -> list[Scores]:
    """Run all pieces, or those with missing inputs alone, each from where a killed run left it."""
    dbm = machines.kept(file, seeds)[0] if study.given else None
    data = consumer_data.make(study.panel, val=study.val, test=study.test)
    owner = fingerprint(study, seeds)
    stages = Stages(folder / "stages", observer, owner)
    if dbm is None:
        dbm = representations.centred_machines(
            jnp.stack([jax.random.key(at) for at in range(seeds)]),
            data.rows(0).bits,
            data.rows(1).bits,
            data.visible,
            machine=study.machine,
            epochs=1,
            stages=stages._replace(folder=folder / "dbm"),
        )
    sources, out = Sources(study, data, stages, seeds, dbm), [Scores() for _ in range(seeds)]
    owner = fingerprint(SCORING, owner, *jax.tree.leaves(dbm))
    fitted: dict[str, list[Fitted]] = {}
    whole = ("raw", *(f"{machine}_full" for machine in MACHINE_NAMES))
    asked = {name: make for name, make in sources.features().items() if name in whole or not missing}
    for done, (name, make) in enumerate(asked.items()):
        observer(Event("representations", done, len(asked), unit="representation"))
        features = cache(make)
        if name in whole:
            fitted[name] = fit(sources, name, features(), "mlp")
        if missing:
            continue
        paths = [folder / f"ablation-{name}-{at}.json" for at in range(seeds)]
        known = [read_scores(path, owner) for path in paths]
        if any(scores is None for scores in known):
            known = ablation(sources, name, features())
            for path, scores in zip(paths, known, strict=True):
                write_scores(path, owner, scores)
        for at in range(seeds):
            out[at] |= known[at] or {}
            path = folder / f"labels-{name}-{at}.json"
            out[at] |= kept(path, owner, lambda n=name, f=features, s=at: few_labels(sources, n, f(), s))
        clock.read()
    for share in study.missing:
        for at in range(seeds):
            observer(Event(f"missing {share}", at, seeds, unit="seed"))
            path = folder / f"missing-{share}-{at}.json"
            work = lambda s=share, a=at: missing_inputs(sources, fitted, s, a)  # noqa: E731
            out[at] |= kept(path, fingerprint(MISSING_SCORING, owner), work)
            clock.read()
    return out


@dataclass(frozen=True, kw_only=True)
class UsesOptions(Options):
    """The command line.

    Attributes:
        machines: a file of published machines, of `experiments.three_in_one`.
        missing: only the rows that have lost inputs, into a result of their own.
    """

    machines: Path = MACHINES
    missing: bool = False


def main(options: UsesOptions, observer: Observer, study: Study | None = None) -> Path:
    """Run the study and write its result."""
    study = study or (FULL if options.size == "full" else SMOKE)
    name = f"{NAME}_missing" if options.missing else NAME
    clock, seeds = common.Clock(options.out / name), options.seeds or (5 if options.size == "full" else 1)
    found = run(study, seeds, options.out / NAME, observer, options.machines, clock, missing=options.missing)
    rows = common.summarise(found)
    rows += common.summarise([{Cell("all", "study", "seconds_total"): clock.read()}])
    return common.write_result(
        options,
        name,
        rows,
        seeds=list(range(seeds)),
        seconds=clock.read(),
        checks=[c for c in checks(rows, options.size) if c.value is not None or not options.missing],
        facts={"study": dataclasses.asdict(study)},
    )


if __name__ == "__main__":
    sys.exit(common.run(f"experiments.{NAME}", main, kind=UsesOptions))
