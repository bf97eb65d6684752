import numpy as np
import pytest

from wmjax.data import scaling


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    values = rng.normal(5, 3, (6, 20, 4)).astype(np.float32)
    values[..., 2] = 0.1
    values[..., 3] = 0
    train = np.zeros((6, 20), bool)
    train[:, :14] = rng.random((6, 14)) < 0.8
    return values, train


@pytest.mark.parametrize("fit", [scaling.fit_standard, scaling.fit_max])
def test_round_trip(data, fit):
    values, train = data
    scaler = fit(values, train)
    scaled = scaling.apply(scaler, values)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaling.invert(scaler, scaled), values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fit", [scaling.fit_standard, scaling.fit_max])
def test_only_train_rows_count(data, fit):
    values, train = data
    other = np.where(train[..., None], values, np.float32(1e6))
    for a, b in zip(fit(values, train), fit(other, train), strict=True):
        assert np.array_equal(a, b)
    moved = np.where(train[..., None], values * 2, values)
    assert fit(moved, train).scale[0] != fit(values, train).scale[0]


def test_standard_is_mean_and_deviation_of_train(data):
    values, train = data
    scaled = scaling.apply(scaling.fit_standard(values, train), values)[train]
    np.testing.assert_allclose(scaled[:, :2].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled[:, :2].std(axis=0), 1, rtol=1e-5)


def test_a_column_that_never_varies_has_scale_one(data):
    values, train = data
    assert scaling.fit_standard(values, train).scale[2:].tolist() == [1, 1]
    assert scaling.fit_standard(values, np.zeros_like(train)).scale.tolist() == [1] * 4


def test_max_keeps_zero_and_bounds_train_by_one(data):
    values, train = data
    scaler = scaling.fit_max(values, train)
    assert np.array_equal(scaling.apply(scaler, np.zeros_like(values)), np.zeros_like(values))
    scaled = np.abs(scaling.apply(scaler, values)[train]).max(axis=0)
    np.testing.assert_allclose(scaled, [1, 1, 1, 0], rtol=1e-6)
