"""What is refused before anything is rolled out."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.data.tables import SCHEMA, table
from wmjax.core.errors import UserError
from wmjax.data.readers import read_panel
from wmjax.worlds import contract


def test_one_random_key_is_asked_for():
    contract.check_key(jax.random.key(0))
    for wrong, told in (
        (0, "key is 0, must be one random key"),
        (np.zeros(2), "key is ndarray"),
        (jax.random.PRNGKey(0), r"key is \w+, must be one random key"),
        (jax.random.split(jax.random.key(0)), r"keys of shape \(2,\)"),
    ):
        with pytest.raises(UserError, match=told):
            contract.check_key(wrong)


def test_a_plan_holds_values_of_its_actions_kinds():
    panel = read_panel(table(), SCHEMA)
    contract.check_plan(panel, panel.arrays.actions)
    unit, time = (int(i[0]) for i in np.nonzero(panel.arrays.mask))
    for name, value, told in (
        ("push", 0.5, "'push': 1 actions of the plan are no binary values, first 0.5 at unit"),
        ("spend", -2.0, "'spend': 1 actions of the plan are no currency values, first -2 at unit"),
    ):
        plan = np.array(panel.arrays.actions)
        plan[unit, time, panel.action_index(name)] = value
        with pytest.raises(UserError, match=told):
            contract.check_plan(panel, plan)
    columns = [dataclasses.replace(c, kind="continuous") if c.name == "spend" else c for c in panel.schema.columns]
    signed = dataclasses.replace(panel, schema=dataclasses.replace(panel.schema, columns=tuple(columns)))
    contract.check_plan(signed, plan)
