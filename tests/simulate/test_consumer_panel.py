"""The simulated consumers as a panel: the general frame gives the published bits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from wmjax.data import frame as frames
from wmjax.data.readers import read_panel
from wmjax.simulate import consumer_frame, consumer_numpy, consumer_panel
from wmjax.simulate.consumer import ConsumerSimConfig

CFG = ConsumerSimConfig()


@pytest.fixture(scope="module")
def sim():
    return consumer_numpy.simulate_numpy(CFG)


def test_the_general_frame_gives_the_published_bits(sim):
    panel = consumer_panel.to_panel(sim, cfg=CFG)
    train = np.arange(CFG.num_days) < 305
    frame = frames.fit_frame(panel, consumer_panel.published_recipes(), train, units="bernoulli")
    assert frame.visible.size == 72
    assert frame.visible.all_bernoulli
    np.testing.assert_array_equal(frames.build(frame, panel), consumer_frame.frame72(sim, cfg=CFG))


def test_the_panel_is_what_reading_the_table_gives():
    cfg = dataclasses.replace(CFG, num_consumers=40, num_days=50, start="2025-02-10")
    sim = consumer_numpy.simulate_numpy(cfg)
    panel = consumer_panel.to_panel(sim, cfg=cfg)
    table = consumer_frame.frame_table(sim, cfg=cfg)
    names = ["consumer_id", "date", *panel.action_names, *panel.outcome_names]
    given = {n: table[n] for n in names}
    statics = {n: np.repeat(getattr(sim.statics, n), cfg.num_days) for n in panel.static_names}
    frame = pd.DataFrame(given | statics).astype({"store": str})
    again = read_panel(frame, consumer_panel.schema())
    assert set(sim.statics.store) == set(range(10))
    for ours, theirs in zip(panel.arrays, again.arrays, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert again.fingerprint == panel.fingerprint
