"""Combinations of actions: counted against brute force, refused where hardly ever seen, or not among like rows."""

import itertools
import json

import numpy as np
import pytest

from wmjax.evaluate import together
from wmjax.evaluate.together import LEAST, NEAR, STRATA, Together


def fitted(actions, features=None, weights=None, kinds=None, widths=None, settled=None):
    count = actions.shape[1]
    features = np.zeros((len(actions), 1), np.float32) if features is None else features
    return together.fit(
        actions.astype(np.float32),
        features,
        np.zeros((count, features.shape[1])) if weights is None else weights,
        kinds=kinds or ["binary"] * count,
        widths=widths or [0.0] * count,
        settled=settled or [False] * count,
    )


def asked(own, planned, was, features=None):
    """Which moved cells of rows are refused."""
    planned, was = (np.atleast_2d(np.asarray(x, np.float32)) for x in (planned, was))
    features = np.zeros((len(planned), own.weights.shape[1])) if features is None else features
    return own.apart(planned, planned != was, own.strata_of(features))


def table(**counts):
    """Rows of two bits: `table(n11=3, ..)`."""
    return np.concatenate([np.tile([int(k[1]), int(k[2])], (n, 1)) for k, n in counts.items()]).astype(float)


def test_two_that_each_overlap_but_never_together():
    """By a coin each where the other is not: each alone is allowed from nothing, both together are not."""
    own = fitted(table(n00=500, n10=500, n01=500))
    assert asked(own, [1, 1], [0, 0]).tolist() == [[True, True]]
    assert not asked(own, [[1, 0], [0, 1]], [[0, 0], [0, 0]]).any()
    assert not asked(own, [[0, 1], [0, 0]], [[1, 0], [1, 0]]).any()
    # One of them was there already: only the one that is moved is marked.
    assert asked(own, [1, 1], [1, 0]).tolist() == [[False, True]]
    assert asked(own, [1, 1], [0, 1]).tolist() == [[True, False]]
    # What was done is asked of nobody.
    assert not asked(own, [1, 1], [1, 1]).any()


def test_two_that_come_together_pass():
    own = fitted(table(n00=500, n10=500, n01=500, n11=500))
    for planned, was in itertools.product(itertools.product((0, 1), repeat=2), repeat=2):
        assert not asked(own, planned, was).any()


@pytest.mark.parametrize(("both", "refused"), [(3, True), (LEAST - 1, True), (LEAST, False), (30, False)])
def test_a_display_with_a_feature_that_was_seen_three_times(both, refused):
    """The counts of a scanner panel: 2,798 trips, display in 63, feature in 91, both in 3."""
    own = fitted(table(n00=2647, n01=88, n10=60, n11=both))
    assert asked(own, [1, 1], [0, 0]).all() == refused
    assert not asked(own, [[1, 0], [0, 1]], [[0, 0], [0, 0]]).any()


def test_a_large_table_asks_for_more_rows():
    """A part of what single values need: 1 in 1,000 rows, or a fifth of what independent actions would have."""
    common = fitted(table(n00=25_000, n01=25_000, n10=25_000, n11=60))
    assert asked(common, [1, 1], [0, 0]).all()
    assert not asked(fitted(table(n00=25_000, n01=25_000, n10=25_000, n11=80)), [1, 1], [0, 0]).any()
    rare = fitted(table(n00=76_832, n01=1568, n10=1568, n11=32))  # two coins of 2 %
    assert not asked(rare, [1, 1], [0, 0]).any()


def test_three_at_once_are_counted_though_every_two_were_seen():
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 2, (4000, 3)).astype(float)
    own = fitted(actions[actions.sum(1) < 3])
    assert asked(own, [1, 1, 1], [0, 0, 0]).all()
    assert not asked(own, [[1, 1, 0], [0, 1, 1], [1, 0, 1]], [[0, 0, 0]] * 3).any()
    assert not asked(fitted(actions), [1, 1, 1], [0, 0, 0]).any()


