"""A made-up but lifelike report: 1,024 consumers, a year, two outcomes, three actions, one of them not identified."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from wmjax.report.inputs import ReportInput

HOSTILE = '<script>alert("unit")</script>'
EFFECTS = {  # (outcome, action): probability effect, half-width, share of comparable rows
    ("visit", "push"): (0.148, 0.0091, 0.981),
    ("visit", "coupon"): (0.093, 0.021, 0.64),
    ("purchase", "push"): (0.0004, 0.0075, 0.981),
    ("purchase", "sale1"): (0.0144, 0.019, 0.0),
}
SEGMENTS = {
    "age": ["20s", "30s", "40s", "50s", "60s"],
    "income": ["lowest fifth", "second", "third", "fourth", "highest fifth"],
    "loyalty card": ["holder", "none"],
}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def make_training(rng: np.random.Generator) -> pd.DataFrame:
    """Two stages of five members; the adapters overfit after a while, and the fourth member of one diverges."""
    rows = []
    for stage, epochs, level in (("belief: fine-tuning", 120, 0.43), ("adapter: visit", 60, 0.62)):
        for member in range(5):
            drift = rng.normal(0, 0.004)
            for epoch in range(1, epochs + 1):
                fall = 0.5 * np.exp(-epoch / 6) + 0.05 * np.exp(-epoch / 30)
                over = 0.0009 * max(epoch - epochs * 0.55, 0) if stage.startswith("adapter") else 0.0
                train = level + fall + drift + rng.normal(0, 0.0012) - over
                val = level + 0.012 + 1.05 * fall + 1.5 * drift + 0.6 * over + rng.normal(0, 0.0016)
                if member == 3 and stage.startswith("belief") and epoch > 70:
                    train = val = np.nan
                rows.append((stage, epoch, member, "train_loss", train))
                rows.append((stage, epoch, member, "val_loss", val))
                if stage.startswith("adapter"):
                    rows.append((stage, epoch, member, "val_auc", 0.72 - 0.2 * fall - 0.2 * over + drift))
    return pd.DataFrame(rows, columns=["stage", "epoch", "member", "metric", "value"])


def make_calibration() -> pd.DataFrame:
    rows = []
    for outcome, centre, width in (("visit", 0.5, 0.16), ("purchase", 0.23, 0.09)):
        for model, slope in (("world", 0.97), ("logistic", 0.85), ("mlp", 1.12)):
            for index, predicted in enumerate(np.linspace(0.05, 0.95, 10)):
                n = int(9000 * np.exp(-0.5 * ((predicted - centre) / width) ** 2))
                if n < 20:
                    continue
                observed = float(np.clip(centre + slope * (predicted - centre) + 0.012 * np.sin(9 * predicted), 0, 1))
                half = 1.96 * np.sqrt(observed * (1 - observed) / n)
                low, high = max(observed - half, 0), min(observed + half, 1)
                rows.append((outcome, model, index, predicted, observed, low, high, n))
    return pd.DataFrame(rows, columns=["outcome", "model", "bin", "predicted", "observed", "lo", "hi", "n"])


def make_accuracy() -> pd.DataFrame:
    values = {
        ("visit", "auc"): (0.7130, 0.7084, 0.7119),
        ("purchase", "auc"): (0.6772, 0.6731, 0.6777),
        ("visit", "log_loss"): (0.6207, 0.6251, 0.6244),
        ("purchase", "log_loss"): (0.5009, 0.5032, 0.5014),
    }
    rows = [
        (outcome, model, quantity, value, value - 0.0055, value + 0.0055)
        for (outcome, quantity), triple in values.items()
        for model, value in zip(("logistic", "world", "mlp"), (triple[1], triple[0], triple[2]), strict=True)
    ]
    return pd.DataFrame(rows, columns=["outcome", "model", "quantity", "value", "lo", "hi"])


def make_segments(rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for (outcome, action), (ate, half, share) in EFFECTS.items():
        for segment, levels in SEGMENTS.items():
            for rank, level in enumerate(levels):
                tilt = (rank - (len(levels) - 1) / 2) / len(levels)
                effect = ate * (1 - 0.7 * tilt) + rng.normal(0, 0.002)
                width = half * rng.uniform(1.6, 2.6)
                known = float(np.clip(share + rng.normal(0, 0.02) - 0.4 * (level == "highest fifth"), 0, 1))
                n = int(rng.integers(3000, 9000))
                rows.append(
                    (outcome, action, segment, level, n, "probability", effect, effect - width, effect + width, known)
                )
    names = ["outcome", "action", "segment", "level", "n", "scale", "effect", "lo", "hi", "supported_share"]
    return pd.DataFrame(rows, columns=names)


def make_sample(rng: np.random.Generator) -> pd.DataFrame:
    parts = []
    units = [f"c{i:04d}" for i in range(600)]
    units[7] = HOSTILE
    for (outcome, action), (ate, half, share) in EFFECTS.items():
        loyal = rng.random(600) < 0.31
        centre = ate * (0.85 + 0.5 * loyal) + rng.normal(0, 0.18 * abs(ate) + 0.003, 600)
        parts.append(
            pd.DataFrame(
                {
                    "unit": units,
                    "time": "2025-12-14",
                    "outcome": outcome,
                    "action": action,
                    "effect_probability": centre,
                    "effect_logit": 4 * centre,
                    "lo": centre - 2 * half,
                    "hi": centre + 2 * half,
                    "supported": rng.random(600) < share,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def make_plausibility(rng: np.random.Generator) -> pd.DataFrame:
    parts = []
    for action, shift in (("push", 0.3), ("coupon", 1.6), ("sale1", 5.2)):
        factual = rng.gamma(18, 0.7, 1500) - 31
        delta = rng.normal(shift, 0.8, 1500)
        base = {"unit": [f"c{i % 600:04d}" for i in range(1500)], "time": "2025-12-14", "action": action}
        parts.append(pd.DataFrame({**base, "kind": "factual", "free_energy": factual, "delta": 0.0}))
        parts.append(pd.DataFrame({**base, "kind": "counterfactual", "free_energy": factual + delta, "delta": delta}))
    return pd.concat(parts, ignore_index=True)


def make_overlap(rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    edges = np.linspace(0, 1, 26)
    for action, treated, control in (
        ("push", rng.beta(26, 76, 7600), rng.beta(25, 77, 23000)),
        ("coupon", rng.beta(3, 6, 4200), rng.beta(1.4, 9, 26500)),
        ("sale1", np.clip(rng.normal(0.985, 0.01, 4300), 0, 1), np.clip(rng.normal(0.015, 0.01, 26400), 0, 1)),
    ):
        for side, values in (("treated", treated), ("control", control)):
            counts = np.histogram(values, edges)[0]
            rows += [(action, side, a, b, int(n)) for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)]
    return pd.DataFrame(rows, columns=["action", "side", "propensity_bin_left", "propensity_bin_right", "count"])


def make_overlap_table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "action": ["push", "coupon", "sale1"],
            "auc": [0.512, 0.748, 1.0],
            "share_outside": [0.019, 0.36, 1.0],
            "ess": [29804.2, 9120.7, 0.0],
            "deterministic": [False, False, True],
            "reason": ["", "targeted at loyal consumers", "sale1 is on exactly where the day of the week is Sunday"],
            "trim_low": 0.05,
            "trim_high": 0.95,
        }
    )


def make_columns() -> pd.DataFrame:
    rows = [
        ("age", "static", "categorical", 0.0, "5 levels: 20s, 30s, 40s, 50s, 60s"),
        ("income", "static", "continuous", 0.013, "mean 452, sd 241, in 5 bins of equal size"),
        ("loyalty", "static", "binary", 0.0, "30.7 % of units"),
        ("price", "covariate", "continuous", 0.0, "mean 97.9, sd 2.96"),
        ("push", "action", "binary", 0.0, "25.0 % of rows"),
        ("coupon", "action", "binary", 0.0, "13.9 % of rows"),
        ("sale1", "action", "binary", 0.0, "14.2 % of rows"),
        ("visit", "outcome", "binary", 0.0, "50.3 % of rows"),
        ("purchase", "outcome", "binary", 0.0004, "22.4 % of rows"),
    ]
    return pd.DataFrame(rows, columns=["column", "role", "kind", "missing", "summary"])


def make_summary() -> dict:
    effects = [
        {
            "outcome": outcome,
            "action": action,
            "t0": 0,
            "t1": 1,
            "scale": "probability",
            "ate": ate,
            "lo": ate - half,
            "hi": ate + half,
            "level": 0.95,
            "n_supported": round(30720 * share),
            "n": 30720,
        }
        for (outcome, action), (ate, half, share) in EFFECTS.items()
    ]
    return {
        "panel": {
            "units": 1024,
            "unit": "consumer_id",
            "periods": 365,
            "frequency": "daily",
            "from": "2025-01-01",
            "to": "2025-12-31",
            "rows": 373760,
            "missing_share": 0.0014,
            "held_out": "2025-12-02 to 2025-12-31",
        },
        "outcomes": {"visit": {"base_rate": 0.4964}, "purchase": {"base_rate": 0.2281}},
        "effects": effects,
        "plausibility": {"scored_rows": 4500, "median_change": 1.07, "share_beyond_95": 0.118},
        "warnings": ["Coupons were targeted, not randomised: trust their effect only as far as the overlap goes."],
    }


def make_provenance() -> dict:
    return {
        "seed": 0,
        "config": {
            "kind": "ConsumerConfig",
            "hidden": [64, 32, 16],
            "members": 5,
            "adapter": {"dropout": 0.1, "epochs": 60},
        },
        "config_fingerprint": "9f2c1ab07d3e5541",
        "schema_fingerprint": "07aa41c9be02d3f8",
        "data_fingerprint": "c4d1e0f29a7b6655",
        "versions": {"python": "3.11.9", "wmjax": "0.1.0", "jax": "0.10.2", "numpy": "2.4.6"},
    }


def make_report() -> ReportInput:
    """Build the whole input from one seed."""
    rng = np.random.default_rng(20260508)
    return ReportInput(
        title="What do push messages, coupons and Sunday sales do to visits and purchases?",
        summary=make_summary(),
        training=make_training(rng),
        calibration=make_calibration(),
        accuracy=make_accuracy(),
        segments=make_segments(rng),
        effects_sample=make_sample(rng),
        plausibility=make_plausibility(rng),
        overlap=make_overlap(rng),
        overlap_table=make_overlap_table(),
        columns=make_columns(),
        files=[
            ("summary.json", "the numbers of the headline and the warnings"),
            ("training.parquet", "every metric by stage, epoch and member"),
            ("calibration.parquet", "predicted and observed shares by bin"),
            ("accuracy.parquet", "AUC and log-loss of the world and its baselines on the held-out rows"),
            ("segments.parquet", "effects by segment with intervals"),
            ("effects.parquet", "effects by consumer and day, on both scales, and free energies"),
            ("plausibility.parquet", "free energies of factual rows"),
            ("overlap.parquet", "propensity histograms by action"),
            ("overlap_table.parquet", "overlap by action, and the limits of the propensity"),
        ],
        warnings=[
            "sale1 is on exactly where the day of the week is Sunday: no row tells its effect from Sunday's.",
            "Member 3 of 5 diverged in fine-tuning and was left out.",
            "Mean field did not converge within 10 sweeps for 0.4 % of rows.",
            f"One unit is named {HOSTILE} & was kept.",
        ],
        provenance=make_provenance(),
    )


@pytest.fixture(scope="session")
def report() -> ReportInput:
    return make_report()
