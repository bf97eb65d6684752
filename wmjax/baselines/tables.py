"""Rows as a baseline sees them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Table(NamedTuple):
    """features: [rows, features], what was known before. actions: [rows, actions]. labels: [rows, outcomes], 0 or 1."""

    features: Float[np.ndarray, "rows features"]
    actions: Float[np.ndarray, "rows actions"]
    labels: Float[np.ndarray, "rows outcomes"]
