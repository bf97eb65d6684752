"""Make the pages' tables and figures from the committed result files, between marks: `python -m experiments.readme`.

A mark is `<!-- results: FILE.json -->`, or with words `<!-- results: FILE.json method=a,b across=quantity -->` (in
quotes where a name holds a space); the table ends at `<!-- end -->`. A single figure stands between
`<!-- value: FILE.json setting/method/quantity -->` and `<!-- end -->`; a word that is left out may be anything.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from experiments.common import number, parts
from wmjax.core.files import write_text

KEYS = ("setting", "quantity", "method")
ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "experiments/README.md", "benchmarks/README.md")
MARK = re.compile(r"(<!-- results: (\S+)([^\n]*) -->\n).*?(<!-- end -->)", re.DOTALL)
VALUE = re.compile(r"(<!-- value: (\S+) (\S[^/]*|)/([^/]*)/(\S+) -->).*?(<!-- end -->)")


def table(path: Path, words: str = "") -> str:
    """Lay one result file out, and say under it how it was measured.

    `words` such as `"method=a,b quantity=c across=method"` keep the rows that are named, in that order, and lay one key
    out as columns; other keys are columns of labels, unless all rows share their value.
    """
    result = json.loads(path.read_text(encoding="utf-8"))
    chosen = {key: names.split(",") for key, names in (word.split("=", 1) for word in shlex.split(words))}
    across = chosen.pop("across", [""])[0]
    for key, names in chosen.items():
        if key not in KEYS:
            raise ValueError(f"{key} names no column; known are {', '.join(KEYS)}")
        if unknown := set(names) - {r[key] for r in result["rows"]}:
            raise ValueError(f"{path.name} has no {key} named {', '.join(sorted(unknown))}")
    rows = [r for r in result["rows"] if all(r[key] in names for key, names in chosen.items())]
    if not rows:
        raise ValueError(f"{path.name} has no row of {words}")
    labels = [key for key in KEYS if key != across and len({r[key] for r in rows}) > 1] or ["quantity"]
    order = {key: chosen.get(key) or list(dict.fromkeys(r[key] for r in rows)) for key in KEYS}
    columns = order[across] if across else ["value"]
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for r in sorted(rows, key=lambda r: [order[key].index(r[key]) for key in labels]):
        column = r[across] if across else "value"
        cells.setdefault(tuple(r[key] for key in labels), {})[column] = _cell(r)
    lines = ["| " + " | ".join([*labels, *columns]) + " |", "|---" * (len(labels) + len(columns)) + "|"]
    for label, found in cells.items():
        lines.append("| " + " | ".join([*label, *(found.get(column, "") for column in columns)]) + " |")
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items() if k in ("jax", "python"))
    seeds = ", ".join(map(str, result["seeds"][: max(r["n"] for r in rows)]))
    later = f" Put in later: {told}." if (told := parts(result, {(r["setting"], r["method"]) for r in rows})) else ""
    lines += ["", f"`{result['command']}`; {result['device']}; {versions}; seeds {seeds}.{later}", ""]
    return "\n".join(lines)


def _cell(row: dict[str, Any]) -> str:
    value = f"{row['value'] / 1e6:.4g} M" if row["value"] and row["value"] >= 1e6 else number(row["value"])
    spread = "" if row["sd"] is None else f" ± {row['sd']:.1g}"
    published = "" if row["reference"] is None else f" (published {number(row['reference'])})"
    return value + spread + published


def figure(path: Path, setting: str, method: str, quantity: str) -> str:
    """Give the one figure of a result file that is named; what is empty may be anything."""
    named = {"setting": setting, "method": method, "quantity": quantity}
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    (row,) = (r for r in rows if all(r[key] == name for key, name in named.items() if name))
    return number(row["value"])


def fill(text: str) -> str:
    """Fill every mark of a text with its table or figure."""
    text = MARK.sub(lambda m: m.group(1) + "\n" + table(ROOT / m.group(2), m.group(3)) + "\n" + m.group(4), text)
    return VALUE.sub(lambda m: m.group(1) + figure(ROOT / m.group(2), *m.groups()[2:5]) + m.group(6), text)


if __name__ == "__main__":
    for page in (ROOT / name for name in PAGES):
        text = fill(page.read_text(encoding="utf-8"))
        if "--check" not in sys.argv:
            write_text(page, text)
        elif text != page.read_text(encoding="utf-8"):
            sys.exit(f"{page.relative_to(ROOT)} is not as the result files have it")
