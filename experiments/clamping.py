"""The published clamp test: are purchases without a promotion before them implausible to the machine?

Eligible rows have no purchase in the last four days. Clamped, they have one on each, and no campaign or push; the
free-energy difference is read. Set apart here, because the test mixes them: what the purchases alone do, what taking
the promotions away alone does, and the interaction of both. `conditional` scores the purchases of a row, with the
windows that hold them, given all else in it, -log p by the variational free energy over the histories that can occur;
how rare it is to have no promotion is no part of it.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import Cell, Scores
from wmjax.core.visible import Visible
from wmjax.dbm import clamp, conditional, energy, meanfield, scores
from wmjax.dbm.types import DBMParams
from wmjax.evaluate import metrics, rank

LAGS = (1, 2, 3, 4)
BOUGHT = {f"purchase_lag{k}": 1.0 for k in LAGS} | {"purchase_within_7d": 1.0}
PROMOTED = tuple(f"{name}_lag{k}" for name in ("campaign", "push") for k in LAGS)
UNPROMOTED = dict.fromkeys(PROMOTED, 0.0)
ALL_PROMOTED = dict.fromkeys(PROMOTED, 1.0)
KINDS = ("paper", "variational", "expected_energy", "conditional")
WINDOWS = tuple(f"purchase_within_{days}d" for days in (7, 14, 30))
WHOLE = BOUGHT | dict.fromkeys(WINDOWS, 1.0)
"""The purchases with all windows that hold them, as they occur; the published clamp sets the first window alone."""
HISTORIES = np.array(
    [(*lags, 1, 1, 1) for lags in itertools.product((0, 1), repeat=4) if any(lags)]
    + [(0, 0, 0, 0, *windows) for windows in ((0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1))]
)
"""Purchases that can occur together, in the order of `WHOLE`: on the last four days, and within 7, 14 and 30."""
CHUNK = 4096


def eligible(bits: np.ndarray, visible: Visible) -> np.ndarray:
    """Mark the rows without a purchase in the last four days: `bool [rows]`."""
    lags = clamp.units([f"purchase_lag{k}" for k in LAGS], visible=visible)
    return bits[:, lags].sum(axis=1) == 0


def _terms(params: DBMParams, v: jax.Array, visible: Visible) -> dict[str, jax.Array]:
    """Give each score's terms, which are contrasted before they are summed so that float32 loses little."""
    layers, _ = meanfield.infer(params, v)
    return {
        "paper": scores.terms(params, v, visible=visible, kind="paper"),
        "variational": scores.terms(params, v, visible=visible, kind="variational"),
        "expected_energy": energy.collapsed_terms(params, dict(enumerate(layers)), visible=visible),
    }


def given_the_rest(params: DBMParams, v: jax.Array, *, visible: Visible) -> jax.Array:
    """Score the purchases of rows `[rows, units]` given all else in them: `[rows]`, in nats."""
    at = clamp.units(WHOLE, visible=visible)
    part = np.isin(np.arange(visible.size), at)
    # Alternatives come in the order of the layer.
    return conditional.conditional(params, v, part, visible=visible, alternatives=HISTORIES[:, np.argsort(at)])


@partial(jax.jit, static_argnames="visible")
def _chunk(params: DBMParams, v: jax.Array, *, visible: Visible) -> dict[str, jax.Array]:
    """Score one chunk of rows `[rows, units]`: by score and contrast, `[rows]`."""
    apply = partial(clamp.apply, visible=visible)
    bought, whole = apply(v, BOUGHT), apply(v, WHOLE)
    rows = {
        "original": v,
        "bought": bought,
        "unpromoted": apply(v, UNPROMOTED),
        "both": apply(bought, UNPROMOTED),
        "promoted": apply(v, ALL_PROMOTED),
        "bought_promoted": apply(bought, ALL_PROMOTED),
        "whole": whole,
        "whole_unpromoted": apply(whole, UNPROMOTED),
        "whole_promoted": apply(whole, ALL_PROMOTED),
    }
    # One pass over the stacked variants compiles one program instead of nine.
    stacked = _terms(params, jnp.stack(list(rows.values())), visible)
    out = {"bias_only": clamp.bias_only(params, v, rows["both"], visible=visible)}
    for kind, terms in stacked.items():
        t = dict(zip(rows, terms, strict=True))
        contrasts = {
            "dF": t["both"] - t["original"],
            "purchases_only": t["bought"] - t["original"],
            "promotions_off_only": t["unpromoted"] - t["original"],
            "interaction": (t["both"] - t["unpromoted"]) - (t["bought_promoted"] - t["promoted"]),
        }
        out |= {f"{kind}/{name}": c.sum(-1) for name, c in contrasts.items()}
        out |= {f"{kind}/original": t["original"].sum(-1), f"{kind}/both": t["both"].sum(-1)}
    # Within one row's promotions what is summed over cancels, and purchases add what they do without the condition.
    t = dict(zip(rows, stacked["variational"], strict=True))
    given = {name: given_the_rest(params, rows[name], visible=visible) for name in ("original", "unpromoted")}
    added = {"": "original", "_unpromoted": "unpromoted", "_promoted": "promoted"}
    added = {name: (t[f"whole{end}"] - t[name]).sum(-1) for end, name in added.items()}
    both = given["unpromoted"] + added["unpromoted"]
    out |= {"conditional/original": given["original"], "conditional/both": both}
    out |= {"conditional/dF": both - given["original"], "conditional/purchases_only": added["original"]}
    out["conditional/promotions_off_only"] = given["unpromoted"] - given["original"]
    return out | {"conditional/interaction": added["unpromoted"] - added["promoted"]}


