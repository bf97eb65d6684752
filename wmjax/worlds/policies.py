"""What a policy is worth on held-out rows whose actions were drawn by chance, beside what a world expects of it.

A policy is each unit's plan, chosen from a sweep. Where every action that it decides was randomised, with a probability
that is known, its value can be estimated without the world (inverse propensity), or with the world to lessen the
variance (doubly robust); `evaluate.policy` has both. Where one was not, no such estimate can be trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy
from jaxtyping import Bool, Float

from wmjax.core.errors import UserError
from wmjax.data.panel import Panel
from wmjax.evaluate import policy
from wmjax.sweep import plan_reading, plans
from wmjax.worlds import contract, sweeping
from wmjax.worlds.consumer.rows import Rows
from wmjax.worlds.consumer.world import ConsumerWorld

ALARM = 5.0
"""Standard errors from which an action's share says that it was not drawn as told: a false alarm in 10^6 or fewer."""


class Planned(NamedTuple):
    """What a policy does, in some periods.

    actions: under the policy. decides: whether it sets the cell whatever was done there. covered: units it has a plan
    for, or leaves as they were. left: those that it leaves.
    """

    actions: Float[np.ndarray, "unit period action"]
    decides: Bool[np.ndarray, "unit period action"]
    covered: Bool[np.ndarray, " unit"]
    left: Bool[np.ndarray, " unit"]


class Reward(NamedTuple):
    """What a row is worth: outcomes by their worth, less actions by their cost; and in what unit."""

    worth: Float[np.ndarray, " outcomes"]
    cost: Float[np.ndarray, " actions"]
    unit: str

    def of(self, outcomes: Any, actions: Any) -> Float[np.ndarray, " rows"]:
        return np.asarray(outcomes, np.float64) @ self.worth - np.asarray(actions, np.float64) @ self.cost


class Judged(NamedTuple):
    """A policy's value.

    table: quantity (`value`, `gain` over what was done; of a row), by, value, se, lo, hi; NaN where not estimated.
    rows, units, met: how many, and rows in which what was done is what the policy does.
    warnings: why there is no estimate, or what it leans on.
    """

    table: pd.DataFrame
    rows: int
    units: int
    met: int
    warnings: list[str]


def planned(panel: Panel, about: Mapping[str, Any], chosen: pd.DataFrame) -> Planned:
    """Work out the actions of a policy from a sweep.

    Args:
        panel: that was swept.
        about: attributes of the sweep.
        chosen: a row a unit: `unit`, and the levels of the sweep's axes; none where it is left as it was.
    """
    told, setting = about["provenance"], about["provenance"]["setting"]
    window = slice(setting["start"], setting["start"] + setting["periods"])
    plan, groups = plan_reading.read_plan(told["edits"]), sweeping.groups_of(panel, setting["by"])
    kinds = {name: kind for columns in about["sweep"]["axes"].values() for name, kind in columns.items()}
    axes = [str(name) for name in chosen if name in kinds]
    choices = {n: tuple(sorted(set(chosen[n].dropna()))) for n in axes if kinds[n] == "choice"}
    was = panel.arrays.actions[:, window]
    # A cell is decided where the plan gives it the same value had its action been another.
    other = np.where(was == 0, 1, 0).astype(was.dtype)
    where = {unit: i for i, unit in enumerate(panel.units)}
    if strange := [u for u in chosen["unit"] if u not in where]:
        raise UserError(f"the sweep has a unit {strange[0]!r}, which the panel has not; give the panel that was swept")
    actions, decides, covered = was.copy(), np.zeros(was.shape, bool), np.zeros(len(was), bool)
    covered[[where[u] for u in chosen["unit"]]] = True
    values: Any
    for values, part in chosen.groupby(axes, sort=False):
        point = {n: _level(v, kinds[n], choices.get(n, ())) for n, v in zip(axes, values, strict=True)}
        scene: dict[str, Any] = {"names": panel.action_names, "groups": groups, "choices": choices}
        one, two = (np.asarray(plans.apply(plan, jnp.asarray(x), point, **scene)) for x in (was, other))
        at = [where[u] for u in part["unit"]]
        actions[at], decides[at] = one[at], (one == two)[at]
    left = np.zeros(len(was), bool)
    left[[where[u] for u in chosen["unit"][chosen[axes].isna().any(axis=1)]]] = True
    return Planned(actions, decides, covered, left)


def _level(value: Any, kind: str, names: tuple[str, ...]) -> Any:
    if kind == "choice":
        return jnp.int32(names.index(value))
    return jnp.float32(value) if kind == "number" else jnp.int32(value)


