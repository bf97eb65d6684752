import time

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tests.data.tables import SCHEMA, table
from wmjax.core.errors import UserError
from wmjax.data import readers
from wmjax.data.readers import read_panel
from wmjax.data.schema import read_schema


def by_hand(frame: pd.DataFrame, column: str, unit: object, day: object) -> float:
    return frame.loc[(frame["household"] == unit) & (frame["day"] == day), column].item()


def test_every_number_stands_at_its_unit_and_time():
    frame = table()
    panel = read_panel(frame, SCHEMA)
    assert panel.units == tuple(range(100, 107))
    assert panel.schema.frequency == "daily"
    assert panel.levels == {"segment": ("a", "b", "c"), "weather": ("rain", "snow", "sun")}
    assert panel.arrays.mask.sum() == len(frame)
    for _, row in frame.iterrows():
        u, t = panel.units.index(row["household"]), panel.times.get_loc(row["day"])
        assert panel.arrays.mask[u, t]
        for name in ("price", "footfall", "holiday", "push", "spend", "visit", "items"):
            assert panel.values(name)[u, t] == np.float32(row[name])
        assert panel.levels["weather"][int(panel.values("weather")[u, t])] == row["weather"]
        assert panel.levels["segment"][int(panel.values("segment")[u])] == row["segment"]
        assert panel.values("income")[u] == row["income"]


def test_what_is_not_observed_is_masked_and_zero():
    panel = read_panel(table(), SCHEMA)
    assert not panel.arrays.mask.all()
    for array in panel.arrays[1:4]:
        assert (array[~panel.arrays.mask] == 0).all()


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "index", "interleaved", "categories"])
def test_all_sources_give_the_same_panel(tmp_path, kind):
    frame = table()
    expected = read_panel(frame, SCHEMA)
    source = tmp_path / f"x.{kind}"
    if kind.startswith("csv"):
        frame.assign(extra="ignored").to_csv(source, index=False)
    elif kind == "parquet":
        frame.assign(extra="ignored").to_parquet(source)
    elif kind == "index":
        source = frame.set_index(["household", "day"])
    elif kind == "interleaved":
        first = {u: i for i, u in enumerate(frame["household"].unique())}
        order = np.lexsort((frame["household"].map(first), frame["day"]))
        source = pd.concat([frame.groupby("household").head(1), frame.iloc[order]]).drop_duplicates(
            ["household", "day"]
        )
        source = source.sample(frac=1, random_state=0).sort_values("day", kind="stable")
        expected = expected.select(units=source["household"].unique().tolist())
    else:
        source = frame.astype({"household": "category", "segment": "category", "push": "Int64", "visit": "boolean"})
    panel = read_panel(source, SCHEMA)
    assert panel.fingerprint == expected.fingerprint


def test_a_dataset_reads_with_and_without_the_variable_observed():
    panel = read_panel(table(), SCHEMA)
    dataset = panel.to_xarray()
    assert read_panel(dataset, panel.schema.plain()).fingerprint == panel.fingerprint
    moving = [n for n in dataset if dataset[n].ndim == 2 and dataset[n].dtype != object and n != "observed"]
    schema = {**SCHEMA, "columns": {n: SCHEMA["columns"][n] for n in ["segment", *moving]}}
    bare = dataset[["segment", *moving]].transpose()
    assert read_panel(bare, schema).fingerprint == read_panel(table(), schema).fingerprint


def test_a_hole_in_one_column_of_a_dataset_is_missing_not_unobserved():
    dataset = read_panel(table(drop=0), SCHEMA).to_xarray().drop_vars("observed")
    dataset["price"][2, 7] = np.nan
    names = ("push", "spend", "visit", "items", "price")
    schema = {**SCHEMA, "columns": {n: SCHEMA["columns"][n] for n in names}}
    with pytest.raises(
        UserError, match=r"'price': covariate is missing .NaN. in 1 rows, first at unit 102, time 2025-01-27"
    ):
        read_panel(dataset, schema)


def test_a_dataset_on_other_dimensions_is_told():
    dataset = read_panel(table(), SCHEMA).to_xarray().expand_dims(draw=2)
    with pytest.raises(UserError, match=r"dimensions .*'draw'"):
        read_panel(dataset, SCHEMA)
    with pytest.raises(UserError, match="must name its unit and time"):
        read_panel(xr.Dataset(), {"unit": "a", "columns": {"y": {"role": "outcome", "kind": "count"}}})


CHOICES = {
    "unit": "id",
    "columns": {
        "bought": {"role": "outcome", "kind": "binary", "source": "choice", "equals": "heinz"},
        "price": {"role": "action", "kind": "currency"},
    },
}


