"""Is an implausible history noticed? Corrupted rows against the machine's scores, and against simpler judges.

Test rows are corrupted in four ways, each kept where it changed the row: `recency` (a window says yes and a longer one
no, or a lag says yes and the windows no: impossible), `lags` (the four past days in another order, windows unchanged),
`demographics` (another consumer's), `promotions` (lagged campaigns, coupons and pushes by fair coins). Each judge
scores true and corrupted rows; the area under the ROC curve is the chance that the corrupted one of two is found the
less plausible.

Machines: `dbm` (published rules, from a file) and `centred` (the library's), by the variational free energy, the
published score, and `.._conditional`: the free energy of the corrupted part given the rest, against the states that the
part mostly takes and its own; it has to be told which part that is, and judges the first `few` of the rows. Judges
beside them: an isolation forest, an autoencoder's reconstruction error, Mahalanobis distance, a Gaussian copula's
likelihood, independent bits, and a chain of logistic regressions, bit by bit.

`likelihood` holds mean log likelihoods of test rows in nats, summed over the values of what takes one in test rows that
no train row has (their month had not come yet: any model's answer to that is its floor). A machine's is its variational
bound less log Z by annealed importance sampling, which errs low more often than high, and so flatters: see
`log_z_error` and `ess`.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression

from experiments import common, consumer_data, copula, machines, representations
from experiments.common import Cell, Check, Options, Row, Scores, read_scores, write_scores
from experiments.consumer_data import ConsumerData
from experiments.machines import Stages
from wmjax.core.keys import key_for
from wmjax.core.observe import Event, Observer
from wmjax.core.provenance import fingerprint
from wmjax.core.visible import Visible
from wmjax.dbm import conditional, learn, partition, scores
from wmjax.dbm.types import DBMConfig, DBMParams
from wmjax.evaluate import metrics
from wmjax.simulate.consumer import ConsumerSimConfig
from wmjax.train import many

NAME = "consistency"
SCORING = 2
"""Counts the changes of what is scored: scores kept under another number are made anew."""
MACHINES = Path("experiments/results/three_in_one_machines.npz")
LAGS = (1, 2, 3, 4)
PROMOTIONS = ("campaign", "coupon", "push")
STATICS = ("store", "loyalty", "age_bins", "income_bins")
WINDOWS = ("visit_recency", "purchase_recency")
CHUNK = 4096
SIMPLE = ("isolation_forest", "autoencoder", "mahalanobis", "gaussian_copula", "independent", "logistic_chain")
LIKELY = ("gaussian_copula", "independent", "logistic_chain")
"""Judges whose score is a negative log likelihood."""

Judge = Callable[[np.ndarray], np.ndarray]
"""Rows of bits to scores `[rows]`, higher where less plausible."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is run.

    Attributes:
        panel, val, test: the simulated panel, and the days held out at its end.
        machine: shape of the machines.
        centred_epochs, autoencoder_epochs: how long those learn.
        rows: test rows that are judged, and of them `few` by conditional free energies.
        alternatives: states of a part that a conditional free energy sums over, the most frequent of the train rows.
        draws: of the copula's likelihood, a row.
        temperatures, particles: of annealed importance sampling.
        given: the published machines come from a file; otherwise there are only centred ones.
    """

    panel: ConsumerSimConfig = field(default_factory=ConsumerSimConfig)
    val: int = 30
    test: int = 30
    machine: DBMConfig = field(default_factory=DBMConfig)
    centred_epochs: int = 30
    autoencoder_epochs: int = 10
    rows: int = 8192
    few: int = 2048
    alternatives: int = 256
    draws: int = 64
    temperatures: int = 5000
    particles: int = 256
    given: bool = True


FULL = Study()
SMOKE = Study(
    panel=ConsumerSimConfig(num_consumers=64, num_days=100, start="2025-02-10"),
    val=10,
    test=14,
    machine=DBMConfig(hidden=(16, 8, 4)),
    centred_epochs=1,
    autoencoder_epochs=1,
    rows=256,
    few=64,
    alternatives=16,
    draws=4,
    temperatures=50,
    particles=16,
    given=False,
)


def parts(visible: Visible) -> dict[str, np.ndarray]:
    """Give the units that each corruption touches: indices in the layer's order."""
    groups = {g.name: np.arange(g.start, g.start + g.size) for g in visible.groups}
    named = {
        "recency": WINDOWS,
        "lags": [f"{name}_lag{k}" for name in ("visit", "purchase", *PROMOTIONS) for k in LAGS],
        "demographics": STATICS,
        "promotions": [f"{name}_lag{k}" for name in PROMOTIONS for k in LAGS],
    }
    return {kind: np.sort(np.concatenate([groups[name] for name in names])) for kind, names in named.items()}


