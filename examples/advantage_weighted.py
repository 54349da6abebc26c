"""Advantage-weighted regression (Peng et al. 2019, arXiv 1910.00177): python examples/advantage_weighted.py [steps]"""

import sys

import keras
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg import ops


@keras.saving.register_keras_serializable("examples")
class AdvantageWeighted(pg.Agent):
    """Ascends mean[ log π(a|s) min(exp(A / β), 20) ] in passes; A is standardised, so that β has no unit."""

    normalize_advantages = True

    def __init__(self, policy=None, critic=None, *, temperature=0.5, passes_per_rollout=4, **kwargs):
        super().__init__(policy, critic, **{"horizon": 64, "estimator": pg.estimators.GAE(), **kwargs})
        self.temperature, self.passes_per_rollout = temperature, passes_per_rollout

    def loss(self, samples):
        distribution, value = self.forward(samples.inputs)
        weights = tf.minimum(tf.exp(samples.advantages / self.temperature), 20.0)
        likelihood = ops.masked_mean(weights * distribution.log_prob(samples.actions), samples.valid)
        critic_loss = ops.masked_mean(self.critic_head.loss(value, samples.returns), samples.valid)
        return 0.5 * critic_loss - likelihood, {"policy_loss": -likelihood, "critic_loss": critic_loss}

    def train_step(self, rollout):
        return self.passes(self.samples(rollout), self.passes_per_rollout, 64)


agent = AdvantageWeighted(seed=0)
agent.compile(keras.optimizers.Adam(1e-3, epsilon=1e-5, global_clipnorm=0.5))
agent.fit("CartPole-v1", total_steps=int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, num_envs=8)
print(agent.evaluate("CartPole-v1", episodes=20))
