"""Joint overlap: whether actions were seen together at the values that a plan gives them, and among like rows.

The overlap of one action is judged by a regression on all else, in which two actions that each vary may pass at a
combination that a table holds three times. Here combinations are counted, on the rows given, which are the train rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from wmjax.evaluate.overlap import BINS, OverlapConfig

CELLS = 5
"""Runs of values, of a fifth of the rows each where no value repeats, in which those of a real action count as near."""
OUTSIDE = CELLS
"""The cell of values that no row has; it holds no rows."""
STRATA, NEAR = 10, 5
"""Equal parts of the rows by their propensity, and how many of them, the nearest ones, are near a row."""
LEAST = 10
"""Rows that a combination needs, however small the table: of ten, a mean is known to a third of a row's deviation."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Together:
    """Combinations of actions as they were seen.

    Attributes:
        binary: [actions], whether an action takes 0 and 1 only.
        settled: [actions], whether it is a function of the features, and so is asked of no more than they are.
        low, high: [actions], the least and largest value seen, and as much around them as counts as equal.
        edges: [actions, CELLS - 1], of a real action's cells; infinite where there are fewer.
        patterns: [patterns, actions], the combinations of cells that were seen.
        counts: [patterns], rows of each.
        weights: [actions, columns], of the columns in each action's propensity, other actions left out.
        cuts: [actions, STRATA - 1], of that propensity, between its strata.
        strata: [actions, actions, cells, cells, STRATA + 1]: rows of the first action in a cell and the second in
            another whose propensity of the first lies in a stratum below this one.
        cfg: what counts as overlap.
    """

    binary: Bool[np.ndarray, " actions"]
    settled: Bool[np.ndarray, " actions"]
    low: Float[np.ndarray, " actions"]
    high: Float[np.ndarray, " actions"]
    edges: Float[np.ndarray, "actions edges"]
    patterns: Int[np.ndarray, "patterns actions"]
    counts: Int[np.ndarray, " patterns"]
    weights: Float[np.ndarray, "actions columns"]
    cuts: Float[np.ndarray, "actions cuts"]
    strata: Int[np.ndarray, "actions actions cells cells strata"]
    cfg: OverlapConfig

    @property
    def rows(self) -> int:
        return int(self.counts.sum())

    @cached_property
    def shares(self) -> Float[np.ndarray, "actions cells"]:
        """Share of the rows in each cell of each action."""
        found = [np.bincount(codes, self.counts, OUTSIDE + 1) for codes in self.patterns.T]
        return np.array(found) / max(self.rows, 1)

    def cells(self, values: Shaped[np.ndarray, "rows actions"]) -> Int[np.ndarray, "rows actions"]:
        """Find each value's cell: that of a binary action is its value."""
        found = np.empty(values.shape, np.int64)
        for at, own in enumerate(values.T):
            inside = np.isin(own, (0, 1)) if self.binary[at] else (own >= self.low[at]) & (own <= self.high[at])
            cell = own.astype(np.int64) if self.binary[at] else np.searchsorted(self.edges[at], own, side="left")
            found[:, at] = np.where(inside, cell, OUTSIDE)
        return found

    def strata_of(self, features: Float[np.ndarray, "rows columns"]) -> Int[np.ndarray, "rows actions"]:
        """Find each row's stratum of each action's propensity."""
        scores = features @ self.weights.T
        return np.stack([np.searchsorted(c, s, side="right") for c, s in zip(self.cuts, scores.T, strict=True)], axis=1)

    def least(self, shares: Float[np.ndarray, "rows together"]) -> Float[np.ndarray, " rows"]:
        """Compute the rows that a combination needs, from its values' overall shares.

            max(LEAST, min(least / BINS, rare * product of the shares) * rows)

        As of one value: a share of `least` of the like rows, which are one bin in `BINS`; of what is rare, the part
        `rare` of what independent actions would have.
        """
        share = np.minimum(self.cfg.least / BINS, self.cfg.rare * shares.prod(axis=1))
        return np.maximum(LEAST, share * self.rows)

    def apart(
        self,
        planned: Shaped[np.ndarray, "rows actions"],
        moved: Bool[np.ndarray, "rows actions"],
        strata: Int[np.ndarray, "rows actions"],
    ) -> Bool[np.ndarray, "rows actions"]:
        """Mark the moved actions of each row that too few rows had at its values together.

        Asked of all moved actions at once, and of every two of which one is moved and the other is moved too or is
        binary (a real one that is left as it was is one of the features, as all else that the plan leaves). Of two, a
        quarter of the rows needed must be near in the propensity of each that is moved.

        Args:
            planned: actions under the plan.
            moved: the cells that it changes.
            strata: of the rows, by `strata_of`.
        """
        cells, moved, free = self.cells(planned), moved & ~self.settled, self.binary & ~self.settled
        found = self._all_at_once(cells, moved)
        for i in np.flatnonzero(moved.any(0)):
            for j in range(moved.shape[1]):
                # Two that are both moved are asked of once, the lower one first.
                asked = moved[:, i] & ((moved[:, j] & (j > i)) | (~moved[:, j] & free[j] & (j != i)))
                if not asked.any():
                    continue
                few = self._few(cells[asked], strata[asked], moved[asked], (int(i), j))
                found[asked, i] |= few
                found[asked, j] |= few & moved[asked, j]
        return found

    def _all_at_once(self, cells: np.ndarray, moved: np.ndarray) -> np.ndarray:
        found = np.zeros(moved.shape, bool)
        kinds, kind = np.unique(moved, axis=0, return_inverse=True)
        for at, chosen in enumerate(kinds):
            if chosen.sum() < 3:  # two are asked of as such
                continue
            rows = kind.ravel() == at
            own = cells[np.ix_(rows, chosen)]
            shares = self.shares[np.flatnonzero(chosen), own]
            few = self._count(tuple(np.flatnonzero(chosen).tolist()), own) < self.least(shares)
            found[np.ix_(rows, chosen)] = few[:, None]
        return found

    def _count(self, chosen: tuple[int, ...], cells: np.ndarray) -> np.ndarray:
        """Count the rows that have the cells of these actions."""
        if chosen not in self._counted:
            names, where = np.unique(_names(self.patterns[:, chosen]), return_inverse=True)
            self._counted[chosen] = names, np.bincount(where, self.counts)
        names, counts = self._counted[chosen]
        wanted = _names(cells)
        at = np.minimum(np.searchsorted(names, wanted), len(names) - 1)
        return np.where(names[at] == wanted, counts[at], 0)

    @cached_property
    def _counted(self) -> dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]]:
        return {}

    def _few(self, cells: np.ndarray, strata: np.ndarray, moved: np.ndarray, pair: tuple[int, int]) -> np.ndarray:
        i, j = pair
        need = self.least(np.stack([self.shares[i, cells[:, i]], self.shares[j, cells[:, j]]], axis=1))
        few = self.strata[i, j, cells[:, i], cells[:, j], STRATA] < need
        for a, b in ((i, j), (j, i)):
            below = self.strata[a, b, cells[:, a], cells[:, b]]
            first = np.clip(strata[:, a] - NEAR // 2, 0, STRATA - NEAR)[:, None]
            near = np.take_along_axis(below, first + NEAR, 1) - np.take_along_axis(below, first, 1)
            few |= moved[:, a] & (near[:, 0] < need / 4)
        return few

    def to_json(self) -> dict[str, Any]:
        """Turn the record into what JSON can hold."""
        found = {f: getattr(self, f) for f in self.__dataclass_fields__}
        # JSON knows no infinity.
        found["edges"] = [[float(x) for x in row if np.isfinite(x)] for row in self.edges]
        found["cfg"] = asdict(self.cfg)
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in found.items()}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Together:
        """Undo `to_json`."""
        whole = {"binary": bool, "settled": bool, "patterns": np.int64, "counts": np.int64, "strata": np.int64}
        arrays = {n: np.asarray(v, whole.get(n, np.float64)) for n, v in plain.items() if n not in ("edges", "cfg")}
        edges = np.stack([_padded(row) for row in plain["edges"]])
        return cls(**arrays, edges=edges, cfg=OverlapConfig(**plain["cfg"]))


