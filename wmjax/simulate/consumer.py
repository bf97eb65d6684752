"""Consumers who visit and buy, with price sensitivity, promotion response and base preference known.

The controlled panel of the Three-in-One World Model (Niimi, arXiv 2605.07199): store campaigns, coupons, push messages
and two price promotions act on the visits and purchases of consumers who differ in three hidden traits. This file holds
the equations and the configuration, used by the NumPy generator and the JAX generator alike.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

AnyArray = Any  # a NumPy array or a JAX array: the equations serve both generators
NEVER = 999.0  # days since an event that has not happened yet
LAPSED = 7.0  # a targeted sale favours consumers without a purchase within this many days


class ConsumerParams(NamedTuple):
    """The continuous constants, the published ones by default; every leaf may be a traced scalar.

    Price cuts are shares of the base price, rates are probabilities a day, memories are days. `targeting` is the log
    odds ratio by which a targeted sale favours lapsed consumers: 0 randomises it, more confounds it.
    """

    alpha_mean: Any = 2.0
    alpha_sd: Any = 0.3
    alpha_income: Any = -0.6
    alpha_age: Any = -0.4
    gamma_mean: Any = 1.0
    gamma_sd: Any = 0.15
    gamma_loyalty: Any = 0.6
    beta_sd: Any = 0.3
    beta_income: Any = 0.5
    beta_age: Any = 0.4
    beta_loyalty: Any = 0.5
    loyal_rate: Any = 0.3
    income_log_mean: Any = 6.0
    income_log_sd: Any = 0.5
    campaign_rate: Any = 0.15
    coupon_rate: Any = 0.12
    coupon_rate_loyal: Any = 0.18
    push_rate: Any = 0.25
    sale_rate: Any = 1.0 / 7.0
    targeting: Any = 2.0
    price_base: Any = 100.0
    cut_sale1: Any = 0.05
    cut_sale2: Any = 0.03
    cut_campaign: Any = 0.05
    cut_coupon: Any = 0.025
    cut_coupon_loyal: Any = 0.01
    visit_intercept: Any = -0.3
    visit_campaign: Any = 1.2
    visit_coupon: Any = 0.8
    visit_push: Any = 0.6
    visit_loyalty: Any = 0.1
    visit_recency: Any = -0.3
    visit_memory: Any = 30.0
    purchase_intercept: Any = -1.0
    purchase_loyalty: Any = 0.3
    purchase_recency: Any = -0.8
    purchase_memory: Any = 60.0
    gumbel_scale: Any = 0.1


PUBLISHED = ConsumerParams()


@dataclass(frozen=True, kw_only=True)
class ConsumerSimConfig:
    """What a consumer panel is made of.

    Attributes:
        num_consumers, num_days, start: the panel's size and first day (ISO date).
        seed: seed of the legacy NumPy stream that draws the panel.
        sale: how sale1 is set. `"calendar"`: every Sunday, so that its effect is *not* identified beside day-of-week
            features. `"randomised"`: whole days, each with probability `params.sale_rate`. `"targeted"`: per consumer
            and day, more often for those without a purchase within 7 days; confounded, but identified, because the
            propensity is a function of observed history alone.
        sale_seed: seed of the separate stream behind randomised and targeted sales; the rest of the panel's draws stay.
        alpha_in_outcome: `"own"`, or `"constant"` for a placebo in which every consumer buys with the mean price
            sensitivity while the recorded alpha stays: whatever still "recovers" alpha does so by accident.
        store_probs: share of consumers by home store.
        campaign_days, max_campaigns: length of a store campaign, and how many stores may run one at a time.
        params: the continuous constants.
    """

    num_consumers: int = 1024
    num_days: int = 365
    start: str = "2025-01-01"
    seed: int = 42
    sale: Literal["calendar", "randomised", "targeted"] = "calendar"
    sale_seed: int = 7
    alpha_in_outcome: Literal["own", "constant"] = "own"
    store_probs: tuple[float, ...] = (0.20, 0.15, 0.13, 0.12, 0.10, 0.08, 0.07, 0.06, 0.05, 0.04)
    campaign_days: int = 3
    max_campaigns: int = 3
    params: ConsumerParams = PUBLISHED

    def __post_init__(self) -> None:
        for name in ("num_consumers", "num_days", "campaign_days", "max_campaigns"):
            least = 2 if name == "num_consumers" else 1  # z-scores divide by n - 1
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least {least}")
        if self.sale not in ("calendar", "randomised", "targeted"):
            raise ValueError(f"sale is {self.sale!r}, must be calendar, randomised or targeted")
        if self.alpha_in_outcome not in ("own", "constant"):
            raise ValueError(f"alpha_in_outcome is {self.alpha_in_outcome!r}, must be own or constant")
        if abs(sum(self.store_probs) - 1.0) > 1e-8 or min(self.store_probs) < 0:
            raise ValueError(f"store_probs sum to {sum(self.store_probs)}, must be non-negative and sum to 1")
        datetime.date.fromisoformat(self.start)

    @property
    def dates(self) -> np.ndarray:
        """The days of the panel: `datetime64[D] [days]`."""
        return np.datetime64(self.start, "D") + np.arange(self.num_days)

    @property
    def day_of_week(self) -> np.ndarray:
        """Monday = 0: `int [days]`."""
        return (self.dates.astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday

    @property
    def month(self) -> np.ndarray:
        """January = 1: `int [days]`."""
        return self.dates.astype("datetime64[M]").astype(np.int64) % 12 + 1

    @property
    def sundays(self) -> np.ndarray:
        """The days of a calendar sale1: `uint8 [days]`."""
        return (self.day_of_week == 6).astype(np.uint8)

    @property
    def sale_months(self) -> np.ndarray:
        """The days of sale2, the last month of each quarter: `uint8 [days]`."""
        return (self.month % 3 == 0).astype(np.uint8)


class ConsumerStatics(NamedTuple):
    """What is known of a consumer from the start, each `[consumers]`: home store, age in years, income, loyalty bit."""

    store: AnyArray
    age: AnyArray
    income: AnyArray
    loyalty: AnyArray


class ConsumerTraits(NamedTuple):
    """What is hidden, each `[consumers]`: price sensitivity, promotion response, base preference."""

    alpha: AnyArray
    gamma: AnyArray
    beta: AnyArray


class ConsumerActions(NamedTuple):
    """The five actions, 0 or 1, each `[consumers, days]` (one day of them, `[consumers]`, inside a roll-out)."""

    sale1: AnyArray
    sale2: AnyArray
    campaign: AnyArray
    coupon: AnyArray
    push: AnyArray


class ConsumerNoise(NamedTuple):
    """All chance behind the outcomes, each `[consumers, days]`: a Gumbel shock of the utility and a uniform threshold.

    An event happens where `uniform <= sigmoid(utility + scale * gumbel)`, so one noise under two plans gives outcomes
    that differ only through the plans (common random numbers, monotone in the probability).
    """

    gumbel_visit: AnyArray
    uniform_visit: AnyArray
    gumbel_purchase: AnyArray
    uniform_purchase: AnyArray


class ConsumerOutcomes(NamedTuple):
    """What happened, each `[consumers, days]`.

    Attributes:
        visit, purchase: the events, 0 or 1.
        since_visit, since_purchase: days since the last event, read at the *start* of the day: an event yesterday reads
            0, and 999 (and more) means never.
        utility_visit, utility_purchase: the log odds without their Gumbel shock.
    """

    visit: AnyArray
    purchase: AnyArray
    since_visit: AnyArray
    since_purchase: AnyArray
    utility_visit: AnyArray
    utility_purchase: AnyArray


class ConsumerSim(NamedTuple):
    """A panel with its truth. `propensity` is the true probability of sale1 given history: `[consumers, days]`."""

    statics: ConsumerStatics
    traits: ConsumerTraits
    actions: ConsumerActions
    noise: ConsumerNoise
    outcomes: ConsumerOutcomes
    propensity: AnyArray


def price(params: ConsumerParams, loyalty: AnyArray, actions: ConsumerActions) -> AnyArray:
    """Compute the price paid: `base (1 - cut1 sale1 - cut2 sale2 - cutc campaign - r coupon)`, r by loyalty."""
    coupon_cut = params.cut_coupon + (params.cut_coupon_loyal - params.cut_coupon) * loyalty
    cuts = params.cut_sale1 * actions.sale1 + params.cut_sale2 * actions.sale2 + params.cut_campaign * actions.campaign
    return params.price_base * (1 - cuts - coupon_cut * actions.coupon)


def utility_visit(
    params: ConsumerParams, loyalty: AnyArray, traits: ConsumerTraits, actions: ConsumerActions, since: AnyArray
) -> AnyArray:
    """Compute the log odds of a visit; promotions act through gamma, prices not at all."""
    pull = (
        params.visit_campaign * actions.campaign
        + params.visit_coupon * actions.coupon
        + params.visit_push * actions.push
    )
    fresh = 1 - since.clip(max=params.visit_memory) / params.visit_memory
    own = params.visit_intercept + traits.beta + params.visit_loyalty * loyalty
    return own + traits.gamma * pull + params.visit_recency * fresh


def utility_purchase(
    params: ConsumerParams, loyalty: AnyArray, traits: ConsumerTraits, actions: ConsumerActions, since: AnyArray
) -> AnyArray:
    """Compute the log odds of a purchase; promotions act through the price alone, push not at all."""
    change = (price(params, loyalty, actions) - params.price_base) / params.price_base
    fresh = 1 - since.clip(max=params.purchase_memory) / params.purchase_memory
    own = params.purchase_intercept + traits.beta + params.purchase_loyalty * loyalty
    return own - traits.alpha * change + params.purchase_recency * fresh


def traits_in_outcome(traits: ConsumerTraits, *, cfg: ConsumerSimConfig) -> ConsumerTraits:
    """Give the traits that drive the outcomes: the consumer's own, or under the placebo a constant alpha."""
    if cfg.alpha_in_outcome == "own":
        return traits
    return traits._replace(alpha=traits.alpha * 0 + cfg.params.alpha_mean)


def targeted_log_odds(params: ConsumerParams, base: AnyArray | float, since_purchase: AnyArray) -> AnyArray:
    """Compute the log odds of a targeted sale: `base + targeting (1[no purchase within 7 days] - 1/2)`."""
    return base + params.targeting * ((since_purchase > LAPSED) - 0.5)
