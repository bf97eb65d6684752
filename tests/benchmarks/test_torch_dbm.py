"""The peer does the same work: its inference is ours, its chains sample the machine, its updates learn."""

import numpy as np
import pytest

from benchmarks.torch_dbm import Machine
from tests.dbm import oracles
from wmjax.core.visible import Visible

torch = pytest.importorskip("torch")
SIZES = (6, 4, 3, 2)


@pytest.fixture
def pair():
    """The same machine here and there."""
    params = oracles.machine(SIZES, scale=0.6)
    peer = Machine(SIZES, rate=1e-3, decay=0.0, double=False, chains=512)
    for own, other in zip((*peer.weights, *peer.biases), (*params.weights, *params.biases), strict=True):
        own.copy_(torch.from_numpy(np.array(other)))
    return params, peer


def test_inference_is_sequential_mean_field(pair):
    params, peer = pair
    rows = np.random.default_rng(0).integers(0, 2, (5, SIZES[0])).astype(np.float32)
    for own, other in zip(
        peer.infer(torch.from_numpy(rows), 10), oracles.mean_field(params, rows, sweeps=10), strict=True
    ):
        np.testing.assert_allclose(own.numpy(), np.broadcast_to(other, own.shape), atol=1e-6)


def test_block_chains_sample_the_machine(pair):
    """512 chains, one look each after 200 steps: 15 means, false alarm below 1 in 10^4."""
    params, peer = pair
    peer.block(200)
    for own, truth in zip(peer.chains, oracles.means(params, Visible.bernoulli(SIZES[0])), strict=True):
        z = (own.numpy().mean(0) - truth) / np.sqrt(truth * (1 - truth) / 512)
        assert np.abs(z).max() < 4.5


@pytest.mark.parametrize("chains", ["block", "visible"])
def test_updates_learn_what_biases_cannot_say(pair, chains):
    """Rows of all zeros or all ones: without couplings each unit is a coin, and no row likelier than all coins."""
    params, peer = pair
    rows = torch.zeros((64, SIZES[0]))
    rows[::2] = 1.0
    before = oracles.log_likelihood(params, rows.numpy(), Visible.bernoulli(SIZES[0])).mean()
    for _ in range(400):
        peer.update(rows, chains=chains)
    arrays = [tuple(x.numpy().copy() for x in part) for part in (peer.weights, peer.biases)]
    after = oracles.log_likelihood(type(params)(*arrays), rows.numpy(), Visible.bernoulli(SIZES[0])).mean()
    assert after > before
    assert after > 0.9 * SIZES[0] * np.log(0.5)


def test_the_published_score_doubles_the_upper_gradient(pair):
    _, peer = pair
    peer.factor = Machine(SIZES, rate=1e-3, decay=0.0, double=True).factor
    rows = torch.zeros((8, SIZES[0]))
    data = peer.infer(rows, 10)
    chains = [chain.clone() for chain in peer.chains]
    peer.update(rows, chains="visible", steps=1)
    assert peer.factor == [1.0, 2.0, 2.0]
    model = peer.infer(peer.chains[0], 10)  # weights have moved by 1e-3 only
    for at, (factor, weight) in enumerate(zip(peer.factor, peer.weights, strict=True)):
        want = factor * (model[at].T @ model[at + 1] / len(chains[0]) - data[at].T @ data[at + 1] / len(rows))
        np.testing.assert_allclose(weight.grad.numpy(), want.numpy(), atol=0.01)
