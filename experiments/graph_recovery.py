"""Does an encoder find the graph, and does it keep it? DICE's first stage beside CausalMMM on swaps of R, d and T.

R shops of T steps share three graphs of d nodes; encoders learn from 70 % of the shops, select on 10 % and are scored
on 20 % by AUROC of the off-diagonal edge probabilities, shop by shop: at the best epoch (a look at the truth that
nobody has), at the last, and averaged over the last 20 ("Final-20": what remains once training goes on). Selection
never looks at AUROC. `causalmmm_quirks` is CausalMMM as its authors' code has it, `causalmmm` the form mended as its
text says (see `wmjax.graph.causalmmm`); both are learnt in batches and narrower than theirs. `neural_granger` and
`linear_granger` look at each shop alone: a network with a path of group penalties (`wmjax.graph.neural_granger`) and a
regression, on three lags of all nodes. `log_style` is a world of another kind: bursty spends, multiplicative response.

The paper's sizes and generator are not public: signs can be compared, decimals cannot.

A piece is one method on one setting: all seeds and all epochs in one program that never waits for the host, compiled
while others run, and kept in `graph_recovery_pieces.json` when it is done.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import common, graph_fits
from experiments.common import Cell, Check, Row, Scores
from experiments.graph_fits import Shops
from wmjax.core import files
from wmjax.core.errors import DivergedError, UserError
from wmjax.core.keys import key_for
from wmjax.core.observe import Event, Observer
from wmjax.core.provenance import fingerprint
from wmjax.evaluate import edge_scores
from wmjax.graph import causalmmm, edges, encoder, learn, neural_granger
from wmjax.graph.causalmmm import CausalMMMConfig
from wmjax.graph.encoder import EncoderConfig
from wmjax.graph.learn import LearnConfig
from wmjax.graph.neural_granger import NeuralGrangerConfig
from wmjax.graph.series import Split
from wmjax.simulate import channel_logs, channels
from wmjax.simulate.channel_logs import LogConfig
from wmjax.simulate.channels import ChannelConfig

NAME = "graph_recovery"
FINAL = 20
UNROLL = 4
"""Time steps to a turn of a loop on an accelerator."""


@dataclass(frozen=True, kw_only=True)
class Options(common.Options):
    """The command line.

    Attributes:
        only: pieces to run, separated by commas, as `setting`, `setting/method` or `/method`; empty runs all.
        epochs: of the encoders; 0 leaves it to the size.
    """

    only: str = ""
    epochs: int = 0


def _cells() -> dict[str, ChannelConfig | LogConfig]:
    base, change = ChannelConfig(shops=100), dataclasses.replace
    return {
        "base": base,
        "log_style": LogConfig(shops=100),
        "d=12": change(base, nodes=12),
        "T=50": change(base, times=50),
        "R=50": change(base, shops=50),
        "R=200": change(base, shops=200),
        "d=5": change(base, nodes=5),
    }


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is run, the settings that matter most first.

    Attributes:
        cells: setting to world.
        dice, quirks, mended: the encoders.
        granger: the networks that look at each shop alone; its lags are the linear regression's too.
        epochs: of each encoder.
        dice_rate, causal_rate: their learning rates; CausalMMM's is its authors'.
        batch_size: shops a step.
        seeds: how many where the command line does not say.
    """

    cells: dict[str, ChannelConfig | LogConfig] = field(default_factory=_cells, hash=False)
    dice: EncoderConfig = field(default_factory=lambda: EncoderConfig(hidden=32))
    quirks: CausalMMMConfig = field(default_factory=lambda: CausalMMMConfig(quirks=True, hidden=32, horizon=10))
    mended: CausalMMMConfig = field(default_factory=lambda: CausalMMMConfig(hidden=32))
    granger: NeuralGrangerConfig = field(default_factory=NeuralGrangerConfig)
    epochs: int = 200
    dice_rate: float = 2e-3
    causal_rate: float = 5e-4
    batch_size: int = 16
    seeds: int = 5

    def methods(self) -> dict[str, LearnConfig | NeuralGrangerConfig | int]:
        """Say how each method works: how an encoder is learnt, the networks' config, the regression's lags."""
        mended, quirks = (
            LearnConfig(
                model=model,
                epochs=self.epochs,
                batch_size=self.batch_size,
                learning_rate=self.causal_rate,
                schedule="halving",
                clip=0.0,
            )
            for model in (self.mended, self.quirks)
        )
        dice = LearnConfig(
            model=self.dice, epochs=self.epochs, batch_size=self.batch_size, learning_rate=self.dice_rate
        )
        return {
            "dice": dice,
            "causalmmm": mended,
            "causalmmm_quirks": quirks,
            "neural_granger": self.granger,
            "linear_granger": self.granger.lags,
        }


