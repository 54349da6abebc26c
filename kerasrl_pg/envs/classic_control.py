"""gymnasium's classic control problems as compiled environments."""

import dataclasses
import math

import gymnasium as gym
import numpy as np
import tensorflow as tf

from kerasrl_pg.envs.compiled import CompiledEnv, Transition


def _symmetric_box(high):
    high = np.array(high, np.float32)
    return gym.spaces.Box(-high, high)


@dataclasses.dataclass(frozen=True)
class CartPole(CompiledEnv):
    """A pole balanced on a cart: gymnasium's `CartPole-v1`.

    Args:
        num_envs: N.
        max_episode_steps: 500, as registered in gymnasium.

    Source: Barto, Sutton and Anderson 1983; gymnasium, `envs/classic_control/cartpole.py`.
    """

    max_episode_steps: int | None = 500

    # Beyond its ends an episode is over, and gymnasium doubles them for the space.
    observation_space = _symmetric_box([4.8, np.inf, 24 * math.pi / 180, np.inf])
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
        theta_acceleration = (gravity * sin - cos * temporary) / (half_length * (4.0 / 3.0 - mass_pole * cos**2 / mass))
        x_acceleration = temporary - mass_pole * half_length * theta_acceleration * cos / mass
        x, x_dot = x + tau * x_dot, x_dot + tau * x_acceleration
        theta, theta_dot = theta + tau * theta_dot, theta_dot + tau * theta_acceleration
        terminated = (tf.abs(x) > 2.4) | (tf.abs(theta) > 12 * math.pi / 180)
        return Transition(tf.stack([x, x_dot, theta, theta_dot], -1), tf.ones_like(x), terminated)

    def state_of(self, env):
        return np.asarray(env.state, np.float32)


@dataclasses.dataclass(frozen=True)
class Acrobot(CompiledEnv):
    """Two links hanging from a hinge, to be swung up by a torque between them: gymnasium's `Acrobot-v1`.

    Args:
        num_envs: N.
        max_episode_steps: 500, as registered in gymnasium.

    Source: Sutton and Barto 1998, "Reinforcement Learning", section 11.3, which completes the equations of Sutton
    1996 ("Generalization in reinforcement learning"); gymnasium, `envs/classic_control/acrobot.py`.
    """

    max_episode_steps: int | None = 500

    observation_space = _symmetric_box([1.0, 1.0, 1.0, 1.0, 4 * math.pi, 9 * math.pi])
    action_space = gym.spaces.Discrete(3)
    reset_noise = 4

    def reset(self, noise):
        return 0.2 * noise - 0.1

    def observe(self, state):
        theta, velocity = state[:, :2], state[:, 2:]
        # Cosine and sine of the first angle, then of the second.
        circle = tf.stack([tf.cos(theta), tf.sin(theta)], -1)
        return tf.concat([tf.reshape(circle, [-1, 4]), velocity], -1)

    def step(self, state, actions, noise):
        torque, tau = tf.cast(actions, tf.float32) - 1.0, 0.2
        # Runge and Kutta's method of fourth order.
        k1 = self._derivative(state, torque)
        k2 = self._derivative(state + tau / 2 * k1, torque)
        k3 = self._derivative(state + tau / 2 * k2, torque)
        k4 = self._derivative(state + tau * k3, torque)
        state += tau / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        theta = state[:, :2] - 2 * math.pi * tf.round(state[:, :2] / (2 * math.pi))
        fastest = tf.constant([4 * math.pi, 9 * math.pi])
        velocity = tf.clip_by_value(state[:, 2:], -fastest, fastest)
        height = -tf.cos(theta[:, 0]) - tf.cos(theta[:, 0] + theta[:, 1])
        terminated = height > 1.0
        return Transition(tf.concat([theta, velocity], -1), tf.where(terminated, 0.0, -1.0), terminated)

    def _derivative(self, state, torque):
        """d state / dt, for links of mass, length and moment of inertia 1, with their masses in the middle."""
        gravity = 9.8
        theta1, theta2, velocity1, velocity2 = tf.unstack(state, axis=-1)
        cos, sin = tf.cos(theta2), tf.sin(theta2)
        d1, d2 = 3.5 + cos, 1.25 + 0.5 * cos
        phi2 = 0.5 * gravity * tf.sin(theta1 + theta2)
        phi1 = 1.5 * gravity * tf.sin(theta1) - (0.5 * velocity2 + velocity1) * velocity2 * sin + phi2
        acceleration2 = (torque + d2 / d1 * phi1 - 0.5 * velocity1**2 * sin - phi2) / (1.25 - d2**2 / d1)
        acceleration1 = -(d2 * acceleration2 + phi1) / d1
        return tf.stack([velocity1, velocity2, acceleration1, acceleration2], -1)

    def state_of(self, env):
        return np.asarray(env.state, np.float32)


