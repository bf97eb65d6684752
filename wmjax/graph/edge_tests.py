"""One sender's memory and one receiver's next value: the regression behind each edge, see `wmjax.graph.support`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

FLOOR_SHARE = 0.01
RIDGE = 1e-9
LOOKS = 5
"""Times that each channel's children are asked for, at most."""


@dataclass(frozen=True, kw_only=True)
class SupportConfig:
    """How edges are tested and chosen.

    Attributes:
        rate: false discoveries tolerated among the edges chosen into the target, and among all others that are chosen.
        decays: memories tried, as the share kept a step.
        shapes: Hill exponents tried beside a straight line.
        halves: half-saturations tried, as multiples of a channel's median memory.
        components: principal components of the family that stand for another channel's free curve.
        own_lags: lags of the receiver itself.
        common: guard against a demand that moves all channels of a shop.
        agreement: the least first-stage t value at which the other channels' moves are taken to tell of a demand.
        child: the least t value at which a channel may be driven by the sender, and does not stand for the demand.
        periods: take out what all shops share at a time.
        margin: how far above its floor, in residual standard deviations, a receiver must be expected to be.
        all_clear: with `common`, leave out times at which any channel is at its floor or would be expected below it.
        draws: bootstrap draws of the shops behind `stability`.
    """

    rate: float = 0.1
    decays: tuple[float, ...] = (0.3, 0.5, 0.7)
    shapes: tuple[float, ...] = (1.5, 2.5)
    halves: tuple[float, ...] = (0.6, 1.2)
    components: int = 10
    own_lags: int = 2
    common: bool = True
    agreement: float = 1.0
    child: float = 2.0
    periods: bool = True
    margin: float = 2.0
    all_clear: bool = False
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


class Design(NamedTuple):
    """One receiver's regression, shop and time means taken out over the rows that count.

    Attributes:
        outcome, columns: what is explained `[rows]`, and own lags, every other node's, own curves `[columns, rows]`.
        owner: the node that each column stands for, -1 for the receiver itself.
        is_move: whether it is that node's value at t + 1.
        may_hold: whether others' tests may hold it fixed: all but the target's move, which tells of every channel.
        family: every sender's memories `[nodes, family, rows]`.
        gram, onto: products of the columns with each other and with the outcome.
        across, size: products of the memories with the columns, and with themselves.
    """

    outcome: np.ndarray
    columns: np.ndarray
    owner: np.ndarray
    is_move: np.ndarray
    may_hold: np.ndarray
    family: np.ndarray
    gram: np.ndarray
    onto: np.ndarray
    across: np.ndarray
    size: np.ndarray


