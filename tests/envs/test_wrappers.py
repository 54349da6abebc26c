"""The wrappers against gymnasium's own or naive ones, and in one another."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg.envs import (
    Breakout,
    CartPole,
    Catch,
    CompiledEnv,
    MountainCar,
    Pendulum,
    Transition,
    check_equal,
    mask_observations,
    repeat_actions,
    time_limit,
)


class Repeat(gym.Wrapper):
    """A naive frame skip."""

    def __init__(self, env, times):
        super().__init__(env)
        self.times = times

    def step(self, action):
        total = 0.0
        for _ in range(self.times):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += reward
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info


def test_time_limit():
    assert time_limit(CartPole(num_envs=3), 20) == CartPole(num_envs=3, max_episode_steps=20)
    assert time_limit(CartPole(), None).max_episode_steps is None
    env = time_limit(CartPole(), 20)
    check_equal(env, lambda: gym.wrappers.TimeLimit(gym.make("CartPole-v1"), 20), steps=100, resets=100)


def test_masked_observations_are_those_kept():
    env = mask_observations(Pendulum(num_envs=2), keep=(2, 0))
    space = gym.spaces.Box(np.float32([-8, -1]), np.float32([8, 1]))
    assert env.observation_space == space

    def make():
        return gym.wrappers.TransformObservation(gym.make("Pendulum-v1"), lambda o: o[[2, 0]], space)

    assert check_equal(env, make, steps=300, resets=300).truncated == 1


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("base, name", [(CartPole, "CartPole-v1"), (Pendulum, "Pendulum-v1")])
def test_repeated_actions_are_a_frame_skip(base, name, times):
    env = repeat_actions(base(), times)

    def make():
        inner = gym.make(name).env  # under its time limit
        return gym.wrappers.TimeLimit(Repeat(inner, times), -(-base().max_episode_steps // times))

    report = check_equal(env, make, steps=300, resets=200)
    assert report.episodes >= 1


def test_an_episode_over_takes_no_further_steps():
    @dataclasses.dataclass(frozen=True)
    class Count(CompiledEnv):
        """Pays its count; terminates at 3, truncates itself at 5."""

        num_envs: int = 1
        max_episode_steps: int | None = None

        def step(self, state, actions, noise):
            state = state + 1 + tf.cast(noise[:, 0] > 0.5, tf.int32)
            return Transition(state, tf.cast(state, tf.float32), state == 3, state == 5)

        step_noise = 1

    env = repeat_actions(Count(num_envs=5), 4)
    assert env.step_noise == 4
    noise = tf.constant([[0.0] * 4] * 4 + [[0, 0, 0.9, 0]])
    state, rewards, terminated, truncated = env.step(tf.constant([0, 1, 3, 10, 10]), tf.zeros(5), noise)
    assert state.numpy().tolist() == [3, 3, 5, 14, 15]
    assert rewards.numpy().tolist() == [6, 5, 9, 50, 11 + 12 + 14 + 15]
    assert terminated.numpy().tolist() == [True, True, False, False, False]
    assert truncated.numpy().tolist() == [False, False, True, False, False]


def test_the_limit_of_repeated_actions():
    assert repeat_actions(MountainCar(), 1).max_episode_steps == 200
    assert repeat_actions(MountainCar(), 3).max_episode_steps == 67
    assert repeat_actions(Catch(), 3).max_episode_steps is None


def test_noise_is_that_of_all_steps():
    assert repeat_actions(Breakout(), 3).step_noise == 3
    assert repeat_actions(CartPole(), 3).step_noise == 0
    assert repeat_actions(CartPole(), 3).reset_noise == mask_observations(CartPole(), [0]).reset_noise == 4


def test_wrappers_nest_and_compare_by_what_they_are():
    def make(num_envs=4, keep=(0, 2)):
        return time_limit(mask_observations(repeat_actions(CartPole(num_envs=num_envs), 2), keep), 9)

    assert make() == make()
    assert hash(make()) == hash(make())
    assert make(keep=[np.int64(0), 2]) == make()
    assert make() != make(keep=(0, 1)) != make(num_envs=5, keep=(0, 1))
    assert dataclasses.replace(make(), num_envs=5) == make(num_envs=5)
    assert time_limit(repeat_actions(time_limit(CartPole(), 3), 2), 9) == time_limit(repeat_actions(CartPole(), 2), 9)
    assert isinstance(make(), CompiledEnv)
    assert make().max_episode_steps == 9
    assert make().num_envs == 4
    other_order = repeat_actions(mask_observations(CartPole(num_envs=4), (0, 2)), 2)
    noise, actions = tf.fill((4, 4), 0.7), tf.constant([0, 1, 1, 0])
    states = [env.step(env.reset(noise), actions, noise).state for env in (make(), other_order)]
    np.testing.assert_array_equal(make().observe(states[0]), other_order.observe(states[1]))


@pytest.mark.parametrize(
    "wrap, sentence",
    [
        (lambda: time_limit(CartPole(), 0), "`steps` must be a whole number of at least 1. Received: steps=0"),
        (lambda: time_limit(CartPole(), 2.5), r"`steps` must be .* Received: steps=2\.5"),
        (lambda: repeat_actions(CartPole(), 0), "`times` must be a whole number of at least 1. Received: times=0"),
        (lambda: repeat_actions(CartPole(), True), "`times` must be .* Received: times=True"),
        (lambda: mask_observations(CartPole(), []), "`keep` must name components from 0 to 3 .* Received: keep="),
        (lambda: mask_observations(CartPole(), [4]), r"`keep` .* of CartPole.*, at least one. Received: keep=\(4,\)"),
        (lambda: mask_observations(CartPole(), [-1]), "`keep` must name components"),
        (lambda: mask_observations(CartPole(), [0.0]), "`keep` must name components"),
        (lambda: mask_observations(Catch(), [0]), r"`env` must have a Box of one dimension .* Received: Box\(.*Catch"),
    ],
)
def test_wrong_settings_are_refused(wrap, sentence):
    with pytest.raises(ValueError, match=sentence):
        wrap()


@pytest.mark.parametrize(
    "wrap",
    [lambda env: time_limit(env, 3), lambda env: mask_observations(env, [0]), lambda env: repeat_actions(env, 2)],
)
def test_other_environments_are_refused(wrap):
    with pytest.raises(TypeError, match=r"`env` must be a CompiledEnv, .* Received: env=<.*use gymnasium's wrappers"):
        wrap(gym.make("CartPole-v1"))
