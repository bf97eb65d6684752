"""Mean-field inference of the hidden layers given visible rows.

Sequential sweeps of `mu_l = sigmoid(c_l + mu_{l-1} W_l + W_{l+1} mu_{l+1})`, bottom up, `mu_0 = v`, every mean starting
at one half, without damping. Each update minimises the variational free energy exactly in one layer, so it never rises.

The layers of one colour do not touch, so h3's update of one sweep and h1's of the next are one matrix product. In turn
`j` the odd layers are updated, then the even ones; layer `2i + 1` (and `2i + 2`) joins at turn `i + 1` and leaves after
as many turns as there are sweeps. The result is that of the sequential order, at half the operations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from wmjax.core.visible import Visible
from wmjax.dbm import gibbs
from wmjax.dbm import packed as colours
from wmjax.dbm.packed import Packed
from wmjax.dbm.types import DBMParams, Layers

Half = Callable[[Array], Array]


class MeanFieldInfo(NamedTuple):
    """How near the means are to a fixed point.

    residual: [rows], largest change of any mean in the last sweep.
    converged: bool [rows], `residual < report`.
    """

    residual: Float[Array, "..."]
    converged: Bool[Array, "..."]


def infer(
    params: DBMParams,
    v: Float[Array, "... units"],
    *,
    sweeps: int = 10,
    tol: float = 0.0,
    start: float = 0.5,
    report: float = 1e-3,
    free: Bool[Array, "... units"] | None = None,
    visible: Visible | None = None,
) -> tuple[Layers, MeanFieldInfo]:
    """Infer the means of every layer given the visible rows.

    Args:
        params: the machine.
        v: visible rows; read only where `free` is false.
        sweeps: number of sweeps, at least one.
        tol: stop before `sweeps` once no mean of any row moves by more than this in a sweep; 0 never stops early.
        start: first value of every hidden mean.
        report: `info.converged` is `residual < report`.
        free: visible units that are missing, `[units]` or one mask a row; inferred at the end of every sweep, starting
            at their biases' means.
        visible: kinds of the visible units, read with `free`; all Bernoulli if not given.

    Returns:
        `(v, mu_1, .., mu_L)` with inferred means in place of free visible units, and the `MeanFieldInfo`.
    """
    if sweeps < 1:
        raise ValueError(f"sweeps is {sweeps}, must be at least 1")
    sizes, machine = colours.sizes_of(params), colours.pack(params)
    if free is None:
        hidden, odd, residual = infer_packed(machine, v, sizes=sizes, sweeps=sweeps, tol=tol, start=start)
        even = jnp.concatenate([v, hidden], axis=-1)
    else:
        visible = visible or Visible.bernoulli(v.shape[-1])
        clamp = gibbs.Clamp(~free, v)
        even, odd, residual = _infer_free(machine, clamp, sizes, visible, sweeps, tol, start)
    return colours.split(even, odd, sizes), MeanFieldInfo(residual, residual < report)


def belief(
    params: DBMParams,
    v: Float[Array, "... units"],
    *,
    layers: Literal["all", "top"] = "all",
    sweeps: int = 10,
) -> Float[Array, "... features"]:
    """Concatenate the hidden means of a row: all layers bottom up, or the top layer only."""
    means, _ = infer(params, v, sweeps=sweeps)
    return means[-1] if layers == "top" else jnp.concatenate(means[1:], axis=-1)


def infer_packed(
    machine: Packed,
    v: Float[Array, "... units"],
    *,
    sizes: tuple[int, ...],
    sweeps: int = 10,
    tol: float = 0.0,
    start: float = 0.5,
    bottom_only: bool = False,
) -> tuple[Float[Array, "... hidden"], Float[Array, "... odd"], Float[Array, "..."]]:
    """Infer packed hidden means.

    In spins `s = 2 mu - 1` an update is `s = tanh(d / 2 + sum(C) / 4 + s C / 4)`, d what does not change from sweep to
    sweep: the share of the visible layer is multiplied out once, and a sigmoid saves its scaling.

    Args:
        machine: packed parameters.
        v: visible rows.
        sizes: units of every layer.
        sweeps, tol, start: as in `infer`.
        bottom_only: stop as soon as h1 is final; the means of the other layers are then some sweeps behind.

    Returns:
        Means of the even hidden layers, of the odd layers, and the residual `[rows]`.
    """
    below = v @ machine.coupling[: sizes[0]] + machine.odd
    if len(sizes) == 2:
        return v[..., :0], jax.nn.sigmoid(below), jnp.zeros(v.shape[:-1], v.dtype)
    coupling = 0.25 * machine.coupling[sizes[0] :]
    odd_bias = 0.5 * below + coupling.sum(0)
    even_bias = 0.5 * machine.even[sizes[0] :] + coupling.sum(1)
    odd, even, residual = _settle(
        lambda even: jnp.tanh(even @ coupling + odd_bias),
        lambda odd: jnp.tanh(odd @ coupling.T + even_bias),
        jnp.full(coupling.shape[1], 2 * start - 1, v.dtype),
        jnp.full(coupling.shape[0], 2 * start - 1, v.dtype),
        _lags(sizes, hidden_only=True),
        sweeps,
        0.0 if tol == 0 else 2 * tol,
        bottom_only,
    )
    return 0.5 + 0.5 * even, 0.5 + 0.5 * odd, 0.5 * residual


def _infer_free(
    machine: Packed,
    clamp: gibbs.Clamp,
    sizes: tuple[int, ...],
    visible: Visible,
    sweeps: int,
    tol: float,
    start: float,
) -> tuple[Array, Array, Array]:
    """Infer as `infer_packed`, in means, with the visible layer among the even ones."""
    field = jnp.broadcast_to(machine.even[: sizes[0]], clamp.values.shape)
    first = gibbs.visible_means(field, visible=visible, clamp=clamp)
    hidden = jnp.full((*first.shape[:-1], machine.even.shape[0] - sizes[0]), start, first.dtype)

    def even_of(odd: Array) -> Array:
        return gibbs.even_means(odd @ machine.coupling.T + machine.even, visible=visible, clamp=clamp)

    odd, even, residual = _settle(
        lambda even: jax.nn.sigmoid(even @ machine.coupling + machine.odd),
        even_of,
        jnp.full(machine.odd.shape[0], start, first.dtype),
        jnp.concatenate([first, hidden], axis=-1),
        _lags(sizes, hidden_only=False),
        sweeps,
        tol,
        False,
    )
    return even, odd, residual


def _lags(sizes: tuple[int, ...], *, hidden_only: bool) -> tuple[np.ndarray, np.ndarray]:
    """Count the turns before each odd and each even unit's first update; the visible layer goes with h2."""
    even, odd = colours.owners(sizes)
    even = even[even > 0] if hidden_only else even
    return odd // 2, np.maximum(even // 2 - 1, 0)


