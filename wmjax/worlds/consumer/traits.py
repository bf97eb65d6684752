"""A consumer world's long memory: what each unit's whole past says of its own level and its responsiveness.

A belief reads some periods back. Two units with the same recent past may still differ, and a unit that has been seen
for long has shown by how much: `fit` puts `heads.traits` on the world's frozen belief (or on the visible bits that the
belief is made of, whichever forecasts validation periods better), outcome by outcome, and every later period moves a
unit's traits by one step of a filter. No effect of a period is read from that period or from later ones.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float

from wmjax.core.errors import DivergedError, UserError
from wmjax.core.files import read_json, replace_folder, write_json
from wmjax.core.keys import key_for
from wmjax.core.observe import Event, Observer, silent
from wmjax.core.provenance import to_plain
from wmjax.data import frame as frames
from wmjax.data.panel import Panel
from wmjax.heads import traits
from wmjax.heads.traits import TraitConfig, TraitData, TraitParams, TraitState
from wmjax.train import checkpoint
from wmjax.worlds.consumer import machine, trait_effects
from wmjax.worlds.consumer.world import ConsumerWorld

Features = Literal["belief", "visible"]
FORMAT = 2
SCALES = (("effect", "lo", "hi"), ("effect_linear", "lo_linear", "hi_linear"))
REPLICATES, MEMBERS = 8, 4
"""Fits of the population on other units, and how many members' beliefs they read in turn, at most: twice each."""


