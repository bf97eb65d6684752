"""Shops told by their raw logs: bursty spends with zeros, a weekly rhythm and a multiplicative response.

A stress test for graph recovery with nothing in common with `wmjax.simulate.channels` but the edge convention. Channels
stand in the tiers of a funnel and act downwards only, on later tiers and on the target y, the last node:

    on_i[t]  two-state Markov chain: campaigns start and stop                        (exogenous)
    m_i[t]   = decay_i m_i[t-1] + (1 - decay_i) log(1 + s_i[t])                       memory of a spend
    s_j[t+1] = on_j[t+1] exp(level_j + week_j[t+1 mod 7] + sum_i w_ij m_i[t] + noise e)
    log y[t+1] = level_y + week_y[..] + persistence (log y[t] - level_y) + sum_i w_iy m_i[t] + target_noise e

The log that a person sees is `log(1 + value)`. A plan acts on the raw values (money), and roll-outs that share truth
and noise are exact counterfactuals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from wmjax.core import draws
from wmjax.core.keys import key_for

WEEK = 7


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """Sizes and strengths of the log-style world.

    Attributes:
        shops, nodes, times: R, d (channels and target) and T.
        graphs: how many different graphs; shop r follows a graph drawn at random.
        tiers: levels of the funnel; channels are dealt to them in turn, then shuffled.
        tier_edges: probability of an edge from a channel to a channel of a later tier.
        target_edges: probability of an edge into the target; at least one channel acts on it and one does not.
        strength: factor on the edge weights, drawn from U(0.5, 1).
        start, stay: probabilities that a campaign starts, and that a running one goes on.
        persistence: how much of the target's deviation survives a step.
        week: standard deviation of the weekly pattern (log scale).
        noise, target_noise: standard deviations of the shocks (log scale).
        burn_in: steps simulated and thrown away.
    """

    shops: int = 300
    nodes: int = 8
    times: int = 100
    graphs: int = 3
    tiers: int = 3
    tier_edges: float = 0.4
    target_edges: float = 0.4
    strength: float = 0.3
    start: float = 0.2
    stay: float = 0.8
    persistence: float = 0.5
    week: float = 0.2
    noise: float = 0.5
    target_noise: float = 0.1
    burn_in: int = 28

    def __post_init__(self) -> None:
        for name in ("shops", "times", "graphs", "tiers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.nodes < 3:
            raise ValueError(f"nodes is {self.nodes}, must be at least 3: two channels and the target")
        for name in ("tier_edges", "target_edges", "start", "stay", "persistence"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be from 0 to 1")

    @property
    def steps(self) -> int:
        """Steps simulated, the burn-in included."""
        return self.burn_in + self.times


class LogTruth(NamedTuple):
    """What is true of every shop.

    Attributes:
        graph, weight: `[shops, nodes, nodes]`, row sends, column receives.
        level, decay: `[shops, nodes]`.
        week: weekly pattern, `[shops, 7, nodes]`.
    """

    graph: Array
    weight: Array
    level: Array
    decay: Array
    week: Array


class LogNoise(NamedTuple):
    """Uniform draws that switch campaigns and standard normal shocks, both `[shops, steps, nodes]`."""

    switch: Array
    nodes: Array


class LogPlan(NamedTuple):
    """An intervention on raw values, `keep * value + add`, each `[shops, times, nodes]`."""

    keep: Array
    add: Array


def _graph(lottery: Float[Array, "rows channels"], *, cfg: LogConfig) -> Float[Array, "nodes nodes"]:
    """Choose a funnel by `channels + 2` rows of U(0, 1): edges, tiers, and the target's parents."""
    n = cfg.nodes - 1
    edges, deal, target = jnp.split(lottery, (n, n + 1))
    tier = jnp.argsort(deal[0]) % cfg.tiers
    channels = (edges < cfg.tier_edges) & (tier[:, None] < tier[None, :])
    # A target fed by every channel or by none says nothing about a ranking, so the extremes are held apart.
    cut = jnp.clip(cfg.target_edges, jnp.min(target), jnp.nextafter(jnp.max(target), -jnp.inf))
    target = target[0] <= cut
    graph = jnp.zeros((cfg.nodes, cfg.nodes))
    return graph.at[:n, :n].set(channels.astype(graph.dtype)).at[:n, n].set(target.astype(graph.dtype))


