"""What is believed of a channel's return before the data: any NumPyro distribution, as an object or in words.

In words it is the distribution's call, `Gamma(2.0, 1.0)` or `TruncatedNormal(1.0, 0.5, low=0.0)`: what a config file
holds and a command line takes. Its numbers are taken out of the words where a program is compiled, so that another
lift test compiles nothing.
"""

from __future__ import annotations

import ast
import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Family = Literal["normal", "lognormal", "halfnormal"]
HOLE = "_"
"""Stands for a number in the words of a compiled program's belief."""


@dataclass(frozen=True, kw_only=True)
class ROIPrior:
    """What is believed of a channel's return before the data: outcome for a unit of spend, over the train periods.

    Attributes:
        channel: the action's name.
        family: `normal(a, b)` with mean a and standard deviation b, as a lift test's estimate and standard error;
            `lognormal(a, b)` with mean and standard deviation of the log; `halfnormal(b)`.
        a, b: see `family`.
        density: in place of these three any NumPyro distribution of one number, or its call in words; kept as words.
    """

    channel: str
    family: Family = "normal"
    a: float = 0.0
    b: float = 1.0
    density: Any = ""

    def __post_init__(self) -> None:
        if not isinstance(self.density, str):
            object.__setattr__(self, "density", words(self.density))
        if self.density:
            if (self.family, self.a, self.b) != ("normal", 0.0, 1.0):
                raise ValueError(f"ROI prior of {self.channel!r}: give a density, or a family with a and b; not both")
            if HOLE not in _names(_call(self.density)):
                _check(self)
            return
        if self.family not in ("normal", "lognormal", "halfnormal"):
            raise ValueError(f"family is {self.family!r}, must be normal, lognormal or halfnormal")
        if not self.b > 0:
            raise ValueError(f"ROI prior of {self.channel!r}: b is {self.b}, must be positive")

    @property
    def call(self) -> str:
        """The distribution's call, in words."""
        if self.density:
            return str(self.density)
        numbers = (self.b,) if self.family == "halfnormal" else (self.a, self.b)
        return f"{self.family}({', '.join(repr(float(x)) for x in numbers)})"

    @property
    def numbers(self) -> tuple[float, ...]:
        """The numbers in the call, in order."""
        return tuple(_value(node) for node in _leaves(_call(self.call)))

    @property
    def form(self) -> ROIPrior:
        """The same belief with its numbers taken out: what a program is compiled for."""
        return replace(self, family="normal", a=0.0, b=1.0, density=_hollow(self.call))

    def distribution(self, numbers: Float[Array, " numbers"] | None = None) -> Any:
        """Give it as a NumPyro distribution.

        Args:
            numbers: what stands in the place of the call's own, in order; may be traced, and longer.
        """
        given = None if numbers is None else iter([numbers[i] for i in range(numbers.shape[0])])
        return _build(_call(self.call), given)


def log_density(belief: Any, value: Float[Array, ""]) -> Float[Array, ""]:
    """Give a distribution's log density, going on beyond its support as a normal one of its spread falls.

    A return may be where a belief has no density, a negative one under a log-normal: it is then pulled back.
    The density holds to a thousandth of the spread from the end of the support, or of the mass where that is nearer: a
    heavy tail spreads so widely that the first alone would cut half of the mass away.
    """
    low, high = (getattr(belief.support, end, None) for end in ("lower_bound", "upper_bound"))
    if low is None and high is None:
        return belief.log_prob(value)
    sd = _least(spread(belief), *(3 * _from(belief, 0.5, end) for end in (low, high)))
    above, below = (_least(1e-3 * sd, _from(belief, part, end)) for part, end in ((1e-3, low), (1 - 1e-3, high)))
    inside = jnp.clip(value, None if low is None else low + above, None if high is None else high - below)
    return belief.log_prob(inside) - 0.5 * jnp.square((value - inside) / sd)


def _from(belief: Any, part: float, end: Any) -> Float[Array, ""]:
    """Give how far the quantile of a part of the mass is from an end of the support; infinite where not known."""
    try:
        return jnp.full((), jnp.inf) if end is None else jnp.abs(belief.icdf(jnp.float32(part)) - end)
    except (NotImplementedError, ImportError):  # NumPyro has no quantiles of some, of others by a package not installed
        return jnp.full((), jnp.inf)


def _least(first: Float[Array, ""], *others: Float[Array, ""]) -> Float[Array, ""]:
    """Give the smallest; of the others only those above 0, as a quantile may round to the end."""
    for other in others:
        first = jnp.where(other > 0, jnp.minimum(first, other), first)
    return first


def spread(belief: Any) -> Float[Array, ""]:
    """Give a distribution's standard deviation; of one that knows none its base's, or 1."""
    try:
        found = jnp.sqrt(belief.variance)
    except NotImplementedError:  # NumPyro's: one that is made of another by a transform need not know its variance
        found = spread(belief.base_dist) if hasattr(belief, "base_dist") else jnp.ones(())
    return jnp.where(jnp.isfinite(found) & (found > 0), found, 1.0)


def moved(belief: Any, luck: Float[Array, ""], value: Float[Array, ""]) -> Float[Array, ""]:
    """Move a return against a draw of the belief's centre, `luck` standard deviations from its own.

    A log-normal one is moved by factors, one over all numbers by a sum; of others the centre stays.
    """
    from numpyro.distributions import LogNormal, constraints

    if isinstance(belief, LogNormal):
        return value * jnp.exp(-belief.scale * luck)
    return value - spread(belief) * luck if belief.support is constraints.real else value


