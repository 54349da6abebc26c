"""Iterations of a fit: collect a rollout, update the agent, keep the logs. Once for each kind of environment."""

import contextlib
import time
import warnings

import numpy as np
import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.agents.undo import NotFinite, undo_unless_finite
from kerasrl_pg.callbacks import Compiling
from kerasrl_pg.compilation_cache import first_call
from kerasrl_pg.envs.compiled import check_contract
from kerasrl_pg.models.normalization import normalizer_inputs, normalizers
from kerasrl_pg.rollouts import compiled
from kerasrl_pg.rollouts.collect import Collector, check_finite
from kerasrl_pg.rollouts.rollout import Packing


def update(agent, rollout, steps_taken, annealing):
    """Everything an iteration does to the agent's weights.

    Args:
        agent: The agent; its `train_step` is the method.
        rollout: A `Rollout` of tensors.
        steps_taken: int64, environment steps of the rollout.
        annealing: int64[2], from `Budget.annealing`.

    Returns:
        The method's logs; with `anneal_learning_rate` also `learning_rate`, the rate of this update.
    """
    with annealed(agent, annealing) as rate:
        logs = agent.train_step(rollout)
    # After the update, so that the rollout's log-probabilities stay those of the policy that collected it.
    update_normalizers(agent, rollout)
    agent.iterations.assign_add(1)
    agent.env_steps.assign_add(steps_taken)
    agent.progress.assign_add(tf.stack([1, steps_taken]))
    return {name: tf.cast(value, tf.float32) for name, value in {**logs, **rate}.items()}


@contextlib.contextmanager
def annealed(agent, annealing):
    """While an update runs, learning rates are multiplied by what falls linearly from 1 to 0 over a fit.

    Gives the first one as a log, `{"learning_rate": rate}`, or nothing.

    Source: Engstrom et al. 2020 (arXiv 2005.12729), A.1, "Adam learning rate annealing".
    """
    optimizers = agent._optimizers() if agent.anneal_learning_rate else []
    rates = [tf.identity(optimizer.learning_rate.value) for optimizer in optimizers]
    if rates:
        done = tf.cast(tf.gather(agent.progress.value, annealing[1]), tf.float64)
        fraction = tf.maximum(tf.zeros((), tf.float64), 1.0 - done / tf.cast(annealing[0], tf.float64))
    for optimizer, rate in zip(optimizers, rates, strict=True):
        optimizer.learning_rate.assign(tf.cast(tf.cast(rate, tf.float64) * fraction, rate.dtype))
    yield {"learning_rate": tf.identity(optimizers[0].learning_rate.value)} if optimizers else {}
    for optimizer, rate in zip(optimizers, rates, strict=True):
        optimizer.learning_rate.assign(rate)


def update_normalizers(agent, rollout):
    """Merges what a rollout's observations give every `RunningNormalization` of policy and critic into it."""
    valid = tf.reshape(rollout.valid, [-1])
    observations = ops.flatten_time(rollout.observations)
    models = agent.policy, agent.critic
    if agent.shared_model is not None and agent.critic is not None:
        models = (agent.shared_model,)  # Or what stands in both would learn twice.
    models = [model for model in models if model is not None and normalizers(model)]
    # All inputs first, because an update moves the input of a normaliser behind it.
    for layer, inputs in [pair for model in models for pair in normalizer_inputs(model, observations)]:
        layer.update(inputs, valid)


def counters(agent):
    """int64[4]: iterations, environment steps, and those of the present fit."""
    return tf.concat([[agent.iterations.value, agent.env_steps.value], agent.progress.value], 0)


