"""Geos whose media spend follows the demand that it is meant to raise; every effect is known.

    demand_g,t  = 0.6 season_t + AR(1, 0.8, sd 0.3), half of its variance shared by all geos
    spend_k     = on_k exp(confounding s_k demand / 4 + feedback s_k y_{t-1} / 10 + 0.35 noise) 0.45
    media_k     = beta_k hill(adstock_k(spend_k))
    outcome     = base_g + 18 demand - 4 price + 8 holiday + sum_k media_k + synergy media_0 media_1 + N(0, noise)

with `y_{t-1}` the outcome of the week before less the geo's base. An analyst sees a proxy of demand, which misses a
share of it and adds noise, price and holidays. What spend would have done under another plan is `respond`.

By default this is of the family that the models here assume. It can be of another: carry-over that peaks late, another
form of saturation, spend planned by the season, noise that lasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from wmjax.data.panel import Panel, PanelArrays
from wmjax.data.schema import Column, PanelSchema

START = "2022-01-03"


@dataclass(frozen=True, kw_only=True)
class MediaSimConfig:
    """What is drawn.

    Attributes:
        num_geos, num_weeks, num_channels: size.
        confounding: how strongly spend follows demand.
        proxy_noise: standard deviation of the noise on the demand that an analyst sees.
        hidden: share of demand's irregular variance that the proxy misses.
        feedback: how strongly spend follows last week's outcome.
        synergy: strength of the product of the first two channels' media.
        always_on: channels, the last ones, that never pause; the others are on in flights.
        noise: standard deviation of the outcome's own noise.
        carry: weeks of carry-over.
        delay: carry-over l weeks later weighs theta^((l - peak)^2), peaks drawn up to this many weeks (Jin et al.
            2017); 0 is theta^l.
        saturation: `hill`, or `exponential`, 1 - 2^-(x / half).
        seasonal: how strongly spend follows the season by plan, whatever demand does.
        memory: correlation of a geo's noise with its last week's.
    """

    num_geos: int = 20
    num_weeks: int = 156
    num_channels: int = 5
    confounding: float = 2.0
    proxy_noise: float = 0.1
    hidden: float = 0.0
    feedback: float = 0.0
    synergy: float = 0.0
    always_on: int = 2
    noise: float = 2.0
    carry: int = 13
    delay: float = 0.0
    saturation: Literal["hill", "exponential"] = "hill"
    seasonal: float = 0.0
    memory: float = 0.0

    def __post_init__(self) -> None:
        for name in ("num_geos", "num_weeks", "num_channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if not 0 <= self.always_on <= self.num_channels:
            raise ValueError(f"always_on is {self.always_on}, must be from 0 to num_channels = {self.num_channels}")
        if not 0 <= self.hidden <= 1:
            raise ValueError(f"hidden is {self.hidden}, must be a share")
        if self.synergy and self.num_channels < 2:
            raise ValueError("synergy needs two channels")
        if not 0 <= self.delay <= self.carry:
            raise ValueError(f"delay is {self.delay}, must be from 0 to carry = {self.carry}")
        if self.saturation not in ("hill", "exponential"):
            raise ValueError(f"saturation is {self.saturation!r}, must be hill or exponential")
        if not 0 <= self.memory < 1:
            raise ValueError(f"memory is {self.memory}, must be in [0, 1)")


class MediaTruth(NamedTuple):
    """The true curves: [channels] each but `synergy`, one number.

    peak: weeks after which carry-over weighs most, -1 where it falls from the start. slope: 0 of the exponential form.
    """

    beta: Float[np.ndarray, " channels"]
    theta: Float[np.ndarray, " channels"]
    half: Float[np.ndarray, " channels"]
    slope: Float[np.ndarray, " channels"]
    peak: Float[np.ndarray, " channels"]
    synergy: float


class MediaSim(NamedTuple):
    """What happened and why. [geos, weeks, ..] each.

    spend: [.., channels]. outcome; without: the outcome had there been no spend, its own noise included. demand, proxy,
    price, holiday: what moved it and what of it was seen.
    """

    truth: MediaTruth
    spend: Float[np.ndarray, "geos weeks channels"]
    outcome: Float[np.ndarray, "geos weeks"]
    without: Float[np.ndarray, "geos weeks"]
    demand: Float[np.ndarray, "geos weeks"]
    proxy: Float[np.ndarray, "geos weeks"]
    price: Float[np.ndarray, "geos weeks"]
    holiday: Float[np.ndarray, "geos weeks"]


def simulate(seed: int, cfg: MediaSimConfig) -> MediaSim:
    """Draw a panel, in float64 on the host."""
    rng = np.random.default_rng(seed)
    shape = (cfg.num_geos, cfg.num_weeks)
    k = cfg.num_channels
    # Draws of their own, whatever is asked for: all else is the same with and without them.
    other = np.random.default_rng([seed, 1])
    late, lean = other.uniform(0.0, 1.0, k), other.uniform(0.5, 1.5, k)
    truth = MediaTruth(
        beta=rng.uniform(1.5, 6.0, k),
        theta=rng.uniform(0.1, 0.7, k),
        half=rng.uniform(0.3, 0.8, k),
        slope=rng.uniform(0.9, 1.8, k) * (cfg.saturation == "hill"),
        peak=cfg.delay * late if cfg.delay else np.full(k, -1.0),
        synergy=cfg.synergy,
    )
    seen, unseen = (_wander(rng, shape) for _ in range(2))
    season = np.sin(2 * np.pi * (np.arange(cfg.num_weeks) / 52 - 0.2))
    regular = 0.6 * season + np.sqrt(1 - cfg.hidden) * seen
    demand = regular + np.sqrt(cfg.hidden) * unseen
    proxy = regular + cfg.proxy_noise * rng.normal(size=shape)
    price = 10 + 0.5 * rng.normal(size=shape)
    holiday = np.broadcast_to((np.arange(cfg.num_weeks) % 52 >= 49).astype(float), shape)
    base = rng.normal(100, 8, (cfg.num_geos, 1))
    left = 18 * demand - 4 * (price - 10) + 8 * holiday + cfg.noise * _lasting(rng.normal(size=shape), cfg.memory)
    follow = rng.uniform(0.5, 1.5, k)
    on, luck = _flights(rng, cfg), rng.normal(size=(*shape, k))
    spend = np.zeros((*shape, k))
    outcome = np.zeros(shape)
    for t in range(cfg.num_weeks):
        last = outcome[:, t - 1 : t] / 10 if t else np.zeros((cfg.num_geos, 1))
        pull = follow * (cfg.confounding * demand[:, t, None] / 4 + cfg.feedback * last)
        pull = pull + cfg.seasonal * lean * season[t]
        spend[:, t] = on[:, t] * np.exp(np.minimum(pull + 0.35 * luck[:, t], 3.0)) * 0.45
        recent = spend[:, max(0, t - cfg.carry) : t + 1]
        outcome[:, t] = left[:, t] + np.asarray(combined(truth, recent, np))[:, -1]
    return MediaSim(truth, spend, outcome + base, left + base, demand, proxy, price, holiday)


def _wander(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw AR(1) series of standard deviation 0.3, half of their variance shared by all rows."""

    def walk(rows: int) -> np.ndarray:
        x = np.zeros((rows, shape[1]))
        x[:, 0] = rng.normal(size=rows)
        for t in range(1, shape[1]):
            x[:, t] = 0.8 * x[:, t - 1] + 0.6 * rng.normal(size=rows)
        return x

    return 0.3 * (walk(1) + walk(shape[0])) / np.sqrt(2)


