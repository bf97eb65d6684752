"""How good estimated effects are: against a known truth, or, for randomised actions, against outcomes alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from wmjax.core.errors import UserError
from wmjax.evaluate import metrics

Rows = Shaped[np.ndarray, " rows"]


def pehe(estimated: Rows, truth: Rows) -> float:
    """Compute the root of the mean squared error of individual effects (Hill 2011). Both on one scale.

    The square root is taken: some papers give the square.
    """
    return float(np.sqrt(np.mean((estimated.astype(np.float64) - truth) ** 2)))


def ate_error(estimated: Rows, truth: Rows) -> float:
    """Compute `|mean estimated - mean truth|`."""
    return float(abs(np.mean(estimated, dtype=np.float64) - np.mean(truth, dtype=np.float64)))


def effect_deciles(estimated: Rows, truth: Rows, *, bins: int = 10) -> pd.DataFrame:
    """Set mean true effects beside mean estimated ones in bins of equal count; equal estimates share a bin.

    Returns:
        bin (from 0, lowest first), estimated, truth, n.
    """
    at = metrics.equal_count_bins(estimated, bins)
    n = np.bincount(at)
    means = (np.bincount(at, weights=values.astype(np.float64)) / n for values in (estimated, truth))
    return pd.DataFrame(dict(zip(("bin", "estimated", "truth", "n"), (np.arange(len(n)), *means, n), strict=True)))


class UpliftCurve(NamedTuple):
    """Gain of acting on the rows with the highest scores, instead of on none.

    share: [points] from 0 to 1, share of rows acted on. gain: [points], incremental outcome a row of the whole table.
    """

    share: np.ndarray
    gain: np.ndarray


class UpliftScore(NamedTuple):
    """Areas under an uplift curve.

    auuc: area under the curve; for a random order it is half the average effect.
    qini: area between the curve and the straight line of a random order; 0 is random, below is worse.
    tied: share of rows whose score another row has too. Tied rows are crossed by a straight line, which is what a
        random order within the tie earns: a score that ties much cannot earn much.
    """

    auuc: float
    qini: float
    tied: float


def uplift_curve(
    scores: Rows, outcomes: Rows, actions: Rows, *, propensity: float | Float[np.ndarray, " rows"] | None = None
) -> UpliftCurve:
    """Trace the incremental outcome of acting on the top rows by score, from rows whose action was randomised.

        gain(k) = 1/n sum_{i <= k} [a_i y_i / e_i - (1 - a_i) y_i / (1 - e_i)]

    Not valid where the action followed from anything but the propensity that is given.

    Args:
        scores: estimated effects; only their order counts.
        outcomes: what happened.
        actions: 0 or 1.
        propensity: P(action = 1), one number or one a row; None takes the share of rows acted on.

    Raises:
        UserError: an action other than 0 and 1, one arm empty, or a propensity outside (0, 1).
    """
    if not np.isin(actions, (0, 1)).all() or len(np.unique(actions)) < 2:
        raise UserError(
            f"an uplift curve needs actions 0 and 1, both seen; there are {np.unique(actions)[:5].tolist()}"
        )
    e = np.broadcast_to(np.asarray(actions.mean() if propensity is None else propensity, np.float64), actions.shape)
    if not ((e > 0) & (e < 1)).all():
        raise UserError(f"propensities must lie in (0, 1); they reach from {e.min():g} to {e.max():g}")
    a, y = actions.astype(np.float64), outcomes.astype(np.float64)
    order = np.argsort(-scores.astype(np.float64), kind="stable")
    gain = np.cumsum((a * y / e - (1 - a) * y / (1 - e))[order]) / len(y)
    ordered = scores[order]
    last = np.r_[ordered[1:] != ordered[:-1], True]
    share = (np.arange(len(y)) + 1) / len(y)
    return UpliftCurve(np.r_[0.0, share[last]], np.r_[0.0, gain[last]])


def uplift_score(
    scores: Rows, outcomes: Rows, actions: Rows, *, propensity: float | Float[np.ndarray, " rows"] | None = None
) -> UpliftScore:
    """Compute AUUC and the Qini coefficient of `uplift_curve`, per row of the table, by the trapezoid rule."""
    curve = uplift_curve(scores, outcomes, actions, propensity=propensity)
    auuc = float(np.trapezoid(curve.gain, curve.share))
    _, counts = np.unique(scores, return_counts=True)
    return UpliftScore(auuc, auuc - float(curve.gain[-1]) / 2, float(counts[counts > 1].sum() / len(scores)))
