"""Advantage-weighted regression (Peng et al. 2019, arXiv 1910.00177): python examples/advantage_weighted.py [steps]"""

import sys

import keras
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg import ops


@keras.saving.register_keras_serializable("examples")
class AdvantageWeighted(pg.PPO):
    """Ascends mean[ log π(a|s) min(exp(A / β), 20) ] in PPO's passes; A standardised, so that β has no unit."""

    def __init__(self, policy=None, critic=None, *, temperature=0.5, **kwargs):
        super().__init__(policy, critic, **kwargs)
        self.temperature = temperature

    def loss(self, samples):
        distribution, value_distribution = self.forward(samples.inputs)
        advantages = ops.standardize(samples.advantages, samples.valid)
        weights = tf.minimum(tf.exp(advantages / self.temperature), 20.0)
        likelihood = ops.masked_mean(weights * distribution.log_prob(samples.actions), samples.valid)
        critic_loss = ops.masked_mean(self.critic_loss(value_distribution, samples), samples.valid)
        entropy = ops.masked_mean(distribution.entropy(), samples.valid)
        loss = self.value_coef * critic_loss - likelihood
        return loss, {"policy_loss": -likelihood, "critic_loss": critic_loss, "entropy": entropy}


agent = AdvantageWeighted(horizon=64, minibatch_size=64, update_epochs=4, seed=0)
agent.compile(keras.optimizers.Adam(1e-3, epsilon=1e-5, global_clipnorm=0.5))
agent.fit("CartPole-v1", total_steps=int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, num_envs=8)
print(agent.evaluate("CartPole-v1", episodes=20))
