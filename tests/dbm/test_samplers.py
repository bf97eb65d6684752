"""Three samplers, one truth: this library's block Gibbs, thrml's and scikit-learn's, against enumeration."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neural_network import BernoulliRBM

from tests.dbm import oracles
from wmjax.core.visible import Visible
from wmjax.dbm import conditional, gibbs, meanfield, scores

CHAINS, WARMUP, STEPS = 256, 50, 200
MACHINES = {
    **{
        f"{depth} hidden": (oracles.SIZES[depth], Visible.bernoulli(oracles.SIZES[depth][0])) for depth in oracles.SIZES
    },
    "mixed": ((6, 4, 3), oracles.MIXED),
}


def statistics(layers) -> jax.Array:
    """Flatten the units and the products of neighbouring layers: `[chains, statistics]`."""
    products = [jnp.einsum("ci,cj->cij", a, b) for a, b in itertools.pairwise(layers)]
    return jnp.concatenate([x.reshape(x.shape[0], -1) for x in (*layers, *products)], axis=1)


def truth(params, visible) -> tuple[np.ndarray, np.ndarray]:
    """Enumerate the statistics' expected values and the variance of one draw.

    A Gaussian unit stands at its conditional mean, so its variance, and the effective sample size made of it, are
    understated.
    """
    states = oracles.enumerate_states(params, visible)
    layers = np.split(states.x, oracles.flatten(params).cuts, axis=1)
    columns = [*layers, *(np.einsum("si,sj->sij", a, b).reshape(len(a), -1) for a, b in itertools.pairwise(layers))]
    table = np.concatenate(columns, axis=1)
    mean = states.probabilities @ table
    return mean, states.probabilities @ (table - mean) ** 2


@functools.partial(jax.jit, static_argnames="visible")
def time_averages(key, params, visible):
    layers = gibbs.init_layers(key, params, visible=visible, num_chains=CHAINS)

    def body(carry, step):
        layers, total = carry
        layers = gibbs.run(jax.random.fold_in(key, step), params, layers, visible=visible, num_steps=1)
        return (layers, total + (step >= WARMUP) * statistics(layers)), None

    total = jnp.zeros_like(statistics(layers))
    return jax.lax.scan(body, (layers, total), jnp.arange(WARMUP + STEPS))[0][1] / STEPS


@pytest.mark.parametrize("name", MACHINES)
def test_gibbs_marginals_and_products(name):
    """Every unit's mean and every product over a coupling has |z| < 5.

    256 chains' time averages are independent batches, so z has a t distribution of 255 degrees: two-sided false alarm
    1.1e-6 a statistic, 3e-4 for all of them (about 250). The gate: 2,000 effective draws of 51,200.
    """
    sizes, visible = MACHINES[name]
    params = oracles.machine(sizes)
    z, ess = oracles.chain_z(
        np.asarray(time_averages(jax.random.key(3), params, visible), np.float64), *truth(params, visible)
    )
    assert ess.min() > 2000
    assert np.abs(z).max() < 5


def spins(params):
    """Write a machine of bits as an Ising model: `x = (1 + s) / 2`, so W/4 a coupling and b/2 + sum W/4 a field."""
    fields = [np.asarray(b, np.float64) / 2 for b in params.biases]
    for level, weight in enumerate(params.weights):
        fields[level] = fields[level] + np.asarray(weight, np.float64).sum(1) / 4
        fields[level + 1] = fields[level + 1] + np.asarray(weight, np.float64).sum(0) / 4
    return fields, [np.asarray(w, np.float64) / 4 for w in params.weights]


def test_thrml_agrees_with_gibbs_and_enumeration():
    """The same machine (6-4-3-2) as an Ising model in thrml: all 15 means, |z| < 5 against the truth and each other.

    False alarm 1.1e-6 a statistic (256 independent chains), 5e-5 for 45 of them.
    """
    from thrml import Block, SamplingSchedule, SpinNode, sample_states
    from thrml.models import IsingEBM, IsingSamplingProgram

    params, visible = oracles.machine(oracles.SIZES[3]), Visible.bernoulli(6)
    fields, couplings = spins(params)
    nodes = [[SpinNode() for _ in field] for field in fields]
    flat = [node for layer in nodes for node in layer]
    edges = [edge for a, b in itertools.pairwise(nodes) for edge in itertools.product(a, b)]
    model = IsingEBM(
        flat,
        edges,
        jnp.asarray(np.concatenate(fields), jnp.float32),
        jnp.asarray(np.concatenate([c.ravel() for c in couplings]), jnp.float32),
        jnp.array(1.0),
    )
    colours = [Block(nodes[0] + nodes[2]), Block(nodes[1] + nodes[3])]
    program = IsingSamplingProgram(model, colours, clamped_blocks=[])
    schedule = SamplingSchedule(n_warmup=WARMUP, n_samples=STEPS, steps_per_sample=1)

    @jax.jit
    def chain(key):
        start = [jax.random.bernoulli(key, 0.5, (len(c.nodes),)) for c in colours]
        return sample_states(key, program, schedule, start, [], [Block(flat)])[0].mean(0)

    theirs = np.asarray(jax.vmap(chain)(jax.random.split(jax.random.key(11), CHAINS)), np.float64)
    ours = np.asarray(time_averages(jax.random.key(3), params, visible), np.float64)[:, :15]
    mean, variance = (x[:15] for x in truth(params, visible))
    z, ess = oracles.chain_z(theirs, mean, variance)
    assert ess.min() > 2000
    assert np.abs(z).max() < 5
    error = np.sqrt((theirs.var(0, ddof=1) + ours.var(0, ddof=1)) / CHAINS)
    assert np.abs((theirs.mean(0) - ours.mean(0)) / error).max() < 5


@pytest.fixture(scope="module")
def peer():
    """The machine 6-4 and scikit-learn's, holding the same parameters."""
    params = oracles.machine((6, 4))
    rbm = BernoulliRBM(n_components=4, random_state=0)
    rbm.components_ = np.asarray(params.weights[0], np.float64).T
    rbm.intercept_visible_, rbm.intercept_hidden_ = (np.asarray(b, np.float64) for b in params.biases)
    return params, rbm, oracles.bits(6)


