import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.graph import interfaces

Q = jnp.array(
    [
        [0.99, 0.9, 0.2, 0.6],
        [0.1, 0.99, 0.8, 0.7],
        [0.3, 0.4, 0.99, 0.5],
        [0.05, 0.55, 0.0, 0.99],
    ]
)
A = jnp.array([[0.0, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]])


def test_soft_and_hard():
    np.testing.assert_array_equal(np.diag(interfaces.soft(Q)), 0)
    np.testing.assert_array_equal(interfaces.hard(Q), [[0, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]])


def test_top_k_per_target_and_per_graph():
    np.testing.assert_array_equal(interfaces.top_k(Q, 1), [[0, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(
        interfaces.top_k(Q, 3, per="graph"), [[0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(interfaces.top_k(Q, 99), interfaces.full(Q))
    np.testing.assert_array_equal(interfaces.top_k(Q, 0, per="graph"), interfaces.none(Q))
    tied = interfaces.top_k(jnp.full((5, 4, 4), 0.5), 2)
    np.testing.assert_array_equal(tied.sum(-2), 2)


def test_stability_keeps_what_most_runs_chose():
    runs = jnp.stack([A, A, A.at[0, 1].set(0), A.at[0, 3].set(0), A.at[2, 3].set(1)])
    np.testing.assert_array_equal(interfaces.stability(runs, 0.8), A)
    np.testing.assert_array_equal(interfaces.stability(runs, 1.0), A.at[0, 1].set(0).at[0, 3].set(0))


def test_validation_takes_the_first_of_the_best():
    candidates = jnp.stack([interfaces.none(A), A, interfaces.full(A)])
    np.testing.assert_array_equal(interfaces.by_validation(candidates, jnp.array([0.3, 0.1, 0.1])), A)


def test_candidates_grow_from_nothing():
    graphs = interfaces.thresholds(jnp.stack([Q, Q.T]), 6)
    counts = np.asarray(graphs.sum((1, 2, 3)))
    assert counts.tolist() == [0, 4, 8, 12, 16, 20]
    assert np.all(np.asarray(graphs[1:]) >= np.asarray(graphs[:-1]))


def test_reverse_turns_every_edge_round():
    assert interfaces.reverse(A)[3, 0] == 1
    assert interfaces.reverse(A)[0, 3] == 0


@pytest.fixture(scope="module")
def controls():
    keys = jax.random.split(jax.random.key(0), 300)
    deal = jax.jit(
        jax.vmap(
            lambda key: (
                interfaces.permuted(key, A),
                interfaces.wrong(key, A),
                interfaces.random(key, jnp.stack([A, A.T])),
            )
        )
    )
    return [np.asarray(a) for a in deal(keys)]


def test_wrong_graphs_keep_the_density(controls):
    permuted, wrong, random = controls
    np.testing.assert_array_equal(permuted.sum(1), np.broadcast_to(A.sum(0), (300, 4)))
    np.testing.assert_array_equal(wrong.sum(1), np.broadcast_to(A.sum(0), (300, 4)))
    np.testing.assert_array_equal(random.sum((-1, -2)), 4)
    for graphs in (permuted, wrong, random):
        assert np.all(np.diagonal(graphs, axis1=-2, axis2=-1) == 0)
        assert np.all((graphs == 0) | (graphs == 1))


def test_wrong_graphs_avoid_the_truth_as_far_as_they_can(controls):
    permuted, wrong, random = controls
    # Node 3 has three possible senders and two true ones, so one true sender has to stay.
    assert np.all((wrong * np.asarray(A)).sum((1, 2)) == 1)
    # Shuffled senders hit the truth by chance: (1 + 1 + 4) / 3 = 2 edges on average.
    hits = (permuted * np.asarray(A)).sum((1, 2))
    assert abs(hits.mean() - 2) < 5 * hits.std() / np.sqrt(300)  # false alarm 6e-7
    hits = (random[:, 0] * np.asarray(A)).sum((1, 2))
    assert abs(hits.mean() - 16 / 12) < 5 * hits.std() / np.sqrt(300)


def test_density_entropy_and_support():
    assert interfaces.density(A) == pytest.approx(4 / 12)
    assert interfaces.density(Q) == pytest.approx(np.asarray(Q)[~np.eye(4, dtype=bool)].mean())
    assert float(interfaces.entropy(jnp.full((4, 4), 0.5))) == pytest.approx(np.log(2), rel=1e-5)
    assert float(interfaces.entropy(A)) < 1e-5
    assert bool(interfaces.is_support(A))
    assert not bool(interfaces.is_support(Q))
    assert not bool(interfaces.is_support(jnp.eye(4)))
