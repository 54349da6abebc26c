import functools

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import kerasrl_pg as pg
from kerasrl_pg.envs import ObservationSpec
from kerasrl_pg.rollouts.evaluate import evaluate_policy, play_episodes


def lengths_of(scripted, *lengths, wrap=lambda env: env, mode=AutoresetMode.DISABLED):
    """An environment whose sub-environments have episodes of these lengths, reward 0.5 a step."""
    env = wrap(SyncVectorEnv([functools.partial(scripted, [0.5] * n) for n in lengths], autoreset_mode=mode))
    return env, ObservationSpec(env.single_observation_space)


def no_noise(chunk):
    return None


@pytest.mark.parametrize(
    "episodes, expected",
    [(1, [2]), (2, [2, 7]), (3, [2, 2, 7]), (4, [2, 2, 7, 7]), (7, [2, 2, 2, 2, 7, 7, 7])],
)
def test_each_environment_has_its_quota(scripted, fixed_actor, episodes, expected):
    env, spec = lengths_of(scripted, 2, 7)
    returns, lengths = play_episodes(env, spec, fixed_actor(2), no_noise, episodes, seed=0)
    assert sorted(lengths) == expected
    np.testing.assert_array_equal(returns, 0.5 * lengths)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_the_quota_holds_in_all_modes(scripted, fixed_actor, foreign, mode):
    for wrap in (foreign, lambda env: env):
        if wrap is foreign and mode is AutoresetMode.DISABLED:
            continue  # what it would be to wrap a vector that resets by mask is no new case
        env, spec = lengths_of(scripted, 1, 4, 3, wrap=wrap, mode=mode)
        returns, lengths = play_episodes(env, spec, fixed_actor(3), no_noise, 6, seed=0)
        assert sorted(lengths) == [1, 1, 3, 3, 4, 4]
        np.testing.assert_array_equal(returns, 0.5 * lengths)


def test_the_seed_is_that_of_the_environments(counter, fixed_actor):
    env = SyncVectorEnv([counter] * 2, autoreset_mode=AutoresetMode.DISABLED)
    spec = ObservationSpec(env.single_observation_space)
    first, again, other = (play_episodes(env, spec, fixed_actor(2), no_noise, 20, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.tolist() != other.tolist()


def test_noise_is_drawn_anew_every_256_steps(scripted, fixed_actor):
    env, spec = lengths_of(scripted, 300)
    actor, chunks = fixed_actor(1), []

    def noise(chunk):
        chunks.append(chunk)
        return 1000.0 * chunk + np.arange(256.0)[:, None]

    play_episodes(env, spec, actor, noise, 1, seed=0)
    assert chunks == [0, 1]
    assert np.ravel(actor.noises).tolist() == [*range(256), *range(1000, 1044)]


def test_the_sum_of_an_evaluation(scripted):
    env, _ = lengths_of(scripted, 2, 6)
    agent = pg.PPO(networks=pg.Networks(hidden_units=()), seed=0)
    agent.bind(env.single_observation_space, env.single_action_space)
    before = [np.array(weight) for weight in agent.get_weights()]
    for deterministic in (True, False):
        assert evaluate_policy(agent, env, 4, deterministic, seed=0) == {
            "return": 2.0,
            "return_std": 1.0,
            "return_min": 1.0,
            "return_max": 3.0,
            "length": 4.0,
            "episodes": 4,
            "deterministic": float(deterministic),
        }
    for left, right in zip(before, agent.get_weights(), strict=True):  # random state and normalisers included
        np.testing.assert_array_equal(left, right)


def test_samples_differ_with_the_seed_only():
    class Echo(gym.Env):
        """The return tells the actions."""

        observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(7)

        def reset(self, *, seed=None, options=None):
            self.count = 0
            return np.zeros(1, np.float32), {}

        def step(self, action):
            self.count += 1
            return np.zeros(1, np.float32), float(action), self.count == 30, False, {}

    env = SyncVectorEnv([Echo] * 2, autoreset_mode=AutoresetMode.DISABLED)
    agent = pg.PPO(networks=pg.Networks(hidden_units=()), seed=0)
    agent.bind(env.single_observation_space, env.single_action_space)
    first, again, other = (evaluate_policy(agent, env, 4, False, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert first["return_std"] > 0
    assert evaluate_policy(agent, env, 4, True, seed=1)["return_std"] == 0
