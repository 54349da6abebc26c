"""Environments as TensorFlow functions, so that a whole training iteration is one compiled program."""

from typing import Any, NamedTuple

import tensorflow as tf


class Transition(NamedTuple):
    """What one step of N environments gave, before any of them is reset.

    Args:
        state: Nest of tensors [N, ...], the state after the step; where the episode ended, its final one.
        rewards: float32 [N].
        terminated: bool [N], the episode ended in a terminal state.
        truncated: bool [N], the episode was cut for a reason other than the time limit; None where there is none.
    """

    state: Any
    rewards: Any
    terminated: Any
    truncated: Any = None


class CompiledEnv:
    """N copies of an environment whose rules are TensorFlow functions of tensors.

    A new one is a frozen dataclass with two spaces and three functions, all of them pure: they change nothing, and
    all chance comes in as `noise`, so that the same numbers give the same episodes in eager, graph and XLA code.

    Nothing here resets itself or counts time: `advance` does both for every environment, and `agent.fit` calls it.

    Args:
        num_envs: N, a field of the dataclass.
        max_episode_steps: The time limit, steps after which an episode is truncated, or None; a field as well.

    Attributes:
        observation_space, action_space: Of one environment, gymnasium spaces.
        reset_noise: How many uniform numbers one environment's reset takes.
        step_noise: How many uniform numbers one environment's step takes.

    A state is any nest of tensors [N, ...] of fixed shapes and dtypes. Fields must be hashable (numbers, texts,
    tuples), because equal environments share one compiled program.

    >>> import dataclasses
    >>> import gymnasium as gym
    >>> @dataclasses.dataclass(frozen=True)
    ... class Drift(CompiledEnv):
    ...     '''A point on a line drifts left or right; the reward is its distance from 0.'''
    ...
    ...     num_envs: int = 1
    ...     max_episode_steps: int | None = 20
    ...     observation_space = gym.spaces.Box(-10.0, 10.0, (1,))
    ...     action_space = gym.spaces.Discrete(2)
    ...     reset_noise = 1
    ...
    ...     def reset(self, noise):
    ...         return noise - 0.5
    ...
    ...     def observe(self, state):
    ...         return state
    ...
    ...     def step(self, state, actions, noise):
    ...         state = state + tf.where(actions == 1, 0.1, -0.1)[:, None]
    ...         return Transition(state, tf.abs(state[:, 0]), tf.abs(state[:, 0]) > 2.0)
    >>> env = Drift(num_envs=3)
    >>> env
    Drift(num_envs=3, max_episode_steps=20)
    >>> half = tf.fill((3, 1), 0.5)
    >>> running = begin(env, half)
    >>> running, outcome = advance(env, running, tf.constant([0, 1, 1]), tf.zeros((3, 0)), half)
    >>> outcome.next_observations[:, 0].numpy()
    array([-0.1,  0.1,  0.1], dtype=float32)
    """

    num_envs = 1
    max_episode_steps = None
    observation_space = None
    action_space = None
    reset_noise = 0
    step_noise = 0

    def reset(self, noise):
        """First states.

        Args:
            noise: float32 [N, reset_noise], uniform in (0, 1); N may be any number.

        Returns:
            A state.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement reset(noise).")

    def observe(self, state):
        """Observations of a state: a tensor [N, ...], or a flat dictionary of them for a `Dict` space."""
        raise NotImplementedError(f"{type(self).__name__} must implement observe(state).")

    def step(self, state, actions, noise):
        """One step.

        Args:
            state: A state.
            actions: [N, ...], elements of `action_space`.
            noise: float32 [N, step_noise], uniform in (0, 1).

        Returns:
            A `Transition`.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement step(state, actions, noise).")

    def state_of(self, env):
        """The state (NumPy, without N) that a reference gymnasium environment is in; only `check_equal` asks for it.

        Args:
            env: The reference, unwrapped.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement state_of(env) to be checked against another.")


class Running(NamedTuple):
    """N environments in the middle of their episodes.

    Args:
        state: The environments' state.
        observations: What the next actions are chosen from.
        lengths: int32 [N], steps taken in the present episodes.
    """

    state: Any
    observations: Any
    lengths: Any


class Outcome(NamedTuple):
    """What a step is to a learner.

    Args:
        rewards: float32 [N].
        terminated, truncated, ended: bool [N]; ended is either.
        next_observations: The true next observations: of an ended episode the final ones, never those of the reset.
    """

    rewards: Any
    terminated: Any
    truncated: Any
    ended: Any
    next_observations: Any


def begin(env, noise):
    """Starts an episode in each environment.

    Args:
        env: A `CompiledEnv`.
        noise: float32 [N, reset_noise], uniform in (0, 1).

    Returns:
        A `Running`.
    """
    state = env.reset(noise)
    return Running(state, env.observe(state), tf.zeros(noise.shape[0], tf.int32))


def advance(env, running, actions, step_noise, reset_noise):
    """One step in each environment; episodes that end, or reach the time limit, start anew.

    Args:
        env: A `CompiledEnv`.
        running: A `Running`.
        actions: [N, ...], what the environment accepts.
        step_noise: float32 [N, step_noise], uniform in (0, 1).
        reset_noise: float32 [N, reset_noise], uniform in (0, 1).

    Returns:
        `(Running, Outcome)`.
    """
    after = env.step(running.state, actions, step_noise)
    lengths = running.lengths + 1
    truncated = tf.zeros_like(after.terminated) if after.truncated is None else after.truncated
    if env.max_episode_steps is not None:
        truncated |= lengths >= env.max_episode_steps
    ended = after.terminated | truncated
    next_observations = env.observe(after.state)
    fresh = begin(env, reset_noise)
    going = Running(after.state, next_observations, lengths)
    running = tf.nest.map_structure(lambda new, old: _where(ended, new, old), fresh, going)
    return running, Outcome(after.rewards, after.terminated, truncated, ended, next_observations)


def _where(ended, new, old):
    """`new` where `ended` [N], along the first axis of both."""
    return tf.where(tf.reshape(ended, [-1, *[1] * (new.shape.rank - 1)]), new, old)
