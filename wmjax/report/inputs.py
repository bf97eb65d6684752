"""What a consumer world's report is made from: plain tables and dictionaries, as the result files hold them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import pandas as pd

from wmjax.core.errors import UserError

COLUMNS: dict[str, tuple[str, ...]] = {
    "training": ("stage", "epoch", "member", "metric", "value"),
    "calibration": ("outcome", "model", "predicted", "observed", "lo", "hi", "n"),
    "accuracy": ("outcome", "model", "quantity", "value", "lo", "hi"),
    "segments": ("outcome", "action", "segment", "level", "n", "scale", "effect", "lo", "hi", "supported_share"),
    "effects_sample": ("unit", "time", "outcome", "action", "effect_probability", "lo", "hi", "supported"),
    "plausibility": ("unit", "time", "kind", "action", "free_energy", "delta"),
    "overlap": ("action", "side", "propensity_bin_left", "propensity_bin_right", "count"),
    "overlap_table": ("action", "auc", "share_outside", "ess", "deterministic", "reason"),
    "columns": ("column", "role", "kind", "missing", "summary"),
}


def _empty() -> pd.DataFrame:
    return pd.DataFrame()


@dataclass(frozen=True, kw_only=True)
class ReportInput:
    """The tables behind a report. An empty one leaves its section out.

    Attributes:
        title: what was asked, as the page's heading.
        summary: `panel` (facts), `outcomes` (per outcome `auc`, `log_loss`, `base_rate`, and optionally
            `expected_rate`), `effects` (list of `outcome,
            action, t0, t1, scale, ate, lo, hi, n_supported, n`, and optionally `level`, the interval's, and `counted`,
            what n counts), `plausibility` (facts), `warnings`, `provenance`.
        training: `stage, epoch, member, metric, value`.
        calibration: `outcome, model, bin, predicted, observed, lo, hi, n`.
        accuracy: `outcome, model, quantity, value, lo, hi` on the held-out rows; models `world, logistic, mlp`.
        segments: `outcome, action, segment, level, n, scale, effect, lo, hi, supported_share`.
        effects_sample: `unit, time, outcome, action, effect_probability, effect_logit, lo, hi, supported`; the interval
            is on the probability scale.
        plausibility: `unit, time, kind, action, free_energy, delta`, kind `factual` or `counterfactual`.
        overlap: `action, side, propensity_bin_left, propensity_bin_right, count`, side `treated` or `control`.
        overlap_table: `action, auc, share_outside, ess, deterministic, reason`, and optionally `trim_low, trim_high`,
            the propensities between which rows count as comparable.
        columns: `column, role, kind, missing, summary`; a missing float is a share.
        files: names and descriptions of the files beside the report.
        warnings: sentences that stand at the top.
        provenance: what every result carries.

    Raises:
        UserError: where a table that is not empty lacks a column.
    """

    title: str = "What would have happened under another plan?"
    summary: dict[str, Any] = field(default_factory=dict)
    training: pd.DataFrame = field(default_factory=_empty)
    calibration: pd.DataFrame = field(default_factory=_empty)
    accuracy: pd.DataFrame = field(default_factory=_empty)
    segments: pd.DataFrame = field(default_factory=_empty)
    effects_sample: pd.DataFrame = field(default_factory=_empty)
    plausibility: pd.DataFrame = field(default_factory=_empty)
    overlap: pd.DataFrame = field(default_factory=_empty)
    overlap_table: pd.DataFrame = field(default_factory=_empty)
    columns: pd.DataFrame = field(default_factory=_empty)
    files: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for item in fields(self):
            table = getattr(self, item.name)
            lacking = [c for c in COLUMNS.get(item.name, ()) if len(table) and c not in table.columns]
            if lacking:
                raise UserError(f"report table {item.name} lacks the columns {', '.join(lacking)}")

    @property
    def all_warnings(self) -> tuple[str, ...]:
        """The warnings of the input and of its summary, each once, in order."""
        return tuple(dict.fromkeys([*self.warnings, *self.summary.get("warnings", [])]))

    @property
    def all_provenance(self) -> dict[str, Any]:
        """The provenance given, or else the summary's."""
        return self.provenance or self.summary.get("provenance", {})

    def source(self, stem: str) -> str:
        """Name the file behind a chart: the first whose name begins with `stem`, or nothing."""
        return next((name for name, _ in self.files if name.rsplit("/", 1)[-1].startswith(stem)), "")
