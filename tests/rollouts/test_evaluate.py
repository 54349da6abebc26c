import functools

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import kerasrl_pg as pg
from kerasrl_pg.envs import ObservationSpec
from kerasrl_pg.rollouts.evaluate import Endless, evaluate_policy, play_episodes


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


def parts(agent, deterministic):
    return agent.actor_critic, agent.actor(2, deterministic)


def test_the_sum_of_an_evaluation(scripted):
    env, _ = lengths_of(scripted, 2, 6)
    agent = pg.PPO(networks=pg.Networks(hidden_units=()), seed=0)
    agent.bind(env.single_observation_space, env.single_action_space)
    before = [np.array(weight) for weight in agent.get_weights()]
    for deterministic in (True, False):
        assert evaluate_policy(*parts(agent, deterministic), env, 4, deterministic, seed=0) == {
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
    first, again, other = (evaluate_policy(*parts(agent, False), env, 4, False, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert first["return_std"] > 0
    assert evaluate_policy(*parts(agent, True), env, 4, True, seed=1)["return_std"] == 0


def test_an_episode_without_an_end_has_no_return(forever):
    agent = pg.PPO(networks=pg.Networks(hidden_units=()), seed=0)
    env = forever().unwrapped  # without its time limit
    agent.bind(env.observation_space, env.action_space)
    with pytest.warns(
        UserWarning, match="returns .* unknown, NaN. An episode must end within `max_steps`.*max_steps=30"
    ):
        result = agent.evaluate(type(env), episodes=3, max_steps=30)
    assert np.isnan([result[name] for name in ("return", "return_std", "return_min", "return_max", "length")]).all()
    assert (result["episodes"], result["deterministic"]) == (3, 1.0)
    assert agent.evaluate(forever, episodes=3, max_steps=10)["return"] == 10  # it may take as many as that
    with pytest.raises(
        ValueError, match="`max_steps` must be a whole number of at least 1, or None. Received: max_ste"
    ):
        agent.evaluate(forever, max_steps=0)


@pytest.mark.parametrize("max_steps", [4, 5])
def test_the_longest_episode_that_counts_is_what_is_limited(scripted, fixed_actor, max_steps):
    env, spec = lengths_of(scripted, 2, 5)
    arguments = env, spec, fixed_actor(2), no_noise
    if max_steps == 5:
        assert sorted(play_episodes(*arguments, 6, 0, max_steps)[1]) == [2, 2, 2, 5, 5, 5]
    else:
        # The other one's fifth step is never taken where only the first one's episode counts.
        assert play_episodes(*arguments, 1, 0, max_steps)[1].tolist() == [2]
        with pytest.raises(Endless, match="max_steps=4, and an episode of environment 1 that has not ended"):
            play_episodes(*arguments, 6, 0, max_steps)


def test_what_is_not_finite_is_no_evaluation(scripted):
    space = gym.spaces.Dict(goal=gym.spaces.Discrete(3), robot=gym.spaces.Box(-np.inf, np.inf, (1,)))
    agent = pg.PPO(networks=pg.Networks(hidden_units=()), seed=0)
    agent.bind(space, gym.spaces.Discrete(3))

    def makers(rewards, observations=None):
        return [
            functools.partial(scripted, [0.0] * 4, space=space),
            functools.partial(scripted, rewards, observations, space),
        ]

    for bad in (np.nan, np.inf):
        env = SyncVectorEnv(makers([0.0] * 4, [0, 0, bad, 0, 0]))
        sentence = (
            rf"`observation\['robot'\]` must be finite. Received: \[{bad}\] from environment 1 in step 2 of the eval"
        )
        with pytest.raises(ValueError, match=sentence):
            agent.evaluate(env, episodes=2)
        with pytest.raises(
            ValueError, match=f"`rewards` must be finite. Received: {bad} from environment 1 in step 1 of"
        ):
            agent.evaluate(SyncVectorEnv(makers([0.0, bad, 0.0, 0.0])), episodes=2)


@pytest.mark.parametrize("head", ["categorical", "gaussian"])
def test_a_policy_that_is_not_finite_has_no_return_and_no_action_and_no_export(head, bandit, tmp_path):
    space = gym.spaces.Discrete(2) if head == "categorical" else gym.spaces.Box(-1, 1, (2,))
    agent = pg.A2C(networks=pg.Networks(hidden_units=(4,)), seed=0)
    make = bandit(space)
    agent.bind(make().observation_space, space)
    agent.policy.layers[1].kernel.assign(np.full((2, 4), np.nan))
    sentence = "`log_probs`( of the policy)? must be finite. Received: nan "
    for deterministic in (True, False):
        with pytest.raises(ValueError, match=f"{sentence}from environment 0 in step 0 of the evaluation"):
            agent.evaluate(make, episodes=2, deterministic=deterministic)
        with pytest.raises(ValueError, match=f"{sentence}for observation 0 of `act`. Its weights are not"):
            agent.act([0.1, 0.2], deterministic)
    for verify in (True, False):
        with pytest.raises(ValueError, match="The policy's weights must be finite to be exported"):
            agent.export(tmp_path / "1", verify)
    assert not (tmp_path / "1").exists()


@pytest.mark.parametrize(
    "observation, sentence",
    [
        (
            {"goal": 1, "robot": [np.nan]},
            r"`observation\['robot'\]` must be finite. Received: \[nan\] for observation 0",
        ),
        (
            {"goal": [1, 1], "robot": [[0], [np.inf]]},
            r"`observation\['robot'\]` must be finite.* for observation 1 of `ac",
        ),
        ({"goal": 1, "robot": [1e39]}, r"`observation\['robot'\]` must be within float32"),
        ({"goal": 1, "robot": ["0"]}, r"`observation\['robot'\]` must be numbers"),
        ({"goal": 3, "robot": [0]}, r"`observation\['goal'\]` must be one of the choices"),
        (
            {"goal": [0, -1], "robot": [[0], [0]]},
            r"`observation\['goal'\]` must be one .*: -1 for observation 1 of `act`",
        ),
        ({"goal": 0.0, "robot": [0]}, r"`observation\['goal'\]` must be whole numbers"),
        ({"goal": [0, 1], "robot": [[0]]}, r"`observation\['robot'\]` must be numbers of shape \(1,\)"),
        ({"goal": 0}, r"`observation` must be nested .* hold observation\['robot'\]"),
        ([0.1], r"`observation` must be nested .* hold observation\['goal'\]"),
    ],
)
def test_act_judges_observations_too(observation, sentence):
    agent = pg.A2C(networks=pg.Networks(hidden_units=()), seed=0)
    agent.bind(
        gym.spaces.Dict(goal=gym.spaces.Discrete(3), robot=gym.spaces.Box(-np.inf, np.inf, (1,))),
        gym.spaces.Discrete(3),
    )
    assert agent.act({"goal": 2, "robot": [0]}) in (0, 1, 2)
    assert agent.act({"goal": [2, 0], "robot": [[0], [1]]}).shape == (2,)
    with pytest.raises(ValueError, match=sentence):
        agent.act(observation)
