"""Overlap: where rows under one value of an action have like rows under another, and why not where they have none.

An effect can be learnt only where both values occur among like rows (positivity). Everything here is fitted on the rows
that it is given, which are the train rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped
from scipy.special import expit

from wmjax.core.errors import UserError
from wmjax.core.visible import Visible
from wmjax.evaluate import metrics, propensity, rules
from wmjax.evaluate.propensity import LinearModel
from wmjax.evaluate.rules import Cell

BINS, GRID, FEW_VALUES, RULE_ROWS = 20, 201, 20, 10_000


@dataclass(frozen=True, kw_only=True)
class OverlapConfig:
    """What counts as overlap.

    Attributes:
        least: least share of like rows at a value (for a binary action: its propensity) for the value to be supported.
        rare: of a value that is rare overall, this part of its overall share will do, down to a tenth of `least`: a
            campaign on 2 % of the days, drawn by a coin, has overlap.
        window: a real action's values count as equal within this share of its standard deviation.
        exact: AUC (binary) or R2 (real) from which an action counts as determined by the columns.
        penalty: of the regressions, in rows.
        rows: rows fitted at most, drawn at random under `seed`, which also splits the rows for cross-fitting.
    """

    least: float = 0.02
    rare: float = 0.2
    window: float = 0.25
    exact: float = 0.999
    penalty: float = 1.0
    rows: int = 40_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, good in (
            ("least", self.least, 0 < self.least < 0.5),
            ("rare", self.rare, 0 < self.rare <= 1),
            ("window", self.window, self.window > 0),
            ("exact", self.exact, 0.5 < self.exact <= 1),
            ("penalty", self.penalty, self.penalty > 0),
            ("rows", self.rows, self.rows >= 10),
        ):
            if not good:
                raise ValueError(f"{name} is {value}, which is out of its range")


@dataclass(frozen=True, kw_only=True, eq=False)
class OverlapReport:
    """One action's overlap.

    Attributes:
        action: its name.
        binary: whether it takes 0 and 1 only.
        mean: of the action over the fitted rows; for a binary action its overall share.
        model: regression of the action on the columns: log-odds (binary) or expected value.
        score: cross-fitted AUC (binary; 0.5 is a coin) or R2 (real; 0 is a coin).
        share_outside: share of rows that do not support the action's typical contrast, see `typical_contrast`.
        ess: rows that count: Kish's size `(sum w)^2 / sum w^2` of the inverse-propensity weights over the rows that
            support the contrast (of a real action weighed are those within `width` of either value, and all count in
            proportion), as a number of rows of the whole table; 0 where the action is determined.
        deterministic: the action is a function of the columns, or all but. Nothing is then supported.
        reason: why not all rows are supported, in words; empty where they are.
        cells: one-sided cells of a binary action; rows in them support no contrast.
        edges: `[BINS - 1]` quantiles of a real action's expected value, which part rows into bins of like rows.
        like: `[BINS, GRID]` quantiles of a real action within each bin.
        width: a real action's values count as equal within this distance.
        cfg: what counted as overlap.
    """

    action: str
    binary: bool
    mean: float
    model: LinearModel
    score: float
    share_outside: float
    ess: float
    deterministic: bool
    reason: str
    cells: tuple[Cell, ...]
    edges: np.ndarray
    like: np.ndarray
    width: float
    cfg: OverlapConfig

    def propensity(self, features: Float[np.ndarray, "rows units"]) -> Float[np.ndarray, " rows"]:
        """Compute the probability that a binary action is 1.

        Raises:
            UserError: the action is not binary.
        """
        if not self.binary:
            raise UserError(f"{self.action} is not binary, so it has no propensity; ask `share_like` of a value")
        return expit(propensity.linear(self.model, features))

    def share_like(self, features: Float[np.ndarray, "rows units"], value: float | int) -> Float[np.ndarray, " rows"]:
        """Compute the share of each row's like rows at `value` of the action.

        Binary: the propensity of the value, 0 in a one-sided cell that never had it. Real: among train rows of like
        expected action (the same twentieth), the share within `width` of the value.
        """
        if not self.binary:
            return _share_by_bin(self, value)[
                np.searchsorted(self.edges, propensity.linear(self.model, features), side="right")
            ]
        if value not in (0, 1):
            return np.zeros(len(features))
        p = self.propensity(features)
        p = p if value == 1 else 1 - p
        for cell in self.cells:
            if cell.action != value:
                p = np.where(features[:, cell.column] == cell.at, 0.0, p)
        return p

    def supported(
        self, features: Float[np.ndarray, "rows units"], T0: float | int, T1: float | int
    ) -> Bool[np.ndarray, " rows"]:
        """Mark rows whose like was seen under both `T0` and `T1`, each in a share of `least(value)` at least."""
        if self.deterministic:
            return np.zeros(len(features), bool)
        return np.all([self.share_like(features, value) >= self.least(value) for value in (T0, T1)], axis=0)

    def least(self, value: float | int) -> float:
        """Compute the share of like rows from which a value is supported: `max(least / 10, min(least, rare * share))`.

        `share` is the value's overall share.
        """
        if self.binary:
            share = self.mean if value == 1 else 1 - self.mean
        else:
            share = float(_share_by_bin(self, value).mean())
        return max(0.1 * self.cfg.least, min(self.cfg.least, self.cfg.rare * share))

    def to_json(self) -> dict[str, Any]:
        """Turn the report into what JSON can hold."""
        plain = {f: getattr(self, f) for f in self.__dataclass_fields__}
        return plain | {
            "model": {"intercept": self.model.intercept, "coefficients": self.model.coefficients.tolist()},
            "score": None if np.isnan(self.score) else self.score,
            "cells": [cell._asdict() for cell in self.cells],
            "edges": self.edges.tolist(),
            "like": self.like.tolist(),
            "cfg": asdict(self.cfg),
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> OverlapReport:
        """Undo `to_json`."""
        model = LinearModel(plain["model"]["intercept"], np.asarray(plain["model"]["coefficients"], np.float64))
        arrays = {name: np.asarray(plain[name], np.float64) for name in ("edges", "like")}
        score = np.nan if plain["score"] is None else plain["score"]
        cells = tuple(Cell(**cell) for cell in plain["cells"])
        cfg = OverlapConfig(**plain["cfg"])
        return cls(**{**plain, **arrays, "model": model, "score": score, "cells": cells, "cfg": cfg})


def typical_contrast(values: Shaped[np.ndarray, " rows"], *, kind: str) -> tuple[float, float]:
    """Pick two values of an action to contrast, such as were seen.

    0 and 1 of a binary action, the quartiles of any other. Where those are equal: nothing against the median of what
    is above it for a count or currency that is sometimes 0, else the ends.
    """
    if kind == "binary":
        return 0.0, 1.0
    low, high = np.quantile(values, [0.25, 0.75], method="inverted_cdf")
    if low == high:
        low, high = values.min(), values.max()
        if kind in ("count", "currency") and low == 0 < high:
            high = np.quantile(values[values > 0], 0.5, method="inverted_cdf")
    return float(low), float(high)


def fit_overlap(
    action: str,
    features: Shaped[np.ndarray, "rows units"],
    values: Shaped[np.ndarray, " rows"],
    *,
    kind: str,
    visible: Visible | None = None,
    cfg: OverlapConfig | None = None,
) -> OverlapReport:
    """Fit one action's overlap on train rows.

    Args:
        action: its name, for the words.
        features: what was known before the action, one column a unit.
        values: the action.
        kind: of the column; `"binary"` asks for 0 and 1, all else is taken as a number.
        visible: names and groups of the columns, so that the words can name what determines the action.
        cfg: what counts as overlap.

    Raises:
        UserError: no rows, values that are not finite, or a binary action with other values than 0 and 1.
    """
    cfg = cfg or OverlapConfig()
    binary = kind == "binary"
    _check(action, features, values, binary)
    visible = visible or Visible.bernoulli(features.shape[1], name="column")
    x, a = features.astype(np.float32), values.astype(np.float64)
    rule = (rules.binary_rule if binary else rules.real_rule)(action, x, a, visible)
    cells = tuple(rules.one_sided(x, a)) if binary and not rule else ()
    # A rule needs no judgement: the regression is then for the pictures only, and a separable one is slow to fit.
    most = min(cfg.rows, RULE_ROWS) if rule else cfg.rows
    if len(a) > most:
        chosen = np.random.default_rng(cfg.seed).choice(len(a), most, replace=False)
        x, a = x[chosen], a[chosen]
    report = _fit_binary(action, x, a, cells, cfg) if binary else _fit_real(action, x, a, kind, cfg)
    report = replace(report, ess=report.ess * len(values) / len(a))
    top = visible.labels[_strongest(report.model, x)]
    if not rule and report.score >= cfg.exact:
        measure = "AUC" if binary else "R2"
        rule = f"{action} is predicted almost without error ({measure} {report.score:.4f}), most by {top}"
    if rule:
        return replace(report, deterministic=True, reason=rule, share_outside=1.0, ess=0.0)
    told = rules.tell_cells(action, list(cells), visible)
    if not told and report.share_outside > 0.01:
        told = f"{report.share_outside:.0%} of train rows have no counterpart; {top} tells most about {action}"
    return replace(report, reason=told)


def _check(action: str, features: np.ndarray, values: np.ndarray, binary: bool) -> None:
    if len(values) < 2 or features.shape[1] < 1:
        raise UserError(f"{action}: overlap needs at least two rows and one column, got {features.shape}")
    if bad := int(np.sum(~np.isfinite(values))):
        raise UserError(f"{action}: {bad} of {len(values)} values are missing or infinite")
    if binary and not np.isin(values, (0, 1)).all():
        odd = values[~np.isin(values, (0, 1))][0]
        raise UserError(f"{action}: declared binary but holds {odd:g}; declare it continuous or count")


def _strongest(model: LinearModel, features: np.ndarray) -> int:
    return int(np.abs(model.coefficients * features.std(axis=0)).argmax())


def _kish(weights: np.ndarray) -> float:
    """Count rows by Kish's effective size; 0 for none."""
    total = np.sum(weights**2)
    return float(np.sum(weights) ** 2 / total) if total > 0 else 0.0


