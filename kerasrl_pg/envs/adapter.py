"""Compiled environments for whatever expects gymnasium's."""

import functools

import gymnasium as gym
import numpy as np
import tensorflow as tf
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from kerasrl_pg.compilation_cache import first_call
from kerasrl_pg.envs.compiled import CompiledEnv, advance, begin
from kerasrl_pg.envs.masks import forbid_nothing, map_masks
from kerasrl_pg.envs.spaces import ObservationSpec, place, shown
from kerasrl_pg.ops import random


class CompiledVectorEnv(VectorEnv):
    """A compiled environment as a gymnasium vector environment, one XLA call a step.

    An episode's end resets in the same step, and the final observation is in `info["final_obs"]`, as gymnasium's
    SAME_STEP mode wants. All randomness is a function of the seed and of how many calls came before.

    Args:
        env: A `CompiledEnv`; its `num_envs` is the vector's.
        seed: Of episodes until `reset` gets one; None takes one from the system.

    Raises:
        TypeError: If `env` is no `CompiledEnv`.

    >>> from kerasrl_pg.envs import CartPole, CompiledVectorEnv
    >>> vector_env = CompiledVectorEnv(CartPole(num_envs=2))
    >>> vector_env
    CompiledVectorEnv(CartPole, num_envs=2)
    >>> observations, info = vector_env.reset(seed=3)
    >>> observations, rewards, terminated, truncated, info = vector_env.step([0, 1])
    >>> observations.shape, rewards.tolist()
    ((2, 4), [1.0, 1.0])
    """

    def __init__(self, env, seed=None):
        if not isinstance(env, CompiledEnv):
            raise TypeError(f"`env` must be a CompiledEnv, such as CartPole(num_envs=8). Received: env={env!r}.")
        self.env = env
        self.num_envs = env.num_envs
        self.single_observation_space = env.observation_space
        self.single_action_space = env.action_space
        self.observation_space = batch_space(env.observation_space, env.num_envs)
        self.action_space = batch_space(env.action_space, env.num_envs)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.spec = gym.envs.registration.EnvSpec(type(env).__name__, max_episode_steps=env.max_episode_steps)
        self._spec = ObservationSpec(env.observation_space)
        self._reset, self._step = _programs(env)
        self._running = None
        self._seed = None if seed is None else tf.constant([seed, 0], tf.int64)

    def reset(self, *, seed=None, options=None):
        """Starts new episodes everywhere.

        Args:
            seed: Whole number; the same one gives the same episodes for the same actions. None goes on from before.
            options: None: compiled environments take none.

        Returns:
            `(observations, info)`.

        Raises:
            ValueError: If there are options.
        """
        if options:
            raise ValueError(f"`options` must be None for a compiled environment. Received: options={options!r}.")
        super().reset(seed=seed)
        if seed is None and self._seed is None:
            seed = self.np_random.integers(2**63)
        if seed is not None:
            self._seed = tf.constant([seed, 0], tf.int64)
        self._running, self._seed = self._reset(self._seed)
        return self._seen(self._running.observations), self._masks()

    def _seen(self, observations):
        """Observations of the program as the space has them."""
        return self._spec.nested(tf.nest.map_structure(lambda x: x.numpy(), observations))

    def _masks(self):
        masks = self.env.action_masks(self._running.state)
        return {} if forbid_nothing(masks) else {"action_mask": map_masks(np.asarray, masks)}

    def step(self, actions):
        """One step in each environment.

        Args:
            actions: [N, ...], elements of `action_space`, nested as it is; those of a `Box` may lie outside, as in
                gymnasium.

        Returns:
            `(observations, rewards, terminated, truncated, info)`.

        Raises:
            gymnasium.error.ResetNeeded: Before the first `reset`.
            ValueError: If the actions have the wrong shape or are no elements of a discrete space.
        """
        if self._running is None:
            raise gym.error.ResetNeeded("Call `reset` before `step`. Received: step first.")
        actions = tf.nest.map_structure(tf.constant, _as_actions(self.action_space, self.single_action_space, actions))
        self._running, outcome, self._seed = self._step(self._running, actions, self._seed)
        observations = self._seen(self._running.observations)
        ended, info = outcome.ended.numpy(), self._masks()
        if ended.any():
            final = self._seen(outcome.next_observations)
            info = info | {"final_obs": np.full(self.num_envs, None, object), "_final_obs": ended}
            for index in ended.nonzero()[0]:
                info["final_obs"][index] = tf.nest.map_structure(lambda x, i=index: x[i], final)
        return observations, outcome.rewards.numpy(), outcome.terminated.numpy(), outcome.truncated.numpy(), info


@functools.lru_cache(maxsize=32)  # Ours: enough for a session's environments, and equal ones share their programs.
def _programs(env):
    """`reset(seed)` and `step(running, actions, seed)`, compiled; each also gives the next seed."""
    n, steps, next_seed = env.num_envs, env.step_noise, tf.constant([0, 1], tf.int64)

    def reset(seed):
        return begin(env, random.uniform(seed, (n, env.reset_noise))), seed + next_seed

    def step(running, actions, seed):
        noise = random.uniform(seed, (n, steps + env.reset_noise))
        return *advance(env, running, actions, noise[:, :steps], noise[:, steps:]), seed + next_seed

    def compiled(function, *arguments):
        # Concrete, because choosing a function by its arguments costs as much as a step.
        return tf.function(function, jit_compile=True, autograph=False).get_concrete_function(*arguments)

    seed = tf.constant([0, 0], tf.int64)
    actions = tf.nest.map_structure(tf.zeros_like, batch_space(env.action_space, n).sample())
    reset, (running, _) = first_call(compiled(reset, seed), seed)
    return reset, first_call(compiled(step, running, actions, seed), running, actions, seed)[0]


def _as_actions(space, single, actions, path=()):
    """Actions as arrays of the dtypes of `space`, a batch of `single`, nested as it is; refused where they are none."""
    if isinstance(space, gym.spaces.Dict) and isinstance(actions, dict) and set(actions) == set(space.spaces):
        return {key: _as_actions(part, single[key], actions[key], (*path, key)) for key, part in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple) and isinstance(actions, (tuple, list)) and len(actions) == len(space):
        return tuple(_as_actions(part, single[i], actions[i], (*path, i)) for i, part in enumerate(space.spaces))
    inside = array = None
    if space.shape is not None:
        try:
            array = np.asarray(actions, space.dtype)
            # Those of a Box may lie outside of it.
            inside = isinstance(single, gym.spaces.Box) or (array in space and np.array_equal(array, actions))
        except (TypeError, ValueError, OverflowError):
            pass
    if not inside or array.shape != space.shape:
        where, shape = f"actions{place(path)}", "" if space.shape is None else f", of shape {space.shape}"
        raise ValueError(f"`{where}` must be of {space}{shape}. Received: {where}={shown(actions)}.")
    return array
