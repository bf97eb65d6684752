"""Tumours under chemo- and radiotherapy, given by a policy that looks at their size (Geng et al. 2017).

    V_{t+1} = V_t (1 + rho ln(K / V_t) - beta_c C_t - (alpha d_t + beta d_t^2) + e_t),      e_t ~ N(0, 0.01^2)
    C_t     = C_{t-1} / 2 + 5 [chemo at t],   d_t = 2 [radio at t],   beta = alpha / 10,   K = volume of 30 cm
    P(chemo at t) = P(radio at t) = sigmoid(gamma / 13 (mean diameter of the last days - 13 / 2))

A patient dies at the volume of 13 cm and recovers with probability exp(-5.8e8 V). Volumes are cm^3, steps days. `gamma`
is how strongly treatment follows size. Treatments are coded 0 none, 1 chemo, 2 radio, 3 both.

The generators that published figures come from (Lim et al. 2018, Bica et al. 2020, Melnychuk et al. 2022) have quirks;
with `quirks` they are kept, without them test patients are treated by the train policy:
(i) the policy of test patient i looks at row i of the buffer of test rows, another patient's, cut off and zero-filled;
(ii) its window holds today's volume and those of 15 days before, the train policy's only the latter, so that nobody is
treated on the first train day. (That the treatment before the first day is none of the four is the encoder's affair.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from wmjax.core import bits
from wmjax.core.keys import key_for

STAGES = ((1.72, 4.70, 0.3, 5.0), (1.96, 1.63, 0.3, 13.0), (1.91, 9.40, 0.3, 13.0), (2.76, 6.87, 0.3, 13.0))
STAGES = (*STAGES, (3.86, 8.82, 0.3, 13.0))
"""Of stages I, II, IIIA, IIIB, IV: mean and standard deviation of the log of the diameter, and its bounds in cm."""
SEEN = (1432, 128, 1306, 7248, 12840)
"""Patients seen in each stage (Detterbeck and Gibson 2008)."""
ALPHA, RHO, CORRELATION = (0.0398, 0.168), (7e-5, 7.23e-3), 0.87
BETA_C = (0.028, 0.0007)
LONGEST = 13.0
TREATMENTS = 4
_TRIES = 64
_CELLS = 5.8e8
_ORDER = (0, 2, 1, 3)
"""The order in which a test row's other treatments are written."""


def volume_of(diameter: Array | float) -> Array | float:
    """Give a sphere's volume."""
    return math.pi / 6 * diameter**3


def diameter_of(volume: Array) -> Array:
    """Give a sphere's diameter; NaN for a negative volume."""
    return jnp.power(volume * (6 / math.pi), 1 / 3)


DEATH = float(volume_of(LONGEST))
CAPACITY = float(volume_of(30.0))


