"""Maximum likelihood for a Deep Boltzmann Machine with persistent chains; one epoch is one scan.

    d log p(v) / dM = <e o'>_data - <e o'>_model

Data averages come from mean field, model averages from chains that live from step to step (stochastic maximum
likelihood). The default chains are true block Gibbs chains over all layers. `PAPER` is the learning rule of the
Three-in-One World Model (arXiv 2605.07199): its chains keep the visible layer only and infer the rest anew at every
step, so they do not sample the machine, and its score counts the upper couplings twice, which doubles their gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key, Num, UInt8

from wmjax.core import bits, devices
from wmjax.core.keys import key_for
from wmjax.core.visible import Visible
from wmjax.dbm import batches, centering, gibbs, phases, readout
from wmjax.dbm import packed as colours
from wmjax.dbm.centering import Gains, Offsets
from wmjax.dbm.packed import Packed
from wmjax.dbm.types import DBMParams, Layers

Rows = Float[Array, "rows units"] | UInt8[Array, "rows units"] | Bool[Array, "rows units"]
"""Visible rows; bits are best kept as uint8 or bool, a quarter of the memory."""


@dataclass(frozen=True, kw_only=True)
class LearnConfig:
    """How a machine learns, but for how long.

    Attributes:
        learning_rate: Adam's, at the start.
        decay_steps: updates after which the learning rate has halved, `rate / (1 + step / decay_steps)`; None keeps it.
        weight_decay: L2, added to the gradient before Adam.
        decay_biases: decay biases too, as the source does; it pulls the biases of rare bits towards even odds.
        batch_size: rows of an update.
        shuffle: deal the rows anew every epoch; otherwise they are taken in their order.
        chains: `block` Gibbs chains over all layers, or the source's `visible` chains, which keep the visible layer.
        num_chains: persistent chains.
        gibbs_steps: steps of each chain an update.
        mean_field_sweeps: sweeps of inference.
        objective: `likelihood`, or `paper`: the source's score, which doubles the gradient of couplings between hidden
            layers.
        centering: take the gradient in centred coordinates, which makes pretraining unnecessary.
        offset_rate: how fast the centring offsets follow the activity given data.
        ema_decay: decay of the moving average of the parameters, started with a shorter memory; 0 keeps none.
        gains: `centering.Gains`; not (1, 1) for the outer layers of textbook pretraining only.
    """

    learning_rate: float = 1e-3
    decay_steps: float | None = None
    weight_decay: float = 1e-4
    decay_biases: bool = True
    batch_size: int = 128
    shuffle: bool = True
    chains: Literal["block", "visible"] = "block"
    num_chains: int = 128
    gibbs_steps: int = 5
    mean_field_sweeps: int = 10
    objective: Literal["likelihood", "paper"] = "likelihood"
    centering: bool = True
    offset_rate: float = 0.01
    ema_decay: float = 0.0
    gains: Gains = (1.0, 1.0)

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_chains", "gibbs_steps", "mean_field_sweeps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        for name in ("learning_rate", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, must not be negative")
        if self.decay_steps is not None and not self.decay_steps > 0:
            raise ValueError(f"decay_steps is {self.decay_steps}, must be positive or None")
        if not 0 < self.offset_rate <= 1:
            raise ValueError(f"offset_rate is {self.offset_rate}, must be in (0, 1]")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}, must be in [0, 1)")
        if self.chains not in ("block", "visible"):
            raise ValueError(f"chains is {self.chains!r}, must be 'block' or 'visible'")
        if self.objective not in ("likelihood", "paper"):
            raise ValueError(f"objective is {self.objective!r}, must be 'likelihood' or 'paper'")


PAPER = LearnConfig(learning_rate=1e-5, weight_decay=1e-4, chains="visible", objective="paper", centering=False)
"""Fine-tuning of the Three-in-One World Model, after pretraining by `pretrain.PAPER`."""


class Hyper(NamedTuple):
    """What may differ between members of one compiled program.

    learning_rate, weight_decay: scalars; the decay is added to the gradient before Adam (coupled L2).
    """

    learning_rate: Float[Array, ""]
    weight_decay: Float[Array, ""]


class LearnState(NamedTuple):
    """What the next epoch needs.

    params: the machine, in plain coordinates.
    average: exponential moving average of `params`; their copy where `cfg.ema_decay` is 0.
    chains: persistent chains, `[chains, units]` a layer; with visible chains the hidden entries are means.
    offsets: centring offsets of the packed units.
    moments: Adam's state, in packed centred coordinates.
    step: updates done.
    hyper: learning rate and weight decay.
    """

    params: DBMParams
    average: DBMParams
    chains: Layers
    offsets: Offsets
    moments: Any
    step: Int[Array, ""]
    hyper: Hyper


def visible_bias(
    data: Rows, *, visible: Visible, weights: Float[Array, " rows"] | None = None, floor: float = 1e-4
) -> Float[Array, " units"]:
    """Give each visible unit the bias that fits its mean alone.

    Bernoulli: log-odds; softmax: log of the mean; Gaussian: the mean. Means of bits are kept within `floor` of 0 and 1.
    """
    mean = _mean_rows(data, weights)
    share = jnp.clip(mean, floor, 1 - floor)
    bias = jnp.log(share) - jnp.log1p(-share)
    for group in visible.groups:
        if group.kind != "bernoulli":
            own = jnp.log(share) if group.kind == "softmax" else mean
            bias = bias.at[group.slice].set(own[group.slice])
    return bias


def _mean_rows(data: Array, weights: Array | None) -> Array:
    if weights is None:
        return jnp.mean(data, axis=0, dtype=jnp.float32)
    # A float32 product over all rows would be as large as the data in float32; the contraction is not.
    return jnp.einsum("r,ru->u", weights / weights.sum(), data.astype(jnp.float32))


def init(
    key: Key[Array, ""],
    params: DBMParams,
    data: Rows,
    *,
    cfg: LearnConfig,
    visible: Visible,
    weights: Float[Array, " rows"] | None = None,
) -> LearnState:
    """Start from given parameters: chains drawn from the biases, offsets at the means of data and biases.

    Args:
        key: random key.
        params: the machine to start from, for example `types.init(key, visible_bias(data, visible=visible), cfg=..)`.
        data: the rows to be learnt, for their means.
        cfg: how to learn.
        visible: kinds of the visible units.
        weights: weights of the rows.
    """
    chains = gibbs.init_layers(key, params, visible=visible, num_chains=cfg.num_chains)
    if cfg.chains == "visible" and visible.all_bernoulli:
        chains = (bits.coin(bits.seeds(key_for(key, "visible")), jnp.full_like(chains[0], 0.5)), *chains[1:])
    machine = colours.pack(params)
    hidden = tuple(jax.nn.sigmoid(bias) for bias in params.biases[1:])
    offsets = Offsets(*colours.join((_mean_rows(data, weights).astype(params.biases[0].dtype), *hidden)))
    hyper = Hyper(jnp.asarray(cfg.learning_rate, jnp.float32), jnp.asarray(cfg.weight_decay, jnp.float32))
    # Copies: an average that shares its buffers with the parameters cannot be donated beside them.
    return LearnState(
        params=params,
        average=jax.tree.map(jnp.copy, params),
        chains=chains,
        offsets=offsets,
        moments=_optimiser(hyper, 0, cfg).init(machine),
        step=jnp.zeros((), jnp.int32),
        hyper=hyper,
    )


def _optimiser(hyper: Hyper, step: Array | int, cfg: LearnConfig) -> optax.GradientTransformation:
    """Build Adam with coupled L2: the decay is part of the gradient, as the source has it, not AdamW's."""

    def decayed(tree: Packed) -> Packed:
        return jax.tree.map(lambda leaf: leaf.ndim == 2 or cfg.decay_biases, tree)

    rate = hyper.learning_rate if cfg.decay_steps is None else hyper.learning_rate / (1 + step / cfg.decay_steps)
    return optax.chain(
        optax.add_decayed_weights(hyper.weight_decay, mask=decayed),
        optax.scale_by_adam(),
        optax.scale(-rate),
    )


