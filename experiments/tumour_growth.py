"""The Causal Transformer on its own benchmark: tumours whose treatment follows their size, more so from gamma 0 to 4.

Settings `gamma=0` .. `gamma=4`; methods `ct` and `ct_alpha0` (without balancing) as published, and `ours_best`, chosen
from a few candidates by factual validation error alone. Errors are root mean squares of counterfactual volumes in
percent of the volume at death: `rmse_1` of the next day under all four treatments, `rmse_sliding_t` and `rmse_random_t`
t days ahead under plans. Published figures stand beside as references and as methods `published_..`.

A piece is one confounding's published methods (`ct-0`) or our candidates (`ours-4`): all seeds and methods of it are
one vmapped program, whole epochs are one scan, and what has been found is kept. `--pieces ct-0 ours-4` runs some of
them; the table always holds every piece that the folder has, each with the patients, epochs and members it had itself,
and says which pieces were not run. Data are drawn on the device.

What a full step costs: a member's batch is 128 x 59 tokens, and attention's scores and weights are 4 x 2 x 128 x 59 x
59 numbers, 14 MB. About 19 passes over them forward and backward (8 more for the adversary), 0.4 GB a member and step
against about 1.2 GFLOP: memory decides. Ten members at 2.5 TB/s take 1.5 ms at least, the 11,700 steps of a piece 18 s.
The 5.9 million plans of a piece's 1,000 test patients are 5 days each of about 50 kFLOP a member: seconds.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import common, tumour_asked, tumour_fits, tumour_published
from experiments.common import Cell, Check, Options, Row, Scores
from experiments.tumour_fits import FORMS, Begin, Epoch, Hyper, Learner
from wmjax.core import files
from wmjax.core.errors import UserError
from wmjax.core.keys import key_for
from wmjax.core.observe import Event, Observer
from wmjax.core.provenance import fingerprint
from wmjax.simulate import tumour
from wmjax.simulate.tumour import TumourConfig
from wmjax.train import loop, many
from wmjax.transformer import ct
from wmjax.transformer.ct import CTConfig

NAME = "tumour_growth"
ORDER = ("ct-0", "ct-2", "ct-4", "ours-4", "ct-1", "ct-3", "ours-0", "ours-2", "ours-1", "ours-3")
"""Pieces, the important ones first."""
PLANS = ("sliding", "random")


class Published(NamedTuple):
    """Published hyperparameters of one confounding."""

    network: CTConfig
    rate: float


MODERATE = Published(CTConfig(), 1e-3)
CHOSEN = {
    0: MODERATE,
    1: MODERATE,
    2: Published(CTConfig(representation=8, head_units=32), 1e-2),
    3: MODERATE,
    4: Published(CTConfig(width=12, representation=16, head_units=48), 1e-2),
}
ALPHA = 0.01
HOLDS_ALL = CTConfig(width=16, representation=16, head_units=48, features=tumour_fits.FEATURES)
"""Arrays that hold every member, so that all pieces of a kind are one program."""


class Member(NamedTuple):
    """A network: its form, and what of the published recipe it keeps."""

    form: str
    alpha: float = 0.0
    published: bool = False
    decay: float = 0.0


class Kind(NamedTuple):
    """What a piece trains on every data set, and which averages of members it reports: methods and their members."""

    members: tuple[Member, ...]
    methods: tuple[tuple[str, tuple[int, ...]], ...]
    adversary: bool


CT = Kind((Member("level", ALPHA, True), Member("level", 0.0, True)), (("ct", (0,)), ("ct_alpha0", (1,))), True)
OURS = Kind((Member("growth"),) * 3, (("ours_growth", (0,)), ("ours_growth_ensemble", (0, 1, 2))), False)
"""A network asked for the day's change was a candidate too, and never chosen: six factual days on it erred by 7.3
percent where those of growth err by .4 (five seeds, 12 epochs)."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is run.

    Attributes:
        sim: the simulator.
        train, val, test: patients; each of the three test sets has `test`.
        epochs, ours_epochs: of the published methods, as published, and of ours, an hour and a half of a CPU core.
        batch: patients in an update.
        rate: our learning rate, which falls to 0 along a cosine.
        chunk: patients whose plans are rolled out at a time.
        seeds: data sets, each with networks of its own.
        pieces: those that run where the command line does not say.
        ours: our candidates.
    """

    sim: TumourConfig = field(default_factory=TumourConfig)
    train: int = 10_000
    val: int = 1_000
    test: int = 1_000
    epochs: int = 150
    ours_epochs: int = 24
    batch: int = 128
    rate: float = 1e-2
    chunk: int = 50
    seeds: int = 5
    pieces: tuple[str, ...] = ORDER
    ours: Kind = OURS


FULL = Size()
SMOKE = Size(
    sim=TumourConfig(days=16),
    train=96,
    val=20,
    test=20,
    epochs=2,
    ours_epochs=2,
    batch=48,
    chunk=10,
    seeds=1,
    pieces=("ct-0", "ours-4"),
    # Shaped as the published piece, whose programs it shares: most of a smoke run is compiling.
    ours=Kind((Member("level"), Member("growth")), (("ours_level", (0,)), ("ours_growth", (1,))), True),
)


@dataclass(frozen=True, kw_only=True)
class TumourOptions(Options):
    """The command line.

    Attributes:
        pieces: what to run, as `ct-0` or `ours-4`, in this order; empty runs all of the size.
        test: patients of each test set, a multiple of 50; 0 leaves it to the size (1,000, as published).
    """

    pieces: tuple[str, ...] = ()
    test: int = 0


def hypers(kind: Kind, gamma: int, sets: int, size: Size) -> Hyper:
    """Lay out every member of every data set, data set by data set."""
    found = []
    for dataset in range(sets):
        for m in kind.members:
            network, rate = CHOSEN[gamma] if m.published else (HOLDS_ALL, size.rate)
            inner = dataclasses.replace(network, features=1 if m.form == "level" else HOLDS_ALL.features)
            form = (jnp.arange(len(FORMS)) == FORMS.index(m.form)).astype(jnp.float32)
            alpha, rate, cosine, decay = (jnp.float32(x) for x in (m.alpha, rate, not m.published, m.decay))
            own = ct.live(inner, HOLDS_ALL)
            found.append(Hyper(jnp.int32(dataset), alpha, rate, cosine, decay, form, own))
    return many.stack(found)


def mix_of(kind: Kind) -> jax.Array:
    """Give each method's weights of the members."""
    rows = [np.isin(np.arange(len(kind.members)), own) / len(own) for _, own in kind.methods]
    return jnp.asarray(np.stack(rows), jnp.float32)


