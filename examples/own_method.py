"""A method of your own is a loss of samples: python examples/own_method.py [steps]

Here the policy gradient with the advantage's sign alone, which no paper recommends.
"""

import sys

import keras
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg import ops


@keras.saving.register_keras_serializable("examples")
class SignOfAdvantage(pg.Agent):
    """Ascends mean[ log π(a|s) sign(A) ], and fits the critic beside it."""

    def __init__(self, policy=None, critic=None, *, horizon=16, estimator=None, **kwargs):
        super().__init__(policy, critic, horizon=horizon, estimator=estimator or pg.estimators.GAE(), **kwargs)

    def loss(self, samples):
        distribution, value = self.forward(samples.inputs)
        log_probs = distribution.log_prob(samples.actions)
        objective = ops.score_function_objective(log_probs, tf.sign(samples.advantages))
        critic_loss = ops.masked_mean(self.critic_head.loss(value, samples.returns), samples.valid)
        return critic_loss - ops.masked_mean(objective, samples.valid), {"critic_loss": critic_loss}


agent = SignOfAdvantage(seed=0)
agent.compile(keras.optimizers.Adam(1e-3))
agent.fit("CartPole-v1", total_steps=int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, num_envs=8)
print(agent.evaluate("CartPole-v1", episodes=20))
