import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.core import devices, files
from wmjax.core.errors import UserError
from wmjax.core.keys import key_for
from wmjax.train import checkpoint, loop

KEY = jax.random.key(7)


def config(**given):
    return loop.LoopConfig(**{"epochs": 10, "save_seconds": 0.0, **given})


SCORE = {"monitor": "score", "eval_every": 2, "patience": 50}


@pytest.fixture(scope="module")
def train(tiny):
    """Run the small model; everything but the named settings is the same in all tests, so it is compiled once."""
    data = tiny.make_data()

    def run(cfg, **given):
        given = {"state": tiny.init(key_for(KEY, "init"), 0.05), "key": KEY, **given}
        return loop.run(
            given.pop("key"),
            given.pop("state"),
            tiny.epoch,
            cfg=cfg,
            data=data,
            evaluate=tiny.evaluate,
            snapshot=tiny.averaged,
            **given,
        )

    return run


def test_a_resumed_run_equals_an_undisturbed_one_bit_by_bit(train, tmp_path, bits):
    whole, metrics = train(config(epochs=10, **SCORE), folder=tmp_path / "whole")
    for part in (3, 4, 9):
        folder = tmp_path / str(part)
        train(config(epochs=part, **SCORE), folder=folder)
        again, resumed = train(config(epochs=10, **SCORE), folder=folder)
        assert bits(again) == bits(whole)
        assert bits(resumed) == bits(metrics)
        assert (folder / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    unsaved, metrics_unsaved = train(config(epochs=10, **SCORE))
    assert bits(unsaved) == bits(whole)
    assert bits(metrics_unsaved) == bits(metrics)
    assert np.isnan(metrics["score"]).tolist() == [True, False] * 5
    assert int(whole.best_epoch) == 1 + np.nanargmin(metrics["score"])
    assert float(whole.best_value) == np.nanmin(metrics["score"])
    # The key in the state and the random chain were used, so their being equal says something.
    assert len(set(metrics["chain"].tolist())) == 10


def test_a_finished_run_is_only_read(train, tmp_path, bits, monkeypatch):
    events = []
    state, metrics = train(config(epochs=4), folder=tmp_path)
    monkeypatch.setattr(loop, "advance", None)
    again, read = train(config(epochs=4), folder=tmp_path, observer=events.append)
    assert bits((again, read)) == bits((state, metrics))
    assert [(e.done, e.total) for e in events] == [(4, 4)]


def test_metrics_after_the_checkpoint_do_not_stand_twice(train, tmp_path, bits):
    cfg = config(epochs=8, save_every=3)

    class Killed(BaseException):
        pass

    def kill(event):
        if event.done == 5:
            raise Killed

    with pytest.raises(Killed):
        train(cfg, folder=tmp_path, observer=kill)
    log = tmp_path / "metrics.jsonl"
    assert checkpoint.steps(tmp_path / "checkpoints") == (3,)
    assert len(log.read_text().splitlines()) == 5
    with log.open("a") as file:
        file.write('{"epoch": 6, "loss": 0.')
    (tmp_path / ".metrics.jsonl.abc.part").write_text("left by a kill while the file was cut")
    state, metrics = train(cfg, folder=tmp_path)
    whole, expected = train(cfg)
    assert bits((state, metrics)) == bits((whole, expected))
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "checkpoints", "metrics.jsonl"]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 9))
    assert [np.float32(line["loss"]) for line in lines] == expected["loss"].tolist()


def test_a_full_disk_stops_with_the_last_good_checkpoint_usable(train, tmp_path, bits, monkeypatch):
    cfg = config(epochs=6, save_every=2)
    write = checkpoint._write

    def full(path, *args):
        if path.name == "4":
            raise OSError(28, "No space left on device")
        write(path, *args)

    monkeypatch.setattr(checkpoint, "_write", full)
    with pytest.raises(UserError, match=r"No space left on device.*last good one is .*checkpoints/2$"):
        train(cfg, folder=tmp_path)
    monkeypatch.undo()
    assert bits(train(cfg, folder=tmp_path)) == bits(train(cfg))


