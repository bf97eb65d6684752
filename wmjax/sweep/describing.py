"""What each variable of a result is, in words that stand with it: `long_name`, `units`, and what else is told."""

from __future__ import annotations

from collections.abc import Mapping

from wmjax.sweep.boxes import Work
from wmjax.sweep.grids import Grid
from wmjax.sweep.results import full_names

Words = Mapping[str, str]
"""Attributes of one variable."""

REDUCED = {
    "mean": "mean of {}",
    "quantile": "quantile of {}",
    "score": "score of the plan by {}",
    "value": "{}, of the best plan",
    "margin": "{}, of the best plan less that of the second best",
}
"""What a reduction tells in the units of what it reads."""
COUNTED = {
    "count": "how many numbers were averaged",
    "nonfinite": "how many numbers were not finite, and left out",
    "index": "flat index of the plan in the grid; -1 is none",
}
LABELS = {"rank": "rank of the plan, the best first", "probability": "probability of the quantile"}


def attributes(work: Work, grid: Grid, described: Mapping[str, Words]) -> dict[str, dict[str, str]]:
    """Describe every variable that a sweep's reductions find, and the labels of the grid.

    Args:
        work: what is swept.
        grid: its points.
        described: words for outputs, and for any variable by its own name.
    """
    found: dict[str, dict[str, str]] = {name: {"long_name": words} for name, words in LABELS.items()}
    found |= {c.name: {"long_name": f"axis {c.name} of the grid"} for c in grid.columns}
    for name, reduction in work.reductions:
        output = work.output_of(reduction)
        own = {"long_name": output, **described.get(output, {})}
        if (segments := getattr(reduction, "segments", None)) is not None:
            own["long_name"] += f", as the mean over the units of each level of {segments.dim.removeprefix('by_')}"
        for key, words in _reduced(own, grid).items():
            found[f"{name}_{key}" if name else key] = words
    found |= {variable: {"long_name": o, **described.get(o, {})} for o, variable in full_names(work).items()}
    for name, words in described.items():
        found[name] = {**found.get(name, {}), **words}
    return found


def _reduced(own: dict[str, str], grid: Grid) -> dict[str, dict[str, str]]:
    found = {key: own | {"long_name": words.format(own["long_name"])} for key, words in REDUCED.items()}
    found["variance"] = own | {"long_name": f"variance of {own['long_name']}"}
    if "units" in own:
        found["variance"]["units"] = f"({own['units']})^2"
    found |= {key: {"long_name": words, "units": "1"} for key, words in COUNTED.items()}
    return found | {f"best_{name}": {"long_name": f"level of {name} in the best plan"} for name in grid.names}
