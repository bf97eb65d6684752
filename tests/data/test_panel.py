import dataclasses

import numpy as np
import pandas as pd
import pytest

from tests.data.tables import SCHEMA, table
from wmjax.core.errors import UserError
from wmjax.data.panel import Panel, PanelArrays, show_time
from wmjax.data.readers import read_panel


@pytest.fixture(scope="module")
def panel() -> Panel:
    return read_panel(table(), SCHEMA)


def test_the_long_table_reads_back(panel):
    again = read_panel(panel.to_frame(), panel.schema.plain())
    assert again.fingerprint == panel.fingerprint
    assert list(panel.to_frame().columns) == ["household", "day", *SCHEMA["columns"]]


@pytest.mark.parametrize(
    "change",
    [
        lambda p: {
            "arrays": p.arrays._replace(outcomes=np.where(np.arange(2) == 1, p.arrays.outcomes, 1 - p.arrays.outcomes))
        },
        lambda p: {"arrays": p.arrays._replace(mask=~p.arrays.mask)},
        lambda p: {"units": p.units[::-1]},
        lambda p: {"times": p.times + pd.Timedelta(days=1)},
        lambda p: {"levels": {**p.levels, "segment": ("x", "y", "z")}},
        lambda p: {"schema": p.schema.plain()} if p.schema != p.schema.plain() else {"schema": _renamed(p.schema)},
    ],
)
def test_any_change_moves_the_fingerprint(panel, change):
    assert dataclasses.replace(panel).fingerprint == panel.fingerprint
    assert dataclasses.replace(panel, **change(panel)).fingerprint != panel.fingerprint


def _renamed(schema):
    return dataclasses.replace(schema, unit="other")


def test_xarray_is_labelled_and_hides_what_was_not_observed(panel):
    data = panel.to_xarray()
    assert dict(data.sizes) == {"household": 7, "day": 40}
    assert data["observed"].values.tolist() == panel.arrays.mask.tolist()
    assert np.isnan(data["spend"].values[~panel.arrays.mask]).all()
    assert data["spend"].sel(household=101, day="2025-01-27") == panel.values("spend")[1, 7]
    assert data["segment"].sel(household=101) == "a"
    assert data["price"].attrs == {"role": "covariate", "kind": "continuous"}
    assert data.attrs["fingerprint"] == panel.fingerprint


def test_select_by_position_by_date_and_by_unit(panel):
    first = panel.select(times=slice(5, 15))
    assert first.times.equals(panel.times[5:15])
    assert np.array_equal(first.arrays.outcomes, panel.arrays.outcomes[:, 5:15])
    assert panel.select(times=slice("2025-01-25", "2025-02-03")).fingerprint == first.fingerprint
    assert panel.select(times=slice(-2, None)).num_times == 2
    two = panel.select(units=[104, 101])
    assert two.units == (104, 101)
    assert np.array_equal(two.arrays.static, panel.arrays.static[[4, 1]])
    assert np.array_equal(two.arrays.mask, panel.arrays.mask[[4, 1]])
    with pytest.raises(UserError, match="1 units are not in the panel, first 7"):
        panel.select(units=[101, 7])
    with pytest.raises(UserError, match="step 2"):
        panel.select(times=slice(0, 9, 2))
    with pytest.raises(UserError, match="nothing is left"):
        panel.select(times=slice(9, 9))


def test_positions_select_on_a_calendar_of_steps():
    frame = table(drop=0)
    frame["day"] = (frame["day"] - frame["day"].min()).dt.days + 30
    panel = read_panel(frame, SCHEMA)
    assert panel.select(times=slice(0, 3)).times.tolist() == [30, 31, 32]


def test_other_actions_keep_the_rest_and_respect_the_mask(panel):
    other = np.ones_like(panel.arrays.actions)
    changed = panel.with_actions(other)
    assert np.array_equal(changed.arrays.actions[..., 0], panel.arrays.mask.astype(np.float32))
    assert changed.arrays.outcomes is panel.arrays.outcomes
    assert changed.fingerprint != panel.fingerprint
    other[np.nonzero(panel.arrays.mask)[0][0], np.nonzero(panel.arrays.mask)[1][0], 1] = np.nan
    with pytest.raises(UserError, match=r"'spend': 1 actions are not finite, first at unit 100, time 2025-01-2"):
        panel.with_actions(other)
    with pytest.raises(UserError, match="shape"):
        panel.with_actions(other[:, :-1])


def test_a_panel_is_shown_in_a_line(panel):
    told = repr(panel)
    assert told.startswith(f"Panel({panel.num_units} units, daily, {panel.num_times} periods, ")
    assert f"{int(panel.arrays.mask.sum()):,} rows; " in told
    assert "action push, spend" in told
    assert "\n" not in told


def test_indices_and_their_errors(panel):
    assert panel.action_index("spend") == 1
    assert panel.outcome_index("visit") == 0
    with pytest.raises(UserError, match="no action 'spent'; did you mean 'spend'"):
        panel.action_index("spent")
    with pytest.raises(UserError, match="no outcome 'push'"):
        panel.outcome_index("push")


def test_arrays_that_do_not_fit_are_refused(panel):
    with pytest.raises(ValueError, match="actions has shape"):
        dataclasses.replace(panel, arrays=panel.arrays._replace(actions=panel.arrays.actions[..., :1]))
    with pytest.raises(ValueError, match="levels"):
        dataclasses.replace(panel, levels={})
    auto = dataclasses.replace(panel.schema, frequency="auto")
    with pytest.raises(ValueError, match="settled"):
        dataclasses.replace(panel, schema=auto)


def test_a_panel_may_lack_statics_covariates_and_actions():
    arrays = PanelArrays(
        np.zeros((1, 0), np.float32),
        np.zeros((1, 3, 0), np.float32),
        np.zeros((1, 3, 0), np.float32),
        np.ones((1, 3, 1), np.float32),
        np.ones((1, 3), bool),
    )
    table = pd.DataFrame({"t": [0, 1, 2], "y": 1.0})
    panel = read_panel(table, {"time": "t", "columns": {"y": {"role": "outcome", "kind": "count"}}})
    for mine, theirs in zip(panel.arrays, arrays, strict=True):
        assert mine.shape == theirs.shape
        assert np.array_equal(mine, theirs)


def test_times_are_shown_without_midnight():
    assert show_time(pd.Timestamp("2025-01-02")) == "2025-01-02"
    assert show_time(pd.Timestamp("2025-01-02 06:00")) == "2025-01-02 06:00:00"
    assert show_time(np.int64(4)) == "4"