def choices() -> pd.DataFrame:
    return pd.DataFrame(
        {"id": ["b", "b", "a", "b"], "choice": ["heinz", "hunts", "heinz", "heinz"], "price": [1, 2, 3, 4]}
    )


def test_without_a_time_column_row_order_is_time_and_equals_makes_a_binary():
    panel = read_panel(choices(), CHOICES)
    assert panel.units == ("b", "a")
    assert panel.schema.frequency == "step"
    assert panel.times.tolist() == [0, 1, 2]
    assert panel.arrays.mask.tolist() == [[True, True, True], [True, False, False]]
    assert panel.values("bought").tolist() == [[1, 0, 1], [1, 0, 0]]
    assert panel.values("price").tolist() == [[1, 2, 4], [3, 0, 0]]


def test_a_panel_that_is_only_asked_about_need_not_identify_anything():
    """One unit, an action that never ran, one that is a copy, and a brand that nobody bought: each refuses a fit."""
    frame = choices().query("id == 'b'").assign(choice="hunts", price=0.0, push=[0, 1, 1], holiday=[0, 1, 1])
    binary = {"kind": "binary"}
    columns = {"push": binary | {"role": "action"}, "holiday": binary | {"role": "covariate", "future": "known"}}
    schema = {"unit": "id", "columns": CHOICES["columns"] | columns}
    with pytest.raises(UserError, match="needs at least 2"):
        read_panel(frame, schema)
    with pytest.raises(UserError) as error:
        read_panel(frame, schema, min_units=1)
    for said in ("none of 3 rows has", "action is constant", "action equals covariate 'holiday'"):
        assert said in str(error.value)
    panel = read_panel(frame, schema, purpose="ask")
    assert panel.units == ("b",)
    assert panel.values("bought").tolist() == [[0, 0, 0]]
    # What no world could answer from is refused as ever.
    with pytest.raises(UserError, match="'push': 1 rows are not binary"):
        read_panel(frame.assign(push=[0, 1, 7]), schema, purpose="ask")


@pytest.mark.parametrize("kind", ["category", object])
def test_equals_matches_numbers_and_categories(kind):
    frame = choices().assign(choice=[1, 2, 1, 1]).astype({"choice": kind})
    columns = {**CHOICES["columns"], "bought": {**CHOICES["columns"]["bought"], "equals": 1}}
    assert read_panel(frame, {**CHOICES, "columns": columns}).values("bought").tolist() == [[1, 0, 1], [1, 0, 0]]


def test_a_schema_without_unit_is_one_series():
    schema = {"time": "t", "columns": CHOICES["columns"]}
    panel = read_panel(choices().assign(t=[5, 6, 7, 8]), schema)
    assert panel.units == ("all",)
    assert panel.times.tolist() == [5, 6, 7, 8]


def test_missing_categories_are_a_level_of_their_own_and_the_last():
    frame = table(drop=0)
    frame["segment"] = frame["segment"].where(frame["household"] != 101).replace({"b": "zebra"})
    frame["weather"] = frame["weather"].where(frame["day"] != frame["day"].min())
    panel = read_panel(frame, SCHEMA)
    assert panel.levels["segment"] == ("a", "c", "zebra", "missing")
    assert panel.levels["weather"] == ("rain", "snow", "sun", "missing")
    assert panel.values("segment")[1] == 3
    assert (panel.values("weather")[:-1, 0] == 3).all()


def test_levels_are_ordered_and_written_plainly():
    frame = table(num_units=12, drop=0)
    assert read_panel(frame.assign(segment=frame["household"] - 100.0), SCHEMA).levels["segment"] == tuple(
        str(i) for i in range(12)
    )
    ordered = pd.Categorical(frame["segment"], categories=["c", "unused", "a", "b"])
    assert read_panel(frame.assign(segment=ordered), SCHEMA).levels["segment"] == ("c", "a", "b")
    assert read_panel(frame.assign(segment=frame["loyal"] == 1), SCHEMA).levels["segment"] == ("False", "True")
    named = read_panel(frame.replace({"segment": {"a": "missing"}}), SCHEMA)
    assert named.levels["segment"] == ("b", "c", "missing")


def test_known_levels_keep_their_codes():
    frame = table()
    all_of_them = read_panel(frame, SCHEMA)
    some = frame[frame["household"] != 101]
    some = some[some["segment"] != "a"]
    panel = read_panel(some, SCHEMA, levels=all_of_them.levels)
    assert panel.levels == all_of_them.levels
    assert panel.fingerprint == all_of_them.select(units=panel.units, times=slice(0, panel.num_times)).fingerprint
    with pytest.raises(
        UserError, match=r"'segment': \d+ rows have levels that are not known \(such as 'b'\).*unit 100"
    ):
        read_panel(frame, SCHEMA, levels={"segment": ("a", "c")})


