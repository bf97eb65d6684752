"""Where a world's effects are supported: the overlap of each action given the history and the other actions.

A contrast keeps the belief and the other actions of a row, so like rows are those alike in both; where two actions
always come together, neither has a row without the other to compare with.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from wmjax.core.observe import Event, Observer, silent
from wmjax.core.visible import UnitKind, Visible
from wmjax.data.schema import PanelSchema
from wmjax.evaluate import overlap
from wmjax.evaluate.overlap import OverlapReport
from wmjax.worlds.consumer.rows import Rows


def given(rows: Rows, at: int) -> Float[np.ndarray, "rows columns"]:
    """Lay out what a contrast of action `at` holds fixed: the visible units, then the other actions."""
    return np.concatenate([rows.visible, np.delete(rows.actions, at, axis=1)], axis=1)


def layer(visible: Visible, schema: PanelSchema, at: int) -> Visible:
    """Name the columns of `given`."""
    parts: list[tuple[str, UnitKind, tuple[str, ...]]] = [(g.name, g.kind, g.labels) for g in visible.groups]
    for i, name in enumerate(schema.names("action")):
        if i != at:
            parts.append(
                (f"action {name}", "bernoulli" if schema.column(name).kind == "binary" else "gaussian", (name,))
            )
    return Visible.pack(parts)


def fit(rows: Rows, *, visible: Visible, schema: PanelSchema, observer: Observer = silent) -> dict[str, OverlapReport]:
    """Fit every action's overlap on train rows.

    Args:
        rows: the train rows.
        visible: the layer of `rows.visible`.
        schema: of the panel.
        observer: told of progress.
    """
    names, found = schema.names("action"), {}
    for at, name in enumerate(names):
        observer(Event("support", at, len(names), unit="action"))
        found[name] = overlap.fit_overlap(
            name,
            given(rows, at),
            rows.actions[:, at],
            kind=schema.column(name).kind,
            visible=layer(visible, schema, at),
        )
    observer(Event("support", len(names), len(names), unit="action"))
    return found