FULL = Study()
SMOKE = Study(
    cells={"base": ChannelConfig(shops=20, nodes=5, times=30)},
    dice=EncoderConfig(hidden=4, edge_hidden=4, embedding=2),
    quirks=CausalMMMConfig(quirks=True, hidden=4, horizon=10),
    mended=CausalMMMConfig(hidden=4),
    granger=NeuralGrangerConfig(hidden=2, penalties=(0.1, 0.4), steps=20),
    epochs=2,
    seeds=2,
)


@partial(jax.jit, static_argnames="cfg")
def make_shops(seeds: jax.Array, *, cfg: ChannelConfig | LogConfig) -> Shops:
    """Simulate and deal every seed's shops: leading axis the seeds."""
    tenth = max(2, cfg.shops // 10)

    def one(seed: jax.Array) -> Shops:
        key = jax.random.fold_in(jax.random.key(5), seed)
        if isinstance(cfg, ChannelConfig):
            truth, _, series = channels.simulate(key, cfg=cfg)
            values, context = series.values, truth.context
        else:
            truth, _, values = channel_logs.simulate(key, cfg=cfg)
            context = jnp.zeros((cfg.shops, channels.CONTEXTS))
        return graph_fits.deal(values, truth.graph, context, validation=tenth, test=2 * tenth)

    return jax.vmap(one)(seeds)


def _flat(matrices: jax.Array) -> jax.Array:
    senders, receivers = edges.off_diagonal_pairs(matrices.shape[-1])
    return matrices[..., senders, receivers]


def mean_auroc(scores: jax.Array, graph: jax.Array) -> jax.Array:
    """Average the shops' AUROC over the off-diagonal pairs."""
    return jnp.nanmean(edge_scores.auroc(_flat(scores), _flat(graph)))


def read_graph(model: Any, params: Any, stats: Any, values: jax.Array) -> jax.Array:
    """Read the edge probabilities of shops off an encoder."""
    if isinstance(model, EncoderConfig):
        return jax.vmap(lambda v: encoder.probabilities(params, v, cfg=model))(values)
    return causalmmm.probabilities(params, stats, values, cfg=model)


@partial(jax.jit, static_argnames="learning")
def learn_encoders(seeds: jax.Array, shops: Shops, *, learning: LearnConfig) -> dict[str, jax.Array]:
    """Learn one encoder a seed and look, after each epoch, at its graphs of shops that it has not seen.

    Returns:
        `auroc`, `density`, `loss` and `mse7` (of the validation shops), `[seeds, epochs]`.
    """

    def one(seed: jax.Array, own: Shops) -> dict[str, jax.Array]:
        def watch(state: learn.LearnState) -> dict[str, jax.Array]:
            q = read_graph(learning.model, state.params, state.stats, own.test.values)
            return {"auroc": mean_auroc(q, own.test.graph), "density": jnp.mean(_flat(q))}

        key = key_for(jax.random.fold_in(jax.random.key(0), seed), "fit")
        _, history = learn.fit(key, Split(own.train, own.validation), cfg=learning, watch=watch)
        return {name: history[name] for name in ("auroc", "density", "loss")} | {"mse7": history["validation_mse7"]}

    # An accelerator would otherwise round products to ten bits, which inverses and small differences do not bear.
    with jax.default_matmul_precision("float32"):
        return jax.vmap(one)(seeds, shops)


@partial(jax.jit, static_argnames="cfg")
def rank_by_networks(seeds: jax.Array, shops: Shops, *, cfg: NeuralGrangerConfig) -> dict[str, jax.Array]:
    """Fit every test shop's networks and rank its edges: `auroc [seeds, 1]`."""

    def one(seed: jax.Array, own: Shops) -> jax.Array:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(6), seed), own.test.values.shape[0])
        strength = jax.vmap(lambda k, v: neural_granger.rank(k, v, cfg=cfg))(keys, own.test.values)
        return mean_auroc(strength, own.test.graph)[None]

    with jax.default_matmul_precision("float32"):
        return {"auroc": jax.vmap(one)(seeds, shops)}


def granger(values: np.ndarray, lags: int) -> np.ndarray:
    """Test each sender's lags in one shop's regression on all nodes' lags: F statistics `[nodes, nodes]`, row sends."""
    times, nodes = values.shape
    columns = np.stack([values[lags - 1 - k : times - 1 - k] for k in range(lags)], 1)
    columns = columns - columns.mean(0)
    after = values[lags:] - values[lags:].mean(0)

    def left(kept: np.ndarray) -> np.ndarray:
        x = columns[:, :, kept].reshape(len(columns), -1)
        return np.sum((after - x @ np.linalg.lstsq(x, after, rcond=None)[0]) ** 2, axis=0)

    whole = left(np.arange(nodes))
    return np.stack([left(np.delete(np.arange(nodes), i)) / whole - 1 for i in range(nodes)])


