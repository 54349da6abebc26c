"""Baselines that are averages: what to expect of a step without looking at its state.

A baseline that does not depend on the action leaves the policy gradient's expectation alone and
lowers its variance where it correlates with the return. Learned ones, V(s), are critics.
"""

import tensorflow as tf

from kerasrl_pg.ops.shapes import check_same_shape, masked_mean


def average_baseline(returns, valid, leave_one_out=False):
    """The average return, the same for every step.

    Each valid step counts once, so with whole-episode returns long episodes weigh more. The
    average contains the return it is subtracted from, which shrinks the gradient by a part that
    vanishes with the number of samples; `leave_one_out` takes, for environment n, the average of
    the others, whose actions are independent of n's, and keeps the gradient unbiased.

    Args:
        returns: float tensor [T, N].
        valid: bool tensor [T, N].
        leave_one_out: bool. With N = 1 there are no others and the baseline is 0.

    Returns:
        float tensor [T, N], in the returns' unit, constant over T, and over N too unless
        `leave_one_out`; 0 where there is nothing to average. Gradients flow into `returns`.

    Raises:
        ValueError: if the shapes differ.

    Source: the lecture notes' 3.3; leave-one-out: Kool, van Hoof & Welling 2019, "Buy 4
    REINFORCE samples, get a baseline for free!".

    >>> returns, valid = tf.constant([[1.0, 5.0], [3.0, 9.0]]), tf.constant([[True, True]] * 2)
    >>> average_baseline(returns, valid)[0].numpy()
    array([4.5, 4.5], dtype=float32)
    >>> average_baseline(returns, valid, leave_one_out=True)[0].numpy()
    array([7., 2.], dtype=float32)
    """
    returns = tf.convert_to_tensor(returns)
    if not leave_one_out:
        return tf.zeros_like(returns) + masked_mean(returns, valid)
    check_same_shape(returns=returns, valid=valid)
    totals = tf.reduce_sum(tf.where(valid, returns, 0.0), axis=0)
    counts = tf.reduce_sum(tf.cast(valid, returns.dtype), axis=0)
    others = tf.math.divide_no_nan(tf.reduce_sum(totals) - totals, tf.reduce_sum(counts) - counts)
    return tf.zeros_like(returns) + others


def time_dependent_baseline(returns, steps, valid, horizon):
    """b_t, the average return at each step index of the episode.

    Args:
        returns: float tensor [T, N], usually the reward-to-go.
        steps: int tensor [T, N], from `steps_in_episode`.
        valid: bool tensor [T, N].
        horizon: int >= 1, how many averages to keep; all steps from horizon - 1 on share the last.

    Returns:
        float tensor [T, N], b_t at each step's own t; 0 where no step at t is valid. Gradients
        flow into `returns`.

    Raises:
        ValueError: if the shapes differ or horizon < 1.

    Source: chapter 4.4, b_t = E[R_t].

    >>> returns = tf.constant([[2.0, 4.0], [1.0, 7.0]])
    >>> steps = tf.constant([[0, 0], [1, 0]])
    >>> time_dependent_baseline(returns, steps, tf.constant([[True, True]] * 2), 2).numpy().round(3)
    array([[4.333, 4.333],
           [1.   , 4.333]], dtype=float32)
    """
    if horizon < 1:
        raise ValueError(
            f"`horizon` must be at least 1, the number of step indices to average at. Received: horizon={horizon}."
        )
    check_same_shape(returns=returns, steps=steps, valid=valid)
    returns = tf.convert_to_tensor(returns)
    index = tf.minimum(steps, horizon - 1)
    total = tf.math.unsorted_segment_sum(tf.where(valid, returns, 0.0), index, horizon)
    count = tf.math.unsorted_segment_sum(tf.cast(valid, returns.dtype), index, horizon)
    return tf.gather(tf.math.divide_no_nan(total, count), index)
