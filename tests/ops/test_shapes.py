import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import ops

RNG = np.random.default_rng(0)


def test_check_same_shape_refuses_broadcasting():
    with pytest.raises(ValueError, match=r"`values` and `returns` must have the same shape.*"):
        ops.check_same_shape(values=tf.zeros((4, 1)), returns=np.zeros(4))
    ops.check_same_shape(values=tf.zeros((4, 1)), returns=np.zeros((4, 1)), valid=None)


def test_check_same_shape_at_trace_time():
    @tf.function(input_signature=[tf.TensorSpec((None, 1)), tf.TensorSpec((None,))])
    def difference(values, returns):
        ops.check_same_shape(values=values, returns=returns)
        return values - returns

    with pytest.raises(ValueError, match="must have the same shape"):
        difference.get_concrete_function()


def test_check_same_shape_lets_unknown_dimensions_pass():
    @tf.function(input_signature=[tf.TensorSpec((None, 2)), tf.TensorSpec((5, None))])
    def total(x, y):
        ops.check_same_shape(x=x, y=y)
        return x + y

    assert total(tf.ones((5, 2)), tf.ones((5, 2))).shape == (5, 2)


PAIRWISE = {
    "clipped_objective": lambda x, y: ops.clipped_objective(x, y, 0.2),
    "clipped_squared_error": lambda x, y: ops.clipped_squared_error(x, x, y, 0.2),
    "discounted_accumulator": lambda x, y: ops.discounted_accumulator(x, y > 0, 0.9, x[0]),
    "discounted_sum": lambda x, y: ops.discounted_sum(x, y > 0, 0.9),
    "explained_variance": ops.explained_variance,
    "gae": lambda x, y: ops.gae(x, y, x, x > 0, x > 0, 0.9, 0.9),
    "importance_objective": ops.importance_objective,
    "importance_ratio": ops.importance_ratio,
    "kl_k1": ops.kl_k1,
    "kl_k2": ops.kl_k2,
    "kl_k3": ops.kl_k3,
    "masked_mean": lambda x, y: ops.masked_mean(x, y > 0),
    "n_step_advantages": lambda x, y: ops.n_step_advantages(x, x, x, x > 0, y > 0, 0.9, 2),
    "rewards_to_go": lambda x, y: ops.rewards_to_go(x, y, x > 0, x > 0, 0.9),
    "score_function_objective": ops.score_function_objective,
    "squared_error": ops.squared_error,
    "standardize": lambda x, y: ops.standardize(x, y > 0),
    "td_errors": lambda x, y: ops.td_errors(x, y, x, x > 0, 0.9),
    "whole_returns": lambda x, y: ops.whole_returns(x, x, x > 0, y > 0, 0.9),
}


@pytest.mark.parametrize("name", PAIRWISE)
def test_a_last_axis_left_on_is_refused(name):
    with pytest.raises(ValueError, match="must have the same shape"):
        PAIRWISE[name](tf.zeros((6, 1)), tf.zeros((6,)))


def test_flatten_time():
    x = np.arange(24).reshape(2, 3, 4)
    flat = ops.flatten_time({"x": tf.constant(x), "rest": (tf.constant(x[..., 0]),)})
    np.testing.assert_array_equal(flat["x"], x.reshape(6, 4))
    np.testing.assert_array_equal(flat["rest"][0], x[..., 0].reshape(6))
    unknown = tf.TensorSpec([None, None, None], tf.int64)
    for signature in (None, [unknown]):
        flatten = tf.function(ops.flatten_time, input_signature=signature)
        np.testing.assert_array_equal(flatten(tf.constant(x)), x.reshape(6, 4))


def test_masked_mean():
    x = RNG.normal(size=(5, 4)).astype("float32")
    valid = RNG.random((5, 4)) < 0.6
    x[~valid] = np.nan
    np.testing.assert_allclose(ops.masked_mean(x, valid), x[valid].mean(), rtol=1e-5)
    np.testing.assert_allclose(ops.masked_mean(x[:1, :1] * 0 + 2.0, [[True]]), 2.0)
    assert ops.masked_mean(x, np.zeros_like(valid)) == 0.0
    np.testing.assert_allclose(ops.masked_mean(tf.constant([1.0, 2.0])), 1.5)


