"""gymnasium's classic control problems as compiled environments."""

import dataclasses
import math

import gymnasium as gym
import numpy as np
import tensorflow as tf

from kerasrl_pg.envs.compiled import CompiledEnv, Transition


@dataclasses.dataclass(frozen=True)
class CartPole(CompiledEnv):
    """A pole balanced on a cart: gymnasium's `CartPole-v1`.

    Args:
        num_envs: N.
        max_episode_steps: 500, as registered in gymnasium.

    Source: Barto, Sutton and Anderson 1983; gymnasium, `envs/classic_control/cartpole.py`.
    """

    num_envs: int = 1
    max_episode_steps: int | None = 500

    # Beyond its ends an episode is over, and gymnasium doubles them for the space.
    observation_space = gym.spaces.Box(
        -np.array([4.8, np.inf, 24 * math.pi / 180, np.inf], np.float32),
        np.array([4.8, np.inf, 24 * math.pi / 180, np.inf], np.float32),
    )
    action_space = gym.spaces.Discrete(2)
    reset_noise = 4

    def reset(self, noise):
        return 0.1 * noise - 0.05

    def observe(self, state):
        return state

    def step(self, state, actions, noise):
        gravity, mass_cart, mass_pole, half_length, force, tau = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
        mass = mass_cart + mass_pole
        x, x_dot, theta, theta_dot = tf.unstack(state, axis=-1)
        cos, sin = tf.cos(theta), tf.sin(theta)
        push = tf.where(actions == 1, force, -force)
        temporary = (push + mass_pole * half_length * theta_dot**2 * sin) / mass
        theta_acceleration = (gravity * sin - cos * temporary) / (
            half_length * (4.0 / 3.0 - mass_pole * cos**2 / mass)
        )
        x_acceleration = temporary - mass_pole * half_length * theta_acceleration * cos / mass
        x, x_dot = x + tau * x_dot, x_dot + tau * x_acceleration
        theta, theta_dot = theta + tau * theta_dot, theta_dot + tau * theta_acceleration
        terminated = (tf.abs(x) > 2.4) | (tf.abs(theta) > 12 * math.pi / 180)
        return Transition(tf.stack([x, x_dot, theta, theta_dot], -1), tf.ones_like(x), terminated)

    def state_of(self, env):
        return np.asarray(env.state, np.float32)
