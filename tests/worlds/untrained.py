"""Worlds whose members stay where they began, for what holds of any parameters: training programs compile for long."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from wmjax.train import loop
from wmjax.train.state import TrainState


def fit(fit: Any, *args: Any, shake: float = 0.0) -> Any:
    """Fit with a loop that trains nothing; some noise on every number (`shake`) leaves none that has no say."""
    rng = np.random.default_rng(0)

    def shaken(x: Any) -> Any:
        return x + shake * rng.normal(size=x.shape).astype(np.float32)

    def run(key: Any, state: Any, epoch_fn: Any, *, snapshot: Any, **_: Any) -> Any:
        best = snapshot(state)
        members = len(jax.tree.leaves(best)[0])
        done = TrainState(state, jax.tree.map(shaken, best) if shake else best, *[None] * 4, np.zeros(members, bool))
        return done, {"loss": np.zeros((1, members))}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "run", run)
        return fit(*args)
