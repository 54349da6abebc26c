"""Breakout against a naive copy, written from the paper's and the program's rules."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import Networks, ops
from kerasrl_pg.envs import Breakout, check_equal
from kerasrl_pg.envs.breakout import Board


class NaiveBreakout(gym.Env):
    """One board as sets of places (column, row)."""

    observation_space = gym.spaces.Box(0, 255, (10, 10, 4), np.uint8)
    action_space = gym.spaces.Discrete(3)
    refills = 0

    def wall(self):
        return {(column, row) for column in range(10) for row in (1, 2, 3)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.ball, self.way = [((0, 3), (1, 1)), ((9, 3), (-1, 1))][self.np_random.integers(2)]
        self.trail, self.paddle, self.struck, self.last, self.bricks = self.ball, 4, False, 0, self.wall()
        return self.picture(), {}

    def step(self, action):
        self.paddle = min(max(self.paddle + (0, -1, 1)[action], 0), 9)
        self.last = action
        self.trail = self.ball
        x, y = self.ball[0] + self.way[0], self.ball[1] + self.way[1]
        bounce_x = not 0 <= x <= 9
        x = min(max(x, 0), 9)
        bounce_y, reward, lost, strikes = False, 0.0, False, False
        if y < 0:
            y, bounce_y = 0, True
        elif (x, y) in self.bricks:
            strikes = True
            if not self.struck:
                self.bricks = self.bricks - {(x, y)}
                reward, y, bounce_y = 1.0, self.trail[1], True
        elif y == 9:
            if not self.bricks:
                self.bricks = self.wall()
                type(self).refills += 1
            if self.trail[0] == self.paddle:
                y, bounce_y = self.trail[1], True
            elif x == self.paddle:
                y, bounce_y, bounce_x = self.trail[1], True, not bounce_x
            else:
                lost = True
        self.struck, self.ball = strikes, (x, y)
        self.way = (-self.way[0] if bounce_x else self.way[0], -self.way[1] if bounce_y else self.way[1])
        return self.picture(), reward, lost, False, {}

    def picture(self):
        picture = np.zeros((10, 10, 4), np.uint8)
        for channel, places in enumerate([[(self.paddle, 9)], [self.ball], [self.trail], self.bricks]):
            for x, y in places:
                picture[y, x, channel] = 255
        return picture


@dataclasses.dataclass(frozen=True)
class Ours(Breakout):
    max_episode_steps: int | None = None
    sticky_actions: float = 0.0

    def state_of(self, env):
        bricks = np.array([(place % 10, 1 + place // 10) in env.bricks for place in range(30)])
        pieces = [*env.ball, *env.way, *env.trail, env.paddle, env.struck, env.last]
        return Board(np.array(pieces, np.int32), bricks)


def follow_the_ball():
    """A policy that returns nearly every ball: it goes where the ball will come down."""
    rng = np.random.default_rng(0)

    def policy(picture):
        paddle = picture[9, :, 0].argmax()
        (y, x), (last_y, last_x) = (np.argwhere(picture[:, :, channel])[0] for channel in (1, 2))
        way = 1 if x >= last_x else -1
        for _ in range(8 - y if y > last_y else 0):
            x += way
            if not 0 <= x <= 9:
                x, way = min(max(x, 0), 9), -way
        return int(rng.integers(3)) if rng.random() < 0.002 else int((x < paddle) + 2 * (x > paddle))

    return policy


def test_equal_to_the_naive_copy_under_random_actions():
    report = check_equal(Ours(), NaiveBreakout, steps=2000, resets=300)
    assert report.terminated > 50
    assert report.observation_difference == report.reward_difference == report.state_difference == 0.0


def test_equal_to_the_naive_copy_when_played_well():
    NaiveBreakout.refills = 0
    report = check_equal(Ours(), NaiveBreakout, steps=5000, policy=follow_the_ball(), resets=100)
    assert NaiveBreakout.refills > 0
    assert report.terminated > 0


def test_equal_to_the_naive_copy_on_scattered_boards():
    """What play seldom meets: strikes one after the other, holes in the wall, every way from every place."""
    rng, game, env = np.random.default_rng(0), NaiveBreakout(), Ours()
    before, after, actions, rewards, lost = [], [], [], [], []
    game.reset(seed=0)
    for _ in range(2000):
        game.ball = tuple(map(int, rng.integers((10, 9))))
        game.way = tuple(map(int, rng.choice([-1, 1], 2)))
        game.paddle, game.struck, action = int(rng.integers(10)), bool(rng.integers(2)), int(rng.integers(3))
        game.bricks = {place for place in game.wall() if rng.random() < rng.choice([0.0, 0.5])}
        before.append(env.state_of(game))
        _, reward, over, *_ = game.step(action)
        after.append(env.state_of(game))
        actions.append(action), rewards.append(reward), lost.append(over)
    before, after = (tf.nest.map_structure(lambda *x: tf.stack(x), *boards) for boards in (before, after))
    board, reward, terminated, _ = env.step(before, tf.constant(actions), tf.zeros((2000, 0)))
    np.testing.assert_array_equal(board.pieces, after.pieces)
    np.testing.assert_array_equal(board.bricks, after.bricks)
    np.testing.assert_array_equal(reward, rewards)
    np.testing.assert_array_equal(terminated, lost)
    assert np.sum(rewards) > 50 and np.sum(lost) > 50


def test_the_last_action_is_taken_again_as_often_as_said():
    n = 20_000
    env = Breakout(num_envs=n, sticky_actions=0.25)
    noise = ops.random.uniform([0, 0], (n, 1))
    state = env.step(env.reset(noise), tf.fill([n], 1), tf.fill((n, 1), 0.9)).state
    assert np.all(state.pieces[:, 6] == 3)  # left of 4, where the paddle begins
    paddle = env.step(state, tf.fill([n], 2), noise).state.pieces[:, 6].numpy()
    assert set(paddle) == {2, 4}
    assert np.mean(paddle == 2) == pytest.approx(0.25, abs=0.02)
    np.testing.assert_array_equal(paddle == 2, noise[:, 0] < 0.25)


def test_an_action_taken_again_is_the_one_to_be_taken_again():
    env = Breakout(sticky_actions=0.5)
    again, free = tf.fill((1, 1), 0.1), tf.fill((1, 1), 0.9)
    state = env.reset(again)
    for action, noise, column in [(2, free, 5), (1, again, 6), (0, again, 7), (0, free, 7), (2, again, 7)]:
        state = env.step(state, tf.constant([action]), noise).state
        assert int(state.pieces[0, 6]) == column


def test_noise_is_taken_only_where_actions_are_sticky():
    assert (Breakout().step_noise, Breakout(sticky_actions=0.0).step_noise) == (1, 0)


def test_the_networks_take_it_for_an_image():
    env = Breakout(num_envs=2)
    policy, critic = Networks().build(env.observation_space, env.action_space, seed=0)
    pictures = env.observe(env.reset(tf.constant([[0.1], [0.9]])))
    assert [layer.kernel_size for layer in policy.layers if hasattr(layer, "kernel_size")] == [(3, 3)]
    logits = policy(pictures).logits
    assert logits.shape == (2, 3)
    assert not np.array_equal(logits[0], logits[1])  # by the ball's place alone


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_a_probability_out_of_range_is_refused(probability):
    with pytest.raises(ValueError, match=r"`sticky_actions` must be a number in \[0, 1\]. Received: sticky_actions="):
        Breakout(sticky_actions=probability)
