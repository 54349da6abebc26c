"""Baselines that are averages: what to expect of a step without looking at its state.

A baseline that does not depend on the action leaves the policy gradient's expectation alone and
lowers its variance where it correlates with the return. An average over a batch does depend on the
actions it judges, through their own returns, and shrinks the gradient (by 1/N with N trajectories
of one length: to nothing with one). So every trajectory is judged by the others alone, which are
independent of it: Kool, van Hoof & Welling 2019, "Buy 4 REINFORCE samples, get a baseline for
free!". Learned baselines, V(s), are critics.
"""

import tensorflow as tf

from kerasrl_pg.ops.returns import steps_in_episode, trajectory_totals
from kerasrl_pg.ops.shapes import check_same_shape


def average_baseline(returns, ends, valid, weights=None):
    """The average return of the other trajectories, the same for every step of one.

    Each valid step counts once, so that long episodes weigh more; or by its weight w_t,

        b = Σ w_t R_t / Σ w_t,    over the steps of the others.

    With w_t = ‖∇ log π(a_t|s_t)‖², from `squared_score_norms`, b is the constant that makes the sum of the variances of
    all terms ∇ log π(a_t|s_t) (R_t - b) least; that of their sum only where they do not covary, as in episodes of one
    step.

    Args:
        returns: float [T, N].
        ends: bool [T, N], from `episode_ends`.
        valid: bool [T, N].
        weights: None, or float [T, N], at least 0.

    Returns:
        float32 [T, N], in the returns' unit, constant over each trajectory; 0 where there is no other.
        Gradients flow into `returns`.

    Raises:
        ValueError: If the shapes differ.

    Source: the lecture notes' 3.3, "baseline is average return" and "weighted average" (of which the denominator
    is E[‖∇ log π‖²]; printed is a norm of an expectation), as Weaver and Tao 2001, "The optimal reward baseline for
    gradient-based reinforcement learning"; without one's own: see above.

    >>> returns, ends = tf.constant([[1.0, 5.0], [3.0, 9.0]]), tf.constant([[False, True], [True, True]])
    >>> average_baseline(returns, ends, tf.ones_like(ends)).numpy()  # of (1, 3), (5) and (9)
    array([[7.       , 4.3333335],
           [7.       , 3.       ]], dtype=float32)
    """
    returns, weights = _weighted(returns, ends, valid, weights)
    others = tf.reduce_sum(returns) - trajectory_totals(returns, ends)
    average = tf.math.divide_no_nan(others, tf.reduce_sum(weights) - trajectory_totals(weights, ends))
    return tf.cast(average, tf.float32)


def time_dependent_baseline(returns, ends, valid, weights=None):
    """b_t, the average return of the other trajectories at the same step of theirs.

    Args:
        returns: float [T, N], usually the reward-to-go.
        ends: bool [T, N], from `episode_ends`.
        valid: bool [T, N].
        weights: None, or float [T, N], at least 0, as for `average_baseline`: b_t = Σ_i w_t R_t / Σ_i w_t.

    Returns:
        float32 [T, N], b_t at each step's own t; 0 where no other trajectory is that long.
        Gradients flow into `returns`.

    Raises:
        ValueError: If the shapes differ.

    Source: chapter 4.4, b_t = E[R_t]; without one's own: see above.

    >>> returns, ends = tf.constant([[2.0, 4.0], [1.0, 7.0]]), tf.constant([[False, True], [True, True]])
    >>> time_dependent_baseline(returns, ends, tf.ones_like(ends)).numpy()  # of (2, 1), (4) and (7)
    array([[5.5, 4.5],
           [0. , 3. ]], dtype=float32)
    """
    returns, weights = _weighted(returns, ends, valid, weights)
    steps = steps_in_episode(ends)

    def others(x):
        at_each_step = tf.math.unsorted_segment_sum(x, steps, tf.shape(x)[0])
        return tf.gather(at_each_step, steps) - x

    return tf.cast(tf.math.divide_no_nan(others(returns), others(weights)), tf.float32)


def _weighted(returns, ends, valid, weights):
    """`(w R, w)`, float [T, N], 0 where a step is not valid; each weighs 1 where `weights` is None."""
    if weights is None:
        check_same_shape(returns=returns, ends=ends, valid=valid)
        return tf.where(valid, tf.cast(returns, tf.float32), 0.0), tf.cast(valid, tf.float32)
    check_same_shape(returns=returns, ends=ends, valid=valid, weights=weights)
    # In float64: one action that the policy hardly ever takes weighs a million times all others, which remain when it
    # is subtracted from the sum.
    returns, weights = tf.cast(returns, tf.float64), tf.cast(weights, tf.float64)
    zero = tf.zeros([], tf.float64)
    return tf.where(valid, weights * returns, zero), tf.where(valid, weights, zero)