def differences(params: DBMParams, bits: np.ndarray, *, visible: Visible) -> dict[str, np.ndarray]:
    """Score all rows in chunks of one shape: `kind/contrast` to `[rows]` float64, and `bias_only`."""
    parts: list[dict[str, Any]] = []
    for start in range(0, len(bits), CHUNK):
        rows = bits[start : start + CHUNK].astype(np.float32)
        padded = np.pad(rows, ((0, CHUNK - len(rows)), (0, 0)))
        found = jax.device_get(_chunk(params, padded, visible=visible))
        parts.append({name: x[: len(rows)] for name, x in found.items()})
    return {name: np.concatenate([p[name] for p in parts]).astype(np.float64) for name in parts[0]}


def welch_t(a: np.ndarray, b: np.ndarray) -> float:
    """Compute Welch's t of two samples: difference of means over its standard error; NaN where both are constant."""
    error = np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b)) if min(len(a), len(b)) > 1 else 0.0
    return float((a.mean() - b.mean()) / error) if error > 0 else float("nan")


def one_sample_t(values: np.ndarray) -> float:
    """Compute the mean over its standard error; NaN where all values are equal."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(values.mean() / error) if error > 0 else float("nan")


def clamp_scores(
    setting: str, params: DBMParams, bits: np.ndarray, beta: np.ndarray, consumer: np.ndarray, *, visible: Visible
) -> Scores:
    """Run the clamp test on the rows of one split.

    Args:
        setting: name in the table.
        params: the machine.
        bits: `[rows, bits]`, all rows of the split.
        beta: the base preference of each row's consumer.
        consumer: each row's consumer; the clustered t treats consumers, not rows, as independent.
        visible: names of the bits.

    Returns:
        For each score: the mean difference, the share above zero, paired t and AUC; by halves at the row median of beta
        the means, whether the higher half's is lower, and Welch's t, by rows (as published, which overstates it) and by
        consumer means; the decomposition, with t by consumer.
    """
    rows = eligible(bits, visible)
    found, beta, consumer = differences(params, bits[rows], visible=visible), beta[rows], consumer[rows]
    high = beta >= np.median(beta)
    group = np.unique(consumer, return_inverse=True)[1]

    def by_consumer(values: np.ndarray) -> np.ndarray:
        return np.bincount(group, values) / np.bincount(group)

    out: Scores = {
        Cell(setting, "data", "rows"): float(rows.sum()),
        Cell(setting, "data", "rows_high_beta"): float(high.sum()),
        Cell(setting, "visible_biases", "clamp_mean"): float(found["bias_only"].mean()),
    }
    for kind in KINDS:
        difference = found[f"{kind}/dF"]
        before, after = found[f"{kind}/original"], found[f"{kind}/both"]
        mean = by_consumer(difference)
        high_consumer = np.bincount(group, high) > 0
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        values = {
            "mean_score": before.mean(),
            "clamp_mean": difference.mean(),
            "sd_dF": difference.std(ddof=1),
            "share_positive": (difference > 0).mean(),
            "paired_t": difference.mean() / error if error > 0 else np.nan,
            "paired_t_by_consumer": one_sample_t(mean),
            "auc": metrics.auc(np.repeat([0, 1], len(before)), np.concatenate([before, after])),
            "clamp_high_beta": difference[high].mean(),
            "clamp_low_beta": difference[~high].mean(),
            "high_below_low": float(difference[high].mean() < difference[~high].mean()),
            "welch_t": welch_t(difference[high], difference[~high]),
            "welch_t_by_consumer": welch_t(mean[high_consumer], mean[~high_consumer]),
            "correlation_with_biases": rank.pearson(difference, found["bias_only"]),
        }
        for name in ("purchases_only", "promotions_off_only", "interaction"):
            values[f"mean_{name}"] = found[f"{kind}/{name}"].mean()
            values[f"t_by_consumer_{name}"] = one_sample_t(by_consumer(found[f"{kind}/{name}"]))
        out |= {Cell(setting, kind, name): float(value) for name, value in values.items()}
    return out
