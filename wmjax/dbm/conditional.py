"""Scores of one part of a row given the rest: the partition function cancels, and so does the rest's own rarity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from wmjax.core.errors import UserError
from wmjax.core.visible import Visible
from wmjax.dbm import clamp, exact, meanfield, scores
from wmjax.dbm.types import DBMParams

MAX_ALTERNATIVES = 4096
_ROWS_AT_ONCE = 8192


def conditional(
    params: DBMParams,
    v: Float[Array, "rows units"],
    part: Iterable[str] | np.ndarray,
    *,
    visible: Visible,
    alternatives: Float[np.ndarray, "alternatives part"] | None = None,
    kind: scores.ScoreKind = "variational",
    sweeps: int = 10,
) -> Float[Array, " rows"]:
    """Score the units A of a row given its other units B.

        F(x_A | x_B) = F(x_A, x_B) + log sum_{x_A'} exp(-F(x_A', x_B))

    With `kind="exact"` and all alternatives this is `-log p(x_A | x_B)`, in nats and never negative. With the
    variational score it is an approximation of that, not a bound: the bounds of the alternatives differ in tightness.

    Args:
        params: the machine.
        v: visible rows.
        part: A, as names of groups or as a mask over the units; a softmax group is in A whole or not at all.
        visible: names and kinds of the units.
        alternatives: the states x_A' to sum over, one a row, units in the layer's order: states that can occur
            together (bought within 7 days implies within 14). All combinations of A's units if not given. A row's own
            state is added to the sum where it is not among them.
        kind: the score that stands for F.
        sweeps: mean-field sweeps.

    Raises:
        UserError: if A is empty, splits a softmax group, has Gaussian units or more than `MAX_ALTERNATIVES`
            combinations (the message names the count) while no alternatives are given, or if these do not fit A.
    """
    mask = part_mask(part, visible=visible)
    states = _all_states(mask, visible) if alternatives is None else np.asarray(alternatives)
    if states.ndim != 2 or states.shape[1] != mask.sum() or not len(states):
        raise UserError(f"alternatives have shape {states.shape}, must be [at least 1, {mask.sum()}]: the units of A")
    index = jnp.array(np.flatnonzero(mask))
    part_of_v = v[:, index]
    own = scores.terms(params, v, visible=visible, kind=kind, sweeps=sweeps)

    def relative(state: Array) -> Array:
        """Compute F(x_A, x_B) - F(x_A', x_B) of every row, formed term by term."""
        other = v.at[:, index].set(jnp.broadcast_to(state, (v.shape[0], index.size)))
        return (own - scores.terms(params, other, visible=visible, kind=kind, sweeps=sweeps)).sum(-1)

    # Memory stays that of `block` times the rows: few rows take many alternatives at once, many rows take them singly.
    block = min(len(states), max(1, _ROWS_AT_ONCE // max(1, v.shape[0])))
    padding = -len(states) % block
    blocks = np.concatenate([states, np.repeat(states[-1:], padding, axis=0)]).reshape(-1, block, states.shape[1])
    real = (np.arange(len(states) + padding) < len(states)).reshape(-1, block)

    def add(carry: tuple[Array, Array], xs: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        logs = jnp.where(xs[1][:, None], jax.vmap(relative)(xs[0]), -jnp.inf)
        listed = (part_of_v == xs[0][:, None]).all(-1).any(0)
        return (jnp.logaddexp(carry[0], jax.nn.logsumexp(logs, axis=0)), carry[1] | listed), None

    start = jnp.full(v.shape[0], -jnp.inf, v.dtype), jnp.full(v.shape[0], alternatives is None)
    (total, listed), _ = jax.lax.scan(add, start, (jnp.asarray(blocks, v.dtype), jnp.asarray(real)))
    return jnp.where(listed, total, jnp.logaddexp(total, 0.0))  # relative to itself a row's own state weighs one


def interaction(
    params: DBMParams,
    v: Float[Array, "... units"],
    set_a: tuple[Mapping[str, float], Mapping[str, float]],
    set_b: tuple[Mapping[str, float], Mapping[str, float]],
    *,
    visible: Visible,
    kind: scores.ScoreKind = "variational",
    sweeps: int = 10,
) -> Float[Array, "..."]:
    """Compute how much more a change of A costs without B than with B.

        ddF = [F(A1, B0) - F(A0, B0)] - [F(A1, B1) - F(A0, B1)]

    For A purchases and B promotions it is positive where purchases are less plausible without promotion. The rarity of
    A and of B by themselves cancels; a machine whose hidden units couple no unit of A to one of B gives zero. The four
    scores are contrasted term by term and summed last (see `scores.difference`), so the result is not the rounding of
    four large totals.

    Args:
        params: the machine.
        v: visible rows; the units outside A and B keep their values.
        set_a: `(A0, A1)`, each unit labels to values as in `clamp.apply`.
        set_b: `(B0, B1)`, likewise, on other units.
        visible: names and kinds of the units.
        kind: the score that stands for F.
        sweeps: mean-field sweeps.

    Raises:
        UserError: for values that `clamp.apply` refuses, a set whose two sides touch different units, or shared units.
    """
    touched = [[{i for i, _ in clamp.assignments(side, visible=visible)} for side in sides] for sides in (set_a, set_b)]
    for name, (low, high) in zip("AB", touched, strict=True):
        if low != high:
            names = [visible.labels[i] for i in sorted(low ^ high)]
            raise UserError(f"the two sides of {name} set different units: {names} on one side only")
    if shared := touched[0][0] & touched[1][0]:
        raise UserError(f"A and B both set {[visible.labels[i] for i in sorted(shared)]}")

    def row(a: int, b: int) -> Array:
        return clamp.apply(clamp.apply(v, set_a[a], visible=visible), set_b[b], visible=visible)

    four = jnp.stack([row(1, 0), row(0, 0), row(1, 1), row(0, 1)])
    a1_b0, a0_b0, a1_b1, a0_b1 = scores.terms(params, four, visible=visible, kind=kind, sweeps=sweeps)
    return ((a1_b0 - a0_b0) - (a1_b1 - a0_b1)).sum(-1)


def reconstruct(
    params: DBMParams,
    v: Float[Array, "... units"],
    part: Iterable[str] | np.ndarray,
    *,
    visible: Visible,
    sweeps: int = 10,
) -> tuple[Float[Array, "... units"], meanfield.MeanFieldInfo]:
    """Fill the units of a part by their mean-field mean given the others: imputation of what is missing.

    Args:
        params: the machine.
        v: visible rows; the values in the part are not read and may be nan.
        part: names of groups or a mask over the units; a softmax group is in it whole or not at all.
        visible: names and kinds of the units.
        sweeps: mean-field sweeps over the hidden layers and the part.

    Returns:
        Rows with means (probabilities of bits and categories) in the part, and the mean field's readout.
    """
    mask = part_mask(part, visible=visible)
    layers, info = meanfield.infer(params, v, sweeps=sweeps, free=jnp.asarray(mask), visible=visible)
    return layers[0], info


def part_mask(part: Iterable[str] | np.ndarray, *, visible: Visible) -> Bool[np.ndarray, " units"]:
    """Turn group names or a mask into a mask that splits no softmax group and is not empty."""
    if isinstance(part, str):
        raise UserError(f"part is the word {part!r}; give a list of group names")
    mask = part if isinstance(part, np.ndarray) else clamp.groups_mask(part, visible=visible)
    if mask.shape != (visible.size,) or mask.dtype != bool:
        raise UserError(f"part is a mask of shape {mask.shape} and type {mask.dtype}, must be bool [{visible.size}]")
    if not mask.any():
        raise UserError("part has no units")
    for group in visible.groups:
        if group.kind == "softmax" and mask[group.slice].any() != mask[group.slice].all():
            raise UserError(f"part holds some categories of {group.name!r} and not others")
    return mask


def _all_states(mask: np.ndarray, visible: Visible) -> np.ndarray:
    chosen = Visible.pack(
        (g.name, g.kind, tuple(np.array(g.labels)[mask[g.slice]])) for g in visible.groups if mask[g.slice].any()
    )
    if gaussian := [g.name for g in chosen.groups if g.kind == "gaussian"]:
        raise UserError(f"groups {gaussian} are Gaussian and have no list of states; give alternatives")
    digits = exact.visible_digits(chosen)
    if (count := exact.num_states(digits)) > MAX_ALTERNATIVES:
        raise UserError(
            f"the part has {count:,} states, at most {MAX_ALTERNATIVES:,} are summed over; "
            "give the alternatives that can occur, or a smaller part"
        )
    return exact.states_of(digits)
