"""Shops whose channels act on each other and on a target along a known graph.

For shop r with graph `A` (`A[i, j] = 1` means i acts on j, see `wmjax.graph.edges`), channels i and target y, the last
node:

    u[t+1]   = 0.8 u[t] + co_movement * noise * e                                   demand, common to a shop's channels
    ad_i[t]  = decay_i ad_i[t-1] + (1 - decay_i) max(x_i[t], 0)                      adstock
    H_i      = ad_i^shape_i / (ad_i^shape_i + half_i^shape_i)                        Hill saturation
    push_j   = sum_i w_ij (H_i[t] - H_i at rest)
    x_j[t+1] = max(0, base_j + momentum (x_j[t] - base_j) + push_j + load_j u[t] + noise e)
    y[t+1]   = base_y + persistence (y[t] - base_y) + push_y + load_y u[t] + target_noise e

Pushes are counted from the resting levels, so that strong edges move the channels without lifting them to saturation.
Everything random is drawn beforehand (`draw`, `draw_noise`), so a counterfactual is a second `roll_out` of the same
truth and the same noise under another plan, and is exact.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from wmjax.core import draws
from wmjax.core.keys import key_for

DEMAND_MEMORY = 0.8
CONTEXTS = 2


@dataclass(frozen=True, kw_only=True)
class ChannelConfig:
    """Sizes and strengths of the channel world. The defaults are the base cell of the R/d/T swaps.

    Attributes:
        shops, nodes, times: R, d (channels and target) and T.
        graphs: how many different graphs the shops share; shop r follows graph `r % graphs`.
        parents: channels that act on the target directly.
        mediators: how many of those parents are themselves fed by a channel that is no parent.
        channel_edges: probability of an edge between two channels, in a random causal order.
        target_strength, channel_strength: factors on the edge weights, which are drawn from U(0.3, 0.6).
        persistence, momentum: how much of the target and of a channel's deviation survives a step.
        co_movement: the common demand's shocks as multiples of `noise`.
        noise, target_noise: standard deviations of the nodes' own shocks.
        target_load, parent_load: loads of the target and of its parents on the demand; other channels load 1. With
            `target_load > 0` and `parent_load < 1` the channels that are *not* parents are the target's best
            predictors: co-moving decoys.
        heterogeneity: how strongly a shop's context moves its Hill curves (log scale).
        burn_in: steps simulated and thrown away.
    """

    shops: int = 300
    nodes: int = 8
    times: int = 100
    graphs: int = 3
    parents: int = 3
    mediators: int = 0
    channel_edges: float = 0.4
    target_strength: float = 1.0
    channel_strength: float = 1.0
    persistence: float = 0.6
    momentum: float = 0.5
    co_movement: float = 0.5
    noise: float = 0.1
    target_noise: float = 0.05
    target_load: float = 0.0
    parent_load: float = 1.0
    heterogeneity: float = 0.0
    burn_in: int = 50

    def __post_init__(self) -> None:
        for name in ("shops", "times", "graphs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.nodes < 3:
            raise ValueError(f"nodes is {self.nodes}, must be at least 3: two channels and the target")
        if not 1 <= self.parents < self.nodes - 1:
            raise ValueError(f"parents is {self.parents}, must be 1 to {self.nodes - 2}, so that the target is sparse")
        if not 0 <= self.mediators <= self.parents:
            raise ValueError(f"mediators is {self.mediators}, must be 0 to {self.parents}, the number of parents")
        for name in ("channel_edges", "persistence", "momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be from 0 to 1")
        if self.burn_in < 0:
            raise ValueError(f"burn_in is {self.burn_in}, must not be negative")

    @property
    def steps(self) -> int:
        """Steps simulated, the burn-in included."""
        return self.burn_in + self.times


def sparse_target(**changes: Any) -> ChannelConfig:
    """Configure the sparse-target benchmark: one graph, two weak edges into a persistent target, co-moving channels.

    No forecast needs the edges: the target's own past predicts it nearly as well. `target_strength` is the strength
    knob; `target_load=0.05, parent_load=0.5` turns the other channels into decoys.
    """
    base = ChannelConfig(
        shops=160,
        times=67,
        graphs=1,
        parents=2,
        target_strength=0.03,
        channel_strength=0.5,
        persistence=0.8,
        co_movement=3.0,
    )
    return dataclasses.replace(base, **changes)


class ChannelTruth(NamedTuple):
    """What is true of every shop; graph-wise arrays are already spread over the shops.

    Attributes:
        graph: 0/1, `[shops, nodes, nodes]`, row sends, column receives.
        weight: effect of one unit of Hill output, `[shops, nodes, nodes]`, zero where there is no edge.
        load: load on the common demand, `[shops, nodes]`.
        base: resting level from U(0.5, 1), `[shops, nodes]`.
        decay, shape, half: adstock and Hill parameters, `[shops, nodes]`, from U(0.3, 0.7), U(1, 3) and U(0.3, 0.7);
            the target's own are never used.
        context: what is known of a shop, `[shops, contexts]`.
    """

    graph: Array
    weight: Array
    load: Array
    base: Array
    decay: Array
    shape: Array
    half: Array
    context: Array


class ChannelNoise(NamedTuple):
    """Standard normal shocks: `demand [shops, steps]` and `nodes [shops, steps, nodes]`."""

    demand: Array
    nodes: Array


class ChannelPlan(NamedTuple):
    """An intervention: a node's value becomes `keep * value + add`, each `[shops, times, nodes]`.

    `keep=0` sets, `keep=c` scales, `add=d` adds; `keep=1, add=0` leaves nature alone. What follows hears of it.
    """

    keep: Array
    add: Array


class ChannelSeries(NamedTuple):
    """A roll-out: `values [shops, times, nodes]`, `adstock [shops, times, nodes]`, `demand [shops, times]`."""

    values: Array
    adstock: Array
    demand: Array


def _topology(lottery: Float[Array, "rows channels"], *, cfg: ChannelConfig) -> Float[Array, "nodes nodes"]:
    """Choose an acyclic graph between the channels, and the target's parents, by `2 channels + 2` rows of U(0, 1)."""
    n = cfg.nodes - 1
    edges, feeders, parents, order = jnp.split(lottery, (n, 2 * n, 2 * n + 1))
    causal = jnp.triu(edges < cfg.channel_edges, 1)
    # Mediators stand last in the causal order, so that every other channel may feed them.
    mediator = jnp.arange(n) >= n - cfg.mediators
    parent = jnp.argsort(jnp.argsort(-(parents[0] + mediator))) < cfg.parents
    fed = jax.nn.one_hot(jnp.argmax(feeders - 2.0 * parent[:, None], axis=0), n, axis=0, dtype=bool) & mediator
    order = jnp.argsort(order[0])
    channels = (causal | fed)[order][:, order]
    graph = jnp.zeros((cfg.nodes, cfg.nodes))
    return graph.at[:n, :n].set(channels.astype(graph.dtype)).at[:n, n].set(parent[order].astype(graph.dtype))


