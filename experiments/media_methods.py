"""What the media experiments ask, of which methods: fits, and one way to ask each of them and the simulator.

Every method answers `Found` for a panel and a window, by one definition of a counterfactual
(`wmjax.evaluate.attribution`).
"""

from __future__ import annotations

import dataclasses
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm

from wmjax.baselines import bayesian_mmm
from wmjax.baselines import media as regressions
from wmjax.baselines.bayesian_mmm import MMMSettings
from wmjax.baselines.media import MediaTable
from wmjax.core.errors import UserError
from wmjax.data.panel import Panel
from wmjax.data.splits import Split
from wmjax.evaluate import attribution
from wmjax.evaluate.attribution import Attribution, Window
from wmjax.simulate import media as simulated
from wmjax.simulate.media import MediaSim, MediaSimConfig
from wmjax.transformer.config import MMMConfig
from wmjax.transformer.losses import ROIPrior
from wmjax.worlds import media
from wmjax.worlds.media import model as pure
from wmjax.worlds.media import posterior, prepare, programs
from wmjax.worlds.media.config import MediaConfig

GRID = tuple(np.linspace(0, 2, 9))
SHIFT = 0.1
ALPHA = 0.1
SAMPLED = ("numpyro_mmm", "numpyro_mmm_errors")
FREE_STEPS = 5
"""Times as many updates for the published head, which starts from nothing: no curves are fitted before it learns."""


class Asked(NamedTuple):
    """A data set and what is asked of it."""

    sim: MediaSim
    panel: Panel
    split: Split
    over: Window
    cost: np.ndarray
    cfg: MediaSimConfig


class Found(NamedTuple):
    """A method's answers, of members or draws on an axis in front: roi and marginal [members, channels], curve
    [members, channels, grid], shift [members, channels, channels]; and outcome [units, time].
    """

    roi: np.ndarray
    marginal: np.ndarray
    curve: np.ndarray
    shift: np.ndarray
    outcome: np.ndarray


MANY_MEMBERS = 4
"""Times as many members of `media_many`."""
NOTHING = Found(*(np.zeros(0) for _ in range(5)))
"""For methods that are told nothing of the truth."""


@partial(jax.jit, static_argnames=("respond",))
def _whole(respond: Any, params: Any, context: Any, spend: jax.Array, over: Window) -> tuple[Attribution, Any, Any]:
    """Ask everything; `respond(member, context, spend)` is one object a method, so each is compiled once."""
    own = lambda p, x: respond(p, context, x)  # noqa: E731
    found = attribution.members(attribution.attribute, own, params, spend, over, jnp.asarray(GRID, jnp.float32))
    moved = attribution.members(attribution.shifts, own, params, spend, over, SHIFT)
    return found, moved, jax.lax.map(lambda p: own(p, spend), params).mean(0)


def answer(respond: Any, params: Any, context: Any, asked: Asked) -> Found:
    """Ask any model all questions, by one definition; `params` has an axis of members."""
    spend = jnp.asarray(asked.panel.arrays.actions)
    found, moved, outcome = (
        jax.tree.map(lambda x: np.asarray(x, np.float64), x)
        for x in _whole(respond, params, context, spend, asked.over)
    )
    roi, marginal = found.zero.sum(-1) / asked.cost, found.marginal.sum(-1) / asked.cost
    return Found(roi, marginal, found.curve.sum(-1), moved.sum(-1), outcome)


def _by_sizes(sizes: jax.Array, context: Any, spend: jax.Array) -> jax.Array:
    """Respond as the simulator, each channel's size multiplied."""
    without, truth, carry = context
    return without + simulated.combined(truth._replace(beta=truth.beta * sizes), spend, jnp, carry.shape[0])


def truth(asked: Asked) -> Found:
    """Ask the simulator."""
    # The carry-over is a shape, so that it is known when the program is compiled.
    context = (jnp.asarray(asked.sim.without, jnp.float32), asked.sim.truth, jnp.zeros(asked.cfg.carry))
    return answer(_by_sizes, jnp.ones((1, len(asked.cost))), context, asked)


@cache
def _by_world(cfg: MMMConfig) -> Any:
    return lambda member, history, spend: pure.respond(member, history, spend, 0, cfg=cfg)


@cache
def _by_draw(carry: int) -> Any:
    return lambda member, known, spend: bayesian_mmm.respond(member, spend, scale=known[0], top=known[1], carry=carry)


def _by_coefficients(beta: jax.Array, known: Any, spend: jax.Array) -> jax.Array:
    base, theta, half, carry = known
    lags = carry.shape[0]
    weights = theta ** jnp.arange(lags + 1)[:, None]
    padded = jnp.pad(spend, ((0, 0), (lags, 0), (0, 0)))
    parts = [weights[i] * padded[:, lags - i : padded.shape[1] - i] for i in range(lags + 1)]
    x = sum(parts[1:], parts[0]) / weights.sum(0)
    return base + jnp.where(jnp.isinf(half), x, x / (x + jnp.where(jnp.isinf(half), 1.0, half))) @ beta


def by_world(seed: int, asked: Asked, cfg: MediaConfig) -> Found:
    """Fit a media world and ask it."""
    world = media.fit(jax.random.key(seed), asked.panel, cfg, seed=seed)
    history = world.history(asked.panel)
    found = answer(_by_world(cfg.network), world.answering(history), history, asked)
    return found._replace(outcome=np.asarray(programs.predict(world.params, history, cfg=cfg.network)).mean(0))