def corrupt(kind: str, rng: np.random.Generator, bits: np.ndarray, visible: Visible) -> np.ndarray:
    """Corrupt every row in one way; some may come out as they were."""
    out, groups = bits.copy(), {g.name: np.arange(g.start, g.start + g.size) for g in visible.groups}
    if kind == "recency":
        for name in WINDOWS:
            own, lags = groups[name], [groups[f"{name.split('_')[0]}_lag{k}"][0] for k in LAGS]
            lately = bits[:, lags].sum(axis=1, keepdims=True) > 0
            # Seen within four days, and in no window; or not, and in the shortest window alone.
            out[:, own] = np.where(lately, 0, np.eye(len(own), dtype=bits.dtype)[0])
    elif kind == "lags":
        order = np.argsort(rng.random((len(bits), len(LAGS))), axis=1)
        for name in ("visit", "purchase", *PROMOTIONS):
            own = [groups[f"{name}_lag{k}"][0] for k in LAGS]
            out[:, own] = np.take_along_axis(bits[:, own], order, axis=1)
    elif kind == "demographics":
        own = np.concatenate([groups[name] for name in STATICS])
        out[:, own] = bits[rng.permutation(len(bits))][:, own]
    else:
        own = np.concatenate([groups[f"{name}_lag{k}"] for name in PROMOTIONS for k in LAGS])
        out[:, own] = rng.integers(0, 2, (len(bits), len(own)))
    return out


def judges(train: np.ndarray, study: Study, seed: int) -> dict[str, Judge]:
    """Fit every judge that is not a machine to the train rows."""
    x = train.astype(np.float32)
    forest = IsolationForest(n_estimators=200, random_state=seed).fit(
        x[np.random.default_rng(seed).permutation(len(x))[:20_000]]
    )
    auto = representations.autoencoder(train, study.machine.hidden, seed=seed, epochs=study.autoencoder_epochs)
    mean = np.clip(x.mean(0, dtype=np.float64), 1e-4, 1 - 1e-4)
    precision = np.linalg.inv(np.cov(x, rowvar=False) + np.diag(1e-3 * np.ones(x.shape[1])))
    fitted = copula.fit(train)

    def distance(bits: np.ndarray) -> np.ndarray:
        centred = bits - mean
        return np.einsum("ri,ij,rj->r", centred, precision, centred)

    return {
        "isolation_forest": lambda bits: -forest.score_samples(bits.astype(np.float32)),
        "autoencoder": auto.error,
        "mahalanobis": distance,
        "gaussian_copula": lambda bits: -copula.log_likelihood(fitted, bits, draws=study.draws, seed=seed),
        "independent": lambda bits: -(bits @ np.log(mean) + (1 - bits) @ np.log1p(-mean)),
        "logistic_chain": chain(train, seed),
    }


def chain(train: np.ndarray, seed: int) -> Judge:
    """Fit each bit on those before it, p(v) = prod_i p(v_i | v_1 .. v_{i-1}), by penalised logistic regressions."""
    rows = np.random.default_rng(seed).permutation(len(train))[:50_000]
    x, models = train[rows].astype(np.float64), []
    for at in range(x.shape[1]):
        y = x[:, at]
        if at and y.min() < y.max():
            models.append(LogisticRegression(solver="newton-cholesky", C=1.0).fit(x[:, :at], y))
        else:
            models.append((y.sum() + 0.5) / (len(y) + 1))

    def surprise(bits: np.ndarray) -> np.ndarray:
        v, total = bits.astype(np.float64), np.zeros(len(bits))
        for at, model in enumerate(models):
            logit = np.log(model / (1 - model)) if isinstance(model, float) else model.decision_function(v[:, :at])
            total += np.logaddexp(0, np.where(v[:, at] > 0, -logit, logit))
        return total

    return surprise


