"""The Causal Transformer as published for discrete treatments (Melnychuk, Frauen and Feuerriegel 2022), two streams.

Stream 0 reads the treatment before, stream 1 past outcomes; a block of Post-LN attention (no output projection), cross
attention to the other stream's input, static covariates and a ReLU layer; then

    Phi_t = ELU(W mean(streams)_t),   outcome_{t+1} = G_Y(Phi_t, treatment_t),   logits of treatment_t = G_A(Phi_t)

Everything of one shape is one batched product: both streams are an axis, and queries, keys and values of a stream, for
itself and for the other, are one matrix. A member may use fewer units than its arrays hold (`Live`): surplus weights
start at 0 and no gradient ever moves them, so networks of several widths train in one program.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import PrecisionLike
from jaxtyping import Array, Float, Key, UInt32

from wmjax.core import bits
from wmjax.transformer import nets, relative
from wmjax.transformer.nets import Params

SEEDS = 6
"""Seeds that one pass in training takes."""
PARTS = 5
"""Queries, keys and values of a stream, and its keys and values for the other one."""


@dataclass(frozen=True, kw_only=True)
class CTConfig:
    """Shape of the network; the default is the published one for moderate confounding, with 9,401 parameters.

    Attributes:
        width: of a stream, in `heads` equal parts.
        heads: attention heads.
        reach: steps after which relative positions are no longer told apart.
        representation: size of the balanced representation.
        head_units: hidden units of each head.
        treatments: kinds of treatment.
        features: numbers that the outcome stream reads at a time.
        statics: static covariates.
        dropout: share of units and of attention weights dropped in training.
    """

    width: int = 16
    heads: int = 2
    reach: int = 15
    representation: int = 12
    head_units: int = 24
    treatments: int = 4
    features: int = 1
    statics: int = 1
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width is {self.width}, must be a multiple of heads = {self.heads}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, must be in [0, 1)")


class Live(NamedTuple):
    """Which units a member uses: 1 or 0 each."""

    width: Float[Array, "*m width"]
    hidden: Float[Array, "*m hidden"]
    representation: Float[Array, "*m representation"]
    head_units: Float[Array, "*m units"]
    features: Float[Array, "*m features"]


def live(inner: CTConfig, cfg: CTConfig) -> Live:
    """Say which units of `cfg` make the network `inner`; each head keeps its place."""
    if inner.heads != cfg.heads:
        raise ValueError(f"heads are {inner.heads} and {cfg.heads}, must be equal")

    def first(some: int, of: int, repeat: int = 1) -> Array:
        if some > of:
            raise ValueError(f"{some} units do not fit into {of}")
        return jnp.tile((jnp.arange(of) < some).astype(jnp.float32), repeat)

    return Live(
        first(inner.width // cfg.heads, cfg.width // cfg.heads, cfg.heads),
        first(4 * inner.width, 4 * cfg.width),
        first(inner.representation, cfg.representation),
        first(inner.head_units, cfg.head_units),
        first(inner.features, cfg.features),
    )


class Inputs(NamedTuple):
    """What the network reads at each time: the treatment before (zeros at first), what is known of past outcomes, the
    static covariates, and the treatment now, which only the outcome's head sees.
    """

    before: Float[Array, "*batch time treatments"]
    features: Float[Array, "*batch time features"]
    static: Float[Array, "*batch statics"]
    now: Float[Array, "*batch time treatments"]


class _Leaf(NamedTuple):
    mask: Float[Array, "..."]
    bound: Array | float
    kind: str


def _linear(inside: Array, outside: Array, lead: tuple[int, ...] = ()) -> Params:
    """Describe a layer with weights and biases uniform in +-1 / sqrt(inputs), PyTorch's default."""
    bound = 1 / jnp.sqrt(inside.sum())
    shape = (*lead, inside.shape[0], outside.shape[0])
    return {
        "w": _Leaf(jnp.broadcast_to(inside[:, None] * outside, shape), bound, "uniform"),
        "b": _Leaf(jnp.broadcast_to(outside, (*lead, outside.shape[0])), bound, "uniform"),
    }


