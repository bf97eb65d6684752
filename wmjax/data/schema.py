"""What a table means: which columns name the unit and the time, and the role and kind of every other one."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from wmjax.core.errors import UserError

Role = Literal["static", "covariate", "action", "outcome"]
Kind = Literal["binary", "categorical", "count", "continuous", "currency"]
Future = Literal["known", "observed", "mediator"]
Frequency = Literal["auto", "daily", "weekly", "monthly", "step"]


def near(name: object, names: Iterable[object]) -> str:
    """Say which names are close to a wrong one, or, where none is, which there are."""
    known = list(dict.fromkeys(str(n) for n in names))
    close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(n) for n in close) + "?"
    shown = ", ".join(repr(n) for n in known[:20])
    return f"there are {shown}" + (f" and {len(known) - 20} more" if len(known) > 20 else "")


def _check(what: str, value: object, allowed: Any) -> None:
    if value not in get_args(allowed):
        raise UserError(f"{what} is {value!r}, must be one of {', '.join(get_args(allowed))}")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a panel.

    Attributes:
        name: its name in the panel.
        role: `"static"` (one value a unit), `"covariate"`, `"action"` (what a plan may change) or `"outcome"`.
        kind: `"binary"` (0, 1), `"categorical"`, `"count"` (0, 1, ..), `"continuous"` or `"currency"` (never negative).
        future: for covariates: `"known"` ahead (a price list, a holiday), `"observed"` only when it happens, or
            `"mediator"` (moved by the actions themselves, so never shown to a model that must not control for it).
        source: the table's column, where it has another name.
        equals: makes a binary column: 1 where `source` equals this value.
        randomised: of a binary action: each row's value was drawn by chance, whatever came before.
        propensity: the probability of 1 that it was drawn with: a number, or the covariate that holds each row's. A
            covariate so named should stay `"observed"`, which no belief reads.
    """

    name: str
    role: Role
    kind: Kind
    future: Future = "observed"
    source: str | None = None
    equals: str | int | float | bool | None = None
    randomised: bool = False
    propensity: int | float | str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise UserError("a column needs a name")
        at = f"column {self.name!r}: "
        _check(at + "role", self.role, Role)
        _check(at + "kind", self.kind, Kind)
        _check(at + "future", self.future, Future)
        if self.future != "observed" and self.role != "covariate":
            raise UserError(f"{at}future = {self.future!r} is for covariates only, not for role {self.role!r}")
        if self.equals is not None and self.kind != "binary":
            raise UserError(f'{at}equals makes a binary column, so kind must be "binary", not {self.kind!r}')
        if self.randomised and (self.role, self.kind) != ("action", "binary"):
            raise UserError(f"{at}randomised is for binary actions only, not for a {self.kind} {self.role}")
        if self.propensity is not None and not self.randomised:
            raise UserError(f"{at}propensity is of a randomised action; say randomised = true")
        if isinstance(self.propensity, int | float) and not 0 < self.propensity < 1:
            raise UserError(f"{at}propensity is {self.propensity}, must lie in (0, 1)")
        if self.kind == "categorical" and self.role in ("action", "outcome"):
            raise UserError(
                f"{at}an {self.role} cannot be categorical; declare one binary column a level, "
                f'for example {{role = "{self.role}", kind = "binary", source = "{self.name}", equals = ".."}}'
            )

    @property
    def table_name(self) -> str:
        """The column of the table that this one is read from."""
        return self.name if self.source is None else self.source


