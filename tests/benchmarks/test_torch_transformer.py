"""The peer of a training step computes the network that ours does, and learns as ours does."""

import jax
import numpy as np
import pytest

from benchmarks import torch_transformer, transformer_step
from wmjax.transformer import network
from wmjax.transformer.config import MMMConfig

torch = pytest.importorskip("torch")


def test_forward_and_gradient_are_ours():
    cfg = MMMConfig(width=8, heads=2, blocks=2, feed_forward=12, frequencies=3, code=4, representation=6, head_units=5)
    params, series, known = transformer_step.problem(cfg, 3, 9)
    # Far from a start at which rows and columns, or streams, could be mistaken for each other.
    noise = np.random.default_rng(1)
    params = jax.tree.map(lambda x: x + 0.3 * noise.normal(size=x.shape).astype(np.float32), params)

    def loss(own):
        found = network.apply(own, series, known, cfg=cfg).outcome
        return ((found - series.outcome) ** 2).mean(), found

    (_, want), slopes = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    peer = torch_transformer.Network(params, series, np.asarray(known.code), cfg)
    got = peer.forward()
    np.testing.assert_allclose(got.detach().numpy(), want, rtol=2e-3, atol=2e-4)
    torch.mean((got - peer.data[2]) ** 2).backward()
    for leaf, slope in zip(peer.leaves, jax.tree.leaves(slopes), strict=True):
        np.testing.assert_allclose(leaf.grad.numpy(), slope, rtol=2e-2, atol=2e-4)
