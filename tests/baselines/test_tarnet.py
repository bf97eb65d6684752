"""TARNet on effects that are known, beside the same network written in NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from wmjax.baselines import tarnet
from wmjax.baselines.tables import Contrast, Table
from wmjax.baselines.tarnet import Rows, TarnetConfig
from wmjax.core.errors import UserError

CFG = TarnetConfig(trunk=(8, 6), head=5, learning_rate=1e-2, batch_size=64, epochs=20, patience=4)
PUSH = Contrast(action_index=1)


def table(rows: int, seed: int) -> tuple[Table, np.ndarray]:
    """Draw rows whose treatment follows `c`, which lifts the outcome too; the effect is 2 or -1 logits, by `b`."""
    rng = np.random.default_rng(seed)
    b, c, other = rng.integers(0, 2, (3, rows))
    treated = (rng.random(rows) < 0.25 + 0.5 * c).astype(float)
    effect = np.where(b == 1, 2.0, -1.0)
    y = rng.random(rows) < expit(-1 + 1.5 * c + 0.5 * other + effect * treated)
    return Table(np.column_stack([b, c]).astype(float), np.column_stack([other, treated]), y[:, None] * 1.0), effect


def test_known_effects_are_recovered():
    """Each bit's effect from 2,000 rows, of which the smaller arm has 500 a cell: a standard error of .07 logits."""
    (train, _), (val, _), (ask, effect) = table(4000, 0), table(1000, 1), table(400, 2)
    blind = ask._replace(actions=np.column_stack([ask.actions[:, 0], np.full(400, np.nan)]), labels=ask.labels * np.nan)
    logit, prob = tarnet.effects(jax.random.key(0), train, val, blind, contrast=PUSH, cfg=CFG)
    assert logit[effect > 0].mean() == pytest.approx(2.0, abs=0.4)
    assert logit[effect < 0].mean() == pytest.approx(-1.0, abs=0.4)
    base = -1 + 1.5 * ask.features[:, 1] + 0.5 * ask.actions[:, 0]
    assert np.abs(prob - (expit(base + effect) - expit(base))).mean() < 0.06
    again, _ = tarnet.effects(jax.random.key(0), train, val, blind, contrast=PUSH, cfg=CFG)
    np.testing.assert_array_equal(again, logit)


def test_a_row_trains_the_head_of_its_own_value_and_the_trunk():
    params = tarnet._init(jax.random.key(0), num_features=3, cfg=CFG).params
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    for arm in (False, True):
        rows = Rows(jnp.asarray(x), jnp.full(7, arm), jnp.arange(7) % 2 * 1.0)
        gradient = jax.grad(tarnet.loss)(params, rows, cfg=CFG)
        moved = {name: bool(np.abs(g["kernel"]).max() > 0) for name, g in gradient.items()}
        own, other = int(arm), 1 - int(arm)
        assert moved[f"inner_{own}"]
        assert moved[f"outer_{own}"]
        assert moved["trunk_0"]
        assert not moved[f"inner_{other}"]
        assert not moved[f"outer_{other}"]


def test_the_heads_are_those_of_a_plain_network():
    params = jax.tree.map(np.float64, tarnet._init(jax.random.key(1), num_features=3, cfg=CFG).params)
    x = np.random.default_rng(1).normal(size=(5, 3))

    def layer(name: str, x: np.ndarray) -> np.ndarray:
        return x @ params[name]["kernel"] + params[name]["bias"]

    z = np.maximum(layer("trunk_1", np.maximum(layer("trunk_0", x), 0)), 0)
    expected = np.hstack([layer(f"outer_{a}", np.maximum(layer(f"inner_{a}", z), 0)) for a in (0, 1)])
    found = tarnet.heads(jax.tree.map(jnp.float32, params), jnp.asarray(x, jnp.float32), cfg=CFG)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_cannot_be_learnt_is_named():
    known, _ = table(60, 0)
    with pytest.raises(UserError, match="holds other train values than 0 and 1"):
        tarnet.effects(
            jax.random.key(0), known._replace(labels=known.labels + 0.5), known, known, contrast=PUSH, cfg=CFG
        )
    with pytest.raises(UserError, match="takes the value 1 in all 60 rows"):
        tarnet.effects(
            jax.random.key(0), known._replace(actions=np.ones((60, 2))), known, known, contrast=PUSH, cfg=CFG
        )