def rank_by_regression(shops: Shops, lags: int) -> dict[str, np.ndarray]:
    """Rank every test shop's edges by `granger`: `auroc [seeds, 1]`."""
    tests = np.asarray(shops.test.values, np.float64)
    f = np.stack([[granger(v, lags) for v in values] for values in tests])
    found = [mean_auroc(jnp.asarray(a, jnp.float32), g) for a, g in zip(f, shops.test.graph, strict=True)]
    return {"auroc": np.array(found)[:, None]}


class Piece(NamedTuple):
    """One method on one setting: what is computed at once and kept at once."""

    setting: str
    method: str


def pieces_of(study: Study, only: str = "") -> list[Piece]:
    """List the pieces asked for, all methods of the first setting first.

    Raises:
        UserError: nothing goes by a name asked for.
    """
    every = [Piece(setting, method) for setting in study.cells for method in study.methods()]
    asked = [name.strip() for name in only.split(",") if name.strip()]
    for name in asked:
        if not any(_is_asked(piece, name) for piece in every):
            raise UserError(f"no piece is named {name!r}; settings: {', '.join(study.cells)}")
    return [piece for piece in every if not asked or any(_is_asked(piece, name) for name in asked)]


def _is_asked(piece: Piece, name: str) -> bool:
    return name in (piece.setting, f"{piece.setting}/{piece.method}", f"/{piece.method}")


class Programs:
    """The pieces' programs, compiled beside the work in threads; settings of equal sizes share one."""

    def __init__(self, study: Study, pieces: list[Piece], seeds: jax.Array) -> None:
        threads = max(1, (os.cpu_count() or 2) - 1)
        self.study, self.seeds = study, seeds
        self.pool = concurrent.futures.ThreadPoolExecutor(threads)
        self.shops: dict[str, concurrent.futures.Future] = {}
        self.learners: dict[Any, concurrent.futures.Future] = {}
        for piece in pieces:
            if piece.setting not in self.shops:
                self.shops[piece.setting] = self.pool.submit(self._simulate, study.cells[piece.setting])
            self._learner(piece)

    def _simulate(self, cfg: ChannelConfig | LogConfig) -> Shops:
        return make_shops.lower(self.seeds, cfg=cfg).compile()(self.seeds)

    def _learner(self, piece: Piece) -> concurrent.futures.Future | None:
        how = self.study.methods()[piece.method]
        if isinstance(how, int):
            return None
        shapes = jax.eval_shape(partial(make_shops, cfg=self.study.cells[piece.setting]), self.seeds)
        key = (piece.method, jax.tree.structure(shapes), *((a.shape, a.dtype) for a in jax.tree.leaves(shapes)))
        if key not in self.learners:
            self.learners[key] = self.pool.submit(_compile, how, self.seeds, shapes)
        return self.learners[key]

    def run(self, piece: Piece) -> dict[str, np.ndarray]:
        """Wait for the piece's program, run it, and give its curves `[seeds, epochs]`."""
        shops, learner = self.shops[piece.setting].result(), self._learner(piece)
        if learner is None:
            return rank_by_regression(shops, self.study.granger.lags)
        return jax.tree.map(np.asarray, learner.result()(self.seeds, shops))

    def close(self) -> None:
        """Drop what has not begun to compile."""
        self.pool.shutdown(cancel_futures=True)


def _compile(how: LearnConfig | NeuralGrangerConfig, seeds: jax.Array, shapes: Shops) -> Callable[..., Any]:
    if isinstance(how, NeuralGrangerConfig):
        return rank_by_networks.lower(seeds, shapes, cfg=how).compile()
    if isinstance(how.model, CausalMMMConfig) and jax.default_backend() != "cpu":
        how = dataclasses.replace(how, model=dataclasses.replace(how.model, unroll=UNROLL))
    return learn_encoders.lower(seeds, shapes, learning=how).compile()


def score(piece: Piece, curves: dict[str, np.ndarray]) -> list[Scores]:
    """Sum up a piece's curves: by seed.

    Raises:
        DivergedError: a loss or a score is not finite.
    """
    broken = [name for name, curve in curves.items() if not np.isfinite(curve).all()]
    if broken:
        raise DivergedError(f"{piece.setting}, {piece.method}: {', '.join(broken)} not finite")
    found = []
    for at in range(len(curves["auroc"])):
        auroc = curves["auroc"][at]
        values = {"auroc_last": auroc[-1]}
        if "density" in curves:
            values |= {
                "auroc_best": auroc.max(),
                "final20_auroc": auroc[-FINAL:].mean(),
                "density": curves["density"][at, -1],
                "mse7": curves["mse7"][at, -1],
            }
        found.append({Cell(*piece, name): float(value) for name, value in values.items()})
    return found


