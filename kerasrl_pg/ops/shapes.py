"""Shapes, masks and the reductions over them.

A rollout has rows that are no transitions (the row after an episode's end in some vector
environments, or padding), so every mean and variance of the library goes through `valid`.
"""

import numpy as np
import tensorflow as tf


def check_same_shape(**tensors):
    """Refuse tensors of different shapes before they broadcast.

    `(B, 1)` minus `(B,)` is silently `(B, B)`. The check looks at static shapes only, so inside a
    `tf.function` it costs nothing after tracing. A dimension not known yet agrees with any.

    Args:
        **tensors: The tensors to compare, by the name to call them in the error; None is skipped.

    Raises:
        ValueError: If two shapes differ.

    >>> check_same_shape(values=tf.zeros((3, 1)), returns=tf.zeros(3))
    Traceback (most recent call last):
    ...
    ValueError: `values` and `returns` must have the same shape, or they would broadcast. \
Received: values.shape=(3, 1), returns.shape=(3,). Reshape one of them, for instance with \
`tf.squeeze(values, -1)` when a network's last axis of size 1 was left on.
    """
    shapes = {name: tf.TensorShape(np.shape(tensor)) for name, tensor in tensors.items() if tensor is not None}
    for first, shape in shapes.items():
        for second, other in shapes.items():
            if not shape.is_compatible_with(other):
                raise ValueError(
                    f"`{first}` and `{second}` must have the same shape, or they would "
                    f"broadcast. Received: {first}.shape={shape}, {second}.shape={other}. "
                    "Reshape one of them, for instance with "
                    f"`tf.squeeze({first}, -1)` when a network's last axis of size 1 was left on."
                )


def flatten_time(structure):
    """Merge the time and environment axes of every tensor in a structure.

    Args:
        structure: A nest of tensors [T, N, ...].

    Returns:
        The same nest with tensors [T * N, ...]; row t * N + n is step t of environment n.

    >>> flatten_time({"rewards": tf.constant([[1, 2], [3, 4], [5, 6]])})["rewards"].numpy()
    array([1, 2, 3, 4, 5, 6], dtype=int32)
    """

    def merged(tensor):
        shape = tf.TensorShape(np.shape(tensor))[2:]
        known = shape.is_fully_defined()
        return tf.reshape(tensor, [-1, *shape] if known else tf.concat([[-1], tf.shape(tensor)[2:]], 0))

    return tf.nest.map_structure(merged, structure)


def masked_mean(x, valid=None):
    """Mean of the valid entries; 0 if there are none.

    Args:
        x: Float tensor of any shape, usually [T, N] or a minibatch [B]. Gradients flow into it.
        valid: Bool tensor of x's shape; None for all.

    Returns:
        Float scalar, in x's unit.

    Raises:
        ValueError: If the shapes differ.

    >>> float(masked_mean(tf.constant([1.0, 3.0, float("nan")]), tf.constant([True, True, False])))
    2.0
    """
    if valid is None:
        return tf.reduce_mean(x)
    check_same_shape(x=x, valid=valid)
    x = tf.convert_to_tensor(x)
    # `where`, not a product: whatever stands in an invalid row, even NaN, must not count.
    total = tf.reduce_sum(tf.where(valid, x, tf.zeros_like(x)))
    return tf.math.divide_no_nan(total, tf.reduce_sum(tf.cast(valid, x.dtype)))


def magnitudes(x):
    """Numbers that are finite where all of x is, one or more of them NaN or infinite where something is not.

    Sums over the leading axes of products with something tiny, which a NaN or an infinity survives and no sum of
    finite numbers exceeds: XLA on a CPU adds rows to rows many numbers at a time, but tests each entry by itself.

    Args:
        x: Float tensor of any known shape, not empty.

    Returns:
        float32 tensor, the size of x's last axis; only whether its entries are finite has a meaning.

    >>> [bool(tf.reduce_all(tf.math.is_finite(magnitudes([[3e38, x]])))) for x in (3e38, float("nan"), float("inf"))]
    [True, False, False]
    """
    x = tf.convert_to_tensor(x)
    x = x if x.dtype == tf.float64 else tf.cast(x, tf.float32)
    if x.shape.rank == 0 or x.shape.rank > 2:
        x = tf.reshape(x, [-1, *x.shape[-1:]])
    x *= 1e-300 if x.dtype == tf.float64 else 1e-30
    return tf.cast(tf.reduce_sum(x, 0) if x.shape.rank == 2 else x, tf.float32)