@dataclass(frozen=True, eq=False)
class ConsumerTraits:
    """Traits of every unit, for the binary outcomes of a consumer world.

    Attributes:
        world: whose belief is read.
        outcomes: names of the outcomes that have traits.
        features: what each outcome's head reads.
        params: the population, one an outcome.
        replicates: the same, each of a bootstrap of the units and one member's belief; leaves `[replicates, ..]`.
        moderators: positions of the visible units that never change within a unit and may move its responsiveness.
        centre: their means.
        facts: validation log loss of each outcome by features, of the same head without traits, and of the world, and
            the spread of the traits.
    """

    world: ConsumerWorld
    outcomes: tuple[str, ...]
    features: tuple[Features, ...]
    params: tuple[TraitParams, ...]
    replicates: tuple[TraitParams, ...]
    moderators: tuple[int, ...]
    centre: tuple[float, ...]
    facts: dict[str, Any]

    def follow(self, panel: Panel, *, start: tuple[TraitState, ...] | None = None, times: slice | None = None) -> Any:
        """Filter every unit through a panel, or through some periods of it from given states on.

        A panel that grows by a day needs that day alone: `follow(longer, start=after, times=slice(-1, None))`.

        Returns:
            One an outcome: `TraitState` before each period, leaves `[times, units, ..]`; and after the last.
        """
        before, after = [], []
        for at, (params, data) in enumerate(zip(self.params, self._data(panel, times), strict=True)):
            found = _replay(params, data, None if start is None else start[at])
            before.append(found[0])
            after.append(found[1])
        return tuple(before), tuple(after)

    def profile(self, panel: Panel) -> xr.Dataset:
        """Say what all of a panel tells of each unit.

        Returns:
            Over (outcome, unit): `level` (log odds above what a unit of these features has) and `responsiveness`
            (effects of the tied actions over the population's, 1 is average), each with its posterior `_sd`, given
            the population; over (unit): `periods`, how many were seen.
        """
        values = {name: [] for name in ("level", "level_sd", "responsiveness", "responsiveness_sd")}
        own = self._moderators(panel)
        for params, state in zip(self.params, self.follow(panel)[1], strict=True):
            sd = np.sqrt(np.diagonal(np.linalg.inv(np.asarray(state.precision)), axis1=1, axis2=2))
            mean = np.asarray(state.mean)
            more = 1 + np.asarray(own @ params.moderators) + mean[:, 1]
            for name, value in zip(values, (mean[:, 0], sd[:, 0], more, sd[:, 1]), strict=True):
                values[name].append(value)
        arrays: dict[str, Any] = {name: (("outcome", "unit"), np.stack(value)) for name, value in values.items()}
        arrays["periods"] = ("unit", panel.arrays.mask.sum(1))
        return xr.Dataset(arrays, {"outcome": list(self.outcomes), "unit": list(panel.units)})

    def predict(self, panel: Panel, *, times: slice | None = None) -> xr.DataArray:
        """Forecast each period from all before it: probabilities over (outcome, unit, time), NaN where not observed."""
        before, _ = self.follow(panel)
        parts = zip(self.params, before, self._data(panel), strict=True)
        chances = [jax.nn.sigmoid(trait_effects.logits(params, states, data)) for params, states, data in parts]
        return self._label(panel, {"mean": np.stack(chances)}, times)["mean"]

    def effect_interval(
        self,
        panel: Panel,
        action: str,
        T0: float | int,
        T1: float | int,
        *,
        alpha: float = 0.1,
        times: slice | None = None,
    ) -> xr.Dataset:
        """Contrast `action = T1` with `T0` in each row, given what the unit has shown before that period.

        Bounds hold what the past leaves open of the unit's own traits, and of the population and the belief, as far
        as these differ between bootstraps of the units and, on beliefs, between members; half-widths are added in
        quadrature (`trait_effects.half_width`). They do not hold the model's own error.

        Returns:
            Over (outcome, unit, time): `effect`, `lo`, `hi` (risk difference), `effect_linear`, `lo_linear`,
            `hi_linear` (log odds); over (unit, time) `supported`, as in the world's `effect_interval`.

        Raises:
            ValueError: alpha is not between 0 and 1.
        """
        if not 0 < alpha < 1:
            raise ValueError(f"alpha is {alpha}, must lie in (0, 1)")
        self.world._check_values(action, T0, T1)
        index = panel.action_index(action)
        units = jax.tree.map(lambda x: np.asarray(x[0]), self.world.params.scales)
        t0, t1 = (float((t - units.action_centre[index]) / units.action_scale[index]) for t in (T0, T1))
        before, _ = self.follow(panel)
        found: dict[str, list[Any]] = {name: [] for name in (*SCALES[0], *SCALES[1])}
        spread = self._spread(panel, index, t0, t1, alpha)
        for at, (params, states, data) in enumerate(zip(self.params, before, self._data(panel), strict=True)):
            key = key_for(jax.random.key(0), "traits", at)
            scales = trait_effects.contrast(key, params, states, data, index, t0, t1, alpha)
            for names, own, wider in zip(SCALES, scales, spread[:, at], strict=True):
                effect, lo, hi, known = map(np.asarray, own)
                for name, value in zip(names, trait_effects.widen(effect, lo, hi, known, wider), strict=True):
                    found[name].append(value)
        # No two probabilities differ by more than one.
        limits = {name: (-1.0, 1.0) if name in SCALES[0] else (-np.inf, np.inf) for name in found}
        values = {name: np.clip(np.stack(value), *limits[name]) for name, value in found.items()}
        result = self._label(panel, values, times)
        rows = self.world.observed(panel, times)
        supported = self.world.supported(rows, action, T0, T1)
        result["supported"] = (("unit", "time"), rows.scatter(supported, fill=False))
        # The replicates are bootstraps of the units alone.
        blind = dataclasses.replace(self.world, facts={**self.world.facts, "luck": False})
        told = {"warnings": blind.warnings_for(action, supported), "alpha": alpha}
        return result.assign_attrs(action=action, T0=T0, T1=T1, provenance=dict(self.world.provenance), **told)

    def _spread(self, panel: Panel, action: int, t0: float, t1: float, alpha: float) -> np.ndarray:
        """Half-widths of an effect over the replicates: `[scales, outcomes, units, times]`, response first."""
        found: list[list[Any]] = [[None] * REPLICATES for _ in self.outcomes]
        for at, which, data in self._in_turn(panel):
            params = jax.tree.map(lambda x: x[which], self.replicates[at])  # noqa: B023
            gains = trait_effects.gains(params, _replay(params, data, None)[0], data, action, t0, t1)
            found[at][which] = np.stack([np.asarray(gain) for gain in gains])
        halves = []
        for kind, replicates in zip(self.features, found, strict=True):
            # The visible units are the same for all members.
            members = min(self.world.members, MEMBERS) if kind == "belief" else 1
            halves.append(trait_effects.half_width(np.stack(replicates), members, alpha))
        return np.stack(halves, axis=1)

    def _in_turn(self, panel: Panel) -> Iterator[tuple[int, int, TraitData]]:
        """Lay a panel out for each outcome's position and replicate, members taking turns, one's features at a time."""
        own, members = self._moderators(panel), min(self.world.members, MEMBERS)
        for member in range(members):
            grids = {kind: features_of(self.world, panel, kind, member=member) for kind in dict.fromkeys(self.features)}
            for at, (outcome, kind) in enumerate(zip(self.outcomes, self.features, strict=True)):
                data = lay_out(self.world, panel, outcome, grids[kind], own)
                for which in range(member, REPLICATES, members):
                    yield at, which, data

    def save(self, path: str | Path) -> None:
        """Write a folder, whole or not at all; the world is saved apart."""

        def fill(folder: Path) -> None:
            checkpoint.save_tree(folder / "params", self.params)
            checkpoint.save_tree(folder / "replicates", self.replicates)
            fields = ("outcomes", "features", "moderators", "centre", "facts")
            about = {name: to_plain(getattr(self, name)) for name in fields}
            sizes = {"base": [len(p.base) for p in self.params], "actions": len(self.params[0].effects)}
            write_json(folder / "traits.json", {"format": FORMAT, **about, **sizes})

        replace_folder(path, fill)

    def _moderators(self, panel: Panel) -> Array:
        visible, mask = frames.build(self.world.model.frame, panel), panel.arrays.mask
        first = visible[np.arange(panel.num_units), mask.argmax(1)][:, list(self.moderators)]
        return jnp.asarray(first - np.asarray(self.centre), jnp.float32)

    def _data(self, panel: Panel, times: slice | None = None) -> list[TraitData]:
        """Lay a panel out for every outcome's head."""
        grids = {kind: features_of(self.world, panel, kind, times) for kind in dict.fromkeys(self.features)}
        own = self._moderators(panel)
        return [
            lay_out(self.world, panel, outcome, grids[kind], own, times)
            for outcome, kind in zip(self.outcomes, self.features, strict=True)
        ]

    def _label(self, panel: Panel, values: dict[str, np.ndarray], times: slice | None) -> xr.Dataset:
        coords: dict[str, Any] = {"outcome": list(self.outcomes), "unit": list(panel.units), "time": panel.times}
        arrays = {
            name: (("outcome", "unit", "time"), np.where(panel.arrays.mask, value, np.nan))
            for name, value in values.items()
        }
        return xr.Dataset(arrays, coords).isel(time=times or slice(None))


