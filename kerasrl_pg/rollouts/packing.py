"""Records as few arrays."""

import numpy as np
import tensorflow as tf


class Packing:
    """A record's arrays as one buffer of each dtype: handing an array to TensorFlow costs as much as a small network.

    Args:
        record: A nest of NumPy arrays, of the shapes and dtypes that are to come.

    Attributes:
        key: Hashable; equal where packings are.

    >>> packing = Packing((np.array([[1.0, 2.0]]), np.array([3]), np.array([4.0])))
    >>> buffers = packing.pack((np.array([[5.0, 6.0]]), np.array([7]), np.array([8.0])))
    >>> [buffer.tolist() for buffer in buffers]
    [[5.0, 6.0, 8.0], [7]]
    >>> [leaf.numpy().tolist() for leaf in packing.unpack([tf.constant(buffer) for buffer in buffers])]
    [[[5.0, 6.0]], [7], [8.0]]
    """

    def __init__(self, record):
        leaves = tf.nest.flatten(record)
        self._structure = tf.nest.map_structure(lambda _: 0, record)  # And not the arrays, which may be large.
        self._dtypes = list(dict.fromkeys(leaf.dtype for leaf in leaves))
        self.key = tuple((leaf.shape, leaf.dtype.name) for leaf in leaves)

    def pack(self, record):
        """The buffers, 1-D arrays, of a record."""
        leaves = tf.nest.flatten(record)
        return [np.concatenate([leaf.ravel() for leaf in leaves if leaf.dtype == dtype]) for dtype in self._dtypes]

    def unpack(self, buffers):
        """The record of tensors that buffers, as tensors, hold."""
        parts = {}
        for dtype, buffer in zip(self._dtypes, buffers, strict=True):
            sizes = [int(np.prod(shape)) for shape, name in self.key if name == dtype.name]
            parts[dtype.name] = iter(tf.split(buffer, sizes))
        leaves = [tf.reshape(next(parts[name]), shape) for shape, name in self.key]
        return tf.nest.pack_sequence_as(self._structure, leaves)
