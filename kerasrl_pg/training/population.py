"""Training without gradients: an iteration plays a population, and moves the weights by its returns."""

import tensorflow as tf

from kerasrl_pg.compilation_cache import first_call
from kerasrl_pg.rollouts.compiled import WINDOW, latest
from kerasrl_pg.rollouts.population import check_fault
from kerasrl_pg.training.logs import MOST_LOGS, pack_logs


class PopulationTraining:
    """Iterations of a method without gradients.

    On a compiled environment, any number of them is one program, unless the method runs in Python. Else the method runs
    eagerly, which costs little beside the playing, and the playing is compiled as far as it can be.

    Args:
        play: `CompiledPlay` or `HostPlay`.
        members: The `Members`.
        iteration: The `Iteration`.
        program: Function `(key, make)` giving a compiled program of the agent, as `Programs.get`.
        compiled: Whether `play` is a TensorFlow function.
        whole: Whether the method is one, too.
        seed: None for the agent's own, or that of the environments and samples.
        annealing: `Budget.annealing()`.
    """

    def __init__(self, play, members, iteration, program, compiled, whole, seed, annealing):
        self._play, self._members, self._iteration, self._program = play, members, iteration, program
        self._compiled, self._whole, self._seed = compiled, compiled and whole, seed
        self._annealing = tf.constant(annealing, tf.int64)
        self._window = tf.zeros((WINDOW, 2)), tf.constant(0)
        self._function = None

    @property
    def key(self):
        """What its programs' keys begin with."""
        return ("population", self._play.env, self._play.horizon) if self._compiled else ("act",)

    def begin(self, iterations):
        """Gets ready, with the agent as it is at the first iteration."""

    def run(self, count):
        """Runs `count` iterations; returns the sums of their logs, and `Counters.numbers`, as Python numbers."""
        if not self._whole:
            return self._run_in_python(count)
        function, names = self._program(self.key, self._make)
        arguments = self._window, tf.constant(count), self._own_seed(), self._annealing
        if self._function is None:
            concrete = getattr(function, "get_concrete_function", lambda *_: function)
            self._function, results = first_call(concrete(*arguments), *arguments)
        else:
            results = self._function(*arguments)
        self._window, sums, facts, bad = results
        self._check(int(bad), names, *facts)
        return dict(
            zip(names, sums.numpy().tolist(), strict=False)
        ), self._iteration.counters.numbers().numpy().tolist()

    def episodes(self):
        """`episode_return` and `episode_length`, means over the last finished episodes."""
        finished, count = self._window
        if int(count) == 0:
            return {"episode_return": float("nan"), "episode_length": float("nan")}
        returns, lengths = finished.numpy()[: int(count)].mean(0, dtype="float64").tolist()
        return {"episode_return": returns, "episode_length": lengths}

    def _own_seed(self):
        return self._iteration.counters.random_state.value[0] if self._seed is None else tf.constant(self._seed)

    def _make(self):
        iteration, names = self._iteration, []

        def iterate(window, seed, annealing):
            def attempt():
                logs, played = iteration.search(
                    lambda weights: self._play(weights, seed, iteration.counters.iterations.value),
                    self._members,
                    annealing,
                )
                after = latest(played.episode_returns, played.lengths, *window)
                facts = played.fault, played.largest
                return (after, pack_logs(logs, names), facts), [*_witnesses(played), *logs.values()]

            (after, values, facts), bad = iteration.undone_unless_finite(attempt)
            after = tf.nest.map_structure(lambda new, old: tf.where(bad == 0, new, old), after, window)
            return after, values, facts, bad

        def program(window, count, seed, annealing):
            def body(done, window, sums, _, __):
                window, values, facts, bad = iterate(window, seed, annealing)
                return done + 1, window, sums + values, facts, bad

            nothing = tf.zeros(3, tf.int32), tf.zeros(())
            start = tf.constant(0), window, tf.zeros(MOST_LOGS), nothing, tf.constant(0)
            _, window, sums, facts, bad = tf.while_loop(lambda i, *rest: (i < count) & (rest[-1] == 0), body, start)
            return window, sums, facts, bad

        return program, names

    def _run_in_python(self, count):
        sums, iteration = {}, self._iteration
        for _ in range(count):
            logs, played, bad = self._once()
            self._check(int(bad), list(logs), played.fault, played.largest)
            self._window = latest(played.episode_returns, played.lengths, *self._window)
            for name, value in logs.items():
                sums[name] = sums.get(name, 0.0) + float(value)
        return sums, iteration.counters.numbers().numpy().tolist()

    def _once(self):
        """One iteration, in Python; its logs, `Played`, and what was not finite."""
        iteration, seed = self._iteration, self._own_seed()

        def play(weights):
            number = iteration.counters.iterations.value
            if not self._compiled:
                return self._play(weights, seed, number)
            played = self._program(self.key, lambda: (self._play, []))[0](weights, seed, number)
            check_fault(played.fault)  # Before the method in Python sees them.
            return played

        def attempt():
            logs, played = iteration.search(play, self._members, self._annealing)
            return (logs, played), [*_witnesses(played), *logs.values()]

        before = [(variable, tf.identity(variable)) for variable in iteration.variables]
        try:
            (logs, played), bad = iteration.undone_unless_finite(attempt)
        except Exception:  # Of an environment, say, when noise was drawn for its population already.
            for variable, value in before:
                variable.assign(value)
            raise
        return logs, played, bad

    def _check(self, bad, names, fault, largest):
        """Raises the error of an iteration that was undone because of its `bad`-th tensor; none where that is 0."""
        if bad:
            check_fault(fault)
            raise self._iteration.not_finite(bad, ["fault", "returns", *names], largest)


def _witnesses(played):
    """What must be finite: NaN where there was a fault, and the returns."""
    return [tf.where(played.fault[2] > 0, float("nan"), 0.0), played.returns]
