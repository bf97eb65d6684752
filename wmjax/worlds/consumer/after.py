"""The history that a one-step counterfactual leaves behind."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from wmjax.data import frame as frames
from wmjax.data.frame import Frame
from wmjax.data.panel import Panel

CHUNK_BYTES = 64 * 2**20


def next_visible(
    frame: Frame, panel: Panel, actions: Float[np.ndarray, "unit time action"] | None = None
) -> Float[np.ndarray, "unit time v"]:
    """Read each row's successor had the row's own actions been `actions`; all other rows stay as they were.

    Row (i, t) is what the frame shows of unit i at t + 1 where only period t's actions differ from the panel's. At the
    last period the successor reads that period's own calendar and covariates; callers leave it out.
    """
    arrays = panel.arrays
    now = arrays.actions if actions is None else np.asarray(actions, np.float32)
    codes = frame.calendar(panel.times)
    later = np.minimum(np.arange(panel.num_times) + 1, panel.num_times - 1)
    chunk = max(1, CHUNK_BYTES // (4 * panel.num_times * frame.visible.size))
    chunk = min(chunk, panel.num_units)
    out = np.empty((panel.num_units, panel.num_times, frame.visible.size), np.float32)
    for start in range(0, panel.num_units, chunk):
        # The last chunk is moved back to be full, so that one program serves all.
        at = slice(min(start, panel.num_units - chunk), min(start, panel.num_units - chunk) + chunk)
        found = _scan(
            frame,
            arrays.static[at],
            codes[later],
            arrays.covariates[at][:, later],
            arrays.actions[at],
            now[at],
            arrays.outcomes[at],
            arrays.mask[at],
        )
        out[at] = np.moveaxis(np.asarray(found), 0, 1)
    return out


@partial(jax.jit, static_argnums=0)
def _scan(
    frame: Frame, static: Any, codes: Any, covariates: Any, factual: Any, now: Any, outcomes: Any, mask: Any
) -> Any:
    def step(state: frames.FrameState, inputs: tuple[jax.Array, ...]) -> tuple[frames.FrameState, jax.Array]:
        dates, covariate, action, other, outcome, seen = inputs
        branch = frames.advance(frame, state, other, outcome, seen)
        state = frames.advance(frame, state, action, outcome, seen)
        return state, frames.read(frame, branch, static, dates, covariate)

    by_time = tuple(jnp.moveaxis(jnp.asarray(x), 1, 0) for x in (covariates, factual, now, outcomes, mask))
    return jax.lax.scan(step, frames.init(frame, static.shape[0]), (codes, *by_time))[1]