def _blank(action: str, binary: bool, mean: float, model: LinearModel, cfg: OverlapConfig) -> OverlapReport:
    none = np.zeros(0)
    return OverlapReport(
        action=action, binary=binary, mean=mean, model=model, score=np.nan, share_outside=1.0, ess=0.0,
        deterministic=False, reason="", cells=(), edges=none, like=none, width=0.0, cfg=cfg,
    )  # fmt: skip


def _fit_binary(
    action: str, x: np.ndarray, a: np.ndarray, cells: tuple[Cell, ...], cfg: OverlapConfig
) -> OverlapReport:
    def fit(x: np.ndarray, a: np.ndarray) -> LinearModel:
        return propensity.fit_logistic(x, a, penalty=cfg.penalty)

    eta = propensity.cross_fitted(fit, x, a, seed=cfg.seed)
    report = replace(_blank(action, True, float(a.mean()), fit(x, a), cfg), score=metrics.auc(a, eta), cells=cells)
    inside = report.supported(x, 0.0, 1.0)
    p = np.clip(expit(eta), report.least(1), 1 - report.least(0))
    weights = np.where(a == 1, 1 / p, 1 / (1 - p))[inside]
    return replace(report, share_outside=float(1 - inside.mean()), ess=_kish(weights))


def _fit_real(action: str, x: np.ndarray, a: np.ndarray, kind: str, cfg: OverlapConfig) -> OverlapReport:
    def fit(x: np.ndarray, a: np.ndarray) -> LinearModel:
        return propensity.fit_ridge(x, a, penalty=cfg.penalty)

    mu = propensity.cross_fitted(fit, x, a, seed=cfg.seed)
    edges = np.quantile(mu, np.linspace(0, 1, BINS + 1)[1:-1])
    each = np.searchsorted(edges, mu, side="right")
    # Middles of equal shares: with the ends 0 and 1 a bin's one largest value would count as a whole share of its rows.
    grid = (np.arange(GRID) + 0.5) / GRID

    def quantiles(values: np.ndarray) -> np.ndarray:
        return np.quantile(values, grid, method="inverted_cdf")

    # A bin that ties left empty borrows the whole table's quantiles.
    like = np.stack([quantiles(a[each == b] if (each == b).any() else a) for b in range(BINS)])
    seen = np.unique(a)
    # Few distinct values are told apart exactly; many are told apart by the window.
    few = 1 < len(seen) <= FEW_VALUES
    width = float(0.49 * np.diff(seen).min()) if few else cfg.window * float(a.std())
    report = replace(_blank(action, False, float(a.mean()), fit(x, a), cfg), edges=edges, like=like, width=width)
    ends = typical_contrast(a, kind=kind)
    inside = report.supported(x, *ends)
    weights = np.zeros(len(a))
    for value, other in (ends, ends[::-1]):
        # As of a binary action: a row at a value stands for the like rows that were at others.
        at = inside & (np.abs(a - value) <= width) & (np.abs(a - value) <= np.abs(a - other))
        weights[at] = 1 / report.share_like(x[at], value)
    # The rows between the values tell of the contrast too: what counts is how unequal the weights are.
    ess = _kish(weights) * inside.sum() / max(np.count_nonzero(weights), 1)
    return replace(report, score=metrics.r2(a, mu), share_outside=float(1 - inside.mean()), ess=float(ess))


