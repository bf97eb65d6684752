"""Tables with one row a unit, time and variable."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.data.tables import SCHEMA, table
from wmjax.core.errors import UserError
from wmjax.data.readers import read_panel
from wmjax.data.schema import LongSchema, read_schema

LONG = {**SCHEMA, "long": {"variable": "what", "value": "much"}}
KEYS = ["household", "day"]
CELL = ("static", "covariate", "action", "outcome")


def melted(seed: int | None = 0) -> pd.DataFrame:
    """The shared table, one row a variable, in an order that means nothing."""
    wide = table()
    wide["holiday"] = wide["holiday"].astype(int)
    found = wide.melt(KEYS, var_name="what", value_name="much")
    return found if seed is None else found.sample(frac=1, random_state=seed).reset_index(drop=True)


def media() -> pd.DataFrame:
    weeks = pd.date_range("2024-01-01", periods=12, freq="W-MON").strftime("%Y-%m-%d")
    rng = np.random.default_rng(0)
    rows = [(g, w, v, 1 + rng.random()) for g in ("north", "south") for w in weeks for v in ("tv", "radio", "sales")]
    return pd.DataFrame(rows, columns=["geo", "week", "what", "much"])


MEDIA = {
    "unit": "geo",
    "time": "week",
    "long": {"variable": "what", "value": "much"},
    "columns": {
        "tv": {"role": "action", "kind": "currency"},
        "radio": {"role": "action", "kind": "currency"},
        "sales": {"role": "outcome", "kind": "continuous"},
    },
}


@pytest.mark.parametrize("kind", ["csv", "parquet", "frame"])
def test_a_long_table_is_its_wide_one(tmp_path, kind):
    """Every kind of column, text and numbers in one value column, gaps, rows in any order, variables not asked for."""
    wide = read_panel(table(), SCHEMA)
    long = pd.concat([melted(), melted().query("what == 'price'").assign(what="extra")], ignore_index=True)
    source = tmp_path / f"x.{kind}"
    if kind == "csv":
        long.to_csv(source, index=False)
    elif kind == "parquet":
        long.astype({"much": str}).to_parquet(source)
    else:
        source = long
    got = read_panel(source, LONG)
    # Units come in the order of their first row, which was shuffled.
    got = got.select(units=wide.units)
    for name, a, b in zip(wide.arrays._fields, got.arrays, wide.arrays, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
    assert got.times.equals(wide.times)
    assert got.levels == wide.levels
    assert got.schema.plain() == wide.schema.plain()
    assert read_panel(got.to_frame(), got.schema.plain()).arrays.mask.sum() == len(table())


def test_a_static_variable_needs_one_row_a_unit():
    long = melted(None)
    statics = long["what"].isin(["segment", "income", "loyal"])
    first = ~long.duplicated(["household", "what"])
    got = read_panel(long[~statics | first], LONG)
    np.testing.assert_array_equal(got.arrays.static, read_panel(table(), SCHEMA).arrays.static)
    moved = long.copy()
    moved.loc[(moved["what"] == "income") & (moved["household"] == 103) & ~first, "much"] = 1.0
    with pytest.raises(UserError, match=r"variable 'income': static, and \d+ rows differ .* unit 103, time 2025-01-2"):
        read_panel(moved, LONG)
    gone = long[~((long["what"] == "income") & (long["household"] == 103))]
    with pytest.raises(UserError, match=r"column 'income': missing \(NaN\) for 1 units, first at unit 103"):
        read_panel(gone, LONG)


@pytest.mark.parametrize("categorical", [False, True])
def test_what_is_not_read_sets_neither_calendar_nor_units(categorical):
    """Unread variables on later, off-calendar and unreadable dates and of another unit; static rows at any time."""
    wide = read_panel(media(), MEDIA)
    extra = [(g, w, "temperature", 3.0) for g, w in (("north", "2025-01-06"), ("south", "2024-01-03"), ("C", "?"))]
    kinds = [("north", "2023-12-04", "size", 5.0), ("south", None, "size", 7.0), ("south", None, "size", 7.0)]
    asked = {**MEDIA, "columns": {**MEDIA["columns"], "size": {"role": "static", "kind": "continuous"}}}
    long = pd.concat([pd.DataFrame(extra + kinds, columns=media().columns), media()], ignore_index=True)
    got = read_panel(long.astype({"geo": "category"}) if categorical else long, asked).select(units=wide.units)
    assert got.times.equals(wide.times)
    np.testing.assert_array_equal(got.arrays.actions, wide.arrays.actions)
    assert got.arrays.mask.all()
    np.testing.assert_array_equal(got.arrays.static[:, 0], [5, 7])
    if categorical:
        empty = long.assign(geo=pd.Categorical(long["geo"], [*long["geo"].unique(), "D"]))
        with pytest.raises(UserError, match="'D'"):
            read_panel(empty, asked)


@pytest.mark.parametrize("value", ["east", 7.0])
def test_a_static_value_is_kept_where_the_first_row_lacks_it(value):
    kind = "categorical" if isinstance(value, str) else "continuous"
    asked = {**MEDIA, "columns": {**MEDIA["columns"], "size": {"role": "static", "kind": kind}}}
    weeks = ("2024-01-01", "2024-01-08")
    rows = [(g, w, "size", None if (g, w) == ("north", weeks[0]) else value) for g in ("north", "south") for w in weeks]
    rows = pd.DataFrame(rows, columns=media().columns).astype({"much": object})
    got = read_panel(pd.concat([media().astype({"much": object}), rows], ignore_index=True), asked)
    assert got.arrays.static[0, 0] == got.arrays.static[1, 0]
    assert got.arrays.static[0, 0] == (value if kind == "continuous" else got.levels["size"].index(value))


def test_what_is_wrong_is_one_line_with_variable_unit_time_and_count():
    good = media()
    at = (good["geo"] == "south") & (good["week"] >= "2024-02-26") & (good["what"] == "radio")
    assert at.sum() == 4
    cases = (
        (good[~at], r"variable 'radio': no row in 4 of 24 units .* first at unit 'south', time 2024-02-26; give it"),
        (
            pd.concat([good, good[at].head(3)]),
            r"variable 'radio': 3 rows repeat a unit and time, first at unit 'south', time 2024-02-26; keep one row",
        ),
        (
            good.replace({"what": {"radio": "raido"}}),
            r"'what': 72 rows, and no variable 'radio' \(did you mean 'raido'",
        ),
        (good.assign(what=good["what"].mask(at)), r"'what': missing in 4 rows, first at unit 'south', time 2024-02-26"),
        (
            good.assign(much=good["much"].mask(at)),
            r"'radio': action is missing \(NaN\) in 4 rows, first at unit 'south'",
        ),
        (
            good.assign(much=good["much"].where(~at, -1)),
            r"'radio': 4 rows of a currency are negative, first at unit 'so",
        ),
        (
            good.assign(much=good["much"].astype(object).mask(at, "none")),
            r"column 'radio': mixed types, 4 rows are not numbers \(such as 'none'\), first at unit 'south'",
        ),
    )
    for wrong, words in cases:
        with pytest.raises(UserError, match=words) as error:
            read_panel(wrong, MEDIA)
        assert "\n" not in str(error.value)
    both = pd.concat([good[~at], good[(good["what"] == "tv")].head(2)])
    with pytest.raises(UserError, match=r"2 problems:\n- variable 'tv': 2 rows repeat.*\n- variable 'radio': no row"):
        read_panel(both, MEDIA)
    with pytest.raises(UserError, match="no column 'what'"):
        read_panel(good.rename(columns={"what": "name"}), MEDIA)
    with pytest.raises(UserError, match="leave long out"):
        read_panel(good.pivot_table("much", ["geo", "week"], "what").to_xarray(), MEDIA)


def test_the_schema_says_so_in_toml_and_back(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(
        'unit = "geo"\ntime = "week"\n[long]\nvariable = "what"\nvalue = "much"\n[columns]\n'
        'tv = { role = "action", kind = "currency" }\nsales = { role = "outcome", kind = "continuous" }\n'
    )
    schema = read_schema(path)
    assert isinstance(schema, LongSchema)
    assert schema.table_names == ("geo", "week", "what", "much")
    path.write_text(schema.to_toml())
    assert read_schema(path) == schema
    assert read_schema(schema.to_dict()) == schema
    assert type(schema.plain()) is not LongSchema
    for change, words in (
        ({"long": "what"}, 'must be like { variable = "VariableName"'),
        ({"long": {"variable": "what"}}, "must be like"),
        ({"long": {"variable": "week", "value": "much"}}, "'week' names two of"),
        ({"time": None}, "needs a time column"),
    ):
        with pytest.raises(UserError, match=words):
            read_schema(MEDIA | change)
