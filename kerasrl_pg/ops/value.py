"""What a critic descends, and how well it does."""

import tensorflow as tf

from kerasrl_pg.ops.shapes import check_same_shape, masked_moments, shrinking


def squared_error(values, returns):
    """½ (V - R)².

    The half makes the gradient V - R, and the loss the negative log-likelihood of a unit normal
    up to a constant, so a critic's head of that kind has the same gradient.

    Args:
        values: float [T, N], V(s_t). Gradients flow into it.
        returns: float [T, N], the regression target. No gradient flows into it.

    Returns:
        float [T, N], in the returns' unit squared.

    Raises:
        ValueError: If the shapes differ.

    Source: the lecture notes' 3.3, min over ψ of E‖R - V‖²; the half is ours.

    >>> squared_error(tf.constant([1.0, 5.0]), tf.constant([3.0, 5.0])).numpy()
    array([2., 0.], dtype=float32)
    """
    check_same_shape(values=values, returns=returns)
    return 0.5 * tf.square(values - tf.stop_gradient(returns))


def clipped_squared_error(values, old_values, returns, value_clip):
    """PPO2's clipped critic loss: the worse of the plain error and that of a clipped V.

        max( ½ (V - R)², ½ (clip(V, V_old - c, V_old + c) - R)² )

    c is in the unit of the returns, so it means something only where their scale is known
    (rewards scaled by `scale_rewards`, for instance).

    Args:
        values: float [T, N], V(s_t). Gradients flow into it.
        old_values: float [T, N], V(s_t) before the update. No gradient flows into it.
        returns: float [T, N], the regression target. No gradient flows into it.
        value_clip: c > 0, in the returns' unit.

    Returns:
        float [T, N], in the returns' unit squared.

    Raises:
        ValueError: If the shapes differ.

    Source: OpenAI Baselines, ppo2/model.py; named "value function clipping" by Engstrom et al. 2020
    (arXiv 2005.12729).

    >>> clipped_squared_error([3.0], [0.0], [4.0], value_clip=1.0).numpy()
    array([4.5], dtype=float32)
    """
    check_same_shape(values=values, old_values=old_values, returns=returns)
    old_values = tf.stop_gradient(old_values)
    clipped = old_values + tf.clip_by_value(values - old_values, -value_clip, value_clip)
    return tf.maximum(squared_error(values, returns), squared_error(clipped, returns))


def explained_variance(values, returns, valid=None):
    """1 - Var[R - V] / Var[R]: 1 for a perfect critic, 0 for a constant, negative for worse.

    Where the returns do not vary there is nothing to explain and it is 0.

    Args:
        values: float [T, N].
        returns: float [T, N].
        valid: bool [T, N]; None for all.

    Returns:
        float32 scalar without unit, at most 1.

    Raises:
        ValueError: If the shapes differ.

    Source: the coefficient of determination of R - V up to a constant shift, as logged by OpenAI
    Baselines, common/math_util.py.

    >>> float(explained_variance(tf.constant([1.0, 2.0, 3.0]), tf.constant([2.0, 4.0, 6.0])))
    0.75
    """
    check_same_shape(values=values, returns=returns, valid=valid)
    values, returns = tf.cast(values, tf.float32), tf.cast(returns, tf.float32)
    factor = shrinking(tf.maximum(tf.abs(values), tf.abs(returns)), valid)
    values, returns = values * factor, returns * factor
    # Side by side, so that a small rollout's program has half as many sums.
    valid = tf.ones_like(values, tf.bool) if valid is None else valid
    _, variances, _ = masked_moments(tf.stack([returns, returns - values], -1), valid)
    variance, unexplained = tf.unstack(variances)
    return tf.where(variance > 0.0, 1.0 - tf.math.divide_no_nan(unexplained, variance), 0.0)