def _leaves(own: Live, cfg: CTConfig) -> Params:
    ones = jnp.ones
    size = own.width[: cfg.width // cfg.heads]
    table = _Leaf(jnp.broadcast_to(size, (2 * cfg.reach + 1, size.shape[0])), 1.0, "normal")
    norms = jnp.broadcast_to(own.width, (3, 2, cfg.width))
    treatments, known = ones(cfg.treatments), jnp.concatenate([own.representation, ones(cfg.treatments)])
    return {
        "encoder": {
            "treatments": _linear(treatments, own.width),
            "outcomes": _linear(own.features, own.width),
            "static": _linear(ones(cfg.statics), own.width),
            "mix": _linear(own.width, jnp.tile(own.width, PARTS), (2,)),
            "query": _linear(own.width, own.width, (2,)),
            "positions": {"key": table, "value": table},
            "up": _linear(own.width, own.hidden, (2,)),
            "down": _linear(own.hidden, own.width, (2,)),
            "norms": {"scale": _Leaf(norms, 1.0, "one"), "offset": _Leaf(norms, 0.0, "one")},
            "phi": _linear(own.width, own.representation),
            "outcome_1": _linear(known, own.head_units),
            "outcome_2": _linear(own.head_units, ones(1)),
        },
        "treatment": {
            "hidden": _linear(own.representation, own.head_units),
            "logits": _linear(own.head_units, treatments),
        },
    }


def init(key: Key[Array, ""], own: Live, *, cfg: CTConfig) -> Params:
    """Draw `{"encoder": .., "treatment": ..}`: all but the treatment's head, and that head."""
    flat, tree = jax.tree.flatten(_leaves(own, cfg), is_leaf=lambda x: isinstance(x, _Leaf))
    counts = [leaf.mask.size for leaf in flat]
    uniform = bits.uniform(bits.seeds(key), (sum(counts),))
    found, start = [], 0
    for leaf, count in zip(flat, counts, strict=True):
        u = uniform[start : start + count].reshape(leaf.mask.shape)
        start += count
        if leaf.kind == "normal":
            u = jax.scipy.special.ndtri(jnp.clip(u, 1e-6, 1 - 1e-6))
        elif leaf.kind == "uniform":
            u = 2 * u - 1
        else:
            u = jnp.ones_like(u)
        found.append(leaf.mask * leaf.bound * u)
    return jax.tree.unflatten(tree, found)


def size(own: Live, *, cfg: CTConfig) -> int:
    """Count a member's parameters."""
    flat = jax.tree.leaves(_leaves(own, cfg), is_leaf=lambda x: isinstance(x, _Leaf))
    return int(sum(float(leaf.mask.sum()) for leaf in flat))


def _dense(layer: Params, x: Array) -> Array:
    """Apply each stream's own layer: `[.., 2, time, inputs]`."""
    return jnp.einsum("...std,sdk->...stk", x, layer["w"]) + layer["b"][:, None]


def _norm(params: Params, at: int, x: Array, own: Live) -> Array:
    """Standardise by the mean and the unbiased standard deviation of the units in use."""
    count = own.width.sum()
    centred = x - (x * own.width).sum(-1, keepdims=True) / count
    square = (jnp.square(centred) * own.width).sum(-1, keepdims=True) / (count - 1)
    # The square root has no gradient where all units are equal.
    spread = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0) + 1e-6
    scale, offset = params["norms"]["scale"][at][:, None], params["norms"]["offset"][at][:, None]
    return scale * centred / spread + offset


def embed(params: Params, before: Array, features: Array, own: Live) -> Float[Array, "*batch 2 time width"]:
    """Give both streams' input."""
    pair = nets.dense(params["treatments"], before), nets.dense(params["outcomes"], features * own.features)
    return jnp.stack(pair, axis=-3)


