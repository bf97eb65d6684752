"""The visible layer as data: named groups of units, shared by the frames that build them and the machines that read
them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

UnitKind = Literal["bernoulli", "softmax", "gaussian"]


@dataclass(frozen=True, kw_only=True)
class Group:
    """A run of neighbouring visible units of one kind.

    Attributes:
        name: unique in its layer, for example `"visit_lag"`.
        kind: `"bernoulli"` (independent bits), `"softmax"` (exactly one bit of the group is on) or `"gaussian"`
            (standardised reals of unit variance given the hidden units).
        start: index of the first unit.
        labels: one label a unit, unique in the layer.
    """

    name: str
    kind: UnitKind
    start: int
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.kind not in ("bernoulli", "softmax", "gaussian"):
            raise ValueError(f"group {self.name!r}: kind is {self.kind!r}, must be bernoulli, softmax or gaussian")
        if not self.labels:
            raise ValueError(f"group {self.name!r} has no units")

    @property
    def size(self) -> int:
        return len(self.labels)

    @property
    def slice(self) -> slice:
        return slice(self.start, self.start + self.size)


@dataclass(frozen=True)
class Visible:
    """A visible layer: groups that lie side by side and cover `size` units without gaps."""

    groups: tuple[Group, ...]

    def __post_init__(self) -> None:
        at = 0
        for group in self.groups:
            if group.start != at:
                raise ValueError(f"group {group.name!r} starts at unit {group.start}, must start at {at}")
            at += group.size
        names = [g.name for g in self.groups]
        if len(set(names)) != len(names):
            raise ValueError(f"group names repeat: {sorted({n for n in names if names.count(n) > 1})}")

    @classmethod
    def bernoulli(cls, size: int, name: str = "visible") -> Visible:
        """Build one group of `size` independent binary units."""
        return cls((Group(name=name, kind="bernoulli", start=0, labels=tuple(f"{name}_{i}" for i in range(size))),))

    @classmethod
    def pack(cls, parts: Iterable[tuple[str, UnitKind, tuple[str, ...]]]) -> Visible:
        """Lay `(name, kind, labels)` parts side by side."""
        groups, at = [], 0
        for name, kind, labels in parts:
            groups.append(Group(name=name, kind=kind, start=at, labels=labels))
            at += len(labels)
        return cls(tuple(groups))

    @cached_property
    def size(self) -> int:
        return sum(g.size for g in self.groups)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        return tuple(label for g in self.groups for label in g.labels)

    @cached_property
    def all_bernoulli(self) -> bool:
        """True where every unit is an independent bit, which is the fast path of the samplers."""
        return all(g.kind == "bernoulli" for g in self.groups)

    def group(self, name: str) -> Group:
        """Find a group by name; `KeyError` names the groups there are."""
        for g in self.groups:
            if g.name == name:
                return g
        raise KeyError(f"no visible group {name!r}; there are {[g.name for g in self.groups]}")

    def mask(self, names: Iterable[str]) -> np.ndarray:
        """Mark the units of the named groups: `bool [size]`."""
        out = np.zeros(self.size, bool)
        for name in names:
            out[self.group(name).slice] = True
        return out