def _sizes(cfg: ChannelConfig) -> tuple[int, ...]:
    """Count the uniform numbers behind one graph: lotteries, weights, curves."""
    n = cfg.nodes
    return (2 * n * (n - 1), n * n, 4 * n)


def _one_truth(numbers: Float[Array, " numbers"], *, cfg: ChannelConfig) -> ChannelTruth:
    """Turn U(0, 1) numbers into one graph with its weights and curves; context is filled in later."""
    n, (first, second, _) = cfg.nodes, _sizes(cfg)
    lottery, weight, curves = jnp.split(numbers, (first, first + second))
    graph = _topology(lottery.reshape(2 * n, n - 1), cfg=cfg)
    base, decay, shape, half = curves.reshape(4, n)
    strength = jnp.full(n, cfg.channel_strength).at[-1].set(cfg.target_strength)
    return ChannelTruth(
        graph=graph,
        weight=graph * strength * (0.3 + 0.3 * weight.reshape(n, n)),
        load=jnp.where(graph[:, -1] > 0, cfg.parent_load, 1.0).at[-1].set(cfg.target_load),
        base=0.5 + 0.5 * base,
        decay=0.3 + 0.4 * decay,
        shape=1.0 + 2.0 * shape,
        half=0.3 + 0.4 * half,
        context=jnp.zeros(CONTEXTS),
    )


def draw(key: Key[Array, ""], *, cfg: ChannelConfig) -> ChannelTruth:
    """Draw graphs, weights, curves and contexts. `jax.vmap` over keys gives many worlds."""
    numbers = draws.uniform(key_for(key, "truth"), (cfg.graphs, sum(_sizes(cfg))))
    graphs = jax.vmap(lambda row: _one_truth(row, cfg=cfg))(numbers)
    member = jnp.arange(cfg.shops) % cfg.graphs
    truth = jax.tree.map(lambda a: a[member], graphs)
    context = draws.normal(key_for(key, "context"), (cfg.shops, CONTEXTS))
    bend = jnp.exp(cfg.heterogeneity * context)
    return truth._replace(context=context, half=truth.half * bend[:, :1], shape=truth.shape * jnp.sqrt(bend[:, 1:]))


def draw_noise(key: Key[Array, ""], *, cfg: ChannelConfig) -> ChannelNoise:
    """Draw every shock of every shop and step."""
    return ChannelNoise(
        demand=draws.normal(key_for(key, "demand"), (cfg.shops, cfg.steps)),
        nodes=draws.normal(key_for(key, "nodes"), (cfg.shops, cfg.steps, cfg.nodes)),
    )


def no_plan(*, cfg: ChannelConfig) -> ChannelPlan:
    """Leave nature alone."""
    shape = (cfg.shops, cfg.times, cfg.nodes)
    return ChannelPlan(keep=jnp.ones(shape), add=jnp.zeros(shape))


def hill(adstock: Float[Array, "*axes"], shape: Float[Array, "*axes"], half: Float[Array, "*axes"]) -> Array:
    """Saturate: `ad^shape / (ad^shape + half^shape)`, from 0 to 1, one half at `half`."""
    # The floor keeps the gradient of ad^shape finite at 0 for shape < 1, and 0^shape at 0 for every other purpose.
    raised = jnp.maximum(adstock, 1e-6) ** shape
    return raised / (raised + half**shape)