def split(params: Params, x: Array, *, cfg: CTConfig) -> list[Float[Array, "*batch 2 time heads size"]]:
    """Give queries, keys and values of each stream, then the keys and values that it attends to across."""
    mixed = _dense(params["mix"], x).reshape(*x.shape[:-1], PARTS, cfg.heads, -1)
    parts = [mixed[..., i, :, :] for i in range(PARTS)]
    return [*parts[:3], *(jnp.flip(p, axis=-4) for p in parts[3:])]


def _drop(seed: Array | None, at: int, x: Array, cfg: CTConfig) -> Array:
    return x if seed is None else nets.dropout(seed[at], x, cfg.dropout)


def scale_of(own: Live, *, cfg: CTConfig) -> Float[Array, ""]:
    """Give one over the square root of a head's size."""
    return jax.lax.rsqrt(own.width.sum() / cfg.heads)


def after_self(params: Params, x: Array, out: Array, own: Live, *, cfg: CTConfig) -> tuple[Array, Array]:
    """Give the streams after attention to themselves, and their queries across."""
    y = _norm(params, 0, out.reshape(x.shape) + x, own)
    return y, _dense(params["query"], y).reshape(*x.shape[:-1], cfg.heads, -1)


def after_cross(
    params: Params, y: Array, out: Array, static: Array, own: Live, *, cfg: CTConfig, seed: Array | None = None
) -> Float[Array, "*batch time representation"]:
    """Give the representation of the streams that attended to each other; `static` fits `[.., 2, time, statics]`."""
    z = _norm(params, 1, out.reshape(y.shape) + y, own) + nets.dense(params["static"], static)
    hidden = _drop(seed, 2, jax.nn.relu(_dense(params["up"], z)), cfg)
    z = _norm(params, 2, _drop(seed, 3, _dense(params["down"], hidden), cfg) + z, own)
    return jax.nn.elu(nets.dense(params["phi"], _drop(seed, 4, z.mean(-3), cfg)))


def encode(
    params: Params,
    inputs: Inputs,
    own: Live,
    *,
    cfg: CTConfig,
    seed: UInt32[Array, "6 2"] | None = None,
    precision: PrecisionLike = None,
) -> Float[Array, "*batch time representation"]:
    """Give the representation at every time, which knows the treatment before and the outcome now, no later ones.

    Right-padded rows need no mask: time is causal, so they are seen by none but themselves.

    Args:
        params: the encoder's, see `init`.
        inputs: any batch axes.
        own: units in use.
        cfg: shape.
        seed: drops units and attention weights in training, see `SEEDS`.
        precision: of the products with attention weights.
    """
    x = embed(params, inputs.before, inputs.features, own)
    query, key, value, key_across, value_across = split(params, x, cfg=cfg)

    def attend(at: int, query: Array, key: Array, value: Array) -> Array:
        drop = (None if seed is None else seed[at], cfg.dropout)
        tables, scale = params["positions"], scale_of(own, cfg=cfg)
        return relative.attend(query, key, value, tables, scale=scale, drop=drop, precision=precision)

    y, across = after_self(params, x, attend(0, query, key, value), own, cfg=cfg)
    out = attend(1, across, key_across, value_across)
    return after_cross(params, y, out, inputs.static[..., None, None, :], own, cfg=cfg, seed=seed)


def outcome(params: Params, phi: Array, now: Array) -> Float[Array, "*batch"]:
    """Predict from a representation and the treatment now."""
    hidden = jax.nn.elu(nets.dense(params["outcome_1"], jnp.concatenate([phi, now], axis=-1)))
    return nets.dense(params["outcome_2"], hidden)[..., 0]


def outcomes(params: Params, phi: Array) -> Float[Array, "*batch treatments"]:
    """Predict under every treatment, from one product with the representation."""
    rows = phi.shape[-1]
    w, b = params["outcome_1"]["w"], params["outcome_1"]["b"]
    hidden = jax.nn.elu((phi @ w[:rows])[..., None, :] + w[rows:] + b)
    return nets.dense(params["outcome_2"], hidden)[..., 0]


def treatment(head: Params, phi: Array) -> Float[Array, "*batch treatments"]:
    """Give the logits of the treatment now."""
    return nets.dense(head["logits"], jax.nn.elu(nets.dense(head["hidden"], phi)))
