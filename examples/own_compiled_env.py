"""Your own environment as three TensorFlow functions: python examples/own_compiled_env.py [steps]

A probe falls towards the ground; its engine should bring it down slowly, without wasting fuel. Environment, policy and
update are one compiled program.
"""

import dataclasses
import sys

import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf

import kerasrl_pg as pg


@dataclasses.dataclass(frozen=True)
class Lander(pg.envs.CompiledEnv):
    """Observes height (m) and speed (m/s, upwards); action 1 fires the engine, at twice the gravity of 1 m/s²."""

    num_envs: int = 64
    max_episode_steps: int | None = 200
    fuel_price: float = 0.02

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gym.spaces.Discrete(2)
    reset_noise = 1  # One uniform number makes a first state.

    def reset(self, noise):
        return tf.concat([5.0 + 5.0 * noise, tf.zeros_like(noise)], -1)

    def observe(self, state):
        return state

    def step(self, state, actions, noise):
        height, speed = tf.unstack(state, axis=-1)
        engine = tf.cast(actions, tf.float32)
        speed += 0.1 * (2.0 * engine - 1.0)
        height += 0.1 * speed
        landed = height <= 0.0
        rewards = tf.where(landed, -(speed**2), 0.0) - self.fuel_price * engine
        return pg.envs.Transition(tf.stack([height, speed], -1), rewards, landed)


env = Lander()
agent = pg.PPO(horizon=64, minibatch_size=512, seed=0)
agent.compile(keras.optimizers.Adam(1e-3, epsilon=1e-5, global_clipnorm=0.5))
agent.fit(env, total_steps=int(sys.argv[1]) if len(sys.argv) > 1 else 500_000, epochs=10)
print(agent.evaluate(env, episodes=100))  # A free fall's return is about -15.
