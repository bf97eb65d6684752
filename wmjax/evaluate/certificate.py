"""Does a world's counterfactual sensitivity follow the graph that it claims? A test that needs roll-outs and no more.

A world forecasts and it answers what-if questions; that it does the first well says nothing of the second. Each action
is raised in turn at the start of a roll-out, and what moves is held against the claims:

    influence[a, y] = mean over units and steps of |roll-out under the push - roll-out| / sd_y
    along           = influence along claimed pairs / all influence
    skill           = 1 - MSE(roll-out) / MSE(no change since the last observed period)
    kept            = skill when every unit is given another unit's actions, as a share of skill

*Attribution bypass* is forecasting skill with influence that leaves the claims: `along` below what is tolerated, or no
claimed pair that moves. `kept` near 1 says that the forecast hardly needs the actions at all, in which case no
forecast error could ever have told right attributions from wrong ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

Plans = Float[np.ndarray, "units steps actions"]
Paths = Float[np.ndarray, "units steps outcomes"]


@dataclass(frozen=True, kw_only=True)
class CertificateConfig:
    """How a world is tested.

    Attributes:
        size: push in standard deviations of the action.
        window: steps pushed, from the first on.
        tolerance: share of the influence that may leave the claims.
        silent: influence (in standard deviations of the outcome) below which a pair counts as unmoved.
    """

    size: float = 0.5
    window: int = 1
    tolerance: float = 0.1
    silent: float = 1e-6

    def __post_init__(self) -> None:
        if self.size == 0 or self.window < 1:
            raise ValueError(f"size is {self.size} and window is {self.window}: nothing would be pushed")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance is {self.tolerance}, must be at least 0 and below 1")


@dataclass(frozen=True)
class Certificate:
    """What was found.

    Attributes:
        influence: `[actions, outcomes]` in standard deviations of the outcome.
        claims: bool `[actions, outcomes]`.
        along: share of the influence along claimed pairs; NaN where nothing moves.
        dead: number of claimed pairs that nothing moves.
        skill, kept: see the module; `skill` is NaN where no outcome moves, `kept` without skill and for a single unit.
        bypass: the verdict.
        reasons: the verdict in words.
        notes: what else is worth knowing.
    """

    influence: Float[np.ndarray, "actions outcomes"]
    claims: Bool[np.ndarray, "actions outcomes"]
    along: float
    dead: int
    skill: float
    kept: float
    bypass: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def verdict(self) -> Literal["bypass", "no bypass", "not testable"]:
        """Say what was found; without skill, or where no influence could leave the claims, nothing can be."""
        if self.bypass:
            return "bypass"
        testable = self.claims.any() and not self.claims.all() and self.skill > 0
        return "no bypass" if testable else "not testable"


def certify(
    rng: np.random.Generator,
    rollout: Callable[[Plans], Paths],
    plan: Plans,
    outcomes: Paths,
    last: Float[np.ndarray, "units outcomes"],
    claims: Bool[np.ndarray, "actions outcomes"],
    *,
    cfg: CertificateConfig,
    action_sd: Float[np.ndarray, " actions"],
    outcome_sd: Float[np.ndarray, " outcomes"],
) -> Certificate:
    """Probe a roll-out.

    Args:
        rng: deals the units' actions to other units.
        rollout: maps a plan to expected outcomes, the same luck every time; anything that rolls out will do.
        plan: the observed actions over the steps.
        outcomes: what was observed.
        last: the outcomes of the period before.
        claims: pairs that the world says are connected, by whatever path.
        cfg: how.
        action_sd, outcome_sd: the training data's spread.
    """
    factual = rollout(plan)
    found = np.zeros(claims.shape)
    for at, sd in enumerate(action_sd):
        pushed = plan.copy()
        pushed[:, : cfg.window, at] += cfg.size * sd
        found[at] = (np.abs(rollout(pushed) - factual) / outcome_sd).mean((0, 1))
    errors = [((path - outcomes) ** 2 / outcome_sd**2).mean() for path in (factual, last[:, None])]
    still = errors[1] == 0
    skill, kept = float("nan") if still else float(1 - errors[0] / errors[1]), float("nan")
    if skill > 0 and len(plan) > 1:
        # A cyclic shift after a shuffle: nobody keeps their own.
        order = rng.permutation(len(plan))
        other = np.empty_like(plan)
        other[order] = plan[np.roll(order, 1)]
        kept = float((1 - ((rollout(other) - outcomes) ** 2 / outcome_sd**2).mean() / errors[1]) / skill)
    along = float(found[claims].sum() / found.sum()) if found.max() > cfg.silent else float("nan")
    dead = int(np.count_nonzero(claims & (found <= cfg.silent)))
    reasons, notes = [], []
    if along < 1 - cfg.tolerance:
        reasons.append(f"{1 - along:.0%} of the influence runs outside the claims; {cfg.tolerance:.0%} is tolerated")
    if dead == claims.sum() > 0:
        reasons.append(f"none of the {dead} claimed pairs moves")
    elif dead:
        notes.append(f"{dead} of the {int(claims.sum())} claimed pairs do not move")
    if still:
        notes.append("no outcome moves over these steps, so skill over no change is not defined, and nothing is known")
    elif not skill > 0:
        notes.append("no forecasting skill: nothing is bypassed, and nothing is known")
    if claims.all():
        notes.append("every pair is claimed, so no influence could leave the claims")
    elif not claims.any():
        notes.append("nothing is claimed")
    return Certificate(
        influence=found,
        claims=claims,
        along=along,
        dead=dead,
        skill=skill,
        kept=kept,
        bypass=bool(reasons) and skill > 0,
        reasons=tuple(reasons),
        notes=tuple(notes),
    )
