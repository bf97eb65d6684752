"""The questions that a report asks by itself."""

import dataclasses

import numpy as np

from tests.data.tables import SCHEMA, table
from wmjax.data.readers import read_panel
from wmjax.worlds.consumer.tables import Question, default_questions


def test_rows_after_the_train_periods_have_no_say_in_the_questions():
    panel = read_panel(table(), SCHEMA)
    push, spend = default_questions(panel, slice(0, 30))
    assert push == Question(action="push", t0=0.0, t1=1.0)
    train = panel.values("spend")[:, :30][panel.arrays.mask[:, :30]]
    assert 0 == spend.t0 < spend.t1
    assert np.isin([spend.t0, spend.t1], train).all()
    later = panel.arrays.actions.copy()
    later[:, 30:] += 100
    other = dataclasses.replace(panel, arrays=panel.arrays._replace(actions=later))
    assert default_questions(other, slice(0, 30)) == [push, spend]
