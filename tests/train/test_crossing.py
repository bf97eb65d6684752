import jax
import numpy as np
import pytest

from wmjax.train import crossing

KEY = jax.random.key(3)


def test_every_seed_meets_every_value_and_every_subset():
    found = crossing.cross(KEY, seeds=2, hyper={"rate": (0.1, 0.2, 0.4), "depth": (1, 2)}, subsets=("a", "b"))
    assert found.labels.shape == (24, 4)
    assert not found.labels.duplicated().any()
    assert found.labels.columns.tolist() == ["seed", "rate", "depth", "subset"]
    assert [("a", "b")[at] for at in found.which] == found.labels["subset"].tolist()
    for name in ("rate", "depth"):
        np.testing.assert_allclose(found.hyper[name], found.labels[name], rtol=1e-6)
    keys = np.asarray(jax.random.key_data(found.key))
    for seed in (0, 1):
        own = keys[found.labels["seed"] == seed]
        assert (own == np.asarray(jax.random.key_data(jax.random.fold_in(KEY, seed)))).all()


def test_a_product_without_members_or_with_a_name_twice_is_refused():
    for given in ({"seeds": 0}, {"subsets": ()}, {"hyper": {"rate": ()}}):
        with pytest.raises(ValueError, match="make no member"):
            crossing.cross(KEY, **given)
    with pytest.raises(ValueError, match="'score'"):
        crossing.cross(KEY, hyper={"score": (1.0,)})


def test_ragged_subsets_are_padded_with_rows_of_no_weight():
    parts = [{"x": np.arange(2.0 * n).reshape(n, 2), "weight": np.ones(n)} for n in (3, 1, 2)]
    found = crossing.pad(parts)
    assert found["x"].shape == (3, 3, 2)
    assert found["weight"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    for at, part in enumerate(parts):
        n = len(part["weight"])
        np.testing.assert_array_equal(found["x"][at, :n], part["x"])
        assert not found["x"][at, n:].any()
    with pytest.raises(ValueError, match="subset 0 has leaves of"):
        crossing.pad([{"x": np.zeros((2, 2)), "weight": np.zeros(3)}])
