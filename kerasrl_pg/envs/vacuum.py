"""A vacuum cleaner that sees only walls, as a compiled environment."""

import dataclasses

import gymnasium as gym
import numpy as np
import tensorflow as tf

from kerasrl_pg.envs.compiled import CompiledEnv, Transition
from kerasrl_pg.envs.worlds import whole_number

# Row and column of each cell; the actions up, right, down and left; and where each leads from each cell, [8, 4].
CELLS = [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (1, 2), (1, 4)]
MOVES = [(-1, 0), (0, 1), (1, 0), (0, -1)]
FOLLOWING = np.array(
    [
        [CELLS.index(beside) if (beside := (row + down, column + right)) in CELLS else cell for down, right in MOVES]
        for cell, (row, column) in enumerate(CELLS)
    ],
    np.int32,
)
WALLS = np.equal(FOLLOWING, np.arange(8)[:, None]).astype(np.float32)
STARTS = np.array([0, 1, 3, 4], np.int32)
DUST, HAMSTERS = 6, (5, 7)


@dataclasses.dataclass(frozen=True)
class Vacuum(CompiledEnv):
    """A vacuum cleaner that sees only walls, in two places that look alike and want opposite actions.

    Five cells lie in a row, 0 to 4. Below the middle one is the dust, 6; below the two outer ones sleep hamsters, 5 and
    7. To suck the dust pays 1, to suck a hamster -5, and either ends the episode; each step costs 0.05. The actions are
    up, right, down and left, and against a wall nothing moves.

    The observation is whether there are walls above, right, below and left. In cells 1 and 3 they are above and below,
    and the dust is to the right of the one and to the left of the other. An episode starts in cell 0, 1, 3 or 4, each
    alike: in the middle one nothing would have to be found out.

    So, with 50 steps and undiscounted, a policy that sees the present only and is deterministic goes to and fro for
    ever from half of the cells: its best return is -0.8125, since hamsters cost more than standing about. If it draws
    left and right in the two cells alike, it gets 0.775. One that remembers goes back at most once: 0.85. One that
    sees its cell gets 0.875.

    Args:
        num_envs: N.
        max_episode_steps: 50: ours, eleven times what the best policy without memory needs on average.

    Attributes:
        transitions: float64 [8, 4, 8], p(s' | s, a).
        rewards: float64 [8, 4, 8], r(s, a, s').
        initial: float64 [8], the probabilities of first states.
        terminal: bool [8], states that end the episode.
        observations: float32 [8, 4], what is seen in each; with the others what `lab.MDP.of` solves.

    Source: the world of Hugging Face's deep reinforcement learning course, unit 4, where it is told without numbers;
    those are ours. What it shows is Singh, Jaakkola and Jordan's, 1994, "Learning without state-estimation in partially
    observable Markovian decision processes".

    >>> vacuum = Vacuum()
    >>> vacuum.observe(tf.constant([1, 3])).numpy().tolist()
    [[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0]]
    >>> after = vacuum.step(tf.constant([1, 2, 4]), tf.constant([1, 2, 2]), tf.zeros((3, 0)))
    >>> after.state.numpy(), after.rewards.numpy(), after.terminated.numpy().tolist()
    (array([2, 6, 7], dtype=int32), array([-0.05,  0.95, -5.05], dtype=float32), [False, True, True])
    """

    max_episode_steps: int | None = 50

    observation_space = gym.spaces.MultiBinary(4)
    action_space = gym.spaces.Discrete(4)
    reset_noise = 1

    @property
    def transitions(self):
        return np.eye(8)[FOLLOWING]

    @property
    def rewards(self):
        return np.broadcast_to(np.array([-0.05] * 5 + [-5.05, 0.95, -5.05]), (8, 4, 8))

    @property
    def initial(self):
        return np.bincount(STARTS, minlength=8) / len(STARTS)

    @property
    def terminal(self):
        return np.isin(np.arange(8), [DUST, *HAMSTERS])

    @property
    def observations(self):
        return WALLS

    def reset(self, noise):
        return tf.gather(STARTS, whole_number(noise[:, 0], len(STARTS)))

    def observe(self, state):
        return tf.gather(WALLS, state)

    def step(self, state, actions, noise):
        cell = tf.gather(FOLLOWING.reshape(-1), 4 * state + tf.cast(actions, tf.int32))
        dust, hamster = cell == DUST, (cell == HAMSTERS[0]) | (cell == HAMSTERS[1])
        rewards = tf.where(dust, 0.95, tf.where(hamster, -5.05, -0.05))
        return Transition(cell, rewards, dust | hamster)

    def state_of(self, env):
        """From this package's own gymnasium environment."""
        return np.int32(CELLS.index(env.cell))
