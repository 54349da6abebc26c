"""One way of undoing an update that leaves a weight, or anything else that goes on, infinite or NaN."""

import numpy as np
import tensorflow as tf

from kerasrl_pg import ops


class NotFinite(ValueError):
    """An update that was undone; the sentence names what was NaN or infinite after it."""


def undo_unless_finite(update, variables):
    """Runs an update, and takes it back where something is not finite afterwards.

    Nothing but the answer leaves the compiled program, and there is no branch in it: both sides of a `tf.where` cost
    less than a branch around a short update (an eighth of it).

    Args:
        update: Function without arguments; it moves `variables`, and returns `(result, witnesses)`: anything, and a
            list of float tensors that must be finite, too.
        variables: `tf.Variable`s, all that the update may change.

    Returns:
        `(result, bad)`: int32, 0 where all is finite and the update stands, else the place, counted from 1, of the
        first that is not, among the witnesses and then the float ones of `variables`.

    >>> weight = tf.Variable(1.0)
    >>> for change in (2.0, float("inf")):
    ...     _, bad = undo_unless_finite(lambda: (weight.assign_add(change), []), [weight])
    ...     print(int(bad), weight.numpy())
    0 3.0
    1 3.0
    """
    old = [tf.identity(variable) for variable in variables]
    result, witnesses = update()
    judged = [*witnesses, *(variable for variable in variables if variable.dtype.is_floating)]
    parts = [ops.magnitudes(tensor) for tensor in judged]
    places = np.repeat(np.arange(1, len(parts) + 1, dtype="int32"), [part.shape[0] for part in parts])
    first = tf.reduce_min(tf.where(tf.math.is_finite(tf.concat(parts, 0)), len(parts) + 1, places))
    stands = first > len(parts)
    for variable, value in zip(variables, old, strict=True):
        variable.assign(tf.where(stands, variable, value))
    return result, tf.where(stands, 0, first)
