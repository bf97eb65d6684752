"""Which edges are there: one graph for all shops, chosen from data alone at a stated rate of false discoveries.

For every sender i and receiver j the next value of the receiver is regressed on the sender's saturated memory, with all
that could speak for it held fixed:

    x_j[t+1] = shop + own lags + sum_{k != i} (free curve of k's memory) + common shocks + w_ij H_i[t] + noise

- *Free curves.* Each other channel enters through the leading principal components of a whole family of memories
  (decays times saturations), so that a curve guessed wrongly for one channel does not surface as another's effect.
- *Common shocks.* A demand that moves all channels at once is held fixed by the other channels' values at t + 1. These
  also hear the senders, which can only shrink an effect towards or below zero: the one-sided test stays on its side.
  It takes several channels, and a demand that stands out from their own noise: with three of them, or with a faint
  demand, what is left of it looks like edges between channels.
- *H_i* is chosen from the family on one half of the shops, for the sender and not for the edge, and tested on the other
  half, both ways round (honest splitting).
- *Shops are the unit of luck.* Residuals are added up by shop, t = sum_r S_r / sqrt(sum_r S_r^2), and referred to
  Student's t; media effects are taken to be non-negative, so tests are one-sided.
- Times at which a channel stands at its floor, or would be expected near it, tell of the floor and are left out.
- Benjamini and Hochberg choose among each receiver's senders at the rate asked for.

Computed once on the host in float64, because the memories of co-moving channels are almost the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

Matrix = Float[np.ndarray, "nodes nodes"]
FLOOR_SHARE = 0.01
RIDGE = 1e-9


@dataclass(frozen=True, kw_only=True)
class SupportConfig:
    """How edges are tested and chosen.

    Attributes:
        rate: false discoveries tolerated among the chosen senders of a receiver.
        decays: memories tried, as the share kept a step.
        shapes: Hill exponents tried beside a straight line.
        halves: half-saturations tried, as multiples of a channel's median memory.
        components: principal components of the family that stand for another channel's free curve.
        own_lags: lags of the receiver itself.
        common: hold the other channels' simultaneous values fixed, against a common demand.
        margin: how far above its floor, in residual standard deviations, a receiver must be expected to be.
        draws: bootstrap draws of the shops behind `stability`.
    """

    rate: float = 0.1
    decays: tuple[float, ...] = (0.3, 0.5, 0.7)
    shapes: tuple[float, ...] = (1.5, 2.5)
    halves: tuple[float, ...] = (0.6, 1.2)
    components: int = 7
    own_lags: int = 2
    common: bool = True
    margin: float = 2.0
    draws: int = 200

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"rate is {self.rate}, must be between 0 and 1")
        for name in ("components", "own_lags"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if not self.decays or any(not 0 <= d < 1 for d in self.decays):
            raise ValueError(f"decays are {self.decays}, each must be at least 0 and below 1")
        if any(s <= 0 for s in (*self.shapes, *self.halves)):
            raise ValueError(f"shapes {self.shapes} and halves {self.halves} must be positive")


class Support(NamedTuple):
    """What the data say of every edge, row sends, column receives; the diagonal is 0 (1 for p and q values).

    Attributes:
        graph: 0/1, the edges chosen.
        t: the evidence, which also ranks the edges.
        p_value, q_value: one-sided, and the smallest rate at which the edge would be chosen in its column.
        stability: share of the bootstrap draws of shops in which the edge is chosen.
        effect: mean rise of the receiver, in its own units, by one standard deviation of the sender's memory.
    """

    graph: Matrix
    t: Matrix
    p_value: Matrix
    q_value: Matrix
    stability: Matrix
    effect: Matrix


def select(rng: np.random.Generator, values: Float[np.ndarray, "shops times nodes"], *, cfg: SupportConfig) -> Support:
    """Test every edge and choose the support.

    Args:
        rng: deals the shops to two halves and draws the bootstrap.
        values: the shops' series in their own units, the target last; not standardised, because zero means silence.
        cfg: how to test.

    Raises:
        ValueError: with fewer than 8 shops, which leave no spread to judge by.
    """
    shops, _, nodes = values.shape
    if shops < 8:
        raise ValueError(f"{shops} shops: at least 8 are needed to tell an effect from luck")
    values = np.asarray(values, np.float64)
    half = np.zeros(shops, bool)
    half[rng.permutation(shops)[: shops // 2]] = True
    panels = [_Panel(values[own], cfg) for own in (half, ~half)]
    gains = [[panel.gains(j) for j in range(nodes)] for panel in panels]
    scores, noise = np.zeros((nodes, nodes, shops)), np.zeros((nodes, nodes, shops))
    effect = np.zeros((nodes, nodes))
    for test, (own, panel) in enumerate(zip((half, ~half), panels, strict=True)):
        # Only rises count: a fall is no evidence for a memory that is meant to help.
        best = np.sum(np.maximum(gains[1 - test], 0.0) ** 2, axis=0).argmax(-1)
        for j in range(nodes):
            scores[:, j, own], noise[:, j, own], slope = panel.scores(j, best)
            effect[:, j] += slope / 2
    off = ~np.eye(nodes, dtype=bool)
    t, p, q = _judge(scores, noise, np.ones(shops))
    weights = rng.multinomial(shops, np.full(shops, 1 / shops), cfg.draws).astype(np.float64)
    drawn = [_judge(scores, noise, w)[2] <= cfg.rate for w in weights]
    stability = np.mean(drawn, axis=0) if drawn else np.zeros_like(t)
    return Support((q <= cfg.rate).astype(np.float64), t, p, q, stability, effect * off)


def _judge(scores: np.ndarray, noise: np.ndarray, weights: np.ndarray) -> tuple[Matrix, Matrix, Matrix]:
    """Turn shops' scores and their noise into t, p and q values; the diagonal is 0, 1 and 1."""
    shops, off = scores.shape[-1], ~np.eye(len(scores), dtype=bool)
    spread = np.sqrt(shops / (shops - 1) * (noise**2 @ weights))
    t = np.divide(scores @ weights, spread, out=np.zeros_like(spread), where=off & (spread > 0))
    p = np.where(off, stats.t.sf(t, shops - 2), 1.0)
    return t, p, _q_values(p)


