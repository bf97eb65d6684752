"""How strong must a hidden cause be? Bounds on what an effect owes to a confounder that the table does not know.

As of a linear regression of outcome Y on action A and columns X (Cinelli and Hazlett 2020, "Making Sense of
Sensitivity"): a hidden cause U that explains the share `r_y` of what A and X leave of the outcome, and the share `r_a`
of what X leaves of the action, moves the effect of a unit of the action by at most

    |bias| = S sqrt(r_y r_a / (1 - r_a)),    S^2 = var(Y left by A and X) / var(A left by X).

The robustness value is the share that, as both, makes this the whole effect. What a share means is read off the columns
that are known: a hidden cause k times as strong as a group G of columns (k times its explained variance of outcome and
action beyond all other columns) has, with R_y and R_a the partial R2 of G,

    r_a = k R_a / (1 - R_a),    r_y <= (sqrt(k) + sqrt(p))^2 / (1 - p) R_y / (1 - R_y),
    p = k R_a^2 / ((1 - k R_a) (1 - R_a)).

These are worst cases: a cause as strong may do nothing. And what is strongest known may be weak beside what is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

RIDGE = 1e-9
"""Of a column's variance, added to it: one-hot groups are collinear."""
NOTHING = 1e-6
"""A share of a target's variance below which nothing of it is left."""
HALVINGS = 60


class Group(NamedTuple):
    """Known columns: their name, and their partial R2 with an outcome (given the action too) and with the action."""

    name: str
    outcome: float
    action: float


class Known(NamedTuple):
    """What regressions on all columns and actions say.

    outcomes: variance that they leave of each outcome. actions: variance that all else leaves of each action. groups:
    of each action, outcome by outcome, the groups that may be a yardstick.
    """

    outcomes: tuple[float, ...]
    actions: tuple[float, ...]
    groups: tuple[tuple[tuple[Group, ...], ...], ...]


class Weakest(NamedTuple):
    """How many times as strong as a known group a hidden cause must be, and which; infinite and no name without."""

    times: float
    name: str


def known(
    groups: Mapping[str, Shaped[np.ndarray, "rows columns"]],
    actions: Mapping[str, Float[np.ndarray, " rows"]],
    outcomes: Sequence[Float[np.ndarray, " rows"]],
    *,
    own: Mapping[str, Sequence[str]] | None = None,
) -> Known | None:
    """Measure how strongly groups of columns, and the other actions, go with actions and outcomes.

    Args:
        groups: columns by name.
        actions: each one's effect may be asked about; the others stand among its columns, as groups of their names.
        outcomes: one or more.
        own: of an action, groups that are its own past: regressed on, but no yardstick for a hidden cause. Nor is what
            explains half of the action or more beyond all else, as strong as which nothing hidden could be.

    Returns:
        None where there are not twice as many rows as columns.
    """
    parts = {
        **{("group", n): np.asarray(x) for n, x in groups.items()},
        **{("action", n): x for n, x in actions.items()},
    }
    columns = [np.asarray(x, np.float64).reshape(len(x), -1) for x in parts.values()]
    labels = np.repeat(np.arange(len(parts)), [x.shape[1] for x in columns])
    rows = len(columns[0])
    free = rows - len(labels) - 1
    if free < rows // 2:
        return None
    table = np.column_stack([*columns, *(np.asarray(y, np.float64) for y in outcomes)])
    table -= table.mean(0)
    scale = table.std(0)
    table = np.divide(table, scale, out=np.zeros_like(table), where=scale > 0)
    gram, targets = table.T @ table / rows, np.arange(len(labels), table.shape[1])
    names = list(parts)

    def shares(read: np.ndarray, asked: np.ndarray, left: np.ndarray) -> dict[int, np.ndarray]:
        """Give each read group's partial R2 with targets of which all of `read` leave `left`."""
        found = {}
        for at in np.unique(labels[read]):
            fewer = _left(gram, read[labels[read] != at], asked)
            found[int(at)] = np.where(fewer > NOTHING, np.clip(1 - left / np.maximum(fewer, NOTHING), 0, 1), 0.0)
        return found

    every = np.arange(len(labels))
    left = _left(gram, every, targets)
    with_outcomes, variances, yardsticks = shares(every, targets, left), [], []
    for at, (kind, name) in enumerate(names):
        if kind != "action":
            continue
        column, others = np.flatnonzero(labels == at), np.flatnonzero(labels != at)
        alone = _left(gram, others, column)
        variances.append(float(alone[0] * scale[column[0]] ** 2 * rows / (free + 1)))
        with_action = shares(others, column, alone)
        past = set((own or {}).get(name, ()))
        rivals = [i for i in with_action if names[i][0] == "action" or names[i][1] not in past]
        each = [
            [Group(names[i][1], float(with_outcomes[i][k]), float(with_action[i][0])) for i in rivals]
            for k in range(len(outcomes))
        ]
        yardsticks.append(tuple(tuple(g for g in found if g.outcome > 0 and 0 < g.action < 0.5) for found in each))
    spread = left * scale[targets] ** 2 * rows / free
    return Known(tuple(spread.tolist()), tuple(variances), tuple(yardsticks))


def _left(gram: np.ndarray, read: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Give the share of each target's variance that a regression on the columns `read` leaves, from correlations."""
    cross = gram[np.ix_(read, targets)]
    inner = gram[np.ix_(read, read)] + RIDGE * np.eye(len(read))
    return np.maximum(np.diagonal(gram)[targets] - np.sum(cross * np.linalg.solve(inner, cross), axis=0), 0.0)


def _odds(share: float) -> float:
    return share / max(1 - share, 1e-12)


def robustness(effect: Any, size: Any) -> np.ndarray:
    """Compute the robustness value: the share r with `size^2 r^2 / (1 - r) = effect^2`, from 0 to 1.

    Args:
        effect: of a unit of the action, or the distance of its nearer bound from 0.
        size: S of the module.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(np.asarray(effect, np.float64)) / size
        return np.asarray(2 / (1 + np.sqrt(1 + np.square(2 / ratio))))


def times_as_strong(effect: float, size: float, group: Group) -> float:
    """Compute how many times as strong as a group of known columns a hidden cause must be to make all of an effect.

    Infinite where the group has no part in the outcome or in the action; NaN for an effect that is.
    """
    if not np.isfinite(effect) or min(group.outcome, group.action) <= 0 or not size > 0:
        return float("nan") if np.isnan(effect) else float("inf")
    ratio = abs(effect) / size

    def bias(k: float) -> float:
        """In units of S; infinite from where nothing would be left of the action."""
        action = k * _odds(group.action)
        p = k * group.action**2 / max((1 - k * group.action) * (1 - group.action), 1e-300)
        if action >= 1 or p >= 1:
            return float("inf")
        outcome = min(1.0, (np.sqrt(k) + np.sqrt(p)) ** 2 / (1 - p) * _odds(group.outcome))
        return float(np.sqrt(outcome * action / (1 - action)))

    low, high = 0.0, 1 / _odds(group.action)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if bias(middle) < ratio else (low, middle)
    return 0.5 * (low + high)


def weakest(effect: float, size: float, groups: Sequence[Group]) -> Weakest:
    """Find the known group of which the least multiple could make all of an effect: the yardstick of all."""
    found = [Weakest(times_as_strong(effect, size, group), group.name) for group in groups]
    known = [one for one in found if np.isfinite(one.times)]
    return min(known, default=Weakest(float("nan") if np.isnan(effect) else float("inf"), ""))
