"""gymnasium environments for both sides of a benchmark: `games:CartPolePositions-v1`, `games:ConnectFour-v0`."""

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv

ROWS, COLUMNS = 6, 7


class CartPolePositions(gym.ObservationWrapper):
    """CartPole of which only positions are seen, that of the cart and the pole's angle."""

    def __init__(self, **kwargs):
        super().__init__(CartPoleEnv(**kwargs))
        space = self.env.observation_space
        self.observation_space = gym.spaces.Box(space.low[::2], space.high[::2])

    def observation(self, observation):
        return observation[::2]


class ConnectFour(gym.Env):
    """Connect Four against an opponent who plays at random; the agent begins. 1 for its four in a row, -1 for theirs.

    Observes the board, 42 cells: 1 the agent's, -1 the opponent's. A move into a full column is counted, and puts
    no piece anywhere.
    """

    observation_space = gym.spaces.Box(-1.0, 1.0, (ROWS * COLUMNS,), np.float32)
    action_space = gym.spaces.Discrete(COLUMNS)
    steps = limited = illegal = (
        0  # Of all environments of the process: moves, those with a full column, those into one.
    )

    def __init__(self, **kwargs):
        self.told = kwargs.pop("told", True)  # Whether `info` holds the mask.

    def action_masks(self):
        """As Stable-Baselines3-Contrib asks for them."""
        return np.array([height < ROWS for height in self.heights])

    def _seen(self):
        return self.board.copy(), {"action_mask": self.action_masks()} if self.told else {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.board = np.zeros(ROWS * COLUMNS, np.float32)
        self.heights = [0] * COLUMNS
        self.pieces = {1: 0, -1: 0}  # A bit for each cell, columns of 7 bits, of which the last stays empty.
        return self._seen()

    def _drop(self, column, player):
        """Whether it wins."""
        row = self.heights[column]
        self.heights[column] += 1
        self.board[COLUMNS * row + column] = player
        self.pieces[player] |= 1 << (7 * column + row)
        for direction in (1, 6, 7, 8):
            two = self.pieces[player] & (self.pieces[player] >> direction)
            if two & (two >> 2 * direction):
                return True
        return False

    def step(self, action):
        ConnectFour.steps += 1
        ConnectFour.limited += ROWS in self.heights
        reward, over = 0.0, False
        if self.heights[action] == ROWS:
            ConnectFour.illegal += 1
        elif self._drop(int(action), 1):
            reward, over = 1.0, True
        if not over:
            columns = [column for column in range(COLUMNS) if self.heights[column] < ROWS]
            if columns and self._drop(columns[int(self.np_random.random() * len(columns))], -1):
                reward, over = -1.0, True
            over = over or sum(self.heights) == ROWS * COLUMNS
        board, info = self._seen()
        return board, reward, over, False, info


gym.register("CartPolePositions-v1", CartPolePositions, max_episode_steps=500)
gym.register("ConnectFour-v0", ConnectFour)
