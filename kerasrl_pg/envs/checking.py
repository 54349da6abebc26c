"""Proving that a compiled environment is the one it claims to be."""

import dataclasses
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import tensorflow as tf

from kerasrl_pg.envs.compiled import CompiledEnv, Running, advance
from kerasrl_pg.envs.spaces import ObservationSpec, shown
from kerasrl_pg.ops import random


class Equality(NamedTuple):
    """What `check_equal` has compared, and how far apart the two were at most.

    Args:
        steps, episodes: Compared; an episode counts when it has ended.
        terminated, truncated: How many steps ended so. What has not occurred has not been compared.
        observation_difference, reward_difference, state_difference: Largest absolute differences.
        first_state_distance: Largest Kolmogorov-Smirnov distance between distributions of first states, in [0, 1].
    """

    steps: int
    episodes: int
    terminated: int
    truncated: int
    observation_difference: float
    reward_difference: float
    state_difference: float
    first_state_distance: float


def check_equal(env, reference, steps=2000, seed=0, tolerance=1e-5, policy=None, resets=2000):
    """Proves a compiled environment equal to a gymnasium one, step for step.

    The reference is played, and what happened is recorded. Each step is then taken again by the compiled environment
    from the reference's own state before it: over a whole episode float32 would drift away from a chaotic float64
    reference, however right the rules. Compared are observations, rewards, both kinds of end, and the states after
    the step; then spaces, time limits, and the distribution of first states.

    Args:
        env: A `CompiledEnv` with `state_of`. If its steps take noise, the reference has to say after each of its own
            what the same chance would be here: `reference.unwrapped.drawn`, [step_noise].
        reference: A gymnasium id, a callable that makes an environment, or an `Env`.
        steps: How many steps of the reference to compare, at least 1.
        seed: Of the reference's episodes and of the actions.
        tolerance: Of numbers x and y, |x - y| ≤ tolerance (1 + |y|). 1e-5: ours, some times float32's error in one
            step of the classic control problems.
        policy: Function from an observation to an action, for what random actions do not reach. None for random
            ones, each held for a while, because those of MountainCar else never leave the valley.
        resets: How many first states of each to compare, at least 100.

    Returns:
        An `Equality`. A threshold that the reference meets to within rounding may differ; another seed then tells.

    Raises:
        ValueError: Naming the first difference: the field, the step, and both values.
        TypeError: If `env` is no `CompiledEnv`, or `reference` none of these.

    >>> from kerasrl_pg.envs import CartPole, check_equal
    >>> report = check_equal(CartPole(), "CartPole-v1", steps=200)
    >>> report.steps, report.observation_difference < 1e-5
    (200, True)
    """
    if not isinstance(env, CompiledEnv):
        raise TypeError(f"`env` must be a CompiledEnv, such as CartPole(). Received: env={env!r}.")
    if steps < 1 or resets < 100:
        raise ValueError(
            f"`steps` must be at least 1 and `resets` at least 100. Received: steps={steps}, resets={resets}."
        )
    made = _make(reference)
    try:
        if env.step_noise:
            _check_drawn(env, made, seed)
        for name in ("observation_space", "action_space"):
            ours, theirs = getattr(env, name), getattr(made, name)
            if ours != theirs:
                raise ValueError(f"`env.{name}` must be the reference's, {theirs}. Received: {ours} of {env}.")
        if env.max_episode_steps != _time_limit(made):
            raise ValueError(
                f"`env.max_episode_steps` must be the reference's time limit, {_time_limit(made)}. "
                f"Received: {env.max_episode_steps} of {env}."
            )
        record = _play(env, made, policy or _held_random_actions(made.action_space, seed), steps, seed)
        differences = _compare(env, record, tolerance)
        distance = _compare_first_states(env, made, resets, seed)
    finally:
        if made is not reference:
            made.close()
    terminated, truncated = (int(record[name].sum()) for name in ("terminated", "truncated"))
    episodes = int((record["terminated"] | record["truncated"]).sum())
    return Equality(steps, episodes, terminated, truncated, *differences, distance)


