"""A run's folder: what was asked, the panel as it was read, checkpoints, the world, and every result file.

run.json  panel.parquet  schema.toml  checkpoints/  world/  predictions.parquet  effects.parquet
plausibility.parquet  summary.json  report.html
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wmjax.core.errors import UserError
from wmjax.core.files import read_json, write_json, write_parquet, write_text
from wmjax.core.provenance import provenance
from wmjax.data.panel import Panel
from wmjax.data.readers import read_panel
from wmjax.worlds.contract import load


@dataclass(frozen=True)
class Run:
    """A folder that one fit owns."""

    folder: Path

    def claim(self, panel: Panel, cfg: Any, seed: int, *, overwrite: bool, targeted: str = "") -> None:
        """Begin a run, or go on with the same one.

        Raises:
            UserError: where the folder holds another run (other data, configuration or seed) and `overwrite` is false,
                or holds files that no run has written.
        """
        asked = provenance(seed=seed, cfg=cfg, schema=panel.schema, data=panel.fingerprint) | {"targeted": targeted}
        known = self.folder / "run.json"
        if overwrite and known.exists():
            shutil.rmtree(self.folder)
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
        if self.folder.exists() and any(self.folder.iterdir()):
            raise UserError(f"{self.folder} is not empty and holds no run; choose another --out")
        write_parquet(self.folder / "panel.parquet", panel.to_frame(), asked)
        write_text(self.folder / "schema.toml", panel.schema.plain().to_toml())
        # Written last: a run is begun once everything that it needs to go on is there.
        write_json(known, asked)

    def panel(self, levels: Mapping[str, Sequence[str]] | None = None) -> Panel:
        """Read the panel that the run was fitted on.

        Args:
            levels: of the categorical columns, the world's: a part of a panel may lack a level that its codes count.
        """
        return read_panel(self._need("panel.parquet"), self._need("schema.toml"), min_units=1, levels=levels)

    def world(self) -> Any:
        """Open the fitted world."""
        return load(self._need("world"))

    @property
    def asked(self) -> dict[str, Any]:
        """What the run was begun with: seed, configuration, fingerprints, versions."""
        return read_json(self._need("run.json"))

    def _need(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            raise UserError(f"{self.folder}: no finished run here ({name} is missing)")
        return path
