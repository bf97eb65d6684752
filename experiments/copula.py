"""A Gaussian copula of bits: each is a latent normal above its threshold, and the normals are correlated.

Thresholds are the bits' own shares; correlations are fitted pair by pair (tetrachoric), so that the model has the
table's share of rows in which both bits are on; the likelihood of a row is the chance of an orthant, by sequential
importance sampling (Geweke, Hajivassiliou and Keane).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

LIMIT = 0.99
"""Largest correlation of two bits; one-hot ones ask for -1."""


class Copula(NamedTuple):
    """Thresholds `[bits]`, and the Cholesky factor `[bits, bits]` of the latent correlations."""

    threshold: np.ndarray
    factor: np.ndarray


def both_above(a: np.ndarray, b: np.ndarray, correlation: np.ndarray) -> np.ndarray:
    """Compute the chance that two standard normals exceed `a` and `b`: Plackett's integral over the correlation."""
    nodes, weights = np.polynomial.legendre.leggauss(32)
    # In the angle: the integrand is smooth up to a correlation of one.
    angle = np.arcsin(correlation)[..., None] * (nodes + 1) / 2
    power = (a**2 + b**2)[..., None] / 2 - (a * b)[..., None] * np.sin(angle)
    height = np.exp(-power / np.cos(angle) ** 2) @ weights
    return ndtr(-a) * ndtr(-b) + np.arcsin(correlation) / 2 * height / (2 * np.pi)


def fit(bits: np.ndarray, *, least: float = 1e-4, floor: float = 1e-3) -> Copula:
    """Fit thresholds and correlations to rows of bits.

    Args:
        bits: `[rows, bits]`.
        least: of the share of rows in which a bit is on, or off.
        floor: of the eigenvalues of the correlations; pairs fitted one by one need not go together.
    """
    x = bits.astype(np.float32)
    share = np.clip(x.mean(0, dtype=np.float64), least, 1 - least)
    threshold = -ndtri(share)
    i, j = np.triu_indices(len(share), 1)
    wanted = (x.T @ x / len(x)).astype(np.float64)[i, j]
    low, high = np.full(len(i), -LIMIT), np.full(len(i), LIMIT)
    for _ in range(40):
        middle = (low + high) / 2
        over = both_above(threshold[i], threshold[j], middle) > wanted
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    correlation = np.eye(len(share))
    correlation[i, j] = correlation[j, i] = (low + high) / 2
    still = (x == x[:1]).all(0)  # nothing is known of what a bit that never moved goes with
    correlation[still] = correlation[:, still] = 0.0
    values, vectors = np.linalg.eigh(correlation + np.diag(still.astype(float)))
    correlation = (vectors * np.maximum(values, floor)) @ vectors.T
    scale = np.sqrt(np.diag(correlation))
    return Copula(threshold, np.linalg.cholesky(correlation / np.outer(scale, scale)))


def log_likelihood(copula: Copula, bits: np.ndarray, *, draws: int, seed: int) -> np.ndarray:
    """Estimate the log likelihood of rows, `[rows]`: the log of an unbiased mean over `draws`, so low by its noise."""
    rng, (threshold, factor), out = np.random.default_rng(seed), copula, []
    for start in range(0, len(bits), 1024):
        on = bits[start : start + 1024, :, None] > 0
        latent = np.zeros((on.shape[1], len(on), draws))
        total = np.zeros((len(on), draws))
        for at in range(on.shape[1]):
            mean = np.tensordot(factor[at, :at], latent[:at], axes=1) if at else 0.0
            cut = (threshold[at] - mean) / factor[at, at]
            # On: above the cut, and by symmetry below its negative; off: below it.
            sign = np.where(on[:, at], -1.0, 1.0)
            chance = np.clip(ndtr(sign * cut), 1e-300, 1.0)
            total += np.log(chance)
            latent[at] = sign * np.clip(ndtri(chance * rng.random(total.shape)), -38, 8)
        top = total.max(1)
        out.append(top + np.log(np.exp(total - top[:, None]).mean(1)))
    return np.concatenate(out)