class Training:
    """The state of one `fit`; base of what trains on either kind of environment.

    Args:
        agent: A built and compiled agent.
        budget: The fit's `Budget`.
        show: Whether to say that something is being compiled.

    Attributes:
        progress: `[iterations, environment steps]` of the present fit so far.
        ends_at_nan: Whether a callback, Keras's `TerminateOnNaN`, ends the fit where a loss is NaN, so that an update
            that had to be undone is no error but a NaN among the logs.
    """

    ends_at_nan = False

    def __init__(self, agent, budget, show):
        self.agent = agent
        self.progress = None
        self._budget = budget
        self._show = show
        self.start_epoch()

    def start_epoch(self):
        """Starts the means and the clock anew."""
        self._sums, self._count, self._epoch_steps = {}, 0, 0
        self._started = time.perf_counter()

    def iterate(self):
        """Runs one execution of iterations, and returns the logs so far in this epoch."""
        agent, count = self.agent, self._budget.iterations()
        first = self.progress is None
        if first:  # Not earlier: another callback may restore a checkpoint when training begins.
            self.progress = agent.progress.numpy().tolist()
            self.begin(int(agent.iterations))
        with Compiling(type(agent).__name__, self._show and first and not self.is_compiled()):
            try:
                sums, (_, env_steps, *progress) = self.run(count)
            except NotFinite as error:
                if not self.ends_at_nan:
                    raise
                warnings.warn(str(error), stacklevel=2)
                return {"loss": float("nan"), **self.episodes(), "env_steps": int(agent.env_steps)}
            except (StopIteration, tf.errors.OutOfRangeError) as error:
                # Keras would take it for the end of the data.
                raise RuntimeError(f"Training failed at environment step {self.progress[1]}: {error!r}.") from error
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += count
        self._epoch_steps += progress[1] - self.progress[1]
        self.progress = progress
        logs = {name: total / self._count for name, total in self._sums.items()}
        logs.update(self.episodes())
        logs["env_steps"] = env_steps
        logs["steps_per_second"] = self._epoch_steps / (time.perf_counter() - self._started)
        return logs

    def is_compiled(self):
        """Whether the agent has run this program before."""
        raise NotImplementedError

    def begin(self, iterations):
        """Gets ready, with the agent as it is at the first iteration, its `iterations`-th."""
        raise NotImplementedError

    def run(self, count):
        """Runs `count` iterations; returns the sums of their logs, and `counters`, as Python numbers."""
        raise NotImplementedError

    def episodes(self):
        """`episode_return` and `episode_length`, means over the last finished episodes."""
        raise NotImplementedError

    def _called(self, variable):
        """A variable's name, and whose it is."""
        models = {"policy": self.agent.policy, "critic": self.agent.critic}
        owners = [n for n, model in models.items() if model and any(v.value is variable for v in model.variables)]
        return f"`{variable.name.removesuffix(':0')}`{''.join(f' of the {owner}' for owner in owners[:1])}"

    def _undone(self, bad, names, rollout):
        """The error of an update that was undone because of its `bad`-th tensor; `rollout` is what it learned from."""
        agent = self.agent
        floats = [v for v in agent.state_variables(rollout.rewards.shape[1]) if v.dtype.is_floating]
        before = next((variable for variable in floats if not ops.all_finite(variable)), None)
        if before is not None:  # What was there before the update is there again.
            return NotFinite(
                f"{self._called(before)} must be finite. Received: a weight that was NaN or infinite before this "
                "update. Load good weights, or make a new agent."
            )
        what = f"`{names[bad - 1]}`" if bad <= len(names) else self._called(floats[bad - 1 - len(names)])
        rewards = float(tf.reduce_max(tf.abs(tf.where(rollout.valid, rollout.rewards, 0.0))))
        return NotFinite(
            f"{what} must be finite after an update. Received: NaN or infinity in iteration "
            f"{int(agent.iterations) + 1}, whose largest |reward| is {rewards:g}. The update was undone: the agent "
            "keeps the weights of its last finished update. Lower the learning rate, clip gradients "
            "(global_clipnorm), or scale rewards and observations."
        )


