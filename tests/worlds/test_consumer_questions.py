"""The questions that a report asks by itself."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.data.tables import SCHEMA, table
from wmjax.core.errors import UserError
from wmjax.data.readers import read_panel
from wmjax.report.run import Run
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


def test_commands_ask_the_reports_contrast_where_none_is_given(monkeypatch):
    panel = read_panel(table(), SCHEMA)
    monkeypatch.setattr(Run, "panel", lambda self, levels: panel)
    world = SimpleNamespace(levels=panel.levels, periods=lambda panel, part: slice(0, 30))
    push, spend = default_questions(panel, slice(0, 30))
    ask = lambda action, t0=None, t1=None: Run(Path("run")).contrast(world, action, t0, t1)  # noqa: E731
    assert ask("push") == (push.t0, push.t1) == (0, 1)
    assert ask("spend") == (spend.t0, spend.t1) != (0, 1)
    assert ask("spend", t1=7.0) == (spend.t0, 7)
    with pytest.raises(UserError, match=r"no action 'spent'; did you mean 'spend'"):
        ask("spent")
