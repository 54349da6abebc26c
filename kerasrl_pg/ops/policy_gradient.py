"""What a policy ascends, one number for each step.

All functions are elementwise, [T, N] in and out (a flat minibatch [B] serves as well); means are
taken by `masked_mean`. These are objectives, to be maximised: a loss is minus their mean.
"""

import tensorflow as tf

from kerasrl_pg.ops.shapes import check_same_shape


def score_function_objective(log_probs, advantages):
    """log π(a|s) A, whose gradient is the score function estimate of ∇J.

        ∇J = E[ Σ_t ∇log π(a_t|s_t) A_t ]

    Args:
        log_probs: float tensor [T, N], log π(a_t|s_t). Gradients flow into it.
        advantages: float tensor [T, N], a return or an advantage. No gradient flows into it.

    Returns:
        float tensor [T, N]; only its gradient has a meaning.

    Raises:
        ValueError: if the shapes differ.

    Source: the lecture notes' 3.1-3.3; Williams 1992.

    >>> score_function_objective(tf.constant([-0.5, -2.0]), tf.constant([2.0, -1.0])).numpy()
    array([-1.,  2.], dtype=float32)
    """
    check_same_shape(log_probs=log_probs, advantages=advantages)
    return log_probs * tf.stop_gradient(advantages)


def gradient_discount(steps, gamma):
    """γ^t, the weight of step t in the gradient of the discounted return.

    Without it the gradient is that of no objective (Nota & Thomas 2020, "Is the policy gradient a
    gradient?"), yet nearly all implementations leave it out, for late steps would teach nothing.
    The chapter (4.3) writes λ^t Q; γ^t Q is meant.

    Args:
        steps: int tensor [T, N], from `steps_in_episode`.
        gamma: γ in [0, 1].

    Returns:
        float32 tensor [T, N].

    Source: Sutton & Barto 2018, section 13.3, the REINFORCE box.

    >>> gradient_discount(tf.constant([0, 1, 2]), 0.5).numpy()
    array([1.  , 0.5 , 0.25], dtype=float32)
    """
    return tf.pow(tf.cast(gamma, tf.float32), tf.cast(steps, tf.float32))


MAX_LOG_RATIO = 30.0  # Ours: e^30 = 1e13, and the square of a gradient of a thousand such rows is finite in float32.


