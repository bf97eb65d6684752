"""The simulated consumers as an experiment reads them: rows by split, with each test row's truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from wmjax.core.visible import Visible
from wmjax.data import frame as frames
from wmjax.simulate import consumer_frame, consumer_numpy, consumer_panel, consumer_truth
from wmjax.simulate.consumer import ConsumerSim, ConsumerSimConfig

SALE: tuple[str, consumer_truth.Outcome] = ("sale1", "purchase")
QUESTIONS: dict[str, tuple[str, consumer_truth.Outcome]] = {"push": ("push", "visit"), "sale_faithful": SALE}
"""Setting of the published study to (action, outcome)."""
IDENTIFIED = {"sale_randomised": SALE, "sale_targeted": SALE, "placebo": SALE}
"""Settings in which the sale can be told from the calendar."""


def question(setting: str) -> tuple[str, consumer_truth.Outcome]:
    """Give the action and the outcome that a setting asks about."""
    return (QUESTIONS | IDENTIFIED)[setting]


@dataclass(frozen=True, kw_only=True)
class ConsumerData:
    """A panel cut in time.

    Attributes:
        cfg, sim: how it was drawn, and everything that is true of it.
        visible: names of the visible bits.
        days: `(train, val, test)`, each a slice of days.
        bits: `[consumers, days, bits]` uint8.
    """

    cfg: ConsumerSimConfig
    sim: ConsumerSim
    visible: Visible
    days: tuple[slice, slice, slice]
    bits: np.ndarray

    def rows(self, part: int) -> Rows:
        """Give the rows of a part (0 train, 1 val, 2 test), consumers outermost."""
        days = self.days[part]
        actions = np.stack([getattr(self.sim.actions, n)[:, days] for n in consumer_frame.ACTIONS], axis=-1)
        outcomes = np.stack([getattr(self.sim.outcomes, n)[:, days] for n in consumer_frame.OUTCOMES], axis=-1)
        bits = self.bits[:, days]
        consumer = np.repeat(np.arange(len(bits)), bits.shape[1])
        return Rows(
            bits=bits.reshape(-1, bits.shape[2]),
            actions=actions.reshape(-1, actions.shape[2]).astype(np.float32),
            outcomes=outcomes.reshape(-1, outcomes.shape[2]).astype(np.float32),
            consumer=consumer,
        )

    def truth(self, setting: str, part: int) -> consumer_truth.ConsumerEffect:
        """Give the true effect of a setting's question in every row of a part, `[rows]` on both scales.

        As the published oracles do, the probability leaves the utility's shock out.
        """
        action, outcome = question(setting)
        effect = consumer_truth.effect(self.sim, action, outcome, cfg=self.cfg)
        return consumer_truth.ConsumerEffect(*(np.ascontiguousarray(x[:, self.days[part]]).ravel() for x in effect))


class Rows(NamedTuple):
    """Rows of a part: `bits [rows, bits]` uint8, `actions [rows, 5]`, `outcomes [rows, 2]`, `consumer [rows]`."""

    bits: np.ndarray
    actions: np.ndarray
    outcomes: np.ndarray
    consumer: np.ndarray


def make(cfg: ConsumerSimConfig, *, val: int, test: int) -> ConsumerData:
    """Draw a panel and build its visible bits, the last `val + test` days held out."""
    sim = consumer_numpy.simulate_numpy(cfg)
    panel = consumer_panel.to_panel(sim, cfg=cfg)
    ends = (cfg.num_days - val - test, cfg.num_days - test, cfg.num_days)
    train = np.arange(cfg.num_days) < ends[0]
    frame = frames.fit_frame(panel, consumer_panel.published_recipes(), train, units="bernoulli")
    days = (slice(0, ends[0]), slice(ends[0], ends[1]), slice(ends[1], ends[2]))
    bits = frames.build(frame, panel).astype(np.uint8)
    return ConsumerData(cfg=cfg, sim=sim, visible=frame.visible, days=days, bits=bits)
