"""Tiny environments and actors whose every number is known beforehand."""

import gymnasium as gym
import numpy as np
import pytest

S = gym.spaces


class Counter(gym.Env):
    """Counts its steps. The length of an episode, 1 to 6, is drawn when it starts, and both stand in the observation.

    Episodes of length 3 are truncated, those of length 6 truncated and terminated at once, the others terminated.
    The reward tells episode, step and action apart: 100 length + 10 step + action.
    """

    observation_space = S.Box(0, 10, (2,))
    action_space = S.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.length, self.count = int(self.np_random.integers(1, 7)), 0
        return self.observe(), {}

    def observe(self):
        return np.array([self.count, self.length], np.float32)

    def step(self, action):
        self.count += 1
        over = self.count == self.length
        terminated, truncated = over and self.length != 3, over and self.length % 3 == 0
        return self.observe(), 100.0 * self.length + 10.0 * self.count + action, terminated, truncated, {}


class NestedCounter(Counter):
    """The same in nested spaces with an offset."""

    observation_space = S.Dict(
        step=S.Discrete(10, start=-1), more=S.Tuple([S.MultiDiscrete([7, 7]), S.Box(0, 1, (1,))])
    )

    def observe(self):
        last = np.array([self.count == self.length], np.float32)
        return {"step": np.int64(self.count - 1), "more": (np.array([self.count, self.length]), last)}


class Scripted(gym.Env):
    """Plays given rewards and observations; the episode ends with the script."""

    action_space = S.Discrete(3)

    def __init__(self, rewards, observations=None, space=None):
        self.rewards = rewards
        self.observations = observations or [0.0] * (len(rewards) + 1)
        self.observation_space = space or S.Box(-np.inf, np.inf, (1,))

    def observe(self):
        x = self.observations[self.count]
        return np.float32([x]) if isinstance(self.observation_space, S.Box) else {"goal": 1, "robot": np.float32([x])}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.observe(), {}

    def step(self, action):
        self.count += 1
        return self.observe(), self.rewards[self.count - 1], self.count == len(self.rewards), False, {}


class FixedActor:
    """Always action 1; the log-probability it is told."""

    def __init__(self, num_envs, log_probs=0.0):
        self.num_envs, self.log_probs, self.noises = num_envs, log_probs, []

    masked, memory_size = False, 0

    def sync(self, place="rollout"):
        pass

    def __call__(self, observations, noise=None, masks=None, starts=None):
        self.noises.append(noise)
        ones = np.ones(self.num_envs, int)
        return ones.astype(np.int32), np.broadcast_to(np.float32(self.log_probs), self.num_envs), ones


class Foreign(gym.vector.VectorWrapper):
    """A vector environment that is not gymnasium's own any more, so that NEXT_STEP costs it a row an episode."""


@pytest.fixture(scope="session")
def counter():
    return Counter


@pytest.fixture(scope="session")
def nested_counter():
    return NestedCounter


@pytest.fixture(scope="session")
def scripted():
    return Scripted


@pytest.fixture(scope="session")
def fixed_actor():
    return FixedActor


@pytest.fixture(scope="session")
def foreign():
    return Foreign
