"""Environments as TensorFlow functions, so that a whole training iteration is one compiled program."""

import dataclasses
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import tensorflow as tf

from kerasrl_pg.checks import check_whole
from kerasrl_pg.envs.spaces import ObservationSpec


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


@dataclasses.dataclass(frozen=True)
class CompiledEnv:
    """N copies of an environment whose rules are TensorFlow functions of tensors.

    A new one is a frozen dataclass with two spaces and three functions, all of them pure: they change nothing, and
    all chance comes in as `noise`, so that the same numbers give the same episodes in eager, graph and XLA code.
    `check_contract` says what is wrong with it, and `check_equal` compares it with a reference.

    Nothing here resets itself or counts time: `advance` does both for every environment, and `agent.fit` calls it.

    Args:
        num_envs: N, at least 1.
        max_episode_steps: The time limit, steps after which an episode is truncated, or None.

    Attributes:
        observation_space, action_space: Of one environment, gymnasium spaces.
        reset_noise: How many uniform numbers one environment's reset takes.
        step_noise: How many uniform numbers one environment's step takes.

    A state is any nest of tensors [N, ...] of fixed shapes and dtypes. Fields of your own must have defaults and be
    hashable (numbers, texts, tuples), because equal environments share one compiled program.

    Raises:
        ValueError: If a number is out of its range.

    >>> import dataclasses
    >>> import gymnasium as gym
    >>> @dataclasses.dataclass(frozen=True)
    ... class Drift(CompiledEnv):
    ...     '''A point on a line drifts left or right; the reward is its distance from 0.'''
    ...
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

    num_envs: int = 1
    max_episode_steps: int | None = None

    observation_space = None
    action_space = None
    reset_noise = 0
    step_noise = 0

    def __post_init__(self):
        check_whole("num_envs", self.num_envs)
        check_whole("max_episode_steps", self.max_episode_steps, optional=True)

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

    def action_masks(self, state):
        """The actions that a state allows.

        Returns:
            bool [N, K] for K choices; of composite actions such masks nested as they are, None for what is not masked.
            None where all is allowed, in every state.
        """
        return

    def step(self, state, actions, noise):
        """One step.

        Args:
            state: A state.
            actions: [N, ...], elements of `action_space`, of its dtypes; nested as it is.
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
    fresh = env.reset(reset_noise)
    # Before observing, which may cost more than the state, as images do.
    state = tf.nest.map_structure(lambda new, old: _where(ended, new, old), fresh, after.state)
    running = Running(state, env.observe(state), tf.where(ended, 0, lengths))
    return running, Outcome(after.rewards, after.terminated, truncated, ended, env.observe(after.state))


def _where(ended, new, old):
    """`new` where `ended` [N], along the first axis of both."""
    return tf.where(tf.reshape(ended, [-1, *[1] * (new.shape.rank - 1)]), new, old)


def check_contract(env):
    """Refuses an environment that does not keep to the interface, before a compiler says so unreadably.

    Args:
        env: A `CompiledEnv`.

    Raises:
        TypeError: If a field is not hashable, or `env.step` gives no `Transition`.
        ValueError: Naming what has the wrong shape or dtype, or a state that changes its structure.

    >>> from kerasrl_pg.envs import CartPole
    >>> check_contract(CartPole(num_envs=3))
    """
    try:
        hash(env)
    except TypeError as error:
        raise TypeError(f"`env` must have hashable fields (numbers, texts, tuples). Received: {env!r}.") from error
    n = env.num_envs
    for name in ("observation_space", "action_space"):
        if not isinstance(getattr(env, name), gym.Space):
            raise ValueError(f"`{name}` must be a gymnasium space. Received: {getattr(env, name)!r} of {env!r}.")

    def trace():
        first = env.reset(tf.zeros((n, env.reset_noise)))
        actions = tf.nest.map_structure(lambda x: tf.constant(np.stack([x] * n)), env.action_space.sample())
        after = env.step(first, actions, tf.zeros((n, env.step_noise)))
        if not isinstance(after, Transition):
            raise TypeError(f"`step` must return a Transition. Received: {type(after)} from {env!r}.")
        _check_observations(env, env.observe(first))
        try:
            tf.nest.assert_same_structure(first, after.state)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"`step` must give a state of the structure that `reset` gives. Received: {error}"
            ) from None
        for one, other in zip(tf.nest.flatten(first), tf.nest.flatten(after.state), strict=True):
            _check("state", other, tf.convert_to_tensor(one).dtype, one.shape, env)
            if not one.shape.is_fully_defined() or one.shape.rank < 1 or one.shape[0] != n:
                raise ValueError(f"`state` must hold tensors [{n}, ...]. Received: shape {one.shape} from {env!r}.")
        _check("rewards", after.rewards, tf.float32, (n,), env)
        _check("terminated", after.terminated, tf.bool, (n,), env)
        if after.truncated is not None:
            _check("truncated", after.truncated, tf.bool, (n,), env)

    tf.function(trace, autograph=False).get_concrete_function()  # Traced and not run, so that it costs little.


def _check_observations(env, observations):
    spec = ObservationSpec(env.observation_space)
    leaves = {"": (spec.specs, observations)} if spec.single else {}
    if not spec.single:
        if not isinstance(observations, dict) or set(observations) != set(spec.specs):
            raise ValueError(
                f"`observe` must give a dictionary with the keys {sorted(spec.specs)}. Received: {observations}."
            )
        leaves = {f"['{name}']": (spec.specs[name], observations[name]) for name in spec.specs}
    for name, (leaf, value) in leaves.items():
        _check(f"observations{name}", value, leaf.dtype, (env.num_envs, *leaf.shape), env)


def _check(name, value, dtype, shape, env):
    value = tf.convert_to_tensor(value)
    if value.dtype != dtype or tuple(value.shape) != tuple(shape):
        raise ValueError(
            f"`{name}` of a compiled environment must be {dtype.name} of shape {tuple(shape)}. "
            f"Received: {value.dtype.name} of shape {tuple(value.shape)} from {env!r}."
        )
