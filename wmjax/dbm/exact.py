"""Exact answers for small machines by enumeration.

One colour of layers (all even or all odd ones) is enumerated and the other summed out analytically, so a machine's cost
is set by the smaller colour. A bit doubles the number of states, a softmax group multiplies it by its categories, and
Gaussian units, which are integrated analytically, force the odd colour. Moments are derivatives of log Z and of F(v):
nothing else is enumerated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wmjax.core.errors import UserError
from wmjax.core.visible import Visible
from wmjax.dbm import energy
from wmjax.dbm.types import DBMParams, Layers

MAX_STATES = 2**20
_CELLS = 2**14


def log_partition(params: DBMParams, *, visible: Visible) -> Float[Array, ""]:
    """Compute `log Z = log sum_{v, h1, .., hL} exp(-E)`, Gaussian units integrated over the reals.

    Raises:
        UserError: if the smaller colour of layers has more than `MAX_STATES` states; the message names the count.
    """
    depth = len(params.biases)
    even, odd = range(0, depth, 2), range(1, depth, 2)
    # Gaussian units have no states to enumerate: their colour is the one that is summed out.
    colours = [odd] if energy.gaussian_units(visible) else [even, odd]
    smaller = min(colours, key=lambda indices: _num_states(params, indices, visible))
    return -_collapse_over(params, {}, smaller, visible)


def free_energy(params: DBMParams, v: Float[Array, "... units"], *, visible: Visible) -> Float[Array, "..."]:
    """Compute the exact free energy `F(v) = -log sum_{h1, .., hL} exp(-E(v, h))` of rows `[..., units]`.

    With one hidden layer nothing is enumerated and any size will do. States are taken in chunks, so that memory is that
    of about 16,384 pairs of a row and a state, whatever their numbers.

    Raises:
        UserError: if the smaller colour of hidden layers has more than `MAX_STATES` states.
    """
    depth = len(params.biases)
    even, odd = range(2, depth, 2), range(1, depth, 2)
    smaller = min(even, odd, key=lambda indices: _num_states(params, indices, visible))
    return _collapse_over(params, {0: v[..., None, :]}, smaller, visible)


def log_likelihood(params: DBMParams, v: Float[Array, "... units"], *, visible: Visible) -> Float[Array, "..."]:
    """Compute `log p(v) = -F(v) - log Z`; a density with respect to the Gaussian units."""
    return -free_energy(params, v, visible=visible) - log_partition(params, visible=visible)


def likelihood_gradient(params: DBMParams, v: Float[Array, "rows units"], *, visible: Visible) -> DBMParams:
    """Compute the gradient of the mean of `log p(v)` over the rows, which any learning rule approximates.

    It equals the data average minus the model average of `-dE/dparams`.
    """
    return jax.grad(lambda p: jnp.mean(log_likelihood(p, v, visible=visible)))(params)


def marginals(params: DBMParams, *, visible: Visible) -> Layers:
    """Compute the mean of every unit under the machine, `d log Z / d bias`: `[units]` for each layer."""
    return jax.grad(lambda p: log_partition(p, visible=visible))(params).biases


def posterior(params: DBMParams, v: Float[Array, " units"], *, visible: Visible) -> Layers:
    """Compute the mean of every unit given one visible row, `-dF(v) / d bias`; entry 0 is the row itself."""
    return jax.grad(lambda p: -free_energy(p, v, visible=visible))(params).biases


def visible_states(visible: Visible) -> np.ndarray:
    """List all states of a visible layer without Gaussian units: float32 `[states, units]`.

    Raises:
        UserError: if there are Gaussian units, or more than `MAX_STATES` states.
    """
    if energy.gaussian_units(visible):
        raise UserError("a visible layer with Gaussian units has no list of states")
    digits = visible_digits(visible)
    _check(num_states(digits), "the visible layer")
    return states_of(digits)


class Digit(NamedTuple):
    """One place of a state written as a number: a bit has 2 states and 1 unit, a softmax group k states and k units."""

    states: int
    units: int


BIT = Digit(2, 1)


def visible_digits(visible: Visible) -> list[Digit]:
    """Write the visible layer as digits; Gaussian units, which have no states, are left out."""
    digits = []
    for group in visible.groups:
        if group.kind == "softmax":
            digits.append(Digit(group.size, group.size))
        elif group.kind == "bernoulli":
            digits += [BIT] * group.size
    return digits


def num_states(digits: Sequence[Digit]) -> int:
    """Count the states of some digits."""
    return math.prod(d.states for d in digits)


def states_of(digits: Sequence[Digit]) -> np.ndarray:
    """List all states of some digits, the first digit varying fastest: float32 `[states, units]`."""
    divisor, radix, value = _code(digits)
    return (np.arange(num_states(digits))[:, None] // divisor % radix == value).astype(np.float32)


def _code(digits: Sequence[Digit]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Say of every unit at which `index // divisor % radix == value` it is on: int `[units]` each."""
    code, divisor = [], 1
    for digit in digits:
        code += [(divisor, digit.states, 1 if digit == BIT else k) for k in range(digit.units)]
        divisor *= digit.states
    divisors, radices, values = np.array(code, np.int32).T
    return divisors, radices, values


def _collapse_over(params: DBMParams, given: dict[int, Array], indices: Sequence[int], visible: Visible) -> Array:
    """Compute `-log sum exp(-E)` over all layers but the given ones, enumerating the layers of `indices`."""
    if not indices:
        return energy.collapsed(params, given, visible=visible)[..., 0]
    digits = [digit for index in indices for digit in _layer_digits(params, index, visible)]
    total = num_states(digits)
    _check(total, f"layers {', '.join('v' if i == 0 else f'h{i}' for i in indices)}")
    divisor, radix, value = _code(digits)
    rows = math.prod(jnp.broadcast_shapes(*(x.shape[:-1] for x in given.values())))
    chunk = min(total, max(1, _CELLS // max(1, rows)))
    splits = np.cumsum([params.biases[i].shape[0] for i in indices])[:-1].tolist()

    # Checkpointed: a derivative decodes a chunk's states again instead of storing those of every chunk.
    @jax.checkpoint
    def one_chunk(first: Array) -> Array:
        index = first + jnp.arange(chunk)
        states = (index[:, None] // divisor % radix == value).astype(params.biases[0].dtype)
        enumerated = dict(zip(indices, jnp.split(states, splits, axis=-1), strict=True))
        logs = -energy.collapsed(params, {**given, **enumerated}, visible=visible)
        # The last chunk may run past the last state; its first state is always a real one, so no -inf - -inf arises.
        return jax.nn.logsumexp(jnp.where(index < total, logs, -jnp.inf), axis=-1)

    if total == chunk:
        return -one_chunk(jnp.array(0))
    return -jax.nn.logsumexp(jax.lax.map(one_chunk, jnp.arange(0, total, chunk)), axis=0)


def _layer_digits(params: DBMParams, index: int, visible: Visible) -> list[Digit]:
    return visible_digits(visible) if index == 0 else [BIT] * params.biases[index].shape[0]


def _num_states(params: DBMParams, indices: Sequence[int], visible: Visible) -> int:
    return num_states([digit for index in indices for digit in _layer_digits(params, index, visible)])


def _check(states: int, what: str) -> None:
    if states > MAX_STATES:
        raise UserError(
            f"exact enumeration of {what} needs {states:,} states, at most {MAX_STATES:,} are enumerated; "
            "use partition.ais for log Z and a variational score for rows"
        )
