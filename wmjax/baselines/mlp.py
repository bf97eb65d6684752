"""An MLP on raw features and actions: the adapter's network without a belief, which is the S-learner."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from wmjax.baselines.tables import Table
from wmjax.core.keys import key_for
from wmjax.core.observe import Observer, silent
from wmjax.heads import ensemble
from wmjax.heads import learn as heads
from wmjax.heads.adapter import AdapterConfig
from wmjax.heads.ensemble import EnsembleEpoch
from wmjax.heads.learn import AdapterData, AdapterTables
from wmjax.train import loop
from wmjax.train.loop import LoopConfig


def fit_predict(
    key: Key[Array, ""],
    train: Table,
    val: Table,
    ask: Table,
    *,
    cfg: AdapterConfig,
    members: int = 1,
    observer: Observer = silent,
) -> Float[np.ndarray, "rows outcomes"]:
    """Fit one network a binary outcome, all in one program, and predict the probabilities of other rows.

    Each network keeps the epoch that scores best on the validation rows; several members are averaged.
    """
    outcomes = train.labels.shape[1]
    state = ensemble.init(
        key_for(key, "init"),
        cfg=cfg,
        num_features=train.features.shape[1],
        num_actions=train.actions.shape[1],
        outcomes=outcomes,
        members=members,
    )
    done, _ = loop.run(
        key_for(key, "epochs"),
        state,
        EnsembleEpoch(cfg, ("binary",) * outcomes),
        cfg=LoopConfig(epochs=cfg.epochs, monitor="score", mode="max", patience=cfg.patience),
        data=AdapterTables(_data(train), _data(val)),
        snapshot=heads.trained,
        observer=observer,
        stage="baseline MLP",
    )
    predict = jax.jit(partial(ensemble.predict, cfg=cfg, outcomes=outcomes))
    logits = predict(done.best, jnp.asarray(ask.features), jnp.asarray(ask.actions))
    return np.asarray(jax.nn.sigmoid(logits).mean(1).T)


def _data(table: Table) -> AdapterData:
    arrays = (jnp.asarray(x) for x in (table.features, table.actions, table.labels.T))
    return AdapterData(*arrays, jnp.ones((1, 1, len(table.labels))))
