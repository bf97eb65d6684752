"""Where does which method win? Sixty-four simulated worlds, four seeds each, one question: what a sale does to buying.

The worlds differ in consumers, days learnt from, confounding (a sale drawn by a coin a consumer and day, or given e^3
times as often, in odds, to those who have not bought for a week) and noise (the shock on every utility). A sale cuts
the price by a quarter, so that consumers, who differ in price sensitivity, gain about half a logit; all that a sale
follows is among the visible bits. Methods learn from the train days (the two networks choose their epoch by the 14 days
after) and answer for the 28 days after that: `traits` (each consumer's own level and responsiveness, filtered from all
days seen), `constant` (the same without responsiveness of its own: one effect on the logit scale), `additive` (the form
of the consumer world's adapters, on the bits), `s_learner` (a network on bits and actions) and `difference` (of the
means with and without a sale, which confounding moves). Scored on the probability scale against the truth, the shock
averaged: `root_pehe`, `rank` of the rows by effect, `ate_error`. `wins` counts worlds whose mean root-PEHE is the
smallest, and from that of each other method clear: Student's t of the paired differences over seeds at 97.5 % (two
equal methods give one false win in twenty worlds); `smallest` those where it is the smallest at all.

A piece is one world and seed, kept when it is done.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from scipy import stats
from scipy.special import expit

from experiments import adapters, common, consumer_data
from experiments.adapters import Table
from experiments.common import Cell, Options, Row, Scores, read_scores, write_scores
from experiments.consumer_data import ConsumerData
from experiments.three_in_one_beyond import ask, trait_data
from wmjax.core import files
from wmjax.core.keys import key_for
from wmjax.core.observe import Event, Observer, silent
from wmjax.core.provenance import fingerprint
from wmjax.evaluate import effects, rank
from wmjax.heads.adapter import AdapterConfig
from wmjax.heads.traits import TraitConfig
from wmjax.heads.warm import Cells
from wmjax.simulate import consumer_truth
from wmjax.simulate.consumer import PUBLISHED, ConsumerSimConfig
from wmjax.simulate.consumer_frame import ACTIONS, OUTCOMES

NAME = "world_grid"
SALE, PURCHASE = ACTIONS.index("sale1"), OUTCOMES.index("purchase")
METHODS = ("traits", "constant", "additive", "s_learner", "difference")
COLOURS = ("#2f6fb0", "#8a8a8a", "#3f9b6c", "#d08a2a", "#b0413e")


def _network(form: Any) -> AdapterConfig:
    return AdapterConfig(
        form=form, batch_size=256, learning_rate=1e-3, schedule="plateau", epochs=40, patience=8, monitor="loss"
    )


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is run.

    Attributes:
        consumers, days, targeting, shock: levels of the grid; days are those learnt from, targeting the log odds ratio
            by which a sale follows lapsed consumers, shock the scale of the utility's Gumbel noise.
        cut: of a sale, as a share of the price.
        val, test: days after those learnt from.
        seeds: panels of each world.
        head: of the traits.
        networks: of the adapters, by method.
    """

    consumers: tuple[int, ...] = (64, 128, 256, 512)
    days: tuple[int, ...] = (30, 60, 120, 240)
    targeting: tuple[float, ...] = (0.0, 3.0)
    shock: tuple[float, ...] = (0.1, 1.5)
    cut: float = 0.25
    val: int = 14
    test: int = 28
    seeds: int = 4
    head: TraitConfig = field(default_factory=TraitConfig)
    networks: tuple[tuple[str, AdapterConfig], ...] = (
        ("additive", _network("additive")),
        ("s_learner", _network("mlp")),
    )

    def worlds(self) -> list[World]:
        """List the worlds; those of equal sizes, whose programs are equal, follow each other."""
        return [World(*levels) for levels in itertools.product(self.consumers, self.days, self.targeting, self.shock)]


@dataclass(frozen=True)
class World:
    """One point of the grid."""

    consumers: int
    days: int
    targeting: float
    shock: float

    @property
    def name(self) -> str:
        return f"consumers={self.consumers} days={self.days} targeting={self.targeting:g} shock={self.shock:g}"


