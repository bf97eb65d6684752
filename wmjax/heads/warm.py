"""A start and a prior for additive adapters: each action's main effect, and how much rows differ from it.

Trained from zero by few steps and stopped early, an effect stays near zero however strong it is: what is rare or what
few rows tell is learnt last. A penalised regression on features and actions is solved to its end; training goes on from
its effects.

What rows differ by is far harder to tell than what they share: left free, slopes on a hundred features fit noise, which
early stopping does not keep out. So the slopes w of an action's effect have a prior, Normal(0, v), whose v is estimated
(empirical Bayes). With s_u unit u's share of the likelihood's gradient by w where w = 0, what the regression explains
projected out, and H_u its share of the information, E s_u . s_u' = v tr(H_u H_u') for any two units, however the rows
of one unit depend on each other (to first order: the projection ties units a little, and on small tables of many
features what is told is too much, by up to its own standard error): only what units agree on counts,

    v^ = sum_{u != u'} s_u . s_u' / t,    t = sum_{u != u'} tr(H_u H_u'),    Var(v^) about 2 / t,

and v^ is averaged with a first guess by precision, as few rows tell as little of v as of w. It is Haseman and Elston's
(1972) regression for a variance component, on a score.

What features do not tell of a unit, its own effect beyond them, is in no slope, but an interval of a row has to hold
it. Its variance is estimated alike, from pairs of rows of one unit, within which the unit's own level is taken out:
with z_t a row's share of the gradient by the effect and h_t of the information, E z_t z_t' = v h_t h_t'.

What all rows of a period share and no column tells (a holiday, a strike) moves the estimate of an action that is done
to many at once. The variance of such shocks is estimated alike, from pairs of rows of one period beside pairs of two,
and what it adds to the effects' covariance is told as `luck`: a bootstrap of the units, whose rows all lived through
the same periods, is blind to it. Shocks are taken as independent between periods and outcomes, and of the level, not of
the effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from wmjax.heads.adapter import AdapterConfig
from wmjax.heads.learn import AdapterData, AdapterState, Kind

STEPS, TOLERANCE = 50, 1e-3
"""Most Newton steps, and the step of any coefficient below which no more is taken."""
REACH = 2.0
"""Most that one step changes a coefficient: an undamped step from far away overshoots, and may not come back."""
PROBES = 8
"""Random directions in which the units' own shares of the information are measured."""
GRID = 1000
"""Points at which a posterior of a standard deviation is worked out."""
LEAST = 0.01
"""Of the first guess of v, the least that is left of it where the estimate is negative."""


class Cells(NamedTuple):
    """Whose each row is and when: `units`, `periods` [rows], numbers below `num_units` and `num_periods`."""

    units: Int[Array, " rows"]
    periods: Int[Array, " rows"]
    num_units: int
    num_periods: int


class Start(NamedTuple):
    """What a regression tells of every outcome, member and action.

    effects: of one unit of each action. variance: estimate v^ of the slopes' variance around them, may be negative;
    precision: of v^. between: estimate of the variance of effects between units, may be negative; between_precision: of
    it. All five [outcomes, members, actions].
    luck: [outcomes, members, actions, actions], what shocks that a period's rows share add to the effects' covariance,
    may be negative.
    noise: [outcomes, members], the variance that is left of a real outcome; 1/2 for a binary one, so that `2 noise`
    turns a log density's slope into that of a loss.
    spread: [members], sum over the features of their variance over rows.
    """

    effects: Float[Array, "outcomes members actions"]
    variance: Float[Array, "outcomes members actions"]
    precision: Float[Array, "outcomes members actions"]
    between: Float[Array, "outcomes members actions"]
    between_precision: Float[Array, "outcomes members actions"]
    luck: Float[Array, "outcomes members actions actions"]
    noise: Float[Array, "outcomes members"]
    spread: Float[Array, " members"]

    def of(self, members: slice) -> Start:
        """Take some members' part."""
        return Start(*(x[:, members] for x in self[:-1]), spread=self.spread[members])


