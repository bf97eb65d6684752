"""A simulation of the user's own, swept, against a loop over its plans."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.core.errors import UserError
from wmjax.core.keys import key_for
from wmjax.sweep import axes, engine, plans, simulating
from wmjax.sweep.moments import Moments
from wmjax.sweep.plans import Axis
from wmjax.sweep.reduce import Full

NAMES = ("tv", "radio")
KEY = jax.random.key(3)
ACTIONS = np.arange(2 * 5 * 2, dtype=np.float32).reshape(2, 5, 2) / 10
HISTORY = np.array([1.0, 2.0], np.float32)
PARAMS = {"response": np.array([[1.0, 0.5], [2.0, -0.5]], np.float32)}
"""Of two members."""
GROUPS = {"north": np.array([True, False]), "south": np.array([False, True])}


def simulate(key, params, history, actions, *, carry=0.5):
    """Sales by unit and period: what is heard carries over, with luck."""

    def step(state, inputs):
        action, luck = inputs
        state = carry * state + action @ params["response"] + 0.1 * luck
        return state, state

    luck = jax.random.normal(key, actions.shape[:2])
    return jax.lax.scan(step, history, (jnp.swapaxes(actions, 0, 1), luck.T))[1].T


def test_every_plan_is_what_a_loop_gives():
    grid = axes.members(2) * axes.choices("segment", ("north", "all", "south")) * axes.axis("tv", [0.0, 2.5])
    grid *= axes.axis("start", [1, 3]) * axes.seeds(2)
    evaluate = simulating.of_simulate(simulate, grid, NAMES)
    found = engine.sweep(evaluate, grid, key=KEY, data=(PARAMS, HISTORY, ACTIONS, GROUPS), chunk=5)["value"]
    assert found.shape == (2, 3, 2, 2, 2, 2, 5)
    for member in range(2):
        own = {"response": PARAMS["response"][member]}
        for segment, units in (("north", [0]), ("all", [0, 1]), ("south", [1])):
            for tv in (0.0, 2.5):
                for start in (1, 3):
                    planned = ACTIONS.copy()
                    planned[units, start:, 0] = tv
                    for seed in range(2):
                        alone = simulate(key_for(KEY, "seed", seed), own, HISTORY, planned)
                        at = {"member": member, "segment": segment, "tv": tv, "start": start, "seed": seed}
                        np.testing.assert_allclose(found.sel(at).values, alone, rtol=1e-5, atol=1e-6)


def test_edits_options_and_reductions(tmp_path):
    """Written edits, an option bound before, a mean over luck; on disk, another option is another sweep."""
    grid = axes.linear("factor", 0.0, 2.0, 5) * axes.seeds(8)
    plan = (plans.Scale(action="radio", factor=Axis("factor")),)
    own, options = jax.tree.map(lambda x: x[0], PARAMS), {"key": KEY, "out": tmp_path / "s.zarr"}

    def swept(carry):
        evaluate = simulating.of_simulate(partial(simulate, carry=carry), grid, NAMES, plan=plan)
        keep = {"mean": Moments(keep=("factor",)), "": Full()}
        return engine.sweep(evaluate, grid, data=(own, HISTORY, ACTIONS), reduce=keep, **options)

    found = swept(0.25)
    loop = [
        [simulate(key_for(KEY, "seed", s), own, HISTORY, ACTIONS * np.float32([1, f]), carry=0.25) for s in range(8)]
        for f in (0.0, 0.5, 1.0, 1.5, 2.0)
    ]
    np.testing.assert_allclose(found["value"], loop, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["mean_mean"], np.mean(loop, axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(swept(0.25)["value"], found["value"])
    with pytest.raises(UserError, match="another sweep"):
        swept(0.5)


def test_what_fits_no_simulation_is_refused():
    one = axes.axis("tv", [0, 1])
    with pytest.raises(UserError, match="nothing reads the grid's axis 'radoi'; did you mean 'radio'"):
        simulating.of_simulate(simulate, one * axes.axis("radoi", [0, 1]), NAMES)
    with pytest.raises(UserError, match="2 axes of members, member and net"):
        simulating.of_simulate(simulate, one * axes.members(2) * axes.members(2, "net"), NAMES)
    evaluate = simulating.of_simulate(simulate, one, (*NAMES, "print"))
    with pytest.raises(UserError, match=r"actions have shape \(2, 5, 2\), must be \(units, periods, 3\)"):
        engine.sweep(evaluate, one, key=KEY, data=(PARAMS, HISTORY, ACTIONS))


def test_another_simulation_of_the_same_name_is_another_sweep(tmp_path):
    """What a function closes over, and its code, are its identity; the same one is answered from disk."""
    grid = axes.axis("tv", [0.0, 1.0])

    def times(factor):
        def inner(key, params, history, actions):
            return factor * actions.sum()

        return inner

    asked = {"key": KEY, "data": ({}, (), ACTIONS), "out": tmp_path / "s.zarr"}
    first = engine.sweep(simulating.of_simulate(times(1.0), grid, NAMES), grid, **asked)["value"]
    again = engine.sweep(simulating.of_simulate(times(1.0), grid, NAMES), grid, **asked)["value"]
    np.testing.assert_array_equal(first, again)
    for other in (times(10.0), times(np.float32(2.0)), lambda key, params, history, actions: actions.max()):
        with pytest.raises(UserError, match="another sweep"):
            engine.sweep(simulating.of_simulate(other, grid, NAMES), grid, **asked)
