"""The consumer world: a Deep Boltzmann Machine's frozen belief, light adapters on it, and the answers they give."""

from __future__ import annotations

from wmjax.worlds.consumer.config import ConsumerConfig
from wmjax.worlds.consumer.fitting import fit
from wmjax.worlds.consumer.store import load
from wmjax.worlds.consumer.traits import ConsumerTraits
from wmjax.worlds.consumer.traits import fit as fit_traits
from wmjax.worlds.consumer.traits import load as load_traits
from wmjax.worlds.consumer.world import ConsumerWorld

__all__ = ["ConsumerConfig", "ConsumerTraits", "ConsumerWorld", "fit", "fit_traits", "load", "load_traits"]
