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

Rows = Float[Array, "rows heads size"]


class Relative(NamedTuple):
    """The tables of the past, the present first, then what lies further and further back; queries see no later rows.

    key, value: [distances, size]. at: [queries, rows, distances], 1 at each pair's distance; None where queries and
    rows stand at the same times one by one, which costs less (see `relative`).
    """

    key: Float[Array, "distances size"]
    value: Float[Array, "distances size"]
    at: Float[Array, "queries rows distances"] | None = None

    def spread(self, x: Float[Array, "heads queries distances"]) -> Float[Array, "heads queries rows"]:
        """Lay numbers by distance out over pairs."""
        return spread(x) if self.at is None else jnp.einsum("hqr,qsr->hqs", x, self.at)

    def gather(self, x: Float[Array, "heads queries rows"]) -> Float[Array, "heads queries distances"]:
        """Sum pairs by distance."""
        return gather(x, len(self.key)) if self.at is None else jnp.einsum("hqs,qsr->hqr", x, self.at)


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


def _split(x: Float[Array, "rows width"], cfg: MMMConfig) -> Rows:
    return x.reshape(x.shape[0], cfg.heads, -1)


def project(params: Params, memory: Float[Array, "rows width"], *, cfg: MMMConfig) -> tuple[Rows, Rows]:
    """Give the keys and values of a memory, which a roll-out keeps."""
    return _split(nets.dense(params["key"], memory), cfg), _split(nets.dense(params["value"], memory), cfg)


def attend(
    params: Params,
    relative: Relative | None,
    x: Float[Array, "queries width"],
    keys: Rows,
    values: Rows,
    seen: Bool[Array, "queries rows"],
    *,
    cfg: MMMConfig,
    seed: UInt32[Array, "2"] | None = None,
) -> Float[Array, "queries width"]:
    """Attend from `x` to the rows that each query may see; a query that sees none gets the mean of all rows.

    Args:
        params: see `leaves`.
        relative: see `look_up`, of queries that see no later rows; None where the rows have no order.
        x: queries before projection.
        keys, values: see `project`.
        seen: which rows a query may see.
        seed: drops attention weights in training.
    """
    query = _split(nets.dense(params["query"], x), cfg)
    score = jnp.einsum("qhd,shd->hqs", query, keys)
    if relative is not None:
        score = score + relative.spread(jnp.einsum("qhd,rd->hqr", query, relative.key))
    weight = jax.nn.softmax(jnp.where(seen, score / math.sqrt(query.shape[-1]), -1e9), axis=-1)
    if seed is not None:
        weight = nets.dropout(seed, weight, cfg.dropout)
    out = jnp.einsum("hqs,shd->qhd", weight, values)
    if relative is not None:
        out = out + jnp.einsum("hqr,rd->qhd", relative.gather(weight), relative.value)
    return nets.dense(params["out"], out.reshape(x.shape))
