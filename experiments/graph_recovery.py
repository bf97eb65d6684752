"""Does an encoder find the graph, and does it keep it? DICE's first stage beside CausalMMM on swaps of R, d and T.

R shops of T steps share three graphs of d nodes; encoders learn from 70 % of the shops, select on 10 % and are scored
on 20 % by AUROC of the off-diagonal edge probabilities, shop by shop: at the best epoch (a look at the truth that
nobody has), at the last, and averaged over the last 20 ("Final-20": what remains once training goes on). Selection
never looks at AUROC. `causalmmm_quirks` is CausalMMM as its authors' code has it, `causalmmm` the form mended as its
text says (see `wmjax.graph.causalmmm`); both are learnt in batches and narrower than theirs. `linear_granger` is each
shop's own regression on three lags of all nodes. `log_style` is a world of another kind: bursty spends, multiplicative
response.

The paper's sizes and generator are not public: signs can be compared, decimals cannot.
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
from wmjax.core.observe import Event, Observer
from wmjax.core.provenance import fingerprint
from wmjax.evaluate import edge_scores
from wmjax.graph import causalmmm, edges, encoder
from wmjax.graph.causalmmm import CausalMMMConfig
from wmjax.graph.encoder import EncoderConfig
from wmjax.graph.learn import LearnConfig
from wmjax.graph.series import Batch
from wmjax.simulate import channel_logs, channels
from wmjax.simulate.channel_logs import LogConfig
from wmjax.simulate.channels import ChannelConfig

NAME = "graph_recovery"
FINAL = 20


def _cells() -> dict[str, ChannelConfig | LogConfig]:
    base, change = ChannelConfig(shops=100), dataclasses.replace
    return {
        "base": base,
        "R=50": change(base, shops=50),
        "R=200": change(base, shops=200),
        "d=5": change(base, nodes=5),
        "d=12": change(base, nodes=12),
        "T=50": change(base, times=50),
        "log_style": LogConfig(shops=100),
    }


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is run.

    Attributes:
        cells: setting to world.
        dice, quirks, mended: the encoders.
        epochs: of each.
        dice_rate, causal_rate: their learning rates; CausalMMM's is its authors'.
        batch_size: shops a step.
        lags: of the linear Granger regression.
        seeds: how many where the command line does not say.
    """

    cells: dict[str, ChannelConfig | LogConfig] = field(default_factory=_cells, hash=False)
    dice: EncoderConfig = field(default_factory=lambda: EncoderConfig(hidden=32))
    quirks: CausalMMMConfig = field(default_factory=lambda: CausalMMMConfig(quirks=True, hidden=32, horizon=10))
    mended: CausalMMMConfig = field(default_factory=lambda: CausalMMMConfig(hidden=32))
    epochs: int = 60
    dice_rate: float = 2e-3
    causal_rate: float = 5e-4
    batch_size: int = 16
    lags: int = 3
    seeds: int = 5

    def methods(self) -> dict[str, LearnConfig]:
        """Say how each encoder is learnt."""
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
        return {"dice": dice, "causalmmm_quirks": quirks, "causalmmm": mended}