def test_masked_mean_gives_no_gradient_to_invalid_rows():
    x = tf.constant([1.0, 2.0, 3.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        mean = ops.masked_mean(x, tf.constant([True, False, True]))
    np.testing.assert_allclose(tape.gradient(mean, x), [0.5, 0.0, 0.5])


@pytest.mark.parametrize("features", [(), (3,), (2, 2)])
def test_masked_moments(features):
    x = RNG.normal(5, 2, size=(6, 4, *features)).astype("float32")
    valid = RNG.random((6, 4)) < 0.5
    x[~valid] = np.nan
    mean, variance, count = ops.masked_moments(x, valid)
    np.testing.assert_allclose(mean, x[valid].mean(0), rtol=1e-5)
    np.testing.assert_allclose(variance, x[valid].var(0), rtol=1e-5)
    assert count == valid.sum()


def test_masked_moments_without_mask_and_without_rows():
    x = RNG.normal(size=(6, 4)).astype("float32")
    mean, variance, count = ops.masked_moments(x)
    np.testing.assert_allclose([mean, variance, count], [x.mean(), x.var(), 24], rtol=1e-5)
    assert [float(m) for m in ops.masked_moments(x, np.zeros((6, 4), bool))] == [0, 0, 0]
    with pytest.raises(ValueError, match="`valid` must have the leading axes"):
        ops.masked_moments(x, np.zeros((4, 6), bool))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("size", [1, 3, 777, 2048])
def test_a_constant_has_no_variance_and_standardizes_to_zero(size, jit_compile):
    """The naive float32 mean of 777 times 100.1 is off, and (x - mean) / std would be +-1."""
    x = tf.fill((size,), 100.1)
    standard = tf.function(ops.standardize, jit_compile=jit_compile)(x)
    np.testing.assert_array_equal(standard, np.zeros(size))


def test_standardize():
    x = RNG.normal(3, 20, size=(50, 4)).astype("float32")
    valid = RNG.random((50, 4)) < 0.7
    standard = ops.standardize(x, valid).numpy()
    expected = np.where(valid, (x - x[valid].mean()) / x[valid].std(), 0.0)
    np.testing.assert_allclose(standard, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ops.standardize(1e-3 * x, valid), standard, atol=1e-4)
    np.testing.assert_array_equal(ops.standardize(x, np.zeros_like(valid)), 0 * x)


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e14, 1e19, 3e37])
def test_standardize_at_every_size(size):
    """The square of 1e20 is not a float32."""
    x = RNG.normal(size=(50, 4)).astype("float32")
    valid = RNG.random((50, 4)) < 0.7
    expected = ops.standardize(x, valid)
    dirty = np.where(valid, x * np.float32(size), np.float32("inf"))
    for jit_compile in (False, True):
        standard = tf.function(ops.standardize, jit_compile=jit_compile)(dirty, valid, epsilon=1e-30)
        np.testing.assert_allclose(standard, expected, rtol=1e-4, atol=1e-5)


NOISE = RNG.normal(size=(50, 4)).astype("float32")
RETURNS = RNG.normal(2.0, 1.0, size=(50, 4)).astype("float32")
VALID = RNG.random((50, 4)) < 0.7


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("floor", [1e-3, 0.1])
def test_advantages_below_the_floor_are_divided_by_it(floor, jit_compile):
    noise = np.where(VALID, 1e-5 * NOISE, np.nan)
    returns = np.where(VALID, RETURNS, np.inf)  # What is not valid does not count.
    standardize = tf.function(ops.standardize, jit_compile=jit_compile)
    standard = standardize(noise, VALID, returns=returns, floor=floor)
    rms = np.sqrt(np.mean(RETURNS[VALID].astype("float64") ** 2))
    expected = np.where(VALID, (noise - noise[VALID].mean()) / (floor * rms), 0.0)
    np.testing.assert_allclose(standard, expected, rtol=1e-4, atol=1e-7)


def test_what_a_solved_task_leaves_is_not_amplified():
    """2.5e-6 beside returns of 0.95, measured on MiniGrid-Empty-5x5, is scaled to 1 without a floor."""
    noise, returns = 2.5e-6 * NOISE, np.full((50, 4), 0.95, "float32")
    assert np.std(ops.standardize(noise)) == pytest.approx(1.0, rel=1e-3)
    assert np.std(ops.standardize(noise, returns=returns)) < 3e-3


def test_a_floor_below_the_deviation_changes_no_bit():
    for advantages, mean in ((NOISE, None), (0.003 * NOISE, 0.1 * RETURNS)):
        without = ops.standardize(advantages, VALID, mean)
        np.testing.assert_array_equal(ops.standardize(advantages, VALID, mean, returns=RETURNS), without)
        np.testing.assert_array_equal(ops.standardize(advantages, VALID, mean, returns=0 * RETURNS), without)


@pytest.mark.parametrize("size", [1e-3, 1e3, 1e14, 1e20, 3e34])
@pytest.mark.parametrize("share", [1e-4, 1.0])
def test_the_floor_knows_no_scale_of_rewards(share, size):
    plain, scaled = (
        ops.standardize(unit * share * NOISE, VALID, returns=unit * RETURNS) for unit in np.float32([1.0, size])
    )
    np.testing.assert_allclose(scaled, plain, rtol=1e-4, atol=1e-6)


def test_moments_in_float64():
    x = 1e6 + 1e-4 * RNG.normal(size=(6, 4, 3))
    valid = RNG.random((6, 4)) < 0.5
    mean, variance, count = ops.masked_moments(tf.constant(x), valid)
    assert mean.dtype == variance.dtype == count.dtype == tf.float64
    np.testing.assert_allclose(mean, x[valid].mean(0), rtol=1e-14)
    np.testing.assert_allclose(variance, x[valid].var(0), rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("shape", [(), (3,), (4, 1), (5, 7), (2, 3, 4)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_magnitudes_are_finite_where_all_is(dtype, shape, jit_compile):
    magnitudes = tf.function(ops.magnitudes, autograph=False, jit_compile=jit_compile)
    largest = np.full(shape, tf.as_dtype(dtype).max.astype("float64"))
    for sign in (-1.0, 1.0):
        assert np.isfinite(magnitudes(tf.constant(sign * largest, dtype))).all()
    for bad in (np.nan, np.inf, -np.inf):
        for place in np.ndindex(shape):
            broken = largest.copy()
            broken[place] = bad
            assert not np.isfinite(magnitudes(tf.constant(broken, dtype))).all()
