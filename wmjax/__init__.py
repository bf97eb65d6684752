"""Marketing world models in JAX: what would have happened under another plan, and may you believe the answer?"""

from __future__ import annotations

from typing import Any

from wmjax.core.backend import avoid_ynnpack, multiply_in_full

__version__ = "0.1.0"

avoid_ynnpack()
multiply_in_full()

# Opened on first use, so that `import wmjax` stays fast; beyond the lines above it has no effect.
_DOORS = {
    "consumer": ("wmjax.worlds.consumer", None),
    "graph": ("wmjax.worlds.graph", None),
    "media": ("wmjax.worlds.media", None),
    "read_panel": ("wmjax.data.readers", "read_panel"),
    "read_schema": ("wmjax.data.schema", "read_schema"),
    "Panel": ("wmjax.data.panel", "Panel"),
    "PanelSchema": ("wmjax.data.schema", "PanelSchema"),
    "Column": ("wmjax.data.schema", "Column"),
    "load": ("wmjax.worlds.contract", "load"),
}

__all__ = ["Column", "Panel", "PanelSchema", "consumer", "graph", "load", "media", "read_panel", "read_schema"]


def __getattr__(name: str) -> Any:
    if name not in _DOORS:
        raise AttributeError(f"module 'wmjax' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _DOORS[name]
    found = import_module(module)
    return found if attribute is None else getattr(found, attribute)


def __dir__() -> list[str]:
    return [*globals(), *_DOORS]
