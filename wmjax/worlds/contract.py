"""The contract that every fitted world keeps, and the door that opens a saved one.

Below each world stands a pure function `simulate(key, params, history, actions, *, model) -> rollout` that `jit`,
`vmap` and `grad` see; what is below is what a person calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Array, Bool, Float, Key

from wmjax.core.errors import UserError
from wmjax.core.files import read_json
from wmjax.core.provenance import provenance
from wmjax.data.panel import Panel, show_time
from wmjax.data.schema import PanelSchema

KINDS = {
    "consumer": "wmjax.worlds.consumer.store",
    "graph": "wmjax.worlds.graph.store",
    "media": "wmjax.worlds.media.store",
}


class World(Protocol):
    """A fitted world. Every answer is labelled with names, units and dates, and carries its provenance in `attrs`."""

    schema: PanelSchema

    def predict(self, panel: Panel) -> xr.Dataset:
        """Predict every outcome of every row from what was known before it and the actions of the row."""
        ...

    def simulate(
        self, key: Key[Array, ""], panel: Panel, actions: Float[Any, "unit time action"], *, start: int, draws: int = 1
    ) -> xr.Dataset:
        """Roll the panel out from period `start` under `actions`, feeding outcomes back into the history."""
        ...

    def effect(self, panel: Panel, action: str, T0: float | int, T1: float | int) -> xr.Dataset:
        """Contrast `action = T1` with `action = T0` in each row, all else as observed."""
        ...

    def effect_interval(
        self, panel: Panel, action: str, T0: float | int, T1: float | int, *, alpha: float = 0.1
    ) -> xr.Dataset:
        """Add intervals that hold with probability `1 - alpha`."""
        ...

    def plausibility(self, panel: Panel, actions: Float[Any, "unit time action"] | None = None) -> xr.Dataset:
        """Score how well each history, factual or under other `actions`, agrees with those that the world has seen."""
        ...

    def save(self, path: str | Path) -> None:
        """Write a folder, whole or not at all."""
        ...


def load(path: str | Path) -> Any:
    """Open a saved world of any kind.

    Args:
        path: a world's folder, or a run's folder that holds one in `world/`.

    Raises:
        UserError: where no world is found there.
    """
    path = Path(path)
    folder = path if (path / "world.json").exists() else path / "world"
    if not (folder / "world.json").exists():
        raise UserError(
            f"{path}: no world here (a fitted world's folder holds world.json, or a folder `world` that does)"
        )
    kind = read_json(folder / "world.json")["kind"]
    if kind not in KINDS:
        raise UserError(f"{folder}: a world of kind {kind!r}; this version opens {sorted(KINDS)}")
    return import_module(KINDS[kind]).load(folder)


class Named:
    """What all worlds share: shown in a line, of its kind, members, actions and outcomes; and its fit's periods."""

    def __repr__(self) -> str:
        world: Any = self
        actions, outcomes = (", ".join(world.schema.names(role)) for role in ("action", "outcome"))
        return f"{type(self).__name__}({world.members} members; actions {actions}; outcomes {outcomes})"

    @property
    def answers(self) -> int:
        """How many answer what a plan changes, which a sweep's axis `member` tells apart."""
        world: Any = self
        return world.members

    def periods(self, panel: Panel, part: str = "test") -> slice:
        """Find the periods of a panel that fall in the fit's `train`, `val` or `test` dates.

        Raises:
            UserError: where the panel has none, or the fit had no such part.
        """
        world: Any = self
        return periods(world.facts, panel, part)


class Reach(NamedTuple):
    """How far a world's data reach, for plans of some periods; actions are `[units, periods, actions]`.

    beyond: of actions under a plan, marks the cells beyond what was seen; asked of the cells that the plan moves.
    where: what is true of those cells, in words. lost: actions of which no effect is identified. reasons: of the names
    of actions that are moved, why no effect of theirs is to be believed where a plan goes beyond what was seen. rolled:
    of plans, what is to be said of the histories that they make; asked where these are fed back. always: of the names
    of actions that are moved, what is to be said wherever plans go.
    """

    beyond: Callable[[Float[Any, "unit period action"]], Bool[Any, "unit period action"]]
    where: str
    lost: frozenset[str]
    reasons: Callable[[frozenset[str]], list[str]] = lambda moved: []
    rolled: Callable[[Iterable[Float[Any, "unit period action"]]], list[str]] = lambda plans: []
    always: Callable[[frozenset[str]], list[str]] = lambda moved: []


