"""Forecasting is not attribution: decoders that forecast alike under graphs that are right, wrong, full and empty.

On the sparse-target benchmark the target's own past forecasts it, two weak edges reach it, and the channels that do
*not* act on it share its demand. Graph-safe decoders are trained under several graphs, frozen, and probed under every
graph: MSE@7 on unseen shops, and how well their free-running influence (AR-CIG, an impulse of half a standard
deviation) ranks the true edges (nAUPRC), beside what a shuffled ranking reaches.

`train>test` names the graphs: `none`, `full`, `oracle`; from Stage 1 of DICE `soft` (its probabilities), `hard` (above
one half), `topk` (the density prior's number of edges), `stability` (chosen in 70 % of the training shops), `valmse`
(the threshold of smallest validation error); and, derived from the truth, `permuted`, `wrong`, `reversed`, `random`.

What is structural: under a 0/1 graph a node that is no ancestor has influence exactly 0, so `oracle` as a test graph
scores high for any decoder that moves at all. It certifies the mask, not the learning; `wrong`, of equal density, is
what to read beside it. The paper's generator and sizes are not public: the pattern can be compared, the decimals not.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import common, graph_fits
from experiments.common import Cell, Check, Options, Row, Scores
from experiments.graph_fits import Shops
from wmjax.core.keys import key_for
from wmjax.core.observe import Event, Observer
from wmjax.core.provenance import fingerprint
from wmjax.evaluate import edge_scores, influence
from wmjax.evaluate.influence import InfluenceConfig
from wmjax.graph import decoder, edges, encoder, interfaces
from wmjax.graph.decoder import DecoderConfig
from wmjax.graph.encoder import EncoderConfig
from wmjax.graph.learn import LearnConfig
from wmjax.simulate import channels
from wmjax.simulate.channels import ChannelConfig, sparse_target

NAME = "attribution_bypass"
METHOD = "graph_safe"
TRAINED = ("none", "full", "oracle", "soft", "hard")
LEARNED = ("soft", "hard", "topk", "stability", "valmse")
CONTROLS = ("permuted", "wrong", "reversed", "random")
TESTED = ("none", "full", "oracle", *LEARNED, *CONTROLS)


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is run.

    Attributes:
        world: the sparse-target benchmark.
        validation, test: shops that select and shops that score.
        encoder, encoder_epochs, encoder_rate: Stage 1 and how long and fast it is learnt.
        decoder, decoder_epochs, decoder_rate: the graph-safe decoder, likewise.
        batch_size: shops a step.
        push: the probe.
        length: times of history before every test window.
        first: the first seed; sizes were chosen on seeds from 100 on.
        seeds: how many where the command line does not say.
    """

    world: ChannelConfig = field(
        default_factory=lambda: sparse_target(target_load=0.05, parent_load=0.3, mediators=1, channel_edges=0.2)
    )
    validation: int = 16
    test: int = 32
    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(hidden=32))
    encoder_epochs: int = 40
    encoder_rate: float = 2e-3
    decoder: DecoderConfig = field(default_factory=lambda: DecoderConfig(hidden=24))
    decoder_epochs: int = 30
    decoder_rate: float = 3e-3
    batch_size: int = 28
    push: InfluenceConfig = field(default_factory=InfluenceConfig)
    length: int = 28
    first: int = 0
    seeds: int = 5

    def encoding(self) -> LearnConfig:
        """Say how Stage 1 is learnt."""
        return LearnConfig(
            model=self.encoder,
            epochs=self.encoder_epochs,
            learning_rate=self.encoder_rate,
            batch_size=self.batch_size,
        )

    def decoding(self) -> LearnConfig:
        """Say how the decoders are learnt."""
        return LearnConfig(
            model=self.decoder,
            epochs=self.decoder_epochs,
            learning_rate=self.decoder_rate,
            batch_size=self.batch_size,
            schedule="cosine",
        )


FULL = Study()
SMOKE = Study(
    world=dataclasses.replace(FULL.world, shops=12, times=36, nodes=5),
    validation=3,
    test=3,
    encoder=EncoderConfig(hidden=4, edge_hidden=4, embedding=2),
    encoder_epochs=2,
    decoder=DecoderConfig(hidden=4, embedding=2),
    decoder_epochs=2,
    length=20,
    seeds=2,
)

PUBLISHED: Scores = {
    Cell("none>none", METHOD, "mse7"): 0.004,
    Cell("full>full", METHOD, "mse7"): 0.004,
    Cell("oracle>oracle", METHOD, "nauprc_target"): 0.807,
    Cell("hard>hard", METHOD, "nauprc_target"): -0.044,
    Cell("hard>oracle", METHOD, "nauprc_target"): 0.894,
}


@partial(jax.jit, static_argnames="study")
def make_shops(seeds: jax.Array, *, study: Study) -> Shops:
    """Simulate every seed's shops: leading axis the seeds."""

    def one(seed: jax.Array) -> Shops:
        key = jax.random.fold_in(jax.random.key(1), seed)
        truth, _, series = channels.simulate(key, cfg=study.world)
        return graph_fits.deal(series.values, truth.graph, truth.context, validation=study.validation, test=study.test)

    return jax.vmap(one)(seeds)


