"""What an asynchronous worker learns from a rollout, and how it reaches the master."""

import numpy as np
import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.models.normalization import noted_moments, statistics
from kerasrl_pg.rollouts.packing import Packing
from kerasrl_pg.workers.worker import Gradient


def statistics_of(agent):
    """The layers of an agent that keep running moments, in one order everywhere."""
    scaling = [] if agent.reward_scaling is None else [agent.reward_scaling]
    layers = [layer for model in agent.actor_critic.models for layer in statistics(model)]
    return scaling + list({id(layer): layer for layer in layers}.values())


class WorkerLearner:
    """From a worker's `Part` to its `Gradient`, in one compiled program.

    Args:
        agent: The worker's copy, whose `worker_step` it runs.
    """

    def __init__(self, agent):
        self._agent = agent
        self._statistics = statistics_of(agent)
        self._packing = None

    def __call__(self, part):
        rollout = part.rollout
        if self._packing is None:
            self._packing = Packing(rollout)
            self._program, self._names = self._agent.program(("gradient", self._packing.key), self._make)
        values, logs, moments = self._program(*map(tf.constant, self._packing.pack(rollout)))
        return Gradient(
            values.numpy(),
            dict(zip(self._names, logs.numpy().tolist(), strict=True)),
            moments.numpy(),
            part._replace(rollout=None),
            float(np.abs(np.where(rollout.valid, rollout.rewards, 0.0)).max()),
        )

    def _make(self):
        names = []

        def program(*buffers):
            rollout = self._packing.unpack(buffers)
            with noted_moments() as noted:
                self._agent.learn_rewards(rollout)
                gradients, logs = self._agent.worker_step(rollout)
                self._agent.actor_critic.update_normalizers(
                    ops.flatten_time(rollout.inputs), tf.reshape(rollout.valid, [-1])
                )
            names[:] = logs
            flat = [tf.reshape(g, [-1]) for part in gradients.values() for g in part]
            return tf.concat(flat, 0), tf.stack([tf.cast(x, tf.float32) for x in logs.values()]), self._moments(noted)

        return program, names

    def _moments(self, noted):
        """What each of the statistics has to learn, one after the other; several calls of one layer as one."""
        flat = [tf.zeros(0, tf.float64)]
        for layer in self._statistics:
            whole = None
            for _, *moments in (each for each in noted if each[0] is layer):
                moments = [tf.cast(x, tf.float64) for x in moments]
                whole = moments if whole is None else ops.merge_moments(*whole, *moments)
            if whole is None:
                whole = tf.zeros_like(layer.mean.value), tf.zeros_like(layer.mean.value), tf.zeros((), tf.float64)
            flat += [tf.reshape(x, [-1]) for x in whole]
        return tf.concat(flat, 0)


def merge(layers, moments):
    """Merges what a worker's `Gradient` holds into the layers of `statistics_of`.

    Args:
        layers: From `statistics_of` of the master.
        moments: float64 tensor, `Gradient.moments`.
    """
    sizes = [size for layer in layers for size in (*[int(np.prod(layer.mean.shape))] * 2, 1)]
    parts = tf.split(moments, sizes) if sizes else []
    for place, layer in enumerate(layers):
        mean, variance, count = parts[3 * place : 3 * place + 3]
        shape = layer.mean.shape
        layer.merge_moments(tf.reshape(mean, shape), tf.reshape(variance, shape), tf.reshape(count, ()))
