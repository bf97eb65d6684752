"""Make the README's tables from the committed result files, between marks: `python -m experiments.readme`.

A mark is `<!-- results: FILE.json -->`, or with filters `<!-- results: FILE.json method=a,b quantity=c -->`; the table
ends at `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from experiments.common import number
from wmjax.core.files import write_text

ROOT = Path(__file__).parents[1]
MARK = re.compile(r"(<!-- results: (\S+)((?: \w+=\S+)*) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(path: Path, filters: str = "") -> str:
    """Lay one result file out: a row for every setting, method and quantity, and a line on how it was measured.

    `filters` such as `"method=a,b quantity=c"` keep the rows that are named.
    """
    result = json.loads(path.read_text(encoding="utf-8"))
    chosen = {key: names.split(",") for key, names in (word.split("=") for word in filters.split())}
    lines = ["| setting | method | quantity | value | published |", "|---|---|---|---|---|"]
    for r in result["rows"]:
        if any(r[key] not in names for key, names in chosen.items()):
            continue
        spread = "" if r["sd"] is None else f" ± {number(r['sd'])}"
        value = f"{r['value'] / 1e6:.4g} M" if r["value"] and r["value"] >= 1e6 else number(r["value"])
        cells = [r["setting"], r["method"], r["quantity"], value + spread, number(r["reference"])]
        lines.append("| " + " | ".join(cells) + " |")
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items() if k in ("jax", "python"))
    seeds = ", ".join(map(str, result["seeds"]))
    lines += ["", f"`{result['command']}`; {result['device']}; {versions}; seeds {seeds}.", ""]
    return "\n".join(lines)


def fill(text: str) -> str:
    """Fill every mark of a text with its table."""
    return MARK.sub(lambda m: m.group(1) + "\n" + table(ROOT / m.group(2), m.group(3)) + "\n" + m.group(4), text)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    text = fill(readme.read_text(encoding="utf-8"))
    if "--check" in sys.argv:
        sys.exit(text != readme.read_text(encoding="utf-8"))
    write_text(readme, text)
