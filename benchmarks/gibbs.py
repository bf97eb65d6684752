"""Block Gibbs: unit updates a second, beside thrml and beside the floor of this machine.

One step draws every unit of 1,024 chains once. The floor of a step is the time of its work done alone, each measured in
the same run on the same shapes: the matrix products of both half steps (the couplings that exist, layer by layer) and
one random word a unit from the sampler's own generator. The sigmoids are measured too, as facts, and not counted.
thrml samples the same machine as an Ising model, its layers in the same two blocks, through its own public calls.
"""

from __future__ import annotations

import itertools
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from benchmarks import measure
from experiments import common
from experiments.common import Cell
from wmjax.core import bits
from wmjax.core.visible import Visible
from wmjax.dbm import gibbs, types
from wmjax.dbm.types import DBMConfig, DBMParams

SETTINGS = {"72-64-32-16": (72, 64, 32, 16), "64-256-128": (64, 256, 128)}


def machine(sizes: tuple[int, ...]) -> DBMParams:
    """Draw a machine with couplings of a trained one's size."""
    cfg = DBMConfig(hidden=sizes[1:], init_scale=0.1)
    return types.init(jax.random.key(0), jnp.zeros(sizes[0]), cfg=cfg)


def floor(params: DBMParams, chains: int, steps: int) -> dict[str, Any]:
    """Build the programs whose times are a step's floor, and the sigmoids beside it."""
    sizes = [len(b) for b in params.biases]
    layers = tuple(jnp.full((chains, n), 0.5) for n in sizes)
    seeds = bits.seeds(jax.random.key(1), (steps, len(sizes)))

    def products(layers: tuple[Array, ...]) -> tuple[Array, ...]:
        # Both directions of every coupling once, each fed by the one before so that none is hoisted or dropped.
        def body(x: tuple[Array, ...], _: None) -> tuple[tuple[Array, ...], None]:
            for at, w in enumerate(params.weights):
                up = x[at] @ w
                x = (*x[: at + 1], up, *x[at + 2 :])
                x = (*x[:at], up @ w.T, *x[at + 1 :])
            return x, None

        return jax.lax.scan(body, layers, None, length=steps)[0]

    def words(seeds: Array) -> Array:
        def body(total: Array, own: Array) -> tuple[Array, None]:
            drawn = jnp.concatenate([bits.words(s, (chains, n)) for s, n in zip(own, sizes, strict=True)], axis=1)
            return total ^ drawn, None

        return jax.lax.scan(body, jnp.zeros((chains, sum(sizes)), jnp.uint32), seeds)[0]

    def sigmoids(x: Array) -> Array:
        return jax.lax.scan(lambda x, _: (jax.nn.sigmoid(x), None), x, None, length=steps)[0]

    wide = jnp.zeros((chains, sum(sizes)))
    programs = {"products": (products, (layers,)), "words": (words, (seeds,)), "sigmoids": (sigmoids, (wide,))}
    return {name: (measure.compiled(fn, *args)[0], args) for name, (fn, args) in programs.items()}


def peer(params: DBMParams, chains: int, steps: int) -> Any:
    """Build thrml's sampler of the same machine: `x = (s + 1) / 2` turns bits into spins."""
    from thrml import Block, SamplingSchedule, SpinNode, sample_states
    from thrml.models import IsingEBM, IsingSamplingProgram

    sizes = [len(b) for b in params.biases]
    couplings = [np.asarray(w) / 4 for w in params.weights]
    fields = [np.asarray(b) / 2 for b in params.biases]
    for at, w in enumerate(couplings):
        fields[at] = fields[at] + w.sum(1)
        fields[at + 1] = fields[at + 1] + w.sum(0)
    nodes: list[list[Any]] = [[SpinNode() for _ in range(n)] for n in sizes]
    flat = [node for layer in nodes for node in layer]
    edges: Any = [edge for a, b in itertools.pairwise(nodes) for edge in itertools.product(a, b)]
    weights = jnp.asarray(np.concatenate([c.ravel() for c in couplings]), jnp.float32)
    model = IsingEBM(flat, edges, jnp.asarray(np.concatenate(fields), jnp.float32), weights, jnp.array(1.0))
    even, odd = (Block([n for layer in nodes[first::2] for n in layer]) for first in (0, 1))
    program = IsingSamplingProgram(model, [odd, even], clamped_blocks=[])
    # The one sample is what the warm-up ends with.
    schedule = SamplingSchedule(n_warmup=steps, n_samples=1, steps_per_sample=1)
    start = [jnp.zeros((chains, len(block.nodes)), bool) for block in (odd, even)]

    def run(keys: Array, start: list[Array]) -> Any:
        return jax.vmap(lambda k, s: sample_states(k, program, schedule, s, [], [Block(flat)]))(keys, start)

    args = (jax.random.split(jax.random.key(2), chains), start)
    return measure.compiled(run, *args)[0], args


def score(
    setting: str, *, chains: int, steps: int, peer_steps: int, runs: int
) -> tuple[dict[Cell, float], dict[str, Any]]:
    """Measure one setting: unit updates a second, the ratio to thrml, the fraction of the floor."""
    params = machine(SETTINGS[setting])
    units = sum(SETTINGS[setting]) * chains
    visible = Visible.bernoulli(SETTINGS[setting][0])
    layers = gibbs.init_layers(jax.random.key(3), params, visible=visible, num_chains=chains)
    ours, compile_seconds = measure.compiled(
        lambda key, p, x: gibbs.run(key, p, x, visible=visible, num_steps=steps), jax.random.key(4), params, layers
    )
    theirs, their_args = peer(params, chains, peer_steps)
    calls = {"wmjax": lambda: ours(jax.random.key(4), params, layers), "thrml": lambda: theirs(*their_args)}
    calls |= {name: (lambda f=f, a=a: f(*a)) for name, (f, a) in floor(params, chains, steps).items()}
    seconds = measure.interleaved(calls, runs=runs)
    rate = {"wmjax": units * steps / seconds["wmjax"], "thrml": units * peer_steps / seconds["thrml"]}
    least = seconds["products"] + seconds["words"]
    found = {Cell(setting, name, "unit_updates_per_s"): value for name, value in rate.items()}
    found[Cell(setting, "floor", "unit_updates_per_s")] = units * steps / least
    found[Cell(setting, "wmjax", "ratio_to_thrml")] = rate["wmjax"] / rate["thrml"]
    found[Cell(setting, "wmjax", "fraction_of_floor")] = least / seconds["wmjax"]
    step = {f"{name}_us_per_step": 1e6 * seconds[name] / steps for name in ("wmjax", "products", "words", "sigmoids")}
    return found, {setting: {**step, "compile_s": compile_seconds, "chains": chains, "steps": steps}}


def work(options: common.Options, observer: Any) -> Any:
    """Measure both settings."""
    started = time.monotonic()
    full = options.size == "full"
    chains, steps, peer_steps, runs = (1024, 200, 20, 7) if full else (16, 3, 2, 1)
    scores, facts = {}, {}
    for setting in SETTINGS:
        found, told = score(setting, chains=chains, steps=steps, peer_steps=peer_steps, runs=runs)
        scores |= found
        facts |= told
    rows = common.summarise([scores])
    seconds = time.monotonic() - started
    return common.write_result(options, "gibbs", rows, seeds=[0], seconds=seconds, facts=facts)


if __name__ == "__main__":
    sys.exit(common.run("benchmarks.gibbs", work))
