"""What may stand where the belief stands: raw bits, principal components, an autoencoder, and machines of other kinds.

Each is fitted to the train rows' bits alone, and turns bits into features.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from experiments import machines
from experiments.machines import Stages
from wmjax.core.keys import key_for
from wmjax.core.visible import Visible
from wmjax.dbm import learn, types
from wmjax.dbm.learn import LearnConfig
from wmjax.dbm.types import DBMConfig, DBMParams
from wmjax.train import many

Encode = Callable[[np.ndarray], np.ndarray]
"""Rows of bits `[rows, bits]` to features `[rows, f]`."""


def components(train: np.ndarray, width: int) -> Encode:
    """Fit principal components of the bits."""
    model = PCA(width, random_state=0).fit(train.astype(np.float32))
    return lambda bits: model.transform(bits.astype(np.float32)).astype(np.float32)


class Autoencoder(NamedTuple):
    """A ReLU network that gives its input back, squared error, through layers of the machine's widths.

    encode_all: activations of all encoding layers side by side, as a full belief has them. encode: of the narrowest.
    error: squared error of the reconstruction, `[rows]`.
    """

    encode_all: Encode
    encode: Encode
    error: Callable[[np.ndarray], np.ndarray]


def autoencoder(train: np.ndarray, widths: tuple[int, ...], *, seed: int, epochs: int) -> Autoencoder:
    """Train scikit-learn's network from bits to bits."""
    network: Any = MLPRegressor  # its annotations know only its defaults' types
    model = network(
        hidden_layer_sizes=(*widths, *widths[-2::-1]),
        max_iter=epochs,
        n_iter_no_change=epochs,
        batch_size=min(1024, len(train)),
        learning_rate_init=2e-3,
        random_state=seed,
    )
    rows = train.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it stops by its epochs
        model.fit(rows, rows)

    def layers(bits: np.ndarray) -> list[np.ndarray]:
        out, x = [], bits.astype(np.float32)
        for weights, bias in zip(model.coefs_[: len(widths)], model.intercepts_[: len(widths)], strict=True):
            x = np.maximum(x @ weights + bias, 0)
            out.append(x.astype(np.float32))
        return out

    return Autoencoder(
        encode_all=lambda bits: np.concatenate(layers(bits), axis=1),
        encode=lambda bits: layers(bits)[-1],
        error=lambda bits: np.square(model.predict(bits.astype(np.float32)) - bits).sum(1),
    )


def centred_machines(
    keys: jax.Array,
    train: np.ndarray,
    val: np.ndarray,
    visible: Visible,
    *,
    machine: DBMConfig,
    epochs: int,
    stages: Stages,
) -> DBMParams:
    """Train machines by the library's default rule: centred gradients, block Gibbs chains, no pretraining."""

    @jax.jit
    def begin(keys: jax.Array, rows: jax.Array) -> DBMParams:
        # Rows are an argument: of a constant, XLA would work out the mean while it compiles, for minutes.
        bias = learn.visible_bias(rows, visible=visible)
        return jax.vmap(lambda key: types.init(key_for(key, "machine"), bias, cfg=machine))(keys)

    start = begin(keys, jnp.asarray(train))
    params, _ = machines.fine_tune(
        keys, start, train, val, visible, cfg=LearnConfig(), epochs=epochs, patience=epochs, stages=stages
    )
    return params


def beliefs(params: DBMParams, bits: np.ndarray) -> np.ndarray:
    """Infer the full belief of rows under every seed's machine: `[seeds, rows, f]`."""
    count = params.biases[0].shape[0]
    return np.stack([machines.belief(many.member(params, at), bits) for at in range(count)])