def _make(reference):
    if isinstance(reference, str):
        return gym.make(reference)
    made = reference if isinstance(reference, gym.Env) or not callable(reference) else reference()
    if not isinstance(made, gym.Env):
        raise TypeError(
            "`reference` must be a gymnasium id, a callable that makes an environment, or a gymnasium.Env. "
            f"Received: reference={reference!r}."
        )
    return made


def _check_drawn(env, reference, seed):
    reference.reset(seed=seed)
    if not hasattr(reference.unwrapped, "drawn"):
        raise ValueError(
            "`env` must step without noise, unless the reference says in `drawn` what its chance was. "
            f"Received: step_noise={env.step_noise} of {env}. Set its probabilities to 0 for the check."
        )


def _time_limit(env):
    limits = []
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.TimeLimit):
            limits.append(env._max_episode_steps)
        env = env.env
    return min(limits, default=None)


def _held_random_actions(space, seed):
    """A policy of random actions, each held for 1 to 32 steps on average; how long changes now and then."""
    rng = np.random.default_rng(seed)
    space.seed(int(seed))
    action, average = space.sample(), 1

    def policy(observation):
        nonlocal action, average
        if rng.random() < 1 / 200:
            average = 2 ** rng.integers(6)
        if rng.random() < 1 / average:
            action = space.sample()
        return action

    return policy


def _play(env, reference, policy, steps, seed):
    """The reference's steps, as a dictionary of arrays [steps, ...] and nests of them."""
    flatten = ObservationSpec(env.observation_space).flatten

    def copies(observation):
        # The reference may write on its arrays in the next step.
        return tf.nest.map_structure(np.array, (flatten(observation), env.state_of(reference.unwrapped)))

    rows = []
    observation, _ = reference.reset(seed=seed)
    length = 0
    for _ in range(steps):
        before, state = copies(observation)
        action = policy(observation)
        observation, reward, terminated, truncated, _ = reference.step(action)
        after, next_state = copies(observation)
        rows.append(
            {
                "noise": np.array(reference.unwrapped.drawn if env.step_noise else (), np.float32),
                "observations": before,
                "rewards": np.float64(reward),
                "terminated": np.bool_(terminated),
                "truncated": np.bool_(truncated),
                "next_observations": after,
                "next_states": next_state,
                "states": state,
                "lengths": np.int32(length),
                "actions": _typed(env.action_space, action),
            }
        )
        length += 1
        if terminated or truncated:
            (observation, _), length = reference.reset(), 0
    return tf.nest.map_structure(lambda *values: np.stack(values), *rows)


def _typed(space, action):
    """An action as arrays of its space's dtypes, nested as it is."""
    try:
        if isinstance(space, gym.spaces.Dict):
            return {key: _typed(part, action[key]) for key, part in space.spaces.items()}
        if isinstance(space, gym.spaces.Tuple):
            return tuple(_typed(part, each) for part, each in zip(space, action, strict=True))
        return np.asarray(action, space.dtype)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError(f"`policy` must give actions of {space}. Received: {shown(action)}.") from None


def _once_more(env, record):
    """The recorded steps, taken side by side by as many environments of `env`, from the reference's states."""
    steps = env.num_envs

    def once_more(states, lengths, actions, noise):
        observations = env.observe(states)
        reset_noise = tf.fill((steps, env.reset_noise), 0.5)
        _, outcome = advance(env, Running(states, observations, lengths), actions, noise, reset_noise)
        return {
            "observations": observations,
            "rewards": outcome.rewards,
            "terminated": outcome.terminated,
            "truncated": outcome.truncated,
            "next_observations": outcome.next_observations,
            "next_states": env.step(states, actions, noise).state,
        }

    arguments = tf.nest.map_structure(tf.constant, [record[name] for name in ("states", "lengths", "actions", "noise")])
    return tf.function(once_more, jit_compile=True, autograph=False).get_concrete_function(*arguments)(*arguments)


def _row(nest, step):
    """The step's row of recorded arrays, for a sentence."""
    return tf.nest.map_structure(lambda leaf: leaf[step].tolist(), nest)


