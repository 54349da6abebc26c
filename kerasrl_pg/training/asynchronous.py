"""Training by a master and workers that send it gradients, each in its own time."""

import functools
import math

import numpy as np
import tensorflow as tf

from kerasrl_pg.compilation_cache import first_call
from kerasrl_pg.workers.gradients import merge
from kerasrl_pg.workers.together import CrewStatistics
from kerasrl_pg.workers.weights import WeightsGiver


class AsynchronousTraining:
    """Iterations of a master: an iteration is a gradient's arrival, and the step along it.

    Args:
        crew: The `Crew`.
        iteration: The `Iteration`, whose `train_step` is the agent's `master_step`.
        moves: The agent's `moves()`, by which gradients are told apart.
        statistics: Its layers that keep running moments, from `statistics_of`.
        variables: Its Keras variables, which workers fetch.
        num_envs: N, of all workers together.
        max_staleness: None, or the most.
        program: Function `(key, make)` giving a compiled program of the agent, as `Programs.get`.
        annealing: `Budget.annealing()`.
    """

    key = ("arrival",)  # What its programs' keys begin with.

    def __init__(self, crew, iteration, moves, statistics, variables, num_envs, max_staleness, program, annealing):
        self._crew, self._iteration, self._statistics = crew, iteration, statistics
        self._shapes = {part: [tuple(v.shape) for v in mine] for part, (_, mine) in moves.items()}
        self._most = math.inf if max_staleness is None else max_staleness
        self._program, self._annealing = program, annealing
        self._weights = WeightsGiver(variables)
        self._update = None
        self._fetched = {}  # By worker, the iteration whose weights it has.
        self._dropped = 0
        self._episodes = CrewStatistics(crew, num_envs)

    def begin(self, iterations):
        """Gets ready, with the agent as it is at the first iteration, its `iterations`-th."""
        self._number = self._now = iterations
        self._send()

    def run(self, count):
        """Runs `count` iterations, or fewer where gradients are dropped; returns the sums of their logs, and
        `Counters.numbers`, as Python numbers."""
        sums = {}
        for _ in range(count):
            index, gradient = self._arrival()
            staleness = self._now - self._fetched[index]
            self._episodes.told([gradient.part])
            if staleness > self._most:
                self._dropped += 1
                self._iteration.counters.waste(gradient.part.steps_taken)
                continue
            values = {**gradient.logs, **self._step(gradient), "staleness": staleness}
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value
        return sums, self._iteration.counters.numbers().numpy().tolist()

    def _arrival(self):
        """`(worker, Gradient)`, waited for while all play."""
        while True:
            self._send()
            if not self._crew.busy:
                self._crew.wait_for_one()
            for index, gradient in self._crew.answers(some=True).items():
                return index, gradient

    def _send(self):
        """Lets all who wait fetch the present weights, and play with them."""
        waiting = self._crew.there
        if not waiting:
            return
        weights = self._crew.put(self._weights())
        for index in waiting:
            self._fetched[index] = self._now
            self._crew.ask(index, "gradient", weights, self._number % 2**31)
            self._number += 1

    def _step(self, gradient):
        """One step along a gradient; the logs of what followed a schedule."""
        function, names = self._program(self.key, self._make)
        steps = np.array([gradient.part.steps_taken, *self._annealing])
        logs = np.array(list(gradient.logs.values()), np.float32)
        arguments = [tf.constant(x) for x in (gradient.values, logs, gradient.moments, steps)]
        if self._update is None:
            concrete = getattr(function, "get_concrete_function", lambda *_: function)
            self._update, (values, numbers) = first_call(concrete(*arguments), *arguments)
        else:
            values, numbers = self._update(*arguments)
        self._now, bad = numbers.numpy().tolist()
        if bad:
            raise self._iteration.not_finite(bad, [*gradient.logs, "gradient"], gradient.largest)
        return dict(zip(names, values.numpy().tolist(), strict=True))

    def _make(self):
        iteration, names = self._iteration, []

        def one(values, logs, moments, steps):
            def attempt():
                merged = functools.partial(merge, self._statistics, moments)
                followed = iteration.receive(self._split(values), merged, steps[0], steps[1:])
                names[:] = followed
                return tf.stack([*followed.values(), tf.zeros(())])[:-1], [*tf.unstack(logs), values]

            followed, bad = iteration.undone_unless_finite(attempt)
            return followed, tf.stack([iteration.counters.iterations.value, tf.cast(bad, tf.int64)])

        return one, names

    def _split(self, values):
        """The gradients that a flat one holds, by part."""
        shapes = [shape for mine in self._shapes.values() for shape in mine]
        pieces = iter(tf.split(values, [int(np.prod(shape)) for shape in shapes]))
        return {part: [tf.reshape(next(pieces), s) for s in mine] for part, mine in self._shapes.items()}

    def episodes(self):
        """`episode_return` and `episode_length`, means over the last finished episodes; `workers`, `replaced`, and
        `dropped` gradients, of the fit so far."""
        return {**self._episodes.means(), "dropped": self._dropped}
