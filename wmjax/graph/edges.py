"""The one edge convention of the project, and what follows from it.

`graph[i, j] = 1` means that node i acts on node j one step later: **the row sends, the column receives**. The diagonal
is zero (a node's own past is never an edge) and the target is the last node, so that `graph[:-1, -1]` are the channels'
edges into the target. CausalMMM's files and formulas hold the transpose.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def off_diagonal(num_nodes: int) -> Float[Array, "nodes nodes"]:
    """Mark every pair of different nodes with 1: the fullest graph there is."""
    return 1.0 - jnp.eye(num_nodes)


def off_diagonal_pairs(num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """List all (sender, receiver) pairs of different nodes, receivers in the outer order.

    Returns:
        senders, receivers: int `[nodes * (nodes - 1)]`, so that `graph[senders, receivers]` is the flat graph.
    """
    receivers, senders = np.nonzero(~np.eye(num_nodes, dtype=bool))
    return senders, receivers


def reachable(graph: Float[Array, "... nodes nodes"], steps: int) -> Bool[Array, "... nodes nodes"]:
    """Tell where a directed path of 1 to `steps` edges leads from i to j.

    A node remembers itself, so influence over k steps may travel fewer than k edges but never more.
    """
    edge = graph > 0
    if steps < 1:
        return jnp.zeros_like(edge)

    def extend(paths, _):
        longer = jnp.einsum("...ij,...jk->...ik", paths.astype(jnp.float32), edge.astype(jnp.float32)) > 0
        return paths | longer, None

    return jax.lax.scan(extend, edge, length=steps - 1)[0]


def closure(graph: Float[Array, "... nodes nodes"]) -> Float[Array, "... nodes nodes"]:
    """Connect every ancestor to its descendants: 1 where any path leads from i to j, i different from j."""
    num_nodes = graph.shape[-1]
    return reachable(graph, num_nodes - 1).astype(graph.dtype) * off_diagonal(num_nodes)
