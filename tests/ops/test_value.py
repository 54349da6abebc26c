import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import ops

RNG = np.random.default_rng(3)
VALUES, OLD_VALUES, RETURNS = RNG.normal(size=(3, 6, 4)).astype("float32")


def gradients(loss, *inputs):
    inputs = [tf.constant(x) for x in inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total = tf.reduce_sum(loss(*inputs))
    return tape.gradient(total, inputs)


def test_squared_error_and_its_gradient():
    np.testing.assert_allclose(ops.squared_error(VALUES, RETURNS), (VALUES - RETURNS) ** 2 / 2)
    to_values, to_returns = gradients(ops.squared_error, VALUES, RETURNS)
    np.testing.assert_allclose(to_values, VALUES - RETURNS, rtol=1e-6)
    assert to_returns is None


def test_clipped_squared_error_and_its_gradient():
    expected, slope = np.zeros((2, 6, 4))
    for index in np.ndindex(6, 4):
        v, old, target = VALUES[index], OLD_VALUES[index], RETURNS[index]
        clipped = min(max(v, old - 0.3), old + 0.3)
        plain_is_worse = (v - target) ** 2 >= (clipped - target) ** 2
        expected[index] = max((v - target) ** 2, (clipped - target) ** 2) / 2
        slope[index] = v - target if plain_is_worse or clipped == v else 0.0
    assert (slope == 0).any() and (slope != 0).any()
    loss = lambda *x: ops.clipped_squared_error(*x, value_clip=0.3)  # noqa: E731
    np.testing.assert_allclose(loss(VALUES, OLD_VALUES, RETURNS), expected, rtol=1e-5)
    to_values, to_old, to_returns = gradients(loss, VALUES, OLD_VALUES, RETURNS)
    np.testing.assert_allclose(to_values, slope, rtol=1e-5, atol=1e-6)
    assert to_old is None and to_returns is None


def test_no_clip_is_the_plain_error():
    clipped = ops.clipped_squared_error(VALUES, OLD_VALUES, RETURNS, 1e6)
    np.testing.assert_allclose(clipped, ops.squared_error(VALUES, RETURNS), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_explained_variance(masked):
    valid = RNG.random((6, 4)) < 0.6 if masked else np.ones((6, 4), bool)
    expected = 1 - (RETURNS - VALUES)[valid].var() / RETURNS[valid].var()
    returns = np.where(valid, RETURNS, np.nan)
    actual = ops.explained_variance(VALUES, returns, valid if masked else None)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_explained_variance_of_special_critics():
    assert ops.explained_variance(RETURNS, RETURNS) == 1.0
    np.testing.assert_allclose(ops.explained_variance(0 * RETURNS + 5, RETURNS), 0.0, atol=1e-5)
    np.testing.assert_allclose(ops.explained_variance(-RETURNS, RETURNS), -3.0, rtol=1e-5)
    assert ops.explained_variance(VALUES, 0 * RETURNS + 100.1) == 0.0
    assert ops.explained_variance(VALUES, RETURNS, np.zeros((6, 4), bool)) == 0.0


@pytest.mark.parametrize("size", [1e14, 1e19, 3e37])
def test_explained_variance_of_huge_returns(size):
    """The square of 1e20 is not a float32."""
    size = np.float32(size)
    expected = ops.explained_variance(VALUES, RETURNS)
    np.testing.assert_allclose(ops.explained_variance(VALUES * size, RETURNS * size), expected, rtol=1e-4)