@dataclass(frozen=True, kw_only=True)
class TumourConfig:
    """What is simulated.

    Attributes:
        days: days of a patient at most, the first included.
        window: days that the policy looks back.
        horizon: days of a treatment plan.
        quirks: see the module.
    """

    days: int = 60
    window: int = 15
    horizon: int = 5
    quirks: bool = True

    def __post_init__(self) -> None:
        for name, least in (("days", 2), ("window", 1), ("horizon", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least {least}")


class Patients(NamedTuple):
    """Who they are: type (1, 2 or 3), first volume, and what growth and treatments do to them."""

    kind: Int[Array, " patients"]
    volume: Float[Array, " patients"]
    alpha: Float[Array, " patients"]
    rho: Float[Array, " patients"]
    beta_c: Float[Array, " patients"]


class Luck(NamedTuple):
    """All that is random but the patients: noise has `horizon` days more than the uniform draws."""

    noise: Float[Array, "patients long"]
    recovery: Float[Array, "patients days"]
    chemo: Float[Array, "patients days"]
    radio: Float[Array, "patients days"]


class Factual(NamedTuple):
    """What happened. Day 0 to day `length`, death or recovery included, are real; the days after hold zeros.

    `treatment[:, t]` works between the volumes of t and t + 1; it is real before `length`.
    """

    volume: Float[Array, "patients days"]
    treatment: Int[Array, "patients steps"]
    length: Int[Array, " patients"]


class History(NamedTuple):
    """A test patient: as `Factual`, with the chemo at work and what each of the four treatments would have led to.

    options: next day's volume, that of the treatment given within the bounds of life, the others as computed.
    """

    volume: Float[Array, "patients days"]
    treatment: Int[Array, "patients steps"]
    length: Int[Array, " patients"]
    dose: Float[Array, "patients steps"]
    options: Float[Array, "patients steps 4"]


class Plans(NamedTuple):
    """Test patients under treatment plans that begin a day after each origin t.

    plan: treatments of days t + 1, .. volume: of days t + 2, .. valid: rows that the published generator keeps.
    """

    history: History
    plan: Int[Array, "patients steps plans horizon"]
    volume: Float[Array, "patients steps plans horizon"]
    valid: Bool[Array, "patients steps plans"]


Act = Callable[[Array], History]
Write = Callable[[History], Array]


def patients(key: Key[Array, ""], count: int) -> Patients:
    """Draw patients: stage and size, type, growth and response; alpha and rho together, until both are positive."""
    seeds = bits.seeds(key_for(key, "patients"), (4,))
    u = bits.uniform(seeds[0], (3, count))
    share = jnp.cumsum(jnp.asarray(SEEN, jnp.float32)) / sum(SEEN)
    stage = (u[0] >= share[:-1, None]).sum(0)
    mean, sd, low, high = (x[stage] for x in jnp.asarray(STAGES, jnp.float32).T)
    # By inversion between the bounds.
    low, high = (jax.scipy.stats.norm.cdf((jnp.log(x) - mean) / sd) for x in (low, high))
    z = jax.scipy.special.ndtri(low + (high - low) * u[1])
    first, second = (bits.normal(seed, (count, _TRIES)) for seed in seeds[1:3])
    alpha = ALPHA[0] + ALPHA[1] * first
    rho = RHO[0] + RHO[1] * (CORRELATION * first + math.sqrt(1 - CORRELATION**2) * second)
    at = jnp.argmax((alpha > 0) & (rho > 0), axis=1)
    alpha, rho = (jnp.take_along_axis(x, at[:, None], 1)[:, 0] for x in (alpha, rho))
    kind = 1 + jnp.floor(3 * u[2]).astype(jnp.int32)
    # Its bound, 0, is forty standard deviations away.
    chemo = BETA_C[0] + BETA_C[1] * bits.normal(seeds[3], (count,))
    return Patients(
        kind=kind,
        volume=jnp.asarray(volume_of(jnp.exp(mean + sd * z))),
        alpha=alpha + jnp.where(kind == 1, 0.1 * ALPHA[0], 0.0),
        rho=rho,
        beta_c=chemo + jnp.where(kind == 3, 0.1 * BETA_C[0], 0.0),
    )


def luck(key: Key[Array, ""], count: int, *, cfg: TumourConfig) -> Luck:
    """Draw noise and the uniform numbers that decide on treatment and recovery."""
    seeds = bits.seeds(key_for(key, "luck"), (2,))
    noise = 0.01 * bits.normal(seeds[0], (count, cfg.days + cfg.horizon))
    return Luck(noise, *bits.uniform(seeds[1], (3, count, cfg.days)))


def factor(who: Patients, volume: Array, dose: Array, treatment: Array, noise: Array) -> Array:
    """Give tomorrow's volume over today's; trailing axes of the arguments after the first are the patients' own.

    Where the volume is not positive there is no growth, which `volume * factor` or the caller's mask hides.
    """
    own = Patients(*(x.reshape(x.shape + (1,) * (volume.ndim - 1)) for x in who))
    radio = 2.0 * (treatment >= 2)
    growth = own.rho * jnp.log(CAPACITY / jnp.where(volume > 0, volume, CAPACITY))
    return 1 + growth - own.beta_c * dose - own.alpha * (radio + 0.1 * radio**2) + noise


def chance(gamma: Array | float, diameter: Array) -> Array:
    """Give the probability of each of the two treatments."""
    return jax.nn.sigmoid(gamma / LONGEST * (diameter - LONGEST / 2))


def _treat(chosen: Luck, at: Array) -> Array:
    return (chosen.chemo < at).astype(jnp.int32) + 2 * (chosen.radio < at).astype(jnp.int32)


def _by_day(lucky: Luck, first: int, last: int) -> Luck:
    return jax.tree.map(lambda x: x[:, first:last].T, lucky)


def factual(who: Patients, lucky: Luck, gamma: Array | float, *, cfg: TumourConfig) -> Factual:
    """Treat train or validation patients by the policy, from day 1 on."""
    count = who.volume.shape[0]

    def step(carry: tuple, x: tuple) -> tuple[tuple, tuple]:
        volume, dose, treatment, window, alive = carry
        t, today = x
        after = volume * factor(who, volume, dose, treatment, today.noise)
        window = jnp.concatenate([diameter_of(volume)[None], window[:-1]])
        treatment = _treat(today, chance(gamma, window.sum(0) / jnp.minimum(t, cfg.window)))
        dose = dose / 2 + 5.0 * (treatment % 2)
        dies = after > DEATH
        recovers = ~dies & (today.recovery < jnp.exp(-jnp.maximum(after, 0.0) * _CELLS)) | (after <= 0)
        after = jnp.where(dies, DEATH, jnp.where(recovers, 0.0, after))
        told = (jnp.where(alive, after, 0.0), jnp.where(alive, treatment, 0), alive)
        return (after, dose, treatment, window, alive & ~dies & ~recovers), told

    start = jnp.zeros(count), jnp.zeros(count, jnp.int32), jnp.zeros((cfg.window, count)), jnp.ones(count, bool)
    xs = jnp.arange(1, cfg.days), _by_day(lucky, 1, cfg.days)
    _, (volume, treatment, alive) = lax.scan(step, (who.volume, *start), xs)
    volume = jnp.concatenate([who.volume[None], volume]).T
    treatment = jnp.concatenate([start[1][None], treatment[:-1]]).T
    return Factual(volume, treatment, alive.sum(0))


def history(
    who: Patients, lucky: Luck, gamma: Array | float, rows: Float[Array, "patients long"], *, cfg: TumourConfig
) -> History:
    """Treat test patients from day 0 on; with quirks the policy looks at `rows`, without at their own volumes."""
    count = who.volume.shape[0]
    if cfg.quirks:
        back = jnp.arange(cfg.days - 1)[:, None] - jnp.arange(cfg.window + 1)
        seen = jnp.where(back >= 0, diameter_of(rows)[:, jnp.maximum(back, 0)], 0.0).sum(-1) / (back >= 0).sum(-1)
        # When the first patient's first day comes, nothing is written yet.
        seen = seen.at[0, 0].set(0.0).T
    else:
        seen = jnp.zeros((cfg.days - 1, count))

    def step(carry: tuple, x: tuple) -> tuple[tuple, tuple]:
        volume, dose, window, alive = carry
        t, today, noise, seen = x
        if not cfg.quirks:
            seen = window.sum(0) / jnp.maximum(jnp.minimum(t, cfg.window), 1)
        at = chance(gamma, seen)
        treatment = _treat(today, at if cfg.quirks else jnp.where(t > 0, at, 0.0))
        codes = jnp.arange(TREATMENTS)
        doses = dose[:, None] / 2 + 5.0 * (codes % 2)
        options = volume[:, None] * factor(who, volume[:, None], doses, codes, noise[:, None])
        given = treatment[:, None] == codes
        after = jnp.clip((options * given).sum(1), 0.0, DEATH)
        options = jnp.where(given, after[:, None], options)
        dose = (doses * given).sum(1)
        window = jnp.concatenate([diameter_of(volume)[None], window[:-1]])
        ends = (after >= DEATH) | (today.recovery <= jnp.exp(-after * _CELLS))
        told = (jnp.where(alive, after, 0.0), jnp.where(alive, treatment, 0), dose, options, alive)
        return (after, dose, window, alive & ~ends), told

    start = jnp.zeros(count), jnp.zeros((cfg.window, count)), jnp.ones(count, bool)
    last = cfg.days - 1
    xs = jnp.arange(last), _by_day(lucky, 0, last), lucky.noise[:, 1 : cfg.days].T, seen
    _, (volume, treatment, dose, options, alive) = lax.scan(step, (who.volume, *start), xs)
    volume = jnp.concatenate([who.volume[None], volume]).T
    return History(volume, treatment.T, alive.sum(0), dose.T, jnp.moveaxis(options, 0, 1))


def project(who: Patients, lucky: Luck, found: History, plan: Array, *, cfg: TumourConfig) -> tuple[Array, Array]:
    """Follow each plan from each origin, beyond death where it leads there; a row is kept until a logarithm fails."""
    steps = cfg.days - 1
    days = jnp.arange(steps)[:, None] + 2 + jnp.arange(cfg.horizon)
    noise = jnp.moveaxis(lucky.noise[:, days], -1, 0)[..., None]

    def step(carry: tuple, x: tuple) -> tuple[tuple, Array]:
        volume, dose, valid = carry
        treatment, noise = x
        dose = dose / 2 + 5.0 * (treatment % 2)
        valid = valid & (volume >= 0)
        after = volume * factor(who, volume, dose, treatment, noise)
        return (after, dose, valid), after

    shape = plan.shape[:-1]
    alive = jnp.arange(steps) < found.length[:, None]
    start = (found.volume[:, 1:], found.dose, alive)
    start = tuple(jnp.broadcast_to(x[..., None], shape) for x in start)
    (_, _, valid), volume = lax.scan(step, start, (jnp.moveaxis(plan, -1, 0), noise))
    return jnp.moveaxis(volume, 0, -1), valid


def _place(valid: Array, count: int) -> tuple[Array, ...]:
    """Say which patient, origin and row of it are written as rows 0, 1, .. of the test buffer."""
    before = jnp.cumsum(valid.reshape(-1))
    at = jnp.minimum(jnp.searchsorted(before, jnp.arange(1, count + 1)), valid.size - 1)
    return jnp.unravel_index(at, valid.shape)


def _cut(found: History, who: Array, origin: Array, tail: Array, start: int) -> Array:
    """Write buffer rows: volumes up to the origin plus `start` days, then `tail`, then zeros."""
    length = found.volume.shape[1] + tail.shape[1]
    at = jnp.arange(length) - (origin + start + 1)[:, None]
    own = jnp.pad(found.volume[who], ((0, 0), (0, tail.shape[1])))
    new = jnp.take_along_axis(tail, jnp.clip(at, 0, tail.shape[1] - 1), 1)
    return jnp.where(at < 0, own, jnp.where(at < tail.shape[1], new, 0.0))


def _settle(first: History, act: Act, write: Write, count: int, long: int) -> History:
    """Find what all test patients do where each looks at a row that an earlier patient wrote.

    Each patient writes rows for four treatments or more, so each round makes right four times as many patients.
    """
    rounds = 5 + math.ceil(math.log(max(count, 2), 4))

    def again(_: Array, carry: tuple[Array, History]) -> tuple[Array, History]:
        found = act(carry[0])
        return write(found), found

    return lax.fori_loop(0, rounds, again, (jnp.zeros((count, long)), first))[1]


def one_step(who: Patients, lucky: Luck, gamma: Array | float, *, cfg: TumourConfig) -> History:
    """Treat test patients and say what all four treatments would have led to at every origin."""
    order, count = jnp.asarray(_ORDER), who.volume.shape[0]

    def write(found: History) -> Array:
        alive = jnp.arange(cfg.days - 1) < found.length[:, None]
        p, t, slot = _place(jnp.broadcast_to(alive[..., None], (*alive.shape, TREATMENTS)), count)
        given = found.treatment[p, t]
        # The treatment given is written first, the others in order.
        rank = jnp.argmax(order == given[:, None], axis=1)
        code = jnp.where(slot == 0, given, order[jnp.where(slot <= rank, slot - 1, slot)])
        return _cut(found, p, t, found.options[p, t, code][:, None], 0)

    return _treated(who, lucky, gamma, write, cfg, cfg.days + 1)


def sliding(cfg: TumourConfig) -> Int[Array, "plans horizon"]:
    """Plan one chemo, or one radio, on one of the days."""
    return jnp.concatenate([jnp.eye(cfg.horizon, dtype=jnp.int32) * code for code in (1, 2)])


def random_plans(key: Key[Array, ""], count: int, *, cfg: TumourConfig) -> Int[Array, "patients steps plans horizon"]:
    """Draw twice `horizon` plans for every origin."""
    shape = (count, cfg.days - 1, 2 * cfg.horizon, cfg.horizon)
    return jnp.floor(TREATMENTS * bits.uniform(bits.seeds(key), shape)).astype(jnp.int32)


def multi_step(who: Patients, lucky: Luck, gamma: Array | float, plan: Array, *, cfg: TumourConfig) -> Plans:
    """Treat test patients and follow plans from every origin, see `sliding` and `random_plans`."""
    shape = (who.volume.shape[0], cfg.days - 1, *plan.shape[-2:])
    plan = jnp.broadcast_to(plan, shape)

    def write(found: History) -> Array:
        volume, valid = project(who, lucky, found, plan, cfg=cfg)
        p, t, slot = _place(valid, shape[0])
        return _cut(found, p, t, volume[p, t, slot], 1)

    found = _treated(who, lucky, gamma, write, cfg, cfg.days + cfg.horizon)
    return Plans(found, plan, *project(who, lucky, found, plan, cfg=cfg))


def _treated(who: Patients, lucky: Luck, gamma: Array | float, write: Write, cfg: TumourConfig, long: int) -> History:
    count = who.volume.shape[0]
    act = partial(history, who, lucky, gamma, cfg=cfg)
    if not cfg.quirks:
        return act(jnp.zeros((count, long)))
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(act, jnp.zeros((count, long))))
    return _settle(blank, act, write, count, long)