def gains(found: list[Scores]) -> list[Scores]:
    """Add, seed by seed, what DICE's Final-20 AUROC is above the better form of CausalMMM's."""
    out = []
    for scores in found:
        more: Scores = {}
        for setting in dict.fromkeys(cell.setting for cell in scores):
            dice, *causal = (
                scores.get(Cell(setting, m, "final20_auroc"), math.nan)
                for m in ("dice", "causalmmm", "causalmmm_quirks")
            )
            if math.isfinite(gain := dice - max(causal)) and not any(map(math.isnan, causal)):
                more[Cell(setting, "dice", "final20_above_causalmmm")] = gain
        out.append(scores | more)
    return out


def checks(found: list[Scores], size: str) -> list[Check]:
    """Count the seeds on which DICE's Final-20 AUROC is above both forms of CausalMMM, setting by setting."""
    if size != "full":
        return []
    out = []
    for setting in dict.fromkeys(cell.setting for scores in found for cell in scores):
        cell = Cell(setting, "dice", "final20_above_causalmmm")
        own = [s[cell] for s in found if cell in s]
        if own:
            won = float(sum(gain > 0 for gain in own))
            out.append(
                Check(f"{setting}: of {len(own)} seeds, those on which DICE stays above", won, 0.8 * len(own), math.inf)
            )
    return out


def main(options: Options, observer: Observer, study: Study | None = None) -> Path:
    """Run the pieces asked for; the result is written after each, of all that are kept."""
    study = study or (FULL if options.size == "full" else SMOKE)
    if options.epochs:
        study = dataclasses.replace(study, epochs=options.epochs)
    seeds = list(range(options.seeds or study.seeds))
    asked, clock = pieces_of(study, options.only), common.Clock(options.out)
    shelf = options.out / f"{NAME}_pieces.json"
    saved = files.read_json(shelf) if shelf.exists() else {}
    owners = {p: fingerprint(study.methods()[p.method], study.cells[p.setting], seeds) for p in pieces_of(study)}
    kept = {p: saved["/".join(p)] for p in owners if saved.get("/".join(p), {}).get("owner") == owners[p]}
    todo = [piece for piece in asked if piece not in kept]
    path = _write(options, study, seeds, kept, clock) if kept else options.out
    programs = Programs(study, todo, jnp.asarray(seeds))
    try:
        for at, piece in enumerate(todo):
            started = time.monotonic()
            scores = score(piece, programs.run(piece))
            plain = [[[*cell, value] for cell, value in one.items()] for one in scores]
            seconds = round(time.monotonic() - started, 2)
            kept[piece] = {"owner": owners[piece], "scores": plain, "seconds": seconds, "device": common.device()}
            files.write_json(shelf, saved | {"/".join(p): kept[p] for p in kept})
            path = _write(options, study, seeds, kept, clock)
            observer(Event("pieces", at + 1, len(todo), unit="piece"))
    finally:
        programs.close()
    return path


def _write(options: Options, study: Study, seeds: list[int], kept: dict[Piece, Any], clock: common.Clock) -> Path:
    """Write the result of all pieces that are kept, in the study's order."""
    found: list[Scores] = [{} for _ in seeds]
    ordered = [piece for piece in pieces_of(study) if piece in kept]
    for piece in ordered:
        for scores, one in zip(found, kept[piece]["scores"], strict=True):
            scores |= {Cell(*names): value for *names, value in one}
    found = gains(found)
    rows: list[Row] = common.summarise(found)
    facts = {
        "study": {f.name: getattr(study, f.name) for f in dataclasses.fields(study) if f.name != "cells"},
        "cells": {name: dataclasses.asdict(cfg) for name, cfg in study.cells.items()},
        "pieces": {"/".join(p): {name: kept[p][name] for name in ("seconds", "device")} for p in ordered},
        "pieces_in_all": len(pieces_of(study)),
    }
    facts["study"] |= {n: dataclasses.asdict(facts["study"][n]) for n in ("dice", "quirks", "mended", "granger")}
    return common.write_result(
        options, NAME, rows, seeds=seeds, seconds=clock.read(), checks=checks(found, options.size), facts=facts
    )


if __name__ == "__main__":
    sys.exit(common.run("experiments.graph_recovery", main, kind=Options))
