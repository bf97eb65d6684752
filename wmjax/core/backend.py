"""What has to be said to XLA before its first program, so that its numbers can be believed."""

from __future__ import annotations

import os
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version

FLAG = "--xla_cpu_experimental_ynn_fusion_type="
"""With nothing behind it: no operation goes to YNNPACK."""
PRECISION = "JAX_DEFAULT_MATMUL_PRECISION"


def avoid_ynnpack() -> None:
    """Turn YNNPACK off in the releases of jaxlib that use it, by `XLA_FLAGS`, unless these speak of it already.

    On a CPU, jaxlib 0.10.2 gets products that are summed under `vmap` wrong by tenths
    (`tests/core/test_backend.py`), and 0.10.0 and 0.10.1 refuse arrays of more than eight dimensions. Other releases
    are left alone: an XLA that does not know a flag ends its process. XLA reads its flags once, so this comes too late,
    and warns, if JAX has computed something before.
    """
    try:
        affected = version("jaxlib").split(".")[:2] == ["0", "10"]
    except PackageNotFoundError:
        return
    flags = os.environ.get("XLA_FLAGS", "")
    if not affected or FLAG in flags:
        return
    os.environ["XLA_FLAGS"] = f"{flags} {FLAG}".strip()
    started = getattr(sys.modules.get("jax._src.xla_bridge"), "backends_are_initialized", bool)
    if started():
        warnings.warn(
            "JAX has computed before wmjax was imported: on a CPU, jaxlib 0.10 gets some sums wrong unless wmjax is "
            f"imported first, or XLA_FLAGS holds {FLAG}",
            RuntimeWarning,
            stacklevel=3,
        )


def multiply_in_full() -> None:
    """Have float32 multiplied as float32 on accelerators too, unless the environment or JAX's configuration chose.

    By default JAX rounds the factors to 10 bits on a GPU (TF32) and to 7 on a TPU (bfloat16): a mean-field mean is then
    off by 7e-4, a free energy of 240 by tenths, and Newton's steps stall. On a CPU nothing changes. Where speed matters
    more, set `JAX_DEFAULT_MATMUL_PRECISION=tensorfloat32`, or wrap a call in `jax.default_matmul_precision`.
    """
    if "jax" not in sys.modules:
        os.environ.setdefault(PRECISION, "float32")  # read when JAX is imported, and passed on to workers
    elif (config := sys.modules["jax"].config).jax_default_matmul_precision is None:
        config.update("jax_default_matmul_precision", "float32")
