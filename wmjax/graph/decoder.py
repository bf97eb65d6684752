"""A latent decoder in which nodes can hear of each other only through the graph that is supplied.

Every node j of a shop has its own memory h_j; weights are shared by all nodes, e_j is the node's embedding:

    m_ij = tanh(W_s [h_i, x_i, e_i] + W_r [h_j, e_j])
    a_j  = sum_i G_ij m_ij / sqrt(nodes - 1)                        the only place where nodes meet
    h_j' = GRU([x_j, a_j, e_j], h_j)
    x_j' = x_j + V tanh(U [h_j', e_j, x_j])

(The message's outer linear layer is the GRU's input layer: both are linear, and the sum commutes with it.)

Graph safety. m_ij is bounded, so `G_ij = 0` makes its term exactly 0 in the sum and in every derivative: with G = 0 no
node depends on another, and over k steps i moves j only where a path of at most k edges leads from i to j. Nothing else
crosses nodes: no normalisation over nodes or shops, no pooled context, no attention over senders. The sum is divided by
a constant, not by the in-degree, so a swapped graph changes who speaks and not how loud.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from wmjax.core import draws
from wmjax.core.keys import key_for
from wmjax.graph import edges, series
from wmjax.graph.nets import Params, dense, dense_layers
from wmjax.graph.series import Batch


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Shape and objective of the graph-safe decoder.

    Attributes:
        hidden: size of a node's memory and of a message.
        embedding: size of a node's embedding.
        horizon: steps of the free-running part of the loss.
        first, stride: its forecasts start at time `first` at the earliest and `stride` steps apart.
        rollout_weight: weight of the free-running error beside the one-step error.
    """

    hidden: int = 64
    embedding: int = 8
    horizon: int = 7
    first: int = 14
    stride: int = 7
    rollout_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("hidden", "embedding", "horizon", "first", "stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.rollout_weight < 0:
            raise ValueError(f"rollout_weight is {self.rollout_weight}, must not be negative")


def init(key: Key[Array, ""], *, cfg: DecoderConfig, num_nodes: int) -> Params:
    """Draw the decoder's parameters; the last layer starts small, so that the first forecast is persistence."""
    h, e = cfg.hidden, cfg.embedding
    params = dense_layers(
        key_for(key, "layers"),
        {
            "sender": (h + 1 + e, h),
            "receiver": (h + e, h),
            "gates_input": (1 + h + e, 3 * h),
            "gates_memory": (h, 3 * h),
            "readout_hidden": (h + e + 1, h),
            "readout": (h, 1),
        },
    )
    params["readout"]["w"] = 0.1 * params["readout"]["w"]
    params["embedding"] = draws.normal(key_for(key, "embedding"), (num_nodes, e))
    return params


def step(
    params: Params,
    memory: Float[Array, "nodes hidden"],
    values: Float[Array, " nodes"],
    graph: Float[Array, "nodes nodes"],
) -> tuple[Float[Array, "nodes hidden"], Float[Array, " nodes"]]:
    """Hear this step's values, exchange messages along `graph` (diagonal ignored) and predict the next values."""
    num_nodes = values.shape[0]
    own, embedding = values[:, None], params["embedding"]
    gate = graph * edges.off_diagonal(num_nodes) / math.sqrt(num_nodes - 1)
    sender = dense(params["sender"], jnp.concatenate([memory, own, embedding], -1))
    receiver = dense(params["receiver"], jnp.concatenate([memory, embedding], -1))
    heard = jnp.sum(gate[:, :, None] * jnp.tanh(sender[:, None] + receiver[None, :]), axis=0)
    from_input = dense(params["gates_input"], jnp.concatenate([own, heard, embedding], -1))
    from_memory = dense(params["gates_memory"], memory)
    reset_i, update_i, new_i = jnp.split(from_input, 3, -1)
    reset_m, update_m, new_m = jnp.split(from_memory, 3, -1)
    update = jax.nn.sigmoid(update_i + update_m)
    new = jnp.tanh(new_i + jax.nn.sigmoid(reset_i + reset_m) * new_m)
    memory = (1 - update) * new + update * memory
    readout = jnp.tanh(dense(params["readout_hidden"], jnp.concatenate([memory, embedding, own], -1)))
    return memory, values + dense(params["readout"], readout)[:, 0]


# In a scan the backward pass computes a step's messages again: a tenth of the memory, and faster.
_remembered = jax.checkpoint(step, prevent_cse=False)


def listen(
    params: Params, graph: Float[Array, "nodes nodes"], history: Float[Array, "times nodes"], *, cfg: DecoderConfig
) -> tuple[Float[Array, "times nodes hidden"], Float[Array, "times nodes"]]:
    """Run along one shop's true values: the memories after each step and the predictions of the step after it."""

    def hear(memory, values):
        memory, prediction = _remembered(params, memory, values, graph)
        return memory, (memory, prediction)

    start = jnp.zeros((history.shape[1], cfg.hidden), history.dtype)
    return jax.lax.scan(hear, start, history)[1]


def run_free(
    params: Params,
    graph: Float[Array, "nodes nodes"],
    memory: Float[Array, "nodes hidden"],
    prediction: Float[Array, " nodes"],
    *,
    steps: int,
) -> Float[Array, "steps nodes"]:
    """Go on from a memory and its prediction, fed with nothing but its own predictions."""

    def dream(carry, _):
        memory, values = carry
        return _remembered(params, memory, values, graph), values

    return jax.lax.scan(dream, (memory, prediction), length=steps)[1]


def rollout(
    params: Params,
    graph: Float[Array, "nodes nodes"],
    history: Float[Array, "times nodes"],
    *,
    cfg: DecoderConfig,
    steps: int | None = None,
) -> Float[Array, "steps nodes"]:
    """Roll one shop out for `steps` (the config's horizon) after its history: the function that certificates probe."""
    start = jnp.zeros((history.shape[1], cfg.hidden), history.dtype)
    return go_on(params, graph, start, history, cfg=cfg, steps=steps)


def remember(
    params: Params, graph: Float[Array, "nodes nodes"], history: Float[Array, "times nodes"], *, cfg: DecoderConfig
) -> Float[Array, "nodes hidden"]:
    """Listen to one shop's early history, of any length: the memory that `go_on` goes on from."""
    start = jnp.zeros((history.shape[1], cfg.hidden), history.dtype)
    return jax.lax.scan(lambda memory, values: (step(params, memory, values, graph)[0], None), start, history)[0]


def go_on(
    params: Params,
    graph: Float[Array, "nodes nodes"],
    memory: Float[Array, "nodes hidden"],
    rest: Float[Array, "times nodes"],
    *,
    cfg: DecoderConfig,
    steps: int | None = None,
) -> Float[Array, "steps nodes"]:
    """Roll out from a memory and the rest of the history, one time of it at least: `rollout`, in its second part."""
    memory, predictions = jax.lax.scan(lambda memory, values: step(params, memory, values, graph), memory, rest)
    return run_free(params, graph, memory, predictions[-1], steps=cfg.horizon if steps is None else steps)


def _windows(
    params: Params, graph: Float[Array, "nodes nodes"], values: Float[Array, "times nodes"], *, cfg: DecoderConfig
) -> tuple[Float[Array, ""], Float[Array, "origins horizon nodes"]]:
    """Compute one shop's one-step mean squared error and its free-running errors from every origin."""
    starts = series.origins(values.shape[0], horizon=cfg.horizon, first=cfg.first, stride=cfg.stride)
    memory, prediction = listen(params, graph, values[:-1], cfg=cfg)
    free = jax.vmap(lambda m, p: run_free(params, graph, m, p, steps=cfg.horizon))
    paths = free(memory[starts - 1], prediction[starts - 1])
    truth = values[starts[:, None] + np.arange(cfg.horizon)]
    return jnp.mean((prediction - values[1:]) ** 2), paths - truth


def loss(
    key: Key[Array, ""],
    params: Params,
    stats: tuple,
    batch: Batch,
    progress: Array,
    *,
    cfg: DecoderConfig,
    training: bool,
) -> tuple[Array, tuple[dict[str, Array], tuple]]:
    """Score the decoder: one-step plus free-running mean squared error over all nodes, in standardised units.

    The graph in the batch is data: nothing flows back into whatever supplied it. Also reports `mse7`, the free-running
    error of the target alone.
    """
    del key, progress, training
    graph = jax.lax.stop_gradient(batch.graph)
    one_step, errors = jax.vmap(lambda g, v: _windows(params, g, v, cfg=cfg))(graph, batch.values)
    one_step, free = jnp.mean(one_step), jnp.mean(errors**2)
    metrics = {"one_step": one_step, "free": free, "mse7": jnp.mean(errors[..., -1] ** 2)}
    return one_step + cfg.rollout_weight * free, (metrics, stats)
