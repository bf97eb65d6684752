"""What meta-learners of one binary action's effect regress on, given their nuisances' predictions.

    low, high   E[Y | x, A = 0], E[Y | x, A = 1]
    mean        E[Y | x]
    share       P(A = 1 | x), the propensity

Formulas alone: whatever predicts the nuisances and whatever learns the last step is the caller's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

Rows = Float[np.ndarray, "*#seeds rows"]
Treated = Bool[np.ndarray, " rows"]


class Target(NamedTuple):
    """What a last regression learns: values and weights of rows."""

    value: Rows
    weight: Rows


def imputed(y: Rows, treated: Treated, *, low: Rows, high: Rows) -> Rows:
    """Impute each row's effect (X-learner): `y - low` where it was treated, `high - y` where not."""
    return np.where(treated, y - low, high - y)


def combined(*, share: Rows, missed: Rows, gained: Rows) -> Rows:
    """Average the X-learner's two regressions: `share missed + (1 - share) gained`.

    `missed` learnt imputed effects of rows that were not treated, `gained` those of rows that were.
    """
    return share * missed + (1 - share) * gained


def doubly_robust(y: Rows, treated: Treated, *, low: Rows, high: Rows, share: Rows, floor: float) -> Rows:
    """Compute the doubly robust pseudo-outcome (Kennedy, 2020), `share` kept `floor` away from 0 and 1.

    psi = high - low + a (y - high) / share - (1 - a) (y - low) / (1 - share)
    """
    a, e = treated.astype(float), np.clip(share, floor, 1 - floor)
    return high - low + a * (y - high) / e - (1 - a) * (y - low) / (1 - e)


def residual(y: Rows, treated: Treated, *, mean: Rows, share: Rows) -> Target:
    """Give the R-learner's regression (Nie and Wager, 2021): `(y - mean) / (a - share)`, weight `(a - share)^2`.

    Its weighted squared error is that of `y - mean` as `tau(x) (a - share)`.
    """
    gap = treated - share
    return Target((y - mean) / np.where(gap == 0, 1.0, gap), gap**2)
