import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.dbm import batches


def test_an_epoch_deals_every_row_once_in_full_batches():
    order = np.asarray(batches.order(jax.random.key(0), 50, 8))
    assert order.shape == (6, 8)
    assert len(np.unique(order)) == 48
    assert order.min() >= 0
    assert order.max() < 50
    again = np.asarray(batches.order(jax.random.key(1), 50, 8))
    assert (order != again).any()


def test_without_shuffling_rows_come_in_order_and_few_rows_make_one_batch():
    np.testing.assert_array_equal(batches.order(jax.random.key(0), 7, 3, shuffle=False), [[0, 1, 2], [3, 4, 5]])
    assert batches.order(jax.random.key(0), 5, 128).shape == (1, 5)


@pytest.mark.parametrize("units", [1, 4, 7, 72])
@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.float32])
def test_rows_read_are_the_rows(units, dtype):
    rng = np.random.default_rng(0)
    data = rng.integers(0, 2, (20, units)).astype(dtype) if dtype != np.float32 else rng.normal(size=(20, units))
    index = np.array([3, 3, 0, 19])
    read = batches.reader(jnp.asarray(data, dtype), jnp.dtype(jnp.float32))
    rows = read(jnp.asarray(index))
    assert rows.dtype == jnp.float32
    np.testing.assert_array_equal(rows, data[index].astype(np.float32))
