"""What experiments and benchmarks share: the command line, the row of a result, and the JSON and Markdown files."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import tyro

from wmjax.core import files
from wmjax.core.errors import DivergedError, UserError
from wmjax.core.observe import Observer
from wmjax.core.provenance import versions
from wmjax.report import console


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line.

    Attributes:
        out: folder of the result; a command that was killed goes on from what it finds there.
        size: `smoke` only shows that everything runs; its numbers mean nothing.
        seeds: how many seeds, 0, 1, ..; 0 leaves it to the size.
        data: folder of data, where the experiment reads any.
    """

    out: Path
    size: Literal["full", "smoke"] = "full"
    seeds: int = 0
    data: Path | None = None

    def __post_init__(self) -> None:
        if self.seeds < 0:
            raise ValueError(f"seeds is {self.seeds}, must not be negative")


class Cell(NamedTuple):
    """What names a number: two files are compared by joining on it."""

    setting: str
    method: str
    quantity: str


Scores = dict[Cell, float]
"""The numbers of one seed."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number of a result.

    Attributes:
        setting, method, quantity: stable names.
        value, sd, n: mean, standard deviation (of a sample; None for n = 1) and count over seeds.
        reference: the published value, where there is one.
        ceiling: what an oracle reaches, where it is known.
    """

    setting: str
    method: str
    quantity: str
    value: float | None
    sd: float | None = None
    n: int = 1
    reference: float | None = None
    ceiling: float | None = None


class Check(NamedTuple):
    """A claim about a result that held or did not."""

    name: str
    value: float | None
    low: float
    high: float

    @property
    def ok(self) -> bool:
        return self.value is not None and self.low <= self.value <= self.high


def summarise(
    per_seed: Sequence[Scores],
    *,
    reference: Mapping[Cell, float] | None = None,
    ceiling: Mapping[Cell, float] | None = None,
) -> list[Row]:
    """Average over seeds, cell by cell, in the order of first appearance; a value that is not finite is left out."""
    cells = list(dict.fromkeys(cell for scores in per_seed for cell in scores))
    rows = []
    for cell in cells:
        values = np.array([s[cell] for s in per_seed if cell in s], float)
        values = values[np.isfinite(values)]
        rows.append(
            Row(
                **cell._asdict(),
                value=float(values.mean()) if len(values) else None,
                sd=float(values.std(ddof=1)) if len(values) > 1 else None,
                n=len(values),
                reference=(reference or {}).get(cell),
                ceiling=(ceiling or {}).get(cell),
            )
        )
    return rows


def read_scores(path: Path, owner: str) -> Scores | None:
    """Read the scores of a finished stage; None where there are none, or another study's."""
    if not path.exists() or (stored := files.read_json(path))["owner"] != owner:
        return None
    return {Cell(*cell): math.nan if value is None else value for *cell, value in stored["scores"]}


def write_scores(path: Path, owner: str, scores: Scores) -> None:
    """Keep the scores of a finished stage."""
    plain = [[*cell, value if math.isfinite(value) else None] for cell, value in scores.items()]
    files.write_json(path, {"owner": owner, "scores": plain, "made": origin()})


def value_of(rows: Sequence[Row], cell: Cell) -> float | None:
    """Find a cell's value; None where it is not there."""
    return next((r.value for r in rows if Cell(r.setting, r.method, r.quantity) == cell), None)


def device() -> str:
    """Describe what computed: the accelerator, or the processors that this process may use and their model."""
    kind = jax.devices()[0]
    if kind.platform != "cpu":
        return f"{jax.device_count()} x {kind.device_kind}"
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} x {names[0] if names else platform.machine()}"


def origin() -> dict[str, Any]:
    """Say what this process computes on, and with which versions."""
    return {"device": device(), "versions": versions()}


