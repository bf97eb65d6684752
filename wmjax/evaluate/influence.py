"""Counterfactual influence: push one input, roll the world out again, see which outputs move.

For a roll-out f that maps a history to the `steps` that follow it, and a push of `size` standard deviations on input i
over the last `window` steps of the history,

    CIG[i, j]    = mean |f_j(push_i x)_1 - f_j(x)_1| / sd_j                                 one step
    AR-CIG[i, j] = mean (1/K) sum_{k=1..K} |f_j(push_i x)_k - f_j(x)_k| / sd_j              free-running, K steps

f may be any function: a decoder under a graph, a fitted world's `simulate`, a formula. It must not read the pushed
history to choose its graph or its scale: re-encoding or re-normalising the push would answer another question. An
influence is a property of the model that was probed and no causal estimate.

Exact zeros are kept. The factual roll-out and every pushed one run through the same compiled body, one after the other,
with shops and graphs side by side at the same places; so an output that a push cannot reach is equal to the last bit,
and a ranking of influences has true ties instead of rounding noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from wmjax.core.keys import key_for
from wmjax.evaluate import edge_scores
from wmjax.evaluate.edge_scores import Baseline

Rollout = Callable[[Float[Array, "..."]], Float[Array, "..."]]
"""Maps a history `[..., times, inputs]` to what follows it, `[..., steps, outputs]`."""

GraphRollout = Callable[[Any, Float[Array, "..."], Float[Array, "..."]], Float[Array, "..."]]
"""Maps parameters, one shop's graph and its history `[times, inputs]` to `[steps, outputs]`."""


class Resumable(NamedTuple):
    """A graph roll-out in two parts, so that what precedes a push is listened to once for all pushes.

    listen: maps parameters, one shop's graph and its early history `[times, inputs]` to a state. go_on: maps the
    parameters, the graph, that state and the rest of the history to `[steps, outputs]`. One after the other they are
    the roll-out, wherever the history is cut.
    """

    listen: Callable[[Any, Array, Array], Any]
    go_on: Callable[[Any, Array, Any, Array], Array]


@dataclass(frozen=True, kw_only=True)
class InfluenceConfig:
    """How inputs are pushed.

    Attributes:
        size: push in standard deviations of the input.
        window: steps pushed, the last of the history: 1 is an impulse, more is sustained.
        kind: `"add"` adds the push; `"zero"` sets the input to zero in its own units, and `size` is not used.
    """

    size: float = 0.5
    window: int = 1
    kind: Literal["add", "zero"] = "add"

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window is {self.window}, must be at least 1")
        if self.kind not in ("add", "zero"):
            raise ValueError(f"kind is {self.kind!r}, must be add or zero")
        if self.kind == "add" and self.size == 0:
            raise ValueError("size is 0: nothing would be pushed")


class Influence(NamedTuple):
    """`one_step` (CIG) and `rolled` (AR-CIG), each `[..., inputs, outputs]` in standard deviations of the output."""

    one_step: Array
    rolled: Array


def spread(values: Float[Array, "*axes nodes"]) -> Float[Array, " nodes"]:
    """Measure each node's standard deviation over all other axes; 1 for a node that does not vary."""
    sd = values.reshape(-1, values.shape[-1]).std(0)
    return jnp.where(sd > 1e-6, sd, 1.0)


