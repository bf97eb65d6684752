"""Covariates that are measured with error, and what of them is error.

A column that stands for demand (searches, visits, an index) is demand and noise. Holding the column constant takes only
a part of demand out, and what is left is credited to spend that follows demand, however many rows there are. With

    y = a d + media(spend) + e,     x = d + nu,     nu of one week and one unit only,

d is known from what nu is not in: the column's own two last periods and, of five units or more, its mean over the
others of the same period (instruments; Griliches and Hausman 1986). Added to the covariates is

    v = x - E[x | instruments, spend, other covariates],

linear, in the train periods, within units. By linear regression the rest then has the coefficients of two-stage least
squares (a control function; Hausman 1978): none of x's error is left in them. Where x has no error v adds nothing, and
its coefficient tends to 0. It is wrong where a column's error lasts for weeks or is common to units, or where its last
periods move the outcome by themselves.

Asked of are columns that are only observed when they happen: what is known ahead (prices, the calendar) is decided by
someone, and known as it is. And those are left alone whose instruments are weak (Stock and Yogo's rule of 10), as of a
column that is new every week, or where rows or periods are too few (taking a unit's mean out of a few periods makes
instruments out of noise; Nickell 1981). `Errors.left` names them: such a column may be as noisy, and nobody can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

LAGS = 2
WEAK = 10.0
"""F statistic of the instruments below which a column is left as it is."""
PERIODS = 30
"""Fewest periods of a unit, with known lags, for its rows to be told from."""
CARRY = 0.5
"""Share of a period's stock of spend that is left in the next, in what is told of spend."""


class Errors(NamedTuple):
    """How errors are told.

    columns: [noisy], positions of the columns. slopes: [regressors, noisy]. level: [units, noisy], mean of what is left
    of a unit in the train periods (of a unit that was not there, the units' mean). strength: [noisy], F of instruments.
    left: positions of columns that were asked of and are left alone.
    """

    columns: Int[np.ndarray, " noisy"]
    slopes: Float[np.ndarray, "regressors noisy"]
    level: Float[np.ndarray, "units noisy"]
    strength: Float[np.ndarray, " noisy"]
    left: Int[np.ndarray, " others"]

    def of(self, units: Int[np.ndarray, " some"]) -> Errors:
        """Take some units' part."""
        return self._replace(level=self.level[units])


def nothing(units: int, left: Sequence[int] = ()) -> Errors:
    """Tell no errors; `left`, of columns that were asked of."""
    return Errors(np.zeros(0, int), np.zeros((0, 0)), np.zeros((units, 0)), np.zeros(0), np.array(left, int))


class Seen(NamedTuple):
    """What was observed, or is known exactly. [units, time, ..] each, `mask` [units, time].

    columns: covariates, less each unit's mean. peers: their means over units; of width 0 where units are few. shared:
    trend, seasons. spend: of channels, 1 where it is typical.
    """

    columns: np.ndarray
    peers: np.ndarray
    shared: np.ndarray
    spend: np.ndarray
    mask: np.ndarray

    def exact(self, noisy: np.ndarray) -> np.ndarray:
        """Give the means over units of columns without error."""
        return np.delete(self.peers, noisy, axis=-1) if self.peers.shape[-1] else self.peers