@partial(jax.jit, static_argnames=("visible", "kind"))
def _score(params: DBMParams, rows: jax.Array, *, visible: Visible, kind: Any) -> jax.Array:
    return scores.score(params, rows, visible=visible, kind=kind)


def by_machine(params: DBMParams, visible: Visible) -> dict[str, Judge]:
    """Judge by a machine's scores of whole rows."""

    def judge(bits: np.ndarray, kind: str) -> np.ndarray:
        own = partial(_score, params, visible=visible, kind=kind)
        starts = range(0, len(bits), CHUNK)
        return np.concatenate([own(bits[i : i + CHUNK].astype(np.float32)) for i in starts]).astype(np.float64)

    return {kind: partial(judge, kind=kind) for kind in ("variational", "paper")}


def conditional_judge(params: DBMParams, train: np.ndarray, part: np.ndarray, visible: Visible, count: int) -> Judge:
    """Judge a part given the rest, against the most frequent states that the part takes in train rows."""
    states, often = np.unique(train[:, part], axis=0, return_counts=True)
    states = states[np.argsort(-often, kind="stable")[:count]]
    mask = np.zeros(visible.size, bool)
    mask[part] = True

    @jax.jit
    def score(rows: jax.Array) -> jax.Array:
        return conditional.conditional(params, rows, mask, visible=visible, alternatives=states)

    return lambda bits: np.asarray(score(bits.astype(np.float32)), np.float64)


def area(judge: Judge, true: np.ndarray, wrong: np.ndarray) -> float:
    """Compute the chance that a corrupted row is judged less plausible than a true one."""
    labels = np.repeat([0.0, 1.0], [len(true), len(wrong)])
    return float(metrics.auc(labels, np.concatenate([judge(true), judge(wrong)])))


def unseen(data: ConsumerData) -> list[np.ndarray]:
    """Give the units of each group that has one on in some test row, and in no train row."""
    test, train = (np.asarray(data.rows(part).bits).any(axis=0) for part in (2, 0))
    new = np.logical_and(test, np.logical_not(train))
    return [np.arange(g.start, g.start + g.size) for g in data.visible.groups if new[g.slice].any()]


def summed(judge: Judge, rows: np.ndarray, groups: list[np.ndarray]) -> np.ndarray:
    """Sum a likelihood's judge over the values that one-hot groups can take: a negative log likelihood `[rows]`."""
    assert all((rows[:, units].sum(1) == 1).all() for units in groups)
    total = None
    for values in itertools.product(*map(range, map(len, groups))):
        other = rows.copy()
        for units, value in zip(groups, values, strict=True):
            other[:, units] = np.arange(len(units)) == value
        own = -judge(other)
        total = own if total is None else np.logaddexp(total, own)
    assert total is not None
    return -total


def likelihoods(key: jax.Array, params: DBMParams, data: ConsumerData, test: np.ndarray, study: Study) -> Scores:
    """Bound a machine's mean log likelihood of test rows, with what is known of its log Z."""
    visible, base = data.visible, learn.visible_bias(jnp.asarray(data.rows(0).bits), visible=data.visible)
    run = partial(partition.ais, visible=visible, num_temperatures=study.temperatures, num_particles=study.particles)
    found = jax.jit(run)(key, params, base=base)
    log_z = float(found.log_z)
    surprise = summed(by_machine(params, visible)["variational"], test, unseen(data))
    mean = -float(surprise.mean()) - log_z
    return {
        Cell("likelihood", "", "nats_a_row"): mean,
        Cell("likelihood", "", "log_z"): log_z,
        Cell("likelihood", "", "log_z_error"): float(found.standard_error),
        Cell("likelihood", "", "ess"): float(found.ess),
    }


