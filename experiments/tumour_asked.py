"""What members are asked about tumours: next days under every treatment, days under plans, and the errors.

All test patients of all data sets are one program; patients are taken in chunks, which bounds memory.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from experiments import tumour_fits
from experiments.tumour_fits import Data, Hyper, Scale, Series
from wmjax.core.keys import key_for
from wmjax.simulate import tumour
from wmjax.simulate.tumour import History, Patients, Plans, TumourConfig
from wmjax.transformer import ct, ct_rolling
from wmjax.transformer.ct import CTConfig


def all_options(params: Any, data: Series, scale: Scale, hyper: Hyper, *, cfg: CTConfig) -> Array:
    """Predict every next volume under every treatment: [patients, steps, treatments]."""
    phi = ct.encode(params, tumour_fits.inputs(data, scale), hyper.live, cfg=cfg)
    out = ct.outcomes(params, phi)
    return tumour_fits.predict(hyper, scale, data.volume[:, :-1, None], out) * scale.sd + scale.mean


def roll_out(params: Any, data: Series, plan: Array, scale: Scale, hyper: Hyper, *, cfg: CTConfig) -> Array:
    """Predict one patient's volumes under plans from every origin.

    Day t + 1 is predicted under the treatment that was given and fed back; day t + 1 + j under the plan's first j.

    Args:
        params: the encoder's.
        data: one patient, without an axis.
        plan: [origins, plans, horizon].
        scale, hyper: of one member.
        cfg: shape.

    Returns:
        Volumes of days t + 2, ..: [origins, plans, horizon].
    """
    given = tumour_fits.inputs(data, scale)
    phi = ct.encode(params, given, hyper.live, cfg=cfg)
    volume = data.volume[:-1]
    out = ct.outcome(params, phi, given.now)
    first = tumour_fits.predict(hyper, scale, volume, out) * scale.sd + scale.mean
    memory = ct_rolling.remember(params, given, hyper.live, cfg=cfg)
    plans, horizon = plan.shape[1:]

    def step(carry: tuple, x: tuple[Array, Array]) -> tuple[tuple, Array]:
        fresh, now, last, before = carry
        ahead, treatment = x
        treatment = jax.nn.one_hot(treatment, tumour.TREATMENTS)
        told = tumour_fits.features(now, last, before, scale)
        fresh, phi = ct_rolling.step(params, memory, fresh, ahead, before, told, data.static[None], hyper.live, cfg=cfg)
        out = ct.outcome(params, phi, treatment)
        after = tumour_fits.predict(hyper, scale, now, out) * scale.sd + scale.mean
        return (fresh, after, now, treatment), after

    shape = plan.shape[:2]
    before = jnp.broadcast_to(given.now[:, None], (*shape, tumour.TREATMENTS))
    start = (jnp.broadcast_to(first[:, None], shape), jnp.broadcast_to(volume[:, None], shape), before)
    xs = jnp.arange(1, horizon + 1), jnp.moveaxis(plan, -1, 0)
    _, found = jax.lax.scan(step, (ct_rolling.forget(memory, plans, horizon), *start), xs)
    return jnp.moveaxis(found, 0, -1)


class Asked(NamedTuple):
    """Patients of one data set and what is asked of them: next days under all treatments, or plans, with masks."""

    data: Series
    plan: Int[Array, "*m patients steps plans horizon"]
    volume: Float[Array, "*m patients steps *asked"]
    mask: Bool[Array, "*m patients steps *asked"]


Members = tuple[Any, Hyper]
"""Encoders and hyperparameters: [data sets, members]."""


def _mean_square(mix: Array, found: Array, some: Asked, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Sum the squared errors of averages of the members' predictions; masked rows may hold anything."""
    wrong = jnp.where(some.mask, jnp.square(jnp.einsum("qm,m...->q...", mix, found) - some.volume), 0.0)
    return wrong.sum(axes), some.mask.astype(jnp.float32).sum([a - 1 for a in axes])


