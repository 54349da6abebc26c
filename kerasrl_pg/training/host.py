"""Training on environments that run in Python: they are stepped here, and the update alone is compiled."""

import numpy as np
import tensorflow as tf

from kerasrl_pg.compilation_cache import first_call
from kerasrl_pg.rollouts.packing import Packing
from kerasrl_pg.training.iteration import largest_reward


class HostTraining:
    """Iterations on environments in Python.

    Args:
        collector: The `Collector`.
        noise: The `Noise` that it draws from.
        iteration: The `Iteration`.
        program: Function `(key, make)` giving a compiled program of the agent, as `Programs.get`.
        annealing: `Budget.annealing()`.
    """

    def __init__(self, collector, noise, iteration, program, annealing):
        self._collector = collector
        self._noise = noise
        self._iteration = iteration
        self._program = program
        self._annealing = annealing
        self._update = self._packing = None

    @property
    def key(self):
        """What its programs' keys begin with."""
        return ("update",)

    def begin(self, iterations):
        """Gets ready, with the agent as it is at the first iteration, its `iterations`-th."""
        self._noise.iteration = iterations

    def run(self, count):
        """Runs `count` iterations; returns the sums of their logs, and `Counters.numbers`, as Python numbers."""
        sums = {}
        for _ in range(count):
            rollout = self._collector.collect()
            values, numbers = self.train_on(rollout, self._collector.steps_taken)
            self._noise.iteration = numbers[0]
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value
        return sums, numbers

    def train_on(self, rollout, steps_taken):
        """One update; returns its logs, and `Counters.numbers`, as Python numbers.

        Args:
            rollout: A `Rollout` of NumPy arrays.
            steps_taken: Its environment steps.

        Raises:
            NotFinite: If it was undone.
        """
        if self._packing is None:
            self._packing = Packing(rollout)
            self._function, self._names = self._program((*self.key, self._packing.key), self._make)
        steps = np.array([steps_taken, *self._annealing])
        arguments = tuple(tf.constant(buffer) for buffer in (steps, *self._packing.pack(rollout)))
        if self._update is None:
            # Concrete, because choosing a function by its arguments costs as much as a small update.
            concrete = getattr(self._function, "get_concrete_function", lambda *_: self._function)
            self._update, (values, numbers) = first_call(concrete(*arguments), *arguments)
        else:
            values, numbers = self._update(*arguments)
        *numbers, bad = numbers.numpy().tolist()
        if bad:
            raise self._iteration.not_finite(bad, self._names, largest_reward(rollout))
        return dict(zip(self._names, values.numpy().tolist(), strict=True)), numbers

    def _make(self):
        """The update as a function of packed rollouts giving two vectors, for each hand-over of a scalar to Python
        costs as much as a small network; and the logs' names, known once it has run."""
        iteration, packing, names = self._iteration, self._packing, []

        def one(steps, *buffers):
            def attempt():
                logs = iteration.learn(packing.unpack(buffers), steps[0], steps[1:])
                names[:] = logs
                return tf.stack(list(logs.values())), logs.values()

            values, bad = iteration.undone_unless_finite(attempt)
            return values, tf.concat([iteration.counters.numbers(), [tf.cast(bad, tf.int64)]], 0)

        return one, names

    def episodes(self):
        """`episode_return` and `episode_length`, means over the last finished episodes."""
        return self._collector.statistics.means()


class Noise:
    """The random numbers of a rollout's actions on environments in Python, by the number of its iteration.

    Numbered rather than drawn one after the other, so that those of many short rollouts are made in one call, and a
    resumed run still meets the same.

    Args:
        make: Function from a shape to a program from a seed int32[2] to noise of that shape and an action's.
        seed: The agent's.
        horizon: T.
        num_envs: N.

    Attributes:
        iteration: Number of the iteration that a call is for.
    """

    rows = 256  # Rows made in one call: ours, since a call costs what 256 rows of eight environments cost.

    def __init__(self, make, seed, horizon, num_envs):
        self._rollouts = max(1, self.rows // horizon)
        self._horizon = horizon
        self._seed = seed
        self._draw = make((self._rollouts * horizon, num_envs))
        self._block = None
        self.iteration = 0

    def __call__(self):
        """Noise [T, N, ...] of an iteration."""
        block, place = divmod(self.iteration, self._rollouts)
        if block != self._block:
            # Below zero, where the agent's own counter never is.
            self._values = self._draw(tf.constant([self._seed, -1 - block])).numpy()
            self._block = block
        return self._values[place * self._horizon : (place + 1) * self._horizon]