def judge(
    world: ConsumerWorld, panel: Panel, own: Planned, start: int, reward: Reward, *, alpha: float = 0.05
) -> Judged:
    """Estimate a policy's value on the rows of its periods.

    Each row is a decision of its own, given its own observed history, as in a sweep without feedback. The world's own
    numbers are expectations; they have no standard error of the rows' luck. Intervals are Student's t over units.

    Args:
        own: what the policy does.
        start: position of its first period.
        reward: what a row is worth.

    Raises:
        UserError: periods that the world was fitted on, or in which no unit has a plan.
    """
    window = slice(start, start + own.actions.shape[1])
    seen = set(contract.parts(world.facts, panel)[window]) & {"train", "val"}
    if seen:
        raise UserError(f"the sweep's periods are among the world's {' and '.join(sorted(seen))} periods, not held out")
    rows = _covered(world.observed(panel, window), own.covered)
    if not len(rows):
        raise UserError("no unit has both a plan and a row in the sweep's periods")
    at = rows.unit, rows.time - start
    wanted, decides = own.actions[at], own.decides[at]
    under = reward.of(world.expected(replace(rows, actions=wanted)), wanted)
    usual = reward.of(world.expected(rows), rows.actions)
    happened = reward.of(rows.outcomes, rows.actions)
    probability, warnings = _probability(world, panel, rows, wanted, decides)
    if left := int(own.left[np.unique(rows.unit)].sum()):
        # A unit whose own plan is what was done has no use for another: who is left goes with what was done.
        probability = None
        warnings = [
            f"{left:,} units have no plan of their own that is worth more than to leave them as they were; as that "
            "depends on what was done, it tells nothing of such a policy, and no estimate is given; sweep levels that "
            "hold what was done"
        ]
    met = (~decides | (wanted == rows.actions)).all(1)
    nothing = np.full(len(rows), np.nan)
    value = {"what was done": happened, "the world": under, "inverse propensity": nothing, "doubly robust": nothing}
    if probability is not None:
        value["inverse propensity"] = policy.scores(met, happened, probability)
        value["doubly robust"] = policy.scores(met, happened, probability, expected=(under, usual))
    gain = {name: scores - (usual if name == "the world" else happened) for name, scores in value.items()}
    half = scipy.stats.t.ppf(1 - alpha / 2, max(len(np.unique(rows.unit)) - 1, 1))
    table = []
    for quantity, found in (("value", value), ("gain", gain)):
        for name, scores in found.items():
            mean, se = policy.clustered_mean(scores, rows.unit)
            if quantity == "gain" and name == "what was done":
                continue
            se = np.nan if name == "the world" else se
            table.append((quantity, name, mean, se, mean - half * se, mean + half * se))
    frame = pd.DataFrame(table, columns=["quantity", "by", "value", "se", "lo", "hi"])
    return Judged(frame, len(rows), len(np.unique(rows.unit)), int(met.sum()), warnings)


def _covered(rows: Rows, covered: np.ndarray) -> Rows:
    keep = covered[rows.unit]
    names = ("visible", "actions", "outcomes", "unit", "time")
    return replace(rows, **{name: getattr(rows, name)[keep] for name in names})


def _probability(
    world: ConsumerWorld, panel: Panel, rows: Rows, wanted: np.ndarray, decides: np.ndarray
) -> tuple[np.ndarray | None, list[str]]:
    """Probability of what was done in the cells that the policy decides; none where an action was not randomised."""
    total, none, notes = np.ones(len(rows)), [], []
    for at, name in enumerate(panel.action_names):
        moved, own = wanted[:, at] != rows.actions[:, at], decides[:, at]
        column = world.schema.column(name)
        if not moved.any() and not (column.randomised and own.any()):
            continue
        if not column.randomised:
            none.append(
                f"{name}: the schema does not say that it was randomised, so no estimate of this policy's value can be "
                "trusted, and none is given; what the world expects is no evidence"
            )
            continue
        if (moved & ~own).any():
            none.append(f"{name}: the plan depends on what was done, so what was done tells nothing of it")
            continue
        if column.propensity is None:
            train = world.observed(panel, world.periods(panel, "train"))
            one = np.full(len(rows), float(train.actions[:, at].mean()))
            notes.append(
                f"{name}: the schema gives no propensity; it is taken to have been drawn with the train rows' share, "
                f"{one[0]:.3g}, in every row"
            )
        elif isinstance(column.propensity, str):
            one = panel.values(column.propensity)[rows.unit, rows.time].astype(np.float64)
        else:
            one = np.full(len(rows), float(column.propensity))
        taken = rows.actions[:, at]
        gap, se = policy.clustered_mean(taken - one, rows.unit)
        if abs(gap) > ALARM * se:
            none.append(
                f"{name}: was 1 in {taken.mean():.1%} of the rows, where its propensity says {one.mean():.1%}; it was "
                "not drawn with that probability, and no estimate is given"
            )
            continue
        total *= np.where(own, np.where(taken == 1, one, 1 - one), 1.0)
    return (None, none) if none else (total, notes)
