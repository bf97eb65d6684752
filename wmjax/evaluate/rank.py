"""Rank correlations that say what they do with ties, classes and third variables. NaN where a side does not vary."""

from __future__ import annotations

import jax
import numpy as np
import pandas as pd
import scipy
from jaxtyping import Array, Float, Key, Shaped

Rows = Shaped[np.ndarray, " rows"]


def generator(key: Key[Array, ""]) -> np.random.Generator:
    """Seed a NumPy generator from a key, for draws on the host."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())


def pearson(x: Rows, y: Rows) -> float:
    """Correlate two columns; NaN where one does not vary."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    if len(x) < 2 or (x == x[0]).all() or (y == y[0]).all():
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def spearman(x: Rows, y: Rows) -> float:
    """Correlate ranks, equal values sharing their mean rank (Spearman 1904).

    A prediction that is exact about classes and silent within them gains from its ties: compare `spearman_tie_broken`.
    """
    return pearson(scipy.stats.rankdata(x), scipy.stats.rankdata(y))


def spearman_tie_broken(key: Key[Array, ""], predicted: Rows, truth: Rows, *, draws: int = 10) -> float:
    """Correlate ranks where equal predictions are ordered at random, on average over `draws` orders.

    It is what the prediction would score with a little noise; ties of the truth stay.
    """
    rng, ranks = generator(key), scipy.stats.rankdata(truth)
    found = []
    for _ in range(draws):
        order = np.lexsort((rng.random(len(predicted)), predicted))
        broken = np.empty(len(predicted))
        broken[order] = np.arange(len(predicted))
        found.append(pearson(broken, ranks))
    constant = len(predicted) == 0 or (predicted == predicted[0]).all()
    return float("nan") if constant else float(np.mean(found))


def spearman_within(x: Rows, y: Rows, classes: Rows) -> pd.DataFrame:
    """Correlate ranks within each class, which leaves out what the class alone explains.

    Returns:
        class, n, rho, and a first row `all`: the mean of rho over classes weighted by rows, without those that are NaN.
    """
    labels, at = np.unique(classes, return_inverse=True)
    n = np.bincount(at)
    rho = np.array([spearman(x[at == k], y[at == k]) for k in range(len(labels))])
    known = np.isfinite(rho)
    overall = float(np.average(rho[known], weights=n[known])) if known.any() else float("nan")
    return pd.DataFrame(
        {"class": ["all", *labels.tolist()], "n": [int(n.sum()), *n.tolist()], "rho": [overall, *rho.tolist()]}
    )


def spearman_partial(x: Rows, y: Rows, given: Shaped[np.ndarray, " rows"] | Float[np.ndarray, "rows columns"]) -> float:
    """Correlate the ranks of x and y after both were regressed on the ranks of `given`.

    For one column z: `(r_xy - r_xz r_yz) / sqrt((1 - r_xz^2)(1 - r_yz^2))`. NaN where nothing is left of a side.
    """
    columns = given.reshape(len(x), -1)
    ranks = np.column_stack([np.ones(len(x)), *(scipy.stats.rankdata(c) for c in columns.T)])
    left = []
    for side in (scipy.stats.rankdata(x), scipy.stats.rankdata(y)):
        residual = side - ranks @ np.linalg.lstsq(ranks, side, rcond=None)[0]
        if np.sum(residual**2) <= 1e-12 * max(np.sum((side - side.mean()) ** 2), 1e-300):
            return float("nan")
        left.append(residual)
    return pearson(*left)