@dataclasses.dataclass(frozen=True)
class Pendulum(CompiledEnv):
    """A pendulum to be swung up and held with little torque: gymnasium's `Pendulum-v1`.

    Args:
        num_envs: N.
        max_episode_steps: 200, as registered in gymnasium.

    Source: gymnasium, `envs/classic_control/pendulum.py`.
    """

    max_episode_steps: int | None = 200

    observation_space = _symmetric_box([1.0, 1.0, 8.0])
    action_space = gym.spaces.Box(-2.0, 2.0, (1,))
    reset_noise = 2

    def reset(self, noise):
        return (2.0 * noise - 1.0) * tf.constant([math.pi, 1.0])

    def observe(self, state):
        theta, velocity = state[:, 0], state[:, 1]
        return tf.stack([tf.cos(theta), tf.sin(theta), velocity], -1)

    def step(self, state, actions, noise):
        gravity, tau = 10.0, 0.05
        theta, velocity = state[:, 0], state[:, 1]
        torque = tf.clip_by_value(actions[:, 0], -2.0, 2.0)
        from_upright = theta - 2 * math.pi * tf.round(theta / (2 * math.pi))
        rewards = -(from_upright**2 + 0.1 * velocity**2 + 0.001 * torque**2)
        velocity += tau * (1.5 * gravity * tf.sin(theta) + 3.0 * torque)
        velocity = tf.clip_by_value(velocity, -8.0, 8.0)
        theta += tau * velocity
        return Transition(tf.stack([theta, velocity], -1), rewards, tf.zeros_like(theta, tf.bool))

    def state_of(self, env):
        return np.asarray(env.state, np.float32)


@dataclasses.dataclass(frozen=True)
class MountainCar(CompiledEnv):
    """A car too weak for the hill before it, which must swing to get up: gymnasium's `MountainCar-v0`.

    Args:
        num_envs: N.
        max_episode_steps: 200, as registered in gymnasium.

    Source: Moore 1990, "Efficient memory-based learning for robot control"; gymnasium,
    `envs/classic_control/mountain_car.py`.
    """

    max_episode_steps: int | None = 200

    observation_space = gym.spaces.Box(np.float32([-1.2, -0.07]), np.float32([0.6, 0.07]))
    action_space = gym.spaces.Discrete(3)
    reset_noise = 1

    def reset(self, noise):
        return tf.concat([0.2 * noise - 0.6, tf.zeros_like(noise)], -1)

    def observe(self, state):
        return state

    def step(self, state, actions, noise):
        position, velocity = drive(state, 0.001 * (tf.cast(actions, tf.float32) - 1.0))
        terminated = (position >= 0.5) & (velocity >= 0.0)
        return Transition(tf.stack([position, velocity], -1), -tf.ones_like(position), terminated)

    def state_of(self, env):
        return np.asarray(env.state, np.float32)


@dataclasses.dataclass(frozen=True)
class MountainCarContinuous(MountainCar):
    """The same car with a throttle, which costs: gymnasium's `MountainCarContinuous-v0`.

    Args:
        num_envs: N.
        max_episode_steps: 999, as registered in gymnasium.

    Source: gymnasium, `envs/classic_control/continuous_mountain_car.py`.
    """

    max_episode_steps: int | None = 999

    action_space = gym.spaces.Box(-1.0, 1.0, (1,))

    def step(self, state, actions, noise):
        throttle = actions[:, 0]
        position, velocity = drive(state, 0.0015 * tf.clip_by_value(throttle, -1.0, 1.0))
        terminated = (position >= 0.45) & (velocity >= 0.0)
        # As in gymnasium, the throttle costs what was asked for, not what was given.
        rewards = tf.where(terminated, 100.0, 0.0) - 0.1 * throttle**2
        return Transition(tf.stack([position, velocity], -1), rewards, terminated)


def drive(state, force):
    """The mountain car's position and velocity after a step.

    Args:
        state: float32 [N, 2], position and velocity.
        force: float32 [N], added to the velocity.

    Returns:
        `(position, velocity)`, float32 [N]; the wall at the left end stops the car.
    """
    position, velocity = state[:, 0], state[:, 1]
    velocity = tf.clip_by_value(velocity + force - 0.0025 * tf.cos(3.0 * position), -0.07, 0.07)
    position = tf.clip_by_value(position + velocity, -1.2, 0.6)
    return position, tf.where((position <= -1.2) & (velocity < 0.0), 0.0, velocity)
