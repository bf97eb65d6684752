"""Learning of every graph model: one pure epoch, many seeds and graphs by `jax.vmap`.

    state = init(key, data, cfg=cfg)
    state, metrics = epoch(key, state, data, cfg=cfg)         or, at once, state, history = fit(key, data, cfg=cfg)

A model is its config: a decoder (`DecoderConfig`), an encoder (`EncoderConfig`) or `CausalMMMConfig`. The state kept
for use is that of the smallest validation loss, averaged over a few epochs; no truth enters the choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from wmjax.core import draws
from wmjax.core.keys import key_for
from wmjax.graph import causalmmm, decoder, encoder
from wmjax.graph.causalmmm import CausalMMMConfig
from wmjax.graph.decoder import DecoderConfig
from wmjax.graph.encoder import EncoderConfig
from wmjax.graph.series import Split, take

Model = DecoderConfig | EncoderConfig | CausalMMMConfig


@dataclass(frozen=True, kw_only=True)
class LearnConfig:
    """How a model is learnt.

    Attributes:
        model: what is learnt.
        epochs, batch_size: passes over the training shops, shops a step (fewer, where there are fewer).
        learning_rate: Adam's.
        schedule: `"constant"`, `"cosine"` (to 0 at the last step) or `"halving"` (every `halve_every` epochs).
        clip: bound on the gradient's global norm; 0 for none.
        select_window: epochs over which the validation loss is averaged before the best state is chosen.
    """

    model: Model
    epochs: int = 200
    batch_size: int = 32
    learning_rate: float = 5e-4
    schedule: Literal["constant", "cosine", "halving"] = "constant"
    halve_every: int = 200
    clip: float = 1.0
    select_window: int = 5

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "halve_every", "select_window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.schedule not in ("constant", "cosine", "halving"):
            raise ValueError(f"schedule is {self.schedule!r}, must be constant, cosine or halving")
        if not self.learning_rate > 0 or self.clip < 0:
            raise ValueError(
                f"learning_rate is {self.learning_rate}, clip is {self.clip}: must be positive, at least 0"
            )


class LearnState(NamedTuple):
    """Everything the next epoch needs.

    Attributes:
        params, stats, optimiser: the model's parameters, its running statistics (or `()`), Adam's state.
        rate: factor on the learning rate, scalar: models with rates of their own share a program.
        epoch: epochs done, int32 scalar.
        recent: the last validation losses, `[select_window]`.
        best_value: the smallest average of them so far, infinite before `select_window` epochs.
        best_params, best_stats: the model at that time.
    """

    params: Any
    stats: Any
    optimiser: Any
    rate: Array
    epoch: Array
    recent: Array
    best_value: Array
    best_params: Any
    best_stats: Any


def _objective(model: Model) -> Callable[..., Any]:
    if isinstance(model, DecoderConfig):
        return decoder.loss
    return encoder.loss if isinstance(model, EncoderConfig) else causalmmm.loss


def _init_model(key: Key[Array, ""], *, model: Model, num_nodes: int, num_times: int) -> tuple[Any, Any]:
    if isinstance(model, DecoderConfig):
        return decoder.init(key, cfg=model, num_nodes=num_nodes), ()
    if isinstance(model, EncoderConfig):
        return encoder.init(key, cfg=model, num_nodes=num_nodes, num_times=num_times), ()
    params = causalmmm.init(key, cfg=model, num_nodes=num_nodes, num_times=num_times)
    return params, causalmmm.init_stats(cfg=model)


def _batches(num_shops: int, cfg: LearnConfig) -> tuple[int, int]:
    size = min(cfg.batch_size, num_shops)
    return num_shops // size, size


def _optimiser(cfg: LearnConfig, num_shops: int) -> optax.GradientTransformation:
    per_epoch = _batches(num_shops, cfg)[0]
    if cfg.schedule == "cosine":
        rate = optax.cosine_decay_schedule(cfg.learning_rate, cfg.epochs * per_epoch)
    elif cfg.schedule == "halving":
        rate = optax.exponential_decay(cfg.learning_rate, cfg.halve_every * per_epoch, 0.5, staircase=True)
    else:
        rate = cfg.learning_rate
    clip = optax.clip_by_global_norm(cfg.clip) if cfg.clip else optax.identity()
    # Flat: one long vector instead of forty short arrays is quicker to compile and to run.
    return optax.flatten(optax.chain(clip, optax.adam(rate)))


def init(key: Key[Array, ""], data: Split, *, cfg: LearnConfig) -> LearnState:
    """Draw a model for data of this shape and start its optimiser."""
    num_shops, num_times, num_nodes = data.train.values.shape
    params, stats = _init_model(key_for(key, "init"), model=cfg.model, num_nodes=num_nodes, num_times=num_times)
    return LearnState(
        params=params,
        stats=stats,
        optimiser=_optimiser(cfg, num_shops).init(params),
        rate=jnp.ones(()),
        epoch=jnp.zeros((), jnp.int32),
        recent=jnp.full(cfg.select_window, jnp.inf, jnp.float32),
        best_value=jnp.array(jnp.inf, jnp.float32),
        # Copies, so that a caller who donates the state does not donate one buffer twice.
        best_params=jax.tree.map(jnp.copy, params),
        best_stats=jax.tree.map(jnp.copy, stats),
    )


def epoch(
    key: Key[Array, ""], state: LearnState, data: Split, *, cfg: LearnConfig
) -> tuple[LearnState, dict[str, Array]]:
    """Pass once over the training shops in a fresh order, then validate and keep the best state.

    The same key serves every epoch: streams are indexed by the state's own count. Shops that do not fill the last batch
    wait for another epoch.

    Returns:
        The next state, and scalars: `loss` (mean over the epoch's steps), `selection` (the averaged validation loss)
        and, prefixed with `validation_`, the model's own metrics on the validation shops.
    """
    objective, model = _objective(cfg.model), cfg.model
    num_shops = data.train.values.shape[0]
    num_batches, size = _batches(num_shops, cfg)
    optimiser = _optimiser(cfg, num_shops)
    progress = state.epoch / max(cfg.epochs - 1, 1)
    order = jnp.argsort(draws.uniform(key_for(key, "order", state.epoch), (num_shops,)))
    order = order[: num_batches * size].reshape(num_batches, size)
    keys = jax.random.split(key_for(key, "steps", state.epoch), num_batches)

    def learn(carry, inputs):
        params, stats, opt = carry
        step_key, shops = inputs
        score = jax.value_and_grad(
            lambda p: objective(step_key, p, stats, take(data.train, shops), progress, cfg=model, training=True),
            has_aux=True,
        )
        (value, (_, stats)), gradient = score(params)
        update, opt = optimiser.update(gradient, opt, params)
        update = jax.tree.map(lambda u: state.rate * u, update)
        return (optax.apply_updates(params, update), stats, opt), value

    (params, stats, opt), values = jax.lax.scan(learn, (state.params, state.stats, state.optimiser), (keys, order))
    # The same noise at every epoch, so that epochs are compared by their parameters.
    value, (metrics, _) = objective(
        key_for(key, "validation"), params, stats, data.validation, progress, cfg=model, training=False
    )
    recent = jnp.concatenate([state.recent[1:], value[None]])
    selection = recent.mean()
    better = selection < state.best_value

    def keep(new, old):
        return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, old)

    state = LearnState(
        params=params,
        stats=stats,
        optimiser=opt,
        rate=state.rate,
        epoch=state.epoch + 1,
        recent=recent,
        best_value=jnp.where(better, selection, state.best_value),
        best_params=keep(params, state.best_params),
        best_stats=keep(stats, state.best_stats),
    )
    seen = {f"validation_{name}": metric for name, metric in metrics.items()}
    return state, {"loss": values.mean(), "validation_loss": value, "selection": selection, **seen}


def fit(
    key: Key[Array, ""],
    data: Split,
    *,
    cfg: LearnConfig,
    watch: Callable[[LearnState], dict[str, Array]] | None = None,
) -> tuple[LearnState, dict[str, Array]]:
    """Learn for `cfg.epochs` epochs in one scan.

    Args:
        key: one key for all epochs.
        data: training and validation shops.
        cfg: the model and how to learn it.
        watch: looks at the state after each epoch; what it returns is added to the history and nothing else, which
            makes it the one place where truth may be looked at.

    Returns:
        The last state, and every metric over the epochs, `[epochs, ...]`.
    """

    def one(state, _):
        state, metrics = epoch(key, state, data, cfg=cfg)
        return state, metrics if watch is None else {**metrics, **watch(state)}

    return jax.lax.scan(one, init(key, data, cfg=cfg), length=cfg.epochs)