def told_of(kind: Kind, epochs: int, size: Size) -> dict[str, Any]:
    """Say what a piece had, for its file: the command that writes the table later may be of another size."""
    told = {name: getattr(size, name) for name in ("train", "val", "test", "batch")}
    methods = {name: [kind.members[at].form for at in own] for name, own in kind.methods}
    return {**told, "epochs": epochs, "members": len(kind.members), "methods": methods}


def run_piece(name: str, seeds: Sequence[int], size: Size, folder: Path, observer: Observer) -> dict[str, Any]:
    """Simulate, train and score one piece, or read what an earlier command found."""
    owner = fingerprint(size, list(seeds), name)
    kept = folder / f"{name}.json"
    if kept.exists() and (found := files.read_json(kept))["owner"] == owner:
        return found
    label, gamma = name.split("-")[0], int(name.split("-")[1])
    kind, clock = CT if label == "ct" else size.ours, common.Clock(folder / name)
    keys = jnp.stack([key_for(jax.random.key(seed), "data") for seed in seeds])
    study = tumour_asked.simulate(
        keys, jnp.float32(gamma), train=size.train, val=size.val, test=size.test, cfg=size.sim
    )
    epochs = size.epochs if label == "ct" else size.ours_epochs
    learner = Learner(network=HOLDS_ALL, batch=size.batch, epochs=epochs, adversary=kind.adversary)
    own = [key_for(jax.random.key(seed), "member", at) for seed in seeds for at in range(len(kind.members))]
    done, history = many.fit_many(
        jnp.stack(own),
        hypers(kind, gamma, len(seeds), size),
        Begin(learner),
        Epoch(learner),
        cfg=loop.LoopConfig(epochs=epochs),
        data=study.data,
        observer=observer,
        folder=folder / name,
        # One name for all pieces: it is compiled in.
        stage="members",
        fingerprint=owner,
    )
    trained = clock.read()
    scores = score(done.model, kind, study, size)
    told = {n: np.asarray(v)[-1].reshape(len(seeds), -1).mean(0).tolist() for n, v in history.items()}
    value = {
        "owner": owner,
        "seeds": list(seeds),
        "scores": {m: {q: x.tolist() for q, x in s.items()} for m, s in scores.items()},
        "last_epoch": told,
        "made": common.origin(),
        "size": told_of(kind, epochs, size),
        "train_seconds": round(trained, 1),
        "seconds": round(clock.read(), 1),
    }
    files.write_json(kept, value)
    return files.read_json(kept)


