"""Rolled forward for a month under another plan: does a world say what the simulator then does?

A consumer world is fitted to a simulated panel whose sale days are randomised, and asked on the held-out last 30 days:
what would a plan add to visits and purchases, by horizon, against what was done? Answers: `world` (rolled forward,
drawn outcomes fed back into lags and windows; the fitted ensemble), `world_72` (its belief made of the published 72
bits instead of the library's own choice, which has lags of pushes, coupons and campaigns), `mlp` and `additive`
(networks of those forms on those 72 bits, as many as the world has members, of other seeds, on the data as they are;
rolled likewise),
`one_step` (the world's own effect of each day's actions on histories as they were; nothing fed back; `one_step_72`
likewise) and `nothing` (no effect at all).

The truth is the simulator under both plans from the same histories: the mean, over fresh chances that both plans share,
of each day's probability given what had happened by then. `noise_.._30d` of method `truth` is its standard error for
one consumer, root mean square: no answer's RMSE can be expected below it.

Settings `effect of ..` are the world's one-step effects on the test days, and whether their 90 % intervals hold: for
each row (`coverage90`), for the mean of each tenth of the rows, ordered by the answer (`coverage90_tenths`), and for
the average (`coverage90_average`, one a panel).
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.special import expit

from experiments import adapters, common, consumer_data
from experiments.adapters import Fitted, Table
from experiments.common import Cell, Check, Options, Row, Scores, read_scores, write_scores
from experiments.consumer_data import ConsumerData
from wmjax.core.keys import key_for
from wmjax.core.observe import Event, Observer
from wmjax.core.provenance import fingerprint
from wmjax.evaluate import rank
from wmjax.heads.adapter import Form
from wmjax.simulate import consumer_numpy, consumer_panel, consumer_truth
from wmjax.simulate.consumer import ConsumerActions, ConsumerSimConfig
from wmjax.simulate.consumer_frame import ACTIONS, LAGGED, LAGS, OUTCOMES, THRESHOLDS, WINDOWS
from wmjax.worlds import consumer
from wmjax.worlds.consumer import ConsumerWorld
from wmjax.worlds.consumer.config import DEMO, ConsumerConfig
from wmjax.worlds.consumer.config import SMOKE as SMALL
from wmjax.worlds.consumer.intervals import bounds

NAME = "trajectories"
FORMS: tuple[Form, ...] = ("mlp", "additive")
SCORING = 6
"""Counts the changes of what is scored: scores kept under another number are made anew."""
FIRST_PANEL = 42


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is run.

    Attributes:
        panel, val, test: each simulated panel, and the days held out at its end.
        world: how the world is trained; the networks as its adapters are.
        draws: roll-outs a member, of the world and of the networks.
        chances: of the truth.
        horizons: days after which the gain so far is compared.
    """

    panel: ConsumerSimConfig = field(default_factory=lambda: ConsumerSimConfig(sale="randomised"))
    val: int = 30
    test: int = 30
    world: ConsumerConfig = DEMO
    draws: int = 16
    chances: int = 64
    horizons: tuple[int, ...] = (1, 7, 14, 30)


FULL = Study()
SMOKE = Study(
    panel=ConsumerSimConfig(num_consumers=48, num_days=80, start="2025-02-10", sale="randomised"),
    val=10,
    test=14,
    world=SMALL,
    draws=1,
    chances=4,
    horizons=(1, 14),
)


