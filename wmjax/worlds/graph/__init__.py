"""The graph world: a directed graph between channels and outcomes, and a decoder that may only talk along it."""

from __future__ import annotations

from wmjax.worlds.graph.config import GraphConfig
from wmjax.worlds.graph.fitting import fit
from wmjax.worlds.graph.store import load
from wmjax.worlds.graph.world import GraphWorld

__all__ = ["GraphConfig", "GraphWorld", "fit", "load"]