@dataclass(frozen=True, kw_only=True)
class PanelSchema:
    """The meaning of a long table: one row a unit and time.

    Attributes:
        unit: the column that names the unit (household, geo, shop); None: the whole table is one unit.
        time: the column that names the time; None: the order of the rows within a unit is the time (0, 1, 2, ..).
        frequency: `"auto"` infers it; `"step"` is any calendar of whole numbers.
        columns: in the order that the panel's arrays have.
    """

    unit: str | None
    time: str | None = None
    frequency: Frequency = "auto"
    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        _check("frequency", self.frequency, Frequency)
        if self.time is None and self.frequency not in ("auto", "step"):
            raise UserError(f'frequency = "{self.frequency}" needs a time column; name it with time = ".."')
        names = [c.name for c in self.columns]
        repeated = sorted({n for n in names if names.count(n) > 1})
        if repeated:
            raise UserError(f"column names repeat: {repeated}")
        if self.unit is not None and self.unit == self.time:
            raise UserError(f"unit and time are the same column {self.unit!r}")
        taken = [n for n in names if n in (self.unit, self.time)]
        if taken:
            raise UserError(f"column {taken[0]!r} is already the unit or the time; give it another name and a source")
        if not self.names("outcome"):
            raise UserError("the schema has no outcome column")
        for column in self.columns:
            wanted = column.propensity
            if isinstance(wanted, str) and wanted not in self.names("covariate"):
                raise UserError(
                    f"column {column.name!r}: propensity names {wanted!r}, which is no covariate of the schema; "
                    f"{near(wanted, self.names('covariate'))}"
                )

    def names(self, role: Role) -> tuple[str, ...]:
        """Name the columns of one role, in order."""
        return tuple(c.name for c in self.columns if c.role == role)

    def column(self, name: str) -> Column:
        """Find a column; a `UserError` names close ones."""
        for column in self.columns:
            if column.name == name:
                return column
        raise UserError(f"the schema has no column {name!r}; {near(name, [c.name for c in self.columns])}")

    @property
    def table_names(self) -> tuple[str, ...]:
        """The table's columns that are read, each once."""
        wanted = [n for n in (self.unit, self.time) if n is not None] + [c.table_name for c in self.columns]
        return tuple(dict.fromkeys(wanted))

    @property
    def heads(self) -> dict[str, Any]:
        """What `to_dict` says before the columns, without what is not there."""
        named = {k: v for k, v in (("unit", self.unit), ("time", self.time)) if v is not None}
        return {**named, "frequency": self.frequency}

    def plain(self) -> PanelSchema:
        """Describe the table that `Panel.to_frame` gives: every column under its own name, units and times named."""
        columns = tuple(replace(c, source=None, equals=None) for c in self.columns)
        unit, time = self.unit or "unit", self.time or "time"
        return PanelSchema(unit=unit, time=time, frequency=self.frequency, columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """Give the schema as `read_schema` takes it; what stands at its default is left out."""
        return {**self.heads, "columns": {c.name: _column_dict(c) for c in self.columns}}

    def to_toml(self) -> str:
        """Write the schema as TOML, one line a column."""
        value = self.to_dict()
        lines = [f"{k} = {_toml(v)}" for k, v in value.items() if k != "columns"] + ["", "[columns]"]
        for name, spec in value["columns"].items():
            lines.append(f"{_key(name)} = {_toml(spec)}")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, kw_only=True)
class LongSchema(PanelSchema):
    """The meaning of a table with one row a unit, time and variable.

    The schema's columns are variables: the values of one column of the table, each with its number in another one.

    Attributes:
        variable: the table's column that names the variable; what the schema does not name is not read.
        value: the table's column that holds its value.
    """

    variable: str
    value: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.time is None:
            raise UserError(
                'long: needs a time column, by which the variables find each other; name it with time = ".."'
            )
        named = [n for n in (self.unit, self.time, self.variable, self.value) if n is not None]
        if repeated := [n for n in named if named.count(n) > 1]:
            raise UserError(f"long: {repeated[0]!r} names two of unit, time, variable and value")

    @property
    def table_names(self) -> tuple[str, ...]:
        """The table's columns that are read."""
        return tuple(n for n in (self.unit, self.time, self.variable, self.value) if n is not None)

    @property
    def heads(self) -> dict[str, Any]:
        """What `to_dict` says before the columns."""
        return {**super().heads, "long": {"variable": self.variable, "value": self.value}}


_FIELDS = {f.name: f for f in fields(Column) if f.name != "name"}


