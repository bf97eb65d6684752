"""Penalised regressions of an action on what was known before it, on the host; quick at 100,000 rows of 100 columns."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import expit

STEPS, HALVINGS, GAP = 50, 20, 1e-3


class LinearModel(NamedTuple):
    """`intercept + features @ coefficients`, in the columns' own units.

    Attributes:
        intercept: a number.
        coefficients: `[columns]` float64; 0 where a column does not vary on the fitted rows.
    """

    intercept: float
    coefficients: Float[np.ndarray, " columns"]


def linear(model: LinearModel, features: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, " rows"]:
    """Compute the linear predictor of each row."""
    return features @ model.coefficients + model.intercept


class _Design(NamedTuple):
    """Standardised columns that vary, with a leading column of ones, and the way back."""

    matrix: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    varies: np.ndarray


def _design(features: Float[np.ndarray, "rows columns"]) -> _Design:
    centre = features.mean(axis=0, dtype=np.float64)
    scale = features.std(axis=0, dtype=np.float64)
    varies = (features != features[:1]).any(axis=0)
    # float32 halves the time of the products; the small systems are solved in float64.
    columns = ((features[:, varies] - centre[varies]) / scale[varies]).astype(np.float32)
    return _Design(np.column_stack([np.ones(len(columns), np.float32), columns]), centre, scale, varies)


def _undo(design: _Design, beta: Float[np.ndarray, " k"]) -> LinearModel:
    coefficients = np.zeros(len(design.centre))
    coefficients[design.varies] = beta[1:] / design.scale[design.varies]
    return LinearModel(float(beta[0] - coefficients @ design.centre), coefficients)


def fit_logistic(
    features: Float[np.ndarray, "rows columns"], labels: Float[np.ndarray, " rows"], *, penalty: float = 1.0
) -> LinearModel:
    """Fit a logistic regression by Newton's method.

        minimise  sum_i [softplus(eta_i) - y_i eta_i] + penalty / 2 |beta|^2

    over standardised columns; the intercept is free. The penalty keeps a separable fit finite.

    Args:
        features: any columns; those that do not vary get no weight.
        labels: 0 or 1.
    """
    design = _design(features)
    x, y = design.matrix, labels.astype(np.float64)
    ridge = np.r_[0.0, np.full(x.shape[1] - 1, penalty)]
    rate = np.clip(y.mean(), 1e-6, 1 - 1e-6)
    beta = np.r_[np.log(rate / (1 - rate)), np.zeros(x.shape[1] - 1)]

    def objective(beta: np.ndarray) -> tuple[float, np.ndarray]:
        eta = (x @ beta.astype(np.float32)).astype(np.float64)
        return float(np.sum(np.logaddexp(0.0, eta) - y * eta) + 0.5 * ridge @ beta**2), eta

    value, eta = objective(beta)
    for _ in range(STEPS):
        p = expit(eta)
        # Residuals of certain rows would be denormal numbers in float32, which are slow to multiply.
        residual = np.where(np.abs(p - y) < 1e-20, 0.0, p - y).astype(np.float32)
        slope = x.T @ residual + ridge * beta
        weighted = x * np.sqrt(np.maximum(p * (1 - p), 1e-10)).astype(np.float32)[:, None]
        curve = (weighted.T @ weighted).astype(np.float64) + np.diag(ridge)
        step = np.linalg.solve(curve + 1e-6 * np.eye(len(beta)), slope)
        trials = (beta - step * 0.5**halving for halving in range(HALVINGS))
        better = next(((b, *new) for b in trials if (new := objective(b))[0] <= value), None)
        if better is None:
            break  # float32 sees no descent any more
        beta, value, eta = better
        # Newton's decrement: what the quadratic model still promised, in nats over all rows.
        if slope @ step < 2 * GAP:
            break
    return _undo(design, beta)


def fit_ridge(
    features: Float[np.ndarray, "rows columns"], values: Float[np.ndarray, " rows"], *, penalty: float = 1.0
) -> LinearModel:
    """Fit `minimise sum_i (y_i - eta_i)^2 + penalty |beta|^2` over standardised columns; the intercept is free."""
    design = _design(features)
    x, y = design.matrix.astype(np.float64), values.astype(np.float64)
    ridge = np.r_[0.0, np.full(x.shape[1] - 1, penalty)]
    return _undo(design, np.linalg.solve(x.T @ x + np.diag(ridge) + 1e-9 * np.eye(x.shape[1]), x.T @ y))


def cross_fitted(
    fit: Any,
    features: Float[np.ndarray, "rows columns"],
    values: Float[np.ndarray, " rows"],
    *,
    seed: int,
    folds: int = 2,
) -> Float[np.ndarray, " rows"]:
    """Compute each row's linear predictor by a model that was not fitted to it.

    Args:
        fit: `(features, values) -> LinearModel`.
        seed: of the split into folds.
    """
    fold = np.random.default_rng(seed).permutation(len(values)) % folds
    out = np.empty(len(values))
    for k in range(folds):
        out[fold == k] = linear(fit(features[fold != k], values[fold != k]), features[fold == k])
    return out
