"""Small worlds, fitted once, of known effects: 96 simulated consumers over 70 days, and five geos over 48 weeks."""

from __future__ import annotations

import jax
import pytest

from wmjax.dbm.learn import LearnConfig
from wmjax.dbm.types import DBMConfig
from wmjax.heads.adapter import AdapterConfig
from wmjax.simulate import consumer_panel
from wmjax.simulate import media as media_simulated
from wmjax.simulate.consumer import ConsumerSimConfig
from wmjax.simulate.consumer_numpy import simulate_numpy
from wmjax.simulate.media import MediaSimConfig
from wmjax.worlds import consumer, media
from wmjax.worlds.consumer import ConsumerConfig
from wmjax.worlds.media.config import SMOKE

SIM = ConsumerSimConfig(num_consumers=96, num_days=70)
CFG = ConsumerConfig(
    members=3,
    epochs=2,
    machine=DBMConfig(hidden=(16, 8)),
    learn=LearnConfig(batch_size=64, num_chains=32, gibbs_steps=2, mean_field_sweeps=5),
    adapter=AdapterConfig(hidden=(16, 8), form="additive", epochs=6, patience=3, learning_rate=5e-3),
)


@pytest.fixture(scope="session")
def sim_cfg():
    return SIM


@pytest.fixture(scope="session")
def cfg():
    return CFG


@pytest.fixture(scope="session")
def simulated():
    return simulate_numpy(SIM)


@pytest.fixture(scope="session")
def fitted_panel(simulated):
    return consumer_panel.to_panel(simulated, cfg=SIM)


@pytest.fixture(scope="session")
def panel(fitted_panel):
    return fitted_panel


@pytest.fixture(scope="session")
def world(fitted_panel):
    return consumer.fit(jax.random.key(0), fitted_panel, CFG)


@pytest.fixture(scope="session")
def geos():
    return media_simulated.panel(
        media_simulated.simulate(3, MediaSimConfig(num_geos=5, num_weeks=48, num_channels=3, always_on=1))
    )


@pytest.fixture(scope="session")
def media_world(geos):
    return media.fit(jax.random.key(0), geos, SMOKE)
