"""The bounds of a continuous action, as every continuous head reads them."""

import gymnasium
import numpy as np
import tensorflow as tf


def event_shape(shape):
    """A shape given as a tuple, a list or one integer, as a tuple of integers."""
    if isinstance(shape, (int, np.integer)):
        shape = (shape,)
    shape = tuple(int(size) for size in shape)
    if any(size < 1 for size in shape):
        raise ValueError(f"`shape` must hold sizes of at least 1. Received: shape={shape}.")
    return shape


def bounds(low, high, shape):
    """`low` and `high` as float32 arrays of `shape`; None means unbounded on that side.

    Raises:
        ValueError: If somewhere `low` is not below `high`, or they do not broadcast to `shape`.
    """
    try:
        low = np.broadcast_to(_inward(-np.inf if low is None else low, np.inf), shape)
        high = np.broadcast_to(_inward(np.inf if high is None else high, -np.inf), shape)
    except ValueError as error:
        raise ValueError(
            f"low and high must broadcast to the action shape {shape}. Received: low={low}, high={high}."
        ) from error
    if not (low < high).all():
        raise ValueError(
            "`low` must be below high in every dimension, as float32, in which heads compute. "
            f"Received: low={low}, high={high}."
        )
    return low, high


def _inward(bound, inside, dtype="float32"):
    """A bound as `dtype`, rounded towards the inside: a float64 space refuses what is 1e-9 beyond."""
    bound = np.asarray(bound, "float64")
    with np.errstate(over="ignore"):  # What is beyond the dtype becomes infinite, and comes back inside.
        rounded = bound.astype(dtype)
    outside = rounded < bound if inside > 0 else rounded > bound
    return np.where(outside, np.nextafter(rounded, np.asarray(inside, dtype)), rounded)


def finite_bounds(low, high, shape=None):
    """Finite `low` and `high` as float32 arrays of `shape`; None for their common shape.

    Raises:
        ValueError: As `bounds`, and if a bound is missing or infinite.
    """
    finite = low is not None and high is not None
    if not (finite and np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(
            "low and high must be finite, because the policy fills the whole interval. "
            f"Received: low={low}, high={high}. Use heads.Gaussian for an unbounded action, or "
            "bound the environment's actions (gymnasium.wrappers.RescaleAction)."
        )
    if shape is None:
        shape = np.broadcast_shapes(np.shape(low), np.shape(high))
    return bounds(low, high, event_shape(shape))


def rescale(x, low, high):
    """x in [0, 1] to low + x (high - low), up to rounding."""
    # By halves, which is exact: high - low of finite bounds may be infinite.
    low, high = low / 2, high / 2
    return 2.0 * (low + tf.cast(x, tf.float32) * (high - low))


def unit_interval(actions, low, high):
    """x strictly inside (0, 1), by at least 1e-6, for `rescale` to give these actions."""
    # By halves, as there.
    x = (tf.cast(actions, tf.float32) / 2 - low / 2) / (high / 2 - low / 2)
    return tf.clip_by_value(x, 1e-6, 1.0 - 1e-6)


def clip(actions, low, high, dtype):
    """`actions` inside [low, high] as `dtype`, None for float32; finite, and inside after the cast, too."""
    dtype = dtype or "float32"
    if dtype == "float16":
        largest = np.finfo(dtype).max
        low = np.maximum(_inward(low, np.inf, dtype), -largest).astype("float32")
        high = np.minimum(_inward(high, -np.inf, dtype), largest).astype("float32")
    return tf.cast(tf.clip_by_value(tf.cast(actions, tf.float32), low, high), dtype)


def is_box(space):
    """Whether `space` is a gymnasium `Box` of floats."""
    return isinstance(space, gymnasium.spaces.Box) and np.issubdtype(space.dtype, np.floating)


def is_integer_box(space):
    """Whether `space` is a gymnasium `Box` of integers."""
    return isinstance(space, gymnasium.spaces.Box) and np.issubdtype(space.dtype, np.integer)


def count_choices(space):
    """How many integers each entry of an integer `Box` may be, an array of Python's integers, which do not overflow.

    >>> count_choices(gymnasium.spaces.Box(-1, 1, (2,), np.int8))
    array([3, 3], dtype=object)
    """
    return np.asarray(space.high.astype(object) - space.low.astype(object) + 1, object)


def as_config(bound):
    """A bound as nested lists for `get_config`; None if it is infinite everywhere."""
    return None if np.isinf(bound).all() else bound.tolist()