def precision(belief: Any, value: Float[Array, ""]) -> Float[Array, ""]:
    """Give how sharply the belief is bent at a return, not below 0; a log-normal one as bent in the log."""
    from numpyro.distributions import LogNormal

    if isinstance(belief, LogNormal):
        return 1 / jnp.square(belief.scale * value)
    bend = jax.grad(jax.grad(lambda x: -log_density(belief, x)))(value)
    return jnp.maximum(bend, 0.0)


# ---- words ----------------------------------------------------------------------------------------------------------


def words(belief: Any) -> str:
    """Write a NumPyro distribution as its call.

    Raises:
        ValueError: what is no distribution, or one whose call cannot be told from it.
    """
    from numpyro.distributions import Distribution

    if not isinstance(belief, Distribution):
        raise ValueError(f"a belief is {belief!r}, must be a NumPyro distribution or its call in words")
    parts = []
    for name in inspect.signature(type(belief).__init__).parameters:
        if name in ("self", "validate_args", "kwargs"):
            continue
        if not hasattr(belief, name):
            raise ValueError(f"a {type(belief).__name__} cannot be written as its call: {name} is not kept")
        value = getattr(belief, name)
        told = words(value) if isinstance(value, Distribution) else repr(np.asarray(value, float).tolist())
        parts.append(f"{name}={told}")
    return f"{type(belief).__name__}({', '.join(parts)})"


def parse(told: str) -> ROIPrior:
    """Read `channel=Distribution(..)`, as the command line has it.

    Raises:
        ValueError: anything else.
    """
    channel, sign, call = told.partition("=")
    if not sign or not channel.strip() or not call.strip():
        raise ValueError(f"a belief is {told!r}, must read channel=Normal(estimate, standard error), or the like")
    return ROIPrior(channel=channel.strip(), density=call.strip())


def _call(told: str) -> ast.Call:
    try:
        tree = ast.parse(told.strip(), mode="eval").body
    except SyntaxError:
        tree = None
    if not isinstance(tree, ast.Call):
        raise ValueError(f"a belief is {told!r}, must read like Normal(2.0, 0.3)")
    return tree


def _leaves(node: ast.AST) -> Iterator[ast.AST]:
    """Walk over the numbers of a call, in the order in which they are written."""
    if isinstance(node, ast.Call):
        for child in (*node.args, *(k.value for k in node.keywords)):
            yield from _leaves(child)
    elif isinstance(node, ast.List | ast.Tuple):
        for child in node.elts:
            yield from _leaves(child)
    else:
        yield node


def _names(node: ast.Call) -> set[str]:
    return {leaf.id for leaf in _leaves(node) if isinstance(leaf, ast.Name)}


def _value(node: ast.AST) -> float:
    try:
        return float(ast.literal_eval(node))  # pyright: ignore[reportArgumentType]
    except (ValueError, TypeError):
        raise ValueError(f"a belief holds {ast.unparse(node)!r} where a number must stand") from None


def _hollow(told: str) -> str:
    class Hollow(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.AST:
            return ast.Name(HOLE, ast.Load())

        def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
            return ast.Name(HOLE, ast.Load())

    return ast.unparse(Hollow().visit(_call(told)))


def _build(node: ast.AST, given: Iterator[Any] | None) -> Any:
    if isinstance(node, ast.Call):
        make, names = _maker(node), [str(k.arg) for k in node.keywords]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"a belief is {ast.unparse(node)!r}, which gives {twice[0]} twice")
        args = [_build(child, given) for child in node.args]
        own = {name: _build(k.value, given) for name, k in zip(names, node.keywords, strict=True)}
        try:
            return make(*args, **own)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"a belief is {ast.unparse(node)!r}, which NumPyro does not take: {error}") from None
    if isinstance(node, ast.List | ast.Tuple):
        return jnp.stack([jnp.asarray(_build(child, given)) for child in node.elts])
    return _value(node) if given is None else next(given)


def _maker(node: ast.Call) -> Callable[..., Any]:
    """Find the distribution that a call names; the case of its letters does not matter."""
    import numpyro.distributions as dist

    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    known = {k.lower(): getattr(dist, k) for k in dist.__all__ if k[0].isupper()}
    if name.lower() not in known:
        raise ValueError(f"a belief names {ast.unparse(node.func)!r}, which is no distribution of NumPyro")
    return known[name.lower()]


def _check(prior: ROIPrior) -> None:
    """Refuse what is no density of one number; most numbers that it must not have NumPyro has refused."""
    from numpyro.distributions import biject_to

    # As a fit has them: arrays, which may be divided by 0.
    belief = prior.distribution(jnp.asarray(prior.numbers, jnp.float32))
    one = belief.batch_shape == () and belief.event_shape == ()
    if not one or belief.support.is_discrete:
        raise ValueError(
            f"ROI prior of {prior.channel!r}: must be a density of one number; got {type(belief).__name__}"
        )
    # Two points of the support, so that a point mass lies in one of them at most.
    for at in (-0.5, 0.5):
        point = biject_to(belief.support)(jnp.float32(at))
        with warnings.catch_warnings():  # of what is refused anyway
            warnings.simplefilter("ignore")
            told = jax.value_and_grad(partial(log_density, belief))(point)
        if not np.isfinite(told).all():
            raise ValueError(f"ROI prior of {prior.channel!r}: {prior.call} has no finite log density at {point:.3g}")