def periods(facts: Mapping[str, Any], panel: Panel, part: str) -> slice:
    """Find the periods of a panel that fall in a fit's `train`, `val` or `test` dates.

    Raises:
        UserError: where the panel has none, or the fit had no such part.
    """
    if not facts.get(part):
        raise UserError(f"the fit had no {part} periods")
    first, last = facts[part]
    if isinstance(panel.times, pd.DatetimeIndex):
        first, last = pd.Timestamp(first), pd.Timestamp(last)
    else:
        first, last = int(first), int(last)
    found = np.flatnonzero((panel.times >= first) & (panel.times <= last))
    if not len(found):
        raise UserError(f"the panel has no period within the fit's {part} dates, {first} to {last}")
    return slice(int(found[0]), int(found[-1]) + 1)


def parts(facts: Mapping[str, Any], panel: Panel) -> np.ndarray:
    """Name the part of a fit, `train`, `val` or `test`, of each of a panel's periods; empty where it is in none."""
    found = np.full(panel.num_times, "", object)
    for part in ("train", "val", "test"):
        try:
            found[periods(facts, panel, part)] = part
        except UserError:
            continue
    return found


def origin(key: Key[Array, ""], seed: int | None, cfg: Any, panel: Panel) -> dict[str, Any]:
    """Collect the provenance of a fit; without a seed, `seed` holds the key's data, a list of integers."""
    found = provenance(seed=seed or 0, cfg=cfg, schema=panel.schema, data=panel.fingerprint)
    # Members are laid over the devices, and other shapes round otherwise.
    found["devices"] = f"{jax.local_device_count()} x {jax.local_devices()[0].platform}"
    return found if seed is not None else found | {"seed": jax.random.key_data(key).tolist()}


def member_key(key: Key[Array, ""], member: int) -> Key[Array, ""]:
    """The key of one member of an ensemble: the same whether it is trained alone or with others."""
    return jax.random.fold_in(key, member)


def check_key(key: Any) -> None:
    """Refuse what is no single random key."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not typed or key.ndim:
        told = f"keys of shape {key.shape}" if typed else repr(key) if isinstance(key, int) else type(key).__name__
        raise UserError(f"key is {told}, must be one random key; give jax.random.key(0)")


def check_plan(panel: Panel, actions: Float[Any, "unit time action"]) -> None:
    """Refuse a plan that gives an action a value which its kind does not have: half a bit, less than no money."""
    planned = panel.with_actions(np.asarray(actions)).arrays.actions
    for at, name in enumerate(panel.action_names):
        kind, values = panel.schema.column(name).kind, planned[..., at]
        if kind == "binary":
            bad = ~np.isin(values, (0, 1))
        elif kind in ("count", "currency"):
            bad = (values < 0) | ((kind == "count") & (values != np.round(values)))
        else:
            continue
        if bad.any():
            unit, time = (int(i[0]) for i in np.nonzero(bad))
            raise UserError(
                f"column {name!r}: {int(bad.sum()):,} actions of the plan are no {kind} values, first "
                f"{values[unit, time]:g} at unit {panel.units[unit]!r}, time {show_time(panel.times[time])}"
            )


class Answers(NamedTuple):
    """Who answers a sweep.

    count: how many, which an axis `member` tells apart. drawn: whether they are draws of what the data leave open,
    whose quantiles bound what they answer; a few of them say something else than all.
    """

    count: int
    drawn: bool = False


def check_roll_out(key: Any, panel: Panel, start: int, *, least: int = 0) -> None:
    """Refuse what is no key, and a first period that the panel does not have, or that has too few before it."""
    check_key(key)
    if not least <= start < panel.num_times:
        raise UserError(f"start is {start}, must be a position from {least} to {panel.num_times - 1}")
