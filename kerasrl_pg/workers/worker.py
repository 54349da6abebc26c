"""What runs in a worker's process: a copy of the agent, environments of its own, and what is asked of them."""

import contextlib
import dataclasses
import os
import platform
from typing import Any, NamedTuple

import numpy as np


class Plan(NamedTuple):
    """All that a worker needs to know before it begins.

    Args:
        agent: The agent's class.
        config: Its `get_config()`, of a built agent.
        compile_config: Its `get_compile_config()`.
        custom_objects: Classes and functions by the names under which Keras knows them.
        env: A gymnasium id, a function that makes an environment, or a `CompiledEnv`.
        vectors: Whether that function makes vectors of environments.
        specs: Entries of gymnasium's registry by id, which the worker's may lack.
        num_envs: N, of all workers together.
        horizon: T.
        seed: Of the environments.
        budget: `Budget.annealing()`.
        versions: Of what a worker must have alike; see `versions`.
    """

    agent: type
    config: dict
    compile_config: dict
    custom_objects: dict
    env: Any
    vectors: bool
    specs: dict
    num_envs: int
    horizon: int
    seed: int
    budget: list
    versions: dict


class Place(NamedTuple):
    """Which worker one is.

    Args:
        index: Its number.
        first: Its first environment's number among all.
        count: Its environments.
        attempt: How many workers have had this place before.
    """

    index: int
    first: int
    count: int
    attempt: int


class Hello(NamedTuple):
    """What a worker says when it has begun: its process, and whether its environments give action masks."""

    pid: int
    masked: bool


def versions():
    """What programs and weights depend on, by name."""
    import keras
    import tensorflow as tf

    import kerasrl_pg

    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "kerasrl_pg": kerasrl_pg.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }


def plan_for(agent, env, vectors, num_envs, horizon, seed, budget):
    """The `Plan` of a built and compiled agent's workers; arguments as of `Plan`."""
    import gymnasium as gym
    import keras

    config, compile_config = _plain(agent.get_config()), _plain(agent.get_compile_config())
    told = repr((config, compile_config))
    own = {
        name: kind
        for name, kind in keras.saving.get_custom_objects().items()
        if repr(name) in told and not getattr(kind, "__module__", "").startswith(("kerasrl_pg", "keras."))
    }
    specs = {}
    if isinstance(env, str):
        with contextlib.suppress(gym.error.Error):
            specs = {env: gym.spec(env)}
    return Plan(
        type(agent),
        config,
        compile_config,
        own,
        env,
        vectors,
        specs,
        num_envs,
        horizon,
        seed,
        budget,
        versions(),
    )


def _plain(config):
    """A config without the lists in which Keras tracks layers, which cannot be pickled."""
    if isinstance(config, dict):
        return {name: _plain(value) for name, value in config.items()}
    return [_plain(each) for each in config] if isinstance(config, (list, tuple)) else config


class Worker:
    """An actor of Ray's. Its methods are called one after the other; what they raise reaches who called them.

    Args:
        place: Its `Place`.
    """

    def __init__(self, place):
        self._place = place

    def begin(self, plan):
        """Makes agent and environments.

        Args:
            plan: The `Plan`.

        Returns:
            Its `Hello`.

        Raises:
            RuntimeError: If its versions are others.
        """
        check_versions(plan.versions, versions(), self._place.index)
        import gymnasium as gym
        import keras

        keras.saving.get_custom_objects().update(plan.custom_objects)
        for name, spec in plan.specs.items():
            gym.registry.setdefault(name, spec)
        self._agent = agent = plan.agent.from_config(plan.config)
        agent.compile_from_config(plan.compile_config)
        agent._rooms.clock.budget.assign(plan.budget)
        from kerasrl_pg.workers.players import make_player
        from kerasrl_pg.workers.weights import WeightsTaker

        self._take = WeightsTaker(agent.variables)
        self._player = make_player(agent, plan, self._place)
        self._learner = None
        return Hello(os.getpid(), self._player.masked)

    def collect(self, weights, number):
        """Plays a rollout.

        Args:
            weights: From `weights.WeightsGiver`.
            number: Of the rollout, by which its noise is drawn.

        Returns:
            A `Part`.
        """
        self._take(weights)
        return self._player.collect(number)

    def gradient(self, weights, number):
        """Plays a rollout, and gives the gradient that it means; arguments of `collect`.

        Returns:
            A `Gradient`.
        """
        part = self.collect(weights, number)
        if self._learner is None:
            from kerasrl_pg.workers.gradients import WorkerLearner

            self._learner = WorkerLearner(self._agent)
        return self._learner(part)

    def close(self):
        """Closes the environments."""
        self._player.close()


def check_versions(wanted, mine, index):
    """Refuses a worker whose versions differ.

    >>> check_versions({"keras": "3.15.1"}, {"keras": "3.14.0"}, 2)
    Traceback (most recent call last):
    ...
    RuntimeError: Worker 2 must have the versions of who it works for: keras 3.15.1. Received: keras 3.14.0. \
Install the same on every machine.
    """
    differ = [name for name, version in wanted.items() if mine.get(name) != version]
    if differ:
        theirs, own = (", ".join(f"{name} {each.get(name)}" for name in differ) for each in (wanted, mine))
        raise RuntimeError(
            f"Worker {index} must have the versions of who it works for: {theirs}. Received: {own}. "
            "Install the same on every machine."
        )


class Part(NamedTuple):
    """A worker's columns of a rollout.

    Args:
        rollout: A `Rollout` of NumPy arrays [T, n, ...].
        steps_taken: Its environment steps.
        finished: Episodes that ended with it: (row, number of the environment, return, length), in order.
    """

    rollout: Any
    steps_taken: int
    finished: list


@dataclasses.dataclass
class Gradient:
    """What a worker has learned.

    Args:
        values: float32 [D], the gradients of all weights one after the other, in the order of `moves()`.
        logs: float32 by name.
        moments: float64, what the statistics have to learn, in the order of `gradients.statistics`: mean, variance and
            count of each.
        part: A `Part` without its rollout.
        largest: The largest |reward| of its rollout.
    """

    values: np.ndarray
    logs: dict
    moments: np.ndarray
    part: Part
    largest: float
