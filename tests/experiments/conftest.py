"""A small simulated panel for the experiments' pieces."""

from __future__ import annotations

import pytest

from experiments import consumer_data
from wmjax.simulate.consumer import ConsumerSimConfig


@pytest.fixture(scope="session")
def small_data() -> consumer_data.ConsumerData:
    cfg = ConsumerSimConfig(num_consumers=96, num_days=90, start="2025-02-10")
    return consumer_data.make(cfg, val=14, test=21)
