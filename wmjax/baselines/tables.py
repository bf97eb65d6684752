"""What a baseline is given and gives back: rows by part of the split, one contrast, answers on named scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from scipy.special import expit

from wmjax.core.errors import UserError

Kind = Literal["binary", "continuous", "currency", "count"]


class Table(NamedTuple):
    """Rows of one part of the split.

    features: [rows, features], what was known before. actions: [rows, actions]. labels: [rows, outcomes], finite where
    rows are learnt from; not read where they are only asked about.
    """

    features: Float[np.ndarray, "rows features"]
    actions: Float[np.ndarray, "rows actions"]
    labels: Float[np.ndarray, "rows outcomes"]


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One action at `a1` against `a0`, on the scale of the tables' actions; other actions as observed."""

    action_index: int
    a0: float = 0.0
    a1: float = 1.0


class Arms(NamedTuple):
    """Rows as learners of one contrast read them.

    x: [rows, features + other actions]. treated: [rows] bool, whether the action is at the contrast's `a1`. y: [rows].
    """

    x: np.ndarray
    treated: np.ndarray
    y: np.ndarray


class Baseline(NamedTuple):
    """A fitted baseline's answers for the rows that it was asked about, each [rows, outcomes] float64.

    linear: logit of a binary outcome; expected value of another. prediction: probability, or expected value.
    uplift_linear, uplift: the contrast on both scales, equal for outcomes that are not binary; None without a contrast.
    chosen: what the validation rows chose, one record an outcome.
    """

    linear: np.ndarray
    prediction: np.ndarray
    uplift_linear: np.ndarray | None
    uplift: np.ndarray | None
    chosen: list[dict[str, Any]]


def known_kinds(train: Table, val: Table, kinds: tuple[Kind, ...] | None) -> tuple[Kind, ...]:
    """Take every outcome for binary where nothing is said, and check the labels against their kinds.

    Raises:
        UserError: train or validation rows are none, an outcome is missing there, or a binary one is not.
    """
    outcomes = train.labels.shape[1]
    known: tuple[Kind, ...] = kinds if kinds is not None else ("binary",) * outcomes
    if outcomes != len(known):
        raise UserError(f"{outcomes} outcomes, {len(known)} kinds")
    for name, labels in (("train", train.labels), ("validation", val.labels)):
        if not len(labels):
            raise UserError(f"there are no {name} rows")
        for at, kind in enumerate(known):
            if bad := int((~np.isfinite(labels[:, at])).sum()):
                raise UserError(f"outcome {at}: {bad} of {len(labels)} {name} values are missing or infinite")
            if kind == "binary" and not np.isin(labels[:, at], (0, 1)).all():
                raise UserError(f"outcome {at}: declared binary but holds other {name} values than 0 and 1")
    return known


def columns(table: Table, contrast: Contrast) -> np.ndarray:
    """Lay features and the actions that do not vary side by side."""
    others = np.delete(table.actions, contrast.action_index, axis=1)
    return np.column_stack([table.features, others]).astype(np.float32)


def arms(table: Table, contrast: Contrast, outcome: int) -> Arms:
    """Lay rows out for a contrast.

    Raises:
        UserError: the action takes other values than the contrast's, or one of the two never.
    """
    action = table.actions[:, contrast.action_index]
    odd = ~np.isin(action, (contrast.a0, contrast.a1))
    if odd.any():
        raise UserError(
            f"action {contrast.action_index} must take the values {contrast.a0:g} and {contrast.a1:g}; "
            f"{int(odd.sum())} of {len(action)} rows have another, such as {action[odd][0]:g}"
        )
    treated = action == contrast.a1
    if treated.all() or not treated.any():
        raise UserError(f"action {contrast.action_index} takes the value {action[0]:g} in all {len(action)} rows")
    return Arms(columns(table, contrast), treated, table.labels[:, outcome].astype(np.float64))


class Scale(NamedTuple):
    """Affine scale a column, `(x - centre) / scale`, [columns] each. A scale of infinity sends a column to zero."""

    centre: np.ndarray
    scale: np.ndarray


def fit_scale(columns: Shaped[np.ndarray, "rows columns"], *, keep_bits: bool) -> Scale:
    """Standardise by train rows; a column that does not vary there is sent to zero, for nothing can be learnt of it.

    A month that first comes in the test rows would otherwise speak through weights that were never trained.

    Args:
        columns: of the train rows.
        keep_bits: leave columns of zeros and ones as they are.
    """
    varies = (columns != columns[:1]).any(axis=0)
    bits = ((columns == 0) | (columns == 1)).all(axis=0) & keep_bits
    centre = np.where(bits | ~varies, 0.0, columns.mean(axis=0, dtype=np.float64))
    scale = np.where(bits, 1.0, columns.std(axis=0, dtype=np.float64))
    return Scale(centre, np.where(varies, scale, np.inf))


def scaled(columns: Shaped[np.ndarray, "rows columns"], scale: Scale) -> Float[np.ndarray, "rows columns"]:
    """Apply a scale: float32."""
    return ((columns - scale.centre.astype(np.float32)) / scale.scale.astype(np.float32)).astype(np.float32)


def risk_difference(base: Float[np.ndarray, "*s"], tau: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """Turn a difference of logits into one of probabilities: `s(base + tau) - s(base)`."""
    return expit(base + tau) - expit(base)