def test_the_program_is_traced_once_for_all_runs(tiny, bits):
    traces = []

    def epoch(key, state, data):
        traces.append("epoch")
        return tiny.epoch(key, state, data)

    def evaluate(key, state, data):
        traces.append("evaluate")
        return tiny.evaluate(key, state, data)

    state, data = tiny.init(KEY, 0.05), tiny.make_data()
    runs = [
        loop.run(KEY, state, epoch, cfg=config(epochs=n), data=data, evaluate=evaluate, stage="once") for n in (2, 4)
    ]
    # Data are arguments: other numbers, other results, the same program.
    other = loop.run(KEY, state, epoch, cfg=config(epochs=2), data=tiny.make_data(1), evaluate=evaluate, stage="once")
    assert traces == ["epoch", "evaluate"]
    assert other[1]["loss"][0] != runs[0][1]["loss"][0]
    assert bits(runs[0][1]["loss"]) == bits(runs[1][1]["loss"][:2])


def test_devices_that_work_together_change_nothing(train, bits):
    """Every device holds all of it; what comes back is bound to none."""
    alone, rows = train(config())
    state, metrics = train(config(), share=devices.mesh(2))
    assert bits(state) == bits(alone)
    np.testing.assert_array_equal(metrics["loss"], rows["loss"])
    assert all(not x.committed for x in jax.tree.leaves(state))
    with pytest.raises(ValueError, match="mesh and as share"):
        train(config(), mesh=devices.mesh(2), share=devices.mesh(2))


def test_the_callers_state_survives_and_best_is_a_copy(tiny, train):
    state = tiny.init(KEY, 0.05)
    before = jax.tree.map(lambda x: np.asarray(jax.random.key_data(x)) if x is state.key else np.asarray(x), state)
    trained, _ = train(config(epochs=3, **SCORE), state=state)
    np.testing.assert_array_equal(state.params["w"], before.params["w"])
    np.testing.assert_array_equal(jax.random.key_data(state.key), before.key)
    leaves = jax.tree.leaves((trained.model._replace(key=None), trained.best, state.params))
    pointers = [x.unsafe_buffer_pointer() for x in leaves]
    assert len(set(pointers)) == len(pointers)
    # With the last parameters as the best, both have equal values and still their own buffers.
    trained, _ = train(config(epochs=3))
    np.testing.assert_array_equal(trained.best["w"], trained.model.average["w"])
    assert trained.best["w"].unsafe_buffer_pointer() != trained.model.average["w"].unsafe_buffer_pointer()


def test_each_epoch_is_reported_while_the_next_one_runs(train, monkeypatch):
    order = []
    advance = loop.advance

    def noted(key, state, *args, **kwargs):
        order.append("send")
        return advance(key, state, *args, **kwargs)

    monkeypatch.setattr(loop, "advance", noted)
    _, metrics = train(config(epochs=3), observer=order.append)
    assert [x if x == "send" else x.done for x in order] == [0, "send", "send", 1, "send", 2, 3]
    events = [x for x in order if x != "send"]
    assert {(e.stage, e.total, e.unit) for e in events} == {("train", 3, "epoch")}
    assert [e.metrics.get("loss") for e in events] == [None, *metrics["loss"].tolist()]


def test_every_epoch_and_every_evaluation_has_its_named_key(tiny):
    def evaluate(key, state, data):
        return {"drawn": jax.random.uniform(key)}

    given = {"cfg": config(epochs=3), "data": np.ones((3, 1)), "evaluate": evaluate, "stage": "s"}
    state, metrics = loop.run(KEY, tiny.table_state(), tiny.table_epoch, **given)
    np.testing.assert_array_equal(jax.random.key_data(state.model["key"]), jax.random.key_data(key_for(KEY, "s", 2)))
    drawn = [jax.random.uniform(key_for(KEY, "s/evaluate", epoch)) for epoch in range(3)]
    np.testing.assert_array_equal(metrics["drawn"], np.array(drawn))


