"""The small worlds against exact solutions and naive copies."""

import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg.envs import Catch, Corridor, TabularMDP, TMaze
from kerasrl_pg.envs.worlds import whole_number
from kerasrl_pg.ops import random


def corridor_model(length):
    """Next places [S, 2] and ends [S, 2], read from the environment itself."""
    env, states = Corridor(), np.repeat(np.arange(length), 2).astype(np.int32)
    after = Corridor(length=length).step(tf.constant(states), tf.constant([0, 1] * length), tf.zeros((2 * length, 0)))
    assert np.all(after.rewards == -1.0) and env.length == 6
    return after.state.numpy().reshape(length, 2), after.terminated.numpy().reshape(length, 2)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("length", [2, 5])
def test_the_corridors_best_return(length, gamma):
    following, ends = corridor_model(length)
    values = np.zeros(length)
    for _ in range(3 * length):
        values = np.max(-1.0 + gamma * np.where(ends, 0.0, values[following]), -1)
    n = length - 1
    assert values[0] == pytest.approx(-n if gamma == 1.0 else -(1 - gamma**n) / (1 - gamma))


@pytest.mark.parametrize("length", [2, 5])
def test_the_corridors_aimless_walk(length):
    following, ends = corridor_model(length)
    places = np.arange(length - 1)
    matrix = np.eye(length - 1)
    for action in (0, 1):
        for place in places[~ends[:-1, action]]:
            matrix[place, following[place, action]] -= 0.5
    steps = np.linalg.solve(matrix, np.ones(length - 1))
    assert steps[0] == pytest.approx((length - 1) * length)


def test_a_corridor_begins_at_the_left():
    assert Corridor().reset(tf.zeros((3, 0))).numpy().tolist() == [0, 0, 0]


MDP = TabularMDP(num_states=6, num_actions=2, branching=3, seed=4)


def test_a_garnets_arrays():
    transitions, rewards = MDP.transitions, MDP.rewards
    assert transitions.shape == rewards.shape == (6, 2, 6)
    np.testing.assert_allclose(transitions.sum(-1), 1.0)
    assert ((transitions > 0).sum(-1) == 3).all()
    assert ((rewards != 0) == (transitions > 0)).all()
    assert MDP.transitions is transitions  # made once


def test_a_garnets_arrays_follow_from_its_fields():
    same, other = TabularMDP(7, 9, 6, 2, 3, 4), TabularMDP(num_states=6, num_actions=2, branching=3, seed=5)
    np.testing.assert_array_equal(same.transitions, MDP.transitions)
    np.testing.assert_array_equal(same.rewards, MDP.rewards)
    assert not np.array_equal(other.transitions, MDP.transitions)
    assert not np.array_equal(other.rewards, MDP.rewards)
    fresh = TabularMDP(num_states=6, num_actions=2, branching=3, seed=4)
    assert fresh == MDP and hash(fresh) == hash(MDP)  # though only one of them has made its arrays


def test_garnets_are_distributed_as_described():
    large = TabularMDP(num_states=200, num_actions=5, branching=2, seed=1)
    reached = large.transitions > 0
    probabilities, rewards = large.transitions[reached], large.rewards[reached]
    # A uniform cut: mean 1/2, variance 1/12; and each state follows equally often, 10 times on average.
    assert probabilities.mean() == pytest.approx(0.5)
    assert probabilities.var() == pytest.approx(1 / 12, rel=0.1)
    assert abs(rewards.mean()) < 0.1 and rewards.std() == pytest.approx(1.0, abs=0.1)
    assert reached.sum((0, 1)).std() == pytest.approx(10**0.5, rel=0.25)


def test_a_garnet_steps_as_its_arrays_say():
    count = 4000
    states, actions = (x.ravel() for x in np.meshgrid(np.arange(6), np.arange(2), indexing="ij"))
    states, actions = np.repeat(states, count), np.repeat(actions, count)
    noise = random.uniform([0, 0], (len(states), 1))
    after = MDP.step(tf.constant(states, tf.int32), tf.constant(actions), noise)
    following = after.state.numpy()
    np.testing.assert_allclose(after.rewards, MDP.rewards[states, actions, following], rtol=1e-6)
    assert not after.terminated.numpy().any()
    frequencies = np.zeros((6, 2, 6))
    np.add.at(frequencies, (states, actions, following), 1 / count)
    assert (frequencies[MDP.transitions == 0] == 0).all()
    spread = np.sqrt(MDP.transitions * (1 - MDP.transitions) / count)
    assert (np.abs(frequencies - MDP.transitions) <= 5 * spread).all()


