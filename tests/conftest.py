"""Shared set-up: shapes are checked at run time, compiled programs are kept between runs, and there are two devices."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import jax
import jaxtyping
import pytest
import threadpoolctl
from xdist.scheduler import LoadFileScheduling

import tests.checked  # noqa: F401

# A second thread of NumPy's products spins while it waits for small ones, up to half of a file's processor seconds, and
# the other worker has that core: one thread, here and in the processes that tests start, workers among them.
os.environ |= {name: os.environ.get(name, "1") for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}
threadpoolctl.threadpool_limits(int(os.environ["OPENBLAS_NUM_THREADS"]))

# Annotations such as Float[Array, "chains units"] are run, not only read, in tests: of the modules that have some.
ROOT = Path(__file__).parents[1]
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in (ROOT / "wmjax").rglob("*.py")}
SHAPED = [name for name, path in MODULES.items() if "from jaxtyping import" in path.read_text(encoding="utf-8")]
jaxtyping.install_import_hook(SHAPED, "tests.checked.when_called")

jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # the other worker asks for most of them again
jax.config.update("jax_num_cpu_devices", 2)

# Traces are heaps of small objects; looking for cycles among them every 700 costs a twentieth of a run.
gc.set_threshold(100_000, 50, 100)

# Most of a run is compiling: programs are left plain, here and in the processes that tests start, which inherit this.
# JAX_DISABLE_MOST_OPTIMIZATIONS=0 has them compiled as users have them.
if "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ:
    jax.config.update("jax_disable_most_optimizations", True)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    passes = (
        "while-loop-simplifier",
        "while-loop-invariant-code-motion",
        "while-loop-constant-sinking",
        "reshape-mover",
        "simplify-conditional",
        "zero_sized_hlo_elimination",
        "cpu-parallel-task-assigner",
        "constant_folding",
    )  # together up to a fifth of a compilation; none that changes how a sum is taken
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    flags += f" --xla_disable_hlo_passes={','.join(passes)}"
    plain = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    # An XLA that does not know a flag ends its process, so one that may is asked first.
    asked = subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], env=os.environ | {"XLA_FLAGS": plain})
    if asked.returncode == 0:
        os.environ["XLA_FLAGS"] = plain

SLOW = (
    "tests/worlds",
    "tests/test_readme",
    "tests/experiments",
    "tests/report",
    "tests/sweep",
    "tests/train/test_kill",
)
"""Files that take long, however few tests they hold: dealt out first, since the worker that began one last would end
with it alone."""


FAMILIES = ("tests/worlds",)
"""Folders whose files share fitted worlds and their compiled programs: one worker takes all of a folder."""
ALONE = ("tests/worlds/test_media_free", "tests/worlds/test_media_each", "tests/worlds/test_media_adversary")
"""Files of a family that share little with the others: all of it would be more than half of a run."""


UNCHECKED = ("tests/test_readme", "tests/experiments", "tests/report")
"""What goes through whole worlds once more, whose own tests run every annotation: a tenth of their seconds."""


@pytest.fixture(autouse=True, scope="module")
def annotations(request):
    jaxtyping.config.update("jaxtyping_disable", request.node.nodeid.startswith(UNCHECKED))


LIVE = 400
"""Programs that a worker keeps, and a file's more. Each holds an MLIR context, and to open one more takes time in
proportion to those that are open (9 ms at first, 55 after 2,400): a long run would do little else."""


class Programs:
    """Counts what was lowered since the last clearance."""

    def __init__(self) -> None:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self.told)

    def told(self, event: str, _: float, **__: object) -> None:
        self.count += event.endswith("jaxpr_to_mlir_module_duration")


PROGRAMS = Programs()


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    yield
    if PROGRAMS.count > LIVE:
        jax.clear_caches()
        PROGRAMS.count = 0


class ByFamily(LoadFileScheduling):
    """Deals out files, and families whole."""

    def _split_scope(self, nodeid):
        file = super()._split_scope(nodeid)
        return file if file.startswith(ALONE) else next((own for own in FAMILIES if file.startswith(own)), file)


def pytest_xdist_make_scheduler(config, log):
    return ByFamily(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_configure(config):
    config.option.loadscopereorder = False  # by the number of tests, which is xdist's own order


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: (not item.nodeid.startswith(SLOW), not item.nodeid.startswith(FAMILIES)))
