"""Scales fitted on train rows only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class Scaler(NamedTuple):
    """An affine scale a column: `z = (x - centre) / scale`.

    Attributes:
        centre, scale: `[k]` float64; `scale` is positive.
    """

    centre: Float[np.ndarray, " k"]
    scale: Float[np.ndarray, " k"]


def fit_standard(values: Float[np.ndarray, "... k"], train: Bool[np.ndarray, "..."]) -> Scaler:
    """Fit mean and standard deviation (divisor n) over train rows, in float64; scale 1 where nothing varies."""
    x = values[train].astype(np.float64)
    if not len(x):
        return Scaler(np.zeros(values.shape[-1]), np.ones(values.shape[-1]))
    varies = (x != x[:1]).any(axis=0)
    # The standard deviation of equal numbers rounds to a tiny number, not to 0.
    return Scaler(x.mean(axis=0), np.where(varies, x.std(axis=0), 1.0))


def fit_max(values: Float[np.ndarray, "... k"], train: Bool[np.ndarray, "..."]) -> Scaler:
    """Fit the largest magnitude over train rows: 0 stays exactly 0 (no spend is no spend); all zeros have scale 1."""
    x = np.abs(values[train].astype(np.float64))
    top = x.max(axis=0, initial=0.0)
    return Scaler(np.zeros(values.shape[-1]), np.where(top > 0, top, 1.0))


def apply(scaler: Scaler, values: Float[np.ndarray, "... k"]) -> Float[np.ndarray, "... k"]:
    """Scale, computed in float64, given in the dtype of `values`."""
    return ((values - scaler.centre) / scaler.scale).astype(values.dtype)


def invert(scaler: Scaler, scaled: Float[np.ndarray, "... k"]) -> Float[np.ndarray, "... k"]:
    """Undo `apply`."""
    return (scaled * scaler.scale + scaler.centre).astype(scaled.dtype)