def table_of(asked: Asked, cfg: MediaConfig) -> MediaTable:
    """Lay the panel out for the regressions, with the covariates that the world of this configuration sees."""
    arrays, train = asked.panel.arrays, asked.split.train
    x = prepare.covariates(asked.panel, cfg, prepare.fit_scales(asked.panel, train, cfg))
    own = arrays.mask & train
    return MediaTable(arrays.actions.astype(float), x, arrays.outcomes[..., 0].astype(float), own, cfg.network.carry)


def by_regression(fitted: regressions.Regression, asked: Asked) -> Found:
    """Ask a regression; normal draws of its coefficients stand for members where it knows their errors."""
    count = 1 if np.isnan(fitted.error).any() else 101
    # Quantiles of a normal in the place of draws: the interval is then exact.
    z = norm.ppf((np.arange(count) + 0.5) / count) if count > 1 else np.zeros(1)
    beta = fitted.beta + z[:, None] * np.where(np.isnan(fitted.error), 0, fitted.error)
    known = (fitted.base, fitted.theta, fitted.half, np.zeros(fitted.carry))
    context = tuple(jnp.asarray(x, jnp.float32) for x in known)
    return answer(_by_coefficients, jnp.asarray(beta, jnp.float32), context, asked)


def by_true_curves(asked: Asked, table: MediaTable) -> Found:
    """Regress on what each channel truly added: curves are known, sizes are not."""
    added = simulated.contributions(asked.sim, carry=asked.cfg.carry)
    if asked.cfg.synergy:
        raise ValueError("true_curves knows of no synergy")
    fitted = regressions.ols(table._replace(spend=added))
    sizes = fitted.beta + norm.ppf((np.arange(101) + 0.5) / 101)[:, None] * fitted.error
    context = (jnp.asarray(fitted.base, jnp.float32), asked.sim.truth, jnp.zeros(asked.cfg.carry))
    return answer(_by_sizes, jnp.asarray(sizes, jnp.float32), context, asked)


def by_sampler(
    seed: int, asked: Asked, world: MediaConfig, sampler: MMMSettings
) -> tuple[Found | None, dict[str, Any]]:
    """Sample the Bayesian model and ask 60 of its draws; a fit that it refuses to report from answers nothing."""
    fitted = bayesian_mmm.fit(jax.random.key(seed), table_of(asked, world), settings=sampler)
    told = {"rhat": fitted.rhat, "ess": fitted.ess, "divergent": fitted.divergent, "refused": ""}
    try:
        fitted.check(sampler)
    except UserError as error:
        return None, told | {"refused": str(error)}
    known = (jnp.asarray(fitted.scale, jnp.float32), jnp.asarray(fitted.spend_scale, jnp.float32))
    return answer(_by_draw(world.network.carry), bayesian_mmm.members(fitted, 60, settings=sampler), known, asked), told


def run_method(
    method: str, seed: int, asked: Asked, true: Found, cfg: MediaConfig, sampler: MMMSettings
) -> tuple[Found | None, dict[str, Any]]:
    """Fit and ask one method; None where it refuses to answer, and what it says of itself."""
    if method.startswith("media"):
        if method.endswith("_alpha0"):
            cfg = dataclasses.replace(cfg, alpha=0.0)
        if method == "media_many":
            cfg = dataclasses.replace(cfg, members=MANY_MEMBERS * cfg.settled(alone=True).members)
        if method == "media_logistic":
            cfg = dataclasses.replace(cfg, network=dataclasses.replace(cfg.network, saturation="logistic"))
        if method == "media_as_measured":
            cfg = dataclasses.replace(cfg, errors_in_variables=False)
        if method.startswith("media_free"):
            free = dataclasses.replace(cfg.network, head="free")
            cfg = dataclasses.replace(cfg, network=free, steps=FREE_STEPS * cfg.steps)
        if method == "media_priors":
            luck = np.random.default_rng(seed).normal(size=len(asked.cost))
            pairs = zip(asked.panel.action_names, true.roi[0] * (1 + 0.2 * luck), 0.2 * true.roi[0], strict=True)
            priors = tuple(ROIPrior(channel=c, a=float(a), b=float(b)) for c, a, b in pairs)
            cfg = dataclasses.replace(cfg, roi=priors)
        return by_world(seed, asked, cfg), {}
    if method in SAMPLED:
        world = dataclasses.replace(cfg, errors_in_variables=method == "numpyro_mmm_errors")
        return by_sampler(seed, asked, world, sampler)
    told = method in ("adstock_hill_errors", "true_curves")
    table = table_of(asked, dataclasses.replace(cfg, errors_in_variables=told))
    if method == "true_curves":
        return by_true_curves(asked, table), {}
    fitted = regressions.adstock_hill(table) if method.startswith("adstock_hill") else None
    return by_regression(fitted or regressions.ols(table, controls=method == "ols"), asked), {}


def interval(own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bound what is answered: by quantiles of draws, or by the spread of members, who are few; one has none."""
    _, lo, hi = posterior.told(own, ALPHA, drawn=len(own) > 10)
    return lo, hi
