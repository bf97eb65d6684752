"""Reductions as people write them: words of a command line.

    full                    every plan's numbers
    mean  mean:discount     mean and variance over all plans; kept apart by these dimensions of the grid
    mean:income,discount    and over the units of each level of a static column
    quantiles  quantiles:discount  quantiles:income
    top  top:20             the plans of highest mean
    best  best:income       the best plan for each unit; for each level of a static column, by its units' mean

`gain.best` reads the output `gain`; without a name the output is the world's `total`. Which names are columns the world
says that is swept. Numbers are named `gain_mean`, and where one kind is asked for in several ways, `gain_mean_income`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from wmjax.core.errors import UserError
from wmjax.sweep.moments import Moments
from wmjax.sweep.plans import near
from wmjax.sweep.quantiles import Quantiles
from wmjax.sweep.ranks import Best, Top
from wmjax.sweep.reduce import Full, Reduction, Segments

KINDS = ("full", "mean", "quantiles", "top", "best")


def reduce_from_words(words: Iterable[str]) -> dict[str, Reduction]:
    """Read reductions, named as they are written; see the module.

    Raises:
        UserError: a word that is not understood, or said twice.
    """
    found: dict[str, Reduction] = {}
    for word in words:
        head, _, options = word.partition(":")
        output, dot, kind = head.rpartition(".")
        name = f"{output}_{kind}" if dot else kind
        if name in found:
            name = "_".join([name, *re.findall(r"\w+", options)])
        if name in found:
            raise UserError(f"{word!r}: {kind} is asked for twice of one output")
        found[name] = _made(kind, output if dot else None, options, word)
    if not found:
        raise UserError(f"nothing is kept; write one of {', '.join(KINDS)}")
    return found


def _made(kind: str, of: str | None, options: str, word: str) -> Reduction:
    if kind not in KINDS:
        raise UserError(f"{word!r}: no reduction {kind!r}; {near(kind, KINDS)}")
    if kind in ("mean", "quantiles"):
        keep = tuple(name for name in options.split(",") if name)
        return Moments(of=of, keep=keep) if kind == "mean" else Quantiles(of=of, keep=keep)
    if kind == "top":
        if options and not (options.isdigit() and int(options)):
            raise UserError(f"{word!r}: {options!r} must be how many plans to keep, at least 1")
        return Top(of=of, k=int(options or 10))
    if kind == "best":
        return Best(of=of, segments=Segments((), (), dim=options) if options else None)
    if options:
        raise UserError(f"{word!r}: {kind} takes no options")
    return Full(of=of)
