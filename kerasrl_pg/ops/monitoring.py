"""What is logged of a policy's move: estimates of divergence and entropy from actions alone, one number for each step.

All functions are elementwise, [T, N] in and out, as in `ops.policy_gradient`.
"""

import tensorflow as tf

from kerasrl_pg.ops.policy_gradient import MAX_LOG_RATIO, bounded_exp
from kerasrl_pg.ops.shapes import check_same_shape


def clip_fraction(ratio, clip_ratio):
    """1 where the ratio is outside [1 - ε, 1 + ε], else 0; its mean is the logged fraction.

    Args:
        ratio: float [T, N].
        clip_ratio: ε > 0.

    Returns:
        float [T, N] of zeros and ones, no gradient.

    >>> clip_fraction(tf.constant([1.0, 1.1, 1.3, 0.5]), clip_ratio=0.2).numpy()
    array([0., 0., 1., 1.], dtype=float32)
    """
    ratio = tf.convert_to_tensor(ratio)
    return tf.cast((ratio < 1.0 - clip_ratio) | (ratio > 1.0 + clip_ratio), ratio.dtype)


def kl_k1(log_probs, old_log_probs):
    """KL(old || new) estimated by log π_old - log π: unbiased, but single ones may be negative.

    The three estimators k1, k2, k3 need actions sampled from the old policy, and are for monitoring. As a loss or a
    constraint take the distributions' closed form: it is exact, while at the old policy the gradient of k1 is nothing
    but noise about zero.

    Args:
        log_probs: float [T, N], log π(a|s) under the new policy. Gradients flow into it.
        old_log_probs: float [T, N], under the policy that acted. Gradients flow into it.

    Returns:
        float [T, N], nats.

    Raises:
        ValueError: If the shapes differ.

    Source: Schulman 2020, "Approximating KL divergence" (joschu.net/blog/kl-approx.html).

    >>> kl_k1(tf.constant([-1.0, -3.0]), tf.constant([-2.0, -2.0])).numpy()
    array([-1.,  1.], dtype=float32)
    """
    check_same_shape(log_probs=log_probs, old_log_probs=old_log_probs)
    return old_log_probs - log_probs


def kl_k2(log_probs, old_log_probs):
    """KL(old || new) estimated by ½ (log π - log π_old)²: biased, never negative, low variance.

    The bias is of third order in the distance of the policies. Arguments, returns, raises and source as for `kl_k1`.

    >>> kl_k2(tf.constant([-1.0, -4.0]), tf.constant([-2.0, -2.0])).numpy()
    array([0.5, 2. ], dtype=float32)
    """
    check_same_shape(log_probs=log_probs, old_log_probs=old_log_probs)
    return 0.5 * tf.square(log_probs - old_log_probs)


def kl_k3(log_probs, old_log_probs):
    """KL(old || new) estimated by (r - 1) - log r, r = π / π_old: unbiased and never negative.

    This is the `kl` of the logs. Arguments, returns, raises and source as for `kl_k1`.

    >>> kl_k3(tf.constant([-2.0, 0.0]), tf.constant([-2.0, -0.6931472])).numpy().round(4)
    array([0.    , 0.3069], dtype=float32)
    """
    check_same_shape(log_probs=log_probs, old_log_probs=old_log_probs)
    log_ratio = log_probs - old_log_probs
    # expm1: r - 1 would lose the digits near r = 1. A ratio above e^30 counts as that: see `importance_ratio`.
    near = tf.math.expm1(tf.minimum(log_ratio, MAX_LOG_RATIO))
    return tf.where(log_ratio > MAX_LOG_RATIO, bounded_exp(log_ratio), near) - log_ratio


def entropy_estimate(log_probs):
    """-log π(a|s), whose mean over actions sampled from π is the policy's entropy.

    For distributions without a closed form. As an entropy bonus it serves only where the actions are reparametrised
    functions of π's parameters: for stored actions the mean gradient of -log π is zero, not that of the entropy.

    Args:
        log_probs: float [T, N]. Gradients flow into it.

    Returns:
        float [T, N], nats.

    Source: the definition of the entropy, the lecture notes' 3.5.

    >>> entropy_estimate(tf.constant([-0.25, -2.0])).numpy()
    array([0.25, 2.  ], dtype=float32)
    """
    return -tf.convert_to_tensor(log_probs)