def run_seed(seed: int, data: ConsumerData, known: dict[str, DBMParams], study: Study) -> Scores:
    """Run every judge on every corruption."""
    rng, visible = np.random.default_rng(seed), data.visible
    train, bits = data.rows(0).bits, data.rows(2).bits
    test = bits[rng.permutation(len(bits))[: study.rows]]
    wrong = {kind: corrupt(kind, rng, test, visible) for kind in parts(visible)}
    moved = {kind: (rows != test).any(1) for kind, rows in wrong.items()}
    simple, out = judges(train, study, seed), Scores()
    for name, params in known.items():
        simple |= {f"{name}_{kind}": judge for kind, judge in by_machine(params, visible).items()}
    for kind, rows in moved.items():
        out[Cell(kind, "data", "rows")] = float(rows.sum())
        for name, judge in simple.items():
            out[Cell(kind, name, "auroc")] = area(judge, test[rows], wrong[kind][rows])
        few = np.flatnonzero(rows)[: study.few]
        for name, params in known.items():
            judge = conditional_judge(params, train, parts(visible)[kind], visible, study.alternatives)
            out[Cell(kind, f"{name}_conditional", "auroc")] = area(judge, test[few], wrong[kind][few])
    for name in LIKELY:
        out[Cell("likelihood", name, "nats_a_row")] = -float(summed(simple[name], test, unseen(data)).mean())
    for name, params in known.items():
        found = likelihoods(key_for(jax.random.key(seed), "ais"), params, data, test, study)
        out |= {Cell(cell.setting, name, cell.quantity): value for cell, value in found.items()}
    return out


def checks(rows: list[Row], size: str) -> list[Check]:
    """Say what would make a machine the judge to ask; each claim may fail."""
    if size != "full":
        return []
    out = []
    for kind in ("recency", "lags", "demographics", "promotions"):
        best = max(common.value_of(rows, Cell(kind, name, "auroc")) or 0.0 for name in SIMPLE)
        for name in ("dbm_variational", "centred_variational"):
            own = common.value_of(rows, Cell(kind, name, "auroc"))
            out.append(Check(f"{kind}: {name} less the best simple judge", own and own - best, 0.0, 1.0))
    return out


@dataclass(frozen=True, kw_only=True)
class ConsistencyOptions(Options):
    """The command line.

    Attributes:
        machines: a file of published machines, of `experiments.three_in_one`.
    """

    machines: Path = MACHINES


def main(options: ConsistencyOptions, observer: Observer, study: Study | None = None) -> Path:
    """Train the machines that are not given, run every seed, and write the result."""
    study = study or (FULL if options.size == "full" else SMOKE)
    folder = options.out / NAME
    clock, seeds = common.Clock(folder), options.seeds or (5 if options.size == "full" else 1)
    given = {"dbm": machines.kept(options.machines, seeds)[0]} if study.given else {}
    data = consumer_data.make(study.panel, val=study.val, test=study.test)
    trained = fingerprint(study, seeds)
    owner = fingerprint(SCORING, trained, *jax.tree.leaves(given))
    keys = jnp.stack([jax.random.key(100 + at) for at in range(seeds)])
    centred = representations.centred_machines(
        keys,
        data.rows(0).bits,
        data.rows(1).bits,
        data.visible,
        machine=study.machine,
        epochs=study.centred_epochs,
        stages=Stages(folder / "centred", observer, trained),
    )
    known = {"centred": centred} | given
    found = []
    for seed in range(seeds):
        observer(Event("judges", seed, seeds, unit="seed"))
        path = folder / f"seed-{seed}.json"
        if (scores_ := read_scores(path, owner)) is None:
            own = {name: many.member(params, seed) for name, params in known.items()}
            scores_ = run_seed(seed, data, own, study)
            write_scores(path, owner, scores_)
        found.append(scores_)
        clock.read()
    observer(Event("judges", seeds, seeds, unit="seed"))
    rows = common.summarise(found)
    rows += common.summarise([{Cell("all", "study", "seconds_total"): clock.read()}])
    return common.write_result(
        options,
        NAME,
        rows,
        seeds=list(range(seeds)),
        seconds=clock.read(),
        checks=checks(rows, options.size),
        facts={"study": dataclasses.asdict(study)},
    )


if __name__ == "__main__":
    sys.exit(common.run(f"experiments.{NAME}", main, kind=ConsistencyOptions))
