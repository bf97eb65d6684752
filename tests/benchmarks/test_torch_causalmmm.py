"""The peer does the same work: its loss, gradients and running statistics are ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.torch_causalmmm import Network, epoch
from wmjax.graph import causalmmm
from wmjax.graph.causalmmm import CausalMMMConfig
from wmjax.graph.series import Batch

torch = pytest.importorskip("torch")
CFG = CausalMMMConfig(quirks=True, hidden=6, horizon=4, variance=0.5)
NODES, TIMES = 4, 9


def start():
    params = causalmmm.init(jax.random.key(0), cfg=CFG, num_nodes=NODES, num_times=TIMES)
    return params, np.asarray(jax.random.normal(jax.random.key(1), (2, TIMES, NODES)))


def test_loss_gradients_and_statistics_are_ours():
    params, values = start()
    context = jnp.array([[0.3, -0.2]])
    batch = Batch(jnp.asarray(values[:1]), jnp.zeros((1, NODES, NODES)), context)
    key = jax.random.key(2)

    def ours(p):
        return causalmmm.loss(key, p, causalmmm.init_stats(cfg=CFG), batch, jnp.zeros(()), cfg=CFG, training=True)

    (want, (_, stats)), slopes = jax.value_and_grad(ours, has_aux=True)(params)
    noise = np.asarray(causalmmm._gumbel(key, (1, NODES, NODES, 2)))[0][~np.eye(NODES, dtype=bool)]
    peer = Network(params, CFG)
    got = peer.loss(torch.tensor(values[0]), torch.tensor(np.asarray(context[0])), torch.tensor(noise))
    np.testing.assert_allclose(got.detach().numpy(), want, rtol=1e-5)
    got.backward()
    for name, own in slopes.items():
        for part, slope in own.items():
            np.testing.assert_allclose(
                peer.params[name][part].grad.numpy(), slope, rtol=2e-3, atol=1e-4, err_msg=f"{name}.{part}"
            )
    for name, moved in stats.items():
        np.testing.assert_allclose(np.stack([s.numpy() for s in peer.running[name]]), moved, rtol=1e-4, atol=1e-6)


def test_an_epoch_learns():
    """Learnt from and validated on one shop, whose loss falls."""
    params, values = start()
    run = epoch(params, values[[0, 0]], 1, rate=1e-2, cfg=CFG)
    losses = [float(run()[0]) for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.8 * losses[0]