class ShopPanel:
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
        self.clear = np.ones((self.shops, len(self.now)), bool)
        if cfg.common and cfg.all_clear:
            self.clear = np.all([self._height(*self._explained(k)[:2]) > 0 for k in range(self.nodes - 1)], axis=0)
        self.designs = [self._design(j) for j in range(self.nodes)]

    def _free(self) -> Float[np.ndarray, "nodes columns shops times"]:
        """Lay out what stands for each node in others' tests: its curves and, for a channel, its move to t + 1."""
        parts = [np.stack([_components(f, self.cfg.components) for f in self.family])]
        self.curves = parts[0].shape[1]
        if self.cfg.common:
            channel = (np.arange(self.nodes) < self.nodes - 1)[:, None, None]
            moves = [self.values[:, self.now + lead].transpose(2, 0, 1) * channel for lead in (0, 1)]
            parts.append(np.stack(moves, 1))
        return np.concatenate(parts, 1)

    def _explained(self, j: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lay out receiver j's next value, its own lags and what others may explain of it, and its own curves."""
        outcome = self.values[:, self.now + 1, j]
        lags = np.stack([self.values[:, self.now - lag, j] for lag in range(self.cfg.own_lags)])
        others = np.delete(self.free, j, 0).reshape(-1, *outcome.shape)
        return outcome, np.concatenate([lags, others]), self.free[j, : self.curves]

    def _design(self, j: int) -> Design:
        """Lay out receiver j's regression over the rows in which it stands clear of its floor."""
        outcome, columns, own = self._explained(j)
        rows = self.clear & (self._height(outcome, columns) > self.cfg.margin)
        columns = np.concatenate([columns, own])
        # A regression of as many columns as rows explains everything and says nothing.
        rows &= rows.sum() > len(columns) + sum(rows.shape)
        lags, each, owner = self.cfg.own_lags, self.free.shape[1], np.full(len(columns), -1)
        owner[lags : len(columns) - len(own)] = np.repeat(np.delete(np.arange(self.nodes), j), each)
        is_move = np.zeros(len(columns), bool)
        is_move[lags + each - 1 : len(columns) - len(own) : each] = self.cfg.common
        target = self.nodes - 1
        if self.cfg.common and j != target:
            columns = np.concatenate([columns, self.values[None, :, self.now + 1, target]])
            owner, is_move = np.append(owner, target), np.append(is_move, True)
        may_hold = ~(is_move & (owner == target))
        clean = _within_both if self.cfg.periods else _within
        within, outcome = clean(columns, rows), clean(outcome[None], rows)[0]
        family = clean(self.family.reshape(-1, *rows.shape), rows).reshape(self.nodes, -1, rows.size)
        gram = within @ within.T
        return Design(
            outcome=outcome,
            columns=within,
            owner=owner,
            is_move=is_move,
            may_hold=may_hold,
            family=family,
            gram=gram + _ridge(gram),
            onto=within @ outcome,
            across=family @ within.T,
            size=np.sum(family**2, axis=2),
        )

    def _height(
        self, outcome: Float[np.ndarray, "shops times"], columns: Float[np.ndarray, "columns shops times"]
    ) -> Float[np.ndarray, "shops times"]:
        """How far above its floor a receiver was expected, in residual sd: -inf if it stands there, inf without one."""
        floor = outcome.min()
        rows = outcome > floor
        if (~rows).mean() < FLOOR_SHARE or not rows.any():
            return np.full(rows.shape, np.inf)
        if rows.sum() <= len(columns):
            return np.full(rows.shape, -np.inf)
        near, left = _within(columns, rows), _within(outcome[None], rows)[0]
        gram = near @ near.T
        slope = np.linalg.solve(gram + _ridge(gram), near @ left)
        noise = np.sqrt(np.sum((left - slope @ near) ** 2) / max(rows.sum(), 1))
        count = np.maximum(rows.sum(1), 1)
        level, centre = (outcome * rows).sum(1) / count, (columns * rows).sum(2) / count
        expected = level[:, None] + np.tensordot(slope, columns - centre[:, :, None], 1)
        return np.where(rows, (expected - floor) / max(float(noise), 1e-12), -np.inf)

    def gains(self, j: int) -> Float[np.ndarray, "nodes family"]:
        """Compute the t value, as if rows were independent, of every member of every sender's family."""
        d = self.designs[j]
        found = np.zeros(d.family.shape[:2])
        for i in range(self.nodes):
            if i == j:
                continue
            fixed = d.may_hold & (d.owner != i)
            own, onto = d.across[i][:, fixed], d.onto[fixed]
            slopes = np.linalg.solve(d.gram[np.ix_(fixed, fixed)], np.column_stack([own.T, onto]))
            size = d.size[i] - np.sum(own * slopes[:, :-1].T, axis=1)
            cross = d.family[i] @ d.outcome - own @ slopes[:, -1]
            noise = np.sqrt(max(d.outcome @ d.outcome - onto @ slopes[:, -1], 1e-12) / len(d.outcome))
            found[i] = np.divide(cross, noise * np.sqrt(np.abs(size)), out=np.zeros_like(cross), where=size > 1e-6)
        return found

    def children(self, best: np.ndarray) -> Bool[np.ndarray, "nodes nodes"]:
        """Mark the channels that each node may drive; who was marked at one look does not stand for demand at the next.

        They are told from the shops that they are asked of, and used on the others.
        """
        found = np.zeros((self.nodes, self.nodes), bool)
        for _ in range(LOOKS if self.cfg.common else 0):
            tested = [self.scores(j, best, found) for j in range(self.nodes - 1)]
            total, noise = (np.stack([one[part] for one in tested], 1) for part in (0, 1))
            spread = np.sqrt(np.sum(noise**2, axis=2))
            before, found = found, np.zeros_like(found)
            found[:, :-1] = np.sum(total, axis=2) > self.cfg.child * np.maximum(spread, 1e-12)
            if (found == before).all():
                break
        return found

    def scores(self, j: int, best: np.ndarray, children: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Add up, shop by shop, residual of the sender's memory times residual of the receiver.

        Args:
            j: the receiver.
            best: the member of the family that stands for each sender.
            children: whom a sender, a row, may drive.

        Returns:
            The sums `[nodes, shops]`, the same without the effect (their noise), and the effects `[nodes]`.
        """
        d = self.designs[j]
        found, noise = np.zeros((self.nodes, self.shops)), np.zeros((self.nodes, self.shops))
        slope = np.zeros(self.nodes)
        # Time means are taken over these shops alone, and take their share of the noise with them.
        share = np.sqrt(self.shops / (self.shops - 1)) if self.cfg.periods else 1.0
        for i in range(self.nodes):
            if i == j:
                continue
            others = d.may_hold & (d.owner != i)
            tested = None
            if self.cfg.common:
                # The sender's own move tells of the demand too, and of the sender: an instrument like its children's.
                mine = d.owner == i
                moves = np.flatnonzero(d.is_move & ((d.owner < self.nodes - 1) | mine))
                driven = children[i, d.owner[moves]] | mine[moves]
                # Where those that are left do not follow the demand, a child that was none may.
                marks = (driven, mine[moves]) if (driven & ~mine[moves]).any() else (driven,)
                tested = self._instrumented(d, i, int(best[i]), others & ~d.is_move, moves, marks)
            if tested is None:
                tested = self._held_fixed(d, i, int(best[i]), others)
            if tested is not None:
                found[i], noise[i], slope[i] = tested[0], share * tested[1], tested[2]
        return found, noise, slope

    def _by_shop(self, products: np.ndarray) -> np.ndarray:
        return products.reshape(self.shops, -1).sum(1)

    def _held_fixed(
        self, d: Design, i: int, member: int, fixed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float] | None:
        """Test one sender given the columns `fixed`: sums by shop, their noise, the effect; None without spread."""
        both = np.column_stack([d.across[i, member, fixed], d.onto[fixed]])
        slopes = np.linalg.solve(d.gram[np.ix_(fixed, fixed)], both)
        own, left = np.stack([d.family[i, member], d.outcome]) - slopes.T @ d.columns[fixed]
        size = own @ own
        if size < 1e-6:
            return None
        slope = own @ left / size
        own = own / np.sqrt(size)
        return self._by_shop(own * left), self._by_shop(own * (left - slope * np.sqrt(size) * own)), slope

    def _instrumented(
        self, d: Design, i: int, member: int, fixed: np.ndarray, moves: np.ndarray, marks: tuple[np.ndarray, ...]
    ) -> tuple[np.ndarray, np.ndarray, float] | None:
        """Test one sender with the demand taken out by two-stage least squares; None where there is no demand to see.

        With sender h, receiver x, one half's moves m and the other's z, all given `fixed`, the instruments (h, z) for
        the regressors (h, m) leave x to one combination of h and z that is orthogonal to m:

            q = h - (h'm / z'm) (z - h z'h / h'h),     w = q'x / q'h

        `marks` are the moves that belong in z alone, by one guess after another until a demand is seen.
        """
        if len(moves) < 2:
            return None
        onto = np.column_stack([d.across[i, member, fixed], d.onto[fixed], d.gram[np.ix_(fixed, moves)]])
        slopes = np.linalg.solve(d.gram[np.ix_(fixed, fixed)], onto)
        own, left, *moved = np.vstack([d.family[i, member], d.outcome, d.columns[moves]]) - slopes.T @ d.columns[fixed]
        size = own @ own
        if size < 1e-6:
            return None
        moved = np.stack(moved)
        beyond = moved - np.outer(moved @ own / size, own)
        # All channels count alike, whatever their units.
        weight = 1 / np.sqrt(np.maximum(np.sum(beyond**2, axis=1), 1e-12))
        for child in marks:
            if tested := self._both_ways(own, left, moved * weight[:, None], beyond * weight[:, None], child):
                return tested
        return None

    def _both_ways(
        self, own: np.ndarray, left: np.ndarray, moved: np.ndarray, beyond: np.ndarray, child: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float] | None:
        """Let each half of the moves that are no child's stand for the demand; None where none follows one.

        Args:
            own, left: the sender's memory and the receiver, `[rows]`, and `moved` the moves `[moves, rows]`, all given
                what is held fixed; `beyond` the moves given the sender too.
        """
        size, tests, strengths = own @ own, [], []
        for half in _halves(child):
            demand, ours, others = moved[half].sum(0), beyond[half].sum(0), beyond[~half]
            among = others @ others.T
            instrument = np.linalg.solve(among + _ridge(among), others @ ours) @ others
            agreed = self._by_shop(instrument * ours)
            # Around their mean: where the shops agree well, the mean is most of every one of them.
            spread = np.sqrt(self.shops) * agreed.std(ddof=1)
            if agreed.sum() <= self.cfg.agreement * spread:
                continue
            # A half that hardly follows the demand says little, and passes now and then by luck.
            strengths.append((agreed.sum() / spread) ** 2)
            q = own - (own @ demand) / (instrument @ demand) * instrument
            w = q @ left / (q @ own)
            rest = left - (instrument @ (left - w * own)) / (instrument @ demand) * demand
            q = q * np.sqrt(size) / (q @ own)
            tests.append((self._by_shop(q * rest), self._by_shop(q * (rest - w * own)), w))
        if not tests:
            return None
        found, noise, slope = (np.average(part, axis=0, weights=strengths) for part in zip(*tests, strict=True))
        return found, noise, float(slope)


def _ridge(gram: np.ndarray) -> np.ndarray:
    """Give what keeps a gram matrix of near copies, or of nothing, invertible."""
    return (RIDGE * np.trace(gram) / len(gram) or 1.0) * np.eye(len(gram))


def _halves(child: Bool[np.ndarray, " moves"]) -> list[np.ndarray]:
    """Deal the moves that may stand for the demand to two halves, all others being the instruments of either."""
    free = np.flatnonzero(~child)
    return [np.isin(np.arange(len(child)), free[side::2]) for side in (0, 1) if len(free[side::2])]


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


def _within_both(
    columns: Float[np.ndarray, "columns shops times"], rows: Bool[np.ndarray, "shops times"]
) -> np.ndarray:
    """Take shops' and times' means over the rows kept out of every column: `[columns, shops * times]`.

    In turns, which is exact at once where all rows are kept and converges fast where most are.
    """
    left = _within(columns, rows).reshape(columns.shape)
    count = np.maximum(rows.sum(0), 1)
    for _ in range(1 if rows.all() else 8):
        left = (left - (left.sum(1) / count)[:, None]) * rows
        left = _within(left, rows).reshape(columns.shape)
    return left.reshape(len(columns), -1)
