"""The five classic control problems are gymnasium's, also where random actions do not get."""

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import envs
from kerasrl_pg.envs import check_equal

PAIRS = {
    "Acrobot-v1": envs.Acrobot,
    "CartPole-v1": envs.CartPole,
    "MountainCar-v0": envs.MountainCar,
    "MountainCarContinuous-v0": envs.MountainCarContinuous,
    "Pendulum-v1": envs.Pendulum,
}

# Rules of thumb that reach what random actions rarely do.
POLICIES = {
    # Pumps the lower link in the direction it swings, which ends an episode in about 100 steps.
    "Acrobot-v1": lambda observation: 2 if observation[5] > 0 else 0,
    # Balances, by the pole's angle and its velocity, until the time limit.
    "CartPole-v1": lambda observation: int(observation[2] + 0.5 * observation[3] > 0),
    "MountainCar-v0": lambda observation: 2 if observation[1] > 0 else 0,
    # Beyond the bounds of the action, which are clipped for the force but not for the cost.
    "MountainCarContinuous-v0": lambda observation: np.float32([1.7 if observation[1] > 0 else -1.7]),
    "Pendulum-v1": lambda observation: np.float32([3.0 if observation[2] > 0 else -3.0]),
}


@pytest.mark.parametrize("name", PAIRS)
def test_equal_under_random_actions(name):
    report = check_equal(PAIRS[name](), name, steps=2000, resets=1000)
    assert report.steps == 2000
    assert report.observation_difference < 1e-5


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.quick("Acrobot-v1", "CartPole-v1")
def test_equal_where_episodes_succeed(name):
    report = check_equal(PAIRS[name](), name, steps=2000, seed=1, policy=POLICIES[name], resets=100)
    if name in ("CartPole-v1", "Pendulum-v1"):
        assert report.truncated > 0
    else:
        assert report.terminated > 0


@pytest.mark.parametrize("name", PAIRS)
def test_spaces_and_limits_are_those_registered(name):
    env, reference = PAIRS[name](num_envs=3), gym.make(name)
    assert env.max_episode_steps == reference.spec.max_episode_steps
    assert env.observation_space == reference.observation_space
    assert env.action_space == reference.action_space


def test_the_car_stops_at_the_wall():
    env = envs.MountainCar(num_envs=2)
    after = env.step(tf.constant([[-1.19, -0.05], [-1.2, 0.0]]), tf.constant([0, 2]), tf.zeros((2, 0)))
    np.testing.assert_allclose(after.state[0], [-1.2, 0.0], rtol=1e-6)
    assert after.state[1, 1] > 0.0  # and leaves it again


def test_angles_beyond_half_a_turn():
    env = envs.Acrobot(num_envs=1)
    after = env.step(tf.constant([[3.1, -3.1, 5.0, -9.0]]), tf.constant([1]), tf.zeros((1, 0)))
    assert np.all(np.abs(after.state[0, :2]) <= np.float32(np.pi))
    upright = envs.Pendulum(num_envs=2).step(
        tf.constant([[2 * np.pi, 0.0], [-6 * np.pi, 0.0]], tf.float32), tf.zeros((2, 1)), tf.zeros((2, 0))
    )
    np.testing.assert_allclose(upright.rewards, [0.0, 0.0], atol=1e-10)
