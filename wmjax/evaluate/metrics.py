"""How good predictions are, on the host in float64, for reports. What cannot be computed is NaN and says when."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import scipy
from jaxtyping import Float, Shaped
from scipy.special import expit, ndtri, xlog1py, xlogy

from wmjax.core.errors import UserError

Rows = Shaped[np.ndarray, " rows"]
PAPER_GRID = tuple(round(0.10 + 0.05 * k, 2) for k in range(16))
"""Thresholds 0.10, 0.15, .., 0.85."""


def auc(labels: Rows, scores: Rows) -> float:
    """Compute the probability that a positive scores above a negative, ties counting one half (Mann and Whitney 1947).

    Args:
        labels: 0 or 1.
        scores: any monotone score; keep them in float64 or on the logit scale, where large ones do not tie at 1.

    Returns:
        NaN where the labels have one class only.
    """
    _check_binary(labels)
    positive = labels > 0.5
    n1, n0 = int(positive.sum()), int((~positive).sum())
    if n1 == 0 or n0 == 0:
        return float("nan")
    return float((scipy.stats.rankdata(scores)[positive].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def log_loss(labels: Rows, p: Float[np.ndarray, " rows"]) -> float:
    """Compute the mean `-y log p - (1 - y) log(1 - p)` in nats; infinite where a certain prediction was wrong."""
    _check_binary(labels)
    y, p = labels.astype(np.float64), p.astype(np.float64)
    return float(np.mean(-(xlogy(y, p) + xlog1py(1 - y, -p))))


def log_loss_of_logits(labels: Rows, logits: Float[np.ndarray, " rows"]) -> float:
    """Compute the mean `softplus(x) - y x` in nats, finite for every finite logit."""
    _check_binary(labels)
    x = logits.astype(np.float64)
    return float(np.mean(np.logaddexp(0.0, x) - labels * x))


def brier(labels: Rows, p: Float[np.ndarray, " rows"]) -> float:
    """Compute the mean squared error of probabilities (Brier 1950)."""
    _check_binary(labels)
    return float(np.mean((p.astype(np.float64) - labels) ** 2))


def r2(values: Rows, predicted: Float[np.ndarray, " rows"]) -> float:
    """Compute `1 - sum (y - m)^2 / sum (y - mean y)^2`; below 0 is worse than the mean; NaN where y does not vary."""
    y, m = values.astype(np.float64), predicted.astype(np.float64)
    total = np.sum((y - y.mean()) ** 2)
    return float(1 - np.sum((y - m) ** 2) / total) if total > 0 else float("nan")


def rmse(values: Rows, predicted: Float[np.ndarray, " rows"]) -> float:
    """Compute the root of the mean squared error, in the outcome's units."""
    return float(np.sqrt(np.mean((values.astype(np.float64) - predicted) ** 2)))