class HostTraining(Training):
    """Training on environments that run in Python: they are stepped here, and the update alone is compiled.

    Args:
        agent, budget, show: Of `Training`.
        vector_env: The environments.
        horizon: T.
        seed: Of the environments; None takes one from the agent's random state.
    """

    def __init__(self, agent, budget, show, vector_env, horizon, seed):
        super().__init__(agent, budget, show)
        if seed is None:
            seed = int(tf.bitwise.right_shift(ops.random.bits(agent.next_seed(), ()), 1))
        if agent.reward_scaling is not None:
            agent.reward_carry(vector_env.num_envs).assign(tf.zeros(vector_env.num_envs))
        self._num_envs = vector_env.num_envs
        self._annealing = budget.annealing()
        self._noise = Noise(agent, horizon, vector_env.num_envs)
        self._collector = Collector(
            vector_env,
            agent.observation_spec,
            agent.head,
            agent.actor(vector_env.num_envs, deterministic=False),
            lambda: self._noise(self._iterations),
            horizon,
            agent.episodes_per_env,
            seed,
        )
        self._packing = self._update = None

    def is_compiled(self):
        return any(key[0] == "update" for key in self.agent.programs)

    def begin(self, iterations):
        self._iterations = iterations

    def run(self, count):
        sums = {}
        for _ in range(count):
            rollout = self._collector.collect()
            if self._packing is None:
                self._packing = Packing(rollout)
                self._program, self._names = self.agent.program(("update", self._packing.key), self._make_update)
            steps = np.array([self._collector.steps_taken, *self._annealing])
            arguments = tuple(tf.constant(buffer) for buffer in (steps, *self._packing.pack(rollout)))
            if self._update is None:
                # Concrete, because choosing a function by its arguments costs as much as a small update.
                program = self._program
                self._update = program if self.agent.run_eagerly else program.get_concrete_function(*arguments)
                self._update, (values, numbers) = first_call(self._update, *arguments)
            else:
                values, numbers = self._update(*arguments)
            *numbers, bad = numbers.numpy().tolist()
            if bad:
                raise self._undone(bad, self._names, rollout)
            self._iterations = numbers[0]
            for name, value in zip(self._names, values.numpy().tolist(), strict=True):
                sums[name] = sums.get(name, 0.0) + value
        return sums, numbers

    def _make_update(self):
        """The update as a function of packed rollouts giving two vectors, for each hand-over of a scalar to Python
        costs as much as a small network; and the logs' names, known once it has run."""
        agent, packing, names = self.agent, self._packing, []
        variables = agent.state_variables(self._num_envs)

        def one(steps, *buffers):
            def attempt():
                logs = update(agent, packing.unpack(buffers), steps[0], steps[1:])
                names[:] = logs
                return tf.stack(list(logs.values())), logs.values()

            values, bad = undo_unless_finite(attempt, variables)
            return values, tf.concat([counters(agent), [tf.cast(bad, tf.int64)]], 0)

        return one, names

    def episodes(self):
        return self._collector.statistics.means()


