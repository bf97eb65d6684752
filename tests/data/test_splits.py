import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.tables import SCHEMA, table
from wmjax.core.errors import UserError
from wmjax.data import splits
from wmjax.data.readers import read_panel

PANEL = read_panel(table(), SCHEMA)
SIZE = st.one_of(st.integers(0, 15), st.floats(0, 0.45))


@settings(max_examples=60, deadline=None)
@given(val=SIZE, test=SIZE)
def test_parts_are_in_order_disjoint_and_cover(val, test):
    split = splits.split_times(PANEL, val=val, test=test)
    assert (np.sum(split, axis=0) == 1).all()
    part = np.argmax(split, axis=0)
    assert (np.diff(part) >= 0).all()
    assert split.train[0]
    for size, mask in ((val, split.val), (test, split.test)):
        assert mask.sum() == (size if isinstance(size, int) else max(1, round(size * 40)) if size else 0)


def test_rows_of_parts_are_the_observed_ones_also_of_a_unit_that_begins_late():
    split = splits.split_times(PANEL, val=10, test=15)
    parts = [splits.rows(PANEL, part) for part in split]
    assert np.array_equal(np.sum(parts, axis=0) == 1, PANEL.arrays.mask)
    assert not parts[0][-1].any(), "the last unit begins after the train times"
    assert parts[1][-1].any()


def test_without_a_time_column_a_share_is_of_the_rows():
    """Unit i has i + 1 rows: the last positions belong to few units, and a tenth of the positions to next to none."""
    lengths = np.arange(1, 31)
    data = pd.DataFrame({"who": np.repeat(np.arange(30), lengths), "ad": 0.0, "buy": 0.0})
    data["ad"], data["buy"] = np.arange(len(data)) % 2, np.arange(len(data)) % 3 == 0
    columns = {"ad": {"role": "action", "kind": "binary"}, "buy": {"role": "outcome", "kind": "binary"}}
    panel = read_panel(data.astype({"buy": int}), {"unit": "who", "columns": columns})
    split = splits.split_times(panel, val=0.1, test=0.2)
    train, val, test = (int(splits.rows(panel, part).sum()) for part in split)
    # 1 + .. + 14 and 15 + 16 + 17: the least above a fifth, and above a tenth, of 465.
    assert (train, val, test) == (312, 48, 105)
    assert int(splits.rows(panel, split.test).any(1).sum()) == 14
    assert splits.split_times(panel, val=2, test=3).test.sum() == 3
    with pytest.raises(UserError, match="of 30 periods; none is left"):
        splits.split_times(panel, val=0.1, test=500)


@pytest.mark.parametrize(
    ("val", "test", "words"),
    [
        (20, 20, "20 \\+ 20 of 40 periods; none is left"),
        (-1, 5, "val = -1"),
        (0.1, 1.5, "test = 1.5"),
        (0.1, -0.2, "test = -0.2"),
    ],
)
def test_sizes_that_cannot_be_are_told(val, test, words):
    with pytest.raises(UserError, match=words):
        splits.split_times(PANEL, val=val, test=test)


def test_a_part_that_nobody_was_observed_in_is_told():
    late = read_panel(table(drop=0), SCHEMA)
    mask = late.arrays.mask.copy()
    mask[:, 35:] = False
    empty = type(late)(
        arrays=late.arrays._replace(mask=mask),
        schema=late.schema,
        units=late.units,
        times=late.times,
        levels=late.levels,
    )
    with pytest.raises(UserError, match="no unit is observed in the test times, 2025-02-25 to 2025-02-28"):
        splits.split_times(empty, val=5, test=4)