def test_sklearn_free_energy_and_hidden_means(peer):
    params, rbm, rows = peer
    v = jnp.asarray(rows, jnp.float32)
    for kind in ("exact", "variational"):
        got = scores.score(params, v, visible=Visible.bernoulli(6), kind=kind)
        np.testing.assert_allclose(got, rbm._free_energy(rows), rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(meanfield.infer(params, v, sweeps=1)[0][1], rbm.transform(rows), atol=1e-6)


def test_sklearn_pseudo_likelihood_is_one_conditional_score(peer):
    """`score_samples` flips one unit drawn at random: it is minus six times that unit's conditional score."""
    params, rbm, rows = peer
    visible, v = Visible.bernoulli(6), jnp.asarray(rows, jnp.float32)
    theirs = rbm.score_samples(rows)
    drawn = np.random.RandomState(0).randint(0, 6, len(rows))
    score = jax.jit(
        lambda params, v, part: conditional.conditional(params, v, np.array(part), visible=visible, kind="exact"),
        static_argnames="part",
    )
    for unit in (1, 4):
        ours = score(params, v, tuple(i == unit for i in range(6)))
        at = drawn == unit
        assert at.sum() > 3
        np.testing.assert_allclose(-6 * ours[at], theirs[at], rtol=1e-5, atol=2e-5)


def test_sklearn_samples_agree_with_gibbs_and_enumeration(peer):
    """The visible means of 256 chains in both samplers: 18 statistics with |z| < 5, false alarm 2e-5."""
    params, rbm, _ = peer
    rbm.random_state_ = np.random.RandomState(4)
    v, total = rbm.random_state_.randint(0, 2, (CHAINS, 6)).astype(float), 0.0
    for step in range(WARMUP + STEPS):
        v = rbm.gibbs(v)
        total = total + (v if step >= WARMUP else 0.0)
    theirs = total / STEPS
    ours = np.asarray(time_averages(jax.random.key(3), params, Visible.bernoulli(6)), np.float64)[:, :6]
    mean, variance = (x[:6] for x in truth(params, Visible.bernoulli(6)))
    for samples in (theirs, ours):
        z, ess = oracles.chain_z(samples, mean, variance)
        assert ess.min() > 2000
        assert np.abs(z).max() < 5
    error = np.sqrt((theirs.var(0, ddof=1) + ours.var(0, ddof=1)) / CHAINS)
    assert np.abs((theirs.mean(0) - ours.mean(0)) / error).max() < 5
