import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import ops

RNG = np.random.default_rng(2)
RETURNS = RNG.normal(3, 1, size=(8, 4)).astype("float32")
VALID = RNG.random((8, 4)) < 0.7
RETURNS[~VALID] = np.nan


def test_average_baseline():
    baseline = ops.average_baseline(RETURNS[VALID], np.ones(VALID.sum(), bool))
    np.testing.assert_allclose(baseline, np.full(VALID.sum(), RETURNS[VALID].mean()), rtol=1e-5)
    returns = np.where(VALID, RETURNS, 77.0)
    baseline = ops.average_baseline(returns, VALID)
    np.testing.assert_allclose(baseline, np.full((8, 4), RETURNS[VALID].mean()), rtol=1e-5)


def test_leave_one_out():
    baseline = ops.average_baseline(RETURNS, VALID, leave_one_out=True).numpy()
    for n in range(4):
        others = np.arange(4) != n
        expected = RETURNS[:, others][VALID[:, others]].mean()
        np.testing.assert_allclose(baseline[:, n], expected, rtol=1e-5)


def test_leave_one_out_of_one_is_zero():
    baseline = ops.average_baseline(tf.ones((5, 1)), tf.ones((5, 1), tf.bool), leave_one_out=True)
    np.testing.assert_array_equal(baseline, np.zeros((5, 1)))


@pytest.mark.parametrize("horizon", [1, 3, 8, 20])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_time_dependent_baseline(horizon, jit_compile):
    ends = RNG.random((8, 4)) < 0.3
    steps = ops.steps_in_episode(ends).numpy()
    b = np.zeros((8, 4))
    for t in range(8):
        for n in range(4):
            alike = np.minimum(steps, horizon - 1) == min(steps[t, n], horizon - 1)
            b[t, n] = RETURNS[alike & VALID].mean() if (alike & VALID).any() else 0.0
    function = tf.function(ops.time_dependent_baseline, jit_compile=jit_compile)
    np.testing.assert_allclose(function(RETURNS, steps, VALID, horizon), b, rtol=1e-5)


def test_horizon_below_one_is_refused():
    with pytest.raises(ValueError, match="`horizon` must be at least 1.*Received: horizon=0"):
        ops.time_dependent_baseline(RETURNS, np.zeros((8, 4), int), VALID, 0)