def _lasting(noise: np.ndarray, memory: float) -> np.ndarray:
    """Let each week keep a part of the last one's noise; the variance stays."""
    found = noise.copy()
    for t in range(1, noise.shape[1]) if memory else ():
        found[:, t] = memory * found[:, t - 1] + np.sqrt(1 - memory**2) * noise[:, t]
    return found


def _flights(rng: np.random.Generator, cfg: MediaSimConfig) -> np.ndarray:
    """Draw 0 and 1: flights of four weeks, on with probability 0.7; the last channels are always on."""
    blocks = -(-cfg.num_weeks // 4)
    on = rng.random((cfg.num_geos, blocks, cfg.num_channels)) < 0.7
    on[..., cfg.num_channels - cfg.always_on :] = True
    return np.repeat(on, 4, axis=1)[:, : cfg.num_weeks].astype(float)


def _media(truth: MediaTruth, spend: np.ndarray | Array, carry: int, xp: object) -> np.ndarray | Array:
    """Give each channel's own contribution `[geos, weeks, channels]`, with NumPy or with JAX."""
    np_ = np if xp is np else jnp
    lags = np.arange(carry + 1)[:, None]
    weights = truth.theta ** np_.where(truth.peak < 0, 1.0 * lags, (lags - truth.peak) ** 2)
    weights = weights / weights.sum(0)
    weeks = spend.shape[1]
    padded = np_.concatenate([np_.zeros((spend.shape[0], carry, spend.shape[2])), spend], axis=1)
    stock = sum(weights[lag] * padded[:, carry - lag : carry - lag + weeks] for lag in range(carry + 1))
    some = np_.where(stock > 0, stock, 1.0)
    raised = some**truth.slope
    bent = np_.where(truth.slope > 0, raised / (raised + truth.half**truth.slope), 1 - 2.0 ** -(some / truth.half))
    return np_.where(stock > 0, truth.beta * bent, 0.0)


def combined(truth: MediaTruth, spend: np.ndarray | Array, xp: object, carry: int = 13) -> np.ndarray | Array:
    """Sum the channels' contributions and their synergy: `[geos, weeks]`."""
    own = _media(truth, spend, carry, xp)
    total = own.sum(-1)
    return total + truth.synergy * own[..., 0] * own[..., 1] if own.shape[-1] > 1 else total


def contributions(sim: MediaSim, *, carry: int = 13) -> Float[np.ndarray, "geos weeks channels"]:
    """Give what each channel added alone, without synergy."""
    return np.asarray(_media(sim.truth, sim.spend, carry, np))


def respond(
    sim: MediaSim, spend: Float[Array | np.ndarray, "geos weeks channels"], *, cfg: MediaSimConfig
) -> Float[Array, "geos weeks"]:
    """Give the outcome under another plan, all else as it happened; JAX can map and differentiate it."""
    return jnp.asarray(sim.without, jnp.float32) + combined(sim.truth, jnp.asarray(spend, jnp.float32), jnp, cfg.carry)


def panel(sim: MediaSim) -> Panel:
    """Give what an analyst sees: spend in currency, the proxy of demand, price, holidays, sales."""
    geos, weeks, channels = sim.spend.shape
    columns = [
        Column(name="demand_proxy", role="covariate", kind="continuous"),
        Column(name="price", role="covariate", kind="continuous", future="known"),
        Column(name="holiday", role="covariate", kind="binary", future="known"),
        *(Column(name=f"channel_{k}", role="action", kind="currency") for k in range(channels)),
        Column(name="sales", role="outcome", kind="continuous"),
    ]
    schema = PanelSchema(unit="geo", time="week", frequency="weekly", columns=tuple(columns))
    return Panel(
        arrays=PanelArrays(
            static=np.zeros((geos, 0), np.float32),
            covariates=np.stack([sim.proxy, sim.price, sim.holiday], -1).astype(np.float32),
            actions=sim.spend.astype(np.float32),
            outcomes=sim.outcome[..., None].astype(np.float32),
            mask=np.ones((geos, weeks), bool),
        ),
        schema=schema,
        units=tuple(f"geo_{g:02d}" for g in range(geos)),
        times=pd.date_range(START, periods=weeks, freq="W-MON"),
        levels={},
    )
