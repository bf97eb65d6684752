"""Edits against a second implementation, cell by cell, in NumPy float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wmjax.core.errors import UserError
from wmjax.sweep import plans
from wmjax.sweep.plans import Add, Axis, Clamp, Move, Scale, Set, Shift

NAMES = ("tv", "search", "mail", "discount")
UNITS, PERIODS = 5, 9
GROUPS = {"young": np.array([1, 0, 0, 1, 1], bool), "old": np.array([0, 1, 1, 0, 0], bool)}


@pytest.fixture
def actions():
    return np.random.default_rng(3).gamma(2.0, 5.0, (UNITS, PERIODS, len(NAMES))).astype(np.float32)


# ---- the twin: loops over cells -----------------------------------------------------------------------------------


def is_in(edit, u, t, a):
    names = NAMES if edit.action is None else (edit.action,) if isinstance(edit.action, str) else edit.action
    stop = PERIODS if edit.length is None else edit.start + edit.length
    member = edit.units is None or edit.units == "all" or GROUPS[edit.units][u]
    return NAMES[a] in names and member and edit.start <= t < stop and (t - edit.start) % edit.every == 0


def twin_cell(edit, x, u, t, a):
    old = x[u, t, a]
    if isinstance(edit, Set):
        return edit.value
    if isinstance(edit, Scale):
        return edit.factor * old
    if isinstance(edit, Add):
        return old + edit.amount
    if isinstance(edit, Clamp):
        low = -np.inf if edit.low is None else edit.low
        return min(max(old, low), np.inf if edit.high is None else edit.high)
    first, after = edit.start, min(PERIODS, PERIODS if edit.length is None else edit.start + edit.length)
    source = t - edit.periods
    if edit.edge == "wrap":
        return x[u, first + (source - first) % (after - first), a]
    if edit.edge == "zero" and not first <= source < after:
        return 0.0
    return x[u, min(max(source, first), after - 1), a]


def twin_move(edit, x):
    to = NAMES.index(edit.to)
    cells = [c for c in np.ndindex(*x.shape) if is_in(edit, *c) and c[2] != to]
    total = sum(x[c] for c in cells)
    share = edit.share if edit.share is not None else min(1.0, edit.amount / total) if total > 0 else 0.0
    new = x.copy()
    for u, t, a in cells:
        new[u, t, a] -= share * x[u, t, a]
        new[u, t, to] += share * x[u, t, a]
    return new


def twin(plan, actions):
    x = actions.astype(np.float64)
    for edit in plan:
        if isinstance(edit, Move):
            x = twin_move(edit, x)
            continue
        new = x.copy()
        for cell in np.ndindex(*x.shape):
            if is_in(edit, *cell):
                new[cell] = twin_cell(edit, x, *cell)
        x = new
    return x


def run(plan, actions, point=None, **options):
    return np.asarray(plans.apply(plan, jnp.asarray(actions), point, names=NAMES, groups=GROUPS, **options))


EDITS = {
    "set": Set(action="discount", value=0.3, start=2, length=4),
    "set a group": Set(action="tv", value=7.0, units="old"),
    "scale two": Scale(action=("tv", "mail"), factor=1.5, units="young", start=1, length=3),
    "scale all": Scale(factor=0.0, start=8, length=99),
    "add": Add(action="mail", amount=-2.0, every=3),
    "pulse": Set(action="mail", value=1.0, start=1, length=7, every=2),
    "clamp": Clamp(low=4.0, high=9.0, action=("tv", "search")),
    "clamp above": Clamp(high=5.0, units="young"),
    "move a share": Move(action="tv", to="search", share=0.25, start=3, length=2),
    "move an amount": Move(action=("tv", "mail"), to="search", amount=40.0, units="old"),
    "move more than there is": Move(action="tv", to="mail", amount=1e6, start=7),
    "move to one of the givers": Move(action=("tv", "search"), to="tv", share=0.5),
    "later": Shift(action="tv", periods=2),
    "earlier": Shift(action="tv", periods=-3, start=2, length=5, edge="hold"),
    "round": Shift(periods=4, start=1, length=6, edge="wrap", units="old"),
    "round backwards": Shift(periods=-11, edge="wrap"),
    "far": Shift(periods=100, edge="hold"),
    "nothing": Set(value=1.0, length=0),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_each_edit_is_its_twin_and_leaves_other_cells_their_bits(edit, actions):
    actions[0, 0] = -0.0  # a bit that a sum with zero would lose
    found = run((edit,), actions)
    np.testing.assert_allclose(found, twin((edit,), actions), rtol=2e-6, atol=1e-6)
    touched = np.array([is_in(edit, *c) for c in np.ndindex(*actions.shape)]).reshape(actions.shape)
    if isinstance(edit, Move):
        touched[..., NAMES.index(edit.to)] |= touched.any(-1)
    assert (found.view(np.uint32) == actions.view(np.uint32))[~touched].all()
    assert found.dtype == np.float32


def test_edits_apply_in_order(actions):
    first, second = Add(action="tv", amount=3.0), Scale(action="tv", factor=2.0, start=4)
    there, back = run((first, second), actions), run((second, first), actions)
    np.testing.assert_allclose(there, twin((first, second), actions), rtol=1e-6)
    np.testing.assert_allclose(back, twin((second, first), actions), rtol=1e-6)
    assert not np.allclose(there, back)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(sorted(EDITS)), max_size=4))
def test_plans_compose(names):
    actions = np.random.default_rng(1).gamma(2.0, 5.0, (UNITS, PERIODS, len(NAMES))).astype(np.float32)
    plan = tuple(EDITS[n] for n in names)
    np.testing.assert_allclose(run(plan, actions), twin(plan, actions), rtol=1e-5, atol=1e-5)


def test_moves_keep_the_budget_of_each_unit_and_period(actions):
    for name in ("move a share", "move an amount", "move more than there is", "move to one of the givers"):
        moved = run((EDITS[name],), actions)
        np.testing.assert_allclose(moved.sum(-1), actions.sum(-1), rtol=1e-6)
        assert (moved >= 0).all()
    moved = run((EDITS["move an amount"],), actions)
    # What search gained is the 40 that were asked for.
    np.testing.assert_allclose((moved - actions)[..., 1].sum(), 40.0, rtol=1e-5)
    np.testing.assert_allclose(run((EDITS["round"],), actions).sum(1), actions.sum(1), rtol=1e-6)


def test_a_move_from_nothing_moves_nothing_and_has_a_gradient(actions):
    actions[..., 0] = 0.0
    edit = Move(action="tv", to="search", amount=5.0)
    assert (run((edit,), actions) == actions).all()
    slope = jax.grad(lambda x: plans.apply((edit,), x, names=NAMES)[..., 1].sum())(jnp.asarray(actions))
    assert np.isfinite(slope).all()


def test_one_program_serves_every_point(actions):
    """Numbers, windows, actions and groups from the grid: as if each plan had been written out."""
    plan = (
        Set(action=Axis("what"), units=Axis("who"), value=Axis("level"), start=Axis("start"), length=Axis("weeks")),
        Move(action="tv", to=Axis("what"), share=Axis("share")),
        Clamp(action="mail", high=Axis("cap")),
        Shift(action="discount", periods=Axis("delay"), start=2),
    )
    choices = {"what": ("search", "mail"), "who": ("all", "old", "young")}
    traces = []

    @jax.jit
    def program(points):
        traces.append(1)
        return jax.vmap(
            lambda p: plans.apply(plan, jnp.asarray(actions), p, names=NAMES, groups=GROUPS, choices=choices)
        )(points)

    grid = list(itertools.product((0, 1), (0, 1, 2), (2.5, 0.0), (0, 6), (1, 20), (0.0, 0.4), (6.0,), (-1, 3)))
    keys = ("what", "who", "level", "start", "weeks", "share", "cap", "delay")
    columns = {
        k: np.array(v, np.float32 if isinstance(v[0], float) else np.int32)
        for k, v in zip(keys, zip(*grid, strict=True), strict=True)
    }
    for point, found in zip(grid, np.asarray(program(columns)), strict=True):
        what, who, level, start, weeks, share, cap, delay = point
        name = choices["what"][what]
        written = (
            Set(action=name, units=choices["who"][who], value=level, start=start, length=weeks),
            Move(action="tv", to=name, share=share),
            Clamp(action="mail", high=cap),
            Shift(action="discount", periods=delay, start=2),
        )
        np.testing.assert_allclose(found, twin(written, actions), rtol=2e-6, atol=1e-6)
    program({k: v[::-1].copy() for k, v in columns.items()})
    assert len(traces) == 1
    assert plans.axes(plan) == ("what", "who", "start", "weeks", "level", "share", "cap", "delay")


def test_what_no_edit_names_is_not_planned(actions):
    """Names that the grid chooses among, and both ends of a move, are planned; columns are those of the whole."""
    plan = (Set(action=Axis("what"), value=3.0), Move(action="mail", to="search", share=0.5))
    how = {"names": NAMES, "groups": GROUPS, "choices": {"what": ("mail", "discount")}}
    found = plans.columns(plan, jnp.asarray(actions), {"what": 1}, **how)
    assert [NAMES[at] for at, column in enumerate(found) if column is None] == ["tv"]
    assert plans.moved(plan, names=NAMES, choices=how["choices"]) == [column is not None for column in found]
    whole = plans.apply(plan, jnp.asarray(actions), {"what": 1}, **how)
    np.testing.assert_array_equal(plans.filled(found, jnp.asarray(actions)), whole)
    np.testing.assert_array_equal(plans.filled((None,) * len(NAMES), jnp.asarray(actions)), actions)
    with pytest.raises(UserError, match="action 'tw'"):
        plans.columns((Move(action="tv", to="tw", share=0.5),), jnp.asarray(actions), names=NAMES)


def test_one_unit_one_period():
    x = np.full((1, 1, 4), 2.0, np.float32)
    assert plans.apply((Shift(periods=1, edge="wrap"),), jnp.asarray(x), names=NAMES).tolist() == x.tolist()
    assert plans.apply((Shift(periods=1),), jnp.asarray(x), names=NAMES).tolist() == [[[0.0] * 4]]
    beyond = Shift(periods=1, start=5, edge="hold")
    assert plans.apply((beyond,), jnp.asarray(x), names=NAMES).tolist() == x.tolist()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Set(value=1.0, start=-1), "start is -1"),
        (lambda: Set(value=1.0, start=1.5), "start is 1.5"),
        (lambda: Set(value=1.0, every=0), "every is 0"),
        (lambda: Clamp(action="tv"), "needs low or high"),
        (lambda: Clamp(low=2.0, high=1.0), "low is 2.0"),
        (lambda: Move(action="tv", to="mail"), "share or an amount"),
        (lambda: Move(action="tv", to="mail", share=1.5), "share is 1.5"),
        (lambda: Move(action="tv", to="mail", amount=-1.0), "amount is -1.0"),
        (lambda: Shift(periods=1, every=2), "every is 2"),
        (lambda: Shift(periods=0.5), "periods is 0.5"),
    ],
)
def test_edits_that_make_no_sense_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (Set(action="tvv", value=1.0), "action 'tvv'; did you mean 'tv'"),
        (Set(units="yung", value=1.0), "group of units 'yung'; did you mean 'young'"),
        (Set(value=Axis("levle")), "grid axis 'levle'; did you mean 'level'"),
        (Set(value=Axis("who")), "chooses among names"),
        (Set(action=Axis("level"), value=1.0), "choice axis 'level'; there are who"),
        (Set(value=1.0, start=Axis("level")), "must be whole numbers"),
    ],
)
def test_names_that_are_not_there_are_named(edit, words, actions):
    point = {"level": jnp.float32(1.0), "who": jnp.int32(0)}
    with pytest.raises(UserError, match=words):
        run((edit,), actions, point, choices={"who": ("young", "old")})
