"""Long memory: each unit's own level and responsiveness, filtered from all that was seen of it.

A head on features that know nothing of the distant past (a belief, or bits) adds two latent traits a unit. For unit i
at time t with features x, actions a and unit features m,

    logit P(y = 1) = bias + base . x + effects . a + ((effects tied) . a) (moderators . m + r_i) + l_i,
    (l_i, r_i) ~ N(0, covariance).

Tied actions' effects are scaled by one responsiveness, so that what a unit showed under one action speaks for the
others, in proportion to what they do on average; an action without an effect says nothing. An action that the features
determine (a sale that is a matter of the month) is not tied: its effect cannot be told from theirs, it could take any
size, and the responsiveness would follow whatever moves with it. The population's numbers are fitted with the traits
by penalised quasi-likelihood (Breslow and Clayton 1993), the covariance by EM (empirical Bayes), and a new period
updates a unit's posterior in closed form (extended Kalman filter). Effects are linear in the traits: they come on the
logit scale with a variance, and by draws on any other. Where a unit was seen for few periods, penalised
quasi-likelihood takes the spread of traits for smaller than it is: intervals are narrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid
from jaxtyping import Array, Bool, Float, Key

Table = Float[Array, "units times"]
SHORTEST = 2.0**-10
"""Share of a Newton step down to which it is halved; then none is taken."""


class TraitParams(NamedTuple):
    """What holds for the population.

    bias: []. base: [features]. effects: [actions], on the logit scale; effects_variance: [actions], what the data leave
    open in them. tied: [actions], 1 where responsiveness scales the effect. moderators: [moderators], relative change
    of responsiveness, of variance moderator_variance [].
    covariance: [2, 2] of level (logits) and responsiveness (relative).
    """

    bias: Array
    base: Array
    effects: Array
    effects_variance: Array
    tied: Array
    moderators: Array
    moderator_variance: Array
    covariance: Array


class TraitState(NamedTuple):
    """What is believed of each unit: mean [units, 2] of (level, responsiveness) and precision [units, 2, 2]."""

    mean: Array
    precision: Array


class TraitData(NamedTuple):
    """A panel: features [units, times, f], actions [units, times, a], moderators [units, m], outcomes and seen
    [units, times]; periods that were not seen teach nothing.
    """

    features: Array
    actions: Array
    moderators: Array
    outcomes: Array
    seen: Array


@dataclass(frozen=True, kw_only=True)
class TraitConfig:
    """How the population is fitted.

    Attributes:
        rounds: of fitting the population with the traits, and one step of EM for their covariance, in turn. Where
            units say little of a trait, its spread stays near where it began; taken to its end, EM on a
            quasi-likelihood makes it too small (Breslow and Lin 1995), and intervals with it.
        newton: Newton steps of the population and the traits in each round.
        ridge: precision of the prior of `base` and `effects` (in logits a unit of a feature or action): where features
            and an action say the same, they share what it does.
        moderator_sd: standard deviation of the moderators' coefficients before the first round; 0 leaves them out.
        unexplained: share of an action's variance that features must leave unexplained, or it is not tied.
        start_sd: of level and of responsiveness, before the first round.
    """

    rounds: int = 20
    newton: int = 1
    ridge: float = 1.0
    moderator_sd: float = 0.1
    unexplained: float = 1e-3
    start_sd: tuple[float, float] = (0.3, 0.3)

    def __post_init__(self) -> None:
        for name in ("rounds", "newton"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.ridge < 0 or self.moderator_sd < 0:
            raise ValueError(f"ridge {self.ridge} and moderator_sd {self.moderator_sd} must not be negative")
        if not all(sd > 0 for sd in self.start_sd):
            raise ValueError(f"start_sd is {self.start_sd}, must be positive")


def begin(params: TraitParams, num_units: int) -> TraitState:
    """Believe of every unit what is true of the population."""
    precision = jnp.linalg.inv(params.covariance)
    return TraitState(jnp.zeros((num_units, 2)), jnp.broadcast_to(precision, (num_units, 2, 2)))


def offset(params: TraitParams, features: Float[Array, "*rows f"]) -> Float[Array, "*rows"]:
    """Log odds before actions and traits."""
    return params.bias + features @ params.base


def push(params: TraitParams, actions: Float[Array, "*rows a"]) -> Float[Array, "*rows"]:
    """What the tied actions do to a unit of average responsiveness, in logits."""
    return actions @ (params.effects * params.tied)


def logits(
    params: TraitParams,
    state: TraitState,
    features: Float[Array, "units f"],
    actions: Float[Array, "units a"],
    moderators: Float[Array, "units m"],
) -> Float[Array, " units"]:
    """Log odds of each unit in one period, at the posterior mean of its traits."""
    more = moderators @ params.moderators + state.mean[:, 1]
    return offset(params, features) + actions @ params.effects + push(params, actions) * more + state.mean[:, 0]


def effect(
    params: TraitParams, state: TraitState, moderators: Float[Array, "units m"], *, action: int
) -> tuple[Float[Array, " units"], Float[Array, " units"]]:
    """Give the effect of one more unit of an action on each unit's log odds: posterior mean and standard deviation.

    The deviation is that of the unit's responsiveness and of the population's effect, to first order.
    """
    mean, tied = params.effects[action], params.tied[action]
    scale = 1 + tied * (moderators @ params.moderators + state.mean[:, 1])
    own = jnp.square(mean * tied) * jnp.linalg.inv(state.precision)[:, 1, 1]
    return mean * scale, jnp.sqrt(own + jnp.square(scale) * params.effects_variance[action])


def draws(key: Key[Array, ""], state: TraitState, count: int) -> Float[Array, "count units 2"]:
    """Draw (level, responsiveness) of every unit from its posterior."""
    root = jnp.linalg.cholesky(jnp.linalg.inv(state.precision))
    noise = jax.random.normal(key, (count, *state.mean.shape))
    return state.mean + jnp.einsum("uij,cuj->cui", root, noise)


def update(
    params: TraitParams,
    state: TraitState,
    features: Float[Array, "units f"],
    actions: Float[Array, "units a"],
    moderators: Float[Array, "units m"],
    outcomes: Float[Array, " units"],
    seen: Bool[Array, " units"],
) -> TraitState:
    """Learn of each unit from one more period; units that were not seen stay as they are."""
    chance = sigmoid(logits(params, state, features, actions, moderators))
    reach = jnp.stack([jnp.ones_like(chance), push(params, actions)], axis=-1) * seen[:, None]
    precision = state.precision + (chance * (1 - chance))[:, None, None] * reach[:, :, None] * reach[:, None, :]
    gain = jnp.linalg.solve(precision, (reach * (outcomes - chance)[:, None])[..., None])[..., 0]
    return TraitState(state.mean + gain, precision)


def replay(params: TraitParams, data: TraitData, start: TraitState | None = None) -> tuple[TraitState, TraitState]:
    """Run the filter over a panel.

    Returns:
        The belief before each period (leading axis of times), and the belief after the last.
    """
    first = begin(params, data.outcomes.shape[0]) if start is None else start

    def step(state: TraitState, now: tuple[Array, ...]) -> tuple[TraitState, TraitState]:
        features, actions, outcomes, seen = now
        return update(params, state, features, actions, data.moderators, outcomes, seen), state

    by_time = jax.tree.map(
        lambda x: jnp.swapaxes(x, 0, 1), (data.features, data.actions, data.outcomes, data.seen.astype(bool))
    )
    last, before = jax.lax.scan(step, first, by_time)
    return before, last


def fit(
    data: TraitData, weights: Float[Array, " units"] | None = None, *, cfg: TraitConfig
) -> tuple[TraitParams, TraitState]:
    """Fit the population and every unit's traits on the periods that were seen.

    Args:
        data: the panel.
        weights: how many units each stands for in the population, as a bootstrap of units has it; one if not given.
        cfg: how.

    Returns:
        The population, and what all periods together say of each unit.
    """
    units, _, width = data.features.shape
    weights = jnp.ones(units) if weights is None else weights
    own = data.seen.astype(jnp.float32)
    # The population counts a unit as often as it weighs; what a unit shows of itself is its own.
    seen = own * weights[:, None]
    rate = (data.outcomes * seen).sum() / seen.sum()
    params = TraitParams(
        bias=jnp.log(rate) - jnp.log1p(-rate),
        base=jnp.zeros(width),
        effects=jnp.zeros(data.actions.shape[-1]),
        effects_variance=jnp.zeros(data.actions.shape[-1]),
        tied=(unexplained(data._replace(seen=seen)) > cfg.unexplained).astype(jnp.float32),
        moderator_variance=jnp.asarray(cfg.moderator_sd**2, jnp.float32),
        moderators=jnp.zeros(data.moderators.shape[-1]),
        covariance=jnp.diag(jnp.square(jnp.asarray(cfg.start_sd))),
    )

    def step(_: Any, both: tuple[TraitParams, TraitState]) -> tuple[TraitParams, TraitState]:
        params, state = both
        return _together(params, state, data, own, weights, cfg)

    def round_(carry: tuple[TraitParams, TraitState], _: Any) -> tuple[tuple[TraitParams, TraitState], None]:
        params, state = jax.lax.fori_loop(0, cfg.newton, step, carry)
        if cfg.moderator_sd > 0 and data.moderators.shape[-1]:
            params = _moderators(params, state, data, own, weights)
        spread = jnp.linalg.inv(state.precision) + state.mean[:, :, None] * state.mean[:, None, :]
        return (params._replace(covariance=jnp.average(spread, 0, weights)), state), None

    (params, state), _ = jax.lax.scan(round_, (params, begin(params, units)), None, length=cfg.rounds)
    return params, state


def unexplained(data: TraitData) -> Float[Array, " actions"]:
    """Share of each action's variance, over the rows seen, that a linear function of the features leaves."""
    width, seen = data.features.shape[-1], data.seen.astype(jnp.float32)[..., None]
    rows = seen.sum()
    centre = lambda x: ((x - (x * seen).sum((0, 1)) / rows) * jnp.sqrt(seen)).reshape(-1, x.shape[-1])  # noqa: E731
    features, actions = centre(data.features), centre(data.actions)
    gram = features.T @ features / rows + 1e-6 * jnp.eye(width)
    cross = features.T @ actions / rows
    variance = jnp.square(actions).sum(0) / rows
    left = variance - (cross * jnp.linalg.solve(gram, cross)).sum(0)
    return jnp.where(variance > 0, left / jnp.where(variance > 0, variance, 1), 0.0)


