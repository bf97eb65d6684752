"""Channels as tokens: what is spent on each in a period, coded by octaves, and which channel it is.

    token_k = W2 gelu(W1 code(spend_k)) + W_c id_k + MLP(creative_k),   tokens <- tokens + attention over channels
    pooled  = mean_k token_k

`id_k` is fixed, not trained, so that the number of parameters does not depend on the number of channels.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wmjax.transformer import attention, nets
from wmjax.transformer.config import MMMConfig
from wmjax.transformer.nets import Params


class Channels(NamedTuple):
    """What is fixed about the channels.

    code: [channels, code], which channel it is. creative: [channels, c], a vector of its advertisements (as CLIP or
    BERT give), or c = 0. sign: [channels], 1 or -1, the direction in which spend moves the outcome; 0 is unknown.
    """

    code: Float[Array, "channels code"]
    creative: Float[Array, "channels creative"]
    sign: Float[Array, " channels"]


def channels(
    num: int,
    *,
    cfg: MMMConfig,
    creative: Float[np.ndarray, "channels creative"] | None = None,
    sign: tuple[float, ...] | None = None,
) -> Channels:
    """Number the channels by sinusoids of falling frequency (Vaswani et al. 2017); creative vectors get length 1."""
    rate = 100.0 ** (-np.arange(cfg.code // 2) / (cfg.code // 2))
    angle = np.arange(num)[:, None] * rate
    code = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    vectors = np.zeros((num, 0)) if creative is None else np.asarray(creative, np.float64)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(length > 0, length, 1.0)
    signs = np.ones(num) if sign is None else np.asarray(sign)
    return Channels(*(jnp.asarray(x, jnp.float32) for x in (code, unit, signs)))


def fourier(x: Float[Array, "*axes"], frequencies: int) -> Float[Array, "*axes features"]:
    """Compute `[sin(2 pi 2^j x), cos(2 pi 2^j x)]` for j = 0 .. frequencies - 1. Its period is 1."""
    angle = 2 * jnp.pi * x[..., None] * 2.0 ** jnp.arange(frequencies)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def encode(spend: Float[Array, "*axes"], *, cfg: MMMConfig) -> Float[Array, "*axes features"]:
    """Code spend, scaled so that 1 is the largest of the train periods.

    `faithful`: `fourier(x)`, in which 0 and 1 are the same. `unaliased`: `fourier(x / 2)` with octave j damped by
    2^-j, so that no octave's slope exceeds pi; then x, and 1 where x > 0.
    """
    if cfg.encoding == "faithful":
        return fourier(spend, cfg.frequencies)
    damping = 2.0 ** -jnp.tile(jnp.arange(cfg.frequencies), 2)
    raw = jnp.stack([spend, (spend > 0).astype(spend.dtype)], axis=-1)
    return jnp.concatenate([fourier(spend / 2, cfg.frequencies) * damping, raw], axis=-1)


def leaves(*, cfg: MMMConfig, creative: int) -> Params:
    """Describe the tokenizer's parameters."""
    features = 2 * cfg.frequencies + (2 if cfg.encoding == "unaliased" else 0)
    found = {
        "spend_in": nets.linear(features, cfg.width),
        "spend_out": nets.linear(cfg.width, cfg.width),
        "code": nets.linear(cfg.code, cfg.width),
        "norm": nets.norm(cfg.width),
        "across": attention.leaves(cfg=cfg),
    }
    if creative:
        found |= {"creative_in": nets.linear(creative, cfg.width), "creative_out": nets.linear(cfg.width, cfg.width)}
    return found


def pooled(
    params: Params, spend: Float[Array, "*axes channels"], known: Channels, *, cfg: MMMConfig
) -> Float[Array, "*axes width"]:
    """Turn each period's spend into one vector; channels are a set, told apart by their codes alone."""
    tok = nets.dense(params["spend_out"], jax.nn.gelu(nets.dense(params["spend_in"], encode(spend, cfg=cfg))))
    tok = tok + nets.dense(params["code"], known.code)
    if "creative_in" in params:
        tok = tok + nets.dense(params["creative_out"], jax.nn.gelu(nets.dense(params["creative_in"], known.creative)))
    h = nets.layer_norm(params["norm"], tok)
    kept = attention.project(params["across"], h, cfg=cfg)
    seen = jnp.ones((h.shape[-2], h.shape[-2]), bool)
    return (tok + attention.attend(params["across"], None, h, kept, seen, cfg=cfg)).mean(-2)
