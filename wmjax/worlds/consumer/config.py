"""How a consumer world is fitted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from wmjax.dbm.learn import LearnConfig
from wmjax.dbm.types import DBMConfig
from wmjax.heads.adapter import AdapterConfig
from wmjax.worlds.options import Members


@dataclass(frozen=True, kw_only=True)
class ConsumerConfig:
    """How a consumer world is fitted.

    Attributes:
        members: models in the ensemble; `--seeds` is the same option. Each has its own seed and its own Bayesian
            bootstrap of the units, and the intervals come from their spread: of four they are a quarter wider than of
            eight for the same spread, and tell less well how wide they should be; of one there are none.
        val: share of the periods, just before the test periods, that stops training and picks penalties.
        test: share of the periods, the last ones, that only scores.
        units: how a one-hot group is modelled: as one softmax unit, or as independent bits (the source's way).
        machine: shape of the Deep Boltzmann Machine.
        learn: how the machine learns.
        epochs: passes over the train rows for the machine, at most.
        patience: epochs without a better validation reconstruction before the machine stops.
        pretrain_epochs: passes for each layer of a greedy start; 0 starts from small weights, which centring allows.
        scheme: the greedy start's scheme, `textbook` (doubled weights) or `paper` (the source's).
        belief: hidden layers that the adapters read, `all` or the `top` one.
        skip: the adapters read lags and recency as well, past the machine. A belief is lossy: where a past action and
            the outcome that it brought must cancel, what is lost of one of them adds up in a roll-out.
        adapter: the adapters, one an outcome. Additive ones start from a regression's effects. What is monitored is the
            loss: an AUC is content with effects of any size.
        bootstrap: weigh units of each member by random draws (a balanced Bayesian bootstrap), so that the spread of the
            members holds the luck of which units were seen, not of the seeds alone; add to additive adapters' main
            effects, member by member, what shocks to whole periods may have made of them; and shrink each member's
            slopes to its own draw of their prior (`wmjax.heads.warm`).
    """

    members: Members = 8
    val: float = 0.1
    test: float = 0.1
    units: Literal["softmax", "bernoulli"] = "softmax"
    machine: DBMConfig = field(default_factory=DBMConfig)
    learn: LearnConfig = field(default_factory=LearnConfig)
    epochs: int = 20
    patience: int = 5
    pretrain_epochs: int = 0
    scheme: Literal["textbook", "paper"] = "textbook"
    belief: Literal["all", "top"] = "all"
    skip: bool = True
    adapter: AdapterConfig = field(
        default_factory=lambda: AdapterConfig(form="additive", learning_rate=2e-3, monitor="loss")
    )
    bootstrap: bool = True

    def __post_init__(self) -> None:
        for name, value, least in (
            ("members", self.members, 1),
            ("epochs", self.epochs, 1),
            ("patience", self.patience, 1),
            ("pretrain_epochs", self.pretrain_epochs, 0),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}, must be at least {least}")
        if not (0 < self.val < 1 and 0 < self.test < 1 and self.val + self.test < 1):
            raise ValueError(f"val is {self.val} and test is {self.test}: each in (0, 1), and their sum below 1")


DEMO = ConsumerConfig(
    members=4,
    epochs=8,
    patience=3,
    learn=LearnConfig(batch_size=256, num_chains=256),
    adapter=AdapterConfig(
        batch_size=1024, learning_rate=2e-3, schedule="cosine", epochs=15, patience=5, form="additive", monitor="loss"
    ),
)
"""For tables of about 100,000 rows on two processor cores, in minutes."""

SMOKE = ConsumerConfig(
    members=2,
    epochs=2,
    machine=DBMConfig(hidden=(16, 8)),
    learn=LearnConfig(batch_size=256, num_chains=64, gibbs_steps=1, mean_field_sweeps=5),
    adapter=AdapterConfig(hidden=(16, 8), batch_size=1024, learning_rate=2e-3, epochs=2, patience=1, form="additive"),
)
"""Only to see that everything runs."""