def masked_moments(x, valid=None):
    """Mean, population variance and count over the leading axes.

    The mean is taken twice, the second time of what the first left over (Chan, Golub & LeVeque
    1983, "Algorithms for computing the sample variance", the corrected two-pass algorithm): in
    float32 the variance of a constant is then 0, not the square of the mean's rounding error.

    Args:
        x: Tensor [T, N, ...] or [B, ...], features last. float64 is reduced as such, all else in float32.
        valid: bool [T, N] or [B], the leading axes to reduce; None reduces all axes of x.

    Returns:
        mean: [...], 0 if nothing is valid.
        variance: [...], of the population (divided by count), 0 if nothing is valid.
        count: scalar, the number of valid rows, of the type of the other two.

    Raises:
        ValueError: If `valid` is not the shape x begins with.

    >>> x = tf.constant([[1.0, 10.0], [3.0, 10.0], [9.0, 99.0]])
    >>> mean, variance, count = masked_moments(x, tf.constant([True, True, False]))
    >>> mean.numpy(), variance.numpy(), float(count)
    (array([ 2., 10.], dtype=float32), array([1., 0.], dtype=float32), 2.0)
    """
    x = tf.convert_to_tensor(x)
    x = x if x.dtype == tf.float64 else tf.cast(x, tf.float32)
    valid = tf.ones_like(x, tf.bool) if valid is None else tf.convert_to_tensor(valid)
    rank = valid.shape.rank
    if not valid.shape.is_compatible_with(x.shape[:rank]):
        raise ValueError(
            "`valid` must have the leading axes of `x`, those to reduce. "
            f"Received: x.shape={x.shape}, valid.shape={valid.shape}."
        )
    axes = list(range(rank))
    count = tf.reduce_sum(tf.cast(valid, x.dtype))
    mask = tf.reshape(valid, tf.concat([tf.shape(valid), [1] * (x.shape.rank - rank)], 0))

    def average(values):
        return tf.math.divide_no_nan(tf.reduce_sum(tf.where(mask, values, tf.zeros_like(values)), axes), count)

    mean = average(x)
    mean += average(x - mean)
    return mean, average(tf.square(x - mean)), count


def shrinking(x, valid=None):
    """A power of two that brings x to where float32 holds its squares and their sum: 1 below 2⁵⁰.

    Args:
        x: float32 tensor of any shape.
        valid: Bool tensor of x's shape; None for all.

    Returns:
        float32 scalar, 1 or 2⁻⁸⁰, so that no digit changes.

    >>> float(shrinking(tf.constant([3.0, -1e15]))), float(shrinking(tf.constant([1e19]))) * 2.0**80
    (1.0, 1.0)
    """
    sizes = tf.abs(x) if valid is None else tf.where(valid, tf.abs(x), tf.zeros_like(x))
    return tf.where(tf.reduce_max(sizes) < 2.0**50, 1.0, 2.0**-80)


def standardize(x, valid=None, mean=None, epsilon=1e-8, returns=None, floor=1e-3):
    """Shift and scale to mean 0 and standard deviation 1, as is done to advantages.

    (x - mean) / max(std, ε, c rms(R)), with the population's std. A batch of one, or of equal
    numbers, gives zeros, not NaN. Where the std is the greatest of the three, R changes no bit.

    Args:
        x: Float tensor of any shape, usually [T, N] or a minibatch [B].
        valid: Bool tensor of x's shape; None for all. The others come out 0.
        mean: What is subtracted, a float tensor that broadcasts to x; None for the batch's own mean.
        epsilon: Floor of the std, in x's unit. 1e-8 is what PPO2 adds to the std (Dhariwal et
            al. 2017, OpenAI Baselines, ppo2/model.py); a floor is ours, because it leaves the
            std of every ordinary batch at 1.
        returns: R, float tensor of x's shape and unit, what the advantages x are differences of;
            None for no floor but ε.
        floor: c, the least std as a share of the root mean square of R. 1e-3, ours, because a
            solved task leaves advantages that are the critic's error alone (10⁻⁶ to 10⁻⁴ of R on
            MiniGrid and CartPole), which at std 1 undo the policy; while there is something to
            learn the std is 2 10⁻³ of R and more (CartPole, Pendulum, MuJoCo). A share, so that
            the scale of rewards does not matter.

    Returns:
        float32 tensor of x's shape, without unit.

    Raises:
        ValueError: If the shapes differ.

    >>> standardize(tf.constant([1.0, 3.0, 5.0, 7.0])).numpy().round(3)
    array([-1.342, -0.447,  0.447,  1.342], dtype=float32)
    >>> standardize(tf.constant([7.0])).numpy()
    array([0.], dtype=float32)
    >>> standardize(tf.constant([1e-6, -1e-6]), returns=tf.constant([1.0, 1.0])).numpy().round(4)
    array([ 0.001, -0.001], dtype=float32)
    """
    check_same_shape(x=x, valid=valid, returns=returns)
    x = tf.cast(x, tf.float32)
    unit = shrinking(x, valid)
    x *= unit
    own_mean, variance, _ = masked_moments(x, valid)
    least = epsilon
    if returns is not None:
        returns = tf.cast(returns, tf.float32)
        small = shrinking(returns, valid)
        rms = tf.sqrt(masked_mean(tf.square(small * returns), valid))
        least = tf.maximum(least, floor * (unit / small) * rms)
    standard = (x - (own_mean if mean is None else mean * unit)) / tf.maximum(tf.sqrt(variance), least)
    return standard if valid is None else tf.where(valid, standard, 0.0)