def plans(actions: np.ndarray, start: int) -> dict[str, np.ndarray]:
    """Give every plan `[consumers, days, actions]`, equal to what was done before `start`."""

    def change(name: str, on: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        out = actions.copy()
        out[:, start:, ACTIONS.index(name)] = on(np.arange(actions.shape[1] - start))
        return out

    return {
        "push_daily": change("push", lambda day: np.ones_like(day)),
        "push_never": change("push", lambda day: np.zeros_like(day)),
        "push_weekly": change("push", lambda day: day % 7 == 0),
        "sale_every_third_day": change("sale1", lambda day: day % 3 == 0),
        "sale_never": change("sale1", lambda day: np.zeros_like(day)),
    }


def true_outcomes(
    data: ConsumerData, planned: list[np.ndarray], start: int, *, chances: int, seed: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Average plans' chances of an outcome over fresh luck from `start` on.

    Returns:
        Each plan's means `[consumers, days from start, outcomes]`, and the standard errors `[consumers, outcomes]` of
        its gain over the first plan, summed over the days.
    """
    rng, shape = np.random.default_rng(seed), data.sim.noise.gumbel_visit[:, start:].shape
    total: list[Any] = [0.0 for _ in planned]
    squares: list[Any] = [0.0 for _ in planned]
    for _ in range(chances):
        fresh = {}
        for name, old in data.sim.noise._asdict().items():
            fresh[name] = old.copy()
            fresh[name][:, start:] = rng.gumbel(size=shape) if "gumbel" in name else rng.random(shape)
        sim = data.sim._replace(noise=type(data.sim.noise)(**fresh))
        found = []
        for at, plan in enumerate(planned):
            actions = ConsumerActions(*(plan[..., i] for i in range(len(ACTIONS))))
            rolled = consumer_numpy.roll_out(sim, actions, cfg=data.cfg)
            # Given what has happened, before the day's own coin falls.
            values = [getattr(rolled, f"utility_{name}") for name in OUTCOMES]
            shocks = [data.cfg.params.gumbel_scale * fresh[f"gumbel_{name}"] for name in OUTCOMES]
            found.append(np.stack([expit(a + b)[:, start:] for a, b in zip(values, shocks, strict=True)], axis=-1))
            total[at] = total[at] + found[at]
            squares[at] = squares[at] + np.square((found[at] - found[0]).sum(1))
    means = [x / chances for x in total]
    gains = [(x - means[0]).sum(1) for x in means]
    spread = [np.maximum(x / chances - gain**2, 0) for x, gain in zip(squares, gains, strict=True)]
    return means, [np.sqrt(x / max(chances - 1, 1)) for x in spread]


def bits_of_day(
    bits: np.ndarray, labels: tuple[str, ...], outcomes: np.ndarray, actions: np.ndarray, day: int
) -> np.ndarray:
    """Write what has happened by the start of a day into its bits; what does not depend on it stays.

    Args:
        bits: `[rows, bits]`, that day's as they are in the panel.
        labels: names of the bits.
        outcomes, actions: `[rows, days, ..]`, read before `day` only.
        day: which.
    """
    out, at = bits.copy(), {label: i for i, label in enumerate(labels)}
    for index, name in enumerate(OUTCOMES):
        events = outcomes[:, :day, index] > 0
        count = events.sum(1)
        for window in WINDOWS:  # an event yesterday lies 0 days back
            out[:, at[f"{name}_within_{window}d"]] = events[:, max(day - window - 1, 0) :].any(1)
        for least in THRESHOLDS:
            out[:, at[f"{name}_cum_{least}plus"]] = count >= least
    for lag in LAGS:
        for name in LAGGED:
            past = outcomes[..., OUTCOMES.index(name)] if name in OUTCOMES else actions[..., ACTIONS.index(name)]
            out[:, at[f"{name}_lag{lag}"]] = past[:, day - lag] if day >= lag else 0
    return out


def rolled(
    network: Fitted, data: ConsumerData, actions: np.ndarray, start: int, *, draws: int, seed: int
) -> np.ndarray:
    """Roll a network forward, drawn outcomes fed back; mean expected outcomes `[consumers, days, outcomes]`."""
    rng, (consumers, days) = np.random.default_rng(seed), actions.shape[:2]
    plan = np.repeat(actions, draws, axis=0).astype(np.float32)
    past = np.stack([getattr(data.sim.outcomes, name) for name in OUTCOMES], axis=-1)
    outcomes = np.repeat(past, draws, axis=0).copy()
    means = []
    for day in range(start, days):
        own = np.repeat(data.bits[:, day], draws, axis=0)
        own = bits_of_day(own, data.visible.labels, outcomes, plan, day)
        chance = np.stack([expit(network.logits(at, own, plan[:, day])) for at in range(len(OUTCOMES))], axis=-1)
        outcomes[:, day] = rng.random(chance.shape) < chance
        means.append(chance.reshape(consumers, draws, -1).mean(1))
    return np.stack(means, axis=1)


def by_world(
    world: ConsumerWorld, panel: Any, planned: list[np.ndarray], start: int, *, draws: int, seed: int
) -> dict[str, list[np.ndarray]]:
    """Ask the world for expected outcomes of plans, rolled forward and one step at a time."""
    key, out = jax.random.key(seed), {"world": [], "one_step": []}
    rows = world.observed(panel, slice(start, panel.num_times))
    shape = (len(panel.units), panel.num_times - start, len(OUTCOMES))
    for plan in planned:
        found = world.simulate(key, panel, plan.astype(np.float32), start=start, draws=draws)["mean"]
        mean = found.mean(("member", "draw")).transpose("unit", "time", "outcome")
        out["world"].append(mean.sel(outcome=list(OUTCOMES)).values)
        # Histories as they were: only the day's own actions are the plan's.
        own = dataclasses.replace(rows, actions=plan[:, start:].reshape(-1, len(ACTIONS)).astype(np.float32))
        out["one_step"].append(world.expected(own).reshape(shape))
    return out


def score(setting: str, method: str, gain: np.ndarray, truth: np.ndarray, study: Study) -> Scores:
    """Compare gains so far, `[consumers, days, outcomes]`, by horizon."""
    out: Scores = {}
    for at, outcome in enumerate(OUTCOMES):
        own, true = (np.cumsum(x[..., at], axis=1) for x in (gain, truth))
        for days in study.horizons:
            a, b = own[:, days - 1], true[:, days - 1]
            out[Cell(setting, method, f"gain_{outcome}_{days}d")] = float(a.mean())
            if b.any():  # a push changes no purchase: there is no share of nothing
                out[Cell(setting, method, f"relative_error_{outcome}_{days}d")] = float(abs(a.mean() / b.mean() - 1))
            out[Cell(setting, method, f"rmse_{outcome}_{days}d")] = float(np.sqrt(np.mean((a - b) ** 2)))
        if true[:, -1].any():
            out[Cell(setting, method, f"rho_{outcome}")] = rank.spearman(own[:, -1], true[:, -1])
    return out


def run_panel(seed: int, *, study: Study, folder: Path, observer: Observer) -> Scores:
    """Fit and ask on one panel; a finished one is read from its file."""
    cfg = dataclasses.replace(study.panel, seed=FIRST_PANEL + seed, sale_seed=study.panel.sale_seed + 1000 * seed)
    kept, owner = folder / "scores.json", fingerprint(SCORING, study, cfg)
    if (scores := read_scores(kept, owner)) is not None:
        return scores
    data = consumer_data.make(cfg, val=study.val, test=study.test)
    panel, start, key = consumer_panel.to_panel(data.sim, cfg=cfg), data.days[2].start, jax.random.key(seed)
    shares = {"val": study.val / cfg.num_days, "test": study.test / cfg.num_days}
    cfg_of = dataclasses.replace(study.world, **shares)
    world = consumer.fit(key, panel, cfg_of, seed=seed, folder=folder / "world", observer=observer)
    of_bits = consumer.fit(
        key,
        panel,
        dataclasses.replace(cfg_of, units="bernoulli"),
        recipes=consumer_panel.published_recipes(),
        seed=seed,
        folder=folder / "world_72",
        observer=observer,
    )
    parts = [Table(r.bits, r.actions, r.outcomes) for r in map(data.rows, range(2))]
    networks: dict[str, list[Fitted]] = {}
    for form in FORMS:
        own = dataclasses.replace(study.world.adapter, form=form)
        networks[form] = adapters.fit_seeds(
            key_for(key, form),
            *parts,
            seeds=world.members,
            cfg=own,
            stage=form,
            folder=folder / form,
            observer=observer,
            fingerprint=fingerprint(own, cfg, study.val, study.test),
        )
    factual = np.stack([getattr(data.sim.actions, name) for name in ACTIONS], axis=-1)
    changed = plans(factual, start)
    planned = [factual, *changed.values()]
    truth, errors = true_outcomes(data, planned, start, chances=study.chances, seed=seed)
    found = by_world(world, panel, planned, start, draws=study.draws, seed=seed)
    of_72 = by_world(of_bits, panel, planned, start, draws=study.draws, seed=seed)
    found |= {f"{method}_72": answers for method, answers in of_72.items()}
    for form, members in networks.items():
        found[form] = []
        for plan in planned:
            # A member's luck is its own, and the same under every plan.
            each = [rolled(m, data, plan, start, draws=study.draws, seed=at) for at, m in enumerate(members)]
            found[form].append(np.mean(each, axis=0))
    found["nothing"] = [np.zeros_like(truth[0]) for _ in planned]
    out = intervals("world", world, panel, data) | intervals("world_72", of_bits, panel, data)
    for at, setting in enumerate(changed, start=1):
        gain = truth[at] - truth[0]
        for method, answers in found.items():
            out |= score(setting, method, answers[at] - answers[0], gain, study)
        for index, outcome in enumerate(OUTCOMES):
            days = f"{outcome}_{study.horizons[-1]}d"
            out[Cell(setting, "truth", f"gain_{days}")] = float(gain[..., index].sum(1).mean())
            out[Cell(setting, "truth", f"noise_{days}")] = float(np.sqrt(np.mean(errors[at][:, index] ** 2)))
    write_scores(kept, owner, out)
    return out


def intervals(method: str, world: ConsumerWorld, panel: Any, data: ConsumerData) -> Scores:
    """Ask a world for one-step effects with intervals on the test days, and see what they hold."""
    out: Scores = {}
    for question in ("push", "sale_randomised"):
        action, outcome = consumer_data.question(question)
        days = data.days[2]
        # In chances, as the roll-outs: what a world can know leaves the shock in.
        effect = consumer_truth.effect(data.sim, action, outcome, cfg=data.cfg, gumbel="averaged")
        truth = np.ascontiguousarray(effect.probability[:, days]).ravel()
        rows = world.observed(panel, days)
        at = OUTCOMES.index(outcome)
        # A row's interval holds what consumers differ by that the world does not know; averages need not.
        own = world.effect_interval(panel, action, 0, 1, times=days).sel(outcome=outcome)
        each = world.member_effects(rows, action, 0, 1)[1][..., at]  # [members, rows]
        tenth = np.argsort(np.argsort(each.mean(0), kind="stable")) * 10 // each.shape[1]
        of_tenth = np.stack([each[:, tenth == i].mean(1) for i in range(10)], axis=1)
        true_tenth = np.array([truth[tenth == i].mean() for i in range(10)])
        setting = f"effect of {action}"
        for name, effects, true in (
            ("", each, truth),
            ("_tenths", of_tenth, true_tenth),
            ("_average", each.mean(1, keepdims=True), truth.mean(keepdims=True)),
        ):
            low, high = bounds(effects, 0.1) if name else (own[end].values.ravel() for end in ("lo", "hi"))
            out[Cell(setting, method, f"coverage90{name}")] = float(np.mean((low <= true) & (true <= high)))
            out[Cell(setting, method, f"width90{name}")] = float(np.mean(high - low))
            out[Cell(setting, method, f"rmse{name}")] = float(np.sqrt(np.mean((effects.mean(0) - true) ** 2)))
        out[Cell(setting, "truth", "mean")] = float(truth.mean())
        out[Cell(setting, "truth", "sd")] = float(truth.std())
    return out


def checks(rows: list[Row], size: str) -> list[Check]:
    """Say what a roll-out is worth: after a month less error than the shortcut, and no more than the networks'."""
    if size != "full":
        return []
    out = [
        Check(
            f"effect of {action}: {what} within 90 % intervals",
            common.value_of(rows, Cell(f"effect of {action}", "world", what)),
            0.8,
            0.97,
        )
        for action in ("push", "sale1")
        for what in ("coverage90", "coverage90_tenths")
    ]
    for setting in ("push_daily", "push_never", "sale_every_third_day"):
        name = "rmse_purchase_30d" if setting.startswith("sale") else "rmse_visit_30d"
        value = {m: common.value_of(rows, Cell(setting, m, name)) for m in ("world", "world_72", "one_step", *FORMS)}
        for one, other in (("world", "one_step"), *itertools.product(("world", "world_72"), FORMS)):
            own, its = value[one], value[other]
            gap = None if own is None or its is None else own - its
            out.append(Check(f"{setting} {name}: {one} less {other}", gap, -10.0, 0.0))
    return out


def main(options: Options, observer: Observer, study: Study | None = None) -> Path:
    """Run every panel and write the result."""
    study = study or (FULL if options.size == "full" else SMOKE)
    folder = options.out / NAME
    clock, seeds = common.Clock(folder), list(range(options.seeds or (3 if options.size == "full" else 1)))
    found = []
    for seed in seeds:
        observer(Event("panels", seed, len(seeds), unit="panel"))
        found.append(run_panel(seed, study=study, folder=folder / f"panel-{FIRST_PANEL + seed}", observer=observer))
        clock.read()
    observer(Event("panels", len(seeds), len(seeds), unit="panel"))
    rows = common.summarise(found)
    rows += common.summarise([{Cell("all", "study", "seconds_total"): clock.read()}])
    return common.write_result(
        options,
        NAME,
        rows,
        seeds=[FIRST_PANEL + seed for seed in seeds],
        seconds=clock.read(),
        checks=checks(rows, options.size),
        facts={"study": dataclasses.asdict(study)},
    )


if __name__ == "__main__":
    sys.exit(common.run(f"experiments.{NAME}", main))
