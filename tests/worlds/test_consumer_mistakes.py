"""Tables that no consumer world can be learnt from are refused before anything is fitted."""

import jax
import numpy as np
import pandas as pd
import pytest

from wmjax.core.errors import UserError
from wmjax.data.readers import read_panel
from wmjax.worlds import consumer

COLUMNS = {"push": {"role": "action", "kind": "binary"}, "visit": {"role": "outcome", "kind": "binary"}}


@pytest.fixture(scope="module")
def table():
    push, visit = np.random.default_rng(0).integers(0, 2, (2, 40))
    return pd.DataFrame({"id": np.repeat([1, 2], 20), "t": np.tile(np.arange(20), 2), "push": push, "visit": visit})


@pytest.mark.parametrize(
    ("schema", "rows", "words"),
    [
        ({"time": "t", "columns": COLUMNS}, 20, "names no unit column"),
        ({"unit": "id", "time": "t", "columns": COLUMNS}, 20, "the table has one"),
        ({"unit": "id", "time": "t", "columns": {"visit": COLUMNS["visit"]}}, 40, "needs an action"),
    ],
)
def test_a_table_of_one_unit_or_without_actions_is_refused(table, schema, rows, words):
    panel = read_panel(table[:rows], schema, min_units=1)
    with pytest.raises(UserError, match=words):
        consumer.fit(jax.random.key(0), panel, consumer.ConsumerConfig())
