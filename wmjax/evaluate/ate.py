"""The estimator of average effects of a plan: four questions of one model, each answered with an interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from wmjax.core.errors import UserError
from wmjax.evaluate import attribution
from wmjax.evaluate.attribution import Attribution, Respond, Spend, Window

Tell = Callable[[np.ndarray, float], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""`tell(answers, alpha) -> (mean, lo, hi)`, an axis of those who answer in front."""


class Estimate(NamedTuple):
    """A mean over those who answer, and bounds that hold with probability `1 - alpha`."""

    mean: Float[np.ndarray, "*shape"]
    lo: Float[np.ndarray, "*shape"]
    hi: Float[np.ndarray, "*shape"]


@dataclass(frozen=True, eq=False, repr=False)
class ATEEstimator:
    """Answer what spend in a window did, and what other spend would do; see `attribution`.

    Attributes:
        respond: the model, in units of the outcome; see `attribution`.
        params: of those who answer, on an axis in front: members, of averaged (EMA) parameters, or draws around them of
            what the data leave open.
        spend: the plan in its own units.
        over: where plans may differ and outcomes count.
        tell: how answers make a mean and an interval.
        channels: their names, by which they may be asked for, as by position.
        alpha: intervals hold with probability 1 - alpha.
        chunk: scenarios computed side by side.
    """

    respond: Respond
    params: Any
    spend: Spend
    over: Window
    tell: Tell
    channels: tuple[str, ...] = ()
    alpha: float = 0.1
    chunk: int = 16

    def __repr__(self) -> str:
        answers = jax.tree.leaves(self.params)[0].shape[0]
        units, periods, channels = self.spend.shape
        return f"ATEEstimator({answers} answers; {channels} channels, {units} units, {periods} periods)"

    def zero_spend(self) -> Estimate:
        """Say what each channel added against no spend in it: `[channels, units]`, in units of the outcome."""
        return self._told(self._attribute((1.0,)).zero)

    def roi_curve(self, grid: tuple[float, ...]) -> Estimate:
        """Say what a unit of spend brings at multiples of each channel's spend: `[channels, grid, units]`.

        NaN at no spend, of the multiple 0 or of a channel that a unit does not have.

        Raises:
            UserError: a grid that is none.
        """
        if np.ndim(grid) != 1 or not all(isinstance(x, int | float | np.number) and x >= 0 for x in grid):
            raise UserError(f"the grid is {grid!r}; it must be multiples of the spend, (0.5, 1.0, 1.5)")
        times = np.asarray(grid)[:, None]
        return self._told(self._attribute(grid).curve / _paid(times * self._cost()[:, None]))

    def marginal_roi(self) -> Estimate:
        """Say what the next unit of spend would bring, by automatic differentiation: `[channels, units]`."""
        return self._told(self._attribute((1.0,)).marginal / _paid(self._cost()))

    def budget_shift(self, source: int | str, target: int | str, share: float | int) -> Estimate:
        """Say what moving a share of one channel's spend to another changes: `[units]`, in units of the outcome.

        Raises:
            UserError: no such channel, or a share that is none.
        """
        if not 0 <= share <= 1:
            raise UserError(f"share is {share}, must be from 0 to 1")
        moved = attribution.shifted(self.spend, self._at(source), self._at(target), share, self.over.change)

        def gain(respond: Respond, params: Any) -> Any:
            before, after = (attribution.total(respond, params, plan, self.over) for plan in (self.spend, moved))
            return after - before

        return self._told(self._asked(gain))

    def _attribute(self, grid: tuple[float, ...]) -> Attribution:
        points = jnp.asarray(grid, jnp.float32)
        return self._asked(attribution.attribute, self.spend, self.over, points, chunk=self.chunk)

    def _asked(self, fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
        found = attribution.members(fn, self.respond, self.params, *args, **options)
        return jax.tree.map(lambda x: np.asarray(x, np.float64), found)

    def _at(self, channel: int | str) -> int:
        """Find a channel's position."""
        count = self.spend.shape[2]
        if isinstance(channel, str) and channel in self.channels:
            return self.channels.index(channel)
        if isinstance(channel, str) or not 0 <= channel < count:
            raise UserError(f"no channel {channel!r}; there are {', '.join(self.channels) or f'0 to {count - 1}'}")
        return channel

    def _told(self, found: Any) -> Estimate:
        return Estimate(*self.tell(found, self.alpha))

    def _cost(self) -> Float[np.ndarray, "channels units"]:
        return np.asarray(jnp.einsum("utk,t->ku", self.spend, self.over.change), np.float64)


def _paid(cost: np.ndarray) -> np.ndarray:
    return np.where(cost > 0, cost, np.nan)