def _parts(params: TraitParams, state: TraitState, data: TraitData) -> tuple[Array, Array, Array]:
    """Responsiveness over 1 [units, 1], tied actions' push and the chance of the outcome [units, times]."""
    more = (data.moderators @ params.moderators + state.mean[:, 1])[:, None]
    strength = push(params, data.actions)
    known = offset(params, data.features) + data.actions @ params.effects
    return more, strength, sigmoid(known + strength * more + state.mean[:, :1])


def _together(
    params: TraitParams,
    state: TraitState,
    data: TraitData,
    seen: Table,
    weights: Float[Array, " units"],
    cfg: TraitConfig,
) -> tuple[TraitParams, TraitState]:
    """One Newton step of the population and of every unit's traits at once; shorter where a whole one would lose.

    In turn they would take many rounds: a unit's level says what a feature of it says. The traits are eliminated unit
    by unit, so a step costs no more than one of the population alone. With a rare outcome a whole step can go so far
    that all chances are 0 or 1, from where none leads back.
    """
    more, strength, chance = _parts(params, state, data)
    ones = jnp.ones((*seen.shape, 1))
    design = jnp.concatenate([ones, data.features, data.actions * (1 + params.tied * more[..., None])], axis=-1)
    reach = jnp.stack([jnp.ones_like(strength), strength], axis=-1)
    prior, width = jnp.linalg.inv(params.covariance), params.base.shape[0]
    ridge = jnp.concatenate([jnp.zeros(1), jnp.full(width + params.effects.shape[0], cfg.ridge)])
    at = jnp.concatenate([params.bias[None], params.base, params.effects])
    off, slope = (data.outcomes - chance) * seen, chance * (1 - chance) * seen

    rows, counted = design.reshape(-1, design.shape[-1]), weights[:, None]
    hessian = (rows * (slope * counted).reshape(-1, 1)).T @ rows + jnp.diag(ridge) + 1e-6 * jnp.eye(rows.shape[1])
    score = rows.T @ (off * counted).reshape(-1) - ridge * at
    precision = prior + jnp.einsum("uti,utj,ut->uij", reach, reach, slope)
    pull = jnp.einsum("uti,ut->ui", reach, off) - state.mean @ prior
    across = jnp.einsum("utp,uti->upi", design * slope[..., None], reach)
    solved = jnp.linalg.solve(precision, jnp.swapaxes(across, 1, 2))  # [units, 2, p]
    hessian = hessian - jnp.einsum("upi,uiq,u->pq", across, solved, weights)
    move = jnp.linalg.solve(hessian, score - jnp.einsum("uip,ui,u->p", solved, pull, weights))
    shift = jnp.linalg.solve(precision, pull[..., None])[..., 0] - solved @ move

    eta, along = design @ at + state.mean[:, :1], design @ move
    turn = jnp.einsum("uti,ui->ut", reach, shift)
    # Effects and responsiveness multiply, so a step in both bends.
    bend = (data.actions @ (params.tied * move[1 + width :])) * shift[:, 1:]

    def likelihood(step: Array) -> Array:
        mean = state.mean + step * shift
        now = eta + step * (along + turn) + jnp.square(step) * bend
        rows = jnp.where(seen > 0, counted * (data.outcomes * now - jax.nn.softplus(now)), 0.0).sum()
        own = (weights * jnp.einsum("ui,ij,uj->u", mean, prior, mean)).sum()
        return rows - 0.5 * (own + (ridge * jnp.square(at + step * move)).sum())

    now = likelihood(jnp.zeros(()))
    # Less than rounding is no loss: near the end a whole step changes nothing that float32 could tell.
    least = now - 1e-6 * jnp.abs(now)
    # A likelihood that is NaN does not hold.
    step = jax.lax.while_loop(lambda s: (s > SHORTEST) & ~(likelihood(s) >= least), lambda s: s / 2, jnp.ones(()))
    step = jnp.where(step > SHORTEST, step, 0.0)
    at, mean = (jnp.where(step > 0, old + step * change, old) for old, change in ((at, move), (state.mean, shift)))
    variance = jnp.diag(jnp.linalg.inv(hessian))[1 + width :]
    fitted = {"bias": at[0], "base": at[1 : 1 + width], "effects": at[1 + width :], "effects_variance": variance}
    return params._replace(**fitted), TraitState(mean, precision)