def fit(
    world: ConsumerWorld, panel: Panel, *, cfg: TraitConfig | None = None, observer: Observer = silent
) -> ConsumerTraits:
    """Fit traits on the periods that the world was trained on; its validation periods choose what the heads read.

    Args:
        world: fitted, on this panel or on one of the same columns and dates.
        panel: its train periods teach, the units that were seen in them.
        cfg: how the population is fitted.
        observer: told of progress.

    Raises:
        DivergedError: where a head has left the finite numbers.
        UserError: where no outcome is binary, or the panel has no train or validation periods.
    """
    cfg = cfg or TraitConfig()
    binary = [name for name, yes in zip(panel.outcome_names, world.model.binary, strict=True) if yes]
    if not binary:
        raise UserError(f"traits are of binary outcomes; {list(panel.outcome_names)} are not")
    train, val = (world.periods(panel, part) for part in ("train", "val"))
    seen = panel.arrays.mask[:, train]
    units = np.flatnonzero(seen.any(1))
    known = frames.build(world.model.frame, panel)[:, train]
    moderators = _constant(known[units], seen[units])
    first = known[units, seen[units].argmax(1)][:, moderators]
    empty = ConsumerTraits(world, (), (), (), (), tuple(map(int, moderators)), tuple(map(float, first.mean(0))), {})
    own = empty._moderators(panel)
    grids: dict[Features, np.ndarray] = {kind: features_of(world, panel, kind) for kind in ("belief", "visible")}
    chosen, params, facts = [], [], {}
    count = itertools.count()

    def tell() -> None:
        observer(Event("traits", next(count), (3 + REPLICATES) * len(binary), unit="fit"))

    for outcome in binary:
        losses, heads = {}, {}
        for kind, grid in grids.items():
            tell()
            data = lay_out(world, panel, outcome, grid, own)
            heads[kind], _ = _fit(_between(data, train), cfg=cfg)
            losses[kind] = _loss(heads[kind], data, val)
            if not np.isfinite(losses[kind]):
                raise DivergedError(f"traits of {outcome} on its {kind} units: the fit has left the finite numbers")
        best = min(losses, key=lambda kind: losses[kind])
        tell()
        plain, _ = _fit(_between(lay_out(world, panel, outcome, grids[best], own), train), cfg=_without(cfg))
        losses["without_traits"] = _loss(plain, lay_out(world, panel, outcome, grids[best], own), val)
        losses["world"] = _world_loss(world, panel, outcome, val)
        spread = np.sqrt(np.diag(np.asarray(heads[best].covariance)))
        facts[outcome] = {"val_log_loss": losses, "level_sd": float(spread[0]), "responsiveness_sd": float(spread[1])}
        chosen.append(best)
        params.append(heads[best])
    done = dataclasses.replace(empty, outcomes=tuple(binary), features=tuple(chosen), params=tuple(params), facts=facts)
    found = _replicates(done, panel, train, cfg, tell)
    tell()
    return dataclasses.replace(done, replicates=found)


