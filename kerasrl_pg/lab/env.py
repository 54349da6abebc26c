"""Any small decision process as a compiled environment."""

import dataclasses

import gymnasium as gym
import numpy as np
import tensorflow as tf

from kerasrl_pg.envs.compiled import CompiledEnv, Transition
from kerasrl_pg.lab.exact import MDP


@dataclasses.dataclass(frozen=True)
class MDPEnv(CompiledEnv):
    """An `MDP` to be played, N at a time, inside the compiled program.

    Args:
        num_envs: N.
        max_episode_steps: The time limit; None for the process's own horizon, which may be none.
        mdp: The `MDP`. Its γ is the agent's affair.

    Raises:
        ValueError: If there is no `mdp`, or its observations are neither whole numbers nor vectors of floats.

    >>> import kerasrl_pg as pg
    >>> lake = MDPEnv(mdp=pg.lab.MDP.of("FrozenLake-v1", gamma=0.99))
    >>> lake.max_episode_steps, lake.observation_space
    (100, Discrete(16))
    """

    mdp: MDP | None = None

    reset_noise = 1
    step_noise = 1

    def __post_init__(self):
        if not isinstance(self.mdp, MDP):
            raise ValueError(f"`mdp` must be an MDP. Received: mdp={self.mdp!r}.")
        if self.max_episode_steps is None:
            object.__setattr__(self, "max_episode_steps", self.mdp.horizon)
        super().__post_init__()

    @property
    def observation_space(self):
        seen = self.mdp.observations
        if seen.ndim == 1 and seen.dtype.kind in "iu":
            return gym.spaces.Discrete(int(seen.max()) + 1)
        return gym.spaces.Box(float(seen.min()), float(seen.max()), seen.shape[1:], np.float32)

    @property
    def action_space(self):
        return gym.spaces.Discrete(self.mdp.shape[1])

    def reset(self, noise):
        return _drawn(self.mdp.initial[None], tf.zeros(noise.shape[0], tf.int32), noise[:, 0])

    def observe(self, state):
        seen = self.mdp.observations
        return tf.gather(tf.constant(seen, tf.int32 if seen.dtype.kind in "iu" else tf.float32), state)

    def step(self, state, actions, noise):
        states, count = self.mdp.shape
        row = state * count + tf.cast(actions, tf.int32)
        following = _drawn(self.mdp.transitions.reshape(-1, states), row, noise[:, 0])
        place = row * states + following
        rewards = self.mdp.rewards if self.mdp.rewards.ndim == 3 else self.mdp.rewards[..., None]
        ends = self.mdp.terminal if self.mdp.terminal.ndim == 3 else self.mdp.terminal[None, None]
        rewards, ends = (np.broadcast_to(x, self.mdp.transitions.shape).reshape(-1) for x in (rewards, ends))
        rewards = tf.gather(tf.constant(rewards, tf.float32), place)
        return Transition(following, rewards, tf.gather(tf.constant(ends), place))


def _drawn(probabilities, row, noise):
    """A choice of each row's distribution, int32 [N], of probabilities [rows, S] and uniform noise [N].

    The last choice that is possible takes what rounding leaves, so that no impossible one is drawn.
    """
    last = probabilities.shape[1] - 1 - np.argmax(probabilities[:, ::-1] > 0.0, -1)
    cumulative = np.cumsum(probabilities, -1)
    cumulative[np.arange(probabilities.shape[1]) >= last[:, None]] = 2.0
    exceeded = noise[:, None] > tf.gather(tf.constant(cumulative, tf.float32), row)
    return tf.reduce_sum(tf.cast(exceeded, tf.int32), -1)
