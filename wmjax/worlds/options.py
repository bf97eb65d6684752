"""Types of configurations' fields that go by a second name on the command line."""

from __future__ import annotations

from typing import Annotated

import tyro

Members = Annotated[int, tyro.conf.arg(aliases=["--seeds"])]
"""Models in an ensemble, each of its own seed."""