def wilson(successes: Rows, rows: Rows, *, alpha: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Bound a share by Wilson's score interval (Wilson 1927); NaN where there are no rows.

    (s + z^2/2) / (n + z^2)  -+  z / (n + z^2) sqrt(s (n - s) / n + z^2 / 4)
    """
    z = -float(ndtri(alpha / 2))
    s, n = np.asarray(successes, np.float64), np.asarray(rows, np.float64)
    n = np.where(n > 0, n, np.nan)
    centre = (s + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(s * (n - s) / n + z**2 / 4)
    # At the edges the formula gives 0 and 1 but for rounding.
    return np.where(s == 0, 0.0 * n, centre - half), np.where(s == n, 1.0, centre + half)


def equal_count_bins(values: Rows, bins: int) -> Shaped[np.ndarray, " rows"]:
    """Number the bins of equal count that values fall in, from 0; equal values share one, so there may be fewer."""
    ordered, k = np.sort(values), np.arange(1, bins)
    last = ordered[(len(ordered) * k + bins - 1) // bins - 1]
    return np.unique(np.searchsorted(np.unique(last), values, side="left"), return_inverse=True)[1]


def calibration_table(
    labels: Rows, p: Float[np.ndarray, " rows"], *, bins: int = 10, alpha: float = 0.1
) -> pd.DataFrame:
    """Set observed shares beside predicted probabilities in bins of equal count.

    Equal predictions always share a bin, so bins are fewer or of unequal count where predictions tie.

    Returns:
        bin (from 0), predicted (mean), observed (share), lo, hi (Wilson's interval of the observed share at
        `1 - alpha`, rows taken as independent), n.
    """
    _check_binary(labels)
    if bins < 1 or not len(labels):
        raise UserError(f"calibration needs at least one bin and one row, got {bins} bins and {len(labels)} rows")
    p = p.astype(np.float64)
    at = equal_count_bins(p, bins)
    n = np.bincount(at)
    ones = np.bincount(at, weights=labels)
    lo, hi = wilson(ones, n, alpha=alpha)
    predicted = np.bincount(at, weights=p) / n
    return pd.DataFrame(
        {"bin": np.arange(len(n)), "predicted": predicted, "observed": ones / n, "lo": lo, "hi": hi, "n": n}
    )


def expected_calibration_error(labels: Rows, p: Float[np.ndarray, " rows"], *, bins: int = 10) -> float:
    """Average `|observed - predicted|` over the calibration table's bins, weighted by rows.

    Even a perfect model has about `sqrt(2 bins p (1 - p) / (pi n))` of it.
    """
    table = calibration_table(labels, p, bins=bins)
    return float(np.average((table["observed"] - table["predicted"]).abs(), weights=table["n"]))


class Classified(NamedTuple):
    """Scores of yes-or-no answers at a threshold; NaN where a share is of nothing."""

    threshold: float
    accuracy: float
    precision: float
    recall: float
    f1: float


def classified(labels: Rows, p: Float[np.ndarray, " rows"], threshold: float) -> Classified:
    """Score the answer `p >= threshold`. F1 is 0 where there are positives but none was found."""
    _check_binary(labels)
    yes, y = p >= threshold, labels > 0.5
    hit = float(np.sum(yes & y))
    said, true = float(yes.sum()), float(y.sum())
    return Classified(
        float(threshold),
        float(np.mean(yes == y)),
        hit / said if said else float("nan"),
        hit / true if true else float("nan"),
        2 * hit / (said + true) if said + true else float("nan"),
    )


def best_threshold(
    labels: Rows,
    p: Float[np.ndarray, " rows"],
    *,
    by: Literal["f1", "accuracy"] = "f1",
    grid: tuple[float, ...] | None = PAPER_GRID,
) -> float:
    """Pick the threshold with the best score; the lowest of equals. Pick it on validation rows, use it on test rows.

    Args:
        by: score to maximise.
        grid: candidates; None tries every prediction.
    """
    _check_binary(labels)
    candidates = np.unique(p) if grid is None else np.asarray(grid)
    order = np.argsort(p, kind="stable")
    ordered, y = p[order], (labels[order] > 0.5).astype(np.float64)
    # Rows from `first` on are answered yes.
    first = np.searchsorted(ordered, candidates, side="left")
    after = np.r_[np.cumsum(y[::-1])[::-1], 0.0]
    hit, said, true = after[first], len(y) - first, y.sum()
    if by == "f1":
        score = np.divide(2 * hit, said + true, out=np.zeros(len(candidates)), where=said + true > 0)
    else:
        score = (hit + (first - (true - hit))) / len(y)
    return float(candidates[int(score.argmax())])


def probabilities(logits: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Turn logits into probabilities in float64."""
    return expit(logits.astype(np.float64))


def _check_binary(labels: np.ndarray) -> None:
    odd = ~((labels == 0) | (labels == 1))
    if odd.any():
        raise UserError(f"labels must be 0 or 1; {int(odd.sum())} of {len(labels)} are not, such as {labels[odd][0]}")