def test_units_are_whole_numbers_or_text():
    frame = table()
    assert read_panel(frame.astype({"household": float}), SCHEMA).units == tuple(range(100, 107))
    assert read_panel(frame.astype({"household": str}), SCHEMA).units[0] == "100"
    mixed = frame.assign(household=[str(h) if h == 103 else h for h in frame["household"]])
    count = int((frame["household"] == 103).sum())
    with pytest.raises(UserError, match=f"'household': mixed types .*: {count} rows .* first unit '103'"):
        read_panel(mixed, SCHEMA)
    with pytest.raises(UserError, match=r"'household': mixed types .floating"):
        read_panel(frame.assign(household=frame["household"] + 0.5), SCHEMA)
    with pytest.raises(UserError, match=r"'household': missing in 2 rows, first in row 5 of the table"):
        read_panel(frame.assign(household=frame["household"].where(~frame.index.isin([4, 9]))), SCHEMA)


def test_an_absent_column_is_told_with_near_names(tmp_path):
    frame = table().rename(columns={"price": "pricee", "push": "Zzz"})
    for source in (
        frame,
        tmp_path / "x.csv",
        tmp_path / "x.parquet",
        frame.set_index(["household", "day"]).to_xarray(),
    ):
        if not isinstance(source, pd.DataFrame | xr.Dataset):
            frame.to_csv(source, index=False) if source.suffix == ".csv" else frame.to_parquet(source)
        with pytest.raises(UserError) as error:
            read_panel(source, SCHEMA)
        assert "no column 'price' (did you mean 'pricee'" in str(error.value)
        assert "no column 'push' (there are" in str(error.value)


def test_sources_that_cannot_be_read_are_told(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_panel(tmp_path / "none.csv", SCHEMA)
    (tmp_path / "x.xlsx").write_text("")
    with pytest.raises(UserError, match=r"not a \.csv"):
        read_panel(tmp_path / "x.xlsx", SCHEMA)
    with pytest.raises(UserError, match="cannot read a list"):
        readers._load([1, 2], read_schema(SCHEMA))
    with pytest.raises(UserError, match="no rows"):
        read_panel(table().iloc[:0], SCHEMA)
    twice = pd.concat([table(), table()[["price"]]], axis=1)
    with pytest.raises(UserError, match="'price' as the name of several columns"):
        read_panel(twice, SCHEMA)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("broken.parquet", b"no parquet"),
        ("cut.parquet", b"PAR1PAR1"),
        ("latin.csv", "household,day\n\xe9,2\n".encode("latin1")),
        ("empty.csv", b""),
        ("plain.csv.gz", b"household,day"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_told_in_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    schema = {"unit": "household", "columns": {"day": {"role": "outcome", "kind": "count"}}}
    with pytest.raises(UserError, match=rf"{name}: cannot be read \([^\n]+\)$"):
        read_panel(tmp_path / name, schema)


def test_times_that_blow_up_the_panel_are_told():
    frame = pd.DataFrame(
        {"u": np.repeat(np.arange(5000), 2), "t": np.tile([0, 900_000], 5000), "y": np.tile([0, 1], 5000)}
    )
    with pytest.raises(UserError, match="'t': 5000 units over 900001 periods are too many for 10000 rows"):
        read_panel(frame, {"unit": "u", "time": "t", "columns": {"y": {"role": "outcome", "kind": "binary"}}})


@pytest.mark.parametrize("dates", [False, True])
def test_a_large_table_reads_fast(dates):
    """1,024 units x 365 days; on an idle core it takes 0.5 s, the bound allows for a busy machine."""
    n, t = 1024, 365
    rng = np.random.default_rng(0)
    days = pd.date_range("2025-01-01", periods=t)
    frame = pd.DataFrame({"id": np.repeat(np.arange(n), t), "day": np.tile(days if dates else days.astype(str), n)})
    names = [f"x{i}" for i in range(7)]
    for name in names:
        frame[name] = rng.integers(0, 2, n * t)
    frame["store"] = np.repeat(rng.choice(["north", "south"], n), t)
    columns = {n: {"role": "outcome" if n == "x0" else "action", "kind": "binary"} for n in names}
    columns["store"] = {"role": "static", "kind": "categorical"}
    schema = read_schema({"unit": "id", "time": "day", "columns": columns})
    start = time.process_time()
    panel = read_panel(frame, schema)
    assert time.process_time() - start < 3
    assert panel.arrays.actions.shape == (n, t, 6)