FULL = Study()
SMOKE = Study(
    consumers=(32,),
    days=(30,),
    targeting=(3.0,),
    shock=(0.1, 1.5),
    seeds=1,
    head=TraitConfig(rounds=2),
    networks=tuple((n, dataclasses.replace(c, epochs=1)) for n, c in FULL.networks),
)


def simulate(world: World, seed: int, study: Study) -> ConsumerData:
    """Draw one panel of a world."""
    params = PUBLISHED._replace(cut_sale1=study.cut, targeting=world.targeting, gumbel_scale=world.shock)
    cfg = ConsumerSimConfig(
        num_consumers=world.consumers,
        num_days=world.days + study.val + study.test,
        seed=1000 + seed,
        sale="targeted",
        sale_seed=2000 + seed,
        params=params,
    )
    return consumer_data.make(cfg, val=study.val, test=study.test)


def estimate(key: jax.Array, data: ConsumerData, world: World, *, study: Study) -> dict[str, np.ndarray]:
    """Give every method's effects in the test rows, on the probability scale."""
    panel, found = trait_data(data, PURCHASE, data.bits), {}
    for method, cfg in (("traits", study.head), ("constant", dataclasses.replace(study.head, unexplained=2.0))):
        base, gain = ask(panel, data.days, cfg=cfg).effect(panel, SALE, data.days[2])
        found[method] = (expit(base + gain) - expit(base)).ravel()
    train, val, test = (Table(*data.rows(part)[:3]) for part in range(3))
    train, val = (t._replace(outcomes=t.outcomes[:, [PURCHASE]]) for t in (train, val))
    for method, cfg in study.networks:
        plain: dict[str, Any] = {"folder": None, "observer": silent, "fingerprint": "", "stage": NAME}
        cells = Cells(*jnp.divmod(jnp.arange(len(train.actions)), world.days), world.consumers, world.days)
        own = adapters.fit(
            key_for(key, method), train, val, cfg=cfg, cells=cells if cfg.form == "additive" else None, **plain
        )
        found[method] = own.effect(0, SALE, test.features, test.actions)["prob"]
    on = train.actions[:, SALE] == 1
    gap = float(train.outcomes[on].mean() - train.outcomes[~on].mean())
    return found | {"difference": np.full(len(test.actions), gap)}


def score(world: World, data: ConsumerData, found: dict[str, np.ndarray]) -> Scores:
    """Score effects against the truth of the test rows."""
    true = consumer_truth.effect(data.sim, "sale1", "purchase", cfg=data.cfg, gumbel="averaged")
    truth = true.probability[:, data.days[2]].ravel()
    out: Scores = {Cell(world.name, "truth", "mean"): float(truth.mean())}
    for method, own in found.items():
        out[Cell(world.name, method, "root_pehe")] = float(effects.pehe(own, truth))
        out[Cell(world.name, method, "ate_error")] = float(effects.ate_error(own, truth))
        if np.ptp(own) > 0:
            out[Cell(world.name, method, "rank")] = float(rank.spearman(own, truth))
    return out


class Best(NamedTuple):
    """The method of the smallest mean root-PEHE, that over the constant effect's, and whether it is clearly so."""

    method: str
    ratio: float
    clear: bool


def best_of(found: list[Scores], world: World) -> Best:
    """Compare the methods on one world's seeds."""
    errors = {m: np.array([scores[Cell(world.name, m, "root_pehe")] for scores in found]) for m in METHODS}
    first, *others = sorted(METHODS, key=lambda m: errors[m].mean())
    count = len(errors[first])
    gaps = np.stack([errors[m] - errors[first] for m in others])
    least = stats.t.ppf(0.975, count - 1) * gaps.std(1, ddof=1) / np.sqrt(count) if count > 1 else np.inf
    return Best(first, float(errors[first].mean() / errors["constant"].mean()), bool((gaps.mean(1) > least).all()))


