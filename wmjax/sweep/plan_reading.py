"""Plans as people write them: TOML, or nothing but the names of a grid's axes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from wmjax.core.errors import UserError
from wmjax.sweep import plans
from wmjax.sweep.plans import Axis, Edit, Plan, near
from wmjax.sweep.reading import read_toml

VERBS: dict[str, type[Edit]] = {
    "set": plans.Set,
    "scale": plans.Scale,
    "add": plans.Add,
    "move": plans.Move,
    "shift": plans.Shift,
    "clamp": plans.Clamp,
}
WINDOW = {"start": "start", "length": "length", "every": "every", "units": "segment"}
"""Axes that, by their names, say when and to whom the axes of a plan without words apply."""


def read_plan(edits: str | Path | Iterable[Mapping[str, Any]]) -> Plan:
    """Read a plan from a TOML file of `[[edit]]` tables, or from dicts of the same shape.

    `{do = "scale", action = "tv", factor = "$tv_factor", start = 10}`: `do` is the verb, the other keys are the edit's
    own, and a text that begins with `$` is an axis of the grid.

    Raises:
        UserError: an unknown verb or key, or an edit that contradicts itself.
    """
    tables = read_toml(Path(edits)).get("edit", []) if isinstance(edits, str | Path) else edits
    return tuple(_edit(i, table) for i, table in enumerate(tables))


def to_edits(plan: Plan) -> list[dict[str, Any]]:
    """Give the tables that `read_plan` makes the plan of; what stands at its default is left out."""
    verbs = {cls: verb for verb, cls in VERBS.items()}
    return [
        {"do": verbs[type(edit)]}
        | {
            f.name: f"${value.name}" if isinstance(value, Axis) else list(value) if isinstance(value, tuple) else value
            for f in fields(edit)
            if f.default is MISSING or getattr(edit, f.name) != f.default
            for value in (getattr(edit, f.name),)
        }
        for edit in plan
    ]


def _edit(number: int, table: Mapping[str, Any]) -> Edit:
    at = f"edit {number}"
    verb = str(table.get("do", ""))
    if verb not in VERBS:
        raise UserError(f"{at}: do = {verb!r}; {near(verb, VERBS)}")
    allowed = [f.name for f in fields(VERBS[verb])]
    values = {key: _value(value) for key, value in table.items() if key != "do"}
    for key in values:
        if key not in allowed:
            raise UserError(f"{at}: {verb} has no {key!r}; {near(key, allowed)}")
    missing = [f.name for f in fields(VERBS[verb]) if f.default is MISSING and f.name not in table]
    if missing:
        raise UserError(f"{at}: {verb} needs {missing[0]!r}")
    try:
        return VERBS[verb](**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{at}: {verb}: {error}") from None


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return Axis(value[1:]) if isinstance(value, str) and value.startswith("$") else value


def plan_from_axes(names: Iterable[str], actions: tuple[str, ...]) -> Plan:
    """Make the plan that a grid's axes speak for by their names.

    An axis named as an action sets it; `scale.tv` and `add.tv` scale it and add to it; `shift.tv` moves it in time.
    Axes `start`, `length`, `every` and `segment`, where there are any, say when and to whom. All other axes (seeds,
    members, horizons) are left to the world.
    """
    names = list(names)
    window = {field: Axis(axis) for field, axis in WINDOW.items() if axis in names and axis not in actions}
    plan: list[Edit] = []
    for name in names:
        verb, dot, action = name.partition(".")
        if name in actions:
            plan.append(plans.Set(action=name, value=Axis(name), **window))
        elif dot and verb in ("set", "scale", "add", "shift"):
            if action not in actions:
                raise UserError(f"axis {name!r} would {verb} the action {action!r}; {near(action, actions)}")
            field = {"set": "value", "scale": "factor", "add": "amount", "shift": "periods"}[verb]
            # A shift takes a run of neighbouring periods, so pulses say nothing to it.
            when = {k: v for k, v in window.items() if verb != "shift" or k != "every"}
            plan.append(VERBS[verb](action=action, **{field: Axis(name)}, **when))
    if not plan:
        told = f"no axis of the grid ({', '.join(names)}) is one of the actions {', '.join(actions)}"
        close = [hint for name in names if (hint := near(name, actions)).startswith("did you mean")]
        raise UserError("; ".join([told, *close[:1]]))
    return tuple(plan)
