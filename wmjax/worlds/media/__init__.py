"""The media world: a three-stream causal transformer over spend, covariates and outcome, and what it attributes."""

from __future__ import annotations

from wmjax.transformer.losses import ROIPrior
from wmjax.worlds.media.config import MediaConfig
from wmjax.worlds.media.each import MediaWorlds, fit_each
from wmjax.worlds.media.fitting import fit
from wmjax.worlds.media.store import load
from wmjax.worlds.media.world import MediaWorld

__all__ = ["MediaConfig", "MediaWorld", "MediaWorlds", "ROIPrior", "fit", "fit_each", "load"]