def _replicates(
    found: ConsumerTraits, panel: Panel, train: slice, cfg: TraitConfig, tell: Callable[[], None]
) -> tuple[TraitParams, ...]:
    """Fit each outcome's population again on Bayesian bootstraps of the units (Rubin 1981), members taking turns."""
    heads: dict[tuple[int, int], TraitParams] = {}
    for at, which, data in found._in_turn(panel):
        tell()
        # The same units weigh alike in every outcome.
        drawn = jax.random.exponential(key_for(jax.random.key(0), "units", which), (panel.num_units,))
        heads[at, which], _ = _fit(_between(data, train), drawn / drawn.mean(), cfg=cfg)
        if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(heads[at, which])):
            raise DivergedError(f"traits of {found.outcomes[at]}: a bootstrap's fit has left the finite numbers")
    stack = lambda *leaves: jnp.stack(leaves)  # noqa: E731
    return tuple(
        jax.tree.map(stack, *(heads[at, which] for which in range(REPLICATES))) for at in range(len(found.outcomes))
    )


def load(path: str | Path, world: ConsumerWorld) -> ConsumerTraits:
    """Open what `ConsumerTraits.save` wrote, of the same world."""
    about = read_json(Path(path) / "traits.json")
    if about["format"] != FORMAT:
        raise UserError(
            f"{path}: written in format {about['format']}, this version reads {FORMAT}; delete the folder, and traits "
            "are fitted anew"
        )
    actions, moderators = about["actions"], len(about["moderators"])

    def like(base: int, *lead: int) -> TraitParams:
        shapes = ((), (base,), (actions,), (actions,), (actions,), (moderators,), (), (2, 2))
        leaves: list[Any] = [jax.ShapeDtypeStruct((*lead, *shape), jnp.float32) for shape in shapes]
        return TraitParams(*leaves)

    params = checkpoint.load_tree(Path(path) / "params", tuple(map(like, about["base"])))
    replicas = checkpoint.load_tree(Path(path) / "replicates", tuple(like(n, REPLICATES) for n in about["base"]))
    names = ("outcomes", "features", "moderators", "centre")
    kept = {name: tuple(about[name]) for name in names}
    return ConsumerTraits(world=world, params=params, replicates=replicas, facts=about["facts"], **kept)


