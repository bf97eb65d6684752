"""How a graph world is fitted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from wmjax.graph.decoder import DecoderConfig
from wmjax.graph.support import SupportConfig
from wmjax.worlds.options import Members


@dataclass(frozen=True, kw_only=True)
class GraphConfig:
    """How a graph world is fitted.

    Attributes:
        supply: the graph that the decoder may talk along: the `selected` support, or, to see what forecasting alone
            would do, `full` or `none`. Whatever is supplied, the world claims the selected support and no more.
        support: how the support is chosen.
        decoder: shape of the graph-safe decoder.
        members: decoders in the ensemble, each with its own seed and its own bootstrap of the units; `--seeds` is the
            same option.
        val: share of the units that choose each decoder's best epoch.
        test: share of the periods, the last ones, that only scores.
        epochs, learning_rate: how the decoders are learnt (Adam on a cosine to 0).
        batch_size: units in an update, at most: an eighth of the training units where these are few.
    """

    supply: Literal["selected", "full", "none"] = "selected"
    support: SupportConfig = field(default_factory=SupportConfig)
    decoder: DecoderConfig = field(default_factory=lambda: DecoderConfig(hidden=32))
    members: Members = 4
    val: float = 0.15
    test: float = 0.1
    epochs: int = 40
    batch_size: int = 32
    learning_rate: float = 3e-3

    def __post_init__(self) -> None:
        if self.supply not in ("selected", "full", "none"):
            raise ValueError(f"supply is {self.supply!r}, must be selected, full or none")
        for name in ("members", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if not (0 < self.val < 1 and 0 < self.test < 1):
            raise ValueError(f"val is {self.val} and test is {self.test}: each must lie in (0, 1)")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}, must be positive")


SMOKE = GraphConfig(
    support=SupportConfig(draws=20), decoder=DecoderConfig(hidden=4, embedding=2, horizon=3), members=2, epochs=2
)
"""Only to see that everything runs."""
