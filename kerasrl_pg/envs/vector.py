"""Turning anything a user passes as `env` into one vector of environments with one step rule."""

import traceback
from typing import NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv


def make_vector_env(env, num_envs=None, argument="env"):
    """A gymnasium vector environment from an id, a callable, an `Env` or a `VectorEnv`.

    Args:
        env: A gymnasium id (`"CartPole-v1"`), a callable without arguments that returns an `Env` or a `VectorEnv`, one
            `Env`, or a `VectorEnv` (gymnasium's, EnvPool's, ...).
        num_envs: How many copies to run, at least 1; 1 where it is None. A vector environment brings its own number.
        argument: The caller's name for `env`, for error sentences.

    Returns:
        `(vector_env, owned)`: `owned` is True where it was made here, and is then the caller's to close.

    Raises:
        TypeError: If `env` is none of these.
        ValueError: If `num_envs` contradicts `env`.

    >>> vector_env, owned = make_vector_env("CartPole-v1", num_envs=3)
    >>> vector_env.num_envs, owned
    (3, True)
    """
    if num_envs is not None and (not isinstance(num_envs, (int, np.integer)) or num_envs < 1):
        raise ValueError(f"`num_envs` must be a whole number of at least 1. Received: num_envs={num_envs!r}.")
    if isinstance(env, VectorEnv):
        if num_envs not in (None, env.num_envs):
            raise ValueError(
                f"`num_envs` must be left out, or be {env.num_envs}, for a vector environment of {env.num_envs}. "
                f"Received: num_envs={num_envs}."
            )
        return env, False
    if isinstance(env, gym.Env):
        if num_envs not in (None, 1):
            raise ValueError(
                f"`num_envs` must be 1 where `{argument}` is one environment, since it cannot be copied. "
                f"Received: num_envs={num_envs}. Pass its id or a function that makes it."
            )
        return _sync([lambda: env]), False
    if isinstance(env, str):
        # As gymnasium's own vectors do: one checked copy shows what is wrong, checking all of them costs time.
        rest = [lambda: gym.make(env, disable_env_checker=True)] * ((num_envs or 1) - 1)
        return _sync([lambda: gym.make(env), *rest]), True
    if callable(env):
        first = env()
        if isinstance(first, VectorEnv):
            return make_vector_env(first, num_envs, argument)[0], True
        if isinstance(first, gym.Env):
            vector_env = _sync([lambda: first, *[env] * ((num_envs or 1) - 1)])
            if len({id(one) for one in vector_env.envs}) < vector_env.num_envs:
                raise ValueError(
                    f"`{argument}` as a callable must make a new environment at each call, since num_envs={num_envs}. "
                    f"Received: {argument}={env!r}, which gave the same one twice."
                )
            return vector_env, True
        raise TypeError(
            f"`{argument}` as a callable must return a gymnasium.Env or VectorEnv. Received: {type(first)}."
        )
    raise TypeError(
        f"`{argument}` must be a gymnasium id, a callable that makes an environment, a gymnasium.Env or a VectorEnv. "
        f"Received: {argument}={env!r}."
    )


def _sync(makers):
    # Without autoreset the collector resets by mask, and without copies it reads the buffer before the next step.
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED, copy=False)


class Step(NamedTuple):
    """One step of N environments, the same whatever their way of resetting themselves.

    Args:
        rewards: [N], as the environment gave them.
        terminated: bool [N], the episode ended in a terminal state.
        truncated: bool [N], the episode was cut (a time limit).
        next_observations: the true next observations; at an episode's end the final one, never the reset one.
        ended: bool [N], terminated or truncated.
        valid: bool [N], False where the row is no transition but an environment's own reset step; None where all are.
        observations: what the next action is chosen from.
    """

    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    next_observations: object
    ended: np.ndarray
    valid: np.ndarray | None
    observations: object