def features_of(
    world: ConsumerWorld, panel: Panel, kind: Features, times: slice | None = None, *, member: int = 0
) -> Float[np.ndarray, "units times f"]:
    """Lay out what a head reads of every row: one member's belief, or the visible units; 0 where not observed."""
    rows = world.observed(panel, times)
    found = rows.visible
    if kind == "belief":
        one = jax.tree.map(lambda x: x[member : member + 1], world.params.machine)
        found = np.asarray(_beliefs(one, rows.visible, model=world.model)[0])
    return rows.scatter(np.asarray(found, np.float32), fill=0)


def lay_out(
    world: ConsumerWorld, panel: Panel, outcome: str, features: np.ndarray, own: Array, times: slice | None = None
) -> TraitData:
    """Lay a panel out for one outcome's head; actions as the world's networks read them."""
    part, scales = times or slice(None), jax.tree.map(lambda x: np.asarray(x[0]), world.params.scales)
    mask = panel.arrays.mask[:, part]
    actions = (panel.arrays.actions[:, part] - scales.action_centre) / scales.action_scale
    outcomes = panel.arrays.outcomes[:, part, panel.outcome_names.index(outcome)]
    return TraitData(
        jnp.asarray(features),
        jnp.asarray(np.where(mask[..., None], actions, 0), jnp.float32),
        own,
        jnp.asarray(np.where(mask, outcomes, 0), jnp.float32),
        jnp.asarray(mask),
    )


def _constant(visible: np.ndarray, seen: Bool[np.ndarray, "units times"]) -> np.ndarray:
    """Find the visible units that never change within a unit's rows, and differ between units."""
    first = visible[np.arange(len(visible)), seen.argmax(1)]
    same = ((visible == first[:, None]) | ~seen[..., None]).all((0, 1))
    return np.flatnonzero(same & (first != first[:1]).any(0))


def _between(data: TraitData, times: slice) -> TraitData:
    """Cut a panel in time."""
    cut = (data.features[:, times], data.actions[:, times])
    return TraitData(*cut, data.moderators, data.outcomes[:, times], data.seen[:, times])


def _without(cfg: TraitConfig) -> TraitConfig:
    """Leave the traits out: their prior is a point, and no action is tied."""
    return dataclasses.replace(cfg, rounds=1, newton=max(cfg.newton, 6), start_sd=(1e-4, 1e-4), unexplained=2.0)


def _loss(params: TraitParams, data: TraitData, times: slice) -> float:
    """Score forecasts of some periods, each from all before it: mean log loss."""
    before, _ = _replay(params, data, None)
    eta = trait_effects.logits(params, before, data)
    eta, y, seen = (np.asarray(x, np.float64)[:, times] for x in (eta, data.outcomes, data.seen))
    return float(((np.logaddexp(0, eta) - y * eta) * seen).sum() / seen.sum())


def _world_loss(world: ConsumerWorld, panel: Panel, outcome: str, times: slice) -> float:
    """Score the world's own forecasts of the same rows."""
    rows, at = world.observed(panel, times), panel.outcome_names.index(outcome)
    chance = np.clip(world.expected(rows)[:, at].astype(np.float64), 1e-9, 1 - 1e-9)
    happened = rows.outcomes[:, at]
    return float(-np.mean(np.log(np.where(happened > 0.5, chance, 1 - chance))))


_fit = jax.jit(traits.fit, static_argnames="cfg")
_replay = jax.jit(traits.replay)
_beliefs = jax.jit(machine.read_rows, static_argnames="model")