def regress(data: AdapterData, at: Cells, kinds: tuple[Kind, ...], *, ridge: float = 1.0) -> Start:
    """Regress each outcome on features and actions, member by member.

    Args:
        data: of an ensemble: features [members, rows, f], actions [rows, a], labels [outcomes, rows], weights
            [1, members, rows].
        at: where each row stands; units are independent of each other.
        kinds: one an outcome: logistic for a binary one, linear for others.
        ridge: precision of the normal prior of every coefficient but the intercept.
    """
    return _regress(data, at.units, at.periods, kinds, at.num_units, at.num_periods, ridge)


@partial(jax.jit, static_argnames=("kinds", "num_units", "num_periods", "ridge"))
def _regress(
    data: AdapterData,
    units: Array,
    periods: Array,
    kinds: tuple[Kind, ...],
    num_units: int,
    num_periods: int,
    ridge: float,
) -> Start:
    at, weights, per_outcome = Cells(units, periods, num_units, num_periods), data.weights[0], []
    for labels, kind in zip(data.labels, kinds, strict=True):
        one = partial(_one, data.actions, labels, at, kind == "binary", ridge)
        per_outcome.append(jax.lax.map(one, (data.features, weights)))
    found = (jnp.stack(x) for x in zip(*per_outcome, strict=True))
    return Start(*found, spread=jax.lax.map(_spread, (data.features, weights)))


def _spread(member: tuple[Array, Array]) -> Float[Array, ""]:
    features, weights = member
    return jnp.vdot(weights, jnp.square(features - weights @ features / weights.sum()).sum(1)) / weights.sum()


def _one(
    actions: Array,
    labels: Array,
    at: Cells,
    binary: bool,
    ridge: float,
    member: tuple[Array, Array],
) -> tuple[Array, ...]:
    features, weights = member
    # Centred, or float32 loses the least eigenvalues of large tables' products.
    centred, moved = (x - weights @ x / weights.sum() for x in (features, actions))
    design = jnp.concatenate([jnp.ones((len(actions), 1)), centred, moved], axis=1)
    width = design.shape[1]
    penalty = jnp.full(width, ridge).at[0].set(0.0)

    rate = jnp.clip(jnp.vdot(weights, labels) / weights.sum(), 1e-6, 1 - 1e-6)
    begin = jnp.log(rate) - jnp.log1p(-rate) if binary else 0.0

    def parts(own: Array) -> tuple[Array, Array]:
        """Give each row's error and curvature, in its weight: a unit of it is one row, and the prior counts as one."""
        eta = design @ own
        chance = jax.nn.sigmoid(eta)
        error, curve = (labels - chance, chance * (1 - chance)) if binary else (labels - eta, jnp.ones_like(eta))
        return weights * error, weights * curve

    def hessian(curve: Array) -> Array:
        return (design * curve[:, None]).T @ design + jnp.diag(penalty + 1e-6)

    def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        own, _, count = carry
        error, curve = parts(own)
        move = jnp.linalg.solve(hessian(curve), design.T @ error - penalty * own)
        largest = jnp.abs(move).max()
        damped = move * jnp.minimum(1.0, REACH / jnp.maximum(largest, TOLERANCE)) if binary else move
        return own + damped, largest, count + 1

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        _, largest, count = carry
        return (largest > TOLERANCE) & (count < (STEPS if binary else 1))

    first = jnp.zeros(width).at[0].set(begin), jnp.asarray(jnp.inf), jnp.asarray(0)
    found = jax.lax.while_loop(unfinished, step, first)[0]
    error, curve = parts(found)
    left = jnp.vdot(weights, jnp.square(labels - design @ found)) / weights.sum()
    scale = 1.0 if binary else jnp.maximum(left, 1e-6)
    factor = jax.scipy.linalg.cho_factor(hessian(curve))

    by_unit = partial(jax.ops.segment_sum, segment_ids=at.units, num_segments=at.num_units)

    def differ(action: Array) -> tuple[Array, Array]:
        """Estimate the variance of one action's slopes, and how precisely."""
        slopes = action[:, None] * centred
        rest = slopes - design @ jax.scipy.linalg.cho_solve(factor, (design * curve[:, None]).T @ slopes)
        shares = by_unit(rest * error[:, None]) / scale
        information = (rest * curve[:, None]).T @ rest / scale
        agreed = jnp.square(shares.sum(0)).sum() - jnp.square(shares).sum()
        told = jnp.maximum(jnp.square(information).sum() - alone(rest), 0)
        # No row of an action, or no difference between rows: nothing is told.
        return agreed / jnp.maximum(told, 1e-20), told / 2

    probes = jax.random.rademacher(jax.random.key(0), (features.shape[1], PROBES), jnp.float32)

    def alone(rest: Array) -> Array:
        """Estimate sum_u tr(H_u^2), as the mean of |H_u g|^2 over random signs g (Hutchinson 1990)."""

        def one(probe: Array) -> Array:
            heard = (rest * (curve * (rest @ probe))[:, None]) / scale
            return jnp.square(by_unit(heard)).sum()

        return jax.lax.map(one, probes.T).mean()

    def apart(rest: Array) -> tuple[Array, Array]:
        """Estimate the variance between units of the effect whose column, of what others explain, leaves `rest`."""
        heard = jnp.maximum(by_unit(curve), 1e-20)
        rest -= (by_unit(curve * rest) / heard)[at.units]
        own = error - curve * (by_unit(error) / heard)[at.units]
        share, information = rest * own / scale, curve * jnp.square(rest) / scale
        pairs = lambda x: jnp.square(by_unit(x)).sum() - jnp.square(x).sum()  # noqa: E731
        # What taking each unit's level out makes of pairs that have nothing in common.
        chance = jnp.vdot(information * curve, weights / heard[at.units])
        told = jnp.maximum(pairs(information), 0)
        return (pairs(share) - chance) / jnp.maximum(told, 1e-20), told / 2

    variance, precision = jax.lax.map(differ, actions.T)
    first = width - actions.shape[1]
    inverse = jax.scipy.linalg.cho_solve(factor, jnp.eye(width)[:, first:])
    # Each action's column less what all other columns explain of it.
    between, between_precision = jax.lax.map(apart, (design @ inverse / jnp.diag(inverse[first:])).T)
    luck = _luck(design, error, curve, factor, at)[first:, first:]
    # Where float32 cannot tell (an outcome that never varies), nothing is told.
    told = (jnp.where(jnp.isfinite(x), x, 0.0) for x in (variance, precision, between, between_precision, luck))
    return found[first:], *told, jnp.asarray(0.5 if binary else scale)


