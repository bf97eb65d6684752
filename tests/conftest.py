"""Shared set-up: shapes are checked at run time, compiled programs are kept between runs, and there are two devices."""

from __future__ import annotations

from pathlib import Path

import jax
from jaxtyping import install_import_hook

# Annotations such as Float[Array, "chains units"] are run, not only read, in every test.
install_import_hook("wmjax", "beartype.beartype")

jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
jax.config.update("jax_num_cpu_devices", 2)