def influence(
    rollout: Rollout,
    history: Float[Array, "*axes times inputs"],
    *,
    cfg: InfluenceConfig,
    input_sd: Float[Array, " inputs"] | None = None,
    output_sd: Float[Array, " outputs"] | None = None,
    traced: bool = True,
) -> Influence:
    """Push every input of a history, one at a time, and measure what moves.

    Args:
        rollout: the function probed; with leading axes in `history` it rolls them all out at once.
        history: `[..., times, inputs]`, never shorter than `cfg.window`.
        cfg: the push.
        input_sd, output_sd: units of the push and of the answer; by default the spread of this history and of the
            factual roll-out. Give the training data's to compare across shops.
        traced: False runs a plain Python loop, for roll-outs that JAX cannot trace.

    Returns:
        `[..., inputs, outputs]`, the leading axes kept: average them as the question demands.
    """
    times, inputs = history.shape[-2:]
    if cfg.window > times:
        raise ValueError(f"window is {cfg.window} and the history has {times} times")
    input_sd = spread(history) if input_sd is None else input_sd
    recent = (jnp.arange(times) >= times - cfg.window)[:, None]

    def roll(chosen):
        """Roll out with the chosen inputs pushed; with none chosen the history comes through to the last bit."""
        push = jnp.where(recent, chosen, 0.0)
        pushed = history * (1 - push) if cfg.kind == "zero" else history + push * cfg.size * input_sd
        return rollout(pushed)

    # The row of zeros, the factual roll-out, goes through the same loop: see the module's text.
    choices = jnp.eye(inputs + 1, inputs, dtype=history.dtype)
    paths = jax.lax.map(roll, choices) if traced else jnp.stack([jnp.asarray(roll(row)) for row in choices])
    output_sd = spread(paths[-1]) if output_sd is None else output_sd
    moved = jnp.moveaxis(jnp.abs(paths[:-1] - paths[-1]) / output_sd, 0, -3)
    return Influence(moved[..., 0, :], moved.mean(-2))