def fit(
    actions: Shaped[np.ndarray, "rows actions"],
    features: Float[np.ndarray, "rows columns"],
    weights: Float[np.ndarray, "actions columns"],
    *,
    kinds: Sequence[str],
    widths: Sequence[float],
    settled: Sequence[bool],
    cfg: OverlapConfig | None = None,
) -> Together:
    """Count the combinations of actions on train rows.

    Args:
        actions: of the rows.
        features: what was known before them.
        weights: of the features in each action's propensity.
        kinds: of the actions' columns; all but `"binary"` are taken as numbers.
        widths: a real action's values count as equal within this distance.
        settled: whether an action is a function of the features.
        cfg: what counts as overlap.
    """
    binary = np.array([kind == "binary" for kind in kinds], bool)
    values = actions.astype(np.float64)
    inner = np.linspace(0, 1, CELLS + 1)[1:-1]
    # Values that repeat a lot are an edge each, and with it a cell: a channel that is mostly off has a cell of 0.
    edges = np.stack([_padded(np.unique(np.quantile(own, inner, method="inverted_cdf"))) for own in values.T])
    scores = features @ weights.T
    cuts = np.quantile(scores, np.linspace(0, 1, STRATA + 1)[1:-1], axis=0).T
    count = len(binary)
    blank = Together(
        binary=binary,
        settled=np.array(settled, bool),
        low=values.min(0) - widths,
        high=values.max(0) + widths,
        edges=edges,
        patterns=np.zeros((0, count), np.int64),
        counts=np.zeros(0, np.int64),
        weights=weights,
        cuts=cuts,
        strata=np.zeros((count, count, OUTSIDE + 1, OUTSIDE + 1, STRATA + 1), np.int64),
        cfg=cfg or OverlapConfig(),
    )
    cells, own = blank.cells(values), blank.strata_of(features)
    for i in range(count):
        for j in range(count):
            at = (cells[:, i] * (OUTSIDE + 1) + cells[:, j]) * STRATA + own[:, i]
            found = np.bincount(at, minlength=(OUTSIDE + 1) ** 2 * STRATA).reshape(OUTSIDE + 1, OUTSIDE + 1, STRATA)
            blank.strata[i, j, ..., 1:] = found.cumsum(-1)
    patterns, counts = np.unique(cells, axis=0, return_counts=True)
    return Together(**{**vars(blank), "patterns": patterns, "counts": counts})


def _names(cells: np.ndarray) -> np.ndarray:
    """Name each row's combination of cells by one number, their sum modulo 2^64, each times an odd number by chance.

    Two of the combinations that a table holds, at most as many as its rows, share one with a probability below 1e-9.
    """
    factors = np.random.default_rng(0).integers(0, 2**63, cells.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return (cells.astype(np.uint64) * factors).sum(1, dtype=np.uint64)


def _padded(edges: Any) -> np.ndarray:
    return np.r_[edges, np.full(CELLS - 1 - len(edges), np.inf)].astype(np.float64)
