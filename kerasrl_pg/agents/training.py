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
        scalar to Python costs as much as a small network; `names` is filled with their names when it is first called.
    """
    names = []

    def update(rollout, steps_taken):
        logs = agent.train_step(rollout)
        # After the update, so that the rollout's log-probabilities stay those of the policy that collected it.
        update_normalizers(agent, rollout)
        agent.iterations.assign_add(1)
        agent.env_steps.assign_add(steps_taken)
        names[:] = logs
        return tf.stack([tf.cast(value, tf.float32) for value in logs.values()])

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
        n, head = vector_env.num_envs, agent.head

        def draw():
            return head.noise(agent.next_seed(), (horizon, n))

        # Concrete functions, here and in `iterate`, because choosing one by its arguments costs as much as a small update.
        draw = draw if agent.run_eagerly else tf.function(draw, autograph=False).get_concrete_function()
        if seed is None:
            seed = int(tf.bitwise.right_shift(ops.random.bits(agent.next_seed(), ()), 1))
        self._agent = agent
        self._collector = Collector(
            vector_env,
            agent.observation_spec,
            head,
            agent.actor(n, deterministic=False),
            lambda: draw().numpy(),
            horizon,
            agent.episodes_per_env,
            seed,
        )
        self._update = None
        self.steps_taken = 0
        self.start_epoch()

    def start_epoch(self):
        """Starts the means and the clock anew."""
        self._sums, self._count, self._epoch_steps = {}, 0, 0
        self._started = time.perf_counter()

    def iterate(self, update, names):
        """Collects a rollout, updates the agent, and returns the logs so far in this epoch."""
        collector = self._collector
        rollout = tf.nest.map_structure(tf.constant, collector.collect())
        self.steps_taken = collector.steps_taken
        arguments = rollout, tf.constant(self.steps_taken, tf.int64)
        if self._update is None:
            self._update = update if self._agent.run_eagerly else update.get_concrete_function(*arguments)
        values = self._update(*arguments).numpy().tolist()
        self._count += 1
        self._epoch_steps += self.steps_taken
        logs = {}
        for name, value in zip(names, values, strict=True):
            self._sums[name] = self._sums.get(name, 0.0) + value
            logs[name] = self._sums[name] / self._count
        logs.update(collector.statistics.means())
        logs["env_steps"] = int(self._agent.env_steps.value.numpy())
        logs["steps_per_second"] = self._epoch_steps / (time.perf_counter() - self._started)
        return logs