class CompiledTraining(Training):
    """Training on a compiled environment: collection and update are one program, and any number of iterations a call.

    Args:
        agent, budget, show: Of `Training`.
        env: A `CompiledEnv`.
        horizon: T.
        seed: Of the first episodes; None goes on where the agent's last fit on an equal environment ended, if there
            was one, and else takes one from the agent's random state.
    """

    most_logs = 64  # A loop's variables have shapes before the names of the logs are known; ours.

    def __init__(self, agent, budget, show, env, horizon, seed):
        super().__init__(agent, budget, show)
        self._env = env
        self._horizon = horizon
        check_contract(env)
        self._key = env, horizon
        self._seed = seed
        self._annealing = tf.constant(budget.annealing(), tf.int64)

    def is_compiled(self):
        return self._key in self.agent.programs

    def begin(self, iterations):
        agent, env = self.agent, self._env
        carry = None if agent.reward_scaling is None else agent.reward_carry(env.num_envs)
        self._players = agent.players_of(env) if self._seed is None else None
        if self._players is None:
            seed = agent.next_seed() if self._seed is None else tf.constant([self._seed, 0])
            self._players = compiled.start(env, seed)
            if carry is not None:
                carry.assign(tf.zeros(env.num_envs))
        self._program = None

    def run(self, count):
        program, names = self.agent.program(self._key, self._make_program)
        arguments = self._players, tf.constant(count), self._annealing
        if self._program is None:
            self._program = program if self.agent.run_eagerly else program.get_concrete_function(*arguments)
            self._program, results = first_call(self._program, *arguments)
        else:
            results = self._program(*arguments)
        self._players, sums, numbers, bad = results
        self.agent.keep_players(self._env, self._players)
        if bad.numpy():
            self._explain(int(bad), names)
        return dict(zip(names, sums.numpy().tolist(), strict=False)), numbers.numpy().tolist()

    def episodes(self):
        return compiled.means(self._players)

    def _make_program(self):
        agent, names = self.agent, []
        variables = agent.state_variables(self._env.num_envs)

        def iterate(players, annealing):
            def attempt():
                rollout, after, rows = self._collect(players)
                logs = update(agent, rollout, tf.cast(rows * self._env.num_envs, tf.int64), annealing)
                names[:] = logs
                values = tf.pad(tf.stack(list(logs.values())), [[0, self.most_logs - len(logs)]])
                return (after, values), [compiled.magnitudes(rollout), *logs.values()]

            (after, values), bad = undo_unless_finite(attempt, variables)
            return tf.nest.map_structure(lambda new, old: tf.where(bad == 0, new, old), after, players), values, bad

        def program(players, count, annealing):
            def body(done, players, sums, _):
                players, values, bad = iterate(players, annealing)
                return done + 1, players, sums + values, bad

            start = tf.constant(0), players, tf.zeros(self.most_logs), tf.constant(0)
            _, players, sums, bad = tf.while_loop(lambda i, *rest: (i < count) & (rest[-1] == 0), body, start)
            return players, sums, counters(agent), bad

        return program, names

    def _explain(self, bad, names):
        """Raises the error of the iteration that the program has just undone, by collecting its rollout once more."""
        collect = tf.function(self._collect, autograph=False, jit_compile=self.agent._compiled_with_xla)
        rollout, _, _ = collect(self._players)
        check_finite(tf.nest.map_structure(lambda x: x.numpy(), rollout), self.agent.observation_spec)
        if bad > 1:
            raise self._undone(bad - 1, names, rollout)
        raise ValueError("A rollout must be finite. Received: one that is not. Repair the environment.")

    def _collect(self, players):
        agent = self.agent
        seed, number = agent.random_state.value[0], tf.cast(agent.iterations.value, tf.int32)
        # Below zero, where the agent's own counter never is; numbered, as `Noise` is.
        seeds = [tf.stack([seed, -1 - 3 * number - stream]) for stream in range(3)]
        return compiled.collect(
            self._env, agent.policy, agent.head, players, seeds, self._horizon, agent.episodes_per_env
        )


class Noise:
    """The random numbers of a rollout's actions on environments in Python, by the number of its iteration.

    Numbered rather than drawn one after the other, so that those of many short rollouts are made in one call, and a
    resumed run still meets the same.

    Args:
        agent: The agent.
        horizon: T.
        num_envs: N.
    """

    rows = 256  # Rows made in one call: ours, since a call costs what 256 rows of eight environments cost.

    def __init__(self, agent, horizon, num_envs):
        self._rollouts = max(1, self.rows // horizon)
        self._horizon = horizon
        self._seed = agent.seed
        self._draw = agent.noise_program((self._rollouts * horizon, num_envs))
        self._block = None

    def __call__(self, iteration):
        """Noise [T, N, ...] of an iteration."""
        block, place = divmod(iteration, self._rollouts)
        if block != self._block:
            # Below zero, where the agent's own counter never is.
            self._values = self._draw(tf.constant([self._seed, -1 - block])).numpy()
            self._block = block
        return self._values[place * self._horizon : (place + 1) * self._horizon]