def _share_by_bin(report: OverlapReport, value: float) -> np.ndarray:
    """Share of each bin's rows within `width` of the value: `[BINS]`."""
    low = np.array([np.searchsorted(q, value - report.width, side="left") for q in report.like])
    high = np.array([np.searchsorted(q, value + report.width, side="right") for q in report.like])
    return (high - low) / report.like.shape[1]


def overlap_table(reports: Mapping[str, OverlapReport]) -> pd.DataFrame:
    """Tabulate reports: action, auc (NaN for a real action), r2 (NaN for a binary one), share_outside, ess,
    deterministic, reason, trim_low, trim_high (the propensities between which a row counts as comparable).
    """
    rows = []
    for name, r in reports.items():
        trim = (r.least(1), 1 - r.least(0)) if r.binary else (np.nan, np.nan)
        rows.append(
            {
                "action": name,
                "auc": r.score if r.binary else np.nan,
                "r2": np.nan if r.binary else r.score,
                "share_outside": r.share_outside,
                "ess": r.ess,
                "deterministic": r.deterministic,
                "reason": r.reason,
                "trim_low": trim[0],
                "trim_high": trim[1],
            }
        )
    return pd.DataFrame(rows)


def smd_table(
    features: Shaped[np.ndarray, "rows units"], action: Shaped[np.ndarray, " rows"], labels: Sequence[str]
) -> pd.DataFrame:
    """Compare the columns of rows with and without an action.

        SMD = (mean treated - mean control) / sqrt((var treated + var control) / 2)

    Args:
        action: treated where positive; for a real action, pass it cut at a value, for example at its median.
        labels: one a column.

    Returns:
        column, treated, control, sd, smd, largest |smd| first; NaN where a column varies on neither side.
    """
    treated, control = (features[side].astype(np.float64) for side in (action > 0, action <= 0))
    if not len(treated) or not len(control):
        raise UserError(f"one side has no rows: {len(treated)} treated, {len(control)} control")
    sd = np.sqrt((treated.var(axis=0) + control.var(axis=0)) / 2)
    gap = treated.mean(axis=0) - control.mean(axis=0)
    smd = np.divide(gap, sd, out=np.where(gap == 0, np.nan, np.sign(gap) * np.inf), where=sd > 0)
    table = pd.DataFrame(
        {"column": list(labels), "treated": treated.mean(axis=0), "control": control.mean(axis=0), "sd": sd, "smd": smd}
    )
    return table.sort_values("smd", key=np.abs, ascending=False, ignore_index=True)
