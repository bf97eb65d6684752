"""A Bayesian media mix model in NumPyro: geometric carry-over, Hill curves, geo levels, linear covariates; NUTS.

    y_gt = level_g + covariates_gt . gamma + sum_k beta_k,g hill(adstock_k(spend)_gt) + N(0, sigma)
    beta_k,g = beta_k exp(tau z_k,g),   tau ~ HalfNormal(0.3),   beta_k ~ HalfNormal(2)
    theta_k ~ Beta(1, 3),   half_k ~ LogNormal(log typical_k, 0.7),   slope_k ~ LogNormal(0.1, 0.3)

on an outcome of unit variance within geos. ROI priors multiply the density (`numpyro.factor`). A fit whose chains did
not mix, or that met divergences, says so, and `Posterior.check` refuses its numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, Key
from numpyro.diagnostics import summary
from numpyro.infer import MCMC, NUTS

from wmjax.baselines.media import MediaTable
from wmjax.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class MMMSettings:
    """How it is sampled, and what is refused.

    Attributes:
        warmup, samples, chains: of NUTS; chains run side by side in one program.
        tree_depth: largest doubling of a trajectory.
        hierarchical: let each geo have its own effect sizes (with two geos or more).
        most_rhat, most_divergent: above this R-hat, or share of divergent draws, `Posterior.check` refuses.
    """

    warmup: int = 300
    samples: int = 300
    chains: int = 2
    tree_depth: int = 7
    hierarchical: bool = True
    most_rhat: float = 1.1
    most_divergent: float = 0.02


class Posterior(NamedTuple):
    """Draws, on the model's scale, and how they were got.

    curves: dict of [draws, channels]. geo: [draws, units, channels], factors on beta. base: [draws, units, time], the
    outcome without media. scale: of the outcome; spend_scale: [channels]. rhat: largest over parameters; ess: least.
    divergent: share of draws.
    """

    curves: dict[str, np.ndarray]
    geo: np.ndarray
    base: np.ndarray
    scale: float
    spend_scale: np.ndarray
    rhat: float
    ess: float
    divergent: float

    def check(self, settings: MMMSettings) -> None:
        """Refuse a fit that cannot be believed.

        Raises:
            UserError: with R-hat and the share of divergent draws.
        """
        if not (self.rhat <= settings.most_rhat and self.divergent <= settings.most_divergent):
            raise UserError(
                f"the sampler did not converge: largest R-hat {self.rhat:.3f} (at most {settings.most_rhat}), "
                f"{self.divergent:.1%} divergent draws (at most {settings.most_divergent:.0%}); sample longer"
            )


def _media(theta: Array, half: Array, slope: Array, spend: Array, carry: int) -> Array:
    """Transform scaled spend: `[units, time, channels]` in [0, 1)."""
    weights = theta ** jnp.arange(carry + 1)[:, None]
    weights = weights / weights.sum(0)
    padded = jnp.pad(spend, ((0, 0), (carry, 0), (0, 0)))
    time = spend.shape[1]
    x = jnp.stack([weights[lag] * padded[:, carry - lag : carry - lag + time] for lag in range(carry + 1)]).sum(0)
    # x = 0 would make the logarithm's gradient NaN.
    some = jnp.where(x > 0, x, 1.0)
    return jnp.where(x > 0, jax.nn.sigmoid(slope * (jnp.log(some) - jnp.log(half))), 0.0)


def model(data: dict[str, Array], *, carry: int, hierarchical: bool, roi: tuple[tuple[int, Any], ...]) -> None:
    sample: Any = numpyro.sample
    channels, units = data["spend"].shape[2], data["spend"].shape[0]
    theta = sample("theta", dist.Beta(1.0, 3.0).expand([channels]).to_event(1))
    half = sample("half", dist.LogNormal(jnp.log(data["typical"]), 0.7).to_event(1))
    slope = sample("slope", dist.LogNormal(0.1, 0.3).expand([channels]).to_event(1))
    beta = sample("beta", dist.HalfNormal(2.0).expand([channels]).to_event(1))
    sigma = sample("sigma", dist.HalfNormal(1.0))
    own = beta * jnp.ones((units, 1))
    if hierarchical:
        tau = sample("tau", dist.HalfNormal(0.3))
        z = sample("z", dist.Normal(0.0, 1.0).expand([units, channels]).to_event(2))
        own = beta * jnp.exp(tau * z)
    media = own[:, None] * _media(theta, half, slope, data["spend"], carry)
    weight = data["train"]
    left = (data["y"] - media.sum(-1)) * weight
    told = jnp.concatenate([left.sum(1), jnp.einsum("ut,utx->x", left, data["x"])])
    free = sample("free", dist.ImproperUniform(dist.constraints.real, (), data["wide"].shape))
    linear: Any = numpyro.deterministic("linear", data["root"] @ (data["root"].T @ told / data["noise"] + free))
    numpyro.factor("linear_prior", dist.Normal(0.0, data["wide"]).log_prob(linear).sum())
    level, gamma = linear[:units], linear[units:]
    mean = level[:, None] + data["x"] @ gamma + media.sum(-1)
    for at, prior in roi:
        returned = data["exchange"][at] * jnp.sum(media[..., at] * weight) / jnp.sum(data["spend"][..., at] * weight)
        numpyro.factor(f"roi_{at}", prior.log_prob(returned))
    with numpyro.handlers.mask(mask=weight > 0):
        sample("y", dist.Normal(mean, sigma), obs=data["y"])


def round_coordinates(x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Find coordinates in which levels and coefficients of covariates are about uncorrelated and of like size.

    Covariates such as seasons and the mean of other geos go together, and levels make up for what media are given: in
    their own coordinates a trajectory is short. `free` is how far they are from what they would be, were `root root'`
    their covariance, given the media. The model stays as it is: given the media the map is linear with a constant
    determinant, and the prior is put on what it gives.
    """
    units = len(rows)
    own = np.broadcast_to(np.eye(units)[:, None], (*rows.shape, units))
    z = np.concatenate([own, x], axis=-1)[rows]
    wide = np.concatenate([np.full(units, 2.0), np.ones(x.shape[-1])])
    exact = np.linalg.lstsq(z, y[rows], rcond=None)[0]
    # It sets coordinates, not the model: where columns fit every row it may not be 0.
    left = np.square(y[rows] - z @ exact).sum()
    noise = max(left / max(len(z) - z.shape[1], 1), 1e-2)
    precision = z.T @ z / noise + np.diag(1 / wide**2)
    return {"root": np.linalg.inv(np.linalg.cholesky(precision)).T, "noise": np.asarray(noise), "wide": wide}


