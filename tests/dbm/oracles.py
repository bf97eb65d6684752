"""The machines' mathematics a second time: NumPy, float64, every state written out.

A machine is flattened to one vector of units x with one bias a and one coupling matrix J (upper blocks only), so that
layers, colours and softplus do not occur: `E(x) = -a.x - x'J x (+ 0.5 x_i^2 for a Gaussian unit i)`. Gaussian units are
integrated by the trapezoid rule on a grid, which for a Gaussian is accurate to rounding.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import numpy as np

from wmjax.core.visible import Visible
from wmjax.dbm.types import DBMParams

GRID = np.linspace(-14.0, 14.0, 281)

MIXED = Visible.pack(
    [
        ("store", "softmax", ("store_a", "store_b", "store_c")),
        ("flags", "bernoulli", ("bought", "pushed")),
        ("price", "gaussian", ("price",)),
    ]
)
CATEGORIES = Visible.pack(
    [("store", "softmax", ("store_a", "store_b", "store_c")), ("flags", "bernoulli", ("bought", "pushed", "loyal"))]
)
SIZES = {1: (6, 4), 2: (6, 4, 3), 3: (6, 4, 3, 2), 4: (5, 4, 3, 2, 2)}


def machine(sizes: tuple[int, ...], *, seed: int = 0, scale: float = 1.0, shift: float = 0.3) -> DBMParams:
    """Draw a machine of strong, lopsided couplings (mean `shift`) and biases, in float32."""
    rng = np.random.default_rng([seed, *sizes])
    weights = [rng.normal(shift, scale, (a, b)) for a, b in itertools.pairwise(sizes)]
    biases = [rng.normal(-0.4, 0.6, n) for n in sizes]
    to_jax = lambda arrays: tuple(jax.numpy.asarray(a, np.float32) for a in arrays)  # noqa: E731
    return DBMParams(to_jax(weights), to_jax(biases))


class Flat(NamedTuple):
    """One bias and one coupling matrix for all units; `cuts` split the units into layers."""

    bias: np.ndarray
    coupling: np.ndarray
    cuts: list[int]


def flatten(params: DBMParams) -> Flat:
    biases = [np.asarray(b, np.float64) for b in params.biases]
    starts = np.cumsum([0, *(len(b) for b in biases)])
    coupling = np.zeros((starts[-1], starts[-1]))
    for level, weight in enumerate(params.weights):
        coupling[starts[level] : starts[level + 1], starts[level + 1] : starts[level + 2]] = np.asarray(weight)
    return Flat(np.concatenate(biases), coupling, starts[1:-1].tolist())


def visible_states(visible: Visible) -> np.ndarray:
    """List the states of bits and softmax groups; Gaussian units stay at 0 as placeholders."""
    if all(group.kind == "bernoulli" for group in visible.groups):
        return bits(visible.size)
    choices = []
    for group in visible.groups:
        if group.kind == "softmax":
            choices.append([tuple(row) for row in np.eye(group.size)])
        else:
            values = (0.0, 1.0) if group.kind == "bernoulli" else (0.0,)
            choices += [[(x,) for x in values]] * group.size
    return np.array([sum(parts, ()) for parts in itertools.product(*choices)])


def bits(count: int) -> np.ndarray:
    return (np.arange(2**count)[:, None] >> np.arange(count)[::-1] & 1).astype(float)


def log_sum(x: np.ndarray, axis=None) -> np.ndarray:
    top = np.max(x, axis=axis, keepdims=True)
    return np.squeeze(np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top, axis)


class States(NamedTuple):
    """All states of a machine: x [states, units], Gaussian units at their conditional means; log weights [states]."""

    x: np.ndarray
    log_weights: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        return np.exp(self.log_weights - log_sum(self.log_weights))


def gaussian_units(visible: Visible) -> list[int]:
    return [i for g in visible.groups for i in range(g.start, g.start + g.size) if g.kind == "gaussian"]


def enumerate_states(params: DBMParams, visible: Visible, v: np.ndarray | None = None) -> States:
    """List all states, or with a row v all states of the hidden units beside it."""
    flat = flatten(params)
    below = visible_states(visible) if v is None else np.asarray(v, np.float64)[None]
    hidden = bits(len(flat.bias) - visible.size)
    x = np.concatenate([np.repeat(below, len(hidden), axis=0), np.tile(hidden, (len(below), 1))], axis=1)
    log_weights = x @ flat.bias + np.einsum("si,ij,sj->s", x, flat.coupling, x, optimize=True)
    for unit in gaussian_units(visible):
        if v is not None:
            log_weights = log_weights - 0.5 * x[:, unit] ** 2
            continue
        field = flat.bias[unit] + x @ flat.coupling[unit]
        step = GRID[1] - GRID[0]
        log_weights = log_weights + log_sum(field[:, None] * GRID - 0.5 * GRID**2, axis=1) + np.log(step)
        x[:, unit] = field
    return States(x, log_weights)


def energy(params: DBMParams, layers, visible: Visible) -> float:
    """Compute the energy of one state by loops over units and couplings."""
    total = 0.0
    for layer, bias in zip(layers, params.biases, strict=True):
        for x, b in zip(np.asarray(layer, np.float64), np.asarray(bias, np.float64), strict=True):
            total -= x * b
    for below, above, weight in zip(layers[:-1], layers[1:], params.weights, strict=True):
        for i, j in itertools.product(range(len(below)), range(len(above))):
            total -= float(below[i]) * float(weight[i, j]) * float(above[j])
    return total + sum(0.5 * float(layers[0][i]) ** 2 for i in gaussian_units(visible))


def log_z(params: DBMParams, visible: Visible) -> float:
    return float(log_sum(enumerate_states(params, visible).log_weights))


def free_energy(params: DBMParams, v: np.ndarray, visible: Visible) -> np.ndarray:
    """Sum over all hidden states of each row; what does not depend on the row is worked out once."""
    flat, rows = flatten(params), np.asarray(v, np.float64)
    hidden, size = bits(len(flat.bias) - visible.size), visible.size
    alone = hidden @ flat.bias[size:] + np.einsum("hi,ij,hj->h", hidden, flat.coupling[size:, size:], hidden)
    log_weights = (rows @ flat.bias[:size])[:, None] + rows @ flat.coupling[:size, size:] @ hidden.T + alone
    gaussian = 0.5 * np.square(rows[:, gaussian_units(visible)]).sum(1)
    return gaussian - log_sum(log_weights, axis=1)


def log_likelihood(params: DBMParams, v: np.ndarray, visible: Visible) -> np.ndarray:
    return -free_energy(params, v, visible) - log_z(params, visible)


def means(params: DBMParams, visible: Visible, v: np.ndarray | None = None) -> list[np.ndarray]:
    """Average every unit over the machine, or over the hidden states beside a row; one array a layer."""
    states = enumerate_states(params, visible, v)
    return np.split(states.probabilities @ states.x, flatten(params).cuts)


def products(params: DBMParams, visible: Visible) -> list[np.ndarray]:
    """Average the product of every two units of neighbouring layers."""
    states = enumerate_states(params, visible)
    layers = np.split(states.x, flatten(params).cuts, axis=1)
    return [np.einsum("s,si,sj->ij", states.probabilities, a, b, optimize=True) for a, b in itertools.pairwise(layers)]


def likelihood_gradient(params: DBMParams, v: np.ndarray, visible: Visible, *, step: float = 1e-4) -> DBMParams:
    """Differentiate the mean of log p(v) over rows by central differences, one parameter at a time."""
    arrays = [np.asarray(a, np.float64).copy() for a in (*params.weights, *params.biases)]
    count = len(params.weights)

    def value() -> float:
        return log_likelihood(DBMParams(tuple(arrays[:count]), tuple(arrays[count:])), v, visible).mean()

    out = []
    for array in arrays:
        slope = np.zeros_like(array)
        for at in np.ndindex(array.shape):
            kept = array[at]
            array[at] = kept + step
            up = value()
            array[at] = kept - step
            slope[at] = (up - value()) / (2 * step)
            array[at] = kept
        out.append(slope)
    return DBMParams(tuple(out[:count]), tuple(out[count:]))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def mean_field(params: DBMParams, v: np.ndarray, *, sweeps: int) -> list[np.ndarray]:
    """Sweep the hidden means bottom up from one half, rows of v at once."""
    weights = [np.asarray(w, np.float64) for w in params.weights]
    biases = [np.asarray(b, np.float64) for b in params.biases]
    layers = [np.asarray(v, np.float64), *(np.full((len(v), len(b)), 0.5) for b in biases[1:])]
    for _ in range(sweeps):
        for level in range(1, len(layers)):
            field = biases[level] + layers[level - 1] @ weights[level - 1]
            if level < len(weights):
                field = field + layers[level + 1] @ weights[level].T
            layers[level] = sigmoid(field)
    return layers


def divergence_form(params: DBMParams, layers, visible: Visible) -> float:
    """Compute `E_q[E] - H(q)` of one row as a sum over all hidden states of `q (E + log q)`."""
    states = enumerate_states(params, visible, layers[0])
    q = np.concatenate([np.asarray(m, np.float64) for m in layers[1:]])
    hidden = states.x[:, visible.size :]
    log_q = (hidden * np.log(q) + (1 - hidden) * np.log1p(-q)).sum(1)
    return float(np.sum(np.exp(log_q) * (log_q - states.log_weights)))


def variational(params: DBMParams, layers) -> np.ndarray:
    """Compute `E_q[E] - H(q)` of rows of bits from their means, by the plain formula in float64."""
    total = np.zeros(len(layers[0]))
    for level, bias in enumerate(params.biases):
        total -= layers[level] @ np.asarray(bias, np.float64)
        if level > 0:
            m = layers[level]
            total += (m * np.log(m) + (1 - m) * np.log1p(-m)).sum(1)
            total -= np.einsum("ri,ij,rj->r", layers[level - 1], np.asarray(params.weights[level - 1], np.float64), m)
    return total


def chain_z(samples: np.ndarray, truth: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compare independent chains with the truth.

    Args:
        samples: [chains, statistics], each chain's time average: batches that are independent by construction.
        truth: [statistics], expected values.
        variance: [statistics], variance of one independent draw.

    Returns:
        z-scores and effective sample sizes, both [statistics].
    """
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    return (samples.mean(axis=0) - truth) / error, variance / error**2
