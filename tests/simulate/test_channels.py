import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.graph import edges
from wmjax.simulate import channels
from wmjax.simulate.channels import ChannelConfig, sparse_target

CFG = ChannelConfig(shops=12, nodes=6, times=30, graphs=2, parents=2, mediators=1, burn_in=10)


@pytest.fixture(scope="module")
def world():
    return jax.jit(lambda key: channels.simulate(key, cfg=CFG))(jax.random.key(0))


def by_hand(truth, noise, shop, cfg):
    """Roll out one shop in NumPy float64, edge by edge."""
    t = jax.tree.map(lambda a: np.asarray(a[shop], np.float64), truth)
    n = jax.tree.map(lambda a: np.asarray(a[shop], np.float64), noise)
    d = cfg.nodes
    rest = t.base**t.shape / (t.base**t.shape + t.half**t.shape)
    x, ad, u, rows = t.base.copy(), t.base.copy(), 0.0, []
    for step in range(cfg.steps):
        rows.append(x.copy())
        ad = t.decay * ad + (1 - t.decay) * np.maximum(x, 0)
        level = ad**t.shape / (ad**t.shape + t.half**t.shape)
        new = np.zeros(d)
        for j in range(d):
            memory, scale = (cfg.persistence, cfg.target_noise) if j == d - 1 else (cfg.momentum, cfg.noise)
            new[j] = t.base[j] + memory * (x[j] - t.base[j]) + t.load[j] * u + scale * n.nodes[step, j]
            for i in range(d):
                if t.graph[i, j]:
                    new[j] += t.weight[i, j] * (level[i] - rest[i])
            if j < d - 1:
                new[j] = max(new[j], 0)
        x, u = new, 0.8 * u + cfg.co_movement * cfg.noise * n.demand[step]
    return np.array(rows)[cfg.burn_in :]


def test_roll_out_is_the_written_recursion(world):
    truth, noise, series = world
    for shop in (0, 1, 7):
        np.testing.assert_allclose(series.values[shop], by_hand(truth, noise, shop, CFG), rtol=2e-4, atol=2e-5)


def test_graphs_are_acyclic_sparse_and_the_target_sends_nothing():
    cfg = ChannelConfig(shops=3, nodes=9, times=2, graphs=3, parents=3, mediators=2)
    truth = jax.jit(jax.vmap(lambda key: channels.draw(key, cfg=cfg)))(jax.random.split(jax.random.key(1), 40))
    graph = np.asarray(truth.graph).reshape(-1, 9, 9)
    assert np.all(np.linalg.matrix_power(graph, 9) == 0)
    assert np.all(graph[:, :-1, -1].sum(1) == 3)
    assert np.all(graph[:, -1] == 0)
    assert len({g.tobytes() for g in graph}) > 100
    # Two parents at least are fed by a channel that does not act on the target itself.
    fed = np.einsum("gi,gij->gj", 1 - graph[:, :-1, -1], graph[:, :-1, :-1]) * graph[:, :-1, -1]
    assert np.all((fed > 0).sum(1) >= 2)
    np.testing.assert_array_equal(truth.weight != 0, truth.graph != 0)


def test_shops_take_turns_among_the_graphs(world):
    graph = np.asarray(world[0].graph)
    np.testing.assert_array_equal(graph[0], graph[2])
    assert not np.array_equal(graph[0], graph[1])
    cfg = dataclasses.replace(CFG, heterogeneity=0.3)
    truth = jax.jit(lambda key: channels.draw(key, cfg=cfg))(jax.random.key(0))
    assert len(np.unique(np.asarray(truth.half)[:, 0])) == CFG.shops


