"""Which channels the data tell little of, and why: from a world's support and from what its fit found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from wmjax.worlds.media.config import ALONE


class Doubts(NamedTuple):
    """Channels, and of some of them the words.

    unidentified: the covariates explain their spend all but wholly. always_on: hardly a period is without them.
    like_placebos: their return's interval reaches down to what a copy that does nothing was given; none before
    `placebo.check`. explained_away: a hidden cause weaker than known columns could be all of their return. misfit: of
    the whole world, where it forecasts no better than means do; else empty. as_measured: covariates that may be noisy,
    whose error nothing tells. prior_alone: the data remove next to nothing of what the prior leaves open; that share.
    """

    unidentified: frozenset[str]
    always_on: frozenset[str]
    like_placebos: dict[str, str]
    explained_away: dict[str, str]
    misfit: str
    as_measured: tuple[str, ...]
    prior_alone: dict[str, float]


LEAST = 0.1
"""Share of the variance that a prior leaves a return, below which what the data remove of it is next to nothing."""


def of(
    support: pd.DataFrame, facts: Mapping[str, Any], negative: tuple[str, ...], unknown: tuple[str, ...] = ()
) -> Doubts:
    """Find the doubts.

    Args:
        support: of the world, see `fitting.support`.
        facts: of the world; `placebo`, `hidden`, `r2`, `size_ratio`, `size` and `as_measured` where they were measured.
        negative: channels whose effect is negative; unknown: those whose effect may be either.
    """
    rows = list(zip(support["channel"], support["explained"], support["idle"], strict=True))
    return Doubts(
        frozenset(channel for channel, explained, _ in rows if explained > 0.95),
        frozenset(channel for channel, _, idle in rows if idle < 0.02),
        _like_placebos(facts.get("placebo", {}), negative, unknown),
        {
            channel: f"a hidden cause {told['times_known']:.2f} times as strong as {told['known_columns']} could be "
            "all of its return, or hide as much again"
            for channel, told in facts.get("hidden", {}).items()
            if told["times_known"] is not None and told["times_known"] < 1
        },
        _misfit(facts.get("r2", {}), facts.get("size_ratio"), facts.get("size", "none")),
        tuple(facts.get("as_measured", ())),
        {
            channel: float(share)
            for channel, share in zip(support["channel"], support["learned"], strict=True)
            if share < LEAST
        }
        if "learned" in support
        else {},
    )


UNEQUAL = 3.0
"""Ratio of the largest unit's mean outcome to the smallest's, from which it may be what a bad fit is due to."""


def _misfit(r2: Mapping[str, float | None], size_ratio: float | None, size: str) -> str:
    """Say where periods held out, or watched where none were, are predicted no better than by train means."""
    cure = ""
    if size_ratio is not None and size_ratio >= UNEQUAL:
        cure = f"; units differ {size_ratio:,.0f}-fold in their mean outcome, which may be why: try `--size outcome`, "
        cure += "under which returns, and their order, may be others"
    if size != "none":
        cure = "; units count per unit of their size, small ones as much as large ones: try `--size none`"
    for part, words in (("test", "held-out"), ("val", "watched")):
        if r2.get(part) is None:
            continue
        for name, whose in ((part, "each unit's mean"), (f"{part}_sum", "the mean of all units' sum")):
            if (own := r2.get(name)) is not None and own < 0:
                told = (
                    f"the {words} periods are predicted no better than by {whose} of the train periods (R2 {own:.2g})"
                )
                return f"{told}; do not lean on what such a world says of plans{cure}"
        return ""
    return ""


def _like_placebos(found: Mapping[str, Any], negative: tuple[str, ...], unknown: tuple[str, ...]) -> dict[str, str]:
    out = {}
    for channel, told in found.items():
        if None in told.values():
            continue
        # Of either sign: on the side on which the channel was found, and its copy, whose side is chance, of any.
        either = channel in unknown
        sign = -1 if (told["roi"] < 0 if either else channel in negative) else 1
        copy = abs(told["placebo"]) if either else sign * told["placebo"]
        if copy >= min(sign * told["lo"], sign * told["hi"]):
            out[channel] = (
                f"in a second, smaller fit of the train periods a copy that does nothing is given a return of "
                f"{told['placebo']:.3g}, the channel beside it {told['roi']:.3g} ({1 - told['alpha']:.0%} interval "
                f"{told['lo']:.3g} to {told['hi']:.3g})"
            )
    return out


def warnings(
    support: pd.DataFrame, doubts: Doubts, members: int, facts: Mapping[str, Any], among: frozenset[str]
) -> list[str]:
    """Say in words what biases every answer, and which channels' lean on the model more than on the data.

    A line a reason and not one a channel, or a table of twenty channels would be read by nobody.

    Args:
        among: the channels to speak of.
    """
    found = [doubts.misfit] if doubts.misfit else []
    found.append(
        "read from observed spend: what moved both it and the outcome and is not in the table biases it, up or down"
    )
    if form := facts.get("one_series"):
        few = f", by more with 4 members than with {ALONE} (here {members})" if members < ALONE else ""
        # Measured of the response form alone.
        off = f": of simulated ones returns err by a third at least, at the median channel{few}"
        off = off if form == "response" else ""
        found.append(
            f"learnt of one series, which tells little of each channel{off}; lean on intervals, and on lift tests, "
            "more than on the numbers between"
        )
    if missing := facts.get("gaps"):
        where = f" of {missing['units']} units" if missing["unit"] is not None else ""
        first = f"{missing['unit']!r} at {missing['time']}" if missing["unit"] is not None else missing["time"]
        found.append(
            f"{missing['rows']} periods{where} are missing between others, first {first}: what was spent there is not "
            "known, and nothing is carried over from them; give these rows"
        )
    if doubts.as_measured:
        found.append(
            f"taken as measured, as nothing tells their error: {', '.join(doubts.as_measured)}; as far as they are "
            'noisy signs of demand, channels that follow it are given too much (future = "known" says they are exact)'
        )
    rows = list(zip(support["channel"], support["explained"], strict=True))
    if blurred := [f"{c} ({share:.0%})" for c, share in rows if c in doubts.unidentified & among]:
        found.append(f"not identified, as covariates explain that much of their spend: {', '.join(blurred)}")
    if steady := [c for c, _ in rows if c in (doubts.always_on - doubts.unidentified) & among]:
        found.append(
            "always on (next to no spend in fewer than 2 % of rows), so that few rows if any tell what none would do: "
            + ", ".join(steady)
        )
    for part, words in (("test", "held-out"), ("val", "watched")):
        paused = [c for c in facts.get("unspent", {}).get(part, []) if c in among]
        if paused:
            found.append(
                f"without any spend in the {words} periods, which so say nothing of them: {', '.join(paused)}; what is "
                "told of their effects is of the train periods alone"
            )
    if alone := [f"{c} ({max(share, 0):.0%})" for c, share in doubts.prior_alone.items() if c in among]:
        found.append(
            f"the prior alone speaks, as the data remove that little of the variance it leaves the return: "
            f"{', '.join(alone)}"
        )
    copies = facts.get("placebo", {})
    if alike := [copies[c] | {"channel": c} for c in doubts.like_placebos if c in among]:
        told = [
            "{channel} (copy {placebo:.3g}; channel {roi:.3g}, {lo:.3g} to {hi:.3g})".format(**copy) for copy in alike
        ]
        found.append(
            f"not told from a channel without effect, as the {1 - alike[0]['alpha']:.0%} interval reaches down to the "
            f"return that a copy which does nothing gets in the same second, smaller fit: {', '.join(told)}"
        )
    causes = facts.get("hidden", {})
    if weak := sorted((causes[c]["times_known"], c) for c in doubts.explained_away if c in among):
        told = [f"{c} ({times:.2f} times as strong as {causes[c]['known_columns']})" for times, c in weak]
        found.append(
            f"a hidden cause weaker than what is known could be all of the return, or hide as much again: "
            f"{', '.join(told)}"
        )
    if apart := [c for c in facts.get("disagree", ()) if c in among]:
        found.append(
            f"members disagree about {', '.join(apart)}: the mean of what they add each lies outside the 90 % of draws "
            "around their mean curves, which answers are made of; fit with more members (`--members`)"
        )
    if members < 3:
        found.append(f"{members} member(s) give no trustworthy interval; fit with 3 or more")
    return found
