import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.core.errors import DivergedError
from wmjax.train import checkpoint, loop

KEY = jax.random.key(7)


def config(**given):
    return loop.LoopConfig(**{"epochs": 10, "save_seconds": 0.0, **given})


def stopped_at(values, *, mode, patience, min_delta, every=1):
    """Say in plain Python where early stopping ends and which epoch it keeps, both counted from 1."""
    best, best_at, stale = None, 0, 0
    for epoch, value in enumerate(values, 1):
        if epoch % every:
            continue
        gain = np.inf if best is None else (best - value) * (1 if mode == "min" else -1)
        if gain > min_delta:
            best, best_at, stale = value, epoch, 0
        else:
            stale += 1
        if patience is not None and stale >= patience:
            return epoch, best_at, stale
    return len(values), best_at, stale


@pytest.mark.parametrize(
    ("mode", "patience", "min_delta", "every"),
    [("min", 2, 0.0, 1), ("max", 3, 0.3, 1), ("min", None, 0.0, 1), ("max", 2, 0.0, 3), ("min", 1, 1.0, 2)],
)
def test_each_member_stops_and_keeps_its_best_as_plain_python_says(tiny, mode, patience, min_delta, every):
    table = np.random.default_rng(patience or 9).normal(size=(24, 5)).astype(np.float32)
    cfg = config(
        epochs=24,
        mode=mode,
        patience=patience,
        min_delta=min_delta,
        eval_every=every,
        monitor="loss" if every == 1 else "score",
    )
    events = []
    state, metrics = loop.run(
        KEY,
        tiny.table_state((5,)),
        tiny.table_epoch,
        cfg=cfg,
        data=table,
        evaluate=tiny.table_score,
        observer=events.append,
    )
    said = [stopped_at(table[:, m], mode=mode, patience=patience, min_delta=min_delta, every=every) for m in range(5)]
    ends, bests, stale = map(np.array, zip(*said, strict=True))
    assert state.model["at"].tolist() == ends.tolist()
    assert state.best_epoch.tolist() == bests.tolist()
    assert state.best["at"].tolist() == bests.tolist()
    assert state.stale.tolist() == stale.tolist()
    np.testing.assert_array_equal(state.best_value, table[bests - 1, range(5)])
    np.testing.assert_array_equal(state.best["seen"], table[bests - 1, range(5)])
    # The run ends with its last member; who stopped before has no numbers any more.
    assert int(state.epoch) == ends.max() == events[-1].done == events[-1].total
    resting = np.arange(1, ends.max() + 1)[:, None] > ends
    assert metrics["loss"].shape == (ends.max(), 5)
    np.testing.assert_array_equal(np.isnan(metrics["loss"]), resting)
    np.testing.assert_array_equal(metrics["loss"][~resting], table[: ends.max()][~resting])
    # Those that have stopped stay in the means on the screen, with their last number.
    for event in events[1:]:
        shown = table[np.minimum(event.done, ends) - 1, range(5)].mean()
        assert event.metrics["loss"] == pytest.approx(shown, rel=1e-5)


def test_patience_of_a_single_model_and_of_its_resumption(tiny, tmp_path, bits):
    table = np.array([5, 4, 3, 3.5, 3.6, 3.7, 2, 1], np.float32)[:, None]
    end, best, _ = stopped_at(table[:, 0], mode="min", patience=3, min_delta=0.0)
    assert (end, best) == (6, 3)
    cfg = {"monitor": "loss", "patience": 3}

    def run(epochs, folder):
        return loop.run(
            KEY, tiny.table_state(), tiny.table_epoch, cfg=config(epochs=epochs, **cfg), data=table, folder=folder
        )

    whole = run(8, tmp_path / "whole")
    assert (int(whole[0].model["at"]), int(whole[0].best["at"]), int(whole[0].epoch)) == (end, best, end)
    assert whole[1]["loss"].tolist() == table[:6, 0].tolist()
    run(5, tmp_path / "parts")
    assert bits(run(8, tmp_path / "parts")) == bits(whole)


