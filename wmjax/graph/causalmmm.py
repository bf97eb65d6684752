"""CausalMMM (Gong et al., WSDM 2024), batched, in the form its code has and in the form its text describes.

A variational graph encoder (edge type 0 is "no edge") and a recurrent decoder. One step for memory h, values x:

    m_ij = z_ij tanh(W2 tanh(W1 [h_i, h_j]))        a_j = sum_i m_ij / nodes
    r = sigmoid(W_ir x + W_hr a),  u = sigmoid(W_ii x + W_hi a),  n = act(W_in x + r W_hn a)
    h' = (1 - u) n + u h           p = W5 relu(W4 relu(W3 h'))
    target only: p <- p f^s / (f^s + g^s),  f = max(p, 0.1), s and g = max(affine(context), 0.1)

The gates have no bias and do not hear the node's own h. Structure, sizes and constants were read in the authors' code;
this is a re-implementation. `quirks=True` is that code:

| | `quirks=True` | `quirks=False` |
|---|---|---|
| candidate `act` | sigmoid | tanh |
| output | p | x + p |
| encoder sees | the whole series, forecast window included | the history |
| free-running forecast | the last `horizon - 1` steps: one step too few | the last `horizon` steps |
| batch statistics | of each shop's own nodes, as at batch size 1 | of the batch |
| edge noise in validation | on | off |

In both, the data term is divided by a variance of 5e-7 and so outweighs the KL term by orders of magnitude: the prior
on the graph is inert, which is part of what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from wmjax.core import draws
from wmjax.core.keys import key_for
from wmjax.graph import edges
from wmjax.graph.nets import Params, dense
from wmjax.graph.series import Batch

MOMENTUM = 0.1
NORMS = ("node", "edge", "heard", "last")


@dataclass(frozen=True, kw_only=True)
class CausalMMMConfig:
    """Sizes and constants, the authors' but for `horizon`, which is 10 in their code.

    Attributes:
        quirks: the authors' code as it is, or mended (see the module's table).
        hidden: width of encoder and decoder.
        contexts: length of a shop's context.
        temperature: of the Gumbel softmax.
        horizon: forecast window.
        variance: of the Gaussian likelihood.
        kl_weight: factor on the KL term.
        unroll: time steps of the decoder to a turn of its loop: 1 suits a CPU, some more an accelerator, whose small
            kernels cost their launch.
    """

    quirks: bool = False
    hidden: int = 256
    contexts: int = 2
    temperature: float = 0.5
    horizon: int = 7
    variance: float = 5e-7
    kl_weight: float = 100.0
    unroll: int = 1

    def __post_init__(self) -> None:
        for name in ("hidden", "horizon", "unroll"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        for name in ("temperature", "variance"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, must be positive")


def seen_times(num_times: int, *, cfg: CausalMMMConfig) -> int:
    """Count the times that the encoder sees."""
    return num_times if cfg.quirks else num_times - cfg.horizon


def init(key: Key[Array, ""], *, cfg: CausalMMMConfig, num_nodes: int, num_times: int) -> Params:
    """Draw the parameters: encoder weights Xavier normal with bias 0.1, decoder weights U(-1, 1) / sqrt(inputs)."""
    del num_nodes
    h, seen = cfg.hidden, seen_times(num_times, cfg=cfg)
    encoder = {
        "node_in": (seen, h),
        "node_out": (h, h),
        "edge_in": (2 * h, h),
        "edge_out": (h, h),
        "heard_in": (h, h),
        "heard_out": (h, h),
        "last_in": (3 * h, h),
        "last_out": (h, h),
        "logit": (h, 2),
    }
    decoder = {
        "message_in": (2 * h, h),
        "message_out": (h, h),
        "reset_heard": (h, h),
        "update_heard": (h, h),
        "new_heard": (h, h),
        "reset_value": (1, h),
        "update_value": (1, h),
        "new_value": (1, h),
        "out_1": (h, h),
        "out_2": (h, h),
        "out_3": (h, 1),
        "shape": (cfg.contexts, 1),
        "half": (cfg.contexts, 1),
    }
    unbiased = {"reset_heard", "update_heard", "new_heard", "reset_value", "update_value", "new_value"}
    params: Params = {}
    counts = {name: a * b for name, (a, b) in (encoder | decoder).items()}
    normals = draws.normal(key_for(key, "encoder"), (sum(counts[n] for n in encoder),))
    uniforms = 2 * draws.uniform(key_for(key, "decoder"), (sum(counts[n] for n in decoder),)) - 1
    at = 0
    for name, size in encoder.items():
        weight = normals[at : at + counts[name]].reshape(size) * (2 / sum(size)) ** 0.5
        params[name] = {"w": weight, "b": jnp.full(size[1], 0.1, jnp.float32)}
        at += counts[name]
    at = 0
    for name, size in decoder.items():
        weight = uniforms[at : at + counts[name]].reshape(size) / max(size[0], 1) ** 0.5
        params[name] = {"w": weight} if name in unbiased else {"w": weight, "b": jnp.zeros(size[1])}
        at += counts[name]
    for name in NORMS:
        params[f"norm_{name}"] = {"scale": jnp.ones(h), "shift": jnp.zeros(h)}
    return params


def init_stats(*, cfg: CausalMMMConfig) -> dict[str, Array]:
    """Start the running means and variances of the four batch normalisations: `[2, hidden]` each."""
    return {name: jnp.stack([jnp.zeros(cfg.hidden), jnp.ones(cfg.hidden)]) for name in NORMS}


def _norm(
    params: Params,
    stats: dict[str, Array],
    name: str,
    inputs: Float[Array, "shops *rows hidden"],
    training: bool,
    quirks: bool,
) -> Array:
    """Batch normalisation; in training returns the new running statistics through `stats`, which is a fresh dict."""
    if training:
        axes = tuple(range(1 if quirks else 0, inputs.ndim - 1))
        mean, var = inputs.mean(axes, keepdims=True), inputs.var(axes, keepdims=True)
        rows = inputs.size // inputs.shape[-1] // (inputs.shape[0] if quirks else 1)
        unbiased = var * rows / max(rows - 1, 1)
        now = jnp.stack([jnp.mean(m.reshape(-1, m.shape[-1]), 0) for m in (mean, unbiased)])
        stats[name] = (1 - MOMENTUM) * stats[name] + MOMENTUM * jax.lax.stop_gradient(now)
    else:
        mean, var = stats[name]
    norm = params[f"norm_{name}"]
    return (inputs - mean) * jax.lax.rsqrt(var + 1e-5) * norm["scale"] + norm["shift"]


def _pairs(params: Params, name: str, nodes: Array, skip: Array | None = None) -> Array:
    """Apply a dense layer to [receiver, sender(, skip)] of every pair, each node multiplied once: `[.., i, j, out]`."""
    h = nodes.shape[-1]
    weight = params[name]["w"]
    pairs = (nodes @ weight[h : 2 * h])[..., :, None, :] + (nodes @ weight[:h])[..., None, :, :] + params[name]["b"]
    return pairs if skip is None else pairs + skip @ weight[2 * h :]


def encode(
    params: Params,
    stats: dict[str, Array],
    seen: Float[Array, "shops seen nodes"],
    *,
    cfg: CausalMMMConfig,
    training: bool,
) -> tuple[Float[Array, "shops nodes nodes 2"], dict[str, Array]]:
    """Compute the logits of "no edge" and "edge" for every pair, row sends; the diagonal carries no meaning."""
    stats = dict(stats)
    n = seen.shape[-1]
    mask = edges.off_diagonal(n)
    senders, receivers = edges.off_diagonal_pairs(n)

    def block(name: str, inner: Array) -> Array:
        hidden = jax.nn.elu(dense(params[f"{name}_out"], jax.nn.elu(inner)))
        if hidden.ndim == 3:
            return _norm(params, stats, name, hidden, training, cfg.quirks)
        # Only real pairs may enter the statistics, so the diagonal is left out and put back as zero.
        normed = _norm(params, stats, name, hidden[:, senders, receivers], training, cfg.quirks)
        return jnp.zeros_like(hidden).at[:, senders, receivers].set(normed)

    node = block("node", dense(params["node_in"], jnp.swapaxes(seen, 1, 2)))
    skip = block("edge", _pairs(params, "edge_in", node))
    heard = (skip * mask[:, :, None]).sum(1) / n
    heard = block("heard", dense(params["heard_in"], heard))
    last = block("last", _pairs(params, "last_in", heard, skip))
    return dense(params["logit"], last), stats


def probabilities(
    params: Params, stats: dict[str, Array], values: Float[Array, "shops times nodes"], *, cfg: CausalMMMConfig
) -> Float[Array, "shops nodes nodes"]:
    """Compute edge probabilities with the running statistics; the diagonal is 0."""
    seen = values[:, : seen_times(values.shape[1], cfg=cfg)]
    logits, _ = encode(params, stats, seen, cfg=cfg, training=False)
    return jax.nn.softmax(logits)[..., 1] * edges.off_diagonal(values.shape[-1])


def _gumbel(key: Key[Array, ""], shape: tuple[int, ...]) -> Array:
    eps = 1e-10
    return -jnp.log(eps - jnp.log(draws.uniform(key, shape) + eps))


class _Steps(NamedTuple):
    """The recurrence's weights, laid side by side: a step is three products, whatever computes it.

    Attributes:
        pair, pair_bias: [sender, receiver] halves of the message's inner layer, `[hidden, 2 hidden]`.
        outer: the message's outer layer.
        heard, value: the three gates, reset, update and new, `[hidden, 3 hidden]` and `[3 hidden]`.
    """

    pair: Array
    pair_bias: Array
    outer: Params
    heard: Array
    value: Array


def _lay_out(params: Params, hidden: int) -> _Steps:
    weight, gates = params["message_in"]["w"], ("reset", "update", "new")
    return _Steps(
        pair=jnp.concatenate([weight[:hidden], weight[hidden:]], 1),
        pair_bias=params["message_in"]["b"],
        outer=params["message_out"],
        heard=jnp.concatenate([params[f"{g}_heard"]["w"] for g in gates], 1),
        value=jnp.concatenate([params[f"{g}_value"]["w"][0] for g in gates]),
    )


def _remember(
    steps: _Steps,
    memory: Float[Array, "shops nodes hidden"],
    values: Float[Array, "shops nodes"],
    gate: Float[Array, "shops nodes nodes"],
    *,
    cfg: CausalMMMConfig,
) -> Float[Array, "shops nodes hidden"]:
    """Advance the memories by one step for all shops; `gate` has a zero diagonal."""
    sender, receiver = jnp.split(memory @ steps.pair, 2, -1)
    inner = jnp.tanh(sender[:, :, None] + receiver[:, None, :] + steps.pair_bias)
    heard = (gate[..., None] * jnp.tanh(dense(steps.outer, inner))).sum(1) / values.shape[1]
    reset_h, update_h, new_h = jnp.split(heard @ steps.heard, 3, -1)
    reset_x, update_x, new_x = jnp.split(values[..., None] * steps.value, 3, -1)
    update = jax.nn.sigmoid(update_x + update_h)
    new = (jax.nn.sigmoid if cfg.quirks else jnp.tanh)(new_x + jax.nn.sigmoid(reset_x + reset_h) * new_h)
    return (1 - update) * new + update * memory


def _read_out(
    params: Params,
    memory: Float[Array, "*steps shops nodes hidden"],
    values: Float[Array, "*steps shops nodes"],
    context: Float[Array, "shops contexts"],
    *,
    cfg: CausalMMMConfig,
) -> Float[Array, "*steps shops nodes"]:
    """Predict the values after `values` from the memories that have heard them."""
    out = jax.nn.relu(dense(params["out_2"], jax.nn.relu(dense(params["out_1"], memory))))
    out = dense(params["out_3"], out)[..., 0]
    floor = jnp.maximum(out[..., -1], 0.1)
    shape = jnp.maximum(dense(params["shape"], context)[:, 0], 0.1)
    half = jnp.maximum(dense(params["half"], context)[:, 0], 0.1)
    saturated = floor**shape / (floor**shape + half**shape) * out[..., -1]
    out = out.at[..., -1].set(saturated)
    return out if cfg.quirks else values + out


def decode(
    params: Params,
    gate: Float[Array, "shops nodes nodes"],
    values: Float[Array, "shops times nodes"],
    context: Float[Array, "shops contexts"],
    *,
    cfg: CausalMMMConfig,
) -> Float[Array, "shops steps nodes"]:
    """Predict times 1 to T - 1: truth is fed up to the forecast window, the decoder's own predictions inside it.

    Along the truth no prediction is fed back, so all of them are read off in one product after the scan.
    """
    num_shops, num_times, n = values.shape
    # The authors feed the truth for one step more, so that one step fewer is free-running.
    fed = min(max(num_times - cfg.horizon + (1 if cfg.quirks else 0), 1), num_times - 1)
    steps, given = _lay_out(params, cfg.hidden), jnp.swapaxes(values[:, :fed], 0, 1)
    # A backward pass computes a step's messages again: they are most of the memory.
    remember = jax.checkpoint(lambda m, x: _remember(steps, m, x, gate, cfg=cfg), prevent_cse=False)

    def listen(memory, now):
        memory = remember(memory, now)
        return memory, memory

    def dream(carry, _):
        memory, now = carry
        memory = remember(memory, now)
        prediction = _read_out(params, memory, now, context, cfg=cfg)
        return (memory, prediction), prediction

    start = jnp.zeros((num_shops, n, cfg.hidden), values.dtype)
    memory, memories = jax.lax.scan(listen, start, given, unroll=cfg.unroll)
    first = _read_out(params, memories, given, context, cfg=cfg)
    _, rest = jax.lax.scan(dream, (memory, first[-1]), length=num_times - 1 - fed)
    return jnp.swapaxes(jnp.concatenate([first, rest]), 0, 1)


def loss(
    key: Key[Array, ""],
    params: Params,
    stats: dict[str, Array],
    batch: Batch,
    progress: Array,
    *,
    cfg: CausalMMMConfig,
    training: bool,
) -> tuple[Array, tuple[dict[str, Array], dict[str, Array]]]:
    """Compute `kl_weight * KL + NLL` over all nodes and steps, per shop and node, constants dropped."""
    del progress
    num_shops, num_times, n = batch.values.shape
    mask = edges.off_diagonal(n)
    seen = batch.values[:, : seen_times(num_times, cfg=cfg)]
    logits, stats = encode(params, stats, seen, cfg=cfg, training=training)
    noise = _gumbel(key, logits.shape) if training or cfg.quirks else jnp.zeros_like(logits)
    # Without noise the probabilities themselves gate the messages: no temperature sharpens them.
    heat = cfg.temperature if training or cfg.quirks else 1.0
    gate = jax.nn.softmax((logits + noise) / heat)[..., 1] * mask
    predictions = decode(params, gate, batch.values, batch.context, cfg=cfg)
    errors = predictions - batch.values[:, 1:]
    nll = jnp.sum(errors**2) / (2 * cfg.variance) / (num_shops * n)
    probability = jax.nn.softmax(logits)
    kl = jnp.sum(probability * jax.nn.log_softmax(logits) * mask[:, :, None]) / (n * num_shops)
    metrics = {
        "mse": jnp.mean(errors**2),
        "mse7": jnp.mean(errors[:, -cfg.horizon :, -1] ** 2),
        "kl": kl,
        "density": jnp.sum(probability[..., 1] * mask) / (num_shops * n * (n - 1)),
    }
    return cfg.kl_weight * kl + nll, (metrics, stats)
