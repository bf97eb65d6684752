"""How well estimated effects recover what is true: ranks, errors and the ways in which ranks flatter."""

from __future__ import annotations

import jax
import numpy as np

from experiments.common import Cell, Scores
from experiments.consumer_data import QUESTIONS, ConsumerData, question
from wmjax.evaluate import effects, metrics, rank
from wmjax.simulate.consumer_frame import ACTIONS, OUTCOMES

RANDOMISED = ("push", "sale_randomised", "placebo")
"""Settings whose action falls by chance."""
SCALES = ("logit", "prob")


def effect_scores(
    setting: str, method: str, data: ConsumerData, estimates: dict[str, np.ndarray], *, part: int = 2
) -> Scores:
    """Score estimated effects on the rows of a part.

    Args:
        setting: which question, see `QUESTIONS`.
        method: the name in the table.
        data: the panel.
        estimates: scale (`"logit"`, `"prob"`) to effects `[rows]`; a scale that a method does not have is left out.
        part: 2 is test.

    Returns:
        For each scale: Spearman by row with each trait and with the true effect of the same scale, Spearman with the
        consumer mean, Pearson with the true effect, alpha and gamma, ties broken at random, partial Spearman of alpha
        given beta, within-loyalty-class Spearman with gamma, root mean squared error (PEHE), the mean effect and its
        error, and the mean error over deciles; Qini and AUUC on what happened, where the action was randomised.
    """
    rows, truth = data.rows(part), data.truth(setting, part)
    by_row = {name: trait[rows.consumer] for name, trait in data.sim.traits._asdict().items()}
    true: dict[str, np.ndarray] = dict(zip(SCALES, truth, strict=True))
    out: Scores = {}

    def put(quantity: str, value: float) -> None:
        out[Cell(setting, method, quantity)] = float(value)

    action, outcome = question(setting)
    if setting in RANDOMISED and "prob" in estimates:
        acted, happened = rows.actions[:, ACTIONS.index(action)], rows.outcomes[:, OUTCOMES.index(outcome)]
        score = effects.uplift_score(estimates["prob"], happened, acted)
        put("qini", score.qini)
        put("auuc", score.auuc)
    for scale, found in estimates.items():
        for name, trait in by_row.items():
            put(f"rho_{name}_{scale}", rank.spearman(found, trait))
        put(f"rho_effect_{scale}", rank.spearman(found, true[scale]))
        put(f"pearson_effect_{scale}", rank.pearson(found, true[scale]))
        put(f"partial_rho_alpha_given_beta_{scale}", rank.spearman_partial(found, by_row["alpha"], by_row["beta"]))
        within = rank.spearman_within(found, by_row["gamma"], data.sim.statics.loyalty[rows.consumer])
        put("rho_gamma_within_loyalty" + ("" if scale == "logit" else f"_{scale}"), within["rho"].iloc[0])
        for name in ("alpha", "gamma"):
            put(f"rho_{name}_{scale}_tiebroken", rank.spearman_tie_broken(jax.random.key(0), found, by_row[name]))
            put(f"pearson_{name}_{scale}", rank.pearson(found, by_row[name]))
        mean = np.bincount(rows.consumer, found) / np.bincount(rows.consumer)
        for name, trait in data.sim.traits._asdict().items():
            put(f"rho_{name}_consumer_{scale}", rank.spearman(mean, trait))
        put(f"root_pehe_{scale}", effects.pehe(found, true[scale]))
        put(f"mean_{scale}", found.mean())
        put(f"ate_error_{scale}", effects.ate_error(found, true[scale]))
        deciles = effects.effect_deciles(found, true[scale])
        put(
            f"decile_error_{scale}", float(np.abs(deciles["estimated"].to_numpy() - deciles["truth"].to_numpy()).mean())
        )
    return out


def ceilings(data: ConsumerData, methods: tuple[str, ...], *, part: int = 2) -> Scores:
    """Give what an oracle reaches, for each method's cells.

    For the rank of a trait on the logit scale: the rank of the trait's mean given what can be seen of a consumer
    (loyalty for gamma; income and age for alpha), ties kept. On the probability scale: the rank of the true effect,
    which follows the trait only in part. Elsewhere: the true effect's own mean, and zero error.
    """
    rows = data.rows(part)
    statics, traits = data.sim.statics, data.sim.traits
    log_income = (statics.income - statics.income.mean()) / statics.income.std(ddof=1)
    age = (statics.age - statics.age.mean()) / statics.age.std(ddof=1)
    p = data.cfg.params
    seen = {
        "gamma": p.gamma_mean + p.gamma_loyalty * statics.loyalty,
        "alpha": p.alpha_mean + p.alpha_income * log_income + p.alpha_age * age,
    }
    out: Scores = {}
    for setting, trait in (("push", "gamma"), ("sale_faithful", "alpha")):
        truth: dict[str, np.ndarray] = dict(zip(SCALES, data.truth(setting, part), strict=True))
        by_row = getattr(traits, trait)[rows.consumer]
        best: dict[str, float] = {"logit": rank.spearman(seen[trait][rows.consumer], by_row)}
        best["prob"] = rank.spearman(truth["prob"], by_row)
        for method in methods:
            for scale in SCALES:
                out[Cell(setting, method, f"rho_{trait}_{scale}")] = best[scale]
                out[Cell(setting, method, f"mean_{scale}")] = float(truth[scale].mean())
                out[Cell(setting, method, f"root_pehe_{scale}")] = 0.0
    for setting in QUESTIONS:
        areas = {cell.quantity: value for cell, value in forecast_ceilings(setting, data, part=part).items()}
        name = f"auc_{question(setting)[1]}"
        out |= {Cell(setting, method, name): areas[name] for method in methods}
    return out


def forecast_ceilings(setting: str, data: ConsumerData, *, part: int = 2) -> Scores:
    """Give the AUC of both outcomes' true utilities, as the oracle's row of a setting."""
    days, out = data.days[part], {}
    for outcome in OUTCOMES:
        happened, utility = getattr(data.sim.outcomes, outcome), getattr(data.sim.outcomes, f"utility_{outcome}")
        area = metrics.auc(happened[:, days].ravel(), utility[:, days].ravel())
        out[Cell(setting, "oracle", f"auc_{outcome}")] = float(area)
    return out
