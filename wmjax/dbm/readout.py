"""What to watch while a machine learns."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Num

from wmjax.core import bits
from wmjax.core.visible import Visible
from wmjax.dbm import energy, meanfield
from wmjax.dbm.types import DBMParams, Layers

ROWS = 4096
"""Rows that an epoch's metrics are read on, at most."""


def reconstruction(
    key: Key[Array, ""],
    params: DBMParams,
    v: Float[Array, "rows units"],
    *,
    visible: Visible,
    kind: Literal["prob", "sampled"] = "prob",
    sweeps: int = 10,
) -> Float[Array, ""]:
    """Measure how well rows come back from their own first hidden layer, in nats a visible unit; lower is better.

    `prob` is `-log p(v | mu_1) / units`, a proper score: the binary cross-entropy of bits, the log loss of softmax
    groups, half the squared error (and a constant) of Gaussian units. It needs no key.

    `sampled` is the published quantity, for bits only: h1 and then v' are drawn, and the cross-entropy of v against
    the sample v' clipped to [1e-7, 1 - 1e-7] is 16.118 times the share of wrong bits. It is noisy and not proper.
    """
    means, _ = meanfield.infer(params, v, sweeps=sweeps)
    if kind == "sampled":
        if not visible.all_bernoulli:
            raise ValueError("the sampled reconstruction is defined for bits only")
        seeds = bits.seeds(key, (2,))
        bottom = bits.coin(seeds[0], means[1])
        drawn = bits.bernoulli(seeds[1], bottom @ params.weights[0].T + params.biases[0])
        return -jnp.log(1e-7) * jnp.mean(jnp.abs(v - drawn))
    field = means[1] @ params.weights[0].T + params.biases[0]
    square = energy.gaussian_units(visible)
    loss = energy.visible_log_sums(field, visible=visible).sum(-1) - (v * field).sum(-1)
    return jnp.mean(loss + 0.5 * (v[..., jnp.array(square, int)] ** 2).sum(-1)) / visible.size


def metrics(
    params: DBMParams, chains: Layers, v: Float[Array, "rows units"], *, visible: Visible, sweeps: int = 10
) -> dict[str, Num[Array, ""]]:
    """Read a machine on rows and on its chains.

    Returns:
        finite: one if every parameter is finite, else zero.
        reconstruction: `reconstruction(kind="prob")`.
        energy_gap: mean energy of the chains minus that of the rows with their mean-field layers. Chains that have
            forgotten the data, or a machine that denies them, show as a gap that grows.
        activation_h1, ..: mean of each hidden layer's means.
        saturated: share of hidden units whose mean over the rows is below 0.01 or above 0.99.
    """
    means, _ = meanfield.infer(params, v, sweeps=sweeps)
    key = jax.random.key(0)  # Not used by a reconstruction of this kind.
    gap = energy.energy(params, chains, visible=visible).mean() - energy.energy(params, means, visible=visible).mean()
    activity = jnp.concatenate([layer.mean(0) for layer in means[1:]])
    out = {
        "finite": jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]).all().astype(jnp.float32),
        "reconstruction": reconstruction(key, params, v, visible=visible, sweeps=sweeps),
        "energy_gap": gap,
        "saturated": jnp.mean((activity < 0.01) | (activity > 0.99)),
    }
    return out | {f"activation_h{i}": layer.mean() for i, layer in enumerate(means) if i > 0}
