"""Sweeps of the consumer world: 1,024 consumers x 30 days x 1,024 plans.

`consumer`: the published adapter, 64-32-16; an evaluation is one plan in one consumer's day. Floor: the products of the
layers above the hoisted projection, on the same shapes, measured alone in the same run. Peer: the same network in
scikit-learn, called once a plan, as a user would without a sweep. `consumer_default`: the adapter that is fitted unless
told otherwise, whose actions add on the logit scale, so that a plan costs a sum over the actions and a sigmoid; floor:
the sigmoids alone; peer: the same adapter in scikit-learn, network and linear effects. Where EconML is installed (`pip
install -e ".[econml]"`), also its `effect(X, T0, T1)` of a fitted `LinearDML`, the cheapest of its learners to ask: one
product of the same beliefs with as many coefficients a treatment, called once a contrast. Memory, and two workers
against one, one core each, are measured in processes of their own. What it costs a sweep to lose nothing is in
`benchmarks.storing`; plans of the media world are in `benchmarks.media_plans`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure, storing
from experiments import common
from experiments.common import Cell
from wmjax.core import devices
from wmjax.heads import adapter
from wmjax.heads.adapter import AdapterConfig
from wmjax.sweep import axes, engine, processes
from wmjax.sweep.grids import Grid
from wmjax.sweep.plan_reading import plan_from_axes
from wmjax.sweep.ranks import Best, Top
from wmjax.sweep.reduce import Full
from wmjax.worlds import sweeping
from wmjax.worlds.consumer.config import ConsumerConfig
from wmjax.worlds.consumer.forecasting import BLOCK, RowsData, RowsForecast
from wmjax.worlds.consumer.model import ConsumerModel, Scales
from wmjax.worlds.sweep_plans import Evaluate, SweepData

FEATURES = 112
"""Width of the published machine's belief, 64 + 32 + 16."""
ACTIONS = ("discount", "campaign_a", "campaign_b", "coupon", "push")
REPEATS = 200
CFG = ConsumerConfig(members=1, adapter=AdapterConfig(hidden=(64, 32, 16)))
DEFAULT = ConsumerConfig(members=1)


class Problem(NamedTuple):
    """A world's part of a sweep without the fit: random beliefs and a random adapter cost what fitted ones do."""

    evaluate: Evaluate
    data: SweepData
    params: Any
    features: Any


