"""V-trace (Espeholt et al. 2018, arXiv 1802.01561, equation 1) in several passes: python examples/vtrace.py [steps]"""

import sys

import keras
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg import ops


@keras.saving.register_keras_serializable("examples")
class VTrace(pg.A2C):
    """A2C that goes over a rollout four times, each time correcting for how far the policy has moved from who acted."""

    def estimate(self, rollout):
        flat = ops.flatten_time((rollout.inputs, rollout.actions))
        log_probs = tf.reshape(self.forward(flat[0])[0].log_prob(flat[1]), tf.shape(rollout.rewards))
        rho = tf.stop_gradient(tf.minimum(tf.exp(log_probs - rollout.log_probs), 1.0))
        values, next_values = self.values(rollout.inputs), self.values(rollout.next_inputs)
        deltas = ops.td_errors(self.scaled_rewards(rollout), values, next_values, rollout.terminated, self.gamma)
        going = tf.where(rollout.ends, 0.0, 1.0)
        corrections = tf.scan(  # v_t - V(s_t) = ρ_t δ_t + γ c_t (v_{t+1} - V(s_{t+1})), from the end
            lambda after, row: row[0] + self.gamma * row[1] * after,
            (rho * deltas, rho * going), tf.zeros_like(deltas[0]), reverse=True,
        )  # fmt: skip
        later = tf.concat([corrections[1:], tf.zeros_like(corrections[:1])], 0) * going
        advantages = rho * (deltas + self.gamma * later)
        return tf.stop_gradient(advantages), tf.stop_gradient(values + corrections), tf.stop_gradient(values)

    def train_step(self, rollout):
        return [super(VTrace, self).train_step(rollout) for _ in range(4)][-1]


agent = VTrace(horizon=20, seed=0)
agent.compile(keras.optimizers.Adam(1e-3, epsilon=1e-5, global_clipnorm=0.5))
agent.fit("CartPole-v1", total_steps=int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, num_envs=8)
print(agent.evaluate("CartPole-v1", episodes=20))
