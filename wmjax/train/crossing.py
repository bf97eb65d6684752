"""Members as a product of seeds, hyperparameters and subsets, with labels; and the table of what came out.

grid = crossing.cross(key, seeds=4, hyper={"rate": (0.5, 1.0)}, subsets=("north", "south"))
done, history = many.fit_many(grid.key, grid.hyper, init, epoch, cfg=cfg,
                              subsets=crossing.pad(tables), which=grid.which)
crossing.table(done, grid.labels)
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Int, Key

from wmjax.train.state import TrainState


class Crossed(NamedTuple):
    """The members of a product, on one axis.

    key: one a member; members of one seed share theirs, so that they differ by hyperparameters and subset alone. hyper:
    by name, `[members]`. which: the number of each member's subset. labels: a row a member: `seed`, the
    hyperparameters, `subset`.
    """

    key: Key[Array, " members"]
    hyper: dict[str, Array]
    which: Int[np.ndarray, " members"]
    labels: pd.DataFrame


def cross(
    key: Key[Array, ""],
    *,
    seeds: int = 1,
    hyper: Mapping[str, Sequence[float]] | None = None,
    subsets: Sequence[Any] = ("all",),
) -> Crossed:
    """Cross seeds with hyperparameters and subsets; the subset changes slowest, the seed fastest.

    Args:
        key: seed `s` is `fold_in(key, s)`.
        seeds: how many.
        hyper: values by name.
        subsets: a label each.
    """
    values = {name: list(given) for name, given in (hyper or {}).items()}
    if seeds < 1 or not len(subsets) or not all(values.values()):
        raise ValueError(f"{seeds} seeds, {len(subsets)} subsets and hyperparameters {values} make no member")
    if wrong := values.keys() & {"seed", "subset", *FOUND}:
        raise ValueError(f"hyperparameters are named {sorted(wrong)}, which name columns of the table")
    rows = list(itertools.product(range(len(subsets)), *values.values(), range(seeds)))
    which, *columns, seed = (list(column) for column in zip(*rows, strict=True))
    named = dict(zip(values, columns, strict=True))
    return Crossed(
        key=jax.vmap(lambda s: jax.random.fold_in(key, s))(jnp.asarray(seed)),
        hyper={name: jnp.asarray(column) for name, column in named.items()},
        which=np.asarray(which, np.int32),
        labels=pd.DataFrame({"seed": seed, **named, "subset": [subsets[at] for at in which]}),
    )


def pad(trees: Sequence[Any]) -> Any:
    """Lay ragged subsets side by side: `[subsets, rows, ..]`, with rows of zeros after those of the shorter ones.

    Args:
        trees: of equal structure, each leaf `[rows, ..]` with that subset's rows. One leaf should be weights, which are
            then 0 in the rows that are not there.
    """
    counts = []
    for number, tree in enumerate(trees):
        found = {np.shape(x)[:1] for x in jax.tree.leaves(tree)}
        if len(found) != 1 or () in found:
            raise ValueError(f"subset {number} has leaves of {sorted(found)} rows, must have as many in each")
        counts.append(found.pop()[0])

    def lay(*leaves: Any) -> np.ndarray:
        out = np.zeros((len(leaves), max(counts), *np.shape(leaves[0])[1:]), np.asarray(leaves[0]).dtype)
        for place, leaf in zip(out, leaves, strict=True):
            place[: len(leaf)] = leaf
        return out

    return jax.tree.map(lay, *trees)


FOUND = ("member", "best_epoch", "score", "diverged")


def table(done: TrainState, labels: pd.DataFrame) -> pd.DataFrame:
    """Lay out what came of each member: its labels, `best_epoch` from 1, `score` there, and whether it `diverged`.

    A member that never had a finite score has best epoch 0 and score NaN; so have all without a monitor their score.
    """
    score = np.asarray(done.best_value, np.float64)
    found = {
        "best_epoch": np.asarray(done.best_epoch),
        "score": np.where(np.isfinite(score), score, np.nan),
        "diverged": np.asarray(done.diverged),
    }
    if score.shape != (len(labels),):
        raise ValueError(f"{len(labels)} labels for members of shape {score.shape}")
    return pd.concat([labels.reset_index(drop=True).rename_axis("member").reset_index(), pd.DataFrame(found)], axis=1)
