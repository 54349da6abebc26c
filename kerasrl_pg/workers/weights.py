"""Weights on their way to workers: all variables of an agent as few arrays, read and set in one call."""

import numpy as np
import tensorflow as tf

from kerasrl_pg.rollouts.packing import Packing


class WeightsGiver:
    """Reads variables.

    Args:
        variables: Keras variables.

    >>> import keras
    >>> ours, theirs = [keras.Variable([1.0, 2.0]), keras.Variable(3)], [keras.Variable([0.0, 0.0]), keras.Variable(0)]
    >>> WeightsTaker(theirs)(WeightsGiver(ours)())
    >>> [variable.numpy().tolist() for variable in theirs]
    [[1.0, 2.0], 3]
    """

    def __init__(self, variables):
        values = [variable.value for variable in variables]
        dtypes = list(dict.fromkeys(value.dtype for value in values))

        def read():
            return [tf.concat([tf.reshape(v, [-1]) for v in values if v.dtype == dtype], 0) for dtype in dtypes]

        self._read = tf.function(read, autograph=False)

    def __call__(self):
        """Arrays, one of each dtype."""
        return [buffer.numpy() for buffer in self._read()]


class WeightsTaker:
    """Sets variables to what a `WeightsGiver` of alike ones has read; arguments as there."""

    def __init__(self, variables):
        values = [variable.value for variable in variables]
        packing = Packing([np.zeros(value.shape, value.dtype.as_numpy_dtype) for value in values])

        def assign(*buffers):
            for value, new in zip(values, packing.unpack(buffers), strict=True):
                value.assign(new)

        self._assign = tf.function(assign, autograph=False)

    def __call__(self, buffers):
        self._assign(*map(tf.constant, buffers))