@partial(jax.jit, static_argnames="cfg")
def _read(params: Any, values: jax.Array, *, cfg: EncoderConfig) -> jax.Array:
    return jax.vmap(lambda p, v: jax.vmap(lambda x: encoder.probabilities(p, x, cfg=cfg))(v))(params, values)


def learned_graphs(shops: Shops, *, study: Study, **stage: Any) -> dict[str, jax.Array]:
    """Train Stage 1 and read every part's edge probabilities: part to `[seeds, shops, nodes, nodes]`."""
    train, validation = (jnp.zeros_like(b.graph)[:, None] for b in (shops.train, shops.validation))
    (params, _), _ = graph_fits.fit(shops, train, validation, cfg=study.encoding(), stage="encoder", **stage)
    params = jax.tree.map(lambda a: a[:, 0], params)
    model = study.encoder
    parts = {"train": shops.train, "validation": shops.validation, "test": shops.test}
    return {name: _read(params, batch.values, cfg=model) for name, batch in parts.items()}


def windows(values: jax.Array, *, study: Study) -> tuple[jax.Array, jax.Array]:
    """Cut the histories that end before the last three forecast windows, and what follows them."""
    steps = study.decoder.horizon
    last = values.shape[1] - steps
    starts = np.array([s for s in (last - 2 * steps, last - steps, last) if s >= study.length])
    return influence.windows(values, starts, length=study.length, horizon=steps)


@partial(jax.jit, static_argnames="study")
def errors(params: Any, graphs: jax.Array, values: jax.Array, *, study: Study) -> jax.Array:
    """MSE@7 of the target in standardised units, of one seed's decoders under each graph: `[decoders, graphs]`."""
    past, future = windows(values, study=study)
    return influence.swap_errors(partial(_roll, study), params, graphs, past, future)[..., -1]


@partial(jax.jit, static_argnames="study")
def probe(params: Any, graphs: jax.Array, values: jax.Array, *, study: Study) -> influence.Influence:
    """Influence matrices of one seed's decoders under each graph: `[decoders, graphs, nodes, nodes]`."""
    past = values[:, -study.decoder.horizon - study.length : -study.decoder.horizon]
    unit = jnp.ones(values.shape[-1])
    own = {"cfg": study.decoder}
    roll = influence.Resumable(partial(decoder.remember, **own), partial(decoder.go_on, **own))
    return influence.swap(roll, params, graphs, past, cfg=study.push, input_sd=unit, output_sd=unit)


def _roll(study: Study, params: Any, graph: jax.Array, history: jax.Array) -> jax.Array:
    return decoder.rollout(params, graph, history, cfg=study.decoder)


def by_threshold(params: Any, learned: dict[str, jax.Array], seed: int, shops: Shops, *, study: Study) -> jax.Array:
    """Choose the threshold on the probabilities whose graphs forecast the validation shops best: test graphs."""
    both = jnp.concatenate([learned["validation"][seed], learned["test"][seed]])
    candidates = interfaces.thresholds(both, 8)
    count = learned["validation"].shape[1]
    error = errors(params, candidates[:, :count], shops.validation.values[seed], study=study)[0]
    return interfaces.by_validation(candidates, error)[count:]


def test_graphs(key: jax.Array, seed: int, shops: Shops, learned: dict[str, jax.Array], density: float) -> dict:
    """Lay out the graphs that one seed's decoders are probed under, but for `valmse`: name to `[shops, n, n]`."""
    truth, q = shops.test.graph[seed], learned["test"][seed]
    nodes = truth.shape[-1]
    stable = interfaces.stability(interfaces.hard(learned["train"][seed]))
    return {
        "none": interfaces.none(truth),
        "full": interfaces.full(truth),
        "oracle": truth,
        "soft": interfaces.soft(q),
        "hard": interfaces.hard(q),
        "topk": interfaces.top_k(q, round(density * nodes * (nodes - 1)), per="graph"),
        "stability": jnp.broadcast_to(stable, truth.shape),
        "permuted": interfaces.permuted(key_for(key, "permuted"), truth),
        "wrong": interfaces.wrong(key_for(key, "wrong"), truth),
        "reversed": interfaces.reverse(truth),
        "random": interfaces.random(key_for(key, "random"), truth),
    }


@jax.jit
def _align(key: jax.Array, matrices: jax.Array, graph: jax.Array) -> tuple[influence.Alignment, influence.Alignment]:
    def one(matrix: jax.Array, truth: jax.Array) -> influence.Alignment:
        return influence.alignment(key, matrix, truth, num_permutations=200)

    each = jax.vmap(jax.vmap(one, in_axes=(0, None)), in_axes=(0, None))
    return each(matrices, graph), each(matrices, edges.closure(graph))