def score(
    model: tumour_fits.State, kind: Kind, study: tumour_asked.Study, size: Size
) -> dict[str, dict[str, np.ndarray]]:
    """Give every method's errors in percent, `[sets]` each, on validation and test patients."""
    sets = study.data.train.volume.shape[0]
    pair = (model.average["encoder"], model.hyper)
    members = jax.tree.map(lambda x: x.reshape(sets, -1, *x.shape[1:]), pair)

    def ask(asked: tumour_asked.Asked, plans: bool) -> np.ndarray:
        found = tumour_asked.rmse(
            members, mix_of(kind), asked, study.data.scale, cfg=HOLDS_ALL, chunk=size.chunk, plans=plans
        )
        return np.asarray(found, np.float64) * 100 / tumour.DEATH

    next_days = {"val_rmse_1": ask(study.val_next, False), "rmse_1": ask(study.options, False)}
    days = {"val_rmse_own": ask(study.val_days, True)}
    days |= {f"rmse_{plan}": ask(getattr(study, plan), True) for plan in PLANS}
    found = {}
    for at, (method, _) in enumerate(kind.methods):
        found[method] = {name: x[:, at] for name, x in next_days.items()}
        for name, x in days.items():
            found[method] |= {f"{name}_{2 + day}": x[:, at, day] for day in range(x.shape[2])}
    return found


def choose(scores: dict[str, dict[str, list[float]]]) -> list[str]:
    """Choose a method for each data set by factual validation error: the next day plus the mean of later days."""
    methods = list(scores)
    later = [[s[q] for q in s if q.startswith("val_rmse_own")] for s in scores.values()]
    value = np.array([s["val_rmse_1"] for s in scores.values()]) + np.mean(later, axis=1)
    # A candidate that diverged is none.
    return [methods[at] for at in np.argmin(np.where(np.isfinite(value), value, np.inf), axis=0)]


def per_seed(name: str, piece: dict[str, Any]) -> list[Scores]:
    """Turn a piece's scores into cells; our candidates' best is a method of its own."""
    setting, scores = f"gamma={name.split('-')[1]}", dict(piece["scores"])
    found: list[Scores] = [{} for _ in piece["seeds"]]
    if name.startswith("ours"):
        chosen = choose(scores)
        best = {q: [scores[m][q][at] for at, m in enumerate(chosen)] for q in next(iter(scores.values()))}
        scores = {"ours_best": best, **scores}
    for method, by_quantity in scores.items():
        for quantity, values in by_quantity.items():
            for own, value in zip(found, values, strict=True):
                own[Cell(setting, method, quantity)] = value if value is not None else float("nan")
    return found