def write_result(
    options: Options,
    name: str,
    rows: Sequence[Row],
    *,
    seeds: Sequence[int],
    seconds: float,
    checks: Sequence[Check] = (),
    facts: Mapping[str, Any] | None = None,
    made: Mapping[str, Any] | None = None,
) -> Path:
    """Write `name.json` and `name.md` into the result's folder; return the JSON file's path.

    `made` is `origin()` of pieces that were kept, where another process computed them.
    """
    value = {
        "name": name,
        "command": _command(name),
        "size": options.size,
        **(made or origin()),
        "seeds": list(seeds),
        "seconds": round(seconds, 1),
        "rows": [dataclasses.asdict(r) for r in rows],
        "checks": [{**c._asdict(), "ok": c.ok} for c in checks],
        "facts": dict(facts or {}),
    }
    return _write(options.out, name, value)


def _command(name: str) -> str:
    return shown(sys.orig_argv[2:]) if "-m" in sys.orig_argv else name


def _write(folder: Path, name: str, value: dict[str, Any]) -> Path:
    path = folder / f"{name}.json"
    files.write_json(path, _finite(value))
    files.write_text(folder / f"{name}.md", markdown(value))
    return path


def piece_of(options: Options, name: str, seed: int, method: str) -> Path:
    """Name the file of what one method made of one data set."""
    return options.out / "pieces" / f"{name}-{seed}-{method}.json"


def standing(options: Options, name: str, *, seeds: Sequence[int], study: Mapping[str, Any]) -> dict[str, Any]:
    """Read the result that the folder holds, to put rows into it (`revise`).

    Args:
        options: its folder and size.
        name: of the result.
        seeds: of the rows.
        study: what of the study the rows stand on, as `facts` of the result tell it.

    Raises:
        UserError: there is none, or it is of another size, other seeds or another study.
    """
    path = options.out / f"{name}.json"
    if not path.exists():
        raise UserError(f"{path}: there is no result to put rows into")
    old = files.read_json(path)
    told = {**old["facts"], **old["facts"].get("study", {})}
    own = {"size": options.size, "seeds": list(seeds), **json.loads(json.dumps(study, default=str))}
    for what, value in own.items():
        if (there := old[what] if what in old else told.get(what)) != value:
            raise UserError(f"{path}: its {what} is {there}, that of the new rows {value}")
    return old


def revise(
    options: Options,
    name: str,
    rows: Sequence[Row],
    *,
    kept: Sequence[Path],
    checks: Callable[[list[Row]], Sequence[Check]],
    facts: Callable[[list[Row], Mapping[str, Any]], Mapping[str, Any]] = lambda rows, old: {},
) -> Path:
    """Put rows into a result, in place of what it has of the same settings and methods; all else stays as it was.

    Args:
        options: its folder and size.
        name: of the result, which `standing` has found fit.
        rows: the new rows.
        kept: files of scores (`write_scores`) that they are made of; what computed these is told in `parts`.
        checks: judges all rows.
        facts: says anew what depends on which rows there are, given all rows and what was told before.
    """
    # Read only now: what another command has put in since `standing` stays.
    old = files.read_json(options.out / f"{name}.json")
    fresh = {Cell(r.setting, r.method, r.quantity): r for r in rows}
    groups = {cell[:2] for cell in fresh}
    merged: list[Row] = []
    for row in (Row(**r) for r in old["rows"]):
        if (row.setting, row.method) not in groups:
            merged.append(row)
        elif new := fresh.pop(Cell(row.setting, row.method, row.quantity), None):
            merged.append(new)
    for new in fresh.values():
        own = [at for at, r in enumerate(merged) if (r.setting, r.method) == (new.setting, new.method)]
        merged.insert(own[-1] + 1 if own else len(merged), new)
    made = {json.dumps(files.read_json(path)["made"], sort_keys=True): path for path in kept}
    part = {
        "command": _command(name),
        "of": sorted("/".join(group) for group in groups),
        "made": [json.loads(one) for one in made],
    }
    value = {**old, "rows": [dataclasses.asdict(r) for r in merged]}
    value["checks"] = [{**c._asdict(), "ok": c.ok} for c in checks(merged)]
    before = [{**one, "of": sorted({*one["of"]} - {*part["of"]})} for one in old["facts"].get("parts", ())]
    value["facts"] = {
        **old["facts"],
        **facts(merged, old["facts"]),
        "parts": [*(one for one in before if one["of"]), part],
    }
    return _write(options.out, name, value)


