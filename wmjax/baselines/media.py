"""What a media world must earn its place beside: regressions on spend, with the same covariates and split.

`ols` is linear in spend. `adstock_hill` picks carry-over and half saturation of each channel from a grid by turns, and
fits ridge coefficients, not negative, on what comes out. Both know the geos' own levels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import nnls

THETAS = (0.0, 0.2, 0.4, 0.6, 0.8)
HALVES = (0.25, 0.5, 1.0, 2.0)
"""Half saturation, in multiples of a channel's typical spend."""
ROUNDS = 3
RIDGE = 1.0


class MediaTable(NamedTuple):
    """A panel for regressions: no scales are needed.

    spend: [units, time, channels]. covariates: [units, time, covariates]. outcome: [units, time]. train: bool [units,
    time], the observed rows that teach. carry: periods of carry-over.
    """

    spend: Float[np.ndarray, "units time channels"]
    covariates: Float[np.ndarray, "units time covariates"]
    outcome: Float[np.ndarray, "units time"]
    train: Bool[np.ndarray, "units time"]
    carry: int


class Regression(NamedTuple):
    """A fitted regression.

    beta: [channels], of the transformed spend. theta, half: [channels]; half is infinite in the linear one. base:
    [units, time], the prediction without media. error: [channels], standard error of beta (linear one; else NaN).
    carry: periods.
    """

    beta: Float[np.ndarray, " channels"]
    theta: Float[np.ndarray, " channels"]
    half: Float[np.ndarray, " channels"]
    base: Float[np.ndarray, "units time"]
    error: Float[np.ndarray, " channels"]
    carry: int

    def respond(self, spend: Float[np.ndarray, "units time channels"]) -> Float[np.ndarray, "units time"]:
        """Expect the outcome under another plan."""
        return self.base + transformed(spend, self.theta, self.half, self.carry) @ self.beta


def adstock(spend: Float[np.ndarray, "units time"], theta: float, carry: int) -> Float[np.ndarray, "units time"]:
    """Spread spend over its own and the next `carry` periods by `theta^l`; weights sum to 1."""
    weights = theta ** np.arange(carry + 1)
    padded = np.pad(spend, ((0, 0), (carry, 0)))
    parts = [w * padded[:, carry - lag : padded.shape[1] - lag] for lag, w in enumerate(weights)]
    return np.sum(parts, axis=0) / weights.sum()


def transformed(spend: np.ndarray, theta: np.ndarray, half: np.ndarray, carry: int) -> np.ndarray:
    """Carry over and saturate, `x / (x + half)`; an infinite half leaves spend as it is."""
    columns = []
    for k in range(spend.shape[2]):
        x = adstock(spend[..., k], theta[k], carry) if theta[k] > 0 else spend[..., k]
        columns.append(x if np.isinf(half[k]) else x / (x + half[k]))
    return np.stack(columns, axis=-1).astype(np.float64)


def _within(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Take each unit's mean over its train rows off."""
    rows = train[..., None]
    mean = (values * rows).sum(1) / np.maximum(rows.sum(1), 1)
    return values - mean[:, None]


def ols(table: MediaTable, *, controls: bool = True) -> Regression:
    """Regress the outcome on spend and, with `controls`, covariates; unit means are taken off."""
    channels = table.spend.shape[2]
    theta, half = np.zeros(channels), np.full(channels, np.inf)
    x = _within(table.covariates[..., : None if controls else 0].astype(np.float64), table.train)
    media = _within(table.spend.astype(np.float64), table.train)
    y = _within(table.outcome[..., None].astype(np.float64), table.train)[..., 0]
    columns = np.concatenate([media, x], -1)[table.train]
    gram = np.linalg.pinv(columns.T @ columns)
    beta = gram @ columns.T @ y[table.train]
    left = y[table.train] - columns @ beta
    freedom = max(len(left) - columns.shape[1] - len(table.spend), 1)
    error = np.sqrt(np.maximum(np.diag(gram)[:channels], 0) * (left @ left) / freedom)
    return _finish(table, beta[:channels], theta, half, x @ beta[channels:], error)


def adstock_hill(table: MediaTable) -> Regression:
    """Pick carry-over and half saturation channel by channel, several rounds, by the train error; see the module."""
    channels = table.spend.shape[2]
    rows = table.train
    x = _within(table.covariates.astype(np.float64), rows)
    controls = x[rows]
    base, _ = np.linalg.qr(controls) if controls.shape[1] else (np.zeros((len(controls), 0)), None)
    clear = lambda v: v - base @ (base.T @ v)  # noqa: E731
    y = clear(_within(table.outcome[..., None].astype(np.float64), rows)[rows][:, 0])
    typical = np.array([s[s > 0].mean() if (s > 0).any() else 1.0 for s in np.moveaxis(table.spend[rows], -1, 0)])

    def column(k: int, theta: float, half: float) -> np.ndarray:
        one = transformed(table.spend[..., k : k + 1], np.array([theta]), np.array([half]), table.carry)
        return clear(_within(one, rows)[rows][:, 0])

    theta, half = np.full(channels, 0.4), typical.copy()
    columns = np.stack([column(k, theta[k], half[k]) for k in range(channels)], -1)

    def solve(columns: np.ndarray) -> tuple[np.ndarray, float]:
        scale = np.maximum(columns.std(0), 1e-12)
        design = np.concatenate([columns / scale, np.sqrt(RIDGE) * np.eye(channels)])
        beta, norm = nnls(design, np.concatenate([y, np.zeros(channels)]))
        return beta / scale, norm

    for _ in range(ROUNDS):
        for k in range(channels):
            found = []
            for th in THETAS:
                for multiple in HALVES:
                    tried = columns.copy()
                    tried[:, k] = column(k, th, multiple * typical[k])
                    found.append((solve(tried)[1], th, multiple * typical[k], tried))
            _, theta[k], half[k], columns = min(found, key=lambda f: f[0])
    beta, _ = solve(columns)
    media = _within(transformed(table.spend, theta, half, table.carry), rows)
    left = _within(table.outcome[..., None].astype(np.float64), rows)[..., 0] - media @ beta
    gamma = np.linalg.lstsq(controls, left[rows], rcond=None)[0]
    return _finish(table, beta, theta, half, x @ gamma, np.full(channels, np.nan))


def _finish(
    table: MediaTable, beta: np.ndarray, theta: np.ndarray, half: np.ndarray, controls: np.ndarray, error: np.ndarray
) -> Regression:
    """Put each unit's level back: the mean of the train rows."""
    media = transformed(table.spend, theta, half, table.carry) @ beta
    left = np.where(table.train, table.outcome - media - controls, 0).sum(1) / np.maximum(table.train.sum(1), 1)
    return Regression(beta, theta, half, left[:, None] + controls, error, table.carry)