def _q_values(p: Matrix) -> Matrix:
    """Adjust each column's p values for its choice among senders (Benjamini and Hochberg, 1995); diagonal left out."""
    nodes = p.shape[0]
    q = np.ones_like(p)
    for j in range(nodes):
        senders = np.delete(np.arange(nodes), j)
        q[senders, j] = stats.false_discovery_control(p[senders, j])
    return q


def memories(
    values: Float[np.ndarray, "shops times"], *, cfg: SupportConfig
) -> Float[np.ndarray, "family shops times"]:
    """Lay out the family of one channel: every decay, straight and through every Hill curve."""
    heard = np.maximum(values, 0.0)
    family = []
    for decay in cfg.decays:
        memory = np.empty_like(heard)
        memory[:, 0] = heard[:, 0]
        for t in range(1, heard.shape[1]):
            memory[:, t] = decay * memory[:, t - 1] + (1 - decay) * heard[:, t]
        middle = max(float(np.median(memory)), 1e-6)
        family.append(memory)
        for shape in cfg.shapes:
            for half in cfg.halves:
                raised = (memory / (half * middle)) ** shape
                family.append(raised / (1 + raised))
    return np.stack(family)


class _Design(NamedTuple):
    """One receiver's regression, shop means taken out over the rows that count.

    Attributes:
        outcome, columns: what is explained `[rows]`, and own lags followed by every node's `[columns, rows]`.
        owner: the node that each column stands for, -1 for own lags.
        family: every sender's memories `[nodes, family, rows]`.
        gram, onto: products of the columns with each other and with the outcome.
        across, size: products of the memories with the columns, and with themselves.
    """

    outcome: np.ndarray
    columns: np.ndarray
    owner: np.ndarray
    family: np.ndarray
    gram: np.ndarray
    onto: np.ndarray
    across: np.ndarray
    size: np.ndarray


