"""One plan of a world's sweep on the device: what it brings, costs and gains. Pure; the engine maps it over a grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from wmjax.sweep import plans
from wmjax.sweep.plans import Plan
from wmjax.worlds.sweep_checks import HORIZON, MEMBER

Parts = tuple[Float[Array, "units periods outcomes"], ...]
"""What adds up to the expected outcomes."""


class SweepData(NamedTuple):
    """Arrays that every point reads.

    forecast: of the world.
    factual: [units, periods and those that spend is carried over to, actions], what was done.
    present: of as many, [units, periods].
    groups: masks of units by name.
    worth: [outcomes]. cost: [actions].
    usual: parts of `expect`, of what was done, where no luck is in it; else none.
    """

    forecast: Any
    factual: Float[Array, "units periods actions"]
    present: Bool[Array, "units periods"]
    groups: Mapping[str, Any]
    worth: Float[Array, " outcomes"]
    cost: Float[Array, " actions"]
    usual: Parts


@dataclass(frozen=True)
class Evaluate:
    """What one point of the grid brings; equal settings are equal programs, which compile once.

    Attributes:
        expect: of the world: gives parts that add up to what is expected.
        plan: edits of the factual actions.
        actions: names.
        choices: of the grid.
        periods: those that plans are of; in later ones what was done stays.
        lucky: whether `expect` draws luck, so that what was done must be told under the same luck.
    """

    expect: Callable[..., Parts]
    plan: Plan
    actions: tuple[str, ...]
    choices: tuple[tuple[str, tuple[str, ...]], ...]
    periods: int
    lucky: bool

    def __call__(self, key: Key[Array, ""], point: Mapping[str, Any], data: SweepData) -> dict[str, Array]:
        """Give `total` and `gain` over what was done, [units, outcomes]; `cost` and `profit`, [units]; `path`."""
        asked = data.factual[:, : self.periods]
        planned = plans.columns(
            self.plan, asked, point, names=self.actions, groups=data.groups, choices=dict(self.choices)
        )
        # Column by column, and part by part: each hangs on axes of its own, and only sums of theirs on all of them.
        pairs = zip(planned, jnp.unstack(data.factual, axis=-1), strict=True)
        whole = lambda now, own: jnp.concatenate([now, own[:, self.periods :]], axis=1)  # noqa: E731
        both = [None if now is None else (jnp.where(data.present, whole(now, own), own), own) for now, own in pairs]
        now, was = (tuple(None if pair is None else pair[at] for pair in both) for at in range(2))
        member = point.get(MEMBER)
        expect = jax.jit(self.expect)  # traced once for both, and for every grid that asks the same
        parts = expect(key, data.forecast, data.factual, now, member)
        usual = data.usual
        if self.lucky or member is not None:
            usual = expect(key, data.forecast, data.factual, was, member)
        weight = data.present
        if HORIZON in point:
            weight = weight & (jnp.arange(weight.shape[1]) < point[HORIZON])
        over = lambda x: jnp.where(weight[..., None], x, 0.0).sum(1)  # noqa: E731
        # The difference period by period: that of two long sums has lost more to rounding.
        gain = reduce(jnp.add, [over(part - before) for part, before in zip(parts, usual, strict=True)])
        priced = [(*pair, price) for pair, price in zip(both, data.cost, strict=True) if pair is not None]
        cost = sum([over((now - own)[..., None])[:, 0] * price for now, own, price in priced], jnp.zeros(len(gain)))
        return {
            "total": reduce(jnp.add, [over(part) for part in parts]),
            "gain": gain,
            "cost": cost,
            "profit": gain @ data.worth - cost,
            "path": reduce(jnp.add, parts),
        }


DIMS = {
    "total": ("unit", "outcome"),
    "gain": ("unit", "outcome"),
    "cost": ("unit",),
    "profit": ("unit",),
    "path": ("unit", "time", "outcome"),
}
"""Dimensions of each output."""
