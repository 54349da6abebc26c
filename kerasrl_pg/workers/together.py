"""Rollouts that workers collect side by side, each its own columns, with the same weights."""

import numpy as np
import tensorflow as tf

from kerasrl_pg.rollouts.collect import EpisodeStatistics
from kerasrl_pg.workers.weights import WeightsGiver


class CrewStatistics(EpisodeStatistics):
    """Episode statistics of what workers play, and how many of these there are.

    Args:
        crew: The `Crew`.
        num_envs: N.
    """

    def __init__(self, crew, num_envs):
        super().__init__(num_envs)
        self._crew = crew

    def told(self, parts):
        """Adds the episodes that ended with a worker's `Part`s of one rollout."""
        finished = sorted(episode for part in parts for episode in part.finished)
        self.finished.extend(episode[2:] for episode in finished)

    def means(self):
        """The means, `workers` (that have begun and not failed) and `replaced` (of the fit so far)."""
        return {**super().means(), "workers": self._crew.alive, "replaced": self._crew.replaced}


class Together:
    """Collects `Rollout`s from a crew, as a `Collector` does from environments of its own; and the `Noise` that says
    which is next.

    Args:
        crew: The `Crew`.
        variables: The agent's Keras variables, which workers play with.
        num_envs: N.

    Attributes:
        iteration: Number of the iteration that `collect` is for.
        steps_taken: Environment steps of the last rollout.
        statistics: `CrewStatistics`.
    """

    def __init__(self, crew, variables, num_envs):
        self._crew, self._num_envs = crew, num_envs
        self._weights = WeightsGiver(variables)
        self.statistics = CrewStatistics(crew, num_envs)
        self.iteration = self.steps_taken = 0

    def collect(self):
        """Lets all workers play one rollout with the agent's present weights, and joins what they give.

        The columns of a worker that failed, and of one that is still beginning in its place, are not valid.

        Returns:
            A `Rollout` of NumPy arrays.
        """
        parts = {}
        while not parts:
            self._crew.wait_for_one()
            weights = self._crew.put(self._weights())
            for index in self._crew.there:
                self._crew.ask(index, "collect", weights, self.iteration)
            parts = self._crew.answers()
        self.steps_taken = sum(part.steps_taken for part in parts.values())
        self.statistics.told(parts.values())
        return self._joined({index: part.rollout for index, part in parts.items()})

    def _joined(self, rollouts):
        posts = self._crew.posts
        if len(rollouts) == len(posts):
            return tf.nest.map_structure(lambda *x: np.concatenate(x, 1), *(rollouts[i] for i in range(len(posts))))
        first = next(iter(rollouts.values()))
        whole = tf.nest.map_structure(lambda x: np.zeros((len(x), self._num_envs, *x.shape[2:]), x.dtype), first)
        masks = whole.inputs.masks
        if not isinstance(masks, tuple):
            masks[...] = True  # Nothing happens there, and a distribution over nothing would be none.
        for index, rollout in rollouts.items():
            columns = slice(posts[index].first, posts[index].first + posts[index].count)
            tf.nest.map_structure(lambda to, x: to.__setitem__((slice(None), columns), x), whole, rollout)  # noqa: B023
        return whole