def parts(result: Mapping[str, Any], shown: Collection[tuple[str, str]] | None = None) -> str:
    """Say which rows of a result other commands put into it, and what computed these.

    Args:
        result: as written.
        shown: setting and method of the rows that are spoken of; all if not given.
    """
    told = []
    for part in result["facts"].get("parts", ()):
        methods: dict[str, list[str]] = {}
        for setting, name in (group.rsplit("/", 1) for group in part["of"]):
            if shown is None or (setting, name) in shown:
                methods.setdefault(setting, []).append(name)
        # Settings that were given the same methods are told together.
        alike: dict[str, list[str]] = {}
        for setting, names in methods.items():
            alike.setdefault(", ".join(names), []).append(setting)
        if alike:
            rows = ", ".join(f"{names} ({', '.join(settings)})" for names, settings in alike.items())
            devices = ", ".join(dict.fromkeys(m["device"] for m in part["made"]))
            told.append(f"{rows} by `{part['command']}` on {devices}")
    return "; ".join(told)


def shown(argv: Sequence[str]) -> str:
    """Write a module's command as others would give it: a path outside this folder is named by its option, `DATA`."""
    words, option = ["python", "-m"], ""
    for word in argv:
        name, given, value = word.partition("=") if word.startswith("--") else ("", "", word)
        option = name or option
        path = value if given or not name else ""
        if path.startswith(("/", "~", "..")):
            word = (f"{name}=" if given else "") + (option.lstrip("-").upper() or "PATH")
        words.append(shlex.quote(word))
    return " ".join(words)


def _finite(value: Any) -> Any:
    """Spell numbers that are not finite as null, which is what strict JSON has for them."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def markdown(result: Mapping[str, Any]) -> str:
    """Lay a result out as Markdown: one table a setting, then the claims that were checked."""
    lines = [f"# {result['name']}", ""]
    if result["size"] != "full":
        lines += ["**Smoke size: shows that everything runs; the numbers mean nothing.**", ""]
    count = len(result["seeds"])
    lines += [f"{count} seed{'s' if count != 1 else ''}, {result['seconds']:.0f} s on {result['device']}", ""]
    lines += [f"Put in later: {told}", ""] if (told := parts(result)) else []
    for setting in dict.fromkeys(r["setting"] for r in result["rows"]):
        lines += [f"## {setting}", "", "| quantity | method | value | published | ceiling |", "|---|---|---|---|---|"]
        rows = [r for r in result["rows"] if r["setting"] == setting]
        for quantity in dict.fromkeys(r["quantity"] for r in rows):
            for r in (r for r in rows if r["quantity"] == quantity):
                spread = "" if r["sd"] is None else f" ± {number(r['sd'])}"
                cells = [
                    quantity,
                    r["method"],
                    number(r["value"]) + spread,
                    number(r["reference"]),
                    number(r["ceiling"]),
                ]
                lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    if result["checks"]:
        lines += ["## Checks", "", "| claim | value | from | to | held |", "|---|---|---|---|---|"]
        for c in result["checks"]:
            bounds = [number(c["value"]), number(c["low"]), number(c["high"])]
            lines.append("| " + " | ".join([c["name"], *bounds, "yes" if c["ok"] else "**no**"]) + " |")
        lines.append("")
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Write a number with four significant places, and nothing for a missing one."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return ""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def run(
    name: str,
    work: Callable[[Any, Observer], Any],
    argv: Sequence[str] | None = None,
    *,
    kind: type[Options] = Options,
) -> int:
    """Read the command line, work with progress on the screen, say where the result lies; 2 is a user's error."""
    try:
        options = tyro.cli(kind, args=argv, prog=f"python -m {name}", description=sys.modules[work.__module__].__doc__)
        with console.console_observer() as observer:
            written = work(options, observer)
    except (UserError, DivergedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(written)
    return 0


class Clock:
    """Seconds of work that survive being killed: what earlier commands of the same folder spent is added."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "seconds.json"
        self.before = float(files.read_json(self.path)) if self.path.exists() else 0.0
        self.started = time.monotonic()

    def read(self) -> float:
        """Give the seconds so far, and keep them."""
        seconds = self.before + time.monotonic() - self.started
        files.write_json(self.path, seconds)
        return seconds
