"""Graph models by the dozen: every seed and every supplied graph in one program that goes on where it was killed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wmjax.core.keys import key_for
from wmjax.core.observe import Observer
from wmjax.graph import learn, series
from wmjax.graph.learn import LearnConfig, LearnState
from wmjax.graph.series import Batch, Scale, Split
from wmjax.train import loop, many


class Shops(NamedTuple):
    """One seed's shops, dealt to three parts and standardised by the first; the batches' graphs are the truth."""

    train: Batch
    validation: Batch
    test: Batch
    scale: Scale


def deal(
    values: Float[Array, "shops times nodes"],
    graph: Float[Array, "shops nodes nodes"],
    context: Float[Array, "shops contexts"],
    *,
    validation: int,
    test: int,
) -> Shops:
    """Deal shops, never times: the last `test` shops only score, the `validation` shops before them select."""
    first, second = values.shape[0] - test - validation, values.shape[0] - test
    scale = series.fit_scale(values[:first])
    whole = Batch(series.standardise(values, scale), graph, context)
    train, select, score = (
        jax.tree.map(lambda a, at=at: a[at], whole) for at in (slice(first), slice(first, second), slice(second, None))
    )
    return Shops(train, select, score, scale)


class Data(NamedTuple):
    """What the members read: parts `[seeds, ...]`, and the graphs to supply, `[seeds, graphs, shops, nodes, nodes]`.

    `test` is never learnt from; it is there for those who watch.
    """

    parts: Split
    train_graphs: Array
    validation_graphs: Array
    test: Batch


class Member(NamedTuple):
    """One model, the seed whose shops it reads, and which of the graphs it is given."""

    state: LearnState
    seed: Array
    graph: Array


@dataclass(frozen=True)
class MemberEpoch:
    """One epoch of one member; a value, so that a second run compiles nothing."""

    cfg: LearnConfig

    def __call__(self, key: Array, member: Member, data: Data) -> tuple[Member, dict[str, Array]]:
        own = _own(member, data)
        state, metrics = learn.epoch(key_for(key, "fit"), member.state, own, cfg=self.cfg)
        # Infinite until the first window of epochs is full, which the loop would take for divergence.
        metrics.pop("selection")
        return member._replace(state=state), metrics


Watch = Callable[[Any, Any, Batch], dict[str, Array]]
"""Maps the last parameters and statistics, and the test shops, to metrics."""


@dataclass(frozen=True)
class _Watched:
    """A watch as the loop calls it."""

    watch: Watch

    def __call__(self, key: Array, member: Member, data: Data) -> dict[str, Array]:
        test = jax.tree.map(lambda a: a[member.seed], data.test)
        return self.watch(member.state.params, member.state.stats, test)


def _own(member: Member, data: Data) -> Split:
    parts = jax.tree.map(lambda a: a[member.seed], data.parts)
    train, validation = (g[member.seed, member.graph] for g in (data.train_graphs, data.validation_graphs))
    return Split(parts.train._replace(graph=train), parts.validation._replace(graph=validation))


def best(member: Member) -> tuple[Any, Any]:
    """Give the parameters and statistics of the smallest averaged validation loss."""
    return member.state.best_params, member.state.best_stats


def fit(
    shops: Shops,
    train_graphs: Float[Array, "seeds graphs train nodes nodes"],
    validation_graphs: Float[Array, "seeds graphs validation nodes nodes"],
    *,
    cfg: LearnConfig,
    folder: Path,
    stage: str,
    observer: Observer,
    fingerprint: str,
    watch: Watch | None = None,
) -> tuple[Any, dict[str, np.ndarray]]:
    """Learn one model a seed and graph, the seeds in the outer order.

    Args:
        shops: every leaf with a leading axis of seeds.
        train_graphs, validation_graphs: what each model is supplied with.
        cfg: the model and how to learn it.
        folder, stage, observer, fingerprint: as in `wmjax.train.loop.run`.
        watch: looks at every epoch's model and the test shops; what it returns joins the metrics and nothing else.

    Returns:
        `(params, stats)` of the chosen states with leading axes `[seeds, graphs]`, and the metrics
        `[epochs, seeds * graphs]`.
    """
    data = Data(Split(shops.train, shops.validation), train_graphs, validation_graphs, shops.test)
    seeds, graphs = train_graphs.shape[:2]
    like = jax.tree.map(lambda a: jnp.zeros(a.shape[1:], a.dtype), data.parts)

    def init(key: Array, hyper: tuple[Array, Array]) -> Member:
        return Member(learn.init(key, like, cfg=cfg), *hyper)

    seed, graph = (jnp.asarray(a.ravel(), jnp.int32) for a in np.indices((seeds, graphs)))
    # Models of one seed start alike and see their shops in the same order: they differ by their graphs alone.
    keys = jax.vmap(lambda s: jax.random.fold_in(jax.random.key(0), s))(seed)
    done, history = many.fit_many(
        keys,
        (seed, graph),
        init,
        MemberEpoch(cfg),
        cfg=loop.LoopConfig(epochs=cfg.epochs),
        data=data,
        evaluate=None if watch is None else _Watched(watch),
        folder=folder,
        stage=stage,
        observer=observer,
        snapshot=best,
        fingerprint=fingerprint,
    )
    params = jax.tree.map(lambda a: a.reshape(seeds, graphs, *a.shape[1:]), done.best)
    return params, dict(history)