def test_a_plan_changes_descendants_only_and_never_the_past(world):
    truth, noise, series = world
    push = jax.jit(lambda size: channels.impulse_effects(truth, noise, cfg=CFG, at=12, steps=5, size=size))
    effect = np.asarray(push(jnp.full(6, 0.3)))
    for steps in range(1, 6):
        reach = np.asarray(edges.reachable(truth.graph, steps)) | np.eye(6, dtype=bool)
        assert np.all(effect[:, :, steps - 1][~reach] == 0.0)
    direct = np.asarray(truth.graph) > 0
    assert np.mean(effect[:, :, 0][direct] != 0) > 0.9
    plan = channels.no_plan(cfg=CFG)
    roll = jax.jit(lambda plan: channels.roll_out(truth, noise, plan, cfg=CFG))
    changed, factual = roll(plan._replace(keep=plan.keep.at[:, 12:, 0].set(0.0))), roll(plan)
    np.testing.assert_array_equal(changed.values[:, :12], factual.values[:, :12])
    np.testing.assert_allclose(factual.values, series.values, atol=1e-5)
    assert np.all(changed.values[:, 12:, 0] == 0)


def test_marginal_effects_are_the_slope_of_the_counterfactual(world):
    truth, noise, _ = world
    # Far from zero, so that nothing is clipped and the slope is that of the curve.
    truth = truth._replace(base=truth.base + 2.0, half=truth.half + 2.0)
    size = 0.02

    @jax.jit
    def both(truth):
        here = jax.tree.map(lambda a: a[:, 12:13], channels.roll_out(truth, noise, cfg=CFG))
        push = channels.impulse_effects(truth, noise, cfg=CFG, at=12, steps=1, size=jnp.full(6, size))
        return push[:, :, 0], channels.edge_effects(truth, here)

    effect, direct = both(truth)
    marginal = np.asarray(direct.marginal)
    off = ~np.eye(6, dtype=bool)
    np.testing.assert_allclose(effect[:, off] / size, marginal[:, off], atol=3e-3)
    assert np.abs(marginal).max() > 0.03
    contribution = np.asarray(direct.contribution)
    assert np.all(contribution[np.asarray(truth.graph) == 0] == 0)
    assert np.all(contribution[np.asarray(truth.graph) == 1] > 0)


def test_seeds_are_an_axis(world):
    keys = jax.random.split(jax.random.key(0), 3)
    many = jax.jit(jax.vmap(lambda key: channels.simulate(key, cfg=CFG)[2].values))(keys)
    one = jax.jit(lambda key: channels.simulate(key, cfg=CFG)[2].values)(keys[1])
    np.testing.assert_allclose(many[1], one, rtol=1e-5, atol=1e-6)
    assert not np.allclose(many[0], many[1])


def test_the_sparse_target_moves_with_its_decoys_more_than_with_its_parents():
    cfg = sparse_target(shops=200, nodes=8, target_load=0.05, parent_load=0.1, channel_edges=0.0)
    truth, _, series = jax.jit(lambda key: channels.simulate(key, cfg=cfg))(jax.random.key(4))
    x = np.asarray(series.values)
    parent = np.asarray(truth.graph)[0, :-1, -1] > 0
    change = x[:, 1:, -1] - cfg.persistence * x[:, :-1, -1]
    r = np.array([np.corrcoef(x[:, :-1, i].ravel(), change.ravel())[0, 1] for i in range(7)])
    assert parent.sum() == 2
    assert r[~parent].min() > 0.1
    assert r[~parent].min() > np.abs(r[parent]).max() + 0.05


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parents": 5}, "parents is 5"),
        ({"mediators": 3}, "mediators is 3"),
        ({"nodes": 2}, "nodes is 2"),
        ({"channel_edges": 1.5}, "channel_edges is 1.5"),
        ({"shops": 0}, "shops is 0"),
    ],
)
def test_a_config_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CFG, **changes)


def test_an_impulse_too_late_is_refused(world):
    with pytest.raises(ValueError, match="at is 28"):
        channels.impulse_effects(world[0], world[1], cfg=CFG, at=28, steps=5, size=jnp.ones(6))
