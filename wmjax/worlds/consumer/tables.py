"""The consumer world's answers as tidy tables, one row an answer, in the words of the user's own table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from wmjax.data.panel import Panel
from wmjax.evaluate.overlap import typical_contrast
from wmjax.worlds import contract
from wmjax.worlds.consumer.world import ConsumerWorld


@dataclass(frozen=True, kw_only=True)
class Question:
    """One contrast to be answered: `action = t1` against `action = t0`."""

    action: str
    t0: float | int
    t1: float | int


def default_questions(panel: Panel, train: slice) -> list[Question]:
    """Ask for every action what its usual range does, by `overlap.typical_contrast` of its values.

    Args:
        panel: whose actions are asked about.
        train: the train periods; later rows have no say in the question.
    """
    part, questions = panel.select(times=train), []
    for index, name in enumerate(panel.action_names):
        values = part.arrays.actions[..., index][part.arrays.mask]
        low, high = typical_contrast(values, kind=panel.schema.column(name).kind)
        questions.append(Question(action=name, t0=low, t1=high))
    return questions


def predictions(world: ConsumerWorld, panel: Panel, *, times: slice | None = None, alpha: float = 0.1) -> pd.DataFrame:
    """Tabulate `predict` beside what was observed: unit, time, part, outcome, observed, mean, lo, hi.

    `part` is the part of the fit that the period falls in, `train`, `val` or `test`; empty for one in none of them.
    """
    found = world.predict(panel, times=times, alpha=alpha)
    observed = np.where(panel.arrays.mask[..., None], panel.arrays.outcomes, np.nan)[:, times or slice(None)]
    found["observed"] = (("unit", "time", "outcome"), observed)
    found["part"] = (("time",), contract.parts(world.facts, panel)[times or slice(None)])
    return _tidy(found, panel)[[*_keys(panel), "part", "outcome", "observed", "mean", "lo", "hi"]]


def effects(
    world: ConsumerWorld, panel: Panel, question: Question, *, times: slice | None = None, alpha: float = 0.1
) -> pd.DataFrame:
    """Tabulate one contrast for every row and outcome, with its interval, its support and its plausibility.

    Returns:
        unit, time, outcome, action, t0, t1, effect, lo, hi, effect_linear, lo_linear, hi_linear, supported,
        free_energy, delta, rank: the last three are of the history that `t1` would leave behind: its free energy, the
        rise over the factual one, and the share of train rows at least as surprising. It shows in the next period, so
        a unit's last row, and one before a gap, has none (NaN).
    """
    found = world.effect_interval(panel, question.action, question.t0, question.t1, alpha=alpha, times=times)
    after = world.counterfactual_plausibility(panel, question.action, question.t1, times=times)
    table = _tidy(xr.merge([found, after[["free_energy", "delta", "rank"]]], combine_attrs="drop"), panel)
    table = table.assign(action=question.action, t0=question.t0, t1=question.t1)
    columns = [
        "effect",
        "lo",
        "hi",
        "effect_linear",
        "lo_linear",
        "hi_linear",
        "supported",
        "free_energy",
        "delta",
        "rank",
    ]
    return table[[*_keys(panel), "outcome", "action", "t0", "t1", *columns]]


def plausibility(world: ConsumerWorld, panel: Panel, *, times: slice | None = None) -> pd.DataFrame:
    """Tabulate how plausible each row's own history is: unit, time, free_energy, rank."""
    return _tidy(world.plausibility(panel, times=times), panel)[[*_keys(panel), "free_energy", "rank"]]


def _keys(panel: Panel) -> list[str]:
    plain = panel.schema.plain()
    return [str(plain.unit), str(plain.time)]


def _tidy(found: xr.Dataset, panel: Panel) -> Any:
    table: Any = found.to_dataframe().reset_index()
    value = next(n for n in ("mean", "effect", "free_energy") if n in table)
    unit, time = _keys(panel)
    return table[table[value].notna()].rename(columns={"unit": unit, "time": time}).reset_index(drop=True)