def score_seed(
    seed: int, shops: Shops, learned: dict[str, jax.Array], params: Any, *, study: Study, scale: float
) -> Scores:
    """Probe one seed's decoders under every graph; `scale` is the target's variance, which makes errors raw again."""
    key = jax.random.fold_in(jax.random.key(2), seed)
    own = jax.tree.map(lambda a: a[seed], params)
    graphs = test_graphs(key, seed, shops, learned, study.encoder.density)
    soft = jax.tree.map(lambda a: a[TRAINED.index("soft")][None], own)
    graphs["valmse"] = by_threshold(soft, learned, seed, shops, study=study)
    stacked = jnp.stack([graphs[name] for name in TESTED])
    values, truth = shops.test.values[seed], shops.test.graph[seed, 0]
    mse = np.asarray(errors(own, stacked, values, study=study))
    found = probe(own, stacked, values, study=study)
    direct, total = _align(key, found.rolled, truth)
    one_step, _ = _align(key, found.one_step, truth)
    out: Scores = {}
    for a, trained in enumerate(TRAINED):
        for b, tested in enumerate(TESTED):
            values_of = {
                "mse7": mse[a, b] * scale,
                "mse7_z": mse[a, b],
                "nauprc_target": direct.target[a, b],
                "nauprc_all": direct.all[a, b],
                "nauprc_permuted": direct.target_chance.mean[a, b],
                "nauprc_all_permuted": direct.all_chance.mean[a, b],
                "nauprc_ancestors": total.target[a, b],
                "cig_nauprc_target": one_step.target[a, b],
            }
            setting = f"{trained}>{tested}"
            out |= {Cell(setting, METHOD, name): float(value) for name, value in values_of.items()}
    off = ~np.eye(truth.shape[0], dtype=bool)
    for name in TESTED:
        graph = np.asarray(graphs[name])
        out[Cell("graph", name, "density")] = float(graph[:, off].mean())
        out[Cell("graph", name, "auroc")] = float(
            jnp.mean(edge_scores.auroc(jnp.asarray(graph[:, off]), jnp.broadcast_to(truth[off], graph[:, off].shape)))
        )
    return out


def checks(rows: list[Row], size: str) -> list[Check]:
    """Hold the means over seeds against the published pattern."""
    if size != "full":
        return []

    def value(setting: str, quantity: str) -> float | None:
        return common.value_of(rows, Cell(setting, METHOD, quantity))

    error = [value(s, "mse7") or math.nan for s in ("none>none", "full>full", "oracle>oracle")]
    return [
        Check("none: influence is no attribution", value("none>none", "nauprc_target"), -0.02, 0.02),
        Check("full: influence is no attribution", value("full>full", "nauprc_target"), -math.inf, 0.15),
        Check("oracle: influence follows the graph", value("oracle>oracle", "nauprc_target"), 0.65, 1.0),
        Check("hard, its learned graph", value("hard>hard", "nauprc_target"), -math.inf, 0.10),
        Check("hard, swapped to the oracle graph", value("hard>oracle", "nauprc_target"), 0.80, 1.0),
        Check("hard, swapped to a wrong graph of equal density", value("hard>wrong", "nauprc_target"), -1.0, 0.10),
        Check("largest MSE@7 of none, full, oracle over the smallest", max(error) / min(error), 1.0, 1.25),
    ]


def main(options: Options, observer: Observer, study: Study | None = None) -> Path:
    """Run the study and write its result."""
    study = study or (FULL if options.size == "full" else SMOKE)
    seeds = [study.first + at for at in range(options.seeds or study.seeds)]
    owner, clock = fingerprint(study, seeds), common.Clock(options.out)
    shops = make_shops(jnp.asarray(seeds), study=study)
    where = {"observer": observer, "fingerprint": owner}
    learned = learned_graphs(shops, study=study, folder=options.out / "encoder", **where)
    clock.read()
    supplied = [
        jnp.stack([interfaces.none(t), interfaces.full(t), t, interfaces.soft(q), interfaces.hard(q)], 1)
        for t, q in (
            (shops.train.graph, learned["train"]),
            (shops.validation.graph, learned["validation"]),
        )
    ]
    (params, _), _ = graph_fits.fit(
        shops, *supplied, cfg=study.decoding(), folder=options.out / "decoders", stage="decoders", **where
    )
    clock.read()
    found = []
    for at in range(len(seeds)):
        variance = float(shops.scale.sd[at, -1]) ** 2
        found.append(score_seed(at, shops, learned, params, study=study, scale=variance))
        observer(Event("probe", at + 1, len(seeds), unit="seed"))
    rows = common.summarise(found, reference=PUBLISHED)
    return common.write_result(
        options,
        NAME,
        rows,
        seeds=seeds,
        seconds=clock.read(),
        checks=checks(rows, options.size),
        facts={"study": dataclasses.asdict(study)},
    )


if __name__ == "__main__":
    sys.exit(common.run("experiments.attribution_bypass", main))
