"""How strong must a hidden cause be? Bounds on what an effect owes to a confounder that the table does not know.

For an average effect theta = E[m(g)] of an outcome's regression g, with Riesz representer alpha (of a binary action by
inverse propensity `1/p` and `1/(1 - p)`), a hidden cause that explains the share `r_y` of the outcome's variance that
is left, and the share `r_a` of the representer's, moves theta by at most

    |bias| <= S sqrt(r_y r_a / (1 - r_a)),    S^2 = E[(Y - g)^2] E[alpha^2]

(Chernozhukov, Cinelli, Newey, Sharma and Syrgkanis 2022, "Long Story Short"; Cinelli and Hazlett 2020). The robustness
value is the share that, as both, would bring the effect to nothing. What a share means is read off what is known: the
partial R2 of each group of columns with the outcome and with the action, given all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

RIDGE = 1e-6
"""Of a column's variance, added to it: one-hot groups are collinear."""


class Cause(NamedTuple):
    """A known cause: its name, and its partial R2 with an outcome and with an action, given all else."""

    name: str
    outcome: float
    action: float


class Known(NamedTuple):
    """What is known of causes.

    left: variance of each outcome that a linear regression on all columns and actions leaves, `[outcomes]`.
    strongest: of each action, outcome by outcome, the known cause whose like would move the effect most.
    """

    left: tuple[float, ...]
    strongest: tuple[tuple[Cause, ...], ...]


def known_causes(
    groups: Mapping[str, Shaped[np.ndarray, "rows columns"]],
    actions: Mapping[str, Float[np.ndarray, " rows"]],
    outcomes: Sequence[Float[np.ndarray, " rows"]],
) -> Known:
    """Measure by linear regressions how strongly each group of columns, and each other action, moves what is asked of.

    Args:
        groups: columns by name.
        actions: each one's effect may be asked about, and each may confound the others'.
        outcomes: one or more.
    """
    parts = {**groups, **{f"action {name}": values[:, None] for name, values in actions.items()}}
    columns = np.concatenate([np.asarray(x, np.float64) for x in parts.values()], axis=1)
    labels = np.repeat(np.arange(len(parts)), [x.shape[1] for x in parts.values()])
    table = np.column_stack([columns, *(np.asarray(y, np.float64) for y in outcomes)])
    table -= table.mean(0)
    gram, first = table.T @ table, columns.shape[1]
    targets, names = np.arange(first, gram.shape[0]), list(parts)
    whole = _left(gram, np.arange(first), targets)
    without = {n: _left(gram, np.flatnonzero(labels != at), targets) for at, n in enumerate(names)}
    shares = {n: 1 - whole / np.maximum(without[n], 1e-300) for n in names}
    strongest = []
    for at, own in enumerate(names[len(groups) :], len(groups)):
        column, others = np.flatnonzero(labels == at), labels != at
        most = _left(gram, np.flatnonzero(others), column)
        causes = []
        for number, name in enumerate(names):
            if name != own:
                fewer = _left(gram, np.flatnonzero(others & (labels != number)), column)
                causes.append((name, float(1 - most[0] / max(fewer[0], 1e-300))))
        strongest.append(tuple(_strongest(causes, shares, k) for k in range(len(outcomes))))
    return Known(tuple((whole / len(table)).tolist()), tuple(strongest))


def _left(gram: np.ndarray, read: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Sum the squares of each target that a regression on the columns `read` leaves, from centred products."""
    inner = gram[np.ix_(read, read)]
    spread = np.diagonal(inner)
    inner = inner + np.diag(RIDGE * np.maximum(spread, spread.max(initial=0.0) * RIDGE) + 1e-12)
    cross = gram[np.ix_(read, targets)]
    explained = np.sum(cross * np.linalg.solve(inner, cross), axis=0)
    return np.maximum(np.diagonal(gram)[targets] - explained, 0.0)


def _strongest(causes: Sequence[tuple[str, float]], shares: Mapping[str, np.ndarray], outcome: int) -> Cause:
    found = [Cause(name, float(np.clip(shares[name][outcome], 0, 1)), min(max(a, 0.0), 1.0)) for name, a in causes]
    return max(found, key=lambda c: c.outcome * c.action / max(1 - c.action, 1e-12), default=Cause("", 0.0, 0.0))


def robustness(effect: Any, size: Any) -> np.ndarray:
    """Compute the robustness value: the share r with `size^2 r^2 / (1 - r) = effect^2`, from 0 to 1.

    Args:
        effect: or the distance of its nearer bound from 0.
        size: S of the module.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.square(np.asarray(effect, np.float64) / size)
        # As q grows the root nears 1, where q^2 + 4 q - q^2 loses its digits.
        return np.where(np.isinf(q), 1.0, 2 * q / (np.sqrt(q * q + 4 * q) + q + (q == 0)))


def times_as_strong(effect: Any, size: Any, cause: Cause) -> np.ndarray:
    """Compute how many times as strong, by both shares, as a known cause a hidden one must be; inf if that has none."""
    q = np.square(np.asarray(effect, np.float64) / size)
    product = cause.outcome * cause.action
    if product <= 0:
        return np.full_like(q, np.inf)
    root = np.sqrt(np.square(q * cause.action) + 4 * product * q)
    return np.asarray((root - q * cause.action) / (2 * product))
