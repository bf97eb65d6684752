"""The house style of every figure: palette, type, axes, and one function that turns a painter into an SVG string.

A figure is one panel, `WIDTH` user units wide, drawn at one unit per CSS pixel. Pages place panels side by side and let
them wrap, so the type stays legible on a narrow screen, where one wide picture would shrink it.
"""

from __future__ import annotations

import html
import io
import re
import textwrap
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

WIDTH = 420.0

# Blue against burnt orange stays apart under every common colour blindness; all else is grey.
INK = "#1c2733"  # words and reference lines
SOFT = "#5c6976"  # second words
FAINT = "#98a3ae"  # baselines, training curves
RULE = "#e3e7eb"  # grid
WASH = "#f1f3f5"  # areas that were left out
WORLD = "#1d5c9e"  # the world model, what is supported
OTHER = "#c25a1e"  # the counterfactual, what needs care

FONT = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # words stay words: they can be searched, and take the page's typeface
    "text.parse_math": False,  # a `$` in a segment's name is a dollar
    "font.family": "DejaVu Sans",  # ships with Matplotlib, so the layout is equal everywhere
    "font.size": 11.5,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": SOFT,
    "axes.labelsize": 11.5,
    "axes.linewidth": 0.8,
    "axes.unicode_minus": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
    "path.simplify": True,
}

_TITLE_STEP = 17.5
_SUBTITLE_STEP = 15.5


def plain(name: Any, limit: int = 30) -> str:
    """Make a name fit for a label: control characters go, white space is one blank, a long tail becomes an ellipsis."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(name)).split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Push label positions apart until neighbours are at least `gap` away, moving the crowded ones about their mean."""
    order = np.argsort(np.asarray(positions, float), kind="stable")
    groups: list[tuple[float, int]] = []  # centre and number of labels
    for index in order:
        centre, size = float(positions[index]), 1
        while groups and centre - groups[-1][0] < gap * (size + groups[-1][1]) / 2:
            other, count = groups.pop()
            centre, size = (centre * size + other * count) / (size + count), size + count
        groups.append((centre, size))
    placed = [centre + gap * (i - (size - 1) / 2) for centre, size in groups for i in range(size)]
    moved = [0.0] * len(placed)
    for rank, index in enumerate(order):
        moved[int(index)] = placed[rank]
    return moved


def ticks(axis: Any, count: int = 5) -> None:
    """Ask for at most `count` round tick marks."""
    axis.set_major_locator(MaxNLocator(nbins=count, steps=[1, 2, 2.5, 5, 10]))


def draw(
    paint: Callable[[Axes], None],
    *,
    title: str,
    subtitle: str = "",
    xlabel: str = "",
    height: float = 190.0,
    width: float = WIDTH,
    left: float = 44.0,
    right: float = 16.0,
    bottom: float = 42.0,
) -> str:
    """Draw one panel: a bold title and a soft subtitle above axes that `paint` fills.

    Equal input gives equal text: no date is written and identifiers are salted by the title.

    Args:
        paint: fills the axes.
        title: what is asked; wrapped.
        subtitle: what the vertical axis or a mark is, in words; wrapped.
        xlabel: what the horizontal axis is, in words.
        height: of the axes; the words above and `bottom` below are added to it.
        width: of the whole panel.
        left, right, bottom: margins around the axes.

    Returns:
        One `<svg>` element with a view box and no outside reference.
    """
    title, subtitle = plain(title, 200), plain(subtitle, 300)
    titles = textwrap.wrap(title, int(width / 7.6))
    subtitles = textwrap.wrap(subtitle, int(width / 5.9))
    head = 6.0 + _TITLE_STEP * len(titles) + _SUBTITLE_STEP * len(subtitles) + 8.0
    total = head + height + bottom
    style: Any = {**STYLE, "svg.hashsalt": f"{title}|{subtitle}"}
    with mpl.rc_context(style), warnings.catch_warnings():
        # The page's typeface draws the words, so a letter that the layout's typeface lacks is no loss.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width / 72, total / 72), facecolor="none")
        canvas = FigureCanvasSVG(figure)
        axes = figure.add_axes((left / width, bottom / total, (width - left - right) / width, height / total))
        top = total - 13.0
        for line in titles:
            figure.text(0.0, top / total, line, fontsize=13.5, fontweight="bold")
            top -= _TITLE_STEP
        for line in subtitles:
            figure.text(0.0, (top + 0.5) / total, line, color=SOFT)
            top -= _SUBTITLE_STEP
        if xlabel:
            axes.set_xlabel(plain(xlabel, 100), labelpad=6, loc="left" if len(xlabel) > 40 else "center")
        paint(axes)
        buffer = io.StringIO()
        empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        canvas.print_svg(buffer, metadata=empty)
    return _inline(buffer.getvalue(), ". ".join(filter(None, (title, subtitle))))


def _inline(svg: str, words: str) -> str:
    """Cut a whole SVG document down to an element that can stand in a page beside others."""
    svg = svg[svg.index("<svg") :].rstrip()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, count=1, flags=re.S)
    # The page's own rules must not be overruled, nor its identifiers repeated: only what is referred to keeps one.
    svg = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>\s*", "", svg, flags=re.S)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    # The typeface is said once, at the root; Matplotlib says it at every word (before 3.10 in the `font` shorthand).
    svg = re.sub(r"; font-family: 'DejaVu Sans'[^;\"]*", "", svg).replace("'DejaVu Sans'", FONT)
    # A hundredth of a pixel is finer than any screen; Matplotlib writes a millionth.
    svg = re.sub(r' (?:d|x|y|points)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found.group()), svg)
    svg = re.sub(r' transform="rotate\(-0[^"]*\)"|\s*<g/>', "", svg).replace("xlink:href", "href")
    view = re.search(r'viewBox="([^"]+)"', svg)
    box = view.group(1) if view else ""
    width, height = box.split()[2:] if view else ("", "")
    start = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}"'
        f' width="{width}" height="{height}" role="img" aria-label="{html.escape(words)}"'
        f' style="font-family: {FONT}; stroke-linejoin: round; stroke-linecap: butt">'
    )
    return start + svg[svg.index(">") + 1 :]
