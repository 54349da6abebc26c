"""Turning anything a user passes as `env` into one vector of environments with one step rule."""

import multiprocessing.connection
import traceback
import warnings
from typing import NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.async_vector_env import AsyncState
from gymnasium.vector.utils import iterate

from kerasrl_pg.envs.spaces import shown


def make_vector_env(env, num_envs=None, argument="env", copies=1):
    """A gymnasium vector environment from an id, a callable, an `Env` or a `VectorEnv`.

    Args:
        env: A gymnasium id (`"CartPole-v1"`), a callable without arguments that returns an `Env` or a `VectorEnv`, one
            `Env`, or a `VectorEnv` (gymnasium's, EnvPool's, ...).
        num_envs: How many copies to run, at least 1; `copies` where it is None. A vector environment brings its own
            number, and one `Env` is 1.
        argument: The caller's name for `env`, for error sentences.
        copies: See `num_envs`.

    Returns:
        `(vector_env, owned)`: `owned` is True where it was made here, and is then the caller's to close.

    Raises:
        TypeError: If `env` is none of these, or has no spaces.
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
        _check_spaces(env, argument)
        return _sync([lambda: env]), False
    if isinstance(env, str):
        # As gymnasium's own vectors do: one checked copy shows what is wrong, checking all of them costs time.
        rest = [lambda: gym.make(env, disable_env_checker=True)] * ((num_envs or copies) - 1)
        return _sync([lambda: gym.make(env), *rest]), True
    if callable(env):
        return _called(env, num_envs, argument, copies), True
    raise TypeError(
        f"`{argument}` must be a gymnasium id, a callable that makes an environment, a gymnasium.Env or a VectorEnv. "
        f"Received: {argument}={env!r}."
    )


def _called(make, num_envs, argument, copies):
    """A vector environment of what a callable makes; arguments of `make_vector_env`."""
    first = make()
    if isinstance(first, VectorEnv):
        return make_vector_env(first, num_envs, argument)[0]
    if not isinstance(first, gym.Env):
        raise TypeError(
            f"`{argument}` as a callable must return a gymnasium.Env or VectorEnv. Received: {type(first)}."
        )
    _check_spaces(first, argument)
    vector_env = _sync([lambda: first, *[make] * ((num_envs or copies) - 1)])
    if len({id(one) for one in vector_env.envs}) < vector_env.num_envs:
        raise ValueError(
            f"`{argument}` as a callable must make a new environment at each call, since "
            f"num_envs={vector_env.num_envs}. Received: {argument}={make!r}, which gave the same one twice."
        )
    return vector_env


def _check_spaces(env, argument):
    for name in ("observation_space", "action_space"):
        if not isinstance(getattr(env, name, None), gym.Space):
            raise TypeError(
                f"`{argument}` must have a gymnasium space as its `{name}`. "
                f"Received: {getattr(env, name, None)!r} of {env!r}."
            )


def _sync(makers):
    # Without autoreset the collector resets by mask, and without copies it reads the buffer before the next step.
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED, copy=False)


def name_of(env):
    """What an `env` that a user passed is called, as far as it says; None where it does not.

    >>> name_of("CartPole-v1"), name_of(gym.make("CartPole-v1")), name_of(object())
    ('CartPole-v1', 'CartPole-v1', None)
    """
    if isinstance(env, str):
        return env
    return getattr(getattr(env, "spec", None), "id", None)


def close(vector_env, failed=False):
    """Closes a vector environment; what goes wrong in it is a warning, since it must not cost what came before.

    Args:
        vector_env: A `VectorEnv`.
        failed: Whether something has been raised while it was played. The workers of an `AsyncVectorEnv` are then
            terminated: gymnasium would wait for answers that may never come.
    """
    inner = getattr(vector_env, "unwrapped", vector_env)
    try:
        if failed and isinstance(inner, AsyncVectorEnv):
            inner._state = AsyncState.DEFAULT
            vector_env.close(terminate=True)
        else:
            vector_env.close()
    except Exception as error:
        warnings.warn(
            f"`close` of {vector_env} raised {type(error).__name__}: {error}. What was done before is kept; the "
            "environment may still hold processes or files.",
            stacklevel=3,
        )


class Step(NamedTuple):
    """One step of N environments, the same whatever their way of resetting themselves.

    Args:
        rewards: [N], as the environment gave them; numbers of any dtype.
        terminated: bool [N], the episode ended in a terminal state.
        truncated: bool [N], the episode was cut (a time limit).
        next_observations: The true next observations; at an episode's end the final one, never the reset one.
        ended: bool [N], terminated or truncated.
        valid: bool [N], False where the row is no transition but an environment's own reset step; None where all are.
        observations: What the next action is chosen from. Both are arrays of the spec's shapes and dtypes.
        starts: bool [N], where they are an episode's first.
    """

    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    next_observations: object
    ended: np.ndarray
    valid: np.ndarray | None
    observations: object
    starts: np.ndarray


class Stepper:
    """Steps a vector environment, hiding its autoreset mode, and judges what comes out of it by its kind.

    gymnasium's three modes and EnvPool's differ in what `step` returns at and after an episode's end:

    - DISABLED: the final observation; here the ended environments are then reset by mask.
    - NEXT_STEP: the final observation; the next `step` ignores the action and returns the reset observation with
      reward 0. That row is no transition, so `valid` is False there. gymnasium's own Sync and Async vectors accept a
      masked reset in this mode too, so they are treated as DISABLED and no step is lost.
    - SAME_STEP: the reset observation; the final one is in `info["final_obs"]`.

    The environments of a `SyncVectorEnv` are stepped here, one by one, and those of an `AsyncVectorEnv` are heard here:
    gymnasium's own loops take a reward "1" for 1.0 and a flag None for False before anyone sees them.

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
        self._envs = env.envs if type(env) is SyncVectorEnv else None
        self._iterate = iterate.dispatch(type(getattr(env, "action_space", None)))  # Once, and not in each step.
        # Without shared memory, gymnasium's asynchronous worker forgets that a masked reset has been its autoreset.
        remembers = type(env) is SyncVectorEnv or (type(env) is AsyncVectorEnv and env.shared_memory)
        self._masked_reset = self.mode is AutoresetMode.DISABLED or (self.mode is AutoresetMode.NEXT_STEP and remembers)
        plays = {SyncVectorEnv: self._play_each, AsyncVectorEnv: self._play_workers}
        self._play = plays.get(type(env), self._play_vector)
        self._resetting = np.zeros(self.num_envs, bool)
        self._masks = [None] * self.num_envs
        self.gives_masks = True  # Until a first reset says otherwise.
        self._steps = 0
        self._in_reset = True

    def reset(self, seed=None):
        """Starts new episodes everywhere; returns the first observations, as the spec's arrays.

        Raises:
            ValueError: If what comes out is no `(observation, info)`, or no observation of the spec.
            RuntimeError: If an environment raised; the sentence says which.
        """
        self._resetting[:], self._steps = False, 0
        seed = int(seed) if seed is not None and self._seeded_by_reset else None
        self._in_reset = self.gives_masks = True
        self._masks = [None] * self.num_envs
        if self._envs is not None:
            observations = self._reset_each(range(self.num_envs), seed)
        else:
            observations = self._reset_all(seed=seed)
        self.gives_masks = any(mask is not None for mask in self._masks)
        return observations

    @property
    def waits(self):
        """Whether `step` lets environments wait that do not play; else all are stepped."""
        return self._envs is not None

    def step(self, actions, playing=None):
        """Steps all environments with `actions` [N, ...]; returns a `Step`.

        Args:
            actions: As the environments accept them.
            playing: None, or bool [N], which environments need to be stepped. Where the others can wait, they do, and
                give their last observation again and a reward of 0.

        Raises:
            ValueError: If what comes out is no `(observation, reward, terminated, truncated, info)`, an observation
                is not one of the spec, a reward is no number, or a flag is no boolean.
            RuntimeError: If an environment raised; the sentence says which and at which step.
        """
        self._in_reset = False
        raw, rows, rewards, terminated, truncated, info = self._play(actions, playing)
        if self.gives_masks or self._steps == 0:
            self._note_masks(info)
            if not self.gives_masks and any(mask is not None for mask in self._masks):
                raise ValueError(
                    "`info['action_mask']` must be given with every observation. Received: one from `step`, but none "
                    "from `reset`. Give it in both, ones where all is allowed."
                )
        next_observations = observations = self.spec.read(raw, self.num_envs, self._where, rows)
        self._steps, self._in_reset = self._steps + 1, True
        valid = None
        ended = starts = terminated | truncated
        if self.mode is AutoresetMode.NEXT_STEP and not self._masked_reset:
            starts = self._resetting.copy()
            if self._resetting.any():
                valid = ~self._resetting
            self._resetting = ended
        elif ended.any():
            # The environment may reuse its buffer, so observations are copied before anything is reset.
            copies, index = self.spec.map(lambda _, x: np.array(x), observations), ended.nonzero()[0]
            if self._envs is not None:
                observations = self._put(copies, index, self._reset_each(index))
            elif self._masked_reset:
                next_observations = copies
                observations = self._reset_all(options=_Mask(reset_mask=ended))
            else:
                next_observations = self._put(copies, index, self._final(info, index))
        return Step(rewards, terminated, truncated, next_observations, ended, valid, observations, starts)

    def _play_each(self, actions, playing):
        """One step in each environment of a `SyncVectorEnv`."""
        results = []
        if playing is not None:
            self._resetting = ~playing  # Nobody asks what is allowed there.
        try:
            for env, action in zip(self._envs, self._iterate(self.env.action_space, actions), strict=True):
                if playing is None or playing[len(results)]:
                    results.append(env.step(action))
                else:
                    results.append((self._last[len(results)], 0.0, False, False, {}))
        except Exception as error:
            raise self._raised(error, len(results)) from error
        try:
            raw, rewards, terminated, truncated, infos = zip(*results, strict=True)
        except (ValueError, TypeError):
            fits = [isinstance(result, (tuple, list)) and len(result) == 5 for result in results]
            raise self._no_step(results[fits.index(False)], fits.index(False)) from None
        self._last = raw
        return raw, True, self._numbers(rewards), *self._flags(terminated, truncated), infos

    def _play_workers(self, actions, playing):
        """One step of an `AsyncVectorEnv`: its own `step`, but for the conversion to arrays."""
        env = self.env
        try:
            env.step_async(actions)
            results, successes = zip(*[pipe.recv() for pipe in env.parent_pipes], strict=True)
            env._raise_if_errors(successes)
            env._state = AsyncState.DEFAULT
        except Exception as error:
            raise self._raised(error) from error
        raw, rewards, terminated, truncated, infos = zip(*results, strict=True)
        if self.mode is AutoresetMode.SAME_STEP:
            infos = {"final_obs": [info.get("final_obs") for info in infos], "each": infos}
        if env.shared_memory:
            raw = env.observations
        return raw, not env.shared_memory, self._numbers(rewards), *self._flags(terminated, truncated), infos

    def _play_vector(self, actions, playing):
        """One step of any other vector environment."""
        try:
            result = self.env.step(actions)
        except Exception as error:
            raise self._raised(error) from error
        if not isinstance(result, (tuple, list)) or len(result) != 5:
            raise self._no_step(result, None)
        raw, rewards, *flags, info = result
        rewards = np.asarray(rewards)
        if rewards.shape != (self.num_envs,):
            raise ValueError(
                f"`rewards` of `env.step` must have shape ({self.num_envs},), one number for each environment. "
                f"Received: rewards.shape={rewards.shape} in step {self._steps}. Squeeze them in the environment."
            )
        if rewards.dtype.kind not in "biuf":
            rewards = self._numbers(rewards)
        for name, flag in zip(("terminated", "truncated"), flags, strict=True):
            array = np.asarray(flag)
            if array.shape != (self.num_envs,) or array.dtype != bool:
                raise ValueError(
                    f"`{name}` of `env.step` must be booleans of shape ({self.num_envs},). Received: {shown(flag)} in "
                    f"step {self._steps}. Make them so in the environment, as by `.astype(bool)`."
                )
        return raw, False, rewards, *map(np.asarray, flags), info

    def _numbers(self, rewards):
        """The rewards of N environments, one by one, as float64 [N]."""
        if not _NUMBERS.issuperset(map(type, rewards)):
            rewards = [self._number(row, reward) for row, reward in enumerate(rewards)]
        return np.array(rewards, np.float64)

    def _number(self, row, reward):
        try:
            array = np.asarray(reward)
            if array.size == 1 and (array.dtype.kind in "biuf" or (array.dtype == object and array.ndim == 0)):
                return float(array.item())
        except (TypeError, ValueError):
            pass
        raise ValueError(
            f"`reward` must be one number. Received: {shown(reward)} of {type(reward)} {self._where(row)}. "
            "Repair the environment's reward."
        )

    def _flags(self, *both):
        """`terminated` and `truncated` of N environments, one by one, as two bool [N]."""
        for name, flags in zip(("terminated", "truncated"), both, strict=True):
            if not _FLAGS.issuperset(map(type, flags)):
                for row, flag in enumerate(flags):
                    array = np.asarray(flag)
                    if array.shape != () or array.dtype.kind != "b":
                        raise ValueError(
                            f"`{name}` must be True or False. Received: {shown(flag)} of {type(flag)} "
                            f"{self._where(row)}. Return bool({name}) in the environment."
                        )
        return [np.array(flags, bool) for flags in both]

    def _no_step(self, result, row):
        """The error of a result of `step` that is not what gymnasium's is."""
        received = f"{len(result)} values" if isinstance(result, (tuple, list)) else f"{type(result)}"
        return ValueError(
            "`env.step` must return (observation, reward, terminated, truncated, info). "
            f"Received: {received} {self._where(row)}. The old gym's `done` is two flags in gymnasium: terminated, in "
            "a terminal state, and truncated, by a time limit."
        )

    def _reset_each(self, index, seed=None):
        """First observations of the environments of this index, of a `SyncVectorEnv`."""
        observations = []
        for row in index:
            try:
                result = self._envs[row].reset(seed=None if seed is None else seed + row, options=None)
            except Exception as error:
                raise self._raised(error, row) from error
            observations.append(self._first(result, row))
            if self.gives_masks:
                self._masks[row] = _mask_in(result[1])
        return self.spec.read(observations, len(observations), lambda row: self._where(index[row]), rows=True)

    def _reset_all(self, **kwargs):
        """First observations of all environments; only some may be new, by mask."""
        try:
            result = self.env.reset(**kwargs)
        except Exception as error:
            raise self._raised(error) from error
        observations = self._first(result, None)
        if self.gives_masks:
            self._note_masks(result[1])
        return self.spec.read(observations, self.num_envs, self._where)

    def _first(self, result, row):
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise ValueError(
                f"`env.reset` must return (observation, info). Received: {type(result)} {self._where(row)}. "
                "The old gym's `reset` returned the observation alone."
            )
        return result[0]

    def _note_masks(self, info):
        """Keeps the `action_mask`s of what came with observations: a tuple of infos, or a vector's own."""
        if isinstance(info, dict) and "each" in info:
            info = info["each"]
        if not isinstance(info, dict):
            self._masks = list(map(_mask_in, info))
        elif "action_mask" in info:
            given = np.asarray(info.get("_action_mask", np.ones(self.num_envs, bool)), bool)
            for row in given.nonzero()[0]:
                self._masks[row] = _index(info["action_mask"], row)

    @property
    def ignores_actions(self):
        """bool [N], where the next step is an environment's own reset, in which no action is taken."""
        return self._resetting

    def masks(self, head):
        """The actions that are allowed next, as the environments' infos say.

        Args:
            head: The policy's `Head`.

        Returns:
            bool [N, *head.mask_shape]; None where the environments say nothing.

        Raises:
            ValueError: If an environment that gave masks gives none, or none of the head's.
        """
        if not self.gives_masks:
            return None
        try:
            plain = all(isinstance(mask, np.ndarray) and mask.dtype != object for mask in self._masks)
            if plain and not self._resetting.any():
                return head.read_mask(np.stack(self._masks))
        except ValueError:  # Row by row, to say which.
            pass
        moment = f"after step {self._steps - 1} since the last reset" if self._steps else "in `reset`"
        rows = []
        for row, mask in enumerate(self._masks):
            if self._resetting[row]:
                rows.append(np.ones(head.mask_shape, bool))
                continue
            if mask is None:
                raise ValueError(
                    "`info['action_mask']` must be given with every observation. Received: none from environment "
                    f"{row} {moment}. "
                    "Give it in `reset` and `step`, ones where all is allowed."
                )
            try:
                rows.append(head.read_mask(mask))
            except ValueError as error:
                raise ValueError(f"{error} It came from environment {row} {moment}.") from None
        return np.stack(rows)

    def _put(self, arrays, index, new):
        """`arrays` with the rows `index` replaced, in place."""
        self.spec.map(lambda _, x, y: x.__setitem__(index, y), arrays, new)
        return arrays

    def _final(self, info, index):
        """Last observations of the ended environments, in SAME_STEP mode."""
        if not isinstance(info, dict) or "final_obs" not in info:
            raise ValueError(
                "A SAME_STEP vector environment must give an ended episode's last observation in info['final_obs']. "
                f"Received: info with {sorted(info) if isinstance(info, dict) else type(info)}."
            )
        final = [_index(info["final_obs"], row) for row in index]
        return self.spec.read(final, len(final), lambda row: self._where(index[row]), rows=True)

    def _moment(self):
        if not self._in_reset:
            return f"in step {self._steps} since the last reset"
        return f"in `reset` after step {self._steps - 1} since the last one" if self._steps else "in `reset`"

    def _where(self, row):
        """Where what an environment gave comes from, for sentences."""
        return ("" if row is None else f"from environment {row} ") + self._moment()

    def _raised(self, error, row=None):
        """The error of an environment that raised, or whose process has ended."""
        row = _culprit(error) if row is None else row
        what = f"raised {type(error).__name__} {self._moment()}: {error}"
        inner = getattr(self.env, "unwrapped", self.env)
        if row is None and isinstance(inner, AsyncVectorEnv) and isinstance(error, (EOFError, OSError)):
            # A pipe breaks a little earlier than its process has ended.
            gone = multiprocessing.connection.wait([process.sentinel for process in inner.processes], timeout=5)
            ended = {row: process for row, process in enumerate(inner.processes) if process.sentinel in gone}
            for process in ended.values():
                process.join(timeout=5)
            if ended:
                row = ", ".join(map(str, ended))
                codes = ", ".join(str(process.exitcode) for process in ended.values())
                what = f"ended its process {self._moment()}, with exit code {codes}"
                # It can serve no more, and closing it later would wait for the answer that will not come.
                close(self.env, failed=True)
        row = "(the vector environment does not say which)" if row is None else row
        return RuntimeError(f"Environment {row} {what}. The agent keeps the weights of its last finished update.")


