import os
import resource
from contextlib import contextmanager
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wmjax.core.errors import UserError
from wmjax.train import checkpoint


class Pair(NamedTuple):
    left: object
    right: object


@contextmanager
def no_room(limit=400):
    """No file may grow beyond `limit` bytes: what a full disk does to a write, for real."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def tree():
    params = {"w": jnp.linspace(-1, 1, 12).reshape(4, 3), "layers": (jnp.ones(2, jnp.bfloat16), jnp.zeros(()))}
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.partition({"a": optax.adamw(1e-3), "b": optax.set_to_zero()}, {"w": "a", "layers": "b"}),
        optax.inject_hyperparams(optax.sgd)(learning_rate=0.1, momentum=0.9),
    )
    opt = tx.init(params)
    _, opt = tx.update(jax.tree.map(lambda x: x * 0.3 + 0.1, params), opt, params)
    return {
        "params": params,
        "opt": opt,
        "keys": Pair(jax.random.key(3), jax.random.split(jax.random.key(4, impl="rbg"), 5)),
        "bits": jnp.array([True, False]),
        "strange": jnp.array([np.nan, -0.0, np.inf, 1e-45]),
        "empty": (jnp.zeros((0, 3)), None, ()),
        "host": (np.arange(3, dtype=np.int64), np.float64(0.1), 7, 0.25, True),
    }


def test_every_leaf_returns_bit_by_bit_as_what_it_was(tree, tmp_path, bits):
    checkpoint.save(tmp_path, 12, tree, {"name": "ä", "list": [1, None]})
    found = checkpoint.restore(tmp_path, tree)
    assert found.step == 12
    assert found.host == {"name": "ä", "list": [1, None]}
    assert bits(found.tree) == bits(tree)
    assert isinstance(found.tree["keys"], Pair)
    assert type(found.tree["opt"][0]) is type(tree["opt"][0])


def test_shapes_alone_are_enough_to_restore_into(tmp_path, bits):
    tree = Pair(jnp.arange(6.0).reshape(2, 3), (jax.random.key(1), jnp.zeros((0, 2))))
    checkpoint.save_tree(tmp_path / "world", tree)
    assert bits(checkpoint.load_tree(tmp_path / "world", jax.eval_shape(lambda: tree))) == bits(tree)


def test_arrays_return_to_the_sharding_that_is_asked_for(tmp_path):
    sharding = jax.sharding.NamedSharding(jax.make_mesh((1,), ("x",)), jax.sharding.PartitionSpec("x"))
    free = {"x": jnp.arange(4.0), "key": jax.random.key(0)}
    checkpoint.save_tree(tmp_path / "a", free)
    bound = jax.device_put(jnp.zeros(4), sharding)
    for like in (bound, jax.ShapeDtypeStruct((4,), jnp.float32, sharding=sharding)):
        found = checkpoint.load_tree(tmp_path / "a", {**free, "x": like})["x"]
        assert (found.sharding, found.committed) == (sharding, True)
    # What is free stays free: bound arrays would make a resumed run compile another program.
    assert not any(x.committed for x in jax.tree.leaves(free))
    assert not any(x.committed for x in jax.tree.leaves(checkpoint.load_tree(tmp_path / "a", free)))


def test_only_the_last_ones_are_kept(tmp_path):
    for step in (1, 2, 10, 9):
        checkpoint.save(tmp_path, step, {"x": jnp.full(3, step)}, keep=3)
    assert checkpoint.steps(tmp_path) == (2, 9, 10)
    assert checkpoint.latest(tmp_path) == 10
    assert checkpoint.restore(tmp_path, {"x": jnp.zeros(3, int)}).tree["x"].tolist() == [10, 10, 10]


def test_what_an_interrupted_save_left_is_ignored_and_removed(tmp_path):
    checkpoint.save(tmp_path, 1, {"x": jnp.ones(3)})
    left = tmp_path / ".2.abc.part" / "tree"
    left.mkdir(parents=True)
    (left / "half").write_text("ha")
    assert checkpoint.latest(tmp_path) == 1
    assert checkpoint.restore(tmp_path, {"x": jnp.zeros(3)}).step == 1
    checkpoint.save(tmp_path, 2, {"x": jnp.ones(3)})
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]


def test_a_write_that_fails_leaves_the_last_good_checkpoint(tmp_path, bits, capfd):
    tree = {"x": jax.random.normal(jax.random.key(0), (20_000,))}
    checkpoint.save(tmp_path, 4, tree)
    with no_room(), pytest.raises(UserError, match=r"could not save .*the last good one is .*/4$"):
        checkpoint.save(tmp_path, 5, tree)
    assert checkpoint.steps(tmp_path) == (4,)
    assert bits(checkpoint.restore(tmp_path, tree).tree) == bits(tree)
    checkpoint.save(tmp_path, 5, tree)
    assert sorted(os.listdir(tmp_path)) == ["4", "5"]
    assert capfd.readouterr().err == ""  # the reason stands in the error, once


def test_a_failed_first_save_says_that_there_is_none(tmp_path):
    with no_room(), pytest.raises(UserError, match="there is no earlier one"):
        checkpoint.save(tmp_path, 1, {"x": jax.random.normal(jax.random.key(0), (20_000,))})
    assert checkpoint.latest(tmp_path) is None
    with pytest.raises(UserError, match="no checkpoint"):
        checkpoint.restore(tmp_path, {"x": jnp.zeros(20_000)})


@pytest.mark.parametrize("damage", ["tree", "about"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, damage):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"x": jnp.full(3, step)})
    if damage == "about":
        (tmp_path / "2" / "about.json").write_text('{"host"')
    else:
        for file in (tmp_path / "2" / "tree").rglob("*"):
            if file.is_file():
                file.write_bytes(b"")
    like = {"x": jnp.zeros(3, int)}
    found = checkpoint.restore(tmp_path, like)
    assert (found.step, found.tree["x"].tolist()) == (1, [1, 1, 1])
    checkpoint.save(tmp_path, 2, {"x": jnp.full(3, 7)})
    assert checkpoint.restore(tmp_path, like).tree["x"].tolist() == [7, 7, 7]
    for step in ("1", "2"):
        (tmp_path / step / "about.json").unlink()
    with pytest.raises(UserError, match=r"no checkpoint of \[1, 2\] can be read"):
        checkpoint.restore(tmp_path, like)


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"x": jnp.zeros((3, 2))}, r"holds leaf x float32\[2, 3\] where x float32\[3, 2\]"),
        ({"x": jnp.zeros((2, 3), jnp.bfloat16)}, r"x float32\[2, 3\] where x bfloat16"),
        ({"y": jnp.zeros((2, 3))}, r"holds leaf x .* where y "),
        ({"x": jnp.zeros((2, 3)), "z": jnp.zeros(1)}, "holds 1 leaves where 2 are expected"),
    ],
)
def test_another_models_checkpoint_is_refused_by_the_name_of_the_leaf(tmp_path, like, message):
    checkpoint.save(tmp_path, 1, {"x": jnp.zeros((2, 3))})
    with pytest.raises(UserError, match=message):
        checkpoint.restore(tmp_path, like)


def test_a_saved_tree_is_replaced_whole(tmp_path, bits):
    path = tmp_path / "deep" / "params"
    big = {"x": jax.random.normal(jax.random.key(0), (20_000,))}
    checkpoint.save_tree(path, big)
    with no_room(), pytest.raises(UserError, match="could not be saved"):
        checkpoint.save_tree(path, jax.tree.map(lambda x: x + 1, big))
    assert bits(checkpoint.load_tree(path, big)) == bits(big)
    checkpoint.save_tree(path, {"y": jnp.ones(2)})
    assert checkpoint.load_tree(path, {"y": jnp.zeros(2)})["y"].tolist() == [1, 1]
    assert os.listdir(tmp_path / "deep") == ["params"]


def test_a_missing_tree_is_the_users_to_mend(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        checkpoint.load_tree(tmp_path / "nothing", {"y": jnp.zeros(2)})