def _exp(x):
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
        log_probs: float tensor [T, N], under the present policy. Gradients flow into it.
        old_log_probs: float tensor [T, N], under the policy that acted. No gradient.

    Returns:
        float tensor [T, N], positive; exactly 1 where the two are equal. Above e^30 it counts as e^30, its
        gradient included: what a greater one multiplies would not be finite.

    Raises:
        ValueError: if the shapes differ.

    Source: the lecture notes' 3.6.3 (c_t); Schulman et al. 2017 (arXiv:1707.06347), section 2.1.

    >>> importance_ratio(tf.constant([-1.0, 0.0]), tf.constant([-1.0, -0.6931472])).numpy()
    array([1., 2.], dtype=float32)
    """
    check_same_shape(log_probs=log_probs, old_log_probs=old_log_probs)
    return _exp(log_probs - tf.stop_gradient(old_log_probs))


def importance_objective(ratio, advantages):
    """π/π_old A, the surrogate that TRPO and the penalty form of PPO ascend.

    At ratio 1 its gradient is that of `score_function_objective`.

    Args:
        ratio: float tensor [T, N], from `importance_ratio`. Gradients flow into it.
        advantages: float tensor [T, N]. No gradient flows into it.

    Returns:
        float tensor [T, N], in the advantages' unit.

    Raises:
        ValueError: if the shapes differ.

    Source: the lecture notes' 3.6.3; Schulman et al. 2017 (arXiv:1707.06347), eq. 6.

    >>> importance_objective(tf.constant([1.5, 0.5]), tf.constant([2.0, -2.0])).numpy()
    array([ 3., -1.], dtype=float32)
    """
    check_same_shape(ratio=ratio, advantages=advantages)
    return ratio * tf.stop_gradient(advantages)


def clipped_objective(ratio, advantages, clip_ratio):
    """PPO's pessimistic surrogate.

        min( ratio A, clip(ratio, 1 - ε, 1 + ε) A )

    The gradient is 0 where the ratio has left [1 - ε, 1 + ε] in the direction A asks for. The
    lecture notes (3.6.3) say the better of the two is chosen; the formula takes the worse, a
    lower bound, and so does the paper.

    Args:
        ratio: float tensor [T, N], from `importance_ratio`. Gradients flow into it.
        advantages: float tensor [T, N]. No gradient flows into it.
        clip_ratio: ε > 0.

    Returns:
        float tensor [T, N], in the advantages' unit.

    Raises:
        ValueError: if the shapes differ.

    Source: Schulman et al. 2017 (arXiv:1707.06347), eq. 7; the lecture notes' 3.6.3.

    >>> ratio = tf.constant([2.0, 2.0, 0.5, 0.5])
    >>> clipped_objective(ratio, tf.constant([1.0, -1.0, 1.0, -1.0]), clip_ratio=0.25).numpy()
    array([ 1.25, -2.  ,  0.5 , -0.75], dtype=float32)
    """
    check_same_shape(ratio=ratio, advantages=advantages)
    advantages = tf.stop_gradient(advantages)
    clipped = tf.clip_by_value(ratio, 1.0 - clip_ratio, 1.0 + clip_ratio)
    return tf.minimum(ratio * advantages, clipped * advantages)


def clip_fraction(ratio, clip_ratio):
    """1 where the ratio is outside [1 - ε, 1 + ε], else 0; its mean is the logged fraction.

    Args:
        ratio: float tensor [T, N].
        clip_ratio: ε > 0.

    Returns:
        float tensor [T, N] of zeros and ones, no gradient.

    >>> clip_fraction(tf.constant([1.0, 1.1, 1.3, 0.5]), clip_ratio=0.2).numpy()
    array([0., 0., 1., 1.], dtype=float32)
    """
    ratio = tf.convert_to_tensor(ratio)
    return tf.cast((ratio < 1.0 - clip_ratio) | (ratio > 1.0 + clip_ratio), ratio.dtype)


def kl_k1(log_probs, old_log_probs):
    """KL(old || new) estimated by log π_old - log π: unbiased, but single ones may be negative.

    The three estimators k1, k2, k3 need actions sampled from the old policy, and are for
    monitoring. As a loss or a constraint take the distributions' closed form: it is exact, while
    at the old policy the gradient of k1 is nothing but noise about zero.

    Args:
        log_probs: float tensor [T, N], log π(a|s) under the new policy. Gradients flow into it.
        old_log_probs: float tensor [T, N], under the policy that acted. Gradients flow into it.

    Returns:
        float tensor [T, N], nats.

    Raises:
        ValueError: if the shapes differ.

    Source: Schulman 2020, "Approximating KL divergence" (joschu.net/blog/kl-approx.html).

    >>> kl_k1(tf.constant([-1.0, -3.0]), tf.constant([-2.0, -2.0])).numpy()
    array([-1.,  1.], dtype=float32)
    """
    check_same_shape(log_probs=log_probs, old_log_probs=old_log_probs)
    return old_log_probs - log_probs


def kl_k2(log_probs, old_log_probs):
    """KL(old || new) estimated by ½ (log π - log π_old)²: biased, never negative, low variance.

    The bias is of third order in the distance of the policies. Arguments, returns, raises and
    source as for `kl_k1`.

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
    return tf.where(log_ratio > MAX_LOG_RATIO, _exp(log_ratio), near) - log_ratio


def entropy_estimate(log_probs):
    """-log π(a|s), whose mean over actions sampled from π is the policy's entropy.

    For distributions without a closed form. As an entropy bonus it serves only where the actions
    are reparametrised functions of π's parameters: for stored actions the mean gradient of -log π
    is zero, not that of the entropy.

    Args:
        log_probs: float tensor [T, N]. Gradients flow into it.

    Returns:
        float tensor [T, N], nats.

    Source: the definition of the entropy, the lecture notes' 3.5.

    >>> entropy_estimate(tf.constant([-0.25, -2.0])).numpy()
    array([0.25, 2.  ], dtype=float32)
    """
    return -tf.convert_to_tensor(log_probs)
