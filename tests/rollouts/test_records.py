"""Rows and sequences of rollouts: all are there once, and sequences stay whole with their memory."""

import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg.rollouts.records import Inputs, Rollout, rows_of, take

T, N = 6, 2
STEPS = tf.constant([[10 * t + n for n in range(N)] for t in range(T)])


def test_rows_are_step_by_step_or_sequence_by_sequence():
    assert rows_of(STEPS).numpy().tolist() == [10 * t + n for t in range(T) for n in range(N)]
    expected = [10 * (3 * block + t) + n for block in range(2) for n in range(N) for t in range(3)]
    assert rows_of(STEPS, 3).numpy().tolist() == expected


def test_sequences_are_taken_whole_with_what_was_remembered_before_them():
    rows = rows_of({"step": STEPS, "pair": tf.stack([STEPS, -STEPS], -1)}, 3)
    memory = rows["step"][::3]
    taken = take((rows, memory), tf.constant([3, 1]), 3)
    assert taken[0]["step"].numpy().tolist() == [31, 41, 51, 1, 11, 21]
    np.testing.assert_array_equal(taken[0]["pair"], np.stack([taken[0]["step"], -taken[0]["step"]], -1))
    assert taken[1].numpy().tolist() == [31, 1]


@pytest.mark.parametrize("memory, length", [((), 1), (tf.zeros((6, 4)), 1), (tf.zeros((2, 4)), 3)])
def test_inputs_know_how_long_their_sequences_are(memory, length):
    assert Inputs({"a": tf.zeros((6, 2)), "b": tf.zeros(6)}, memory=memory).length == length


def test_what_there_is_not_is_nothing_to_a_nest():
    assert len(tf.nest.flatten(Inputs(tf.zeros(3)))) == 1


def test_an_episode_ends_where_it_is_terminated_truncated_or_followed_by_no_transition():
    no = np.zeros((4, 1), bool)
    terminated, truncated, valid = no.copy(), no.copy(), ~no
    terminated[0], truncated[1], valid[3] = True, True, False
    nothing = Inputs(tf.zeros((4, 1, 1)))
    zeros = tf.zeros((4, 1))
    rollout = Rollout(nothing, zeros, zeros, zeros, *map(tf.constant, (terminated, truncated)), nothing, valid)
    assert rollout.ends[:3, 0].numpy().tolist() == [True, True, True]
