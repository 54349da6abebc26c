"""A baseline of your own: linear in features of state and time, for each environment fitted to the others' episodes.

python examples/own_baseline.py [samples]

As Duan et al. 2016 (arXiv 1604.06778), section 6; fitted to the others alone, so that no return is judged by itself and
the gradient stays exact.
"""

import sys

import keras
import numpy as np
import tensorflow as tf

import kerasrl_pg as pg


@keras.saving.register_keras_serializable("examples")
class LinearBaseline(pg.baselines.Baseline):
    least_episodes = 2  # Others must be there to be fitted to.

    def of(self, returns, rollout, networks):
        x = rollout.inputs.observations  # [T, N, k]
        t = tf.cast(pg.ops.steps_in_episode(rollout.ends), tf.float32)[..., None] / 100.0
        features = tf.concat([x, x**2, t, t**2, tf.ones_like(t)], -1)
        features = tf.where(rollout.valid[..., None], features, 0.0)
        grams = tf.einsum("tni,tnj->nij", features, features)
        moments = tf.einsum("tni,tn->ni", features, tf.where(rollout.valid, returns, 0.0))
        others = tf.reduce_sum(grams, 0) - grams + 1e-3 * tf.eye(features.shape[-1])
        weights = tf.linalg.cholesky_solve(tf.linalg.cholesky(others), (tf.reduce_sum(moments, 0) - moments)[..., None])
        return tf.einsum("tni,nij->tn", features, weights)


SAMPLES, STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 200, 200
env = pg.envs.CartPole(num_envs=16)
BASELINES = None, pg.baselines.AverageReturn(), pg.baselines.WeightedAverage(by_step=True), LinearBaseline()
for baseline in BASELINES:
    agent = pg.REINFORCE(baseline=baseline, horizon=STEPS, seed=0)
    agent.compile(keras.optimizers.Adam(3e-3), steps_per_execution=10)
    agent.fit(env, epochs=1, steps_per_epoch=20, verbose=0)
    gradients = pg.lab.measure_gradients(agent, env, samples=SAMPLES)  # Of so many rollouts of 16 episodes.
    scatter = gradients.var(0).sum() / np.sum(gradients.mean(0) ** 2)
    name = type(baseline).__name__ if baseline else "no baseline"
    print(f"{name}: the gradient's variance is {scatter:.3g} times its squared length")