def _roll_shop(truth: ChannelTruth, noise: ChannelNoise, plan: ChannelPlan, *, cfg: ChannelConfig) -> ChannelSeries:
    """Roll out one shop: arrays without the shops axis, the plan as long as the noise."""
    is_target = jnp.arange(cfg.nodes) == cfg.nodes - 1
    memory = jnp.where(is_target, cfg.persistence, cfg.momentum)
    scale = jnp.where(is_target, cfg.target_noise, cfg.noise)
    rest = hill(truth.base, truth.shape, truth.half)

    def step(carry, inputs):
        raw, adstock, demand = carry
        shock, demand_shock, keep, add = inputs
        value = keep * raw + add
        adstock = truth.decay * adstock + (1 - truth.decay) * jnp.maximum(value, 0)
        push = (hill(adstock, truth.shape, truth.half) - rest) @ truth.weight
        after = truth.base + memory * (value - truth.base) + push + truth.load * demand + scale * shock
        after = jnp.where(is_target, after, jnp.maximum(after, 0))
        later = DEMAND_MEMORY * demand + cfg.co_movement * cfg.noise * demand_shock
        return (after, adstock, later), (value, adstock, demand)

    start = (truth.base, truth.base, jnp.zeros(()))
    _, (values, adstock, demand) = jax.lax.scan(step, start, (noise.nodes, noise.demand, plan.keep, plan.add))
    return ChannelSeries(values[cfg.burn_in :], adstock[cfg.burn_in :], demand[cfg.burn_in :])


def roll_out(
    truth: ChannelTruth, noise: ChannelNoise, plan: ChannelPlan | None = None, *, cfg: ChannelConfig
) -> ChannelSeries:
    """Roll out every shop under a plan, given its truth and its shocks: a deterministic function.

    Two calls that differ in the plan alone are factual and counterfactual of the same shops; before the first change
    they agree to the last bit.
    """
    plan = no_plan(cfg=cfg) if plan is None else plan
    lead = ((0, 0), (cfg.burn_in, 0), (0, 0))
    padded = ChannelPlan(jnp.pad(plan.keep, lead, constant_values=1.0), jnp.pad(plan.add, lead))
    return jax.vmap(lambda a, b, c: _roll_shop(a, b, c, cfg=cfg))(truth, noise, padded)


def simulate(key: Key[Array, ""], *, cfg: ChannelConfig) -> tuple[ChannelTruth, ChannelNoise, ChannelSeries]:
    """Draw a world and roll it out once; `key` alone decides everything."""
    truth = draw(key_for(key, "draw"), cfg=cfg)
    noise = draw_noise(key_for(key, "noise"), cfg=cfg)
    return truth, noise, roll_out(truth, noise, cfg=cfg)


class EdgeEffects(NamedTuple):
    """What each edge does in one step, averaged over time: `[shops, nodes, nodes]`, exactly 0 without an edge.

    Attributes:
        contribution: `w_ij H_i`, what j would miss in the next step if i had been silent.
        marginal: `w_ij (1 - decay_i) H_i'(ad_i)`, the derivative of the receiver's next value by the sender's value.
    """

    contribution: Array
    marginal: Array


def edge_effects(truth: ChannelTruth, series: ChannelSeries) -> EdgeEffects:
    """Compute the true direct effect of every edge on the path that was rolled out (clipping at 0 aside)."""
    curve = jax.vmap(jax.vmap(hill, in_axes=(0, None, None)))
    slope = jax.vmap(jax.vmap(jax.vmap(jax.grad(hill)), in_axes=(0, None, None)))
    level = curve(series.adstock, truth.shape, truth.half).mean(1)
    steep = slope(series.adstock, truth.shape, truth.half).mean(1) * (1 - truth.decay)
    return EdgeEffects(truth.weight * level[..., None], truth.weight * steep[..., None])


def impulse_effects(
    truth: ChannelTruth, noise: ChannelNoise, *, cfg: ChannelConfig, at: int, steps: int, size: Float[Array, " nodes"]
) -> Float[Array, "shops nodes steps nodes"]:
    """Roll out, for every sender i, the world in which `size[i]` was added to it at time `at`, minus the factual one.

    Returns:
        `[shops, sender, steps, receiver]`, steps 1 to `steps` after `at`: total effects, mediated paths included.
    """
    if not 0 <= at < cfg.times - steps:
        raise ValueError(f"at is {at} with {steps} steps after it, must be from 0 to {cfg.times - steps - 1}")
    factual = roll_out(truth, noise, cfg=cfg).values

    def pushed(sender):
        plan = no_plan(cfg=cfg)
        plan = plan._replace(add=plan.add.at[:, at, sender].add(size[sender]))
        return (roll_out(truth, noise, plan, cfg=cfg).values - factual)[:, at + 1 : at + 1 + steps]

    return jnp.moveaxis(jax.lax.map(pushed, jnp.arange(cfg.nodes)), 0, 1)