FULL = Study()
SMOKE = Study(
    cells={"base": ChannelConfig(shops=20, nodes=5, times=30)},
    dice=EncoderConfig(hidden=4, edge_hidden=4, embedding=2),
    quirks=CausalMMMConfig(quirks=True, hidden=4, horizon=10),
    mended=CausalMMMConfig(hidden=4),
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


@dataclass(frozen=True)
class Watch:
    """Reads the graph off an encoder and scores it on shops that it has not seen; a value, compiled once."""

    model: EncoderConfig | CausalMMMConfig

    def __call__(self, params: Any, stats: Any, test: Batch) -> dict[str, jax.Array]:
        if isinstance(self.model, EncoderConfig):
            model = self.model
            q = jax.vmap(lambda v: encoder.probabilities(params, v, cfg=model))(test.values)
        else:
            q = causalmmm.probabilities(params, stats, test.values, cfg=self.model)
        return {"auroc": mean_auroc(q, test.graph), "density": jnp.mean(_flat(q))}


def _flat(matrices: jax.Array) -> jax.Array:
    senders, receivers = edges.off_diagonal_pairs(matrices.shape[-1])
    return matrices[..., senders, receivers]


def mean_auroc(scores: jax.Array, graph: jax.Array) -> jax.Array:
    """Average the shops' AUROC over the off-diagonal pairs."""
    return jnp.nanmean(edge_scores.auroc(_flat(scores), _flat(graph)))


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


def score_cell(
    setting: str, seeds: list[int], *, study: Study, folder: Path, observer: Observer, reports: Any
) -> list[Scores]:
    """Learn every encoder on one cell, all seeds in one program each, and score them: by seed."""
    cfg = study.cells[setting]
    shops = make_shops(jnp.asarray(seeds), cfg=cfg)
    found: list[Scores] = [{} for _ in seeds]
    idle = [jnp.zeros_like(b.graph)[:, None] for b in (shops.train, shops.validation)]
    for method, learning in study.methods().items():
        _, history = graph_fits.fit(
            shops,
            *idle,
            cfg=learning,
            folder=folder / method,
            stage=f"{setting}, {method}",
            observer=observer,
            fingerprint=fingerprint(learning, cfg, seeds),
            watch=Watch(learning.model),  # type: ignore[arg-type]
        )
        reports()
        for at, scores in enumerate(found):
            curve = np.asarray(history["auroc"])[:, at]
            values = {
                "auroc_best": curve.max(),
                "auroc_last": curve[-1],
                "final20_auroc": curve[-FINAL:].mean(),
                "density": np.asarray(history["density"])[-1, at],
                "mse7": np.asarray(history["validation_mse7"])[-1, at],
            }
            scores |= {Cell(setting, method, name): float(value) for name, value in values.items()}
    for at, scores in enumerate(found):
        tests = np.asarray(shops.test.values[at], np.float64)
        f = jnp.asarray(np.stack([granger(v, study.lags) for v in tests]), jnp.float32)
        scores[Cell(setting, "linear_granger", "auroc_last")] = float(mean_auroc(f, shops.test.graph[at]))
    return found


def checks(found: list[Scores], size: str) -> list[Check]:
    """Count the seeds on which DICE's Final-20 AUROC is above both forms of CausalMMM, cell by cell."""
    if size != "full":
        return []
    out = []
    for setting in dict.fromkeys(cell.setting for scores in found for cell in scores):
        own = [s for s in found if Cell(setting, "dice", "final20_auroc") in s]
        wins = [
            all(
                s[Cell(setting, "dice", "final20_auroc")] > s[Cell(setting, m, "final20_auroc")]
                for m in ("causalmmm", "causalmmm_quirks")
            )
            for s in own
        ]
        out.append(Check(f"{setting}: seeds on which DICE stays above", float(sum(wins)), 0.8 * len(own), math.inf))
    return out


def main(options: Options, observer: Observer, study: Study | None = None) -> Path:
    """Run the study cell by cell; the result is written after each."""
    study = study or (FULL if options.size == "full" else SMOKE)
    seeds = list(range(options.seeds or study.seeds))
    clock, found = common.Clock(options.out), []
    path = options.out
    for at, setting in enumerate(study.cells):
        found += score_cell(
            setting, seeds, study=study, folder=options.out / setting, observer=observer, reports=clock.read
        )
        observer(Event("cells", at + 1, len(study.cells), unit="cell"))
        rows: list[Row] = common.summarise(found)
        facts = {
            "study": {f.name: getattr(study, f.name) for f in dataclasses.fields(study) if f.name != "cells"},
            "cells": {name: dataclasses.asdict(cfg) for name, cfg in study.cells.items()},
            "cells_done": at + 1,
        }
        facts["study"] |= {n: dataclasses.asdict(facts["study"][n]) for n in ("dice", "quirks", "mended")}
        path = common.write_result(
            options,
            NAME,
            rows,
            seeds=seeds,
            seconds=clock.read(),
            checks=checks(found, options.size),
            facts=facts,
        )
    return path


if __name__ == "__main__":
    sys.exit(common.run("experiments.graph_recovery", main))
