"""The house's own rules: layers, imports without effect, entry points that answer."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from wmjax.evaluate import metrics

ROOT = Path(__file__).parents[1]
LAYERS = [
    {"core"},
    {"data", "dbm", "heads", "transformer", "graph", "train", "sweep"},
    {"simulate", "evaluate"},
    {"baselines"},
    {"worlds"},
    {"report"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
# Rooms of one layer never import each other: models and the training loop meet in `worlds`, by injected functions.
MODULES = sorted((ROOT / "wmjax").rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "wmjax").parts
    return parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        found |= {n.split(".")[1] for n in names if n.startswith("wmjax.")}
    return found & LEVEL.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_from_lower_layers_and_its_own_room(path):
    room = room_of(path)
    if room not in LEVEL:
        return
    for other in imported_rooms(path) - {room}:
        assert LEVEL[other] < LEVEL[room], f"{path}: {room} may not import {other}"


def test_every_room_is_on_the_plan():
    rooms = {p.name for p in (ROOT / "wmjax").iterdir() if p.is_dir() and not p.name.startswith("__")}
    assert rooms <= LEVEL.keys()


def test_import_is_fast_and_has_no_effect():
    """`import wmjax` alone opens neither jax nor pandas; no module that is imported, and no help, touches a device."""
    script = (
        "import sys, wmjax; assert 'jax' not in sys.modules and 'pandas' not in sys.modules, 'wmjax opened a library';"
        "import jax;"
        f"import importlib; [importlib.import_module(m) for m in {module_names()!r}];"
        "import contextlib; from wmjax import cli;"
        "exec('with contextlib.suppress(SystemExit): cli.main([\"--help\"])');"
        "from jax._src import xla_bridge; assert not xla_bridge._backends, 'an import touched a device'"
    )
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    assert "fit consumer" in found.stdout


def module_names() -> list[str]:
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in MODULES]
    return [n.removesuffix(".__init__") for n in names]


def test_annotations_are_run_in_tests():
    with pytest.raises(TypeCheckError):
        metrics.auc(np.zeros(3), np.zeros((3, 2)))


def test_modules_stay_short():
    long = {str(p.relative_to(ROOT)): n for p in MODULES if (n := len(p.read_text().splitlines())) > 450}
    assert not long, f"is there a second thing inside? {long}"
