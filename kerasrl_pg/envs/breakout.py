"""Breakout on a small board, as a compiled environment."""

import dataclasses
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import tensorflow as tf

from kerasrl_pg.envs.compiled import CompiledEnv, Transition


class Board(NamedTuple):
    """What N boards look like.

    Args:
        pieces: int32 [N, 9]: column, row and direction (±1, ±1) of the ball; its last column and row; the paddle's
            column; whether the ball has just struck a brick; and the last action.
        bricks: bool [N, 30], where there is one in rows 1 to 3 from the top.
    """

    pieces: Any
    bricks: Any


@dataclasses.dataclass(frozen=True)
class Breakout(CompiledEnv):
    """MinAtar's Breakout: a ball, a paddle and three rows of bricks on 10 x 10 places.

    Each brick that the ball breaks pays 1; when none is left and the ball is down at the paddle's row, all are back.
    The episode ends when the ball passes the paddle. The actions are to stay, left and right, MinAtar's minimal set.

    Observations are images of four channels (paddle, ball, the ball's last place, bricks), uint8 of 0 and 255 so that
    `Networks` takes them for images and its division by 255 gives MinAtar's ones.

    Args:
        num_envs: N.
        max_episode_steps: 1000, as in gymnax (Lange 2022); MinAtar has no limit, and a perfect player no end.
        sticky_actions: Probability in [0, 1] that the last action is taken again instead. 0.1, as in MinAtar.

    Raises:
        ValueError: If `sticky_actions` is no probability.

    Source: Young and Tian 2019, "MinAtar" (arXiv 1903.03176), and its program, version 1.0.15.

    >>> game = Breakout(num_envs=2)
    >>> game.observe(game.reset(tf.constant([[0.3], [0.7]]))).shape
    TensorShape([2, 10, 10, 4])
    """

    max_episode_steps: int | None = 1000
    sticky_actions: float = 0.1

    observation_space = gym.spaces.Box(0, 255, (10, 10, 4), np.uint8)
    action_space = gym.spaces.Discrete(3)
    reset_noise = 1

    def __post_init__(self):
        super().__post_init__()
        if not 0.0 <= self.sticky_actions <= 1.0:
            raise ValueError(
                f"`sticky_actions` must be a number in [0, 1]. Received: sticky_actions={self.sticky_actions!r}."
            )

    @property
    def step_noise(self):
        return int(self.sticky_actions > 0)

    def reset(self, noise):
        # The ball comes in at one of the two sides, and flies down to the other. The last action is to stay; MinAtar
        # carries that of the episode before.
        from_left = tf.cast(noise < 0.5, tf.int32)
        column, zero = 9 - 9 * from_left, tf.zeros_like(from_left)
        pieces = [column, zero + 3, 2 * from_left - 1, zero + 1, column, zero + 3, zero + 4, zero, zero]
        return Board(tf.concat(pieces, -1), tf.ones((noise.shape[0], 30), tf.bool))

    def observe(self, state):
        column, row, _, _, last_column, last_row, paddle, _, _ = tf.unstack(state.pieces, axis=-1)
        full, empty = tf.constant(255, tf.uint8), tf.constant(0, tf.uint8)
        places = tf.stack([90 + paddle, 10 * row + column, 10 * last_row + last_column], -1)
        bricks = tf.pad(tf.where(state.bricks, full, empty), [[0, 0], [10, 60]])
        image = tf.concat([tf.one_hot(places, 100, full, empty, axis=1), bricks[:, :, None]], -1)
        return tf.reshape(image, [-1, 10, 10, 4])

    def step(self, state, actions, noise):
        pieces, bricks = state
        last_column, last_row, right, down, _, _, paddle, struck, last_action = tf.unstack(pieces, axis=-1)
        actions = tf.cast(actions, tf.int32)
        if self.sticky_actions:
            actions = tf.where(noise[:, 0] < self.sticky_actions, last_action, actions)
        paddle = tf.clip_by_value(paddle + tf.where(actions == 1, -1, tf.where(actions == 2, 1, 0)), 0, 9)

        column, row = last_column + right, last_row + down
        right = tf.where((column < 0) | (column > 9), -right, right)
        column = tf.clip_by_value(column, 0, 9)

        at_top = row < 0
        # Above and below the bricks this is the place of none of them.
        place = tf.one_hot(10 * (row - 1) + column, 30, True, False)
        at_brick = tf.reduce_any(place & bricks, -1)
        # A ball does not break two bricks in two successive steps; it flies over the second.
        breaks = at_brick & (struck == 0)
        bricks &= ~(place & breaks[:, None])
        at_bottom = (row == 9) & ~at_brick
        bricks |= (at_bottom & ~tf.reduce_any(bricks, -1))[:, None]
        # The ball is returned upwards from above the paddle, or back where it came from at the paddle's edge.
        on_paddle = at_bottom & (last_column == paddle)
        on_edge = at_bottom & ~on_paddle & (column == paddle)
        down = tf.where(at_top | breaks | on_paddle | on_edge, -down, down)
        right = tf.where(on_edge, -right, right)
        row = tf.where(at_top, 0, tf.where(breaks | on_paddle | on_edge, last_row, row))

        pieces = [column, row, right, down, last_column, last_row, paddle, tf.cast(at_brick, tf.int32), actions]
        terminated = at_bottom & ~on_paddle & ~on_edge
        return Transition(Board(tf.stack(pieces, -1), bricks), tf.cast(breaks, tf.float32), terminated)

    def state_of(self, env):
        """From MinAtar's own environment, `minatar.gym.BaseEnv`."""
        game = env.game.env
        right, down = [(-1, -1), (1, -1), (1, 1), (-1, 1)][game.ball_dir]
        last_action = env.action_set.index(env.game.last_action)
        pieces = [game.ball_x, game.ball_y, right, down, game.last_x, game.last_y, game.pos, game.strike, last_action]
        return Board(np.array(pieces, np.int32), game.brick_map[1:4].reshape(-1) == 1)
