"""What is true of a simulated consumer panel: exact effects of an action on both scales."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from scipy.special import expit

from wmjax.simulate import consumer
from wmjax.simulate.consumer import ConsumerSim, ConsumerSimConfig

Outcome = Literal["visit", "purchase"]
Gumbel = Literal["zero", "averaged"]
NODES = np.linspace(-5.0, 27.0, 65)  # the Gumbel density is below 2e-12 outside


class ConsumerEffect(NamedTuple):
    """The effect of one action on the same day's outcome, each `[consumers, days]`.

    Attributes:
        logit: difference in log odds, `U(1) - U(0)`, in closed form, so that equal consumers have equal effects to the
            last bit. The Gumbel shock enters both sides alike and cancels.
        probability: difference in event probability (risk difference).
    """

    logit: np.ndarray
    probability: np.ndarray


def probability(utility: np.ndarray, *, scale: float, gumbel: Gumbel) -> np.ndarray:
    """Compute the event probability at a utility.

    `"zero"`: `sigmoid(U)`, the shock left out, as the published oracles do. `"averaged"`: `E_G sigmoid(U + scale G)`
    for standard Gumbel G, by the trapezoid rule: the probability given state and action. As the shock's mean is
    `0.577 scale`, the two differ by about one percentage point under the published scale.
    """
    if gumbel == "zero":
        return expit(utility)
    total = np.zeros_like(utility)
    for g, weight in zip(NODES, np.exp(-NODES - np.exp(-NODES)) * (NODES[1] - NODES[0]), strict=True):
        total += weight * expit(utility + scale * g)
    return total


def effect(
    sim: ConsumerSim, action: str, outcome: Outcome, *, cfg: ConsumerSimConfig, gumbel: Gumbel = "zero"
) -> ConsumerEffect:
    """Compute the exact effect of setting one action to 1 rather than 0, with history and other actions as they were.

    Args:
        sim: a panel from `simulate_numpy`.
        action: a field of `ConsumerActions`.
        outcome: whose log odds and probability.
        gumbel: how `probability` treats the utility's shock.
    """
    observed = getattr(sim.actions, action)
    gain = _log_odds(sim, action, outcome, cfg)[:, None]
    low = getattr(sim.outcomes, f"utility_{outcome}") - gain * observed
    p0, p1 = (probability(u, scale=cfg.params.gumbel_scale, gumbel=gumbel) for u in (low, low + gain))
    return ConsumerEffect(logit=np.broadcast_to(gain, observed.shape), probability=p1 - p0)


def _log_odds(sim: ConsumerSim, action: str, outcome: Outcome, cfg: ConsumerSimConfig) -> np.ndarray:
    """Give the effect on the log odds, which state and other actions do not change: `[consumers]`."""
    p, traits = cfg.params, consumer.traits_in_outcome(sim.traits, cfg=cfg)
    if outcome == "visit":
        pull = {"campaign": p.visit_campaign, "coupon": p.visit_coupon, "push": p.visit_push}
        return traits.gamma * pull.get(action, 0.0)
    coupon = np.where(sim.statics.loyalty == 1, p.cut_coupon_loyal, p.cut_coupon)
    cuts = {"sale1": p.cut_sale1, "sale2": p.cut_sale2, "campaign": p.cut_campaign, "coupon": coupon}
    return traits.alpha * cuts.get(action, 0.0)
