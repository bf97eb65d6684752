"""How strong a cause that the table does not know would have to be, to be all of a channel's return.

A world's outcome is a base and what each channel's curve makes of the spend. Take what the curves add, on average over
draws, as regressors of coefficient 1 beside the covariates and the last period's outcome less media, within units, in
the train periods; then ask as of any linear regression, see `wmjax.evaluate.sensitivity`. What is left is of a
regression whose coefficients are free, and the network's base may tell more of outcome and spend than these columns do.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from wmjax.core.files import finite
from wmjax.data.panel import Panel
from wmjax.evaluate import sensitivity
from wmjax.worlds.media import prepare, programs
from wmjax.worlds.media.world import MediaWorld

LAST = "the last period"


def measure(world: MediaWorld, panel: Panel, train: Bool[np.ndarray, " time"]) -> dict[str, dict[str, Any]]:
    """Measure on a panel's train periods.

    Returns:
        By channel `robustness`, the share of what is left of the outcome and of the channel, of both, that a hidden
        cause must explain to be all of its return; `times_known`, of which multiple of the strength of `known_columns`
        one could be: the least of all known groups. Nothing of the free form, which has no curves, nor where there are
        fewer than twice as many rows as columns, or none whose period before was there.
    """
    if world.cfg.network.head == "free":
        return {}
    history = world.history(panel)
    plan, answering = jnp.asarray(panel.arrays.actions), world.answering(history)
    _, media = programs.terms(answering, history, plan, cfg=world.cfg.network)
    # Per unit of size, as the network learns, so that units of any size count alike.
    media = np.asarray(media, np.float64) / np.asarray(history.size)[:, None, None]
    outcome = np.asarray(history.scale, np.float64) * np.asarray(history.series.outcome, np.float64)
    before = np.concatenate([np.zeros((len(outcome), 1)), (outcome - media.sum(-1))[:, :-1]], axis=1)
    rows = np.asarray(history.series.observed) & train
    # Only where the period before was there to be read.
    rows[:, 1:] &= rows[:, :-1].copy()
    rows[:, 0] = False
    if not rows.any():
        return {}
    # As measured: what is told of covariates' errors has the spend itself in it.
    told = prepare.as_measured(history.series, world.scales)
    own, seen, last, y = (_within(x, rows) for x in (media, told, before[..., None], outcome[..., None]))
    names = np.array(prepare.covariate_names(panel, world.cfg, world.scales))[: told.shape[-1]]
    groups = {name: seen[:, names == name] for name in dict.fromkeys(names.tolist())} | {LAST: last}
    channels = dict(zip(world.channels, own.T, strict=True))
    known = sensitivity.known(groups, channels, [y[:, 0]])
    if known is None:
        return {}
    found = {}
    for name, left, (groups,) in zip(channels, known.actions, known.groups, strict=True):
        if left > 0:
            size = float(np.sqrt(known.outcomes[0] / left))
            weakest = sensitivity.weakest(1.0, size, groups)
            found[name] = {
                "robustness": finite(float(sensitivity.robustness(1.0, size))),
                "times_known": finite(weakest.times),
                "known_columns": weakest.name,
            }
    return found


def _within(values: Any, rows: Bool[np.ndarray, "units time"]) -> Float[np.ndarray, "rows columns"]:
    """Take the chosen rows, each less its unit's mean over them."""
    x = np.asarray(values, np.float64)
    return np.concatenate([x[u, rows[u]] - x[u, rows[u]].mean(0) for u in np.flatnonzero(rows.any(1))])
