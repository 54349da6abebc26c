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


WEIGHTS = RNG.uniform(0.1, 2.0, size=(8, 4)).astype("float32")
WEIGHTS[~VALID] = np.nan


def test_a_weighted_average_is_that_of_the_other_trajectories():
    baseline = ops.average_baseline(RETURNS, ENDS, VALID, WEIGHTS).numpy()
    for rows, n in trajectories():
        others = VALID.copy()
        others[rows, n] = False
        np.testing.assert_allclose(baseline[rows, n], np.average(RETURNS[others], weights=WEIGHTS[others]), rtol=1e-5)


def test_a_weighted_average_of_each_step_is_that_of_the_other_trajectories():
    baseline = ops.time_dependent_baseline(RETURNS, ENDS, VALID, WEIGHTS).numpy()
    for rows, n in trajectories():
        for step, t in enumerate(rows):
            others = [(r[step], m) for r, m in trajectories() if (r, m) != (rows, n) and len(r) > step]
            returns, weights = ([x[at] for at in others] for x in (RETURNS, WEIGHTS))
            expected = np.average(returns, weights=weights) if others else 0.0
            np.testing.assert_allclose(baseline[t, n], expected, rtol=1e-4, atol=1e-6)


def test_the_weighted_average_makes_the_variance_of_one_step_least():
    """Weaver and Tao 2001: of all constants b, E[w R] / E[w] makes E‖∇ log π (R - b)‖² least; here of a softmax."""
    probabilities, returns = np.float64([0.7, 0.2, 0.1]), np.float64([1.0, 4.0, -2.0])
    scores = np.eye(3) - probabilities

    def variance(b):
        terms = scores * (returns - b)[:, None]
        return probabilities @ np.sum(terms**2, 1) - np.sum((probabilities @ terms) ** 2)

    weights = np.sum(scores**2, 1)
    best = np.sum(probabilities * weights * returns) / np.sum(probabilities * weights)
    # Each action as often as it is likely, and one more episode, which all others judge.
    counts = np.repeat(np.arange(3), (1000 * probabilities).astype(int))
    rows = np.float32(returns[counts])[None], np.ones((1, 1000), bool), np.ones((1, 1000), bool)
    found = ops.average_baseline(*rows, np.float32(weights[counts])[None]).numpy()
    np.testing.assert_allclose(found, best, atol=0.02)
    others = best + 0.1, best - 0.1, probabilities @ returns, 0.0
    assert variance(best) < min(map(variance, others))


@pytest.mark.parametrize("baseline", [ops.average_baseline, ops.time_dependent_baseline])
def test_one_episode_of_great_weight_leaves_the_others_their_average(baseline):
    returns, ends = tf.constant([[500.0, 3.0, 5.0]]), tf.constant([[True, True, True]])
    found = baseline(returns, ends, ends, tf.constant([[1.0, 1e-9, 1e-9]]))
    np.testing.assert_allclose(found, [[4.0, 500.0, 500.0]], rtol=1e-5)
