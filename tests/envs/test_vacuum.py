"""The vacuum cleaner's world, move by move, and its exact solutions."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg.envs import Vacuum, check_equal
from kerasrl_pg.lab import MDP

UP, RIGHT, DOWN, LEFT = range(4)


def go(cell, *actions):
    """The cells, the sum of rewards and whether that was the end."""
    cells, total, over = [], 0.0, False
    for action in actions:
        assert not over
        after = Vacuum().step(tf.constant([cell]), tf.constant([action]), tf.zeros((1, 0)))
        cell, over = int(after.state[0]), bool(after.terminated[0])
        cells.append(cell)
        total += float(after.rewards[0])
    return cells, pytest.approx(total, abs=1e-6), over


def test_the_ways():
    assert go(0, UP, LEFT, RIGHT, RIGHT, DOWN) == ([0, 0, 1, 2, 6], 0.75, True)
    assert go(4, UP, RIGHT, LEFT, LEFT, DOWN) == ([4, 4, 3, 2, 6], 0.75, True)
    assert go(1, UP, DOWN, LEFT, DOWN) == ([1, 1, 0, 5], -5.2, True)
    assert go(3, UP, DOWN, RIGHT, DOWN) == ([3, 3, 4, 7], -5.2, True)
    assert go(2, UP, LEFT, RIGHT, RIGHT) == ([2, 1, 2, 3], -0.2, False)


def test_what_is_seen():
    seen = Vacuum().observe(tf.range(5)).numpy().astype(int)
    # Above, right, below and left.
    assert seen.tolist() == [[1, 0, 0, 1], [1, 0, 1, 0], [1, 0, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]]


def test_first_cells():
    assert Vacuum().reset(tf.constant([[0.01], [0.3], [0.6], [0.99]])).numpy().tolist() == [0, 1, 3, 4]


def test_its_arrays_are_what_it_does():
    world = Vacuum()
    for action in range(4):
        after = world.step(tf.range(8), tf.fill([8], action), tf.zeros((8, 0)))
        place = np.arange(8), action, after.state.numpy()
        np.testing.assert_array_equal(world.transitions[place], 1.0)
        np.testing.assert_allclose(world.rewards[place], after.rewards, rtol=1e-6)
        np.testing.assert_array_equal(world.terminal[after.state.numpy()], after.terminated)
    np.testing.assert_array_equal(world.observations, world.observe(tf.range(8)))
    assert world.transitions.sum() == 32 and world.initial.tolist() == [0.25, 0.25, 0, 0.25, 0.25, 0, 0, 0]


def drawn_by(p):
    """The value of going right with `p` in the two cells alike, and straight elsewhere, by its own equations."""
    # Steps to the end from the cells 0 to 4: s0 = 1 + s1, s1 = 1 + p s2 + (1 - p) s0, ..., s2 = 1.
    matrix = np.eye(5) - [[0, 1, 0, 0, 0], [1 - p, 0, p, 0, 0], [0] * 5, [0, 0, 1 - p, 0, p], [0, 0, 0, 1, 0]]
    steps = np.linalg.solve(matrix, np.ones(5))
    return 1 - 0.05 * steps[[0, 1, 3, 4]].mean()


def policy(p):
    right, left = np.eye(4)[[RIGHT, LEFT]]
    alike = p * right + (1 - p) * left
    return np.array([right, alike, np.eye(4)[DOWN], alike, left, *np.full((3, 4), 0.25)])


def test_what_policies_that_draw_are_worth():
    endless = MDP.of(Vacuum(), 1.0, horizon=None)
    for p in (0.2, 0.5, 0.9):
        assert endless.evaluate(policy(p)).objective == pytest.approx(drawn_by(p), abs=1e-12)
    assert drawn_by(0.5) == pytest.approx(0.775)
    limited = MDP.of(Vacuum(), 1.0)
    assert limited.horizon == 50
    assert limited.evaluate(policy(0.5)).objective == pytest.approx(0.775, abs=1e-6)


def test_the_best_that_draws():
    objective, found = MDP.of(Vacuum(), 1.0).memoryless_policy(starts=3)
    assert objective == pytest.approx(max(drawn_by(p) for p in np.linspace(0.1, 0.9, 801)), abs=1e-5)
    np.testing.assert_allclose(found[:5], policy(0.5)[:5], atol=1e-2)


def test_the_best_that_does_not_draw_is_stuck():
    mdp = MDP.of(Vacuum(), 1.0)
    objective, actions = mdp.memoryless_actions()
    # From one side it arrives in two and in three steps; from the other it goes to and fro until the limit.
    assert objective == pytest.approx((0.9 + 0.85 - 2.5 - 2.5) / 4)
    assert actions[1] == actions[3] in (LEFT, RIGHT) and actions[2] == DOWN
    assert mdp.evaluate(np.eye(4)[actions]).objective == pytest.approx(objective)
    # It would rather stand about than suck a hamster.
    cruel = actions.copy()
    cruel[[0, 4]] = DOWN
    assert mdp.evaluate(np.eye(4)[cruel]).objective < objective


def test_the_best_that_sees_its_cell():
    assert MDP.of(Vacuum(), 1.0).optimal_values()[0] == pytest.approx((0.9 + 0.9 + 0.85 + 0.85) / 4)


def test_the_best_that_remembers():
    world = Vacuum()
    following = world.transitions.argmax(-1)
    seen = [tuple(row) for row in world.observations]

    @functools.cache
    def best(cells, steps):
        """The best sum over the cells, each alike, that it may be in."""
        if not steps or not cells:
            return 0.0
        totals = []
        for action in range(4):
            after = [following[cell, action] for cell in cells]
            total = sum(world.rewards[0, 0, cell] for cell in after)
            for what in set(seen):
                going_on = [int(cell) for cell in after if seen[cell] == what and not world.terminal[cell]]
                total += best(tuple(sorted(going_on)), steps - 1)
            totals.append(total)
        return max(totals)

    value = best((0,), 12) + best((4,), 12) + best((1, 3), 12)
    assert value / 4 == pytest.approx(0.85)


def test_equal_to_gymnasiums():
    report = check_equal(Vacuum(), "kerasrl_pg/Vacuum-v0", steps=2000, resets=500)
    assert report.terminated > 50 and report.truncated > 5
    assert report.observation_difference == report.state_difference == 0.0
