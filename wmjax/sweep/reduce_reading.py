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
    read = [(word, *_parts(word)) for word in words]
    for word, output, kind, options in read:
        name = f"{output}_{kind}" if output else kind
        ways = sum((output, kind) == others[1:3] for others in read)
        if options and ways > 1:
            name = "_".join([name, *re.findall(r"\w+", options)])
        if name in found:
            raise UserError(f"{word!r}: {kind} is asked for twice of one output")
        found[name] = _made(kind, output or None, options, word)
    if not found:
        raise UserError(f"nothing is kept; write one of {', '.join(KINDS)}")
    return found


def _parts(word: str) -> tuple[str, str, str]:
    """Cut a word into the output that it reads, the kind of reduction, and its options."""
    head, _, options = word.partition(":")
    output, _, kind = head.rpartition(".")
    return output, kind, options


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