def checks(rows: list[Row], size: str) -> list[Check]:
    """Hold what was run against the published figures."""
    if size != "full":
        return []
    found = []
    value = lambda s, m, q: common.value_of(rows, Cell(s, m, q))  # noqa: E731
    for setting in ("gamma=0", "gamma=2"):
        if (ct_1 := value(setting, "ct", "rmse_1")) is None:
            continue
        for quantity in ("rmse_1", "rmse_sliding_6", "rmse_random_6"):
            mean, sd = tumour_published.PUBLISHED[Cell(setting, "ct", quantity)]
            name = f"{setting}, {quantity} of ct within two published standard deviations"
            found.append(Check(name, value(setting, "ct", quantity), mean - 2 * sd, mean + 2 * sd))
        gap = (value(setting, "ct_alpha0", "rmse_1") or np.nan) - ct_1
        found.append(Check(f"{setting}, rmse_1 of ct_alpha0 less that of ct", gap, -0.05, 0.05))
    for plan in PLANS:
        quantity = f"rmse_{plan}_6"
        if (own := value("gamma=4", "ours_best", quantity)) is not None:
            best = tumour_published.best("gamma=4", quantity)
            found.append(Check(f"gamma=4, {quantity} of ours_best below all published", own, 0.0, best))
    return found


def work(options: TumourOptions, observer: Observer) -> Path:
    """Run the pieces asked for, then write a table of all that the folder holds."""
    size = FULL if options.size == "full" else SMOKE
    if options.test:
        size = dataclasses.replace(size, test=options.test)
    if size.test % size.chunk:
        raise UserError(f"--test is {size.test}, must be a multiple of {size.chunk}")
    if unknown := set(options.pieces) - set(ORDER):
        raise UserError(f"--pieces {sorted(unknown)}: known are {', '.join(ORDER)}")
    if options.size == "smoke":
        # Nearly all of a smoke run is compiling.
        jax.config.update("jax_disable_most_optimizations", True)
    seeds = list(range(options.seeds or size.seeds))
    folder = options.out / "pieces"
    wanted = options.pieces or size.pieces
    for at, name in enumerate(wanted):
        observer(Event("pieces", at, len(wanted), unit="piece"))
        run_piece(name, seeds, size, folder, observer)
        write(options, folder)
    observer(Event("pieces", len(wanted), len(wanted), unit="piece"))
    return write(options, folder)


def write(options: TumourOptions, folder: Path) -> Path:
    """Write the table of all pieces in the folder; what is told of each is its own, whatever the command's size."""
    found = {n: files.read_json(folder / f"{n}.json") for n in ORDER if (folder / f"{n}.json").exists()}
    reference = {c: mean for c, (mean, _) in tumour_published.PUBLISHED.items()}
    settings = {f"gamma={n.split('-')[1]}" for n in found}
    for c in list(reference):
        reference[Cell(c.setting, "ours_best", c.quantity)] = tumour_published.best(c.setting, c.quantity)
    rows = [r for name, piece in found.items() for r in common.summarise(per_seed(name, piece), reference=reference)]
    order = sorted(settings)
    rows = sorted(rows + tumour_published.rows(settings), key=lambda r: order.index(r.setting))
    facts = {
        "not_run": [n for n in ORDER if n not in found],
        "death_cm3": tumour.DEATH,
        "reference of ours_best": "the lowest published error",
        "pieces": {
            n: {k: v for k, v in p.items() if k not in ("scores", "owner")}
            | ({"chosen": choose(p["scores"])} if n.startswith("ours") else {})
            for n, p in found.items()
        },
    }
    return common.write_result(
        options,
        NAME,
        rows,
        seeds=sorted({s for p in found.values() for s in p["seeds"]}),
        seconds=sum(p["seconds"] for p in found.values()),
        checks=checks(rows, options.size),
        facts=facts,
        made=made_by(found),
    )


def made_by(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Say what computed the pieces: the first one's versions, and every device with its pieces, where they differ."""
    names: dict[str, list[str]] = {}
    for name, piece in found.items():
        names.setdefault(piece["made"]["device"], []).append(name)
    device = "; ".join(f"{device} ({', '.join(own)})" for device, own in names.items())
    first = next(iter(found.values()))["made"]
    return {**first, "device": device} if len(names) > 1 else first


if __name__ == "__main__":
    sys.exit(common.run(f"experiments.{NAME}", work, kind=TumourOptions))