class Stepper:
    """Steps a vector environment, hiding its autoreset mode.

    gymnasium's three modes and EnvPool's differ in what `step` returns at and after an episode's end:

    - DISABLED: the final observation; here the ended environments are then reset by mask.
    - NEXT_STEP: the final observation; the next `step` ignores the action and returns the reset observation with
      reward 0. That row is no transition, so `valid` is False there. gymnasium's own Sync and Async vectors accept a
      masked reset in this mode too, so they are treated as DISABLED and no step is lost.
    - SAME_STEP: the reset observation; the final one is in `info["final_obs"]`.

    Args:
        env: A `VectorEnv`.
        spec: The `ObservationSpec` of its observations.

    Raises:
        ValueError: If `env.metadata["autoreset_mode"]` is missing or unknown.

    Source: gymnasium, "Vector environments: autoreset modes" (version 1.1 and later).
    """

    def __init__(self, env, spec):
        mode = getattr(env, "metadata", {}).get("autoreset_mode")
        try:
            self.mode = AutoresetMode(getattr(mode, "value", mode))
        except ValueError:
            raise ValueError(
                "A vector environment must say how it resets: `env.metadata['autoreset_mode']` must be a "
                f"gymnasium.vector.AutoresetMode. Received: {mode!r} from {env}."
            ) from None
        self.env = env
        self.spec = spec
        self.num_envs = env.num_envs
        # EnvPool fixes its seeds when it is made, and warns where one is passed to reset.
        self._seeded_by_reset = not any(c.__module__.startswith("envpool") for c in type(env).__mro__)
        # Without shared memory, gymnasium's asynchronous worker forgets that a masked reset has been its autoreset.
        remembers = type(env) is SyncVectorEnv or (type(env) is AsyncVectorEnv and env.shared_memory)
        self._masked_reset = self.mode is AutoresetMode.DISABLED or (self.mode is AutoresetMode.NEXT_STEP and remembers)
        self._resetting = np.zeros(self.num_envs, bool)
        self._steps = 0

    def reset(self, seed=None):
        """Starts new episodes everywhere; returns the first observations."""
        self._resetting[:] = False
        self._steps = 0
        seed = int(seed) if seed is not None and self._seeded_by_reset else None
        observations, _ = self.env.reset(seed=seed)
        return self.spec.flatten(observations)

    def step(self, actions):
        """Steps all environments with `actions` [N, ...]; returns a `Step`.

        Raises:
            ValueError: If the rewards are not of shape (N,).
            RuntimeError: If an environment raised; the sentence says which and at which step.
        """
        try:
            raw, rewards, terminated, truncated, info = self.env.step(actions)
        except Exception as error:
            raise RuntimeError(
                f"Environment {_culprit(error)} raised {type(error).__name__} in step {self._steps} since the last "
                f"reset: {error}. The agent keeps the weights of its last finished update."
            ) from error
        self._steps += 1
        rewards = np.asarray(rewards)
        if rewards.shape != (self.num_envs,):
            raise ValueError(
                f"`rewards` of `env.step` must have shape ({self.num_envs},), one number for each environment. "
                f"Received: rewards.shape={rewards.shape} in step {self._steps - 1}. Squeeze them in the environment."
            )
        next_observations = observations = self.spec.flatten(raw)
        valid = None
        ended = np.logical_or(terminated, truncated)
        if self.mode is AutoresetMode.NEXT_STEP and not self._masked_reset:
            if self._resetting.any():
                valid = ~self._resetting
            self._resetting = ended
        elif ended.any():
            # The environment may reuse its buffer, so the final observation is copied before anything is reset.
            next_observations = self.spec.map(lambda _, x: np.array(x), observations)
            if self._masked_reset:
                raw, _ = self.env.reset(options={"reset_mask": np.asarray(ended, bool)})
                observations = self.spec.flatten(raw)
            else:
                self._fill_in_final(next_observations, info, ended)
        return Step(rewards, terminated, truncated, next_observations, ended, valid, observations)

    def _fill_in_final(self, next_observations, info, ended):
        if "final_obs" not in info:
            raise ValueError(
                "A SAME_STEP vector environment must give an ended episode's last observation in info['final_obs']. "
                f"Received: info with {sorted(info)}."
            )
        final = info["final_obs"]
        for index in np.flatnonzero(ended):
            one = _index(final, index)
            flat = self.spec.flatten(one)
            self.spec.map(lambda _, x, y, index=index: x.__setitem__(index, y), next_observations, flat)


def _index(final, index):
    """Row `index` of final observations: an object array of observations, or a nested batch."""
    if isinstance(final, dict):
        return {key: _index(value, index) for key, value in final.items()}
    if isinstance(final, tuple):
        return tuple(_index(value, index) for value in final)
    return final[index]


def _culprit(error):
    """Which environment raised, read from the frames of gymnasium's own vectors; the others do not say."""
    for kind, name in ((SyncVectorEnv, "i"), (AsyncVectorEnv, "index")):
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if isinstance(frame.f_locals.get("self"), kind) and name in frame.f_locals:
                return frame.f_locals[name]
    return "(the vector environment does not say which)"
