import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import ops

RNG = np.random.default_rng(2)
RETURNS = RNG.normal(3, 1, size=(8, 4)).astype("float32")
VALID = np.ones((8, 4), bool)
VALID[5:, 1] = VALID[0, 2] = VALID[3, 3] = False
RETURNS[~VALID] = np.nan
ENDED = RNG.random((8, 4)) < 0.5
ENDED[:, 0] = False  # One trajectory is longer than all others.
ENDS = ops.episode_ends(ENDED, np.zeros((8, 4), bool), VALID).numpy()


def trajectories():
    """Rows and columns of each trajectory."""
    found = []
    for n in range(4):
        rows = []
        for t in range(8):
            if VALID[t, n]:
                rows.append(t)
            if rows and (ENDS[t, n] or t == 7):
                found.append((rows, n))
                rows = []
    return found


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_average_is_that_of_the_other_trajectories(jit_compile):
    baseline = tf.function(ops.average_baseline, jit_compile=jit_compile)(RETURNS, ENDS, VALID).numpy()
    assert len(trajectories()) > 8
    for rows, n in trajectories():
        others = VALID.copy()
        others[rows, n] = False
        np.testing.assert_allclose(baseline[rows, n], RETURNS[others].mean(), rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_time_dependent_baseline_is_that_of_the_other_trajectories(jit_compile):
    baseline = tf.function(ops.time_dependent_baseline, jit_compile=jit_compile)(RETURNS, ENDS, VALID).numpy()
    alone = 0
    for rows, n in trajectories():
        for step, t in enumerate(rows):
            others = [RETURNS[r[step], m] for r, m in trajectories() if (r, m) != (rows, n) and len(r) > step]
            alone += not others
            np.testing.assert_allclose(baseline[t, n], np.mean(others) if others else 0.0, rtol=1e-5)
    assert alone > 0


@pytest.mark.parametrize("baseline", [ops.average_baseline, ops.time_dependent_baseline])
def test_without_others_it_is_zero(baseline):
    no = tf.zeros((5, 1), tf.bool)
    np.testing.assert_array_equal(baseline(tf.ones((5, 1)), no, ~no), np.zeros((5, 1)))


@pytest.mark.parametrize("baseline", [ops.average_baseline, ops.time_dependent_baseline])
def test_another_shape_is_refused(baseline):
    with pytest.raises(ValueError, match="`returns` and `ends` must have the same shape"):
        baseline(RETURNS, ENDS[:, :1], VALID)
