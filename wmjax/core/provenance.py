"""What every result carries: seed, configuration, fingerprints and versions."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np

PACKAGES = ("wmjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pandas")


def to_plain(value: Any) -> Any:
    """Turn configs, tuples, arrays and NumPy scalars into what JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return value


def fingerprint(*values: Any) -> str:
    """Hash configs and arrays to 16 hexadecimal digits: SHA-256 over dtype, shape and bytes, or over sorted JSON."""
    digest = hashlib.sha256()
    for value in values:
        if hasattr(value, "dtype") and hasattr(value, "shape"):
            array = np.ascontiguousarray(value)
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(array.tobytes() if array.dtype != object else json.dumps(array.tolist()).encode())
        else:
            digest.update(json.dumps(to_plain(value), sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Name the versions of Python and of the packages that a number depends on."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def provenance(*, seed: int, cfg: Any, schema: Any, data: str) -> dict[str, Any]:
    """Collect what a result file carries: `data` is the panel's own fingerprint."""
    return {
        "seed": seed,
        "config": to_plain(cfg),
        "config_fingerprint": fingerprint(cfg),
        "schema_fingerprint": fingerprint(schema),
        "data_fingerprint": data,
        "versions": versions(),
    }