def fit(seen: Seen, may: Sequence[int], train: Bool[np.ndarray, " time"]) -> Errors:
    """Fit how errors are told, in the train periods, of columns at the positions `may` whose instruments are strong."""
    ready = _ready(seen) & train
    ready &= ready.sum(1, keepdims=True) >= PERIODS
    # A column that never varies within units is exact, whatever it is.
    may = [at for at in may if np.ptp(np.where(seen.mask, seen.columns[..., at], 0.0), axis=1).any()]
    noisy = np.array(may, int)
    while len(noisy) and ready.any():
        told, first = _told(seen, noisy)
        units, rows = np.unique(np.nonzero(ready)[0], return_inverse=True)
        count, width = len(rows), told.shape[-1] + len(units)
        if count < 2 * width:
            # Too few rows for so many: without the column that its own past tells least of.
            noisy = np.delete(noisy, _persistence(seen, noisy, ready, rows).argmin())
            continue
        z, y = (v[ready] - _means(v[ready], rows)[rows] for v in (told, seen.columns[..., noisy]))
        slopes, short = np.linalg.lstsq(z, y, rcond=None)[0], z[:, first:]
        left = np.square(y - z @ slopes).sum(0)
        more = np.square(y - short @ np.linalg.lstsq(short, y, rcond=None)[0]).sum(0) - left
        some = left > 1e-9 * np.square(y).sum(0)
        if not some.all():
            # What regressors tell entirely has no error to be told.
            may, noisy = np.setdiff1d(may, noisy[~some]).tolist(), noisy[some]
            continue
        strength = more / first / (left / (count - width))
        if (strength >= WEAK).all():
            rest = _means((seen.columns[..., noisy] - told @ slopes)[ready], rows)
            level = np.tile(rest.mean(0), (len(ready), 1))
            level[units] = rest
            return Errors(noisy, slopes, level, strength, np.setdiff1d(may, noisy))
        # One at a time: the instruments of one that has none dilute those of others.
        noisy = np.delete(noisy, strength.argmin())
    return nothing(len(ready), may)


def _persistence(seen: Seen, noisy: np.ndarray, ready: np.ndarray, rows: np.ndarray) -> Float[np.ndarray, " noisy"]:
    """Give each column's correlation with its last period, within units."""
    own = np.where(seen.mask[..., None], seen.columns[..., noisy], 0.0)
    now, last = (v[ready] - _means(v[ready], rows)[rows] for v in (own, _before(own, 1)))
    size = np.sqrt(np.square(now).sum(0) * np.square(last).sum(0))
    return (now * last).sum(0) / np.where(size > 0, size, 1.0)


def tell(errors: Errors, seen: Seen) -> Float[np.ndarray, "units time noisy"]:
    """Tell v of every row; 0 where the two periods before it, or no other unit of many, were observed."""
    if not len(errors.columns):
        return np.zeros((*seen.mask.shape, 0))
    found = seen.columns[..., errors.columns] - _told(seen, errors.columns)[0] @ errors.slopes - errors.level[:, None]
    return np.where(_ready(seen)[..., None], found, 0.0)


def _told(seen: Seen, noisy: np.ndarray) -> tuple[Float[np.ndarray, "units time regressors"], int]:
    """Lay out what columns are told from; the first so many are instruments."""
    mask = seen.mask[..., None]
    own, spend = (np.where(mask, v, 0.0) for v in (seen.columns[..., noisy], seen.spend))
    instruments = [_before(own, lag) for lag in range(1, LAGS + 1)]
    if seen.peers.shape[-1]:
        instruments.append((own.sum(0) - own) / np.maximum(mask.sum(0) - mask, 1))
    stock = spend.copy()
    for t in range(1, stock.shape[1]):
        stock[:, t] = CARRY * stock[:, t - 1] + (1 - CARRY) * spend[:, t]
    # Curves bend: a line and a logarithm of spend and of its stock.
    curves = [f(v) for v in (spend, stock) for f in (np.asarray, np.log1p)]
    exact = [np.delete(seen.columns, noisy, axis=-1), seen.exact(noisy), seen.shared]
    return np.concatenate([*instruments, *curves, *exact], axis=-1), len(instruments) * len(noisy)


def _before(values: np.ndarray, lag: int) -> np.ndarray:
    return np.concatenate([np.zeros_like(values[:, :lag]), values[:, : values.shape[1] - lag]], axis=1)


def _ready(seen: Seen) -> Bool[np.ndarray, "units time"]:
    """Mark rows that were observed, and so were those of their lags and, where peers tell, another unit."""
    found = seen.mask.copy()
    for lag in range(1, LAGS + 1):
        found &= _before(seen.mask, lag)
    return found & (seen.mask.sum(0) > 1) if seen.peers.shape[-1] else found


def _means(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    sums = np.zeros((rows.max() + 1, values.shape[-1]))
    np.add.at(sums, rows, values)
    return sums / np.bincount(rows)[:, None]
