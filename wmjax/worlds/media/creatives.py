"""Vectors of the channels' advertisements, as CLIP or BERT give them: read by the `free` head's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from wmjax.core.errors import UserError
from wmjax.data.schema import near
from wmjax.transformer.config import MMMConfig


def load(path: Path) -> pd.DataFrame:
    """Read a table of them from a `.csv` or `.parquet` file."""
    try:
        return pd.read_parquet(path) if path.suffix in (".parquet", ".pq") else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None


def read(
    given: Float[np.ndarray, "channels c"] | pd.DataFrame, channels: Sequence[str], cfg: MMMConfig
) -> Float[np.ndarray, "channels c"]:
    """Lay one vector a channel out, in the channels' order.

    Args:
        given: in that order already; or a table, a column `channel` and columns of numbers.
        channels: the actions' names.
        cfg: of the network that is to read them.

    Raises:
        UserError: a head that does not read them, a channel without a vector or with two, numbers that are none.
    """
    if cfg.head != "free":
        raise UserError(
            f"creative vectors are not read by the {cfg.head!r} head, whose channels have a curve each and no tokens; "
            'set network.head = "free", or give none'
        )
    if isinstance(given, pd.DataFrame):
        if "channel" not in given:
            raise UserError(f"creative vectors: no column 'channel'; {near('channel', given.columns)}")
        names = given["channel"].astype(str)
        if twice := names[names.duplicated()].tolist():
            raise UserError(f"creative vectors: {len(twice)} channels have more than one row, first {twice[0]!r}")
        if missing := [name for name in channels if name not in set(names)]:
            told = f"{len(missing)} channels have no row, first {missing[0]!r}; {near(missing[0], names)}"
            raise UserError(f"creative vectors: {told}")
        table = given.set_index(names).drop(columns="channel").loc[list(channels)]
        if words := [c for c in table if not pd.api.types.is_numeric_dtype(table[c])]:
            raise UserError(f"creative vectors: column {words[0]!r} holds no numbers")
        given = table.to_numpy(np.float64)
    vectors = np.asarray(given, np.float64)
    if vectors.ndim != 2 or len(vectors) != len(channels) or not vectors.shape[1]:
        raise UserError(
            f"creative vectors have shape {vectors.shape}, must be [channels, numbers] for {len(channels)} channels"
        )
    if not np.isfinite(vectors).all():
        at = int(np.nonzero(~np.isfinite(vectors).all(1))[0][0])
        raise UserError(f"creative vectors: that of channel {channels[at]!r} holds numbers that are not finite")
    return vectors
