"""How strong a cause that the table does not know would have to be, to explain a channel's return away.

A member's outcome is its base plus what each channel's curve makes of the spend; take what the curves add, on average
over members, as regressors with coefficient 1. Of the train rows, within units: a hidden cause that explains the share
r of what the world leaves of the outcome, and the share r of what is a channel's own beside the other channels and the
covariates, takes it away where r^2 / (1 - r) = var(own) / var(left); see `wmjax.evaluate.sensitivity`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from wmjax.core.files import finite
from wmjax.data.panel import Panel
from wmjax.evaluate import sensitivity
from wmjax.worlds.media import prepare, programs
from wmjax.worlds.media.world import MediaWorld


def measure(world: MediaWorld, panel: Panel, train: np.ndarray) -> dict[str, dict[str, Any]]:
    """Measure on a panel's train periods: by channel `robustness`, the share r; `times_known`, how many times as strong
    as `known_cause`, the strongest that the table knows, the hidden one must be.

    Nothing of the free form, which has no curves.
    """
    if world.cfg.network.head == "free":
        return {}
    history = world.history(panel)
    media, fitted = (np.asarray(x, np.float64) for x in programs.terms(world.params, history, cfg=world.cfg.network))
    rows = np.asarray(history.series.observed) & train
    outcome = np.asarray(history.series.outcome, np.float64)
    own, seen, left = (_within(x, rows) for x in (media, history.series.covariates, (outcome - fitted)[..., None]))
    names = np.array(prepare.covariate_names(panel, world.cfg))
    groups = {name: seen[:, names == name] for name in dict.fromkeys(names.tolist())}
    channels = dict(zip(world.channels, own.T, strict=True))
    causes = sensitivity.known_causes(groups, channels, [_within(outcome[..., None], rows)[:, 0]]).strongest
    found = {}
    for at, (name, (cause,)) in enumerate(zip(channels, causes, strict=True)):
        others = np.column_stack([np.delete(own, at, axis=1), seen])
        alone = own[:, at] - others @ np.linalg.lstsq(others, own[:, at], rcond=None)[0]
        size = np.sqrt(left.var() / max(alone.var(), 1e-300))
        found[name] = {
            "robustness": finite(float(sensitivity.robustness(1.0, size))),
            "times_known": finite(float(sensitivity.times_as_strong(1.0, size, cause))),
            "known_cause": cause.name,
        }
    return found


def _within(values: Any, rows: np.ndarray) -> Float[np.ndarray, "rows columns"]:
    """Take the chosen rows, each less its unit's mean over them."""
    x = np.asarray(values, np.float64)
    return np.concatenate([x[u, rows[u]] - x[u, rows[u]].mean(0) for u in np.flatnonzero(rows.any(1))])