def problem(units: int, periods: int, cfg: ConsumerConfig = CFG) -> Problem:
    """Make the arrays that a sweep reads."""
    rng = np.random.default_rng(0)
    rows = units * periods
    size = min(BLOCK, rows)
    blocks = -(-rows // size)
    how: dict[str, Any] = {"cfg": cfg.adapter, "num_actions": len(ACTIONS)}
    params = jax.jit(lambda key: adapter.init(key, num_features=FEATURES, **how))(jax.random.key(0))
    if cfg.adapter.form == "additive":  # its effects start at nothing
        params["tau"]["kernel"] = jnp.asarray(0.1 * rng.normal(size=params["tau"]["kernel"].shape), jnp.float32)
    features = jnp.asarray(rng.random((blocks * size, FEATURES), np.float32))
    found = jax.jit(lambda p, x: adapter.project(p, x, **how))(params, features)
    lead = jax.tree.map(lambda x: x[None, None], params)
    ones, zeros = jnp.ones((1, len(ACTIONS))), jnp.zeros((1, len(ACTIONS)))
    one, nothing = jnp.ones((1, 1)), jnp.zeros((1, 1))
    projected = jax.tree.map(lambda x: x.reshape(blocks, 1, 1, size, *x.shape[1:]), found)
    model: Any = ConsumerModel(cfg, None, ("binary",))  # type: ignore[arg-type] - a sweep of rows reads no frame
    data = SweepData(
        forecast=RowsData(lead, Scales(zeros, ones, nothing, one, nothing), projected),
        factual=jnp.asarray((rng.random((units, periods, len(ACTIONS))) < 0.1).astype(np.float32)),
        present=jnp.ones((units, periods), bool),
        groups={},
        worth=jnp.ones(1),
        cost=jnp.zeros(len(ACTIONS)),
        usual=(jnp.zeros((units, periods, 1)),),
    )
    plan = plan_from_axes(("campaign_a", "coupon", "discount"), ACTIONS)
    return Problem(Evaluate(RowsForecast(model), plan, ACTIONS, (), periods, False), data, params, features[:rows])


def grid_of(plans: int) -> Grid:
    """Two levels of a campaign, by as many of a coupon as it takes, by at most 500 of a discount."""
    inner = min(plans // 2, 500 if plans % 1000 == 0 else plans)
    coupons = axes.linear("coupon", 0.0, 1.0, plans // 2 // inner)
    return axes.axis("campaign_a", [0, 1]) * coupons * axes.linear("discount", 0.0, 0.3, inner)


def swept(own: Problem, plans: int, *, reduce: Any = None, **options: Any) -> Any:
    """Sweep as the command does: boxes of the size that is chosen, each core a device."""
    return engine.sweep(
        own.evaluate,
        grid_of(plans),
        key=jax.random.key(0),
        reduce=reduce or Best(of="total"),
        data=(own.data,),
        dims=sweeping.DIMS,
        mesh=processes.local_mesh(),
        **options,
    )


def floor(rows: int) -> Any:
    """Build the products that hoisting leaves of an evaluation, on as many rows as a block has for 32 plans."""
    rng = np.random.default_rng(1)
    sizes = (*CFG.adapter.hidden, 1)
    inputs = [jnp.asarray(rng.random((rows, n), np.float32)) for n in sizes[:-1]]
    weights = [jnp.asarray(rng.random(shape, np.float32)) for shape in itertools.pairwise(sizes)]
    if (mesh := devices.mesh(rows)) is not None:
        inputs, weights = devices.place((inputs, weights), mesh, rows)
    program, _ = measure.compiled(lambda xs, ws: [x @ w for x, w in zip(xs, ws, strict=True)], inputs, weights)

    def call() -> None:
        for _ in range(REPEATS):  # one is too short to be timed
            jax.block_until_ready(program(inputs, weights))

    return call


def floor_of_default(rows: int) -> Any:
    """Build as many sigmoids as `rows`, of logits that are there, `REPEATS` times, and their sum."""

    def repeat(logits: jax.Array) -> jax.Array:
        # Each turn reads the sum before it, or it would be done once.
        turn = lambda _, total: jax.nn.sigmoid(logits + 1e-30 * total).sum()  # noqa: E731
        return jax.lax.fori_loop(0, REPEATS, turn, jnp.float32(0))

    logits = jnp.asarray(np.random.default_rng(1).normal(size=rows), jnp.float32)
    program, _ = measure.compiled(repeat, logits)
    return lambda: jax.block_until_ready(program(logits))


def peer(own: Problem, cfg: ConsumerConfig = CFG) -> Any:
    """Build scikit-learn's call of one plan: the same weights, one plan's actions beside the features."""
    from sklearn.linear_model import LinearRegression
    from sklearn.neural_network import MLPRegressor

    joint = cfg.adapter.form == "mlp"
    width, layers = FEATURES + joint * len(ACTIONS), len(cfg.adapter.hidden)
    network: Any = MLPRegressor(hidden_layer_sizes=cfg.adapter.hidden, max_iter=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network.fit(np.zeros((2, width), np.float32), np.zeros(2, np.float32))
    first = ("features", "actions") if joint else ("features",)
    kernels = [np.concatenate([np.asarray(own.params[k]["kernel"]) for k in first])]
    biases = [np.asarray(own.params["features"]["bias"])]
    for i in range(layers):
        kernels.append(np.asarray(own.params[f"layer_{i}"]["kernel"]))
        biases.append(np.asarray(own.params[f"layer_{i}"]["bias"]))
    network.coefs_, network.intercepts_ = kernels, biases
    effects: Any = LinearRegression()
    if not joint:
        effects.coef_, effects.intercept_ = (np.asarray(own.params["tau"][k]).T for k in ("kernel", "bias"))
    features = np.asarray(own.features)
    actions = np.asarray(own.data.factual).reshape(len(features), -1).copy()

    def call(discount: float = 0.3, campaign: float = 1.0) -> np.ndarray:
        actions[:, 0], actions[:, 1], actions[:, 3] = discount, campaign, 0.0
        if joint:
            logits = network.predict(np.concatenate([features, actions], axis=1))
        else:
            logits = network.predict(features) + (effects.predict(features) * actions).sum(1)
        return 1 / (1 + np.exp(-logits))

    return call


def gap_to(own: Problem, call: Any) -> float:
    """Give the largest difference between a peer's answer to a plan and the sweep's."""
    found = engine.sweep(own.evaluate, grid_of(2), key=jax.random.key(0), data=(own.data,), reduce=Full(of="total"))
    assert found is not None
    units, periods = own.data.factual.shape[:2]
    return float(np.abs(call(0.0, 1.0).reshape(units, periods).sum(1) - found["total"].values[1, 0, 0, :, 0]).max())


def econml_peer(own: Problem) -> Any:
    """Build EconML's call of one contrast on the same rows: what was done against one plan's three actions."""
    from sklearn.linear_model import Ridge

    learner: Any = importlib.import_module("econml.dml").LinearDML(
        model_y=Ridge(), model_t=Ridge(), cv=2, fit_cate_intercept=True, random_state=0
    )
    rng, rows = np.random.default_rng(2), 2000  # what is fitted does not matter
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        learner.fit(rng.random(rows), rng.random((rows, 3)), X=rng.random((rows, FEATURES)), inference=None)
    features = np.asarray(own.features, np.float64)
    chosen = [ACTIONS.index(name) for name in ("discount", "campaign_a", "coupon")]
    before = np.asarray(own.data.factual, np.float64).reshape(len(features), -1)[:, chosen]
    after = before.copy()

    def call(discount: float = 0.3, campaign: float = 1.0) -> np.ndarray:
        after[:, 0], after[:, 1], after[:, 2] = discount, campaign, 0.0
        return learner.effect(features, T0=before, T1=after)

    return call


def memory(plans: int) -> dict[str, float]:
    """Sweep many plans of 16 consumers in this process; give its peak."""
    own = problem(16, 1)
    started = time.perf_counter()
    swept(own, plans, reduce=Top(of="total"))
    return {"peak": measure.peak_rss_gb(), "seconds": time.perf_counter() - started}


def share(number: int, count: int, plans: int, out: str) -> dict[str, float]:
    """Be one worker on one core: compile, wait until all have, then take a share of the sweep."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[number]})
    own, place = problem(256, 8), Path(out)
    # Of the same shapes, so that nothing is compiled after it; one worker alone of many evaluates all the same.
    swept(own, plans, chunk=64)
    (place / f"ready{number}").touch()
    while len(list(place.glob("ready*"))) < count:
        time.sleep(0.002)
    started = time.perf_counter()
    swept(own, plans, chunk=64, worker=(number, count), out=place / "s.zarr")
    return {"seconds": time.perf_counter() - started}


def apart(commands: list[list[Any]]) -> list[dict[str, float]]:
    """Run commands of this file side by side, each in a process of its own; give what each says."""
    line = [sys.executable, "-m", "benchmarks.sweep"]
    started = [subprocess.Popen([*line, *map(str, c)], stdout=subprocess.PIPE, text=True) for c in commands]
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(f"a part of the benchmark failed: {commands}")
    return [json.loads(text.splitlines()[-1]) for text in said]


KEPT = {"folded": Best(of="total"), "full": Full(of="total")}
"""What sweeps that are stored keep: the best plan, which is folded on the device; or every consumer's number under
every plan, which is written box by box."""
LONG = {"full": (1024, 30, 12_288, 5), "smoke": (32, 4, 64, 1)}
"""Consumers, days and plans of a sweep of 20 s on the two cores of the tables, and pairs of them."""


def kept_by(name: str, size: str, **options: Any) -> Any:
    """Sweep one of `KEPT`, of the length that is long enough to be timed."""
    units, periods, plans, _ = LONG[size]
    return swept(problem(units, periods), plans, reduce=KEPT[name], save_seconds=storing.SAVE_SECONDS, **options)


def losing_nothing(name: str, size: str) -> tuple[dict[Cell, float], dict[str, Any]]:
    """Measure what the store costs one of `KEPT`, and a kill in the middle of it."""
    units, periods, plans, pairs = LONG[size]
    own = problem(units, periods)
    how: dict[str, Any] = {"reduce": KEPT[name], "save_seconds": storing.SAVE_SECONDS}
    # Compiled before they are timed, and what writes stores is imported.
    asked = {"key": jax.random.key(0), "data": (own.data,), "dims": sweeping.DIMS, "mesh": processes.local_mesh()}
    engine.plan_sweep(own.evaluate, grid_of(plans), reduce=KEPT[name], **asked)
    with tempfile.TemporaryDirectory() as folder:
        swept(own, 64, out=Path(folder, "s.zarr"), **how)
    cost = storing.overhead(lambda out: swept(own, plans, out=out, **how), pairs=pairs)
    again = storing.resumed("benchmarks.sweep", "--life", name, size)
    end = "" if name == "folded" else f"_{name}"
    found = {
        f"resume_overhead{end}": cost["median"],
        f"resume_overhead{end}_quarter": cost["quarter"],
        f"resume_overhead{end}_three_quarters": cost["three_quarters"],
        f"resumed{end}_evaluated_twice": again["twice"],
        f"resumed{end}_seconds_more": again["seconds"],
    }
    return {Cell("consumer", "wmjax", key): value for key, value in found.items()}, cost


def rounded(own: Problem, plans: int, count: int, at_once: int, runs: int) -> tuple[dict[Cell, float], dict[str, Any]]:
    """Measure an accelerator with factors rounded to TF32: speed, and how far a consumer's mean outcome a day moves."""

    def ask() -> Any:
        found = engine.sweep(
            own.evaluate, grid_of(64), key=jax.random.key(0), data=(own.data,), reduce=Full(of="total"), mesh=None
        )
        assert found is not None
        return found["total"].values

    exact = ask()
    with jax.default_matmul_precision("tensorfloat32"):
        gap = np.abs(ask() - exact).max() / own.data.factual.shape[1]
        calls = {"wmjax": lambda: swept(own, plans), "floor": floor(at_once)}
        seconds = measure.interleaved(calls, runs=runs)
    held = jax.local_devices()[0].memory_stats() or {}
    found = {
        "points_per_s": count / seconds["wmjax"],
        "fraction_of_floor": count * seconds["floor"] / REPEATS / at_once / seconds["wmjax"],
        "largest_gap_to_float32": float(gap),
    }
    told = {"seconds_tf32": seconds, "peak_device_bytes": held.get("peak_bytes_in_use")}
    return {Cell("consumer", "wmjax_tf32", name): value for name, value in found.items()}, told


def work(options: common.Options, observer: Any) -> Any:
    """Measure all; on an accelerator, sweeps alone."""
    devices.use_cores()
    started, full = time.monotonic(), options.size == "full"
    units, periods, plans, runs = (1024, 30, 1024, 9) if full else (32, 4, 32, 1)
    own, usual = problem(units, periods), problem(units, periods, DEFAULT)
    count = units * periods * plans
    at_once = (32 if jax.default_backend() == "cpu" else 1024) * BLOCK
    call, usual_call = peer(own), peer(usual, DEFAULT)
    gap = max(gap_to(own, call), gap_to(usual, usual_call))
    calls = {
        "wmjax": lambda: swept(own, plans),
        "floor": floor(at_once),
        "scikit-learn": call,
        "wmjax, default": lambda: swept(usual, plans),
        "floor, default": floor_of_default(at_once),
        "scikit-learn, default": usual_call,
    }
    if importlib.util.find_spec("econml") is not None:
        calls["econml"] = econml_peer(own)
    seconds = measure.interleaved(calls, runs=runs)
    least = count * seconds["floor"] / REPEATS / at_once
    scores = {
        Cell("consumer", "wmjax", "points_per_s"): count / seconds["wmjax"],
        Cell("consumer", "wmjax", "fraction_of_floor"): least / seconds["wmjax"],
        Cell("consumer", "wmjax", "ratio_to_loop"): plans * seconds["scikit-learn"] / seconds["wmjax"],
    }
    took, plain, least = (seconds[f"{name}, default"] for name in ("wmjax", "scikit-learn", "floor"))
    scores |= {
        Cell("consumer_default", "wmjax", "points_per_s"): count / took,
        Cell("consumer_default", "wmjax", "fraction_of_floor"): count * least / REPEATS / at_once / took,
        Cell("consumer_default", "wmjax", "ratio_to_loop"): plans * plain / took,
    }
    facts: dict[str, Any] = {"seconds": seconds, "largest_gap_to_scikit_learn": gap}
    if "econml" in seconds:
        scores[Cell("consumer", "wmjax", "ratio_to_econml_effect")] = plans * seconds["econml"] / seconds["wmjax"]
        facts["econml"] = f"LinearDML of econml {importlib.metadata.version('econml')}"
    if jax.default_backend() != "cpu":
        found, told = rounded(own, plans, count, at_once, runs)
        rows, took = common.summarise([scores | found]), time.monotonic() - started
        return common.write_result(options, "sweep", rows, seeds=[0], seconds=took, facts=facts | told)
    for power in (3, 5, 7) if full else (1, 2):
        found = apart([["--memory", 10**power]])[0]
        scores[Cell("consumer", "wmjax", f"peak_gb_1e{power}")] = found["peak"]
        facts[f"seconds_1e{power}"] = found["seconds"]
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            found = apart([["--share", i, workers, 65_536 if full else 256, folder] for i in range(workers)])
        facts[f"seconds_{workers}_workers"] = max(f["seconds"] for f in found)
    scores[Cell("consumer", "wmjax", "speedup_2_processes")] = facts["seconds_1_workers"] / facts["seconds_2_workers"]
    for name in KEPT:
        found, told = losing_nothing(name, options.size)
        scores |= found
        facts[name] = told
    rows = common.summarise([scores])
    seconds_all = time.monotonic() - started
    return common.write_result(options, "sweep", rows, seeds=[0], seconds=seconds_all, facts=facts)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        print(json.dumps(memory(int(sys.argv[2]))))
    elif sys.argv[1:2] == ["--life"]:
        devices.use_cores()
        name, size, place = sys.argv[2:]
        storing.tell(lambda say: kept_by(name, size, out=place, observer=say))
    elif sys.argv[1:2] == ["--share"]:
        print(json.dumps(share(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])))
    else:
        sys.exit(common.run("benchmarks.sweep", work))