def draw(key: Key[Array, ""], *, cfg: LogConfig) -> LogTruth:
    """Draw graphs and weights, and each shop's graph, levels and weekly pattern."""
    lottery = draws.uniform(key_for(key, "graphs"), (cfg.graphs, cfg.nodes + 1, cfg.nodes - 1))
    graphs = jax.vmap(lambda rows: _graph(rows, cfg=cfg))(lottery)
    weights = graphs * cfg.strength * (0.5 + 0.5 * draws.uniform(key_for(key, "weight"), graphs.shape))
    decays = 0.2 + 0.4 * draws.uniform(key_for(key, "decay"), (cfg.graphs, cfg.nodes))
    member = jax.random.randint(key_for(key, "member"), (cfg.shops,), 0, cfg.graphs)
    return LogTruth(
        graph=graphs[member],
        weight=weights[member],
        level=1.0 + 0.3 * draws.normal(key_for(key, "level"), (cfg.shops, cfg.nodes)),
        decay=decays[member],
        week=cfg.week * draws.normal(key_for(key, "week"), (cfg.shops, WEEK, cfg.nodes)),
    )


def draw_noise(key: Key[Array, ""], *, cfg: LogConfig) -> LogNoise:
    """Draw every switch and shock."""
    shape = (cfg.shops, cfg.steps, cfg.nodes)
    return LogNoise(
        switch=draws.uniform(key_for(key, "switch"), shape), nodes=draws.normal(key_for(key, "nodes"), shape)
    )


def _roll_shop(truth: LogTruth, noise: LogNoise, plan: LogPlan, *, cfg: LogConfig) -> Float[Array, "steps nodes"]:
    is_target = jnp.arange(cfg.nodes) == cfg.nodes - 1

    def step(carry, inputs):
        running, memory, log_target = carry
        time, switch, shock, keep, add = inputs
        running = switch < jnp.where(running, cfg.stay, cfg.start)
        week = truth.week[time % WEEK]
        push = memory @ truth.weight
        spend = running * jnp.exp(truth.level + week + push + cfg.noise * shock)
        sale = truth.level + week + cfg.persistence * (log_target - truth.level) + push + cfg.target_noise * shock
        value = keep * jnp.where(is_target, jnp.exp(sale), spend) + add
        value = jnp.maximum(value, 0)
        memory = truth.decay * memory + (1 - truth.decay) * jnp.log1p(value)
        # The floor keeps the log finite when a plan sets the target to zero.
        return (running, memory, jnp.log(jnp.maximum(value, 1e-6))), value

    start = (jnp.zeros(cfg.nodes, bool), jnp.zeros(cfg.nodes), truth.level)
    times = jnp.arange(cfg.steps)
    return jax.lax.scan(step, start, (times, noise.switch, noise.nodes, plan.keep, plan.add))[1][cfg.burn_in :]


def roll_out(
    truth: LogTruth, noise: LogNoise, plan: LogPlan | None = None, *, cfg: LogConfig
) -> Float[Array, "shops times nodes"]:
    """Roll out the raw values, channels' spends and the target's sales, of every shop under a plan."""
    if plan is None:
        shape = (cfg.shops, cfg.times, cfg.nodes)
        plan = LogPlan(jnp.ones(shape), jnp.zeros(shape))
    lead = ((0, 0), (cfg.burn_in, 0), (0, 0))
    padded = LogPlan(jnp.pad(plan.keep, lead, constant_values=1.0), jnp.pad(plan.add, lead))
    return jax.vmap(lambda a, b, c: _roll_shop(a, b, c, cfg=cfg))(truth, noise, padded)


def to_log(raw: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """Show raw values as a log does: `log(1 + value)`."""
    return jnp.log1p(raw)


def simulate(key: Key[Array, ""], *, cfg: LogConfig) -> tuple[LogTruth, LogNoise, Float[Array, "shops times nodes"]]:
    """Draw a world and roll it out once; the values are on the log scale."""
    truth = draw(key_for(key, "draw"), cfg=cfg)
    noise = draw_noise(key_for(key, "noise"), cfg=cfg)
    return truth, noise, to_log(roll_out(truth, noise, cfg=cfg))
