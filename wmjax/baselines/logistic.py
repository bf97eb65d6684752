"""Logistic regression on raw features and actions: the baseline that every other model must earn its place beside."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression

from wmjax.baselines.tables import Table
from wmjax.data import scaling
from wmjax.evaluate import metrics

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Inverse penalties to choose from, scikit-learn's C."""


def fit_predict(train: Table, val: Table, ask: Table) -> Float[np.ndarray, "rows outcomes"]:
    """Fit one regression a binary outcome and predict the probabilities of other rows.

    Columns are standardised on the train rows; the penalty is the one with the least log loss on the validation rows.
    An outcome that never varies on the train rows is predicted by its rate.
    """
    scaler = scaling.fit_standard(_columns(train), np.ones(len(train.labels), bool))
    x, x_val, x_ask = (scaling.apply(scaler, _columns(t)).astype(np.float64) for t in (train, val, ask))
    found = np.empty((len(ask.features), train.labels.shape[1]), np.float32)
    for at in range(train.labels.shape[1]):
        y = train.labels[:, at]
        if (y == y[0]).all():
            found[:, at] = y[0]
            continue
        # Newton with Cholesky: made for many more rows than columns.
        fits = [LogisticRegression(C=c, solver="newton-cholesky").fit(x, y) for c in STRENGTHS]
        losses = [metrics.log_loss(val.labels[:, at], f.predict_proba(x_val)[:, 1].astype(np.float32)) for f in fits]
        found[:, at] = fits[int(np.argmin(losses))].predict_proba(x_ask)[:, 1]
    return found


def _columns(table: Table) -> Float[np.ndarray, "rows columns"]:
    return np.concatenate([table.features, table.actions], axis=1, dtype=np.float32)
