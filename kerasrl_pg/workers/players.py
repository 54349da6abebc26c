"""A worker's environments, played as the agent's own would be."""

import dataclasses

import numpy as np
import tensorflow as tf

from kerasrl_pg.envs.compiled import CompiledEnv
from kerasrl_pg.envs.vector import close, make_vector_env
from kerasrl_pg.rollouts import compiled
from kerasrl_pg.rollouts.collect import Collector, EpisodeStatistics, check_finite, check_masks
from kerasrl_pg.training.host import Noise
from kerasrl_pg.workers.worker import Part


def make_player(agent, plan, place):
    """`HostPlayer` or `CompiledPlayer`, of a worker's `Plan` and `Place`."""
    # A worker that takes another's place meets other episodes: the same might end it in the same way.
    seed = plan.seed if not place.attempt else drawn(plan.seed, place.index, place.attempt)
    kind = CompiledPlayer if isinstance(plan.env, CompiledEnv) else HostPlayer
    return kind(agent, plan, place, seed)


def drawn(*numbers):
    """A seed drawn from others, in [0, 2³¹)."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1)


class HostPlayer:
    """Environments in Python.

    Args:
        agent: The worker's copy.
        plan, place: Of the worker.
        seed: Of the environments, that of the first among all.

    Attributes:
        masked: Whether they give action masks.
    """

    def __init__(self, agent, plan, place, seed):
        self._env, _ = make_vector_env(plan.env, None if plan.vectors else place.count)
        self._first = place.first
        self._noise = Columns(Noise(agent.noise_program, agent.seed, plan.horizon, plan.num_envs), place)
        networks = agent.actor_critic
        self._collector = Collector(
            self._env,
            networks.spec,
            networks.head,
            self._actor_for(agent, place.count),
            self._noise,
            plan.horizon,
            agent.episodes_per_env,
            seed + place.first,
            networks.mask_key,
        )
        self._collector.statistics = Dated(place.count, place.first)

    def _actor_for(self, agent, count):
        choose = agent._actor_for(count, deterministic=False, learning=True)

        def chosen(masked):
            self.masked = masked
            return choose(masked)

        return chosen

    def collect(self, number):
        """A `Part`, with the noise of the rollout of this number."""
        self._noise.iteration = number
        self._collector.statistics.begin()
        rollout = self._collector.collect()
        return Part(rollout, self._collector.steps_taken, self._collector.statistics.dated)

    def close(self):
        """Closes the environments."""
        close(self._env)


class Columns:
    """Some columns of the noise of all environments, so that what an environment meets does not depend on how many
    workers there are."""

    def __init__(self, noise, place):
        self._noise, self._columns = noise, slice(place.first, place.first + place.count)
        self.iteration = 0

    def __call__(self):
        self._noise.iteration = self.iteration
        return self._noise()[:, self._columns]


class Dated(EpisodeStatistics):
    """Episode statistics that tell when each episode ended.

    Args:
        num_envs: n.
        first: Number of the first environment among all.

    Attributes:
        dated: Episodes finished since `begin`: (row, number of the environment, return, length).
    """

    def __init__(self, num_envs, first):
        super().__init__(num_envs)
        self._first = first
        self.begin()

    def begin(self):
        """Forgets what has been told."""
        self.dated, self._row = [], 0

    def add(self, rewards, ended, valid=None):
        self.finished.clear()
        super().add(rewards, ended, valid)
        ended = ended if valid is None else ended & valid
        for index, (episode_return, length) in zip(ended.nonzero()[0].tolist(), self.finished, strict=True):
            self.dated.append((self._row, self._first + index, episode_return, length))
        self._row += 1


class CompiledPlayer:
    """A compiled environment; arguments of `HostPlayer`."""

    def __init__(self, agent, plan, place, seed):
        self._env = dataclasses.replace(plan.env, num_envs=place.count)
        self._networks, self._horizon, self._episodes = agent.actor_critic, plan.horizon, agent.episodes_per_env
        networks = agent.actor_critic
        self.masked = networks.mask_key is not None or compiled.gives_masks(self._env, networks.head)
        agent._note_masks(self.masked)
        # Where compiled environments stand alone, two of them with one seed are alike.
        self._seed = drawn(seed, place.index)
        self._players = compiled.start(self._env, tf.constant([self._seed, 0]), networks.memory_size)
        self._program, _ = agent.program(("collect", self._env, plan.horizon), lambda: (self._collect, []))
        self._statistics = Dated(place.count, place.first)

    def _collect(self, players, number):
        seeds = [tf.stack([self._seed, -1 - 3 * number - stream]) for stream in range(3)]
        return compiled.collect(self._env, self._networks, players, seeds, self._horizon, self._episodes)

    def collect(self, number):
        """A `Part`, with the noise of the rollout of this number."""
        rollout, self._players, rows = self._program(self._players, tf.constant(number, tf.int32))
        rollout = tf.nest.map_structure(lambda x: x.numpy(), rollout)
        check_masks(rollout, self._networks.head)
        check_finite(rollout, self._networks.spec)
        self._statistics.begin()
        if self._episodes:
            self._statistics.reset()
        ended = rollout.terminated | rollout.truncated
        for row in range(int(rows)):
            self._statistics.add(rollout.rewards[row].astype(np.float64), ended[row], rollout.valid[row])
        return Part(rollout, int(rows) * self._env.num_envs, self._statistics.dated)

    def close(self):
        """Nothing is open."""