@partial(jax.jit, static_argnames=("cfg", "chunk", "plans"))
def rmse(
    members: Members,
    mix: Float[Array, "methods members"],
    asked: Asked,
    scale: Scale,
    *,
    cfg: CTConfig,
    chunk: int,
    plans: bool,
) -> Float[Array, "sets methods *horizon"]:
    """Give root mean squared errors in cm^3: of next days, or of each day of plans.

    Args:
        members: see `Members`.
        mix: each row is a method, the weights of the members' predictions; masked-out infinities must not meet a 0.
        asked, scale: of every data set, on a leading axis.
        cfg: shape.
        chunk: patients at a time, which bounds memory.
        plans: roll plans out; otherwise the next day.
    """
    count = asked.volume.shape[1]
    if count % chunk:
        raise ValueError(f"{count} patients are not a multiple of chunk = {chunk}")

    def one_set(x: tuple[Members, Asked, Scale]) -> Array:
        own, asked, scale = x

        def one_chunk(some: Asked) -> tuple[Array, Array]:
            def one_member(params: Any, hyper: Hyper) -> Array:
                if not plans:
                    return all_options(params, some.data, scale, hyper, cfg=cfg)
                roll = lambda data, plan: roll_out(params, data, plan, scale, hyper, cfg=cfg)  # noqa: E731
                return jax.vmap(roll)(some.data, some.plan)

            return _mean_square(mix, jax.vmap(one_member)(*own), some, (1, 2, 3))

        chunks = jax.tree.map(lambda x: x.reshape(count // chunk, chunk, *x.shape[1:]), asked)
        wrong, total = jax.tree.map(lambda x: x.sum(0), jax.lax.map(one_chunk, chunks))
        return jnp.sqrt(wrong / total)

    with jax.default_matmul_precision("float32"):
        return jax.lax.map(one_set, (members, asked, scale))


def _no_plan(data: Series) -> Array:
    return jnp.zeros((*data.treatment.shape, 0, 0), jnp.int32)


def ask_next_day(data: Series) -> Asked:
    """Ask of patients the next day under the treatment that they had."""
    given = data.treatment[..., None] == jnp.arange(tumour.TREATMENTS)
    alive = jnp.arange(data.treatment.shape[-1]) < data.length[:, None]
    volume = jnp.broadcast_to(data.volume[:, 1:, None], given.shape)
    return Asked(data, _no_plan(data), volume, given & alive[..., None])


def ask_own_days(data: Series, *, cfg: TumourConfig) -> Asked:
    """Ask of patients the days that they had, from every origin; the other plans, there for the shape, do not count."""
    steps = data.treatment.shape[-1]
    days = jnp.arange(steps)[:, None] + 1 + jnp.arange(cfg.horizon)
    shape = (*data.treatment.shape, 2 * cfg.horizon, cfg.horizon)
    plan = data.treatment[:, jnp.minimum(days, steps - 1)]
    volume = data.volume[:, jnp.minimum(days + 1, steps)]
    mask = (days < data.length[:, None, None])[:, :, None] & (jnp.arange(shape[-2]) == 0)[:, None]
    plan, volume = (jnp.broadcast_to(x[:, :, None], shape) for x in (plan, volume))
    return Asked(data, plan, volume, mask)


def ask_options(who: Patients, found: History, scale: Scale) -> Asked:
    """Ask of test patients the next day under all treatments, at every origin."""
    data = tumour_fits.series(who, found, scale)
    alive = jnp.arange(found.treatment.shape[-1]) < found.length[:, None]
    return Asked(data, _no_plan(data), found.options, jnp.broadcast_to(alive[..., None], found.options.shape))


def ask_plans(who: Patients, found: Plans, scale: Scale) -> Asked:
    """Ask of test patients the days under every plan, from every origin."""
    mask = jnp.broadcast_to(found.valid[..., None], found.volume.shape)
    return Asked(tumour_fits.series(who, found.history, scale), found.plan, found.volume, mask)


class Study(NamedTuple):
    """All that one confounding's members need; every leaf has a leading axis of data sets."""

    data: Data
    val_next: Asked
    val_days: Asked
    options: Asked
    sliding: Asked
    random: Asked


@partial(jax.jit, static_argnames=("train", "val", "test", "cfg"))
def simulate(
    keys: Key[Array, " sets"], gamma: Array | float, *, train: int, val: int, test: int, cfg: TumourConfig
) -> Study:
    """Draw train, validation and three sets of test patients for every key, all on the device."""

    counts = (train, val, test, test, test)
    ends = [sum(counts[: at + 1]) for at in range(len(counts))]

    def one(key: Key[Array, ""]) -> Study:
        # All patients and all luck are drawn at once: each program of random numbers takes long to compile.
        everyone = tumour.patients(key_for(key, "patients"), ends[-1])
        drawn = everyone, tumour.luck(key_for(key, "luck"), ends[-1], cfg=cfg)
        part = lambda a, b: jax.tree.map(lambda x: x[a:b], drawn)  # noqa: E731
        who, lucky = part(0, ends[1])
        found = tumour.factual(who, lucky, gamma, cfg=cfg)
        split = [jax.tree.map(lambda x, a=a, b=b: x[a:b], (who, found)) for a, b in ((0, train), (train, ends[1]))]
        scale = tumour_fits.scale_of(*split[0])
        own, seen = (tumour_fits.series(x[0], x[1], scale) for x in split)
        who, lucky = part(ends[1], ends[2])
        options = ask_options(who, tumour.one_step(who, lucky, gamma, cfg=cfg), scale)
        plan = tumour.random_plans(key_for(key, "plans"), test, cfg=cfg)
        plans = jnp.stack([jnp.broadcast_to(tumour.sliding(cfg), plan.shape), plan])
        who, lucky = jax.tree.map(lambda x: x.reshape(2, test, *x.shape[1:]), part(ends[2], ends[4]))
        found = jax.vmap(lambda w, u, p: tumour.multi_step(w, u, gamma, p, cfg=cfg))(who, lucky, plans)
        both = jax.vmap(lambda w, f: ask_plans(w, f, scale))(who, found)
        sliding, random = (jax.tree.map(lambda x, i=i: x[i], both) for i in range(2))
        return Study(Data(own, scale), ask_next_day(seen), ask_own_days(seen, cfg=cfg), options, sliding, random)

    return jax.vmap(one)(keys)
