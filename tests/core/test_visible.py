import numpy as np
import pytest

from wmjax.core.visible import Group, Visible


def test_pack_lays_groups_side_by_side():
    layer = Visible.pack([("age", "softmax", ("20s", "30s", "40s")), ("price", "gaussian", ("price",))])
    assert layer.size == 4
    assert layer.group("price").slice == slice(3, 4)
    assert layer.labels == ("20s", "30s", "40s", "price")
    assert not layer.all_bernoulli
    np.testing.assert_array_equal(layer.mask(["age"]), [True, True, True, False])


def test_a_gap_is_refused():
    with pytest.raises(ValueError, match="starts at unit 2, must start at 0"):
        Visible((Group(name="a", kind="bernoulli", start=2, labels=("x",)),))


def test_an_unknown_group_names_those_there_are():
    with pytest.raises(KeyError, match="age"):
        Visible.pack([("age", "softmax", ("20s", "30s"))]).group("agee")