def rows_to_share(cfg: LearnConfig, num_rows: int) -> int:
    """Give the rows of a step that devices may share: what divides them divides a batch and the chains."""
    return math.gcd(min(cfg.batch_size, num_rows), cfg.num_chains)


def epoch(
    key: Key[Array, ""],
    state: LearnState,
    data: Rows,
    *,
    cfg: LearnConfig,
    visible: Visible,
    weights: Float[Array, " rows"] | None = None,
    share: Mesh | None = None,
) -> tuple[LearnState, dict[str, Num[Array, ""]]]:
    """Learn from all rows once, in shuffled minibatches; rows that do not fill the last batch wait for another epoch.

    Args:
        key: random key of this epoch.
        state: from `init` or the epoch before.
        data: visible rows, uint8 or bool where all units are bits.
        cfg: how to learn; learning rate and weight decay are taken from `state.hyper`.
        visible: kinds of the visible units.
        weights: weights of the rows; only their ratios within a batch matter.
        share: cores of a CPU that work on each step together, `devices.layout` of `rows_to_share`. A step is the same
            to rounding, and so is learning until a sampled bit falls the other way.

    Returns:
        The new state, and `readout.metrics` of it on up to 4,096 of the rows.

    Raises:
        ValueError: `share` does not divide the rows of a step, or is of other devices.
    """
    if share is not None and (
        rows_to_share(cfg, data.shape[0]) % share.size or share.devices.flat[0].platform != "cpu"
    ):
        raise ValueError(f"share is {share}, must be cores that divide {rows_to_share(cfg, data.shape[0])} rows")
    sizes = colours.sizes_of(state.params)
    read = batches.reader(data, state.params.biases[0].dtype)
    order = batches.order(key_for(key, "order"), data.shape[0], cfg.batch_size, shuffle=cfg.shuffle)
    seeds = bits.seeds(key_for(key, "chains"), (order.shape[0], cfg.gibbs_steps, 2))

    def update(carry: _Carry, xs: tuple[Array, Array]) -> tuple[_Carry, None]:
        index, step_seeds = xs
        rows, begun = devices.shared((read(index), carry.chains), share)
        positive = phases.given_data(carry.machine, rows, sizes=sizes, sweeps=cfg.mean_field_sweeps, gains=cfg.gains)
        chains, negative = _move(step_seeds, carry._replace(chains=begun), sizes, cfg, visible)
        shares = None if weights is None else _shares(weights[index])
        if share is None:
            data_side, model_side = phases.moments(positive, shares), phases.moments(negative)
        else:
            data_side, model_side = phases.moments_together(positive, negative, shares)
        carry = carry._replace(chains=chains, offsets=_follow(carry.offsets, data_side, cfg))
        return _apply(carry, jax.tree.map(jnp.subtract, model_side, data_side), state.hyper, sizes, cfg), None

    carry = _Carry(
        machine=colours.pack(state.params),
        average=colours.pack(state.average),
        chains=colours.join(state.chains),
        offsets=state.offsets,
        moments=state.moments,
        step=state.step,
    )
    carry, _ = jax.lax.scan(update, carry, (order, seeds))
    params = colours.unpack(carry.machine, sizes)
    state = LearnState(
        params=params,
        average=colours.unpack(carry.average, sizes) if cfg.ema_decay > 0 else jax.tree.map(jnp.copy, params),
        chains=colours.split(*carry.chains, sizes),
        offsets=carry.offsets,
        moments=carry.moments,
        step=carry.step,
        hyper=state.hyper,
    )
    rows = read(order.ravel()[: readout.ROWS])
    return state, readout.metrics(params, state.chains, rows, visible=visible, sweeps=cfg.mean_field_sweeps)


