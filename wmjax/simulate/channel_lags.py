"""Signed lag kernels between white-noise channels, as in the data that CausalMMM was published with.

Roots are independent N(0, 0.1^2); two mediators and the target, the last node, answer to their parents through kernels
over lags 1 to 7 whose signs differ:

    x_j[t] = tanh(sum_i A_ij sum_l K_ijl x_i[t - l]) + noise e      mediators and target
    x_i[t] = root e                                                 roots

The published series are copies of four trajectories, so that any split of them leaks; here every shop has shocks of its
own. Structure seen in: Gong et al., "CausalMMM", WSDM 2024, synthetic data of the authors' repository.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from wmjax.core import draws
from wmjax.core.keys import key_for

MEDIATORS = 2


@dataclass(frozen=True, kw_only=True)
class LagConfig:
    """Sizes and strengths.

    Attributes:
        shops, nodes, times, graphs: R, d, T and the number of different graphs; shop r follows graph `r % graphs`.
        lags: length of the kernels.
        edges: probability of each edge into a mediator or the target; the target keeps one non-parent and one parent.
        gain: standard deviation of a kernel's coefficients, in units of target over root.
        root, noise: standard deviations of roots' values and of the other nodes' shocks.
    """

    shops: int = 300
    nodes: int = 8
    times: int = 100
    graphs: int = 3
    lags: int = 7
    edges: float = 0.55
    gain: float = 1.5
    root: float = 0.1
    noise: float = 0.02

    def __post_init__(self) -> None:
        for name in ("shops", "times", "graphs", "lags"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.nodes < MEDIATORS + 2:
            raise ValueError(f"nodes is {self.nodes}, must be at least {MEDIATORS + 2}")
        if not 0 <= self.edges <= 1:
            raise ValueError(f"edges is {self.edges}, must be from 0 to 1")


class LagTruth(NamedTuple):
    """`graph [shops, nodes, nodes]` and `kernel [shops, lags, nodes, nodes]`, lag 1 first; the row sends."""

    graph: Array
    kernel: Array


def draw(key: Key[Array, ""], *, cfg: LagConfig) -> LagTruth:
    """Draw graphs whose only receivers are the two mediators and the target, and signed kernels on their edges."""
    n, first = cfg.nodes, cfg.nodes - 1 - MEDIATORS

    def one(lottery):
        column = lottery[:-1, -1]
        cut = jnp.clip(cfg.edges, jnp.min(column), jnp.nextafter(jnp.max(column), -jnp.inf))
        allowed = jnp.triu(jnp.ones((n, n)), 1) * (jnp.arange(n) >= first)
        chosen = (lottery < cfg.edges).at[:-1, -1].set(column <= cut)
        return chosen * allowed

    graphs = jax.vmap(one)(draws.uniform(key_for(key, "edges"), (cfg.graphs, n, n)))
    kernels = graphs[:, None] * cfg.gain * draws.normal(key_for(key, "kernel"), (cfg.graphs, cfg.lags, n, n))
    member = jnp.arange(cfg.shops) % cfg.graphs
    return LagTruth(graphs[member], kernels[member])


def draw_noise(key: Key[Array, ""], *, cfg: LagConfig) -> Float[Array, "shops steps nodes"]:
    """Draw standard normal shocks for `lags + times` steps."""
    return draws.normal(key, (cfg.shops, cfg.lags + cfg.times, cfg.nodes))


def roll_out(
    truth: LagTruth,
    noise: Float[Array, "shops steps nodes"],
    add: Float[Array, "shops times nodes"] | None = None,
    *,
    cfg: LagConfig,
) -> Float[Array, "shops times nodes"]:
    """Roll out every shop, with `add` put on top of its values; same truth and noise give exact counterfactuals."""
    add = jnp.zeros((cfg.shops, cfg.times, cfg.nodes)) if add is None else add
    add = jnp.pad(add, ((0, 0), (cfg.lags, 0), (0, 0)))
    is_root = jnp.arange(cfg.nodes) < cfg.nodes - 1 - MEDIATORS

    def shop(kernel, shocks, pushes):
        def step(window, inputs):
            shock, push = inputs
            answer = jnp.tanh(jnp.einsum("li,lij->j", window, kernel)) + cfg.noise * shock
            value = jnp.where(is_root, cfg.root * shock, answer) + push
            return jnp.concatenate([value[None], window[:-1]]), value

        return jax.lax.scan(step, jnp.zeros((cfg.lags, cfg.nodes)), (shocks, pushes))[1][cfg.lags :]

    return jax.vmap(shop)(truth.kernel, noise, add)


def simulate(key: Key[Array, ""], *, cfg: LagConfig) -> tuple[LagTruth, Array, Float[Array, "shops times nodes"]]:
    """Draw a world and roll it out once."""
    truth = draw(key_for(key, "draw"), cfg=cfg)
    noise = draw_noise(key_for(key, "noise"), cfg=cfg)
    return truth, noise, roll_out(truth, noise, cfg=cfg)