def fit(
    key: Key[Array, ""], table: MediaTable, *, settings: MMMSettings, roi: tuple[tuple[int, Any], ...] = ()
) -> Posterior:
    """Sample the posterior.

    Args:
        key: typed key.
        table: rows and split.
        settings: of the sampler.
        roi: `(channel number, NumPyro distribution of its return)` pairs.
    """
    rows, units = table.train, len(table.spend)
    top = np.where(rows[..., None], table.spend, 0).max((0, 1))
    spend = table.spend / np.where(top > 0, top, 1.0)
    count = np.maximum(rows.sum(1, keepdims=True), 1)
    mean = np.where(rows, table.outcome, 0).sum(1, keepdims=True) / count
    scale = float(np.std((table.outcome - mean)[rows]))
    x = table.covariates.astype(np.float64)
    centre = x[rows].mean(0)
    x = (x - centre) / np.maximum(x[rows].std(0), 1e-9)
    some = np.where(rows[..., None], spend, 0)
    typical = some.sum((0, 1)) / np.maximum((some > 0).sum((0, 1)), 1)
    arrays = {
        "spend": spend,
        "x": x,
        "y": np.where(rows, (table.outcome - mean) / scale, 0),
        "train": rows.astype(float),
        "typical": typical,
        "exchange": scale / top,
    }
    arrays |= round_coordinates(x, arrays["y"], rows)
    data = {name: jnp.asarray(value, jnp.float32) for name, value in arrays.items()}
    hierarchical = settings.hierarchical and units > 1
    # A channel's size and curve go together: in a short range of spend half the effect at twice the half is the same.
    together: Any = [("beta", "half", "slope", "theta")]
    kernel = NUTS(model, max_tree_depth=settings.tree_depth, target_accept_prob=0.9, dense_mass=together)
    sampler = MCMC(
        kernel,
        num_warmup=settings.warmup,
        num_samples=settings.samples,
        num_chains=settings.chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    sampler.run(key, data, carry=table.carry, hierarchical=hierarchical, roi=roi, extra_fields=("diverging",))
    drawn = {k: np.asarray(v, np.float64) for k, v in sampler.get_samples().items()}
    told = summary(sampler.get_samples(group_by_chain=True))
    watched = [value for name, value in told.items() if name != "free"]
    base = drawn["linear"][:, :units, None] + np.einsum("utx,sx->sut", x, drawn["linear"][:, units:])
    geo = np.exp(drawn["tau"][:, None, None] * drawn["z"]) if hierarchical else np.ones((len(base), units, 1))
    return Posterior(
        curves={name: drawn[name] for name in ("theta", "half", "slope", "beta")},
        geo=geo,
        base=mean[None] + scale * base,
        scale=scale,
        spend_scale=top,
        rhat=float(np.nanmax([np.max(w["r_hat"]) for w in watched])),
        ess=float(np.min([np.min(w["n_eff"]) for w in watched])),
        divergent=float(np.mean(np.asarray(sampler.get_extra_fields()["diverging"]))),
    )


def members(posterior: Posterior, draws: int, *, settings: MMMSettings | None) -> dict[str, Array]:
    """Take an even choice of draws as what `respond` reads, one member a draw.

    Args:
        posterior: of `fit`.
        draws: how many.
        settings: what a fit is held to; None takes one that has not converged too.

    Raises:
        UserError: as `Posterior.check`.
    """
    if settings is not None:
        posterior.check(settings)
    at = np.linspace(0, len(posterior.base) - 1, draws).round().astype(int)
    parts = {**posterior.curves, "geo": posterior.geo, "base": posterior.base}
    return {name: jnp.asarray(value[at], jnp.float32) for name, value in parts.items()}


def respond(
    member: dict[str, Array],
    spend: Float[Array, "units time channels"],
    *,
    scale: Array | float,
    top: Array,
    carry: int,
) -> Float[Array, "units time"]:
    """Expect the outcome under another plan, by one draw."""
    media = _media(member["theta"], member["half"], member["slope"], spend / top, carry)
    return member["base"] + scale * jnp.einsum("utk,uk->ut", media, member["beta"] * member["geo"])
