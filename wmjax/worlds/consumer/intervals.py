"""Intervals from the spread of an ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy
from jaxtyping import Bool, Float
from scipy.special import expit, logit


def bounds(
    values: Float[np.ndarray, "members *shape"], alpha: float, more: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Compute `mean -+ t sd` over members: Student's t with `members - 1` degrees of freedom at `1 - alpha / 2`.

    `more` is a standard deviation that members do not differ by, of normal luck; squares of half widths add up.

    Each member is fitted on its own Bayesian bootstrap of the units and shrunk to its own draw of the prior, and its
    main effects are moved by its own draw of what whole periods share (`wmjax.heads.warm`). So the members' standard
    deviation estimates the standard error of one fit, from few draws: hence t. The mean of the members is centred like
    one fit; that averaging also takes seed noise out makes the interval a little wide, not narrow.

    Returns:
        `(lo, hi)`, each of `shape`; NaN where there is a single member.
    """
    members = values.shape[0]
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}, must lie in (0, 1)")
    mean = values.mean(0)
    if members < 2:
        return np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    half = scipy.stats.t.ppf(1 - alpha / 2, members - 1) * values.std(0, ddof=1)
    half = np.hypot(half, scipy.stats.norm.ppf(1 - alpha / 2) * more)
    return (mean - half).astype(mean.dtype), (mean + half).astype(mean.dtype)


def quantiles(values: Float[np.ndarray, "draws *shape"], alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Bound by quantiles of draws; the mean lies within, however lopsided they are."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}, must lie in (0, 1)")
    mean = values.mean(0)
    lo, hi = np.quantile(values, [alpha / 2, 1 - alpha / 2], axis=0)
    return np.minimum(lo, mean), np.maximum(hi, mean)


def own_effect_sd(facts: Mapping[str, Any], action: str, outcomes: tuple[str, ...]) -> Float[np.ndarray, " outcomes"]:
    """Give the standard deviation of what units' effects of one unit of an action are beyond what adapters tell."""
    told = (facts.get("own_effect_sd") or {}).get(action, {})
    return np.array([told.get(outcome, 0.0) for outcome in outcomes])


def response_bounds(
    linear: Float[np.ndarray, "members rows outcomes"],
    response: Float[np.ndarray, "members rows outcomes"],
    base: Float[np.ndarray, "members rows outcomes"],
    ends: tuple[np.ndarray, np.ndarray],
    *,
    binary: Bool[np.ndarray, " outcomes"],
    known_at_t0: bool,
    alpha: float,
    more: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Bound risk differences: as wide as by `bounds`, as lopsided as the bounds of the log odds are taken to chances.

    Members' spread is symmetric on the log odds, not on a small chance: there its double and its half are as near. So
    the bounds of `linear` are taken to chances from the end that is known better, and the width of `bounds` is dealt to
    the two sides in their proportion.

    Args:
        linear, response, base: effects on both scales and where they start from, see `model.Contrast`.
        ends: bounds of `linear`, each `[rows, outcomes]`.
        binary: which outcomes are; those of others are the same on both scales.
        known_at_t0: whether it is at T0, and not at T1, that the chance is held to what the members say on average.
        alpha: the level is `1 - alpha`.
        more: as in `bounds`, on the scale of `linear`.

    Returns:
        `(lo, hi)`, each `[rows, outcomes]`, within -1 and 1 where binary; NaN where there is a single member.
    """
    lo, hi = (np.array(end) for end in ends)
    way, more = (1 if known_at_t0 else -1), np.broadcast_to(more, binary.shape)
    for at in np.flatnonzero(binary):
        start, effect = base[..., at].astype(np.float64), linear[..., at].astype(np.float64)
        fixed, free = (start, start + effect) if known_at_t0 else (start + effect, start)
        held = fixed.mean(0)

        def risk(value: np.ndarray, held: np.ndarray = held) -> np.ndarray:
            return way * (expit(held + way * value) - expit(held))

        low, centre, high = (risk(value) for value in (lo[:, at], effect.mean(0), hi[:, at]))
        slope = (expit(free) * expit(-free)).mean(0)
        mean = response[..., at].mean(0, np.float64)
        span = np.subtract(*bounds(response[..., at].astype(np.float64), alpha, more[at] * slope)[::-1])
        share = np.divide(centre - low, high - low, out=np.full_like(mean, 0.5), where=high > low)
        lo[:, at], hi[:, at] = np.clip([mean - share * span, mean + (1 - share) * span], -1, 1)
    return lo, hi


def expected_bounds(
    mean: Float[np.ndarray, "members rows outcomes"], binary: Bool[np.ndarray, " outcomes"], alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """Bound expected outcomes; probabilities on the log odds, so that they stay probabilities."""
    lo, hi = bounds(mean, alpha)
    odds = bounds(logit(np.clip(mean[..., binary], 1e-7, 1 - 1e-7)), alpha)
    lo[..., binary], hi[..., binary] = map(expit, odds)
    return lo, hi


def average_by(
    effects: Mapping[str, Float[np.ndarray, "members rows outcomes"]],
    segment: np.ndarray,
    supported: np.ndarray,
    outcomes: tuple[str, ...],
    alpha: float,
) -> pd.DataFrame:
    """Average effects over the supported rows of each segment, member by member, with intervals of the averages.

    A segment without one supported row is averaged over all of its rows; its `supported_share` of 0 says so.

    Returns:
        Tidy table: outcome, level, scale, effect, lo, hi, n (rows of the segment), supported_share.
    """
    codes, levels = pd.factorize(segment, sort=True)
    count = np.bincount(codes, minlength=len(levels))
    known = np.bincount(codes, weights=supported, minlength=len(levels))
    # Rows that count: the supported ones, or all where none is.
    weight = np.where(known[codes] > 0, supported, True).astype(np.float64)
    total = np.bincount(codes, weights=weight, minlength=len(levels))
    parts = []
    for scale, values in effects.items():
        sums = np.zeros((values.shape[0], len(levels), values.shape[2]))
        for member in range(values.shape[0]):
            np.add.at(sums[member], codes, values[member] * weight[:, None])
        means = sums / total[:, None]
        lo, hi = bounds(means, alpha)
        for at, outcome in enumerate(outcomes):
            parts.append(
                pd.DataFrame(
                    {
                        "outcome": outcome,
                        "level": levels,
                        "scale": scale,
                        "effect": means.mean(0)[:, at],
                        "lo": lo[:, at],
                        "hi": hi[:, at],
                        "n": count,
                        "supported_share": known / count,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)
