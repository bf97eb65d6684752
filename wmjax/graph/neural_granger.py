"""Neural Granger causality: one small network a receiver, whose first layer is shut sender by sender.

For the series x of one shop, standardised, and every receiver j

    x_j[t] = c_j + v_j . tanh(b_j + sum_i W_ij x_i[t-L..t-1]) + noise
    minimise  mean_t (x_j[t] - ..)^2 + ridge |v_j|^2 + penalty sum_i |W_ij|

by proximal gradient steps: a step on the smooth part, then every block `W_ij [lags, hidden]` is shortened by
`rate * penalty` and is exactly 0 where it was shorter than that. Sender i acts on j where the block is not 0
(component-wise MLP of Tank et al., "Neural Granger Causality", 2018, eq. 10 and 12 with the group lasso). The ridge
keeps a block from hiding from its penalty behind a large v.

No one penalty is right for all; the path of penalties ranks the edges: first by how many of them an edge withstands,
then by its blocks' mean length. No truth and no validation error enters.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from wmjax.core import draws
from wmjax.core.keys import key_for
from wmjax.graph import edges
from wmjax.graph.nets import Params


@dataclass(frozen=True, kw_only=True)
class NeuralGrangerConfig:
    """Shape of the networks and of their fit.

    Attributes:
        lags, hidden: L, and the width of a receiver's network.
        penalties: the path, from weak to strong.
        ridge: on the second layer.
        rate, steps: of the proximal gradient descent; every step reads the whole series.
    """

    lags: int = 3
    hidden: int = 10
    penalties: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6)
    ridge: float = 0.05
    rate: float = 0.05
    steps: int = 1000

    def __post_init__(self) -> None:
        for name in ("lags", "hidden", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if not self.penalties or min(self.penalties) < 0:
            raise ValueError(f"penalties are {self.penalties}, each must be at least 0")
        if self.ridge < 0 or not self.rate > 0:
            raise ValueError(f"ridge is {self.ridge}, rate is {self.rate}: must be at least 0, positive")


def windows(
    series: Float[Array, "times nodes"], *, lags: int
) -> tuple[Float[Array, "rows nodes lags"], Float[Array, "rows nodes"]]:
    """Standardise a shop's series and lay out every node's last values, latest first, beside what came after."""
    x = (series - series.mean(0)) / (series.std(0) + 1e-6)
    rows = x.shape[0] - lags
    return jnp.stack([x[lags - 1 - lag : lags - 1 - lag + rows] for lag in range(lags)], -1), x[lags:]


def init(key: Key[Array, ""], *, cfg: NeuralGrangerConfig, num_nodes: int) -> Params:
    """Draw one network a receiver, leading axis the receivers; weights N(0, 1 / inputs), biases 0."""
    first = draws.normal(key_for(key, "first"), (num_nodes, num_nodes, cfg.lags, cfg.hidden))
    second = draws.normal(key_for(key, "second"), (num_nodes, cfg.hidden))
    return {
        "first": first / (num_nodes * cfg.lags) ** 0.5,
        "bias": jnp.zeros((num_nodes, cfg.hidden)),
        "second": second / cfg.hidden**0.5,
        "constant": jnp.zeros(num_nodes),
    }


def smooth_loss(
    params: Params,
    past: Float[Array, "rows nodes lags"],
    now: Float[Array, "rows nodes"],
    *,
    cfg: NeuralGrangerConfig,
) -> Float[Array, ""]:
    """Sum the receivers' mean squared errors and ridges; each receiver's share depends on its own network alone."""
    inner = jnp.tanh(params["bias"] + jnp.einsum("til,jilh->tjh", past, params["first"]))
    error = params["constant"] + jnp.einsum("tjh,jh->tj", inner, params["second"]) - now
    return jnp.sum(jnp.mean(error**2, 0)) + cfg.ridge * jnp.sum(params["second"] ** 2)


def shorten(
    blocks: Float[Array, "*axes lags hidden"], by: Float[Array, ""] | float
) -> Float[Array, "*axes lags hidden"]:
    """Shorten every block by `by`, to exactly 0 where it is no longer: the proximal map of `by * length`."""
    size = jnp.sqrt(jnp.sum(blocks**2, (-1, -2), keepdims=True))
    return blocks * jnp.maximum(1 - by / jnp.maximum(size, 1e-12), 0.0)


def fit(
    key: Key[Array, ""],
    series: Float[Array, "times nodes"],
    penalty: Float[Array, ""] | float,
    *,
    cfg: NeuralGrangerConfig,
) -> Float[Array, "nodes nodes"]:
    """Fit one shop under one penalty: the blocks' lengths, row sends; exactly 0 where there is no edge."""
    past, now = windows(series, lags=cfg.lags)
    slope = jax.grad(lambda p: smooth_loss(p, past, now, cfg=cfg))

    def step(params: Params, _: None) -> tuple[Params, None]:
        params = jax.tree.map(lambda p, g: p - cfg.rate * g, params, slope(params))
        return params | {"first": shorten(params["first"], cfg.rate * penalty)}, None

    params, _ = jax.lax.scan(step, init(key, cfg=cfg, num_nodes=series.shape[1]), length=cfg.steps)
    return jnp.sqrt(jnp.sum(params["first"] ** 2, (-1, -2))).T


def rank(
    key: Key[Array, ""], series: Float[Array, "times nodes"], *, cfg: NeuralGrangerConfig
) -> Float[Array, "nodes nodes"]:
    """Rank one shop's edges along the path: the number of penalties withstood plus a fraction for the mean length.

    All penalties start from the same networks. The diagonal is 0.
    """
    sizes = jax.vmap(lambda penalty: fit(key, series, penalty, cfg=cfg))(jnp.asarray(cfg.penalties, series.dtype))
    mean = sizes.mean(0)
    return (jnp.sum(sizes > 0, 0) + mean / (1 + mean)) * edges.off_diagonal(series.shape[1])
