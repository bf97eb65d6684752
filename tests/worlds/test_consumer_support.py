"""Support given the history and the other actions, on hand-made rows."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from wmjax.core.visible import Visible
from wmjax.data.schema import read_schema
from wmjax.evaluate import overlap
from wmjax.worlds.consumer import support
from wmjax.worlds.consumer.rows import Rows

VISIBLE = Visible.bernoulli(3)
SCHEMA = read_schema(
    {
        "unit": "id",
        "columns": {
            "tv": {"role": "action", "kind": "binary"},
            "push": {"role": "action", "kind": "binary"},
            "spend": {"role": "action", "kind": "currency"},
            "visit": {"role": "outcome", "kind": "binary"},
        },
    }
)


@pytest.fixture(scope="module")
def rows():
    """TV by a coin, and as much spent as TV runs, twice; push by a coin of its own."""
    rng, n = np.random.default_rng(0), 2000
    tv, push = rng.integers(0, 2, (2, n))
    return Rows(
        visible=rng.integers(0, 2, (n, 3)).astype(np.float32),
        actions=np.column_stack([tv, push, 2.0 * tv]).astype(np.float32),
        outcomes=np.zeros((n, 1), np.float32),
        unit=np.arange(n),
        time=np.zeros(n, int),
        units=tuple(range(n)),
        times=pd.RangeIndex(1),
        first=0,
    )


def test_actions_that_come_together_are_not_identified(rows):
    found = support.fit(rows, visible=VISIBLE, schema=SCHEMA)
    assert {name: report.deterministic for name, report in found.items()} == {"tv": True, "push": False, "spend": True}
    assert found["tv"].reason == "tv is 1 exactly where spend is at least 2"
    assert found["spend"].reason == "spend is a function of tv"
    assert found["push"].supported(support.given(rows, 1), 0, 1).all()


def test_the_columns_are_named_in_their_order(rows):
    assert support.layer(VISIBLE, SCHEMA, 1).labels == (*VISIBLE.labels, "tv", "spend")
    np.testing.assert_array_equal(support.given(rows, 1)[:, 3:], rows.actions[:, [0, 2]])


def test_a_pair_that_was_seen_three_times_passes_the_regressions_and_not_the_count():
    """A scanner panel's counts: display in 63 of 2,798 rows, feature in 91, both in 3, whatever the history."""
    rng = np.random.default_rng(0)
    pairs = np.repeat([[0, 0], [0, 1], [1, 0], [1, 1]], [2647, 88, 60, 3], axis=0)[rng.permutation(2798)]
    n = len(pairs)
    rows = Rows(
        visible=rng.integers(0, 2, (n, 3)).astype(np.float32),
        actions=np.column_stack([pairs, rng.exponential(size=n)]).astype(np.float32),
        outcomes=np.zeros((n, 1), np.float32),
        unit=np.arange(n),
        time=np.zeros(n, int),
        units=tuple(range(n)),
        times=pd.RangeIndex(1),
        first=0,
    )
    reports = support.fit(rows, visible=VISIBLE, schema=SCHEMA)
    joint = support.fit_together(rows, reports, schema=SCHEMA)
    strata = joint.strata_of(rows.visible)
    none = pairs.sum(1) == 0
    for pair, refused in (((1, 1), True), ((1, 0), False), ((0, 1), False)):
        planned = rows.actions.copy()
        planned[none, :2] = pair
        alone = support.alone(reports, rows, planned)
        apart = joint.apart(planned, planned != rows.actions, strata)
        assert not alone.any()
        assert apart[none].any(1).all() if refused else not apart.any()
    both = rows.actions.copy()
    both[:, :2] = 1
    plan = both[:, None]
    told = support.warnings_of_plans(reports, joint, rows, plan, facts={})
    assert [line.split(" of the ")[0] for line in told] == ["tv: 2,735", "push: 2,707"]


def test_a_value_that_few_rows_or_units_had_is_told_of():
    """Of 4,000 rows two in three pushed, 99 on tv: the rarer value counts, by rows and by units."""
    actions = np.zeros((4000, 3), np.float32)
    actions[:99, 0] = 1
    actions[:2667, 1] = 1
    rows = Rows(
        visible=np.zeros((4000, 3), np.float32),
        actions=actions,
        outcomes=np.zeros((4000, 1), np.float32),
        unit=np.arange(4000) % 50,
        time=np.arange(4000) // 50,
        units=tuple(range(50)),
        times=pd.RangeIndex(80),
        first=0,
    )
    counts = support.rarer(rows, schema=SCHEMA)
    assert counts == {"tv": (1, 99, 50), "push": (0, 1333, 50)}
    noise = np.random.default_rng(0).normal(size=(400, 2))
    report = overlap.fit_overlap("tv", noise, np.arange(400) % 2, kind="binary")
    reports = {"tv": report, "push": report}
    (line,) = support.reasons(reports, {"rarer": counts}, ("tv", "push"))
    assert line.startswith("tv: was 1 in 99 of the rows learnt from, of 50 units")
    assert support.reasons(reports, {"rarer": counts}, ("push",)) == []
    (line,) = support.reasons(reports, {"rarer": {"push": (0, 1333, 29)}}, ("push",))
    assert "push: was 0 in 1,333" in line
    steered = {"push": dataclasses.replace(report, ess=12.4)}
    (line,) = support.reasons(steered, {"rarer": counts}, ("push",))
    assert line.startswith("push: the comparable rows learnt from tell as much as 12 drawn by a coin")


def test_what_an_effect_stands_on_is_said():
    values = np.array([0.0, 1.0, 1.0])
    push = SCHEMA.column("push")
    chosen, count = support.circumstances(push, values, 1.0)
    assert "push is not declared randomised" in chosen
    assert count == "push was 1 in 2 of the 3 rows asked about"
    assert support.circumstances(SCHEMA.column("spend"), 5 * values, 2.0)[-1] == (
        "spend was from 0 to 5 in the 3 rows asked about"
    )
    drawn = dataclasses.replace(push, randomised=True, propensity=0.5)
    assert support.circumstances(drawn, values, 1.0) == [count]