def test_a_member_that_diverges_is_frozen_and_the_others_do_not_notice(tiny, bits):
    table = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    bad = table.copy()
    bad[3, 1], bad[5, 2] = np.nan, np.inf
    events = []

    def run(data):
        cfg = config(epochs=6, monitor="loss")
        return loop.run(KEY, tiny.table_state((4,)), tiny.table_epoch, cfg=cfg, data=data, observer=events.append)

    state, metrics = run(bad)
    calm, calm_metrics = run(table)
    assert state.diverged.tolist() == [False, True, True, False]
    assert state.model["at"].tolist() == [6, 3, 5, 6]
    assert state.best_epoch[1] == 1 + np.argmin(table[:3, 1])
    assert np.isnan(metrics["loss"]).sum(0).tolist() == [0, 3, 1, 0]
    for kept in (0, 3):

        def member(tree, kept=kept):
            return jax.tree.map(lambda x: x[kept], tree._replace(epoch=tree.epoch[None].repeat(4)))

        assert bits(member(state)) == bits(member(calm))
        assert bits(metrics["loss"][:, kept]) == bits(calm_metrics["loss"][:, kept])
    assert [e.metrics.get("diverged") for e in events[1:7]] == [None, None, None, 1.0, 1.0, 2.0]
    assert events[4].metrics["loss"] == pytest.approx(float(table[3, [0, 2, 3]].mean()))


def test_divergence_names_the_stage_the_epoch_and_the_checkpoint(tiny, tmp_path):
    table = np.array([3, 2, 1, np.inf, 1, 1], np.float32)[:, None]

    def run(folder, members=(), **given):
        data = np.repeat(table, 3, axis=1)
        loop.run(
            KEY,
            tiny.table_state(members),
            tiny.table_epoch,
            cfg=config(**given),
            data=data,
            stage="fine",
            folder=folder,
        )

    message = r"^fine: epoch 4 of 10: loss not finite; last good checkpoint .*checkpoints/2$"
    with pytest.raises(DivergedError, match=message):
        run(tmp_path / "a", save_every=2)
    rule = loop.Rule(tiny.table_epoch, None, loop.whole, "fine", (), None, "min", None, 0.0, 1)
    kept = checkpoint.restore(tmp_path / "a" / "checkpoints", loop.begin(tiny.table_state(), rule))
    assert int(kept.tree.model["at"]) == 2
    with pytest.raises(DivergedError, match=message):
        run(tmp_path / "a", save_every=2)
    with pytest.raises(DivergedError, match=r"epoch 4 of 4: .*checkpoints/3$"):
        run(tmp_path / "b", epochs=4)
    with pytest.raises(DivergedError, match=r"epoch 4 of 10: all 3 members diverged, loss .*there is no checkpoint"):
        run(None, (3,))


def test_parameters_that_are_not_finite_are_never_saved(tmp_path):
    def epoch(key, state, data):
        return {"w": jnp.where(data == state["n"], jnp.inf, 1.0), "n": state["n"] + 1}, {"loss": jnp.float32(0.5)}

    with pytest.raises(DivergedError, match=r"epoch 3 of 10: parameters not finite; last good checkpoint .*/2"):
        loop.run(KEY, {"w": jnp.ones(()), "n": jnp.array(0)}, epoch, cfg=config(), data=2, folder=tmp_path)


def test_an_evaluation_that_is_not_finite_counts_as_divergence(tiny):
    table = np.array([1, np.nan, np.nan, 1], np.float32)[:, None]

    def epoch(key, state, data):
        state, _ = tiny.table_epoch(key, state, data)
        return {**state, "seen": jnp.nan_to_num(state["seen"])}, {}

    def score(key, state, data):
        return {"score": data[state["at"] - 1, 0]}

    with pytest.raises(DivergedError, match="epoch 3 of 4: score not finite"):
        loop.run(KEY, tiny.table_state(), epoch, cfg=config(epochs=4, eval_every=3), data=table, evaluate=score)
