"""Passes over a batch in shuffled minibatches, inside one compiled function."""

import math

import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.rollouts.records import take
from kerasrl_pg.training.logs import MOST_LOGS, pack_logs


def for_each_minibatch(update, batch, seed, update_epochs, minibatch_size, keep_going=None, length=1):
    """Calls `update(minibatch)` for each minibatch of each pass, and averages its logs.

    One `tf.while_loop` runs all of it, because a call from Python for each minibatch costs ten times the update of a
    small network.

    Args:
        update: Function from a minibatch (the nest of `batch` with `minibatch_size` rows) to a dictionary of at most 64
            scalars; it applies the gradient itself.
        batch: Nest of tensors [B, ...].
        seed: int32[2], of the shuffling; each pass has its own permutation. Unused where a minibatch is all rows.
        update_epochs: K, passes, at least 1.
        minibatch_size: M, rows of a minibatch; B must be a multiple.
        keep_going: None, or a function from the last minibatch's logs to a bool tensor; where False, the passes end.
        length: L, consecutive rows that stay together; M must be a multiple.

    Returns:
        Means of the logs over the minibatches done, and `updates`, their number.

    Raises:
        ValueError: If B is no multiple of M, or M none of L.
    """
    size = tf.nest.flatten(batch)[0].shape[0]
    if size % minibatch_size or minibatch_size % length:
        sequences = f", sequences of {length}" if length > 1 else ""
        raise ValueError(
            "A minibatch's `size` must divide the rows, and be whole sequences. "
            f"Received: size={minibatch_size}, {size} rows{sequences}."
        )
    count = update_epochs * (size // minibatch_size)
    whole = minibatch_size == size  # Then the order of its rows is nothing to a mean, and sorting is saved.
    rows = None
    if not whole:
        rows = ops.random.permutations(seed, update_epochs, size // length)
        rows = tf.reshape(rows, [-1, minibatch_size // length])
    names = []

    def body(index, going, sums):
        minibatch = batch if whole else take(batch, rows[index], length)
        logs = update(minibatch)
        going = tf.constant(True) if keep_going is None else keep_going(logs)
        return index + 1, going, sums + pack_logs(logs, names)

    start = tf.constant(0), tf.constant(True), tf.zeros(MOST_LOGS)
    done, _, sums = tf.while_loop(lambda i, going, _: (i < count) & going, body, start, maximum_iterations=count)
    updates = tf.cast(done, tf.float32)
    means = tf.unstack(sums[: len(names)] / updates)
    return {**dict(zip(names, means, strict=True)), "updates": updates}


def check_minibatch_size(minibatch_size, horizon, num_envs):
    """Refuses minibatches that do not divide a rollout.

    >>> check_minibatch_size(24, horizon=8, num_envs=4)
    Traceback (most recent call last):
    ...
    ValueError: `minibatch_size` must divide the rollout, horizon x num_envs = 8 x 4 = 32. \
Received: minibatch_size=24. Choose a divisor of 32.
    """
    rows = horizon * num_envs
    if rows % minibatch_size:
        raise ValueError(
            f"`minibatch_size` must divide the rollout, horizon x num_envs = {horizon} x {num_envs} = {rows}. "
            f"Received: minibatch_size={minibatch_size}. Choose a divisor of {rows}."
        )


def length_of_sequences(asked, horizon, minibatch_size=0):
    """L, consecutive steps that stay together in rollouts and minibatches.

    Args:
        asked: The setting `sequence_length`; None for the largest.
        horizon: T; L must divide it.
        minibatch_size: M; L must divide it. 0 where a method takes no minibatches.

    Raises:
        ValueError: If what is asked for does not.

    >>> length_of_sequences(None, horizon=16, minibatch_size=24)
    8
    """
    length = math.gcd(horizon, minibatch_size) if asked is None else asked
    if horizon % length or minibatch_size % length:
        minibatch = f", minibatch_size={minibatch_size}" if minibatch_size else ""
        raise ValueError(
            "`sequence_length` must divide a rollout's steps and a minibatch, which is of whole sequences. "
            f"Received: sequence_length={length}, {horizon} steps{minibatch}."
        )
    return length


def check_sequence_length(sequence_length, memories):
    """Refuses a length of sequences where no network remembers; `memories` are the layers that do."""
    if sequence_length is not None and not memories:
        raise ValueError(
            "`sequence_length` must be None where no network remembers. "
            f"Received: sequence_length={sequence_length}. Give `networks=Networks(memory=...)`, or leave it out."
        )
