"""Centred gradients as a change of coordinates, so that parameters stay plain.

The centred machine `E = -(e - p)' c_e - (o - q)' c_o - (e - p)' M (o - q)`, with offsets p and q near the mean
activity, is the same family of distributions: `c_e = a_e + M q`, `c_o = a_o + M' p` (a the plain biases). Its gradient
is far better conditioned, which lets all layers learn together without pretraining. An optimiser works in
`(M, c_e, c_o)`, and its step is carried back to plain biases. Plain parameters do not change when offsets move.

Sources: Montavon and Mueller (2012); Melchior, Fischer and Wiskott, JMLR 17(99), 2016. Offsets are data-phase means:
theirs with model means may diverge.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from wmjax.dbm.packed import Packed

Gains = tuple[float, float]
"""Factors on what odd layers receive from even ones, and on the converse: (1, 1) but in pretraining."""


class Offsets(NamedTuple):
    """Offsets p of the even units `[even]` and q of the odd units `[odd]`."""

    even: Float[Array, " even"]
    odd: Float[Array, " odd"]


def coordinates(plain: Packed, offsets: Offsets, *, gains: Gains = (1.0, 1.0)) -> Packed:
    """Turn plain parameters into centred ones."""
    return Packed(
        plain.coupling,
        plain.even + gains[1] * (plain.coupling @ offsets.odd),
        plain.odd + gains[0] * (offsets.even @ plain.coupling),
    )


def gradient(plain: Packed, offsets: Offsets, factor: np.ndarray) -> Packed:
    """Turn a gradient over plain parameters into one over centred ones.

        dM_c = factor * (dM - p do' - de q'),   dc_e = de,   dc_o = do

    which makes `dM_c / factor` the difference of centred correlations `<(e - p)(o - q)'>`.

    Args:
        plain: gradient over `(M, a_e, a_o)`.
        offsets: offsets of the units.
        factor: weights of the couplings' gradient, 0 where there is no coupling (`packed.touching`).
    """
    moved = offsets.even[:, None] * plain.odd + plain.even[:, None] * offsets.odd
    return plain._replace(coupling=(plain.coupling - moved) * factor)


def plain_step(centred: Packed, offsets: Offsets, *, gains: Gains = (1.0, 1.0)) -> Packed:
    """Carry a step of centred parameters back: `da_e = dc_e - dM q`, `da_o = dc_o - dM' p`."""
    return Packed(
        centred.coupling,
        centred.even - gains[1] * (centred.coupling @ offsets.odd),
        centred.odd - gains[0] * (offsets.even @ centred.coupling),
    )