def _settle(
    odd_of: Half,
    even_of: Half,
    odd: Array,
    even: Array,
    lags: tuple[np.ndarray, np.ndarray],
    sweeps: int,
    tol: float,
    bottom_only: bool,
) -> tuple[Array, Array, Array]:
    """Run the turns: those in which every unit takes part in a loop, the first and the last ones unrolled.

    Starts without a row axis broadcast, which spares the first product.
    """
    longest = max(int(lag.max(initial=0)) for lag in lags)
    residual = jnp.zeros(())

    def update(new: Array, old: Array, lag: np.ndarray, turn: int) -> tuple[Array, Array]:
        active = (lag < turn) & (turn <= lag + sweeps)
        new = new if active.all() else jnp.where(active, new, old)
        ends = np.equal(turn, lag + sweeps)
        if not ends.any():
            return new, jnp.zeros(())
        return new, jnp.max(jnp.where(ends, jnp.abs(new - old), 0.0), axis=-1, initial=0.0)

    middle = range(max(longest + 1, 2), sweeps)
    for turn in range(1, sweeps + longest + 1):
        if turn in middle:
            if turn == middle.start:
                odd, even = _loop(odd_of, even_of, odd, even, len(middle), tol)
            continue
        odd, moved_odd = update(odd_of(even), odd, lags[0], turn)
        if bottom_only and turn == sweeps:
            break
        even, moved_even = update(even_of(odd), even, lags[1], turn)
        residual = jnp.maximum(residual, jnp.maximum(moved_odd, moved_even))
    return odd, even, jnp.broadcast_to(residual, odd.shape[:-1])


def _loop(odd_of: Half, even_of: Half, odd: Array, even: Array, turns: int, tol: float) -> tuple[Array, Array]:
    if tol == 0:
        return jax.lax.fori_loop(0, turns, lambda _, x: (odd := odd_of(x[1]), even_of(odd)), (odd, even))

    def body(carry: tuple) -> tuple:
        count, old_odd, old_even, _ = carry
        odd = odd_of(old_even)
        even = even_of(odd)
        moved = jnp.maximum(jnp.max(jnp.abs(odd - old_odd)), jnp.max(jnp.abs(even - old_even), initial=0.0))
        return count + 1, odd, even, moved

    go_on = lambda carry: (carry[0] < turns) & (carry[3] > tol)  # noqa: E731
    return jax.lax.while_loop(go_on, body, (0, odd, even, jnp.asarray(jnp.inf, odd.dtype)))[1:3]
