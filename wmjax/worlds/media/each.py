"""A media world a unit: hundreds of regions, each with curves of its own, trained together in one program.

`fit` gives all units one set of curves, which is better where they share it. `fit_each` gives each unit what `fit` of
that unit alone, of as many members, would, to rounding: regions and members are one axis, each region a subset of the
data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Key

from wmjax.core.errors import DivergedError, UserError
from wmjax.core.keys import key_for
from wmjax.core.observe import Event, Observer, silent
from wmjax.core.provenance import fingerprint
from wmjax.data.panel import Panel
from wmjax.train import many
from wmjax.train.loop import LoopConfig
from wmjax.worlds.contract import check_key, origin
from wmjax.worlds.media import fitting, tables
from wmjax.worlds.media.beginning import Begin
from wmjax.worlds.media.config import MediaConfig
from wmjax.worlds.media.fitting import Prepared
from wmjax.worlds.media.learning import MODEL, Epoch, LearnData, Learner, MediaState, averaged
from wmjax.worlds.media.luck import Luck
from wmjax.worlds.media.world import ALL, MediaWorld

Unit = int | str


@dataclass(frozen=True, eq=False, repr=False)
class MediaWorlds:
    """A fitted media world a unit.

    Attributes:
        worlds: by unit; each is a `MediaWorld` of one series and is asked about that unit's panel alone.
        failed: why, of every unit that has none.
    """

    worlds: Mapping[Unit, MediaWorld]
    failed: Mapping[Unit, str]

    def __repr__(self) -> str:
        lost = f", {len(self.failed):,} failed" if self.failed else ""
        return f"MediaWorlds({len(self.worlds):,} units{lost})"

    def __getitem__(self, unit: Unit) -> MediaWorld:
        return self.worlds[unit]

    def roi(self, panel: Panel, *, alpha: float = 0.1) -> pd.DataFrame:
        """Tabulate what each channel was worth in each unit by that unit's own world, see `tables.roi`.

        Args:
            panel: that the worlds were fitted to, or another one of the same units.
            alpha: intervals hold with probability `1 - alpha`, unit by unit.
        """
        parts = []
        for unit, world in self.worlds.items():
            table = tables.roi(world.attribute(panel.select(units=[unit]), grid=(0.0, 1.0), alpha=alpha))
            parts.append(table[table["geo"] == ALL].assign(geo=unit))
        return pd.concat(parts, ignore_index=True)

    def table(self) -> pd.DataFrame:
        """Tabulate the fits, a row a unit: R2 of the last periods, members that diverged, and why there is no world."""
        parts = ("train", "val", "test")
        rows = [
            {"geo": unit, **{f"r2_{part}": world.facts["r2"].get(part) for part in parts}}
            | {"diverged": world.facts["diverged"], "failed": ""}
            for unit, world in self.worlds.items()
        ]
        rows += [{"geo": unit, "failed": words} for unit, words in self.failed.items()]
        return pd.DataFrame(rows, columns=["geo", *(f"r2_{part}" for part in parts), "diverged", "failed"])


def unit_key(key: Key[Array, ""], unit: Unit) -> Key[Array, ""]:
    """The key of one unit's fit: the same whichever other units are there."""
    return key_for(key, f"unit/{unit}")


