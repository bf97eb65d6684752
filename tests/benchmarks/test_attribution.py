"""The attribution benchmark compares like with like: the same plans, the same answers, evaluations counted."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from benchmarks import attribution as benchmark
from wmjax.evaluate import attribution
from wmjax.worlds.media import model as pure


@pytest.mark.parametrize("head", ["response", "free"])
def test_the_program_and_the_loop_answer_the_same_plans(head):
    size = benchmark.SMOKE[head]
    p = benchmark.problem(size)
    want = benchmark.loop(p, cfg=size.cfg)
    for method in [benchmark.batched] + [benchmark.separable] * (head == "response"):
        got = method(p, cfg=size.cfg)
        for name in ("zero", "none", "factual", "curve"):
            # Differences of sums over weeks of outcomes of 100.
            np.testing.assert_allclose(
                getattr(got, name), getattr(want, name), rtol=1e-4, atol=1e-5 * want.factual.max()
            )
    assert np.ptp(want.zero) > 0


@pytest.mark.parametrize("head", ["response", "free"])
def test_evaluations_are_those_that_are_made(head, monkeypatch):
    """The loop's calls of the model, and what the program's own scan runs over: the same number."""
    size = benchmark.SMOKE[head]
    p, calls, rows = benchmark.problem(size), [], []
    monkeypatch.setattr(benchmark, "scenario", lambda *args, **options: calls.append(1) or np.zeros(size.geos))
    benchmark.loop(p, cfg=size.cfg)
    assert len(calls) == benchmark.evaluations(size, "loop") == benchmark.evaluations(size, "batched")
    real = jax.lax.map

    def mapped(fn, xs, **options):
        rows.append(len(jax.tree.leaves(xs)[0]))
        return real(fn, xs, **options)

    monkeypatch.setattr(attribution.jax.lax, "map", mapped)
    one = jax.tree.map(lambda x: x[0], p.members)
    respond = lambda own, x: pure.respond(own, p.history, x, 0, cfg=size.cfg)  # noqa: E731
    jax.eval_shape(lambda: attribution.attribute(respond, one, p.plan, p.over, p.grid, chunk=3))
    assert size.members * rows[0] == benchmark.evaluations(size, "batched")
    if head == "response":
        terms = lambda own, x: pure.terms(own, p.history, x, cfg=size.cfg)  # noqa: E731
        jax.eval_shape(lambda: attribution.attribute_terms(terms, one, p.plan, p.over, p.grid, chunk=3))
        assert size.members * rows[-1] == benchmark.evaluations(size, "separable")