def swap(
    rollout: GraphRollout | Resumable,
    params: Any,
    graphs: Float[Array, "graphs shops nodes nodes"],
    history: Float[Array, "shops times inputs"],
    *,
    cfg: InfluenceConfig,
    input_sd: Float[Array, " inputs"],
    output_sd: Float[Array, " outputs"],
    chunk: int = 256,
) -> Influence:
    """Probe frozen decoders under every graph: all pushes, graphs and shops in one program.

    Nothing is retrained and the graphs are arguments, so a swap recompiles nothing. Graphs times shops run side by
    side, `chunk` at a time, which bounds the memory whatever their number.

    Args:
        rollout: rolls out one shop; a resumable one listens to the periods before the pushed ones once.
        params: the decoders' parameters, every array with a leading axis `[decoders, ...]`.
        graphs: the graphs to supply, each for each shop.
        history: standardised or not, as the decoders were trained.
        cfg: the push.
        input_sd, output_sd: the training data's spread.
        chunk: pairs of graph and shop at a time.

    Returns:
        `[decoders, graphs, inputs, outputs]`, averaged over shops.
    """
    num_graphs, num_shops = graphs.shape[:2]

    def probe(one):
        def pair(index):
            graph, shop = graphs[index // num_shops, index % num_shops], history[index % num_shops]
            if isinstance(rollout, Resumable):
                go_on, state = rollout.go_on, rollout.listen(one, graph, shop[: -cfg.window])
                shop, roll = shop[-cfg.window :], lambda rest: go_on(one, graph, state, rest)
            else:
                whole: Any = rollout
                roll = lambda h: whole(one, graph, h)  # noqa: E731
            return influence(roll, shop, cfg=cfg, input_sd=input_sd, output_sd=output_sd)

        found = _mapped(pair, num_graphs * num_shops, chunk)
        return jax.tree.map(lambda a: a.reshape(num_graphs, num_shops, *a.shape[1:]).mean(1), found)

    return jax.lax.map(probe, params)


def swap_errors(
    rollout: GraphRollout,
    params: Any,
    graphs: Float[Array, "graphs shops nodes nodes"],
    history: Float[Array, "windows times inputs"],
    future: Float[Array, "windows steps outputs"],
    *,
    chunk: int = 256,
) -> Float[Array, "decoders graphs outputs"]:
    """Compute the free-running mean squared error of every decoder under every graph, in squared units of `future`.

    There may be several windows a shop, shop by shop: `windows` is a multiple of `shops`. The last output is the
    target, and its figure over 7 steps is MSE@7.
    """
    num_graphs, num_shops = graphs.shape[:2]
    num_windows = history.shape[0]
    if num_windows % num_shops:
        raise ValueError(f"{num_windows} windows cannot be dealt evenly to {num_shops} shops")
    each = num_windows // num_shops

    def score(one):
        def pair(index):
            window = index % num_windows
            path = rollout(one, graphs[index // num_windows, window // each], history[window])
            return jnp.mean((path - future[window]) ** 2, axis=0)

        return _mapped(pair, num_graphs * num_windows, chunk).reshape(num_graphs, num_windows, -1).mean(1)

    return jax.lax.map(score, params)


def _mapped(function: Callable[[Array], Any], count: int, chunk: int) -> Any:
    """Map over 0 .. count - 1 in equal chunks, the last filled up by repetition, so that one body is compiled."""
    chunk = min(chunk, count)
    rows = -(-count // chunk)
    index = jnp.minimum(jnp.arange(rows * chunk), count - 1).reshape(rows, chunk)
    found = jax.lax.map(jax.vmap(function), index)
    return jax.tree.map(lambda a: a.reshape(rows * chunk, *a.shape[2:])[:count], found)


def windows(
    values: Float[Array, "shops times nodes"], starts: np.ndarray, *, length: int, horizon: int
) -> tuple[Float[Array, "windows length nodes"], Float[Array, "windows horizon nodes"]]:
    """Cut histories of equal length that end before each start, and what follows them, shop by shop."""
    if min(starts) < length or max(starts) + horizon > values.shape[1]:
        raise ValueError(f"starts {min(starts)} to {max(starts)} need {length} times before and {horizon} from them on")
    past = values[:, np.asarray(starts)[:, None] + np.arange(-length, 0)]
    future = values[:, np.asarray(starts)[:, None] + np.arange(horizon)]
    return past.reshape(-1, length, values.shape[-1]), future.reshape(-1, horizon, values.shape[-1])


class Alignment(NamedTuple):
    """How well an influence matrix ranks the edges of a graph, always beside what chance reaches.

    Attributes:
        target: nAUPRC of the last column, the influence on the target.
        all: nAUPRC over all pairs.
        columns: mean nAUPRC over the columns that can be ranked.
        degenerate: columns that cannot, because all of their pairs are edges, or none.
        target_chance, all_chance: what the same scores reach when shuffled.
    """

    target: Array
    all: Array
    columns: Array
    degenerate: Array
    target_chance: Baseline
    all_chance: Baseline


def alignment(
    key: Key[Array, ""],
    matrix: Float[Array, "inputs outputs"],
    graph: Float[Array, "inputs outputs"],
    *,
    pairs: np.ndarray | None = None,
    num_permutations: int = 200,
) -> Alignment:
    """Compare an influence matrix with a graph (for total effects give `edges.closure(graph)`, and say so).

    Args:
        key: for the permutations.
        matrix: influences, row sends, column receives.
        graph: 0/1.
        pairs: bool `[inputs, outputs]`, the pairs that count; by default all but the diagonal of a square matrix, and
            all pairs of any other.
        num_permutations: shuffles behind the chance figures.
    """
    inputs, outputs = matrix.shape
    if pairs is None:
        pairs = ~np.eye(inputs, dtype=bool) if inputs == outputs else np.ones((inputs, outputs), bool)
    senders = [np.flatnonzero(pairs[:, j]) for j in range(outputs)]
    columns = jnp.stack([edge_scores.nauprc(matrix[rows, j], graph[rows, j]) for j, rows in enumerate(senders)])
    flat = np.nonzero(pairs)
    last = senders[-1]

    def chance(name: str, scores: Array, truth: Array) -> Baseline:
        return edge_scores.permutation_baseline(key_for(key, name), scores, truth, num_permutations=num_permutations)

    return Alignment(
        target=columns[-1],
        all=edge_scores.nauprc(matrix[flat], graph[flat]),
        columns=jnp.nanmean(columns),
        degenerate=jnp.sum(jnp.isnan(columns)),
        target_chance=chance("target", matrix[last, -1], graph[last, -1]),
        all_chance=chance("all", matrix[flat], graph[flat]),
    )