def _luck(
    design: Array, error: Array, curve: Array, factor: tuple[Array, bool], at: Cells
) -> Float[Array, "width width"]:
    """Tell what a shock to all rows of a period adds to the coefficients' covariance; negative where chance has it.

    Errors of two units agree more within a period than between periods by the shock's variance. Pairs between periods
    take out what the regression's own intercept makes of units' levels, and need no model of a row's noise.
    """
    by_period = partial(jax.ops.segment_sum, segment_ids=at.periods, num_segments=at.num_periods)
    by_unit = partial(jax.ops.segment_sum, segment_ids=at.units, num_segments=at.num_units)

    def pairs(x: Array) -> tuple[Array, Array]:
        """Sum the products of all pairs of rows: of one period; of neither one period nor one unit."""
        own, period, unit = (jnp.square(y).sum() for y in (x, by_period(x), by_unit(x)))
        return period - own, jnp.square(x.sum()) - period - unit + own

    (same, apart), (same_count, apart_count) = pairs(error), pairs(curve)
    some = 1e-6 * jnp.square(curve.sum())
    shock = jnp.where(same_count > some, same / jnp.maximum(same_count, 1e-20), 0.0)
    shock -= jnp.where(apart_count > some, apart / jnp.maximum(apart_count, 1e-20), 0.0)
    heard, lead = by_period(curve), by_period(design * curve[:, None])
    solved = jax.scipy.linalg.cho_solve(factor, lead.T)
    # What the regression takes of each period's mean.
    live, taken = (heard > 0).sum(), jnp.sum(lead.T * solved, axis=0)
    free = live - jnp.sum(taken / jnp.maximum(heard, 1e-20))
    return shock * live / jnp.maximum(free, 1) * solved @ solved.T


