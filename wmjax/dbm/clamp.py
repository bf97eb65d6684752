"""Rows changed by name: set visible units to values, and see what the biases alone make of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wmjax.core.errors import UserError
from wmjax.core.visible import Visible
from wmjax.dbm import energy
from wmjax.dbm.types import DBMParams


def apply(v: Float[Array, "... units"], values: Mapping[str, float], *, visible: Visible) -> Float[Array, "... units"]:
    """Set units to values by their labels, in all rows.

    A unit of a softmax group can only be set to 1: the row takes that category and the rest of the group goes to 0.
    Rows stay possible states of the layer, but not necessarily possible histories (a purchase within 7 days is also
    one within 14 days, for example): set all units that belong together.

    Args:
        v: rows.
        values: unit label to value, for example `{"purchase_lag1": 1.0, "push_lag1": 0.0}`.
        visible: names and kinds of the units.

    Returns:
        Changed rows of the same shape.

    Raises:
        UserError: for an unknown label, a bit outside [0, 1], a softmax unit not set to 1 or two of one group, or a
            value that is not finite.
    """
    for index, value in assignments(values, visible=visible):
        v = v.at[..., index].set(value)
    return v


def assignments(values: Mapping[str, float], *, visible: Visible) -> list[tuple[int, float]]:
    """Turn labels and values into unit indices and values, whole softmax groups included; see `apply`."""
    indices = dict(zip(values, units(values, visible=visible), strict=True))
    out: dict[int, float] = {}
    for label, value in values.items():
        group = next(g for g in visible.groups if g.start <= indices[label] < g.start + g.size)
        if not np.isfinite(value):
            raise UserError(f"unit {label!r} is set to {value}, which is not finite")
        if group.kind == "bernoulli" and not 0 <= value <= 1:
            raise UserError(f"unit {label!r} is a bit and is set to {value}, must be in [0, 1]")
        if group.kind == "softmax":
            if value != 1:
                raise UserError(
                    f"unit {label!r} is a category of {group.name!r} and is set to {value}: set another category to 1"
                )
            if group.start in out:
                raise UserError(f"two categories of {group.name!r} are set, of which {label!r} is the second")
            out |= {group.start + i: 0.0 for i in range(group.size)}
        out[indices[label]] = float(value)
    return sorted(out.items())


def units(labels: Iterable[str], *, visible: Visible) -> list[int]:
    """Find the indices of units by label; a `UserError` for an unknown one names the nearest labels there are."""
    where = {label: i for i, label in enumerate(visible.labels)}
    out = []
    for label in labels:
        if label not in where:
            near = difflib.get_close_matches(label, visible.labels, n=3, cutoff=0.5) or list(visible.labels[:3])
            raise UserError(f"no visible unit is labelled {label!r} among {visible.size}; the nearest are {near}")
        out.append(where[label])
    return out


def groups_mask(names: Iterable[str], *, visible: Visible) -> np.ndarray:
    """Mark the units of the named groups: `bool [units]`; a `UserError` names the groups there are."""
    try:
        return visible.mask(names)
    except KeyError as error:
        raise UserError(error.args[0]) from error


def bias_only(
    params: DBMParams, v_from: Float[Array, "... units"], v_to: Float[Array, "... units"], *, visible: Visible
) -> Float[Array, "..."]:
    """Compute the part of a free-energy difference that the visible biases alone explain.

        -(v_to - v_from) . b + sum_{i Gaussian} 0.5 (v_to_i^2 - v_from_i^2)

    It is what a machine without couplings would charge for the change: the rarity of the values themselves, nothing of
    how they go together.

    Returns:
        Differences `[...]` in nats.
    """
    square = jnp.array(energy.gaussian_units(visible), int)
    quadratic = 0.5 * (v_to - v_from)[..., square] * (v_to + v_from)[..., square]
    return quadratic.sum(-1) - ((v_to - v_from) * params.biases[0]).sum(-1)
