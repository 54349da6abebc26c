"""What a policy ascends, one number for each step.

All functions are elementwise, [T, N] in and out (a flat minibatch [B] serves as well); means are taken by
`masked_mean`. These are objectives, to be maximised: a loss is minus their mean.
"""

import tensorflow as tf

from kerasrl_pg.ops.shapes import check_same_shape


def score_function_objective(log_probs, advantages):
    """log π(a|s) A, whose gradient is the score function estimate of ∇J.

        ∇J = E[ Σ_t ∇log π(a_t|s_t) A_t ]

    Args:
        log_probs: float [T, N], log π(a_t|s_t). Gradients flow into it.
        advantages: float [T, N], a return or an advantage. No gradient flows into it.

    Returns:
        float [T, N]; only its gradient has a meaning.

    Raises:
        ValueError: If the shapes differ.

    Source: the lecture notes' 3.1-3.3; Williams 1992.

    >>> score_function_objective(tf.constant([-0.5, -2.0]), tf.constant([2.0, -1.0])).numpy()
    array([-1.,  2.], dtype=float32)
    """
    check_same_shape(log_probs=log_probs, advantages=advantages)
    return log_probs * tf.stop_gradient(advantages)


def gradient_discount(steps, gamma):
    """γ^t, the weight of step t in the gradient of the discounted return.

    Without it the gradient is that of no objective (Nota & Thomas 2020, "Is the policy gradient a gradient?"), yet
    nearly all implementations leave it out, for late steps would teach nothing. The chapter (4.3) writes λ^t Q; γ^t Q
    is meant.

    Args:
        steps: int [T, N], from `steps_in_episode`.
        gamma: γ in [0, 1].

    Returns:
        float32 [T, N].

    Source: Sutton & Barto 2018, section 13.3, the REINFORCE box.

    >>> gradient_discount(tf.constant([0, 1, 2]), 0.5).numpy()
    array([1.  , 0.5 , 0.25], dtype=float32)
    """
    return tf.pow(tf.cast(gamma, tf.float32), tf.cast(steps, tf.float32))


MAX_LOG_RATIO = 30.0  # Ours: e^30 = 1e13, and the square of a gradient of a thousand such rows is finite in float32.


def bounded_exp(x):
    """e^x up to `MAX_LOG_RATIO`, and e^`MAX_LOG_RATIO` beyond, with itself as slope there, too.

    Where float32 overflows, a gradient of 0 (of a ratio that is clipped) would become 0 times infinity. Not by
    `tf.custom_gradient`, which TensorFlow registers for ever, and with it the graph that it is called in.
    """
    x = tf.convert_to_tensor(x)
    y, finite = tf.exp(tf.minimum(x, MAX_LOG_RATIO)), tf.minimum(x, x.dtype.max)
    # 0, with the slope of 1 that the minimum above does not have beyond.
    lost = tf.where(x > MAX_LOG_RATIO, finite - tf.stop_gradient(finite), tf.zeros_like(x))
    return y * (1.0 + lost)


def importance_ratio(log_probs, old_log_probs):
    """π(a|s) / π_old(a|s).

    Args:
        log_probs: float [T, N], under the present policy. Gradients flow into it.
        old_log_probs: float [T, N], under the policy that acted. No gradient.

    Returns:
        float [T, N], positive; exactly 1 where the two are equal. Above e^30 it counts as e^30, its gradient included:
        what a greater one multiplies would not be finite.

    Raises:
        ValueError: If the shapes differ.

    Source: the lecture notes' 3.6.3 (c_t); Schulman et al. 2017 (arXiv 1707.06347), section 2.1.

    >>> importance_ratio(tf.constant([-1.0, 0.0]), tf.constant([-1.0, -0.6931472])).numpy()
    array([1., 2.], dtype=float32)
    """
    check_same_shape(log_probs=log_probs, old_log_probs=old_log_probs)
    return bounded_exp(log_probs - tf.stop_gradient(old_log_probs))


def importance_objective(ratio, advantages):
    """π/π_old A, the surrogate that TRPO and the penalty form of PPO ascend.

    At ratio 1 its gradient is that of `score_function_objective`.

    Args:
        ratio: float [T, N], from `importance_ratio`. Gradients flow into it.
        advantages: float [T, N]. No gradient flows into it.

    Returns:
        float [T, N], in the advantages' unit.

    Raises:
        ValueError: If the shapes differ.

    Source: the lecture notes' 3.6.3; Schulman et al. 2017 (arXiv 1707.06347), eq. 6.

    >>> importance_objective(tf.constant([1.5, 0.5]), tf.constant([2.0, -2.0])).numpy()
    array([ 3., -1.], dtype=float32)
    """
    check_same_shape(ratio=ratio, advantages=advantages)
    return ratio * tf.stop_gradient(advantages)


def clipped_objective(ratio, advantages, clip_ratio):
    """PPO's pessimistic surrogate.

        min( ratio A, clip(ratio, 1 - ε, 1 + ε) A )

    The gradient is 0 where the ratio has left [1 - ε, 1 + ε] in the direction A asks for. The lecture notes (3.6.3) say
    the better of the two is chosen; the formula takes the worse, a lower bound, and so does the paper.

    Args:
        ratio: float [T, N], from `importance_ratio`. Gradients flow into it.
        advantages: float [T, N]. No gradient flows into it.
        clip_ratio: ε > 0.

    Returns:
        float [T, N], in the advantages' unit.

    Raises:
        ValueError: If the shapes differ.

    Source: Schulman et al. 2017 (arXiv 1707.06347), eq. 7; the lecture notes' 3.6.3.

    >>> ratio = tf.constant([2.0, 2.0, 0.5, 0.5])
    >>> clipped_objective(ratio, tf.constant([1.0, -1.0, 1.0, -1.0]), clip_ratio=0.25).numpy()
    array([ 1.25, -2.  ,  0.5 , -0.75], dtype=float32)
    """
    check_same_shape(ratio=ratio, advantages=advantages)
    advantages = tf.stop_gradient(advantages)
    clipped = tf.clip_by_value(ratio, 1.0 - clip_ratio, 1.0 + clip_ratio)
    return tf.minimum(ratio * advantages, clipped * advantages)
