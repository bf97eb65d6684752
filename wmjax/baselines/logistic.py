"""Logistic regression on raw features and actions; ridge regression for outcomes that are not binary.

The baseline that every other model must earn its place beside. Its effect of an action is one number on the logit
scale: it knows who is likely, not who responds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import expit
from sklearn.linear_model import LogisticRegression, Ridge

from wmjax.baselines import tables
from wmjax.baselines.tables import Baseline, Contrast, Kind, Table
from wmjax.evaluate import metrics

PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)
"""On half the squared coefficients of standardised columns, in rows; scikit-learn's 1 / C."""


def fit_predict(
    train: Table, val: Table, ask: Table, *, kinds: tuple[Kind, ...] | None = None
) -> Float[np.ndarray, "rows outcomes"]:
    """Fit and predict other rows: probabilities of binary outcomes, expected values of others; see `fit`."""
    return fit(train, val, ask, kinds=kinds).prediction


def fit(
    train: Table,
    val: Table,
    ask: Table,
    *,
    kinds: tuple[Kind, ...] | None = None,
    contrast: Contrast | None = None,
    penalties: tuple[float, ...] = PENALTIES,
    scale: tables.Scale | None = None,
) -> Baseline:
    """Fit one regression an outcome, with the penalty that does best on the validation rows (log loss, or RMSE).

    Args:
        train, val: rows to learn from and rows to choose by.
        ask: rows to answer for; their labels are not read.
        kinds: one an outcome; all binary where not given.
        contrast: whose uplift is wanted.
        penalties: to choose from.
        scale: of the features' columns, then the actions'; the penalty is on scaled columns. The train rows' own by
            default, where few rows may hardly move a column that others do.

    Raises:
        UserError: see `tables.known_kinds`.
    """
    kinds = tables.known_kinds(train, val, kinds)
    scale = scale or tables.fit_scale(columns(train), keep_bits=False)
    x, x_val, x_ask = (tables.scaled(columns(t), scale).astype(np.float64) for t in (train, val, ask))
    fits = [
        _best(x, train.labels[:, at], x_val, val.labels[:, at], kind == "binary", penalties)
        for at, kind in enumerate(kinds)
    ]
    binary = np.array([kind == "binary" for kind in kinds])
    linear = np.column_stack([f.intercept + x_ask @ f.beta for f in fits])
    prediction = np.where(binary, expit(linear), linear)
    chosen: list[dict[str, Any]] = [{"penalty": f.penalty, "score": f.score} for f in fits]
    if contrast is None:
        return Baseline(linear, prediction, None, None, chosen)
    column = train.features.shape[1] + contrast.action_index
    slope = np.array([f.beta[column] for f in fits]) / scale.scale[column]
    tau = np.broadcast_to(slope * (contrast.a1 - contrast.a0), linear.shape).copy()
    low = linear + slope * (contrast.a0 - ask.actions[:, contrast.action_index, None])
    return Baseline(linear, prediction, tau, np.where(binary, tables.risk_difference(low, tau), tau), chosen)


class _Fit(NamedTuple):
    """On standardised columns; `score` is the validation rows' loss."""

    score: float
    intercept: float
    beta: np.ndarray
    penalty: float


def _best(
    x: np.ndarray, y: np.ndarray, x_val: np.ndarray, y_val: np.ndarray, binary: bool, penalties: tuple[float, ...]
) -> _Fit:
    """Fit every penalty, strongest first and each from the one before; keep the best on the validation rows."""
    loss = metrics.log_loss_of_logits if binary else metrics.rmse
    if binary and (y == y[0]).all():
        # One class: the log-odds of half a row of the other class, and no slope.
        rate = (y.sum() + 0.5) / (len(y) + 1)
        intercept = float(np.log(rate / (1 - rate)))
        return _Fit(loss(y_val, np.full(len(y_val), intercept)), intercept, np.zeros(x.shape[1]), float("inf"))
    # Newton with Cholesky: made for many more rows than columns.
    model: Any = LogisticRegression(solver="newton-cholesky", warm_start=True, max_iter=200) if binary else Ridge()
    found = []
    for penalty in sorted(penalties, reverse=True):
        model.set_params(**({"C": 1 / penalty} if binary else {"alpha": penalty})).fit(x, y)
        beta, intercept = np.ravel(model.coef_).copy(), float(np.ravel(model.intercept_)[0])
        found.append(_Fit(loss(y_val, intercept + x_val @ beta), intercept, beta, penalty))
    return min(found, key=lambda f: f.score)


def columns(table: Table) -> Float[np.ndarray, "rows columns"]:
    """Lay features and actions side by side."""
    return np.concatenate([table.features, table.actions], axis=1, dtype=np.float32)
