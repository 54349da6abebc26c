"""The records: what a policy is called with, what happened, and the rows that a loss sees."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kerasrl_pg import ops


class Inputs(NamedTuple):
    """What a policy is called with. `()` where there is none of a kind, which is nothing to `tf.nest`.

    Args:
        observations: [..., ...] tensor or flat dictionary of tensors, o_t.
        masks: bool [..., *head.mask_shape], the actions that are allowed.
    """

    observations: Any
    masks: Any = ()


class Rollout(NamedTuple):
    """T steps of N environments, time-major, as they happened: facts only, never edited.

    Nothing is normalised, scaled, clipped or bootstrapped here; agents compute beside the record.

    Args:
        inputs: `Inputs` [T, N, ...], what the actions were chosen from.
        actions: [T, N, ...] raw samples a_t of the policy's distribution, not the copy sent to the environment.
        log_probs: float32 [T, N], log probabilities, in nats, of a_t under whoever acted.
        rewards: float32 [T, N], r_t as given by the environment.
        terminated: bool [T, N], the episode ended with this step in a terminal state.
        truncated: bool [T, N], the episode was cut off with this step. Where both are true, it terminated.
        next_inputs: `Inputs` [T, N, ...], the true next ones; at an episode's end its final ones.
        valid: bool [T, N], False where a row is no transition (an environment's own reset step, or padding).
    """

    inputs: Inputs
    actions: Any
    log_probs: Any
    rewards: Any
    terminated: Any
    truncated: Any
    next_inputs: Inputs
    valid: Any

    @property
    def ends(self):
        """bool [T, N], where episodes end within the rollout (see `ops.episode_ends`)."""
        return ops.episode_ends(self.terminated, self.truncated, self.valid)


class Samples(NamedTuple):
    """The rows that a loss sees, B = T x N of a rollout or fewer of a minibatch. No gradient flows into them.

    Args:
        inputs: `Inputs` [B, ...].
        actions: [B, ...], raw.
        old_log_probs: float32 [B], log π_old(a|s) by the policy that is about to move, in nats.
        old_values: float32 [B], V(s) by the critic that is about to move, in the unit of returns; 0 without one.
        advantages: float32 [B].
        returns: float32 [B], what the critic regresses on.
        valid: bool [B]; other rows must not count.
        old: π_old itself, or what its head has of each row, as a method keeps it.
        trajectories: float32 scalar, how many trajectories the rows are of, where a method asks for it.
    """

    inputs: Inputs
    actions: Any
    old_log_probs: Any
    old_values: Any
    advantages: Any
    returns: Any
    valid: Any
    old: Any = ()
    trajectories: Any = ()


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