def fit_each(
    key: Key[Array, ""],
    panel: Panel,
    cfg: MediaConfig,
    *,
    seed: int | None = None,
    creative: np.ndarray | None = None,
    batch_size: int | None = None,
    budget_bytes: int | None = None,
    folder: str | Path | None = None,
    observer: Observer = silent,
    stage: str = "media",
) -> MediaWorlds:
    """Fit a media world to each unit of a panel, all in one program.

    A unit's world is what `fit(unit_key(key, unit), panel.select(units=[unit]), cfg)` of as many members gives, to
    rounding. Units whose measured covariates differ (`MediaConfig.errors_in_variables`) have networks of different
    width, and each width is a program of its own. A unit that cannot be fitted, or whose members all diverge, is told
    of in `failed`.

    Args:
        key: seeds everything.
        panel: one row a unit and time; each unit is fitted as a series of its own.
        cfg: how, the same for all; 5 members each, where it leaves them open.
        seed, creative, observer, stage: as in `fit`.
        batch_size, budget_bytes: how many members are trained side by side, and in how many bytes, see
            `train.many.fit_many`.
        folder: where checkpoints are kept, one folder inside a width; a killed fit goes on from them, bitwise.

    Raises:
        UserError: not one unit can be fitted; or the folder belongs to another fit.
        DivergedError: every member of every unit meets values that are not finite.
    """
    check_key(key)
    cfg = cfg.settled(alone=False)
    ready: dict[Unit, Prepared] = {}
    failed: dict[Unit, str] = {}
    for at, unit in enumerate(panel.units):
        try:
            ready[unit] = fitting.prepared(unit_key(key, unit), panel.select(units=[unit]), cfg, creative)
        except UserError as error:
            failed[unit] = str(error)
        observer(Event(f"{stage}: units read", at + 1, panel.num_units, unit="unit"))
    if not ready:
        first = panel.units[0]
        raise UserError(f"none of {panel.num_units} units can be fitted, first {first!r}: {failed[first]}")
    worlds: dict[Unit, MediaWorld] = {}
    for name, units in _alike(ready).items():
        begun = [ready[unit] for unit in units]
        try:
            trained = _train(
                begun,
                cfg,
                batch_size=batch_size,
                budget_bytes=budget_bytes,
                folder=None if folder is None else Path(folder) / name,
                observer=observer,
                stage=stage,
                fingerprint=fingerprint(MODEL, cfg, panel.schema, units, *begun[0].drawn) + panel.fingerprint,
            )
        except DivergedError as error:
            failed |= dict.fromkeys(units, str(error))
            continue
        for unit, own, (params, history, diverged) in zip(units, begun, trained, strict=True):
            if diverged.all():
                failed[unit] = f"all {len(diverged)} members diverged"
                continue
            alone = panel.select(units=[unit])
            told = origin(unit_key(key, unit), seed, cfg, alone)
            world = fitting.world_of(alone, cfg, own, params, history, told)
            worlds[unit] = replace(world, facts={**world.facts, "diverged": int(diverged.sum())})
    if not worlds:
        raise DivergedError(f"{stage}: the members of all {len(ready)} units diverged")
    return MediaWorlds({u: worlds[u] for u in panel.units if u in worlds}, failed)


class Trained(NamedTuple):
    """One unit's share of what was trained: averaged parameters, curves of training, which members diverged."""

    params: Any
    history: dict[str, np.ndarray]
    diverged: np.ndarray


@dataclass(frozen=True)
class _Begin:
    """`Begin` of a key that is the member's own, and not one derived from it, as `fit` has it."""

    learner: Learner

    def __call__(self, key: Key[Array, ""], own: tuple[Key[Array, ""], Luck], data: LearnData) -> MediaState:
        return Begin(self.learner)(own[0], own[1], data)


def _alike(ready: Mapping[Unit, Prepared]) -> dict[str, list[Unit]]:
    """Group units whose programs are the same, by name: those of one learner and of arrays of one shape."""
    groups: dict[Any, list[Unit]] = {}
    for unit, begun in ready.items():
        shapes = tuple(jnp.shape(x) for x in jax.tree.leaves(begun.data))
        groups.setdefault((begun.learner, shapes), []).append(unit)
    return {str(at): units for at, units in enumerate(groups.values())}


def _train(begun: list[Prepared], cfg: MediaConfig, **options: Any) -> list[Trained]:
    """Train the members of all units together."""
    learner, count = begun[0].learner, len(begun)
    lay = lambda trees, join: jax.tree.map(lambda *xs: join([np.asarray(x) for x in xs]), *trees)  # noqa: E731
    keys = jnp.concatenate([b.keys for b in begun])
    done, history = many.fit_many(
        keys,
        (keys, lay([b.luck for b in begun], np.concatenate)),
        _Begin(learner),
        Epoch(learner),
        cfg=LoopConfig(epochs=cfg.epochs),
        subsets=lay([b.data for b in begun], np.stack),
        which=np.repeat(np.arange(count), cfg.members),
        snapshot=averaged,
        **options,
    )
    best = jax.tree.map(np.asarray, done.best)
    diverged = np.asarray(done.diverged)
    found = []
    for at in range(count):
        own = slice(at * cfg.members, (at + 1) * cfg.members)
        params = jax.tree.map(lambda x, own=own: jnp.asarray(x[own]), best)
        found.append(Trained(params, {name: v[:, own] for name, v in history.items()}, diverged[own]))
    return found
