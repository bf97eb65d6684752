"""Which edges are there? The support chosen from data alone, at a stated rate of false discoveries, and what it costs.

The graph that Stage 1 of DICE learns is dense, and attribution fails with it. Here one graph for all shops is chosen by
`wmjax.graph.support`, on the sparse-target benchmark (decoys, edges of twice the benchmark's weakest strength), on the
R/d/T base and on the log-style shops, each with one graph, and on cells that change one thing: weaker and stronger
edges, no decoys, fewer and more shops, more nodes, more co-movement, shorter series, two channels alone that follow the
demand. On the three main settings a graph-safe decoder is then trained under the chosen support, and under the full
graph beside it, and probed as in `experiments.attribution_bypass`.

Methods: `selected` is the graph world's default, `all_clear` the same without the times at which a channel lies low;
`fixed_features` the same test with one memory and one Hill curve for every channel and no guard against common demand;
`lagged_correlation` ranks and chooses nothing; `true_features` is given every channel's true memory, curve and the
common demand: what the data could tell (not a bound: it is no regularised method). `decoder` and `decoder_full` are the
trained decoders; for those `nauprc_*` is of their influence.

No truth enters selection or tuning; sizes and settings were chosen on seeds from 100 on, the table is of seeds 0, 1, ..
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
from scipy import stats

from experiments import attribution_bypass, common, graph_fits
from experiments.attribution_bypass import Study as DecoderStudy
from experiments.common import Cell, Check, Row, Scores
from wmjax.core import files
from wmjax.core.errors import UserError
from wmjax.core.observe import Event, Observer
from wmjax.core.provenance import fingerprint
from wmjax.evaluate import edge_scores, influence
from wmjax.graph import interfaces, support
from wmjax.graph.support import SupportConfig
from wmjax.simulate import channel_logs, channels
from wmjax.simulate.channel_logs import LogConfig
from wmjax.simulate.channels import ChannelConfig, sparse_target

NAME = "support_selection"
DECOYS = {"target_load": 0.05, "parent_load": 0.5, "target_strength": 0.06}
FIXED = SupportConfig(decays=(0.5,), shapes=(2.0,), halves=(0.9,), components=1, common=False, draws=0)
TRAINED = ("decoder", "decoder_full")


@dataclass(frozen=True, kw_only=True)
class Options(common.Options):
    """The command line.

    Attributes:
        only: settings to choose supports of, separated by semicolons, and nothing else: commands that share a folder
            and a study can do so side by side, and one without it then sums up.
    """

    only: str = ""


def _cells() -> dict[str, ChannelConfig | LogConfig]:
    sparse = sparse_target(**DECOYS)
    rdt = ChannelConfig(shops=160, graphs=1)
    change = dataclasses.replace
    return {
        "sparse_target": sparse,
        "rdt": rdt,
        "log_style": LogConfig(shops=160, graphs=1),
        "sparse_target/strength=0.03": change(sparse, target_strength=0.03),
        "sparse_target/strength=0.12": change(sparse, target_strength=0.12),
        "sparse_target/no decoys": change(sparse, target_load=0.0, parent_load=1.0),
        "sparse_target/no decoys, strength=0.03": change(
            sparse, target_load=0.0, parent_load=1.0, target_strength=0.03
        ),
        "sparse_target/d=12": change(sparse, nodes=12, parents=3),
        "sparse_target/R=40": change(sparse, shops=40),
        "sparse_target/R=80": change(sparse, shops=80),
        "sparse_target/R=640": change(sparse, shops=640),
        "sparse_target/co_movement=1": change(sparse, co_movement=1.0),
        "sparse_target/co_movement=6": change(sparse, co_movement=6.0),
        "sparse_target/few followers": change(sparse, nodes=5, parents=2, parent_load=0.1),
        "rdt/R=50": change(rdt, shops=50),
        "rdt/d=5": change(rdt, nodes=5),
        "rdt/d=12": change(rdt, nodes=12),
        "rdt/T=50": change(rdt, times=50),
    }


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is run.

    Attributes:
        cells: setting to world; the first three also train decoders.
        selection: the default selector.
        decoding: how the decoders are learnt and probed; its world is not used.
        first: the first seed.
        seeds, decoder_seeds: how many for the selection, and, the first of them, for the decoders.
    """

    cells: dict[str, ChannelConfig | LogConfig] = field(default_factory=_cells, hash=False)
    selection: SupportConfig = field(default_factory=lambda: SupportConfig(draws=0))
    decoding: DecoderStudy = field(default_factory=DecoderStudy)
    first: int = 0
    seeds: int = 10
    decoder_seeds: int = 5


