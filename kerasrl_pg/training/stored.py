"""Stored episodes in the place of environments."""

import contextlib
from typing import Any, NamedTuple

import numpy as np

from kerasrl_pg.data.trajectories import Trajectories
from kerasrl_pg.rollouts.collect import EpisodeStatistics
from kerasrl_pg.training.fitting import World


class Stored(NamedTuple):
    """What a fit has for environments: `Trajectories`, and how many episodes a batch has."""

    trajectories: Any
    num_envs: int

    @property
    def longest(self):
        """T, steps of the longest episode."""
        return self.trajectories.longest

    @property
    def batches(self):
        """Batches that a pass over all episodes takes, the last of which may begin the next pass."""
        return -(-len(self.trajectories) // self.num_envs)


@contextlib.contextmanager
def opened(dataset, num_envs, episodes):
    """A `World` of what `fit` was given for a dataset."""
    if num_envs is not None:
        raise ValueError(
            f"`num_envs` must be left out, since stored episodes are learned from. Received: num_envs={num_envs}. "
            "How many at once is `episodes` of the agent."
        )
    trajectories = dataset if isinstance(dataset, Trajectories) else Trajectories(dataset)
    stored = Stored(trajectories, episodes)
    yield World(stored, False, trajectories.observation_space, trajectories.action_space)


def refuse_stored(env, agent):
    """Refuses a dataset in the place of an environment."""
    if isinstance(env, Trajectories) or type(env).__name__ == "MinariDataset":
        raise TypeError(
            f"`env` must be an environment, since {type(agent).__name__} learns from what it does itself. "
            f"Received: env={env!r}. Methods for stored trajectories are ImportanceSampling and BehaviorCloning."
        )


class Reader:
    """Batches of stored episodes, as a `Collector` gives rollouts; and the `Noise` that says which is next.

    Args:
        trajectories: `Trajectories`.
        networks: The `ActorCritic`.
        log_probs: Whether those of who acted are needed.
        count: Episodes of a batch.
        seed: The agent's.

    Attributes:
        iteration: Number of the iteration that `collect` is for, so that a resumed fit reads what it would have.
        steps_taken: Stored steps of the last batch.
    """

    def __init__(self, trajectories, networks, log_probs, count, seed):
        self._trajectories, self._networks, self._log_probs = trajectories, networks, log_probs
        self._count, self._seed = count, seed
        self._orders = {}
        self.statistics = EpisodeStatistics(count)
        self.iteration = self.steps_taken = 0

    def collect(self):
        """The next batch, a `Rollout` of NumPy arrays with an episode in each column."""
        places = self.iteration * self._count + np.arange(self._count)
        passes, within = np.divmod(places, len(self._trajectories))
        numbers = [self._order(number)[place] for number, place in zip(passes, within, strict=True)]
        rollout = self._trajectories.rollout(numbers, self._networks, self._log_probs)
        self.steps_taken = int(rollout.valid.sum())
        returns = np.where(rollout.valid, rollout.rewards, 0.0).sum(0, dtype=np.float64)
        self.statistics.finished.extend(zip(returns.tolist(), rollout.valid.sum(0).tolist(), strict=True))
        return rollout

    def _order(self, number):
        """The order of the episodes in a pass."""
        if number not in self._orders:
            rng = np.random.default_rng([self._seed, int(number)])
            kept = {n: order for n, order in self._orders.items() if n == number - 1}
            self._orders = {**kept, number: rng.permutation(len(self._trajectories))}
        return self._orders[number]