class _Panel:
    """One half of the shops, its columns laid out once: each receiver then takes what it needs."""

    def __init__(self, values: Float[np.ndarray, "shops times nodes"], cfg: SupportConfig) -> None:
        self.values, self.cfg = values, cfg
        self.shops, times, self.nodes = values.shape
        self.now = np.arange(cfg.own_lags - 1, times - 1)
        family = np.stack([memories(values[..., i], cfg=cfg)[:, :, self.now] for i in range(self.nodes)])
        family = family - family.mean((2, 3), keepdims=True)
        size = family.std((2, 3), keepdims=True)
        self.family = np.divide(family, size, out=np.zeros_like(family), where=size > 1e-9)
        self.free = self._free()
        self.designs = [self._design(j) for j in range(self.nodes)]

    def _free(self) -> Float[np.ndarray, "nodes columns shops times"]:
        """Lay out what stands for each node in others' tests: its curves and, for a channel, its move to t + 1."""
        parts = [np.stack([_components(f, self.cfg.components) for f in self.family])]
        if self.cfg.common:
            channel = (np.arange(self.nodes) < self.nodes - 1)[:, None, None]
            moves = [self.values[:, self.now + lead].transpose(2, 0, 1) * channel for lead in (0, 1)]
            parts.append(np.stack(moves, 1))
        return np.concatenate(parts, 1)

    def _design(self, j: int) -> _Design:
        """Lay out receiver j's regression over the rows in which it stands clear of its floor."""
        outcome = self.values[:, self.now + 1, j]
        lags = np.stack([self.values[:, self.now - lag, j] for lag in range(self.cfg.own_lags)])
        columns = np.concatenate([lags, self.free.reshape(-1, *outcome.shape)])
        owner = np.repeat(np.arange(-1, self.nodes), [len(lags), *[self.free.shape[1]] * self.nodes])
        rows = self._clear(outcome, columns[owner != j])
        within, outcome = _within(columns, rows), _within(outcome[None], rows)[0]
        family = _within(self.family.reshape(-1, *rows.shape), rows).reshape(self.nodes, -1, rows.size)
        gram = within @ within.T
        return _Design(
            outcome=outcome,
            columns=within,
            owner=owner,
            family=family,
            gram=gram + RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram)),
            onto=within @ outcome,
            across=family @ within.T,
            size=np.sum(family**2, axis=2),
        )

    def _clear(self, outcome: np.ndarray, columns: np.ndarray) -> Bool[np.ndarray, "shops times"]:
        """Mark rows whose receiver is off its floor and was expected to be; all rows where there is no floor."""
        floor = outcome.min()
        rows = outcome > floor
        if (~rows).mean() < FLOOR_SHARE:
            return np.ones_like(rows)
        near, left = _within(columns, rows), _within(outcome[None], rows)[0]
        gram = near @ near.T
        slope = np.linalg.solve(gram + RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram)), near @ left)
        noise = np.sqrt(np.sum((left - slope @ near) ** 2) / max(rows.sum(), 1))
        count = np.maximum(rows.sum(1), 1)
        level, centre = (outcome * rows).sum(1) / count, (columns * rows).sum(2) / count
        expected = level[:, None] + np.tensordot(slope, columns - centre[:, :, None], 1)
        return rows & (expected > floor + self.cfg.margin * noise)

    def gains(self, j: int) -> Float[np.ndarray, "nodes family"]:
        """Compute the t value, as if rows were independent, of every member of every sender's family."""
        d = self.designs[j]
        found = np.zeros(d.family.shape[:2])
        for i in range(self.nodes):
            if i == j:
                continue
            fixed = (d.owner != i) & (d.owner != j)
            own, onto = d.across[i][:, fixed], d.onto[fixed]
            slopes = np.linalg.solve(d.gram[np.ix_(fixed, fixed)], np.column_stack([own.T, onto]))
            size = d.size[i] - np.sum(own * slopes[:, :-1].T, axis=1)
            cross = d.family[i] @ d.outcome - own @ slopes[:, -1]
            noise = np.sqrt(max(d.outcome @ d.outcome - onto @ slopes[:, -1], 1e-12) / len(d.outcome))
            found[i] = np.divide(cross, noise * np.sqrt(np.abs(size)), out=np.zeros_like(cross), where=size > 1e-6)
        return found

    def scores(self, j: int, best: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Add up, shop by shop, residual of the sender's memory times residual of the receiver.

        Returns:
            The sums `[nodes, shops]`, the same without the effect (their noise), and the effects `[nodes]`.
        """
        d = self.designs[j]
        found, noise, slope = (
            np.zeros((self.nodes, self.shops)),
            np.zeros((self.nodes, self.shops)),
            np.zeros(self.nodes),
        )
        for i in range(self.nodes):
            if i == j:
                continue
            fixed = (d.owner != i) & (d.owner != j)
            both = np.column_stack([d.across[i, best[i], fixed], d.onto[fixed]])
            slopes = np.linalg.solve(d.gram[np.ix_(fixed, fixed)], both)
            own, left = np.stack([d.family[i, best[i]], d.outcome]) - slopes.T @ d.columns[fixed]
            size = own @ own
            if size < 1e-6:
                continue
            slope[i] = own @ left / size
            for into, residual in ((found, left), (noise, left - slope[i] * own)):
                into[i] = (own * residual / np.sqrt(size)).reshape(self.shops, -1).sum(1)
        return found, noise, slope


def _components(family: Float[np.ndarray, "family shops times"], count: int) -> np.ndarray:
    """Take the family's leading principal components within shops, each of unit size: `[components, shops, times]`."""
    flat = (family - family.mean(2, keepdims=True)).reshape(len(family), -1)
    values, vectors = np.linalg.eigh(flat @ flat.T)
    size = np.sqrt(np.maximum(values[::-1][:count], 0) / flat.shape[1])[:, None, None]
    parts = np.tensordot(vectors[:, ::-1][:, :count].T, family, 1)
    return np.divide(parts, size, out=np.zeros_like(parts), where=size > 1e-6)


def _within(columns: Float[np.ndarray, "columns shops times"], rows: Bool[np.ndarray, "shops times"]) -> np.ndarray:
    """Take each shop's mean over the rows kept out of every column; rows left out are 0: `[columns, shops * times]`."""
    count = np.maximum(rows.sum(1), 1)
    mean = (columns * rows).sum(2) / count
    return ((columns - mean[:, :, None]) * rows).reshape(len(columns), -1)
