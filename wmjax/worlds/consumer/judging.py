"""How a consumer world does on periods that it has not seen, beside baselines on the same split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from jaxtyping import Array, Key

from wmjax.baselines import logistic, mlp
from wmjax.baselines.tables import Table
from wmjax.core.keys import key_for
from wmjax.core.observe import Event, Observer, silent
from wmjax.data.panel import Panel
from wmjax.evaluate import bootstrap, metrics
from wmjax.worlds.consumer.rows import Rows
from wmjax.worlds.consumer.world import ConsumerWorld

DRAWS = 200
"""Bootstrap draws of the units behind each interval of a score."""


class Judgement(NamedTuple):
    """What the held-out periods say.

    accuracy: outcome, model, quantity, value, lo, hi; intervals by bootstrap of the units.
    calibration: outcome, model, bin, predicted, observed, lo, hi, n; binary outcomes only.
    base_rates, expected_rates: mean of each outcome in the test periods, as it happened and as the world expected it.
    warnings: outcomes that the world predicts worse than the train rows' mean does, or far off their rate.
    """

    accuracy: pd.DataFrame
    calibration: pd.DataFrame
    base_rates: dict[str, float]
    expected_rates: dict[str, float]
    warnings: list[str]


def judge(
    key: Key[Array, ""], world: ConsumerWorld, panel: Panel, *, alpha: float = 0.1, observer: Observer = silent
) -> Judgement:
    """Score the world, a logistic regression and an MLP on raw features on the test periods.

    The baselines see the same visible units and actions, learn from the same train rows and stop on the same
    validation rows. Real-valued outcomes are scored by R2 and RMSE, and their linear baseline is a ridge regression.
    """
    split = {name: world.observed(panel, world.periods(panel, name)) for name in ("train", "val", "test")}
    test, expected = split["test"], {"world": world.expected(split["test"])}
    expected |= _baselines(key, world, split, observer)
    accuracy, calibration = [], []
    for at, (outcome, kind) in enumerate(zip(panel.outcome_names, world.model.kinds, strict=True)):
        labels = test.outcomes[:, at]
        for model, values in expected.items():
            accuracy += _scores(outcome, model, kind, labels, values[:, at], test, alpha)
            if kind == "binary":
                table = metrics.calibration_table(labels, values[:, at], alpha=alpha)
                calibration.append(table.assign(outcome=outcome, model=model))
    happened, awaited = (
        dict(zip(panel.outcome_names, values.mean(0, np.float64).tolist(), strict=True))
        for values in (test.outcomes, expected["world"])
    )
    columns = ["outcome", "model", "quantity", "value", "lo", "hi"]
    return Judgement(
        pd.DataFrame(accuracy, columns=columns),
        pd.concat(calibration, ignore_index=True) if calibration else pd.DataFrame(),
        happened,
        awaited,
        _worse_than_the_mean(panel.outcome_names, world, split, expected["world"])
        + _off_the_mark(panel.outcome_names, world.model.kinds, test, expected["world"]),
    )


def _worse_than_the_mean(
    names: tuple[str, ...], world: ConsumerWorld, split: Mapping[str, Rows], expected: np.ndarray
) -> list[str]:
    """Say which outcomes' forecasts lose to a constant: what hangs on such a world is not to be believed.

    Lose by more than chance: the lower bound of 90 % of the difference, over units, is above zero.
    """
    found = []
    for at, (name, kind) in enumerate(zip(names, world.model.kinds, strict=True)):
        labels, mean = split["test"].outcomes[:, at], split["train"].outcomes[:, at].mean()
        score, word = (metrics.log_loss, "log loss") if kind == "binary" else (metrics.rmse, "error")

        def constant(labels: np.ndarray, score: Any = score, mean: Any = mean) -> float:
            return score(labels, np.full(len(labels), mean, np.float32))

        def loss(labels: np.ndarray, values: np.ndarray, score: Any = score, constant: Any = constant) -> float:
            return score(labels, values) - constant(labels)

        gap = bootstrap.cluster_bootstrap(
            jax.random.key(0), loss, split["test"].unit, labels, expected[:, at], draws=DRAWS, alpha=0.1
        )
        if gap.lo > 0:
            found.append(
                f"{name}: on the test rows the world's {word} of {score(labels, expected[:, at]):.4g} is above the "
                f"{constant(labels):.4g} of the train rows' mean; it has not learnt this outcome, or the outcome has "
                "changed since"
            )
    return found


def _off_the_mark(names: tuple[str, ...], kinds: tuple[str, ...], test: Rows, expected: np.ndarray) -> list[str]:
    """Say which binary outcomes happen in the test rows at a rate far from the one that was expected there.

    Far: by more than a fifth of the smaller one, and 90 % of the difference, over units, on one side of zero.
    """
    found = []
    for at, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        labels, values = test.outcomes[:, at], expected[:, at]
        own, seen = float(values.mean()), float(labels.mean())
        if kind != "binary" or max(own, seen) < 1.2 * min(own, seen):
            continue
        gap = bootstrap.cluster_bootstrap(
            jax.random.key(0), lambda y, p: float((p - y).mean()), test.unit, labels, values, draws=DRAWS, alpha=0.1
        )
        if gap.lo > 0 or gap.hi < 0:
            found.append(
                f"{name}: the world expects {own:.1%} in the test rows, {seen:.1%} happened ({int(labels.sum()):,} of "
                f"{len(labels):,} rows, {len(np.unique(test.unit)):,} units); "
                "the level of its forecasts is off there, and effects may be too"
            )
    return found


def _baselines(
    key: Key[Array, ""], world: ConsumerWorld, split: Mapping[str, Rows], observer: Observer
) -> dict[str, np.ndarray]:
    """Predict the test rows by each baseline: `[rows, outcomes]`."""
    parts = [Table(split[name].visible, split[name].actions, split[name].outcomes) for name in ("train", "val", "test")]
    kinds, cfg = world.model.kinds, replace(world.model.cfg.adapter, form="mlp")
    observer(Event("baseline logistic regression", 0, 1, unit="fit"))
    found = {"logistic": logistic.fit_predict(*parts, kinds=kinds)}
    observer(Event("baseline logistic regression", 1, 1, unit="fit"))
    # As many networks as the world has members: an average of several is better calibrated than one.
    found["mlp"] = mlp.fit_predict(
        key_for(key, "mlp"), *parts, cfg=cfg, kinds=kinds, members=world.members, observer=observer
    )
    return {name: values.astype(np.float32) for name, values in found.items()}


def _scores(
    outcome: str, model: str, kind: str, labels: np.ndarray, values: np.ndarray, rows: Rows, alpha: float
) -> list[tuple[str, str, str, float, float, float]]:
    """Score one model's expected outcomes, each score with its interval over units."""
    statistics: dict[str, Callable[..., float]] = {"r2": metrics.r2, "rmse": metrics.rmse}
    if kind == "binary":
        statistics = {"auc": metrics.auc, "log_loss": metrics.log_loss}
    found = []
    for quantity, statistic in statistics.items():
        # The same draws for every model, so that their intervals can be compared.
        interval = bootstrap.cluster_bootstrap(
            jax.random.key(0), statistic, rows.unit, labels, values, draws=DRAWS, alpha=alpha
        )
        found.append((outcome, model, quantity, statistic(labels, values), interval.lo, interval.hi))
    return found
