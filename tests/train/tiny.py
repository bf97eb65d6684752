"""A small regression with everything a resume must carry: Adam, a persistent noisy chain, a key in the state.

`train` says each epoch it has finished, and pauses after it, so that no machine is through before it is killed.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from wmjax.core.keys import key_for
from wmjax.train import ema, loop

ADAM = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())


class State(NamedTuple):
    params: dict
    average: dict
    opt: Any
    rate: jax.Array
    chain: jax.Array
    key: jax.Array
    step: jax.Array


def make_data(seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(48, 3)).astype(np.float32)
    y = (x @ np.array([1.0, -2.0, 0.5]) + 0.1 * rng.normal(size=48)).astype(np.float32)
    return {"x": x, "y": y}


@jax.jit
def init(key, rate) -> State:
    params = {"w": jax.random.uniform(key, (3,)), "b": jnp.zeros(())}
    # The average is the parameters' own buffer, as careless callers have it.
    return State(params, params, ADAM.init(params), jnp.asarray(rate), jnp.ones(4), key_for(key, "own"), jnp.array(0))


def draw(key, shape):
    """Draw rows; `permutation` and `randint` take ten times as long to compile."""
    return (48 * jax.random.uniform(key, shape)).astype(int)


def loss_of(params, x, y):
    return jnp.mean((x @ params["w"] + params["b"] - y) ** 2)


def epoch(key, state: State, data):
    def step(state, rows):
        loss, grads = jax.value_and_grad(loss_of)(state.params, data["x"][rows], data["y"][rows])
        updates, opt = ADAM.update(grads, state.opt)
        params = optax.apply_updates(state.params, jax.tree.map(lambda u: -state.rate * u, updates))
        own, used = jax.random.split(state.key)
        chain = 0.9 * state.chain + jax.random.uniform(used, state.chain.shape)
        average = ema.update(state.average, params, state.step, decay=0.9)
        return State(params, average, opt, state.rate, chain, own, state.step + 1), loss

    rows = draw(key, (6, 8))
    state, losses = lax.scan(step, state, rows)
    return state, {"loss": losses.mean(), "chain": state.chain.mean()}


def evaluate(key, state: State, data):
    rows = draw(key, (16,))
    return {"score": loss_of(state.average, data["x"][rows], data["y"][rows])}


def averaged(state: State):
    return state.average


CONFIG = loop.LoopConfig(epochs=60, monitor="score", eval_every=2, save_every=3, save_seconds=0.0)


def train(folder, pause):
    def say(event):
        print(event.done, flush=True)
        time.sleep(pause)

    key = jax.random.key(7)  # not before: a process that has a device cannot be forked
    state = init(key_for(key, "init"), 0.05)
    given = {"data": make_data(), "evaluate": evaluate, "snapshot": averaged}
    return loop.run(key, state, epoch, cfg=CONFIG, observer=say, folder=folder, **given)


# A second model, whose metrics are read off a table: it knows the epoch it has reached and what it saw there.


def table_epoch(key, state, data):
    row = data[state["at"].max()]
    row = row if state["at"].ndim else row[0]
    return {"at": state["at"] + 1, "seen": row, "key": jnp.broadcast_to(key, state["key"].shape)}, {"loss": row}


def table_state(members=()):
    key = jnp.broadcast_to(jax.random.key(7), members)
    return {"at": jnp.zeros(members, int), "seen": jnp.zeros(members), "key": key}


def table_score(key, state, data):
    return {"score": state["seen"]}