def draw(found: list[Scores], study: Study, path: Path) -> None:
    """Draw a map for each confounding and noise: the best method's colour, pale where it is not clearly so, and its
    error over that of one common effect.
    """
    facets = list(itertools.product(study.targeting, study.shock))
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(2.7 * len(facets), 3.1), layout="constrained")
        canvas, axes = FigureCanvasAgg(figure), figure.subplots(1, len(facets), sharey=True, squeeze=False)[0]
        for ax, (targeting, shock) in zip(axes, facets, strict=True):
            for (i, consumers), (j, days) in itertools.product(enumerate(study.consumers), enumerate(study.days)):
                best = best_of(found, World(consumers, days, targeting, shock))
                colour, alpha = COLOURS[METHODS.index(best.method)], 0.85 if best.clear else 0.35
                ax.add_patch(Rectangle((j, i), 1, 1, color=colour, alpha=alpha, lw=0))
                ink = "white" if best.clear else "black"
                ax.text(j + 0.5, i + 0.5, f"{best.ratio:.2f}", ha="center", va="center", color=ink)
            ax.set(xlim=(0, len(study.days)), ylim=(0, len(study.consumers)), xlabel="days learnt from")
            ax.set_xticks(np.arange(len(study.days)) + 0.5, map(str, study.days))
            ax.set_yticks(np.arange(len(study.consumers)) + 0.5, map(str, study.consumers))
            ax.set_title(f"{'by a coin' if targeting == 0 else 'confounded'}, shock {shock:g}", loc="left", fontsize=9)
            ax.spines[:].set_visible(False)
            ax.tick_params(length=0)
        axes[0].set_ylabel("consumers")
        marks = [Patch(color=c, alpha=0.75, label=m) for m, c in zip(METHODS, COLOURS, strict=True)]
        figure.legend(handles=marks, loc="outside lower center", ncols=len(METHODS), frameon=False)
        with files.replacing(path) as part:
            canvas.print_png(part)


def run_world(world: World, study: Study, seeds: list[int], folder: Path) -> list[Scores]:
    """Run one world's seeds; a finished one is read from its file."""
    found = []
    for seed in seeds:
        kept, owner = folder / f"{world.name.replace(' ', ',')}-{seed}.json", fingerprint(study, world, seed)
        if (scores := read_scores(kept, owner)) is None:
            data = simulate(world, seed, study)
            scores = score(world, data, estimate(key_for(jax.random.key(seed), NAME), data, world, study=study))
            write_scores(kept, owner, scores)
        found.append(scores)
    return found


def work(options: Options, observer: Observer, study: Study | None = None) -> Path:
    """Run every world, draw the map and write the result."""
    study = study or (FULL if options.size == "full" else SMOKE)
    clock, seeds = common.Clock(options.out), list(range(options.seeds or study.seeds))
    found: list[Scores] = [{} for _ in seeds]
    worlds = study.worlds()
    for at, world in enumerate(worlds):
        observer(Event("worlds", at, len(worlds), unit="world"))
        for every, own in zip(found, run_world(world, study, seeds, options.out / "worlds"), strict=True):
            every |= own
        clock.read()
    observer(Event("worlds", len(worlds), len(worlds), unit="world"))
    rows = common.summarise(found)
    draw(found, study, options.out / f"{NAME}.png")
    rows += tell(found, study)
    facts = {"study": dataclasses.asdict(study)}
    return common.write_result(options, NAME, rows, seeds=seeds, seconds=clock.read(), facts=facts)


def tell(found: list[Scores], study: Study) -> list[Row]:
    """Sum the grid up: worlds won, and means over worlds, seed by seed; of all, and of each level of an axis."""
    groups = {"all": study.worlds()}
    for axis in ("consumers", "days", "targeting", "shock"):
        for level in getattr(study, axis):
            groups[f"{axis}={level:g}"] = [w for w in study.worlds() if getattr(w, axis) == level]
    out: list[Row] = []
    for name, worlds in groups.items():
        best = [best_of(found, world) for world in worlds]
        for method in METHODS:
            own = [b for b in best if b.method == method]
            counts = {"wins": sum(b.clear for b in own), "smallest": len(own)}
            out += common.summarise([{Cell(name, method, n): float(v) for n, v in counts.items()}])
            means: list[Scores] = [{} for _ in found]
            for mean, scores in zip(means, found, strict=True):
                for quantity in ("root_pehe", "ate_error", "rank"):
                    cells = [Cell(world.name, method, quantity) for world in worlds]
                    if known := [scores[cell] for cell in cells if cell in scores]:
                        mean[Cell(name, method, quantity)] = float(np.mean(known))
            out += common.summarise(means)
    return out


if __name__ == "__main__":
    sys.exit(common.run(f"experiments.{NAME}", work))