def test_the_ends_of_the_noise_reach_existing_states():
    mdp = TabularMDP(num_states=3, num_actions=1, branching=3)
    noise = tf.constant([[2.0**-24], [1 - 2.0**-24]])
    assert set(mdp.reset(noise).numpy()) == {0, 2}
    assert set(mdp.step(tf.constant([0, 2]), tf.constant([0, 0]), noise).state.numpy()) <= {0, 1, 2}


def test_one_branch_is_certain():
    mdp = TabularMDP(num_states=4, num_actions=2, branching=1)
    assert set(np.unique(mdp.transitions)) == {0.0, 1.0}
    after = mdp.step(tf.constant([3, 3]), tf.constant([1, 1]), tf.constant([[0.01], [0.99]]))
    assert after.state.numpy().tolist() == [mdp.transitions[3, 1].argmax()] * 2


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 200, 1024])
def test_whole_numbers_stay_below_their_count(count):
    numbers = whole_number(random.uniform([1, 2], (200 * count,)), count).numpy()
    assert numbers.min() == 0 and numbers.max() == count - 1
    assert int(whole_number(tf.constant(1 - 2.0**-24), count)) == count - 1
    frequencies = np.bincount(numbers, minlength=count)
    assert np.abs(frequencies - 200).max() < 6 * 200**0.5


def test_catch_follows_its_rules():
    """One game of each first column and each sequence of moves left or right, against a naive copy."""
    rows, columns = 4, 3
    env = Catch(rows=rows, columns=columns)
    for first in range(columns):
        state = env.reset(tf.constant([[(first + 0.5) / columns]]))
        for moves in np.ndindex(3, 3, 3):
            now, paddle = state, 1
            for t, move in enumerate(moves):
                board = np.zeros((rows, columns))
                board[t, first] = board[rows - 1, paddle] = 1
                np.testing.assert_array_equal(env.observe(now)[0], board)
                now, rewards, terminated, _ = env.step(now, tf.constant([move]), tf.zeros((1, 0)))
                paddle = min(max(paddle + move - 1, 0), columns - 1)
                assert bool(terminated[0]) == (t == 2)
                assert float(rewards[0]) == (0 if t < 2 else 1 if paddle == first else -1)


def test_catch_is_bsuites_by_default():
    env = Catch(num_envs=2)
    assert env.observation_space.shape == (10, 5)
    assert env.max_episode_steps is None
    np.testing.assert_array_equal(env.reset(tf.constant([[0.0], [0.999]])), [[0, 0, 2], [0, 4, 2]])


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: Corridor(length=1), "`length` must be a whole number of at least 2. Received: length=1"),
        (lambda: TabularMDP(num_states=0), "`num_states` must be a whole number of at least 1. Received"),
        (lambda: TabularMDP(num_actions=1.0), r"`num_actions` must be .* Received: num_actions=1\.0"),
        (lambda: TabularMDP(branching=6), "`branching` must be .* at least 1 and at most 5. Received: branching=6"),
        (lambda: TabularMDP(seed=-1), "`seed` must be a whole number of at least 0. Received: seed=-1"),
        (lambda: Catch(rows=1), "`rows` must be a whole number of at least 2. Received: rows=1"),
        (lambda: Catch(columns=True), "`columns` must be a whole number of at least 1. Received: columns=True"),
    ],
)
def test_wrong_settings_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize("turn, sign", [(1, -1), (2, 1)])
def test_a_t_maze_asks_at_its_end_for_what_it_showed_at_its_beginning(turn, sign):
    maze, state = TMaze(length=3), tf.constant([[0, -1], [0, 1]])
    seen, total = [], np.zeros(2)
    for action in (0, 0, 3 - turn, 0, 0, turn):
        seen.append(maze.observe(state).numpy())
        after = maze.step(state, tf.constant([action] * 2), tf.zeros((2, 0)))
        state, total = after.state, total + after.rewards
    np.testing.assert_array_equal(seen[0], [[-1, 0], [1, 0]])
    np.testing.assert_array_equal(seen[1], 0)  # the same whatever the sign was
    np.testing.assert_array_equal(seen[5], [[0, 1]] * 2)
    assert after.terminated.numpy().all()
    # A turn in the corridor and a step against the wall, a third each; then 1 or nothing.
    np.testing.assert_allclose(total, [-2 / 3 + (sign == -1), -2 / 3 + (sign == 1)], atol=1e-6)
