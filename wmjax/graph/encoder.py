"""Stage 1 of DICE: an encoder that reads a shop's history and says which edges it believes in, trained with a decoder
too weak to forecast without them.

The encoder maps node histories to edge logits by two rounds of message passing over all pairs (Kipf et al., "Neural
Relational Inference", 2018). Beside each history it reads the node's embedding and, for each pair, how the sender's
past goes with what the receiver's own past does not explain (`pair_features`). Each layer is normalised over its own
features only: nothing depends on who else is in the batch. The encoder sees the history and never the forecast window.

    q_ij = sigmoid(l_ij),   z_ij = sigmoid((l_ij + logistic noise) / temperature)       binary concrete

The restricted decoder has no memory, no context and no path around the graph:

    x_j[t+1] = a_j + b_j x_j[t] + sum_i z_ij psi(x_i[t-L+1..t]; e_i, e_j),    |b_target| <= target_autoregression
    and for the target the sum s is passed through c_1 Hill(softplus(s)) + c_2 s

Loss: one-step MSE + free-running MSE + prior * KL(Bern(q) || Bern(density)) + sparsity * mean(q), the last two per
possible edge, so that their weight against the data does not depend on the number of nodes, and the prior acts.

The paper's equations are not public; this is our reading of its abstract, with every choice an attribute of the config.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from wmjax.core import draws
from wmjax.core.keys import key_for
from wmjax.graph import edges
from wmjax.graph.nets import Params, dense, dense_layers, layer_norm
from wmjax.graph.series import Batch


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape, prior and objective of Stage 1.

    Attributes:
        hidden: width of the encoder.
        edge_hidden, embedding, lags: width of psi, size of its node embeddings, and L.
        pair_features: whether the encoder reads the pairs' lagged statistics beside the raw histories.
        target_autoregression: bound on the target's own coefficient; 0 forbids it.
        horizon: length of the forecast window, hidden from the encoder.
        density: prior probability of an edge.
        prior: weight of the mean KL divergence per edge.
        sparsity: weight of the mean edge probability.
        temperature_start, temperature_end: the concrete distribution's, annealed geometrically over the training.
    """

    hidden: int = 64
    edge_hidden: int = 32
    embedding: int = 8
    lags: int = 7
    pair_features: bool = True
    target_autoregression: float = 0.3
    horizon: int = 7
    density: float = 0.2
    prior: float = 0.05
    sparsity: float = 1e-3
    temperature_start: float = 1.0
    temperature_end: float = 0.3

    def __post_init__(self) -> None:
        for name in ("hidden", "edge_hidden", "embedding", "lags", "horizon"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if not 0 < self.density < 1:
            raise ValueError(f"density is {self.density}, must be between 0 and 1")
        for name in ("target_autoregression", "prior", "sparsity"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, must not be negative")
        for name in ("temperature_start", "temperature_end"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, must be positive")


def init(key: Key[Array, ""], *, cfg: EncoderConfig, num_nodes: int, num_times: int) -> Params:
    """Draw the parameters of encoder and restricted decoder for series of `num_times`, the forecast window included."""
    history = num_times - cfg.horizon
    if history < cfg.lags + 1:
        raise ValueError(f"{num_times} times leave {history} of history, {cfg.lags + 1} are needed for {cfg.lags} lags")
    h, p, e = cfg.hidden, cfg.edge_hidden, cfg.embedding
    # The encoder's first edge layer reads [sender, receiver]; its weights are kept apart so that each half is
    # multiplied once a node and not once an edge.
    encoder = dense_layers(
        key_for(key, "encoder"),
        {
            "node_in": (history + e, h),
            "node_out": (h, h),
            "sender": (h, h),
            "receiver": (h, h),
            "pair": (cfg.lags + 1, h),
            "edge_out": (h, h),
            "heard_in": (h, h),
            "heard_out": (h, h),
            "sender_again": (h, h),
            "receiver_again": (h, h),
            "skip": (h, h),
            "last_out": (h, h),
            "logit": (h, 1),
        },
    )
    encoder["logit"]["b"] = jnp.full(1, math.log(cfg.density / (1 - cfg.density)), jnp.float32)
    psi = dense_layers(
        key_for(key, "psi"), {"window": (cfg.lags, p), "sender": (e, p), "receiver": (e, p), "out": (p, 1)}
    )
    # A silent start: edges that carry noise would be shut before psi has learnt what to send along them.
    psi["out"]["w"] = 0.1 * psi["out"]["w"]
    encoder["logit"]["w"] = 0.1 * encoder["logit"]["w"]
    return {
        "encoder": encoder,
        "psi": psi,
        "embedding": draws.normal(key_for(key, "embedding"), (num_nodes, e)),
        "constant": jnp.zeros(num_nodes),
        "own": jnp.zeros(num_nodes),
        "hill": {"gain": jnp.zeros(()), "shape": jnp.zeros(()), "half": jnp.zeros(()), "slope": jnp.ones(())},
    }


def pair_features(history: Float[Array, "history nodes"], *, lags: int) -> Float[Array, "nodes nodes features"]:
    """Measure each pair in one shop's history alone.

    With r_j what a first-order autoregression of node j leaves unexplained, in its own standard deviations, and x_i
    standardised: `sum_t x_i[t-l] r_j[t] / sqrt(T)` for l = 1..lags (a z score if i is white and no parent of j), and
    the t value of x_i[t-1] in the ridge regression of x_j[t] on all nodes' x[t-1].

    Returns:
        `[sender, receiver, lags + 1]`.
    """
    x = (history - history.mean(0)) / (history.std(0) + 1e-3)
    past, now = x[:-1], x[1:]
    own = (past * now).sum(0) / ((past**2).sum(0) + 1.0)
    left = now - own * past
    left = left / (left.std(0) + 1e-3)
    late = left[lags - 1 :]
    crossed = [x[lags - lag : x.shape[0] - lag].T @ late for lag in range(1, lags + 1)]
    crossed = jnp.stack(crossed, -1) / math.sqrt(late.shape[0])
    inverse = jnp.linalg.inv(past.T @ past + jnp.eye(x.shape[1]))
    slope = inverse @ (past.T @ now)
    noise = jnp.sqrt(((now - past @ slope) ** 2).mean(0))
    t_value = slope / (jnp.sqrt(jnp.diagonal(inverse))[:, None] * noise + 1e-6)
    return jnp.concatenate([crossed, t_value[..., None]], -1)


def _mlp(params: Params, first: Array, second: str) -> Array:
    return layer_norm(jax.nn.elu(dense(params[second], jax.nn.elu(first))))


def logits(
    params: Params, history: Float[Array, "history nodes"], *, cfg: EncoderConfig
) -> Float[Array, "nodes nodes"]:
    """Read one shop's history: the log odds of every edge, row sends; the diagonal carries no meaning."""
    p = params["encoder"]
    num_nodes = history.shape[1]
    node = _mlp(p, dense(p["node_in"], jnp.concatenate([history.T, params["embedding"]], -1)), "node_out")
    edge = dense(p["sender"], node)[:, None] + dense(p["receiver"], node)[None, :]
    if cfg.pair_features:
        edge = edge + dense(p["pair"], jax.lax.stop_gradient(pair_features(history, lags=cfg.lags)))
    edge = _mlp(p, edge, "edge_out")
    heard = (edge * edges.off_diagonal(num_nodes)[:, :, None]).sum(0) / (num_nodes - 1)
    heard = _mlp(p, dense(p["heard_in"], heard), "heard_out")
    last = (
        dense(p["sender_again"], heard)[:, None] + dense(p["receiver_again"], heard)[None, :] + dense(p["skip"], edge)
    )
    return dense(p["logit"], _mlp(p, last, "last_out"))[..., 0]


def probabilities(
    params: Params, values: Float[Array, "times nodes"], *, cfg: EncoderConfig
) -> Float[Array, "nodes nodes"]:
    """Compute q for one shop from everything but its last `horizon` times; the diagonal is 0."""
    q = jax.nn.sigmoid(logits(params, values[: values.shape[0] - cfg.horizon], cfg=cfg))
    return q * edges.off_diagonal(values.shape[1])


def sample(
    key: Key[Array, ""], log_odds: Float[Array, "*axes"], temperature: Float[Array, ""] | float
) -> Float[Array, "*axes"]:
    """Draw relaxed edges from the binary concrete distribution (Maddison et al., 2017)."""
    return jax.nn.sigmoid((log_odds + draws.logistic(key, log_odds.shape)) / temperature)


def predict(
    params: Params, graph: Float[Array, "nodes nodes"], window: Float[Array, "lags nodes"], *, cfg: EncoderConfig
) -> Float[Array, " nodes"]:
    """Predict the next values by the restricted decoder from the last `lags` values of one shop, oldest first."""
    num_nodes = window.shape[1]
    psi, embedding, hill = params["psi"], params["embedding"], params["hill"]
    sender = dense(psi["window"], window.T) + dense(psi["sender"], embedding)
    inner = jnp.tanh(sender[:, None] + dense(psi["receiver"], embedding)[None, :])
    edge = dense(psi["out"], inner)[..., 0]
    total = (graph * edges.off_diagonal(num_nodes) * edge).sum(0)
    # softplus keeps Hill's base positive; the floor keeps its logarithm, and so its gradient, finite.
    rate = (1 + jax.nn.softplus(hill["shape"])) * (jnp.log(jax.nn.softplus(total[-1]) + 1e-6) - hill["half"])
    total = total.at[-1].set(hill["gain"] * jax.nn.sigmoid(rate) + hill["slope"] * total[-1])
    own = params["own"].at[-1].set(cfg.target_autoregression * jnp.tanh(params["own"][-1]))
    return params["constant"] + own * window[-1] + total


def _windows(values: Float[Array, "times nodes"], lags: int) -> Float[Array, "windows lags nodes"]:
    starts = jnp.arange(values.shape[0] - lags + 1)
    return values[starts[:, None] + jnp.arange(lags)]


def run_free(
    params: Params,
    graph: Float[Array, "nodes nodes"],
    window: Float[Array, "lags nodes"],
    *,
    steps: int,
    cfg: EncoderConfig,
) -> Float[Array, "steps nodes"]:
    """Roll the restricted decoder forward on its own predictions."""

    def dream(window, _):
        prediction = predict(params, graph, window, cfg=cfg)
        return jnp.concatenate([window[1:], prediction[None]]), prediction

    return jax.lax.scan(dream, window, length=steps)[1]


def divergence(log_odds: Float[Array, "*shops nodes nodes"], density: float) -> Float[Array, ""]:
    """Compute the mean over possible edges of KL(Bern(q) || Bern(density)) in nats."""
    q = jax.nn.sigmoid(log_odds)
    kl = q * (jax.nn.log_sigmoid(log_odds) - math.log(density))
    kl = kl + (1 - q) * (jax.nn.log_sigmoid(-log_odds) - math.log1p(-density))
    return jnp.mean(_mean_edge(kl))


def _mean_edge(values: Array) -> Array:
    n = values.shape[-1]
    return (values * edges.off_diagonal(n)).sum((-1, -2)) / (n * (n - 1))


def temperature(progress: Float[Array, ""], *, cfg: EncoderConfig) -> Float[Array, ""]:
    """Anneal geometrically from start to end as `progress` goes from 0 to 1."""
    ratio = math.log(cfg.temperature_end / cfg.temperature_start)
    return cfg.temperature_start * jnp.exp(ratio * progress)


def _shop_loss(
    params: Params,
    graph: Float[Array, "nodes nodes"],
    values: Float[Array, "times nodes"],
    *,
    cfg: EncoderConfig,
) -> dict[str, Array]:
    history = values[: values.shape[0] - cfg.horizon]
    windows = _windows(history, cfg.lags)
    one_step = jax.vmap(lambda w: predict(params, graph, w, cfg=cfg))(windows[:-1])
    free = run_free(params, graph, windows[-1], steps=cfg.horizon, cfg=cfg)
    errors = free - values[-cfg.horizon :]
    return {
        "one_step": jnp.mean((one_step - history[cfg.lags :]) ** 2),
        "free": jnp.mean(errors**2),
        "mse7": jnp.mean(errors[:, -1] ** 2),
    }


def loss(
    key: Key[Array, ""],
    params: Params,
    stats: tuple,
    batch: Batch,
    progress: Array,
    *,
    cfg: EncoderConfig,
    training: bool,
) -> tuple[Array, tuple[dict[str, Array], tuple]]:
    """Score Stage 1 on a batch; edges are sampled in training and their probabilities used in validation."""
    history = batch.values[:, : batch.values.shape[1] - cfg.horizon]
    log_odds = jax.vmap(lambda h: logits(params, h, cfg=cfg))(history)
    q = jax.nn.sigmoid(log_odds)
    graph = sample(key, log_odds, temperature(progress, cfg=cfg)) if training else q
    each = jax.vmap(lambda g, v: _shop_loss(params, g, v, cfg=cfg))(graph, batch.values)
    metrics = {name: jnp.mean(value) for name, value in each.items()}
    metrics |= {"kl": divergence(log_odds, cfg.density), "density": jnp.mean(_mean_edge(q))}
    total = metrics["one_step"] + metrics["free"] + cfg.prior * metrics["kl"] + cfg.sparsity * metrics["density"]
    return total, (metrics, stats)
