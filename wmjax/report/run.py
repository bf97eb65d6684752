"""A run's folder: what was asked, the panel as it was read, checkpoints, the world, and every result file.

run.json  panel.parquet  schema.toml  checkpoints/  world/  report.html, and what the world's commands write
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wmjax.core.errors import UserError
from wmjax.core.files import read_json, read_provenance, write_json, write_parquet, write_text
from wmjax.core.provenance import provenance, to_plain
from wmjax.data.panel import Panel
from wmjax.data.readers import read_panel
from wmjax.data.schema import PanelSchema, near
from wmjax.worlds import storing
from wmjax.worlds.contract import load

ANSWERS = {
    "consumer": ("predict", "effect", "plausibility", "traits", "report", "sweep", "policy", "certify"),
    "graph": ("report", "certify", "sweep"),
    "media": ("roi", "curves", "shift", "optimize", "report", "sweep", "certify"),
}
"""The commands that each kind of world answers."""


@dataclass(frozen=True)
class Run:
    """A folder that one fit owns."""

    folder: Path

    @contextmanager
    def begun(self, panel: Panel, cfg: Any, seed: int, *, overwrite: bool, targeted: str = "") -> Iterator[None]:
        """Claim the folder for the fit within; one that the panel does not allow leaves it as free as it was."""
        self.claim(panel, cfg, seed, overwrite=overwrite, targeted=targeted)
        try:
            yield
        except UserError:
            self._release()
            raise

    def claim(self, panel: Panel, cfg: Any, seed: int, *, overwrite: bool, targeted: str = "") -> None:
        """Begin a run, or go on with the same one.

        Raises:
            UserError: where the folder holds another run (other data, configuration or seed) and `overwrite` is false,
                or holds files that no run has written. What a run killed before it had begun leaves is no such file.
        """
        asked = provenance(seed=seed, cfg=cfg, schema=panel.schema, data=panel.fingerprint) | {"targeted": targeted}
        known = self.folder / "run.json"
        if overwrite and known.exists():
            self._clear()
        if known.exists():
            before = read_json(known)
            changed = [
                name
                for name in ("seed", "config_fingerprint", "schema_fingerprint", "data_fingerprint")
                if before.get(name) != asked[name]
            ]
            if changed:
                raise UserError(
                    f"{self.folder} holds another run ({', '.join(changed)} differ); "
                    "choose another --out, or --overwrite"
                )
            return
        if not self._unbegun():
            raise UserError(f"{self.folder} is not empty and holds no run; choose another --out")
        self._clear()
        write_parquet(self.folder / "panel.parquet", panel.to_frame(), asked)
        write_text(self.folder / "schema.toml", panel.schema.plain().to_toml())
        # Written last: a run is begun once everything that it needs to go on is there.
        write_json(known, asked)

    def panel(self, levels: Mapping[str, Sequence[str]] | None = None) -> Panel:
        """Read the panel that the run was fitted on.

        Args:
            levels: of the categorical columns, the world's: a part of a panel may lack a level that its codes count.
        """
        return read_panel(self._need("panel.parquet"), self._need("schema.toml"), purpose="ask", levels=levels)

    @property
    def schema(self) -> PanelSchema:
        """What the world's panel means, without opening the world."""
        return storing.columns(self._need("world"))[0]

    def world(self) -> Any:
        """Open the fitted world."""
        return load(self._need("world"))

    @property
    def kind(self) -> str:
        """What kind of world was fitted here."""
        return str(read_json(self._need("world/world.json")).get("kind"))

    def check(self, command: str) -> None:
        """Refuse a command that this run's kind of world does not answer.

        Raises:
            UserError: naming the commands that it answers.
        """
        kind = self.kind
        # A kind that this version does not know is told of where it is opened.
        if kind in ANSWERS and command not in ANSWERS[kind]:
            others = " or ".join(name for name, commands in ANSWERS.items() if command in commands)
            raise UserError(
                f"{self.folder}: `wmjax {command}` is for a {others} world; this is a {kind} world, which answers "
                f"{', '.join(ANSWERS[kind])}"
            )

    def open(self, command: str, panel: Path | None = None) -> tuple[Any, Panel]:
        """Open the world for a command, and the panel asked about: the run's own, or another table of its columns.

        Raises:
            UserError: a world of a kind that does not answer the command, or a table that does not fit.
        """
        self.check(command)
        if panel is None:
            world = self.world()
            return world, self.panel(world.levels)
        # The table first: what is wrong with it is told at once, and a world takes seconds to open.
        schema, levels = storing.columns(self._need("world"))
        table = read_panel(panel, schema, purpose="ask", levels=levels)
        return self.world(), table

    def contrast(self, world: Any, action: str, t0: float | None, t1: float | None) -> tuple[float, float]:
        """Fill in what was not asked of a consumer world's action: the values that the run's report contrasts."""
        from wmjax.worlds.consumer import tables

        if t0 is None or t1 is None:
            own = self.panel(world.levels)
            questions = {q.action: q for q in tables.default_questions(own, world.periods(own, "train"))}
            if action not in questions:
                raise UserError(f"no action {action!r}; {near(action, questions)}")
            t0, t1 = questions[action].t0 if t0 is None else t0, questions[action].t1 if t1 is None else t1
        if t0 == t1:
            raise UserError(f"{action}: t0 and t1 are both {t0:g}; give two values to tell apart")
        return float(t0), float(t1)

    def doubts(self) -> list[str]:
        """Give the warnings of the run's own report that hold whatever is asked of the world."""
        path = self.folder / "summary.json"
        return read_json(path).get("doubts", []) if path.exists() else []

    @property
    def asked(self) -> dict[str, Any]:
        """What the run was begun with: seed, configuration, fingerprints, versions."""
        return read_json(self._need("run.json"))

    def _unbegun(self) -> bool:
        """Say whether nothing is here but what a claim writes before `run.json`."""
        names = {path.name for path in self.folder.iterdir()} if self.folder.exists() else set()
        names -= {name for name in names if name.startswith(".") and name.endswith(".part")}
        if not names:
            return True
        if names not in ({"panel.parquet"}, {"panel.parquet", "schema.toml"}):
            return False
        try:
            # A user's own table and schema may have these names too; only what a claim wrote may be removed.
            return "data_fingerprint" in read_provenance(self.folder / "panel.parquet")
        except (OSError, ValueError):
            return False

    def _release(self) -> None:
        """Take back what a claim wrote, where there is nothing else."""
        names = {path.name for path in self.folder.iterdir()}
        learnt = any((self.folder / "checkpoints").glob("*"))
        if names <= {"run.json", "panel.parquet", "schema.toml", "checkpoints"} and not learnt:
            self._clear()

    def _clear(self) -> None:
        """Empty the folder, `run.json` last: killed in between, it is still a run, of nothing, to be overwritten."""
        if (self.folder / "run.json").exists():
            write_json(self.folder / "run.json", {})
        for path in sorted(self.folder.glob("*"), key=lambda p: p.name == "run.json"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _need(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists() and (self.folder / "worlds").is_dir():
            raise UserError(f"{self.folder}: holds a world a unit, in {self.folder / 'worlds'}; open one by wmjax.load")
        if not path.exists():
            raise UserError(f"{self.folder}: no finished run here ({name} is missing)")
        return path


def answered(world: Any, panel: Panel, **question: Any) -> dict[str, Any]:
    """Give an answer's provenance: the world's, with the panel asked about and the question."""
    return dict(world.provenance) | {"answer": {"panel_fingerprint": panel.fingerprint, **to_plain(question)}}
