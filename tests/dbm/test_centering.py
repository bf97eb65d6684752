"""The change of coordinates against the published update rule, in float64 NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.dbm import centering
from wmjax.dbm import packed as colours
from wmjax.dbm.centering import Offsets
from wmjax.dbm.packed import Packed

SIZES = (4, 3, 2, 2)
EVEN, ODD = 6, 5


@pytest.fixture
def sides():
    """Random layers of a data side and a model side, and offsets."""
    rng = np.random.default_rng(0)
    layers = [(rng.random((9, EVEN)), rng.random((9, ODD))) for _ in range(2)]
    return layers, rng.random(EVEN), rng.random(ODD)


def moments(layers):
    even, odd = layers
    return Packed(*(jnp.asarray(x, jnp.float32) for x in (even.T @ odd / len(even), even.mean(0), odd.mean(0))))


def test_plain_gradient_ascent_is_the_rule_of_melchior_fischer_and_wiskott(sides):
    """dW = <(v - p)(h - q)'>_data - <..>_model; db = <v>_data - <v>_model - dW q; dc likewise with dW' p."""
    (data, model), p, q = sides
    touching = colours.touching(SIZES)
    correlation = [(e - p).T @ (o - q) / len(e) for e, o in (data, model)]
    dw = (correlation[0] - correlation[1]) * touching
    db = data[0].mean(0) - model[0].mean(0) - dw @ q
    dc = data[1].mean(0) - model[1].mean(0) - dw.T @ p

    offsets = Offsets(jnp.asarray(p, jnp.float32), jnp.asarray(q, jnp.float32))
    plain = Packed(*(a - b for a, b in zip(moments(data), moments(model), strict=True)))
    step = centering.plain_step(centering.gradient(plain, offsets, touching), offsets)
    for got, want in zip(step, (dw, db, dc), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("gains", [(1.0, 1.0), (2.0, 1.0)])
def test_a_step_in_centred_coordinates_is_the_plain_step_in_plain_ones(sides, gains):
    _, p, q = sides
    rng = np.random.default_rng(1)
    offsets = Offsets(jnp.asarray(p, jnp.float32), jnp.asarray(q, jnp.float32))
    shapes = ((EVEN, ODD), (EVEN,), (ODD,))
    plain, move = (Packed(*(jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)) for _ in range(2))
    centred = centering.coordinates(plain, offsets, gains=gains)
    step = centering.plain_step(move, offsets, gains=gains)
    moved = centering.coordinates(Packed(*(a + b for a, b in zip(plain, step, strict=True))), offsets, gains=gains)
    for got, before, by in zip(moved, centred, move, strict=True):
        np.testing.assert_allclose(got, before + by, atol=1e-5)


def test_fields_are_those_of_the_centred_machine(sides):
    (layers, _), p, q = sides
    rng = np.random.default_rng(2)
    offsets = Offsets(jnp.asarray(p, jnp.float32), jnp.asarray(q, jnp.float32))
    plain = Packed(*(jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((EVEN, ODD), (EVEN,), (ODD,))))
    centred = centering.coordinates(plain, offsets)
    even, odd = layers
    np.testing.assert_allclose(
        (even - p) @ np.asarray(centred.coupling) + np.asarray(centred.odd),
        even @ np.asarray(plain.coupling) + np.asarray(plain.odd),
        atol=1e-5,
    )
    np.testing.assert_allclose(
        (odd - q) @ np.asarray(centred.coupling).T + np.asarray(centred.even),
        odd @ np.asarray(plain.coupling).T + np.asarray(plain.even),
        atol=1e-5,
    )