def pool(parts: Sequence[Start]) -> Start:
    """Join what was told of some members at a time, and average what is told of variances over all.

    The members' data are bootstraps of the same rows: no member knows more than another.
    """
    *by_outcome, spread = zip(*parts, strict=True)
    joined = Start(*(jnp.concatenate(x, axis=1) for x in by_outcome), spread=jnp.concatenate(spread))

    def average(value: Array, precision: Array) -> tuple[Array, Array]:
        told = precision.mean(1, keepdims=True)
        mean = (precision * value).mean(1, keepdims=True) / jnp.maximum(told, 1e-20)
        return jnp.broadcast_to(mean, value.shape), jnp.broadcast_to(told, value.shape)

    variance, precision = average(joined.variance, joined.precision)
    between, between_precision = average(joined.between, joined.between_precision)
    return joined._replace(variance=variance, precision=precision, between=between, between_precision=between_precision)


def begin(
    state: AdapterState,
    start: Start,
    data: AdapterData,
    *,
    cfg: AdapterConfig,
    draws: Float[Array, "members outcomes features actions"] | None = None,
) -> AdapterState:
    """Start additive adapters, leaves [outcomes * members, ..], with these effects, what of them depends on features
    at 0, and pull it as the prior says.

    Args:
        state, cfg: of the adapters.
        start, data: `pool` of what `regress` told, of these members; and their data.
        draws: standard normal; each member is then pulled to its own draw of the prior, not to 0. Members that differ
            by draws of the data as well are then draws of the posterior, roughly (randomised maximum a posteriori; Lu
            and Van Roy 2017): without, the spread of what is shrunk knows nothing of what was shrunk away.
    """
    tau = dict(state.params["tau"])
    tau["bias"] = start.effects.reshape(-1, start.effects.shape[-1]).astype(tau["bias"].dtype)
    # Losses are means over rows, so a prior counts as one row of many.
    rows = data.weights[0].sum(1)
    pull, centre = jnp.zeros_like(state.pull), jnp.zeros_like(state.centre)
    if cfg.effect_sd is not None:
        variance = slope_variance(start, cfg.effect_sd)
        pull = (2 * (start.noise / rows)[..., None] / variance).reshape(pull.shape)
        if draws is not None:
            moved = jnp.swapaxes(draws, 0, 1) * jnp.sqrt(variance)[:, :, None]
            centre = moved.reshape(centre.shape)
            # Each member starts at its draw, and its mean effect over rows at the regression's.
            mean = jnp.einsum("mr,mrf->mf", data.weights[0], data.features) / rows[:, None]
            tau["bias"] -= jnp.einsum("omfa,mf->oma", moved, mean).reshape(tau["bias"].shape)
            tau["kernel"] = centre
    return state._replace(params={**state.params, "tau": tau}, pull=pull, centre=centre)


def slope_variance(start: Start, effect_sd: float) -> Float[Array, "outcomes members actions"]:
    """Average the estimates with the first guess, whose variance is its square, by precision."""
    guess = jnp.square(effect_sd) / jnp.maximum(start.spread, 1e-12)[:, None]
    doubt = 1 / jnp.square(guess)
    mean = (start.precision * start.variance + doubt * guess) / (start.precision + doubt)
    return jnp.maximum(mean, LEAST * guess)


def unit_sd(start: Start, effect_sd: float | None) -> Float[Array, "outcomes actions"]:
    """Tell the standard deviation of effects between units, of one unit of each action as `regress` read it.

    It is the median of a posterior whose prior is half Cauchy with the first guess as its median (Gelman 2006), and
    whose likelihood is normal; without a guess, the root of the estimate.
    """
    told, precision = start.between.mean(1), start.between_precision.mean(1)
    if effect_sd is None:
        return jnp.sqrt(jnp.maximum(told, 0))
    # Even steps of the prior's own quantiles: its weights are equal.
    sd = effect_sd * jnp.tan(jnp.pi / 2 * (jnp.arange(GRID) + 0.5) / GRID)
    misfit = -0.5 * precision[..., None] * jnp.square(told[..., None] - jnp.square(sd))
    share = jnp.cumsum(jax.nn.softmax(misfit, axis=-1), axis=-1)
    return sd[jnp.argmax(share >= 0.5, axis=-1)]
