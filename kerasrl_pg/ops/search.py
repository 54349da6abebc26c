"""What methods without gradients make of the returns of a population.

P is the size of the population, D the number of weights that are searched.
"""

import tensorflow as tf

from kerasrl_pg.ops.shapes import check_same_shape


def antithetic(noise):
    """Noise and its mirror image, so that what is even in it cancels in differences.

    Args:
        noise: float [P / 2, D].

    Returns:
        float [P, D], the noise and then its negative in the same order.

    Source: Salimans et al. 2017 (arXiv 1703.03864), section 2.2, "antithetic sampling" (Geweke 1988).

    >>> antithetic(tf.constant([[1.0, 2.0]])).numpy().tolist()
    [[1.0, 2.0], [-1.0, -2.0]]
    """
    return tf.concat([noise, -noise], 0)


def centred_ranks(returns):
    """Returns as their ranks, from -½ for the lowest to ½ for the highest.

    A search that uses them depends on the order of the returns alone, and not on their scale. Equal returns share the
    mean of their ranks (ours: by the order in which they stand, as in the authors' code, a population of equals would
    have a gradient of noise).

    Args:
        returns: float [P].

    Returns:
        float32 [P], of mean 0; all 0 where all are equal, or P is 1.

    Source: Salimans et al. 2017 (arXiv 1703.03864), section 2.1, "fitness shaping"; Wierstra et al. 2014.

    >>> centred_ranks(tf.constant([7.0, -100.0, 8.0, 7.0])).numpy().tolist()
    [0.0, -0.5, 0.5, 0.0]
    """
    below = tf.reduce_sum(tf.cast(returns[:, None] > returns[None], tf.float32), 1)
    equal = tf.reduce_sum(tf.cast(returns[:, None] == returns[None], tf.float32), 1)
    ranks = below + 0.5 * (equal - 1.0)
    others = tf.cast(tf.shape(returns)[0] - 1, tf.float32)
    return tf.math.divide_no_nan(ranks - 0.5 * others, others)


def smoothed_gradient(noise, utilities, scale):
    """The estimate of ∇_θ E[F(θ + σ ε)], ε standard normal.

        g = 1 / (P σ) Σ_i u_i ε_i

    With u_i = F(θ + σ ε_i) its mean is the exact gradient of the smoothed F, for any F, differentiable or not.

    Args:
        noise: float [P, D], ε_i.
        utilities: float [P], u_i.
        scale: σ > 0.

    Returns:
        float [D].

    Raises:
        ValueError: If there are not as many utilities as rows of noise.

    Source: Salimans et al. 2017 (arXiv 1703.03864), section 2, and algorithm 1, line 5.

    >>> noise = antithetic(tf.constant([[1.0, 0.0], [0.0, 1.0]]))
    >>> smoothed_gradient(noise, utilities=tf.linalg.matvec(noise, [4.0, 6.0]), scale=1.0).numpy()
    array([2., 3.], dtype=float32)
    """
    check_same_shape(utilities=utilities, noise=noise[:, 0])
    size = tf.cast(tf.shape(noise)[0], noise.dtype)
    return tf.linalg.matvec(noise, utilities, transpose_a=True) / (size * scale)


def metropolis_probability(change, temperature):
    """How probably a change of the objective is accepted.

        min(1, exp(ΔJ / T))

    Kirkpatrick et al. minimise an energy E, and have exp(-ΔE / T); J, a return, is -E.

    Args:
        change: float, ΔJ, in the unit of returns.
        temperature: T >= 0, in the same unit. At 0 what is worse is never accepted.

    Returns:
        float32, in [0, 1]; 1 where the change is not negative.

    Source: Kirkpatrick, Gelatt and Vecchi 1983, "Optimization by simulated annealing", page 672; Metropolis et al.
    1953.

    >>> metropolis_probability(tf.constant([1.0, 0.0, -1.0, -100.0]), temperature=2.0).numpy().round(3)
    array([1.   , 1.   , 0.607, 0.   ], dtype=float32)
    >>> metropolis_probability(tf.constant([0.0, -1.0]), temperature=0.0).numpy()
    array([1., 0.], dtype=float32)
    """
    worse = tf.minimum(tf.cast(change, tf.float32), 0.0)
    temperature = tf.cast(temperature, tf.float32)
    hot = tf.where(temperature > 0.0, temperature, 1.0)
    return tf.where(temperature > 0.0, tf.exp(worse / hot), tf.cast(worse == 0.0, tf.float32))


def adapted_noise(noise, improved, shrink, grow, least, most):
    """The next scale of a search's noise: smaller, to look nearby, after a success; larger, to get away, after none.

    Args:
        noise: σ > 0.
        improved: bool, whether something better was found.
        shrink, grow: Factors, below and above 1.
        least, most: Bounds of σ.

    Returns:
        float32 scalar.

    Source: hill climbing with "adaptive noise scaling" (Udacity's Deep Reinforcement Learning, `hill-climbing`), which
    halves and doubles within [0.001, 2].

    >>> [float(adapted_noise(0.25, improved, 0.5, 2.0, 0.125, 0.375)) for improved in (True, False)]
    [0.125, 0.375]
    """
    return tf.clip_by_value(tf.cast(noise, tf.float32) * tf.where(improved, shrink, grow), least, most)
