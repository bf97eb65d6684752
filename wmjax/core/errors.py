"""Errors that are a user's to mend: one line, no traceback at the command line."""

from __future__ import annotations


class UserError(ValueError):
    """Something that the caller gave is wrong. The message names what, where and how many, and how to mend it."""


class DivergedError(RuntimeError):
    """Training met a value that is not finite. The message names the stage, step and the last good checkpoint."""