FULL = Study()
SMOKE = Study(
    cells={
        "sparse_target": sparse_target(**DECOYS, shops=20, times=36, nodes=5),
        "log_style": LogConfig(shops=20, times=36, nodes=5, graphs=1),
    },
    decoding=dataclasses.replace(attribution_bypass.SMOKE, validation=4, test=4),
    seeds=2,
    decoder_seeds=1,
)


@dataclass(frozen=True)
class World:
    """One simulated world: series `[shops, times, nodes]`, the graph `[nodes, nodes]`, and what a referee may use.

    `features [shops, times, nodes]` are the true saturated memories and `demand [shops, times]` the common demand.
    """

    values: np.ndarray
    graph: np.ndarray
    features: np.ndarray
    demand: np.ndarray


@partial(jax.jit, static_argnames="cfg")
def _simulate(seed: jax.Array, *, cfg: ChannelConfig | LogConfig) -> tuple[jax.Array, ...]:
    key = jax.random.fold_in(jax.random.key(3), seed)
    if isinstance(cfg, ChannelConfig):
        truth, _, series = channels.simulate(key, cfg=cfg)
        features = jax.vmap(channels.hill, (1, None, None), 1)(series.adstock, truth.shape, truth.half)
        return series.values, truth.graph[0], features, series.demand
    truth, _, values = channel_logs.simulate(key, cfg=cfg)

    def remember(memory: jax.Array, now: jax.Array) -> tuple[jax.Array, jax.Array]:
        memory = truth.decay * memory + (1 - truth.decay) * now
        return memory, memory

    memory = jax.lax.scan(remember, values[:, 0], values.swapaxes(0, 1))[1].swapaxes(0, 1)
    return values, truth.graph[0], memory, jnp.zeros(values.shape[:2])


def make(seed: int, cfg: ChannelConfig | LogConfig) -> World:
    """Simulate one world."""
    return World(*(np.asarray(a, np.float64) for a in _simulate(jnp.asarray(seed), cfg=cfg)))


def true_features(world: World) -> np.ndarray:
    """Regress the target on true features, its last value and the common demand: clustered t values `[channels]`."""
    y = world.values[:, 1:, -1]
    known = np.stack([world.values[:, :-1, -1], world.demand[:, :-1]])
    columns = np.concatenate([known, world.features[:, :-1, :-1].transpose(2, 0, 1), y[None]])
    columns = (columns - columns.mean(2, keepdims=True)).reshape(len(columns), -1)
    if not world.demand.any():
        columns = np.delete(columns, 1, axis=0)
    (shops, channels_), t = (len(world.values), world.values.shape[2] - 1), []
    for at in range(len(columns) - 1 - channels_, len(columns) - 1):
        pair, fixed = columns[[at, -1]], np.delete(columns, [at, len(columns) - 1], axis=0)
        own, left = pair - (np.linalg.lstsq(fixed.T, pair.T, rcond=None)[0]).T @ fixed
        slope = own @ left / (own @ own)
        noise = (own * (left - slope * own)).reshape(shops, -1).sum(1)
        t.append(own @ left / math.sqrt(shops / (shops - 1) * np.sum(noise**2)))
    return np.array(t)


def lagged_correlation(values: np.ndarray) -> np.ndarray:
    """Correlate every sender with every receiver one step later, shop means taken out: `[nodes, nodes]`."""
    x = values - values.mean(1, keepdims=True)
    before, after = (part.reshape(-1, x.shape[-1]) for part in (x[:, :-1], x[:, 1:]))
    spread = np.outer(np.sqrt((before**2).sum(0)), np.sqrt((after**2).sum(0)))
    return np.abs(before.T @ after) / np.maximum(spread, 1e-12)


def column_scores(scores: np.ndarray, truth: np.ndarray, chosen: np.ndarray | None, name: str) -> dict[str, float]:
    """Score a ranking and a choice of edges, both flat: nAUPRC, false discovery proportion and power."""
    out = {f"nauprc_{name}": float(edge_scores.nauprc(jnp.asarray(scores), jnp.asarray(truth)))}
    if chosen is None:
        return out
    suffix = "" if name == "target" else f"_{name}"
    out[f"nauprc_mask_{name}"] = float(edge_scores.nauprc(jnp.asarray(chosen), jnp.asarray(truth)))
    out[f"fdr{suffix}"] = float((chosen * (1 - truth)).sum() / max(chosen.sum(), 1))
    if truth.sum():
        out[f"power{suffix}"] = float((chosen * truth).sum() / truth.sum())
    return out


