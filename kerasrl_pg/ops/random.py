"""Random numbers that are the same in eager, graph and XLA code.

XLA makes floats of random bits in its own way, so `tf.random.stateless_uniform` with floats, and
with it every TFP `sample`, gives other numbers for the same seed once a function is compiled.
The bits themselves are the same: this module draws those and does the rest by its own arithmetic.
"""

import tensorflow as tf


def bits(seed, shape):
    """Uniform random bits, the source of everything else here.

    Args:
        seed: int32[2], the agent's seed and a counter; equal seeds give equal bits.
        shape: Shape of the result, ints.

    Returns:
        uint32 tensor, bit-equal in eager, graph and XLA code.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox).

    >>> bits([3, 4], (3,)).numpy()
    array([2434737163, 3623740297, 2904307362], dtype=uint32)
    """
    # Philox by name: the default lets the device choose, and XLA on a CPU chooses a slow one.
    return tf.random.stateless_uniform(shape, seed=seed, minval=None, maxval=None, dtype=tf.uint32, alg="philox")


def uniform(seed, shape):
    """Uniform floats in the open interval (0, 1), so that a logarithm of them is finite.

    The top 23 bits of `bits`, as the midpoints (k + ½) 2⁻²³: exact in float32, both ends included.

    Args:
        seed: int32[2].
        shape: Shape of the result, ints.

    Returns:
        float32 tensor, bit-equal in eager, graph and XLA code.

    >>> uniform([3, 4], (3,)).numpy().round(4)
    array([0.5669, 0.8437, 0.6762], dtype=float32)
    """
    return tf.cast(tf.bitwise.right_shift(bits(seed, shape), 9), tf.float32) * 2.0**-23 + 2.0**-24


def normal(seed, shape):
    """Standard normal floats, √2 erfinv(2u - 1) of a uniform u.

    Args:
        seed: int32[2].
        shape: Shape of the result, ints.

    Returns:
        float32 tensor, equal in eager and graph code and up to rounding in XLA; within ±5.3.

    >>> normal([3, 4], (3,)).numpy().round(3)
    array([0.168, 1.01 , 0.457], dtype=float32)
    """
    return 2.0**0.5 * tf.math.erfinv(2.0 * uniform(seed, shape) - 1.0)


def permutations(seed, count, size):
    """Independent uniform permutations, for instance one a pass over the minibatches.

    Args:
        seed: int32[2].
        count: Number of permutations.
        size: Number of elements in each.

    Returns:
        int32 [count, size], each row a permutation of 0 ... size - 1; equal in eager,
        graph and XLA code.

    >>> permutations([3, 4], count=2, size=4).numpy()
    array([[3, 0, 2, 1],
           [2, 3, 0, 1]], dtype=int32)
    """
    # All 32 bits: with only the 2^23 values of `uniform` ties would be common.
    return tf.argsort(bits(seed, (count, size)), axis=-1, stable=True)
