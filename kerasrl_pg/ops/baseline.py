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


def average_baseline(returns, ends, valid):
    """The average return of the other trajectories, the same for every step of one.

    Each valid step counts once, so that long episodes weigh more.

    Args:
        returns: float [T, N].
        ends: bool [T, N], from `episode_ends`.
        valid: bool [T, N].

    Returns:
        float32 [T, N], in the returns' unit, constant over each trajectory; 0 where there is no other.
        Gradients flow into `returns`.

    Raises:
        ValueError: If the shapes differ.

    Source: the lecture notes' 3.3, "baseline is average return"; without one's own: see above.

    >>> returns, ends = tf.constant([[1.0, 5.0], [3.0, 9.0]]), tf.constant([[False, True], [True, True]])
    >>> average_baseline(returns, ends, tf.ones_like(ends)).numpy()  # of (1, 3), (5) and (9)
    array([[7.       , 4.3333335],
           [7.       , 3.       ]], dtype=float32)
    """
    check_same_shape(returns=returns, ends=ends, valid=valid)
    returns = tf.where(valid, tf.cast(returns, tf.float32), 0.0)
    counts = tf.cast(valid, tf.float32)
    others = tf.reduce_sum(returns) - trajectory_totals(returns, ends)
    return tf.math.divide_no_nan(others, tf.reduce_sum(counts) - trajectory_totals(counts, ends))


def time_dependent_baseline(returns, ends, valid):
    """b_t, the average return of the other trajectories at the same step of theirs.

    Args:
        returns: float [T, N], usually the reward-to-go.
        ends: bool [T, N], from `episode_ends`.
        valid: bool [T, N].

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
    check_same_shape(returns=returns, ends=ends, valid=valid)
    returns = tf.where(valid, tf.cast(returns, tf.float32), 0.0)
    counts = tf.cast(valid, tf.float32)
    steps = steps_in_episode(ends)

    def others(x):
        at_each_step = tf.math.unsorted_segment_sum(x, steps, tf.shape(x)[0])
        return tf.gather(at_each_step, steps) - x

    return tf.math.divide_no_nan(others(returns), others(counts))