def score_selection(setting: str, seed: int, world: World, *, study: Study) -> tuple[Scores, np.ndarray]:
    """Choose the support by every method and score it; the default's support comes with the scores."""
    truth, off = world.graph, ~np.eye(len(world.graph), dtype=bool)
    out: Scores = {}
    rate = study.selection.rate

    def put(method: str, values: dict[str, float]) -> None:
        out.update({Cell(setting, method, name): value for name, value in values.items()})

    chosen = np.zeros_like(truth)
    clear = dataclasses.replace(study.selection, all_clear=True)
    for method, cfg in (("selected", study.selection), ("all_clear", clear), ("fixed_features", FIXED)):
        found = support.select(np.random.default_rng(seed), world.values, cfg=cfg)
        put(method, column_scores(found.t[:-1, -1], truth[:-1, -1], found.graph[:-1, -1], "target"))
        put(method, column_scores(found.t[off], truth[off], found.graph[off], "all"))
        chosen = found.graph if method == "selected" else chosen
    crossed = lagged_correlation(world.values)
    put("lagged_correlation", column_scores(crossed[:-1, -1], truth[:-1, -1], None, "target"))
    put("lagged_correlation", column_scores(crossed[off], truth[off], None, "all"))
    t = true_features(world)
    kept = stats.false_discovery_control(stats.t.sf(t, len(world.values) - 1)) <= rate
    put("true_features", column_scores(t, truth[:-1, -1], kept.astype(float), "target"))
    return out, chosen


def score_decoders(
    setting: str, worlds: list[World], supports: list[np.ndarray], *, study: Study, folder: Path, observer: Observer
) -> list[Scores]:
    """Train decoders under the chosen supports and under the full graph, and probe each under its own: by seed."""
    cfg = study.decoding
    shops = [
        graph_fits.deal(
            jnp.asarray(w.values, jnp.float32),
            jnp.broadcast_to(jnp.asarray(w.graph, jnp.float32), (len(w.values), *w.graph.shape)),
            jnp.zeros((len(w.values), 0)),
            validation=cfg.validation,
            test=cfg.test,
        )
        for w in worlds
    ]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *shops)
    chosen = jnp.asarray(np.stack(supports), jnp.float32)
    graphs = jnp.stack([chosen, interfaces.full(chosen)], 1)
    give = [
        jnp.broadcast_to(graphs[:, :, None], (*graphs.shape[:2], b.values.shape[1], *graphs.shape[2:]))
        for b in (stacked.train, stacked.validation)
    ]
    (params, _), _ = graph_fits.fit(
        stacked,
        *give,
        cfg=cfg.decoding(),
        folder=folder,
        stage=f"decoders of {setting}",
        observer=observer,
        fingerprint=fingerprint(cfg, setting, study.cells[setting], study.first, len(worlds)),
    )
    found = []
    for at, world in enumerate(worlds):
        own = jax.tree.map(lambda a, at=at: a[at], params)
        values = stacked.test.values[at]
        tried = jnp.broadcast_to(graphs[at][:, None], (2, values.shape[0], *graphs.shape[2:]))
        mse = np.asarray(attribution_bypass.errors(own, tried, values, study=cfg))
        moved = attribution_bypass.probe(own, tried, values, study=cfg).rolled
        scores: Scores = {}
        for m, method in enumerate(TRAINED):
            key = jax.random.fold_in(jax.random.key(4), at)
            aligned = _align(key, moved[m, m], jnp.asarray(world.graph, jnp.float32))
            values_of = {
                "nauprc_target": aligned.target,
                "nauprc_all": aligned.all,
                "nauprc_permuted": aligned.target_chance.mean,
                "mse7": mse[m, m] * float(stacked.scale.sd[at, -1]) ** 2,
                "mse7_z": mse[m, m],
            }
            scores |= {Cell(setting, method, name): float(value) for name, value in values_of.items()}
        found.append(scores)
    return found


@jax.jit
def _align(key: jax.Array, matrix: jax.Array, graph: jax.Array) -> influence.Alignment:
    return influence.alignment(key, matrix, graph)


