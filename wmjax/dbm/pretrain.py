"""Greedy pretraining: one restricted Boltzmann machine a layer, then their assembly into one Deep Boltzmann Machine.

Alone, a layer lacks the input that it will get from its other neighbour. Two schemes make up for it:

- `textbook` (Salakhutdinov and Hinton, 2009): the bottom machine's hidden layer gets `2 W'v`, the top machine's visible
  layer gets `2 W h`. On assembly inner weights are halved, and a hidden layer that two machines share has the mean of
  the biases they gave it: the log-odds given both sides are the mean of those given either side doubled.
- `paper` (Three-in-One World Model, arXiv 2605.07199): nothing is doubled. On assembly inner weights are halved, and
  each hidden bias loses what the layer above sends on average.

A layer learns as any machine does, by `learn.epoch`: `layer_problem` says from what, on what and how.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from wmjax.core import bits
from wmjax.core.keys import key_for
from wmjax.core.visible import Visible
from wmjax.dbm import learn, types
from wmjax.dbm.learn import LearnConfig, LearnState, Rows
from wmjax.dbm.types import DBMConfig, DBMParams

Scheme = Literal["textbook", "paper"]

PAPER = LearnConfig(
    learning_rate=1e-4,
    weight_decay=1e-3,
    gibbs_steps=1,
    mean_field_sweeps=1,
    chains="visible",
    centering=False,
    shuffle=False,
)
"""Pretraining of the Three-in-One World Model: 100 epochs a layer in an order that is shuffled once."""

_CHUNK = 8192


class LayerProblem(NamedTuple):
    """What one layer's machine learns from.

    state: `LearnState` before the first epoch.
    data: the rows of its visible layer, as they are to be passed to `learn.epoch`.
    weights: weights of those rows, or None.
    """

    state: LearnState
    data: Array
    weights: Array | None


def layer_config(cfg: LearnConfig, *, index: int, depth: int, scheme: Scheme) -> LearnConfig:
    """Adapt a configuration to layer `index` of `depth`, from 0: the scheme's gains, and one sweep, which is exact."""
    gains = (1.0, 1.0)
    if scheme == "textbook" and depth > 1:
        gains = (2.0 if index == 0 else 1.0, 2.0 if index == depth - 1 else 1.0)
    return dataclasses.replace(cfg, gains=gains, mean_field_sweeps=1)


def layer_visible(visible: Visible, *, index: int, machine: DBMConfig) -> Visible:
    """Describe the layer below hidden layer `index`, from 0: the visible one, or the bits of a hidden one."""
    return visible if index == 0 else Visible.bernoulli(machine.hidden[index - 1], name=f"h{index}")


def layer_problem(
    key: Key[Array, ""],
    data: Rows,
    *,
    index: int,
    visible: Visible,
    machine: DBMConfig,
    cfg: LearnConfig,
    scheme: Scheme,
    weights: Float[Array, " rows"] | None = None,
) -> LayerProblem:
    """Pose the learning of one layer.

    Args:
        key: random key.
        data: rows of the layer below: the data for `index` 0, then `hidden_rows` of the machine before.
        index: which hidden layer, from 0.
        visible: kinds of the units of the layer below (`layer_visible`).
        machine: shape of the whole machine.
        cfg: how this layer learns (`layer_config`).
        scheme: `textbook`, or `paper`, which starts hidden-layer biases at zero instead of at their log-odds.
        weights: weights of the rows.
    """
    if not cfg.shuffle:
        order = bits.permutation(bits.seeds(key_for(key, "order")), data.shape[0])
        data, weights = data[order], None if weights is None else weights[order]
    bias = learn.visible_bias(data, visible=visible, weights=weights)
    if scheme == "paper" and index > 0:
        bias = jnp.zeros_like(bias)
    shape = dataclasses.replace(machine, hidden=(machine.hidden[index],))
    params = types.init(key_for(key, "weights"), bias, cfg=shape)
    state = learn.init(key_for(key, "chains"), params, data, cfg=cfg, visible=visible, weights=weights)
    return LayerProblem(state, data, weights)


def hidden_rows(key: Key[Array, ""], params: DBMParams, data: Rows, *, cfg: LearnConfig) -> UInt8[Array, "rows hidden"]:
    """Draw the hidden layer of a trained layer once for every row: the data of the next layer."""
    weight, bias = params.weights[0], params.biases[1]
    hidden = jax.lax.map(lambda row: _means(row, cfg.gains[0] * weight, bias), data, batch_size=_CHUNK)
    return bits.coin(bits.seeds(key), hidden).astype(jnp.uint8)


def assemble(rbms: tuple[DBMParams, ...], data: Rows, *, scheme: Scheme) -> DBMParams:
    """Build one machine from one-layer machines, bottom up; see the module's table.

    Args:
        rbms: trained layers, bottom up.
        data: rows of the visible layer, over which the `paper` scheme takes its averages.
        scheme: the scheme they were trained by.
    """
    last = len(rbms) - 1
    weights = tuple((0.5 if 0 < i < last else 1.0) * rbm.weights[0] for i, rbm in enumerate(rbms))
    below, hidden = rbms[0].biases[0], [rbm.biases[1] for rbm in rbms]
    if scheme == "textbook":
        upper = [rbm.biases[0] for rbm in rbms[1:]]
        shared = [0.5 * (c + b) for c, b in zip(hidden[:-1], upper, strict=True)]
    else:
        above = _activity(weights, hidden, data)[1:]
        shared = [c - w @ h for c, w, h in zip(hidden[:-1], weights[1:], above, strict=True)]
    hidden = [*shared, hidden[-1]]
    return DBMParams(weights, (below, *hidden))


def _activity(weights: tuple[Array, ...], biases: list[Array], data: Array) -> list[Array]:
    """Average each hidden layer's means over the rows, in one bottom-up pass."""

    def one(row: Array) -> tuple[Array, ...]:
        means = []
        for weight, bias in zip(weights, biases, strict=True):
            row = _means(row, weight, bias)
            means.append(row)
        return tuple(means)

    return [layer.mean(0) for layer in jax.lax.map(one, data, batch_size=_CHUNK)]


def _means(row: Array, weight: Array, bias: Array) -> Array:
    return jax.nn.sigmoid(row.astype(weight.dtype) @ weight + bias)
