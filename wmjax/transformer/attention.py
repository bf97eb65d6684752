"""Multi-head attention with relative positions (Shaw, Uszkoreit and Vaswani 2018).

    score_ts = q_t . (k_s + R_K[s - t]) / sqrt(d),   out_t = sum_s softmax(score)_ts (v_s + R_V[s - t])

with distances clipped to `reach`. One pair of tables serves every head, layer and stream.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from wmjax.transformer import nets
from wmjax.transformer.config import MMMConfig
from wmjax.transformer.nets import Leaf, Params
from wmjax.transformer.relative import gather, spread

Rows = Float[Array, "*axes heads rows size"]


class Kept(NamedTuple):
    """Keys and values of what may be attended to. In a roll-out, rows that are still to come hold zeros."""

    keys: Rows
    values: Rows


class Relative(NamedTuple):
    """The tables of the past, the present first, then what lies further and further back; queries see no later rows.

    key, value: [distances, size]. at: [queries, rows, distances], 1 at each pair's distance; None where queries and
    rows stand at the same times one by one, which costs less (see `relative`).
    """

    key: Float[Array, "distances size"]
    value: Float[Array, "distances size"]
    at: Float[Array, "queries rows distances"] | None = None

    def spread(self, x: Float[Array, "*axes queries distances"]) -> Float[Array, "*axes queries rows"]:
        """Lay numbers by distance out over pairs."""
        return spread(x) if self.at is None else jnp.einsum("...qr,qsr->...qs", x, self.at)

    def gather(self, x: Float[Array, "*axes queries rows"]) -> Float[Array, "*axes queries distances"]:
        """Sum pairs by distance."""
        return gather(x, len(self.key)) if self.at is None else jnp.einsum("...qs,qsr->...qr", x, self.at)


def leaves(*, cfg: MMMConfig, lead: tuple[int, ...] = ()) -> Params:
    """Describe one attention's parameters, or many on leading axes."""
    return {name: nets.linear(cfg.width, cfg.width, lead=lead) for name in ("query", "key", "value", "out")}


def table_leaves(*, cfg: MMMConfig) -> Params:
    """Describe the shared tables of relative positions."""
    size = cfg.width // cfg.heads
    shape = (2 * cfg.reach + 1, size)
    return {name: Leaf(shape, 1 / math.sqrt(size)) for name in ("key", "value")}


def look_up(tables: Params, ago: Int[Array, "queries rows"] | None = None, *, cfg: MMMConfig) -> Relative:
    """Make the tables ready for rows so many periods `ago`; None is all rows' own times, in order."""
    past = Relative(tables["key"][cfg.reach :: -1], tables["value"][cfg.reach :: -1])
    return past if ago is None else past._replace(at=jax.nn.one_hot(jnp.clip(ago, 0, cfg.reach), cfg.reach + 1))


def _split(x: Float[Array, "*axes rows width"], cfg: MMMConfig) -> Rows:
    return jnp.swapaxes(x.reshape(*x.shape[:-1], cfg.heads, -1), -2, -3)


def project(params: Params, memory: Float[Array, "*axes rows width"], *, cfg: MMMConfig) -> Kept:
    """Give the keys and values of a memory, which a roll-out keeps."""
    return Kept(*(_split(nets.dense(params[name], memory), cfg) for name in ("key", "value")))


def attend(
    params: Params,
    relative: Relative | None,
    x: Float[Array, "*axes queries width"],
    kept: Kept,
    seen: Bool[Array, "*#axes queries rows"],
    *,
    cfg: MMMConfig,
    seed: UInt32[Array, "*axes 2"] | None = None,
) -> Float[Array, "*axes queries width"]:
    """Attend from `x` to the rows that each query may see; a query that sees none gets the mean of all rows.

    Args:
        params: see `leaves`.
        relative: see `look_up`, of queries that see no later rows; None where the rows have no order.
        x: queries before projection, of as many series as the leading axes hold.
        kept: see `project`.
        seen: which rows a query may see.
        seed: one a series, drops attention weights in training.
    """
    query = _split(nets.dense(params["query"], x), cfg)
    score = jnp.einsum("...qd,...sd->...qs", query, kept.keys)
    if relative is not None:
        score = score + relative.spread(jnp.einsum("...qd,rd->...qr", query, relative.key))
    masked = jnp.where(seen[..., None, :, :], score / math.sqrt(query.shape[-1]), -1e9)
    weight = jax.nn.softmax(masked, axis=-1)
    if seed is not None:
        weight = nets.dropout(seed, weight, cfg.dropout)
    out = jnp.einsum("...qs,...sd->...qd", weight, kept.values)
    if relative is not None:
        out = out + jnp.einsum("...qr,rd->...qd", relative.gather(weight), relative.value)
    return nets.dense(params["out"], jnp.swapaxes(out, -2, -3).reshape(x.shape))