class _Carry(NamedTuple):
    """`LearnState` with packed parameters and layers, as the scan over batches carries it."""

    machine: Packed
    average: Packed
    chains: phases.PackedLayers
    offsets: Offsets
    moments: Any
    step: Array


def _move(
    seeds: Array, carry: _Carry, sizes: tuple[int, ...], cfg: LearnConfig, visible: Visible
) -> tuple[phases.PackedLayers, phases.PackedLayers]:
    if cfg.chains == "block":
        return phases.block_chains(seeds, carry.machine, carry.chains, visible=visible, sizes=sizes, gains=cfg.gains)
    return phases.visible_chains(
        seeds,
        carry.machine,
        carry.chains,
        visible=visible,
        sizes=sizes,
        sweeps=cfg.mean_field_sweeps,
        gains=cfg.gains,
    )


def _shares(weights: Array) -> Array:
    # A batch in which no row has weight has no data side; the floor keeps 0 / 0 out of it.
    return weights / jnp.maximum(weights.sum(), jnp.finfo(weights.dtype).tiny)


def _follow(offsets: Offsets, data_side: Packed, cfg: LearnConfig) -> Offsets:
    if not cfg.centering:
        return offsets
    return jax.tree.map(
        lambda old, new: (1 - cfg.offset_rate) * old + cfg.offset_rate * new,
        offsets,
        Offsets(data_side.even, data_side.odd),
    )


def _apply(carry: _Carry, gradient: Packed, hyper: Hyper, sizes: tuple[int, ...], cfg: LearnConfig) -> _Carry:
    """Take one Adam step down the gradient of the loss over plain parameters, in centred coordinates if asked."""
    machine, offsets = carry.machine, carry.offsets
    factor = _factor(sizes, cfg).astype(machine.coupling.dtype)
    optimiser = _optimiser(hyper, carry.step, cfg)
    if cfg.centering:
        gradient = centering.gradient(gradient, offsets, factor)
        centred = centering.coordinates(machine, offsets, gains=cfg.gains)
        updates, moments = optimiser.update(gradient, carry.moments, centred)
        updates = centering.plain_step(Packed(*jax.tree.leaves(updates)), offsets, gains=cfg.gains)
    else:
        gradient = gradient._replace(coupling=gradient.coupling * factor)
        updates, moments = optimiser.update(gradient, carry.moments, machine)
    machine, average = optax.apply_updates(machine, updates), carry.average
    if cfg.ema_decay > 0:
        decay = jnp.minimum(cfg.ema_decay, (1.0 + carry.step) / (10.0 + carry.step))
        average = optax.incremental_update(machine, average, 1 - decay)
    return carry._replace(machine=machine, average=average, moments=moments, step=carry.step + 1)


def _factor(sizes: tuple[int, ...], cfg: LearnConfig) -> np.ndarray:
    """Weigh each coupling's gradient: 0 where layers do not touch, 2 between hidden layers for the paper's score."""
    factor = colours.touching(sizes).astype(float)
    if cfg.objective == "paper":
        factor[sizes[0] :] *= 2
    return factor
