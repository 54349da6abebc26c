"""Logs as one vector, for loops whose variables have shapes before the names of the logs are known."""

import tensorflow as tf

MOST_LOGS = 64  # Ours: five times what any method here has.


def pack_logs(logs, names):
    """A dictionary of scalars as float32 [MOST_LOGS]; its names are written into the list `names`.

    >>> names = []
    >>> pack_logs({"loss": 2.0, "kl": 0.5}, names)[:3].numpy(), names
    (array([2. , 0.5, 0. ], dtype=float32), ['loss', 'kl'])
    """
    names[:] = logs
    values = tf.stack([tf.cast(value, tf.float32) for value in logs.values()])
    return tf.pad(values, [[0, MOST_LOGS - len(names)]])