def _moderators(
    params: TraitParams, state: TraitState, data: TraitData, seen: Table, weights: Float[Array, " units"]
) -> TraitParams:
    """One Newton step of the moderators, all else held; the traits keep what moderators do not explain.

    Their variance follows by EM, as the traits' does.
    """
    _, strength, chance = _parts(params, state, data)
    # A unit's moderators do not change, so its rows are summed before any outer product is taken.
    weight = (jnp.square(strength) * chance * (1 - chance) * seen).sum(1)
    score = (strength * (data.outcomes - chance) * seen).sum(1)
    # Alone, a unit would put its responsiveness at mean + score / weight, with variance 1 / weight; around what its
    # moderators say it has the population's variance besides.
    shrunk = 1 + weight * params.covariance[1, 1]
    m, precision = data.moderators, 1 / params.moderator_variance
    hessian = (m * (weights * weight / shrunk)[:, None]).T @ m + precision * jnp.eye(m.shape[1])
    pinned = weights * (weight * state.mean[:, 1] + score) / shrunk
    at = params.moderators + jnp.linalg.solve(hessian, m.T @ pinned - precision * params.moderators)
    spread = (jnp.square(at) + jnp.diag(jnp.linalg.inv(hessian))).mean()
    return params._replace(moderators=at, moderator_variance=spread)
