"""What stands beside the numbers of a world's sweep: support of plans, whom they reach, and who was there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool

from wmjax.core.observe import Observer
from wmjax.sweep.grids import Grid
from wmjax.sweep.ranks import Best, Top
from wmjax.sweep.reduce import Full
from wmjax.worlds import sweep_segments, sweep_support
from wmjax.worlds.sweep_support import Question


def beside(
    asked: Question,
    grid: Grid,
    reduce: Any,
    groups: Mapping[str, Any],
    seen: Bool[np.ndarray, " units"],
    observer: Observer,
) -> dict[str, Any]:
    """Say what stands beside what is kept: support of every plan, or of each unit's best one, and whom plans reach."""
    named = reduce if isinstance(reduce, Mapping) else {"": reduce}
    found: dict[str, Any] = {}
    marks = lru_cache(1)(lambda: sweep_segments.reached(asked.plan, grid, groups, len(seen)))
    if any(not isinstance(kept, Top) and getattr(kept, "segments", None) is None for kept in named.values()):
        found[sweep_segments.REACHED] = lambda _: marks()
    for name, kept in named.items():
        if isinstance(kept, Best) and kept.segments is None:
            own, index = (f"{name}_{x}" if name else x for x in ("supported", "index"))
            whom = f"{name or 'best'}_{sweep_segments.REACHED}"
            found[own] = lambda folded, index=index: sweep_support.best_supported(asked, grid, folded[index])
            found[whom] = lambda folded, index=index: sweep_segments.best_reached(marks(), grid, folded[index])
    if full(reduce):
        found["supported"] = lambda folded: sweep_support.supported(asked, grid, observer=observer)
        found["present"] = lambda folded: (("unit",), seen)
    return found


def full(reduce: Any) -> bool:
    """Tell whether every plan's numbers are kept."""
    return any(isinstance(kept, Full) for kept in (reduce.values() if isinstance(reduce, Mapping) else (reduce,)))
