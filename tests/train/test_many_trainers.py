"""Trainers take keys, learning rates and subsets of the data together: each member is what it is alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.core.keys import key_for
from wmjax.core.visible import Visible
from wmjax.dbm import learn as machines
from wmjax.dbm import types
from wmjax.dbm.types import DBMConfig
from wmjax.graph import learn as graphs
from wmjax.graph.causalmmm import CausalMMMConfig
from wmjax.graph.decoder import DecoderConfig
from wmjax.graph.encoder import EncoderConfig
from wmjax.graph.series import Batch, Split
from wmjax.heads import learn as adapters
from wmjax.heads.adapter import AdapterConfig
from wmjax.simulate import media as simulated
from wmjax.simulate.media import MediaSimConfig
from wmjax.train import crossing, loop, many
from wmjax.worlds.media import fitting
from wmjax.worlds.media.beginning import Begin
from wmjax.worlds.media.config import SMOKE
from wmjax.worlds.media.learning import Epoch

RATES = (0.5, 2.0)
RNG = np.random.default_rng(0)


@dataclass
class Trainer:
    """A model's own functions, two subsets of unequal size or of equal ones, and what it learns."""

    init: Any
    epoch: Any
    subsets: Any
    trained: Any
    alone: tuple[int, ...] = (1, 6)


def machine() -> Trainer:
    cfg = machines.LearnConfig(batch_size=8, num_chains=8, gibbs_steps=1, mean_field_sweeps=2)
    visible = Visible.bernoulli(6)
    rows = [(RNG.random((n, 6)) < 0.4).astype(np.uint8) for n in (24, 16)]
    parts = crossing.pad([{"rows": x, "weights": np.ones(len(x), np.float32)} for x in rows])

    def init(key, hyper, data):
        bias = machines.visible_bias(data["rows"], visible=visible, weights=data["weights"])
        params = types.init(key, bias, cfg=DBMConfig(hidden=(4, 3)))
        given = {"cfg": cfg, "visible": visible, "weights": data["weights"]}
        state = machines.init(key, params, data["rows"], **given)
        return state._replace(hyper=state.hyper._replace(learning_rate=cfg.learning_rate * hyper["rate"]))

    def epoch(key, state, data):
        return machines.epoch(key, state, data["rows"], cfg=cfg, visible=visible, weights=data["weights"])

    return Trainer(init, epoch, parts, lambda state: state.params)


def adapter() -> Trainer:
    cfg = AdapterConfig(hidden=(4,), batch_size=8)

    def part(n):
        shapes = ((n, 5), (n, 2), (n,))
        features, actions, labels = (RNG.random(s).astype(np.float32) for s in shapes)
        return adapters.AdapterData(features, actions, (labels < 0.4).astype(np.float32), np.ones(n, np.float32))

    def init(key, hyper, data):
        start = adapters.init_state(key, cfg=cfg, num_features=5, num_actions=2)
        return start._replace(rate=hyper["rate"])

    epoch = partial(adapters.epoch, cfg=cfg, kind="binary")
    return Trainer(init, epoch, crossing.pad([part(20), part(12)]), adapters.trained)


def graph(model: Any) -> Trainer:
    cfg = graphs.LearnConfig(model=model, epochs=2, batch_size=3, learning_rate=1e-2, select_window=1)

    def part(shops):
        values = RNG.normal(size=(shops, 16, 3)).astype(np.float32)
        graph = np.ones((shops, 3, 3), np.float32)
        return Batch(values, graph, RNG.normal(size=(shops, 2)).astype(np.float32))

    def init(key, hyper, data):
        return graphs.init(key, data, cfg=cfg)._replace(rate=hyper["rate"])

    parts = many.stack([jax.tree.map(jnp.asarray, Split(part(6), part(3))) for _ in range(2)])
    return Trainer(init, partial(graphs.epoch, cfg=cfg), parts, lambda state: state.params)


def media() -> Trainer:
    panel = simulated.panel(
        simulated.simulate(3, MediaSimConfig(num_geos=2, num_weeks=40, num_channels=2, always_on=1))
    )
    begun = [fitting.prepared(jax.random.key(0), panel.select(units=[u]), SMOKE, None) for u in panel.units]
    assert begun[0].learner == begun[1].learner
    luck = many.member(begun[0].luck, 0)

    def init(key, hyper, data):
        return Begin(begun[0].learner)(key, luck, data)._replace(rate=hyper["rate"])

    # One alone is another long compilation; tests/worlds/test_media_each.py compares whole worlds.
    parts = many.stack([b.data for b in begun])
    return Trainer(init, Epoch(begun[0].learner), parts, lambda state: state.params, alone=())


TRAINERS = {
    "machine": machine,
    "adapter": adapter,
    "decoder": lambda: graph(DecoderConfig(hidden=4, embedding=2, horizon=2, first=6, stride=4)),
    "encoder": lambda: graph(EncoderConfig(hidden=4, edge_hidden=4, embedding=2, lags=2, horizon=2)),
    "causalmmm": lambda: graph(CausalMMMConfig(hidden=4, horizon=2)),
    "media": media,
}
CFG = loop.LoopConfig(epochs=2)


@pytest.mark.parametrize("name", TRAINERS)
def test_keys_rates_and_subsets_in_one_program(name):
    own = TRAINERS[name]()
    grid = crossing.cross(jax.random.key(1), seeds=2, hyper={"rate": RATES}, subsets=("north", "south"))
    given = {"cfg": CFG, "snapshot": own.trained}
    done, history = many.fit_many(
        grid.key, grid.hyper, own.init, own.epoch, subsets=own.subsets, which=grid.which, **given
    )
    assert not crossing.table(done, grid.labels)["diverged"].any()
    leaves = [np.asarray(x).reshape(8, -1) for x in jax.tree.leaves(done.best)]
    flat = np.concatenate(leaves, axis=1)
    assert len(np.unique(flat.round(5), axis=0)) == 8  # seed, rate and subset each make another model
    for m in own.alone:
        data = many.member(own.subsets, int(grid.which[m]))
        hyper = {"rate": grid.hyper["rate"][m]}
        start = jax.jit(own.init)(key_for(grid.key[m], "train/init"), hyper, data)
        alone, told = loop.run(grid.key[m], start, own.epoch, data=data, **given)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4), many.member(done.best, m), alone.best
        )
        for metric, values in told.items():
            np.testing.assert_allclose(history[metric][:, m], values, rtol=2e-3, atol=1e-4)