# What a reward and a flag mostly are, so that a look at their types is all that a step costs.
_NUMBERS = {bool, int, float, np.bool_, *(np.dtype(letter).type for letter in "bhilqBHILQefd")}
_FLAGS = {bool, np.bool_}


class _Mask(dict):
    """Options of a masked reset. gymnasium takes the mask out and sends the rest to its workers: None, not an empty
    dictionary, for that is what an environment gets in every other reset."""

    def __reduce__(self):
        return type(None), ()


def _mask_in(info):
    """The action mask of one environment's info, or None."""
    return info.get("action_mask") if isinstance(info, dict) else None


def _index(final, index):
    """Row `index` of final observations or masks: an object array of them, or a nested batch."""
    if isinstance(final, dict):
        return {key: _index(value, index) for key, value in final.items()}
    if isinstance(final, tuple):
        return tuple(_index(value, index) for value in final)
    return None if final is None else final[index]  # A mask of what is not masked.


def _culprit(error):
    """Which environment raised, read from the frames of gymnasium's own vectors; the others do not say: None."""
    for kind, name in ((SyncVectorEnv, "i"), (AsyncVectorEnv, "index")):
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if isinstance(frame.f_locals.get("self"), kind) and name in frame.f_locals:
                return frame.f_locals[name]
    return None
