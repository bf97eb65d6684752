"""Shape of the three-stream causal transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class MMMConfig:
    """Shape of the network. The default has about 2.1 million parameters, whatever the number of channels.

    Attributes:
        width: of tokens and streams.
        heads: attention heads; they divide the width.
        blocks: blocks of three stream layers each.
        feed_forward: hidden units of the position-wise layers.
        reach: periods after which relative positions are no longer told apart (l_max).
        frequencies: octaves of the spend's Fourier code.
        encoding: `unaliased` codes spend over `[0, 2)` without repeating itself and adds the spend itself and whether
            there is any; `faithful` is the published code alone, whose period of 1 makes no spend and the largest one
            of the train periods look alike.
        code: size of a channel's fixed code.
        representation: size of the balanced representation.
        head_units: hidden units of each head.
        dropout: share of units and of attention weights dropped in training.
        head: `free` predicts the outcome from the representation and the pooled tokens of the period's spend (the
            published head). `response` adds to a base, predicted from what is not spend, one response curve a channel
            that is monotone in spend, saturates and carries over: an effect is then a term of the model.
        carry: periods that spend works on in the `response` head, beyond its own.
        saturation: form of its curves, see `response`: `hill`, or `logistic`. Where a channel is always on the data say
            next to nothing of the form between no spend and the least that was seen, and returns hang on it.
    """

    width: int = 128
    heads: int = 4
    blocks: int = 2
    feed_forward: int = 512
    reach: int = 13
    frequencies: int = 8
    encoding: Literal["unaliased", "faithful"] = "unaliased"
    code: int = 32
    representation: int = 64
    head_units: int = 64
    dropout: float = 0.2
    head: Literal["free", "response"] = "free"
    carry: int = 13
    saturation: Literal["hill", "logistic"] = "hill"

    def __post_init__(self) -> None:
        names = ("width", "heads", "blocks", "feed_forward", "reach", "frequencies", "representation", "head_units")
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.carry < 0:
            raise ValueError(f"carry is {self.carry}, must not be negative")
        if self.width % self.heads:
            raise ValueError(f"width is {self.width}, must be a multiple of heads = {self.heads}")
        if self.code < 2 or self.code % 2:
            raise ValueError(f"code is {self.code}, must be even and at least 2")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, must be in [0, 1)")
        for name, known in (
            ("encoding", ("unaliased", "faithful")),
            ("head", ("free", "response")),
            ("saturation", ("hill", "logistic")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}, must be one of {known}")


SMALL = MMMConfig(
    width=32, heads=2, blocks=1, feed_forward=64, frequencies=5, code=16, representation=16, head_units=16, dropout=0.1
)
"""For few geos: some 60 thousand parameters."""
