"""The records: what a policy is called with, what happened, and the rows that a loss sees."""

from typing import Any, NamedTuple

import tensorflow as tf

from kerasrl_pg import ops


class Inputs(NamedTuple):
    """What a policy is called with. `()` where there is none of a kind, which is nothing to `tf.nest`.

    Args:
        observations: [..., ...] tensor or flat dictionary of tensors, o_t.
        masks: bool [..., *head.mask_shape], the actions that are allowed.
        starts: bool [...], where an episode starts, before which nothing is remembered.
        memory: float32 [..., M], what networks remember of the steps before (see `models.memory`). With fewer rows
            than observations, those are sequences of consecutive steps, one after the other, and this is what was
            remembered before the first step of each.
    """

    observations: Any
    masks: Any = ()
    starts: Any = ()
    memory: Any = ()

    @property
    def length(self):
        """L, consecutive steps in each sequence of rows; 1 where nothing is remembered."""
        if isinstance(self.memory, tuple):
            return 1
        rows, sequences = tf.nest.flatten(self.observations)[0].shape[0], self.memory.shape[0]
        return 1 if rows == sequences else rows // sequences


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

    Where networks remember, rows are whole sequences of consecutive steps, one after the other (see `Inputs`).

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


def rows_of(rollout, length=1):
    """A rollout's steps as rows.

    Args:
        rollout: A nest of tensors [T, N, ...], such as a `Rollout` or parts of one.
        length: L, consecutive steps of a sequence; T must be a multiple.

    Returns:
        The nest with tensors [T x N, ...]: row t N + n is step t of environment n where L is 1; else sequence after
        sequence, those of one time side by side.

    >>> rows_of(tf.constant([[1, 10], [2, 20], [3, 30], [4, 40]]), length=2).numpy().tolist()
    [1, 2, 10, 20, 3, 4, 30, 40]
    """
    if length == 1:
        return ops.flatten_time(rollout)

    def flatten(x):
        t, n, *rest = x.shape
        x = tf.reshape(x, [t // length, length, n, *rest])
        return tf.reshape(tf.transpose(x, [0, 2, 1, *range(3, 3 + len(rest))]), [t * n, *rest])

    return tf.nest.map_structure(flatten, rollout)


def take(rows, places, length=1):
    """Some of the rows.

    Args:
        rows: A nest of tensors [B, ...]; of memory, [B / length, ...].
        places: int [M], of rows or, where L is above 1, of sequences.
        length: L, consecutive steps of a sequence.
    """
    if length == 1:
        return tf.nest.map_structure(lambda x: tf.gather(x, places), rows)
    sequences = tf.nest.flatten(rows)[0].shape[0] // length

    def gather(x):
        if x.shape[0] == sequences:
            return tf.gather(x, places)
        x = tf.gather(tf.reshape(x, [sequences, length, *x.shape[1:]]), places)
        return tf.reshape(x, [-1, *x.shape[2:]])

    return tf.nest.map_structure(gather, rows)
