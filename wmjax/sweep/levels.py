"""Where the values of a grid's axis come from: a list, a range, or a sample that fills a cube evenly.

A source has a `size`, a `rule` by which the device turns a digit into a value, the `table` that the rule reads (an
argument of the compiled program, so that other levels do not compile anew), and `labels` for the host, of all levels or
of those asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Int, Shaped, UInt32

MOST_LISTED = 2**20
MOST_SAMPLED = 2**24
MOST = 2**31 - 1


@dataclass(frozen=True)
class Listed:
    """These values."""

    values: tuple[float, ...] | tuple[int, ...]
    rule: ClassVar[str] = "table"

    @property
    def size(self) -> int:
        return len(self.values)

    def labels(self, at: np.ndarray | None = None) -> np.ndarray:
        return _at(np.array(self.values), at)

    def table(self) -> np.ndarray:
        return narrow(self.labels())


@dataclass(frozen=True)
class Linear:
    """`size` levels from `low` to `high`, both included."""

    low: float | int
    high: float | int
    size: int
    rule: ClassVar[str] = "table"

    def labels(self, at: np.ndarray | None = None) -> np.ndarray:
        # Twelve digits: 0.1 is 0.1 and not 0.09999999999999999, so that a result can be asked for `discount=0.1`.
        exact = _at(np.linspace(self.low, self.high, self.size), at)
        return np.array([float(f"{x:.12g}") for x in exact])

    def table(self) -> np.ndarray:
        return narrow(self.labels())


@dataclass(frozen=True)
class Range:
    """`start + step i` for `i < size`, whole; worked out, never listed."""

    start: int
    step: int
    size: int
    rule: ClassVar[str] = "range"

    def labels(self, at: np.ndarray | None = None) -> np.ndarray:
        return self.start + self.step * (np.arange(self.size) if at is None else at.astype(np.int64))

    def table(self) -> np.ndarray:
        return np.array([self.start, self.step], np.int32)


@dataclass(frozen=True)
class Latin:
    """Coordinate `place` of a Latin hypercube sample in `of` dimensions, on `[low, high)`; whole: on `low .. high`."""

    low: float | int
    high: float | int
    whole: bool
    size: int
    seed: int
    place: int
    of: int
    rule: ClassVar[str] = "table"

    def labels(self, at: np.ndarray | None = None) -> np.ndarray:
        unit = _at(_latin(self.size, self.seed, self.of)[:, self.place], at)
        return _stretch(unit, self.low, self.high, self.whole)

    def table(self) -> np.ndarray:
        return narrow(self.labels())


@dataclass(frozen=True)
class Sobol:
    """Coordinate `place` of a scrambled Sobol sequence in `of` dimensions; made on the device from its own words."""

    low: float | int
    high: float | int
    whole: bool
    size: int
    seed: int
    place: int
    of: int

    @property
    def rule(self) -> str:
        return "sobol whole" if self.whole else "sobol"

    def labels(self, at: np.ndarray | None = None) -> np.ndarray:
        """Values as the device makes them, to one rounding of float32."""
        index = _at(np.arange(self.size), at).astype(np.uint32)
        unit = sobol_words(self.table()[0], index, np) >> np.uint32(8)
        values = _stretch(unit * 2.0**-24, self.low, self.high, self.whole)
        return values if self.whole else values.astype(np.float32).astype(np.float64)

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        return _sobol(self.size, self.seed, self.of)[:, self.place], narrow(np.array([self.low, self.high]))


Source = Listed | Linear | Range | Latin | Sobol


def narrow(values: np.ndarray) -> np.ndarray:
    """Give host numbers the 32 bits that they have on the device."""
    return values.astype(np.int32 if np.issubdtype(values.dtype, np.integer) else np.float32)


def read(rule: str, table: Any, digit: Int[Array, ""]) -> Shaped[Array, ""]:
    """Turn a digit into a value, on the device."""
    if rule == "table":
        return table[digit]
    if rule == "range":
        return table[0] + table[1] * digit
    words, (low, high) = table
    unit = (sobol_words(words, digit.astype(jnp.uint32)[None], jnp)[0] >> 8).astype(jnp.float32) * 2.0**-24
    if rule == "sobol":
        return low + (high - low) * unit
    steps = (high - low + 1).astype(jnp.int32)
    return low.astype(jnp.int32) + jnp.minimum((unit * steps).astype(jnp.int32), steps - 1)


def sobol_words(words: UInt32[Any, " bits"], index: UInt32[Any, " n"], xp: Any) -> UInt32[Any, " n"]:
    """Make the sequence: word 0, and the exclusive or of word `j + 1` for each bit j of the index's Gray code."""
    gray = index ^ (index >> 1)
    out = xp.broadcast_to(words[0], index.shape)
    for j in range(len(words) - 1):
        out = out ^ (words[j + 1] * ((gray >> j) & 1).astype(xp.uint32))
    return out


def _at(values: np.ndarray, at: np.ndarray | None) -> np.ndarray:
    return values if at is None else values[at]


def _stretch(unit: np.ndarray, low: float | int, high: float | int, whole: bool) -> np.ndarray:
    if not whole:
        return low + (high - low) * unit
    steps = int(high) - int(low) + 1
    return int(low) + np.minimum((unit.astype(np.float32) * np.float32(steps)).astype(np.int64), steps - 1)


@lru_cache(maxsize=4)
def _latin(size: int, seed: int, of: int) -> np.ndarray:
    return scipy.stats.qmc.LatinHypercube(of, rng=np.random.default_rng(seed)).random(size)


@lru_cache(maxsize=4)
def _sobol(size: int, seed: int, of: int) -> UInt32[np.ndarray, "bits of"]:
    """Read a sequence's direction words off its points: point `2^j` differs from the first by words j and j - 1."""
    bits = max(1, (size - 1).bit_length())
    sequence = scipy.stats.qmc.Sobol(of, bits=30, rng=np.random.default_rng(seed))
    rows = [sequence.random(1)[0]]
    for j in range(bits):
        sequence.fast_forward(2**j - sequence.num_generated)
        rows.append(sequence.random(1)[0])
    words = np.round(np.array(rows) * 2.0**30).astype(np.uint32) << np.uint32(2)
    out = [words[0]]
    for j in range(bits):
        before = out[j] if j else np.zeros_like(words[0])
        out.append(words[j + 1] ^ words[0] ^ before)
    return np.stack(out)
