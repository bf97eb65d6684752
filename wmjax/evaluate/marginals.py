"""Marginal returns by two ways that must agree, automatic differentiation and a difference, or say why they do not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from wmjax.evaluate.attribution import STEP

TOLERANCE = 0.05
"""Share of the larger of the two by which they may differ."""
ENDLESS = "the derivative is not finite (as that of a power below 1 where there is no spend)"
ROUNDING = "float32 rounds the sums that the difference is taken of by as much"
KINK = "the response has a kink at the spend as it was, and its slopes on both sides differ"
BEND = f"the response bends much within {STEP:.0%} of the spend (a ripple, or a threshold nearby)"


def reasons(
    automatic: Float[np.ndarray, "*shape"],
    difference: Float[np.ndarray, "*shape"],
    bend: Float[np.ndarray, "*shape"],
    noise: Float[np.ndarray, "*shape"],
    *,
    tolerance: float = TOLERANCE,
) -> np.ndarray:
    """Say why two marginal returns are more than `tolerance` apart; an empty string where they agree.

    Args:
        automatic: by automatic differentiation.
        difference: by a central difference.
        bend: the one-sided difference above less the one below: the response's curvature, or its kink.
        noise: how much rounding may move the difference.

    Returns:
        `[*shape]` of text.
    """
    gap, size = np.abs(automatic - difference), np.maximum(np.abs(automatic), np.abs(difference))
    finite = np.isfinite(automatic)
    # At a kink the automatic derivative is that of one side; half the bend is between it and the difference.
    aside = np.abs(gap - np.abs(bend) / 2) <= np.abs(bend) / 4
    apart = ~finite | (gap > tolerance * size)
    found = np.select([~apart, ~finite, gap <= noise, aside], ["", ENDLESS, ROUNDING, KINK], BEND)
    return found.astype(object)


def words(
    channels: Sequence[str],
    geos: Sequence[str],
    automatic: Float[np.ndarray, "channels geos"],
    difference: Float[np.ndarray, "channels geos"],
    why: np.ndarray,
) -> list[str]:
    """Write one line a reason, with the channels and geos where the two marginal returns are apart."""
    lines = []
    for reason in dict.fromkeys(str(r) for r in why.ravel() if r):
        at = np.argwhere(why == reason)
        told = [
            f"{channels[k]}{'' if g == 0 else f' in {geos[g]}'} ({automatic[k, g]:.3g} and {difference[k, g]:.3g})"
            for k, g in at[:3]
        ]
        more = f" and {len(at) - 3} more" if len(at) > 3 else ""
        lines.append(
            f"marginal returns by differentiation and by a difference of {STEP:.0%} are more than {TOLERANCE:.0%} "
            f"apart, as {reason}: {', '.join(told)}{more}"
        )
    return lines