def _compare(env, record, tolerance):
    """The largest differences of observations, rewards and states."""
    steps = len(record["rewards"])
    env = dataclasses.replace(env, num_envs=steps)
    first, largest = None, {}
    for field, value in _once_more(env, record).items():
        ours = [leaf.numpy().astype(float) for leaf in tf.nest.flatten(value)]
        theirs = [leaf.astype(float) for leaf in tf.nest.flatten(record[field])]
        largest[field] = 0.0
        for x, y in zip(ours, theirs, strict=True):
            if x.shape != y.shape:
                raise ValueError(
                    f"`{field}` of the environment must have the reference's shape {y.shape[1:]}. "
                    f"Received: {x.shape[1:]} of {env}."
                )
            apart = ~np.isclose(x, y, rtol=tolerance, atol=tolerance).reshape(steps, -1).all(1)
            largest[field] = max(largest[field], float(np.abs(x - y).max(initial=0.0)))
            if apart.any() and (first is None or apart.argmax() < first[0]):
                first = apart.argmax(), field, x, y
    if first is not None:
        step, field, x, y = first
        raise ValueError(
            f"`{field}` of the environment must be the reference's, {y[step]} in step {step} (after "
            f"{record['lengths'][step]} steps of its episode), for the action {_row(record['actions'], step)} in the "
            f"state {_row(record['states'], step)}. Received: {x[step]}."
        )
    observations = max(largest["observations"], largest["next_observations"])
    return observations, largest["rewards"], largest["next_states"]


def _compare_first_states(env, reference, resets, seed):
    """The largest distance between the two distributions of first states.

    By Cramér and Wold's theorem two distributions are equal where all their projections onto a line are; looked at are
    the state's components and some random directions. Of each projection, mean and variance must agree within 5
    standard errors (a chance of 6e-7 each), and the Kolmogorov-Smirnov distance must have a chance above 1e-6.
    """
    theirs = []
    for _ in range(resets):
        reference.reset()
        leaves = tf.nest.flatten(env.state_of(reference.unwrapped))
        theirs.append(np.concatenate([np.ravel(leaf).astype(float) for leaf in leaves]))
    theirs = np.stack(theirs)
    env = dataclasses.replace(env, num_envs=resets)
    leaves = tf.nest.flatten(env.reset(random.uniform([seed, 0], (resets, env.reset_noise))))
    ours = np.concatenate([leaf.numpy().reshape(resets, -1).astype(float) for leaf in leaves], 1)
    scale = np.concatenate([ours, theirs]).std(0)
    directions = np.random.default_rng(0).normal(size=(8, ours.shape[1])) / np.where(scale > 1e-6, scale, 1.0)
    largest = 0.0
    for index, direction in enumerate([*np.eye(ours.shape[1]), *directions]):
        x, y = np.sort(ours @ direction), np.sort(theirs @ direction)
        rounding = 1e-6 * (1.0 + np.abs(y).max())
        middle = y.mean()
        moments = [_gap(x, y) <= rounding, _gap((x - middle) ** 2, (y - middle) ** 2) <= rounding]
        distance = max(_above(x, y, rounding), _above(y, x, rounding))
        largest = max(largest, distance)
        if not all(moments) or distance > np.sqrt(-np.log(0.5e-6) / resets):
            name = f"component {index}" if index < ours.shape[1] else "some combination of components"
            raise ValueError(
                f"`env.reset` must give the reference's distribution of first states: {name} is of mean "
                f"{y.mean():.6g} and standard deviation {y.std():.6g}, in [{y[0]:.6g}, {y[-1]:.6g}] there. Received: "
                f"mean {x.mean():.6g} and standard deviation {x.std():.6g}, in [{x[0]:.6g}, {x[-1]:.6g}], "
                f"over {resets} first states; Kolmogorov-Smirnov distance {distance:.3f}."
            )
    return largest


def _gap(x, y):
    """How far two samples' means are apart beyond 5 standard errors; not above 0 where they agree."""
    return abs(x.mean() - y.mean()) - 5.0 * np.sqrt(x.var() / len(x) + y.var() / len(y))


def _above(x, y, rounding):
    """max_a P(x ≤ a) - P(y ≤ a + rounding) of two sorted samples: one side of the Kolmogorov-Smirnov distance."""
    return float(np.max(np.arange(1, len(x) + 1) / len(x) - np.searchsorted(y, x + rounding, "right") / len(y)))
