"""Training on a compiled environment: collection and update are one program, and any number of iterations a call."""

import tensorflow as tf

from kerasrl_pg.compilation_cache import first_call
from kerasrl_pg.rollouts import compiled
from kerasrl_pg.rollouts.collect import check_finite, check_masks
from kerasrl_pg.training.iteration import largest_reward
from kerasrl_pg.training.logs import MOST_LOGS, pack_logs


class CompiledTraining:
    """Iterations on a compiled environment.

    Args:
        env: A `CompiledEnv`.
        horizon: T.
        episodes: None, or how many whole episodes each environment plays in a rollout.
        iteration: The `Iteration`.
        program: Function `(key, make)` giving a compiled program of the agent, as `Programs.get`.
        players: Function without arguments giving the `Players` to begin with.
        keep: Function that is given the `Players` after each execution.
        annealing: `Budget.annealing()`.
    """

    def __init__(self, env, horizon, episodes, iteration, program, players, keep, annealing):
        self._env = env
        self._horizon = horizon
        self._episodes = episodes
        self._iteration = iteration
        self._program = program
        self._first_players = players
        self._keep = keep
        self._annealing = tf.constant(annealing, tf.int64)

    @property
    def key(self):
        """What its programs' keys begin with."""
        return ("iterations", self._env, self._horizon)

    def begin(self, iterations):
        """Gets ready, with the agent as it is at the first iteration."""
        self._players = self._first_players()
        self._run = None

    def run(self, count):
        """Runs `count` iterations; returns the sums of their logs, and `Counters.numbers`, as Python numbers."""
        function, names = self._program(self.key, self._make)
        arguments = self._players, tf.constant(count), self._annealing
        if self._run is None:
            concrete = getattr(function, "get_concrete_function", lambda *_: function)
            self._run, results = first_call(concrete(*arguments), *arguments)
        else:
            results = self._run(*arguments)
        self._players, sums, numbers, bad = results
        self._keep(self._players)
        if bad.numpy():
            self._explain(int(bad), names)
        return dict(zip(names, sums.numpy().tolist(), strict=False)), numbers.numpy().tolist()

    def episodes(self):
        """`episode_return` and `episode_length`, means over the last finished episodes."""
        return compiled.means(self._players)

    def _make(self):
        iteration, names, num_envs = self._iteration, [], self._env.num_envs

        def iterate(players, annealing):
            def attempt():
                rollout, after, rows = self._collect(players)
                logs = iteration.learn(rollout, tf.cast(rows * num_envs, tf.int64), annealing)
                return (after, pack_logs(logs, names)), [compiled.magnitudes(rollout), *logs.values()]

            (after, values), bad = iteration.undone_unless_finite(attempt)
            return tf.nest.map_structure(lambda new, old: tf.where(bad == 0, new, old), after, players), values, bad

        def program(players, count, annealing):
            def body(done, players, sums, _):
                players, values, bad = iterate(players, annealing)
                return done + 1, players, sums + values, bad

            start = tf.constant(0), players, tf.zeros(MOST_LOGS), tf.constant(0)
            _, players, sums, bad = tf.while_loop(lambda i, *rest: (i < count) & (rest[-1] == 0), body, start)
            return players, sums, iteration.counters.numbers(), bad

        return program, names

    def _explain(self, bad, names):
        """Raises the error of the iteration that the program has just undone, by collecting its rollout once more."""
        collect, _ = self._program(("collect", self._env, self._horizon), lambda: (self._collect, []))
        rollout, _, _ = collect(self._players)
        rollout = tf.nest.map_structure(lambda x: x.numpy(), rollout)
        check_masks(rollout, self._iteration.networks.head)
        check_finite(rollout, self._iteration.networks.spec)
        if bad > 1:
            raise self._iteration.not_finite(bad - 1, names, largest_reward(rollout))
        raise ValueError("A rollout must be finite. Received: one that is not. Repair the environment.")

    def _collect(self, players):
        networks, counters = self._iteration.networks, self._iteration.counters
        seed, number = counters.random_state.value[0], tf.cast(counters.iterations.value, tf.int32)
        # Below zero, where the agent's own counter never is; numbered, as the noise of environments in Python is.
        seeds = [tf.stack([seed, -1 - 3 * number - stream]) for stream in range(3)]
        return compiled.collect(self._env, networks, players, seeds, self._horizon, self._episodes)


def resumed(env, episodes, carry, memory_size, seed, next_seed):
    """Where a fit on a compiled environment begins.

    Args:
        env: A `CompiledEnv`.
        episodes: The agent's `Episodes`, which may hold where the last fit on this environment ended.
        carry: The variable [N] of the running discounted returns, or None; zeroed where all begins anew.
        memory_size: Numbers that are remembered of each environment.
        seed: None to go on, or with a seed drawn by `next_seed()`; else the seed of new episodes.
    """
    kept = episodes.of(env, carry, memory_size) if seed is None else None
    if kept is not None:
        return kept
    if carry is not None:
        carry.assign(tf.zeros(env.num_envs))
    return compiled.start(env, next_seed() if seed is None else tf.constant([seed, 0]), memory_size)
