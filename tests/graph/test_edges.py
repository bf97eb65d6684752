import jax.numpy as jnp
import numpy as np

from wmjax.graph import edges

# 0 -> 1 -> 2 and nothing else: transposing it changes every answer below.
CHAIN = jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])


def test_rows_send_and_columns_receive():
    one = np.asarray(edges.reachable(CHAIN, 1))
    assert one[0, 1]
    assert not one[1, 0]
    assert not one[0, 2]
    two = np.asarray(edges.reachable(CHAIN, 2))
    assert two[0, 2]
    assert not two[2, 0]


def test_no_steps_reach_nothing_and_many_reach_the_closure():
    assert not np.asarray(edges.reachable(CHAIN, 0)).any()
    np.testing.assert_array_equal(edges.closure(CHAIN), np.triu(np.ones((3, 3)), 1))


def test_paths_equal_matrix_powers_on_random_graphs():
    rng = np.random.default_rng(0)
    graphs = (rng.random((20, 6, 6)) < 0.25) * (1 - np.eye(6))
    for steps in (1, 2, 3, 5):
        expected = sum(np.linalg.matrix_power(graphs, k) for k in range(1, steps + 1)) > 0
        np.testing.assert_array_equal(edges.reachable(jnp.asarray(graphs, jnp.float32), steps), expected)


def test_pairs_list_receivers_in_the_outer_order():
    senders, receivers = edges.off_diagonal_pairs(3)
    assert receivers.tolist() == [0, 0, 1, 1, 2, 2]
    assert senders.tolist() == [1, 2, 0, 2, 0, 1]
    assert np.asarray(CHAIN)[senders, receivers].tolist() == [0, 0, 1, 0, 0, 1]