def _column_dict(column: Column) -> dict[str, Any]:
    values = {name: getattr(column, name) for name in _FIELDS}
    return {k: v for k, v in values.items() if _FIELDS[k].default is MISSING or v != _FIELDS[k].default}


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, bool):
        return str(value).lower()
    # A JSON string is a TOML basic string but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") if isinstance(value, str) else repr(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def read_schema(source: str | Path | Mapping[str, Any] | PanelSchema) -> PanelSchema:
    """Read a schema from a TOML file or a dict of the same shape.

    A TOML key with dots, `price.heinz41 = {..}`, names the column "price.heinz41", quoted or not; unquoted, TOML puts
    all `price.` columns beside each other.

    Raises:
        UserError: a missing file, broken TOML, an unknown key (with close ones), or a column that contradicts itself.
    """
    if isinstance(source, PanelSchema):
        return source
    if isinstance(source, Mapping):
        return _from_dict(source, "schema")
    path = Path(source)
    try:
        return _from_dict(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a TOML file (in Python also a dict or a PanelSchema)") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML ({error})") from None


def _from_dict(value: Mapping[str, Any], where: str) -> PanelSchema:
    allowed = [*(f.name for f in fields(PanelSchema)), "long"]
    for key in value:
        if key not in allowed:
            raise UserError(f"{where}: unknown key {key!r}; {near(key, allowed)}")
    columns = value.get("columns")
    if not isinstance(columns, Mapping) or not columns:
        raise UserError(f"{where}: needs a table [columns] with one line a column")
    head = {k: value.get(k) for k in ("unit", "time")}
    for key, name in head.items():
        if name is not None and not isinstance(name, str):
            raise UserError(f"{where}: {key} is {name!r}, must be the name of a column")
    _check(f"{where}: frequency", value.get("frequency", "auto"), Frequency)
    parsed = tuple(_column(name, spec, where) for name, spec in _flat(columns, ""))
    kept: dict[str, Any] = {**head, "frequency": value.get("frequency", "auto"), "columns": parsed}
    return LongSchema(**kept, **_long(value["long"], where)) if "long" in value else PanelSchema(**kept)


def _long(spec: Any, where: str) -> dict[str, Any]:
    wanted = ("variable", "value")
    if not isinstance(spec, Mapping) or set(spec) != set(wanted) or not all(isinstance(v, str) for v in spec.values()):
        raise UserError(
            f'{where}: long is {spec!r}, must be like {{ variable = "VariableName", value = "VariableValue" }}'
        )
    return {name: spec[name] for name in wanted}


def _flat(columns: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    """Undo the nesting that TOML gives to an unquoted key with dots."""
    out = []
    for key, spec in columns.items():
        nested = isinstance(spec, Mapping) and bool(spec) and all(isinstance(v, Mapping) for v in spec.values())
        out += _flat(spec, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", spec)]
    return out


def _column(name: str, spec: Any, where: str) -> Column:
    if not isinstance(spec, Mapping):
        raise UserError(f'{where}: column {name!r} is {spec!r}, must be like {{ role = "action", kind = "binary" }}')
    for key in spec:
        if key not in _FIELDS:
            raise UserError(f"{where}: column {name!r} has an unknown key {key!r}; {near(key, _FIELDS)}")
    for key in ("role", "kind"):
        if key not in spec:
            raise UserError(f"{where}: column {name!r} has no {key}")
    for key, allowed in (("role", Role), ("kind", Kind), ("future", Future)):
        _check(f"{where}: column {name!r}: {key}", spec.get(key, get_args(allowed)[0]), allowed)
    if not isinstance(spec.get("source", ""), str):
        raise UserError(f"{where}: column {name!r}: source is {spec['source']!r}, must be the name of a column")
    if not isinstance(spec.get("equals", ""), str | int | float):
        raise UserError(f"{where}: column {name!r}: equals is {spec['equals']!r}, must be text or a number")
    if not isinstance(spec.get("randomised", False), bool):
        raise UserError(f"{where}: column {name!r}: randomised is {spec['randomised']!r}, must be true or false")
    drawn = spec.get("propensity", "")
    if isinstance(drawn, bool) or not isinstance(drawn, str | int | float):
        raise UserError(f"{where}: column {name!r}: propensity is {drawn!r}, must be a number or a covariate's name")
    return Column(name=name, **spec)