def test_a_folder_in_which_another_trains_is_refused_and_left_as_it_is(train, tmp_path):
    with files.alone(tmp_path), pytest.raises(UserError, match="another process is training here"):
        train(config(epochs=3, **SCORE), folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    train(config(epochs=3, **SCORE), folder=tmp_path)
    assert (tmp_path / "metrics.jsonl").exists()


def test_a_folder_of_another_run_is_refused(train, tiny, tmp_path):
    train(config(epochs=1), folder=tmp_path, fingerprint="abc")
    with pytest.raises(UserError, match="holds a run whose fingerprint is 'abc', not 'abd'"):
        train(config(epochs=2), folder=tmp_path, fingerprint="abd")
    with pytest.raises(UserError, match="holds a run whose key"):
        train(config(epochs=2), folder=tmp_path, fingerprint="abc", key=jax.random.key(8))
    with pytest.raises(UserError, match="holds a run whose stage is 'train', not 'fine'"):
        train(config(epochs=2), folder=tmp_path, fingerprint="abc", stage="fine")
    with pytest.raises(UserError, match=r"holds leaf .* where .* is expected"):
        loop.run(KEY, tiny.table_state(), tiny.table_epoch, cfg=config(), data=np.ones((10, 1)), folder=tmp_path)


def test_saving_waits_for_its_seconds_and_its_epochs(train, tmp_path, monkeypatch):
    now, saved = [0.0], []
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoint, "save", lambda folder, step, *args, **kwargs: saved.append(step))

    def tick(event):
        now[0] += 1.0

    train(config(epochs=11, save_seconds=3.0, save_every=2), folder=tmp_path, observer=tick)
    assert saved == [4, 8, 11]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"save_seconds": -1.0}, "save_seconds is -1.0"),
        ({"min_delta": float("nan")}, "min_delta is nan"),
        ({"patience": 3}, "patience is 3: .* needs a monitor"),
        ({"patience": 0, "monitor": "loss"}, "patience is 0"),
    ],
)
def test_settings_are_checked(given, message):
    with pytest.raises(ValueError, match=message):
        loop.LoopConfig(**given)


def _ok(key, state, data):
    return state, {"loss": jnp.zeros(())}


@pytest.mark.parametrize(
    ("epoch", "given", "message"),
    [
        (_ok, {"cfg": {"monitor": "los"}}, r"monitor is 'los', must be one of \['loss'\]"),
        (_ok, {"evaluate": lambda k, s, d: {"loss": 0.0}}, r"metrics \['loss'\] come from the epoch and from"),
        (lambda k, s, d: (s, {"epoch": 0.0}), {}, "a metric is named 'epoch'"),
        (lambda k, s, d: (s, {"a": jnp.ones(3), "b": jnp.ones(2)}), {}, "metrics have shapes"),
        (lambda k, s, d: (s, {"a": jnp.ones((3, 2))}), {}, "metrics have shapes"),
        (lambda k, s, d: (s, {"a": jnp.ones(3)}), {}, r"state\['w'\] has shape \(2,\), must start with \(3,\)"),
        (lambda k, s, d: ({"w": s["w"][:1]}, {}), {}, r"epoch_fn turns state\['w'\] from"),
        (lambda k, s, d: ({"w": s["w"] > 0}, {}), {}, r"epoch_fn turns state\['w'\] from"),
        (lambda k, s, d: ({"v": s["w"]}, {}), {}, "epoch_fn returns PyTreeDef"),
        (_ok, {"key": jax.random.split(KEY, 2)}, r"key has shape \(2,\), must be one key"),
    ],
)
def test_functions_that_do_not_fit_are_refused_before_the_first_epoch(epoch, given, message):
    given = {"key": KEY, **given}
    cfg = config(**given.pop("cfg", {}))
    with pytest.raises(ValueError, match=message):
        loop.run(given.pop("key"), {"w": jnp.ones(2)}, epoch, cfg=cfg, **given)


def test_a_score_that_would_never_be_measured_is_refused():
    cfg = config(epochs=3, eval_every=4, monitor="score")
    with pytest.raises(ValueError, match="eval_every is 4 with 3 epochs: score is never measured"):
        loop.run(KEY, {"w": jnp.ones(2)}, _ok, cfg=cfg, evaluate=lambda k, s, d: {"score": s["w"].sum()})
