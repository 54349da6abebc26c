"""Running moments, and the scaling of observations and rewards by them."""

import tensorflow as tf


def merge_moments(mean, variance, count, batch_mean, batch_variance, batch_count):
    """Moments of two samples together, from the moments of each.

        n = n_a + n_b,   μ = μ_a + d n_b / n,   σ² = (n_a σ_a² + n_b σ_b² + d² n_a n_b / n) / n,

    with d = μ_b - μ_a. Merging with an empty sample changes nothing; where n_a is 0, σ_a² counts for nothing.

    Args:
        mean, variance: float [...], of the population (divided by n).
        count: Float scalar, n_a >= 0. In float32 it stands still at 2²⁴, and the mean once the batch's share
            of d is below its last digit; keep long statistics in float64.
        batch_mean, batch_variance, batch_count: The same of the other sample, as `masked_moments`
            gives them; cast to the type of `mean`.

    Returns:
        Mean, variance, count of both, of the type of `mean`.

    Source: Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing
    sample variances".

    >>> [float(x) for x in merge_moments(1.0, 0.0, 2.0, 4.0, 1.0, 2.0)]  # of 1, 1 and 3, 5
    [2.5, 2.75, 4.0]
    """
    mean = tf.convert_to_tensor(mean)
    variance, count, batch_mean, batch_variance, batch_count = (
        tf.cast(x, mean.dtype) for x in (variance, count, batch_mean, batch_variance, batch_count)
    )
    total = count + batch_count
    weight = tf.math.divide_no_nan(batch_count, total)
    delta = batch_mean - mean
    # In shares n_a / n and n_b / n: the product of two long counts would lose digits.
    merged = variance + weight * (batch_variance - variance + tf.square(delta) * (1.0 - weight))
    # v + (b - v) is b only up to v's rounding, and a v of no samples is invented.
    merged = tf.where((count > 0) | (batch_count <= 0), merged, batch_variance)
    return mean + weight * delta, merged, total


def normalize(x, mean, variance, clip=10.0, epsilon=1e-8):
    """(x - mean) / sqrt(variance + ε), clipped to [-clip, clip].

    Args:
        x: float [..., *features].
        mean, variance: float [*features].
        clip: Bound in standard deviations; None for none. 10 is OpenAI Baselines' `clipob`
            (common/vec_env/vec_normalize.py).
        epsilon: Added to the variance; 1e-8, from the same file.

    Returns:
        Float tensor of x's shape, without unit. Gradients flow into x where it is not clipped.

    Source: Engstrom et al. 2020 (arXiv 2005.12729), "observation normalization" and "observation
    clipping".

    >>> normalize(tf.constant([3.0, 500.0]), mean=1.0, variance=4.0).numpy()
    array([ 1., 10.], dtype=float32)
    """
    x = (x - mean) * tf.math.rsqrt(tf.convert_to_tensor(variance) + epsilon)
    return x if clip is None else tf.clip_by_value(x, -clip, clip)


def scale_rewards(rewards, variance, clip=10.0, epsilon=1e-8):
    """r / sqrt(variance + ε), clipped to [-clip, clip]; no mean is subtracted.

    Where the variance is 0 there is no scale to divide by, and rewards are clipped only. Subtracting a mean would add
    a constant to every reward, which changes what is optimal wherever the policy has a say in the episode's length.

    Args:
        rewards: float [T, N].
        variance: Float scalar, float32 or float64, the running variance of `discounted_accumulator`'s output.
        clip: Bound of a scaled reward; None for none. 10 is OpenAI Baselines' `cliprew`
            (common/vec_env/vec_normalize.py).
        epsilon: Added to the variance; 1e-8, from the same file.

    Returns:
        float [T, N], without unit.

    Source: Engstrom et al. 2020 (arXiv 2005.12729), "reward scaling" and "reward clipping"; a variance of 0: ours.

    >>> scale_rewards(tf.constant([1.0, -100.0]), variance=4.0).numpy()
    array([  0.5, -10. ], dtype=float32)
    """
    variance = tf.convert_to_tensor(variance)
    factor = tf.where(variance > 0, tf.math.rsqrt(variance + epsilon), tf.ones_like(variance))
    rewards = rewards * tf.cast(factor, rewards.dtype)
    return rewards if clip is None else tf.clip_by_value(rewards, -clip, clip)
