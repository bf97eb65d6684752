"""How a media world is fitted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from wmjax.transformer.beliefs import ROIPrior
from wmjax.transformer.config import SMALL, MMMConfig
from wmjax.worlds.options import Members

Confusion = Literal["half", "mean", "rank", "shuffle"]
Order = Literal["spend_first", "outcome_first"]
ALONE, TOGETHER = 16, 5
"""Members where a configuration leaves them open: of one series, and of several units."""
CONFUSIONS, ORDERS = get_args(Confusion), get_args(Order)


@dataclass(frozen=True, kw_only=True)
class MediaConfig:
    """How a media world is fitted.

    Attributes:
        members: models in the ensemble; `--seeds` is the same option. 0 is 16 of one series, which tells little of its
            curves and is quickly fitted, and else 5 (of several units, of a unit among many in `fit_each`, of the
            `free` head). Each has its own seed, its own bootstrap of blocks of periods and its own draw of the priors'
            centres, in balance (see `luck`). What a plan changes is told by draws of what the data leave open of the
            curves around the members' mean (see `posterior`), of the `free` head by the members and their spread, as
            forecasts are; one member has no intervals.
        val, test: share of the periods (or how many of them), the last ones; validation is only watched, test only
            scores. 0 leaves a part out.
        network: shape of the transformer and form of its head.
        outcome: the outcome's column; empty takes the first.
        size: what spend and outcome of a unit are divided by: nothing (`none`), or its mean outcome in the train
            periods relative to all units' (`outcome`), for units of very different size.
        seasons: yearly sine and cosine pairs added to the covariates.
        trend: add a linear trend to the covariates.
        peers: with five units or more, add the mean over units of each covariate of the period: what moves all units
            alike is then known much better than from one unit's noisy column (Pesaran 2006).
        errors_in_variables: tell measurement error apart in covariates that are only observed when they happen, and add
            it to the covariates (see `proxies`): a noisy column takes only a part of demand out, and the rest is
            credited to spend that follows demand.
        negative: channels that lower the outcome; the others raise it.
        unknown: channels that may do either.
        warm: most steps of Newton's in which the `response` head's curves and linear controls are fitted alone, on all
            rows, before the network joins.
        steps: updates in all, after those.
        epochs: parts that they are cut into, for reports and checkpoints.
        batch: units in an update, at most.
        window: periods in an update, at most; the first `network.carry` of a window are only context.
        learning_rate, curve_rate, spend_rate: of the network, of response curves and linear controls, and of the
            adversary. All but the last fall to 0 along a cosine.
        weight_decay: decoupled, on the network.
        clip: largest norm of the network's gradient.
        alpha: weight of the confusion loss at the end of its rise; 0 leaves the adversary out.
        confusion: what the encoder makes the adversary say: one half (`half`, the published target), the channel's mean
            (`mean`), or one half of spend that was turned into ranks (`rank`), whose mean it is; or that it cannot tell
            ranks from those of another row (`shuffle`), which asks for independence and not for equal means alone.
        order: which player moves first.
        ema: decay of the averaged parameters, which every answer comes from.
        prior_weight: factor on the log priors of the response curves and of ROI; 1 is Bayes' own.
        roi: beliefs about returns: `ROIPrior`s, or by channel a NumPyro distribution or its call in words.
        block: most periods in a block, of the bootstrap and of what intervals take for independent of each other; 0
            leaves the bootstrap out, and periods are independent.
    """

    members: Members = 0
    val: float | int = 0.1
    test: float | int = 0.1
    network: MMMConfig = dataclasses.replace(SMALL, head="response")  # noqa: RUF009 - frozen
    outcome: str = ""
    size: Literal["none", "outcome"] = "none"
    seasons: int = 2
    trend: bool = True
    peers: bool = True
    errors_in_variables: bool = True
    negative: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    warm: int = 100
    steps: int = 120
    epochs: int = 4
    batch: int = 8
    window: int = 65
    learning_rate: float = 2e-3
    curve_rate: float = 2e-2
    spend_rate: float = 1e-3
    weight_decay: float = 1e-2
    clip: float = 1.0
    alpha: float = 0.01
    confusion: Confusion = "rank"
    order: Order = "spend_first"
    ema: float = 0.98
    prior_weight: float = 1.0
    roi: tuple[ROIPrior, ...] = ()
    block: int = 8

    @property
    def compiled(self) -> MediaConfig:
        """What programs are compiled for: of whose returns which kind of thing is believed, not its numbers; whether
        the adversary predicts, not what it is made to say. See `beliefs`.
        """
        said = self.confusion if self.confusion == "shuffle" else "half"
        return dataclasses.replace(self, roi=tuple(p.form for p in self.roi), confusion=said)

    def settled(self, *, alone: bool) -> MediaConfig:
        """Give it with the number of members that it leaves open, of a world of one series that is fitted alone or not.

        The `free` head, which is dear, has no more of them then.
        """
        many = alone and self.network.head == "response"
        return self if self.members else dataclasses.replace(self, members=ALONE if many else TOGETHER)

    @property
    def beliefs(self) -> np.ndarray:
        """The beliefs' numbers, `[beliefs, numbers]`, zeros after the last of each."""
        numbers = [p.numbers for p in self.roi]
        found = np.zeros((len(numbers), max(map(len, numbers), default=0)), np.float32)
        for row, own in zip(found, numbers, strict=True):
            row[: len(own)] = own
        return found

    def sign(self, channel: str) -> float:
        """Say in which direction a channel moves the outcome: 1 or -1; 0 is unknown."""
        return 0.0 if channel in self.unknown else -1.0 if channel in self.negative else 1.0

    def __post_init__(self) -> None:
        if isinstance(self.roi, Mapping):
            object.__setattr__(self, "roi", tuple(ROIPrior(channel=c, density=d) for c, d in self.roi.items()))
        if both := sorted({*self.negative} & {*self.unknown}):
            raise ValueError(f"negative and unknown both name {both[0]!r}")
        for name, known in (("confusion", CONFUSIONS), ("order", ORDERS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}, must be one of {', '.join(known)}")
        for name, least in (
            ("members", 0),
            ("seasons", 0),
            ("warm", 0),
            ("steps", 1),
            ("epochs", 1),
            ("batch", 1),
            ("window", 2),
            ("block", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least {least}")
        for name in ("learning_rate", "curve_rate", "spend_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, must be positive")
        for name in ("alpha", "weight_decay", "prior_weight", "val", "test"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, must not be negative")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}, must be in [0, 1)")
        if self.epochs > self.steps:
            raise ValueError(f"epochs is {self.epochs}, must be at most steps = {self.steps}")


SMOKE = MediaConfig(
    members=3,
    warm=5,
    steps=4,
    epochs=2,
    window=30,
    network=MMMConfig(
        width=8,
        heads=2,
        blocks=1,
        feed_forward=8,
        frequencies=3,
        code=4,
        representation=4,
        head_units=4,
        head="response",
        carry=4,
    ),
)
"""Only to see that everything runs."""