def test_counts_against_brute_force():
    """Real actions and bits, any plan: the mark of each row as counted row by row."""
    rng = np.random.default_rng(1)
    rows, plans = 450, 300
    features = rng.normal(size=(rows, 3)).astype(np.float32)
    mixed = np.column_stack(
        [
            features[:, 0] + rng.normal(size=rows) > 0.8,
            rng.random(rows) < 0.05,
            np.where(rng.random(rows) < 0.6, 0, rng.exponential(size=rows)),
            rng.normal(size=rows) + features[:, 1],
        ]
    ).astype(np.float32)
    kinds = ["binary", "binary", "currency", "continuous"]
    weights = rng.normal(size=(4, 3))
    own = fitted(mixed, features, weights, kinds, [0.0, 0.0, 0.1, 0.25])
    at = rng.integers(0, rows, plans)
    was = mixed[at]
    planned = np.where(rng.random(was.shape) < 0.5, mixed[rng.integers(0, rows, plans)], was)
    planned[:20, 3] = 99.0
    found = asked(own, planned, was, features[at])

    cells, wanted, strata = own.cells(mixed), own.cells(planned), own.strata_of(features)
    assert (np.diff(np.bincount(cells[:, 3], minlength=5)[:5]) <= 1).all()  # fifths
    assert (cells[mixed[:, 2] == 0, 2] == 0).all()
    assert (cells[mixed[:, 2] > 0, 2] > 0).all()
    share = lambda k, c: (cells[:, k] == c).mean()  # noqa: E731

    def least(chosen, row):
        product = np.prod([share(k, wanted[row, k]) for k in chosen])
        return max(LEAST, min(0.001, 0.2 * product) * rows)

    want = np.zeros_like(found)
    for row in range(plans):
        moved = np.flatnonzero(planned[row] != was[row])
        sets = [tuple(moved)] if len(moved) > 2 else []
        for i, j in itertools.combinations(range(4), 2):
            one, other = i in moved, j in moved
            if (one and other) or (one and kinds[j] == "binary") or (other and kinds[i] == "binary"):
                sets.append((i, j))
        for chosen in sets:
            same = (cells[:, chosen] == wanted[row, chosen]).all(1)
            few = same.sum() < least(chosen, row)
            if len(chosen) == 2:
                for k in set(chosen) & set(moved.tolist()):
                    first = np.clip(strata[at[row], k] - NEAR // 2, 0, STRATA - NEAR)
                    near = (strata[:, k] >= first) & (strata[:, k] < first + NEAR)
                    few |= (same & near).sum() < least(chosen, row) / 4
            if few:
                want[row, [k for k in chosen if k in moved]] = True
    assert 0.05 < want.mean() < 0.9
    np.testing.assert_array_equal(found, want)


def test_a_combination_seen_only_among_unlike_rows_is_refused():
    """Both at once only where the history is high; each alone everywhere."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(4000, 1)).astype(np.float32)
    first, second = (rng.random((2, 4000)) < 1 / (1 + np.exp(-x[:, 0]))).astype(float)
    second[(x[:, 0] < 0.5) & (first == 1)] = 0
    own = fitted(np.column_stack([first, second]), x, np.ones((2, 1)))
    there = np.array([[-1.5], [-1.0], [1.0], [1.5]], np.float32)
    found = asked(own, np.ones((4, 2)), np.zeros((4, 2)), there)
    assert found.tolist() == [[True, True], [True, True], [False, False], [False, False]]


def test_what_the_features_settle_is_no_part_of_a_combination():
    """A sale on Sundays that was never before does not refuse all else."""
    own = fitted(table(n00=500, n10=500), settled=[False, True])
    assert not asked(own, [1, 1], [0, 1]).any()
    assert asked(fitted(table(n00=500, n10=500)), [1, 1], [0, 1]).tolist() == [[True, False]]


def test_one_row_and_no_spread():
    own = fitted(np.array([[0.0, 1.0]]))
    assert asked(own, [1, 0], [0, 0]).tolist() == [[True, False]]
    assert own.rows == 1


def test_it_survives_json():
    rng = np.random.default_rng(3)
    mixed = np.column_stack([rng.integers(0, 2, 200), np.where(rng.random(200) < 0.9, 0, 1.5)])
    own = fitted(mixed, rng.normal(size=(200, 2)), rng.normal(size=(2, 2)), ["binary", "currency"], [0.0, 0.5])
    back = Together.from_json(json.loads(json.dumps(own.to_json(), allow_nan=False)))
    for name in own.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(own, name), getattr(back, name))
    planned = mixed[rng.permutation(200)]
    np.testing.assert_array_equal(asked(own, planned, mixed), asked(back, planned, mixed))
