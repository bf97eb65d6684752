"""The pieces of the media experiments: the truth they ask for, the scores, the tables they read."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from experiments import mmm_public, mmm_recovery
from experiments.common import Cell
from wmjax.baselines import media as regressions
from wmjax.core.errors import UserError

SIZE = mmm_recovery.SMALLEST


@pytest.fixture(scope="module")
def asked():
    return mmm_recovery.ask(0, 2.0, SIZE)


@pytest.fixture(scope="module")
def true(asked):
    return mmm_recovery.truth(asked)


def test_the_truth_is_the_simulators(asked, true):
    """ROI in the train weeks, from the simulator's own media; float32 sums of outcomes of 100 in 96 rows."""
    train = asked.split.train
    media = (asked.sim.outcome - asked.sim.without)[:, train].sum()
    assert (true.roi[0] * asked.cost).sum() == pytest.approx(media, rel=1e-3)
    np.testing.assert_allclose(true.outcome, asked.sim.outcome, rtol=1e-5)


def test_the_truth_scores_perfectly_and_twice_the_truth_does_not(asked, true):
    cell = lambda q: Cell("s", "m", q)  # noqa: E731
    got = mmm_recovery.score("s", "m", true, true, asked)
    assert got[cell("roi_mdape")] == 0
    assert got[cell("shift_sign_right")] == 1
    assert got[cell("holdout_r2")] == pytest.approx(1, abs=1e-6)
    double = true._replace(roi=2 * true.roi)
    got = mmm_recovery.score("s", "m", double, true, asked)
    assert got[cell("roi_mdape")] == pytest.approx(1)
    assert got[cell("share_mae")] == pytest.approx(0, abs=1e-6)
    assert got[cell("total_media_ratio")] == pytest.approx(2)


@pytest.mark.parametrize("method", ["ols", "adstock_hill"])
def test_a_regression_is_asked_as_it_was_fitted(asked, method):
    table = mmm_recovery.table_of(asked, SIZE.world)
    fitted = getattr(regressions, method)(table)
    found = mmm_recovery.by_regression(fitted, asked)
    np.testing.assert_allclose(found.outcome, fitted.respond(table.spend), rtol=2e-4)


def test_the_methods_of_the_main_setting_are_all_there():
    assert set(mmm_recovery.SOLE) < set(mmm_recovery.methods(mmm_recovery.MAIN, SIZE))
    assert not set(mmm_recovery.SOLE) & set(mmm_recovery.methods(0.0, SIZE))


def test_a_long_table_is_read_and_its_mediator_kept_out(tmp_path):
    weeks = [str(d.date()) for d in pd.date_range("2024-01-01", periods=12, freq="W-MON")]
    rng = np.random.default_rng(0)
    names = ("Sales", "TV", "price", "awareness")
    rows = [(w, n, 1 + rng.random()) for w in weeks for n in names]
    pd.DataFrame(rows, columns=["Period", "VariableName", "VariableValue"]).to_csv(
        tmp_path / "national_mff.csv", index=False
    )
    truth = {
        "channels": ["TV"],
        "true_contribution": {"TV": 5.0},
        "notes": {"roles": {"price": "precision", "awareness": "mediator"}},
    }
    (tmp_path / "national_truth.json").write_text(json.dumps(truth))
    got = mmm_public.national(tmp_path)
    assert got.panel.action_names == ("TV",)
    wide = pd.DataFrame(rows, columns=["week", "name", "value"]).pivot_table("value", "week", "name", aggfunc="sum")
    for name in names:
        np.testing.assert_array_equal(got.panel.values(name)[0], wide[name].to_numpy(np.float32))
    assert [str(t.date()) for t in got.panel.times] == weeks
    assert got.panel.schema.column("awareness").future == "mediator"
    from wmjax.worlds.media import prepare

    quiet = dataclasses.replace(got.cfg, trend=False, seasons=0)
    scales = prepare.fit_scales(got.panel, np.ones(12, bool), quiet)
    assert prepare.covariates(got.panel, quiet, scales).shape[-1] == 1
    with pytest.raises(UserError, match="mmm_roas_data"):
        mmm_public.roas(tmp_path)
