"""The consumer world: a Deep Boltzmann Machine's frozen belief, light adapters on it, and the answers they give."""

from __future__ import annotations

from wmjax.worlds.consumer.config import ConsumerConfig
from wmjax.worlds.consumer.fitting import fit
from wmjax.worlds.consumer.store import load
from wmjax.worlds.consumer.world import ConsumerWorld

__all__ = ["ConsumerConfig", "ConsumerWorld", "fit", "load"]
