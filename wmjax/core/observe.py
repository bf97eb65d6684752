"""How long work tells how far it is, without printing: it calls an observer with events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple


class Event(NamedTuple):
    """One report of progress.

    Attributes:
        stage: what is running, for example `"pretrain 1/3"`; a new name starts a new bar.
        done, total: in `unit`s; `done == total` ends the stage.
        unit: what is counted, for the rate: `"epoch"`, `"row"`, `"plan"`.
        metrics: numbers worth showing beside the bar; the last report's, so that devices need not wait.
    """

    stage: str
    done: int
    total: int
    unit: str = "epoch"
    metrics: Mapping[str, float] = {}


Observer = Callable[[Event], None]


def silent(event: Event) -> None:
    """Observe nothing: the default below the command line."""