def checks(rows: list[Row], size: str) -> list[Check]:
    """Hold the means over seeds against what was asked for."""
    if size != "full":
        return []
    found = []
    for setting in dict.fromkeys(r.setting for r in rows):
        reference = common.value_of(rows, Cell(setting, "true_features", "nauprc_target"))
        rank = common.value_of(rows, Cell(setting, "selected", "nauprc_target"))
        least = 0.8 if reference is not None and reference >= 0.9 else (reference or 0) - 0.05
        found.append(Check(f"{setting}: rank of the edges into the target", rank, least, 1.0))
        fdr = common.value_of(rows, Cell(setting, "selected", "fdr"))
        found.append(Check(f"{setting}: false discoveries among them", fdr, 0.0, 0.15))
        influence_ = common.value_of(rows, Cell(setting, "decoder", "nauprc_target"))
        if influence_ is not None:
            found.append(Check(f"{setting}: influence of the decoder on the chosen support", influence_, 0.8, 1.0))
            own, full = (common.value_of(rows, Cell(setting, m, "mse7")) for m in TRAINED)
            found.append(Check(f"{setting}: its MSE@7 over the full graph's", (own or 0) / (full or 1), 0.0, 1.25))
    return found


def select_cell(setting: str, seeds: list[int], *, study: Study, folder: Path) -> tuple[list[Scores], list[np.ndarray]]:
    """Score every seed of a cell, and keep each as it is done: scores and supports."""
    cfg = study.cells[setting]
    owner = fingerprint(study.selection, FIXED, cfg)
    found, chosen = [], []
    for seed in seeds:
        kept = folder / f"seed-{seed}.json"
        saved = files.read_json(kept) if kept.exists() else {}
        if saved.get("owner") != owner:
            scores, graph = score_selection(setting, seed, make(seed, cfg), study=study)
            plain = [[*c, v if math.isfinite(v) else None] for c, v in scores.items()]
            saved = {"owner": owner, "scores": plain, "graph": graph.tolist()}
            files.write_json(kept, saved)
        found.append({Cell(*c): math.nan if v is None else v for *c, v in saved["scores"]})
        chosen.append(np.array(saved["graph"]))
    return found, chosen


def _folder(options: Options, setting: str) -> Path:
    return options.out / setting.replace("/", "-").replace(" ", "_")


def _only(options: Options, observer: Observer, study: Study, seeds: list[int]) -> Path:
    """Choose the supports of the settings asked for."""
    asked = [name.strip() for name in options.only.split(";") if name.strip()]
    unknown = [name for name in asked if name not in study.cells]
    if unknown:
        raise UserError(f"no setting is named {unknown[0]!r}; settings: {'; '.join(study.cells)}")
    for at, setting in enumerate(asked):
        select_cell(setting, seeds, study=study, folder=_folder(options, setting))
        observer(Event("supports", at + 1, len(asked), unit="cell"))
    return options.out


def main(options: Options, observer: Observer, study: Study | None = None) -> Path:
    """Run the study; its result is written once every support is chosen, and again after each setting's decoders.

    Raises:
        UserError: a setting asked for is none of the study's.
    """
    study = study or (FULL if options.size == "full" else SMOKE)
    seeds = [study.first + at for at in range(options.seeds or study.seeds)]
    if options.only:
        return _only(options, observer, study, seeds)
    few = seeds[: study.decoder_seeds]
    clock = common.Clock(options.out)
    folders = {s: _folder(options, s) for s in study.cells}
    found, supports, done = {}, {}, []
    for at, setting in enumerate(study.cells):
        found[setting], supports[setting] = select_cell(setting, seeds, study=study, folder=folders[setting])
        clock.read()
        observer(Event("supports", at + 1, len(study.cells), unit="cell"))

    def write() -> Path:
        rows = [row for setting in study.cells for row in common.summarise(found[setting])]
        facts: dict[str, Any] = {
            "selection": dataclasses.asdict(study.selection),
            "decoding": dataclasses.asdict(study.decoding),
            "cells": {name: dataclasses.asdict(cfg) for name, cfg in study.cells.items()},
            "decoder_seeds": few,
            "decoders_of": list(done),
        }
        return common.write_result(
            options, NAME, rows, seeds=seeds, seconds=clock.read(), checks=checks(rows, options.size), facts=facts
        )

    path = write()
    for setting, cfg in study.cells.items():
        if "/" not in setting:
            worlds = [make(seed, cfg) for seed in few]
            found[setting] = found[setting] + score_decoders(
                setting,
                worlds,
                supports[setting][: len(few)],
                study=study,
                folder=folders[setting] / "decoders",
                observer=observer,
            )
            done.append(setting)
            path = write()
    return path


if __name__ == "__main__":
    sys.exit(common.run("experiments.support_selection", main, kind=Options))
