"""Compiled environments made of others; each function's result is again a `CompiledEnv`."""

import dataclasses
import math

import gymnasium as gym
import numpy as np
import tensorflow as tf

from kerasrl_pg.checks import check_whole
from kerasrl_pg.envs.compiled import CompiledEnv, Transition


def time_limit(env, steps):
    """The same environment with another time limit.

    Args:
        env: A `CompiledEnv`.
        steps: Whole number of steps, at least 1, after which an episode is truncated; None for no limit.

    Returns:
        A `CompiledEnv`.

    Raises:
        TypeError: If `env` is no `CompiledEnv`.
        ValueError: If `steps` is below 1.

    >>> from kerasrl_pg.envs import CartPole
    >>> time_limit(CartPole(num_envs=8), 200)
    CartPole(num_envs=8, max_episode_steps=200)
    """
    _check_compiled(env)
    if steps is not None:
        check_whole("steps", steps)
    return dataclasses.replace(env, max_episode_steps=steps)


def mask_observations(env, keep):
    """The same environment, of which a policy sees less: some components of its observation vector.

    Args:
        env: A `CompiledEnv` whose observation space is a `Box` of one dimension.
        keep: Which components remain, whole numbers in the order they are to have.

    Returns:
        A `CompiledEnv`.

    Raises:
        TypeError: If `env` is no `CompiledEnv`.
        ValueError: If the observations are no vectors, or `keep` is empty or names components that do not exist.

    >>> from kerasrl_pg.envs import CartPole
    >>> hidden_velocities = mask_observations(CartPole(num_envs=8), keep=(0, 2))
    >>> hidden_velocities.observation_space.shape
    (2,)
    """
    _check_compiled(env)
    space = env.observation_space
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        raise ValueError(f"`env` must have a Box of one dimension as observation space. Received: {space} of {env}.")
    keep = tuple(keep)
    whole = all(isinstance(index, (int, np.integer)) and not isinstance(index, bool) for index in keep)
    if not keep or not whole or not all(0 <= index < space.shape[0] for index in keep):
        raise ValueError(
            f"`keep` must name components from 0 to {space.shape[0] - 1} of the observations of {env}, at least one. "
            f"Received: keep={keep}."
        )
    return _around(env, MaskedObservations, env.max_episode_steps, keep=tuple(int(index) for index in keep))


def repeat_actions(env, times):
    """The same environment with each action taken several times, as frame-skipping does.

    Rewards are summed; an episode that ends in between takes no further steps. The time limit becomes
    ceil(limit / times), so the last steps of an episode may go beyond the environment's own limit.

    Args:
        env: A `CompiledEnv`.
        times: How many steps an action lasts, at least 1.

    Returns:
        A `CompiledEnv`.

    Raises:
        TypeError: If `env` is no `CompiledEnv`.
        ValueError: If `times` is below 1.

    Source: Mnih et al. 2015, "Human-level control through deep reinforcement learning", Methods.

    >>> from kerasrl_pg.envs import Acrobot
    >>> repeat_actions(Acrobot(num_envs=8), times=4).max_episode_steps
    125
    """
    _check_compiled(env)
    check_whole("times", times)
    limit = env.max_episode_steps
    return _around(env, RepeatedActions, limit and math.ceil(limit / times), times=int(times))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wrapper(CompiledEnv):
    """An environment around another; what a subclass does not say is the inner one's.

    Args:
        num_envs, max_episode_steps: As everywhere; those of `env` do not count.
        env: The inner `CompiledEnv`.
    """

    env: CompiledEnv

    @property
    def observation_space(self):
        return self.env.observation_space

    @property
    def action_space(self):
        return self.env.action_space

    @property
    def reset_noise(self):
        return self.env.reset_noise

    @property
    def step_noise(self):
        return self.env.step_noise

    def reset(self, noise):
        return self.env.reset(noise)

    def action_masks(self, state):
        return self.env.action_masks(state)

    def observe(self, state):
        return self.env.observe(state)

    def step(self, state, actions, noise):
        return self.env.step(state, actions, noise)

    def state_of(self, env):
        return self.env.state_of(env)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedObservations(Wrapper):
    """See `mask_observations`."""

    keep: tuple

    @property
    def observation_space(self):
        space, keep = self.env.observation_space, list(self.keep)
        return gym.spaces.Box(space.low[keep], space.high[keep], dtype=space.dtype)

    def observe(self, state):
        observations = self.env.observe(state)
        return tf.stack([observations[:, index] for index in self.keep], -1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RepeatedActions(Wrapper):
    """See `repeat_actions`."""

    times: int

    @property
    def step_noise(self):
        return self.times * self.env.step_noise

    def step(self, state, actions, noise):
        size = self.env.step_noise
        after = self.env.step(state, actions, noise[:, :size])
        for i in range(1, self.times):
            over = after.terminated if after.truncated is None else after.terminated | after.truncated
            further = self.env.step(after.state, actions, noise[:, i * size : (i + 1) * size])
            further = further._replace(rewards=after.rewards + further.rewards)
            after = Transition(*(_where(over, old, new) for old, new in zip(after, further, strict=True)))
        return after


def _around(env, wrapper, limit, **settings):
    # The inner environment loses what its wrapper says anew, so that wrappers are equal however they were made.
    inner = dataclasses.replace(env, num_envs=1, max_episode_steps=None)
    return wrapper(num_envs=env.num_envs, max_episode_steps=limit, env=inner, **settings)


def _where(over, old, new):
    """The leaves of `old` where `over` [N], else of `new`; None where there are none."""
    if old is None:
        return None

    def choose(x, y):
        return tf.where(tf.reshape(over, [-1, *[1] * (x.shape.rank - 1)]), x, y)

    return tf.nest.map_structure(choose, old, new)


def _check_compiled(env):
    if not isinstance(env, CompiledEnv):
        raise TypeError(
            f"`env` must be a CompiledEnv, such as CartPole(num_envs=8). Received: env={env!r}. "
            "For gymnasium's environments use gymnasium's wrappers."
        )
