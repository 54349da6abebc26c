"""One fit on environments that run in Python: collect a rollout, call the compiled update, keep the logs."""

import time

import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.models.normalization import normalizers
from kerasrl_pg.rollouts.collect import Collector


def compiled_update(agent, jit_compile):
    """An iteration's TensorFlow part as one function of a rollout.

    Args:
        agent: The agent; its `train_step` is the method.
        jit_compile: Whether XLA compiles it; ignored where the agent runs eagerly.

    Returns:
        `(update, names)`: `update(rollout, steps_taken)` gives the logs as one vector, because each hand-over of a
        scalar to Python costs as much as a small network, and the agent's iterations and environment steps; `names` is
        filled with the logs' names when it is first called.
    """
    names = []

    def update(rollout, steps_taken):
        logs = agent.train_step(rollout)
        # After the update, so that the rollout's log-probabilities stay those of the policy that collected it.
        update_normalizers(agent, rollout)
        agent.iterations.assign_add(1)
        agent.env_steps.assign_add(steps_taken)
        names[:] = logs
        logs = tf.stack([tf.cast(value, tf.float32) for value in logs.values()])
        return logs, tf.stack([agent.iterations.value, agent.env_steps.value])

    if not agent.run_eagerly:
        update = tf.function(update, autograph=False, jit_compile=jit_compile)
    return update, names


def update_normalizers(agent, rollout):
    """Merges a rollout's observations into every `RunningNormalization` of policy and critic."""
    valid = tf.reshape(rollout.valid, [-1])
    observations = ops.flatten_time(rollout.observations)
    models = [model for model in (agent.policy, agent.critic) if model is not None]
    for layer in {id(layer): layer for model in models for layer in normalizers(model)}.values():
        layer.update(observations if layer.key is None else observations[layer.key], valid)


class Training:
    """The state of one `fit`: the environments, the collector, and the epoch's running means.

    Args:
        agent: A built and compiled agent.
        vector_env: The environments.
        horizon: T.
        seed: Of the environments; None takes one from the agent's random state.
    """

    def __init__(self, agent, vector_env, horizon, seed):
        if seed is None:
            seed = int(tf.bitwise.right_shift(ops.random.bits(agent.next_seed(), ()), 1))
        self._agent = agent
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
        self._update = None
        self._iterations = None
        self.steps_taken = 0
        self.start_epoch()

    def start_epoch(self):
        """Starts the means and the clock anew."""
        self._sums, self._count, self._epoch_steps = {}, 0, 0
        self._started = time.perf_counter()

    def iterate(self, update, names):
        """Collects a rollout, updates the agent, and returns the logs so far in this epoch."""
        collector = self._collector
        if (
            self._iterations is None
        ):  # Not earlier, because a callback may have restored a checkpoint when training began.
            self._iterations = int(self._agent.iterations)
        rollout = tf.nest.map_structure(tf.constant, collector.collect())
        self.steps_taken = collector.steps_taken
        arguments = rollout, tf.constant(self.steps_taken, tf.int64)
        if self._update is None:
            # Concrete, because choosing a function by its arguments costs as much as a small update.
            self._update = update if self._agent.run_eagerly else update.get_concrete_function(*arguments)
        values, counters = self._update(*arguments)
        values = values.numpy().tolist()
        self._iterations, env_steps = counters.numpy().tolist()
        self._count += 1
        self._epoch_steps += self.steps_taken
        logs = {}
        for name, value in zip(names, values, strict=True):
            self._sums[name] = self._sums.get(name, 0.0) + value
            logs[name] = self._sums[name] / self._count
        logs.update(collector.statistics.means())
        logs["env_steps"] = env_steps
        logs["steps_per_second"] = self._epoch_steps / (time.perf_counter() - self._started)
        return logs


class Noise:
    """The random numbers of a rollout's actions, by the number of its iteration.

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
        shape = (self._rollouts * horizon, num_envs)
        # Graph and not XLA, in every mode of the agent, whose rounding would differ.
        self._draw = tf.function(lambda seed: agent.head.noise(seed, shape), autograph=False)
        self._block = None

    def __call__(self, iteration):
        """Noise [T, N, ...] of an iteration."""
        block, place = divmod(iteration, self._rollouts)
        if block != self._block:
            # Below zero, where the agent's own counter never is.
            self._values = self._draw(tf.constant([self._seed, -1 - block])).numpy()
            self._block = block
        return self._values[place * self._horizon : (place + 1) * self._horizon]
